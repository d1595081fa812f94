/* Export: the registry as CSV files, with the columns that the import takes.
 *
 * Happy path: one statement in the order of the making; a cell a column. Text cells are kept from
 * being taken for formulas; numbers are not, since they are none.
 * Failure modes: a file above the buffer's limit: ERR_TOO_LARGE. */
#include "manage/registry.h"

#include "format/format.h"
#include "store/store.h"
#include "json/json.h"

struct cell {
    const char *name;
    enum manage_type type;
};

static const struct cell registry_cells[] = {
    {"customer_name", MANAGE_TEXT},       {"project_name", MANAGE_TEXT},
    {"project_description", MANAGE_TEXT}, {"site_name", MANAGE_TEXT},
    {"site_location", MANAGE_JSON},       {"device_name", MANAGE_TEXT},
    {"device_type", MANAGE_TEXT},         {"device_code", MANAGE_TEXT},
    {"device_status", MANAGE_TEXT},
};

static const struct cell parameter_cells[] = {
    {"customer_name", MANAGE_TEXT}, {"project_name", MANAGE_TEXT}, {"parameter_name", MANAGE_TEXT},
    {"unit", MANAGE_TEXT},          {"dtype", MANAGE_TEXT},        {"min_value", MANAGE_NUMBER},
    {"max_value", MANAGE_NUMBER},   {"required", MANAGE_BOOL},     {"description", MANAGE_TEXT},
};

struct file {
    const struct cell *cells;
    int count;
    const char *sql;
};

#define CELLS(array) (array), (int)(sizeof(array) / sizeof((array)[0]))
static const struct file files[] = {
    [MANAGE_FILE_REGISTRY] =
        {CELLS(registry_cells),
         "SELECT o.name, p.name, p.description, s.name, s.location, d.name, d.device_type,"
         " d.external_id, d.status FROM projects p JOIN orgs o ON o.number = p.org"
         " LEFT JOIN sites s ON s.project = p.number LEFT JOIN devices d ON d.site = s.number"
         " WHERE p.org = $1 ORDER BY p.number, s.number, d.number"},
    [MANAGE_FILE_PARAMETERS] =
        {CELLS(parameter_cells),
         "SELECT o.name, p.name, t.name, t.unit, t.dtype, t.min_value, t.max_value, t.required,"
         " t.description FROM parameters t JOIN projects p ON p.number = t.project"
         " JOIN orgs o ON o.number = t.org WHERE t.org = $1 ORDER BY p.number, t.number"},
};

/* A text as it is; any other JSON value as JSON. */
static enum err write_json(struct slice json, struct buffer *to)
{
    struct buffer plain;
    if (json.size < 2 || json.data[0] != '"') {
        return format_csv_cell(json, to);
    }
    buffer_init(&plain, json.size);
    enum err err = json_unescape(slice_part(json, 1, json.size - 1), &plain);
    if (err == ERR_OK) {
        err = format_csv_cell(buffer_slice(&plain), to);
    }
    buffer_finish(&plain);
    return err;
}

static enum err write_cell(struct store_statement *statement, int column, enum manage_type type,
                           struct buffer *to)
{
    struct json_writer writer;
    if (store_column_is_null(statement, column)) {
        return ERR_OK;
    }
    switch (type) {
    case MANAGE_TEXT:
        return format_csv_cell(store_column_bytes(statement, column), to);
    case MANAGE_JSON:
        return write_json(store_column_bytes(statement, column), to);
    case MANAGE_WHOLE:
        return buffer_append_i64(to, store_column_i64(statement, column));
    case MANAGE_NUMBER:
        json_writer_init(&writer, to);
        json_write_double(&writer, store_column_double(statement, column));
        return json_writer_err(&writer);
    case MANAGE_BOOL:
        return buffer_append_text(to, store_column_i64(statement, column) != 0 ? "true" : "false");
    }
    return ERR_OK;
}

static enum err write_line(struct store_statement *statement, const struct file *file,
                           struct buffer *to)
{
    enum err err = ERR_OK;
    for (int i = 0; i < file->count && err == ERR_OK; i++) {
        if (i > 0) {
            err = buffer_append_byte(to, ',');
        }
        if (err == ERR_OK && statement == NULL) {
            err = buffer_append_text(to, file->cells[i].name);
        } else if (err == ERR_OK) {
            err = write_cell(statement, i, file->cells[i].type, to);
        }
    }
    return err != ERR_OK ? err : buffer_append_text(to, "\r\n");
}

enum err manage_export(struct store_connection *connection, enum manage_file file, uint64_t org,
                       struct buffer *to)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = write_line(NULL, &files[file], to);
    if (err == ERR_OK) {
        err = store_prepare(connection, files[file].sql, &statement);
    }
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        err = write_line(statement, &files[file], to);
        if (err != ERR_OK) {
            break;
        }
    }
    store_reset(statement);
    return err;
}
