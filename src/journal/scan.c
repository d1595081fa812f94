/* Scan: where recovery, readers and the check agree on what a segment holds.
 *
 *   BOUNDARY --commit head verifies--> COMMIT --its end, zeros to the boundary--> BOUNDARY
 *       \                                 \
 *        `--- nothing verifies: search every multiple of 8 for what does ---> BAD, then
 *             COMMIT  if it lies in the commit whose end is known
 *             BOUNDARY if it is a commit head
 *             LOOSE   if it is a frame; zeros up to a boundary then lead to BOUNDARY
 *
 * (scan_resume makes these transitions after bad bytes, journal_scan_next the others.)
 *
 * Happy path: one pread of up to 1 MiB, then pointers into it. What a run that was killed left
 * unwritten is looked at in the newest segment only, a page at a time: in an older one the first
 * position of the next tells that nothing more can count.
 * Failure modes: bad bytes are passed over and named. A page that cannot be read reads as zeros as
 * long as the first page of the file can still be read; else the disk is gone, and saying that all
 * is damaged would be false. */
#include "journal/scan.h"

#include "base/mem.h"
#include "base/sys.h"

#include <assert.h>
#include <errno.h>

#define SCAN_WINDOW_BYTES (1024u * UINT64_C(1024))
static_assert(SCAN_WINDOW_BYTES >= LIMIT_FRAME_BYTES + JOURNAL_PAGE_BYTES, "a frame fits");

void journal_scan_init(struct journal_scan *scan, int fd, const struct journal_segment_head *head,
                       uint64_t void_position)
{
    *scan = (struct journal_scan){
        .fd = fd,
        .salt = head->salt,
        .void_position = void_position,
        .next_position = head->first_position,
        .offset = JOURNAL_SEGMENT_HEAD_BYTES,
        .place = JOURNAL_PLACE_BOUNDARY,
    };
}

void journal_scan_finish(struct journal_scan *scan)
{
    mem_free(scan->window);
    scan->window = NULL;
}

/* Page by page, so that only those that stay unreadable are lost: they become zeros. */
static enum err scan_read_pages(struct journal_scan *scan, uint64_t offset, size_t size)
{
    for (size_t done = 0; done < size;) {
        size_t step = size - done < JOURNAL_PAGE_BYTES ? size - done : JOURNAL_PAGE_BYTES;
        ssize_t got = sys_pread(scan->fd, scan->window + done, step, (off_t)(offset + done));
        if (got < 0) {
            uint8_t probe[JOURNAL_ALIGN_BYTES];
            if (sys_pread(scan->fd, probe, sizeof(probe), 0) < 0) {
                return err_from_errno(errno);
            }
            got = 0;
        }
        memset(scan->window + done + got, 0, step - (size_t)got);
        done += step;
    }
    return ERR_OK;
}

static bool scan_has(const struct journal_scan *scan, uint64_t offset, size_t need)
{
    return offset >= scan->window_offset &&
           offset + need <= scan->window_offset + scan->window_size;
}

/* Makes [offset, offset + need) readable in the window; the caller knows that it is below limit. */
static enum err scan_need(struct journal_scan *scan, uint64_t offset, size_t need, uint64_t limit)
{
    assert(need <= SCAN_WINDOW_BYTES && offset + need <= limit);
    if (scan_has(scan, offset, need)) {
        return ERR_OK;
    }
    if (scan->window == NULL) {
        scan->window = mem_try_alloc(SCAN_WINDOW_BYTES);
        if (scan->window == NULL) {
            return ERR_NO_MEMORY;
        }
    }
    size_t size = limit - offset < SCAN_WINDOW_BYTES ? (size_t)(limit - offset) : SCAN_WINDOW_BYTES;
    enum err err = ERR_OK;
    scan->window_offset = offset;
    scan->window_size = 0;
    ssize_t got = sys_pread(scan->fd, scan->window, size, (off_t)offset);
    if (got < 0) {
        err = scan_read_pages(scan, offset, need);
        got = (ssize_t)need;
    } else if ((size_t)got < need) {
        /* The file is shorter than it should be: what is not there is zeros. */
        memset(scan->window + got, 0, need - (size_t)got);
        got = (ssize_t)need;
    }
    scan->window_size = err == ERR_OK ? (size_t)got : 0;
    return err;
}

static const uint8_t *scan_at(const struct journal_scan *scan, uint64_t offset)
{
    return scan->window + (offset - scan->window_offset);
}

/* Fills the item when a commit head verifies at `offset`. */
static enum err scan_try_commit(struct journal_scan *scan, uint64_t offset, uint64_t limit,
                                struct journal_scan_item *item, bool *ret_is_good)
{
    *ret_is_good = false;
    if (offset % JOURNAL_PAGE_BYTES != 0 || limit - offset < JOURNAL_COMMIT_HEAD_BYTES) {
        return ERR_OK;
    }
    enum err err = scan_need(scan, offset, JOURNAL_COMMIT_HEAD_BYTES, limit);
    if (err != ERR_OK) {
        return err;
    }
    *ret_is_good =
        journal_commit_head_decode(scan_at(scan, offset), scan->salt, offset, &item->commit) &&
        item->commit.first_position >= scan->next_position;
    item->kind = JOURNAL_SCAN_COMMIT;
    item->offset = offset;
    item->size = JOURNAL_COMMIT_HEAD_BYTES;
    return ERR_OK;
}

static enum err scan_try_frame(struct journal_scan *scan, uint64_t offset, uint64_t limit,
                               struct journal_scan_item *item, bool *ret_is_good)
{
    *ret_is_good = false;
    if (limit - offset < JOURNAL_FRAME_HEAD_BYTES) {
        return ERR_OK;
    }
    enum err err = scan_need(scan, offset, JOURNAL_FRAME_HEAD_BYTES, limit);
    if (err != ERR_OK) {
        return err;
    }
    uint64_t size = journal_frame_claimed_size(scan_at(scan, offset));
    if (size == 0 || size > limit - offset) {
        return ERR_OK;
    }
    err = scan_need(scan, offset, (size_t)size, limit);
    if (err != ERR_OK) {
        return err;
    }
    *ret_is_good = journal_frame_decode(scan_at(scan, offset), scan->salt, &item->frame) &&
                   item->frame.position >= scan->next_position;
    item->kind = JOURNAL_SCAN_FRAME;
    item->offset = offset;
    item->size = size;
    return ERR_OK;
}

static bool scan_is_zero(const uint8_t *at, size_t size)
{
    return at[0] == 0 && memcmp(at, at + 1, size - 1) == 0;
}

/* First multiple of 8 at or after `offset` where a frame's or a commit's magic stands; `end` when
 * there is none before. */
static uint64_t scan_candidate(const struct journal_scan *scan, uint64_t offset, uint64_t end)
{
    while (offset + JOURNAL_FRAME_HEAD_BYTES <= end) {
        const uint8_t *at = scan_at(scan, offset);
        if (offset % JOURNAL_PAGE_BYTES == 0 && offset + JOURNAL_PAGE_BYTES <= end &&
            scan_is_zero(at, JOURNAL_PAGE_BYTES)) {
            offset += JOURNAL_PAGE_BYTES - JOURNAL_ALIGN_BYTES; /* the last's magic is behind it */
            continue;
        }
        if (journal_is_frame(at) || (offset % JOURNAL_PAGE_BYTES == 0 && journal_is_commit(at))) {
            return offset;
        }
        offset += JOURNAL_ALIGN_BYTES;
    }
    return end;
}

/* First place after `offset` where something verifies; `limit` when there is none. */
static enum err scan_search(struct journal_scan *scan, uint64_t offset, uint64_t limit,
                            struct journal_scan_item *item, uint64_t *ret_found)
{
    offset = journal_align(offset + 1, JOURNAL_ALIGN_BYTES);
    while (offset + JOURNAL_FRAME_HEAD_BYTES <= limit) {
        enum err err = scan_need(scan, offset, JOURNAL_FRAME_HEAD_BYTES, limit);
        if (err != ERR_OK) {
            return err;
        }
        uint64_t end = scan->window_offset + scan->window_size;
        end = end < limit ? end : limit; /* the window may be from a time of a higher limit */
        uint64_t candidate = scan_candidate(scan, offset, end);
        if (candidate == end) {
            offset = journal_align(end - JOURNAL_FRAME_HEAD_BYTES + 1, JOURNAL_ALIGN_BYTES);
            continue;
        }
        bool is_good;
        err = scan_try_commit(scan, candidate, limit, item, &is_good);
        if (err == ERR_OK && !is_good) {
            err = scan_try_frame(scan, candidate, limit, item, &is_good);
        }
        if (err != ERR_OK || is_good) {
            *ret_found = candidate;
            return err;
        }
        offset = candidate + JOURNAL_ALIGN_BYTES;
    }
    *ret_found = limit;
    return ERR_OK;
}

/* Given to others by a newer segment. A closing commit has the position of what would come next,
 * and nothing to be void. */
static bool scan_is_void(const struct journal_scan *scan, const struct journal_scan_item *item)
{
    if (item->kind == JOURNAL_SCAN_COMMIT) {
        return item->commit.frame_count > 0 && item->commit.first_position >= scan->void_position;
    }
    return item->frame.position >= scan->void_position;
}

/* Nothing verifies at scan->offset: names the bad bytes and where to go on. When all that may count
 * was read, what follows is the rest of a segment whose run was killed: nothing is looked for. */
static enum err scan_resume(struct journal_scan *scan, uint64_t limit,
                            struct journal_scan_item *ret)
{
    struct journal_scan_item found = {.kind = JOURNAL_SCAN_END};
    uint64_t offset = limit;
    enum err err = ERR_OK;
    if (scan->next_position < scan->void_position) {
        err = scan_search(scan, scan->offset, limit, &found, &offset);
    }
    if (err != ERR_OK) {
        return err;
    }
    bool is_tail = offset == limit || scan_is_void(scan, &found);
    ret->kind = is_tail ? JOURNAL_SCAN_TAIL : JOURNAL_SCAN_BAD;
    ret->offset = scan->offset;
    ret->size = offset - scan->offset;
    bool is_in_commit = scan->place == JOURNAL_PLACE_COMMIT && offset < scan->commit_end;
    if (offset == limit || found.kind == JOURNAL_SCAN_COMMIT) {
        scan->place = JOURNAL_PLACE_BOUNDARY;
    } else if (!is_in_commit) {
        scan->place = JOURNAL_PLACE_LOOSE;
    }
    scan->offset = offset;
    return ERR_OK;
}

enum err journal_scan_zeros(struct journal_scan *scan, uint64_t from, uint64_t to,
                            uint64_t *ret_last)
{
    uint64_t last = from;
    while (from < to) {
        size_t size = to - from < JOURNAL_PAGE_BYTES ? (size_t)(to - from) : JOURNAL_PAGE_BYTES;
        enum err err = scan_need(scan, from, size, to);
        if (err != ERR_OK) {
            return err;
        }
        const uint8_t *at = scan_at(scan, from);
        for (size_t i = scan_is_zero(at, size) ? size : 0; i < size; i++) {
            last = at[i] != 0 ? from + i + 1 : last;
        }
        from += size;
    }
    *ret_last = last;
    return ERR_OK;
}

enum err journal_scan_torn(struct journal_scan *scan, const struct journal_segment_head *head,
                           uint64_t claimed_end, const struct journal_scan_item *tail,
                           uint64_t *ret_bytes)
{
    uint64_t end = tail->offset + tail->size;
    uint64_t last = tail->offset;
    if (claimed_end > tail->offset) {
        last = claimed_end < end ? claimed_end : end;
    }
    if (head->flags & JOURNAL_SEGMENT_WAS_ZERO) {
        uint64_t written = 0;
        enum err err = journal_scan_zeros(scan, tail->offset, end, &written);
        if (err != ERR_OK) {
            return err;
        }
        last = written > last ? written : last;
    }
    *ret_bytes = last - tail->offset;
    return ERR_OK;
}

static bool scan_may_be_padding(const struct journal_scan *scan)
{
    return scan->place == JOURNAL_PLACE_LOOSE ||
           (scan->place == JOURNAL_PLACE_COMMIT && scan->offset >= scan->commit_end);
}

/* Goes over zeros up to the boundary, if that is what is there. */
static enum err scan_padding(struct journal_scan *scan, uint64_t limit, bool *ret_has_moved)
{
    uint64_t end = journal_align(scan->offset, JOURNAL_PAGE_BYTES);
    uint64_t last = 0;
    end = end < limit ? end : limit;
    enum err err = journal_scan_zeros(scan, scan->offset, end, &last);
    if (err == ERR_OK && last == scan->offset) {
        scan->place = JOURNAL_PLACE_BOUNDARY;
        scan->offset = end;
        *ret_has_moved = true;
    }
    return err;
}

/* Takes a good commit or frame. */
static void scan_accept(struct journal_scan *scan, const struct journal_scan_item *item)
{
    scan->offset = item->offset + item->size;
    if (item->kind == JOURNAL_SCAN_COMMIT) {
        scan->commit_end = scan->offset + item->commit.bytes;
        scan->place = JOURNAL_PLACE_COMMIT;
        scan->next_position = item->commit.first_position;
    } else {
        scan->next_position = item->frame.position + 1;
    }
}

/* What should stand at scan->offset. */
static enum err scan_try(struct journal_scan *scan, uint64_t limit, struct journal_scan_item *ret,
                         bool *ret_is_good)
{
    *ret_is_good = false;
    if (scan->place == JOURNAL_PLACE_BOUNDARY) {
        return scan_try_commit(scan, scan->offset, limit, ret, ret_is_good);
    }
    if (scan->place == JOURNAL_PLACE_COMMIT && scan->offset >= scan->commit_end) {
        return ERR_OK;
    }
    return scan_try_frame(scan, scan->offset, limit, ret, ret_is_good);
}

enum err journal_scan_next(struct journal_scan *scan, uint64_t limit, struct journal_scan_item *ret)
{
    bool is_good = false;
    bool has_moved = false;
    do {
        ret->kind = JOURNAL_SCAN_END;
        ret->offset = scan->offset;
        ret->size = 0;
        if (scan->offset >= limit) {
            return ERR_OK;
        }
        enum err err = scan_try(scan, limit, ret, &is_good);
        has_moved = false;
        if (err == ERR_OK && !is_good && scan_may_be_padding(scan)) {
            err = scan_padding(scan, limit, &has_moved);
        }
        if (err != ERR_OK) {
            return err;
        }
    } while (has_moved);
    if (!is_good) {
        return scan_resume(scan, limit, ret);
    }
    if (scan_is_void(scan, ret)) {
        ret->kind = JOURNAL_SCAN_END;
    } else {
        scan_accept(scan, ret);
    }
    return ERR_OK;
}
