/* Scan: walks one segment from commit to commit and frame to frame, and past what is bad.
 *
 * Thread: one owner.
 * Memory: the scan owns its window (1 MiB, touched as far as needed); an item's frame points into
 *         it and is void at the next call. The file stays the caller's.
 * Errors: ERR_IO when not even the first page of the file can be read any more. Single pages that
 *         cannot be read count as bad bytes. */
#pragma once
#include "journal/format.h"

enum journal_scan_kind {
    JOURNAL_SCAN_END,    /* nothing up to the limit */
    JOURNAL_SCAN_COMMIT, /* `commit` */
    JOURNAL_SCAN_FRAME,  /* `frame` */
    JOURNAL_SCAN_BAD,    /* bytes that do not verify; something good follows */
    JOURNAL_SCAN_TAIL,   /* bytes that do not verify, up to the limit */
};

struct journal_scan_item {
    enum journal_scan_kind kind;
    uint64_t offset; /* in the file */
    uint64_t size;
    struct journal_commit_head commit;
    struct journal_frame frame;
};

enum journal_scan_place {
    JOURNAL_PLACE_BOUNDARY, /* a commit head is expected */
    JOURNAL_PLACE_COMMIT,   /* inside a commit whose end is known */
    JOURNAL_PLACE_LOOSE,    /* at a frame of a commit whose head is bad */
};

struct journal_scan {
    int fd;
    uint64_t salt;
    uint64_t void_position; /* frames from here on are not this segment's */
    uint64_t next_position; /* the least that the next frame may have */
    uint64_t offset;
    uint64_t commit_end;
    enum journal_scan_place place;
    uint8_t *window;
    uint64_t window_offset;
    size_t window_size;
};

void journal_scan_init(struct journal_scan *scan, int fd, const struct journal_segment_head *head,
                       uint64_t void_position);
void journal_scan_finish(struct journal_scan *scan);
/* Looks at no byte at or past `limit`, which may change from call to call. After TAIL and END the
 * next call goes on from the limit. */
MUST_CHECK enum err journal_scan_next(struct journal_scan *scan, uint64_t limit,
                                      struct journal_scan_item *ret);
/* Whether bytes [from, to) are all zero; *ret_last: one past the last byte that is not. */
MUST_CHECK enum err journal_scan_zeros(struct journal_scan *scan, uint64_t from, uint64_t to,
                                       uint64_t *ret_last);
/* How many bytes of a tail were written: what the last commit, which ends at `claimed_end`, has
 * there, or in a file that held zeros, what is none. */
MUST_CHECK enum err journal_scan_torn(struct journal_scan *scan,
                                      const struct journal_segment_head *head, uint64_t claimed_end,
                                      const struct journal_scan_item *tail, uint64_t *ret_bytes);
