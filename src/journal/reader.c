/* Reader: what is durable, in order of position.
 *
 * A reader has its own handle on the segment it is in and asks the committer nothing: three numbers
 * tell it how far it may look.
 *
 *   in the active segment: up to the durable offset, which is the end of the last commit
 *   in an older one: to its end, but not to positions that a newer segment begins with or before
 *
 * Happy path: frames out of one pread of what is there; at the end of an older segment, the next
 * one by sequence is found by listing the directory, once per segment.
 *
 * Failure modes: bad bytes are passed over and go to quarantine, unless recovery has put them
 * there. So does a page where a segment ends before what was durable when the next one began. A
 * segment that is gone was released: reading goes on with the oldest that is there. A file that was
 * recycled under the reader has another salt, so nothing in it verifies, and it ends. */
#include "base/mem.h"
#include "base/metrics.h"
#include "base/sys.h"
#include "journal/backend.h"
#include "journal/scan.h"

#include <assert.h>
#include <errno.h>

struct local_reader {
    struct journal_reader base;
    uint64_t after; /* frames at or below this are passed over */
    int fd;         /* -1: in no segment yet */
    struct journal_segment_head head;
    uint64_t size;     /* of the file */
    uint64_t good_end; /* of the last thing in it that verified */
    bool is_limited;   /* it is not the newest any more: its void position is known */
    struct journal_scan scan;
};

static struct local_reader *local_reader_of(struct journal_reader *reader)
{
    return LIST_CONTAINER(reader, struct local_reader, base);
}

enum err journal_local_reader_open(struct journal_reader **ret, struct journal *journal,
                                   uint64_t after_position)
{
    struct local_reader *reader = mem_alloc(sizeof(*reader));
    reader->base.journal = journal;
    reader->after = after_position;
    reader->fd = -1;
    *ret = &reader->base;
    return ERR_OK;
}

static void reader_leave_segment(struct local_reader *reader)
{
    if (reader->fd >= 0) {
        (void)sys_close(reader->fd); /* only read */
        journal_scan_finish(&reader->scan);
    }
    reader->fd = -1;
}

void journal_local_reader_close(struct journal_reader *base)
{
    struct local_reader *reader = local_reader_of(base);
    reader_leave_segment(reader);
    mem_free(reader);
}

/* Passed over: it may have been applied before, but nothing tells. */
static void reader_damage(struct local_reader *reader, uint64_t offset, uint64_t size)
{
    struct journal_file segment = {.kind = JOURNAL_FILE_SEGMENT,
                                   .number = reader->head.sequence,
                                   .first_position = reader->head.first_position};
    if (journal_quarantine_segment(reader->base.journal, &segment, reader->fd, offset, size)) {
        metrics_add(METRIC_JOURNAL_DAMAGED, size);
    }
}

static enum err reader_enter(struct local_reader *reader, const struct journal_file *file)
{
    char path[JOURNAL_PATH_BYTES];
    uint32_t bad_bytes;
    int fd = -1;
    struct journal_segment_head head;
    journal_file_path(path, reader->base.journal->directory, file);
    enum err err = journal_segment_open_read(path, &fd, &head, &bad_bytes);
    if (err != ERR_OK) {
        return err;
    }
    if (reader->fd >= 0 && reader->after < head.durable_before) { /* the end of this one is lost */
        reader_damage(reader, reader->good_end, JOURNAL_PAGE_BYTES);
    }
    reader_leave_segment(reader);
    reader->fd = fd;
    reader->head = head;
    reader->size = file->size;
    reader->good_end = JOURNAL_SEGMENT_HEAD_BYTES;
    reader->is_limited = false;
    journal_scan_init(&reader->scan, fd, &head, UINT64_MAX);
    return ERR_OK;
}

/* Whether segment `i` may hold something above `after`, given that its successor begins later. */
static bool reader_wants(const struct journal_files *files, uint32_t i, uint64_t after,
                         uint64_t active)
{
    if (files->rows[i].number > active) {
        return false;
    }
    for (uint32_t k = i + 1; k < files->segment_count && files->rows[k].number <= active; k++) {
        if (files->rows[k].first_position <= after + 1) {
            return false;
        }
    }
    return true;
}

/* Goes to the next readable segment after the one it is in; stays when there is none. */
static enum err reader_advance(struct local_reader *reader, bool *ret_has_moved)
{
    struct journal_files files;
    /* A segment has its name before it is the active one: who went in between would take its zeros
     * for the end of an old one. */
    uint64_t active =
        atomic_load_explicit(&reader->base.journal->active_sequence, memory_order_acquire);
    uint64_t sequence = reader->fd < 0 ? 0 : reader->head.sequence;
    enum err err = journal_files_list(&files, reader->base.journal->directory);
    if (err != ERR_OK) {
        return err;
    }
    *ret_has_moved = false;
    for (uint32_t i = 0; i < files.segment_count && !*ret_has_moved && err == ERR_OK; i++) {
        if (files.rows[i].number <= sequence || !reader_wants(&files, i, reader->after, active)) {
            continue;
        }
        err = reader_enter(reader, &files.rows[i]);
        *ret_has_moved = err == ERR_OK;
        if (err == ERR_CORRUPT || err == ERR_NOT_FOUND) {
            err = ERR_OK; /* its head is lost, or it was released meanwhile */
        }
    }
    journal_files_finish(&files);
    return err;
}

/* A newer segment exists: from its first position on, nothing here counts. */
static enum err reader_limit(struct local_reader *reader)
{
    struct journal_files files;
    enum err err = journal_files_list(&files, reader->base.journal->directory);
    if (err != ERR_OK) {
        return err;
    }
    for (uint32_t i = 0; i < files.segment_count; i++) {
        const struct journal_file *file = &files.rows[i];
        if (file->number > reader->head.sequence &&
            file->first_position < reader->scan.void_position) {
            reader->scan.void_position = file->first_position;
        }
    }
    journal_files_finish(&files);
    reader->is_limited = true;
    return ERR_OK;
}

/* How far may be looked now. Sequences only grow, so when the active one is ours before and after
 * the offset was loaded, the offset is ours. */
static enum err reader_find_limit(struct local_reader *reader, uint64_t *ret_limit)
{
    struct journal *journal = reader->base.journal;
    uint64_t active = atomic_load_explicit(&journal->active_sequence, memory_order_acquire);
    uint64_t offset = atomic_load_explicit(&journal->durable_offset, memory_order_acquire);
    uint64_t again = atomic_load_explicit(&journal->active_sequence, memory_order_acquire);
    enum err err = ERR_OK;
    if (active == reader->head.sequence && again == active) {
        *ret_limit = offset;
        return ERR_OK;
    }
    if (!reader->is_limited) {
        err = reader_limit(reader);
    }
    *ret_limit = reader->size;
    return err;
}

/* One item of the segment; *ret_has when it is a frame that is wanted, *ret_is_over at its end. */
static enum err reader_step(struct local_reader *reader, struct journal_frame *ret, bool *ret_has,
                            bool *ret_is_over)
{
    struct journal_scan_item item;
    uint64_t limit = 0;
    enum err err = reader_find_limit(reader, &limit);
    if (err == ERR_OK) {
        err = journal_scan_next(&reader->scan, limit, &item);
    }
    if (err != ERR_OK) {
        return err;
    }
    /* All below the durable offset was written, so there is no tail in the newest segment. */
    if (item.kind == JOURNAL_SCAN_BAD || (item.kind == JOURNAL_SCAN_TAIL && !reader->is_limited)) {
        reader_damage(reader, item.offset, item.size);
    } else if (item.kind == JOURNAL_SCAN_COMMIT || item.kind == JOURNAL_SCAN_FRAME) {
        reader->good_end = item.offset + item.size;
    }
    *ret_is_over = item.kind == JOURNAL_SCAN_END;
    *ret_has = item.kind == JOURNAL_SCAN_FRAME && item.frame.position > reader->after;
    if (*ret_has) {
        *ret = item.frame;
        reader->after = item.frame.position;
    }
    return ERR_OK;
}

enum err journal_local_reader_next(struct journal_reader *base, struct journal_frame *ret,
                                   bool *ret_has)
{
    struct local_reader *reader = local_reader_of(base);
    bool has = false;
    bool has_moved = true;
    enum err err = ERR_OK;
    if (reader->fd < 0) {
        err = reader_advance(reader, &has_moved);
    }
    while (err == ERR_OK && has_moved && !has) {
        bool is_over = false;
        uint64_t active =
            atomic_load_explicit(&reader->base.journal->active_sequence, memory_order_acquire);
        err = reader_step(reader, ret, &has, &is_over);
        /* Looked at before the step: an end seen in what was active then is only an end for now. */
        if (err == ERR_OK && is_over) {
            has_moved = false;
            if (active != reader->head.sequence && reader->is_limited) {
                err = reader_advance(reader, &has_moved);
            }
        }
    }
    if (err != ERR_OK) {
        return err;
    }
    *ret_has = has;
    return ERR_OK;
}
