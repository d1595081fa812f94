/* Leases: rows that say which node does what only one may do at a time.
 *
 * A row names its holder and until when, by the clock of the database, which is the same for all
 * nodes. Whoever does the work takes the lease anew in the transaction of each part of it: the row
 * is locked then, so a holder that was thought dead cannot commit beside its successor. A holder
 * that dies is replaced when its time is over, one that stops gives the lease up.
 *
 * Failure modes: any error fails the job, whose transaction is rolled back. */
#include "store/store.h"

struct lease {
    const char *name;
    uint64_t holder;
    uint32_t ttl_ms;
};

static enum err run(struct store_connection *connection, const char *sql, const struct lease *lease,
                    bool *ret_held)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, sql, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_text(statement, 1, slice_from_text(lease->name));
    store_bind_i64(statement, 2, (int64_t)lease->holder);
    store_bind_i64(statement, 3, lease->ttl_ms);
    err = store_step(statement, &has_row);
    if (err == ERR_OK) {
        *ret_held = has_row;
    }
    if (err == ERR_OK && has_row) {
        err = store_execute(statement); /* to its end */
    }
    return err;
}

enum err store_lease_take(struct store_connection *connection, const char *name, uint64_t holder,
                          uint32_t ttl_ms, bool *ret_held)
{
    struct lease lease = {.name = name, .holder = holder, .ttl_ms = ttl_ms};
    return run(connection, store_texts(connection)->take_lease, &lease, ret_held);
}

enum err store_lease_claim(struct store_connection *connection, const char *name, uint64_t holder,
                           uint32_t ttl_ms, bool *ret_held)
{
    struct lease lease = {.name = name, .holder = holder, .ttl_ms = ttl_ms};
    return run(connection, store_texts(connection)->claim_lease, &lease, ret_held);
}

enum err store_lease_give_up(struct store_connection *connection, const char *name, uint64_t holder)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(connection, "DELETE FROM leases WHERE name = $1 AND holder = $2", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_text(statement, 1, slice_from_text(name));
    store_bind_i64(statement, 2, (int64_t)holder);
    return store_execute(statement);
}
