/* Promise: a refused element's row says where it stood and why, and texts beyond their room are
 * cut, never spilled. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "record/record.h"

static void row_comes_back(void **state)
{
    (void)state;
    uint8_t bytes[RECORD_REJECT_BYTES];
    struct record_reject in = {.index = 7,
                               .offset = UINT64_C(5000000000),
                               .code = SLICE_LITERAL("missing_field"),
                               .pointer = SLICE_LITERAL("/type"),
                               .message = SLICE_LITERAL("type is required")};
    struct record_reject out;
    record_reject_encode(&in, bytes);
    record_reject_decode(bytes, &out);
    assert_int_equal(out.index, 7);
    assert_int_equal(out.offset, UINT64_C(5000000000));
    assert_true(slice_equal(out.code, in.code));
    assert_true(slice_equal(out.pointer, in.pointer));
    assert_true(slice_equal(out.message, in.message));
}

static void long_texts_are_cut(void **state)
{
    (void)state;
    uint8_t bytes[RECORD_REJECT_BYTES];
    char text[100];
    memset(text, 'x', sizeof(text));
    struct record_reject in = {.code = slice_make(text, sizeof(text)),
                               .pointer = slice_make(text, sizeof(text)),
                               .message = slice_make(text, sizeof(text))};
    struct record_reject out;
    record_reject_encode(&in, bytes);
    record_reject_decode(bytes, &out);
    assert_int_equal(out.code.size, 24);
    assert_int_equal(out.pointer.size, 64);
    assert_int_equal(out.message.size, 80);
}

static void foreign_sizes_stay_inside_the_row(void **state)
{
    (void)state;
    uint8_t bytes[RECORD_REJECT_BYTES];
    memset(bytes, 0xff, sizeof(bytes));
    struct record_reject out;
    record_reject_decode(bytes, &out);
    assert_true(out.message.data + out.message.size <= bytes + sizeof(bytes));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(row_comes_back),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(foreign_sizes_stay_inside_the_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
