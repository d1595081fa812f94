/* Tail: what was committed after a place, in commit order, as server-sent events.
 *
 * An org's sequences rise in the order of its commits and are given inside the writing transaction,
 * so no event can appear below a place that a reader has passed. When rows are filtered out the
 * place still moves: to the org's last sequence, read in the same snapshot, or to the end of the
 * window that a page looks at, so that a filter that fits little holds no reader for long.
 *
 * The key of the subscriber is looked up in that snapshot too: once it is revoked or expired
 * nothing more is read for it, however it was revoked. */
#include "query/query.h"

#include "base/limits.h"
#include "query/row.h"
#include "query/segments.h"
#include "store/store.h"

#include <assert.h>

#define QUERY_TAIL_ROWS_MAX      1000
#define QUERY_TAIL_WINDOW        65536u
#define QUERY_TAIL_SQL_BYTES_MAX 512u

enum err query_tail_end(struct store_connection *connection, uint64_t org, uint64_t *ret_place)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(connection, "SELECT last_sequence FROM orgs WHERE number = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    err = store_step(statement, &has_row);
    if (err != ERR_OK) {
        return err;
    }
    if (!has_row) {
        return ERR_NOT_FOUND;
    }
    uint64_t last = (uint64_t)store_column_i64(statement, 0);
    store_reset(statement);
    *ret_place = last > store_sequence_first(org) ? last : store_sequence_first(org);
    return ERR_OK;
}

static enum err query_tail_check_key(struct store_connection *connection,
                                     const struct query_tail *query)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection,
                                 "SELECT 1 FROM keys WHERE number = $1 AND revoked_ms = 0 "
                                 "AND (expires_ms = 0 OR expires_ms > $2)",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)query->key);
    store_bind_i64(statement, 2, query->now_ms);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        store_reset(statement);
    }
    if (err == ERR_OK && !has_row) {
        err = ERR_UNAUTHORIZED;
    }
    return err;
}

static enum err query_tail_prepare(struct store_connection *connection,
                                   const struct query_filter *filter, struct store_statement **ret)
{
    struct buffer sql;
    buffer_init(&sql, QUERY_TAIL_SQL_BYTES_MAX);
    enum err err = buffer_append_text(&sql, "SELECT " QUERY_ROW_COLUMNS);
    if (err == ERR_OK) {
        err = query_filter_sql(filter, connection, &sql);
    }
    if (err == ERR_OK) {
        err = buffer_printf(&sql, " ORDER BY %s LIMIT %d", query_filter_order(filter, connection),
                            QUERY_TAIL_ROWS_MAX);
    }
    if (err == ERR_OK) {
        err = store_prepare_text(connection, buffer_slice(&sql), ret);
    }
    if (err == ERR_OK) {
        (void)query_filter_bind(filter, *ret);
    }
    buffer_finish(&sql);
    return err;
}

static enum err query_tail_event(struct store_statement *statement, uint64_t org, struct buffer *to)
{
    char id[QUERY_CURSOR_TEXT_BYTES];
    uint64_t place = (uint64_t)store_column_i64(statement, 0);
    query_cursor_format(QUERY_LIST_TAIL, org, place, id);
    enum err err = buffer_printf(to, "id: %.*s\ndata: ", QUERY_CURSOR_TEXT_BYTES, id);
    if (err == ERR_OK) {
        /* A live event may be acknowledged already; the tail tells what came, not its state. */
        err = query_row_write(statement, false, QUERY_ROW_ONE_LINE, to);
    }
    if (err == ERR_OK) {
        err = buffer_append_text(to, "\n\n");
    }
    return err;
}

/* Writes what fits of (after, last]; *ret_place is the last event written, or `last` when there is
 * no more. */
static enum err query_tail_rows(struct store_connection *connection, const struct query_tail *query,
                                uint64_t after, uint64_t last, struct buffer *to,
                                uint64_t *ret_place)
{
    struct store_statement *statement = NULL;
    uint64_t place = last;
    uint32_t count = 0;
    bool has_row = false;
    bool is_full = false;
    size_t from = to->size;
    enum err err = query_tail_prepare(connection, &query->filter, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)(after + 1));
    store_bind_i64(statement, 2, (int64_t)last);
    while (err == ERR_OK && !is_full) {
        err = store_step(statement, &has_row);
        if (err != ERR_OK || !has_row) {
            break;
        }
        err = query_tail_event(statement, query->filter.org, to);
        count++;
        is_full = to->size - from >= query->bytes_max || count == QUERY_TAIL_ROWS_MAX;
        place = is_full ? (uint64_t)store_column_i64(statement, 0) : last;
    }
    store_reset(statement);
    if (err == ERR_OK) {
        *ret_place = place;
    }
    return err;
}

enum err query_tail_read(struct store_connection *connection, const struct query_tail *query,
                         struct buffer *to, uint64_t *ret_place, bool *ret_more)
{
    uint64_t window = query->window != 0 ? query->window : QUERY_TAIL_WINDOW;
    uint64_t place = query->after;
    uint64_t end = 0;
    enum err err = query_tail_check_key(connection, query);
    if (err == ERR_OK) {
        err = query_tail_end(connection, query->filter.org, &end);
    }
    struct query_segment rest = {.first = query->after + 1, .last = end};
    if (err == ERR_OK && end > query->after && end - query->after > window) {
        err = query_segment_trim(connection, true, &rest);
    }
    if (err == ERR_OK && end > query->after) {
        uint64_t last = end - (rest.first - 1) > window ? rest.first - 1 + window : end;
        err = query_tail_rows(connection, query, rest.first - 1, last, to, &place);
    }
    if (err == ERR_OK) {
        *ret_place = place;
        *ret_more = place < end;
    }
    return err;
}
