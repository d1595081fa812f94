/* Keys: their rows. A row is never deleted: a revoked key keeps its number, its name and the audit
 * that names it.
 *
 * Every change raises the org's data version, except last uses, which the ledger writes.
 *
 * Happy path: one statement, or two, inside the caller's job.
 * Failure modes: a key of another org is answered as one that does not exist. */
#include "gate/keys.h"

#include <string.h>

#include "base/clock.h"
#include "gate/limits.h"
#include "store/store.h"

#define KEY_NAME_BYTES_MAX 100u

static uint32_t column_u32(struct store_statement *statement, int column)
{
    int64_t value = store_column_i64(statement, column);
    if (value < 0) {
        return 0;
    }
    return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static uint32_t tier_requests(struct slice text)
{
    enum gate_tier tier = GATE_TIER_PRO;
    (void)gate_tier_from_text(text, &tier); /* the default stays for a word of a later version */
    return gate_limits_of_tier(tier);
}

/* False when the row is not one that this program writes. */
static bool key_read_row(struct store_statement *statement, uint32_t mb_per_hour,
                         struct gate_key_found *ret)
{
    struct gate_identity *identity = &ret->identity;
    struct slice org_id = store_column_bytes(statement, 2);
    struct slice id_key = store_column_bytes(statement, 3);
    struct slice hash = store_column_bytes(statement, 11);
    if (org_id.size != sizeof(identity->org_id) || id_key.size != sizeof(identity->id_key) ||
        hash.size >= sizeof(ret->hash)) {
        return false;
    }
    identity->key = (uint64_t)store_column_i64(statement, 0);
    identity->org = (uint64_t)store_column_i64(statement, 1);
    memcpy(identity->org_id.bytes, org_id.data, org_id.size);
    memcpy(identity->id_key, id_key.data, id_key.size);
    identity->scopes = (uint32_t)store_column_i64(statement, 4) & GATE_SCOPES_KNOWN;
    identity->requests_per_minute = tier_requests(store_column_bytes(statement, 5));
    identity->key_requests_per_minute = column_u32(statement, 6);
    identity->mb_per_hour =
        store_column_is_null(statement, 7) ? mb_per_hour : column_u32(statement, 7);
    identity->key_mb_per_hour = column_u32(statement, 8);
    identity->expires_ms = store_column_i64(statement, 9);
    struct slice device = store_column_bytes(statement, 12);
    identity->has_device = device.size == sizeof(identity->device);
    if (identity->has_device) {
        memcpy(identity->device.bytes, device.data, device.size);
    }
    ret->revoked_ms = store_column_i64(statement, 10);
    memcpy(ret->hash, hash.data, hash.size);
    ret->hash[hash.size] = '\0';
    return true;
}

enum err gate_key_load(struct store_connection *connection, struct slice id, uint32_t mb_per_hour,
                       struct gate_key_found *ret)
{
    struct store_statement *statement;
    struct gate_key_found found = {0};
    bool is_row = false;
    enum err err = store_prepare(
        connection,
        "SELECT k.number, k.org, o.id, o.id_key, k.scopes, o.tier, k.requests_per_minute,"
        " o.mb_per_hour, k.mb_per_hour, k.expires_ms, k.revoked_ms, k.hash, k.device"
        " FROM keys k JOIN orgs o ON o.number = k.org WHERE k.id = $1",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_text(statement, 1, id);
    err = store_step(statement, &is_row);
    if (err != ERR_OK || !is_row) {
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    }
    bool is_ours = key_read_row(statement, mb_per_hour, &found);
    store_reset(statement);
    if (!is_ours) {
        return ERR_CORRUPT;
    }
    *ret = found;
    return ERR_OK;
}

/* ERR_NOT_FOUND when there is no such org. */
static enum err org_touch(struct store_connection *connection, uint64_t org)
{
    enum err err = store_raise_version(connection, org);
    return err == ERR_OK && store_changes(connection) == 0 ? ERR_NOT_FOUND : err;
}

enum err gate_page_prepare(struct store_connection *connection, const struct gate_page *page,
                           const char *oldest_first, const char *newest_first,
                           struct store_statement **ret)
{
    bool is_first = page->after == 0 && !page->oldest_first;
    enum err err = store_prepare(connection, page->oldest_first ? oldest_first : newest_first, ret);
    if (err == ERR_OK) {
        store_bind_i64(*ret, 1, (int64_t)page->org);
        store_bind_i64(*ret, 2, is_first ? INT64_MAX : (int64_t)page->after);
        store_bind_i64(*ret, 3, page->limit);
    }
    return err;
}

/* Steps a statement that gives at most one row; its first columns become *ret. */
static enum err take_numbers(struct store_statement *statement, uint64_t *ret, int count)
{
    bool is_row = false;
    enum err err = store_step(statement, &is_row);
    if (err != ERR_OK || !is_row) {
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    }
    for (int i = 0; i < count; i++) {
        ret[i] = (uint64_t)store_column_i64(statement, i);
    }
    store_reset(statement);
    return ERR_OK;
}

enum err gate_key_insert(struct store_connection *connection, const struct gate_new_key *key,
                         const struct gate_key_options *options, uint64_t *ret_number)
{
    struct store_statement *statement;
    struct slice name = options->name.data == NULL ? SLICE_LITERAL("") : options->name;
    if (options->scopes == 0 || (options->scopes & ~(uint32_t)GATE_SCOPES_KNOWN) != 0 ||
        name.size > KEY_NAME_BYTES_MAX || !slice_is_printable(name)) {
        return ERR_INVALID;
    }
    enum err err = org_touch(connection, options->org);
    if (err == ERR_OK) {
        err = store_prepare(
            connection,
            "INSERT INTO keys (id, org, name, hash, scopes, requests_per_minute, mb_per_hour,"
            " created_ms, expires_ms, device) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
            " RETURNING number",
            &statement);
    }
    if (err != ERR_OK) {
        return err;
    }
    store_bind_text(statement, 1, slice_from_text(key->id));
    store_bind_i64(statement, 2, (int64_t)options->org);
    store_bind_text(statement, 3, name);
    store_bind_text(statement, 4, slice_from_text(key->hash));
    store_bind_i64(statement, 5, options->scopes);
    store_bind_i64(statement, 6, options->requests_per_minute);
    store_bind_i64(statement, 7, options->mb_per_hour);
    store_bind_i64(statement, 8, clock_wall_ms());
    store_bind_i64(statement, 9, options->expires_ms);
    if (options->has_device) {
        store_bind_blob(statement, 10,
                        slice_make(options->device.bytes, sizeof(options->device.bytes)));
    } else {
        store_bind_null(statement, 10);
    }
    return take_numbers(statement, ret_number, 1);
}

enum err gate_key_revoke(struct store_connection *connection, uint64_t org, struct slice key_id,
                         uint64_t *ret_number)
{
    struct store_statement *statement;
    uint64_t numbers[2]; /* of the key, of its org */
    enum err err = store_prepare(connection,
                                 "UPDATE keys SET revoked_ms = $1 WHERE id = $2 AND revoked_ms = 0"
                                 " AND ($3 = 0 OR org = $3) RETURNING number, org",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, clock_wall_ms());
    store_bind_text(statement, 2, key_id);
    store_bind_i64(statement, 3, (int64_t)org);
    err = take_numbers(statement, numbers, 2);
    if (err == ERR_OK) {
        err = org_touch(connection, numbers[1]);
    }
    if (err == ERR_OK) {
        *ret_number = numbers[0];
    }
    return err;
}

enum err gate_key_replace(struct store_connection *connection, uint64_t org,
                          struct slice old_key_id, const struct gate_new_key *key,
                          uint64_t *ret_old_number, uint64_t *ret_number)
{
    struct store_statement *statement;
    uint64_t number;
    enum err err = store_prepare(
        connection,
        "INSERT INTO keys (id, org, name, hash, scopes, requests_per_minute, mb_per_hour,"
        " created_ms, expires_ms, device) SELECT $1, org, name, $2, scopes, requests_per_minute,"
        " mb_per_hour, $3, expires_ms, device FROM keys WHERE id = $4 AND revoked_ms = 0"
        " AND ($5 = 0 OR org = $5) RETURNING number",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_text(statement, 1, slice_from_text(key->id));
    store_bind_text(statement, 2, slice_from_text(key->hash));
    store_bind_i64(statement, 3, clock_wall_ms());
    store_bind_text(statement, 4, old_key_id);
    store_bind_i64(statement, 5, (int64_t)org);
    err = take_numbers(statement, &number, 1);
    if (err == ERR_OK) {
        err = gate_key_revoke(connection, org, old_key_id, ret_old_number);
    }
    if (err == ERR_OK) {
        *ret_number = number;
    }
    return err;
}

#define KEY_LIST_SQL                                                                               \
    "SELECT number, id, name, scopes, created_ms, expires_ms, revoked_ms, last_used_ms,"           \
    " requests_per_minute, mb_per_hour, device FROM keys WHERE org = $1 AND number "

enum err gate_key_list(struct store_connection *connection, const struct gate_page *page,
                       void (*on_row)(const struct gate_key_row *row, void *context), void *context)
{
    struct store_statement *statement = NULL;
    bool is_row = true;
    enum err err = gate_page_prepare(connection, page, KEY_LIST_SQL "> $2 ORDER BY number LIMIT $3",
                                     KEY_LIST_SQL "< $2 ORDER BY number DESC LIMIT $3", &statement);
    while (err == ERR_OK && (err = store_step(statement, &is_row)) == ERR_OK && is_row) {
        struct gate_key_row row = {
            .number = (uint64_t)store_column_i64(statement, 0),
            .id = store_column_bytes(statement, 1),
            .name = store_column_bytes(statement, 2),
            .scopes = column_u32(statement, 3),
            .created_ms = store_column_i64(statement, 4),
            .expires_ms = store_column_i64(statement, 5),
            .revoked_ms = store_column_i64(statement, 6),
            .last_used_ms = store_column_i64(statement, 7),
            .requests_per_minute = column_u32(statement, 8),
            .mb_per_hour = column_u32(statement, 9),
            .device = store_column_bytes(statement, 10),
        };
        on_row(&row, context);
    }
    return err;
}
