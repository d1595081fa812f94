/* Behind: whether all that other nodes had accepted is applied.
 *
 * A node says in the row of the journal on its own disk up to which time of the database's clock
 * all that it had acknowledged is applied.
 *
 * Happy path: the first question notes the time; each says whether somebody is not there yet.
 * Failure modes: a node that is away with records: it is behind until it is back. */
#include "query/query.h"

#include "store/store.h"

static enum err read_number(struct store_statement *statement, int64_t *ret)
{
    bool has_row = false;
    enum err err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        *ret = store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

enum err query_is_behind(struct store_connection *connection, struct id own, int64_t *since_ms,
                         bool *ret)
{
    struct store_statement *statement = NULL;
    int64_t count = 0;
    enum err err = ERR_OK;
    if (*since_ms == 0) {
        err = store_prepare(connection, store_texts(connection)->now, &statement);
        err = err == ERR_OK ? read_number(statement, since_ms) : err;
    }
    if (err == ERR_OK) {
        err = store_prepare(connection,
                            "SELECT count(*) FROM journals WHERE id <> $1 AND applied_ms <= $2",
                            &statement);
    }
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(own.bytes, sizeof(own.bytes)));
    store_bind_i64(statement, 2, *since_ms);
    err = read_number(statement, &count);
    *ret = count > 0;
    return err;
}
