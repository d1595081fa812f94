/* After a commit: who waits gets the result, the journal gets its bytes back, the numbers go up,
 * and what was applied becomes visible as a position.
 *
 * When the journal may go: a commit with NORMAL can be lost in a power cut until a checkpoint or a
 * FULL commit follows, and then its frames are needed again. So each commit's number waits here
 * with its position until the store says that it is durable. */
#include "apply/internal.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/table.h"

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

static void make_result(struct record_result *result, const struct apply_frame *frame)
{
    uint64_t items = frame->element_count < LIMIT_BATCH_ITEMS_ANSWERED ? frame->element_count
                                                                       : LIMIT_BATCH_ITEMS_ANSWERED;
    memset(result, 0, offsetof(struct record_result, items));
    memset(result->items, RECORD_ITEM_REJECTED, items);
    result->err = frame->kind == APPLY_FRAME_UNREADABLE ? ERR_CORRUPT : ERR_OK;
    result->position = frame->position;
    result->item_count = (uint32_t)items;
}

/* Of a frame that several appliers share: under the table's lock. */
struct share_visit {
    const struct record_share *share;
    struct record_result *ret; /* of all shares, when this was the last */
    bool is_last;
};

static void add_result(struct record_result *to, const struct record_result *from)
{
    to->err = to->err == ERR_OK ? from->err : to->err;
    to->inserted += from->inserted;
    to->duplicates += from->duplicates;
    to->conflicts += from->conflicts;
    to->refused += from->refused;
    for (uint32_t i = 0; i < from->item_count; i++) {
        if (from->items[i] != RECORD_ITEM_REJECTED) {
            to->items[i] = from->items[i];
        }
    }
}

static void add_share(void *value, void *context)
{
    struct apply_shared_result *shared = value;
    struct share_visit *visit = context;
    if (shared->done == 0) {
        shared->result = visit->share->result;
    } else {
        add_result(&shared->result, &visit->share->result);
    }
    shared->done += visit->share->done;
    visit->is_last = shared->done >= visit->share->total;
    if (visit->is_last) {
        *visit->ret = shared->result;
    }
}

/* Any thread: a share of a frame that somebody waits for in this process. */
static void take_share(struct apply *apply, const struct record_share *share)
{
    const struct apply_options *options = &apply->options;
    uint64_t position = share->result.position;
    struct slice name = slice_make(&position, sizeof(position));
    if (share->done >= share->total) {
        options->on_result(options->owner, share->waiter, &share->result);
        return;
    }
    struct record_result *all = mem_alloc(sizeof(*all));
    struct share_visit visit = {.share = share, .ret = all};
    table_upsert(apply->results, name, add_share, &visit);
    if (visit.is_last) {
        (void)table_erase(apply->results, name);
        options->on_result(options->owner, share->waiter, all);
    }
    mem_free(all);
}

void apply_settle_share(void *context, const struct record_share *share)
{
    struct apply *apply = context;
    if (share->waiter != RECORD_WAITER_NONE) {
        take_share(apply, share);
    }
    journal_credit_upload(apply->options.journal, share->upload, 0, 0); /* none: nothing is found */
}

static bool is_here(const struct applier *applier, uint64_t run)
{
    return run == applier->options.run || !journal_is_shared(applier->options.journal);
}

static void answer_frame(struct applier *applier, const struct apply_batch *batch,
                         const struct apply_frame *frame)
{
    struct record_share *share = &applier->share;
    share->run = frame->run;
    share->waiter = frame->waiter;
    share->done = frame->event_count;
    share->total = frame->event_total;
    share->upload = (struct id){{0}};
    make_result(&share->result, frame);
    add_events(&share->result, batch, frame);
    if (is_here(applier, share->run)) {
        take_share(applier->apply, share);
    } else {
        journal_answer(applier->options.journal, share);
    }
}

/* --- uploads
 * -------------------------------------------------------------------------------------- */

static void credit_records(struct applier *applier, struct apply_upload *upload, uint64_t count)
{
    count = count < upload->pending_count ? count : upload->pending_count;
    upload->pending_count -= count;
    journal_credit(applier->options.journal, upload->frame.org, 0, (uint32_t)count);
}

void apply_upload_end(struct applier *applier, struct apply_upload *upload, enum err err)
{
    struct record_share *share = &applier->share;
    share->run = upload->frame.run;
    share->waiter = RECORD_WAITER_NONE;
    share->done = 0;
    share->total = 0;
    share->upload = upload->end.upload;
    share->result.item_count = 0;
    credit_records(applier, upload, upload->pending_count); /* of one that failed or was deleted */
    if (upload->result != NULL) {
        share->waiter = upload->waiter;
        share->result = *upload->result;
        share->result.err = err;
    }
    if (!is_here(applier, share->run)) {
        journal_answer(applier->options.journal, share);
    } else {
        journal_credit_upload(applier->options.journal, share->upload, upload->frame.org,
                              upload->end.stored_bytes);
        if (share->waiter != RECORD_WAITER_NONE) {
            take_share(applier->apply, share);
        }
    }
    apply_upload_destroy(upload);
}

/* Accepted to applied, of each record. The wall clock may have stepped back meanwhile. */
static void observe_latency(const struct apply_frame *frame, uint64_t records, int64_t now_ms)
{
    int64_t age_ms = now_ms > frame->received_ms ? now_ms - frame->received_ms : 0;
    metrics_observe_many(METRIC_QUEUE_LATENCY, (uint64_t)age_ms * 1000000u, records);
}

/* The part's steps of the slice are committed. */
static void settle_slice(struct applier *applier, struct apply_batch *batch, uint32_t from,
                         int64_t now_ms)
{
    struct apply_upload *upload = batch->upload;
    for (uint32_t i = from; i < batch->part_to; i++) {
        if (upload->result != NULL) {
            add_events(upload->result, batch, &batch->frames[i]);
        }
        credit_records(applier, upload, batch->frames[i].credit_records);
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
        apply_upload_end(applier, upload, upload->failed);
    }
}

static void settle_frame(struct applier *applier, struct apply_batch *batch,
                         struct apply_frame *frame, int64_t now_ms)
{
    bool is_upload = frame->kind == APPLY_FRAME_UPLOAD;
    if (is_upload) {
        if (frame->upload->table == APPLY_TABLE_WRITTEN) {
            buffer_finish(&frame->upload->errors); /* they are in its row */
        }
        if (frame->upload->is_again) {
            apply_upload_destroy(frame->upload);
        } else {
            list_push_back(&applier->uploads, &frame->upload->link);
        }
        frame->upload = NULL; /* open from here on */
    } else if (frame->waiter != RECORD_WAITER_NONE) {
        answer_frame(applier, batch, frame);
    }
    journal_credit(applier->options.journal, frame->org, frame->credit_bytes,
                   is_upload ? 0 : frame->credit_records);
    observe_latency(frame, is_upload ? 0 : frame->event_count, now_ms);
    metrics_add(METRIC_APPLY_DEAD_UNREADABLE, frame->bytes.data != NULL);
}

/* --- who is told
 * ---------------------------------------------------------------------------------- */

static void tell_applied(struct applier *applier, uint32_t org_count)
{
    applier->options.on_applied(applier->options.owner, apply_position(applier->apply),
                                applier->orgs, org_count);
}

static void tell_org(struct applier *applier, uint32_t *count, uint64_t org)
{
    for (uint32_t i = *count; i > 0; i--) {
        if (applier->orgs[i - 1] == org) {
            return;
        }
    }
    if (*count == APPLY_ORGS_TOLD_MAX) {
        tell_applied(applier, *count);
        *count = 0;
    }
    applier->orgs[(*count)++] = org;
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

static void push_release(struct applier *applier, uint64_t commit, uint64_t position)
{
    if (applier->release_count == APPLY_RELEASES) {
        applier->release_count--; /* the newest waits for the one after it: later, never sooner */
    }
    applier->releases[applier->release_count++] = (struct apply_release){commit, position};
}

/* The cursors of the lanes that the part touched stand at its last frame. */
static void note_written(struct applier *applier, const struct apply_batch *batch, uint32_t from)
{
    uint64_t position = batch->frames[batch->part_to - 1].position;
    uint64_t lanes = 0;
    if (!apply_has_leases(applier)) {
        push_release(applier, batch->job.commit, position);
        return;
    }
    for (uint32_t i = from; i < batch->part_to; i++) {
        lanes |= batch->frames[i].lanes;
    }
    apply_lanes_write(applier, lanes, position);
}

static uint32_t find_runs(const struct apply_batch *batch, uint32_t from,
                          uint64_t ret[APPLY_RUNS_MAX])
{
    uint32_t count = 0;
    for (uint32_t i = from; i < batch->part_to; i++) {
        uint32_t at = 0;
        while (at < count && ret[at] != batch->frames[i].run) {
            at++;
        }
        if (at == count && count < APPLY_RUNS_MAX) {
            ret[count++] = batch->frames[i].run;
        }
    }
    return count;
}

/* Who accepted them keeps them until then. */
static void tell_journal(struct applier *applier, const struct apply_batch *batch, uint32_t from)
{
    uint64_t runs[APPLY_RUNS_MAX];
    uint32_t room = batch->part_to - from;
    if (!journal_keeps(applier->options.journal)) {
        return;
    }
    if (applier->told_capacity < room) {
        mem_free(applier->told);
        applier->told = mem_alloc_array(room, sizeof(*applier->told));
        applier->told_capacity = room;
    }
    uint32_t run_count = find_runs(batch, from, runs);
    for (uint32_t run = 0; run < run_count; run++) {
        uint32_t count = 0;
        for (uint32_t i = from; i < batch->part_to; i++) {
            const struct apply_frame *frame = &batch->frames[i];
            if (frame->run == runs[run]) {
                applier->told[count++] = (struct record_applied){
                    .checksum = frame->checksum, .lanes = frame->lanes, .all = frame->all_lanes};
            }
        }
        journal_tell_applied(applier->options.journal, runs[run], applier->told, count);
    }
}

void apply_settle_part(struct applier *applier, struct apply_batch *batch)
{
    struct record_result sum = {.err = ERR_OK};
    uint32_t org_count = 0;
    int64_t now_ms = clock_wall_ms();
    uint32_t part = batch->part_from;
    const struct apply_frame *last = &batch->frames[batch->part_to - 1];
    uint32_t from = batch->frames[part].first_event;
    uint32_t to = last->first_event + last->event_count;
    batch->part_from = batch->part_to;
    if (batch->upload == NULL) {
        note_written(applier, batch, part);
        tell_journal(applier, batch, part);
    }
    (void)apply_lanes_tell(applier);
    for (uint32_t i = part; i < batch->part_to; i++) {
        tell_org(applier, &org_count, batch->frames[i].org);
    }
    for (uint32_t i = from; i < to; i++) {
        count_event(&sum, batch->events[i].state);
    }
    count_metrics(&sum, to - from);
    if (batch->reading_count > 0) {
        apply_telemetry_news(applier);
    }
    if (batch->upload != NULL) {
        settle_slice(applier, batch, part, now_ms);
    } else {
        for (uint32_t i = part; i < batch->part_to; i++) {
            settle_frame(applier, batch, &batch->frames[i], now_ms);
        }
    }
    tell_applied(applier, org_count);
}

void apply_settle_release(struct applier *applier)
{
    uint64_t durable = store_durable_commit(applier->options.store);
    uint32_t count = 0;
    if (apply_has_leases(applier)) { /* every commit is durable there */
        journal_release(applier->options.journal, apply_lanes_written(applier->apply));
        return;
    }
    while (count < applier->release_count && applier->releases[count].commit <= durable) {
        count++;
    }
    if (count > 0) {
        journal_release(applier->options.journal, applier->releases[count - 1].position);
        applier->release_count -= count;
        memmove(applier->releases, applier->releases + count,
                applier->release_count * sizeof(applier->releases[0]));
    }
}

void apply_settle_gauges(struct applier *applier)
{
    struct journal_backlog backlog;
    journal_backlog(applier->options.journal, &backlog);
    uint64_t durable = journal_durable_position(applier->options.journal);
    uint64_t position = apply_position(applier->apply);
    uint64_t pending = durable > position ? durable - position : 0;
    double age_s = 0;
    if (backlog.oldest_received_ms != 0) {
        age_s = (double)(clock_wall_ms() - (int64_t)backlog.oldest_received_ms) / 1000.0;
    }
    uint64_t unsettled = apply_lanes_unsettled(applier->apply);
    metrics_set(METRIC_QUEUE_SIZE, (double)backlog.records);
    metrics_set(METRIC_QUEUE_DEPTH, (double)backlog.records);
    metrics_set(METRIC_CONSUMER_PENDING, (double)(pending > unsettled ? pending - unsettled : 0));
    metrics_set(METRIC_CONSUMER_ACK_PENDING, (double)unsettled);
    metrics_set(METRIC_JOURNAL_OLDEST, age_s > 0 ? age_s : 0);
}

void apply_settle_rest(struct applier *applier)
{
    if (apply_lanes_tell(applier)) {
        tell_applied(applier, 0);
    }
    apply_settle_release(applier);
    apply_settle_gauges(applier);
}
