/* After a commit: who waits gets the result, the journal gets its bytes back, the numbers go up,
 * and what was applied becomes visible as a position.
 *
 * When the journal may go: a commit with NORMAL can be lost in a power cut until a checkpoint or a
 * FULL commit follows, and then its frames are needed again. So each commit's number waits here
 * with its position until the store says that it is durable. */
#include "apply/internal.h"

#include "base/clock.h"
#include "base/metrics.h"

#include <assert.h>

static uint8_t item_state(enum store_event_state state)
{
    static const uint8_t states[] = {
        [STORE_EVENT_INSERTED] = RECORD_ITEM_INSERTED,
        [STORE_EVENT_DUPLICATE] = RECORD_ITEM_DUPLICATE,
        [STORE_EVENT_CONFLICT] = RECORD_ITEM_CONFLICT,
        [STORE_EVENT_REFUSED] = RECORD_ITEM_REFUSED,
    };
    return states[state];
}

static void count_event(struct record_result *result, enum store_event_state state)
{
    result->inserted += state == STORE_EVENT_INSERTED;
    result->duplicates += state == STORE_EVENT_DUPLICATE || state == STORE_EVENT_CONFLICT;
    result->conflicts += state == STORE_EVENT_CONFLICT;
    result->refused += state == STORE_EVENT_REFUSED;
}

static void add_events(struct record_result *result, const struct apply_batch *batch,
                       const struct apply_frame *frame)
{
    for (uint32_t i = frame->first_event; i < frame->first_event + frame->event_count; i++) {
        enum store_event_state state = batch->events[i].state;
        count_event(result, state);
        if (batch->elements[i] < result->item_count) {
            result->items[batch->elements[i]] = item_state(state);
        }
    }
}

static void answer_frame(struct apply *apply, const struct apply_batch *batch,
                         const struct apply_frame *frame)
{
    struct record_result *result = &apply->result;
    uint64_t items = frame->element_count < LIMIT_BATCH_ITEMS_ANSWERED ? frame->element_count
                                                                       : LIMIT_BATCH_ITEMS_ANSWERED;
    memset(result, 0, offsetof(struct record_result, items));
    memset(result->items, RECORD_ITEM_REJECTED, items);
    result->err = frame->kind == APPLY_FRAME_UNREADABLE ? ERR_CORRUPT : ERR_OK;
    result->position = frame->position;
    result->item_count = (uint32_t)items;
    add_events(result, batch, frame);
    apply->options.on_result(apply->options.owner, frame->waiter, result);
}

/* --- uploads
 * -------------------------------------------------------------------------------------- */

void apply_upload_end(struct apply *apply, struct apply_upload *upload, enum err err)
{
    if (upload->result != NULL) {
        upload->result->err = err;
        apply->options.on_result(apply->options.owner, upload->waiter, upload->result);
    }
    journal_credit_upload(apply->options.journal, upload->frame.org, upload->end.stored_bytes);
    apply_upload_destroy(upload);
}

/* Accepted to applied, of each record. The wall clock may have stepped back meanwhile. */
static void observe_latency(const struct apply_frame *frame, uint64_t records, int64_t now_ms)
{
    int64_t age_ms = now_ms > frame->received_ms ? now_ms - frame->received_ms : 0;
    metrics_observe_many(METRIC_QUEUE_LATENCY, (uint64_t)age_ms * 1000000u, records);
}

/* The part's steps of the slice are committed. */
static void settle_slice(struct apply *apply, struct apply_batch *batch, int64_t now_ms)
{
    struct apply_upload *upload = batch->upload;
    for (uint32_t i = batch->part_from; i < batch->part_to; i++) {
        if (upload->result != NULL) {
            add_events(upload->result, batch, &batch->frames[i]);
        }
        journal_credit(apply->options.journal, upload->frame.org, 0,
                       batch->frames[i].credit_records);
        observe_latency(&batch->frames[i], batch->frames[i].credit_records, now_ms);
    }
    if (upload->table == APPLY_TABLE_UNWRITTEN) {
        buffer_finish(&upload->errors); /* they are in its row */
        upload->table = APPLY_TABLE_WRITTEN;
    } else if (batch->is_whole) {
        upload->slice_next = upload->slice_count;
    } else if (upload->failed == ERR_OK && !apply_upload_is_done(upload)) {
        upload->slice_done = batch->frames[batch->part_to - 1].element_count;
        if (upload->slice_done >= upload->slices[upload->slice_next].count) {
            upload->slice_next++;
            upload->slice_done = 0;
        }
    }
    if (upload->failed != ERR_OK || apply_upload_is_done(upload)) {
        batch->upload = NULL;
        apply_upload_end(apply, upload, upload->failed);
    }
}

static void settle_frame(struct apply *apply, struct apply_batch *batch, struct apply_frame *frame,
                         int64_t now_ms)
{
    bool is_upload = frame->kind == APPLY_FRAME_UPLOAD;
    if (is_upload) {
        if (frame->upload->table == APPLY_TABLE_WRITTEN) {
            buffer_finish(&frame->upload->errors); /* they are in its row */
        }
        list_push_back(&apply->uploads, &frame->upload->link);
        frame->upload = NULL; /* open from here on */
    } else if (frame->waiter != RECORD_WAITER_NONE) {
        answer_frame(apply, batch, frame);
    }
    journal_credit(apply->options.journal, frame->org, frame->credit_bytes,
                   is_upload ? 0 : frame->credit_records);
    observe_latency(frame, is_upload ? 0 : frame->credit_records, now_ms);
    metrics_add(METRIC_APPLY_DEAD_UNREADABLE, frame->bytes.data != NULL);
}

/* --- who is told
 * ---------------------------------------------------------------------------------- */

static void tell_org(struct apply *apply, uint32_t *count, uint64_t org)
{
    for (uint32_t i = *count; i > 0; i--) {
        if (apply->orgs[i - 1] == org) {
            return;
        }
    }
    if (*count == APPLY_ORGS_TOLD_MAX) {
        apply->options.on_applied(apply->options.owner, apply_position(apply), apply->orgs, *count);
        *count = 0;
    }
    apply->orgs[(*count)++] = org;
}

static void count_metrics(const struct record_result *sum, uint32_t rows)
{
    metrics_add(METRIC_DEDUP_DUPLICATES, sum->duplicates);
    metrics_add(METRIC_DEDUP_CONFLICTS, sum->conflicts);
    metrics_add(METRIC_APPLY_DEAD_LETTERS, sum->refused);
    metrics_add(METRIC_WORKER_BATCHES, 1);
    metrics_observe(METRIC_BATCH_SIZE, rows);
    metrics_set(METRIC_WORKER_LAST_ACTIVE, (double)clock_wall_ms() / 1000.0);
}

static void push_release(struct apply *apply, uint64_t commit, uint64_t position)
{
    if (apply->release_count == APPLY_RELEASES) {
        apply->release_count--; /* the newest waits for the one after it: later, never sooner */
    }
    apply->releases[apply->release_count++] = (struct apply_release){commit, position};
}

void apply_settle_part(struct apply *apply, struct apply_batch *batch)
{
    struct record_result sum = {.err = ERR_OK};
    uint32_t org_count = 0;
    int64_t now_ms = clock_wall_ms();
    const struct apply_frame *last = &batch->frames[batch->part_to - 1];
    uint32_t from = batch->frames[batch->part_from].first_event;
    uint32_t to = last->first_event + last->event_count;
    if (batch->upload == NULL) {
        push_release(apply, batch->job.commit, last->position);
        atomic_store_explicit(&apply->position, last->position, memory_order_release);
        journal_reader_applied(apply->reader, last->position);
        apply->frames_unsettled -= batch->part_to - batch->part_from;
    }
    for (uint32_t i = batch->part_from; i < batch->part_to; i++) {
        tell_org(apply, &org_count, batch->frames[i].org);
    }
    for (uint32_t i = from; i < to; i++) {
        count_event(&sum, batch->events[i].state);
    }
    count_metrics(&sum, to - from);
    if (batch->reading_count > 0) {
        apply_telemetry_news(apply);
    }
    if (batch->upload != NULL) {
        settle_slice(apply, batch, now_ms);
    } else {
        for (uint32_t i = batch->part_from; i < batch->part_to; i++) {
            settle_frame(apply, batch, &batch->frames[i], now_ms);
        }
    }
    apply->options.on_applied(apply->options.owner, apply_position(apply), apply->orgs, org_count);
}

void apply_settle_release(struct apply *apply)
{
    uint64_t durable = store_durable_commit(apply->options.store);
    uint32_t count = 0;
    while (count < apply->release_count && apply->releases[count].commit <= durable) {
        count++;
    }
    if (count > 0) {
        journal_release(apply->options.journal, apply->releases[count - 1].position);
        apply->release_count -= count;
        memmove(apply->releases, apply->releases + count,
                apply->release_count * sizeof(apply->releases[0]));
    }
}

void apply_settle_gauges(struct apply *apply)
{
    struct journal_backlog backlog;
    journal_backlog(apply->options.journal, &backlog);
    uint64_t durable = journal_durable_position(apply->options.journal);
    uint64_t pending = durable > apply->read_position ? durable - apply->read_position : 0;
    double age_s = 0;
    if (backlog.oldest_received_ms != 0) {
        age_s = (double)(clock_wall_ms() - (int64_t)backlog.oldest_received_ms) / 1000.0;
    }
    metrics_set(METRIC_QUEUE_SIZE, (double)backlog.records);
    metrics_set(METRIC_QUEUE_DEPTH, (double)backlog.records);
    metrics_set(METRIC_CONSUMER_PENDING, (double)pending);
    metrics_set(METRIC_CONSUMER_ACK_PENDING, (double)apply->frames_unsettled);
    metrics_set(METRIC_JOURNAL_OLDEST, age_s > 0 ? age_s : 0);
}
