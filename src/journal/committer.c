/* Committer: numbers the frames of all producers, makes them durable, says so.
 *
 * Happy path: take all mail; gather batches up to 4 MiB; give each frame its position and checksum;
 * one pwritev (commit head, batches, zeros to the next page), one fdatasync; publish the durable
 * position; answer each producer once. What arrived meanwhile is the next commit: there is no delay
 * to gather more, the commit before it was the delay.
 *
 * A full segment is left, and a spare becomes the next one. A spare is also taken as soon as there
 * is one when the active segment's blocks were not written before, since those sync slower. And a
 * segment is left an hour after its first frame, so that what was erased from the store goes from
 * here too; the next one is then a file without an earlier life.
 *
 * Failure modes: a commit that failed is answered with the error, its positions are used again in a
 * new segment, whose first position voids them in the old one. When no segment can be opened every
 * commit is answered with the error at once, and opening is tried again after a pause that doubles
 * from 50 ms to 5 s on the monotonic clock. The disk is below its reserve: appends are refused, the
 * preparer gives up what it may, and space is looked at every 250 ms until it is back. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/sys.h"
#include "journal/backend.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#define COMMITTER_BATCHES_MAX    510 /* in one commit; with head and padding within IOV_MAX */
#define COMMITTER_SAMPLE_NS      (250u * UINT64_C(1000000))
#define COMMITTER_BACKOFF_NS     (50u * UINT64_C(1000000))
#define COMMITTER_BACKOFF_MAX_NS (5000u * UINT64_C(1000000))
#define COMMITTER_LOOK_MS        60000 /* while something grows old */

struct committer_commit {
    struct journal_batch *first;
    struct iovec parts[COMMITTER_BATCHES_MAX + 2];
    int part_count;
    uint32_t batch_count;
    uint64_t bytes; /* of frames */
    uint64_t size;  /* with head and padding */
    uint32_t frame_count;
    uint64_t record_count;
    uint64_t first_position;
    int64_t wall_ms;
    uint8_t head[JOURNAL_COMMIT_HEAD_BYTES];
};

void journal_committer_sample_space(struct journal *journal, uint64_t now_ns)
{
    struct journal_committer *committer = &journal->committer;
    uint64_t free_bytes = 0;
    if (committer->sampled_ns != 0 && now_ns - committer->sampled_ns < COMMITTER_SAMPLE_NS) {
        return;
    }
    committer->sampled_ns = now_ns;
    metrics_set(journal->options.spool_of != NULL ? METRIC_SPOOL_BYTES : METRIC_JOURNAL_BYTES,
                (double)atomic_load_explicit(&journal->disk_bytes, memory_order_relaxed));
    if (sys_free_bytes(journal->directory, &free_bytes) != 0) {
        return; /* not known: as before */
    }
    bool is_short = free_bytes < journal->options.disk_reserve_bytes;
    bool was_short =
        atomic_exchange_explicit(&journal->room.is_short, is_short, memory_order_relaxed);
    if (is_short != was_short) {
        log_write(is_short ? LOG_WARN : LOG_INFO, "journal",
                  "%" PRIu64 " bytes free on disk, reserve is %" PRIu64 ": %s", free_bytes,
                  journal->options.disk_reserve_bytes, is_short ? "refusing" : "accepting again");
    }
    if (is_short) {
        mailbox_wake(journal->preparer_mailbox);
    }
}

/* --- segments ------------------------------------------------------------------------------- */

static struct journal_spare_file committer_take_spare(struct journal *journal)
{
    struct journal_committer *committer = &journal->committer;
    struct journal_spare_file file = {0, clock_mono_ns(), true};
    struct list_link *link = list_take_first(&committer->spares);
    if (link != NULL) {
        struct journal_spare *spare = LIST_CONTAINER(link, struct journal_spare, link);
        file = spare->file;
        mem_free(spare);
        atomic_fetch_sub_explicit(&journal->spare_count, 1, memory_order_relaxed);
    }
    return file;
}

enum err journal_committer_open_segment(struct journal *journal)
{
    struct journal_committer *committer = &journal->committer;
    struct journal_segment_head head = {
        .journal = journal->state.id,
        .sequence = committer->next_sequence++,
        .base = committer->base,
        .first_position = committer->next_position,
        .durable_before = atomic_load_explicit(&journal->durable_position, memory_order_relaxed),
        .opened_ms = clock_wall_ms(),
    };
    struct journal_spare_file spare = committer_take_spare(journal);
    journal_segment_close(&committer->segment);
    enum err err = journal_segment_open(&committer->segment, journal->directory,
                                        journal->options.segment_bytes, spare, &head);
    if (err != ERR_OK && spare.number != 0) {
        atomic_fetch_sub_explicit(&journal->disk_bytes, journal->options.segment_bytes,
                                  memory_order_relaxed);
    }
    if (err != ERR_OK) {
        return err;
    }
    if (spare.number == 0) {
        atomic_fetch_add_explicit(&journal->disk_bytes, journal->options.segment_bytes,
                                  memory_order_relaxed);
    }
    atomic_store_explicit(&journal->durable_offset, JOURNAL_SEGMENT_HEAD_BYTES,
                          memory_order_release);
    atomic_store_explicit(&journal->active_sequence, head.sequence, memory_order_release);
    committer->held_ns = spare.was_zero ? 0 : clock_mono_ns();
    journal_preparer_know(journal, &head, spare.made_ns);
    return ERR_OK;
}

/* After a failure not before a pause is over. */
static enum err committer_move_on(struct journal *journal, uint64_t now_ns)
{
    struct journal_committer *committer = &journal->committer;
    if (committer->segment.fd < 0 && now_ns < committer->next_open_ns) {
        return committer->open_err;
    }
    enum err err = journal_committer_open_segment(journal);
    if (err == ERR_OK) {
        committer->backoff_ns = COMMITTER_BACKOFF_NS;
        return ERR_OK;
    }
    log_write(LOG_ERROR, "journal", "open a segment: %s", err_text(err));
    committer->open_err = err;
    committer->next_open_ns = now_ns + committer->backoff_ns;
    committer->backoff_ns = committer->backoff_ns * 2 < COMMITTER_BACKOFF_MAX_NS
                                ? committer->backoff_ns * 2
                                : COMMITTER_BACKOFF_MAX_NS;
    return err;
}

/* Makes sure that the segment takes `size` more bytes. */
static enum err committer_make_room(struct journal *journal, uint64_t size, uint64_t now_ns)
{
    struct journal_committer *committer = &journal->committer;
    const struct journal_segment *segment = &committer->segment;
    bool is_open = segment->fd >= 0;
    bool is_full = is_open && segment->offset + size > segment->size;
    bool has_better = is_open && !segment->is_prepared && !list_is_empty(&committer->spares);
    bool is_enough = is_open && !is_full && !has_better;
    return is_enough ? ERR_OK : committer_move_on(journal, now_ns);
}

static void committer_give_up_segment(struct journal *journal, enum err err)
{
    struct journal_committer *committer = &journal->committer;
    metrics_add(METRIC_JOURNAL_FAILURES, 1);
    log_write(LOG_ERROR, "journal", "segment %" PRIu64 " given up at %" PRIu64 ": %s",
              committer->segment.head.sequence, committer->segment.offset, err_text(err));
    journal_segment_close(&committer->segment);
    committer->next_open_ns = 0;
    committer->backoff_ns = COMMITTER_BACKOFF_NS;
}

/* --- age ------------------------------------------------------------------------------------ */

/* A spare that holds frames of an earlier life goes when it has waited for an hour; `all`: now. */
static void committer_drop_spares(struct journal *journal, uint64_t now_ns, bool all)
{
    struct journal_committer *committer = &journal->committer;
    struct list kept;
    struct list_link *link;
    list_init(&kept);
    while ((link = list_take_first(&committer->spares)) != NULL) {
        struct journal_spare *spare = LIST_CONTAINER(link, struct journal_spare, link);
        struct journal_file file = {JOURNAL_FILE_SPARE, spare->file.number, 0, 0};
        char path[JOURNAL_PATH_BYTES];
        bool is_old = all || now_ns - spare->since_ns >= JOURNAL_SEGMENT_AGE_NS;
        journal_file_path(path, journal->directory, &file);
        if (spare->file.was_zero || !is_old || (sys_unlink(path) != 0 && errno != ENOENT)) {
            list_push_back(&kept, link); /* one that could not be removed: at the next look */
            continue;
        }
        mem_free(spare);
        atomic_fetch_sub_explicit(&journal->spare_count, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&journal->disk_bytes, journal->options.segment_bytes,
                                  memory_order_relaxed);
    }
    while ((link = list_take_first(&kept)) != NULL) {
        list_push_back(&committer->spares, link);
    }
}

void journal_committer_look(struct journal *journal, uint64_t now_ns)
{
    struct journal_committer *committer = &journal->committer;
    bool is_old = committer->held_ns != 0 &&
                  now_ns - committer->held_ns >= JOURNAL_SEGMENT_AGE_NS &&
                  !atomic_load_explicit(&journal->room.is_short, memory_order_relaxed);
    committer_drop_spares(journal, now_ns, is_old);
    if (is_old) {
        (void)committer_move_on(journal, now_ns); /* it was logged, and is tried again */
    }
}

/* --- one commit ----------------------------------------------------------------------------- */

/* Takes batches from the pending ones, at least one, as many as fit. */
static void committer_gather(struct journal *journal, struct committer_commit *commit)
{
    struct journal_committer *committer = &journal->committer;
    struct journal_batch_list taken;
    uint64_t limit = journal->options.segment_bytes - JOURNAL_SEGMENT_HEAD_BYTES;
    limit = limit < LIMIT_COMMIT_BYTES ? limit : LIMIT_COMMIT_BYTES;
    journal_batch_list_init(&taken);
    while (committer->pending.first != NULL && commit->batch_count < COMMITTER_BATCHES_MAX) {
        struct journal_batch *batch = committer->pending.first;
        if (JOURNAL_COMMIT_HEAD_BYTES + commit->bytes + batch->size > limit) {
            break;
        }
        journal_batch_list_push(&taken, journal_batch_list_take(&committer->pending));
        commit->parts[1 + commit->batch_count] = (struct iovec){batch->bytes, batch->size};
        commit->batch_count++;
        commit->bytes += batch->size;
    }
    assert(commit->batch_count > 0);
    commit->first = taken.first;
    commit->size = journal_align(JOURNAL_COMMIT_HEAD_BYTES + commit->bytes, JOURNAL_PAGE_BYTES);
}

/* Position and checksum of each frame, and the commit's head. Needs the segment. */
static void committer_seal(struct journal *journal, struct committer_commit *commit)
{
    struct journal_committer *committer = &journal->committer;
    const struct journal_segment *segment = &committer->segment;
    uint64_t position = committer->next_position;
    commit->first_position = position;
    commit->frame_count = 0;
    commit->record_count = 0;
    for (struct journal_batch *batch = commit->first; batch != NULL; batch = batch->next) {
        uint64_t records = 0;
        batch->first_position = position;
        for (size_t offset = 0; offset < batch->size;) {
            struct journal_frame frame;
            journal_frame_peek(batch->bytes + offset, &frame);
            journal_frame_seal(batch->bytes + offset, position++, segment->head.salt);
            records += frame.record_count;
            offset += frame.bytes;
        }
        assert(position - batch->first_position == batch->frame_count);
        commit->record_count += records;
    }
    commit->frame_count = (uint32_t)(position - commit->first_position);
    commit->wall_ms = clock_wall_ms();
    struct journal_commit_head head = {
        .bytes = (uint32_t)commit->bytes,
        .frame_count = commit->frame_count,
        .first_position = commit->first_position,
        .durable_before = atomic_load_explicit(&journal->durable_position, memory_order_relaxed),
        .wall_ms = commit->wall_ms,
    };
    journal_commit_head_encode(&head, segment->head.salt, segment->offset, commit->head);
    uint64_t padding = commit->size - JOURNAL_COMMIT_HEAD_BYTES - commit->bytes;
    commit->parts[0] = (struct iovec){commit->head, JOURNAL_COMMIT_HEAD_BYTES};
    commit->parts[1 + commit->batch_count] = (struct iovec){committer->padding, (size_t)padding};
    commit->part_count = (int)commit->batch_count + (padding == 0 ? 1 : 2);
}

/* Uploads whose end record is durable get their final names before anybody hears of it. */
static void committer_settle_uploads(struct journal *journal, const struct committer_commit *commit)
{
    const struct journal *of = journal->options.spool_of;
    const struct journal_slots *slots = of == NULL ? &journal->slots : &of->slots;
    /* Relaxed: the end record that it then has came by mail, after its upload was counted. */
    if (atomic_load_explicit(&slots->active, memory_order_relaxed) == 0) {
        return;
    }
    for (struct journal_batch *batch = commit->first; batch != NULL; batch = batch->next) {
        for (size_t offset = 0; offset < batch->size;) {
            struct journal_frame frame;
            journal_frame_peek(batch->bytes + offset, &frame);
            if (frame.form == RECORD_FORM_UPLOAD_END) {
                (void)journal_upload_settle(journal, &frame); /* it keeps the segments */
            }
            offset += frame.bytes;
        }
    }
}

static void committer_publish(struct journal *journal, const struct committer_commit *commit)
{
    struct journal_committer *committer = &journal->committer;
    committer_settle_uploads(journal, commit);
    committer->next_position += commit->frame_count;
    journal_room_durable(&journal->room, commit->record_count, commit->wall_ms);
    atomic_store_explicit(&journal->durable_offset, committer->segment.offset,
                          memory_order_release);
    atomic_store_explicit(&journal->durable_position, committer->next_position - 1,
                          memory_order_release);
    journal_wake_subscribers(journal);
}

/* Each producer hears of all its batches by one mail. */
static void committer_answer(struct journal_batch *first, enum err err)
{
    struct journal_producer *producers[COMMITTER_BATCHES_MAX];
    uint32_t count = 0;
    while (first != NULL) {
        struct journal_batch *batch = first;
        struct journal_producer *producer = batch->producer;
        first = batch->next;
        batch->err = err;
        batch->after = NULL;
        if (producer->answers_first == NULL) {
            producer->answers_first = batch;
            producers[count++] = producer;
        } else {
            producer->answers_last->after = batch;
        }
        producer->answers_last = batch;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct journal_batch *batch = producers[i]->answers_first;
        producers[i]->answers_first = NULL;
        producers[i]->answers_last = NULL;
        journal_batch_return(batch);
    }
}

static void committer_commit(struct journal *journal)
{
    struct committer_commit commit = {0};
    uint64_t start_ns = clock_mono_ns();
    committer_gather(journal, &commit);
    enum err err = committer_make_room(journal, commit.size, start_ns);
    if (err == ERR_OK) {
        committer_seal(journal, &commit);
        err = journal_segment_commit(&journal->committer.segment, commit.parts, commit.part_count,
                                     commit.size);
        if (err != ERR_OK) {
            committer_give_up_segment(journal, err);
        }
    }
    uint64_t end_ns = clock_mono_ns();
    if (err == ERR_OK) {
        committer_publish(journal, &commit);
        if (journal->committer.held_ns == 0) {
            journal->committer.held_ns = end_ns;
        }
        metrics_add(METRIC_JOURNAL_COMMITS, 1);
        metrics_observe(METRIC_JOURNAL_COMMIT_SECONDS, end_ns - start_ns);
        metrics_observe(METRIC_JOURNAL_COMMIT_RECORDS, commit.frame_count);
    }
    committer_answer(commit.first, err);
    journal_committer_sample_space(journal, end_ns);
}

bool journal_committer_step(struct journal *journal)
{
    bool has_done = mailbox_run_all(journal->committer_mailbox) > 0;
    if (journal->committer.pending.first != NULL) {
        committer_commit(journal);
        has_done = true;
    }
    return has_done;
}

void journal_committer_finish(struct journal *journal)
{
    struct committer_commit commit = {.size = JOURNAL_PAGE_BYTES};
    struct journal_committer *committer = &journal->committer;
    struct journal_commit_head head = {
        .flags = JOURNAL_COMMIT_CLOSES,
        .first_position = committer->next_position,
        .durable_before = atomic_load_explicit(&journal->durable_position, memory_order_relaxed),
        .wall_ms = clock_wall_ms(),
    };
    enum err err = committer_make_room(journal, commit.size, clock_mono_ns());
    if (err == ERR_OK) {
        struct journal_segment *segment = &committer->segment;
        journal_commit_head_encode(&head, segment->head.salt, segment->offset, commit.head);
        commit.parts[0] = (struct iovec){commit.head, JOURNAL_COMMIT_HEAD_BYTES};
        commit.parts[1] =
            (struct iovec){committer->padding, JOURNAL_PAGE_BYTES - JOURNAL_COMMIT_HEAD_BYTES};
        err = journal_segment_commit(segment, commit.parts, 2, commit.size);
    }
    if (err != ERR_OK) { /* costs a longer look at the next start, nothing else */
        log_write(LOG_WARN, "journal", "closing frame: %s", err_text(err));
    }
    journal_segment_close(&committer->segment);
}

static int committer_wait_ms(const struct journal *journal, bool is_short)
{
    const struct journal_committer *committer = &journal->committer;
    bool grows_old = committer->held_ns != 0 || !list_is_empty(&committer->spares);
    return is_short ? (int)(COMMITTER_SAMPLE_NS / 1000000u) : (grows_old ? COMMITTER_LOOK_MS : -1);
}

void journal_local_commit(struct journal *journal)
{
    bool is_closed = false;
    while (!is_closed) {
        bool is_short = atomic_load_explicit(&journal->room.is_short, memory_order_relaxed);
        mailbox_wait(journal->committer_mailbox, committer_wait_ms(journal, is_short));
        /* Before the mail is taken: what was posted before closing is then in it. */
        is_closed = mailbox_is_closed(journal->committer_mailbox);
        while (journal_committer_step(journal)) {
        }
        if (is_short) {
            journal_committer_sample_space(journal, clock_mono_ns());
        }
        if (!is_closed) {
            journal_committer_look(journal, clock_mono_ns());
        }
    }
    journal_committer_finish(journal);
}

void journal_committer_discard(struct journal *journal)
{
    struct journal_committer *committer = &journal->committer;
    while (!list_is_empty(&committer->spares)) {
        (void)committer_take_spare(journal); /* the file stays, for the next run */
    }
    journal_segment_close(&committer->segment);
    mem_free(committer->padding);
    committer->padding = NULL;
}
