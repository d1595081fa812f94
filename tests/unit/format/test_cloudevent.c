/* Promise: CloudEvents of the three HTTP modes mean what CloudEvents 1.0.2 says, and raw characters
 * that common clients send in ce- headers are taken. */
#include "unit/format/read.h"

#define CLOUD RECORD_FORM_CLOUDEVENT

/* Example of the JSON event format, section 2.4.1 of CloudEvents 1.0.2, with its JSON data. */
static void the_specification_s_example(void **state)
{
    struct read *read = *state;
    assert_int_equal(read_form(read, CLOUD,
                               "{\n"
                               "    \"specversion\" : \"1.0\",\n"
                               "    \"type\" : \"com.example.someevent\",\n"
                               "    \"source\" : \"/mycontext\",\n"
                               "    \"subject\": null,\n"
                               "    \"id\" : \"C234-1234-1234\",\n"
                               "    \"time\" : \"2018-04-05T17:31:00Z\",\n"
                               "    \"comexampleextension1\" : \"value\",\n"
                               "    \"comexampleothervalue\" : 5,\n"
                               "    \"datacontenttype\" : \"application/json\",\n"
                               "    \"data\" : {\n"
                               "        \"appinfoA\" : \"abc\"\n"
                               "    }\n"
                               "}\n"),
                     ERR_OK);
    assert_slice(read->event.type, "com.example.someevent");
    assert_slice(read->event.source, "/mycontext");
    assert_slice(read->event.dedup_id, "C234-1234-1234");
    assert_slice(read->event.subject, NULL);
    assert_slice(read->event.payload, "{\n        \"appinfoA\" : \"abc\"\n    }");
    /* date -u -d 2018-04-05T17:31:00Z +%s */
    assert_int_equal(read->event.occurred_ms, 1522949460000);
    assert_slice(read->event.attributes,
                 "{\"comexampleextension1\":\"value\",\"comexampleothervalue\":5,"
                 "\"datacontenttype\":\"application/json\"}");
    struct id expected =
        id_make_dedup(read_id_key, SLICE_LITERAL("event"), SLICE_LITERAL("/mycontext"),
                      SLICE_LITERAL("C234-1234-1234"));
    assert_true(id_equal(read->event.id, expected));
}

#define HEAD "\"specversion\":\"1.0\",\"type\":\"t\",\"source\":\"/s\",\"id\":\"1\""

static void data_comes_as_json_or_base64(void **state)
{
    struct read *read = *state;
    assert_int_equal(read_form(read, CLOUD, "{" HEAD ",\"data_base64\":\"aGk\\/\"}"), ERR_OK);
    assert_slice(read->event.payload, "\"aGk\\/\"");
    assert_slice(read->event.attributes, "{\"data_encoding\":\"base64\"}");
    assert_int_equal(read_form(read, CLOUD, "{" HEAD ",\"data_base64\":\"\"}"), ERR_OK);
    assert_slice(read->event.payload, "\"\"");
    assert_int_equal(read_form(read, CLOUD, "{" HEAD "}"), ERR_OK);
    assert_slice(read->event.payload, "null");
    assert_int_equal(read_form(read, CLOUD, "{" HEAD ",\"data\":3,\"data_base64\":null}"), ERR_OK);
    assert_slice(read->event.payload, "3");
}

static void what_is_wrong_is_named(void **state)
{
    struct read *read = *state;
    static const char *const cases[][3] = {
        {"{\"type\":\"t\",\"source\":\"/s\",\"id\":\"1\"}", "missing_field", "/specversion"},
        {"{\"specversion\":\"0.3\",\"type\":\"t\",\"source\":\"/s\",\"id\":\"1\"}", "invalid_value",
         "/specversion"},
        {"{\"specversion\":\"1.0\",\"source\":\"/s\",\"id\":\"1\"}", "missing_field", "/type"},
        {"{\"specversion\":\"1.0\",\"type\":\"t\",\"id\":\"1\"}", "missing_field", "/source"},
        {"{\"specversion\":\"1.0\",\"type\":\"t\",\"source\":\"/s\"}", "missing_field", "/id"},
        {"{\"specversion\":\"1.0\",\"type\":\"t\",\"source\":\"\",\"id\":\"1\"}", "invalid_value",
         "/source"},
        {"{" HEAD ",\"id\":\"2\"}", "duplicate_key", "/id"},
        {"{" HEAD ",\"subject\":\"\"}", "invalid_value", "/subject"},
        {"{" HEAD ",\"time\":\"now\"}", "invalid_value", "/time"},
        {"{" HEAD ",\"data\":1,\"data_base64\":\"\"}", "invalid_value", "/data_base64"},
        {"{" HEAD ",\"data_base64\":\"a b=\"}", "invalid_value", "/data_base64"},
        {"{" HEAD ",\"data_base64\":\"abc\"}", "invalid_value", "/data_base64"},
        {"{" HEAD ",\"data_base64\":\"a===\"}", "invalid_value", "/data_base64"},
        {"{" HEAD ",\"data_base64\":7}", "invalid_type", "/data_base64"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_refused(read, CLOUD, cases[i][0], cases[i][1], cases[i][2]);
    }
}

/* --- binary mode --------------------------------------------------------------------------- */

struct binary {
    struct record_frame frame;
};

static void add(struct record_frame *frame, const char *name, const char *value)
{
    frame->attributes[frame->attribute_count].name = slice_from_text(name);
    frame->attributes[frame->attribute_count].value = slice_from_text(value);
    frame->attribute_count++;
}

static void begin(struct record_frame *frame, const char *content_type, struct slice body)
{
    memset(frame, 0, sizeof(*frame));
    frame->form = RECORD_FORM_CLOUDEVENT_BINARY;
    add(frame, "ce-specversion", "1.0");
    add(frame, "ce-type", "t");
    add(frame, "ce-source", "/s");
    add(frame, "ce-id", "1");
    if (content_type != NULL) {
        add(frame, "content-type", content_type);
    }
    frame->body = body;
}

static enum err read_binary(struct read *read, const struct record_frame *frame)
{
    return format_cloudevent_binary_read(read->reader, frame, &read->context, &read->event,
                                         &read->fault);
}

static void binary_headers_are_decoded(void **state)
{
    struct read *read = *state;
    static struct record_frame frame;
    begin(&frame, "application/json; charset=utf-8", SLICE_LITERAL(" {\"a\":1}\n"));
    add(&frame, "ce-time", "2018-04-05T17:31:00Z");
    /* HTTP binding 3.1.3.2: "Euro € 😀" as the specification encodes it. */
    add(&frame, "ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80");
    add(&frame, "ce-partitionkey", "\"a \\\"b\\\" %25\"");
    add(&frame, "accept", "*/*");
    assert_int_equal(read_binary(read, &frame), ERR_OK);
    assert_slice(read->event.payload, "{\"a\":1}");
    assert_slice(read->event.subject, "Euro \xe2\x82\xac \xf0\x9f\x98\x80");
    assert_int_equal(read->event.occurred_ms, 1522949460000);
    assert_slice(read->event.attributes, "{\"datacontenttype\":\"application/json; charset=utf-8\","
                                         "\"partitionkey\":\"a \\\"b\\\" %\"}");
    struct id expected =
        id_make_dedup(read_id_key, SLICE_LITERAL("event"), SLICE_LITERAL("/s"), SLICE_LITERAL("1"));
    assert_true(id_equal(read->event.id, expected));
}

static void binary_tolerates_raw_characters(void **state)
{
    struct read *read = *state;
    static struct record_frame frame;
    static const char *const values[][2] = {
        {"100%", "100%"},
        {"%zz", "%zz"},
        {"%4", "%4"},
        {"a \"b\" c", "a \"b\" c"},
        {"\"", "\""},
        {"%2525", "%25"},
        {"%e2%82%ac", "\xe2\x82\xac"},
        {"caf\xc3\xa9", "caf\xc3\xa9"},
    };
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        begin(&frame, NULL, SLICE_LITERAL(""));
        add(&frame, "ce-subject", values[i][0]);
        assert_int_equal(read_binary(read, &frame), ERR_OK);
        assert_slice(read->event.subject, values[i][1]);
        assert_slice(read->event.payload, "null");
    }
}

static void binary_refuses_bad_headers(void **state)
{
    struct read *read = *state;
    static struct record_frame frame;
    static const char *const headers[][2] = {
        {"ce-subject", "%C0%A0"},
        {"ce-subject", "%E2%82"},
        {"ce-subject", "a%00b"},
        {"ce-subject", "\xff"},
        {"ce-subject", ""},
        {"ce-id", "2"},
        {"ce-datacontenttype", "text/xml"},
        {"ce-data", "x"},
        {"ce-", "x"},
        {"ce-bad-name", "x"},
        {"ce-time", "noon"},
        {"ce-subject", "%ED%A0%80"},
    };
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        begin(&frame, NULL, SLICE_LITERAL(""));
        add(&frame, headers[i][0], headers[i][1]);
        assert_int_equal(read_binary(read, &frame), ERR_INVALID);
    }
    begin(&frame, NULL, SLICE_LITERAL(""));
    frame.attributes[0].value = SLICE_LITERAL("2.0");
    assert_int_equal(read_binary(read, &frame), ERR_INVALID);
    frame.attribute_count = 0;
    assert_int_equal(read_binary(read, &frame), ERR_INVALID);
    assert_string_equal(read->fault.code, "missing_field");
}

static void binary_data_of_each_content_type(void **state)
{
    struct read *read = *state;
    static struct record_frame frame;
    static const struct {
        const char *content_type;
        struct slice body;
        const char *payload;
        bool is_base64;
    } cases[] = {
        {"application/json", {(const uint8_t *)"[1]", 3}, "[1]", false},
        {"application/vnd.x+JSON", {(const uint8_t *)"true", 4}, "true", false},
        {NULL, {(const uint8_t *)"{}", 2}, "{}", false},
        {NULL, {(const uint8_t *)"hello", 5}, "\"aGVsbG8=\"", true},
        {"text/plain", {(const uint8_t *)"a \"b\"\n", 6}, "\"a \\\"b\\\"\\n\"", false},
        {"text/plain", {(const uint8_t *)"\xff\xfe", 2}, "\"//4=\"", true},
        /* RFC 4648, section 10 */
        {"image/png", {(const uint8_t *)"f", 1}, "\"Zg==\"", true},
        {"image/png", {(const uint8_t *)"fo", 2}, "\"Zm8=\"", true},
        {"image/png", {(const uint8_t *)"foo", 3}, "\"Zm9v\"", true},
        {"image/png", {(const uint8_t *)"foob", 4}, "\"Zm9vYg==\"", true},
        {"image/png", {(const uint8_t *)"foobar", 6}, "\"Zm9vYmFy\"", true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin(&frame, cases[i].content_type, cases[i].body);
        assert_int_equal(read_binary(read, &frame), ERR_OK);
        assert_slice(read->event.payload, cases[i].payload);
        bool has_mark = read->event.attributes.data != NULL &&
                        memmem(read->event.attributes.data, read->event.attributes.size,
                               "\"data_encoding\":\"base64\"", 24) != NULL;
        assert_int_equal(has_mark, cases[i].is_base64);
    }
    begin(&frame, "application/json", SLICE_LITERAL("{\"a\":"));
    assert_int_equal(read_binary(read, &frame), ERR_SYNTAX);
    begin(&frame, "application/json", SLICE_LITERAL("\"\xc0\xa0\""));
    assert_int_equal(read_binary(read, &frame), ERR_SYNTAX);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, read_setup, read_teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_specification_s_example),      TEST(data_comes_as_json_or_base64),
        TEST(what_is_wrong_is_named),           TEST(binary_headers_are_decoded),
        TEST(binary_tolerates_raw_characters),  TEST(binary_refuses_bad_headers),
        TEST(binary_data_of_each_content_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
