/* Registry, reading: rows as JSON, by the table of kinds.
 *
 * Happy path: one statement, made from the table: the number, the ids above, the fields, the times.
 * Failure modes: nothing of this id among the org's own: ERR_NOT_FOUND. */
#include "manage/registry.h"

#include "base/limits.h"
#include "store/store.h"
#include "json/json.h"

#define SQL_BYTES_MAX 4096u

/* Where a kind's rows are read from, and the ids of what is above them. */
struct source {
    const char *from;
    const char *id_names[2];
    const char *id_columns[2];
};

static const struct source sources[MANAGE_KINDS] = {
    [MANAGE_PROJECT] = {.from = "projects t"},
    [MANAGE_SITE] = {.from = "sites t JOIN projects p ON p.number = t.project",
                     .id_names = {"project_id"},
                     .id_columns = {"p.id"}},
    [MANAGE_DEVICE] = {.from = "devices t JOIN sites p ON p.number = t.site"
                               " JOIN projects g ON g.number = p.project",
                       .id_names = {"site_id", "project_id"},
                       .id_columns = {"p.id", "g.id"}},
    [MANAGE_PARAMETER] = {.from = "parameters t JOIN projects p ON p.number = t.project",
                          .id_names = {"project_id"},
                          .id_columns = {"p.id"}},
};

/* Columns: number, id, created, updated, key, two ids, then the fields. */
enum { AT_NUMBER, AT_ID, AT_CREATED, AT_UPDATED, AT_KEY, AT_IDS, AT_FIELDS = AT_IDS + 2 };

static enum err select_sql(enum manage_kind kind, struct buffer *sql)
{
    const struct manage_kind_row *row = manage_kind(kind);
    const struct source *source = &sources[kind];
    enum err err = buffer_printf(sql, "SELECT t.number, t.id, t.created_ms, t.updated_ms, %s",
                                 kind == MANAGE_PARAMETER ? "t.key" : "NULL");
    for (uint32_t i = 0; i < 2 && err == ERR_OK; i++) {
        err = buffer_printf(sql, ", %s",
                            source->id_columns[i] != NULL ? source->id_columns[i] : "NULL");
    }
    for (uint32_t i = 0; i < row->field_count && err == ERR_OK; i++) {
        err = buffer_printf(sql, ", t.%s", row->fields[i].column);
    }
    return err != ERR_OK ? err : buffer_printf(sql, " FROM %s WHERE t.org = $1", source->from);
}

static void write_field(struct json_writer *writer, struct store_statement *statement,
                        const struct manage_field *field, int column)
{
    json_write_key(writer, field->name);
    if (store_column_is_null(statement, column)) {
        json_write_null(writer);
        return;
    }
    switch (field->type) {
    case MANAGE_TEXT:
        json_write_string(writer, store_column_bytes(statement, column));
        break;
    case MANAGE_JSON:
        json_write_raw(writer, store_column_bytes(statement, column));
        break;
    case MANAGE_WHOLE:
        json_write_i64(writer, store_column_i64(statement, column));
        break;
    case MANAGE_NUMBER:
        json_write_double(writer, store_column_double(statement, column));
        break;
    case MANAGE_BOOL:
        json_write_bool(writer, store_column_i64(statement, column) != 0);
        break;
    }
}

static enum err write_row(struct store_statement *statement, enum manage_kind kind,
                          struct buffer *to)
{
    const struct manage_kind_row *row = manage_kind(kind);
    struct json_writer writer;
    json_writer_init(&writer, to);
    json_write_object_begin(&writer);
    json_write_member_id(&writer, "id", id_from_bytes(store_column_bytes(statement, AT_ID)));
    for (int i = 0; i < 2; i++) {
        if (sources[kind].id_names[i] != NULL) {
            json_write_member_id(&writer, sources[kind].id_names[i],
                                 id_from_bytes(store_column_bytes(statement, AT_IDS + i)));
        }
    }
    if (kind == MANAGE_PARAMETER) {
        json_write_member_string(&writer, "key", store_column_bytes(statement, AT_KEY));
    }
    for (uint32_t i = 0; i < row->field_count; i++) {
        write_field(&writer, statement, &row->fields[i], (int)(AT_FIELDS + i));
    }
    json_write_member_time(&writer, "created_at", store_column_i64(statement, AT_CREATED));
    json_write_member_time(&writer, "updated_at", store_column_i64(statement, AT_UPDATED));
    json_write_object_end(&writer);
    return json_writer_err(&writer);
}

/* Stands on the row; ERR_NOT_FOUND. */
static enum err select_one(struct store_connection *connection, enum manage_kind kind, uint64_t org,
                           struct id id, struct store_statement **ret)
{
    struct buffer sql;
    bool has_row = false;
    buffer_init(&sql, SQL_BYTES_MAX);
    enum err err = select_sql(kind, &sql);
    if (err == ERR_OK) {
        err = buffer_append_text(&sql, " AND t.id = $2");
    }
    if (err == ERR_OK) {
        err = store_prepare_text(connection, buffer_slice(&sql), ret);
    }
    buffer_finish(&sql);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(*ret, 1, (int64_t)org);
    store_bind_blob(*ret, 2, slice_make(id.bytes, sizeof(id.bytes)));
    err = store_step(*ret, &has_row);
    return err == ERR_OK && !has_row ? ERR_NOT_FOUND : err;
}

enum err manage_registry_get(struct store_connection *connection, enum manage_kind kind,
                             uint64_t org, struct id id, struct buffer *to)
{
    struct store_statement *statement = NULL;
    enum err err = select_one(connection, kind, org, id, &statement);
    if (err == ERR_OK) {
        err = write_row(statement, kind, to);
        store_reset(statement);
    }
    return err;
}

static bool is_same(struct store_statement *statement, const struct manage_field *field,
                    const struct manage_value *value, int column)
{
    bool is_null = store_column_is_null(statement, column);
    if (is_null || value->is_null) {
        return is_null == value->is_null;
    }
    switch (field->type) {
    case MANAGE_TEXT:
    case MANAGE_JSON:
        return slice_equal(value->text, store_column_bytes(statement, column));
    case MANAGE_WHOLE:
    case MANAGE_BOOL:
        return value->whole == store_column_i64(statement, column);
    case MANAGE_NUMBER:
        break;
    }
    double number = store_column_double(statement, column);
    return !(number < value->number) && !(number > value->number);
}

enum err manage_registry_differs(struct store_connection *connection, enum manage_kind kind,
                                 const struct manage_entity *entity, bool *ret)
{
    const struct manage_kind_row *row = manage_kind(kind);
    struct store_statement *statement = NULL;
    enum err err = select_one(connection, kind, entity->org, entity->id, &statement);
    if (err != ERR_OK) {
        return err;
    }
    *ret = false;
    for (uint32_t i = 0; i < row->field_count; i++) {
        const struct manage_value *value = &entity->values[i];
        if (value->is_set && !is_same(statement, &row->fields[i], value, (int)(AT_FIELDS + i))) {
            *ret = true;
        }
    }
    store_reset(statement);
    return ERR_OK;
}

/* --- lists --------------------------------------------------------------------------------- */

static enum err list_sql(const struct manage_list *list, struct buffer *sql)
{
    enum err err = select_sql(list->kind, sql);
    if (err == ERR_OK && list->has_parent) {
        err = buffer_append_text(sql, " AND p.id = $4");
    }
    if (err == ERR_OK && list->has_project) {
        err = buffer_append_text(sql, " AND g.id = $5");
    }
    if (err == ERR_OK && list->name.data != NULL) {
        err = buffer_append_text(sql, " AND t.name = $6");
    }
    if (err == ERR_OK && list->external_id.data != NULL) {
        err = buffer_append_text(sql, " AND t.external_id = $7");
    }
    if (err == ERR_OK) {
        err = buffer_append_text(sql, list->oldest_first
                                          ? " AND t.number > $2 ORDER BY t.number LIMIT $3"
                                          : " AND t.number < $2 ORDER BY t.number DESC LIMIT $3");
    }
    return err;
}

static void list_bind(const struct manage_list *list, struct store_statement *statement)
{
    bool is_first = list->after == 0 && !list->oldest_first;
    store_bind_i64(statement, 1, (int64_t)list->org);
    store_bind_i64(statement, 2, is_first ? INT64_MAX : (int64_t)list->after);
    store_bind_i64(statement, 3, (int64_t)list->limit + 1);
    if (list->has_parent) {
        store_bind_blob(statement, 4, slice_make(list->parent.bytes, sizeof(list->parent.bytes)));
    }
    if (list->has_project) {
        store_bind_blob(statement, 5, slice_make(list->project.bytes, sizeof(list->project.bytes)));
    }
    if (list->name.data != NULL) {
        store_bind_text(statement, 6, list->name);
    }
    if (list->external_id.data != NULL) {
        store_bind_text(statement, 7, list->external_id);
    }
}

enum err manage_registry_list(struct store_connection *connection, const struct manage_list *list,
                              struct buffer *to, bool *ret_more, uint64_t *ret_place)
{
    struct store_statement *statement = NULL;
    struct buffer sql;
    uint32_t count = 0;
    size_t from = to->size;
    bool has_row = true;
    buffer_init(&sql, SQL_BYTES_MAX);
    enum err err = list_sql(list, &sql);
    if (err == ERR_OK) {
        err = store_prepare_text(connection, buffer_slice(&sql), &statement);
    }
    buffer_finish(&sql);
    if (err != ERR_OK) {
        return err;
    }
    list_bind(list, statement);
    *ret_more = false;
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        if (count == list->limit || to->size - from >= LIMIT_PAGE_BYTES) {
            *ret_more = true;
            break;
        }
        *ret_place = (uint64_t)store_column_i64(statement, AT_NUMBER);
        if (count++ > 0) {
            err = buffer_append_byte(to, ',');
        }
        if (err == ERR_OK) {
            err = write_row(statement, list->kind, to);
        }
        if (err != ERR_OK) {
            break;
        }
    }
    store_reset(statement);
    return err;
}
