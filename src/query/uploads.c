/* Uploads: state, progress and counts of the bodies that came as files of their own. The rows are
 * apply's; an upload is listed from the moment its end record is applied. */
#include "query/query.h"

#include "query/page.h"
#include "record/record.h"
#include "store/store.h"
#include "json/json.h"

#include <assert.h>

#define QUERY_UPLOAD_COLUMNS                                                                       \
    "position, id, state, decoded_bytes, stored_bytes, element_count, applied_count, "             \
    "accepted_count, rejected_count, inserted_count, duplicate_count, conflict_count, "            \
    "refused_count, errors, received_ms, finished_ms, raw_deleted"

enum {
    UPLOAD_POSITION,
    UPLOAD_ID,
    UPLOAD_STATE,
    UPLOAD_DECODED_BYTES,
    UPLOAD_STORED_BYTES,
    UPLOAD_ELEMENTS,
    UPLOAD_APPLIED,
    UPLOAD_ACCEPTED,
    UPLOAD_REJECTED,
    UPLOAD_INSERTED,
    UPLOAD_DUPLICATES,
    UPLOAD_CONFLICTS,
    UPLOAD_REFUSED,
    UPLOAD_ERRORS,
    UPLOAD_RECEIVED,
    UPLOAD_FINISHED,
    UPLOAD_RAW_DELETED,
};

static_assert(RECORD_FORM_READING == 10 && RECORD_FORM_READING_ARRAY == 11 &&
                  RECORD_FORM_READING_LINES == 12,
              "the forms of readings, as SQL has them");

/* The areas are an enum query_area, a set. */
#define UPLOAD_IN_AREAS(areas)                                                                     \
    "AND ((" areas " IN (1, 3) AND form NOT IN " QUERY_READING_FORMS ")"                           \
    " OR (" areas " IN (2, 3) AND form IN " QUERY_READING_FORMS ")) "

#define QUERY_UPLOAD_APPLYING 1 /* uploads.state */

static const char *query_upload_state(int64_t state)
{
    static const char *const words[] = {"accepted", "applying", "processed", "partial", "failed"};
    return state >= 0 && state < (int64_t)(sizeof(words) / sizeof(words[0])) ? words[state]
                                                                             : "failed";
}

static void query_upload_counts(struct json_writer *writer, struct store_statement *statement)
{
    static const struct {
        const char *key;
        int column;
    } counts[] = {
        {"accepted", UPLOAD_ACCEPTED},   {"rejected", UPLOAD_REJECTED},
        {"inserted", UPLOAD_INSERTED},   {"duplicates", UPLOAD_DUPLICATES},
        {"conflicts", UPLOAD_CONFLICTS}, {"refused", UPLOAD_REFUSED},
    };
    json_write_key(writer, "counts");
    json_write_object_begin(writer);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        json_write_member_i64(writer, counts[i].key, store_column_i64(statement, counts[i].column));
    }
    json_write_object_end(writer);
}

static enum err query_upload_write(struct store_statement *statement, struct buffer *to,
                                   void *context)
{
    (void)context;
    struct json_writer writer;
    struct slice id = store_column_bytes(statement, UPLOAD_ID);
    json_writer_init(&writer, to);
    json_write_object_begin(&writer);
    json_write_member_id(&writer, "raw_ingestion_id", id_from_bytes(id));
    json_write_member_id(&writer, "upload_id", id_from_bytes(id));
    json_write_member_text(&writer, "state",
                           query_upload_state(store_column_i64(statement, UPLOAD_STATE)));
    json_write_member_i64(&writer, "bytes", store_column_i64(statement, UPLOAD_DECODED_BYTES));
    json_write_member_i64(&writer, "stored_bytes",
                          store_column_i64(statement, UPLOAD_STORED_BYTES));
    json_write_member_i64(&writer, "points_total", store_column_i64(statement, UPLOAD_ELEMENTS));
    json_write_member_i64(&writer, "points_applied", store_column_i64(statement, UPLOAD_APPLIED));
    query_upload_counts(&writer, statement);
    json_write_key(&writer, "errors");
    struct slice errors = store_column_bytes(statement, UPLOAD_ERRORS);
    json_write_raw(&writer, errors.data == NULL ? SLICE_LITERAL("[]") : errors);
    json_write_member_bool(&writer, "raw_available",
                           store_column_i64(statement, UPLOAD_RAW_DELETED) == 0);
    json_write_member_time(&writer, "received_at", store_column_i64(statement, UPLOAD_RECEIVED));
    if (store_column_is_null(statement, UPLOAD_FINISHED)) {
        json_write_key(&writer, "finished_at");
        json_write_null(&writer);
    } else {
        json_write_member_time(&writer, "finished_at",
                               store_column_i64(statement, UPLOAD_FINISHED));
    }
    json_write_object_end(&writer);
    return json_writer_err(&writer);
}

enum err query_uploads_list(struct store_connection *connection, const struct query_page *page,
                            struct buffer *to)
{
    static const struct query_page_shape shape = {
        .name = "uploads",
        .list = {QUERY_LIST_UPLOADS, QUERY_LIST_UPLOADS_OLDEST},
        .sql = {"SELECT " QUERY_UPLOAD_COLUMNS
                " FROM uploads WHERE org = $1 AND position < $2 " UPLOAD_IN_AREAS(
                    "$4") "ORDER BY position DESC LIMIT $3",
                "SELECT " QUERY_UPLOAD_COLUMNS
                " FROM uploads WHERE org = $1 AND position > $2 " UPLOAD_IN_AREAS(
                    "$4") "ORDER BY position LIMIT $3"},
        .write = query_upload_write,
    };
    return query_page_list(connection, page, &shape, NULL, to);
}

static enum err query_upload_find_in(struct store_connection *connection, const char *sql,
                                     uint64_t org, struct id id, uint32_t areas,
                                     struct store_statement **ret)
{
    bool has_row = false;
    enum err err = store_prepare(connection, sql, ret);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(*ret, 1, (int64_t)org);
    store_bind_blob(*ret, 2, slice_make(id.bytes, sizeof(id.bytes)));
    store_bind_i64(*ret, 3, areas);
    err = store_step(*ret, &has_row);
    if (err == ERR_OK && !has_row) {
        err = ERR_NOT_FOUND;
    }
    return err;
}

enum err query_upload_get(struct store_connection *connection, uint64_t org, struct id id,
                          uint32_t areas, struct buffer *to)
{
    struct store_statement *statement = NULL;
    enum err err =
        query_upload_find_in(connection,
                             "SELECT " QUERY_UPLOAD_COLUMNS
                             " FROM uploads WHERE org = $1 AND id = $2 " UPLOAD_IN_AREAS("$3"),
                             org, id, areas, &statement);
    if (err == ERR_OK) {
        err = query_upload_write(statement, to, NULL);
        store_reset(statement);
    }
    return err;
}

enum err query_upload_form(struct store_connection *connection, uint64_t org, struct id id,
                           uint32_t areas, uint32_t *ret_form)
{
    struct store_statement *statement = NULL;
    enum err err = query_upload_find_in(
        connection,
        "SELECT form FROM uploads WHERE org = $1 AND id = $2 AND raw_deleted = 0 " UPLOAD_IN_AREAS(
            "$3"),
        org, id, areas, &statement);
    if (err == ERR_OK) {
        *ret_form = (uint32_t)store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

static enum err query_upload_check(struct store_connection *connection, uint64_t org, struct id id,
                                   uint32_t areas)
{
    struct store_statement *statement = NULL;
    enum err err = query_upload_find_in(
        connection, "SELECT state FROM uploads WHERE org = $1 AND id = $2 " UPLOAD_IN_AREAS("$3"),
        org, id, areas, &statement);
    if (err != ERR_OK) {
        return err;
    }
    bool is_applying = store_column_i64(statement, 0) == QUERY_UPLOAD_APPLYING;
    store_reset(statement);
    return is_applying ? ERR_EXISTS : ERR_OK;
}

enum err query_upload_settle(struct store_connection *connection, uint64_t org, struct id id,
                             uint32_t areas)
{
    enum err err = query_upload_check(connection, org, id, areas);
    return err != ERR_OK ? err : store_raise_version(connection, org);
}

enum err query_upload_delete(struct store_connection *connection, uint64_t org, struct id id,
                             uint32_t areas)
{
    struct store_statement *statement = NULL;
    enum err err = query_upload_check(connection, org, id, areas);
    if (err != ERR_OK) {
        return err;
    }
    err = store_prepare(connection, "DELETE FROM uploads WHERE org = $1 AND id = $2", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_blob(statement, 2, slice_make(id.bytes, sizeof(id.bytes)));
    return store_execute(statement);
}
