/* Segment: makes a spare file the newest segment, and commits to it.
 *
 * Opening, in the order that a power cut at any instant forgives: the head is written and synced
 * while the file still has its spare name, which recovery ignores; then the name is changed and the
 * directory synced. So a file that is named as a segment has a head, unless it was damaged. Only
 * then is anything written that somebody waits for.
 *
 * Happy path: open; commits, each one pwritev and one fdatasync; close.
 * Failure modes: opening fails: the file is removed, as far as it goes; if it stays it holds no
 * frames, and the next segment has a higher sequence and the same first position. A write that is
 * short or fails, a sync that fails: broken for good, no second try on the same file. */
#include "journal/segment.h"

#include "base/hash.h"
#include "base/sys.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

/* Allocated blocks without zeros: ready at once, slower to sync. */
static enum err segment_allocate(const char *path, uint64_t size, int *ret_fd)
{
    enum err err = ERR_OK;
    int fd = sys_open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    if (sys_fallocate(fd, 0, (off_t)size) != 0 &&
        (errno != ENOTSUP || sys_ftruncate(fd, (off_t)size) != 0)) {
        err = err_from_errno(errno);
        (void)sys_close(fd); /* holds nothing */
        return err;
    }
    *ret_fd = fd;
    return ERR_OK;
}

static enum err segment_write_head(int fd, const struct journal_segment_head *head)
{
    uint8_t page[JOURNAL_SEGMENT_HEAD_BYTES];
    journal_segment_head_encode(head, page);
    ssize_t written = sys_pwrite(fd, page, sizeof(page), 0);
    if (written != (ssize_t)sizeof(page)) {
        return written < 0 ? err_from_errno(errno) : ERR_NO_SPACE;
    }
    return sys_fdatasync(fd) == 0 ? ERR_OK : err_from_errno(errno);
}

static enum err segment_name(const char *from, const char *to, const char *directory)
{
    if (sys_rename(from, to) != 0 || sys_sync_directory(directory) != 0) {
        return err_from_errno(errno);
    }
    return ERR_OK;
}

enum err journal_segment_open(struct journal_segment *ret, const char *directory, uint64_t size,
                              struct journal_spare_file spare,
                              const struct journal_segment_head *head)
{
    struct journal_segment segment = {.fd = -1, .head = *head, .size = size};
    struct journal_file file = {JOURNAL_FILE_SPARE, spare.number, 0, 0};
    char from[JOURNAL_PATH_BYTES];
    char to[JOURNAL_PATH_BYTES];
    enum err err = ERR_OK;
    segment.is_prepared = spare.number != 0;
    if (!segment.is_prepared) {
        file.kind = JOURNAL_FILE_UNFINISHED;
        file.number = 2 * head->sequence + 1; /* the preparer's are even */
    }
    journal_file_path(from, directory, &file);
    file = (struct journal_file){JOURNAL_FILE_SEGMENT, head->sequence, head->first_position, 0};
    journal_file_path(to, directory, &file);
    if (segment.is_prepared) {
        segment.fd = sys_open(from, O_RDWR | O_CLOEXEC, 0);
        err = segment.fd < 0 ? err_from_errno(errno) : ERR_OK;
    } else {
        err = segment_allocate(from, size, &segment.fd);
    }
    hash_random(&segment.head.salt, sizeof(segment.head.salt));
    bool was_zero = !segment.is_prepared || spare.was_zero;
    segment.head.flags = was_zero ? JOURNAL_SEGMENT_WAS_ZERO : 0;
    segment.offset = JOURNAL_SEGMENT_HEAD_BYTES;
    if (err == ERR_OK) {
        err = segment_write_head(segment.fd, &segment.head);
    }
    if (err == ERR_OK) {
        err = segment_name(from, to, directory);
    }
    if (err != ERR_OK) {
        journal_segment_close(&segment);
        (void)sys_unlink(from); /* holds no frames: harmless if it stays */
        (void)sys_unlink(to);
        return err;
    }
    *ret = segment;
    return ERR_OK;
}

enum err journal_segment_commit(struct journal_segment *segment, const struct iovec *parts,
                                int count, uint64_t size)
{
    assert(segment->fd >= 0 && !segment->is_broken);
    assert(size % JOURNAL_PAGE_BYTES == 0 && segment->offset + size <= segment->size);
    enum err err = ERR_OK;
    ssize_t written = sys_pwritev(segment->fd, parts, count, (off_t)segment->offset);
    if (written != (ssize_t)size) {
        err = written < 0 ? err_from_errno(errno) : ERR_NO_SPACE;
    } else if (sys_fdatasync(segment->fd) != 0) {
        err = err_from_errno(errno);
    }
    if (err != ERR_OK) {
        segment->is_broken = true;
        return err;
    }
    segment->offset += size;
    return ERR_OK;
}

void journal_segment_close(struct journal_segment *segment)
{
    if (segment->fd >= 0) {
        (void)sys_close(segment->fd); /* everything that counts was synced */
    }
    segment->fd = -1;
}
