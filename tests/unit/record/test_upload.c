/* Promise: an upload's end record and table rows come back as they were written, in the documented
 * bytes; records of another size or version are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "record/record.h"

static void test_end_round_trip(void **state)
{
    (void)state;
    struct record_upload_end end = {.form = RECORD_FORM_EVENT_LINES,
                                    .decoded_bytes = 1ull << 40,
                                    .stored_bytes = 77,
                                    .element_count = 10,
                                    .accepted_count = 8,
                                    .rejected_count = 2,
                                    .slice_count = 5};
    struct record_upload_end back;
    uint8_t bytes[RECORD_UPLOAD_END_BYTES];
    memset(end.upload.bytes, 0x5a, sizeof(end.upload.bytes));
    record_upload_end_encode(&end, bytes);
    static const uint8_t start[] = {1, 3, 0, 0, 5, 0, 0, 0, 0x5a};
    assert_memory_equal(bytes, start, sizeof(start));
    assert_int_equal(bytes[29], 1); /* 2^40: sixth byte of the number at 24 */
    assert_int_equal(bytes[32], 77);
    assert_int_equal(bytes[40], 10);
    assert_int_equal(bytes[48], 8);
    assert_int_equal(bytes[56], 2);
    assert_int_equal(record_upload_end_decode(slice_make(bytes, sizeof(bytes)), &back), ERR_OK);
    assert_true(id_equal(back.upload, end.upload));
    assert_true(back.decoded_bytes == end.decoded_bytes && back.stored_bytes == 77);
    assert_true(back.element_count == 10 && back.accepted_count == 8 && back.rejected_count == 2);
    assert_int_equal(back.slice_count, 5);
    assert_int_equal(back.form, RECORD_FORM_EVENT_LINES);
}

static void test_end_of_other_size_or_version(void **state)
{
    (void)state;
    struct record_upload_end end = {.form = 1};
    struct record_upload_end back;
    uint8_t bytes[RECORD_UPLOAD_END_BYTES + 1] = {0};
    record_upload_end_encode(&end, bytes);
    assert_int_equal(record_upload_end_decode(slice_make(bytes, 63), &back), ERR_CORRUPT);
    assert_int_equal(record_upload_end_decode(slice_make(bytes, 65), &back), ERR_CORRUPT);
    bytes[0] = 2;
    assert_int_equal(record_upload_end_decode(slice_make(bytes, 64), &back), ERR_VERSION);
}

static void test_slice_round_trip(void **state)
{
    (void)state;
    struct record_slice slice = {.offset = 1ull << 33, .index = 258, .count = 3};
    struct record_slice back;
    uint8_t bytes[RECORD_SLICE_BYTES];
    record_slice_encode(&slice, bytes);
    static const uint8_t expected[] = {0, 0, 0, 0, 2, 0, 0, 0, 2, 1, 0, 0,
                                       0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0};
    assert_memory_equal(bytes, expected, sizeof(expected));
    record_slice_decode(bytes, &back);
    assert_true(back.offset == slice.offset && back.index == 258 && back.count == 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_round_trip),
        cmocka_unit_test(test_end_of_other_size_or_version),
        cmocka_unit_test(test_slice_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
