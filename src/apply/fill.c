/* Frames become rows: a frame of the journal is read by the format stage, and what its events mean
 * is copied into the batch, since the frame's bytes live only until the next one is read.
 *
 * Happy path: decode the head, read the elements one by one, a row each. Elements that were
 * rejected when they came are rejected again (the same reader on the same bytes) and counted.
 * Failure modes: a frame that cannot be read, though it was verified when it came, becomes a dead
 * letter whole; one of which fewer elements can be read than were accepted becomes one beside its
 * events. A frame that does not fit is taken back and comes first in the next batch. */
#include "apply/internal.h"

#include "base/clock.h"

#include <assert.h>

#define ARENA_BLOCK_BYTES ((size_t)256 * 1024)
#define EVENTS_FIRST      256u
#define FRAMES_FIRST      64u
#define EVENTS_AT_REST    4096u
#define ROW_BYTES         (sizeof(struct store_packed) + sizeof(uint64_t))

void apply_batch_reset(struct apply_batch *batch)
{
    for (uint32_t i = 0; i < batch->frame_count; i++) {
        if (batch->frames[i].kind == APPLY_FRAME_UPLOAD) {
            apply_upload_destroy(batch->frames[i].upload); /* NULL when it is open now */
        }
    }
    if (batch->arena == NULL) {
        batch->arena = mem_arena_create(ARENA_BLOCK_BYTES, APPLY_ARENA_BYTES_MAX);
    }
    mem_arena_reset(batch->arena);
    batch->event_count = 0;
    batch->reading_count = 0;
    batch->frame_count = 0;
    batch->bytes = 0;
    batch->texts = 0;
    batch->has_no_spill = false;
    if (batch->spill != NULL) {
        store_spill_clear(batch->spill);
    }
    batch->upload = NULL;
    batch->is_closed = false;
    batch->is_waited_for = false;
    batch->is_whole = false;
    batch->part_from = 0;
    batch->part_to = 0;
    batch->careful = false;
}

void apply_batch_finish(struct apply_batch *batch)
{
    apply_batch_reset(batch);
    mem_arena_destroy(batch->arena);
    store_spill_destroy(batch->spill);
    mem_free(batch->events);
    mem_free(batch->readings);
    mem_free(batch->elements);
    mem_free(batch->frames);
}

void apply_batch_rest(struct apply_batch *batch)
{
    if (batch->event_capacity <= EVENTS_AT_REST && batch->frame_capacity <= EVENTS_AT_REST &&
        batch->reading_capacity <= EVENTS_AT_REST && batch->spill == NULL) {
        return;
    }
    struct applier *applier = batch->applier;
    apply_batch_finish(batch);
    *batch = (struct apply_batch){.applier = applier};
    apply_batch_reset(batch);
}

static enum err grow_events(struct apply_batch *batch)
{
    uint32_t capacity = batch->event_capacity == 0 ? EVENTS_FIRST : batch->event_capacity * 2;
    struct store_packed *events = mem_try_realloc(batch->events, capacity * sizeof(*events));
    if (events == NULL) {
        return ERR_NO_MEMORY;
    }
    batch->events = events;
    uint64_t *elements = mem_try_realloc(batch->elements, capacity * sizeof(*elements));
    if (elements == NULL) {
        return ERR_NO_MEMORY;
    }
    batch->elements = elements;
    batch->event_capacity = capacity;
    return ERR_OK;
}

struct apply_frame *apply_fill_begin(struct apply_batch *batch)
{
    if (batch->frame_count == batch->frame_capacity) {
        uint32_t capacity = batch->frame_capacity == 0 ? FRAMES_FIRST : batch->frame_capacity * 2;
        struct apply_frame *frames = mem_try_realloc(batch->frames, capacity * sizeof(*frames));
        if (frames == NULL) {
            return NULL;
        }
        batch->frames = frames;
        batch->frame_capacity = capacity;
    }
    if (batch->frame_count == 0) {
        batch->first_ns = clock_mono_ns();
    }
    struct apply_frame *frame = &batch->frames[batch->frame_count];
    *frame = (struct apply_frame){.first_event = batch->event_count,
                                  .first_reading = batch->reading_count};
    return frame;
}

uint32_t apply_frame_rows(const struct apply_batch *batch, uint32_t frame)
{
    const struct apply_frame *one = &batch->frames[frame];
    uint32_t end = frame + 1 < batch->frame_count ? one[1].first_reading : batch->reading_count;
    uint32_t readings = end - one->first_reading;
    return readings > one->event_count ? readings : one->event_count;
}

static bool has_spill(struct apply_batch *batch)
{
    const char *path = batch->applier->options.spill;
    if (batch->spill == NULL && !batch->has_no_spill) {
        batch->has_no_spill = path == NULL || store_spill_create(&batch->spill, path) != ERR_OK;
    }
    return batch->spill != NULL;
}

/* False: its bytes are to stay in memory, as those of messages are, which become readings. */
static bool spill_event(struct apply_batch *batch, const struct apply_frame *frame,
                        const struct store_event *parts)
{
    return batch->texts >= APPLY_TEXTS_MAX &&
           !format_form_is_reading((enum record_form)frame->form) && has_spill(batch) &&
           store_spill_add(batch->spill, parts, &batch->events[batch->event_count]) == ERR_OK;
}

static enum err keep_event(struct apply_batch *batch, const struct store_event *parts)
{
    size_t size = store_packed_bytes(parts);
    uint8_t *bytes = mem_arena_try_alloc(batch->arena, size);
    if (bytes == NULL) {
        return ERR_FULL;
    }
    enum err err = store_pack(&batch->events[batch->event_count], parts, bytes);
    if (err == ERR_OK) {
        batch->texts += size;
        batch->bytes += size;
    }
    return err;
}

bool apply_batch_is_full(const struct apply_batch *batch)
{
    return batch->event_count >= APPLY_ROWS_MAX || batch->bytes >= APPLY_BYTES_MAX ||
           (batch->spill != NULL && store_spill_bytes(batch->spill) >= APPLY_SPILL_MAX);
}

enum err apply_fill_event(struct apply_batch *batch, struct apply_frame *frame,
                          const struct record_event *event)
{
    if (batch->event_count == batch->event_capacity) {
        enum err err = grow_events(batch);
        if (err != ERR_OK) {
            return err;
        }
    }
    struct store_event parts = {.type = event->type,
                                .payload = event->payload,
                                .dedup_id = event->dedup_id,
                                .subject = event->subject,
                                .source = event->source,
                                .app = event->app,
                                .attributes = event->attributes,
                                .id = event->id.bytes,
                                .occurred_ms = event->occurred_ms,
                                .created_ms = event->received_ms,
                                .org = frame->org,
                                .position = frame->position};
    if (!spill_event(batch, frame, &parts)) {
        enum err err = keep_event(batch, &parts);
        if (err != ERR_OK) {
            return err;
        }
    }
    batch->elements[batch->event_count] = event->index;
    batch->event_count++;
    batch->bytes += ROW_BYTES;
    frame->event_count++;
    return ERR_OK;
}

/* Of a frame of several lanes, whether the applier has the event's. */
static bool takes_event(const struct applier *applier, struct apply_frame *frame,
                        const struct record_event *event)
{
    uint8_t lane = frame->lane;
    if (lane >= LIMIT_LANES) {
        lane = record_event_lane(frame->org, event);
        frame->all_lanes |= UINT64_C(1) << lane;
        if (!journal_from_wants(&applier->from, lane, frame->position)) {
            return false;
        }
    }
    frame->lanes |= UINT64_C(1) << lane;
    frame->all_lanes |= frame->lanes;
    return true;
}

static enum err read_elements(struct applier *applier, struct apply_batch *batch,
                              struct apply_frame *frame, const struct record_frame *record,
                              const uint8_t id_key[32])
{
    enum err err = format_frame_begin(applier->format, record, id_key);
    while (err == ERR_OK) {
        struct format_item item;
        bool has_item = false;
        err = format_frame_next(applier->format, &item, &has_item);
        if (err != ERR_OK || !has_item) {
            break;
        }
        frame->element_count = item.index + 1;
        frame->event_total += item.err == ERR_OK;
        if (item.err == ERR_OK && takes_event(applier, frame, &item.event)) {
            err = apply_fill_event(batch, frame, &item.event);
            if (err == ERR_OK && format_form_is_reading((enum record_form)frame->form)) {
                err = apply_fill_readings(batch, applier->format);
            }
            if (err == ERR_NO_MEMORY) {
                err = ERR_FULL;
            }
        }
    }
    return err;
}

/* What is of no lane, or of several, is lane 0's. */
static bool is_its(const struct applier *applier, struct apply_frame *frame)
{
    uint8_t lane = frame->lane < LIMIT_LANES ? frame->lane : 0;
    frame->all_lanes |= UINT64_C(1) << lane;
    if (!journal_from_wants(&applier->from, lane, frame->position)) {
        return false;
    }
    frame->lanes |= UINT64_C(1) << lane;
    return true;
}

static enum err keep_bytes(struct apply_batch *batch, struct apply_frame *frame, struct slice bytes)
{
    uint8_t *copy = mem_arena_try_alloc(batch->arena, bytes.size);
    if (copy == NULL) {
        return ERR_FULL;
    }
    memcpy(copy, bytes.data, bytes.size);
    frame->bytes = slice_make(copy, bytes.size);
    batch->bytes += bytes.size;
    return ERR_OK;
}

/* What the elements left behind goes, and the frame as it came takes their place. */
static enum err make_unreadable(const struct applier *applier, struct apply_batch *batch,
                                struct apply_frame *frame, struct slice bytes)
{
    batch->event_count = frame->first_event;
    batch->reading_count = frame->first_reading;
    frame->event_count = 0;
    frame->event_total = 0;
    frame->lanes = 0;
    frame->all_lanes = 0;
    if (!is_its(applier, frame)) {
        return ERR_OK;
    }
    frame->kind = APPLY_FRAME_UNREADABLE;
    return keep_bytes(batch, frame, bytes);
}

static void take_head(const struct applier *applier, struct apply_frame *frame,
                      const struct record_frame *record)
{
    frame->id = record->id;
    frame->received_ms = record->received_ms;
    frame->run = record->run;
    frame->waiter =
        apply_can_tell(applier, record->run) ? record->waiter : (uint64_t)RECORD_WAITER_NONE;
}

static enum err read_events(struct applier *applier, struct apply_batch *batch,
                            struct apply_frame *frame, const struct record_frame *record,
                            struct slice bytes)
{
    uint8_t id_key[32] = {0};
    enum err err = apply_id_key(applier, frame->org, id_key);
    if (err == ERR_NOT_FOUND) {
        err = ERR_OK; /* the store refuses each event of an org that does not exist */
    }
    if (err != ERR_OK) {
        return ERR_AWAY; /* whatever the store has, the frame is not to blame */
    }
    err = read_elements(applier, batch, frame, record, id_key);
    if (err == ERR_OK && frame->event_total < record->record_count && is_its(applier, frame)) {
        /* Another version accepted more than this one can read: nothing of it may get lost. */
        err = keep_bytes(batch, frame, bytes);
    }
    if (frame->event_total == 0) {
        (void)is_its(applier, frame);
    }
    return err;
}

/* The frame itself is to blame: it would be no better the next time. */
static bool is_unreadable(enum err err)
{
    return err_class(err) == ERR_CLASS_REJECT || err == ERR_CORRUPT || err == ERR_VERSION;
}

static enum err read_frame(struct applier *applier, struct apply_batch *batch,
                           struct apply_frame *frame, const struct journal_frame *source)
{
    struct record_frame record;
    enum err err = record_frame_decode(source->bytes_slice, &record);
    if (err == ERR_OK) {
        take_head(applier, frame, &record);
    }
    if (err == ERR_OK && record.form == RECORD_FORM_UPLOAD_END) {
        if (!is_its(applier, frame)) {
            return ERR_OK;
        }
        size_t head_size = (size_t)(record.body.data - source->bytes_slice.data);
        frame->kind = APPLY_FRAME_UPLOAD;
        err =
            apply_upload_create(&frame->upload, applier, &record,
                                slice_make(source->bytes_slice.data, head_size), source->position);
        if (err == ERR_OK) {
            batch->bytes += sizeof(*frame->upload) + frame->upload->errors.size +
                            frame->upload->slice_count * sizeof(struct record_slice);
        }
    } else if (err == ERR_OK) {
        err = read_events(applier, batch, frame, &record, source->bytes_slice);
    }
    if (is_unreadable(err)) {
        err = make_unreadable(applier, batch, frame, source->bytes_slice);
    }
    return err;
}

enum err apply_fill_frame(struct applier *applier, struct apply_batch *batch,
                          const struct journal_frame *source)
{
    size_t bytes_before = batch->bytes;
    struct apply_frame *frame = apply_fill_begin(batch);
    if (frame == NULL) {
        return ERR_NO_MEMORY;
    }
    frame->kind = APPLY_FRAME_EVENTS;
    frame->form = source->form;
    frame->lane = source->lane;
    frame->position = source->position;
    frame->checksum = source->checksum;
    frame->org = source->org;
    bool is_credited = source->lane < LIMIT_LANES || !apply_has_leases(applier);
    enum err err = read_frame(applier, batch, frame, source);
    if (err == ERR_OK && is_credited && is_its(applier, frame)) { /* others: by lanes.c */
        frame->credit_bytes = source->bytes;
        frame->credit_records = source->record_count;
    }
    if (err == ERR_OK && frame->lanes != 0) {
        batch->frame_count++;
        batch->bytes += sizeof(*frame);
        batch->is_waited_for |= frame->waiter != RECORD_WAITER_NONE;
    } else {
        batch->event_count = frame->first_event;
        batch->reading_count = frame->first_reading;
        batch->bytes = bytes_before;
    }
    return err;
}
