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
#include "apply/apply.h"
#include "apply/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/table.h"
#include "base/thread.h"

#include <assert.h>

#define MAILBOX_CAPACITY 16u
#define ID_KEYS_MAX      16384u
#define FRAMES_PER_ROUND 64u   /* read between looks at the mail */
#define SETTLE_MS        500   /* while something waits to become durable */
#define TICK_MS          60000 /* for retention, and gauges at rest */

static void on_part_done(struct store_job *job);

enum err apply_open(struct apply **ret, const struct apply_options *options,
                    struct err_detail *detail)
{
    struct journal_state state;
    uint64_t cursor = 0;
    struct apply *apply = mem_alloc(sizeof(*apply));
    apply->options = *options;
    apply->policy = (struct apply_policy){.batch_size = options->batch_size,
                                          .batch_timeout_ms = options->batch_timeout_ms,
                                          .gap_ms = APPLY_GAP_MS,
                                          .gap_rows = APPLY_GAP_ROWS,
                                          .rows_max = APPLY_ROWS_MAX,
                                          .bytes_max = APPLY_BYTES_MAX};
    apply->part_rows = APPLY_ROWS_MAX;
    apply_telemetry_init(apply);
    list_init(&apply->uploads);
    buffer_init(&apply->chunk, LIMIT_UPLOAD_BLOCK_BYTES);
    apply->id_keys = table_create(ID_KEYS_MAX, 32);
    apply->format = format_reader_create();
    apply->filling = &apply->batches[0];
    for (int i = 0; i < 2; i++) {
        apply->batches[i].apply = apply;
        apply_batch_reset(&apply->batches[i]);
    }
    journal_state(options->journal, &state);
    apply->journal = state.id;
    enum err err = mailbox_create(&apply->mailbox, MAILBOX_CAPACITY);
    if (err == ERR_OK) {
        err = apply_cursor_of(options->store, apply->journal, &cursor);
    }
    if (err == ERR_OK) {
        err = apply_uploads_load(apply);
    }
    if (err == ERR_OK) {
        apply_uploads_charge(apply);
        err = journal_reader_open(&apply->reader, options->journal, cursor);
    }
    if (err != ERR_OK) {
        err_detail_set(detail, "%s", err_text(err));
        goto out;
    }
    apply->read_position = cursor;
    apply->has_more = true;
    atomic_store_explicit(&apply->position, cursor, memory_order_release);
    if (!options->paused) { /* else nothing would come of being woken by each commit */
        journal_subscribe(options->journal, apply->mailbox);
    }
    *ret = apply;
    apply = NULL;
out:
    apply_close(apply);
    return err;
}

void apply_close(struct apply *apply)
{
    if (apply == NULL) {
        return;
    }
    struct list_link *link = NULL;
    journal_subscribe(apply->options.journal, NULL); /* it may outlive this */
    while ((link = list_take_first(&apply->uploads)) != NULL) {
        apply_upload_destroy(LIST_CONTAINER(link, struct apply_upload, link));
    }
    for (int i = 0; i < 2; i++) {
        apply_batch_finish(&apply->batches[i]);
    }
    apply_retention_finish(apply);
    apply_orphans_finish(apply);
    journal_reader_close(apply->reader);
    format_reader_destroy(apply->format);
    table_destroy(apply->id_keys);
    buffer_finish(&apply->chunk);
    mailbox_destroy(apply->mailbox);
    mem_free(apply);
}

void apply_stop(struct apply *apply)
{
    atomic_store_explicit(&apply->is_stopping, true, memory_order_release);
    mailbox_wake(apply->mailbox);
}

uint64_t apply_position(const struct apply *apply)
{
    return atomic_load_explicit(&apply->position, memory_order_acquire);
}

/* --- with the writer
 * ------------------------------------------------------------------------------ */

/* As many frames as the limit of rows allows, at least one. */
static void choose_part(struct apply *apply, struct apply_batch *batch)
{
    uint32_t rows = 0;
    uint32_t to = batch->part_from;
    while (to < batch->frame_count &&
           (to == batch->part_from || rows + apply_frame_rows(batch, to) <= apply->part_rows)) {
        rows += apply_frame_rows(batch, to);
        to++;
    }
    batch->part_to = to;
}

static void pause_part(struct apply *apply, enum err err)
{
    if (apply->pause_ms == 0) {
        log_write(LOG_WARN, "apply", "the store does not take a batch, will try again: %s",
                  err_text(err));
    }
    apply->pause_ms = apply_backoff_step(apply->pause_ms);
    apply->retry_ns = clock_mono_ns() + apply->pause_ms * 1000000ull;
}

static void post_part(struct apply *apply)
{
    struct apply_batch *batch = apply->in_flight;
    choose_part(apply, batch);
    batch->has_run = false;
    batch->posted_ns = clock_mono_ns();
    batch->job = (struct store_job){.priority = STORE_APPLY,
                                    .run = apply_write_part,
                                    .on_done = on_part_done,
                                    .reply_to = apply->mailbox};
    apply->retry_ns = 0;
    enum err err = store_post_write(apply->options.store, &batch->job);
    if (err != ERR_OK) {
        pause_part(apply, err);
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

static void finish_batch(struct apply *apply)
{
    apply_batch_reset(apply->in_flight);
    apply->in_flight = NULL;
}

static void on_committed(struct apply *apply, struct apply_batch *batch)
{
    apply->part_rows = apply_part_step(apply->part_rows, part_rows(batch), false, APPLY_ROWS_MAX);
    apply->pause_ms = 0;
    batch->careful = false;
    metrics_observe(METRIC_WORKER_COMMIT, clock_mono_ns() - batch->posted_ns);
    apply_settle_part(apply, batch);
    apply_settle_release(apply);
    batch->part_from = batch->part_to;
    if (batch->part_from == batch->frame_count) {
        finish_batch(apply);
    } else {
        post_part(apply);
    }
}

static void on_failed(struct apply *apply, struct apply_batch *batch)
{
    uint32_t rows = part_rows(batch);
    enum err err = batch->job.err;
    if (batch->has_run && err == ERR_BUSY) {
        apply->part_rows = apply_part_step(apply->part_rows, rows, true, APPLY_ROWS_MAX);
        post_part(apply);
    } else if (batch->has_run && err == ERR_REFUSED && !batch->careful) {
        batch->careful = rows <= APPLY_CAREFUL_ROWS || batch->part_to == batch->part_from + 1;
        if (!batch->careful) {
            apply->part_rows = APPLY_CAREFUL_ROWS;
        }
        post_part(apply);
    } else if (batch->has_run && err == ERR_NOT_FOUND && batch->upload != NULL) {
        log_write(LOG_INFO, "apply", "an upload was deleted while it was applied");
        apply_upload_end(apply, batch->upload, ERR_NOT_FOUND);
        finish_batch(apply);
    } else {
        pause_part(apply, err);
    }
}

static void on_part_done(struct store_job *job)
{
    struct apply_batch *batch = LIST_CONTAINER(job, struct apply_batch, job);
    if (job->err == ERR_OK) {
        on_committed(batch->apply, batch);
    } else {
        on_failed(batch->apply, batch);
    }
}

/* --- filling
 * -------------------------------------------------------------------------------------- */

static bool read_frame(struct apply *apply)
{
    if (apply->is_held) {
        return true;
    }
    bool has_frame = false;
    enum err err = journal_reader_next(apply->reader, &apply->held, &has_frame);
    if (err != ERR_OK) {
        /* Frames that cannot be read are the journal's to quarantine; a disk that fails may return.
         */
        log_write(LOG_ERROR, "apply", "read journal: %s", err_text(err));
        return false;
    }
    apply->is_held = has_frame;
    return has_frame;
}

/* *ret_pause: what is needed for the next frame is away. */
static void fill_frames(struct apply *apply, bool *ret_pause)
{
    struct apply_batch *batch = apply->filling;
    for (uint32_t i = 0; i < FRAMES_PER_ROUND; i++) {
        if (batch->event_count >= APPLY_ROWS_MAX || batch->bytes >= APPLY_BYTES_MAX) {
            return;
        }
        if (!read_frame(apply)) {
            apply->has_more = false;
            return;
        }
        enum err err = apply_fill_frame(apply, batch, &apply->held);
        if (err != ERR_OK) {
            batch->is_closed = batch->frame_count > 0;
            *ret_pause = batch->frame_count == 0;
            if (*ret_pause && !apply->is_stalled) {
                log_write(LOG_WARN, "apply", "a frame waits, will try again: %s", err_text(err));
            }
            apply->is_stalled = *ret_pause;
            return;
        }
        apply->is_stalled = false;
        apply->is_held = false;
        apply->read_position = apply->held.position;
        apply->frames_unsettled++;
    }
}

/* Frames and slices take turns when there are both. */
static void fill(struct apply *apply, int *wait_ms)
{
    struct apply_batch *batch = apply->filling;
    bool is_away = false;
    if (batch->frame_count == 0 && (!apply->has_more || !apply->was_slice)) {
        int upload_ms = 0;
        struct apply_upload *upload = apply_upload_turn(apply, &upload_ms);
        bool is_with_writer =
            upload != NULL && apply->in_flight != NULL && apply->in_flight->upload == upload;
        if (upload != NULL && !is_with_writer) {
            apply->was_slice = apply_fill_slice(apply, batch, upload) == ERR_OK;
            return;
        }
    }
    if (apply->has_more) {
        apply->was_slice = false;
        fill_frames(apply, &is_away);
    }
    if (is_away) {
        *wait_ms = (int)APPLY_BACKOFF_FIRST_MS;
    }
}

/* --- the loop
 * ------------------------------------------------------------------------------------- */

static bool has_work(struct apply *apply)
{
    int wait_ms = 0;
    if (apply->has_more || apply->is_held) {
        return true;
    }
    struct apply_upload *upload = apply_upload_turn(apply, &wait_ms);
    return upload != NULL && (apply->in_flight == NULL || apply->in_flight->upload != upload);
}

static enum apply_action decide(struct apply *apply, uint64_t now_ns)
{
    const struct apply_batch *batch = apply->filling;
    struct apply_filling filling = {
        .frames = batch->frame_count,
        .rows = batch->event_count,
        .bytes = batch->bytes,
        .age_ms = (now_ns - batch->first_ns) / 1000000u,
        .gap_ms = (now_ns - apply->handed_ns) / 1000000u,
        .is_waited_for = batch->is_waited_for,
        .is_closed = batch->is_closed,
        .has_more = batch->frame_count == 0 ? has_work(apply) : apply->has_more,
        .is_in_flight = apply->in_flight != NULL,
    };
    return apply_batch_step(&apply->policy, &filling);
}

static int least_wait(int a, int b)
{
    if (a < 0 || b < 0) {
        return a < 0 ? b : a;
    }
    return a < b ? a : b;
}

/* How long to sleep when nothing is to be done. */
static int rest_ms(struct apply *apply, uint64_t now_ns)
{
    int wait_ms = TICK_MS;
    if (apply->release_count > 0 || apply->old_count > 0) {
        wait_ms = SETTLE_MS;
    }
    if (apply->retry_ns != 0) {
        int retry_ms =
            apply->retry_ns > now_ns ? (int)((apply->retry_ns - now_ns) / 1000000u) + 1 : 0;
        wait_ms = least_wait(wait_ms, retry_ms);
    }
    if (apply->filling->frame_count > 0 && apply->in_flight == NULL) {
        uint64_t gap_ms = (now_ns - apply->handed_ns) / 1000000u;
        wait_ms = least_wait(wait_ms, gap_ms < APPLY_GAP_MS ? (int)(APPLY_GAP_MS - gap_ms) : 0);
    }
    if (apply->filling->frame_count == 0) {
        int upload_ms = -1;
        (void)apply_upload_turn(apply, &upload_ms);
        wait_ms = least_wait(wait_ms, upload_ms);
    }
    wait_ms = least_wait(wait_ms, apply_telemetry_wait_ms(apply, now_ns));
    return wait_ms;
}

static void post_filling(struct apply *apply, uint64_t now_ns)
{
    apply->handed_ns = now_ns;
    apply->in_flight = apply->filling;
    apply->filling =
        apply->in_flight == &apply->batches[0] ? &apply->batches[1] : &apply->batches[0];
    post_part(apply);
}

/* Nothing waits: the memory of a backlog goes back. */
static void rest(struct apply *apply)
{
    for (int i = 0; i < 2; i++) {
        if (apply->batches[i].frame_count == 0) {
            apply_batch_rest(&apply->batches[i]);
        }
    }
}

/* One thing that is to be done, or how long there is nothing.
 *
 * The journal wakes without a mail, and emptying the mailbox forgets the wake. So each round looks
 * into the journal, and between a look that found nothing and the sleep nothing is emptied. */
static void step(struct apply *apply)
{
    uint64_t now_ns = clock_mono_ns();
    int wait_ms = 0;
    apply->has_more = true;
    if (apply->retry_ns != 0 && apply->retry_ns <= now_ns) {
        post_part(apply);
    }
    apply_telemetry_look(apply, now_ns);
    enum apply_action action = decide(apply, now_ns);
    if (action == APPLY_FILL) {
        fill(apply, &wait_ms);
        if (!apply->has_more && wait_ms == 0) {
            action = decide(apply, now_ns);
        }
    }
    switch (action) {
    case APPLY_FILL:
        break;
    case APPLY_POST:
        post_filling(apply, now_ns);
        break;
    case APPLY_WAIT:
        apply_settle_release(apply);
        apply_settle_gauges(apply);
        if (apply->in_flight == NULL) {
            rest(apply);
            apply_retention_look(apply, now_ns);
            apply_orphans_look(apply);
        }
        wait_ms = rest_ms(apply, now_ns);
        break;
    }
    if (wait_ms != 0) {
        mailbox_wait(apply->mailbox, wait_ms);
    }
}

static bool is_stopping(const struct apply *apply)
{
    return atomic_load_explicit(&apply->is_stopping, memory_order_acquire);
}

static void run_paused(struct apply *apply)
{
    while (!is_stopping(apply)) {
        apply_settle_gauges(apply);
        mailbox_wait(apply->mailbox, TICK_MS);
        (void)mailbox_run_all(apply->mailbox);
    }
}

void apply_run(void *applier)
{
    struct apply *apply = applier;
    thread_lower_priority();
    if (apply->options.paused) {
        run_paused(apply);
        return;
    }
    (void)mailbox_run_all(apply->mailbox);
    while (!is_stopping(apply)) { /* looked at after each emptying, which forgets its wake */
        step(apply);
        (void)mailbox_run_all(apply->mailbox);
    }
    while ((apply->in_flight != NULL && apply->retry_ns == 0) || apply->telemetry.is_posted) {
        mailbox_wait(apply->mailbox, -1);
        (void)mailbox_run_all(apply->mailbox);
    }
    apply_settle_release(apply);
    apply_settle_gauges(apply);
}
