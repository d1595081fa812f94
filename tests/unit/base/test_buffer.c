/* Promise: a buffer holds what was appended, and refuses what would pass its limit unchanged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buffer.h"

#include <string.h>

static void assert_holds(const struct buffer *buffer, const char *text)
{
    assert_true(slice_equal(buffer_slice(buffer), slice_from_text(text)));
}

static void test_appending(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 1000);
    assert_int_equal(buffer_append_text(&buffer, "a"), ERR_OK);
    assert_int_equal(buffer_append_slice(&buffer, SLICE_LITERAL("bc")), ERR_OK);
    assert_int_equal(buffer_append_byte(&buffer, ','), ERR_OK);
    assert_int_equal(buffer_append_i64(&buffer, INT64_MIN), ERR_OK);
    assert_int_equal(buffer_append_byte(&buffer, ','), ERR_OK);
    assert_int_equal(buffer_append_i64(&buffer, 0), ERR_OK);
    assert_int_equal(buffer_append_i64(&buffer, -1), ERR_OK);
    assert_int_equal(buffer_append_i64(&buffer, 10), ERR_OK);
    assert_int_equal(buffer_append(&buffer, NULL, 0), ERR_OK);
    assert_holds(&buffer, "abc,-9223372036854775808,0-110");
    buffer_clear(&buffer);
    assert_int_equal(buffer_printf(&buffer, "%s=%d", "x", 5), ERR_OK);
    assert_int_equal(buffer_printf(&buffer, "%300d", 7), ERR_OK);
    assert_int_equal(buffer.size, 303);
    assert_memory_equal(buffer.data, "x=5 ", 4);
    assert_int_equal(buffer.data[302], '7');
    buffer_finish(&buffer);
}

static void test_limit(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 10);
    assert_int_equal(buffer_append_text(&buffer, "01234567"), ERR_OK);
    assert_int_equal(buffer_append_text(&buffer, "890"), ERR_TOO_LARGE);
    assert_int_equal(buffer_append_i64(&buffer, 123), ERR_TOO_LARGE);
    assert_int_equal(buffer_printf(&buffer, "%s", "890"), ERR_TOO_LARGE);
    assert_int_equal(buffer_printf(&buffer, "%300d", 1), ERR_TOO_LARGE);
    assert_int_equal(buffer_reserve(&buffer, SIZE_MAX), ERR_TOO_LARGE);
    assert_holds(&buffer, "01234567");
    /* Exactly the limit is no error. */
    assert_int_equal(buffer_printf(&buffer, "%s", "89"), ERR_OK);
    assert_holds(&buffer, "0123456789");
    assert_int_equal(buffer.capacity, 10);
    assert_int_equal(buffer_append_byte(&buffer, 'x'), ERR_TOO_LARGE);
    assert_int_equal(buffer_append(&buffer, "", 0), ERR_OK);
    buffer_finish(&buffer);
    buffer_init(&buffer, 4);
    assert_int_equal(buffer_append_text(&buffer, "abcd"), ERR_OK);
    buffer_finish(&buffer);
    buffer_init(&buffer, 0);
    assert_int_equal(buffer_append_byte(&buffer, 'x'), ERR_TOO_LARGE);
    buffer_finish(&buffer);
}

static void test_growth_keeps_the_bytes(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 100000);
    for (uint32_t i = 0; i < 25000; i++) {
        uint8_t bytes[4];
        buffer_put_u32(bytes, i);
        assert_int_equal(buffer_append(&buffer, bytes, 4), ERR_OK);
    }
    assert_int_equal(buffer.size, 100000);
    assert_int_equal(buffer.capacity, 100000);
    for (uint32_t i = 0; i < 25000; i++) {
        assert_int_equal(buffer_get_u32(buffer.data + (size_t)i * 4), i);
    }
    buffer_finish(&buffer);
    buffer_finish(&buffer);
}

static void test_consuming_and_shrinking(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 1000);
    buffer_consume(&buffer, 0);
    assert_int_equal(buffer_append_text(&buffer, "abcdef"), ERR_OK);
    buffer_consume(&buffer, 4);
    assert_holds(&buffer, "ef");
    buffer_consume(&buffer, 2);
    assert_int_equal(buffer.size, 0);
    assert_int_equal(buffer_reserve(&buffer, 500), ERR_OK);
    buffer_shrink(&buffer, 500);
    assert_true(buffer.capacity >= 500);
    buffer_shrink(&buffer, 499);
    assert_int_equal(buffer.capacity, 0);
    /* Given back, not given up. */
    assert_int_equal(buffer_append_text(&buffer, "g"), ERR_OK);
    assert_holds(&buffer, "g");
    buffer_finish(&buffer);
}

static void test_numbers_in_bytes_are_little_endian(void **state)
{
    (void)state;
    uint8_t bytes[8];
    buffer_put_u64(bytes, 0x0102030405060708u);
    assert_memory_equal(bytes, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
    assert_true(buffer_get_u64(bytes) == 0x0102030405060708u);
    assert_int_equal(buffer_get_u32(bytes), 0x05060708);
    assert_int_equal(buffer_get_u16(bytes), 0x0708);
    buffer_put_u16(bytes, 0xfffe);
    assert_int_equal(bytes[0], 0xfe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appending),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_growth_keeps_the_bytes),
        cmocka_unit_test(test_consuming_and_shrinking),
        cmocka_unit_test(test_numbers_in_bytes_are_little_endian),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
