/* Promise: what clients of Segment, RudderStack and PostHog put on the wire (formats/events.md 5.1)
 * becomes events with their type, dedup_id, subject and payload, and never with their key. */
#include "unit/format/read.h"

#define SEGMENT RECORD_FORM_SEGMENT_BATCH
#define CALL    RECORD_FORM_SEGMENT_CALL
#define POSTHOG RECORD_FORM_POSTHOG_BATCH

static void segment_track(void **state)
{
    struct read *read = *state;
    assert_int_equal(
        read_form(read, SEGMENT,
                  "{\"type\":\"track\",\"event\":\"Order Completed\",\"userId\":\"u1\","
                  "\"anonymousId\":\"a1\",\"messageId\":\"node-next-1-2\","
                  "\"timestamp\":\"2024-02-29T10:00:00.250Z\",\"properties\":{\"total\": 9.5},"
                  "\"context\":{\"library\":{}},\"writeKey\":\"secret\",\"integrations\":{}}"),
        ERR_OK);
    assert_slice(read->event.type, "track.Order_Completed");
    assert_slice(read->event.subject, "u1");
    assert_slice(read->event.dedup_id, "node-next-1-2");
    assert_slice(read->event.payload, "{\"total\": 9.5}");
    assert_int_equal(read->event.occurred_ms, 1709200800250);
    assert_slice(read->event.attributes,
                 "{\"type\":\"track\",\"event\":\"Order Completed\",\"userId\":\"u1\","
                 "\"anonymousId\":\"a1\",\"context\":{\"library\":{}},\"integrations\":{}}");
}

static void segment_other_calls(void **state)
{
    struct read *read = *state;
    static const char *const cases[][3] = {
        {"{\"type\":\"identify\",\"userId\":7,\"traits\":{\"a\":1}}", "identify", "{\"a\":1}"},
        {"{\"type\":\"page\",\"name\":\"Home & Co\",\"properties\":{}}", "page.Home___Co", "{}"},
        {"{\"type\":\"page\",\"name\":null}", "page", "{}"},
        {"{\"type\":\"screen\",\"name\":\"caf\xc3\xa9\"}", "screen.caf_", "{}"},
        {"{\"type\":\"group\",\"groupId\":\"g\",\"traits\":{\"b\":2}}", "group", "{\"b\":2}"},
        {"{\"type\":\"alias\",\"previousId\":\"p\",\"userId\":\"u\"}", "alias", "{}"},
        {"{\"type\":\"track\",\"event\":\"\\u00e9\\u00e9x\"}", "track.__x", "{}"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(read_form(read, SEGMENT, cases[i][0]), ERR_OK);
        assert_slice(read->event.type, cases[i][1]);
        assert_slice(read->event.payload, cases[i][2]);
    }
}

static void segment_tolerates_and_refuses(void **state)
{
    struct read *read = *state;
    assert_int_equal(read_form(read, SEGMENT,
                               "{\"type\":\"track\",\"event\":\"e\",\"userId\":\"\","
                               "\"anonymousId\":\"a\",\"timestamp\":\"soon\",\"messageId\":null}"),
                     ERR_OK);
    assert_slice(read->event.subject, "a");
    assert_int_equal(read->event.occurred_ms, READ_RECEIVED_MS);
    assert_int_equal(read->event.dedup_id.size, 0);
    assert_refused(read, SEGMENT, "{\"event\":\"e\"}", "missing_field", "/type");
    assert_refused(read, SEGMENT, "{\"type\":\"trick\",\"event\":\"e\"}", "invalid_value", "/type");
    assert_refused(read, SEGMENT, "{\"type\":\"track\"}", "missing_field", "/event");
    assert_refused(read, SEGMENT, "{\"type\":\"identify\",\"userId\":{}}", "invalid_type",
                   "/userId");
    assert_refused(read, SEGMENT, "7", "invalid_type", "");
}

static void segment_calls_by_route(void **state)
{
    struct read *read = *state;
    read->context.call = SLICE_LITERAL("track");
    assert_int_equal(
        read_form(read, CALL, "{\"event\":\"Signed Up\",\"writeKey\":\"k\",\"userId\":\"u\"}\n"),
        ERR_OK);
    assert_slice(read->event.type, "track.Signed_Up");
    assert_true(id_equal(read->event.id, read->context.frame_id));
    read->context.call = SLICE_LITERAL("identify");
    assert_int_equal(read_form(read, CALL, "{\"traits\":{},\"properties\":[]}"), ERR_OK);
    assert_slice(read->event.type, "identify");
    assert_slice(read->event.attributes, "{\"properties\":[]}");
}

static void long_names_are_cut(void **state)
{
    struct read *read = *state;
    char text[1000];
    char fill[600];
    memset(fill, 'n', sizeof(fill));
    (void)snprintf(text, sizeof(text), "{\"type\":\"track\",\"event\":\"%.*s\"}", 600, fill);
    assert_int_equal(read_form(read, SEGMENT, text), ERR_OK);
    assert_int_equal(read->event.type.size, LIMIT_TYPE_BYTES);
    assert_true(format_type_is_valid(read->event.type));
}

static void posthog_event(void **state)
{
    struct read *read = *state;
    assert_int_equal(
        read_form(read, POSTHOG,
                  "{\"event\":\"$pageview\",\"distinct_id\":\"d1\","
                  "\"uuid\":\"018f9f6e-7a7b-7c7d-8e8f-909192939495\","
                  "\"timestamp\":\"2024-02-29T10:00:00.250Z\",\"properties\":{\"$lib\":\"x\"},"
                  "\"api_key\":\"secret\",\"type\":\"capture\"}"),
        ERR_OK);
    assert_slice(read->event.type, "_pageview");
    assert_slice(read->event.subject, "d1");
    assert_slice(read->event.dedup_id, "018f9f6e-7a7b-7c7d-8e8f-909192939495");
    assert_slice(read->event.payload, "{\"$lib\":\"x\"}");
    assert_int_equal(read->event.occurred_ms, 1709200800250);
    assert_slice(read->event.attributes, "{\"event\":\"$pageview\",\"type\":\"capture\"}");
    assert_refused(read, POSTHOG, "{\"distinct_id\":\"d\"}", "missing_field", "/event");
    assert_refused(read, POSTHOG, "{\"event\":1}", "invalid_type", "/event");
}

/* Whole bodies as the clients send them. */
static void bodies_give_their_elements(void **state)
{
    struct read *read = *state;
    static const struct {
        enum record_form form;
        const char *body;
        uint64_t count;
    } cases[] = {
        {SEGMENT,
         "{\"batch\":[{\"type\":\"track\",\"event\":\"a\"},{\"type\":\"identify\"}],"
         "\"writeKey\":\"WK123\",\"sentAt\":\"2024-02-29T10:00:00Z\"}",
         2},
        {SEGMENT, "{\"sentAt\":1,\"context\":{\"batch\":[1,2,3]},\"batch\":[]}", 0},
        {POSTHOG, "{\"api_key\":\"phc\",\"batch\":[{\"event\":\"a\"}],\"sent_at\":\"x\"}", 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct record_frame frame = {.form = (uint8_t)cases[i].form,
                                     .id = read->context.frame_id,
                                     .received_ms = READ_RECEIVED_MS,
                                     .body = slice_from_text(cases[i].body)};
        struct format_item item;
        uint64_t count = 0;
        bool has = true;
        assert_int_equal(format_frame_begin(read->reader, &frame, read_id_key), ERR_OK);
        for (;;) {
            assert_int_equal(format_frame_next(read->reader, &item, &has), ERR_OK);
            if (!has) {
                break;
            }
            assert_int_equal(item.err, ERR_OK);
            assert_int_equal(item.index, count);
            count++;
        }
        assert_int_equal(count, cases[i].count);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, read_setup, read_teardown)
    const struct CMUnitTest tests[] = {
        TEST(segment_track),
        TEST(segment_other_calls),
        TEST(segment_tolerates_and_refuses),
        TEST(segment_calls_by_route),
        TEST(long_names_are_cut),
        TEST(posthog_event),
        TEST(bodies_give_their_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
