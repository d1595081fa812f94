/* Promise: each token says its kind, text, place and depth; every bound is kept to the byte; a
 * fault is final until reset; and nothing that was found before a fault is lost. */
#include "unit/json/reading.h"

#define S SLICE_LITERAL

static const struct json_options options = {.depth_max = 1024, .string_bytes_max = 256};

struct expected {
    enum json_kind kind;
    const char *text;
    uint64_t offset;
    uint32_t depth;
    bool escaped;
};

static void check_tokens(const struct json_token *tokens, const struct expected *expected,
                         size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(tokens[i].kind, expected[i].kind);
        assert_int_equal(tokens[i].offset, expected[i].offset);
        assert_int_equal(tokens[i].depth, expected[i].depth);
        assert_int_equal(tokens[i].escaped, expected[i].escaped);
        if (expected[i].text == NULL) {
            assert_null(tokens[i].text);
            assert_int_equal(tokens[i].size, 0);
        } else {
            assert_true(
                slice_equal(json_token_slice(&tokens[i]), slice_from_text(expected[i].text)));
        }
    }
}

static void test_tokens(void **state)
{
    (void)state;
    static const struct expected expected[] = {
        {JSON_OBJECT_BEGIN, NULL, 1, 0, false},  {JSON_KEY, "a", 2, 1, false},
        {JSON_ARRAY_BEGIN, NULL, 7, 1, false},   {JSON_NUMBER, "-1.5e3", 8, 2, false},
        {JSON_TRUE, NULL, 15, 2, false},         {JSON_FALSE, NULL, 20, 2, false},
        {JSON_NULL, NULL, 26, 2, false},         {JSON_STRING, "x\\ny", 31, 2, true},
        {JSON_ARRAY_END, NULL, 37, 1, false},    {JSON_KEY, "\\u0062", 39, 1, true},
        {JSON_OBJECT_BEGIN, NULL, 48, 1, false}, {JSON_OBJECT_END, NULL, 49, 1, false},
        {JSON_OBJECT_END, NULL, 50, 0, false},
    };
    struct json_token tokens[32];
    struct json_reader *reader = json_reader_create(&options);
    size_t count = 0;
    json_document_begin(reader, S(" {\"a\" :[-1.5e3,true,false,null,\"x\\ny\"],\"\\u0062\":{}}"));
    assert_int_equal(json_document_next(reader, tokens, 32, &count), ERR_OK);
    assert_int_equal(count, 13);
    check_tokens(tokens, expected, count);
    assert_int_equal(json_document_next(reader, tokens, 32, &count), ERR_OK);
    assert_int_equal(count, 0);
    json_reader_destroy(reader);
}

/* Offsets go on over the chunks; a key and its colon may be in different ones. */
static void test_tokens_of_chunks(void **state)
{
    (void)state;
    static const struct expected first[] = {{JSON_OBJECT_BEGIN, NULL, 0, 0, false}};
    static const struct expected second[] = {{JSON_KEY, "key", 1, 1, false}};
    static const struct expected third[] = {{JSON_NUMBER, "12", 8, 1, false},
                                            {JSON_OBJECT_END, NULL, 10, 0, false}};
    struct json_token tokens[8];
    struct json_reader *reader = json_reader_create(&options);
    size_t count = 0;
    json_reader_feed(reader, S("{\"ke"));
    assert_int_equal(json_reader_read(reader, tokens, 8, &count), ERR_OK);
    assert_int_equal(count, 1);
    check_tokens(tokens, first, 1);
    assert_int_equal(json_reader_read(reader, tokens, 8, &count), ERR_OK);
    assert_int_equal(count, 0);
    json_reader_feed(reader, S("y\""));
    assert_int_equal(json_reader_read(reader, tokens, 8, &count), ERR_OK);
    assert_int_equal(count, 1);
    check_tokens(tokens, second, 1);
    json_reader_feed(reader, S(": 1"));
    assert_int_equal(json_reader_read(reader, tokens, 8, &count), ERR_OK);
    assert_int_equal(count, 0);
    json_reader_feed(reader, slice_make(NULL, 0));
    assert_int_equal(json_reader_read(reader, tokens, 8, &count), ERR_OK);
    assert_int_equal(count, 0);
    json_reader_feed(reader, S("2}"));
    assert_int_equal(json_reader_read(reader, tokens, 8, &count), ERR_OK);
    while (count < 2) { /* a token that was cut may come by itself */
        size_t more = 0;
        assert_int_equal(json_reader_read(reader, tokens + count, 8 - count, &more), ERR_OK);
        assert_true(more > 0);
        count += more;
    }
    check_tokens(tokens, third, 2);
    bool has_token = true;
    assert_int_equal(json_reader_end(reader, tokens, &has_token), ERR_OK);
    assert_false(has_token);
    json_reader_destroy(reader);
}

/* Only the end of the stream ends a top-level number. */
static void test_number_at_the_end(void **state)
{
    (void)state;
    struct json_token token;
    size_t count = 9;
    bool has_token = false;
    struct json_reader *reader = json_reader_create(&options);
    json_reader_feed(reader, S(" 4"));
    assert_int_equal(json_reader_read(reader, &token, 1, &count), ERR_OK);
    assert_int_equal(count, 0);
    json_reader_feed(reader, S("2"));
    assert_int_equal(json_reader_read(reader, &token, 1, &count), ERR_OK);
    assert_int_equal(count, 0);
    assert_int_equal(json_reader_end(reader, &token, &has_token), ERR_OK);
    assert_true(has_token);
    static const struct expected expected = {JSON_NUMBER, "42", 1, 0, false};
    check_tokens(&token, &expected, 1);
    /* The twin: a number that may not end there. */
    json_reader_reset(reader);
    json_reader_feed(reader, S("42."));
    assert_int_equal(json_reader_read(reader, &token, 1, &count), ERR_OK);
    has_token = false;
    assert_int_equal(json_reader_end(reader, &token, &has_token), ERR_SYNTAX);
    assert_false(has_token);
    assert_int_equal(json_reader_fault(reader).offset, 3);
    json_reader_destroy(reader);
}

static enum err read_all(struct json_reader *reader, struct slice document)
{
    struct json_token tokens[7];
    size_t count = 0;
    enum err err = ERR_OK;
    json_document_begin(reader, document);
    do {
        err = json_document_next(reader, tokens, 7, &count);
    } while (err == ERR_OK && count > 0);
    return err;
}

static void test_depth(void **state)
{
    (void)state;
    char document[2 * 1025];
    memset(document, '[', 1025);
    memset(document + 1025, ']', 1025);
    struct json_reader *reader = json_reader_create(&options);
    assert_int_equal(read_all(reader, slice_make(document + 1, 2048)), ERR_OK);
    assert_int_equal(read_all(reader, slice_make(document, 2050)), ERR_DEPTH);
    assert_int_equal(json_reader_fault(reader).offset, 1024);
    json_reader_destroy(reader);

    static const struct json_options shallow = {.depth_max = 2, .string_bytes_max = 9};
    reader = json_reader_create(&shallow);
    assert_int_equal(read_all(reader, S("{\"a\":[1],\"b\":{}}")), ERR_OK);
    assert_int_equal(read_all(reader, S("{\"a\":[1,{}]}")), ERR_DEPTH);
    assert_int_equal(json_reader_fault(reader).offset, 8);
    json_reader_destroy(reader);
}

/* Objects and arrays in turn: each end must fit its own begin, over the 64 bits of a word too. */
static void test_ends_fit_begins(void **state)
{
    (void)state;
    struct buffer document;
    buffer_init(&document, 4096);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(buffer_append_text(&document, i % 3 == 0 ? "{\"\":" : "["), ERR_OK);
    }
    assert_int_equal(buffer_append_byte(&document, '0'), ERR_OK);
    for (int i = 99; i >= 0; i--) {
        assert_int_equal(buffer_append_byte(&document, i % 3 == 0 ? '}' : ']'), ERR_OK);
    }
    struct json_reader *reader = json_reader_create(&options);
    assert_int_equal(read_all(reader, buffer_slice(&document)), ERR_OK);
    for (size_t i = 1; i <= 100; i++) {
        uint8_t *end = &document.data[document.size - i];
        *end = *end == '}' ? ']' : '}';
        assert_int_equal(read_all(reader, buffer_slice(&document)), ERR_SYNTAX);
        assert_int_equal(json_reader_fault(reader).offset, document.size - i);
        *end = *end == '}' ? ']' : '}';
    }
    json_reader_destroy(reader);
    buffer_finish(&document);
}

static void test_text_bounds(void **state)
{
    (void)state;
    static const struct json_options small = {.depth_max = 4, .string_bytes_max = 5};
    struct json_reader *reader = json_reader_create(&small);
    assert_int_equal(read_all(reader, S("{\"12345\":\"12345\",\"a\":12345}")), ERR_OK);
    assert_int_equal(read_all(reader, S("[\"123456\"]")), ERR_TOO_LARGE);
    assert_int_equal(json_reader_fault(reader).offset, 7);
    assert_int_equal(read_all(reader, S("{\"123456\":1}")), ERR_TOO_LARGE);
    assert_int_equal(json_reader_fault(reader).offset, 7);
    assert_int_equal(read_all(reader, S("[123456]")), ERR_TOO_LARGE);
    assert_int_equal(json_reader_fault(reader).offset, 6);
    /* Bytes count as they came: one escape of six. */
    assert_int_equal(read_all(reader, S("[\"\\u0041\"]")), ERR_TOO_LARGE);
    assert_int_equal(read_all(reader, S("[\"\xe6\x97\xa5\xc3\xa9\"]")), ERR_OK);
    json_reader_destroy(reader);
}

static void test_nan(void **state)
{
    (void)state;
    static const struct json_options nan_options = {
        .depth_max = 4, .string_bytes_max = 5, .nan_is_number = true};
    static const struct expected expected[] = {
        {JSON_ARRAY_BEGIN, NULL, 0, 0, false},  {JSON_NUMBER, "NaN", 1, 1, false},
        {JSON_NUMBER, "Infinity", 5, 1, false}, {JSON_NUMBER, "-Infinity", 14, 1, false},
        {JSON_ARRAY_END, NULL, 23, 0, false},
    };
    struct json_token tokens[8];
    size_t total = 0;
    size_t count = 0;
    struct json_reader *reader = json_reader_create(&nan_options);
    json_document_begin(reader, S("[NaN,Infinity,-Infinity]"));
    do {
        assert_int_equal(json_document_next(reader, tokens + total, 8 - total, &count), ERR_OK);
        total += count;
    } while (count > 0);
    assert_int_equal(total, 5);
    check_tokens(tokens, expected, total);
    assert_int_equal(read_all(reader, S("[nan]")), ERR_SYNTAX);
    assert_int_equal(read_all(reader, S("[-NaN]")), ERR_SYNTAX);
    assert_int_equal(read_all(reader, S("{NaN:1}")), ERR_SYNTAX);
    json_reader_destroy(reader);
    reader = json_reader_create(&options);
    assert_int_equal(read_all(reader, S("[NaN]")), ERR_SYNTAX);
    json_reader_destroy(reader);
}

static void test_tokens_before_a_fault_come_first(void **state)
{
    (void)state;
    struct json_token tokens[8];
    size_t count = 0;
    struct json_reader *reader = json_reader_create(&options);
    json_reader_feed(reader, S("[1,2,x"));
    assert_int_equal(json_reader_read(reader, tokens, 8, &count), ERR_OK);
    assert_int_equal(count, 3);
    assert_int_equal(json_reader_read(reader, tokens, 8, &count), ERR_SYNTAX);
    assert_int_equal(count, 3);
    assert_int_equal(json_reader_fault(reader).offset, 5);
    /* It stays broken, whatever comes. */
    json_reader_feed(reader, S("3]"));
    assert_int_equal(json_reader_read(reader, tokens, 8, &count), ERR_SYNTAX);
    bool has_token = false;
    assert_int_equal(json_reader_end(reader, tokens, &has_token), ERR_SYNTAX);
    assert_int_equal(json_reader_fault(reader).offset, 5);
    /* Until reset. */
    assert_int_equal(read_all(reader, S("[3]")), ERR_OK);
    json_reader_destroy(reader);
}

/* A reader that was never fed anything cut holds no carry; one that was gives a large one back. */
static void test_reset_in_the_middle(void **state)
{
    (void)state;
    struct json_token tokens[8];
    size_t count = 0;
    struct json_reader *reader = json_reader_create(&options);
    const char *const cut[] = {"[[[{\"a\":\"cut", "[12", "[tr", "{\"a\\u00", "[\"\xe6"};
    for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
        json_reader_reset(reader);
        json_reader_feed(reader, slice_from_text(cut[i]));
        do {
            assert_int_equal(json_reader_read(reader, tokens, 8, &count), ERR_OK);
        } while (count > 0);
        assert_int_equal(read_all(reader, S("{\"b\":\"\"}")), ERR_OK);
    }
    json_reader_destroy(reader);
    json_reader_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_tokens_of_chunks),
        cmocka_unit_test(test_number_at_the_end),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_ends_fit_begins),
        cmocka_unit_test(test_text_bounds),
        cmocka_unit_test(test_nan),
        cmocka_unit_test(test_tokens_before_a_fault_come_first),
        cmocka_unit_test(test_reset_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
