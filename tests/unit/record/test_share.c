/* Promise: what one node made of a frame reaches the node that answers as it was; bytes of another
 * version, cut short or too long, are refused, and nothing is read beyond them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "record/record.h"

#include <string.h>

static struct record_share *make(uint32_t item_count)
{
    struct record_share *share = mem_alloc(sizeof(*share));
    share->run = UINT64_C(0x1122334455667788);
    share->waiter = 42;
    share->done = 3;
    share->total = 1000;
    for (size_t i = 0; i < sizeof(share->upload.bytes); i++) {
        share->upload.bytes[i] = (uint8_t)(0xf0u + i);
    }
    share->result.err = ERR_CORRUPT;
    share->result.position = UINT64_MAX;
    share->result.inserted = 1;
    share->result.duplicates = 2;
    share->result.conflicts = 3;
    share->result.refused = 4;
    share->result.item_count = item_count;
    for (uint32_t i = 0; i < item_count; i++) {
        share->result.items[i] = (uint8_t)(i % 5);
    }
    return share;
}

static void test_round_trip(void **state)
{
    static const uint32_t counts[] = {0, 1, LIMIT_BATCH_ITEMS_ANSWERED};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct record_share *share = make(counts[i]);
        struct record_share *found = mem_alloc(sizeof(*found));
        struct buffer bytes;
        buffer_init(&bytes, RECORD_SHARE_HEAD_BYTES + LIMIT_BATCH_ITEMS_ANSWERED);
        assert_int_equal(record_share_encode(share, &bytes), ERR_OK);
        assert_int_equal(bytes.size, RECORD_SHARE_HEAD_BYTES + counts[i]);
        assert_int_equal(record_share_decode(buffer_slice(&bytes), found), ERR_OK);
        assert_int_equal(found->run, share->run);
        assert_int_equal(found->waiter, 42);
        assert_int_equal(found->done, 3);
        assert_int_equal(found->total, 1000);
        assert_memory_equal(found->upload.bytes, share->upload.bytes, sizeof(share->upload.bytes));
        assert_int_equal(found->result.err, ERR_CORRUPT);
        assert_true(found->result.position == UINT64_MAX);
        assert_int_equal(found->result.inserted, 1);
        assert_int_equal(found->result.duplicates, 2);
        assert_int_equal(found->result.conflicts, 3);
        assert_int_equal(found->result.refused, 4);
        assert_int_equal(found->result.item_count, counts[i]);
        assert_memory_equal(found->result.items, share->result.items, counts[i]);
        buffer_finish(&bytes);
        mem_free(found);
        mem_free(share);
    }
}

static void test_what_is_no_share(void **state)
{
    (void)state;
    struct record_share *share = make(10);
    struct buffer bytes;
    buffer_init(&bytes, 2 * (size_t)RECORD_SHARE_HEAD_BYTES);
    assert_int_equal(record_share_encode(share, &bytes), ERR_OK);
    for (size_t size = 0; size < bytes.size; size++) {
        uint8_t *cut = mem_alloc(size + 1); /* so that the sanitizer sees what is read beyond it */
        memcpy(cut, bytes.data, size);
        assert_int_equal(record_share_decode(slice_make(cut, size), share), ERR_CORRUPT);
        mem_free(cut);
    }
    assert_int_equal(buffer_append_text(&bytes, "x"), ERR_OK);
    assert_int_equal(record_share_decode(buffer_slice(&bytes), share), ERR_CORRUPT);
    bytes.size--;
    bytes.data[0] = 1;
    assert_int_equal(record_share_decode(buffer_slice(&bytes), share), ERR_CORRUPT);
    bytes.data[0] = 2;
    bytes.data[1] = 255;
    assert_int_equal(record_share_decode(buffer_slice(&bytes), share), ERR_CORRUPT);
    bytes.data[1] = 0;
    buffer_put_u32(bytes.data + 12, UINT32_MAX);
    assert_int_equal(record_share_decode(buffer_slice(&bytes), share), ERR_CORRUPT);
    buffer_finish(&bytes);
    mem_free(share);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_what_is_no_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
