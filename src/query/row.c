/* Row: an event as JSON. The payload and the attributes were verified when they came in and stand
 * in the store as they came, so they are copied; texts are escaped anew. */
#include "query/row.h"

#include "base/clock.h"
#include "base/id.h"
#include "format/format.h"
#include "query/query.h"
#include "store/store.h"
#include "json/json.h"

#include <assert.h>

enum {
    ROW_ID = 1, /* the sequence comes first */
    ROW_TYPE,
    ROW_SUBJECT,
    ROW_SOURCE,
    ROW_APP,
    ROW_DEDUP_ID,
    ROW_PAYLOAD,
    ROW_ATTRIBUTES,
    ROW_OCCURRED,
    ROW_CREATED,
};

static void query_row_text(struct json_writer *writer, const char *key, struct slice text)
{
    if (text.data == NULL) {
        json_write_key(writer, key);
        json_write_null(writer);
    } else {
        json_write_member_string(writer, key, text);
    }
}

/* A line break inside a JSON text can only be white space between tokens, so a space in its place
 * changes nothing that the text means. */
static void query_row_flatten(struct buffer *buffer, size_t from)
{
    for (size_t i = from; i < buffer->size; i++) {
        if (buffer->data[i] == '\n' || buffer->data[i] == '\r') {
            buffer->data[i] = ' ';
        }
    }
}

enum err query_row_write(struct store_statement *statement, bool acknowledged,
                         enum query_row_shape shape, struct buffer *to)
{
    struct json_writer writer;
    struct id id;
    size_t from = to->size;
    struct slice bytes = store_column_bytes(statement, ROW_ID);
    struct slice type = store_column_bytes(statement, ROW_TYPE);
    struct slice attributes = store_column_bytes(statement, ROW_ATTRIBUTES);
    if (bytes.size != sizeof(id.bytes)) {
        return ERR_CORRUPT;
    }
    memcpy(id.bytes, bytes.data, sizeof(id.bytes));
    json_writer_init(&writer, to);
    json_write_object_begin(&writer);
    json_write_member_id(&writer, "id", id);
    json_write_member_string(&writer, "type", type);
    json_write_member_string(&writer, "event_type", type);
    query_row_text(&writer, "dedup_id", store_column_bytes(statement, ROW_DEDUP_ID));
    query_row_text(&writer, "subject", store_column_bytes(statement, ROW_SUBJECT));
    query_row_text(&writer, "source", store_column_bytes(statement, ROW_SOURCE));
    query_row_text(&writer, "app", store_column_bytes(statement, ROW_APP));
    json_write_key(&writer, "payload");
    json_write_raw(&writer, store_column_bytes(statement, ROW_PAYLOAD));
    if (attributes.data != NULL) {
        json_write_key(&writer, "attributes");
        json_write_raw(&writer, attributes);
    }
    json_write_member_time(&writer, "occurred_at", store_column_i64(statement, ROW_OCCURRED));
    json_write_member_time(&writer, "created_at", store_column_i64(statement, ROW_CREATED));
    json_write_member_text(&writer, "delivery_status", acknowledged ? "acknowledged" : "pending");
    json_write_member_u64(&writer, "attempts", 0);
    json_write_object_end(&writer);
    if (shape == QUERY_ROW_ONE_LINE) {
        query_row_flatten(to, from);
    }
    return json_writer_err(&writer);
}

/* --- as a row of a table ------------------------------------------------------------------------
 */

enum err query_events_csv_head(struct buffer *to)
{
    return buffer_append_text(to, "id,type,dedup_id,subject,source,app,payload,attributes,"
                                  "occurred_at,created_at,delivery_status\r\n");
}

static enum err query_cell_time(struct store_statement *statement, int column, struct buffer *to)
{
    char text[CLOCK_TEXT_BYTES];
    clock_format_rfc3339(store_column_i64(statement, column), text);
    enum err err = buffer_append_byte(to, ',');
    return err != ERR_OK ? err : format_csv_cell(slice_make(text, sizeof(text)), to);
}

enum err query_row_write_csv(struct store_statement *statement, bool acknowledged,
                             struct buffer *to)
{
    static const int texts[] = {ROW_TYPE, ROW_DEDUP_ID, ROW_SUBJECT,   ROW_SOURCE,
                                ROW_APP,  ROW_PAYLOAD,  ROW_ATTRIBUTES};
    struct id id;
    char text[ID_TEXT_BYTES];
    struct slice bytes = store_column_bytes(statement, ROW_ID);
    if (bytes.size != sizeof(id.bytes)) {
        return ERR_CORRUPT;
    }
    memcpy(id.bytes, bytes.data, sizeof(id.bytes));
    id_format(id, text);
    enum err err = format_csv_cell(slice_make(text, sizeof(text)), to);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) && err == ERR_OK; i++) {
        err = buffer_append_byte(to, ',');
        if (err == ERR_OK) {
            err = format_csv_cell(store_column_bytes(statement, texts[i]), to);
        }
    }
    if (err == ERR_OK) {
        err = query_cell_time(statement, ROW_OCCURRED, to);
    }
    if (err == ERR_OK) {
        err = query_cell_time(statement, ROW_CREATED, to);
    }
    if (err == ERR_OK) {
        err = buffer_append_text(to, acknowledged ? ",acknowledged\r\n" : ",pending\r\n");
    }
    return err;
}

enum err query_filter_sql(const struct query_filter *filter,
                          const struct store_connection *connection, struct buffer *sql)
{
    int parameter = 2;
    enum err err = ERR_OK;
    if (filter->subject.data != NULL) {
        parameter += 2;
        err = buffer_append_text(sql, store_texts(connection)->by_subject);
    } else {
        err = buffer_append_text(sql, " FROM events e WHERE e.sequence BETWEEN $1 AND $2");
    }
    if (err == ERR_OK) {
        err = buffer_append_text(sql, " AND e.position <> 0"); /* 0: it was erased */
    }
    if (err == ERR_OK && filter->type.data != NULL) {
        err = buffer_printf(sql, " AND e.type = $%d", ++parameter);
    }
    if (err == ERR_OK && filter->app.data != NULL) {
        err = buffer_printf(sql, " AND e.app = $%d", ++parameter);
    }
    return err;
}

const char *query_filter_order(const struct query_filter *filter,
                               const struct store_connection *connection)
{
    return filter->subject.data != NULL ? store_texts(connection)->by_subject_order : "e.sequence";
}

int query_filter_count(const struct query_filter *filter)
{
    return 2 + (filter->subject.data != NULL ? 2 : 0) + (filter->type.data != NULL ? 1 : 0) +
           (filter->app.data != NULL ? 1 : 0);
}

int query_filter_bind(const struct query_filter *filter, struct store_statement *statement)
{
    int parameter = 2;
    if (filter->subject.data != NULL) {
        store_bind_i64(statement, ++parameter, store_subject_key(filter->org, filter->subject));
        store_bind_text(statement, ++parameter, filter->subject);
    }
    if (filter->type.data != NULL) {
        store_bind_text(statement, ++parameter, filter->type);
    }
    if (filter->app.data != NULL) {
        store_bind_text(statement, ++parameter, filter->app);
    }
    return parameter;
}
