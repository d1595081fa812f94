/* Registry: projects, sites, devices and parameters, by one table of kinds and their fields.
 *
 * Happy path: what is given is checked by the table, the parent is found among the org's own, and
 * one statement, made from the table, writes the row. Reading goes the same way back.
 *
 * Failure modes: a value that is not permitted is named with its field. A name that is taken:
 * ERR_EXISTS. What something belongs to cannot be deleted: ERR_EXISTS too (ERR_BUSY is the engine);
 * readings are never deleted with a device, whose status takes it out of use. */
#include "manage/registry.h"

#include "base/clock.h"
#include "base/limits.h"
#include "store/store.h"
#include "json/json.h"

#include <assert.h>

#define NAME_BYTES_MAX 100
#define TEXT_BYTES_MAX 1000
#define JSON_BYTES_MAX 10000
#define SQL_BYTES_MAX  4096u

static const struct manage_field project_fields[] = {
    {.name = "name", .column = "name", .is_required = true, .max = NAME_BYTES_MAX},
    {.name = "description", .column = "description", .max = TEXT_BYTES_MAX},
};

static const struct manage_field site_fields[] = {
    {.name = "name", .column = "name", .is_required = true, .max = NAME_BYTES_MAX},
    {.name = "location", .column = "location", .type = MANAGE_JSON, .max = JSON_BYTES_MAX},
};

static const struct manage_field device_fields[] = {
    {.name = "name", .column = "name", .is_required = true, .max = NAME_BYTES_MAX},
    {.name = "device_type", .column = "device_type", .max = NAME_BYTES_MAX},
    {.name = "external_id", .alias = "device_code", .column = "external_id", .max = NAME_BYTES_MAX},
    {.name = "status", .column = "status", .absent = "active", .max = NAME_BYTES_MAX},
    {.name = "interval_s",
     .column = "interval_s",
     .type = MANAGE_WHOLE,
     .absent = "60",
     .min = 1,
     .max = 604800},
};

static const struct manage_field parameter_fields[] = {
    {.name = "name",
     .alias = "parameter_name",
     .column = "name",
     .is_required = true,
     .is_fixed = true,
     .max = NAME_BYTES_MAX},
    {.name = "unit", .column = "unit", .max = NAME_BYTES_MAX},
    {.name = "dtype", .column = "dtype", .absent = "float", .max = NAME_BYTES_MAX},
    {.name = "min", .alias = "min_value", .column = "min_value", .type = MANAGE_NUMBER},
    {.name = "max", .alias = "max_value", .column = "max_value", .type = MANAGE_NUMBER},
    {.name = "policy", .column = "policy", .words = "|reject|clamp|flag|", .absent = "flag"},
    {.name = "required", .column = "required", .type = MANAGE_BOOL, .absent = "0"},
    {.name = "description", .column = "description", .max = TEXT_BYTES_MAX},
    {.name = "frequency",
     .alias = "frequency_s",
     .column = "frequency_s",
     .type = MANAGE_WHOLE,
     .min = 1,
     .max = 604800},
};

#define FIELDS(array) (array), sizeof(array) / sizeof((array)[0])
static_assert(sizeof(parameter_fields) / sizeof(parameter_fields[0]) <= MANAGE_FIELDS_MAX,
              "an entity has room for them");

static const struct manage_kind_row kinds[MANAGE_KINDS] = {
    [MANAGE_PROJECT] = {"projects", NULL, FIELDS(project_fields), MANAGE_KINDS},
    [MANAGE_SITE] = {"sites", "project_id", FIELDS(site_fields), MANAGE_PROJECT},
    [MANAGE_DEVICE] = {"devices", "site_id", FIELDS(device_fields), MANAGE_SITE},
    [MANAGE_PARAMETER] = {"parameters", "project_id", FIELDS(parameter_fields), MANAGE_PROJECT},
};

/* Columns by which a row points to its parent. */
static const char *const parent_columns[MANAGE_KINDS] = {NULL, "project", "site", "project"};

const struct manage_kind_row *manage_kind(enum manage_kind kind)
{
    assert(kind < MANAGE_KINDS);
    return &kinds[kind];
}

/* --- small things -------------------------------------------------------------------------- */

enum err manage_snake(struct slice name, struct buffer *to)
{
    size_t before = to->size;
    bool is_gap = false;
    enum err err = ERR_OK;
    for (size_t i = 0; i < name.size && err == ERR_OK; i++) {
        uint8_t c = name.data[i];
        bool is_upper = c >= 'A' && c <= 'Z';
        /* Bytes of other scripts are kept as they are: they are letters to their readers. */
        if (!is_upper && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c < 0x80) {
            is_gap = to->size > before;
            continue;
        }
        if (is_gap) {
            err = buffer_append_byte(to, '_');
            is_gap = false;
        }
        if (err == ERR_OK) {
            err = buffer_append_byte(to, is_upper ? (uint8_t)(c + 32) : c);
        }
    }
    return err == ERR_OK && to->size == before ? ERR_INVALID : err;
}

static enum err refuse(struct manage_fault *fault, const char *field, const char *message)
{
    fault->field = field;
    fault->message = message;
    return ERR_INVALID;
}

enum err manage_registry_number(struct store_connection *connection, enum manage_kind kind,
                                uint64_t org, struct id id, uint64_t *ret)
{
    static const char *const texts[MANAGE_KINDS] = {
        "SELECT number FROM projects WHERE org = $1 AND id = $2",
        "SELECT number FROM sites WHERE org = $1 AND id = $2",
        "SELECT number FROM devices WHERE org = $1 AND id = $2",
        "SELECT number FROM parameters WHERE org = $1 AND id = $2",
    };
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, texts[kind], &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_blob(statement, 2, slice_make(id.bytes, sizeof(id.bytes)));
    err = store_step(statement, &has_row);
    if (err != ERR_OK || !has_row) {
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    }
    *ret = (uint64_t)store_column_i64(statement, 0);
    store_reset(statement);
    return ERR_OK;
}

enum err manage_registry_exists(struct store_connection *connection, enum manage_kind kind,
                                uint64_t org, struct id id)
{
    uint64_t number = 0;
    return manage_registry_number(connection, kind, org, id, &number);
}

/* --- checks -------------------------------------------------------------------------------- */

static bool is_word(const char *words, struct slice text)
{
    const char *at = words;
    while (at[1] != 0) {
        const char *end = strchr(at + 1, '|');
        assert(end != NULL);
        if (slice_equal(text, slice_make(at + 1, (size_t)(end - at - 1)))) {
            return true;
        }
        at = end;
    }
    return false;
}

static const char *check_text(const struct manage_field *field, struct slice text)
{
    if (text.size == 0 && field->is_required) {
        return "must not be empty";
    }
    if (!slice_is_printable(text)) {
        return "must be printable UTF-8";
    }
    if (field->words != NULL) {
        return is_word(field->words, text) ? NULL : "is not one of the known words";
    }
    return text.size > (size_t)field->max ? "is longer than the limit" : NULL;
}

static const char *check_value(const struct manage_field *field, const struct manage_value *value)
{
    if (value->is_null) {
        return field->is_required || field->absent != NULL ? "must not be null" : NULL;
    }
    switch (field->type) {
    case MANAGE_TEXT:
        return check_text(field, value->text);
    case MANAGE_JSON:
        return value->text.size > (size_t)field->max ? "is longer than the limit" : NULL;
    case MANAGE_WHOLE:
        return value->whole < field->min || value->whole > field->max ? "is out of range" : NULL;
    case MANAGE_NUMBER:
    case MANAGE_BOOL:
        break;
    }
    return NULL;
}

enum { PARAMETER_NAME = 0, PARAMETER_MIN = 3, PARAMETER_MAX = 4 };

static enum err check_entity(enum manage_kind kind, const struct manage_entity *entity, bool is_new,
                             struct manage_fault *ret_fault)
{
    const struct manage_kind_row *row = &kinds[kind];
    for (uint32_t i = 0; i < row->field_count; i++) {
        const struct manage_field *field = &row->fields[i];
        const struct manage_value *value = &entity->values[i];
        if (is_new && field->is_required && !value->is_set) {
            return refuse(ret_fault, field->name, "is required");
        }
        const char *message = value->is_set ? check_value(field, value) : NULL;
        if (message != NULL) {
            return refuse(ret_fault, field->name, message);
        }
        if (!is_new && value->is_set && field->is_fixed) {
            return refuse(ret_fault, field->name, "cannot be changed");
        }
    }
    return ERR_OK;
}

static void bind_value(struct store_statement *statement, int parameter,
                       const struct manage_field *field, const struct manage_value *value)
{
    if (value->is_set && value->is_null) {
        store_bind_null(statement, parameter);
    } else if (!value->is_set) {
        int64_t whole = 0;
        if (field->absent == NULL) {
            store_bind_null(statement, parameter);
        } else if (slice_to_i64(slice_from_text(field->absent), &whole)) {
            store_bind_i64(statement, parameter, whole);
        } else {
            store_bind_text(statement, parameter, slice_from_text(field->absent));
        }
    } else if (field->type == MANAGE_TEXT || field->type == MANAGE_JSON) {
        bool is_none = value->text.size == 0 && !field->is_required && field->absent == NULL;
        store_bind_text(statement, parameter, is_none ? slice_make(NULL, 0) : value->text);
    } else if (field->type == MANAGE_NUMBER) {
        store_bind_double(statement, parameter, value->number);
    } else {
        store_bind_i64(statement, parameter, value->whole);
    }
}

/* --- create -------------------------------------------------------------------------------- */

/* $1 org, $2 id, $3 time, $4 parent, $5 and $6 the parts of a parameter's key, then the fields. */
#define FIRST_FIELD 7

static enum err create_sql(enum manage_kind kind, struct buffer *sql)
{
    const struct manage_kind_row *row = &kinds[kind];
    enum err err = buffer_printf(sql, "INSERT INTO %s (org, id, created_ms, updated_ms%s%s%s",
                                 row->name, row->parent_name != NULL ? ", " : "",
                                 row->parent_name != NULL ? parent_columns[kind] : "",
                                 kind == MANAGE_PARAMETER ? ", name_key, key" : "");
    for (uint32_t i = 0; i < row->field_count && err == ERR_OK; i++) {
        err = buffer_printf(sql, ", %s", row->fields[i].column);
    }
    if (err == ERR_OK) {
        err = buffer_printf(sql, ") VALUES ($1, $2, $3, $3%s%s",
                            row->parent_name != NULL ? ", $4" : "",
                            kind == MANAGE_PARAMETER ? ", $5, $6" : "");
    }
    for (uint32_t i = 0; i < row->field_count && err == ERR_OK; i++) {
        err = buffer_printf(sql, ", $%u", FIRST_FIELD + i);
    }
    return err != ERR_OK ? err
                         : buffer_append_text(sql, ") ON CONFLICT DO NOTHING RETURNING number");
}

/* `keys` holds the whole key, then its last part. */
static enum err make_key(const struct manage_entity *entity, struct buffer *keys, size_t *ret_whole,
                         struct manage_fault *ret_fault)
{
    char project[ID_TEXT_BYTES];
    struct slice name = entity->values[PARAMETER_NAME].text;
    id_format(entity->parent, project);
    enum err err = buffer_printf(keys, "project:%.*s:", ID_TEXT_BYTES, project);
    if (err == ERR_OK) {
        err = manage_snake(name, keys);
    }
    if (err == ERR_INVALID) {
        return refuse(ret_fault, "name", "has no letter or digit");
    }
    *ret_whole = keys->size;
    return err != ERR_OK ? err : manage_snake(name, keys);
}

static enum err insert_row(struct store_connection *connection, enum manage_kind kind,
                           const struct manage_entity *entity, uint64_t parent,
                           struct manage_fault *ret_fault)
{
    const struct manage_kind_row *row = &kinds[kind];
    struct store_statement *statement = NULL;
    struct buffer sql;
    struct buffer keys;
    size_t whole = 0;
    bool has_row = false;
    buffer_init(&sql, SQL_BYTES_MAX);
    buffer_init(&keys, SQL_BYTES_MAX);
    enum err err = create_sql(kind, &sql);
    if (err == ERR_OK && kind == MANAGE_PARAMETER) {
        err = make_key(entity, &keys, &whole, ret_fault);
    }
    if (err == ERR_OK) {
        err = store_prepare_text(connection, buffer_slice(&sql), &statement);
    }
    if (err != ERR_OK) {
        goto out;
    }
    store_bind_i64(statement, 1, (int64_t)entity->org);
    store_bind_blob(statement, 2, slice_make(entity->id.bytes, sizeof(entity->id.bytes)));
    store_bind_i64(statement, 3, clock_wall_ms());
    if (row->parent_name != NULL) {
        store_bind_i64(statement, 4, (int64_t)parent);
    }
    if (kind == MANAGE_PARAMETER) {
        store_bind_text(statement, 5, slice_part(buffer_slice(&keys), whole, keys.size));
        store_bind_text(statement, 6, slice_part(buffer_slice(&keys), 0, whole));
    }
    for (uint32_t i = 0; i < row->field_count; i++) {
        bind_value(statement, (int)(FIRST_FIELD + i), &row->fields[i], &entity->values[i]);
    }
    err = store_step(statement, &has_row);
    if (err == ERR_OK && !has_row) {
        err = ERR_EXISTS;
    }
    store_reset(statement);
out:
    buffer_finish(&keys);
    buffer_finish(&sql);
    return err;
}

static enum err check_range(const struct manage_value *min, const struct manage_value *max,
                            struct manage_fault *ret_fault)
{
    bool has_both = min->is_set && !min->is_null && max->is_set && !max->is_null;
    return has_both && min->number > max->number ? refuse(ret_fault, "min", "is above max")
                                                 : ERR_OK;
}

enum err manage_registry_lock(struct store_connection *connection, uint64_t org)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, store_texts(connection)->lock_registry, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    err = store_step(statement, &has_row);
    store_reset(statement);
    return err;
}

enum err manage_registry_create(struct store_connection *connection, enum manage_kind kind,
                                struct manage_entity *entity, struct manage_fault *ret_fault)
{
    const struct manage_kind_row *row = &kinds[kind];
    uint64_t parent = 0;
    enum err err = check_entity(kind, entity, true, ret_fault);
    if (err == ERR_OK && kind == MANAGE_PARAMETER) {
        err =
            check_range(&entity->values[PARAMETER_MIN], &entity->values[PARAMETER_MAX], ret_fault);
    }
    if (err == ERR_OK && row->parent_name != NULL) {
        if (!entity->has_parent) {
            return refuse(ret_fault, row->parent_name, "is required");
        }
        err = manage_registry_number(connection, row->parent, entity->org, entity->parent, &parent);
        if (err == ERR_NOT_FOUND) {
            return refuse(ret_fault, row->parent_name, "there is none of this id");
        }
    }
    if (err == ERR_OK) {
        entity->id = id_make_v7(clock_wall_ms());
        err = insert_row(connection, kind, entity, parent, ret_fault);
    }
    return err != ERR_OK ? err : store_raise_version(connection, entity->org);
}

/* --- update -------------------------------------------------------------------------------- */

static enum err update_sql(enum manage_kind kind, const struct manage_entity *entity,
                           struct buffer *sql)
{
    const struct manage_kind_row *row = &kinds[kind];
    enum err err = buffer_printf(sql, "UPDATE %s SET updated_ms = $3", row->name);
    for (uint32_t i = 0; i < row->field_count && err == ERR_OK; i++) {
        if (entity->values[i].is_set) {
            err = buffer_printf(sql, ", %s = $%u", row->fields[i].column, FIRST_FIELD + i);
        }
    }
    return err != ERR_OK ? err : buffer_append_text(sql, " WHERE org = $1 AND id = $2");
}

static enum err check_stored_range(struct store_connection *connection,
                                   const struct manage_entity *entity,
                                   struct manage_fault *ret_fault)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection,
                                 "SELECT 1 FROM parameters WHERE org = $1 AND id = $2"
                                 " AND min_value > max_value",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)entity->org);
    store_bind_blob(statement, 2, slice_make(entity->id.bytes, sizeof(entity->id.bytes)));
    err = store_step(statement, &has_row);
    store_reset(statement);
    return err == ERR_OK && has_row ? refuse(ret_fault, "min", "is above max") : err;
}

enum err manage_registry_update(struct store_connection *connection, enum manage_kind kind,
                                const struct manage_entity *entity, struct manage_fault *ret_fault)
{
    const struct manage_kind_row *row = &kinds[kind];
    struct store_statement *statement = NULL;
    struct buffer sql;
    enum err err = check_entity(kind, entity, false, ret_fault);
    if (err != ERR_OK) {
        return err;
    }
    if (entity->has_parent) {
        return refuse(ret_fault, row->parent_name, "cannot be changed");
    }
    buffer_init(&sql, SQL_BYTES_MAX);
    err = update_sql(kind, entity, &sql);
    if (err == ERR_OK) {
        err = store_prepare_text(connection, buffer_slice(&sql), &statement);
    }
    if (err == ERR_OK) {
        store_bind_i64(statement, 1, (int64_t)entity->org);
        store_bind_blob(statement, 2, slice_make(entity->id.bytes, sizeof(entity->id.bytes)));
        store_bind_i64(statement, 3, clock_wall_ms());
        for (uint32_t i = 0; i < row->field_count; i++) {
            if (entity->values[i].is_set) {
                bind_value(statement, (int)(FIRST_FIELD + i), &row->fields[i], &entity->values[i]);
            }
        }
        err = store_execute(statement);
        err = err == ERR_REFUSED ? ERR_EXISTS : err;
    }
    buffer_finish(&sql);
    if (err == ERR_OK && store_changes(connection) == 0) {
        return ERR_NOT_FOUND;
    }
    if (err == ERR_OK) { /* before the device's state, as applying takes them */
        err = store_raise_version(connection, entity->org);
    }
    if (err == ERR_OK && kind == MANAGE_DEVICE) {
        err = store_device_due(connection, entity->org, entity->id.bytes);
    }
    if (err == ERR_OK && kind == MANAGE_PARAMETER) {
        err = check_stored_range(connection, entity, ret_fault);
    }
    return err;
}

/* --- delete -------------------------------------------------------------------------------- */

/* What keeps a row: $1 org, $2 its number. */
static const char *const keepers[MANAGE_KINDS] = {
    ("SELECT 1 WHERE EXISTS (SELECT 1 FROM sites WHERE org = $1 AND project = $2)"
     " OR EXISTS (SELECT 1 FROM parameters WHERE org = $1 AND project = $2)"),
    "SELECT 1 FROM devices WHERE org = $1 AND site = $2 LIMIT 1",
    "SELECT 1 FROM series WHERE org = $1 AND device = $2 LIMIT 1",
    "SELECT 1 FROM series WHERE org = $1 AND parameter = $2 LIMIT 1",
};

static const char *const deleters[MANAGE_KINDS] = {
    "DELETE FROM projects WHERE org = $1 AND number = $2",
    "DELETE FROM sites WHERE org = $1 AND number = $2",
    "DELETE FROM devices WHERE org = $1 AND number = $2",
    "DELETE FROM parameters WHERE org = $1 AND number = $2",
};

/* What goes with it. */
static const char *const droppers[MANAGE_KINDS] = {
    "DELETE FROM registry_versions WHERE org = $1 AND project = $2",
    NULL,
    "DELETE FROM device_states WHERE org = $1 AND device = $2",
    NULL,
};

static enum err run_on(struct store_connection *connection, const char *sql, uint64_t org,
                       uint64_t number, bool *ret_row)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection, sql, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)number);
    err = store_step(statement, ret_row);
    store_reset(statement);
    return err;
}

enum err manage_registry_delete(struct store_connection *connection, enum manage_kind kind,
                                uint64_t org, struct id id)
{
    uint64_t number = 0;
    bool has_row = false;
    enum err err = manage_registry_number(connection, kind, org, id, &number);
    if (err == ERR_OK) {
        err = run_on(connection, keepers[kind], org, number, &has_row);
    }
    if (err == ERR_OK && has_row) {
        return ERR_EXISTS;
    }
    if (err == ERR_OK) { /* before the device's state, as applying takes them */
        err = store_raise_version(connection, org);
    }
    if (err == ERR_OK && droppers[kind] != NULL) {
        err = run_on(connection, droppers[kind], org, number, &has_row);
    }
    if (err == ERR_OK) {
        err = run_on(connection, deleters[kind], org, number, &has_row);
    }
    return err;
}
