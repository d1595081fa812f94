/* Version: one number per org that says whether an answer could differ from an earlier one.
 *
 * It is a column of the org's row, raised in the transaction of the change itself, so a reader that
 * sees the change sees the raised number and the other way round. */
#include "query/query.h"

#include "store/store.h"

#include <assert.h>

enum err query_data_version(struct store_connection *connection, uint64_t org,
                            uint64_t *ret_version)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(connection, "SELECT data_version FROM orgs WHERE number = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    err = store_step(statement, &has_row);
    if (err != ERR_OK) {
        return err;
    }
    if (!has_row) {
        return ERR_NOT_FOUND;
    }
    *ret_version = (uint64_t)store_column_i64(statement, 0);
    store_reset(statement);
    return ERR_OK;
}
