/* Backup: copies what is above a position out of a journal that may be in use.
 *
 * The copy is new segments of the same journal: only the frames that are wanted, each verified
 * with the salt of its segment and sealed with a new one. So it is as small as it can be, and
 * damage does not travel.
 *
 * The pin is a lock on the directory itself, so that nothing has to be written for it, by whichever
 * user. Whoever lets segments go takes it first, and lets nothing go while it cannot. A lock that
 * is taken just after a segment went does no harm: what went was applied before, so it is in every
 * copy of the store that is begun later.
 *
 * Happy path: the store was copied with cursor `after`; the server named a durable position
 * `until`; every segment that holds something in between is scanned once, in order.
 * Failure modes: bytes that do not verify are passed over and their frames counted as missing. A
 * gap that a restore made, where positions jump, begins a new segment in the copy too. The disk of
 * the copy is full, a file cannot be read: the error, and the copy is good for nothing. */
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/sys.h"
#include "journal/scan.h"
#include "journal/upload_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define COPY_COMMIT_BYTES                                                                          \
    (1024u * UINT64_C(1024))                       /* a commit is written when it has grown to it  \
                                                    */
#define COPY_BUFFER_BYTES (2048u * UINT64_C(1024)) /* that, a largest frame and a page */

static_assert(LIMIT_FRAME_BYTES + 2 * JOURNAL_PAGE_BYTES <= COPY_BUFFER_BYTES - COPY_COMMIT_BYTES,
              "a frame fits behind a commit that is nearly full");

/* --- the pin ------------------------------------------------------------------------------------
 */

enum err journal_pin(const char *directory, int *ret_fd)
{
    int fd = sys_open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    if (sys_lock(fd) != 0) {
        (void)sys_close(fd); /* only locked */
        return ERR_BUSY;
    }
    *ret_fd = fd;
    return ERR_OK;
}

void journal_unpin(int fd)
{
    if (fd >= 0) {
        (void)sys_close(fd); /* only locked */
    }
}

bool journal_is_pinned(const struct journal *journal)
{
    int fd = -1;
    enum err err = journal_pin(journal->directory, &fd);
    journal_unpin(fd);
    return err != ERR_OK;
}

void journal_upload_name(char to[JOURNAL_UPLOAD_NAME_BYTES], struct id upload)
{
    char text[ID_TEXT_BYTES];
    id_format(upload, text);
    (void)snprintf(to, JOURNAL_UPLOAD_NAME_BYTES, "%.*s.up", ID_TEXT_BYTES, text);
}

/* --- writing ------------------------------------------------------------------------------------
 */

struct copying {
    const struct journal_copy *copy;
    struct journal_copied done;
    struct journal_files files;
    struct journal_segment_head head; /* of the segment that is written */
    int fd;                           /* -1: none is */
    uint64_t offset;
    uint8_t *commit; /* its head, and its frames */
    size_t commit_bytes;
    uint32_t commit_frames;
    uint64_t commit_first;
    uint64_t expected; /* the next position; 0: any */
    bool is_over;
};

static enum err write_at(int fd, const uint8_t *from, size_t size, uint64_t offset)
{
    ssize_t written = sys_pwrite(fd, from, size, (off_t)offset);
    if (written != (ssize_t)size) {
        return written < 0 ? err_from_errno(errno) : ERR_NO_SPACE;
    }
    (void)sys_write_back(fd, (off_t)offset, (off_t)size); /* a hint: the sync has less left */
    return ERR_OK;
}

static void temporary_path(char to[JOURNAL_PATH_BYTES], const struct copying *c)
{
    (void)snprintf(to, JOURNAL_PATH_BYTES, "%s/copy.tmp", c->copy->to);
}

static enum err segment_begin(struct copying *c, uint64_t first_position)
{
    char path[JOURNAL_PATH_BYTES];
    temporary_path(path, c);
    c->fd = sys_open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (c->fd < 0) {
        return err_from_errno(errno);
    }
    hash_random(&c->head.salt, sizeof(c->head.salt));
    c->head.flags = JOURNAL_SEGMENT_WAS_ZERO;
    c->head.sequence++;
    c->head.first_position = first_position;
    c->head.durable_before = c->done.last_position;
    c->head.opened_ms = clock_wall_ms();
    c->offset = JOURNAL_SEGMENT_HEAD_BYTES;
    return ERR_OK;
}

static enum err commit_write(struct copying *c, uint32_t flags)
{
    struct journal_commit_head head = {
        .flags = flags,
        .bytes = (uint32_t)(c->commit_bytes - JOURNAL_COMMIT_HEAD_BYTES),
        .frame_count = c->commit_frames,
        .first_position = c->commit_frames > 0 ? c->commit_first : c->done.last_position + 1,
        .durable_before = c->commit_frames > 0 ? c->head.durable_before : c->done.last_position,
        .wall_ms = c->head.opened_ms,
    };
    size_t size = journal_align(c->commit_bytes, JOURNAL_PAGE_BYTES);
    memset(c->commit + c->commit_bytes, 0, size - c->commit_bytes);
    journal_commit_head_encode(&head, c->head.salt, c->offset, c->commit);
    enum err err = write_at(c->fd, c->commit, size, c->offset);
    c->offset += size;
    c->commit_bytes = JOURNAL_COMMIT_HEAD_BYTES;
    c->commit_frames = 0;
    return err;
}

/* Head and name come last. */
static enum err segment_end(struct copying *c, bool is_last)
{
    uint8_t page[JOURNAL_SEGMENT_HEAD_BYTES];
    char from[JOURNAL_PATH_BYTES];
    char to[JOURNAL_PATH_BYTES];
    struct journal_file file = {JOURNAL_FILE_SEGMENT, c->head.sequence, c->head.first_position, 0};
    enum err err = c->commit_frames > 0 ? commit_write(c, 0) : ERR_OK;
    if (err == ERR_OK && is_last) {
        err = commit_write(c, JOURNAL_COMMIT_CLOSES);
    }
    journal_segment_head_encode(&c->head, page);
    if (err == ERR_OK) {
        err = write_at(c->fd, page, sizeof(page), 0);
    }
    if (err == ERR_OK && sys_fdatasync(c->fd) != 0) {
        err = err_from_errno(errno);
    }
    (void)sys_close(c->fd); /* synced, or good for nothing */
    c->fd = -1;
    temporary_path(from, c);
    journal_file_path(to, c->copy->to, &file);
    if (err == ERR_OK && sys_rename(from, to) != 0) {
        err = err_from_errno(errno);
    }
    return err;
}

static enum err frame_tell(const struct copying *c, const struct journal_frame *frame)
{
    struct record_frame record;
    struct record_upload_end end;
    if (frame->form != RECORD_FORM_UPLOAD_END || c->copy->on_upload == NULL ||
        record_frame_decode(frame->bytes_slice, &record) != ERR_OK ||
        record_upload_end_decode(record.body, &end) != ERR_OK) {
        return ERR_OK;
    }
    return c->copy->on_upload(end.upload, c->copy->context);
}

static enum err frame_write(struct copying *c, const struct journal_frame *frame)
{
    const struct journal_frame_parts parts = {.org = frame->org,
                                              .lane = frame->lane,
                                              .form = frame->form,
                                              .record_count = frame->record_count,
                                              .body = frame->bytes_slice};
    enum err err = c->fd < 0 ? segment_begin(c, frame->position) : ERR_OK;
    if (err != ERR_OK) {
        return err;
    }
    uint8_t *to = c->commit + c->commit_bytes;
    journal_frame_encode(&parts, to);
    journal_frame_seal(to, frame->position, c->head.salt);
    c->commit_first = c->commit_frames == 0 ? frame->position : c->commit_first;
    c->commit_frames++;
    c->commit_bytes += journal_frame_size(frame->bytes_slice.size);
    c->done.frames++;
    c->done.last_position = frame->position;
    err = frame_tell(c, frame);
    if (err == ERR_OK && c->commit_bytes >= COPY_COMMIT_BYTES) {
        err = commit_write(c, 0);
    }
    return err;
}

/* --- reading ------------------------------------------------------------------------------------
 */

static void expect(struct copying *c, uint64_t position)
{
    if (c->expected != 0 && position > c->expected) {
        c->done.missing += position - c->expected;
    }
    c->expected = position;
}

static enum err take_frame(struct copying *c, const struct journal_frame *frame)
{
    const struct journal_copy *copy = c->copy;
    enum err err = ERR_OK;
    if (frame->position > copy->after && frame->position <= copy->until) {
        expect(c, frame->position);
        c->expected++;
        err = frame_write(c, frame);
        if (copy->on_progress != NULL) {
            uint64_t all = copy->until == UINT64_MAX ? 0 : copy->until - copy->after;
            copy->on_progress(frame->position - copy->after, all, copy->context);
        }
    }
    c->is_over = frame->position >= copy->until;
    return err;
}

static enum err take_scan(struct copying *c, uint32_t i, int fd,
                          const struct journal_segment_head *head)
{
    struct journal_scan scan;
    struct journal_scan_item item = {.kind = JOURNAL_SCAN_BAD};
    enum err err = ERR_OK;
    journal_scan_init(&scan, fd, head, journal_files_void_position(&c->files, i));
    while (err == ERR_OK && !c->is_over && item.kind != JOURNAL_SCAN_END) {
        err = journal_scan_next(&scan, c->files.rows[i].size, &item);
        bool is_closed = err == ERR_OK && item.kind == JOURNAL_SCAN_COMMIT &&
                         (item.commit.flags & JOURNAL_COMMIT_CLOSES) != 0;
        if (is_closed) {
            break; /* nothing comes after it */
        }
        if (err == ERR_OK && item.kind == JOURNAL_SCAN_FRAME) {
            err = take_frame(c, &item.frame);
        }
    }
    journal_scan_finish(&scan);
    return err;
}

/* What came before should lead up to what was durable when this segment was opened; what it then
 * skips was skipped on purpose. */
static enum err take_head(struct copying *c, const struct journal_segment_head *head)
{
    uint64_t first = head->first_position;
    if (c->expected == 0 || c->expected >= first) {
        return ERR_OK;
    }
    if (c->expected <= head->durable_before) {
        expect(c, first <= head->durable_before ? first : head->durable_before + 1);
    }
    bool is_jump = c->expected < first && c->fd >= 0;
    c->expected = first;
    return is_jump ? segment_end(c, false) : ERR_OK;
}

static enum err take_segment(struct copying *c, uint32_t i, struct err_detail *detail)
{
    struct journal_segment_head head;
    char path[JOURNAL_PATH_BYTES];
    uint32_t bad_bytes;
    int fd = -1;
    const struct journal_file *file = &c->files.rows[i];
    if (journal_files_void_position(&c->files, i) <= c->copy->after + 1 ||
        file->first_position > c->copy->until) {
        return ERR_OK;
    }
    journal_file_path(path, c->copy->from, file);
    enum err err = journal_segment_open_read(path, &fd, &head, &bad_bytes);
    if (err == ERR_CORRUPT) {
        return ERR_OK; /* its frames are missed at the next one */
    }
    if (err == ERR_OK) {
        err = take_head(c, &head);
    }
    if (err == ERR_OK) {
        err = take_scan(c, i, fd, &head);
    }
    if (err != ERR_OK) {
        err_detail_set(detail, "copy %s: %s", path, err_text(err));
    }
    if (fd >= 0) {
        (void)sys_close(fd); /* only read */
    }
    return err;
}

/* Head of the newest segment that has one. */
static enum err newest_head(const struct journal_files *files, const char *directory,
                            struct journal_segment_head *ret)
{
    enum err err = ERR_NOT_FOUND;
    for (uint32_t i = files->segment_count; i > 0 && err != ERR_OK; i--) {
        char path[JOURNAL_PATH_BYTES];
        uint32_t bad_bytes;
        int fd = -1;
        journal_file_path(path, directory, &files->rows[i - 1]);
        err = journal_segment_open_read(path, &fd, ret, &bad_bytes);
        if (err == ERR_OK) {
            (void)sys_close(fd); /* only read */
        } else if (err != ERR_CORRUPT && err != ERR_NOT_FOUND) {
            return err;
        }
    }
    return err == ERR_CORRUPT ? ERR_NOT_FOUND : err;
}

enum err journal_identify(const char *directory, struct id *ret)
{
    struct journal_files files;
    struct journal_segment_head head;
    enum err err = journal_files_list(&files, directory);
    if (err != ERR_OK) {
        return err;
    }
    err = newest_head(&files, directory, &head);
    if (err == ERR_OK) {
        *ret = head.journal;
    }
    journal_files_finish(&files);
    return err;
}

static enum err copy_all(struct copying *c, struct err_detail *detail)
{
    enum err err = newest_head(&c->files, c->copy->from, &c->head);
    if (err == ERR_OK) {
        err = journal_directory_make(c->copy->to, detail);
    }
    for (uint32_t i = 0; i < c->files.segment_count && err == ERR_OK && !c->is_over; i++) {
        err = take_segment(c, i, detail);
    }
    if (err == ERR_OK && c->copy->until != UINT64_MAX && c->expected != 0) {
        expect(c, c->copy->until + 1 > c->expected ? c->copy->until + 1 : c->expected);
    }
    if (err == ERR_OK && c->fd < 0) {
        err = segment_begin(c, c->done.last_position + 1);
    }
    if (err == ERR_OK) {
        err = segment_end(c, true);
    }
    if (err == ERR_OK && sys_sync_directory(c->copy->to) != 0) {
        err = err_from_errno(errno);
    }
    return err;
}

enum err journal_copy(const struct journal_copy *copy, struct journal_copied *ret,
                      struct err_detail *detail)
{
    struct copying c = {.copy = copy, .fd = -1, .commit_bytes = JOURNAL_COMMIT_HEAD_BYTES};
    c.done.last_position = copy->after;
    c.expected = copy->after == 0 ? 0 : copy->after + 1;
    if (strlen(copy->from) + JOURNAL_NAME_BYTES > JOURNAL_PATH_BYTES) {
        return ERR_TOO_LARGE;
    }
    enum err err = journal_files_list(&c.files, copy->from);
    if (err != ERR_OK) {
        return err;
    }
    c.commit = mem_alloc(COPY_BUFFER_BYTES);
    err = copy_all(&c, detail);
    if (err == ERR_OK) {
        *ret = c.done;
    } else if (detail != NULL && detail->text[0] == '\0') {
        err_detail_set(detail, "%s: %s", copy->to, err_text(err));
    }
    if (c.fd >= 0) {
        (void)sys_close(c.fd); /* good for nothing */
    }
    mem_free(c.commit);
    journal_files_finish(&c.files);
    return err;
}
