/* Segment: the file that commits go to.
 *
 * Thread: one owner (the committer; the thread that starts the journal before it).
 * Memory: opaque to nobody; the owner embeds it.
 * Errors: any failure of open leaves no file that counts. After a failed write or sync the segment
 *         is broken: it may only be closed, because what reached the disk is no longer known. */
#pragma once
#include "journal/files.h"

#include <sys/uio.h>

struct journal_segment {
    int fd; /* -1: none */
    struct journal_segment_head head;
    uint64_t size;
    uint64_t offset;  /* next commit */
    bool is_prepared; /* its blocks were written before, so syncs need no metadata */
    bool is_broken;
};

/* A file that waits to become a segment. number 0: none, one is allocated on the spot. */
struct journal_spare_file {
    uint64_t number;
    uint64_t made_ns; /* when all of it was zeros; 0: not known */
    bool was_zero;    /* still is */
};

/* `head` with everything but salt and flags. */
MUST_CHECK enum err journal_segment_open(struct journal_segment *ret, const char *directory,
                                         uint64_t size, struct journal_spare_file spare,
                                         const struct journal_segment_head *head);
/* Writes parts of `size` bytes in all, a multiple of the page, at the offset and syncs them. */
MUST_CHECK enum err journal_segment_commit(struct journal_segment *segment,
                                           const struct iovec *parts, int count, uint64_t size);
/* Nothing open: fine. */
void journal_segment_close(struct journal_segment *segment);
