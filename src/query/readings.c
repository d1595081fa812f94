/* Readings: the newest of each series, their history, and buckets of them.
 *
 * The series that fit the question are walked in the order of their numbers; of each its rows in
 * the order of time. So a place is a series and a time, and a page begins there.
 *
 * Buckets come from the stored roll-ups; one with a dirty minute in it is computed from its
 * readings, so the answer never depends on how far the job is.
 *
 * Failure modes: a device or site that is not the org's is ERR_NOT_FOUND. The answer is above
 * READINGS_BYTES_MAX: the page ends there, cut. */
#include "query/query.h"

#include "base/limits.h"
#include "base/mem.h"
#include "query/readings.h"
#include "store/store.h"
#include "json/json.h"

#include <assert.h>

#define READINGS_BYTES_MAX ((size_t)3 * 1024 * 1024)
#define SQL_BYTES_MAX      2048u

/* --- which series -------------------------------------------------------------------------- */

static enum err check_exists(struct store_connection *connection, const char *sql, uint64_t org,
                             struct id id)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, sql, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_blob(statement, 2, slice_make(id.bytes, sizeof(id.bytes)));
    err = store_step(statement, &has_row);
    store_reset(statement);
    return err == ERR_OK && !has_row ? ERR_NOT_FOUND : err;
}

static enum err check_scope(struct store_connection *connection, const struct query_readings *query)
{
    enum err err = ERR_OK;
    if (query->has_device) {
        err = check_exists(connection, "SELECT 1 FROM devices WHERE org = $1 AND id = $2",
                           query->org, query->device);
    }
    if (err == ERR_OK && query->has_site) {
        err = check_exists(connection, "SELECT 1 FROM sites WHERE org = $1 AND id = $2", query->org,
                           query->site);
    }
    return err;
}

static enum err prepare_series(struct store_connection *connection,
                               const struct query_readings *query, struct store_statement **ret)
{
    struct buffer sql;
    buffer_init(&sql, SQL_BYTES_MAX);
    enum err err = buffer_append_text(
        &sql, "SELECT s.number, d.id, p.key, o.name, g.name, t.name, d.name, d.external_id,"
              " d.device_type, p.name, p.unit, o.readings_from_ms FROM series s"
              " JOIN devices d ON d.number = s.device"
              " JOIN parameters p ON p.number = s.parameter"
              " JOIN sites t ON t.number = d.site JOIN projects g ON g.number = t.project"
              " JOIN orgs o ON o.number = s.org WHERE s.org = $1 AND s.number >= $2");
    if (err == ERR_OK && query->has_device) {
        err = buffer_append_text(&sql, " AND d.org = $1 AND d.id = $3");
    }
    if (err == ERR_OK && query->has_site) {
        err = buffer_append_text(&sql, " AND t.id = $4");
    }
    if (err == ERR_OK && query->parameter.data != NULL) {
        err = buffer_append_text(&sql, " AND (p.key = $5 OR p.name_key = $5)");
    }
    if (err == ERR_OK) {
        err = buffer_append_text(&sql, " ORDER BY s.number");
    }
    if (err == ERR_OK) {
        err = store_prepare_text(connection, buffer_slice(&sql), ret);
    }
    buffer_finish(&sql);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(*ret, 1, (int64_t)query->org);
    store_bind_i64(*ret, 2, (int64_t)query->after.series);
    if (query->has_device) {
        store_bind_blob(*ret, 3, slice_make(query->device.bytes, sizeof(query->device.bytes)));
    }
    if (query->has_site) {
        store_bind_blob(*ret, 4, slice_make(query->site.bytes, sizeof(query->site.bytes)));
    }
    if (query->parameter.data != NULL) {
        store_bind_text(*ret, 5, query->parameter);
    }
    return ERR_OK;
}

/* --- rows ---------------------------------------------------------------------------------- */

static size_t bytes_max(const struct query_readings *query)
{
    return query->bytes_max != 0 ? query->bytes_max : READINGS_BYTES_MAX;
}

/* Room for one more; the first that does not fit ends the page. */
static bool take_place(struct readings_walk *walk, int64_t time_ms)
{
    if (walk->count == walk->query->limit ||
        walk->to->size - walk->from >= bytes_max(walk->query)) {
        walk->is_full = true;
        return false;
    }
    walk->count++;
    walk->last_series = walk->series;
    walk->last_ms = time_ms;
    return true;
}

/* The part of the range that is still to be given of this series. A bucket that was given is behind
 * it with all of its minutes. */
static void bind_range(const struct readings_walk *walk, struct store_statement *statement)
{
    const struct query_readings *query = walk->query;
    int64_t step_ms = query->is_bucketed ? store_rollup_widths_ms[query->width] : 1;
    int64_t start_ms = query->start_ms;
    int64_t end_ms = query->end_ms;
    if (query->after.series == walk->series && walk->series != 0) {
        if (query->newest_first) {
            end_ms = query->after.time_ms < end_ms ? query->after.time_ms : end_ms;
        } else if (query->after.time_ms >= start_ms) {
            start_ms = query->after.time_ms + step_ms;
        }
    }
    if (!query->is_bucketed && walk->from_ms > start_ms) {
        start_ms = walk->from_ms; /* older ones are gone by their age, though rows may be there */
    }
    store_bind_i64(statement, 1, (int64_t)query->org);
    store_bind_i64(statement, 2, (int64_t)walk->series);
    store_bind_i64(statement, 3, start_ms);
    store_bind_i64(statement, 4, end_ms);
}

#define READINGS_SELECT                                                                            \
    "SELECT time_ms, value, quality, source, flags, event_id, attributes FROM readings"            \
    " WHERE org = $1 AND series = $2 AND time_ms >= $3 AND time_ms < $4 ORDER BY time_ms"

static enum err walk_readings(struct readings_walk *walk)
{
    const struct query_readings *query = walk->query;
    struct store_statement *statement = NULL;
    bool has_row = true;
    bool newest_first = query->newest_first || query->latest;
    enum err err = store_prepare(
        walk->connection,
        newest_first ? READINGS_SELECT " DESC LIMIT $5" : READINGS_SELECT " LIMIT $5", &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_range(walk, statement);
    store_bind_i64(statement, 5, query->latest ? 1 : (int64_t)(query->limit - walk->count) + 1);
    while (!walk->is_full && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        if (take_place(walk, store_column_i64(statement, READING_TIME))) {
            err = query_reading_write(walk, statement);
        }
        if (err != ERR_OK) {
            break;
        }
    }
    store_reset(statement);
    return err;
}

/* --- buckets ------------------------------------------------------------------------------- */

/* Starts of the buckets with a dirty minute, in the order of the walk, at most `max`. */
static enum err load_dirty(struct readings_walk *walk, int64_t *starts, uint32_t max,
                           uint32_t *ret_count)
{
    int64_t width_ms = store_rollup_widths_ms[walk->query->width];
    struct store_statement *statement = NULL;
    bool has_row = true;
    uint32_t count = 0;
    enum err err =
        store_prepare(walk->connection,
                      walk->query->newest_first
                          ? "SELECT start_ms FROM rollup_dirty WHERE org = $1 AND series = $2"
                            " AND start_ms >= $3 AND start_ms < $4 ORDER BY start_ms DESC"
                          : "SELECT start_ms FROM rollup_dirty WHERE org = $1 AND series = $2"
                            " AND start_ms >= $3 AND start_ms < $4 ORDER BY start_ms",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_range(walk, statement);
    while (count < max && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        int64_t start_ms = store_rollup_start(store_column_i64(statement, 0), width_ms);
        if (count == 0 || starts[count - 1] != start_ms) {
            starts[count++] = start_ms;
        }
    }
    store_reset(statement);
    *ret_count = count;
    return err;
}

static enum err give_point(struct readings_walk *walk, int64_t start_ms,
                           const struct store_rollup *rollup)
{
    if (rollup->count == 0 || !take_place(walk, start_ms)) {
        return ERR_OK;
    }
    return query_point_write(walk, start_ms, rollup);
}

static enum err give_dirty(struct readings_walk *walk, int64_t start_ms)
{
    struct store_rollup rollup = {0};
    enum err err = store_rollup_compute(walk->connection, walk->query->org, walk->series,
                                        walk->query->width, start_ms, &rollup);
    return err != ERR_OK ? err : give_point(walk, start_ms, &rollup);
}

/* A place in the order of the walk. */
static bool comes_before(const struct readings_walk *walk, int64_t a, int64_t b)
{
    return walk->query->newest_first ? a > b : a < b;
}

/* The dirty ones before a stored one; `*next` goes on. */
static enum err give_before(struct readings_walk *walk, const int64_t *dirty, uint32_t count,
                            uint32_t *next, int64_t start_ms)
{
    enum err err = ERR_OK;
    while (err == ERR_OK && *next < count && comes_before(walk, dirty[*next], start_ms)) {
        err = give_dirty(walk, dirty[(*next)++]);
    }
    return err;
}

#define ROLLUPS_SELECT                                                                             \
    "SELECT start_ms, count, sum, min, max, last FROM rollups WHERE org = $1 AND series = $2"      \
    " AND width_ms = $5 AND start_ms >= $3 AND start_ms < $4 ORDER BY start_ms"

static enum err walk_merged(struct readings_walk *walk, const int64_t *dirty, uint32_t count)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    uint32_t next = 0;
    enum err err = store_prepare(
        walk->connection, walk->query->newest_first ? ROLLUPS_SELECT " DESC" : ROLLUPS_SELECT,
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_range(walk, statement);
    store_bind_i64(statement, 5, store_rollup_widths_ms[walk->query->width]);
    while (!walk->is_full && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        int64_t start_ms = store_column_i64(statement, 0);
        err = give_before(walk, dirty, count, &next, start_ms);
        if (err != ERR_OK) {
            break;
        }
        if (next < count && dirty[next] == start_ms) {
            continue; /* it comes when the next one is met, or at the end */
        }
        const struct store_rollup rollup = {.count = (uint64_t)store_column_i64(statement, 1),
                                            .sum = store_column_double(statement, 2),
                                            .min = store_column_double(statement, 3),
                                            .max = store_column_double(statement, 4),
                                            .last = store_column_double(statement, 5)};
        err = give_point(walk, start_ms, &rollup);
        if (err != ERR_OK) {
            break;
        }
    }
    store_reset(statement);
    while (err == ERR_OK && !walk->is_full && next < count) {
        err = give_dirty(walk, dirty[next++]);
    }
    return err;
}

static enum err walk_buckets(struct readings_walk *walk)
{
    uint32_t max = walk->query->limit - walk->count + 1;
    uint32_t count = 0;
    int64_t *dirty = mem_try_alloc(max * sizeof(*dirty));
    enum err err = dirty == NULL ? ERR_NO_MEMORY : load_dirty(walk, dirty, max, &count);
    if (err == ERR_OK) {
        err = walk_merged(walk, dirty, count);
    }
    mem_free(dirty);
    return err;
}

/* --- the whole ----------------------------------------------------------------------------- */

static enum err walk_series(struct readings_walk *walk)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = prepare_series(walk->connection, walk->query, &statement);
    if (err != ERR_OK) {
        return err;
    }
    while (!walk->is_full && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        walk->series = (uint64_t)store_column_i64(statement, SERIES_NUMBER);
        walk->names = statement;
        if (walk->query->latest && walk->series == walk->query->after.series) {
            continue;
        }
        id_format(id_from_bytes(store_column_bytes(statement, SERIES_DEVICE_ID)), walk->device_id);
        walk->key = store_column_bytes(statement, SERIES_KEY);
        walk->from_ms = store_column_is_null(statement, SERIES_FROM)
                            ? INT64_MIN
                            : store_column_i64(statement, SERIES_FROM);
        err = walk->query->is_bucketed ? walk_buckets(walk) : walk_readings(walk);
        if (err != ERR_OK) {
            break;
        }
    }
    store_reset(statement);
    return err;
}

/* Of buckets a range has whole ones: those that it touches. */
static void widen_range(struct query_readings *query)
{
    int64_t width_ms = store_rollup_widths_ms[query->width];
    if (query->start_ms != INT64_MIN) {
        query->start_ms = store_rollup_start(query->start_ms, width_ms);
    }
    if (query->end_ms != INT64_MAX) {
        query->end_ms = store_rollup_start(query->end_ms - 1, width_ms) + width_ms;
    }
}

enum err query_readings_page(struct store_connection *connection,
                             const struct query_readings *query, struct buffer *to,
                             struct query_readings_end *ret)
{
    struct query_readings resolved = *query;
    struct readings_walk walk = {
        .connection = connection, .query = &resolved, .to = to, .from = to->size};
    if (query->is_bucketed) {
        widen_range(&resolved);
    }
    enum err err = check_scope(connection, query);
    if (err == ERR_OK) {
        err = walk_series(&walk);
    }
    if (err == ERR_OK) {
        *ret = (struct query_readings_end){.count = walk.count,
                                           .has_more = walk.is_full,
                                           .place = {walk.last_series, walk.last_ms}};
    }
    return err;
}

static enum err write_end(const struct query_readings *query, const struct query_readings_end *end,
                          struct buffer *to)
{
    char text[QUERY_READINGS_CURSOR_BYTES];
    if (query->form == QUERY_READINGS_ROWS) {
        return buffer_append_byte(to, ']');
    }
    if (!end->has_more) {
        return buffer_append_text(to, "],\"next_cursor\":null}");
    }
    query_readings_cursor_format(query->newest_first, query->org, &end->place, text);
    return buffer_printf(to, "],\"truncated\":true,\"next_cursor\":\"%.*s\"}", (int)sizeof(text),
                         text);
}

static enum err write_begin(const struct query_readings *query, struct buffer *to)
{
    static const char *const names[STORE_ROLLUP_WIDTHS] = {"1m", "5m", "1h", "1d"};
    static const char *const aggregates[] = {"avg", "min", "max", "sum", "last", "count"};
    if (query->form == QUERY_READINGS_ROWS) {
        return buffer_append_byte(to, '[');
    }
    if (!query->is_bucketed) {
        return buffer_append_text(to, "{\"readings\":[");
    }
    return buffer_printf(to, "{\"bucket\":\"%s\",\"agg\":\"%s\",\"points\":[", names[query->width],
                         aggregates[query->aggregate]);
}

enum err query_readings_list(struct store_connection *connection,
                             const struct query_readings *query, struct buffer *to)
{
    struct query_readings_end end = {.count = 0};
    enum err err = write_begin(query, to);
    if (err == ERR_OK) {
        err = query_readings_page(connection, query, to, &end);
    }
    return err != ERR_OK ? err : write_end(query, &end, to);
}

/* --- places -------------------------------------------------------------------------------- */

/* Two cursors, one behind the other: the series, then the time. */
void query_readings_cursor_format(bool newest_first, uint64_t org,
                                  const struct query_readings_place *place,
                                  char to[QUERY_READINGS_CURSOR_BYTES])
{
    enum query_list list = newest_first ? QUERY_LIST_READINGS_NEWEST : QUERY_LIST_READINGS;
    query_cursor_format(list, org, place->series, to);
    query_cursor_format(list, org ^ place->series, (uint64_t)place->time_ms,
                        to + QUERY_CURSOR_TEXT_BYTES);
}

bool query_readings_cursor_parse(bool newest_first, uint64_t org, struct slice text,
                                 struct query_readings_place *ret)
{
    enum query_list list = newest_first ? QUERY_LIST_READINGS_NEWEST : QUERY_LIST_READINGS;
    struct query_readings_place place = {.series = 0};
    uint64_t time_ms = 0;
    if (!query_cursor_parse(list, org, slice_part(text, 0, QUERY_CURSOR_TEXT_BYTES),
                            &place.series) ||
        !query_cursor_parse(list, org ^ place.series,
                            slice_part(text, QUERY_CURSOR_TEXT_BYTES, text.size), &time_ms)) {
        return false;
    }
    place.time_ms = (int64_t)time_ms;
    *ret = place;
    return true;
}
