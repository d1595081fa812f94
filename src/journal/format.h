/* Format: the bytes of a segment. The layout stands at the head of format.c.
 *
 * Thread: pure.
 * Memory: values; a decoded frame points into the bytes.
 * Errors: bytes that do not verify give false. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "journal/journal.h"

enum {
    JOURNAL_PAGE_BYTES = 4096,
    JOURNAL_SEGMENT_HEAD_BYTES = 4096,
    JOURNAL_SEGMENT_COPY_BYTES = 2048, /* the head's content stands twice */
    JOURNAL_COMMIT_HEAD_BYTES = 64,
    JOURNAL_FRAME_HEAD_BYTES = 40,
    JOURNAL_ALIGN_BYTES = 8,
};

enum {
    JOURNAL_SEGMENT_WAS_ZERO = 1, /* the file held zeros before: what is not zero was written */
};

struct journal_segment_head {
    uint32_t flags;
    struct id journal;
    uint64_t salt;           /* seed of every checksum in it */
    uint64_t sequence;       /* newer segments have higher ones */
    uint64_t base;           /* position = base + number */
    uint64_t first_position; /* anything at or past it in older segments is void */
    uint64_t durable_before; /* highest durable position when it was opened */
    int64_t opened_ms;       /* wall */
};

enum {
    JOURNAL_COMMIT_CLOSES = 1, /* a clean stop; no frames */
};

struct journal_commit_head {
    uint32_t flags;
    uint32_t bytes; /* of its frames, which follow */
    uint32_t frame_count;
    uint64_t first_position;
    uint64_t durable_before;
    int64_t wall_ms;
};

static inline uint64_t journal_align(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

void journal_segment_head_encode(const struct journal_segment_head *head,
                                 uint8_t to[JOURNAL_SEGMENT_HEAD_BYTES]);
/* ERR_CORRUPT when neither copy verifies, ERR_VERSION when one does and is of another version.
 * *ret_bad_bytes: of the copy that does not verify. */
MUST_CHECK enum err journal_segment_head_decode(const uint8_t from[JOURNAL_SEGMENT_HEAD_BYTES],
                                                struct journal_segment_head *ret,
                                                uint32_t *ret_bad_bytes);

void journal_commit_head_encode(const struct journal_commit_head *head, uint64_t salt,
                                uint64_t offset, uint8_t to[JOURNAL_COMMIT_HEAD_BYTES]);
bool journal_commit_head_decode(const uint8_t from[JOURNAL_COMMIT_HEAD_BYTES], uint64_t salt,
                                uint64_t offset, struct journal_commit_head *ret);

/* Whether a commit head or a frame may begin here: looks at the magic only. */
bool journal_is_commit(const uint8_t *at);
bool journal_is_frame(const uint8_t *at);

/* Bytes of a frame in the file, and against the backlog. */
static inline uint64_t journal_frame_size(uint64_t payload_bytes)
{
    return journal_align(JOURNAL_FRAME_HEAD_BYTES + payload_bytes, JOURNAL_ALIGN_BYTES);
}
/* Whole frame but its position and checksum; `to` has journal_frame_size bytes. */
void journal_frame_encode(const struct journal_frame_parts *parts, uint8_t *to);
/* What is in the head of a frame that is not sealed yet; bytes_slice is set too. */
void journal_frame_peek(const uint8_t *from, struct journal_frame *ret);
/* Gives it its position and checksum. */
void journal_frame_seal(uint8_t *frame, uint64_t position, uint64_t salt);
/* Size that the head claims, 0 when no frame can begin so; needs the head's bytes. */
uint64_t journal_frame_claimed_size(const uint8_t *from);
/* `from` has the claimed bytes. */
bool journal_frame_decode(const uint8_t *from, uint64_t salt, struct journal_frame *ret);
