/* Reject: an element that was refused, in an upload's table of contents.
 *
 * Row, 192 bytes, little-endian, unused bytes zero:
 *
 *   offset size  what
 *        0    8  index of the element
 *        8    8  its offset in the decoded bytes
 *       16    1  bytes of code
 *       17    1  bytes of pointer
 *       18    1  bytes of message
 *       19    5  zero
 *       24   24  code
 *       48   64  pointer
 *      112   80  message */
#include "record/record.h"

#include <assert.h>

enum {
    REJECT_AT_INDEX = 0,
    REJECT_AT_OFFSET = 8,
    REJECT_AT_SIZES = 16,
    REJECT_AT_CODE = 24,
    REJECT_AT_POINTER = 48,
    REJECT_AT_MESSAGE = 112,
};
static_assert(REJECT_AT_MESSAGE + 80 == RECORD_REJECT_BYTES, "the row is full");

struct reject_text {
    size_t at;
    size_t room;
};
static const struct reject_text reject_texts[3] = {
    {REJECT_AT_CODE, REJECT_AT_POINTER - REJECT_AT_CODE},
    {REJECT_AT_POINTER, REJECT_AT_MESSAGE - REJECT_AT_POINTER},
    {REJECT_AT_MESSAGE, RECORD_REJECT_BYTES - REJECT_AT_MESSAGE},
};

void record_reject_encode(const struct record_reject *reject, uint8_t to[RECORD_REJECT_BYTES])
{
    const struct slice texts[3] = {reject->code, reject->pointer, reject->message};
    memset(to, 0, RECORD_REJECT_BYTES);
    buffer_put_u64(to + REJECT_AT_INDEX, reject->index);
    buffer_put_u64(to + REJECT_AT_OFFSET, reject->offset);
    for (size_t i = 0; i < 3; i++) {
        struct slice cut = slice_part(texts[i], 0, reject_texts[i].room);
        to[REJECT_AT_SIZES + i] = (uint8_t)cut.size;
        if (cut.size != 0) {
            memcpy(to + reject_texts[i].at, cut.data, cut.size);
        }
    }
}

void record_reject_decode(const uint8_t from[RECORD_REJECT_BYTES], struct record_reject *ret)
{
    struct slice texts[3];
    for (size_t i = 0; i < 3; i++) {
        size_t size = from[REJECT_AT_SIZES + i];
        size = size > reject_texts[i].room ? reject_texts[i].room : size;
        texts[i] = slice_make(from + reject_texts[i].at, size);
    }
    ret->index = buffer_get_u64(from + REJECT_AT_INDEX);
    ret->offset = buffer_get_u64(from + REJECT_AT_OFFSET);
    ret->code = texts[0];
    ret->pointer = texts[1];
    ret->message = texts[2];
}
