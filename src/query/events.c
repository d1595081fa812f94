/* Events: the list with its filters, and one event by id.
 *
 * A list is a walk over the org's range of sequences (org << 40 upwards), which is also its commit
 * order, so a cursor is a sequence and no insert can shift a page. `start` and `end` narrow the
 * range by the hours index; the status cuts it into stretches (segments); each stretch is one
 * indexed query. Rows of another org lie outside the range and cannot be reached.
 *
 * Happy path: bounds, then stretch after stretch until the page is full: `limit` events, or
 * LIMIT_PAGE_BYTES. A full page ends with the cursor of its last event.
 *
 * A filter that fits little could walk over millions of events for one page, and hold a reader of
 * all orgs meanwhile. So a stretch is walked in windows of sequences, and when the page's time is
 * over after a window's worth of them, or of stretches, the page ends with the cursor of the
 * window's end. A short list is one page however slow the machine is.
 * Failure modes: the store's time limit ends a window that takes too long (ERR_TIMEOUT). */
#include "query/query.h"

#include "base/clock.h"
#include "base/limits.h"
#include "query/row.h"
#include "query/segments.h"
#include "store/store.h"

#include <assert.h>

#define QUERY_SQL_BYTES_MAX 640u
#define QUERY_HOUR_MS       3600000
#define QUERY_PAGE_NS       (UINT64_C(100) * 1000000u)
#define QUERY_WINDOW        65536u
#define QUERY_STRETCHES     64u /* as much work as a window */

bool query_status_parse(struct slice text, enum query_status *ret)
{
    static const struct {
        const char *text;
        enum query_status status;
    } words[] = {
        {"pending", QUERY_STATUS_PENDING}, {"delivered", QUERY_STATUS_DELIVERED},
        {"failed", QUERY_STATUS_FAILED},   {"acknowledged", QUERY_STATUS_ACKNOWLEDGED},
        {"all", QUERY_STATUS_ANY},         {"any", QUERY_STATUS_ANY},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (slice_equal(text, slice_from_text(words[i].text))) {
            *ret = words[i].status;
            return true;
        }
    }
    return false;
}

struct query_walk {
    struct store_connection *connection;
    const struct query_events *query;
    enum query_format format;
    struct buffer *to;
    size_t from; /* where the page began */
    size_t bytes_max;
    uint32_t count;
    uint64_t first; /* of all that is walked */
    uint64_t last;
    uint64_t deadline_ns;
    uint64_t walked; /* sequences since the clock was looked at */
    uint64_t place;  /* of the last event written, or of the window's end */
    bool is_full;    /* there may be more behind `place` */
};

static int64_t query_hour(int64_t wall_ms)
{
    return wall_ms >= 0 ? wall_ms / QUERY_HOUR_MS : -1;
}

/* Narrows the range to the sequences accepted in the hours that start and end touch. */
static enum err query_hours_narrow(struct store_connection *connection,
                                   const struct query_events *query, uint64_t *first,
                                   uint64_t *last)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    if (query->start_ms == INT64_MIN && query->end_ms == INT64_MAX) {
        return ERR_OK;
    }
    enum err err = store_prepare(connection,
                                 "SELECT min(first_sequence), max(last_sequence) FROM event_hours "
                                 "WHERE org = $1 AND hour BETWEEN $2 AND $3",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)query->filter.org);
    store_bind_i64(statement, 2, query_hour(query->start_ms));
    store_bind_i64(statement, 3, query_hour(query->end_ms));
    err = store_step(statement, &has_row);
    if (err != ERR_OK) {
        return err;
    }
    if (!has_row || store_column_is_null(statement, 0)) {
        *last = *first - 1; /* nothing came in then */
    } else {
        uint64_t low = (uint64_t)store_column_i64(statement, 0);
        uint64_t high = (uint64_t)store_column_i64(statement, 1);
        *first = low > *first ? low : *first;
        *last = high < *last ? high : *last;
    }
    if (has_row) {
        store_reset(statement);
    }
    return ERR_OK;
}

/* Writes the text of a stretch's query; parameters are numbered in the order in which they appear,
 * and the filters' come before those that every list has. */
static enum err query_stretch_sql(const struct query_walk *walk, struct buffer *sql)
{
    const struct query_events *query = walk->query;
    int parameter = 0;
    enum err err = buffer_append_text(sql, "SELECT " QUERY_ROW_COLUMNS);
    if (err == ERR_OK) {
        err = query_filter_sql(&query->filter, walk->connection, sql);
    }
    if (err == ERR_OK) {
        parameter = query_filter_count(&query->filter);
        err = buffer_printf(sql, " AND e.created_ms >= $%d AND e.created_ms < $%d", parameter + 1,
                            parameter + 2);
    }
    if (err == ERR_OK) {
        err = buffer_printf(sql, " ORDER BY %s %s LIMIT $%d",
                            query_filter_order(&query->filter, walk->connection),
                            query->oldest_first ? "ASC" : "DESC", parameter + 3);
    }
    return err;
}

static void query_stretch_bind(struct store_statement *statement, const struct query_walk *walk,
                               const struct query_segment *segment)
{
    const struct query_events *query = walk->query;
    store_bind_i64(statement, 1, (int64_t)segment->first);
    store_bind_i64(statement, 2, (int64_t)segment->last);
    int parameter = query_filter_bind(&query->filter, statement);
    store_bind_i64(statement, parameter + 1, query->start_ms);
    store_bind_i64(statement, parameter + 2, query->end_ms);
    /* One more than is left, so that a full page knows whether there is another. */
    store_bind_i64(statement, parameter + 3, (int64_t)(query->limit - walk->count) + 1);
}

static enum err query_walk_row(struct query_walk *walk, struct store_statement *statement,
                               bool acknowledged)
{
    if (walk->count == walk->query->limit ||
        (walk->count > 0 && walk->to->size - walk->from >= walk->bytes_max)) {
        walk->is_full = true;
        return ERR_OK;
    }
    enum err err = ERR_OK;
    if (walk->count > 0 && walk->format == QUERY_JSON) {
        err = buffer_append_byte(walk->to, ',');
    }
    walk->count++;
    walk->place = (uint64_t)store_column_i64(statement, 0);
    if (err == ERR_OK && walk->format == QUERY_CSV) {
        return query_row_write_csv(statement, acknowledged, walk->to);
    }
    if (err == ERR_OK) {
        err = query_row_write(statement, acknowledged,
                              walk->format == QUERY_NDJSON ? QUERY_ROW_ONE_LINE : QUERY_ROW_PLAIN,
                              walk->to);
    }
    if (err == ERR_OK && walk->format == QUERY_NDJSON) {
        err = buffer_append_byte(walk->to, '\n');
    }
    return err;
}

static enum err query_walk_stretch(struct query_walk *walk, struct slice sql,
                                   const struct query_segment *segment)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare_text(walk->connection, sql, &statement);
    if (err != ERR_OK) {
        return err;
    }
    query_stretch_bind(statement, walk, segment);
    err = store_step(statement, &has_row);
    while (err == ERR_OK && has_row && !walk->is_full) {
        err = query_walk_row(walk, statement, segment->acknowledged);
        if (err == ERR_OK && !walk->is_full) {
            err = store_step(statement, &has_row);
        }
    }
    store_reset(statement);
    return err;
}

static bool query_wants(enum query_status status, bool acknowledged)
{
    if (status == QUERY_STATUS_ANY) {
        return true;
    }
    if (acknowledged) {
        return status == QUERY_STATUS_ACKNOWLEDGED;
    }
    return status == QUERY_STATUS_OPEN || status == QUERY_STATUS_PENDING;
}

static uint64_t query_window_size(const struct query_events *query)
{
    return query->window != 0 ? query->window : QUERY_WINDOW;
}

/* The first window of what is left of a stretch is taken off it. */
static struct query_segment query_window_take(const struct query_events *query,
                                              struct query_segment *stretch)
{
    struct query_segment window = *stretch;
    uint64_t size = query_window_size(query);
    if (stretch->last - stretch->first < size) {
        stretch->first = stretch->last + 1;
    } else if (query->oldest_first) {
        window.last = stretch->first + size - 1;
        stretch->first = window.last + 1;
    } else {
        window.first = stretch->last - size + 1;
        stretch->last = window.first - 1;
    }
    return window;
}

static void query_walk_look_at_clock(struct query_walk *walk, const struct query_segment *window)
{
    bool is_end =
        walk->query->oldest_first ? window->last >= walk->last : window->first <= walk->first;
    uint64_t size = query_window_size(walk->query);
    walk->walked += window->last - window->first + 1 + size / QUERY_STRETCHES;
    if (walk->walked < size) {
        return;
    }
    walk->walked = 0;
    if (!walk->is_full && !is_end && clock_mono_ns() >= walk->deadline_ns) {
        walk->place = walk->query->oldest_first ? window->last : window->first;
        walk->is_full = true;
    }
}

/* One of which nothing is wanted is passed over in one step. */
static enum err query_walk_windows(struct query_walk *walk, struct slice sql,
                                   struct query_segment stretch)
{
    enum err err = ERR_OK;
    if (!query_wants(walk->query->status, stretch.acknowledged)) {
        query_walk_look_at_clock(walk, &stretch);
        return ERR_OK;
    }
    while (err == ERR_OK && stretch.first <= stretch.last && !walk->is_full) {
        if (stretch.last - stretch.first >= query_window_size(walk->query)) {
            err = query_segment_trim(walk->connection, walk->query->oldest_first, &stretch);
            if (err != ERR_OK || stretch.first > stretch.last) {
                break;
            }
        }
        struct query_segment window = query_window_take(walk->query, &stretch);
        err = query_walk_stretch(walk, sql, &window);
        query_walk_look_at_clock(walk, &window);
    }
    return err;
}

static enum err query_walk_run(struct query_walk *walk)
{
    struct query_segments segments = {.connection = walk->connection,
                                      .first = walk->first,
                                      .last = walk->last,
                                      .oldest_first = walk->query->oldest_first};
    struct query_segment segment = {0};
    struct buffer sql;
    bool has = false;
    buffer_init(&sql, QUERY_SQL_BYTES_MAX);
    enum err err = query_stretch_sql(walk, &sql);
    if (err == ERR_OK) {
        err = query_segments_next(&segments, &segment, &has);
    }
    while (err == ERR_OK && has && !walk->is_full) {
        err = query_walk_windows(walk, buffer_slice(&sql), segment);
        if (err == ERR_OK) {
            err = query_segments_next(&segments, &segment, &has);
        }
    }
    buffer_finish(&sql);
    return err;
}

enum err query_events_page(struct store_connection *connection, const struct query_events *query,
                           enum query_format format, struct buffer *to,
                           struct query_events_end *ret)
{
    uint64_t page_ns = query->page_ns != 0 ? query->page_ns : QUERY_PAGE_NS;
    struct query_walk walk = {.connection = connection,
                              .query = query,
                              .format = format,
                              .to = to,
                              .from = to->size,
                              .bytes_max =
                                  query->bytes_max != 0 ? query->bytes_max : LIMIT_PAGE_BYTES,
                              .first = store_sequence_first(query->filter.org),
                              .deadline_ns = clock_mono_ns() + page_ns};
    assert(query->limit > 0 && query->limit <= LIMIT_LIST_MAX);
    enum err err = query_tail_end(connection, query->filter.org, &walk.last);
    if (query->until != 0 && query->until < walk.last) {
        walk.last = query->until;
    }
    if (query->after != 0 && query->oldest_first) {
        walk.first = query->after + 1;
    } else if (query->after != 0 && query->after <= walk.last) {
        walk.last = query->after - 1;
    }
    if (err == ERR_OK) {
        err = query_hours_narrow(connection, query, &walk.first, &walk.last);
    }
    if (err == ERR_OK) {
        err = query_walk_run(&walk);
    }
    if (err == ERR_OK) {
        *ret = (struct query_events_end){
            .place = walk.place, .count = walk.count, .has_more = walk.is_full};
    }
    return err;
}

enum err query_events_list(struct store_connection *connection, const struct query_events *query,
                           struct buffer *to)
{
    struct query_events_end end = {0};
    enum err err = buffer_append_text(to, "{\"events\":[");
    if (err == ERR_OK) {
        err = query_events_page(connection, query, QUERY_JSON, to, &end);
    }
    if (err == ERR_OK) {
        err = buffer_append_byte(to, ']');
    }
    if (err == ERR_OK) {
        err = query_list_end(query->oldest_first ? QUERY_LIST_EVENTS_OLDEST
                                                 : QUERY_LIST_EVENTS_NEWEST,
                             query->filter.org, end.has_more, end.place, to);
    }
    return err;
}

enum err query_event_get(struct store_connection *connection, uint64_t org, struct id id,
                         struct buffer *to)
{
    struct store_statement *statement = NULL;
    bool is_there = false;
    bool acknowledged = false;
    uint64_t sequence = 0;
    enum err err = store_find_event(connection, org, id.bytes, &is_there, &sequence);
    if (err == ERR_OK && is_there) {
        err = query_is_acknowledged(connection, sequence, &acknowledged);
    }
    if (err == ERR_OK && is_there) {
        err = store_prepare(connection,
                            "SELECT " QUERY_ROW_COLUMNS " FROM events e WHERE e.sequence = $1"
                            " AND e.position <> 0",
                            &statement);
    }
    if (err != ERR_OK || !is_there) {
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    }
    store_bind_i64(statement, 1, (int64_t)sequence);
    err = store_step(statement, &is_there);
    if (err == ERR_OK) {
        err = is_there ? query_row_write(statement, acknowledged, QUERY_ROW_PLAIN, to)
                       : ERR_NOT_FOUND;
        store_reset(statement);
    }
    return err;
}
