/* Promise: slices compare, cut and read numbers exactly, and an empty one is welcome everywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/slice.h"

#define S SLICE_LITERAL

static const struct slice none = {NULL, 0};

static void test_comparing(void **state)
{
    (void)state;
    assert_true(slice_equal(S("abc"), slice_from_text("abc")));
    assert_true(slice_equal_nocase(S("Content-LENGTH"), S("content-length")));
    assert_true(slice_starts_with(S("Bearer x"), S("Bearer ")));
    assert_true(slice_compare(S("a"), S("b")) < 0);
    assert_true(slice_compare(S("b"), S("a")) > 0);
    assert_true(slice_compare(S("a"), S("ab")) < 0);
    assert_true(slice_compare(S("\xff"), S("a")) > 0);
    assert_int_equal(slice_compare(S("ab"), S("ab")), 0);
}

static void test_comparing_what_differs(void **state)
{
    (void)state;
    assert_false(slice_equal(S("abc"), S("abd")));
    assert_false(slice_equal(S("abc"), S("ab")));
    assert_false(slice_equal_nocase(S("abc"), S("ab")));
    /* '@' and '`' differ by the case bit alone, and are no letters. */
    assert_false(slice_equal_nocase(S("@["), S("`{")));
    assert_false(slice_starts_with(S("Bear"), S("Bearer")));
    assert_true(slice_equal(none, S("")));
    assert_true(slice_equal_nocase(none, S("")));
    assert_true(slice_starts_with(none, none));
    assert_int_equal(slice_compare(none, S("")), 0);
    assert_true(slice_compare(none, S("a")) < 0);
}

static void test_cutting(void **state)
{
    (void)state;
    struct slice rest = S("a,b,,c");
    assert_true(slice_equal(slice_cut(rest, ',', &rest), S("a")));
    assert_true(slice_equal(slice_cut(rest, ',', &rest), S("b")));
    assert_true(slice_equal(slice_cut(rest, ',', &rest), S("")));
    assert_non_null(rest.data);
    assert_true(slice_equal(slice_cut(rest, ',', &rest), S("c")));
    assert_null(rest.data);
    assert_int_equal(rest.size, 0);
    assert_true(slice_equal(slice_trim(S(" \t a b\t ")), S("a b")));
    assert_true(slice_equal(slice_part(S("abcdef"), 2, 4), S("cd")));
    assert_int_equal(slice_find(S("abc"), 'c'), 2);
}

static void test_cutting_outside(void **state)
{
    (void)state;
    struct slice rest = S("x");
    assert_true(slice_equal(slice_part(S("abc"), 2, 99), S("c")));
    assert_int_equal(slice_part(S("abc"), 5, 9).size, 0);
    assert_int_equal(slice_part(S("abc"), 2, 1).size, 0);
    assert_int_equal(slice_part(none, 3, 9).size, 0);
    assert_int_equal(slice_trim(S(" \t ")).size, 0);
    assert_int_equal(slice_trim(none).size, 0);
    assert_int_equal(slice_find(S("abc"), 'x'), 3);
    assert_int_equal(slice_find(none, 0), 0);
    assert_int_equal(slice_cut(none, ',', &rest).size, 0);
    assert_null(rest.data);
    /* A separator at the end leaves an empty rest that is there. */
    (void)slice_cut(S("a,"), ',', &rest);
    assert_non_null(rest.data);
}

static void test_numbers(void **state)
{
    (void)state;
    uint64_t u = 0;
    int64_t i = 0;
    assert_true(slice_to_u64(S("0"), &u));
    assert_int_equal(u, 0);
    assert_true(slice_to_u64(S("007"), &u));
    assert_int_equal(u, 7);
    assert_true(slice_to_u64(S("18446744073709551615"), &u));
    assert_true(u == UINT64_MAX);
    assert_true(slice_to_i64(S("-9223372036854775808"), &i));
    assert_true(i == INT64_MIN);
    assert_true(slice_to_i64(S("9223372036854775807"), &i));
    assert_true(i == INT64_MAX);
    assert_true(slice_to_i64(S("-1"), &i));
    assert_int_equal(i, -1);
}

static void test_what_is_no_number(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      " 1",
                                      "1 ",
                                      "+1",
                                      "0x1",
                                      "1.0",
                                      "1e3",
                                      "1-",
                                      "-",
                                      "--1",
                                      "a",
                                      ":",
                                      "/",
                                      "1,0",
                                      "1 2",
                                      "\xb2",
                                      "99999999999999999999"};
    for (size_t n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
        uint64_t u = 42;
        int64_t i = 42;
        assert_false(slice_to_u64(slice_from_text(bad[n]), &u));
        assert_false(slice_to_i64(slice_from_text(bad[n]), &i));
        assert_int_equal(u, 42);
        assert_int_equal(i, 42);
    }
    uint64_t u = 42;
    int64_t i = 42;
    assert_false(slice_to_u64(S("18446744073709551616"), &u));
    assert_false(slice_to_u64(S("-1"), &u));
    assert_false(slice_to_u64(S("1\0"), &u));
    assert_false(slice_to_u64(none, &u));
    assert_false(slice_to_i64(S("9223372036854775808"), &i));
    assert_false(slice_to_i64(S("-9223372036854775809"), &i));
    assert_int_equal(u, 42);
    assert_int_equal(i, 42);
}

/* Sequences from RFC 3629 section 3 (the table of byte ranges) and section 10 (overlong forms). */
static void test_printable(void **state)
{
    (void)state;
    assert_true(slice_is_printable(S("")));
    assert_true(slice_is_printable(S("Werk 7, \xC3\xA9t\xC3\xA9 ~")));
    assert_true(slice_is_printable(S("\xC2\xA0\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80")));
    assert_true(slice_is_printable(S("\xF0\x90\x80\x80\xF4\x8F\xBF\xBF")));
}

static void test_what_is_not_printable(void **state)
{
    (void)state;
    static const struct slice bad[] = {
        {(const uint8_t *)"a\0b", 3},
        {(const uint8_t *)"\n", 1},
        {(const uint8_t *)"\x7F", 1},
        {(const uint8_t *)"\xC2\x9F", 2},
        {(const uint8_t *)"\x80", 1},
        {(const uint8_t *)"\xC0\x80", 2},
        {(const uint8_t *)"\xC1\xBF", 2},
        {(const uint8_t *)"\xE0\x9F\xBF", 3},
        {(const uint8_t *)"\xED\xA0\x80", 3},
        {(const uint8_t *)"\xF0\x8F\xBF\xBF", 4},
        {(const uint8_t *)"\xF4\x90\x80\x80", 4},
        {(const uint8_t *)"\xF5\x80\x80\x80", 4},
        {(const uint8_t *)"\xE2\x82", 2},
        {(const uint8_t *)"\xC3(", 2},
        {(const uint8_t *)"\xFF", 1},
    };
    for (size_t n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
        assert_false(slice_is_printable(bad[n]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comparing), cmocka_unit_test(test_comparing_what_differs),
        cmocka_unit_test(test_cutting),   cmocka_unit_test(test_cutting_outside),
        cmocka_unit_test(test_numbers),   cmocka_unit_test(test_what_is_no_number),
        cmocka_unit_test(test_printable), cmocka_unit_test(test_what_is_not_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
