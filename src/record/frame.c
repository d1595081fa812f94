/* Frame: the bytes that a request leaves in the journal, version 1.
 *
 *   offset size  what
 *        0    1  version: 1
 *        1    1  form (enum record_form)
 *        2    1  lane, or 255 for several
 *        3    1  zero
 *        4    2  flags
 *        6    2  attribute count, at most 64
 *        8    8  org
 *       16    8  key
 *       24    8  received, ms since 1970 UTC, signed
 *       32   16  id
 *       48    8  waiter
 *       56    8  run
 *       64    4  record count
 *       68    4  head size: the body begins there
 *       72    -  attributes, each: name size 2, value size 2, name, value
 *        -    -  body, to the end of the frame
 *
 * Numbers are little-endian. The journal's own checksum covers all of it, so decoding checks only
 * what a correct writer of another version could have made different: version, sizes, counts.
 *
 * Happy path: encode_head appends the head, the journal appends the body behind it; decode points
 * into the bytes.
 * Failure modes: another version gives ERR_VERSION; sizes that do not add up give ERR_CORRUPT. */
#include "record/record.h"

#include "base/hash.h"

#include <assert.h>

enum {
    FRAME_VERSION = 1,
    FRAME_AT_VERSION = 0,
    FRAME_AT_FORM = 1,
    FRAME_AT_LANE = 2,
    FRAME_AT_FLAGS = 4,
    FRAME_AT_ATTRIBUTE_COUNT = 6,
    FRAME_AT_ORG = 8,
    FRAME_AT_KEY = 16,
    FRAME_AT_RECEIVED = 24,
    FRAME_AT_ID = 32,
    FRAME_AT_WAITER = 48,
    FRAME_AT_RUN = 56,
    FRAME_AT_RECORD_COUNT = 64,
    FRAME_AT_HEAD_SIZE = 68,
    FRAME_HEAD_BYTES = 72,
    FRAME_ATTRIBUTE_HEAD_BYTES = 4,
};

static_assert(FRAME_AT_ID + sizeof(struct id) == FRAME_AT_WAITER, "the id has 16 bytes");
static_assert(FRAME_AT_HEAD_SIZE + sizeof(uint32_t) == FRAME_HEAD_BYTES,
              "no gap before attributes");
static_assert(RECORD_ATTRIBUTES_MAX <= UINT16_MAX, "the count has 2 bytes");
static_assert(LIMIT_HEAD_BYTES <= UINT16_MAX, "an attribute's sizes have 2 bytes");

static size_t frame_head_size(const struct record_frame *frame)
{
    size_t size = FRAME_HEAD_BYTES;
    for (uint32_t i = 0; i < frame->attribute_count; i++) {
        size += FRAME_ATTRIBUTE_HEAD_BYTES + frame->attributes[i].name.size +
                frame->attributes[i].value.size;
    }
    return size;
}

static void frame_put_fixed(const struct record_frame *frame, size_t head_size,
                            uint8_t to[FRAME_HEAD_BYTES])
{
    memset(to, 0, FRAME_HEAD_BYTES);
    to[FRAME_AT_VERSION] = FRAME_VERSION;
    to[FRAME_AT_FORM] = frame->form;
    to[FRAME_AT_LANE] = frame->lane;
    buffer_put_u16(to + FRAME_AT_FLAGS, frame->flags);
    buffer_put_u16(to + FRAME_AT_ATTRIBUTE_COUNT, (uint16_t)frame->attribute_count);
    buffer_put_u64(to + FRAME_AT_ORG, frame->org);
    buffer_put_u64(to + FRAME_AT_KEY, frame->key);
    buffer_put_u64(to + FRAME_AT_RECEIVED, (uint64_t)frame->received_ms);
    memcpy(to + FRAME_AT_ID, frame->id.bytes, sizeof(frame->id.bytes));
    buffer_put_u64(to + FRAME_AT_WAITER, frame->waiter);
    buffer_put_u64(to + FRAME_AT_RUN, frame->run);
    buffer_put_u32(to + FRAME_AT_RECORD_COUNT, frame->record_count);
    buffer_put_u32(to + FRAME_AT_HEAD_SIZE, (uint32_t)head_size);
}

/* Into room that was reserved. */
static void frame_put(struct buffer *to, const void *data, size_t size)
{
    assert(size <= to->capacity - to->size);
    if (size > 0) {
        memcpy(to->data + to->size, data, size);
    }
    to->size += size;
}

enum err record_frame_encode_head(const struct record_frame *frame, struct buffer *to)
{
    if (frame->attribute_count > RECORD_ATTRIBUTES_MAX) {
        return ERR_TOO_LARGE;
    }
    for (uint32_t i = 0; i < frame->attribute_count; i++) {
        if (frame->attributes[i].name.size > UINT16_MAX ||
            frame->attributes[i].value.size > UINT16_MAX) {
            return ERR_TOO_LARGE;
        }
    }
    size_t head_size = frame_head_size(frame);
    enum err err = buffer_reserve(to, head_size);
    if (err != ERR_OK) {
        return err;
    }
    uint8_t fixed[FRAME_HEAD_BYTES];
    frame_put_fixed(frame, head_size, fixed);
    frame_put(to, fixed, sizeof(fixed));
    for (uint32_t i = 0; i < frame->attribute_count; i++) {
        const struct record_attribute *attribute = &frame->attributes[i];
        uint8_t sizes[FRAME_ATTRIBUTE_HEAD_BYTES];
        buffer_put_u16(sizes, (uint16_t)attribute->name.size);
        buffer_put_u16(sizes + 2, (uint16_t)attribute->value.size);
        frame_put(to, sizes, sizeof(sizes));
        frame_put(to, attribute->name.data, attribute->name.size);
        frame_put(to, attribute->value.data, attribute->value.size);
    }
    return ERR_OK;
}

bool record_frame_id(struct slice bytes, struct id *ret)
{
    if (bytes.size < FRAME_HEAD_BYTES || bytes.data[FRAME_AT_VERSION] != FRAME_VERSION) {
        return false;
    }
    memcpy(ret->bytes, bytes.data + FRAME_AT_ID, sizeof(ret->bytes));
    return true;
}

static void frame_get_fixed(const uint8_t *from, struct record_frame *ret)
{
    ret->form = from[FRAME_AT_FORM];
    ret->lane = from[FRAME_AT_LANE];
    ret->flags = buffer_get_u16(from + FRAME_AT_FLAGS);
    ret->attribute_count = buffer_get_u16(from + FRAME_AT_ATTRIBUTE_COUNT);
    ret->org = buffer_get_u64(from + FRAME_AT_ORG);
    ret->key = buffer_get_u64(from + FRAME_AT_KEY);
    ret->received_ms = (int64_t)buffer_get_u64(from + FRAME_AT_RECEIVED);
    memcpy(ret->id.bytes, from + FRAME_AT_ID, sizeof(ret->id.bytes));
    ret->waiter = buffer_get_u64(from + FRAME_AT_WAITER);
    ret->run = buffer_get_u64(from + FRAME_AT_RUN);
    ret->record_count = buffer_get_u32(from + FRAME_AT_RECORD_COUNT);
}

/* Attributes must end exactly where the head does. */
static bool frame_attributes_fit(const uint8_t *from, size_t head_size, uint32_t count)
{
    size_t at = FRAME_HEAD_BYTES;
    for (uint32_t i = 0; i < count; i++) {
        if (head_size - at < FRAME_ATTRIBUTE_HEAD_BYTES) {
            return false;
        }
        size_t size = (size_t)buffer_get_u16(from + at) + buffer_get_u16(from + at + 2);
        at += FRAME_ATTRIBUTE_HEAD_BYTES;
        if (head_size - at < size) {
            return false;
        }
        at += size;
    }
    return at == head_size;
}

static void frame_get_attributes(const uint8_t *from, struct record_frame *ret)
{
    const uint8_t *at = from + FRAME_HEAD_BYTES;
    for (uint32_t i = 0; i < ret->attribute_count; i++) {
        size_t name_size = buffer_get_u16(at);
        size_t value_size = buffer_get_u16(at + 2);
        at += FRAME_ATTRIBUTE_HEAD_BYTES;
        ret->attributes[i].name = slice_make(at, name_size);
        ret->attributes[i].value = slice_make(at + name_size, value_size);
        at += name_size + value_size;
    }
}

enum err record_frame_decode(struct slice bytes, struct record_frame *ret)
{
    if (bytes.size < FRAME_HEAD_BYTES) {
        return ERR_CORRUPT;
    }
    if (bytes.data[FRAME_AT_VERSION] != FRAME_VERSION) {
        return ERR_VERSION;
    }
    size_t head_size = buffer_get_u32(bytes.data + FRAME_AT_HEAD_SIZE);
    uint32_t attribute_count = buffer_get_u16(bytes.data + FRAME_AT_ATTRIBUTE_COUNT);
    uint8_t lane = bytes.data[FRAME_AT_LANE];
    if (head_size < FRAME_HEAD_BYTES || head_size > bytes.size ||
        attribute_count > RECORD_ATTRIBUTES_MAX ||
        (lane >= LIMIT_LANES && lane != RECORD_LANE_MIXED) ||
        !frame_attributes_fit(bytes.data, head_size, attribute_count)) {
        return ERR_CORRUPT;
    }
    frame_get_fixed(bytes.data, ret);
    frame_get_attributes(bytes.data, ret);
    ret->body = slice_part(bytes, head_size, bytes.size);
    return ERR_OK;
}

struct slice record_frame_attribute(const struct record_frame *frame, const char *name)
{
    struct slice wanted = slice_from_text(name);
    for (uint32_t i = 0; i < frame->attribute_count; i++) {
        if (slice_equal(frame->attributes[i].name, wanted)) {
            return frame->attributes[i].value;
        }
    }
    return (struct slice){NULL, 0};
}
