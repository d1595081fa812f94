/* Share: what one applier made of a frame, on its way to the node that answers who waits.
 *
 *   offset size  what
 *        0    1  version: 2
 *        1    1  error
 *        2    2  zero
 *        4    4  events that were applied
 *        8    4  events of the frame in all
 *       12    4  states of elements below
 *       16    8  run
 *       24    8  waiter
 *       32    8  position
 *       40    8  inserted
 *       48    8  duplicates
 *       56    8  conflicts
 *       64    8  refused
 *       72   16  id of the upload that is over with it; all zero: none
 *       88       a byte for each element (enum record_item_state)
 *
 * All little-endian. */
#include "record/record.h"

enum { SHARE_VERSION = 2, SHARE_UPLOAD_AT = 72 };

enum err record_share_encode(const struct record_share *share, struct buffer *to)
{
    const struct record_result *result = &share->result;
    uint8_t head[RECORD_SHARE_HEAD_BYTES] = {SHARE_VERSION, (uint8_t)result->err};
    const uint64_t numbers[] = {share->run,       share->waiter,      result->position,
                                result->inserted, result->duplicates, result->conflicts,
                                result->refused};
    buffer_put_u32(head + 4, share->done);
    buffer_put_u32(head + 8, share->total);
    buffer_put_u32(head + 12, result->item_count);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        buffer_put_u64(head + 16 + 8 * i, numbers[i]);
    }
    memcpy(head + SHARE_UPLOAD_AT, share->upload.bytes, sizeof(share->upload.bytes));
    enum err err = buffer_append_slice(to, slice_make(head, sizeof(head)));
    return err != ERR_OK ? err
                         : buffer_append_slice(to, slice_make(result->items, result->item_count));
}

enum err record_share_decode(struct slice bytes, struct record_share *ret)
{
    const uint8_t *head = bytes.data;
    if (bytes.size < RECORD_SHARE_HEAD_BYTES || head[0] != SHARE_VERSION || head[1] >= ERR_COUNT) {
        return ERR_CORRUPT;
    }
    uint32_t item_count = buffer_get_u32(head + 12);
    if (item_count > LIMIT_BATCH_ITEMS_ANSWERED ||
        bytes.size != RECORD_SHARE_HEAD_BYTES + (size_t)item_count) {
        return ERR_CORRUPT;
    }
    ret->done = buffer_get_u32(head + 4);
    ret->total = buffer_get_u32(head + 8);
    ret->run = buffer_get_u64(head + 16);
    ret->waiter = buffer_get_u64(head + 24);
    memcpy(ret->upload.bytes, head + SHARE_UPLOAD_AT, sizeof(ret->upload.bytes));
    ret->result.err = (enum err)head[1];
    ret->result.position = buffer_get_u64(head + 32);
    ret->result.inserted = buffer_get_u64(head + 40);
    ret->result.duplicates = buffer_get_u64(head + 48);
    ret->result.conflicts = buffer_get_u64(head + 56);
    ret->result.refused = buffer_get_u64(head + 64);
    ret->result.item_count = item_count;
    memcpy(ret->result.items, head + RECORD_SHARE_HEAD_BYTES, item_count);
    return ERR_OK;
}
