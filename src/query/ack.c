/* Ack: the ids of an acknowledgement become sequences, whose ranges the store keeps.
 *
 * Happy path: id -> sequence, the org's bits of it are checked, the range grows, and the org's data
 * version is raised once. Failure modes: an id that does not exist, or is another org's, is not
 * counted; nobody can tell the two apart. */
#include "query/query.h"

#include "store/store.h"

#include <assert.h>

static enum err query_sequence_of(struct store_connection *connection, struct id id,
                                  uint64_t *ret_sequence)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(connection, "SELECT sequence FROM event_ids WHERE id = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(id.bytes, sizeof(id.bytes)));
    err = store_step(statement, &has_row);
    if (err != ERR_OK || !has_row) {
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    }
    *ret_sequence = (uint64_t)store_column_i64(statement, 0);
    store_reset(statement);
    return ERR_OK;
}

enum err query_acknowledge(struct store_connection *connection, uint64_t org, const struct id *ids,
                           uint32_t count, uint32_t *ret_acknowledged)
{
    uint32_t acknowledged = 0;
    uint32_t changed = 0;
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < count && err == ERR_OK; i++) {
        uint64_t sequence = 0;
        bool was = false;
        err = query_sequence_of(connection, ids[i], &sequence);
        if (err == ERR_NOT_FOUND || (err == ERR_OK && sequence >> STORE_ORG_SHIFT != org)) {
            err = ERR_OK;
            continue;
        }
        if (err == ERR_OK) {
            err = store_event_acknowledge(connection, sequence, &was);
            acknowledged++;
            changed += was ? 0 : 1;
        }
    }
    if (err == ERR_OK && changed > 0) {
        err = query_raise_version(connection, org);
    }
    if (err == ERR_OK) {
        *ret_acknowledged = acknowledged;
    }
    return err;
}
