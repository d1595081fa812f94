/* Orgs: their rows.
 *
 * An org's number is the high part of every sequence number of its records, so it is never used
 * twice: rows are not deleted, and the next number is one more than the highest.
 *
 * Happy path: check the name, insert, RETURNING the number.
 * Failure modes: a name that is taken gives ERR_EXISTS and changes nothing; more orgs than sequence
 * numbers have room for: ERR_FULL. */
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "manage/manage.h"
#include "store/store.h"

#define ID_KEY_BYTES 32u

#define ORG_COLUMNS                                                                                \
    "o.number, o.id, o.name, o.tier, o.created_ms,"                                                \
    " (SELECT count(*) FROM keys k WHERE k.org = o.number AND k.revoked_ms = 0)"

static bool tier_is_shaped(struct slice tier)
{
    for (size_t i = 0; i < tier.size; i++) {
        if (tier.data[i] < 'a' || tier.data[i] > 'z') {
            return false;
        }
    }
    return tier.size > 0 && tier.size <= MANAGE_ORG_TIER_BYTES_MAX;
}

/* ERR_NOT_FOUND: no row. Gives the first column of the row. */
static enum err step_number(struct store_statement *statement, uint64_t *ret_number)
{
    bool is_row = false;
    enum err err = store_step(statement, &is_row);
    if (err != ERR_OK || !is_row) {
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    }
    *ret_number = (uint64_t)store_column_i64(statement, 0);
    store_reset(statement);
    return ERR_OK;
}

enum err manage_org_create(struct store_connection *connection, struct slice name,
                           struct slice tier, struct manage_org *ret)
{
    struct store_statement *statement;
    uint8_t id_key[ID_KEY_BYTES];
    uint64_t number;
    int64_t now_ms = clock_wall_ms();
    struct id id = id_make_v7(now_ms);
    if (name.size == 0 || name.size > MANAGE_ORG_NAME_BYTES_MAX || !slice_is_printable(name) ||
        !tier_is_shaped(tier)) {
        return ERR_INVALID;
    }
    enum err err = store_prepare(
        connection,
        "INSERT INTO orgs (id, name, tier, id_key, created_ms) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (name) DO NOTHING RETURNING number",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    hash_random(id_key, sizeof(id_key));
    store_bind_blob(statement, 1, slice_make(id.bytes, sizeof(id.bytes)));
    store_bind_text(statement, 2, name);
    store_bind_text(statement, 3, tier);
    store_bind_blob(statement, 4, slice_make(id_key, sizeof(id_key)));
    store_bind_i64(statement, 5, now_ms);
    err = step_number(statement, &number);
    if (err != ERR_OK) {
        return err == ERR_NOT_FOUND ? ERR_EXISTS : err;
    }
    if (number > STORE_ORG_MAX) {
        return ERR_FULL;
    }
    *ret = (struct manage_org){
        .number = number, .id = id, .name = name, .tier = tier, .created_ms = now_ms};
    return ERR_OK;
}

/* Slices of the row point into the statement. */
static enum err org_read_row(struct store_statement *statement, struct manage_org *ret)
{
    struct slice id = store_column_bytes(statement, 1);
    struct manage_org org = {
        .number = (uint64_t)store_column_i64(statement, 0),
        .name = store_column_bytes(statement, 2),
        .tier = store_column_bytes(statement, 3),
        .created_ms = store_column_i64(statement, 4),
        .key_count = (uint64_t)store_column_i64(statement, 5),
    };
    if (id.size != sizeof(org.id) || org.name.size > MANAGE_ORG_NAME_BYTES_MAX ||
        org.tier.size > MANAGE_ORG_TIER_BYTES_MAX) {
        return ERR_CORRUPT;
    }
    memcpy(org.id.bytes, id.data, id.size);
    *ret = org;
    return ERR_OK;
}

/* The org's slices then point into its own text. */
static void org_keep_text(struct manage_org *org)
{
    memcpy(org->text, org->name.data, org->name.size);
    memcpy(org->text + MANAGE_ORG_NAME_BYTES_MAX, org->tier.data, org->tier.size);
    org->name.data = (const uint8_t *)org->text;
    org->tier.data = (const uint8_t *)org->text + MANAGE_ORG_NAME_BYTES_MAX;
}

static enum err org_find_step(struct store_statement *statement, struct manage_org *ret)
{
    struct manage_org org;
    bool is_row = false;
    enum err err = store_step(statement, &is_row);
    if (err != ERR_OK || !is_row) {
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    }
    err = org_read_row(statement, &org);
    if (err == ERR_OK) {
        *ret = org;
        org_keep_text(ret);
    }
    store_reset(statement);
    return err;
}

enum err manage_org_find(struct store_connection *connection, struct slice name_or_id,
                         struct manage_org *ret)
{
    struct store_statement *statement;
    struct id id;
    if (id_parse(name_or_id, &id)) {
        enum err err = store_prepare(
            connection, "SELECT " ORG_COLUMNS " FROM orgs o WHERE o.id = $1", &statement);
        if (err != ERR_OK) {
            return err;
        }
        store_bind_blob(statement, 1, slice_make(id.bytes, sizeof(id.bytes)));
        err = org_find_step(statement, ret);
        if (err != ERR_NOT_FOUND) {
            return err;
        }
    }
    enum err err = store_prepare(connection, "SELECT " ORG_COLUMNS " FROM orgs o WHERE o.name = $1",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_text(statement, 1, name_or_id);
    return org_find_step(statement, ret);
}

enum err manage_org_list(struct store_connection *connection,
                         void (*on_row)(const struct manage_org *org, void *context), void *context)
{
    struct store_statement *statement;
    bool is_row = false;
    enum err err = store_prepare(connection, "SELECT " ORG_COLUMNS " FROM orgs o ORDER BY o.number",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    err = store_step(statement, &is_row);
    while (err == ERR_OK && is_row) {
        struct manage_org org;
        err = org_read_row(statement, &org);
        if (err != ERR_OK) {
            store_reset(statement);
            return err;
        }
        on_row(&org, context);
        err = store_step(statement, &is_row);
    }
    return err;
}
