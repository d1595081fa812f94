/* Format: one segment file, byte by byte. Numbers are little-endian, checksums XXH3-64.
 *
 *   segment  = head page, then commits, then whatever the file held before
 *   commit   = commit head, frames, zeros to the next multiple of 4,096
 *
 * Segment head, 4,096 bytes: the same 2,048 bytes twice, so that one flipped bit, which would take
 * the salt and with it every frame, is survived.
 *
 *   offset size  what
 *        0    8  checksum, seed 0, of bytes 8 to 2,047
 *        8    8  "WEIRJSG1"
 *       16    4  version: 1
 *       20    4  flags: 1 = the file held zeros before
 *       24   16  id of the journal
 *       40    8  salt, random
 *       48    8  sequence: newer segments have higher ones
 *       56    8  base
 *       64    8  first position
 *       72    8  durable position when it was opened
 *       80    8  wall clock, ms since 1970 UTC
 *       88       zeros
 *
 * Commit head, 64 bytes, at a multiple of 4,096:
 *
 *        0    8  checksum, seed salt + offset in the file, of bytes 8 to 63
 *        8    4  magic "WCMT"
 *       12    4  flags: 1 = closing, no frames
 *       16    4  bytes of the frames
 *       20    4  number of frames
 *       24    8  first position
 *       32    8  durable position before it
 *       40    8  wall clock, ms
 *       48   16  zeros
 *
 * Frame, at a multiple of 8:
 *
 *        0    8  checksum, seed salt, of all that follows, padding too
 *        8    4  magic "WFRM"
 *       12    4  payload bytes, at most 524,288
 *       16    8  position
 *       24    8  org
 *       32    4  record count
 *       36    1  lane
 *       37    1  form
 *       38    2  zeros
 *       40       payload, then zeros to a multiple of 8
 *
 * A frame verifies by itself: the salt is random per segment, so neither what a recycled file held
 * before nor a payload that looks like a frame does. Thus a bad place costs only itself: reading
 * goes on at the next multiple of 8 where a frame, or of 4,096 where a commit, verifies.
 *
 * Whose frames count: those of a segment below the first position of every newer one. So frames of
 * a commit that failed, and was answered as failed, are void even if the disk wrote them, once a
 * newer segment has given their positions to others. */
#include "journal/format.h"

#include "base/hash.h"

#include <assert.h>

#define SEGMENT_MAGIC "WEIRJSG1"
#define COMMIT_MAGIC  0x544d4357u /* "WCMT" */
#define FRAME_MAGIC   0x4d524657u /* "WFRM" */

enum {
    SEGMENT_VERSION = 1,
    SEGMENT_AT_MAGIC = 8,
    SEGMENT_AT_VERSION = 16,
    SEGMENT_AT_FLAGS = 20,
    SEGMENT_AT_JOURNAL = 24,
    SEGMENT_AT_SALT = 40,
    SEGMENT_AT_SEQUENCE = 48,
    SEGMENT_AT_BASE = 56,
    SEGMENT_AT_FIRST = 64,
    SEGMENT_AT_DURABLE = 72,
    SEGMENT_AT_OPENED = 80,

    AT_MAGIC = 8, /* of commit heads and frames alike */

    COMMIT_AT_FLAGS = 12,
    COMMIT_AT_BYTES = 16,
    COMMIT_AT_COUNT = 20,
    COMMIT_AT_FIRST = 24,
    COMMIT_AT_DURABLE = 32,
    COMMIT_AT_WALL = 40,

    FRAME_AT_BYTES = 12,
    FRAME_AT_POSITION = 16,
    FRAME_AT_ORG = 24,
    FRAME_AT_RECORDS = 32,
    FRAME_AT_LANE = 36,
    FRAME_AT_FORM = 37,
};

static_assert(JOURNAL_SEGMENT_HEAD_BYTES == JOURNAL_PAGE_BYTES, "commits begin behind one page");
static_assert(2 * JOURNAL_SEGMENT_COPY_BYTES == JOURNAL_SEGMENT_HEAD_BYTES, "two copies");
static_assert(SEGMENT_AT_MAGIC + sizeof(SEGMENT_MAGIC) - 1 == SEGMENT_AT_VERSION, "8 bytes");
static_assert(SEGMENT_AT_JOURNAL + sizeof(struct id) == SEGMENT_AT_SALT, "16 bytes of id");
static_assert(SEGMENT_AT_OPENED + 8 <= JOURNAL_SEGMENT_COPY_BYTES, "a copy holds its fields");
static_assert(COMMIT_AT_WALL + 8 + 16 == JOURNAL_COMMIT_HEAD_BYTES, "16 spare bytes");
static_assert(FRAME_AT_FORM + 1 + 2 == JOURNAL_FRAME_HEAD_BYTES, "2 spare bytes");
static_assert(JOURNAL_COMMIT_HEAD_BYTES % JOURNAL_ALIGN_BYTES == 0, "frames are aligned");
static_assert(JOURNAL_FRAME_HEAD_BYTES % JOURNAL_ALIGN_BYTES == 0, "payloads are aligned");

static void segment_put_copy(const struct journal_segment_head *head, uint8_t *to)
{
    memcpy(to + SEGMENT_AT_MAGIC, SEGMENT_MAGIC, sizeof(SEGMENT_MAGIC) - 1);
    buffer_put_u32(to + SEGMENT_AT_VERSION, SEGMENT_VERSION);
    buffer_put_u32(to + SEGMENT_AT_FLAGS, head->flags);
    memcpy(to + SEGMENT_AT_JOURNAL, head->journal.bytes, sizeof(head->journal.bytes));
    buffer_put_u64(to + SEGMENT_AT_SALT, head->salt);
    buffer_put_u64(to + SEGMENT_AT_SEQUENCE, head->sequence);
    buffer_put_u64(to + SEGMENT_AT_BASE, head->base);
    buffer_put_u64(to + SEGMENT_AT_FIRST, head->first_position);
    buffer_put_u64(to + SEGMENT_AT_DURABLE, head->durable_before);
    buffer_put_u64(to + SEGMENT_AT_OPENED, (uint64_t)head->opened_ms);
    buffer_put_u64(to, hash_xxh3(to + 8, JOURNAL_SEGMENT_COPY_BYTES - 8, 0));
}

void journal_segment_head_encode(const struct journal_segment_head *head,
                                 uint8_t to[JOURNAL_SEGMENT_HEAD_BYTES])
{
    memset(to, 0, JOURNAL_SEGMENT_HEAD_BYTES);
    segment_put_copy(head, to);
    segment_put_copy(head, to + JOURNAL_SEGMENT_COPY_BYTES);
}

static bool segment_copy_is_good(const uint8_t *from)
{
    return memcmp(from + SEGMENT_AT_MAGIC, SEGMENT_MAGIC, sizeof(SEGMENT_MAGIC) - 1) == 0 &&
           buffer_get_u64(from) == hash_xxh3(from + 8, JOURNAL_SEGMENT_COPY_BYTES - 8, 0);
}

enum err journal_segment_head_decode(const uint8_t from[JOURNAL_SEGMENT_HEAD_BYTES],
                                     struct journal_segment_head *ret, uint32_t *ret_bad_bytes)
{
    bool first_is_good = segment_copy_is_good(from);
    bool second_is_good = segment_copy_is_good(from + JOURNAL_SEGMENT_COPY_BYTES);
    const uint8_t *copy = first_is_good ? from : from + JOURNAL_SEGMENT_COPY_BYTES;
    if (!first_is_good && !second_is_good) {
        return ERR_CORRUPT;
    }
    if (buffer_get_u32(copy + SEGMENT_AT_VERSION) != SEGMENT_VERSION) {
        return ERR_VERSION;
    }
    ret->flags = buffer_get_u32(copy + SEGMENT_AT_FLAGS);
    memcpy(ret->journal.bytes, copy + SEGMENT_AT_JOURNAL, sizeof(ret->journal.bytes));
    ret->salt = buffer_get_u64(copy + SEGMENT_AT_SALT);
    ret->sequence = buffer_get_u64(copy + SEGMENT_AT_SEQUENCE);
    ret->base = buffer_get_u64(copy + SEGMENT_AT_BASE);
    ret->first_position = buffer_get_u64(copy + SEGMENT_AT_FIRST);
    ret->durable_before = buffer_get_u64(copy + SEGMENT_AT_DURABLE);
    ret->opened_ms = (int64_t)buffer_get_u64(copy + SEGMENT_AT_OPENED);
    *ret_bad_bytes = first_is_good && second_is_good ? 0 : JOURNAL_SEGMENT_COPY_BYTES;
    return ERR_OK;
}

void journal_commit_head_encode(const struct journal_commit_head *head, uint64_t salt,
                                uint64_t offset, uint8_t to[JOURNAL_COMMIT_HEAD_BYTES])
{
    memset(to, 0, JOURNAL_COMMIT_HEAD_BYTES);
    buffer_put_u32(to + AT_MAGIC, COMMIT_MAGIC);
    buffer_put_u32(to + COMMIT_AT_FLAGS, head->flags);
    buffer_put_u32(to + COMMIT_AT_BYTES, head->bytes);
    buffer_put_u32(to + COMMIT_AT_COUNT, head->frame_count);
    buffer_put_u64(to + COMMIT_AT_FIRST, head->first_position);
    buffer_put_u64(to + COMMIT_AT_DURABLE, head->durable_before);
    buffer_put_u64(to + COMMIT_AT_WALL, (uint64_t)head->wall_ms);
    buffer_put_u64(to, hash_xxh3(to + 8, JOURNAL_COMMIT_HEAD_BYTES - 8, salt + offset));
}

bool journal_commit_head_decode(const uint8_t from[JOURNAL_COMMIT_HEAD_BYTES], uint64_t salt,
                                uint64_t offset, struct journal_commit_head *ret)
{
    if (!journal_is_commit(from) ||
        buffer_get_u64(from) != hash_xxh3(from + 8, JOURNAL_COMMIT_HEAD_BYTES - 8, salt + offset)) {
        return false;
    }
    ret->flags = buffer_get_u32(from + COMMIT_AT_FLAGS);
    ret->bytes = buffer_get_u32(from + COMMIT_AT_BYTES);
    ret->frame_count = buffer_get_u32(from + COMMIT_AT_COUNT);
    ret->first_position = buffer_get_u64(from + COMMIT_AT_FIRST);
    ret->durable_before = buffer_get_u64(from + COMMIT_AT_DURABLE);
    ret->wall_ms = (int64_t)buffer_get_u64(from + COMMIT_AT_WALL);
    return true;
}

bool journal_is_commit(const uint8_t *at)
{
    return buffer_get_u32(at + AT_MAGIC) == COMMIT_MAGIC;
}

bool journal_is_frame(const uint8_t *at)
{
    return buffer_get_u32(at + AT_MAGIC) == FRAME_MAGIC;
}

void journal_frame_encode(const struct journal_frame_parts *parts, uint8_t *to)
{
    size_t payload = parts->head.size + parts->body.size;
    assert(payload <= LIMIT_FRAME_BYTES);
    memset(to, 0, JOURNAL_FRAME_HEAD_BYTES);
    buffer_put_u32(to + AT_MAGIC, FRAME_MAGIC);
    buffer_put_u32(to + FRAME_AT_BYTES, (uint32_t)payload);
    buffer_put_u64(to + FRAME_AT_ORG, parts->org);
    buffer_put_u32(to + FRAME_AT_RECORDS, parts->record_count);
    to[FRAME_AT_LANE] = parts->lane;
    to[FRAME_AT_FORM] = parts->form;
    uint8_t *at = to + JOURNAL_FRAME_HEAD_BYTES;
    if (parts->head.size > 0) {
        memcpy(at, parts->head.data, parts->head.size);
    }
    if (parts->body.size > 0) {
        memcpy(at + parts->head.size, parts->body.data, parts->body.size);
    }
    memset(at + payload, 0, journal_frame_size(payload) - JOURNAL_FRAME_HEAD_BYTES - payload);
}

void journal_frame_peek(const uint8_t *from, struct journal_frame *ret)
{
    uint32_t payload = buffer_get_u32(from + FRAME_AT_BYTES);
    ret->checksum = buffer_get_u64(from);
    ret->position = buffer_get_u64(from + FRAME_AT_POSITION);
    ret->org = buffer_get_u64(from + FRAME_AT_ORG);
    ret->record_count = buffer_get_u32(from + FRAME_AT_RECORDS);
    ret->lane = from[FRAME_AT_LANE];
    ret->form = from[FRAME_AT_FORM];
    ret->bytes = journal_frame_size(payload);
    ret->bytes_slice = slice_make(from + JOURNAL_FRAME_HEAD_BYTES, payload);
}

static uint64_t frame_checksum(const uint8_t *frame, uint64_t size, uint64_t salt)
{
    return hash_xxh3(frame + 8, size - 8, salt);
}

void journal_frame_seal(uint8_t *frame, uint64_t position, uint64_t salt)
{
    uint64_t size = journal_frame_claimed_size(frame);
    assert(size != 0);
    buffer_put_u64(frame + FRAME_AT_POSITION, position);
    buffer_put_u64(frame, frame_checksum(frame, size, salt));
}

uint64_t journal_frame_claimed_size(const uint8_t *from)
{
    uint32_t payload = buffer_get_u32(from + FRAME_AT_BYTES);
    return journal_is_frame(from) && payload <= LIMIT_FRAME_BYTES ? journal_frame_size(payload) : 0;
}

bool journal_frame_decode(const uint8_t *from, uint64_t salt, struct journal_frame *ret)
{
    uint64_t size = journal_frame_claimed_size(from);
    if (size == 0 || buffer_get_u64(from) != frame_checksum(from, size, salt)) {
        return false;
    }
    journal_frame_peek(from, ret);
    return true;
}
