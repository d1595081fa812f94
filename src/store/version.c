/* Version: one number per org that says whether an answer could differ from an earlier one. It is a
 * column of the org's row, so whoever sees a change sees the raised number and the other way round.
 */
#include "store/store.h"

enum err store_raise_version(struct store_connection *connection, uint64_t org)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        connection, "UPDATE orgs SET data_version = data_version + 1 WHERE number = $1",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    return store_execute(statement);
}
