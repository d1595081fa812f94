/* Upload: the end record that makes an upload exist, and the rows of its table of contents.
 *
 * End record, 64 bytes, version 1:
 *
 *   offset size  what
 *        0    1  version: 1
 *        1    1  form (enum record_form) of the decoded bytes
 *        2    2  zero
 *        4    4  slice count
 *        8   16  id of the upload
 *       24    8  decoded bytes
 *       32    8  stored bytes
 *       40    8  elements in all
 *       48    8  accepted
 *       56    8  rejected
 *
 * Slice, 24 bytes: offset 8, index of its first element 8, count 8. All little-endian. */
#include "record/record.h"

#include <assert.h>

enum {
    UPLOAD_END_VERSION = 1,
    UPLOAD_END_AT_VERSION = 0,
    UPLOAD_END_AT_FORM = 1,
    UPLOAD_END_AT_SLICE_COUNT = 4,
    UPLOAD_END_AT_ID = 8,
    UPLOAD_END_AT_DECODED = 24,
    UPLOAD_END_AT_STORED = 32,
    UPLOAD_END_AT_ELEMENTS = 40,
    UPLOAD_END_AT_ACCEPTED = 48,
    UPLOAD_END_AT_REJECTED = 56,
};
static_assert(UPLOAD_END_AT_REJECTED + 8 == RECORD_UPLOAD_END_BYTES, "the record is full");
static_assert(UPLOAD_END_AT_ID + sizeof(struct id) == UPLOAD_END_AT_DECODED, "16 bytes of id");
static_assert(RECORD_SLICE_BYTES == 3 * 8, "three numbers");

void record_upload_end_encode(const struct record_upload_end *end,
                              uint8_t to[RECORD_UPLOAD_END_BYTES])
{
    memset(to, 0, RECORD_UPLOAD_END_BYTES);
    to[UPLOAD_END_AT_VERSION] = UPLOAD_END_VERSION;
    to[UPLOAD_END_AT_FORM] = end->form;
    buffer_put_u32(to + UPLOAD_END_AT_SLICE_COUNT, end->slice_count);
    memcpy(to + UPLOAD_END_AT_ID, end->upload.bytes, sizeof(end->upload.bytes));
    buffer_put_u64(to + UPLOAD_END_AT_DECODED, end->decoded_bytes);
    buffer_put_u64(to + UPLOAD_END_AT_STORED, end->stored_bytes);
    buffer_put_u64(to + UPLOAD_END_AT_ELEMENTS, end->element_count);
    buffer_put_u64(to + UPLOAD_END_AT_ACCEPTED, end->accepted_count);
    buffer_put_u64(to + UPLOAD_END_AT_REJECTED, end->rejected_count);
}

enum err record_upload_end_decode(struct slice bytes, struct record_upload_end *ret)
{
    if (bytes.size != RECORD_UPLOAD_END_BYTES) {
        return ERR_CORRUPT;
    }
    if (bytes.data[UPLOAD_END_AT_VERSION] != UPLOAD_END_VERSION) {
        return ERR_VERSION;
    }
    ret->form = bytes.data[UPLOAD_END_AT_FORM];
    ret->slice_count = buffer_get_u32(bytes.data + UPLOAD_END_AT_SLICE_COUNT);
    memcpy(ret->upload.bytes, bytes.data + UPLOAD_END_AT_ID, sizeof(ret->upload.bytes));
    ret->decoded_bytes = buffer_get_u64(bytes.data + UPLOAD_END_AT_DECODED);
    ret->stored_bytes = buffer_get_u64(bytes.data + UPLOAD_END_AT_STORED);
    ret->element_count = buffer_get_u64(bytes.data + UPLOAD_END_AT_ELEMENTS);
    ret->accepted_count = buffer_get_u64(bytes.data + UPLOAD_END_AT_ACCEPTED);
    ret->rejected_count = buffer_get_u64(bytes.data + UPLOAD_END_AT_REJECTED);
    return ERR_OK;
}

void record_slice_encode(const struct record_slice *slice, uint8_t to[RECORD_SLICE_BYTES])
{
    buffer_put_u64(to, slice->offset);
    buffer_put_u64(to + 8, slice->index);
    buffer_put_u64(to + 16, slice->count);
}

void record_slice_decode(const uint8_t from[RECORD_SLICE_BYTES], struct record_slice *ret)
{
    ret->offset = buffer_get_u64(from);
    ret->index = buffer_get_u64(from + 8);
    ret->count = buffer_get_u64(from + 16);
}
