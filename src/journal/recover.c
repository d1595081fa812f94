/* Recover: what the segments hold, decided without a human.
 *
 * Segments are read in order of their sequence. What counts in each lies below the first position
 * of every newer one. Positions follow each other, so what is missing is known exactly:
 *
 *   - bytes that do not verify, with something good behind them, are damage;
 *   - a segment that ends before the position that its successor was opened after has lost its end:
 *     damage too;
 *   - in the newest segment, what the last commit head claims behind the last good frame, or what
 *     is not zero there in a file that held zeros, is a torn tail: nobody was told that it is safe;
 *   - when the first segment begins behind what the store has applied, the store is an older copy.
 *
 * Damage is copied to quarantine/, counted and named; reading passes over it. Tails are cut simply
 * by opening a new segment, whose first position voids them.
 *
 * Only segments that hold positions above the applied one are read, and the newest. When there are
 * uploads without a final name, also those that may hold their end records.
 *
 * Happy path: one pass; the backlog per org, the next position and the uploads are settled.
 * Failure modes: a segment whose head is lost is damage as a whole. Another version, or a disk that
 * cannot be read at all: refused, since going on would call good data lost. */
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/sys.h"
#include "journal/internal.h"
#include "journal/scan.h"
#include "journal/upload_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

struct recovery {
    struct journal *journal;
    struct journal_files files;
    struct journal_pending_uploads uploads;
    struct journal_from applied;
    uint64_t applied_least;
    uint64_t applied_highest;
    uint64_t from;     /* frames above this are looked at */
    uint64_t expected; /* next position; 0: any */
    uint64_t highest;  /* good frame */
    uint64_t durable;  /* highest that some head calls durable */
    uint64_t damaged_places;
    uint64_t missing; /* frames */
    bool has_id;
};

struct recovery_segment {
    const struct journal_file *file;
    struct journal_segment_head head;
    char path[JOURNAL_PATH_BYTES];
    int fd;
    bool is_newest;
    bool is_clean;        /* it ends with a closing commit */
    uint64_t limit;       /* no byte from here on is looked at */
    uint64_t claimed_end; /* of the last commit */
};

static void recover_damage(struct recovery *recovery, const struct recovery_segment *segment,
                           uint64_t offset, uint64_t size)
{
    recovery->journal->state.damaged_bytes += size;
    recovery->damaged_places++;
    (void)journal_quarantine_segment(recovery->journal, segment->file, segment->fd, offset, size);
}

/* Positions [from, to) are not there. */
static void recover_missing(struct recovery *recovery, uint64_t from, uint64_t to)
{
    from = from > recovery->applied_least ? from : recovery->applied_least + 1;
    if (from < to) {
        recovery->missing += to - from;
        log_write(LOG_ERROR, "journal", "frames %" PRIu64 " to %" PRIu64 " are damaged", from,
                  to - 1);
    }
}

/* --- one segment -------------------------------------------------------------------------------
 */

/* Whether apply will credit it: one of several lanes is counted with lane 0. */
static bool recover_is_unapplied(const struct recovery *recovery, const struct journal_frame *frame)
{
    uint8_t lane = frame->lane < LIMIT_LANES ? frame->lane : 0;
    return frame->position > recovery->applied.after[lane];
}

/* Whether lane 0 has passed it and another of its lanes may not have. An upload's end record is
 * lane 0's alone. */
static bool recover_is_early(const struct recovery *recovery, const struct journal_frame *frame)
{
    return frame->lane >= LIMIT_LANES && frame->form != RECORD_FORM_UPLOAD_END &&
           frame->position > recovery->applied_least;
}

static void recover_frame(struct recovery *recovery, const struct journal_frame *frame)
{
    struct journal *journal = recovery->journal;
    if (recovery->expected != 0 && frame->position > recovery->expected) {
        recover_missing(recovery, recovery->expected, frame->position);
    }
    recovery->expected = frame->position + 1;
    recovery->highest = frame->position;
    struct record_frame record;
    struct record_upload_end end;
    bool is_end = frame->form == RECORD_FORM_UPLOAD_END &&
                  record_frame_decode(frame->bytes_slice, &record) == ERR_OK &&
                  record_upload_end_decode(record.body, &end) == ERR_OK;
    if (is_end) {
        journal_pending_uploads_mark(&recovery->uploads, end.upload);
    }
    if (recover_is_unapplied(recovery, frame) && journal->options.spool_of != NULL) {
        journal_nats_spool_found(journal->options.spool_of, frame);
    } else if (recover_is_unapplied(recovery, frame)) {
        journal_room_force(&journal->room, frame->org, frame->bytes);
        journal_room_durable(&journal->room, frame->record_count, 0);
        if (is_end) {
            journal_room_force(&journal->room, frame->org, end.stored_bytes);
            journal_slots_force(&journal->slots, frame->org);
        }
    } else if (recover_is_early(recovery, frame)) {
        journal_room_force_early(&journal->room, frame->org, frame->bytes, frame->record_count,
                                 frame->position);
    }
}

/* What the segment should hold up to `durable` (a position below its end) and does not. */
static void recover_check_end(struct recovery *recovery, const struct recovery_segment *segment,
                              uint64_t durable, uint64_t offset)
{
    if (recovery->expected == 0 || durable < recovery->expected) {
        return;
    }
    recover_missing(recovery, recovery->expected, durable + 1);
    if (durable > recovery->applied_least) {
        uint64_t end =
            segment->claimed_end > offset ? segment->claimed_end : offset + JOURNAL_PAGE_BYTES;
        recover_damage(recovery, segment, offset, end - offset);
    }
    recovery->expected = durable + 1;
}

static void recover_commit(struct recovery *recovery, struct recovery_segment *segment,
                           const struct journal_scan_item *item)
{
    segment->claimed_end = item->offset + item->size + item->commit.bytes;
    if (item->commit.durable_before > recovery->durable) {
        recovery->durable = item->commit.durable_before;
    }
    segment->is_clean = (item->commit.flags & JOURNAL_COMMIT_CLOSES) != 0;
    if (segment->is_clean) { /* nothing comes after it: only its own page is looked at */
        segment->limit = journal_align(segment->claimed_end, JOURNAL_PAGE_BYTES);
    }
}

static enum err recover_tail(struct recovery *recovery, struct recovery_segment *segment,
                             struct journal_scan *scan, const struct journal_scan_item *tail)
{
    uint64_t torn = tail->size; /* of a closing commit's own page: it was not synced */
    enum err err = ERR_OK;
    if (!segment->is_newest) {
        return ERR_OK;
    }
    if (!segment->is_clean) {
        err = journal_scan_torn(scan, &segment->head, segment->claimed_end, tail, &torn);
    }
    segment->is_clean = false;
    if (err == ERR_OK) {
        recovery->journal->state.torn_bytes = torn;
    }
    return err;
}

static enum err recover_scan(struct recovery *recovery, struct recovery_segment *segment,
                             uint64_t void_position, uint64_t durable_after)
{
    struct journal_scan scan;
    struct journal_scan_item item = {.kind = JOURNAL_SCAN_BAD};
    uint64_t good_end = JOURNAL_SEGMENT_HEAD_BYTES;
    enum err err = ERR_OK;
    segment->limit = segment->file->size;
    journal_scan_init(&scan, segment->fd, &segment->head, void_position);
    while (err == ERR_OK && item.kind != JOURNAL_SCAN_END) {
        err = journal_scan_next(&scan, segment->limit, &item);
        if (err != ERR_OK) {
            break;
        }
        if (item.kind == JOURNAL_SCAN_COMMIT) {
            recover_commit(recovery, segment, &item);
            good_end = item.offset + item.size;
        } else if (item.kind == JOURNAL_SCAN_FRAME) {
            recover_frame(recovery, &item.frame);
            good_end = item.offset + item.size;
        } else if (item.kind == JOURNAL_SCAN_BAD) {
            recover_damage(recovery, segment, item.offset, item.size);
        } else if (item.kind == JOURNAL_SCAN_TAIL) {
            err = recover_tail(recovery, segment, &scan, &item);
        }
    }
    journal_scan_finish(&scan);
    if (segment->is_newest) {
        recovery->journal->state.clean = segment->is_clean;
        durable_after = recovery->durable;
    }
    if (err == ERR_OK) {
        recover_check_end(recovery, segment, durable_after, good_end);
    }
    return err;
}

/* --- all of them --------------------------------------------------------------------------------
 */

/* Durable position when the next readable segment was opened; 0: not known. */
static uint64_t recover_durable_after(const struct recovery *recovery, uint32_t i)
{
    uint64_t durable = 0;
    if (i + 1 < recovery->files.segment_count) {
        struct journal_segment_head head;
        char path[JOURNAL_PATH_BYTES];
        uint32_t bad_bytes;
        int fd = -1;
        journal_file_path(path, recovery->journal->directory, &recovery->files.rows[i + 1]);
        if (journal_segment_open_read(path, &fd, &head, &bad_bytes) == ERR_OK) {
            durable = head.durable_before;
            (void)sys_close(fd); /* only read */
        }
    }
    return durable;
}

static void recover_take_head(struct recovery *recovery, const struct journal_segment_head *head)
{
    struct journal_state *state = &recovery->journal->state;
    uint64_t first = head->first_position;
    state->id = head->journal;
    state->base = head->base;
    recovery->has_id = true;
    if (recovery->expected != 0 && recovery->expected < first &&
        recovery->expected <= head->durable_before) {
        recover_missing(recovery, recovery->expected,
                        first <= head->durable_before ? first : head->durable_before + 1);
    }
    recovery->expected = recovery->expected < first ? first : recovery->expected;
    recovery->durable =
        recovery->durable < head->durable_before ? head->durable_before : recovery->durable;
}

/* What was let go is in the store that it was let go for. One that has not applied it is an older
 * copy, or another; what only the lost frames named (raw bodies) must not go as well, now or later.
 */
static void recover_check_begin(struct recovery *recovery, const struct journal_segment_head *head)
{
    struct journal *journal = recovery->journal;
    uint64_t from = recovery->applied_least + 1;
    uint64_t to = head->durable_before + 1;
    to = head->first_position < to ? head->first_position : to;
    if (from >= to || journal->options.spool_of != NULL) {
        return; /* a spool's begin says nothing: what it lets go is in the stream */
    }
    recovery->missing += to - from;
    log_write(LOG_ERROR, "journal",
              "frames %" PRIu64 " to %" PRIu64 " were applied and let go, and the store does not "
              "have them: it is an older copy; bring the newer one back",
              from, to - 1);
    metrics_add(METRIC_JOURNAL_DROPPED, to - from);
    journal_quarantine_message(journal, from, (struct slice){NULL, 0});
}

/* A segment whose head is lost keeps its place, and its first position, by its name. */
static void recover_lost_segment(struct recovery *recovery, struct recovery_segment *segment)
{
    log_write(LOG_ERROR, "journal", "%s: its head is damaged, all of it is passed over",
              segment->path);
    segment->fd = sys_open(segment->path, O_RDONLY | O_CLOEXEC, 0);
    recover_damage(recovery, segment, 0, segment->file->size);
}

static enum err recover_segment(struct recovery *recovery, uint32_t i, struct err_detail *detail)
{
    struct recovery_segment segment = {.file = &recovery->files.rows[i], .fd = -1};
    uint64_t void_position = journal_files_void_position(&recovery->files, i);
    uint32_t bad_bytes = 0;
    segment.is_newest = i + 1 == recovery->files.segment_count;
    bool is_wanted = segment.is_newest || void_position > recovery->from + 1;
    journal_file_path(segment.path, recovery->journal->directory, segment.file);
    enum err err = journal_segment_open_read(segment.path, &segment.fd, &segment.head, &bad_bytes);
    if (err == ERR_CORRUPT) {
        err = ERR_OK;
        if (is_wanted) {
            recover_lost_segment(recovery, &segment);
        }
    } else if (err == ERR_OK && !is_wanted) {
        recovery->journal->state.id = segment.head.journal;
        recovery->has_id = true;
    } else if (err == ERR_OK) {
        if (bad_bytes > 0) {
            recover_damage(recovery, &segment, 0, bad_bytes);
        }
        if (i == 0) {
            recover_check_begin(recovery, &segment.head);
        }
        recover_take_head(recovery, &segment.head);
        err = recover_scan(recovery, &segment, void_position, recover_durable_after(recovery, i));
    }
    if (err != ERR_OK) {
        err_detail_set(detail, "read %s: %s", segment.path, err_text(err));
    }
    if (segment.fd >= 0) {
        (void)sys_close(segment.fd); /* only read */
    }
    return err;
}

static void recover_settle(struct recovery *recovery)
{
    struct journal *journal = recovery->journal;
    struct journal_state *state = &journal->state;
    uint64_t highest = recovery->highest;
    highest = recovery->durable > highest ? recovery->durable : highest;
    state->is_new = !recovery->has_id;
    state->last_position = recovery->highest;
    if (state->is_new) {
        hash_random(state->id.bytes, sizeof(state->id.bytes));
        state->clean = true;
    }
    /* A store that is ahead has positions that must not be given again. */
    journal->committer.next_position =
        1 + (recovery->applied_highest > highest ? recovery->applied_highest : highest);
    journal->committer.next_sequence = 1;
    if (recovery->files.segment_count > 0) {
        journal->committer.next_sequence =
            recovery->files.rows[recovery->files.segment_count - 1].number + 1;
    }
    journal->recovered_position = highest;
    if (recovery->missing > 0) {
        atomic_store_explicit(&journal->has_damage, true, memory_order_relaxed);
    }
    atomic_store_explicit(&journal->durable_position, highest, memory_order_release);
    metrics_add(METRIC_JOURNAL_TORN, state->torn_bytes > 0);
    metrics_add(METRIC_JOURNAL_DAMAGED, state->damaged_bytes);
    if (state->torn_bytes > 0 || state->damaged_bytes > 0) {
        log_write(LOG_WARN, "journal",
                  "%" PRIu64 " torn bytes cut; %" PRIu64 " damaged bytes in %" PRIu64
                  " places, %" PRIu64 " frames missing",
                  state->torn_bytes, state->damaged_bytes, recovery->damaged_places,
                  recovery->missing);
    }
}

enum err journal_recover(struct journal *journal, const struct journal_from *applied,
                         struct err_detail *detail)
{
    struct recovery recovery = {
        .journal = journal, .applied = *applied, .applied_least = journal_from_least(applied)};
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        if (applied->after[i] > recovery.applied_highest) {
            recovery.applied_highest = applied->after[i];
        }
    }
    enum err err = journal_files_list(&recovery.files, journal->directory);
    if (err != ERR_OK) {
        err_detail_set(detail, "list %s: %s", journal->directory, err_text(err));
        return err;
    }
    err = journal_pending_uploads_list(&recovery.uploads, journal, detail);
    recovery.from = recovery.applied_least;
    if (recovery.uploads.least_position < recovery.from) {
        recovery.from = recovery.uploads.least_position;
    }
    for (uint32_t i = 0; i < recovery.files.segment_count && err == ERR_OK; i++) {
        err = recover_segment(&recovery, i, detail);
    }
    if (err == ERR_OK) {
        recover_settle(&recovery);
        journal_pending_uploads_settle(&recovery.uploads, journal);
        journal_preparer_init(journal, &recovery.files);
    }
    journal_pending_uploads_finish(&recovery.uploads);
    journal_files_finish(&recovery.files);
    return err;
}
