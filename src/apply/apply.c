/* The applier's thread.
 *
 * There are two batches: one fills from the journal (or from a slice of an upload) while the writer
 * has the other. The policy says when to read on, when to hand over, when to wait. A batch goes to
 * the writer in parts, usually one; a part is frames as a whole, so the cursor always stands
 * between frames.
 *
 *   EMPTY -- read a frame --> FILLING -- policy --> IN FLIGHT -- last part committed --> EMPTY
 *                                                   |      ^
 *                                                   +------+ a part committed, gave way, was
 * refused, or the store was away: the next try
 *
 * Happy path: the journal wakes the applier; frames become rows; a job for the writer; its answer
 * comes back by mail; results, credit, the next batch. Failure modes: the part gave way to
 * something of higher priority: tried at once, smaller. A row was refused: smaller, then careful,
 * so that one row becomes a dead letter. The store is away: tried again after a pause that doubles
 * up to two seconds, for as long as it takes. Stop: what is with the writer is waited for, the rest
 * is read again by the next run. */
#include "apply/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/thread.h"

#define FRAMES_PER_ROUND 64u   /* read between looks at the mail */
#define SETTLE_MS        500   /* while something waits to become durable */
#define TICK_MS          60000 /* for retention, and gauges at rest */

static void on_part_done(struct store_job *job);

/* --- with the writer
 * ------------------------------------------------------------------------------ */

/* As many frames as the limit of rows allows, at least one. */
static void choose_part(struct applier *applier, struct apply_batch *batch)
{
    uint32_t rows = 0;
    uint32_t to = batch->part_from;
    while (to < batch->frame_count &&
           (to == batch->part_from || rows + apply_frame_rows(batch, to) <= applier->part_rows)) {
        rows += apply_frame_rows(batch, to);
        to++;
    }
    batch->part_to = to;
}

static void pause_part(struct applier *applier, enum err err)
{
    if (applier->pause_ms == 0) {
        log_write(LOG_WARN, "apply", "the store does not take a batch, will try again: %s",
                  err_text(err));
    }
    applier->pause_ms = apply_backoff_step(applier->pause_ms);
    applier->retry_ns = clock_mono_ns() + applier->pause_ms * 1000000ull;
}

static void post_part(struct applier *applier)
{
    struct apply_batch *batch = applier->in_flight;
    choose_part(applier, batch);
    batch->has_run = false;
    batch->posted_ns = clock_mono_ns();
    batch->job = (struct store_job){.priority = STORE_APPLY,
                                    .applier = applier->index,
                                    .run = apply_write_part,
                                    .on_done = on_part_done,
                                    .reply_to = applier->mailbox};
    applier->retry_ns = 0;
    enum err err = store_post_write(applier->options.store, &batch->job);
    if (err != ERR_OK) {
        pause_part(applier, err);
    }
}

static uint32_t part_rows(const struct apply_batch *batch)
{
    uint32_t rows = 0;
    for (uint32_t i = batch->part_from; i < batch->part_to; i++) {
        rows += apply_frame_rows(batch, i);
    }
    return rows;
}

static void finish_batch(struct applier *applier)
{
    apply_batch_reset(applier->in_flight);
    applier->in_flight = NULL;
}

static void on_committed(struct applier *applier, struct apply_batch *batch)
{
    uint64_t taken_ns = clock_mono_ns() - batch->posted_ns;
    bool is_long = apply_has_leases(applier) && taken_ns > APPLY_PART_MS * UINT64_C(1000000);
    applier->part_rows =
        apply_part_step(applier->part_rows, part_rows(batch), is_long, APPLY_ROWS_MAX);
    applier->pause_ms = 0;
    batch->careful = false;
    metrics_observe(METRIC_WORKER_COMMIT, taken_ns);
    apply_settle_part(applier, batch);
    apply_settle_release(applier);
    if (batch->part_from == batch->frame_count) {
        finish_batch(applier);
    } else {
        post_part(applier);
    }
}

static void on_failed(struct applier *applier, struct apply_batch *batch)
{
    uint32_t rows = part_rows(batch);
    enum err err = batch->job.err;
    metrics_add(METRIC_CONSUMER_REDELIVERED, batch->part_to - batch->part_from);
    if (batch->has_run && err == ERR_BUSY) {
        applier->part_rows = apply_part_step(applier->part_rows, rows, true, APPLY_ROWS_MAX);
        post_part(applier);
    } else if (batch->has_run && err == ERR_REFUSED && !batch->careful) {
        batch->careful = rows <= APPLY_CAREFUL_ROWS || batch->part_to == batch->part_from + 1;
        if (!batch->careful) {
            applier->part_rows = APPLY_CAREFUL_ROWS;
        }
        post_part(applier);
    } else if (batch->has_run && err == ERR_NOT_FOUND && batch->upload != NULL) {
        log_write(LOG_INFO, "apply", "an upload was deleted while it was applied");
        apply_upload_end(applier, batch->upload, ERR_NOT_FOUND);
        finish_batch(applier);
    } else if (batch->has_run && err == ERR_CLOSED) {
        log_write(LOG_WARN, "apply", "some lanes are another's by now");
        finish_batch(applier);
        apply_lanes_lost(applier);
    } else {
        pause_part(applier, err);
    }
}

static void on_part_done(struct store_job *job)
{
    struct apply_batch *batch = LIST_CONTAINER(job, struct apply_batch, job);
    if (job->err == ERR_OK) {
        on_committed(batch->applier, batch);
    } else {
        on_failed(batch->applier, batch);
    }
}

/* --- filling
 * -------------------------------------------------------------------------------------- */

static bool read_frame(struct applier *applier)
{
    bool has_frame = false;
    if (applier->is_held || applier->reader == NULL) {
        return applier->is_held;
    }
    enum err err = journal_reader_next(applier->reader, &applier->held, &has_frame);
    if (err != ERR_OK) {
        /* Frames that cannot be read are the journal's to quarantine; a disk that fails may return.
         */
        log_write(LOG_ERROR, "apply", "read journal: %s", err_text(err));
        return false;
    }
    applier->is_held = has_frame;
    return has_frame;
}

/* *ret_pause: what is needed for the next frame is away. */
static void fill_frames(struct applier *applier, bool *ret_pause)
{
    struct apply_batch *batch = applier->filling;
    for (uint32_t i = 0; i < FRAMES_PER_ROUND; i++) {
        if (apply_batch_is_full(batch)) {
            batch->is_closed = true;
            return;
        }
        if (!read_frame(applier)) {
            applier->has_more = false;
            return;
        }
        if (!apply_lanes_has_room(applier, &applier->held)) {
            applier->has_more = false; /* until the others have passed some */
            return;
        }
        enum err err = apply_fill_frame(applier, batch, &applier->held);
        if (err != ERR_OK) {
            batch->is_closed = batch->frame_count > 0;
            *ret_pause = batch->frame_count == 0;
            if (*ret_pause && !applier->is_stalled) {
                log_write(LOG_WARN, "apply", "a frame waits, will try again: %s", err_text(err));
            }
            applier->is_stalled = *ret_pause;
            return;
        }
        applier->is_stalled = false;
        applier->is_held = false;
        apply_lanes_count(applier, &applier->held);
    }
}

/* Frames and slices take turns when there are both. */
static void fill(struct applier *applier, int *wait_ms)
{
    struct apply_batch *batch = applier->filling;
    bool is_away = false;
    if (batch->frame_count == 0 && (!applier->has_more || !applier->was_slice)) {
        int upload_ms = 0;
        struct apply_upload *upload = apply_upload_turn(applier, &upload_ms);
        bool is_with_writer =
            upload != NULL && applier->in_flight != NULL && applier->in_flight->upload == upload;
        if (upload != NULL && !is_with_writer) {
            applier->was_slice = apply_fill_slice(applier, batch, upload) == ERR_OK;
            return;
        }
    }
    if (applier->has_more) {
        applier->was_slice = false;
        fill_frames(applier, &is_away);
    }
    if (is_away) {
        *wait_ms = (int)APPLY_BACKOFF_FIRST_MS;
    }
}

/* --- the loop
 * ------------------------------------------------------------------------------------- */

static bool has_work(struct applier *applier)
{
    int wait_ms = 0;
    if (applier->has_more || applier->is_held) {
        return true;
    }
    struct apply_upload *upload = apply_upload_turn(applier, &wait_ms);
    return upload != NULL && (applier->in_flight == NULL || applier->in_flight->upload != upload);
}

static enum apply_action decide(struct applier *applier, uint64_t now_ns)
{
    const struct apply_batch *batch = applier->filling;
    struct apply_filling filling = {
        .frames = batch->frame_count,
        .rows = batch->event_count,
        .bytes = batch->bytes,
        .age_ms = (now_ns - batch->first_ns) / 1000000u,
        .gap_ms = (now_ns - applier->handed_ns) / 1000000u,
        .is_waited_for = batch->is_waited_for,
        .is_closed = batch->is_closed,
        .has_more = batch->frame_count == 0 ? has_work(applier) : applier->has_more,
        .is_in_flight = applier->in_flight != NULL,
    };
    return apply_batch_step(&applier->policy, &filling);
}

static int least_wait(int a, int b)
{
    if (a < 0 || b < 0) {
        return a < 0 ? b : a;
    }
    return a < b ? a : b;
}

/* How long to sleep when nothing is to be done. */
static int rest_ms(struct applier *applier, uint64_t now_ns)
{
    int wait_ms = TICK_MS;
    if (applier->release_count > 0 || applier->old_count > 0) {
        wait_ms = SETTLE_MS;
    }
    if (applier->retry_ns != 0) {
        int retry_ms =
            applier->retry_ns > now_ns ? (int)((applier->retry_ns - now_ns) / 1000000u) + 1 : 0;
        wait_ms = least_wait(wait_ms, retry_ms);
    }
    if (applier->filling->frame_count > 0 && applier->in_flight == NULL) {
        uint64_t gap_ms = (now_ns - applier->handed_ns) / 1000000u;
        wait_ms = least_wait(wait_ms, gap_ms < APPLY_GAP_MS ? (int)(APPLY_GAP_MS - gap_ms) : 0);
    }
    if (applier->filling->frame_count == 0) {
        int upload_ms = -1;
        (void)apply_upload_turn(applier, &upload_ms);
        wait_ms = least_wait(wait_ms, upload_ms);
    }
    wait_ms = least_wait(wait_ms, apply_lanes_wait_ms(applier, now_ns));
    return least_wait(wait_ms, apply_telemetry_wait_ms(applier, now_ns));
}

static void post_filling(struct applier *applier, uint64_t now_ns)
{
    applier->handed_ns = now_ns;
    applier->in_flight = applier->filling;
    applier->filling =
        applier->in_flight == &applier->batches[0] ? &applier->batches[1] : &applier->batches[0];
    post_part(applier);
}

/* Nothing waits: the memory of a backlog goes back. */
static void rest(struct applier *applier)
{
    for (int i = 0; i < 2; i++) {
        if (applier->batches[i].frame_count == 0) {
            apply_batch_rest(&applier->batches[i]);
        }
    }
}

/* One thing that is to be done, or how long there is nothing.
 *
 * The journal wakes without a mail, and emptying the mailbox forgets the wake. So each round looks
 * into the journal, and between a look that found nothing and the sleep nothing is emptied. */
static void step(struct applier *applier)
{
    uint64_t now_ns = clock_mono_ns();
    int wait_ms = 0;
    applier->has_more = true;
    if (applier->retry_ns != 0 && applier->retry_ns <= now_ns) {
        post_part(applier);
    }
    apply_telemetry_look(applier, now_ns);
    if (apply_lanes_look(applier, now_ns)) {
        mailbox_wait(applier->mailbox, rest_ms(applier, now_ns));
        return;
    }
    enum apply_action action = decide(applier, now_ns);
    if (action == APPLY_FILL) {
        fill(applier, &wait_ms);
        if (!applier->has_more && wait_ms == 0) {
            action = decide(applier, now_ns);
        }
    }
    switch (action) {
    case APPLY_FILL:
        break;
    case APPLY_POST:
        post_filling(applier, now_ns);
        break;
    case APPLY_WAIT:
        apply_settle_rest(applier);
        if (applier->in_flight == NULL) {
            rest(applier);
        }
        if (applier->in_flight == NULL && applier->index == 0 && !applier->options.is_follower) {
            /* files of this process */
            apply_retention_look(applier, now_ns);
            apply_orphans_look(applier);
        }
        wait_ms = rest_ms(applier, now_ns);
        break;
    }
    if (wait_ms != 0) {
        mailbox_wait(applier->mailbox, wait_ms);
    }
}

static bool is_stopping(const struct applier *applier)
{
    return atomic_load_explicit(&applier->apply->is_stopping, memory_order_acquire);
}

static void run_paused(struct applier *applier)
{
    while (!is_stopping(applier)) {
        apply_settle_gauges(applier);
        mailbox_wait(applier->mailbox, TICK_MS);
        (void)mailbox_run_all(applier->mailbox);
    }
}

void apply_run(void *argument)
{
    struct applier *applier = argument;
    applier->part_rows = APPLY_ROWS_MAX;
    thread_lower_priority();
    if (applier->options.paused) {
        run_paused(applier);
        return;
    }
    (void)mailbox_run_all(applier->mailbox);
    while (!is_stopping(applier)) { /* looked at after each emptying, which forgets its wake */
        step(applier);
        (void)mailbox_run_all(applier->mailbox);
    }
    while ((applier->in_flight != NULL && applier->retry_ns == 0) || applier->telemetry.is_posted) {
        mailbox_wait(applier->mailbox, -1);
        (void)mailbox_run_all(applier->mailbox);
    }
    apply_lanes_end(applier);
    apply_settle_rest(applier);
}
