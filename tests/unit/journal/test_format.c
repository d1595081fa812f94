/* Promise: the bytes on disk are those that the head of format.c documents, and a byte that is not
 * as it was written does not verify. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <xxhash.h>

#include "journal/format.h"

static const struct journal_segment_head segment_sample = {
    .flags = JOURNAL_SEGMENT_WAS_ZERO,
    .journal = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
    .salt = 0x1122334455667788u,
    .sequence = 2,
    .base = 3,
    .first_position = 4,
    .durable_before = 5,
    .opened_ms = 6,
};

static void test_segment_head_bytes(void **state)
{
    (void)state;
    uint8_t page[JOURNAL_SEGMENT_HEAD_BYTES];
    static const uint8_t after_checksum[] = {
        'W',  'E',  'I',  'R',  'J',  'S',  'G', '1', 1,  0,  0,  0,  1,  0,  0,  0,    1,
        2,    3,    4,    5,    6,    7,    8,   9,   10, 11, 12, 13, 14, 15, 16, 0x88, 0x77,
        0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 2,   0,   0,  0,  0,  0,  0,  0,  3,  0,    0,
        0,    0,    0,    0,    0,    4,    0,   0,   0,  0,  0,  0,  0,  5,  0,  0,    0,
        0,    0,    0,    0,    6,    0,    0,   0,   0,  0,  0,  0,  0};
    journal_segment_head_encode(&segment_sample, page);
    assert_memory_equal(page + 8, after_checksum, sizeof(after_checksum));
    for (size_t i = 88; i < 2048; i++) {
        assert_int_equal(page[i], 0);
    }
    assert_memory_equal(page, page + 2048, 2048);
    assert_true(buffer_get_u64(page) == XXH3_64bits_withSeed(page + 8, 2040, 0));
}

static void test_segment_head_survives_one_copy(void **state)
{
    (void)state;
    uint8_t page[JOURNAL_SEGMENT_HEAD_BYTES];
    struct journal_segment_head back;
    uint32_t bad_bytes = 99;
    journal_segment_head_encode(&segment_sample, page);
    assert_int_equal(journal_segment_head_decode(page, &back, &bad_bytes), ERR_OK);
    assert_int_equal(bad_bytes, 0);
    for (size_t i = 0; i < sizeof(page); i++) {
        page[i] ^= 0x10;
        assert_int_equal(journal_segment_head_decode(page, &back, &bad_bytes), ERR_OK);
        assert_int_equal(bad_bytes, 2048);
        assert_true(back.salt == segment_sample.salt && back.sequence == 2 && back.base == 3);
        assert_true(back.first_position == 4 && back.durable_before == 5 && back.opened_ms == 6);
        page[i] ^= 0x10;
    }
    page[8] ^= 1;
    page[2048 + 2047] ^= 1;
    assert_int_equal(journal_segment_head_decode(page, &back, &bad_bytes), ERR_CORRUPT);
}

static void test_commit_head_bytes(void **state)
{
    (void)state;
    struct journal_commit_head head = {.flags = JOURNAL_COMMIT_CLOSES,
                                       .bytes = 2,
                                       .frame_count = 3,
                                       .first_position = 4,
                                       .durable_before = 5,
                                       .wall_ms = 6};
    struct journal_commit_head back;
    uint8_t bytes[JOURNAL_COMMIT_HEAD_BYTES];
    static const uint8_t after_checksum[] = {
        'W', 'C', 'M', 'T', 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0,
        0,   0,   0,   0,   6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    journal_commit_head_encode(&head, 1000, 4096, bytes);
    assert_memory_equal(bytes + 8, after_checksum, sizeof(after_checksum));
    assert_true(buffer_get_u64(bytes) == XXH3_64bits_withSeed(bytes + 8, 56, 5096));
    assert_true(journal_commit_head_decode(bytes, 1000, 4096, &back));
    assert_true(back.first_position == 4 && back.durable_before == 5 && back.wall_ms == 6);
    /* Neither another segment's salt nor another place. */
    assert_false(journal_commit_head_decode(bytes, 1001, 4096, &back));
    assert_false(journal_commit_head_decode(bytes, 1000, 8192, &back));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] ^= 0x80;
        assert_false(journal_commit_head_decode(bytes, 1000, 4096, &back));
        bytes[i] ^= 0x80;
    }
}

static void test_frame_bytes(void **state)
{
    (void)state;
    struct journal_frame_parts parts = {.org = 7,
                                        .lane = 8,
                                        .form = 9,
                                        .record_count = 10,
                                        .head = SLICE_LITERAL("head"),
                                        .body = SLICE_LITERAL("body!")};
    struct journal_frame back;
    uint8_t bytes[56];
    static const uint8_t after_checksum[] = {'W', 'F', 'R', 'M', 9,   0, 0, 0, 11,  0,   0,   0,
                                             0,   0,   0,   0,   7,   0, 0, 0, 0,   0,   0,   0,
                                             10,  0,   0,   0,   8,   9, 0, 0, 'h', 'e', 'a', 'd',
                                             'b', 'o', 'd', 'y', '!', 0, 0, 0, 0,   0,   0,   0};
    assert_int_equal(journal_frame_size(9), 56); /* 40 + 9, to the next multiple of 8 */
    assert_int_equal(journal_frame_size(0), 40);
    memset(bytes, 0xff, sizeof(bytes));
    journal_frame_encode(&parts, bytes);
    journal_frame_seal(bytes, 11, 1000);
    assert_memory_equal(bytes + 8, after_checksum, sizeof(after_checksum));
    assert_true(buffer_get_u64(bytes) == XXH3_64bits_withSeed(bytes + 8, 48, 1000));
    assert_true(journal_frame_decode(bytes, 1000, &back));
    assert_true(back.position == 11 && back.org == 7 && back.bytes == 56);
    assert_int_equal(back.lane, 8);
    assert_int_equal(back.form, 9);
    assert_int_equal(back.record_count, 10);
    assert_true(slice_equal(back.bytes_slice, SLICE_LITERAL("headbody!")));
    assert_false(journal_frame_decode(bytes, 1001, &back));
    buffer_put_u32(bytes + 12, LIMIT_FRAME_BYTES + 1);
    assert_int_equal(journal_frame_claimed_size(bytes), 0);
    buffer_put_u32(bytes + 12, 9);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        if (i >= 12 && i < 16) {
            continue; /* the size: another range would be read, which scan bounds */
        }
        bytes[i] ^= 1;
        assert_false(journal_frame_decode(bytes, 1000, &back));
        bytes[i] ^= 1;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segment_head_bytes),
        cmocka_unit_test(test_segment_head_survives_one_copy),
        cmocka_unit_test(test_commit_head_bytes),
        cmocka_unit_test(test_frame_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
