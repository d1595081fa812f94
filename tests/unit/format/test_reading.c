/* Promise: a message of a device is read as it is meant, the same for every way of writing it, and
 * what is wrong with it is named with its place. */
#include "base/hash.h"
#include "format/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define DEVICE   "0190f5fe-7c00-7a00-8000-0123456789ab"
#define RECEIVED INT64_C(1700000000000)

static const uint8_t id_key[32] = {7};

struct read {
    struct format_reader *reader;
    struct record_event event;
    struct format_fault fault;
    const struct record_reading *readings;
    uint32_t count;
};

static enum err read_message(struct read *r, const char *text, struct slice device)
{
    struct format_context context = {.id_key = id_key, .received_ms = RECEIVED, .device = device};
    if (r->reader == NULL) {
        r->reader = format_reader_create();
    }
    enum err err = format_event_read(r->reader, RECORD_FORM_READING, slice_from_text(text),
                                     &context, &r->event, &r->fault);
    r->readings = format_readings(r->reader, &r->count);
    return err;
}

static const struct slice any = {NULL, 0};

static void assert_text(struct slice actual, const char *expected)
{
    assert_int_equal(actual.size, strlen(expected));
    assert_memory_equal(actual.data, expected, actual.size);
}

static void test_a_whole_message(void **state)
{
    (void)state;
    struct read r = {.reader = NULL};
    assert_int_equal(
        read_message(
            &r,
            "{\"device_id\":\"0190F5FE-7C00-7A00-8000-0123456789AB\",\"protocol\":\"gprs\","
            "\"source_timestamp\":\"2023-11-14T22:13:19.5Z\",\"event_id\":17,\"fw\":[1,{}],"
            "\"metrics\":[{\"parameter_key\":\"volt\\u0061ge\",\"value\":-2.5e2,"
            "\"attributes\":{\"a\":{\"b\":[1]}},\"other\":[[]]},"
            "{\"value\":true,\"quality\":255,\"parameter_key\":\"on\"},"
            "{\"parameter_key\":\"t\",\"value\":null,\"quality\":null}]}",
            any),
        ERR_OK);
    assert_text(r.event.subject, DEVICE);
    assert_text(r.event.source, "GPRS");
    assert_text(r.event.dedup_id, "17");
    assert_text(r.event.attributes, "{\"fw\":[1,{}]}");
    assert_int_equal(r.count, 3);
    assert_text(r.readings[0].parameter, "voltage");
    assert_true(r.readings[0].value >= -250.0 && r.readings[0].value <= -250.0);
    assert_text(r.readings[0].attributes, "{\"a\":{\"b\":[1]}}");
    assert_int_equal(r.readings[0].quality, -1);
    assert_int_equal(r.readings[0].time_ms, INT64_C(1699999999500));
    assert_int_equal(r.readings[0].received_ms, RECEIVED);
    assert_true(r.readings[1].has_value && r.readings[1].value > 0.5);
    assert_int_equal(r.readings[1].quality, 255);
    assert_null(r.readings[1].attributes.data);
    assert_false(r.readings[2].has_value);
    format_reader_destroy(r.reader);
}

/* The id depends on the device and the event_id, not on how the device is written or what is said.
 */
static void test_the_same_message_has_the_same_id(void **state)
{
    (void)state;
    struct read r = {.reader = NULL};
    assert_int_equal(read_message(&r,
                                  "{\"device_id\":\"" DEVICE "\",\"event_id\":\"e\",\"metrics\":"
                                  "[{\"parameter_key\":\"a\",\"value\":1}]}",
                                  any),
                     ERR_OK);
    struct id first = r.event.id;
    struct id expected =
        id_make_dedup(id_key, SLICE_LITERAL("reading"), SLICE_LITERAL(DEVICE), SLICE_LITERAL("e"));
    assert_true(id_equal(first, expected));
    assert_int_equal(
        read_message(
            &r,
            "{\"metrics\":[{\"parameter_key\":\"a\",\"value\":2}],\"event_id\":\"\\u0065\","
            "\"device_id\":\"0190F5FE-7C00-7A00-8000-0123456789AB\",\"protocol\":\"SMS\"}",
            any),
        ERR_OK);
    assert_true(id_equal(first, r.event.id));
    assert_int_equal(read_message(&r,
                                  "{\"device_id\":\"0190f5fe-7c00-7a00-8000-0123456789ac\","
                                  "\"event_id\":\"e\",\"metrics\":[{\"parameter_key\":\"a\","
                                  "\"value\":1}]}",
                                  any),
                     ERR_OK);
    assert_false(id_equal(first, r.event.id));
    format_reader_destroy(r.reader);
}

static void test_without_a_time_it_is_the_arrival(void **state)
{
    (void)state;
    struct read r = {.reader = NULL};
    assert_int_equal(read_message(&r,
                                  "{\"device_id\":\"" DEVICE "\",\"metrics\":"
                                  "[{\"parameter_key\":\"a\",\"value\":1}]}",
                                  any),
                     ERR_OK);
    assert_int_equal(r.readings[0].time_ms, RECEIVED);
    assert_null(r.readings[0].source.data);
    format_reader_destroy(r.reader);
}

static void test_what_is_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *members;
        const char *pointer;
        const char *code;
    } wrong[] = {
        {"\"metrics\":[{\"parameter_key\":\"a\",\"value\":1}]", "/device_id", "missing_field"},
        {"\"device_id\":\"" DEVICE "\"", "/metrics", "missing_field"},
        {"\"device_id\":\"" DEVICE "\",\"metrics\":[]", "/metrics", "missing_field"},
        {"\"device_id\":\"" DEVICE "\",\"metrics\":{}", "/metrics", "invalid_type"},
        {"\"device_id\":\"" DEVICE "\",\"metrics\":[{},1]", "/metrics/0/parameter_key",
         "missing_field"},
        {"\"device_id\":\"" DEVICE "\",\"metrics\":[{\"parameter_key\":\"a\",\"value\":1},[]]",
         "/metrics/1", "invalid_type"},
        {"\"device_id\":\"" DEVICE "\",\"metrics\":[{\"parameter_key\":\"a\",\"value\":1e999}]",
         "/metrics/0/value", "invalid_value"},
        {"\"device_id\":\"" DEVICE "\",\"metrics\":[{\"parameter_key\":\"a\",\"value\":1,"
         "\"value\":2}]",
         "/metrics/0/value", "duplicate_key"},
        {"\"device_id\":\"" DEVICE "\",\"metrics\":[{\"parameter_key\":\"a\",\"value\":1,"
         "\"quality\":1.5}]",
         "/metrics/0/quality", "invalid_value"},
        {"\"device_id\":\"x\",\"metrics\":[{\"parameter_key\":\"a\",\"value\":1}]", "/device_id",
         "invalid_value"},
    };
    struct read r = {.reader = NULL};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char text[512];
        (void)snprintf(text, sizeof(text), "{%s}", wrong[i].members);
        assert_int_equal(read_message(&r, text, any), ERR_INVALID);
        assert_string_equal(r.fault.pointer, wrong[i].pointer);
        assert_string_equal(r.fault.code, wrong[i].code);
        assert_int_equal(r.count, 0);
    }
    format_reader_destroy(r.reader);
}

static void test_a_key_of_another_device(void **state)
{
    (void)state;
    static const char text[] =
        "{\"device_id\":\"" DEVICE "\",\"metrics\":[{\"parameter_key\":\"a\","
        "\"value\":1}]}";
    struct read r = {.reader = NULL};
    assert_int_equal(read_message(&r, text, SLICE_LITERAL(DEVICE)), ERR_OK);
    assert_int_equal(read_message(&r, text, SLICE_LITERAL("0190f5fe-7c00-7a00-8000-0123456789ac")),
                     ERR_INVALID);
    assert_string_equal(r.fault.code, "device_forbidden");
    format_reader_destroy(r.reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_message),
        cmocka_unit_test(test_the_same_message_has_the_same_id),
        cmocka_unit_test(test_without_a_time_it_is_the_arrival),
        cmocka_unit_test(test_what_is_wrong_is_named),
        cmocka_unit_test(test_a_key_of_another_device),
    };
    assert_int_equal(hash_start(), ERR_OK);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
