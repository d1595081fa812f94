/* Roll-ups in PostgreSQL by sets: whatever the number of dirty minutes, a refresh costs about ten
 * statements.
 *
 *   readings -> 1m -> 5m -> 1h -> 1d
 *
 * Happy path:
 *   1. Which buckets of each width the minutes lie in is known from the minutes.
 *   2. One SELECT brings the readings of all the minutes; they are added up here, by the code that
 *      the row by row way has too, since the engine's own sums would differ in their last bits.
 *   3. One SELECT for each further width brings the stored buckets below it; what was computed
 *      stands in place of what is stored.
 *   4. All buckets go by COPY into a staging table, one INSERT ... ON CONFLICT moves them.
 *   5. One DELETE takes away the buckets that have become void.
 *
 * Neighbours in time are asked for as one span, by arrays of numbers. Spans are joined LATERAL,
 * with OFFSET 0, so that each is a walk over the index whatever the engine guesses of sizes.
 *
 * Failure modes: something of higher priority waits: ERR_BUSY between two steps. */
#include "store/rollups.h"

#include "base/mem.h"
#include "store/postgres_copy.h"

#include <assert.h>

#define ROWS_PER_LOOK    256u
#define ROW_COLUMNS      9u
#define ROW_BYTES        (2u + ROW_COLUMNS * 12u)
#define NUMBER_BYTES_MAX 21u /* with what is between two */
#define SPAN_ARRAYS      4u

static const char staging[] =
    "CREATE TEMPORARY TABLE IF NOT EXISTS weir_rollup_rows (org bigint, series bigint,"
    " width_ms bigint, start_ms bigint, count bigint, sum double precision, min double precision,"
    " max double precision, last double precision) ON COMMIT DELETE ROWS";

/* Times of series. $1 org, $2 series, $3 from, $4 to. */
#define SPANS                                                                                      \
    " FROM unnest(CAST($1 AS bigint[]), CAST($2 AS bigint[]), CAST($3 AS bigint[]),"               \
    " CAST($4 AS bigint[])) WITH ORDINALITY AS s (org, series, from_ms, to_ms, n)"                 \
    " CROSS JOIN LATERAL "

struct bucket {
    uint64_t org;
    uint64_t series;
    int64_t start_ms;
    struct store_rollup rollup;
};

/* The buckets of one width, in the order of org, series and start. */
struct level {
    struct bucket *buckets;
    uint32_t count;
    int64_t width_ms;
};

struct refresh {
    struct store_connection *connection;
    struct postgres_connection *c;
    struct level levels[STORE_ROLLUP_WIDTHS];
    uint32_t *spans; /* of the level in hand: the first bucket of each, then the end */
    uint32_t span_count;
    struct buffer arrays[SPAN_ARRAYS];
    uint32_t looked; /* counts rows */
    bool has_void;
};

static enum err look(struct refresh *refresh)
{
    bool is_time = ++refresh->looked % ROWS_PER_LOOK == 0;
    return is_time && store_must_yield(refresh->connection) ? ERR_BUSY : ERR_OK;
}

/* --- levels ----------------------------------------------------------------------------------- */

static bool is_of(const struct bucket *bucket, uint64_t org, uint64_t series)
{
    return bucket->org == org && bucket->series == series;
}

static void fill_level(struct level *level, const struct store_minute *minutes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct store_minute *one = &minutes[i];
        int64_t start_ms = store_rollup_start(one->start_ms, level->width_ms);
        const struct bucket *last = level->count > 0 ? &level->buckets[level->count - 1] : NULL;
        if (one->is_gone ||
            (last != NULL && is_of(last, one->org, one->series) && last->start_ms == start_ms)) {
            continue;
        }
        level->buckets[level->count++] =
            (struct bucket){.org = one->org, .series = one->series, .start_ms = start_ms};
    }
}

static enum err make_levels(struct refresh *refresh, const struct store_minute *minutes,
                            uint32_t count)
{
    for (uint32_t i = 0; i < STORE_ROLLUP_WIDTHS; i++) {
        struct level *level = &refresh->levels[i];
        level->width_ms = store_rollup_widths_ms[i];
        level->buckets = mem_try_alloc(count * sizeof(*level->buckets));
        if (level->buckets == NULL) {
            return ERR_NO_MEMORY;
        }
        fill_level(level, minutes, count);
    }
    refresh->spans = mem_try_alloc((count + 1u) * sizeof(*refresh->spans));
    for (uint32_t i = 0; i < SPAN_ARRAYS; i++) {
        buffer_init(&refresh->arrays[i], (size_t)(count + 1) * NUMBER_BYTES_MAX + 2);
    }
    return refresh->spans == NULL ? ERR_NO_MEMORY : ERR_OK;
}

/* --- spans ------------------------------------------------------------------------------------ */

static bool follows(const struct level *level, uint32_t i)
{
    const struct bucket *bucket = &level->buckets[i];
    return i > 0 && is_of(bucket, bucket[-1].org, bucket[-1].series) &&
           bucket->start_ms == bucket[-1].start_ms + level->width_ms;
}

static enum err append_span(struct refresh *refresh, const struct bucket *first, int64_t to_ms)
{
    const int64_t numbers[SPAN_ARRAYS] = {(int64_t)first->org, (int64_t)first->series,
                                          first->start_ms, to_ms};
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < SPAN_ARRAYS && err == ERR_OK; i++) {
        struct buffer *to = &refresh->arrays[i];
        err = buffer_append_byte(to, to->size == 0 ? '{' : ',');
        if (err == ERR_OK) {
            err = buffer_append_i64(to, numbers[i]);
        }
    }
    return err;
}

/* Runs of buckets that follow each other. */
static enum err make_spans(struct refresh *refresh, const struct level *level)
{
    enum err err = ERR_OK;
    refresh->span_count = 0;
    for (uint32_t i = 0; i < SPAN_ARRAYS; i++) {
        buffer_clear(&refresh->arrays[i]);
    }
    for (uint32_t i = 0; i < level->count && err == ERR_OK; i++) {
        if (!follows(level, i)) {
            refresh->spans[refresh->span_count++] = i;
        }
        if (i + 1 == level->count || !follows(level, i + 1)) {
            const struct bucket *first = &level->buckets[refresh->spans[refresh->span_count - 1]];
            err = append_span(refresh, first, level->buckets[i].start_ms + level->width_ms);
        }
    }
    refresh->spans[refresh->span_count] = level->count;
    for (uint32_t i = 0; i < SPAN_ARRAYS && err == ERR_OK; i++) {
        err = buffer_append_byte(&refresh->arrays[i], '}');
    }
    return err;
}

static enum err ask(struct refresh *refresh, const char *sql, struct store_statement **ret)
{
    enum err err = store_prepare(refresh->connection, sql, ret);
    for (uint32_t i = 0; i < SPAN_ARRAYS && err == ERR_OK; i++) {
        store_bind_text(*ret, (int)i + 1, buffer_slice(&refresh->arrays[i]));
    }
    return err;
}

/* The bucket of a span that holds the time. */
static struct bucket *bucket_at(const struct refresh *refresh, const struct level *level, int64_t n,
                                int64_t time_ms)
{
    assert(n > 0 && (uint64_t)n <= refresh->span_count);
    uint32_t first = refresh->spans[n - 1];
    int64_t i = first + (time_ms - level->buckets[first].start_ms) / level->width_ms;
    assert(i >= first && i < refresh->spans[n]);
    return &level->buckets[i];
}

/* --- adding up -------------------------------------------------------------------------------- */

static enum err add_readings(struct refresh *refresh)
{
    struct level *level = &refresh->levels[0];
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = make_spans(refresh, level);
    if (err == ERR_OK) {
        err = ask(refresh,
                  "SELECT s.n, r.time_ms, r.value" SPANS
                  "(SELECT r.time_ms, r.value FROM readings r WHERE r.org = s.org"
                  " AND r.series = s.series AND r.time_ms >= s.from_ms AND r.time_ms < s.to_ms"
                  " AND r.value IS NOT NULL ORDER BY r.time_ms OFFSET 0) r ORDER BY s.n, r.time_ms",
                  &statement);
    }
    while (err == ERR_OK && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        double value = store_column_double(statement, 2);
        const struct store_rollup one = {
            .count = 1, .sum = value, .min = value, .max = value, .last = value};
        struct bucket *to = bucket_at(refresh, level, store_column_i64(statement, 0),
                                      store_column_i64(statement, 1));
        store_rollup_add(&to->rollup, &one);
        err = look(refresh);
    }
    return err;
}

/* Those computed below that come before the stored one, or stand in its place (then true), go into
 * the buckets above. NULL: all that are left. */
static bool add_computed(const struct level *below, struct level *level, uint32_t at[2],
                         const struct bucket *stored)
{
    while (at[0] < below->count) {
        const struct bucket *one = &below->buckets[at[0]];
        int order = stored == NULL ? -1 : 0;
        if (order == 0 && !is_of(one, stored->org, stored->series)) {
            bool is_before =
                one->org < stored->org || (one->org == stored->org && one->series < stored->series);
            order = is_before ? -1 : 1;
        } else if (order == 0 && one->start_ms != stored->start_ms) {
            order = one->start_ms < stored->start_ms ? -1 : 1;
        }
        if (order > 0) {
            return false;
        }
        while (!is_of(&level->buckets[at[1]], one->org, one->series) ||
               store_rollup_start(one->start_ms, level->width_ms) !=
                   level->buckets[at[1]].start_ms) {
            at[1]++;
            assert(at[1] < level->count);
        }
        store_rollup_add(&level->buckets[at[1]].rollup, &one->rollup);
        at[0]++;
        if (order == 0) {
            return true;
        }
    }
    return false;
}

static enum err add_below(struct refresh *refresh, uint32_t width)
{
    struct level *level = &refresh->levels[width];
    const struct level *below = &refresh->levels[width - 1];
    struct store_statement *statement = NULL;
    uint32_t at[2] = {0, 0};
    bool has_row = true;
    enum err err = make_spans(refresh, level);
    if (err == ERR_OK) {
        err = ask(refresh,
                  "SELECT s.n, r.start_ms, r.count, r.sum, r.min, r.max, r.last" SPANS
                  "(SELECT r.* FROM rollups r WHERE r.org = s.org AND r.series = s.series"
                  " AND r.width_ms = $5 AND r.start_ms >= s.from_ms AND r.start_ms < s.to_ms"
                  " ORDER BY r.start_ms OFFSET 0) r ORDER BY s.n, r.start_ms",
                  &statement);
    }
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 5, below->width_ms);
    while (err == ERR_OK && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        int64_t start_ms = store_column_i64(statement, 1);
        struct bucket *to = bucket_at(refresh, level, store_column_i64(statement, 0), start_ms);
        const struct bucket stored = {.org = to->org,
                                      .series = to->series,
                                      .start_ms = start_ms,
                                      .rollup = {.count = (uint64_t)store_column_i64(statement, 2),
                                                 .sum = store_column_double(statement, 3),
                                                 .min = store_column_double(statement, 4),
                                                 .max = store_column_double(statement, 5),
                                                 .last = store_column_double(statement, 6)}};
        if (!add_computed(below, level, at, &stored)) {
            store_rollup_add(&to->rollup, &stored.rollup);
        }
        err = look(refresh);
    }
    (void)add_computed(below, level, at, NULL);
    return err;
}

/* --- writing ---------------------------------------------------------------------------------- */

static enum err put_bucket(struct refresh *refresh, const struct level *level,
                           const struct bucket *bucket)
{
    struct buffer *copy = &refresh->c->copy;
    enum err err = look(refresh);
    if (err == ERR_OK && copy->size >= POSTGRES_COPY_PART_BYTES) {
        err = store_postgres_copy_part(refresh->c, copy);
    }
    if (err == ERR_OK) {
        err = buffer_reserve(copy, ROW_BYTES);
    }
    if (err != ERR_OK) {
        return err;
    }
    uint8_t *to = postgres_put_u16(copy->data + copy->size, ROW_COLUMNS);
    to = postgres_put_i64(to, (int64_t)bucket->org);
    to = postgres_put_i64(to, (int64_t)bucket->series);
    to = postgres_put_i64(to, level->width_ms);
    to = postgres_put_i64(to, bucket->start_ms);
    to = postgres_put_i64(to, (int64_t)bucket->rollup.count);
    to = postgres_put_double(to, bucket->rollup.sum);
    to = postgres_put_double(to, bucket->rollup.min);
    to = postgres_put_double(to, bucket->rollup.max);
    to = postgres_put_double(to, bucket->rollup.last);
    copy->size += ROW_BYTES;
    assert(to == copy->data + copy->size);
    return ERR_OK;
}

static enum err put_level(struct refresh *refresh, const struct level *level)
{
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < level->count && err == ERR_OK; i++) {
        if (level->buckets[i].rollup.count == 0) {
            refresh->has_void = true;
        } else {
            err = put_bucket(refresh, level, &level->buckets[i]);
        }
    }
    return err;
}

/* The staging table, empty. */
static enum err make_staging(struct postgres_connection *c)
{
    enum err err = ERR_OK;
    if (c->rollups_epoch != c->epoch) {
        err = store_postgres_run(c, staging, NULL, 0);
    }
    if (err == ERR_OK && c->has_rollups) {
        err = store_postgres_run(c, "TRUNCATE weir_rollup_rows", NULL, 0);
    }
    if (err == ERR_OK) {
        c->rollups_epoch = c->epoch;
        c->has_rollups = true;
    }
    return err;
}

static enum err stage(struct refresh *refresh)
{
    struct postgres_connection *c = refresh->c;
    enum err err = make_staging(c);
    if (err == ERR_OK) {
        err = store_postgres_run(c, "COPY weir_rollup_rows FROM STDIN (FORMAT binary)", NULL, 0);
    }
    if (err != ERR_OK) {
        return err;
    }
    err = postgres_copy_head(&c->copy);
    for (uint32_t i = 0; i < STORE_ROLLUP_WIDTHS && err == ERR_OK; i++) {
        err = put_level(refresh, &refresh->levels[i]);
    }
    if (err == ERR_OK) {
        err = store_postgres_copy_rest(c, &c->copy);
    }
    return store_postgres_copy_end(c, err);
}

static enum err move(struct refresh *refresh)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(refresh->connection,
                                 "INSERT INTO rollups (org, series, width_ms, start_ms, count, sum,"
                                 " min, max, last) SELECT org, series, width_ms, start_ms, count,"
                                 " sum, min, max, last FROM weir_rollup_rows"
                                 " ON CONFLICT (org, series, width_ms, start_ms) DO UPDATE SET"
                                 " count = excluded.count, sum = excluded.sum, min = excluded.min,"
                                 " max = excluded.max, last = excluded.last",
                                 &statement);
    return err == ERR_OK ? store_execute(statement) : err;
}

/* A void bucket of a level is a span by itself. */
static enum err delete_void(struct refresh *refresh, struct level *level)
{
    struct store_statement *statement = NULL;
    uint32_t count = 0;
    for (uint32_t i = 0; i < level->count; i++) {
        if (level->buckets[i].rollup.count == 0) {
            level->buckets[count++] = level->buckets[i];
        }
    }
    level->count = count;
    if (count == 0) {
        return ERR_OK;
    }
    enum err err = make_spans(refresh, level);
    if (err == ERR_OK) {
        err = ask(refresh,
                  "DELETE FROM rollups WHERE ctid = ANY (ARRAY(SELECT r.place" SPANS
                  "(SELECT r.ctid AS place FROM rollups r WHERE r.org = s.org"
                  " AND r.series = s.series AND r.width_ms = $5 AND r.start_ms >= s.from_ms"
                  " AND r.start_ms < s.to_ms OFFSET 0) r))",
                  &statement);
    }
    if (err == ERR_OK) {
        store_bind_i64(statement, 5, level->width_ms);
        err = store_execute(statement);
    }
    return err;
}

static enum err write_all(struct refresh *refresh)
{
    enum err err = stage(refresh);
    if (err == ERR_OK) {
        err = move(refresh);
    }
    for (uint32_t i = 0; i < STORE_ROLLUP_WIDTHS && err == ERR_OK && refresh->has_void; i++) {
        err = delete_void(refresh, &refresh->levels[i]);
    }
    return err == ERR_OK && store_must_yield(refresh->connection) ? ERR_BUSY : err;
}

enum err store_postgres_write_rollups(struct store_connection *connection,
                                      const struct store_minute *minutes, uint32_t count)
{
    struct refresh refresh = {.connection = connection, .c = postgres_from(connection)};
    enum err err = make_levels(&refresh, minutes, count);
    bool has_any = err == ERR_OK && refresh.levels[0].count > 0;
    if (has_any) {
        err = add_readings(&refresh);
    }
    for (uint32_t i = 1; i < STORE_ROLLUP_WIDTHS && err == ERR_OK && has_any; i++) {
        err = add_below(&refresh, i);
    }
    if (err == ERR_OK && has_any) {
        err = write_all(&refresh);
    }
    for (uint32_t i = 0; i < STORE_ROLLUP_WIDTHS; i++) {
        mem_free(refresh.levels[i].buckets);
    }
    for (uint32_t i = 0; i < SPAN_ARRAYS; i++) {
        buffer_finish(&refresh.arrays[i]);
    }
    mem_free(refresh.spans);
    return err;
}
