/* Promise: RFC 3339 text and milliseconds say the same moment; text that is not RFC 3339 is
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Computed with Python's datetime; the last two by arithmetic from year 1. */
static const struct {
    int64_t wall_ms;
    const char *text;
} moments[] = {
    {0, "1970-01-01T00:00:00.000Z"},
    {1795255200123, "2026-11-21T10:00:00.123Z"},
    {951868799999, "2000-02-29T23:59:59.999Z"},
    {-1, "1969-12-31T23:59:59.999Z"},
    {253402300799999, "9999-12-31T23:59:59.999Z"},
    {-2203891200000, "1900-03-01T00:00:00.000Z"},
    {4107501296789, "2100-02-28T12:34:56.789Z"},
    {1735603200000, "2024-12-31T00:00:00.000Z"},
    {1709251200000, "2024-03-01T00:00:00.000Z"},
    {-62135596800000, "0001-01-01T00:00:00.000Z"},
    {-62135596800000 - 366LL * 86400000, "0000-01-01T00:00:00.000Z"},
    {-62135596800000 - 307LL * 86400000, "0000-02-29T00:00:00.000Z"},
};

static void assert_formats(int64_t wall_ms, const char *text)
{
    char got[CLOCK_TEXT_BYTES + 1];
    got[CLOCK_TEXT_BYTES] = '#';
    clock_format_rfc3339(wall_ms, got);
    assert_int_equal(got[CLOCK_TEXT_BYTES], '#');
    got[CLOCK_TEXT_BYTES] = 0;
    assert_string_equal(got, text);
}

static void assert_parses(const char *text, int64_t wall_ms)
{
    int64_t got = INT64_MIN;
    assert_true(clock_parse_rfc3339(slice_from_text(text), &got));
    assert_true(got == wall_ms);
}

static void assert_refuses(const char *text)
{
    int64_t got = 42;
    if (clock_parse_rfc3339(slice_from_text(text), &got) || got != 42) {
        fail_msg("took \"%s\"", text);
    }
}

static void test_known_moments(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(moments) / sizeof(moments[0]); i++) {
        assert_formats(moments[i].wall_ms, moments[i].text);
        assert_parses(moments[i].text, moments[i].wall_ms);
    }
}

static void test_format_clamps(void **state)
{
    (void)state;
    assert_formats(INT64_MAX, "9999-12-31T23:59:59.999Z");
    assert_formats(INT64_MIN, "0000-01-01T00:00:00.000Z");
}

static void test_every_form_that_is_permitted(void **state)
{
    (void)state;
    assert_parses("1970-01-01T00:00:01Z", 1000);
    assert_parses("1970-01-01 00:00:01.5Z", 1500);
    assert_parses("1970-01-01t00:00:01.123456789z", 1123);
    assert_parses("1970-01-01T01:00:00+01:00", 0);
    assert_parses("1969-12-31T18:30:00.25-05:30", 250);
    assert_parses("1970-01-01T23:59:00+23:59", 0);
    assert_parses("1970-01-01T00:00:00-00:00", 0);
    /* A leap second is the next second (RFC 3339 section 5.8's example). */
    assert_parses("1990-12-31T23:59:60Z", 662688000000);
    assert_parses("1990-12-31T15:59:60-08:00", 662688000000);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-01-01T00:00Z",
        "1970-1-01T00:00:00Z",
        "70-01-01T00:00:00Z",
        "1970-00-01T00:00:00Z",
        "1970-13-01T00:00:00Z",
        "1970-01-00T00:00:00Z",
        "1970-01-32T00:00:00Z",
        "1970-04-31T00:00:00Z",
        "1970-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2000-02-30T00:00:00Z",
        "1970-01-01T24:00:00Z",
        "1970-01-01T00:60:00Z",
        "1970-01-01T00:00:61Z",
        "1970-01-01T00:00:00.Z",
        "1970-01-01T00:00:00.1234567890Z",
        "1970-01-01T00:00:00,5Z",
        "1970-01-01T00:00:00+24:00",
        "1970-01-01T00:00:00+01:60",
        "1970-01-01T00:00:00+0100",
        "1970-01-01T00:00:00+01",
        "1970-01-01T00:00:00ZZ",
        "1970-01-01T00:00:00Z ",
        " 1970-01-01T00:00:00Z",
        "+1970-01-01T00:00:00Z",
        "1970-01-01X00:00:00Z",
        "1970/01/01T00:00:00Z",
        "197o-01-01T00:00:00Z",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_refuses(bad[i]);
    }
    int64_t got = 42;
    assert_false(clock_parse_rfc3339(SLICE_LITERAL("1970-01-01T00:00:00\0"), &got));
    assert_false(clock_parse_rfc3339((struct slice){NULL, 0}, &got));
    assert_int_equal(got, 42);
}

/* The C library's calendar is the other implementation. */
static void test_agrees_with_the_c_library(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srandom(seed);
    for (int i = 0; i < 20000; i++) {
        int64_t seconds = ((int64_t)random() << 9 ^ random()) % 315537897600 - 62135596800;
        time_t moment = (time_t)seconds;
        struct tm parts;
        char text[64];
        assert_non_null(gmtime_r(&moment, &parts));
        (void)snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.007Z",
                       parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                       parts.tm_min, parts.tm_sec);
        assert_formats(seconds * 1000 + 7, text);
        assert_parses(text, seconds * 1000 + 7);
    }
}

static void test_clocks_go_on(void **state)
{
    (void)state;
    uint64_t before = clock_mono_ns();
    uint64_t after = clock_mono_ns();
    assert_true(after >= before);
    assert_true(clock_mono_ms() >= before / 1000000);
    time_t low = time(NULL);
    int64_t wall_ms = clock_wall_ms();
    /* time() may read a clock that is one tick behind. */
    assert_true(wall_ms >= (int64_t)low * 1000 && wall_ms < (int64_t)(time(NULL) + 2) * 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_moments),
        cmocka_unit_test(test_format_clamps),
        cmocka_unit_test(test_every_form_that_is_permitted),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_agrees_with_the_c_library),
        cmocka_unit_test(test_clocks_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
