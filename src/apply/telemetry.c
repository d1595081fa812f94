/* Telemetry: messages of devices among the records, and what is due by itself.
 *
 * A message is an event row of the batch that keeps it as it came; its metrics are readings beside.
 * In the writer's transaction the readings are written, a message of which any was not taken
 * becomes a dead letter, and a device that was silent becomes an event of its org.
 *
 * By itself: a job of the writer, to which appliers beside it do not give way, computes roll-ups of
 * dirty minutes, finds devices that have fallen silent, and once an hour, when no minute is dirty,
 * takes away what is older than its org keeps it, a part a job. It runs a second after readings
 * were applied, and when the next device is due; with nothing to do nobody wakes. Where other nodes
 * use the store too one of them does it, by a lease, and looks every two seconds at what the others
 * have written. Whether a device is silent is asked of the moment up to which everything was
 * applied: what it has sent may wait still.
 *
 * Failure modes: the job gives way: tried again at once, smaller. The store is away: tried again
 * after a second. An event of ours has an id made from its cause, so one that is found twice is
 * one.
 */
#include "apply/internal.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "json/json.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#define READINGS_FIRST    256u
#define MINUTES_FIRST     256u
#define MINUTES_MIN       8u
#define SILENT_MAX        64u
#define SECOND_NS         UINT64_C(1000000000)
#define REST_NS_MAX       (3600 * SECOND_NS)
#define LEASE_NAME        "telemetry"
#define LEASE_MS          5000u
#define LEASE_REST_NS     (2 * SECOND_NS) /* by the holder and by who waits for it to be gone */
#define RETENTION_NS      (3600 * SECOND_NS)
#define RETENTION_BUSY_NS (10 * SECOND_NS)
#define CHANGE_BYTES_MAX  ((size_t)16 * 1024)
#define IDS_BYTES         48u

/* --- filling ------------------------------------------------------------------------------- */

static enum err grow_readings(struct apply_batch *batch)
{
    uint32_t capacity = batch->reading_capacity == 0 ? READINGS_FIRST : batch->reading_capacity * 2;
    struct store_reading *readings = mem_try_realloc(batch->readings, capacity * sizeof(*readings));
    if (readings == NULL) {
        return ERR_NO_MEMORY;
    }
    batch->readings = readings;
    batch->reading_capacity = capacity;
    return ERR_OK;
}

static enum err fill_reading(struct apply_batch *batch, const struct record_reading *reading,
                             const struct store_event *message, const uint8_t *ids)
{
    size_t size = reading->parameter.size + reading->attributes.size;
    if (batch->reading_count == batch->reading_capacity) {
        enum err err = grow_readings(batch);
        if (err != ERR_OK) {
            return err;
        }
    }
    uint8_t *bytes = mem_arena_try_alloc(batch->arena, size);
    if (bytes == NULL) {
        return ERR_FULL;
    }
    struct store_reading *row = &batch->readings[batch->reading_count];
    *row = (struct store_reading){.ids = ids,
                                  .source = message->source,
                                  .event_id = message->dedup_id.size > 0 ? message->dedup_id
                                                                         : slice_make(NULL, 0),
                                  .message_attributes = message->attributes,
                                  .value = reading->value,
                                  .has_value = reading->has_value,
                                  .quality = reading->quality,
                                  .time_ms = reading->time_ms,
                                  .received_ms = reading->received_ms,
                                  .org = message->org,
                                  .position = message->position,
                                  .message = batch->event_count - 1};
    memcpy(bytes, reading->parameter.data, reading->parameter.size);
    row->parameter = slice_make(bytes, reading->parameter.size);
    if (reading->attributes.data != NULL) {
        bytes += reading->parameter.size;
        memcpy(bytes, reading->attributes.data, reading->attributes.size);
        row->attributes = slice_make(bytes, reading->attributes.size);
    }
    batch->reading_count++;
    batch->bytes += size + sizeof(*row);
    return ERR_OK;
}

enum err apply_fill_readings(struct apply_batch *batch, const struct format_reader *format)
{
    uint32_t count = 0;
    const struct record_reading *readings = format_readings(format, &count);
    struct store_event message;
    store_unpack(&batch->events[batch->event_count - 1], &message);
    uint8_t *ids = mem_arena_try_alloc(batch->arena, IDS_BYTES);
    enum err err = ids == NULL ? ERR_FULL : ERR_OK;
    if (err == ERR_OK && count > 0) {
        memcpy(ids, readings[0].device.bytes, 16);
        memcpy(ids + 16, readings[0].project.bytes, 16);
        memcpy(ids + 32, readings[0].site.bytes, 16);
    }
    for (uint32_t i = 0; i < count && err == ERR_OK; i++) {
        err = fill_reading(batch, &readings[i], &message, ids);
    }
    return err;
}

/* --- events of ours ------------------------------------------------------------------------ */

static void write_id(struct json_writer *writer, const char *key, const uint8_t bytes[16])
{
    json_write_member_id(writer, key, id_from_bytes(slice_make(bytes, sizeof(struct id))));
}

static enum err change_payload(const struct store_device_change *change, struct buffer *to)
{
    struct json_writer writer;
    json_writer_init(&writer, to);
    json_write_object_begin(&writer);
    write_id(&writer, "device_id", change->id);
    json_write_member_string(&writer, "device_name", change->name);
    json_write_key(&writer, "external_id");
    if (change->external_id.data == NULL) {
        json_write_null(&writer);
    } else {
        json_write_string(&writer, change->external_id);
    }
    write_id(&writer, "site_id", change->site);
    write_id(&writer, "project_id", change->project);
    json_write_member_i64(&writer, "interval_s", change->interval_s);
    json_write_member_time(&writer, "last_received_at", change->last_received_ms);
    json_write_member_time(&writer, "silent_at", change->silent_ms);
    if (change->back_ms != 0) {
        json_write_member_time(&writer, "back_at", change->back_ms);
    }
    json_write_object_end(&writer);
    return json_writer_err(&writer);
}

static enum err write_change(struct store_connection *connection,
                             const struct store_device_change *change, uint64_t position)
{
    const char *type = change->back_ms != 0 ? "device.back" : "device.silent";
    uint8_t id_key[32] = {0};
    uint8_t cause[24];
    char subject[ID_TEXT_BYTES];
    struct buffer payload;
    struct id device;
    buffer_init(&payload, CHANGE_BYTES_MAX);
    memcpy(device.bytes, change->id, sizeof(device.bytes));
    memcpy(cause, change->id, 16);
    buffer_put_u64(cause + 16, (uint64_t)change->last_received_ms);
    id_format(device, subject);
    enum err err = apply_id_key_read(connection, change->org, id_key);
    if (err == ERR_NOT_FOUND) {
        err = ERR_CORRUPT; /* one of its devices was there */
    }
    if (err == ERR_OK) {
        err = change_payload(change, &payload);
    }
    if (err == ERR_OK) {
        struct id id = id_make_dedup(id_key, SLICE_LITERAL("weir"), slice_from_text(type),
                                     slice_make(cause, sizeof(cause)));
        int64_t at_ms = change->back_ms != 0 ? change->back_ms : change->silent_ms;
        struct store_event event = {.type = slice_from_text(type),
                                    .payload = buffer_slice(&payload),
                                    .subject = slice_make(subject, sizeof(subject)),
                                    .source = SLICE_LITERAL("weir"),
                                    .id = id.bytes,
                                    .occurred_ms = at_ms,
                                    .created_ms = at_ms,
                                    .org = change->org,
                                    .position = position};
        err = store_insert_events(connection, &event, 1, false);
    }
    buffer_finish(&payload);
    return err;
}

/* --- writing ------------------------------------------------------------------------------- */

static enum err on_back(struct store_connection *connection,
                        const struct store_device_change *change, void *context)
{
    const struct apply_batch *batch = context;
    return write_change(connection, change, batch->frames[batch->part_to - 1].position);
}

static bool is_taken(enum store_reading_state state)
{
    return state == STORE_READING_STORED || state == STORE_READING_OLDER;
}

/* `from`: the message's first reading; `bad`: the first that was not taken. */
static enum err write_letter(struct store_connection *connection, const struct apply_batch *batch,
                             uint32_t from, uint32_t bad)
{
    const struct store_reading *reading = &batch->readings[bad];
    struct store_event message;
    store_unpack(&batch->events[reading->message], &message);
    char detail[32];
    (void)snprintf(detail, sizeof(detail), "/metrics/%u", bad - from);
    struct apply_dead_letter letter = {.id = message.id,
                                       .org = message.org,
                                       .kind = "reading",
                                       .reason = store_reading_reason(reading->state),
                                       .detail = detail,
                                       .position = message.position,
                                       .element = batch->elements[reading->message],
                                       .form = RECORD_FORM_READING,
                                       .record = message.payload,
                                       .received_ms = message.created_ms};
    return apply_write_dead_letter(connection, &letter);
}

/* What became of each message; readings of one message stand together. */
static enum err settle_messages(struct store_connection *connection, struct apply_batch *batch,
                                uint32_t from, uint32_t to)
{
    enum err err = ERR_OK;
    uint32_t end = from;
    for (uint32_t i = from; i < to && err == ERR_OK; i = end) {
        uint32_t message = batch->readings[i].message;
        uint32_t bad = UINT32_MAX;
        bool has_new = false;
        for (end = i; end < to && batch->readings[end].message == message; end++) {
            enum store_reading_state state = batch->readings[end].state;
            has_new = has_new || state == STORE_READING_STORED;
            bad = bad == UINT32_MAX && !is_taken(state) ? end : bad;
        }
        batch->events[message].state = has_new ? STORE_EVENT_INSERTED : STORE_EVENT_DUPLICATE;
        if (bad != UINT32_MAX) {
            batch->events[message].state = STORE_EVENT_REFUSED;
            err = write_letter(connection, batch, i, bad);
        }
    }
    return err;
}

/* The events of a part that holds messages too. */
static enum err write_events_between(struct store_connection *connection, struct apply_batch *batch)
{
    uint32_t first = batch->frames[batch->part_from].first_event;
    uint32_t count = 0;
    const struct apply_frame *last = &batch->frames[batch->part_to - 1];
    size_t capacity = last->first_event + last->event_count - first;
    struct store_packed *events = mem_try_alloc(capacity * sizeof(*events) + 1);
    if (events == NULL) {
        return ERR_NO_MEMORY;
    }
    for (uint32_t i = batch->part_from; i < batch->part_to; i++) {
        const struct apply_frame *frame = &batch->frames[i];
        if (!format_form_is_reading((enum record_form)frame->form) && frame->event_count > 0) {
            memcpy(events + count, batch->events + frame->first_event,
                   frame->event_count * sizeof(*events));
            count += frame->event_count;
        }
    }
    struct store_part part = {events, count, batch->spill};
    enum err err = store_insert_packed(connection, &part, batch->careful);
    count = 0;
    for (uint32_t i = batch->part_from; i < batch->part_to && err == ERR_OK; i++) {
        const struct apply_frame *frame = &batch->frames[i];
        if (!format_form_is_reading((enum record_form)frame->form) && frame->event_count > 0) {
            memcpy(batch->events + frame->first_event, events + count,
                   frame->event_count * sizeof(*events));
            count += frame->event_count;
        }
    }
    mem_free(events);
    return err;
}

enum err apply_write_rows(struct store_connection *connection, struct apply_batch *batch)
{
    const struct apply_frame *last = &batch->frames[batch->part_to - 1];
    uint32_t from = batch->frames[batch->part_from].first_event;
    uint32_t to = last->first_event + last->event_count;
    uint32_t reading_from = batch->frames[batch->part_from].first_reading;
    uint32_t reading_to = batch->part_to < batch->frame_count
                              ? batch->frames[batch->part_to].first_reading
                              : batch->reading_count;
    if (reading_from == reading_to && from == to) {
        return ERR_OK;
    }
    if (reading_from == reading_to) {
        struct store_part part = {batch->events + from, to - from, batch->spill};
        return store_insert_packed(connection, &part, batch->careful);
    }
    enum err err = write_events_between(connection, batch);
    if (err == ERR_OK) {
        err = store_write_readings(connection, batch->readings + reading_from,
                                   reading_to - reading_from, batch->careful, on_back, batch);
    }
    return err != ERR_OK ? err : settle_messages(connection, batch, reading_from, reading_to);
}

/* --- by itself ----------------------------------------------------------------------------- */

static void tell_org(struct apply_telemetry *telemetry, uint64_t org)
{
    for (uint32_t i = 0; i < telemetry->org_count; i++) {
        if (telemetry->orgs[i] == org) {
            return;
        }
    }
    telemetry->orgs[telemetry->org_count++] = org;
}

static enum err on_silent(struct store_connection *connection,
                          const struct store_device_change *change, void *context)
{
    struct apply_telemetry *telemetry = context;
    uint64_t position = apply_position(telemetry->applier->apply);
    tell_org(telemetry, change->org);
    /* It has no frame: the place up to which everything was applied. 0 would say that it was
     * erased. */
    return write_change(connection, change, position == 0 ? 1 : position);
}

static enum err step_retention(struct apply_telemetry *telemetry,
                               struct store_connection *connection)
{
    struct store_retention *step = &telemetry->step;
    if (step->stage == STORE_RETENTION_DONE) {
        store_retention_begin(step, clock_wall_ms(),
                              (int64_t)telemetry->applier->options.replay_s * 1000);
    }
    return store_retention_step(connection, step);
}

/* After a commit. */
static void end_retention(struct apply_telemetry *telemetry)
{
    const struct store_retention *done = &telemetry->step;
    bool is_over =
        done->stage == STORE_RETENTION_DONE && telemetry->retention.stage != STORE_RETENTION_DONE;
    telemetry->retention = telemetry->step;
    if (!is_over) {
        return;
    }
    telemetry->retention_due_ns = clock_mono_ns() + RETENTION_NS;
    if (done->events + done->letters + done->readings + done->rollups > 0) {
        log_write(LOG_INFO, "apply",
                  "by their age went %" PRIu64 " events, %" PRIu64 " dead letters, %" PRIu64
                  " readings, %" PRIu64 " roll-ups",
                  done->events, done->letters, done->readings, done->rollups);
    }
}

static enum err run_due(struct store_job *job, struct store_connection *connection)
{
    struct apply_telemetry *telemetry = LIST_CONTAINER(job, struct apply_telemetry, job);
    telemetry->org_count = 0;
    telemetry->done = 0;
    telemetry->silent_due_ms = INT64_MAX;
    telemetry->is_held = true;
    telemetry->step = telemetry->retention;
    telemetry->next_place = telemetry->place;
    telemetry->minutes_max = store_rollups_limit(connection);
    enum err err = telemetry->applier->options.is_alone
                       ? ERR_OK
                       : store_lease_claim(connection, LEASE_NAME, telemetry->holder, LEASE_MS,
                                           &telemetry->is_held);
    if (err != ERR_OK || !telemetry->is_held) {
        return err;
    }
    err = store_rollups_refresh(connection, telemetry->minutes, &telemetry->next_place,
                                &telemetry->done);
    if (err == ERR_OK) {
        err = store_orgs_due(connection, STORE_DUE_PART, &telemetry->has_orgs_due);
    }
    if (err == ERR_OK) {
        err = store_find_silent(connection, telemetry->until_ms, SILENT_MAX, on_silent, telemetry,
                                &telemetry->silent_due_ms);
    }
    if (err == ERR_OK && telemetry->is_retention_due && telemetry->done < telemetry->minutes) {
        err = step_retention(telemetry, connection);
    }
    return err;
}

static void plan(struct apply_telemetry *telemetry, uint64_t wait_ns)
{
    telemetry->due_ns = clock_mono_ns() + (wait_ns < REST_NS_MAX ? wait_ns : REST_NS_MAX);
}

static void plan_next(struct apply_telemetry *telemetry)
{
    int64_t now_ms = clock_wall_ms();
    uint64_t wait_ns = REST_NS_MAX;
    if (telemetry->done == telemetry->minutes || telemetry->has_orgs_due ||
        telemetry->silent_due_ms <= telemetry->until_ms) {
        wait_ns = 0;
    } else if (telemetry->has_news || telemetry->silent_due_ms <= now_ms) {
        wait_ns = SECOND_NS;
    } else if (telemetry->silent_due_ms - now_ms < (int64_t)(REST_NS_MAX / 1000000)) {
        wait_ns = (uint64_t)(telemetry->silent_due_ms - now_ms) * 1000000u;
    }
    uint64_t now_ns = clock_mono_ns();
    uint64_t retention_ns =
        telemetry->retention_due_ns > now_ns ? telemetry->retention_due_ns - now_ns : 0;
    wait_ns = wait_ns < retention_ns ? wait_ns : retention_ns;
    bool is_alone = telemetry->applier->options.is_alone;
    if (!telemetry->is_held || (!is_alone && wait_ns > LEASE_REST_NS)) {
        wait_ns = LEASE_REST_NS;
    }
    telemetry->has_news = false;
    telemetry->place = telemetry->next_place;
    telemetry->minutes =
        telemetry->minutes < telemetry->minutes_max ? telemetry->minutes * 2 : telemetry->minutes;
    plan(telemetry, wait_ns);
}

static void on_due_done(struct store_job *job)
{
    struct apply_telemetry *telemetry = LIST_CONTAINER(job, struct apply_telemetry, job);
    struct applier *applier = telemetry->applier;
    telemetry->is_posted = false;
    if (job->err == ERR_OK) {
        end_retention(telemetry);
        plan_next(telemetry);
        if (telemetry->org_count > 0) {
            applier->options.on_applied(applier->options.owner, apply_position(applier->apply),
                                        telemetry->orgs, telemetry->org_count);
        }
    } else if (job->err == ERR_BUSY) {
        telemetry->retention_due_ns = clock_mono_ns() + RETENTION_BUSY_NS;
        telemetry->minutes =
            telemetry->minutes > MINUTES_MIN ? telemetry->minutes / 2 : telemetry->minutes;
        plan(telemetry, 0);
    } else {
        log_write(LOG_WARN, "apply", "roll-ups and silent devices wait: %s", err_text(job->err));
        plan(telemetry, SECOND_NS);
    }
}

void apply_telemetry_init(struct applier *applier)
{
    static_assert(SILENT_MAX <= APPLY_TELEMETRY_ORGS, "each may be of another org");
    applier->telemetry = (struct apply_telemetry){.applier = applier, .minutes = MINUTES_FIRST};
    hash_random(&applier->telemetry.holder, sizeof(applier->telemetry.holder));
    applier->telemetry.holder >>= 1u; /* the store's numbers have a sign */
}

void apply_telemetry_news(struct applier *applier)
{
    struct apply *apply = applier->apply;
    uint32_t first = atomic_load_explicit(&apply->first, memory_order_relaxed);
    bool was_told = atomic_exchange_explicit(&apply->has_readings, true, memory_order_relaxed);
    if (!was_told && first != applier->index) {
        mailbox_wake(apply->appliers[first]->mailbox);
    }
}

static void take_news(struct apply_telemetry *telemetry)
{
    struct apply *apply = telemetry->applier->apply;
    uint64_t due_ns = clock_mono_ns() + SECOND_NS;
    if (!atomic_exchange_explicit(&apply->has_readings, false, memory_order_relaxed)) {
        return;
    }
    telemetry->has_news = true;
    if (due_ns < telemetry->due_ns) {
        telemetry->due_ns = due_ns;
    }
}

void apply_telemetry_look(struct applier *applier, uint64_t now_ns)
{
    struct apply_telemetry *telemetry = &applier->telemetry;
    if (telemetry->is_posted || !apply_is_first(applier)) {
        return;
    }
    take_news(telemetry);
    if (now_ns < telemetry->due_ns) {
        return;
    }
    telemetry->has_news = false;
    telemetry->is_retention_due = now_ns >= telemetry->retention_due_ns;
    telemetry->until_ms = apply_applied_until_ms(applier->apply);
    telemetry->job = (struct store_job){.priority = STORE_APPLY,
                                        .is_beside = true,
                                        .run = run_due,
                                        .on_done = on_due_done,
                                        .reply_to = applier->mailbox};
    if (store_post_write(applier->options.store, &telemetry->job) == ERR_OK) {
        telemetry->is_posted = true;
    } else {
        plan(telemetry, SECOND_NS);
    }
}

int apply_telemetry_wait_ms(const struct applier *applier, uint64_t now_ns)
{
    const struct apply_telemetry *telemetry = &applier->telemetry;
    if (telemetry->is_posted || !apply_is_first(applier)) {
        return -1; /* its answer wakes */
    }
    return telemetry->due_ns > now_ns ? (int)((telemetry->due_ns - now_ns) / 1000000u) + 1 : 0;
}
