/* Readings: what the registry says of them, and their rows.
 *
 * Happy path: the readings are ordered by org, device, parameter and time. Each device is looked up
 * once, each of its parameters once, each reading judged; then its row is written, and its minute
 * noted, once for each run of readings in one minute. At the end of a device its state says when it
 * was heard of last.
 *
 * Failure modes: a reading that does not fit the registry is given its state and leaves no row. A
 * row that the engine refuses fails the whole, or in careful mode gets its state. Something of
 * higher priority waits: ERR_BUSY, and nothing is kept. */
#include "store/readings_batch.h"

#include "base/id.h"
#include "base/limits.h"
#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

#define AHEAD_MS_MAX         (24 * INT64_C(3600000))
#define AGE_MS_MAX           (INT64_C(90) * 24 * 3600000)
#define ATTRIBUTES_BYTES_MAX ((size_t)2 * LIMIT_EVENT_BYTES)
#define ROWS_PER_LOOK        256u
#define SET_ROWS_MIN         16u /* below, row by row takes fewer steps */
#define KEY_PREFIX           8u  /* "project:" */
#define KEY_NAME_AT          (KEY_PREFIX + ID_TEXT_BYTES + 1)

const char *store_reading_reason(enum store_reading_state state)
{
    static const char *const words[] = {
        [STORE_READING_STORED] = "stored",
        [STORE_READING_OLDER] = "older",
        [STORE_READING_UNKNOWN_DEVICE] = "unknown_device",
        [STORE_READING_WRONG_SITE] = "wrong_site",
        [STORE_READING_UNKNOWN_PARAMETER] = "unknown_parameter",
        [STORE_READING_TOO_FAR_AHEAD] = "too_far_ahead",
        [STORE_READING_TOO_OLD] = "too_old",
        [STORE_READING_OUT_OF_RANGE] = "out_of_range",
        [STORE_READING_REFUSED] = "refused",
    };
    return words[state];
}

/* Row by row. */
struct writing {
    struct store_readings *batch;
    struct store_device device;
    struct store_parameter parameter;
    uint64_t dirty_series;
    int64_t dirty_ms;
    bool org_changed;
    bool is_raised; /* the org's version */
};

/* --- order --------------------------------------------------------------------------------- */

/* The last part of the key. */
struct slice store_parameter_name(struct slice parameter)
{
    if (parameter.size > KEY_NAME_AT && slice_starts_with(parameter, SLICE_LITERAL("project:")) &&
        parameter.data[KEY_NAME_AT - 1] == ':') {
        return slice_part(parameter, KEY_NAME_AT, parameter.size);
    }
    return parameter;
}

static int number_compare(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int reading_compare(const void *a, const void *b)
{
    const struct store_reading *x = *(const struct store_reading *const *)a;
    const struct store_reading *y = *(const struct store_reading *const *)b;
    int order = number_compare(x->org, y->org);
    if (order == 0) {
        order = memcmp(x->ids, y->ids, STORE_ID_BYTES);
    }
    if (order == 0) {
        order =
            slice_compare(store_parameter_name(x->parameter), store_parameter_name(y->parameter));
    }
    if (order == 0 && x->time_ms != y->time_ms) {
        order = x->time_ms < y->time_ms ? -1 : 1;
    }
    /* They stand in one array, in the order of their coming. */
    return order != 0 ? order : number_compare((uintptr_t)x, (uintptr_t)y);
}

/* --- the registry -------------------------------------------------------------------------- */

static void copy_id(uint8_t to[STORE_ID_BYTES], struct slice id)
{
    if (id.size == STORE_ID_BYTES) {
        memcpy(to, id.data, STORE_ID_BYTES);
    }
}

void store_device_read(struct store_statement *statement, int column, struct store_device *ret)
{
    *ret = (struct store_device){.is_known = !store_column_is_null(statement, column),
                                 .late_ms = STORE_LATE_MS,
                                 .silence_hours = -1,
                                 .from_ms = INT64_MIN};
    if (!ret->is_known) {
        return;
    }
    ret->number = (uint64_t)store_column_i64(statement, column);
    ret->project = (uint64_t)store_column_i64(statement, column + 1);
    copy_id(ret->project_id, store_column_bytes(statement, column + 2));
    copy_id(ret->site_id, store_column_bytes(statement, column + 3));
    ret->interval_s = store_column_i64(statement, column + 4);
    ret->is_heard = !store_column_is_null(statement, column + 5);
    if (ret->is_heard) {
        ret->last_received_ms = store_column_i64(statement, column + 5);
        ret->last_time_ms = store_column_i64(statement, column + 6);
        ret->silent_ms = store_column_i64(statement, column + 7);
    }
    if (!store_column_is_null(statement, column + 8)) {
        ret->late_ms = store_column_i64(statement, column + 8) * 1000;
    }
    if (!store_column_is_null(statement, column + 9)) {
        ret->silence_hours = store_column_i64(statement, column + 9);
    }
    if (!store_column_is_null(statement, column + 10)) {
        ret->from_ms = store_column_i64(statement, column + 10);
    }
}

static enum err load_device(struct writing *w, const struct store_reading *reading)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    w->device = (struct store_device){.is_known = false, .late_ms = STORE_LATE_MS};
    enum err err = store_prepare(
        w->batch->connection,
        "SELECT " STORE_DEVICE_COLUMNS " FROM devices d JOIN sites s ON s.number = d.site"
        " JOIN projects p ON p.number = s.project JOIN orgs o ON o.number = d.org"
        " LEFT JOIN device_states t ON t.org = d.org AND t.device = d.number"
        " WHERE d.org = $1 AND d.id = $2",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)reading->org);
    store_bind_blob(statement, 2, slice_make(reading->ids, STORE_ID_BYTES));
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        store_device_read(statement, 0, &w->device);
        store_reset(statement);
    }
    return err;
}

void store_parameter_read(struct store_statement *statement, int column,
                          struct store_parameter *ret)
{
    *ret = (struct store_parameter){.is_known = !store_column_is_null(statement, column)};
    if (!ret->is_known) {
        return;
    }
    ret->number = (uint64_t)store_column_i64(statement, column);
    ret->has_min = !store_column_is_null(statement, column + 1);
    ret->min = store_column_double(statement, column + 1);
    ret->has_max = !store_column_is_null(statement, column + 2);
    ret->max = store_column_double(statement, column + 2);
    struct slice policy = store_column_bytes(statement, column + 3);
    ret->policy = policy.size > 0 ? policy.data[0] : 'f';
    bool has_series = !store_column_is_null(statement, column + 4);
    ret->series = has_series ? (uint64_t)store_column_i64(statement, column + 4) : 0;
}

static enum err load_parameter(struct writing *w, const struct store_reading *reading)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    struct slice name = store_parameter_name(reading->parameter);
    w->parameter = (struct store_parameter){.is_known = false};
    if (memchr(name.data, '\0', name.size) != NULL) {
        return ERR_OK; /* no parameter has such a name, and not every engine takes the question */
    }
    enum err err =
        store_prepare(w->batch->connection,
                      "SELECT " STORE_PARAMETER_COLUMNS " FROM parameters q LEFT JOIN series r"
                      " ON r.org = q.org AND r.device = $4 AND r.parameter = q.number"
                      " WHERE q.org = $1 AND q.project = $2 AND q.name_key = $3",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)reading->org);
    store_bind_i64(statement, 2, (int64_t)w->device.project);
    store_bind_text(statement, 3, name);
    store_bind_i64(statement, 4, (int64_t)w->device.number);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        store_parameter_read(statement, 0, &w->parameter);
        store_reset(statement);
    }
    return err;
}

enum err store_series_make(struct store_connection *connection, uint64_t org,
                           const struct store_device *device, struct store_parameter *parameter)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection,
                                 "INSERT INTO series (org, device, parameter) VALUES ($1, $2, $3)"
                                 " ON CONFLICT (org, device, parameter)"
                                 " DO UPDATE SET device = excluded.device RETURNING number",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)device->number);
    store_bind_i64(statement, 3, (int64_t)parameter->number);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        parameter->series = (uint64_t)store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

/* --- judging ------------------------------------------------------------------------------- */

static bool is_said_and_other(const uint8_t said[STORE_ID_BYTES],
                              const uint8_t real[STORE_ID_BYTES])
{
    static const uint8_t none[STORE_ID_BYTES];
    return memcmp(said, none, STORE_ID_BYTES) != 0 && memcmp(said, real, STORE_ID_BYTES) != 0;
}

/* A key that names a project names the device's own. */
static bool is_key_of(struct slice parameter, const uint8_t project[STORE_ID_BYTES])
{
    struct id id;
    if (store_parameter_name(parameter).size == parameter.size) {
        return true;
    }
    return id_parse(slice_part(parameter, KEY_PREFIX, KEY_NAME_AT - 1), &id) &&
           memcmp(id.bytes, project, STORE_ID_BYTES) == 0;
}

static void judge_range(const struct store_parameter *parameter, struct store_reading *reading)
{
    bool is_below = parameter->has_min && reading->value < parameter->min;
    bool is_above = parameter->has_max && reading->value > parameter->max;
    if (!reading->has_value || (!is_below && !is_above)) {
        return;
    }
    if (parameter->policy == 'r') {
        reading->state = STORE_READING_OUT_OF_RANGE;
    } else if (parameter->policy == 'c') {
        reading->stored = is_below ? parameter->min : parameter->max;
        reading->flags |= STORE_READING_FLAG_CLAMPED;
    } else {
        reading->flags |= STORE_READING_FLAG_RANGE;
    }
}

/* Also by a reading that is not taken: the device speaks. */
static void note_heard(struct store_device *device, const struct store_reading *reading)
{
    if (!device->has_news || reading->received_ms > device->received_ms) {
        device->received_ms = reading->received_ms;
    }
    device->has_news = true;
}

static void judge(const struct store_device *device, const struct store_parameter *parameter,
                  struct store_reading *reading)
{
    int64_t age_ms = reading->received_ms - reading->time_ms;
    reading->flags = age_ms > device->late_ms ? STORE_READING_FLAG_LATE : 0;
    reading->series = 0;
    reading->stored = reading->value;
    reading->state = STORE_READING_STORED;
    if (!device->is_known) {
        reading->state = STORE_READING_UNKNOWN_DEVICE;
    } else if (is_said_and_other(reading->ids + STORE_ID_BYTES, device->project_id) ||
               is_said_and_other(reading->ids + 2 * (size_t)STORE_ID_BYTES, device->site_id)) {
        reading->state = STORE_READING_WRONG_SITE;
    } else if (!parameter->is_known || !is_key_of(reading->parameter, device->project_id)) {
        reading->state = STORE_READING_UNKNOWN_PARAMETER;
    } else if (-age_ms > AHEAD_MS_MAX) {
        reading->state = STORE_READING_TOO_FAR_AHEAD;
    } else if (age_ms > AGE_MS_MAX || reading->time_ms < device->from_ms) {
        reading->state = STORE_READING_TOO_OLD;
    } else {
        judge_range(parameter, reading);
    }
}

void store_reading_judge(struct store_device *device, const struct store_parameter *parameter,
                         struct store_reading *reading)
{
    judge(device, parameter, reading);
    if (device->is_known) {
        note_heard(device, reading);
    }
    if (reading->state == STORE_READING_STORED && reading->time_ms > device->time_ms) {
        device->time_ms = reading->time_ms;
    }
}

/* --- rows ---------------------------------------------------------------------------------- */

/* The members of both objects in one; the message's first. */
enum err store_reading_attributes(struct buffer *scratch, const struct store_reading *reading,
                                  struct slice *ret)
{
    struct slice metric = reading->attributes;
    struct slice message = reading->message_attributes;
    if (message.size <= 2 || metric.size <= 2) {
        *ret = metric.size > 2 || message.data == NULL ? metric : message;
        return ERR_OK;
    }
    buffer_clear(scratch);
    enum err err = buffer_append_slice(scratch, slice_part(message, 0, message.size - 1));
    if (err == ERR_OK) {
        err = buffer_append_byte(scratch, ',');
    }
    if (err == ERR_OK) {
        err = buffer_append_slice(scratch, slice_part(metric, 1, metric.size));
    }
    *ret = buffer_slice(scratch);
    return err;
}

enum err store_readings_room(struct store_readings *batch, int64_t time_ms)
{
    const struct store_backend *backend = batch->connection->backend;
    if (backend->reading_room == NULL) {
        return ERR_OK;
    }
    for (uint32_t i = 0; i < STORE_ROOMS; i++) {
        if (time_ms >= batch->rooms[i].from_ms && time_ms < batch->rooms[i].to_ms) {
            return ERR_OK;
        }
    }
    struct store_room *room = &batch->rooms[batch->room_count++ % STORE_ROOMS];
    return backend->reading_room(batch->connection, time_ms, &room->from_ms, &room->to_ms);
}

static void bind_row(struct store_statement *statement, const struct store_reading *reading,
                     struct slice attributes)
{
    store_bind_i64(statement, 1, (int64_t)reading->org);
    store_bind_i64(statement, 2, (int64_t)reading->series);
    store_bind_i64(statement, 3, reading->time_ms);
    if (reading->has_value) {
        store_bind_double(statement, 4, reading->stored);
    } else {
        store_bind_null(statement, 4);
    }
    if (reading->quality >= 0) {
        store_bind_i64(statement, 5, reading->quality);
    } else {
        store_bind_null(statement, 5);
    }
    store_bind_i64(statement, 6, reading->flags);
    store_bind_text(statement, 7, reading->source);
    store_bind_text(statement, 8, reading->event_id);
    store_bind_text(statement, 9, attributes);
    store_bind_i64(statement, 10, reading->received_ms);
    store_bind_i64(statement, 11, (int64_t)reading->position);
}

/* The time of the first arrival stays: a repetition does not make a packet late. */
static enum err write_row(struct writing *w, struct store_reading *reading)
{
    struct store_statement *statement = NULL;
    struct slice attributes = {NULL, 0};
    enum err err = store_reading_attributes(&w->batch->attributes, reading, &attributes);
    if (err != ERR_OK) {
        return err;
    }
    err = store_prepare(
        w->batch->connection,
        "INSERT INTO readings (org, series, time_ms, value, quality, flags, source, event_id,"
        " attributes, received_ms, position)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
        " ON CONFLICT (org, series, time_ms) DO UPDATE SET value = excluded.value,"
        " quality = excluded.quality, flags = excluded.flags, source = excluded.source,"
        " event_id = excluded.event_id, attributes = excluded.attributes,"
        " position = excluded.position WHERE readings.position <= excluded.position",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_row(statement, reading, attributes);
    err = store_execute(statement);
    if (err == ERR_OK && store_changes(w->batch->connection) == 0) {
        reading->state = STORE_READING_OLDER;
    }
    return err;
}

static enum err write_row_carefully(struct writing *w, struct store_reading *reading)
{
    struct store_connection *connection = w->batch->connection;
    const struct store_backend *backend = connection->backend;
    enum err err = backend->savepoint(connection, "reading");
    if (err != ERR_OK) {
        return err;
    }
    err = write_row(w, reading);
    if (err == ERR_REFUSED) {
        reading->state = STORE_READING_REFUSED;
        return backend->savepoint_rollback(connection, "reading");
    }
    return err != ERR_OK ? err : backend->savepoint_release(connection, "reading");
}

static enum err note_dirty(struct writing *w, const struct store_reading *reading)
{
    struct store_statement *statement = NULL;
    int64_t start_ms = store_rollup_start(reading->time_ms, store_rollup_widths_ms[0]);
    if (w->dirty_series == reading->series && w->dirty_ms == start_ms) {
        return ERR_OK;
    }
    w->dirty_series = reading->series;
    w->dirty_ms = start_ms;
    enum err err =
        store_prepare(w->batch->connection, w->batch->connection->backend->note_dirty, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)reading->org);
    store_bind_i64(statement, 2, (int64_t)reading->series);
    store_bind_i64(statement, 3, start_ms);
    return store_execute(statement);
}

static enum err write_reading(struct writing *w, struct store_reading *reading)
{
    enum err err = ERR_OK;
    store_reading_judge(&w->device, &w->parameter, reading);
    if (reading->state != STORE_READING_STORED) {
        return ERR_OK;
    }
    if (w->parameter.series == 0) {
        err = store_series_make(w->batch->connection, reading->org, &w->device, &w->parameter);
    }
    if (err == ERR_OK) {
        err = store_readings_room(w->batch, reading->time_ms);
    }
    if (err == ERR_OK) {
        reading->series = w->parameter.series;
        err = w->batch->careful ? write_row_carefully(w, reading) : write_row(w, reading);
    }
    if (err != ERR_OK || reading->state == STORE_READING_REFUSED) {
        return err;
    }
    w->org_changed = true;
    return reading->state == STORE_READING_STORED ? note_dirty(w, reading) : ERR_OK;
}

/* --- a device's state ---------------------------------------------------------------------- */

int64_t store_device_due_ms(const struct store_device *device)
{
    if (device->silence_hours == 0) {
        return STORE_NEVER_MS;
    }
    return device->last_received_ms + (device->silence_hours > 0
                                           ? device->silence_hours * STORE_HOUR_MS
                                           : device->interval_s * STORE_SILENT_INTERVALS * 1000);
}

/* Nothing is changed where the device is marked otherwise than `was_silent_ms` by now. */
static enum err write_state(struct writing *w, uint64_t org, const struct store_device *device,
                            int64_t was_silent_ms)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        w->batch->connection,
        "INSERT INTO device_states (org, device, last_received_ms, last_time_ms, due_ms, silent_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (org, device) DO UPDATE SET"
        " last_received_ms = excluded.last_received_ms, last_time_ms = excluded.last_time_ms,"
        " due_ms = excluded.due_ms, silent_ms = excluded.silent_ms"
        " WHERE device_states.silent_ms = $7",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)device->number);
    store_bind_i64(statement, 3, device->last_received_ms);
    store_bind_i64(statement, 4, device->last_time_ms);
    store_bind_i64(statement, 5, store_device_due_ms(device));
    store_bind_i64(statement, 6, device->silent_ms);
    store_bind_i64(statement, 7, was_silent_ms);
    return store_execute(statement);
}

static enum err load_mark(struct writing *w, uint64_t org, int64_t *ret_silent_ms)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(
        w->batch->connection, "SELECT silent_ms FROM device_states WHERE org = $1 AND device = $2",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)w->device.number);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        *ret_silent_ms = store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

bool store_device_end(struct store_device *device, uint64_t org, struct store_device_change *change)
{
    bool is_newer = !device->is_heard || device->received_ms > device->last_received_ms;
    *change = (struct store_device_change){.org = org,
                                           .last_received_ms = device->last_received_ms,
                                           .silent_ms = device->silent_ms,
                                           .back_ms = device->received_ms};
    if (device->time_ms > device->last_time_ms) {
        device->last_time_ms = device->time_ms;
    }
    if (is_newer) {
        device->last_received_ms = device->received_ms;
        device->silent_ms = 0;
    }
    return is_newer && change->silent_ms != 0;
}

bool store_device_meet(struct store_device *device, int64_t silent_ms,
                       struct store_device_change *change)
{
    bool is_newer = !device->is_heard || change->back_ms > change->last_received_ms;
    change->silent_ms = silent_ms;
    device->silent_ms = is_newer ? 0 : silent_ms;
    return is_newer && silent_ms != 0;
}

/* Once for each org whose answers change, and before a state of its devices is written: each who
 * takes an org's row and its devices' states takes them in this order. Events, and changes of the
 * registry, have the org's row already when they come to the states. */
static enum err raise_version(struct writing *w, uint64_t org)
{
    if (!w->org_changed || w->is_raised) {
        return ERR_OK;
    }
    w->is_raised = true;
    return store_raise_version(w->batch->connection, org);
}

static enum err end_device(struct writing *w, uint64_t org)
{
    struct store_readings *batch = w->batch;
    struct store_device_change change;
    enum err err = raise_version(w, org);
    if (err != ERR_OK || !w->device.has_news) {
        return err;
    }
    int64_t silent_ms = w->device.silent_ms;
    bool is_back = store_device_end(&w->device, org, &change);
    err = write_state(w, org, &w->device, silent_ms);
    if (err == ERR_OK && store_changes(batch->connection) == 0) {
        /* Somebody else has found it silent since it was loaded. It cannot change any more: what
         * would have been written is locked. */
        err = load_mark(w, org, &silent_ms);
        is_back = store_device_meet(&w->device, silent_ms, &change);
        if (err == ERR_OK) {
            err = write_state(w, org, &w->device, silent_ms);
        }
    }
    if (err == ERR_OK && is_back && batch->on_back != NULL) {
        err = store_tell_device(batch->connection, w->device.number, &change, batch->on_back,
                                batch->context);
    }
    return err;
}

static void end_org(struct writing *w)
{
    w->org_changed = false;
    w->is_raised = false;
}

/* --- all of them --------------------------------------------------------------------------- */

bool store_reading_is_same_device(const struct store_reading *a, const struct store_reading *b)
{
    return a->org == b->org && memcmp(a->ids, b->ids, STORE_ID_BYTES) == 0;
}

/* What changed between two neighbours; `last` NULL: the first. */
static enum err turn(struct writing *w, const struct store_reading *last,
                     const struct store_reading *next)
{
    bool is_device = last != NULL && store_reading_is_same_device(last, next);
    bool is_parameter = is_device && slice_equal(store_parameter_name(last->parameter),
                                                 store_parameter_name(next->parameter));
    enum err err = ERR_OK;
    if (last != NULL && !is_device) {
        err = end_device(w, last->org);
    }
    if (err == ERR_OK && last != NULL && last->org != next->org) {
        end_org(w);
    }
    if (err == ERR_OK && !is_device) {
        err = load_device(w, next);
    }
    if (err == ERR_OK && !is_parameter && w->device.is_known) {
        err = load_parameter(w, next);
    }
    return err;
}

static enum err write_ordered(struct store_readings *batch)
{
    struct writing w = {.batch = batch};
    const struct store_reading *last = NULL;
    for (size_t i = 0; i < batch->count; i++) {
        enum err err = turn(&w, last, batch->order[i]);
        if (err == ERR_OK) {
            err = write_reading(&w, batch->order[i]);
        }
        if (err == ERR_OK && i % ROWS_PER_LOOK == ROWS_PER_LOOK - 1 &&
            store_must_yield(batch->connection)) {
            err = ERR_BUSY;
        }
        if (err != ERR_OK) {
            return err;
        }
        last = batch->order[i];
    }
    return end_device(&w, batch->order[batch->count - 1]->org);
}

enum err store_write_readings(struct store_connection *connection, struct store_reading *readings,
                              size_t count, bool careful, store_on_device on_back, void *context)
{
    const struct store_backend *backend = connection->backend;
    struct store_readings batch = {.connection = connection,
                                   .count = count,
                                   .careful = careful,
                                   .on_back = on_back,
                                   .context = context};
    if (count == 0) {
        return ERR_OK;
    }
    batch.order = mem_try_alloc(count * sizeof(struct store_reading *));
    if (batch.order == NULL) {
        return ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < count; i++) {
        batch.order[i] = &readings[i];
    }
    qsort(batch.order, count, sizeof(struct store_reading *), reading_compare);
    buffer_init(&batch.attributes, ATTRIBUTES_BYTES_MAX);
    bool by_sets = backend->write_readings != NULL && !careful && count >= SET_ROWS_MIN;
    enum err err = by_sets ? backend->write_readings(&batch) : write_ordered(&batch);
    buffer_finish(&batch.attributes);
    mem_free(batch.order);
    return err;
}
