/* Promise: texts mean what they say: strings unescape exactly, integers are exact or refused, and a
 * double is the nearest one in every case and every locale. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include <math.h>

#include "unit/json/comma_locale.h"
#include "json/json.h"

#define S SLICE_LITERAL

struct unescaped {
    const char *text;
    struct slice means;
};

static void test_unescape(void **state)
{
    (void)state;
    const struct unescaped cases[] = {
        {"", S("")},
        {"plain", S("plain")},
        {"\\\"\\\\\\/\\b\\f\\n\\r\\t", S("\"\\/\b\f\n\r\t")},
        {"a\\u0000b", S("a\0b")},
        {"\\u00e4\\u65e5 \xc3\xa4", S("\xc3\xa4\xe6\x97\xa5 \xc3\xa4")},
        {"x\\ud83d\\ude00y", S("x\xf0\x9f\x98\x80y")},
    };
    struct buffer to;
    buffer_init(&to, 64);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        buffer_clear(&to);
        assert_int_equal(buffer_append_text(&to, "> "), ERR_OK);
        assert_int_equal(json_unescape(slice_from_text(cases[i].text), &to), ERR_OK);
        assert_true(slice_equal(slice_part(buffer_slice(&to), 0, 2), S("> ")));
        assert_true(slice_equal(slice_part(buffer_slice(&to), 2, to.size), cases[i].means));
    }
    buffer_finish(&to);
}

static void test_unescape_refuses(void **state)
{
    (void)state;
    struct buffer to;
    buffer_init(&to, 16);
    assert_int_equal(buffer_append_text(&to, "kept"), ERR_OK);
    assert_int_equal(json_unescape(S("ab\\q"), &to), ERR_SYNTAX);
    assert_int_equal(json_unescape(S("ab\\u12"), &to), ERR_SYNTAX);
    assert_int_equal(json_unescape(S("ab\\ud800"), &to), ERR_SYNTAX);
    assert_int_equal(json_unescape(S("ab\\"), &to), ERR_SYNTAX);
    assert_int_equal(json_unescape(S("thirteen of 16"), &to), ERR_TOO_LARGE);
    assert_true(slice_equal(buffer_slice(&to), S("kept")));
    buffer_finish(&to);
}

static void test_text_equal(void **state)
{
    (void)state;
    assert_true(json_text_equal(S("batch"), false, S("batch")));
    assert_true(json_text_equal(S("b\\u0061tch"), true, S("batch")));
    assert_true(json_text_equal(S("\\ud83d\\ude00"), true, S("\xf0\x9f\x98\x80")));
    assert_true(json_text_equal(S(""), false, slice_make(NULL, 0)));
    assert_false(json_text_equal(S("b\\u0061tch"), false, S("batch")));
    assert_false(json_text_equal(S("b\\u0061tch"), true, S("bat")));
    assert_false(json_text_equal(S("b\\u0061t"), true, S("batch")));
    assert_false(json_text_equal(S("b\\u0062tch"), true, S("batch")));
    assert_false(json_text_equal(S("batch\\u0000"), true, S("batch")));
    assert_false(json_text_equal(S("batch\\"), true, S("batch")));
}

struct integer {
    const char *text;
    int64_t value;
};

static void test_i64(void **state)
{
    (void)state;
    static const struct integer integers[] = {
        {"0", 0},
        {"-0", 0},
        {"0.0", 0},
        {"0e99999999999999999999", 0},
        {"1", 1},
        {"-42", -42},
        {"5.0", 5},
        {"1e3", 1000},
        {"1E+3", 1000},
        {"1.5e1", 15},
        {"-12.30e2", -1230},
        {"100e-2", 1},
        {"0.00001e5", 1},
        {"120000000000000000000e-2", INT64_C(1200000000000000000)},
        {"9223372036854775807", INT64_MAX},
        {"-9223372036854775808", INT64_MIN},
        {"-9223372036854775807", -INT64_MAX},
        {"9223372036854775807.000", INT64_MAX},
        {"9.223372036854775807e18", INT64_MAX},
        {"-9.223372036854775808e18", INT64_MIN},
        {"1000000000000000000", INT64_C(1000000000000000000)},
        {"1e18", INT64_C(1000000000000000000)},
    };
    for (size_t i = 0; i < sizeof(integers) / sizeof(integers[0]); i++) {
        int64_t value = 7;
        assert_true(json_to_i64(slice_from_text(integers[i].text), &value));
        assert_int_equal(value, integers[i].value);
    }
}

static void test_i64_refuses(void **state)
{
    (void)state;
    static const char *const texts[] = {"0.5",
                                        "1e-1",
                                        "5.01",
                                        "1e19",
                                        "9223372036854775808",
                                        "-9223372036854775809",
                                        "18446744073709551616",
                                        "9.3e18",
                                        "1e400",
                                        "1e99999999999999999999",
                                        "100e-3",
                                        "9223372036854775807.5",
                                        "99999999999999999999",
                                        "12345678901234567891e-1",
                                        "",
                                        "-",
                                        "+1",
                                        "01",
                                        "1.",
                                        "1e",
                                        "1x",
                                        " 1",
                                        "NaN",
                                        "Infinity",
                                        "0x10"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        int64_t value = 7;
        bool taken = json_to_i64(slice_from_text(texts[i]), &value);
        if (taken) {
            fail_msg("%s is no integer of 64 bits", texts[i]);
        }
        assert_int_equal(value, 7);
    }
}

struct number {
    const char *text;
    double value;
};

/* Expected values: CPython's float(), which is David Gay's strtod. */
static const struct number hard_numbers[] = {
    {"0.1", 0x1.999999999999ap-4},
    {"0.2", 0x1.999999999999ap-3},
    {"123456789.123456789", 0x1.d6f34547e6b75p+26},
    {"9007199254740993", 0x1.0000000000000p+53},
    {"9007199254740992.5", 0x1.0000000000000p+53},
    {"9007199254740991.5", 0x1.0000000000000p+53},
    {"9007199254740993.00000000000000000000000000001", 0x1.0000000000001p+53},
    {"2.2250738585072011e-308", 0x0.fffffffffffffp-1022},
    {"2.2250738585072012e-308", 0x1.0000000000000p-1022},
    {"2.2250738585072014e-308", 0x1.0000000000000p-1022},
    {"4.9e-324", 0x0.0000000000001p-1022},
    {"2.4703282292062327e-324", 0x0.0p+0},
    {"2.4703282292062328e-324", 0x0.0000000000001p-1022},
    {"2.47e-324", 0x0.0p+0},
    {"1.7976931348623157e308", 0x1.fffffffffffffp+1023},
    {"1.7976931348623158e308", 0x1.fffffffffffffp+1023},
    {"0.500000000000000166533453693773481063544750213623046875", 0x1.0000000000002p-1},
    {"3.518437208883201171875e13", 0x1.0000000000002p+45},
    {"62.5364939768271845828", 0x1.f44abd5aa7ca4p+5},
    {"8.10109172351e-10", 0x1.bd5cbaef0fd0cp-31},
    {"1.50000000000000011102230246251565", 0x1.8000000000000p+0},
    {"1.4999999999999999", 0x1.8000000000000p+0},
    {"4503599627370496.5", 0x1.0000000000000p+52},
    {"4503599627370497.5", 0x1.0000000000002p+52},
    {"4503599627475353.5", 0x1.000000001999ap+52},
    {"1448997445238699", 0x1.4976c0803feacp+50},
    {"6929495644600919.5", 0x1.89e56ee5e7a58p+52},
    {"3.7455744005952583e15", 0x1.a9d28ff412a75p+51},
    {"100000000000000016777215", 0x1.52d02c7e14af7p+76},
    {"100000000000000016777216", 0x1.52d02c7e14af8p+76},
    {"6.8294739504e+22", 0x1.cec87ce73b35bp+75},
    {"5e-20", 0x1.d83c94fb6d2acp-65},
    {"67e14", 0x1.7cd9d4ffec000p+52},
    {"985e15", 0x1.b56d88fff8500p+59},
    {"7693e-42", 0x1.4f13d0fffe4a1p-127},
    {"6365857617e-42", 0x1.086d68c776bd2p-107},
    {"9007199254740993e-10", 0x1.b7cdfd9d7bdbcp+19},
    {"9007199254740993e3", 0x1.f400000000001p+62},
    {"9007199254740995e-19", 0x1.d83c94fb6d2afp-11},
    {"18446744073709551615e-19", 0x1.d83c94fb6d2acp+0},
    {"18446744073709551616e-1", 0x1.999999999999ap+60},
    {"9999999999999999999e-19", 0x1.0000000000000p+0},
    {"1e-19", 0x1.d83c94fb6d2acp-64},
    {"1152921504606846977e-1", 0x1.999999999999ap+56},
    {"72.36363636363636", 0x1.21745d1745d17p+6},
    {"0.000000000000000000000000000000000001e36", 0x1.0000000000000p+0},
    {"123e-325", 0x0.0000000000002p-1022},
    {"1e-400", 0x0.0p+0},
    {"1e22", 0x1.0f0cf064dd592p+73},
    {"1e23", 0x1.52d02c7e14af6p+76},
    {"8.5e22", 0x1.1ffdbf6b2b2ebp+76},
    {"1.00000000000000011102230246251565404236316680908203125", 0x1.0000000000000p+0},
    {"1.00000000000000011102230246251565404236316680908203124", 0x1.0000000000000p+0},
    {"1.00000000000000011102230246251565404236316680908203126", 0x1.0000000000001p+0},
    {"1.00000000000000033306690738754696212708950042724609375", 0x1.0000000000002p+0},
    {"0e400", 0x0.0p+0},
    {"0.0000e999999999999999999999", 0x0.0p+0},
    {"1E+2", 0x1.9000000000000p+6},
    {"1e0000000000000000000000000002", 0x1.9000000000000p+6},
};

/* As bits, so that the two zeros differ. */
static uint64_t bits_of(double value)
{
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static void check_double(struct slice text, double expected)
{
    double value = -7;
    if (!json_to_double(text, &value) || bits_of(value) != bits_of(expected)) {
        fail_msg("%.*s: %a, expected %a", (int)(text.size < 100 ? text.size : 100),
                 (const char *)text.data, value, expected);
    }
}

static void test_double_hard(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(hard_numbers) / sizeof(hard_numbers[0]); i++) {
        char negative[256];
        check_double(slice_from_text(hard_numbers[i].text), hard_numbers[i].value);
        (void)snprintf(negative, sizeof(negative), "-%s", hard_numbers[i].text);
        check_double(slice_from_text(negative), -hard_numbers[i].value);
    }
}

static void test_double_refuses(void **state)
{
    (void)state;
    static const char *const texts[] = {"1.7976931348623159e308",
                                        "1e309",
                                        "-1e309",
                                        "1e99999999999999999999",
                                        "NaN",
                                        "Infinity",
                                        "-Infinity",
                                        "",
                                        "-",
                                        ".5",
                                        "1.",
                                        "0x1p3",
                                        "1,5",
                                        "inf",
                                        " 1",
                                        "1 "};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        double value = -7;
        bool taken = json_to_double(slice_from_text(texts[i]), &value);
        if (taken) {
            fail_msg("%s is no double", texts[i]);
        }
        assert_true(value == -7);
    }
}

/* A second opinion on random numbers of every shape: the C library's strtod. */
static void test_double_random(void **state)
{
    (void)state;
    unsigned seed = (unsigned)getpid();
    print_message("seed %u\n", seed);
    for (int round = 0; round < 300000; round++) {
        char text[80];
        uint64_t bits =
            (uint64_t)rand_r(&seed) << 33 ^ (uint64_t)rand_r(&seed) << 15 ^ (uint64_t)rand_r(&seed);
        double from_bits;
        memcpy(&from_bits, &bits, sizeof(from_bits));
        int shape = round % 6;
        unsigned scale = (unsigned)rand_r(&seed) % 20;
        if (shape == 0 && isfinite(from_bits)) {
            (void)snprintf(text, sizeof(text), "%.*e", (int)scale, from_bits);
        } else if (shape == 1) {
            (void)snprintf(text, sizeof(text), "%llue-%u", (unsigned long long)bits, scale);
        } else if (shape == 2) {
            (void)snprintf(text, sizeof(text), "%llue%u", (unsigned long long)(bits >> scale * 3),
                           scale);
        } else if (shape == 3) {
            (void)snprintf(text, sizeof(text), "%u.%llu", scale, (unsigned long long)bits);
        } else if (shape == 4) {
            /* The middle between two doubles, or just beside it. */
            (void)snprintf(text, sizeof(text), "%llu.%s",
                           ((unsigned long long)1 << 52) + (bits >> 13),
                           scale % 3 == 0   ? "5"
                           : scale % 3 == 1 ? "499999999"
                                            : "500000001");
        } else {
            (void)snprintf(text, sizeof(text), "%u.%02u", scale, (unsigned)(bits % 100));
        }
        double expected = strtod(text, NULL);
        if (isinf(expected)) {
            double untouched = -7;
            assert_false(json_to_double(slice_from_text(text), &untouched));
            assert_true(untouched == -7);
        } else {
            check_double(slice_from_text(text), expected);
        }
    }
}

/* The decimal digits of (2^53 + 1) * 5^1075, by multiplying as on paper: with e-1075 behind them
 * they are the middle between 2^-1022 and the next double. */
static size_t middle_digits(char *to)
{
    static uint8_t digits[1000]; /* lowest first */
    size_t count = 0;
    memset(digits, 0, sizeof(digits));
    for (uint64_t value = (UINT64_C(1) << 53) + 1; value > 0; value /= 10) {
        digits[count++] = (uint8_t)(value % 10);
    }
    for (int i = 0; i < 1075; i++) {
        unsigned carry = 0;
        for (size_t at = 0; at < count || carry > 0; at++) {
            unsigned sum = digits[at] * 5u + carry;
            digits[at] = (uint8_t)(sum % 10);
            carry = sum / 10;
            count = at + 1 > count ? at + 1 : count;
        }
    }
    for (size_t i = 0; i < count; i++) {
        to[i] = (char)('0' + digits[count - 1 - i]);
    }
    return count;
}

static void test_double_of_many_digits(void **state)
{
    (void)state;
    char text[3000];
    size_t count = middle_digits(text);
    assert_int_equal(count, 768);
    assert_int_equal(text[count - 1], '5');
    (void)snprintf(text + count, sizeof(text) - count, "e-1075");
    check_double(slice_from_text(text), 0x1p-1022); /* a tie: to even */
    text[count - 1] = '4';
    check_double(slice_from_text(text), 0x1p-1022);
    text[count - 1] = '5';
    memset(text + count, '0', 2000);
    text[count + 2000] = '1';
    (void)snprintf(text + count + 2001, sizeof(text) - count - 2001, "e-3076");
    check_double(slice_from_text(text), 0x1.0000000000001p-1022);
}

static void test_numbers_of_any_length(void **state)
{
    (void)state;
    size_t zeros = 200000;
    char *text = malloc(zeros + 32);
    assert_non_null(text);
    memset(text, '0', zeros);
    text[1] = '.';
    (void)snprintf(text + zeros, 32, "125e%zu",
                   zeros + 3); /* 0.000…125 with zeros - 2 before the 1 */
    check_double(slice_from_text(text), 12500.0);
    int64_t value = 0;
    assert_true(json_to_i64(slice_from_text(text), &value));
    assert_int_equal(value, 12500);
    memset(text, '9', zeros);
    text[zeros] = '\0';
    double too_large = 0;
    assert_false(json_to_double(slice_from_text(text), &too_large));
    assert_false(json_to_i64(slice_from_text(text), &value));
    free(text);
}

static void test_locale(void **state)
{
    (void)state;
    comma_locale_enter();
    check_double(S("72.36363636363636363636363636"), 72.36363636363636363636363636);
    check_double(S("1.5e300"), 1.5e300);
    double value = 0;
    assert_false(json_to_double(S("1,5"), &value));
    comma_locale_leave();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unescape),
        cmocka_unit_test(test_unescape_refuses),
        cmocka_unit_test(test_text_equal),
        cmocka_unit_test(test_i64),
        cmocka_unit_test(test_i64_refuses),
        cmocka_unit_test(test_double_hard),
        cmocka_unit_test(test_double_refuses),
        cmocka_unit_test(test_double_random),
        cmocka_unit_test(test_double_of_many_digits),
        cmocka_unit_test(test_numbers_of_any_length),
        cmocka_unit_test(test_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
