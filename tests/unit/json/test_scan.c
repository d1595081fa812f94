/* Promise: every variant of the scans gives the scalar answer for all bytes, lengths and
 * alignments, and none reads a byte past the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "json/scan.h"
#include "json/scan_wide.h"

/* The portable variant beside the one in use, under names of its own. */
#define scan_odd_mask   portable_odd_mask
#define scan_space_mask portable_space_mask
#define scan_digit_mask portable_digit_mask
#include "json/scan_portable.h"
#undef scan_odd_mask
#undef scan_space_mask
#undef scan_digit_mask

#define PAGE 4096u

/* A page whose end is the end of what may be read. */
static uint8_t *page_before_nothing(void)
{
    uint8_t *pages =
        mmap(NULL, (size_t)2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
    assert_int_equal(mprotect(pages + PAGE, PAGE, PROT_NONE), 0);
    return pages;
}

/* What RFC 8259 section 7 and the header say, in one line. */
static int is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

static void check_plain(json_plain_fn plain)
{
    uint8_t *page = page_before_nothing();
    uint8_t *end = page + PAGE;
    memset(page, 'a', PAGE);
    for (size_t size = 0; size <= 200; size++) {
        assert_ptr_equal(plain(end - size, end), end);
        for (size_t at = 0; at < size; at++) {
            end[-(ptrdiff_t)size + (ptrdiff_t)at] = '"';
            assert_ptr_equal(plain(end - size, end), end - size + at);
            end[-(ptrdiff_t)size + (ptrdiff_t)at] = 'a';
        }
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        for (size_t at = 0; at < 70; at++) {
            page[at] = (uint8_t)byte;
            const uint8_t *expected = is_plain((uint8_t)byte) ? page + 80 : page + at;
            assert_ptr_equal(plain(page, page + 80), expected);
            page[at] = 'a';
        }
    }
    assert_int_equal(munmap(page, (size_t)2 * PAGE), 0);
}

static void test_plain_scalar(void **state)
{
    (void)state;
    check_plain(json_plain_scalar);
}

static void test_plain_base(void **state)
{
    (void)state;
    check_plain(json_plain_base);
}

/* On a processor without the wide instructions this is the base variant once more. */
static void test_plain_chosen(void **state)
{
    (void)state;
    assert_true(json_plain_wide() == NULL || json_plain_wide() == json_plain_choose());
    check_plain(json_plain_choose());
}

static void test_plain_short(void **state)
{
    (void)state;
    uint8_t bytes[64];
    memset(bytes, 'a', sizeof(bytes));
    assert_ptr_equal(json_plain_short(bytes, bytes + 31), bytes);
    assert_ptr_equal(json_plain_short(bytes, bytes + 32), bytes + 32);
    assert_ptr_equal(json_plain_short(bytes, bytes + 64), bytes + 32);
    for (size_t at = 0; at < 32; at++) {
        bytes[at] = '\\';
        assert_ptr_equal(json_plain_short(bytes, bytes + 64), bytes + at);
        bytes[at] = 'a';
    }
}

static void test_space(void **state)
{
    (void)state;
    uint8_t *page = page_before_nothing();
    uint8_t *end = page + PAGE;
    static const uint8_t spaces[] = {' ', '\n', '\r', '\t'};
    for (size_t i = 0; i < PAGE; i++) {
        page[i] = spaces[i % 4];
    }
    for (size_t size = 0; size <= 80; size++) {
        assert_ptr_equal(json_space_end(end - size, end), end);
        for (size_t at = 0; at < size; at++) {
            uint8_t *ink = end - size + at;
            uint8_t space = *ink;
            for (unsigned byte = 0; byte < 256; byte++) {
                *ink = (uint8_t)byte;
                const uint8_t *expected = memchr(spaces, (int)byte, 4) != NULL ? end : ink;
                assert_ptr_equal(json_space_end(end - size, end), expected);
            }
            *ink = space;
        }
    }
    assert_int_equal(munmap(page, (size_t)2 * PAGE), 0);
}

static void test_masks_equal_the_portable_ones(void **state)
{
    (void)state;
    unsigned seed = (unsigned)getpid();
    print_message("seed %u\n", seed);
    static const uint8_t likely[] = "0123456789\"\\ \n\r\t/:.-\x1f\x20\x7f\x80\xff";
    for (int round = 0; round < 100000; round++) {
        uint8_t bytes[16];
        for (size_t i = 0; i < 16; i++) {
            bytes[i] = rand_r(&seed) % 2 == 0 ? (uint8_t)rand_r(&seed)
                                              : likely[(size_t)rand_r(&seed) % 25];
        }
        assert_int_equal(scan_odd_mask(bytes), portable_odd_mask(bytes));
        assert_int_equal(scan_space_mask(bytes), portable_space_mask(bytes));
        assert_int_equal(scan_digit_mask(bytes), portable_digit_mask(bytes));
    }
}

/* The twin: the portable masks are right by themselves, bit by bit. */
static void test_portable_masks(void **state)
{
    (void)state;
    assert_int_equal(portable_odd_mask((const uint8_t *)"abc\"ef\\hij\nlmn\x80p"), 0x4448);
    assert_int_equal(portable_space_mask((const uint8_t *)" a\nb\rc\td\ve\fghij"), 0x0055);
    assert_int_equal(portable_digit_mask((const uint8_t *)"0a9/:5.6-7+8e1 2"), 0xaaa5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_scalar),   cmocka_unit_test(test_plain_base),
        cmocka_unit_test(test_plain_chosen),   cmocka_unit_test(test_plain_short),
        cmocka_unit_test(test_space),          cmocka_unit_test(test_masks_equal_the_portable_ones),
        cmocka_unit_test(test_portable_masks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
