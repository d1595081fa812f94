/* Versions: a project's registry as it stood when somebody published it.
 *
 * The config is the project, its sites, devices and parameters as JSON, in the order of their
 * making; the checksum is the SHA-256 of exactly these bytes, so whoever has the config can check
 * it.
 *
 * Happy path: publish makes the config, takes the next number, and keeps it.
 * Failure modes: a config above the buffer's limit: ERR_TOO_LARGE. */
#include "manage/registry.h"

#include "base/clock.h"
#include "base/limits.h"
#include "store/store.h"
#include "json/json.h"

#include <sodium.h>

#define HASH_TEXT_BYTES ((size_t)2 * crypto_hash_sha256_BYTES)

static enum err write_kind(struct store_connection *connection, enum manage_kind kind, uint64_t org,
                           struct id project, struct buffer *to)
{
    struct manage_list list = {
        .kind = kind, .org = org, .oldest_first = true, .limit = LIMIT_LIST_MAX};
    bool has_more = true;
    list.has_parent = kind != MANAGE_DEVICE;
    list.has_project = kind == MANAGE_DEVICE;
    list.parent = project;
    list.project = project;
    enum err err = buffer_printf(to, ",\"%s\":[", manage_kind(kind)->name);
    while (err == ERR_OK && has_more) {
        if (list.after != 0) {
            err = buffer_append_byte(to, ',');
        }
        if (err == ERR_OK) {
            err = manage_registry_list(connection, &list, to, &has_more, &list.after);
        }
    }
    return err != ERR_OK ? err : buffer_append_byte(to, ']');
}

static enum err make_config(struct store_connection *connection, uint64_t org, struct id project,
                            struct buffer *to)
{
    enum err err = buffer_append_text(to, "{\"project\":");
    if (err == ERR_OK) {
        err = manage_registry_get(connection, MANAGE_PROJECT, org, project, to);
    }
    if (err == ERR_OK) {
        err = write_kind(connection, MANAGE_SITE, org, project, to);
    }
    if (err == ERR_OK) {
        err = write_kind(connection, MANAGE_DEVICE, org, project, to);
    }
    if (err == ERR_OK) {
        err = write_kind(connection, MANAGE_PARAMETER, org, project, to);
    }
    return err != ERR_OK ? err : buffer_append_byte(to, '}');
}

static enum err next_version(struct store_connection *connection, uint64_t org, uint64_t project,
                             int64_t *ret)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(connection,
                      "SELECT coalesce(max(version), 0) + 1 FROM registry_versions WHERE org = $1"
                      " AND project = $2",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)project);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        *ret = store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

static enum err insert_version(struct store_connection *connection, uint64_t org, uint64_t project,
                               int64_t version, uint64_t key, struct slice config)
{
    struct store_statement *statement = NULL;
    uint8_t hash[crypto_hash_sha256_BYTES];
    char text[HASH_TEXT_BYTES + 1];
    enum err err = store_prepare(
        connection,
        "INSERT INTO registry_versions (org, project, version, checksum, author, config,"
        " created_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    (void)crypto_hash_sha256(hash, config.data, config.size); /* cannot fail */
    (void)sodium_bin2hex(text, sizeof(text), hash, sizeof(hash));
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)project);
    store_bind_i64(statement, 3, version);
    store_bind_text(statement, 4, slice_make(text, HASH_TEXT_BYTES));
    store_bind_i64(statement, 5, (int64_t)key);
    store_bind_text(statement, 6, config);
    store_bind_i64(statement, 7, clock_wall_ms());
    return store_execute(statement);
}

enum err manage_publish(struct store_connection *connection, uint64_t org, struct id project,
                        uint64_t key, struct buffer *to, uint64_t *ret_version)
{
    struct buffer config;
    uint64_t number = 0;
    int64_t version = 0;
    buffer_init(&config, MANAGE_CONFIG_BYTES_MAX);
    enum err err = manage_registry_lock(connection, org);
    if (err == ERR_OK) {
        err = manage_registry_number(connection, MANAGE_PROJECT, org, project, &number);
    }
    if (err == ERR_OK) {
        err = make_config(connection, org, project, &config);
    }
    if (err == ERR_OK) {
        err = next_version(connection, org, number, &version);
    }
    if (err == ERR_OK) {
        err = insert_version(connection, org, number, version, key, buffer_slice(&config));
    }
    if (err == ERR_OK) {
        err = store_raise_version(connection, org);
    }
    buffer_finish(&config);
    *ret_version = (uint64_t)version;
    return err != ERR_OK
               ? err
               : manage_version_get(connection, org, project, (uint64_t)version, false, to);
}

/* --- reading ------------------------------------------------------------------------------- */

#define VERSION_SQL "SELECT v.version, v.checksum, k.id, v.created_ms"
#define VERSION_FROM                                                                               \
    " FROM registry_versions v JOIN keys k ON k.number = v.author"                                 \
    " WHERE v.org = $1 AND v.project = $2"

static enum err write_version(struct store_statement *statement, struct id project,
                              bool with_config, struct buffer *to)
{
    struct json_writer writer;
    json_writer_init(&writer, to);
    json_write_object_begin(&writer);
    json_write_member_id(&writer, "project_id", project);
    json_write_member_i64(&writer, "version", store_column_i64(statement, 0));
    json_write_member_string(&writer, "checksum", store_column_bytes(statement, 1));
    json_write_member_string(&writer, "author", store_column_bytes(statement, 2));
    json_write_member_time(&writer, "created_at", store_column_i64(statement, 3));
    if (with_config) {
        json_write_key(&writer, "config");
        json_write_raw(&writer, store_column_bytes(statement, MANAGE_VERSION_CONFIG));
    }
    json_write_object_end(&writer);
    return json_writer_err(&writer);
}

enum err manage_versions(struct store_connection *connection, uint64_t org, struct id project,
                         uint32_t limit, struct buffer *to, struct manage_place *place)
{
    struct store_statement *statement = NULL;
    uint64_t number = 0;
    uint32_t count = 0;
    bool has_row = true;
    enum err err = manage_registry_number(connection, MANAGE_PROJECT, org, project, &number);
    if (err == ERR_OK) {
        err = store_prepare(connection,
                            VERSION_SQL VERSION_FROM " AND v.version < $3"
                                                     " ORDER BY v.version DESC LIMIT $4",
                            &statement);
    }
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)number);
    store_bind_i64(statement, 3, place->place == 0 ? INT64_MAX : (int64_t)place->place);
    store_bind_i64(statement, 4, (int64_t)limit + 1);
    place->has_more = false;
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        if (count == limit) {
            place->has_more = true;
            break;
        }
        place->place = (uint64_t)store_column_i64(statement, 0);
        err = count++ > 0 ? buffer_append_byte(to, ',') : ERR_OK;
        if (err == ERR_OK) {
            err = write_version(statement, project, false, to);
        }
        if (err != ERR_OK) {
            break;
        }
    }
    store_reset(statement);
    return err;
}

enum err manage_version_find(struct store_connection *connection, uint64_t org, uint64_t project,
                             uint64_t version, struct store_statement **ret)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(
        connection, VERSION_SQL ", v.config" VERSION_FROM " AND v.version = $3", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)project);
    store_bind_i64(statement, 3, (int64_t)version);
    err = store_step(statement, &has_row);
    if (err != ERR_OK || !has_row) {
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    }
    *ret = statement;
    return ERR_OK;
}

enum err manage_version_get(struct store_connection *connection, uint64_t org, struct id project,
                            uint64_t version, bool with_config, struct buffer *to)
{
    struct store_statement *statement = NULL;
    uint64_t number = 0;
    enum err err = manage_registry_number(connection, MANAGE_PROJECT, org, project, &number);
    if (err == ERR_OK) {
        err = manage_version_find(connection, org, number, version, &statement);
    }
    if (err == ERR_OK) {
        err = write_version(statement, project, with_config, to);
        store_reset(statement);
    }
    return err;
}
