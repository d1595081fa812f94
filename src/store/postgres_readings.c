/* Writing readings into PostgreSQL by sets: a batch costs some ten statements, however many devices
 * and readings are in it.
 *
 * Happy path:
 *   1. What is asked of the registry, each (device, parameter) once, goes by COPY into
 *      weir_reading_keys; one SELECT brings all that is known of them.
 *   2. Each reading is judged here, by the code that the row by row way has too.
 *   3. Of readings of one (series, time) the one that will stand goes by COPY into
 *      weir_reading_rows; one INSERT ... ON CONFLICT moves them into readings.
 *   4. Fewer went in than were sent: older ones than what stands there. One DELETE takes them out
 * of the staging table and names them.
 *   5. Their minutes become dirty, the orgs' versions and then the devices' states are brought up
 *      to date.
 *
 * The staging tables are made by the first batch of a session, so whoever has no readings does not
 * pay for emptying them at each commit.
 *
 * Failure modes: something of higher priority waits: ERR_BUSY between two steps. A row that the
 * engine refuses, or a text that it cannot hold: ERR_REFUSED; the caller goes row by row then. */
#include "store/postgres_readings.h"

#include "base/mem.h"
#include "store/postgres_copy.h"

#include <assert.h>

#define ROWS_PER_LOOK    256u
#define KEY_COLUMNS      4u
#define ROW_COLUMNS      14u
#define STATE_COLUMNS    7u
#define COPY_FIXED_BYTES 192u /* of a row, without its texts */

static const char staging[] =
    "CREATE TEMPORARY TABLE IF NOT EXISTS weir_reading_keys (n bigint, org bigint, device bytea,"
    " name text COLLATE \"C\") ON COMMIT DELETE ROWS;"
    "CREATE TEMPORARY TABLE IF NOT EXISTS weir_reading_rows (n bigint, org bigint, series bigint,"
    " time_ms bigint, value double precision, quality bigint, flags bigint, source text,"
    " event_id text, attributes text, received_ms bigint, position bigint, minute_ms bigint,"
    " many bigint) ON COMMIT DELETE ROWS;"
    "CREATE TEMPORARY TABLE IF NOT EXISTS weir_reading_states (n bigint, org bigint,"
    " device bigint, last_received_ms bigint, last_time_ms bigint, due_ms bigint,"
    " was_silent_ms bigint)"
    " ON COMMIT DELETE ROWS";

/* The readings of one parameter of one device: neighbours in the batch's order. */
struct run {
    size_t from;
    size_t count;
    size_t device;
    struct store_parameter parameter;
};

struct speaker {
    struct store_device device;
    struct store_device_change change;
    bool is_back;
    uint64_t org;
    bool has_rows;
};

struct set {
    struct store_readings *batch;
    struct postgres_connection *c;
    struct run *runs;
    size_t run_count;
    struct speaker *speakers;
    size_t speaker_count;
    size_t row_count; /* sent to be written */
    bool has_many;    /* of one series and time */
};

/* --- what is asked ---------------------------------------------------------------------------- */

static bool is_same_run(const struct store_reading *a, const struct store_reading *b)
{
    return store_reading_is_same_device(a, b) &&
           slice_equal(store_parameter_name(a->parameter), store_parameter_name(b->parameter));
}

static void find_runs(struct set *set)
{
    struct store_reading **order = set->batch->order;
    set->run_count = 0;
    set->speaker_count = 0;
    for (size_t i = 0; i < set->batch->count; i++) {
        if (i == 0 || !store_reading_is_same_device(order[i - 1], order[i])) {
            if (set->speakers != NULL) {
                set->speakers[set->speaker_count].org = order[i]->org;
            }
            set->speaker_count++;
        }
        if (i == 0 || !is_same_run(order[i - 1], order[i])) {
            if (set->runs != NULL) {
                set->runs[set->run_count] =
                    (struct run){.from = i, .device = set->speaker_count - 1};
            }
            set->run_count++;
        }
        if (set->runs != NULL) {
            set->runs[set->run_count - 1].count++;
        }
    }
}

static enum err make_runs(struct set *set)
{
    find_runs(set);
    set->runs = mem_try_alloc(set->run_count * sizeof(*set->runs));
    set->speakers = mem_try_alloc(set->speaker_count * sizeof(*set->speakers));
    if (set->runs == NULL || set->speakers == NULL) {
        return ERR_NO_MEMORY;
    }
    memset(set->speakers, 0, set->speaker_count * sizeof(*set->speakers));
    find_runs(set);
    return ERR_OK;
}

/* Room for a row of this size, after what is full was sent. */
static enum err make_space(struct set *set, size_t number, size_t size)
{
    struct postgres_connection *c = set->c;
    enum err err = ERR_OK;
    if (number % ROWS_PER_LOOK == ROWS_PER_LOOK - 1 && store_must_yield(set->batch->connection)) {
        return ERR_BUSY;
    }
    if (c->copy.size >= POSTGRES_COPY_PART_BYTES) {
        err = store_postgres_copy_part(c, &c->copy);
    }
    if (err == ERR_OK) {
        err = buffer_reserve(&c->copy, COPY_FIXED_BYTES + size);
    }
    return err == ERR_TOO_LARGE ? ERR_REFUSED : err;
}

static void took(struct postgres_connection *c, const uint8_t *end)
{
    assert((size_t)(end - c->copy.data) <= c->copy.capacity);
    c->copy.size = (size_t)(end - c->copy.data);
}

/* COPY from its begin to its end. */
static enum err stage(struct set *set, const char *sql, enum err (*put_rows)(struct set *set))
{
    struct postgres_connection *c = set->c;
    enum err err = store_postgres_run(c, sql, NULL, 0);
    if (err != ERR_OK) {
        return err;
    }
    err = postgres_copy_head(&c->copy);
    if (err == ERR_OK) {
        err = put_rows(set);
    }
    if (err == ERR_OK) {
        err = store_postgres_copy_rest(c, &c->copy);
    }
    err = store_postgres_copy_end(c, err);
    return err == ERR_OK && store_must_yield(set->batch->connection) ? ERR_BUSY : err;
}

static enum err put_keys(struct set *set)
{
    enum err err = ERR_OK;
    for (size_t i = 0; i < set->run_count && err == ERR_OK; i++) {
        const struct store_reading *reading = set->batch->order[set->runs[i].from];
        struct slice name = store_parameter_name(reading->parameter);
        if (memchr(name.data, '\0', name.size) != NULL) {
            name = slice_make(NULL, 0); /* no parameter has such a name */
        }
        err = make_space(set, i, name.size);
        if (err == ERR_OK) {
            uint8_t *to = postgres_put_u16(set->c->copy.data + set->c->copy.size, KEY_COLUMNS);
            to = postgres_put_i64(to, (int64_t)i);
            to = postgres_put_i64(to, (int64_t)reading->org);
            to = postgres_put_bytes(to, slice_make(reading->ids, STORE_ID_BYTES));
            took(set->c, postgres_put_bytes(to, name));
        }
    }
    return err;
}

static enum err load_keys(struct set *set)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = store_prepare(
        set->batch->connection,
        "SELECT k.n, " STORE_DEVICE_COLUMNS ", " STORE_PARAMETER_COLUMNS
        " FROM weir_reading_keys k LEFT JOIN (devices d JOIN sites s ON s.number = d.site"
        " JOIN projects p ON p.number = s.project JOIN orgs o ON o.number = d.org)"
        " ON d.org = k.org AND d.id = k.device"
        " LEFT JOIN device_states t ON t.org = d.org AND t.device = d.number"
        " LEFT JOIN parameters q ON q.org = k.org AND q.project = s.project"
        " AND q.name_key = k.name"
        " LEFT JOIN series r ON r.org = k.org AND r.device = d.number AND r.parameter = q.number",
        &statement);
    while (err == ERR_OK && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        size_t n = (size_t)store_column_i64(statement, 0);
        assert(n < set->run_count);
        struct run *run = &set->runs[n];
        if (n == 0 || set->runs[n - 1].device != run->device) {
            store_device_read(statement, 1, &set->speakers[run->device].device);
        }
        store_parameter_read(statement, 1 + STORE_DEVICE_COLUMN_COUNT, &run->parameter);
    }
    return err;
}

/* --- judging ---------------------------------------------------------------------------------- */

static enum err judge_run(struct set *set, struct run *run)
{
    struct speaker *speaker = &set->speakers[run->device];
    struct store_reading **order = set->batch->order + run->from;
    enum err err = ERR_OK;
    for (size_t i = 0; i < run->count && err == ERR_OK; i++) {
        store_reading_judge(&speaker->device, &run->parameter, order[i]);
        if (order[i]->state != STORE_READING_STORED) {
            continue;
        }
        speaker->has_rows = true;
        if (run->parameter.series == 0) {
            err = store_series_make(set->batch->connection, speaker->org, &speaker->device,
                                    &run->parameter);
        }
        if (err == ERR_OK) {
            order[i]->series = run->parameter.series;
            err = store_readings_room(set->batch, order[i]->time_ms);
        }
    }
    return err;
}

static enum err judge_all(struct set *set)
{
    enum err err = ERR_OK;
    for (size_t i = 0; i < set->run_count && err == ERR_OK; i++) {
        err = judge_run(set, &set->runs[i]);
        if (err == ERR_OK && i % ROWS_PER_LOOK == ROWS_PER_LOOK - 1 &&
            store_must_yield(set->batch->connection)) {
            err = ERR_BUSY;
        }
    }
    return err;
}

/* --- readings of one series and time ---------------------------------------------------------- */

/* Steps through those that begin at `first` in the order of their coming, from what stands there
 * (`stands`; INT64_MIN: nothing), and says of each whether it replaces what came before. Gives the
 * one that stands in the end, or `first`; *ret_end is the place after them. */
static size_t settle_same(struct set *set, size_t first, int64_t stands, size_t *ret_end,
                          size_t *ret_count)
{
    struct store_reading **order = set->batch->order;
    size_t winner = first;
    size_t i = first;
    *ret_count = 0;
    for (; i < set->batch->count; i++) {
        struct store_reading *reading = order[i];
        if (!is_same_run(order[first], reading) || reading->time_ms != order[first]->time_ms) {
            break;
        }
        if (reading->state != STORE_READING_STORED && reading->state != STORE_READING_OLDER) {
            continue;
        }
        bool replaces = (int64_t)reading->position >= stands;
        reading->state = replaces ? STORE_READING_STORED : STORE_READING_OLDER;
        stands = replaces ? (int64_t)reading->position : stands;
        winner = replaces ? i : winner;
        ++*ret_count;
    }
    *ret_end = i;
    return winner;
}

static enum err put_row(struct set *set, size_t winner, size_t first, size_t count)
{
    const struct store_reading *row = set->batch->order[winner];
    struct postgres_connection *c = set->c;
    struct slice attributes = {NULL, 0};
    enum err err = store_reading_attributes(&set->batch->attributes, row, &attributes);
    if (err == ERR_OK) {
        err = make_space(set, set->row_count,
                         row->source.size + row->event_id.size + attributes.size);
    }
    if (err != ERR_OK) {
        return err;
    }
    uint8_t *to = postgres_put_u16(c->copy.data + c->copy.size, ROW_COLUMNS);
    to = postgres_put_i64(to, (int64_t)first);
    to = postgres_put_i64(to, (int64_t)row->org);
    to = postgres_put_i64(to, (int64_t)row->series);
    to = postgres_put_i64(to, row->time_ms);
    to = row->has_value ? postgres_put_double(to, row->stored) : postgres_put_null(to);
    to = row->quality >= 0 ? postgres_put_i64(to, row->quality) : postgres_put_null(to);
    to = postgres_put_i64(to, row->flags);
    to = postgres_put_bytes(to, row->source);
    to = postgres_put_bytes(to, row->event_id);
    to = postgres_put_bytes(to, attributes);
    /* The time of the first arrival stays. */
    to = postgres_put_i64(to, set->batch->order[first]->received_ms);
    to = postgres_put_i64(to, (int64_t)row->position);
    to = postgres_put_i64(to, store_rollup_start(row->time_ms, store_rollup_widths_ms[0]));
    took(c, postgres_put_i64(to, count > 1));
    set->row_count++;
    set->has_many = set->has_many || count > 1;
    return ERR_OK;
}

static enum err put_rows(struct set *set)
{
    enum err err = ERR_OK;
    size_t end = 0;
    size_t count = 0;
    for (size_t i = 0; i < set->batch->count && err == ERR_OK; i = end) {
        end = i + 1;
        if (set->batch->order[i]->state == STORE_READING_STORED) {
            size_t winner = settle_same(set, i, INT64_MIN, &end, &count);
            err = put_row(set, winner, i, count);
        }
    }
    return err;
}

/* Where several came and there was one before, each is told what it met. */
static enum err settle_many(struct set *set)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    size_t end = 0;
    size_t count = 0;
    enum err err = store_prepare(set->batch->connection,
                                 "SELECT w.n, r.position FROM weir_reading_rows w JOIN readings r"
                                 " ON r.org = w.org AND r.series = w.series"
                                 " AND r.time_ms = w.time_ms WHERE w.many = 1",
                                 &statement);
    while (err == ERR_OK && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        size_t first = (size_t)store_column_i64(statement, 0);
        assert(first < set->batch->count);
        (void)settle_same(set, first, store_column_i64(statement, 1), &end, &count);
    }
    return err;
}

/* --- writing ---------------------------------------------------------------------------------- */

static enum err run_plain(struct set *set, const char *sql)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(set->batch->connection, sql, &statement);
    if (err == ERR_OK) {
        err = store_execute(statement);
    }
    return err == ERR_OK && store_must_yield(set->batch->connection) ? ERR_BUSY : err;
}

static enum err note_older(struct set *set)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    size_t end = 0;
    size_t count = 0;
    enum err err = store_prepare(set->batch->connection,
                                 "DELETE FROM weir_reading_rows w USING readings r"
                                 " WHERE r.org = w.org AND r.series = w.series"
                                 " AND r.time_ms = w.time_ms AND r.position > w.position"
                                 " RETURNING w.n",
                                 &statement);
    while (err == ERR_OK && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        size_t first = (size_t)store_column_i64(statement, 0);
        assert(first < set->batch->count);
        (void)settle_same(set, first, INT64_MAX, &end, &count);
    }
    return err;
}

static enum err write_rows(struct set *set)
{
    enum err err = stage(set, "COPY weir_reading_rows FROM STDIN (FORMAT binary)", put_rows);
    if (err == ERR_OK && set->has_many) {
        err = settle_many(set);
    }
    if (err == ERR_OK) {
        err = run_plain(set,
                        "INSERT INTO readings (org, series, time_ms, value, quality, flags, source,"
                        " event_id, attributes, received_ms, position) SELECT org, series, time_ms,"
                        " value, quality, flags, source, event_id, attributes, received_ms,"
                        " position FROM weir_reading_rows"
                        " ON CONFLICT (org, series, time_ms) DO UPDATE SET value = excluded.value,"
                        " quality = excluded.quality, flags = excluded.flags,"
                        " source = excluded.source, event_id = excluded.event_id,"
                        " attributes = excluded.attributes, position = excluded.position"
                        " WHERE readings.position <= excluded.position");
    }
    if (err == ERR_OK && store_changes(set->batch->connection) < set->row_count) {
        err = note_older(set);
    }
    if (err == ERR_OK) {
        err = run_plain(set, "INSERT INTO rollup_dirty (org, series, start_ms)"
                             " SELECT DISTINCT org, series, minute_ms FROM weir_reading_rows"
                             " ORDER BY org, series, minute_ms ON CONFLICT (org, series, start_ms)"
                             " DO UPDATE SET start_ms = excluded.start_ms");
    }
    return err;
}

/* --- devices and orgs ------------------------------------------------------------------------- */

static enum err put_states(struct set *set)
{
    enum err err = ERR_OK;
    for (size_t i = 0; i < set->speaker_count && err == ERR_OK; i++) {
        struct speaker *speaker = &set->speakers[i];
        struct store_device *device = &speaker->device;
        if (!device->has_news) {
            continue;
        }
        int64_t was_silent_ms = device->silent_ms;
        speaker->is_back = store_device_end(device, speaker->org, &speaker->change);
        err = make_space(set, i, 0);
        if (err == ERR_OK) {
            uint8_t *to = postgres_put_u16(set->c->copy.data + set->c->copy.size, STATE_COLUMNS);
            to = postgres_put_i64(to, (int64_t)i);
            to = postgres_put_i64(to, (int64_t)speaker->org);
            to = postgres_put_i64(to, (int64_t)device->number);
            to = postgres_put_i64(to, device->last_received_ms);
            to = postgres_put_i64(to, device->last_time_ms);
            to = postgres_put_i64(to, store_device_due_ms(device));
            took(set->c, postgres_put_i64(to, was_silent_ms));
        }
    }
    return err;
}

/* Locks the states that are there, and meets those that somebody else has found silent since they
 * were loaded. OFFSET 0: all are locked, whatever is asked of them. */
static enum err lock_states(struct set *set)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = store_prepare(
        set->batch->connection,
        "SELECT s.n, t.silent_ms FROM (SELECT * FROM weir_reading_states ORDER BY org, device) s"
        " CROSS JOIN LATERAL (SELECT d.silent_ms FROM device_states d WHERE d.org = s.org"
        " AND d.device = s.device FOR UPDATE OFFSET 0) t WHERE t.silent_ms <> s.was_silent_ms",
        &statement);
    while (err == ERR_OK && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        size_t n = (size_t)store_column_i64(statement, 0);
        assert(n < set->speaker_count);
        struct speaker *speaker = &set->speakers[n];
        speaker->is_back =
            store_device_meet(&speaker->device, store_column_i64(statement, 1), &speaker->change);
    }
    return err;
}

/* One that is not newer leaves the mark as it is. */
static enum err write_states(struct set *set)
{
    enum err err = stage(set, "COPY weir_reading_states FROM STDIN (FORMAT binary)", put_states);
    if (err == ERR_OK) {
        err = lock_states(set);
    }
    if (err == ERR_OK) {
        err =
            run_plain(set, "INSERT INTO device_states AS t (org, device, last_received_ms,"
                           " last_time_ms, due_ms, silent_ms) SELECT org, device, last_received_ms,"
                           " last_time_ms, due_ms, 0 FROM weir_reading_states ORDER BY org, device"
                           " ON CONFLICT (org, device) DO UPDATE SET"
                           " last_received_ms = excluded.last_received_ms,"
                           " last_time_ms = excluded.last_time_ms, due_ms = excluded.due_ms,"
                           " silent_ms = CASE WHEN excluded.last_received_ms > t.last_received_ms"
                           " THEN 0 ELSE t.silent_ms END");
    }
    return err;
}

/* Orgs whose answers change get their next version, before the states: in the order of
 * readings.c. */
static enum err raise_versions(struct set *set)
{
    bool has_rows = false;
    enum err err = ERR_OK;
    for (size_t i = 0; i < set->speaker_count && err == ERR_OK; i++) {
        const struct speaker *speaker = &set->speakers[i];
        has_rows = has_rows || speaker->has_rows;
        bool is_last = i + 1 == set->speaker_count || speaker[1].org != speaker->org;
        if (is_last && has_rows) {
            err = store_raise_version(set->batch->connection, speaker->org);
        }
        has_rows = has_rows && !is_last;
    }
    return err;
}

/* Devices that are back. */
static enum err tell_all(struct set *set)
{
    struct store_readings *batch = set->batch;
    enum err err = ERR_OK;
    for (size_t i = 0; i < set->speaker_count && err == ERR_OK; i++) {
        struct speaker *speaker = &set->speakers[i];
        if (speaker->is_back && batch->on_back != NULL) {
            err = store_tell_device(batch->connection, speaker->device.number, &speaker->change,
                                    batch->on_back, batch->context);
        }
    }
    return err;
}

/* The staging tables, empty. */
static enum err make_staging(struct postgres_connection *c)
{
    enum err err = ERR_OK;
    if (c->readings_epoch != c->epoch) {
        err = store_postgres_run(c, staging, NULL, 0);
    }
    if (err == ERR_OK && c->has_readings) {
        err = store_postgres_run(
            c, "TRUNCATE weir_reading_keys, weir_reading_rows, weir_reading_states", NULL, 0);
    }
    if (err == ERR_OK) {
        c->readings_epoch = c->epoch;
        c->has_readings = true;
    }
    return err;
}

enum err store_postgres_write_readings(struct store_readings *batch)
{
    struct set set = {.batch = batch, .c = postgres_from(batch->connection)};
    enum err err = make_runs(&set);
    if (err == ERR_OK) {
        err = make_staging(set.c);
    }
    if (err == ERR_OK) {
        err = stage(&set, "COPY weir_reading_keys FROM STDIN (FORMAT binary)", put_keys);
    }
    if (err == ERR_OK) {
        err = load_keys(&set);
    }
    if (err == ERR_OK) {
        err = judge_all(&set);
    }
    if (err == ERR_OK) {
        err = write_rows(&set);
    }
    if (err == ERR_OK) {
        err = raise_versions(&set);
    }
    if (err == ERR_OK) {
        err = write_states(&set);
    }
    if (err == ERR_OK) {
        err = tell_all(&set);
    }
    mem_free(set.runs);
    mem_free(set.speakers);
    return err;
}
