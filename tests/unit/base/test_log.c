/* Promise: whatever the message holds, a log line is one line of valid JSON of at most 2 KiB. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TIME_AT 9 /* behind {"time":" */

static int saved_stderr;
static int captured;

static void capture_begin(void)
{
    (void)fflush(stderr);
    captured = memfd_create("log", MFD_CLOEXEC);
    saved_stderr = dup(STDERR_FILENO);
    assert_true(captured >= 0 && saved_stderr >= 0);
    assert_int_equal(dup2(captured, STDERR_FILENO), STDERR_FILENO);
}

/* Gives the bytes that were logged, with a NUL behind them. */
static size_t capture_end(char *to, size_t size)
{
    (void)dup2(saved_stderr, STDERR_FILENO);
    (void)close(saved_stderr);
    ssize_t got = pread(captured, to, size - 1, 0);
    (void)close(captured);
    assert_true(got >= 0);
    to[got] = 0;
    return (size_t)got;
}

static void test_line(void **state)
{
    (void)state;
    char line[4096];
    int64_t wall_ms = 0;
    int64_t before = clock_wall_ms();
    capture_begin();
    errno = 77;
    log_write(LOG_WARN, "journal", "segment %d of \"%s\"\\\n\x01", 3, "caf\xc3\xa9");
    int kept_errno = errno;
    (void)capture_end(line, sizeof(line));
    assert_int_equal(kept_errno, 77);
    assert_memory_equal(line, "{\"time\":\"", TIME_AT);
    assert_true(clock_parse_rfc3339(slice_make(line + TIME_AT, CLOCK_TEXT_BYTES), &wall_ms));
    assert_true(wall_ms >= before && wall_ms <= clock_wall_ms());
    assert_string_equal(line + TIME_AT + CLOCK_TEXT_BYTES,
                        "\",\"level\":\"warn\",\"stage\":\"journal\",\"message\":\"segment 3 of "
                        "\\\"caf\xc3\xa9\\\"\\\\\\u000a\\u0001\"}\n");
}

static void test_bytes_that_are_not_utf8(void **state)
{
    (void)state;
    /* A lone byte, a continuation, overlong, a surrogate, past U+10FFFF, cut off; then good ones.
     */
    static const char *const bad[] = {
        "\xff", "\x80", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"};
    static const int replaced[] = {1, 1, 2, 3, 4, 2};
    char line[4096];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        capture_begin();
        log_write(LOG_ERROR, "t", "%s", bad[i]);
        (void)capture_end(line, sizeof(line));
        const char *message = strstr(line, "\"message\":\"") + 11;
        for (int n = 0; n < replaced[i]; n++) {
            assert_memory_equal(message, "\\ufffd", 6);
            message += 6;
        }
        assert_string_equal(message, "\"}\n");
    }
    capture_begin();
    log_write(LOG_ERROR, "t", "%s", "\xe2\x82\xac\xf0\x9f\x98\x80\xed\x9f\xbf\x7f");
    (void)capture_end(line, sizeof(line));
    assert_non_null(strstr(line, "\"\xe2\x82\xac\xf0\x9f\x98\x80\xed\x9f\xbf\x7f\"}\n"));
}

static void test_long_message_is_cut_between_characters(void **state)
{
    (void)state;
    char message[4000];
    char line[8192];
    for (size_t shift = 0; shift < 2; shift++) {
        memset(message, 'x', shift);
        for (size_t i = shift; i + 2 < sizeof(message); i += 2) {
            memcpy(message + i, "\xc3\xa9", 3);
        }
        capture_begin();
        log_write(LOG_ERROR, "t", "%s", message);
        size_t size = capture_end(line, sizeof(line));
        assert_true(size > 2000 && size <= 2048);
        assert_memory_equal(line + size - 5, "\xc3\xa9\"}\n", 5);
        assert_null(strstr(line, "ufffd"));
    }
}

static void test_levels(void **state)
{
    (void)state;
    char line[4096];
    enum log_level level = LOG_ERROR;
    assert_true(log_level_from_text("debug", &level));
    assert_int_equal(level, LOG_DEBUG);
    capture_begin();
    log_set_level(LOG_WARN);
    log_write(LOG_INFO, "t", "not this");
    log_write(LOG_WARN, "t", "this");
    log_set_level(level);
    log_write(LOG_DEBUG, "t", "and this");
    log_set_level(LOG_INFO);
    log_write(LOG_DEBUG, "t", "nor this");
    (void)capture_end(line, sizeof(line));
    assert_null(strstr(line, "not this"));
    assert_null(strstr(line, "nor this"));
    assert_non_null(strstr(line, "\"level\":\"warn\",\"stage\":\"t\",\"message\":\"this\"}\n{"));
    assert_non_null(
        strstr(line, "\"level\":\"debug\",\"stage\":\"t\",\"message\":\"and this\"}\n"));
}

static void test_unknown_level(void **state)
{
    (void)state;
    enum log_level level = LOG_WARN;
    assert_false(log_level_from_text("verbose", &level));
    assert_false(log_level_from_text("", &level));
    assert_false(log_level_from_text("INFO", &level));
    assert_int_equal(level, LOG_WARN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_bytes_that_are_not_utf8),
        cmocka_unit_test(test_long_message_is_cut_between_characters),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_unknown_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
