/* Import: a CSV file into the registry, all of it or nothing.
 *
 * Happy path: the header says which column is which field. Each line names a project, and below it
 * a site and a device, or a parameter; each is made, or changed where the file says something else.
 * An empty cell says nothing.
 *
 * Failure modes: a line that is wrong is noted, and the next ones are looked at all the same, so
 * one report names them all; then the whole gives ERR_INVALID, and the job's transaction takes back
 * what the right lines have written. */
#include "manage/registry.h"

#include "base/limits.h"
#include "format/format.h"
#include "store/store.h"
#include "json/json.h"

#include <assert.h>

#define COLUMNS_MAX    32u
#define TEXT_BYTES_MAX ((size_t)64 * 1024)

struct column {
    const char *name;
    enum manage_kind kind;
    const char *field; /* NULL: the customer */
};

static const struct column registry_columns[] = {
    {"customer_name", MANAGE_KINDS, NULL},
    {"project_name", MANAGE_PROJECT, "name"},
    {"project_description", MANAGE_PROJECT, "description"},
    {"site_name", MANAGE_SITE, "name"},
    {"site_location", MANAGE_SITE, "location"},
    {"device_name", MANAGE_DEVICE, "name"},
    {"device_type", MANAGE_DEVICE, "device_type"},
    {"device_code", MANAGE_DEVICE, "external_id"},
    {"device_status", MANAGE_DEVICE, "status"},
    {"device_interval_s", MANAGE_DEVICE, "interval_s"},
};

static const struct column parameter_columns[] = {
    {"customer_name", MANAGE_KINDS, NULL},
    {"project_name", MANAGE_PROJECT, "name"},
    {"parameter_name", MANAGE_PARAMETER, "name"},
    {"unit", MANAGE_PARAMETER, "unit"},
    {"dtype", MANAGE_PARAMETER, "dtype"},
    {"min_value", MANAGE_PARAMETER, "min"},
    {"max_value", MANAGE_PARAMETER, "max"},
    {"required", MANAGE_PARAMETER, "required"},
    {"description", MANAGE_PARAMETER, "description"},
    {"policy", MANAGE_PARAMETER, "policy"},
    {"frequency_s", MANAGE_PARAMETER, "frequency"},
};

struct table {
    const struct column *columns;
    uint32_t count;
    enum manage_kind kinds[3]; /* of a line, outer first; MANAGE_KINDS ends */
};

#define COLUMNS(array) (array), sizeof(array) / sizeof((array)[0])
static const struct table tables[] = {
    [MANAGE_FILE_REGISTRY] = {COLUMNS(registry_columns),
                              {MANAGE_PROJECT, MANAGE_SITE, MANAGE_DEVICE}},
    [MANAGE_FILE_PARAMETERS] = {COLUMNS(parameter_columns),
                                {MANAGE_PROJECT, MANAGE_PARAMETER, MANAGE_KINDS}},
};

struct importing {
    struct store_connection *connection;
    const struct table *table;
    struct manage_import *import;
    struct format_csv csv;
    struct buffer texts;  /* cells with quotes */
    struct buffer values; /* of the line in hand, its room made once */
    struct json_reader *json;
    const struct column *order[COLUMNS_MAX]; /* of the file */
    uint32_t column_count;
    struct slice customer;
    uint8_t customer_bytes[MANAGE_ORG_NAME_BYTES_MAX];
    struct slice cells[COLUMNS_MAX];
    /* The line in hand. */
    struct manage_entity entities[MANAGE_KINDS];
    bool is_wrong;
};

static void note(struct importing *in, const char *code, const char *column, const char *message)
{
    struct manage_import *import = in->import;
    import->wrong_lines += in->is_wrong ? 0 : 1;
    in->is_wrong = true;
    if (import->fault_count < MANAGE_LINE_FAULTS_MAX) {
        import->faults[import->fault_count++] = (struct manage_line_fault){
            .line = in->csv.line, .code = code, .column = column, .message = message};
    }
}

/* The column of a kind's field; for what is wrong. */
static const char *column_of(const struct importing *in, enum manage_kind kind, const char *field)
{
    for (uint32_t i = 0; i < in->table->count; i++) {
        const struct column *column = &in->table->columns[i];
        if (column->kind == kind && column->field != NULL && strcmp(column->field, field) == 0) {
            return column->name;
        }
    }
    return NULL;
}

/* --- the header ---------------------------------------------------------------------------- */

static const struct column *find_column(const struct table *table, struct slice name)
{
    for (uint32_t i = 0; i < table->count; i++) {
        if (slice_equal_nocase(slice_trim(name), slice_from_text(table->columns[i].name))) {
            return &table->columns[i];
        }
    }
    return NULL;
}

static bool has_column(const struct importing *in, const struct column *column)
{
    for (uint32_t i = 0; i < in->column_count; i++) {
        if (in->order[i] == column) {
            return true;
        }
    }
    return false;
}

static enum err read_header(struct importing *in)
{
    uint32_t count = 0;
    enum err err = format_csv_next(&in->csv, &in->texts, in->cells, COLUMNS_MAX, &count);
    if (err == ERR_SYNTAX || err == ERR_TOO_LARGE || (err == ERR_OK && count == 0)) {
        note(in, "malformed", NULL, "The first line has to name the columns.");
        return ERR_OK;
    }
    for (uint32_t i = 0; i < count && err == ERR_OK; i++) {
        const struct column *column = find_column(in->table, in->cells[i]);
        if (column == NULL) {
            note(in, "unknown_column", NULL, "A column has a name that is not known.");
        } else if (has_column(in, column)) {
            note(in, "duplicate_column", column->name, "The column stands there twice.");
        }
        in->order[in->column_count++] = column;
    }
    for (uint32_t i = 0; i < 3 && in->table->kinds[i] != MANAGE_KINDS && err == ERR_OK; i++) {
        const char *name = column_of(in, in->table->kinds[i], "name");
        if (!has_column(in, find_column(in->table, slice_from_text(name)))) {
            note(in, "missing_column", name, "The column is missing.");
        }
    }
    return err;
}

/* --- cells --------------------------------------------------------------------------------- */

static bool keep(struct importing *in, struct slice text, struct slice *ret)
{
    size_t before = in->values.size;
    if (in->values.capacity - before < text.size ||
        buffer_append_slice(&in->values, text) != ERR_OK) {
        return false;
    }
    *ret = slice_make(in->values.data + before, text.size);
    return true;
}

/* The kind of a text that is one JSON value. */
static bool is_json(struct importing *in, struct slice text, enum json_kind *ret_first)
{
    struct json_token tokens[16];
    size_t count = 0;
    bool is_first = true;
    json_document_begin(in->json, text);
    do {
        if (json_document_next(in->json, tokens, 16, &count) != ERR_OK) {
            return false;
        }
        if (is_first && count > 0) {
            *ret_first = (enum json_kind)tokens[0].kind;
            is_first = false;
        }
    } while (count > 0);
    return !is_first;
}

/* An object or a list is taken as it is, anything else as a text. */
static bool take_json(struct importing *in, struct slice text, struct slice *ret)
{
    enum json_kind kind = JSON_NULL;
    if (is_json(in, text, &kind) && (kind == JSON_OBJECT_BEGIN || kind == JSON_ARRAY_BEGIN)) {
        return keep(in, text, ret);
    }
    struct json_writer writer;
    size_t before = in->values.size;
    if (in->values.capacity - before < 6 * text.size + 2) {
        return false;
    }
    json_writer_init(&writer, &in->values);
    json_write_string(&writer, text);
    *ret = slice_make(in->values.data + before, in->values.size - before);
    return json_writer_err(&writer) == ERR_OK;
}

static bool take_bool(struct slice text, int64_t *ret)
{
    static const struct {
        const char *word;
        bool is_true;
    } words[] = {{"true", true},   {"yes", true}, {"1", true},  {"y", true},  {"t", true},
                 {"false", false}, {"no", false}, {"0", false}, {"n", false}, {"f", false}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (slice_equal_nocase(text, slice_from_text(words[i].word))) {
            *ret = words[i].is_true;
            return true;
        }
    }
    return false;
}

static bool take_value(struct importing *in, const struct manage_field *field, struct slice text,
                       struct manage_value *ret)
{
    enum json_kind kind = JSON_NULL;
    ret->is_set = true;
    switch (field->type) {
    case MANAGE_TEXT:
        return keep(in, text, &ret->text);
    case MANAGE_JSON:
        return take_json(in, text, &ret->text);
    case MANAGE_WHOLE:
        return slice_to_i64(text, &ret->whole);
    case MANAGE_NUMBER:
        return is_json(in, text, &kind) && kind == JSON_NUMBER &&
               json_to_double(text, &ret->number);
    case MANAGE_BOOL:
        return take_bool(text, &ret->whole);
    }
    return false;
}

static void take_cell(struct importing *in, const struct column *column, struct slice cell)
{
    struct slice text = slice_trim(cell);
    if (text.size == 0) {
        return;
    }
    if (column->field == NULL) {
        if (!in->import->any_customer && !slice_equal(text, in->customer)) {
            note(in, "other_customer", column->name,
                 "It is not the name of this org; a customer is an org.");
        }
        return;
    }
    const struct manage_kind_row *row = manage_kind(column->kind);
    for (uint32_t i = 0; i < row->field_count; i++) {
        const struct manage_field *field = &row->fields[i];
        if (strcmp(field->name, column->field) == 0 &&
            !take_value(in, field, text, &in->entities[column->kind].values[i])) {
            note(in, "invalid_value", column->name, "The value is not permitted here.");
        }
    }
}

/* --- one thing ----------------------------------------------------------------------------- */

/* What a row is found by: its name below its parent. */
static const char *const finders[MANAGE_KINDS] = {
    "SELECT t.id FROM projects t WHERE t.org = $1 AND t.name = $3",
    "SELECT t.id FROM sites t JOIN projects p ON p.number = t.project"
    " WHERE t.org = $1 AND p.id = $2 AND t.name = $3",
    "SELECT t.id FROM devices t JOIN sites p ON p.number = t.site"
    " WHERE t.org = $1 AND p.id = $2 AND t.name = $3",
    "SELECT t.id FROM parameters t JOIN projects p ON p.number = t.project"
    " WHERE t.org = $1 AND p.id = $2 AND t.name_key = $3",
};

static enum err find(struct importing *in, enum manage_kind kind, struct manage_entity *entity)
{
    struct store_statement *statement = NULL;
    struct buffer snake;
    bool has_row = false;
    struct slice name = entity->values[0].text;
    buffer_init(&snake, TEXT_BYTES_MAX);
    enum err err = store_prepare(in->connection, finders[kind], &statement);
    if (err == ERR_OK && kind == MANAGE_PARAMETER) {
        err = manage_snake(name, &snake);
        name = buffer_slice(&snake);
    }
    if (err == ERR_OK) {
        store_bind_i64(statement, 1, (int64_t)entity->org);
        if (entity->has_parent) {
            store_bind_blob(statement, 2,
                            slice_make(entity->parent.bytes, sizeof(entity->parent.bytes)));
        }
        store_bind_text(statement, 3, name);
        err = store_step(statement, &has_row);
    }
    if (err == ERR_OK && has_row) {
        struct slice id = store_column_bytes(statement, 0);
        if (id.size == sizeof(entity->id.bytes)) {
            memcpy(entity->id.bytes, id.data, id.size);
        }
        store_reset(statement);
    }
    buffer_finish(&snake);
    return err == ERR_OK && !has_row ? ERR_NOT_FOUND : err;
}

/* A device code that stands at another device; said before the engine would refuse it, which on
 * some engines ends the transaction. */
static enum err check_code(struct importing *in, const struct manage_entity *entity,
                           bool *ret_taken)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        in->connection, "SELECT 1 FROM devices WHERE org = $1 AND external_id = $2 AND id <> $3",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)entity->org);
    store_bind_text(statement, 2, entity->values[2].text);
    store_bind_blob(statement, 3, slice_make(entity->id.bytes, sizeof(entity->id.bytes)));
    err = store_step(statement, ret_taken);
    store_reset(statement);
    return err;
}

static enum err update_one(struct importing *in, enum manage_kind kind,
                           struct manage_entity *entity, struct manage_fault *fault)
{
    bool is_other = false;
    struct manage_entity changed = *entity;
    changed.has_parent = false;
    changed.values[0].is_set = false; /* it was found by its name */
    enum err err = manage_registry_differs(in->connection, kind, &changed, &is_other);
    if (err == ERR_OK && is_other) {
        err = manage_registry_update(in->connection, kind, &changed, fault);
        in->import->updated[kind]++;
    }
    return err;
}

static enum err write_one(struct importing *in, enum manage_kind kind, struct manage_fault *fault)
{
    struct manage_entity *entity = &in->entities[kind];
    bool is_taken = false;
    enum err err = find(in, kind, entity);
    bool is_new = err == ERR_NOT_FOUND;
    if (err != ERR_OK && !is_new) {
        return err == ERR_INVALID ? ERR_EXISTS : err;
    }
    err = ERR_OK;
    if (kind == MANAGE_DEVICE && entity->values[2].is_set) {
        err = check_code(in, entity, &is_taken);
    }
    if (err == ERR_OK && is_taken) {
        note(in, "already_exists", "device_code", "Another device has this code.");
        return ERR_OK;
    }
    if (err == ERR_OK && is_new) {
        err = manage_registry_create(in->connection, kind, entity, fault);
        in->import->created[kind]++;
    } else if (err == ERR_OK) {
        err = update_one(in, kind, entity, fault);
    }
    return err;
}

/* --- one line ------------------------------------------------------------------------------ */

static bool is_last(const struct table *table, uint32_t i)
{
    return i == 2 || table->kinds[i + 1] == MANAGE_KINDS;
}

/* What is above something, and a parameter, have to be named; a site may stand alone. */
static bool needs_name(const struct importing *in, uint32_t i)
{
    const struct table *table = in->table;
    return i == 0 || table->kinds[i] == MANAGE_PARAMETER ||
           (!is_last(table, i) && in->entities[table->kinds[i + 1]].values[0].is_set);
}

static enum err write_named(struct importing *in, enum manage_kind kind)
{
    struct manage_fault fault = {.field = NULL};
    enum err err = write_one(in, kind, &fault);
    if (err == ERR_INVALID || err == ERR_EXISTS) {
        note(in, err_code(err), fault.field == NULL ? NULL : column_of(in, kind, fault.field),
             fault.message == NULL ? err_text(err) : fault.message);
        return ERR_OK;
    }
    return err;
}

static enum err write_line(struct importing *in)
{
    struct id parents[2] = {{{0}}};
    for (uint32_t i = 0; i < 3 && in->table->kinds[i] != MANAGE_KINDS; i++) {
        enum manage_kind kind = in->table->kinds[i];
        struct manage_entity *entity = &in->entities[kind];
        if (!entity->values[0].is_set) {
            if (needs_name(in, i)) {
                note(in, "missing_field", column_of(in, kind, "name"), "The name is missing.");
            }
            return ERR_OK;
        }
        entity->has_parent = i > 0;
        entity->parent = parents[i > 0 ? i - 1 : 0];
        enum err err = write_named(in, kind);
        if (err != ERR_OK || in->is_wrong) {
            return err;
        }
        parents[i < 2 ? i : 1] = entity->id;
    }
    return ERR_OK;
}

static void begin_line(struct importing *in)
{
    in->is_wrong = false;
    buffer_clear(&in->values);
    memset(in->entities, 0, sizeof(in->entities));
    for (uint32_t i = 0; i < MANAGE_KINDS; i++) {
        in->entities[i].org = in->import->org;
    }
    in->import->lines++;
}

static enum err read_lines(struct importing *in)
{
    for (;;) {
        uint32_t count = 0;
        enum err err = format_csv_next(&in->csv, &in->texts, in->cells, COLUMNS_MAX, &count);
        if (err == ERR_OK && count == 0) {
            return ERR_OK;
        }
        begin_line(in);
        if (err == ERR_SYNTAX || err == ERR_TOO_LARGE) {
            note(in, "malformed", NULL, "The line is not well-formed CSV.");
            continue;
        }
        if (err == ERR_OK && count != in->column_count) {
            note(in, "malformed", NULL, "The line has another number of cells than the first.");
            continue;
        }
        for (uint32_t i = 0; i < count && err == ERR_OK; i++) {
            take_cell(in, in->order[i], in->cells[i]);
        }
        if (err == ERR_OK && !in->is_wrong) {
            err = write_line(in);
        }
        if (err != ERR_OK) {
            return err;
        }
    }
}

/* --- the whole ----------------------------------------------------------------------------- */

static enum err load_customer(struct importing *in)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(in->connection, "SELECT name FROM orgs WHERE number = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)in->import->org);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        struct slice name = store_column_bytes(statement, 0);
        if (name.size <= sizeof(in->customer_bytes)) {
            memcpy(in->customer_bytes, name.data, name.size);
            in->customer = slice_make(in->customer_bytes, name.size);
        }
        store_reset(statement);
    }
    return err;
}

enum err manage_import(struct store_connection *connection, enum manage_file file,
                       struct slice bytes, struct manage_import *import)
{
    static const struct json_options options = {.depth_max = LIMIT_JSON_DEPTH,
                                                .string_bytes_max = TEXT_BYTES_MAX};
    struct importing in = {.connection = connection, .table = &tables[file], .import = import};
    buffer_init(&in.texts, bytes.size + 1);
    buffer_init(&in.values, 8 * TEXT_BYTES_MAX);
    in.json = json_reader_create(&options);
    format_csv_begin(&in.csv, bytes);
    enum err err = buffer_reserve(&in.values, 8 * TEXT_BYTES_MAX);
    if (err == ERR_OK) {
        err = manage_registry_lock(connection, import->org);
    }
    if (err == ERR_OK) {
        err = load_customer(&in);
    }
    if (err == ERR_OK) {
        err = read_header(&in);
    }
    if (err == ERR_OK && import->fault_count == 0) {
        err = read_lines(&in);
    }
    json_reader_destroy(in.json);
    buffer_finish(&in.values);
    buffer_finish(&in.texts);
    return err == ERR_OK && import->fault_count > 0 ? ERR_INVALID : err;
}
