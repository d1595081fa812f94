/* Silence: devices that were heard of and then were not, for as long as their interval or their org
 * says. When that changes, all its devices follow, some at a time; the org's row says how far
 * that is.
 *
 * Happy path: those that are due are taken in the order of their time, marked, and told. A device
 * of which somebody else writes a reading meanwhile is not marked, or the writer meets the mark.
 * Failure modes: the store's; what was found is found again. */
#include "store/readings_batch.h"

#include <assert.h>

static const char device_columns[] =
    "SELECT d.id, s.id, p.id, d.name, d.external_id, d.interval_s FROM devices d"
    " JOIN sites s ON s.number = d.site JOIN projects p ON p.number = s.project"
    " WHERE d.org = $1 AND d.number = $2";

enum err store_tell_device(struct store_connection *connection, uint64_t number,
                           struct store_device_change *change, store_on_device on_device,
                           void *context)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, device_columns, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)change->org);
    store_bind_i64(statement, 2, (int64_t)number);
    err = store_step(statement, &has_row);
    if (err != ERR_OK || !has_row) {
        return err;
    }
    change->id = store_column_bytes(statement, 0).data;
    change->site = store_column_bytes(statement, 1).data;
    change->project = store_column_bytes(statement, 2).data;
    change->name = store_column_bytes(statement, 3);
    change->external_id = store_column_bytes(statement, 4);
    change->interval_s = store_column_i64(statement, 5);
    err = on_device(connection, change, context);
    store_reset(statement);
    return err;
}

static enum err next_due(struct store_connection *connection, int64_t *ret_due_ms)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(
        connection, "SELECT due_ms FROM device_states WHERE silent_ms = 0 ORDER BY due_ms LIMIT 1",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    err = store_step(statement, &has_row);
    *ret_due_ms = INT64_MAX;
    if (err == ERR_OK && has_row) {
        *ret_due_ms = store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

/* One that is due: its org and number, and when it was heard of last. */
struct due {
    uint64_t org;
    uint64_t device;
    int64_t last_received_ms;
    bool is_active; /* nobody waits for one that was taken out of use */
};

static enum err take_due(struct store_connection *connection, int64_t now_ms, struct due *ret,
                         bool *ret_has)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(connection,
                      "SELECT t.org, t.device, t.last_received_ms, d.status FROM device_states t"
                      " JOIN devices d ON d.number = t.device"
                      " WHERE t.silent_ms = 0 AND t.due_ms <= $1 ORDER BY t.due_ms LIMIT 1",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, now_ms);
    err = store_step(statement, ret_has);
    if (err == ERR_OK && *ret_has) {
        ret->org = (uint64_t)store_column_i64(statement, 0);
        ret->device = (uint64_t)store_column_i64(statement, 1);
        ret->last_received_ms = store_column_i64(statement, 2);
        ret->is_active = slice_equal(store_column_bytes(statement, 3), SLICE_LITERAL("active"));
        store_reset(statement);
    }
    return err;
}

#define IF_STILL_DUE " WHERE org = $2 AND device = $3 AND silent_ms = 0 AND due_ms <= $4"

/* One that nobody waits for is not silent, which nobody was told either: it is not due until it is
 * heard of again. *ret_is_marked false: a reading of it was under way elsewhere, and is there now.
 */
static enum err mark_silent(struct store_connection *connection, const struct due *due,
                            int64_t now_ms, bool *ret_is_marked)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(connection,
                      due->is_active ? "UPDATE device_states SET silent_ms = $1" IF_STILL_DUE
                                     : "UPDATE device_states SET due_ms = $1" IF_STILL_DUE,
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, due->is_active ? now_ms : INT64_MAX);
    store_bind_i64(statement, 2, (int64_t)due->org);
    store_bind_i64(statement, 3, (int64_t)due->device);
    store_bind_i64(statement, 4, now_ms);
    err = store_execute(statement);
    *ret_is_marked = err == ERR_OK && store_changes(connection) > 0;
    return err;
}

/* The same as store_device_due_ms, of rows that stand. */
#define UPDATE_DUE                                                                                 \
    "UPDATE device_states SET due_ms = (SELECT CASE WHEN o.silence_hours = 0 THEN $2"              \
    " ELSE device_states.last_received_ms"                                                         \
    " + coalesce(3600000 * o.silence_hours, 3000 * d.interval_s) END"                              \
    " FROM devices d JOIN orgs o ON o.number = d.org WHERE d.number = device_states.device)"       \
    " WHERE org = $1"

enum err store_device_due(struct store_connection *connection, uint64_t org, const uint8_t *device)
{
    static_assert(STORE_SILENT_INTERVALS == 3 && STORE_HOUR_MS == 3600000, "as in the statement");
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        connection,
        UPDATE_DUE " AND device = (SELECT n.number FROM devices n WHERE n.org = $1 AND n.id = $3)",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, STORE_NEVER_MS);
    store_bind_blob(statement, 3, slice_make(device, STORE_ID_BYTES));
    return store_execute(statement);
}

/* The last of `limit` devices behind `after`; without one there are fewer. */
static enum err last_of_part(struct store_connection *connection, uint64_t org, uint32_t limit,
                             uint64_t after, uint64_t *ret, bool *ret_has)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection,
                                 "SELECT device FROM device_states WHERE org = $1 AND device > $2"
                                 " ORDER BY device LIMIT 1 OFFSET $3",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)after);
    store_bind_i64(statement, 3, limit - 1);
    err = store_step(statement, ret_has);
    if (err == ERR_OK && *ret_has) {
        *ret = (uint64_t)store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

/* Locks the org's row, so that no other goes on with it beside, nor sets it anew. */
static enum err take_place(struct store_connection *connection, uint64_t org, uint64_t *ret,
                           bool *ret_has)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection,
                                 "UPDATE orgs SET due_after = due_after WHERE number = $1"
                                 " AND due_after IS NOT NULL RETURNING due_after",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    err = store_step(statement, ret_has);
    if (err == ERR_OK && *ret_has) {
        *ret = (uint64_t)store_column_i64(statement, 0);
        err = store_execute(statement); /* to its end */
    }
    return err;
}

static enum err keep_place(struct store_connection *connection, uint64_t org, uint64_t place,
                           bool has_more)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(connection, "UPDATE orgs SET due_after = $2 WHERE number = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    if (has_more) {
        store_bind_i64(statement, 2, (int64_t)place);
    } else {
        store_bind_null(statement, 2);
    }
    return store_execute(statement);
}

static enum err update_part(struct store_connection *connection, uint64_t org, uint64_t after,
                            uint64_t last)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(connection, UPDATE_DUE " AND device > $3 AND device <= $4", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, STORE_NEVER_MS);
    store_bind_i64(statement, 3, (int64_t)after);
    store_bind_i64(statement, 4, (int64_t)last);
    return store_execute(statement);
}

enum err store_devices_due(struct store_connection *connection, uint64_t org, uint32_t limit,
                           bool *ret_has_more)
{
    uint64_t after = 0;
    uint64_t last = INT64_MAX;
    bool has_place = false;
    bool has_more = false;
    assert(limit > 0);
    enum err err = take_place(connection, org, &after, &has_place);
    if (err == ERR_OK && has_place) {
        err = last_of_part(connection, org, limit, after, &last, &has_more);
    }
    if (err == ERR_OK && has_place) {
        err = update_part(connection, org, after, last);
    }
    if (err == ERR_OK && has_place) {
        err = keep_place(connection, org, last, has_more);
    }
    if (err == ERR_OK) {
        *ret_has_more = has_more;
    }
    return err;
}

enum err store_orgs_due(struct store_connection *connection, uint32_t limit, bool *ret_has_more)
{
    struct store_statement *statement = NULL;
    bool has_org = false;
    enum err err = store_prepare(
        connection, "SELECT number FROM orgs WHERE due_after IS NOT NULL ORDER BY number LIMIT 1",
        &statement);
    if (err == ERR_OK) {
        err = store_step(statement, &has_org);
    }
    if (err == ERR_OK && has_org) {
        uint64_t org = (uint64_t)store_column_i64(statement, 0);
        bool has_more = false;
        store_reset(statement);
        err = store_devices_due(connection, org, limit, &has_more);
    }
    if (err == ERR_OK) {
        *ret_has_more = has_org; /* maybe of another */
    }
    return err;
}

enum err store_find_silent(struct store_connection *connection, int64_t now_ms, uint32_t limit,
                           store_on_device on_silent, void *context, int64_t *ret_due_ms)
{
    bool has_one = true;
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < limit && has_one && err == ERR_OK; i++) {
        struct due due = {.org = 0};
        bool is_marked = false;
        err = take_due(connection, now_ms, &due, &has_one);
        if (err != ERR_OK || !has_one) {
            break;
        }
        err = store_raise_version(connection, due.org); /* before its state, as applying */
        if (err == ERR_OK) {
            err = mark_silent(connection, &due, now_ms, &is_marked);
        }
        if (err == ERR_OK && is_marked && due.is_active) {
            struct store_device_change change = {
                .org = due.org, .last_received_ms = due.last_received_ms, .silent_ms = now_ms};
            err = store_tell_device(connection, due.device, &change, on_silent, context);
        }
    }
    return err != ERR_OK ? err : next_due(connection, ret_due_ms);
}
