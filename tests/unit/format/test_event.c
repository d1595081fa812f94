/* Promise: an event object is read as it came, or refused with the one reason and place that a
 * client can act on. */
#include "unit/format/read.h"

#define EVENT RECORD_FORM_EVENT

static void all_members_are_read(void **state)
{
    struct read *read = *state;
    assert_int_equal(
        read_form(
            read, EVENT,
            " {\"type\":\"user.login\", \"payload\" : {\"a\":[1, {\"type\":2}]} ,"
            "\"dedup_id\":\"d-1\",\"subject\":\"user/42\",\"source\":\"web\",\"app\":\"shop\","
            "\"occurred_at\":\"2024-02-29T12:00:00.250+02:00\"}\n"),
        ERR_OK);
    assert_slice(read->event.type, "user.login");
    assert_slice(read->event.payload, "{\"a\":[1, {\"type\":2}]}");
    assert_slice(read->event.dedup_id, "d-1");
    assert_slice(read->event.subject, "user/42");
    assert_slice(read->event.source, "web");
    assert_slice(read->event.app, "shop");
    assert_slice(read->event.attributes, NULL);
    /* date -u -d 2024-02-29T10:00:00Z +%s */
    assert_int_equal(read->event.occurred_ms, 1709200800250);
    assert_int_equal(read->event.received_ms, READ_RECEIVED_MS);
    struct id expected = id_make_dedup(read_id_key, SLICE_LITERAL("event"), SLICE_LITERAL("web"),
                                       SLICE_LITERAL("d-1"));
    assert_true(id_equal(read->event.id, expected));
}

static void absent_members_have_defaults(void **state)
{
    struct read *read = *state;
    assert_int_equal(read_form(read, EVENT, "{\"payload\":null,\"type\":\"a\",\"subject\":null}"),
                     ERR_OK);
    assert_slice(read->event.payload, "null");
    assert_slice(read->event.subject, NULL);
    assert_slice(read->event.source, NULL);
    assert_slice(read->event.app, NULL);
    assert_int_equal(read->event.dedup_id.size, 0);
    assert_int_equal(read->event.occurred_ms, READ_RECEIVED_MS);
    assert_true(id_equal(read->event.id, read->context.frame_id));
}

static void payload_may_be_any_value(void **state)
{
    struct read *read = *state;
    static const char *const values[] = {"0",    "-1.5e3", "\"x\\u00e9\"", "true", "false",
                                         "null", "[]",     "[[],{}]",      "{}"};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        char text[100];
        (void)snprintf(text, sizeof(text), "{\"type\":\"a\",\"payload\": %s }", values[i]);
        assert_int_equal(read_form(read, EVENT, text), ERR_OK);
        assert_slice(read->event.payload, values[i]);
    }
}

static void escapes_are_read(void **state)
{
    struct read *read = *state;
    assert_int_equal(read_form(read, EVENT,
                               "{\"\\u0074ype\":\"user\\/login\",\"payload\":1,"
                               "\"subject\":\"caf\\u00e9\",\"dedup_id\":\"\\ud83d\\ude00\"}"),
                     ERR_OK);
    assert_slice(read->event.type, "user/login");
    assert_slice(read->event.subject, "caf\xc3\xa9");
    assert_slice(read->event.dedup_id, "\xf0\x9f\x98\x80");
}

static void unknown_members_are_kept(void **state)
{
    struct read *read = *state;
    read->context.traceparent =
        SLICE_LITERAL("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_int_equal(
        read_form(read, EVENT, "{\"x\":[1,2],\"type\":\"a\",\"payload\":1,\"y z\":\"\\n\"}"),
        ERR_OK);
    assert_slice(read->event.attributes,
                 "{\"x\":[1,2],\"y z\":\"\\n\","
                 "\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}");
    assert_int_equal(
        read_form(read, EVENT, "{\"type\":\"a\",\"payload\":1,\"traceparent\":\"own\"}"), ERR_OK);
    assert_slice(read->event.attributes, "{\"traceparent\":\"own\"}");
}

static void idempotency_key_stands_in(void **state)
{
    struct read *read = *state;
    read->context.idempotency_key = SLICE_LITERAL("key-1");
    assert_int_equal(read_form(read, EVENT, "{\"type\":\"a\",\"payload\":1}"), ERR_OK);
    assert_slice(read->event.dedup_id, "key-1");
    struct id expected = id_make_dedup(read_id_key, SLICE_LITERAL("event"), SLICE_LITERAL(""),
                                       SLICE_LITERAL("key-1"));
    assert_true(id_equal(read->event.id, expected));
    assert_int_equal(read_form(read, EVENT, "{\"type\":\"a\",\"payload\":1,\"dedup_id\":\"own\"}"),
                     ERR_OK);
    assert_slice(read->event.dedup_id, "own");
}

static void what_is_wrong_is_named(void **state)
{
    struct read *read = *state;
    static const char *const cases[][3] = {
        {"{\"payload\":1}", "missing_field", "/type"},
        {"{\"type\":\"a\"}", "missing_field", "/payload"},
        {"{\"type\":null,\"payload\":1}", "missing_field", "/type"},
        {"{}", "missing_field", "/type"},
        {"[]", "invalid_type", ""},
        {"3", "invalid_type", ""},
        {"{\"type\":1,\"payload\":1}", "invalid_type", "/type"},
        {"{\"type\":\"\",\"payload\":1}", "invalid_value", "/type"},
        {"{\"type\":\"a b\",\"payload\":1}", "invalid_value", "/type"},
        {"{\"type\":\"a\",\"type\":\"a\",\"payload\":1}", "duplicate_key", "/type"},
        {"{\"type\":\"a\",\"payload\":1,\"payload\":1}", "duplicate_key", "/payload"},
        {"{\"type\":\"a\",\"payload\":1,\"\\u0064edup_id\":\"1\",\"dedup_id\":\"1\"}",
         "duplicate_key", "/dedup_id"},
        {"{\"type\":\"a\",\"payload\":1,\"dedup_id\":1}", "invalid_type", "/dedup_id"},
        {"{\"type\":\"a\",\"payload\":1,\"dedup_id\":\"\"}", "invalid_value", "/dedup_id"},
        {"{\"type\":\"a\",\"payload\":1,\"subject\":\"a\\u0000b\"}", "invalid_value", "/subject"},
        {"{\"type\":\"a\",\"payload\":1,\"subject\":{}}", "invalid_type", "/subject"},
        {"{\"type\":\"a\",\"payload\":1,\"occurred_at\":\"yesterday\"}", "invalid_value",
         "/occurred_at"},
        {"{\"type\":\"a\",\"payload\":1,\"occurred_at\":true}", "invalid_type", "/occurred_at"},
        {"{\"type\":\"a\",\"payload\":1,\"occurred_at\":1e300}", "invalid_value", "/occurred_at"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_refused(read, EVENT, cases[i][0], cases[i][1], cases[i][2]);
    }
}

static void texts_end_at_their_limits(void **state)
{
    struct read *read = *state;
    static const struct {
        const char *name;
        size_t limit;
    } rows[] = {{"dedup_id", 255}, {"subject", 1024}, {"source", 2048}, {"app", 255}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (size_t over = 0; over < 2; over++) {
            char text[4096];
            char fill[3000];
            memset(fill, 'x', sizeof(fill));
            (void)snprintf(text, sizeof(text), "{\"type\":\"a\",\"payload\":1,\"%s\":\"%.*s\"}",
                           rows[i].name, (int)(rows[i].limit + over), fill);
            assert_int_equal(read_form(read, EVENT, text), over == 0 ? ERR_OK : ERR_INVALID);
        }
        assert_string_equal(read->fault.code, "too_long");
    }
}

static void malformed_wins_over_wrong(void **state)
{
    struct read *read = *state;
    static const struct {
        const char *text;
        uint64_t offset;
    } cases[] = {
        {"{\"type\":1,\"payload\":1", 21},
        {"{\"type\":\"a\",\"payload\":tru}", 25},
        {"[1,]", 3},
        {"{\"type\":\"\xff\",\"payload\":1}", 9},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(read_form(read, EVENT, cases[i].text), ERR_SYNTAX);
        assert_string_equal(read->fault.code, "malformed");
        assert_in_range(read->fault.offset, cases[i].offset - 3, cases[i].offset + 1);
    }
}

static void depth_and_size_are_bounded(void **state)
{
    struct read *read = *state;
    for (int over = 0; over < 2; over++) {
        char text[300] = "{\"type\":\"a\",\"payload\":";
        for (int i = 0; i < 63 + over; i++) {
            strncat(text, "[", 2);
        }
        for (int i = 0; i < 63 + over; i++) {
            strncat(text, "]", 2);
        }
        strncat(text, "}", 2);
        assert_int_equal(read_form(read, EVENT, text), over == 0 ? ERR_OK : ERR_DEPTH);
    }
    assert_string_equal(read->fault.code, "too_deep");
    static char large[LIMIT_EVENT_BYTES + 2];
    memset(large, ' ', sizeof(large) - 1);
    static const char event[] = "{\"type\":\"a\",\"payload\":1}";
    memcpy(large, event, sizeof(event) - 1);
    assert_int_equal(read_form(read, EVENT, large), ERR_TOO_LARGE);
    large[LIMIT_EVENT_BYTES] = 0;
    assert_int_equal(read_form(read, EVENT, large), ERR_OK);
}

static struct id name_of_element(struct read *read, uint64_t index)
{
    struct slice raw = SLICE_LITERAL("{\"type\":\"a\",\"payload\":1}");
    struct record_event event;
    read->context.index = index;
    assert_int_equal(format_event_read(read->reader, RECORD_FORM_EVENT_ARRAY, raw, &read->context,
                                       &event, &read->fault),
                     ERR_OK);
    assert_int_equal(event.index, index);
    return event.id;
}

static void elements_are_named_by_their_number(void **state)
{
    struct read *read = *state;
    for (uint64_t i = 0; i < 3; i++) {
        assert_true(id_equal(name_of_element(read, i), id_make_element(read->context.frame_id, i)));
    }
    /* With an idempotency key a second try, in another frame, gives the same names. */
    read->context.idempotency_key = SLICE_LITERAL("try");
    struct id first = name_of_element(read, 1);
    read->context.frame_id = id_make_v7(READ_RECEIVED_MS + 1);
    assert_true(id_equal(name_of_element(read, 1), first));
    assert_false(id_equal(name_of_element(read, 2), first));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, read_setup, read_teardown)
    const struct CMUnitTest tests[] = {
        TEST(all_members_are_read),
        TEST(absent_members_have_defaults),
        TEST(payload_may_be_any_value),
        TEST(escapes_are_read),
        TEST(unknown_members_are_kept),
        TEST(idempotency_key_stands_in),
        TEST(what_is_wrong_is_named),
        TEST(texts_end_at_their_limits),
        TEST(malformed_wins_over_wrong),
        TEST(depth_and_size_are_bounded),
        TEST(elements_are_named_by_their_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
