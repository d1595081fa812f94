/* Audit: who did what to keys and orgs, one row each, in the transaction of the deed. Failed checks
 * stand in the same table; the ledger counts and writes those.
 *
 * Happy path: insert beside the change; list by number.
 * Failure modes: the store's. */
#include <stddef.h>

#include "base/clock.h"
#include "gate/gate.h"
#include "gate/keys.h"
#include "store/store.h"

enum err gate_audit_insert(struct store_connection *connection, const struct gate_audit *entry)
{
    struct store_statement *statement;
    enum err err =
        store_prepare(connection,
                      "INSERT INTO audit (time_ms, org, key, action, target, address, count)"
                      " VALUES ($1, $2, $3, $4, $5, $6, 1)",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, clock_wall_ms());
    store_bind_i64(statement, 2, (int64_t)entry->org);
    store_bind_i64(statement, 3, (int64_t)entry->key);
    store_bind_text(statement, 4, slice_from_text(entry->action));
    /* An empty text is a text: NULL would be refused. */
    store_bind_text(statement, 5, entry->target.data == NULL ? SLICE_LITERAL("") : entry->target);
    store_bind_text(statement, 6, entry->address.data == NULL ? SLICE_LITERAL("") : entry->address);
    return store_execute(statement);
}

#define AUDIT_LIST_SQL                                                                             \
    "SELECT a.number, a.time_ms, a.action, a.target, a.address, a.count, k.id"                     \
    " FROM audit a LEFT JOIN keys k ON k.number = a.key WHERE a.org = $1 AND a.number "

enum err gate_audit_list(struct store_connection *connection, const struct gate_page *page,
                         void (*on_row)(const struct gate_audit_row *row, void *context),
                         void *context)
{
    struct store_statement *statement = NULL;
    bool is_row = true;
    enum err err =
        gate_page_prepare(connection, page, AUDIT_LIST_SQL "> $2 ORDER BY a.number LIMIT $3",
                          AUDIT_LIST_SQL "< $2 ORDER BY a.number DESC LIMIT $3", &statement);
    while (err == ERR_OK && (err = store_step(statement, &is_row)) == ERR_OK && is_row) {
        struct gate_audit_row row = {
            .number = (uint64_t)store_column_i64(statement, 0),
            .time_ms = store_column_i64(statement, 1),
            .action = store_column_bytes(statement, 2),
            .target = store_column_bytes(statement, 3),
            .address = store_column_bytes(statement, 4),
            .count = (uint64_t)store_column_i64(statement, 5),
            .key_id = store_column_bytes(statement, 6),
        };
        on_row(&row, context);
    }
    return err;
}
