/* Promise: the content type alone (and for JSON the first byte) decides how a body is read, and
 * times are RFC 3339 or epoch milliseconds, nothing near it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "format/format.h"

static void content_types(void **state)
{
    (void)state;
    static const struct {
        const char *content_type;
        bool has_ce;
        uint8_t first;
        enum err err;
        enum record_form form;
    } rows[] = {
        {"application/json", false, '{', ERR_OK, RECORD_FORM_EVENT},
        {"Application/JSON ; charset=utf-8", false, '[', ERR_OK, RECORD_FORM_EVENT_ARRAY},
        {"text/plain", false, '{', ERR_OK, RECORD_FORM_EVENT},
        {"", false, '[', ERR_OK, RECORD_FORM_EVENT_ARRAY},
        {"application/x-ndjson", false, '{', ERR_OK, RECORD_FORM_EVENT_LINES},
        {"application/jsonl", false, '[', ERR_OK, RECORD_FORM_EVENT_LINES},
        {"application/cloudevents+json; charset=UTF-8", false, '{', ERR_OK, RECORD_FORM_CLOUDEVENT},
        {"application/cloudevents-batch+json", false, '[', ERR_OK, RECORD_FORM_CLOUDEVENT_BATCH},
        {"APPLICATION/CloudEvents-Batch+json", true, '[', ERR_OK, RECORD_FORM_CLOUDEVENT_BATCH},
        {"application/json", true, '{', ERR_OK, RECORD_FORM_CLOUDEVENT_BINARY},
        {"image/png", true, 0x89, ERR_OK, RECORD_FORM_CLOUDEVENT_BINARY},
        {"", true, 0, ERR_OK, RECORD_FORM_CLOUDEVENT_BINARY},
        {"image/png", false, 0x89, ERR_UNSUPPORTED, 0},
        {"application/x-www-form-urlencoded", false, '{', ERR_UNSUPPORTED, 0},
        {"application/jsonx", false, '{', ERR_UNSUPPORTED, 0},
        {"application/xml", false, '<', ERR_UNSUPPORTED, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        enum record_form form = RECORD_FORM_UPLOAD_END;
        assert_int_equal(format_body_form(slice_from_text(rows[i].content_type), rows[i].has_ce,
                                          rows[i].first, &form),
                         rows[i].err);
        assert_int_equal(form, rows[i].err == ERR_OK ? rows[i].form : RECORD_FORM_UPLOAD_END);
    }
}

static void types(void **state)
{
    (void)state;
    char text[257];
    memset(text, 'a', sizeof(text));
    assert_true(format_type_is_valid(slice_make(text, 255)));
    assert_false(format_type_is_valid(slice_make(text, 256)));
    assert_false(format_type_is_valid(slice_make(text, 0)));
    for (int c = 0; c < 256; c++) {
        uint8_t byte = (uint8_t)c;
        bool expected =
            c != 0 &&
            strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-", c) != NULL;
        assert_int_equal(format_type_is_valid(slice_make(&byte, 1)), expected);
    }
}

/* Expected values: date -u -d <text> +%s%3N of GNU coreutils. */
static void times(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2024-02-29T23:59:59.999Z", 1709251199999},
        {"2024-02-29T23:59:59.9999999Z", 1709251199999},
        {"2024-03-01t01:29:59+01:30", 1709251199000},
        {"2024-02-29 18:59:59-05:00", 1709251199000},
        {"1969-12-31T23:59:59.5Z", -500},
        {"9999-12-31T23:59:59.999Z", 253402300799999},
        {"1709251199999", 1709251199999},
        {"-500", -500},
        {"1709251199999.75", 1709251199999},
        {"1.5e3", 1500},
        {"0", 0},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        int64_t ms = -1;
        if (!format_time_read(slice_from_text(good[i].text), &ms)) {
            fail_msg("%s", good[i].text);
        }
        assert_int_equal(ms, good[i].ms);
    }
    static const char *const bad[] = {"",
                                      "-",
                                      ".",
                                      "1.",
                                      ".5",
                                      "1e",
                                      "1e+",
                                      "0x10",
                                      "12 ",
                                      " 12",
                                      "+12",
                                      "1_000",
                                      "NaN",
                                      "Infinity",
                                      "1e300",
                                      "253402300800000",
                                      "-62167219200001",
                                      "99999999999999999999",
                                      "2024-02-30T00:00:00Z",
                                      "2023-02-29T00:00:00Z",
                                      "2024-13-01T00:00:00Z",
                                      "2024-00-01T00:00:00Z",
                                      "2024-01-01T24:00:00Z",
                                      "2024-01-01T00:60:00Z",
                                      "2024-01-01T00:00:61Z",
                                      "2024-01-01T00:00:00",
                                      "2024-01-01",
                                      "2024-01-01T00:00Z",
                                      "2024-01-01T00:00:00.Z",
                                      "2024-01-01T00:00:00+0100",
                                      "24-01-01T00:00:00Z",
                                      "yesterday",
                                      "2024-01-01T00:00:00Zx"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int64_t ms = -7;
        if (format_time_read(slice_from_text(bad[i]), &ms)) {
            fail_msg("%s", bad[i]);
        }
        assert_int_equal(ms, -7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_types),
        cmocka_unit_test(types),
        cmocka_unit_test(times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
