/* Dead: records that the store refused or that could not be read, kept as they came.
 *
 * Retry, happy path: the record is read again by the same reader that apply used, gets the id and
 * the time that it had, is inserted, and the letter goes in the same transaction. Failure modes:
 * refused again (ERR_REFUSED) or still unreadable (ERR_INVALID): the letter stays. */
#include "query/query.h"

#include "base/limits.h"
#include "base/mem.h"
#include "format/format.h"
#include "query/page.h"
#include "store/store.h"
#include "json/json.h"

#include <assert.h>

enum {
    DEAD_NUMBER,
    DEAD_ID,
    DEAD_KIND,
    DEAD_REASON,
    DEAD_DETAIL,
    DEAD_RECORD,
    DEAD_RECEIVED,
};

static_assert(RECORD_FORM_UPLOAD_END == 64, "as the SQL has it");

/* The areas are an enum query_area, a set. Of an end record nothing but its head is shown: to both.
 */
#define QUERY_DEAD_IN_AREAS(areas)                                                                 \
    "AND (" areas " IN (1, 3) AND form NOT IN " QUERY_READING_FORMS " OR " areas                   \
    " IN (2, 3) AND form IN " QUERY_READING_FORMS " OR form = 64) "
#define QUERY_DEAD_SELECT                                                                          \
    "SELECT number, id, kind, reason, detail, record, received_ms FROM dead_letters "              \
    "WHERE org = $1 " QUERY_DEAD_IN_AREAS("$4")

/* A record that is one JSON value is shown as it is, anything else as a text. */
static bool query_dead_is_json(struct json_reader *reader, struct slice record)
{
    struct json_token tokens[64];
    size_t count = 0;
    size_t all = 0;
    enum err err = ERR_OK;
    json_document_begin(reader, record);
    do {
        err = json_document_next(reader, tokens, sizeof(tokens) / sizeof(tokens[0]), &count);
        all += count;
    } while (err == ERR_OK && count > 0);
    return err == ERR_OK && all > 0;
}

static enum err query_dead_write(struct store_statement *statement, struct buffer *to,
                                 void *context)
{
    struct json_writer writer;
    struct slice detail = store_column_bytes(statement, DEAD_DETAIL);
    struct slice record = store_column_bytes(statement, DEAD_RECORD);
    json_writer_init(&writer, to);
    json_write_object_begin(&writer);
    json_write_member_id(&writer, "id", id_from_bytes(store_column_bytes(statement, DEAD_ID)));
    json_write_member_string(&writer, "kind", store_column_bytes(statement, DEAD_KIND));
    json_write_member_string(&writer, "reason", store_column_bytes(statement, DEAD_REASON));
    if (detail.data != NULL) {
        json_write_member_string(&writer, "detail", detail);
    }
    json_write_member_time(&writer, "received_at", store_column_i64(statement, DEAD_RECEIVED));
    if (query_dead_is_json(context, record)) {
        json_write_key(&writer, "record");
        json_write_raw(&writer, record);
    } else {
        json_write_member_string(&writer, "record", record);
    }
    json_write_object_end(&writer);
    return json_writer_err(&writer);
}

enum err query_dead_letters_list(struct store_connection *connection, const struct query_page *page,
                                 struct buffer *to)
{
    static const struct query_page_shape shape = {
        .name = "dead_letters",
        .list = {QUERY_LIST_DEAD_LETTERS, QUERY_LIST_DEAD_LETTERS_OLDEST},
        .sql = {QUERY_DEAD_SELECT "AND number < $2 ORDER BY number DESC LIMIT $3",
                QUERY_DEAD_SELECT "AND number > $2 ORDER BY number LIMIT $3"},
        .write = query_dead_write,
    };
    static const struct json_options options = {.depth_max = LIMIT_JSON_DEPTH,
                                                .string_bytes_max = LIMIT_EVENT_BYTES};
    struct json_reader *reader = json_reader_create(&options);
    enum err err = query_page_list(connection, page, &shape, reader, to);
    json_reader_destroy(reader);
    return err;
}

struct query_letter {
    struct buffer record; /* a copy: the row's bytes die with the next step */
    struct id id;
    uint8_t id_key[32];
    enum record_form form;
    uint64_t position;
    uint64_t element;
    int64_t received_ms;
};

static enum err query_letter_find(struct store_connection *connection, uint64_t org, struct id id,
                                  uint32_t areas, struct query_letter *ret)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(connection,
                      "SELECT d.record, d.form, d.position, d.element, d.received_ms, o.id_key "
                      "FROM dead_letters d JOIN orgs o ON o.number = d.org WHERE d.id = $1 AND "
                      "d.org = $2 " QUERY_DEAD_IN_AREAS("$3"),
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(id.bytes, sizeof(id.bytes)));
    store_bind_i64(statement, 2, (int64_t)org);
    store_bind_i64(statement, 3, areas);
    err = store_step(statement, &has_row);
    if (err != ERR_OK || !has_row) {
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    }
    struct slice id_key = store_column_bytes(statement, 5);
    err = buffer_append_slice(&ret->record, store_column_bytes(statement, 0));
    if (err == ERR_OK && id_key.size != sizeof(ret->id_key)) {
        err = ERR_CORRUPT;
    }
    if (err == ERR_OK) {
        memcpy(ret->id_key, id_key.data, sizeof(ret->id_key));
        ret->id = id;
        ret->form = (enum record_form)store_column_i64(statement, 1);
        ret->position = (uint64_t)store_column_i64(statement, 2);
        ret->element = (uint64_t)store_column_i64(statement, 3);
        ret->received_ms = store_column_i64(statement, 4);
    }
    store_reset(statement);
    return err;
}

/* A message of a device: all of its metrics once more, with the position that it had. */
static enum err query_letter_readings(struct store_connection *connection, uint64_t org,
                                      const struct query_letter *letter,
                                      const struct record_event *message,
                                      const struct format_reader *reader)
{
    uint32_t count = 0;
    const struct record_reading *readings = format_readings(reader, &count);
    struct store_reading *rows = mem_try_alloc((size_t)count * sizeof(*rows));
    uint8_t ids[48];
    if (rows == NULL || count == 0) {
        mem_free(rows);
        return ERR_NO_MEMORY;
    }
    memcpy(ids, readings[0].device.bytes, 16);
    memcpy(ids + 16, readings[0].project.bytes, 16);
    memcpy(ids + 32, readings[0].site.bytes, 16);
    for (uint32_t i = 0; i < count; i++) {
        rows[i] = (struct store_reading){.ids = ids,
                                         .parameter = readings[i].parameter,
                                         .source = readings[i].source,
                                         .event_id = readings[i].event_id,
                                         .attributes = readings[i].attributes,
                                         .message_attributes = message->attributes,
                                         .value = readings[i].value,
                                         .has_value = readings[i].has_value,
                                         .quality = readings[i].quality,
                                         .time_ms = readings[i].time_ms,
                                         .received_ms = readings[i].received_ms,
                                         .org = org,
                                         .position = letter->position};
    }
    enum err err = store_write_readings(connection, rows, count, true, NULL, NULL);
    for (uint32_t i = 0; i < count && err == ERR_OK; i++) {
        bool is_taken =
            rows[i].state == STORE_READING_STORED || rows[i].state == STORE_READING_OLDER;
        err = is_taken ? ERR_OK : ERR_REFUSED;
    }
    mem_free(rows);
    return err;
}

static enum err query_letter_insert(struct store_connection *connection, uint64_t org,
                                    const struct query_letter *letter, struct format_reader *reader)
{
    struct format_context context = {.id_key = letter->id_key,
                                     .frame_id = letter->id,
                                     .received_ms = letter->received_ms,
                                     .index = letter->element};
    struct record_event event = {0};
    struct format_fault fault = {0};
    if (letter->form != RECORD_FORM_EVENT && letter->form != RECORD_FORM_CLOUDEVENT &&
        letter->form != RECORD_FORM_READING) {
        return ERR_INVALID;
    }
    enum err err = format_event_read(reader, letter->form, buffer_slice(&letter->record), &context,
                                     &event, &fault);
    if (err != ERR_OK) {
        return ERR_INVALID;
    }
    if (letter->form == RECORD_FORM_READING) {
        return query_letter_readings(connection, org, letter, &event, reader);
    }
    struct store_event row = {.type = event.type,
                              .payload = event.payload,
                              .dedup_id = event.dedup_id,
                              .subject = event.subject,
                              .source = event.source,
                              .app = event.app,
                              .attributes = event.attributes,
                              .id = letter->id.bytes,
                              .occurred_ms = event.occurred_ms,
                              .created_ms = event.received_ms,
                              .org = org,
                              .position = letter->position};
    err = store_insert_events(connection, &row, 1, true);
    if (err == ERR_OK && row.state == STORE_EVENT_REFUSED) {
        err = ERR_REFUSED;
    }
    return err;
}

enum err query_dead_letter_retry(struct store_connection *connection, uint64_t org, struct id id,
                                 uint32_t areas)
{
    struct store_statement *statement = NULL;
    struct query_letter letter = {0};
    struct format_reader *reader = format_reader_create();
    buffer_init(&letter.record, LIMIT_FRAME_BYTES);
    enum err err = query_letter_find(connection, org, id, areas, &letter);
    if (err == ERR_OK) {
        err = query_letter_insert(connection, org, &letter, reader);
    }
    if (err == ERR_OK) {
        err = store_prepare(connection, "DELETE FROM dead_letters WHERE id = $1 AND org = $2",
                            &statement);
    }
    if (err == ERR_OK) {
        store_bind_blob(statement, 1, slice_make(id.bytes, sizeof(id.bytes)));
        store_bind_i64(statement, 2, (int64_t)org);
        err = store_execute(statement);
    }
    buffer_finish(&letter.record);
    format_reader_destroy(reader);
    return err;
}
