/* Erase: what was said of somebody goes, from the events, the dead letters and the raw bodies.
 *
 * An event's row stays, emptied, with its id and position 0: the tombstone, which every query
 * passes over. So the id stays taken for ever (it says nothing: it is random, or a hash under the
 * org's own key), sequences keep their order, and cursors stay valid.
 *
 * A dead letter is kept as it came, maybe unreadable, so it goes when the bytes of the subject or
 * the app stand in it anywhere. That takes one letter too many rather than one too few.
 *
 * Happy path: a step takes `limit` events, empties them, marks the uploads that they came with;
 * when no event is left, a step takes letters. Each step is a transaction of its own, and each can
 * be repeated: what was begun and broken off is finished by asking again. Failure modes: the
 * store's; a step that fails changes nothing. */
#include "query/query.h"

#include "query/row.h"
#include "store/store.h"

#include <assert.h>
#include <string.h>

#define ERASE_SQL_BYTES_MAX 640u
#define ERASE_SELECT        "SELECT e.sequence, e.position, e.type, e.source, e.dedup_id"

struct erase_row {
    uint64_t sequence;
    uint64_t position;
    bool is_ours; /* it came from no request */
};

static enum err erase_bind_and_run(struct store_connection *connection, const char *sql, int64_t a,
                                   int64_t b)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection, sql, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, a);
    store_bind_i64(statement, 2, b);
    return store_execute(statement);
}

static enum err erase_check_uploads(struct store_connection *connection, uint64_t org)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(
        connection, "SELECT 1 FROM uploads WHERE org = $1 AND state = 1 LIMIT 1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        store_reset(statement);
        err = ERR_EXISTS;
    }
    return err;
}

/* --- events
 * ------------------------------------------------------------------------------------ */

static enum err erase_prepare_list(struct store_connection *connection,
                                   const struct query_erase *erase, struct store_statement **ret)
{
    struct buffer sql;
    const struct query_filter *filter = &erase->filter;
    buffer_init(&sql, ERASE_SQL_BYTES_MAX);
    enum err err = buffer_append_text(&sql, ERASE_SELECT);
    if (err == ERR_OK) {
        err = query_filter_sql(filter, connection, &sql);
    }
    if (err == ERR_OK) {
        err = buffer_printf(&sql, " ORDER BY %s LIMIT $%d", query_filter_order(filter, connection),
                            query_filter_count(filter) + 1);
    }
    if (err == ERR_OK) {
        err = store_prepare_text(connection, buffer_slice(&sql), ret);
    }
    if (err == ERR_OK) {
        store_bind_i64(*ret, 1, (int64_t)(erase->after + 1));
        store_bind_i64(*ret, 2, (int64_t)store_sequence_last(filter->org));
        store_bind_i64(*ret, query_filter_bind(filter, *ret) + 1, erase->limit);
    }
    buffer_finish(&sql);
    return err;
}

static enum err erase_prepare_one(struct store_connection *connection,
                                  const struct query_erase *erase, bool *ret_is,
                                  struct store_statement **ret)
{
    uint64_t sequence = 0;
    *ret_is = false;
    enum err err =
        store_find_event(connection, erase->filter.org, erase->id->bytes, ret_is, &sequence);
    if (err == ERR_OK && *ret_is) {
        err = store_prepare(connection,
                            ERASE_SELECT " FROM events e WHERE e.sequence = $1 AND e.position <> 0",
                            ret);
    }
    if (err == ERR_OK && *ret_is) {
        store_bind_i64(*ret, 1, (int64_t)sequence);
    }
    return err;
}

/* What apply says of devices has the position up to which it had come, and that may be of an upload
 * that is somebody else's. */
static bool erase_is_ours(struct store_statement *statement)
{
    struct slice type = store_column_bytes(statement, 2);
    struct slice source = store_column_bytes(statement, 3);
    return slice_equal(source, SLICE_LITERAL("weir")) && store_column_is_null(statement, 4) &&
           (slice_equal(type, SLICE_LITERAL("device.silent")) ||
            slice_equal(type, SLICE_LITERAL("device.back")));
}

/* Takes the rows of this step; they are changed when the statement is done. */
static enum err erase_find(struct store_connection *connection, struct query_erase *erase,
                           struct erase_row *rows, uint32_t *ret_count)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = erase->id != NULL ? erase_prepare_one(connection, erase, &has_row, &statement)
                                     : erase_prepare_list(connection, erase, &statement);
    uint32_t count = 0;
    while (err == ERR_OK && has_row) {
        err = store_step(statement, &has_row);
        if (err == ERR_OK && has_row) {
            assert(count < erase->limit);
            rows[count++] = (struct erase_row){(uint64_t)store_column_i64(statement, 0),
                                               (uint64_t)store_column_i64(statement, 1),
                                               erase_is_ours(statement)};
        }
    }
    *ret_count = count;
    return err;
}

/* The subject stands in an index of its own, by its hash. */
static enum err erase_subject(struct store_connection *connection, uint64_t sequence)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(connection, "SELECT subject FROM events WHERE sequence = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)sequence);
    err = store_step(statement, &has_row);
    if (err != ERR_OK || !has_row) {
        return err;
    }
    struct slice subject = store_column_bytes(statement, 0);
    bool has_subject = subject.data != NULL;
    int64_t key = has_subject ? store_subject_key(sequence >> STORE_ORG_SHIFT, subject) : 0;
    store_reset(statement);
    return has_subject ? erase_bind_and_run(connection, store_texts(connection)->forget_subject,
                                            key, (int64_t)sequence)
                       : ERR_OK;
}

static enum err erase_event(struct store_connection *connection, uint64_t sequence)
{
    struct store_statement *statement = NULL;
    enum err err = erase_subject(connection, sequence);
    if (err == ERR_OK) {
        err = store_prepare(connection,
                            "UPDATE events SET position = 0, type = 'weir.erased', subject = NULL,"
                            " source = NULL, app = NULL, dedup_id = NULL, payload = 'null',"
                            " attributes = NULL WHERE sequence = $1",
                            &statement);
    }
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)sequence);
    return store_execute(statement);
}

/* The events of an upload have its position; one of readings has none. */
static enum err erase_upload(struct store_connection *connection, struct query_erase *erase,
                             uint64_t position)
{
    enum err err = erase_bind_and_run(connection,
                                      "UPDATE uploads SET raw_deleted = 2, errors = NULL"
                                      " WHERE org = $1 AND position = $2 AND raw_deleted = 0"
                                      " AND form NOT IN " QUERY_READING_FORMS,
                                      (int64_t)erase->filter.org, (int64_t)position);
    if (err == ERR_OK) {
        erase->uploads += store_changes(connection);
    }
    return err;
}

static enum err erase_events(struct store_connection *connection, struct query_erase *erase,
                             bool *ret_more)
{
    struct erase_row rows[QUERY_ERASE_ROWS_MAX];
    uint32_t count = 0;
    assert(erase->limit > 0 && erase->limit <= QUERY_ERASE_ROWS_MAX);
    enum err err = erase_find(connection, erase, rows, &count);
    for (uint32_t i = 0; i < count && err == ERR_OK; i++) {
        err = erase_event(connection, rows[i].sequence);
        bool is_same = i > 0 && rows[i].position == rows[i - 1].position && !rows[i - 1].is_ours;
        if (err == ERR_OK && !is_same && !rows[i].is_ours) {
            err = erase_upload(connection, erase, rows[i].position);
        }
        erase->after = rows[i].sequence;
    }
    erase->events += count;
    *ret_more = erase->id == NULL && count == erase->limit;
    return err;
}

/* --- dead letters
 * ------------------------------------------------------------------------------- */

static bool erase_fits_letter(const struct query_erase *erase, struct slice id, struct slice record)
{
    if (erase->id != NULL) {
        return slice_equal(id, slice_make(erase->id->bytes, sizeof(erase->id->bytes)));
    }
    struct slice text =
        erase->filter.subject.data != NULL ? erase->filter.subject : erase->filter.app;
    return record.size > 0 && memmem(record.data, record.size, text.data, text.size) != NULL;
}

static enum err erase_find_letters(struct store_connection *connection, struct query_erase *erase,
                                   int64_t *numbers, uint32_t *ret_count, bool *ret_more)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    uint32_t seen = 0;
    *ret_count = 0;
    enum err err = store_prepare(connection,
                                 "SELECT number, id, record FROM dead_letters WHERE org = $1"
                                 " AND number > $2 ORDER BY number LIMIT $3",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)erase->filter.org);
    store_bind_i64(statement, 2, (int64_t)erase->letters_after);
    store_bind_i64(statement, 3, erase->limit);
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        int64_t number = store_column_i64(statement, 0);
        assert(seen < erase->limit);
        seen++;
        erase->letters_after = (uint64_t)number;
        if (erase_fits_letter(erase, store_column_bytes(statement, 1),
                              store_column_bytes(statement, 2))) {
            numbers[(*ret_count)++] = number;
        }
    }
    *ret_more = seen == erase->limit;
    return err;
}

static enum err erase_letters(struct store_connection *connection, struct query_erase *erase,
                              bool *ret_more)
{
    int64_t numbers[QUERY_ERASE_ROWS_MAX];
    uint32_t count = 0;
    enum err err = erase_find_letters(connection, erase, numbers, &count, ret_more);
    for (uint32_t i = 0; i < count && err == ERR_OK; i++) {
        err = erase_bind_and_run(connection,
                                 "DELETE FROM dead_letters WHERE number = $1 AND org = $2",
                                 numbers[i], (int64_t)erase->filter.org);
    }
    erase->dead_letters += count;
    return err;
}

enum err query_erase_step(struct store_connection *connection, struct query_erase *erase)
{
    bool has_more = false;
    if (erase->after == 0) {
        erase->after = store_sequence_first(erase->filter.org) - 1;
    }
    enum err err = erase_check_uploads(connection, erase->filter.org);
    if (err == ERR_OK) {
        err = erase_events(connection, erase, &has_more);
    }
    if (err == ERR_OK && !has_more) {
        err = erase_letters(connection, erase, &has_more);
    }
    erase->has_more = has_more;
    return err == ERR_OK ? store_raise_version(connection, erase->filter.org) : err;
}
