/* Roll-ups: buckets of 1m, 5m, 1h and 1d, each computed from what lies below it, in time order.
 *
 *   readings -> 1m -> 5m -> 1h -> 1d
 *
 * They are never incremented: what changes is noted as a dirty minute, and the buckets around it
 * are computed anew. Sums are added from left to right, so a bucket has the same bits however often
 * and in which order its readings came.
 *
 * Happy path: dirty minutes are taken out of the list series by series, so the buckets above a run
 * of them are computed once; by sets where the engine has a way of its own for many. A bucket
 * without a value has no row.
 * Failure modes: the job gives way: nothing is kept, and the minutes stay dirty. */
#include "store/rollups.h"

#include "base/mem.h"

#include <assert.h>
#include <float.h>
#include <stdlib.h>

#define SET_MINUTES_MIN 4u /* below, row by row takes fewer steps */

const int64_t store_rollup_widths_ms[STORE_ROLLUP_WIDTHS] = {60000, 300000, 3600000, 86400000};

int64_t store_rollup_start(int64_t time_ms, int64_t width_ms)
{
    int64_t rest = time_ms % width_ms;
    return time_ms - (rest < 0 ? rest + width_ms : rest);
}

/* A sum above every number is the largest: what is infinite has no JSON, and two such may have no
 * sum, which SQLite takes for NULL. */
static double bounded(double sum)
{
    if (sum > DBL_MAX) {
        return DBL_MAX;
    }
    return sum < -DBL_MAX ? -DBL_MAX : sum;
}

void store_rollup_add(struct store_rollup *to, const struct store_rollup *later)
{
    if (later->count == 0) {
        return;
    }
    if (to->count == 0) {
        *to = *later;
        return;
    }
    to->count += later->count;
    to->sum = bounded(to->sum + later->sum);
    to->min = later->min < to->min ? later->min : to->min;
    to->max = later->max > to->max ? later->max : to->max;
    to->last = later->last;
}

/* --- from readings ------------------------------------------------------------------------- */

/* The open bucket of each width up to the one that is wanted. */
struct stack {
    uint32_t top;
    int64_t starts[STORE_ROLLUP_WIDTHS];
    struct store_rollup open[STORE_ROLLUP_WIDTHS];
};

/* Closes the buckets that a reading at this time is not in. */
static void stack_turn(struct stack *stack, int64_t time_ms)
{
    for (uint32_t i = 0; i < stack->top; i++) {
        int64_t start_ms = store_rollup_start(time_ms, store_rollup_widths_ms[i]);
        if (stack->starts[i] != start_ms) {
            store_rollup_add(&stack->open[i + 1], &stack->open[i]);
            stack->open[i] = (struct store_rollup){0};
            stack->starts[i] = start_ms;
        }
    }
}

static void stack_end(struct stack *stack)
{
    for (uint32_t i = 0; i < stack->top; i++) {
        store_rollup_add(&stack->open[i + 1], &stack->open[i]);
    }
}

enum err store_rollup_compute(struct store_connection *connection, uint64_t org, uint64_t series,
                              uint32_t width, int64_t start_ms, struct store_rollup *ret)
{
    struct store_statement *statement = NULL;
    struct stack stack = {.top = width};
    bool has_row = true;
    assert(width < STORE_ROLLUP_WIDTHS);
    for (uint32_t i = 0; i <= width; i++) {
        stack.starts[i] = start_ms;
    }
    enum err err = store_prepare(connection,
                                 "SELECT time_ms, value FROM readings WHERE org = $1"
                                 " AND series = $2 AND time_ms >= $3 AND time_ms < $4"
                                 " AND value IS NOT NULL ORDER BY time_ms",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)series);
    store_bind_i64(statement, 3, start_ms);
    store_bind_i64(statement, 4, start_ms + store_rollup_widths_ms[width]);
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        double value = store_column_double(statement, 1);
        const struct store_rollup one = {
            .count = 1, .sum = value, .min = value, .max = value, .last = value};
        stack_turn(&stack, store_column_i64(statement, 0));
        store_rollup_add(&stack.open[0], &one);
    }
    if (err == ERR_OK) {
        stack_end(&stack);
        *ret = stack.open[width];
    }
    return err;
}

/* --- stored ones --------------------------------------------------------------------------- */

/* From the stored buckets of the width below. */
static enum err gather(struct store_connection *connection, uint64_t org, uint64_t series,
                       uint32_t width, int64_t start_ms, struct store_rollup *ret)
{
    struct store_statement *statement = NULL;
    struct store_rollup sum = {0};
    bool has_row = true;
    enum err err =
        store_prepare(connection,
                      "SELECT count, sum, min, max, last FROM rollups WHERE org = $1"
                      " AND series = $2 AND width_ms = $3 AND start_ms >= $4 AND start_ms < $5"
                      " ORDER BY start_ms",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)series);
    store_bind_i64(statement, 3, store_rollup_widths_ms[width - 1]);
    store_bind_i64(statement, 4, start_ms);
    store_bind_i64(statement, 5, start_ms + store_rollup_widths_ms[width]);
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        const struct store_rollup one = {.count = (uint64_t)store_column_i64(statement, 0),
                                         .sum = store_column_double(statement, 1),
                                         .min = store_column_double(statement, 2),
                                         .max = store_column_double(statement, 3),
                                         .last = store_column_double(statement, 4)};
        store_rollup_add(&sum, &one);
    }
    if (err == ERR_OK) {
        *ret = sum;
    }
    return err;
}

static void bind_bucket(struct store_statement *statement, uint64_t org, uint64_t series,
                        uint32_t width, int64_t start_ms)
{
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)series);
    store_bind_i64(statement, 3, store_rollup_widths_ms[width]);
    store_bind_i64(statement, 4, start_ms);
}

static enum err write_bucket(struct store_connection *connection, uint64_t org, uint64_t series,
                             uint32_t width, int64_t start_ms)
{
    struct store_statement *statement = NULL;
    struct store_rollup rollup = {0};
    enum err err = width == 0 ? store_rollup_compute(connection, org, series, 0, start_ms, &rollup)
                              : gather(connection, org, series, width, start_ms, &rollup);
    if (err != ERR_OK) {
        return err;
    }
    if (rollup.count == 0) {
        err = store_prepare(connection,
                            "DELETE FROM rollups WHERE org = $1 AND series = $2 AND width_ms = $3"
                            " AND start_ms = $4",
                            &statement);
        if (err == ERR_OK) {
            bind_bucket(statement, org, series, width, start_ms);
            err = store_execute(statement);
        }
        return err;
    }
    err =
        store_prepare(connection,
                      "INSERT INTO rollups (org, series, width_ms, start_ms, count, sum, min, max,"
                      " last) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
                      " ON CONFLICT (org, series, width_ms, start_ms) DO UPDATE SET"
                      " count = excluded.count, sum = excluded.sum, min = excluded.min,"
                      " max = excluded.max, last = excluded.last",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_bucket(statement, org, series, width, start_ms);
    store_bind_i64(statement, 5, (int64_t)rollup.count);
    store_bind_double(statement, 6, rollup.sum);
    store_bind_double(statement, 7, rollup.min);
    store_bind_double(statement, 8, rollup.max);
    store_bind_double(statement, 9, rollup.last);
    return store_execute(statement);
}

/* --- the dirty list ------------------------------------------------------------------------ */

static enum err take_dirty(struct store_connection *connection,
                           const struct store_rollup_place *behind, struct store_minute *minutes,
                           uint32_t limit, uint32_t *count)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = store_prepare(connection, connection->backend->take_dirty, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, limit - *count);
    store_bind_i64(statement, 2, (int64_t)behind->org);
    store_bind_i64(statement, 3, (int64_t)behind->series);
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        assert(*count < limit);
        minutes[(*count)++] =
            (struct store_minute){.org = (uint64_t)store_column_i64(statement, 0),
                                  .series = (uint64_t)store_column_i64(statement, 1),
                                  .start_ms = store_column_i64(statement, 2)};
    }
    return err;
}

static int minute_compare(const void *a, const void *b)
{
    const struct store_minute *x = a;
    const struct store_minute *y = b;
    if (x->org != y->org) {
        return x->org < y->org ? -1 : 1;
    }
    if (x->series != y->series) {
        return x->series < y->series ? -1 : 1;
    }
    return x->start_ms < y->start_ms ? -1 : x->start_ms > y->start_ms;
}

/* Those of the series behind *place, then from the first on: under load each series has its turn,
 * and by then many minutes, whose buckets are computed once. */
static enum err load_dirty(struct store_connection *connection, struct store_minute *minutes,
                           uint32_t limit, struct store_rollup_place *place, uint32_t *ret_count)
{
    static const struct store_rollup_place first = {.org = 0};
    struct store_rollup_place last = {.org = 0};
    uint32_t count = 0;
    enum err err = take_dirty(connection, place, minutes, limit, &count);
    uint32_t behind = count;
    if (err == ERR_OK && count < limit && place->org != 0) {
        err = take_dirty(connection, &first, minutes, limit, &count);
    }
    for (uint32_t i = count > behind ? behind : 0; i < count; i++) {
        const struct store_minute *one = &minutes[i];
        if (one->org > last.org || (one->org == last.org && one->series > last.series)) {
            last = (struct store_rollup_place){.org = one->org, .series = one->series};
        }
    }
    qsort(minutes, count, sizeof(*minutes), minute_compare);
    if (err == ERR_OK) {
        *place = last;
        *ret_count = count;
    }
    return err;
}

static enum err load_from(struct store_connection *connection, uint64_t org, int64_t *ret_ms)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, "SELECT readings_from_ms FROM orgs WHERE number = $1",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    err = store_step(statement, &has_row);
    *ret_ms = INT64_MIN;
    if (err == ERR_OK && has_row) {
        *ret_ms = store_column_is_null(statement, 0) ? INT64_MIN : store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

static enum err mark_gone(struct store_connection *connection, struct store_minute *minutes,
                          uint32_t count)
{
    int64_t from_ms = INT64_MIN;
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < count && err == ERR_OK; i++) {
        if (i == 0 || minutes[i - 1].org != minutes[i].org) {
            err = load_from(connection, minutes[i].org, &from_ms);
        }
        minutes[i].is_gone = minutes[i].start_ms < from_ms;
    }
    return err;
}

/* The buckets of one width around the minutes, each once. */
static enum err refresh_width(struct store_connection *connection,
                              const struct store_minute *minutes, uint32_t count, uint32_t width)
{
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < count && err == ERR_OK; i++) {
        const struct store_minute *one = &minutes[i];
        int64_t start_ms = store_rollup_start(one->start_ms, store_rollup_widths_ms[width]);
        bool is_done =
            i > 0 && minutes[i - 1].org == one->org && minutes[i - 1].series == one->series &&
            store_rollup_start(minutes[i - 1].start_ms, store_rollup_widths_ms[width]) == start_ms;
        if (!is_done && !one->is_gone) {
            err = write_bucket(connection, one->org, one->series, width, start_ms);
        }
        if (err == ERR_OK && store_must_yield(connection)) {
            err = ERR_BUSY;
        }
    }
    return err;
}

uint32_t store_rollups_limit(const struct store_connection *connection)
{
    return connection->backend->minutes_max;
}

enum err store_rollups_refresh(struct store_connection *connection, uint32_t limit,
                               struct store_rollup_place *place, uint32_t *ret_done)
{
    const struct store_backend *backend = connection->backend;
    struct store_minute *minutes = mem_alloc_array(limit, sizeof(*minutes));
    struct store_rollup_place next = *place;
    uint32_t count = 0;
    enum err err = load_dirty(connection, minutes, limit, &next, &count);
    if (err == ERR_OK) {
        err = mark_gone(connection, minutes, count);
    }
    bool by_sets = backend->write_rollups != NULL && count >= SET_MINUTES_MIN;
    if (err == ERR_OK && by_sets) {
        err = backend->write_rollups(connection, minutes, count);
    }
    for (uint32_t width = 0; width < STORE_ROLLUP_WIDTHS && err == ERR_OK && !by_sets; width++) {
        err = refresh_width(connection, minutes, count, width);
    }
    if (err == ERR_OK) {
        *place = next;
        *ret_done = count;
    }
    mem_free(minutes);
    return err;
}
