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
#include "store/backend.h"

#include "base/buffer.h"
#include "base/id.h"
#include "base/limits.h"
#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

#define AHEAD_MS_MAX         (24 * INT64_C(3600000))
#define AGE_MS_MAX           (INT64_C(90) * 24 * 3600000)
#define LATE_MS              (5 * INT64_C(60000))
#define SILENT_INTERVALS     3
#define HOUR_MS              INT64_C(3600000)
#define NEVER_MS             INT64_C(253402300799999) /* the last of the year 9999 */
#define ATTRIBUTES_BYTES_MAX ((size_t)2 * LIMIT_EVENT_BYTES)
#define ROWS_PER_LOOK        256u
#define KEY_PREFIX           8u /* "project:" */
#define KEY_NAME_AT          (KEY_PREFIX + ID_TEXT_BYTES + 1)
#define ID_BYTES             16u

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

/* What the registry and the states say of one device. */
struct device {
    bool is_known;
    bool is_heard; /* there is a row of its state */
    uint64_t number;
    uint64_t project;
    uint8_t project_id[ID_BYTES];
    uint8_t site_id[ID_BYTES];
    int64_t interval_s;
    int64_t last_received_ms;
    int64_t last_time_ms;
    int64_t silent_ms;
    int64_t late_ms;       /* as its org has set it, or the rule */
    int64_t silence_hours; /* the same; -1: by its interval, 0: never */
    /* Of this batch. */
    bool has_news;
    int64_t received_ms;
    int64_t time_ms;
};

struct parameter {
    bool is_known;
    uint64_t number;
    uint64_t series; /* 0: not made yet */
    bool has_min;
    bool has_max;
    double min;
    double max;
    uint8_t policy; /* its first letter */
};

struct writing {
    struct store_connection *connection;
    struct store_reading **order;
    size_t count;
    bool careful;
    store_on_device on_back;
    void *context;
    struct device device;
    struct parameter parameter;
    uint64_t dirty_series;
    int64_t dirty_ms;
    bool org_changed;
    struct buffer attributes; /* of the reading in hand, put together */
};

/* --- order --------------------------------------------------------------------------------- */

/* The last part of the key. */
static struct slice name_of(struct slice parameter)
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
        order = memcmp(x->ids, y->ids, ID_BYTES);
    }
    if (order == 0) {
        order = slice_compare(name_of(x->parameter), name_of(y->parameter));
    }
    if (order == 0 && x->time_ms != y->time_ms) {
        order = x->time_ms < y->time_ms ? -1 : 1;
    }
    /* They stand in one array, in the order of their coming. */
    return order != 0 ? order : number_compare((uintptr_t)x, (uintptr_t)y);
}

/* --- the registry -------------------------------------------------------------------------- */

static void copy_id(uint8_t to[ID_BYTES], struct slice id)
{
    if (id.size == ID_BYTES) {
        memcpy(to, id.data, ID_BYTES);
    }
}

static enum err load_device(struct writing *w, const struct store_reading *reading)
{
    struct store_statement *statement = NULL;
    struct device *device = &w->device;
    *device = (struct device){.is_known = false, .late_ms = LATE_MS, .silence_hours = -1};
    enum err err = store_prepare(
        w->connection,
        "SELECT d.number, s.project, p.id, s.id, d.interval_s, t.last_received_ms, t.last_time_ms,"
        " t.silent_ms, o.late_s, o.silence_hours FROM devices d JOIN sites s ON s.number = d.site"
        " JOIN projects p ON p.number = s.project JOIN orgs o ON o.number = d.org"
        " LEFT JOIN device_states t ON t.org = d.org AND t.device = d.number"
        " WHERE d.org = $1 AND d.id = $2",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)reading->org);
    store_bind_blob(statement, 2, slice_make(reading->ids, ID_BYTES));
    err = store_step(statement, &device->is_known);
    if (err != ERR_OK || !device->is_known) {
        return err;
    }
    device->number = (uint64_t)store_column_i64(statement, 0);
    device->project = (uint64_t)store_column_i64(statement, 1);
    copy_id(device->project_id, store_column_bytes(statement, 2));
    copy_id(device->site_id, store_column_bytes(statement, 3));
    device->interval_s = store_column_i64(statement, 4);
    device->is_heard = !store_column_is_null(statement, 5);
    if (device->is_heard) {
        device->last_received_ms = store_column_i64(statement, 5);
        device->last_time_ms = store_column_i64(statement, 6);
        device->silent_ms = store_column_i64(statement, 7);
    }
    if (!store_column_is_null(statement, 8)) {
        device->late_ms = store_column_i64(statement, 8) * 1000;
    }
    if (!store_column_is_null(statement, 9)) {
        device->silence_hours = store_column_i64(statement, 9);
    }
    store_reset(statement);
    return ERR_OK;
}

static enum err load_parameter(struct writing *w, const struct store_reading *reading)
{
    struct store_statement *statement = NULL;
    struct parameter *parameter = &w->parameter;
    *parameter = (struct parameter){.is_known = false};
    enum err err = store_prepare(w->connection,
                                 "SELECT p.number, p.min_value, p.max_value, p.policy, s.number"
                                 " FROM parameters p LEFT JOIN series s"
                                 " ON s.org = p.org AND s.device = $4 AND s.parameter = p.number"
                                 " WHERE p.org = $1 AND p.project = $2 AND p.name_key = $3",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)reading->org);
    store_bind_i64(statement, 2, (int64_t)w->device.project);
    store_bind_text(statement, 3, name_of(reading->parameter));
    store_bind_i64(statement, 4, (int64_t)w->device.number);
    err = store_step(statement, &parameter->is_known);
    if (err != ERR_OK || !parameter->is_known) {
        return err;
    }
    parameter->number = (uint64_t)store_column_i64(statement, 0);
    parameter->has_min = !store_column_is_null(statement, 1);
    parameter->min = store_column_double(statement, 1);
    parameter->has_max = !store_column_is_null(statement, 2);
    parameter->max = store_column_double(statement, 2);
    struct slice policy = store_column_bytes(statement, 3);
    parameter->policy = policy.size > 0 ? policy.data[0] : 'f';
    parameter->series =
        store_column_is_null(statement, 4) ? 0 : (uint64_t)store_column_i64(statement, 4);
    store_reset(statement);
    return ERR_OK;
}

static enum err make_series(struct writing *w, uint64_t org)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(w->connection,
                                 "INSERT INTO series (org, device, parameter) VALUES ($1, $2, $3)"
                                 " RETURNING number",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)w->device.number);
    store_bind_i64(statement, 3, (int64_t)w->parameter.number);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        w->parameter.series = (uint64_t)store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

/* --- judging ------------------------------------------------------------------------------- */

static bool is_said_and_other(const uint8_t said[ID_BYTES], const uint8_t real[ID_BYTES])
{
    static const uint8_t none[ID_BYTES];
    return memcmp(said, none, ID_BYTES) != 0 && memcmp(said, real, ID_BYTES) != 0;
}

/* A key that names a project names the device's own. */
static bool is_key_of(struct slice parameter, const uint8_t project[ID_BYTES])
{
    struct id id;
    if (name_of(parameter).size == parameter.size) {
        return true;
    }
    return id_parse(slice_part(parameter, KEY_PREFIX, KEY_NAME_AT - 1), &id) &&
           memcmp(id.bytes, project, ID_BYTES) == 0;
}

static void judge_range(const struct parameter *parameter, struct store_reading *reading)
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

static void judge(const struct device *device, const struct parameter *parameter,
                  struct store_reading *reading)
{
    int64_t age_ms = reading->received_ms - reading->time_ms;
    reading->flags = age_ms > device->late_ms ? STORE_READING_FLAG_LATE : 0;
    reading->series = 0;
    reading->stored = reading->value;
    reading->state = STORE_READING_STORED;
    if (!device->is_known) {
        reading->state = STORE_READING_UNKNOWN_DEVICE;
    } else if (is_said_and_other(reading->ids + ID_BYTES, device->project_id) ||
               is_said_and_other(reading->ids + 2 * (size_t)ID_BYTES, device->site_id)) {
        reading->state = STORE_READING_WRONG_SITE;
    } else if (!parameter->is_known || !is_key_of(reading->parameter, device->project_id)) {
        reading->state = STORE_READING_UNKNOWN_PARAMETER;
    } else if (-age_ms > AHEAD_MS_MAX) {
        reading->state = STORE_READING_TOO_FAR_AHEAD;
    } else if (age_ms > AGE_MS_MAX) {
        reading->state = STORE_READING_TOO_OLD;
    } else {
        judge_range(parameter, reading);
    }
}

/* --- rows ---------------------------------------------------------------------------------- */

/* The members of both objects in one; the message's first. */
static enum err merge_attributes(struct buffer *to, const struct store_reading *reading,
                                 struct slice *ret)
{
    struct slice metric = reading->attributes;
    struct slice message = reading->message_attributes;
    if (message.size <= 2 || metric.size <= 2) {
        *ret = metric.size > 2 || message.data == NULL ? metric : message;
        return ERR_OK;
    }
    buffer_clear(to);
    enum err err = buffer_append_slice(to, slice_part(message, 0, message.size - 1));
    if (err == ERR_OK) {
        err = buffer_append_byte(to, ',');
    }
    if (err == ERR_OK) {
        err = buffer_append_slice(to, slice_part(metric, 1, metric.size));
    }
    *ret = buffer_slice(to);
    return err;
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
    enum err err = merge_attributes(&w->attributes, reading, &attributes);
    if (err != ERR_OK) {
        return err;
    }
    err = store_prepare(
        w->connection,
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
    if (err == ERR_OK && store_changes(w->connection) == 0) {
        reading->state = STORE_READING_OLDER;
    }
    return err;
}

static enum err write_row_carefully(struct writing *w, struct store_reading *reading)
{
    struct store_connection *connection = w->connection;
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
        store_prepare(w->connection,
                      "INSERT INTO rollup_dirty (org, series, start_ms) VALUES ($1, $2, $3)"
                      " ON CONFLICT (org, series, start_ms) DO NOTHING",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)reading->org);
    store_bind_i64(statement, 2, (int64_t)reading->series);
    store_bind_i64(statement, 3, start_ms);
    return store_execute(statement);
}

/* Also by a reading that is not taken: the device speaks. */
static void note_heard(struct device *device, const struct store_reading *reading)
{
    if (!device->has_news || reading->received_ms > device->received_ms) {
        device->received_ms = reading->received_ms;
    }
    device->has_news = true;
}

static enum err write_reading(struct writing *w, struct store_reading *reading)
{
    enum err err = ERR_OK;
    judge(&w->device, &w->parameter, reading);
    if (w->device.is_known) {
        note_heard(&w->device, reading);
    }
    if (reading->state != STORE_READING_STORED) {
        return ERR_OK;
    }
    if (w->parameter.series == 0) {
        err = make_series(w, reading->org);
    }
    if (err == ERR_OK) {
        reading->series = w->parameter.series;
        err = w->careful ? write_row_carefully(w, reading) : write_row(w, reading);
    }
    if (err != ERR_OK || reading->state == STORE_READING_REFUSED) {
        return err;
    }
    if (reading->time_ms > w->device.time_ms) {
        w->device.time_ms = reading->time_ms;
    }
    w->org_changed = true;
    return reading->state == STORE_READING_STORED ? note_dirty(w, reading) : ERR_OK;
}

/* --- a device's state ---------------------------------------------------------------------- */

static int64_t due_ms_of(const struct device *device)
{
    if (device->silence_hours == 0) {
        return NEVER_MS;
    }
    return device->last_received_ms + (device->silence_hours > 0
                                           ? device->silence_hours * HOUR_MS
                                           : device->interval_s * SILENT_INTERVALS * 1000);
}

static enum err write_state(struct writing *w, uint64_t org, const struct device *device)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        w->connection,
        "INSERT INTO device_states (org, device, last_received_ms, last_time_ms, due_ms, silent_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (org, device) DO UPDATE SET"
        " last_received_ms = excluded.last_received_ms, last_time_ms = excluded.last_time_ms,"
        " due_ms = excluded.due_ms, silent_ms = excluded.silent_ms",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)device->number);
    store_bind_i64(statement, 3, device->last_received_ms);
    store_bind_i64(statement, 4, device->last_time_ms);
    store_bind_i64(statement, 5, due_ms_of(device));
    store_bind_i64(statement, 6, device->silent_ms);
    return store_execute(statement);
}

static const char device_columns[] =
    "SELECT d.id, s.id, p.id, d.name, d.external_id, d.interval_s FROM devices d"
    " JOIN sites s ON s.number = d.site JOIN projects p ON p.number = s.project"
    " WHERE d.org = $1 AND d.number = $2";

static enum err tell_change(struct store_connection *connection, uint64_t number,
                            struct store_device_change *change, store_on_device on_device,
                            void *context)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, device_columns, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)change->org);
    store_bind_i64(statement, 2, (int64_t)number);
    err = store_step(statement, &has_row);
    if (err != ERR_OK || !has_row) {
        return err;
    }
    change->id = store_column_bytes(statement, 0).data;
    change->site = store_column_bytes(statement, 1).data;
    change->project = store_column_bytes(statement, 2).data;
    change->name = store_column_bytes(statement, 3);
    change->external_id = store_column_bytes(statement, 4);
    change->interval_s = store_column_i64(statement, 5);
    err = on_device(connection, change, context);
    store_reset(statement);
    return err;
}

static enum err end_device(struct writing *w, uint64_t org)
{
    struct device *device = &w->device;
    if (!device->has_news) {
        return ERR_OK;
    }
    bool is_newer = !device->is_heard || device->received_ms > device->last_received_ms;
    struct store_device_change change = {.org = org,
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
    enum err err = write_state(w, org, device);
    if (err == ERR_OK && is_newer && change.silent_ms != 0 && w->on_back != NULL) {
        err = tell_change(w->connection, device->number, &change, w->on_back, w->context);
    }
    return err;
}

static enum err end_org(struct writing *w, uint64_t org)
{
    bool has_changed = w->org_changed;
    w->org_changed = false;
    return has_changed ? store_raise_version(w->connection, org) : ERR_OK;
}

/* --- all of them --------------------------------------------------------------------------- */

static bool is_same_device(const struct store_reading *a, const struct store_reading *b)
{
    return a->org == b->org && memcmp(a->ids, b->ids, ID_BYTES) == 0;
}

/* What changed between two neighbours; `last` NULL: the first. */
static enum err turn(struct writing *w, const struct store_reading *last,
                     const struct store_reading *next)
{
    bool is_device = last != NULL && is_same_device(last, next);
    bool is_parameter =
        is_device && slice_equal(name_of(last->parameter), name_of(next->parameter));
    enum err err = ERR_OK;
    if (last != NULL && !is_device) {
        err = end_device(w, last->org);
    }
    if (err == ERR_OK && last != NULL && last->org != next->org) {
        err = end_org(w, last->org);
    }
    if (err == ERR_OK && !is_device) {
        err = load_device(w, next);
    }
    if (err == ERR_OK && !is_parameter && w->device.is_known) {
        err = load_parameter(w, next);
    }
    return err;
}

static enum err write_ordered(struct writing *w)
{
    const struct store_reading *last = NULL;
    for (size_t i = 0; i < w->count; i++) {
        enum err err = turn(w, last, w->order[i]);
        if (err == ERR_OK) {
            err = write_reading(w, w->order[i]);
        }
        if (err == ERR_OK && i % ROWS_PER_LOOK == ROWS_PER_LOOK - 1 &&
            store_must_yield(w->connection)) {
            err = ERR_BUSY;
        }
        if (err != ERR_OK) {
            return err;
        }
        last = w->order[i];
    }
    uint64_t org = w->order[w->count - 1]->org;
    enum err err = end_device(w, org);
    return err != ERR_OK ? err : end_org(w, org);
}

enum err store_write_readings(struct store_connection *connection, struct store_reading *readings,
                              size_t count, bool careful, store_on_device on_back, void *context)
{
    struct writing w = {.connection = connection,
                        .count = count,
                        .careful = careful,
                        .on_back = on_back,
                        .context = context};
    if (count == 0) {
        return ERR_OK;
    }
    w.order = mem_try_alloc(count * sizeof(struct store_reading *));
    if (w.order == NULL) {
        return ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < count; i++) {
        w.order[i] = &readings[i];
    }
    qsort(w.order, count, sizeof(struct store_reading *), reading_compare);
    buffer_init(&w.attributes, ATTRIBUTES_BYTES_MAX);
    enum err err = write_ordered(&w);
    buffer_finish(&w.attributes);
    mem_free(w.order);
    return err;
}

/* --- silence ------------------------------------------------------------------------------- */

static enum err next_due(struct store_connection *connection, int64_t *ret_due_ms)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(
        connection, "SELECT due_ms FROM device_states WHERE silent_ms = 0 ORDER BY due_ms LIMIT 1",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    err = store_step(statement, &has_row);
    *ret_due_ms = INT64_MAX;
    if (err == ERR_OK && has_row) {
        *ret_due_ms = store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

/* One that is due: its org and number, and when it was heard of last. */
struct due {
    uint64_t org;
    uint64_t device;
    int64_t last_received_ms;
    bool is_active; /* nobody waits for one that was taken out of use */
};

static enum err take_due(struct store_connection *connection, int64_t now_ms, struct due *ret,
                         bool *ret_has)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(connection,
                      "SELECT t.org, t.device, t.last_received_ms, d.status FROM device_states t"
                      " JOIN devices d ON d.number = t.device"
                      " WHERE t.silent_ms = 0 AND t.due_ms <= $1 ORDER BY t.due_ms LIMIT 1",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, now_ms);
    err = store_step(statement, ret_has);
    if (err == ERR_OK && *ret_has) {
        ret->org = (uint64_t)store_column_i64(statement, 0);
        ret->device = (uint64_t)store_column_i64(statement, 1);
        ret->last_received_ms = store_column_i64(statement, 2);
        ret->is_active = slice_equal(store_column_bytes(statement, 3), SLICE_LITERAL("active"));
        store_reset(statement);
    }
    return err;
}

/* One that nobody waits for is not silent, which nobody was told either: it is not due until it is
 * heard of again. */
static enum err mark_silent(struct store_connection *connection, const struct due *due,
                            int64_t now_ms)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        connection,
        due->is_active ? "UPDATE device_states SET silent_ms = $1 WHERE org = $2 AND device = $3"
                       : "UPDATE device_states SET due_ms = $1 WHERE org = $2 AND device = $3",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, due->is_active ? now_ms : INT64_MAX);
    store_bind_i64(statement, 2, (int64_t)due->org);
    store_bind_i64(statement, 3, (int64_t)due->device);
    return store_execute(statement);
}

/* The same as due_ms_of, of rows that stand. */
#define UPDATE_DUE                                                                                 \
    "UPDATE device_states SET due_ms = (SELECT CASE WHEN o.silence_hours = 0 THEN $2"              \
    " ELSE device_states.last_received_ms"                                                         \
    " + coalesce(3600000 * o.silence_hours, 3000 * d.interval_s) END"                              \
    " FROM devices d JOIN orgs o ON o.number = d.org WHERE d.number = device_states.device)"       \
    " WHERE org = $1"

enum err store_devices_due(struct store_connection *connection, uint64_t org, const uint8_t *device)
{
    static_assert(SILENT_INTERVALS == 3 && HOUR_MS == 3600000, "as in the statement");
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        connection,
        device == NULL ? UPDATE_DUE
                       : UPDATE_DUE
            " AND device = (SELECT n.number FROM devices n WHERE n.org = $1 AND n.id = $3)",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, NEVER_MS);
    if (device != NULL) {
        store_bind_blob(statement, 3, slice_make(device, ID_BYTES));
    }
    return store_execute(statement);
}

enum err store_find_silent(struct store_connection *connection, int64_t now_ms, uint32_t limit,
                           store_on_device on_silent, void *context, int64_t *ret_due_ms)
{
    bool has_one = true;
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < limit && has_one && err == ERR_OK; i++) {
        struct due due = {.org = 0};
        err = take_due(connection, now_ms, &due, &has_one);
        if (err != ERR_OK || !has_one) {
            break;
        }
        err = mark_silent(connection, &due, now_ms);
        if (err == ERR_OK && due.is_active) {
            struct store_device_change change = {
                .org = due.org, .last_received_ms = due.last_received_ms, .silent_ms = now_ms};
            err = tell_change(connection, due.device, &change, on_silent, context);
        }
    }
    return err != ERR_OK ? err : next_due(connection, ret_due_ms);
}
