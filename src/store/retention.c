/* Retention: what an org keeps for so many days goes when they are over, a part at a time.
 *
 *   begin -> months -> (per org: events -> uploads -> dead letters -> readings -> roll-ups) -> done
 *
 * Events go by the hour in which they were accepted, whole hours; event_hours says where they lie.
 * Their ids go with them, so one that is sent again after that is new. Acknowledgements below the
 * org's first event go too. So does what is told of an upload, whatever was in it, once that was
 * finished as long ago and its raw body is deleted.
 *
 * Readings end at a time of the org, readings_from_ms, which only rises, to the start of a day
 * (UTC). From that moment no query shows what is older and none of it is taken any more, so a
 * roll-up is never computed anew from readings of which some are gone. It rises only when no minute
 * before is dirty. The rows go afterwards: row by row, or, where readings lie by month, as whole
 * months that nobody keeps; there what an org still holds in a month that others keep goes row by
 * row too, once all of the month is over for it.
 *
 * Happy path: a pass, begun by the caller now and then, is many short steps. Readings and roll-ups
 * are walked once a day.
 * Failure modes: something of higher priority waits, or a month is being read: ERR_BUSY, and the
 * step is tried again. A step that fails changes nothing; a pass that is broken off begins anew. */
#include "store/backend.h"

#include <assert.h>

#define HOUR_MS     INT64_C(3600000)
#define DAY_MS      INT64_C(86400000)
#define EVENTS_MAX  256u
#define LETTERS_MAX 256
#define UPLOADS_MAX 256
#define ROWS_MAX    512
#define SERIES_MAX  256u

struct bounds {
    int64_t event_days; /* 0: for ever; so are the next three */
    int64_t letter_days;
    int64_t reading_days;
    int64_t rollup_days;
    int64_t from_ms; /* readings before are gone; INT64_MIN: none */
};

static int64_t days_of(struct store_statement *statement, int column)
{
    return store_column_is_null(statement, column) ? 0 : store_column_i64(statement, column);
}

/* The next org that has set anything; retention->org is 0 when there is none. */
static enum err next_org(struct store_connection *connection, struct store_retention *retention,
                         struct bounds *ret)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(connection,
                      "SELECT number, events_days, dead_letters_days, readings_days, rollups_days,"
                      " readings_from_ms FROM orgs WHERE number >= $1 AND (events_days IS NOT NULL"
                      " OR dead_letters_days IS NOT NULL OR readings_days IS NOT NULL"
                      " OR readings_from_ms IS NOT NULL) ORDER BY number LIMIT 1",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)retention->org);
    err = store_step(statement, &has_row);
    uint64_t org = 0;
    if (err == ERR_OK && has_row) {
        org = (uint64_t)store_column_i64(statement, 0);
        *ret = (struct bounds){.event_days = days_of(statement, 1),
                               .letter_days = days_of(statement, 2),
                               .reading_days = days_of(statement, 3),
                               .rollup_days = days_of(statement, 4),
                               .from_ms = store_column_is_null(statement, 5)
                                              ? INT64_MIN
                                              : store_column_i64(statement, 5)};
        store_reset(statement);
    }
    if (org != retention->org) {
        retention->stage = STORE_RETENTION_EVENTS;
        retention->series = 0;
    }
    retention->org = org;
    return err;
}

static enum err run(struct store_connection *connection, const char *sql, const int64_t *values,
                    int count)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection, sql, &statement);
    for (int i = 0; i < count && err == ERR_OK; i++) {
        store_bind_i64(statement, i + 1, values[i]);
    }
    return err != ERR_OK ? err : store_execute(statement);
}

/* The first column of the first row; *ret_has false: there is none, or it is NULL. */
static enum err ask(struct store_connection *connection, const char *sql, const int64_t *values,
                    int count, bool *ret_has, int64_t *ret)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, sql, &statement);
    for (int i = 0; i < count && err == ERR_OK; i++) {
        store_bind_i64(statement, i + 1, values[i]);
    }
    if (err == ERR_OK) {
        err = store_step(statement, &has_row);
    }
    *ret_has = err == ERR_OK && has_row && !store_column_is_null(statement, 0);
    if (*ret_has) {
        *ret = store_column_i64(statement, 0);
    }
    if (err == ERR_OK && has_row) {
        store_reset(statement);
    }
    return err;
}

/* --- events ----------------------------------------------------------------------------------- */

struct hour {
    int64_t number;
    int64_t first;
    int64_t last;
};

struct old_events {
    int64_t last; /* sequence of the last */
    uint32_t count;
    int64_t sequences[EVENTS_MAX];
    int64_t keys[EVENTS_MAX]; /* of subjects; only where those stand apart */
    bool has_subject[EVENTS_MAX];
};

static enum err next_hour(struct store_connection *connection, uint64_t org, int64_t before,
                          bool *ret_has, struct hour *ret)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection,
                                 "SELECT hour, first_sequence, last_sequence FROM event_hours"
                                 " WHERE org = $1 AND hour < $2 ORDER BY hour LIMIT 1",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, before);
    err = store_step(statement, ret_has);
    if (err == ERR_OK && *ret_has) {
        *ret = (struct hour){.number = store_column_i64(statement, 0),
                             .first = store_column_i64(statement, 1),
                             .last = store_column_i64(statement, 2)};
        store_reset(statement);
    }
    return err;
}

static enum err load_events(struct store_connection *connection, const struct hour *hour,
                            struct old_events *ret)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = store_prepare(connection,
                                 "SELECT sequence, subject FROM events WHERE sequence BETWEEN $1"
                                 " AND $2 AND created_ms >= $3 AND created_ms < $4"
                                 " ORDER BY sequence LIMIT $5",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    ret->count = 0;
    store_bind_i64(statement, 1, hour->first);
    store_bind_i64(statement, 2, hour->last);
    store_bind_i64(statement, 3, hour->number * HOUR_MS);
    store_bind_i64(statement, 4, (hour->number + 1) * HOUR_MS);
    store_bind_i64(statement, 5, EVENTS_MAX);
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        struct slice subject = store_column_bytes(statement, 1);
        uint32_t i = ret->count++;
        assert(i < EVENTS_MAX);
        ret->last = ret->sequences[i] = store_column_i64(statement, 0);
        ret->has_subject[i] = subject.data != NULL && connection->backend->has_subjects;
        ret->keys[i] = ret->has_subject[i]
                           ? store_subject_key((uint64_t)ret->last >> STORE_ORG_SHIFT, subject)
                           : 0;
    }
    return err;
}

static enum err delete_events(struct store_connection *connection, const struct hour *hour,
                              const struct old_events *old)
{
    const int64_t range[] = {hour->first, old->last, hour->number * HOUR_MS,
                             (hour->number + 1) * HOUR_MS};
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < old->count && err == ERR_OK; i++) {
        if (old->has_subject[i]) {
            err = run(connection, store_texts(connection)->forget_subject,
                      (const int64_t[]){old->keys[i], old->sequences[i]}, 2);
        }
    }
    if (err == ERR_OK && connection->backend->has_subjects) { /* and ids */
        err = run(connection,
                  "DELETE FROM event_ids WHERE id IN (SELECT id FROM events WHERE sequence"
                  " BETWEEN $1 AND $2 AND created_ms >= $3 AND created_ms < $4)",
                  range, 4);
    }
    return err != ERR_OK ? err
                         : run(connection,
                               "DELETE FROM events WHERE sequence BETWEEN $1 AND $2"
                               " AND created_ms >= $3 AND created_ms < $4",
                               range, 4);
}

/* The hour is empty. */
static enum err end_hour(struct store_connection *connection, uint64_t org, int64_t hour)
{
    const int64_t range[] = {(int64_t)store_sequence_first(org), (int64_t)store_sequence_last(org)};
    int64_t first = range[1];
    bool has_one = false;
    enum err err = run(connection, "DELETE FROM event_hours WHERE org = $1 AND hour = $2",
                       (const int64_t[]){(int64_t)org, hour}, 2);
    if (err == ERR_OK) {
        err = ask(connection,
                  "SELECT sequence FROM events WHERE sequence BETWEEN $1 AND $2"
                  " ORDER BY sequence LIMIT 1",
                  range, 2, &has_one, &first);
    }
    return err != ERR_OK
               ? err
               : run(connection,
                     "DELETE FROM event_acks WHERE first_sequence >= $1 AND last_sequence < $2",
                     (const int64_t[]){range[0], first}, 2);
}

/* What came in before that goes. */
static int64_t events_until(const struct store_retention *retention, int64_t days)
{
    int64_t age_ms = days * DAY_MS;
    return retention->now_ms -
           (age_ms < retention->events_ms_min ? retention->events_ms_min : age_ms);
}

static enum err step_events(struct store_connection *connection, struct store_retention *retention,
                            int64_t days)
{
    struct old_events old = {.count = 0};
    struct hour hour = {0};
    bool has_hour = false;
    enum err err = ERR_OK;
    if (days > 0) {
        err = next_hour(connection, retention->org, events_until(retention, days) / HOUR_MS,
                        &has_hour, &hour);
    }
    if (err != ERR_OK || !has_hour) {
        retention->stage = STORE_RETENTION_UPLOADS;
        return err;
    }
    err = load_events(connection, &hour, &old);
    if (err == ERR_OK && old.count > 0) {
        err = delete_events(connection, &hour, &old);
        retention->events += old.count;
    }
    if (err == ERR_OK && old.count == EVENTS_MAX) {
        err = run(connection,
                  "UPDATE event_hours SET first_sequence = $3 WHERE org = $1 AND hour = $2",
                  (const int64_t[]){(int64_t)retention->org, hour.number, old.last + 1}, 3);
    } else if (err == ERR_OK) {
        err = end_hour(connection, retention->org, hour.number);
    }
    retention->has_changed = true;
    return err;
}

/* --- uploads ---------------------------------------------------------------------------------- */

static enum err step_uploads(struct store_connection *connection, struct store_retention *retention,
                             int64_t days)
{
    enum err err = ERR_OK;
    uint64_t count = 0;
    if (days > 0) {
        err = run(
            connection,
            "DELETE FROM uploads WHERE id IN (SELECT id FROM uploads WHERE org = $1"
            " AND state <> 1 AND raw_deleted = 1 AND finished_ms < $2 LIMIT $3)",
            (const int64_t[]){(int64_t)retention->org, events_until(retention, days), UPLOADS_MAX},
            3);
        count = err == ERR_OK ? store_changes(connection) : 0;
    }
    retention->has_changed = retention->has_changed || count > 0;
    if (count < UPLOADS_MAX) {
        retention->stage = STORE_RETENTION_LETTERS;
    }
    return err;
}

/* --- dead letters ----------------------------------------------------------------------------- */

/* In the order of their numbers, which is that of their becoming: the first that is young ends it.
 */
static enum err step_letters(struct store_connection *connection, struct store_retention *retention,
                             int64_t days)
{
    enum err err = ERR_OK;
    uint64_t count = 0;
    if (days > 0) {
        err = run(connection,
                  "DELETE FROM dead_letters WHERE org = $1 AND received_ms < $2 AND number <="
                  " (SELECT max(n.number) FROM (SELECT number FROM dead_letters WHERE org = $1"
                  " ORDER BY number LIMIT $3) AS n)",
                  (const int64_t[]){(int64_t)retention->org, retention->now_ms - days * DAY_MS,
                                    LETTERS_MAX},
                  3);
        count = err == ERR_OK ? store_changes(connection) : 0;
    }
    retention->letters += count;
    retention->has_changed = retention->has_changed || count > 0;
    if (count < LETTERS_MAX) {
        retention->stage = STORE_RETENTION_BOUND;
    }
    return err;
}

/* --- readings and roll-ups -------------------------------------------------------------------- */

static int64_t day_of(int64_t time_ms)
{
    return store_rollup_start(time_ms, DAY_MS);
}

/* Moves the time before which the org's readings are gone. */
static enum err step_bound(struct store_connection *connection, struct store_retention *retention,
                           const struct bounds *bounds)
{
    int64_t from_ms = day_of(retention->now_ms - bounds->reading_days * DAY_MS);
    int64_t is_dirty = 0;
    bool has_dirty = false;
    enum err err = ERR_OK;
    retention->stage = STORE_RETENTION_READINGS;
    retention->series = 0;
    if (bounds->reading_days == 0 || from_ms <= bounds->from_ms) {
        return ERR_OK;
    }
    err = ask(connection, "SELECT 1 FROM rollup_dirty WHERE org = $1 AND start_ms < $2 LIMIT 1",
              (const int64_t[]){(int64_t)retention->org, from_ms}, 2, &has_dirty, &is_dirty);
    if (err != ERR_OK || has_dirty) {
        return err;
    }
    retention->has_changed = true;
    return run(connection, "UPDATE orgs SET readings_from_ms = $2 WHERE number = $1",
               (const int64_t[]){(int64_t)retention->org, from_ms}, 2);
}

/* Up to which time readings go row by row. */
static enum err rows_until(struct store_connection *connection, int64_t from_ms, int64_t *ret_ms)
{
    int64_t to_ms = 0;
    *ret_ms = from_ms;
    return connection->backend->reading_room == NULL
               ? ERR_OK
               : connection->backend->reading_room(connection, from_ms, ret_ms, &to_ms);
}

static enum err next_series(struct store_connection *connection,
                            const struct store_retention *retention, bool *ret_has, int64_t *ret)
{
    return ask(connection,
               "SELECT number FROM series WHERE org = $1 AND number >= $2 ORDER BY number LIMIT 1",
               (const int64_t[]){(int64_t)retention->org, (int64_t)retention->series}, 2, ret_has,
               ret);
}

static const char delete_readings_sql[] =
    "DELETE FROM readings WHERE org = $1 AND series = $2 AND time_ms <="
    " (SELECT max(t.time_ms) FROM (SELECT time_ms FROM readings WHERE org = $1 AND series = $2"
    " AND time_ms < $3 ORDER BY time_ms LIMIT $4) AS t)";

static enum err delete_readings(struct store_connection *connection, uint64_t org, int64_t series,
                                int64_t until_ms, uint64_t *ret_count)
{
    enum err err = run(connection, delete_readings_sql,
                       (const int64_t[]){(int64_t)org, series, until_ms, ROWS_MAX}, 4);
    *ret_count = err == ERR_OK ? store_changes(connection) : 0;
    return err;
}

static enum err delete_rollups(struct store_connection *connection, uint64_t org, int64_t series,
                               int64_t until_ms, uint64_t *ret_count)
{
    enum err err = ERR_OK;
    *ret_count = 0;
    for (uint32_t width = 0; width < STORE_ROLLUP_WIDTHS && err == ERR_OK && *ret_count < ROWS_MAX;
         width++) {
        err = run(connection,
                  "DELETE FROM rollups WHERE org = $1 AND series = $2 AND width_ms = $5 AND"
                  " start_ms <= (SELECT max(t.start_ms) FROM (SELECT start_ms FROM rollups"
                  " WHERE org = $1 AND series = $2 AND width_ms = $5 AND start_ms < $3"
                  " ORDER BY start_ms LIMIT $4) AS t)",
                  (const int64_t[]){(int64_t)org, series, until_ms, ROWS_MAX,
                                    store_rollup_widths_ms[width]},
                  5);
        *ret_count += err == ERR_OK ? store_changes(connection) : 0;
    }
    return err;
}

/* Some series, or some rows of one. */
static enum err walk_series(struct store_connection *connection, struct store_retention *retention,
                            int64_t until_ms, uint64_t *ret_rows)
{
    bool are_readings = retention->stage == STORE_RETENTION_READINGS;
    bool has_one = true;
    enum err err = ERR_OK;
    *ret_rows = 0;
    for (uint32_t i = 0; i < SERIES_MAX && *ret_rows < ROWS_MAX; i++) {
        int64_t series = 0;
        uint64_t count = 0;
        err = next_series(connection, retention, &has_one, &series);
        if (err != ERR_OK || !has_one) {
            break;
        }
        err = are_readings ? delete_readings(connection, retention->org, series, until_ms, &count)
                           : delete_rollups(connection, retention->org, series, until_ms, &count);
        if (err != ERR_OK) {
            break;
        }
        *ret_rows += count;
        retention->series = (uint64_t)series + (count < ROWS_MAX ? 1u : 0u);
        if (store_must_yield(connection)) {
            return ERR_BUSY;
        }
    }
    if (err == ERR_OK && !has_one) {
        retention->stage = are_readings ? STORE_RETENTION_ROLLUPS : STORE_RETENTION_NEXT;
        retention->series = 0;
    }
    return err;
}

static enum err step_readings(struct store_connection *connection,
                              struct store_retention *retention, const struct bounds *bounds)
{
    int64_t until_ms = 0;
    uint64_t rows = 0;
    if (!retention->is_new_day || bounds->from_ms == INT64_MIN) {
        retention->stage = STORE_RETENTION_ROLLUPS;
        return ERR_OK;
    }
    enum err err = rows_until(connection, bounds->from_ms, &until_ms);
    if (err == ERR_OK) {
        err = walk_series(connection, retention, until_ms, &rows);
    }
    retention->readings += rows;
    return err;
}

static enum err step_rollups(struct store_connection *connection, struct store_retention *retention,
                             const struct bounds *bounds)
{
    uint64_t rows = 0;
    if (!retention->is_new_day || bounds->rollup_days == 0) {
        retention->stage = STORE_RETENTION_NEXT;
        return ERR_OK;
    }
    enum err err = walk_series(connection, retention,
                               day_of(retention->now_ms - bounds->rollup_days * DAY_MS), &rows);
    retention->has_changed = retention->has_changed || rows > 0;
    retention->rollups += rows;
    return err;
}

/* --- the whole -------------------------------------------------------------------------------- */

static enum err step_org(struct store_connection *connection, struct store_retention *retention)
{
    struct bounds bounds = {0};
    enum err err = next_org(connection, retention, &bounds);
    if (err != ERR_OK) {
        return err;
    }
    if (retention->org == 0) {
        retention->stage = STORE_RETENTION_DONE;
        return ERR_OK;
    }
    switch (retention->stage) {
    case STORE_RETENTION_EVENTS:
        return step_events(connection, retention, bounds.event_days);
    case STORE_RETENTION_UPLOADS:
        return step_uploads(connection, retention, bounds.event_days);
    case STORE_RETENTION_LETTERS:
        return step_letters(connection, retention, bounds.letter_days);
    case STORE_RETENTION_BOUND:
        return step_bound(connection, retention, &bounds);
    case STORE_RETENTION_READINGS:
        return step_readings(connection, retention, &bounds);
    case STORE_RETENTION_ROLLUPS:
        return step_rollups(connection, retention, &bounds);
    case STORE_RETENTION_NEXT:
        retention->org++;
        retention->stage = STORE_RETENTION_EVENTS;
        return ERR_OK;
    case STORE_RETENTION_BEGIN:
    case STORE_RETENTION_DONE:
        break;
    }
    assert(false);
    return ERR_INVALID;
}

void store_retention_begin(struct store_retention *retention, int64_t now_ms, int64_t events_ms_min)
{
    int64_t day_ms = day_of(now_ms);
    bool is_new_day = retention->day_ms != day_ms;
    *retention = (struct store_retention){.stage = STORE_RETENTION_BEGIN,
                                          .now_ms = now_ms,
                                          .events_ms_min = events_ms_min,
                                          .is_new_day = is_new_day,
                                          .day_ms = retention->day_ms};
}

/* `next` is a copy: a step that fails leaves the pass where it was. */
enum err store_retention_step(struct store_connection *connection,
                              struct store_retention *retention)
{
    struct store_retention next = *retention;
    enum err err = ERR_OK;
    assert(next.stage != STORE_RETENTION_DONE);
    next.has_changed = false;
    if (next.stage == STORE_RETENTION_BEGIN) {
        next.stage = STORE_RETENTION_EVENTS;
        next.org = 1;
        err = connection->backend->keep_months == NULL
                  ? ERR_OK
                  : connection->backend->keep_months(connection, next.now_ms);
    } else {
        err = step_org(connection, &next);
        if (err == ERR_OK && next.has_changed) {
            err = store_raise_version(connection, next.org);
        }
    }
    if (err == ERR_OK) {
        next.day_ms = next.stage == STORE_RETENTION_DONE ? day_of(next.now_ms) : next.day_ms;
        *retention = next;
    }
    return err;
}
