/* Promise: hexadecimal text is what printf makes of the number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/hex.h"

static void check(uint64_t value)
{
    char wanted[17];
    char text[16];
    (void)snprintf(wanted, sizeof(wanted), "%016" PRIx64, value);
    hex_put_u64(value, text);
    assert_memory_equal(text, wanted, sizeof(text));
    hex_put_u32((uint32_t)value, text);
    assert_memory_equal(text, wanted + 8, 8);
}

static void test_each_digit_in_each_place(void **state)
{
    (void)state;
    check(UINT64_MAX);
    for (int place = 0; place < 16; place++) {
        for (uint64_t digit = 0; digit < 16; digit++) {
            check(digit << (4 * place));
            check(UINT64_MAX ^ digit << (4 * place));
        }
    }
}

static void test_numbers(void **state)
{
    (void)state;
    uint64_t value = 1;
    for (int i = 0; i < 10000; i++) {
        check(value);
        value = value * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_digit_in_each_place),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
