/* Promise: every element of an array, of a member's array or of lines is handed over once, raw and
 * in order, however the stream is cut; the rest is verified; what is not of the shape is refused.
 */
#include "unit/json/reading.h"

#include <unistd.h>

#define S SLICE_LITERAL

static const struct json_elements_options plain_options = {
    .json = {.depth_max = 16, .string_bytes_max = 1000},
    .shape = JSON_SHAPE_ARRAY,
    .element_bytes_max = 30,
};

static void note(struct buffer *trace, const struct json_element *element)
{
    if (element->too_large) {
        assert_null(element->raw.data);
    }
    assert_int_equal(buffer_printf(trace, "%llu@%llu%s:", (unsigned long long)element->index,
                                   (unsigned long long)element->offset,
                                   element->too_large ? "!" : ""),
                     ERR_OK);
    assert_int_equal(buffer_append_slice(trace, element->raw), ERR_OK);
    assert_int_equal(buffer_append_byte(trace, '\n'), ERR_OK);
}

/* Each piece in a block of its own that dies when the next is fed. */
static void take_pieces(struct json_elements *elements, struct slice stream, size_t first,
                        size_t others, struct buffer *trace)
{
    enum err err = ERR_OK;
    struct json_element element;
    bool has = true;
    buffer_clear(trace);
    for (size_t at = 0; at < stream.size && err == ERR_OK;) {
        struct slice piece = slice_part(stream, at, at + (at == 0 ? first : others));
        uint8_t *copy = malloc(piece.size);
        assert_non_null(copy);
        memcpy(copy, piece.data, piece.size);
        json_elements_feed(elements, slice_make(copy, piece.size));
        at += piece.size;
        do {
            err = json_elements_next(elements, &element, &has);
            if (err == ERR_OK && has) {
                note(trace, &element);
            }
        } while (err == ERR_OK && has);
        memset(copy, 'x', piece.size);
        free(copy);
    }
    if (err == ERR_OK) {
        err = json_elements_end(elements, &element, &has);
        if (err == ERR_OK && has) {
            note(trace, &element);
        }
    }
    if (err != ERR_OK) {
        struct json_fault fault = json_elements_fault(elements);
        assert_non_null(fault.message);
        assert_int_equal(
            buffer_printf(trace, "%s@%llu\n", err_code(err), (unsigned long long)fault.offset),
            ERR_OK);
        assert_int_equal(json_elements_next(elements, &element, &has), err); /* it is final */
    }
}

struct expected {
    enum json_shape shape;
    struct slice stream;
    const char *trace;
};

#define ARRAY  JSON_SHAPE_ARRAY
#define MEMBER JSON_SHAPE_MEMBER
#define LINES  JSON_SHAPE_LINES

static void test_elements(void **state)
{
    (void)state;
    const struct expected cases[] = {
        {ARRAY, S("[]"), ""},
        {ARRAY, S(" [ ] "), ""},
        {ARRAY, S("[1]"), "0@1:1\n"},
        {ARRAY, S("[1, -2.5e3 ,\"a\\\"b\",true,false,null]"),
         "0@1:1\n1@4:-2.5e3\n2@12:\"a\\\"b\"\n3@19:true\n4@24:false\n5@30:null\n"},
        {ARRAY, S("[ {\"a\": [1, {}]} , [[ ]] ,{}]"),
         "0@2:{\"a\": [1, {}]}\n1@19:[[ ]]\n2@26:{}\n"},
        {ARRAY, S("[\"1234567890123456789012345678\",\"12345678901234567890123456789\",2]"),
         "0@1:\"1234567890123456789012345678\"\n1@32!:\n2@64:2\n"},
        {ARRAY, S("[[1234567890,1234567890,123456],[1234567890,1234567890,1234567],{}]"),
         "0@1:[1234567890,1234567890,123456]\n1@32!:\n2@64:{}\n"},
        {ARRAY, S("[1234567890123456789012345678901,0]"), "0@1!:\n1@33:0\n"},
        {ARRAY, S("[1,{},x]"), "0@1:1\n1@3:{}\nmalformed@6\n"},
        {ARRAY, S("[1,{\"a\""), "0@1:1\nmalformed@7\n"},
        {ARRAY, S("[1]]"), "0@1:1\nmalformed@3\n"},
        {ARRAY, S(""), "malformed@0\n"},
        {ARRAY, S("{}"), "invalid@0\n"},
        {ARRAY, S(" \"a\""), "invalid@1\n"},
        {ARRAY, S(" 12 "), "invalid@1\n"},
        {ARRAY, S(" 12"), "invalid@1\n"},
        {ARRAY, S("nul"), "malformed@3\n"},
        {MEMBER, S("{\"batch\":[]}"), ""},
        {MEMBER, S("{\"batch\":[{\"x\":1},2]}"), "0@10:{\"x\":1}\n1@18:2\n"},
        {MEMBER, S("{\"b\\u0061tch\" : [ 1 ] , \"z\":[3]}"), "0@18:1\n"},
        {MEMBER, S("{\"a\":{\"batch\":[7]},\"batch\":[8],\"c\":{\"batch\":[9]}}"), "0@28:8\n"},
        {MEMBER, S("{\"a\":[[7]],\"batch\":[[8]]}"), "0@20:[8]\n"},
        {MEMBER, S("{\"a\":\"batch\",\"batch\":[8]}"), "0@22:8\n"},
        {MEMBER, S("{\"batch\":[1],\"batch\":[2]}"), "0@10:1\ninvalid@13\n"},
        {MEMBER, S("{\"batch\":{}}"), "invalid@9\n"},
        {MEMBER, S("{\"batch\":null}"), "invalid@9\n"},
        {MEMBER, S("{\"batches\":[1]}"), "invalid@0\n"},
        {MEMBER, S("{}"), "invalid@0\n"},
        {MEMBER, S("[1]"), "invalid@0\n"},
        {MEMBER, S("{\"batch\":[1]"), "0@10:1\nmalformed@12\n"},
        {MEMBER, S("{\"batch\":[1],}"), "0@10:1\nmalformed@13\n"},
        {LINES, S(""), ""},
        {LINES, S("\n \r\n\t\n"), ""},
        {LINES, S("{\"a\":1}\n{\"a\":2}\n"), "0@0:{\"a\":1}\n1@8:{\"a\":2}\n"},
        {LINES, S("{\"a\":1}\r\n\r\n  [ 2 ]\t\r\n3"), "0@0:{\"a\":1}\n1@13:[ 2 ]\n2@21:3\n"},
        {LINES, S("1\n\n\n2  "), "0@0:1\n1@4:2\n"},
        {LINES, S("a b\nnot json"), "0@0:a b\n1@4:not json\n"},
        {LINES, S("   123456789012345678901234567890                                     \n1"),
         "0@3:123456789012345678901234567890\n1@71:1\n"},
        {LINES, S("1234567890123456789012345678901\n1\n"), "0@0!:\n1@32:1\n"},
        {LINES, S("1                                             2\n3"), "0@0!:\n1@48:3\n"},
    };
    struct buffer trace;
    buffer_init(&trace, 65536);
    struct json_elements *elements = json_elements_create(&plain_options);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t size = cases[i].stream.size;
        for (size_t cut = 1; cut <= size + 10; cut++) {
            /* In two, at every byte; whole; in pieces of 1 to 10. */
            size_t others = cut <= size ? size : cut - size;
            json_elements_reset(elements, cases[i].shape, S("batch"));
            take_pieces(elements, cases[i].stream, cut <= size ? cut : others, others, &trace);
            if (!slice_equal(buffer_slice(&trace), slice_from_text(cases[i].trace))) {
                fail_msg("%.*s cut %zu, %zu:\n%.*s", (int)size, (const char *)cases[i].stream.data,
                         cut, others, (int)trace.size, (const char *)trace.data);
            }
        }
    }
    json_elements_destroy(elements);
    json_elements_destroy(NULL);
    buffer_finish(&trace);
}

/* Large arrays of large elements: what was written is handed over, byte by byte the same. */
static void test_random_elements(void **state)
{
    (void)state;
    unsigned seed = (unsigned)getpid();
    print_message("seed %u\n", seed);
    struct json_elements_options options = plain_options;
    options.element_bytes_max = 20000;
    options.json.string_bytes_max = 20000;
    struct buffer array;
    struct buffer lines;
    struct buffer expected;
    struct buffer trace;
    buffer_init(&array, READING_BYTES_MAX);
    buffer_init(&lines, READING_BYTES_MAX);
    buffer_init(&expected, READING_BYTES_MAX);
    buffer_init(&trace, READING_BYTES_MAX);
    struct json_elements *elements = json_elements_create(&options);
    for (int round = 0; round < 200; round++) {
        buffer_clear(&array);
        buffer_clear(&lines);
        buffer_clear(&expected);
        struct buffer *to = round % 2 == 0 ? &array : &lines;
        size_t count = (size_t)rand_r(&seed) % 20;
        if (to == &array) {
            assert_int_equal(buffer_append_byte(to, '['), ERR_OK);
        }
        for (size_t i = 0; i < count; i++) {
            int fill = rand_r(&seed) % 3 == 0 ? rand_r(&seed) % 19000 : rand_r(&seed) % 100;
            if (to == &array && i > 0) {
                assert_int_equal(buffer_append_byte(to, ','), ERR_OK);
            }
            assert_int_equal(buffer_printf(&expected, "%zu@%zu:", i, to->size), ERR_OK);
            size_t from = to->size;
            assert_int_equal(buffer_printf(to, "{\"k%d\":[\"%0*d\",{\"n\":%d}]}", fill, fill + 1,
                                           fill, rand_r(&seed)),
                             ERR_OK);
            assert_int_equal(buffer_append(&expected, to->data + from, to->size - from), ERR_OK);
            assert_int_equal(buffer_append_byte(&expected, '\n'), ERR_OK);
            if (to == &lines) {
                assert_int_equal(buffer_append_byte(to, '\n'), ERR_OK);
            }
        }
        if (to == &array) {
            assert_int_equal(buffer_append_byte(to, ']'), ERR_OK);
        }
        json_elements_reset(elements, round % 2 == 0 ? JSON_SHAPE_ARRAY : JSON_SHAPE_LINES,
                            slice_make(NULL, 0));
        take_pieces(elements, buffer_slice(to), 1 + (size_t)rand_r(&seed) % 5000,
                    1 + (size_t)rand_r(&seed) % 5000, &trace);
        reading_compare(&expected, &trace);
    }
    json_elements_destroy(elements);
    buffer_finish(&array);
    buffer_finish(&lines);
    buffer_finish(&expected);
    buffer_finish(&trace);
}

static void check_sibling(const struct json_elements *elements, const char *name, const char *raw)
{
    struct slice got = slice_make("untouched", 9);
    bool found = json_elements_sibling(elements, slice_from_text(name), &got);
    assert_true(found == (raw != NULL));
    assert_true(slice_equal(got, slice_from_text(raw != NULL ? raw : "untouched")));
}

static void test_siblings(void **state)
{
    (void)state;
    struct slice stream =
        S("{\"writeKey\":\"k\\n1\",\"n\":-1.50,\"o\":{\"writeKey\":2},\"a\":[3],\"t\":true,"
          "\"batch\":[{\"inside\":4}],\"\\u0073entAt\":\"now\",\"n\":2,\"z\":null}");
    struct buffer trace;
    buffer_init(&trace, 65536);
    struct json_elements *elements = json_elements_create(&plain_options);
    for (size_t piece = 1; piece < stream.size; piece++) {
        json_elements_reset(elements, JSON_SHAPE_MEMBER, S("batch"));
        check_sibling(elements, "writeKey", NULL);
        take_pieces(elements, stream, piece, piece, &trace);
        check_sibling(elements, "writeKey", "\"k\\n1\"");
        check_sibling(elements, "n", "2"); /* the last of equal names */
        check_sibling(elements, "t", "true");
        check_sibling(elements, "sentAt", "\"now\"");
        check_sibling(elements, "z", "null");
        check_sibling(elements, "o", NULL);
        check_sibling(elements, "a", NULL);
        check_sibling(elements, "inside", NULL);
        check_sibling(elements, "batch", NULL);
    }
    json_elements_destroy(elements);
    buffer_finish(&trace);
}

/* Sixteen of at most 512 bytes: what is beyond is not kept, and does not disturb. */
static void test_sibling_bounds(void **state)
{
    (void)state;
    struct buffer stream;
    struct buffer trace;
    buffer_init(&stream, 65536);
    buffer_init(&trace, 65536);
    assert_int_equal(
        buffer_printf(&stream, "{\"long\":\"%0*d\",\"fits\":\"%0*d\",", 511, 1, 510, 2), ERR_OK);
    for (int i = 1; i < 18; i++) {
        assert_int_equal(buffer_printf(&stream, "\"s%d\":%d,", i, i), ERR_OK);
    }
    assert_int_equal(buffer_append_text(&stream, "\"batch\":[5]}"), ERR_OK);
    struct json_elements *elements = json_elements_create(&plain_options);
    json_elements_reset(elements, JSON_SHAPE_MEMBER, S("batch"));
    take_pieces(elements, buffer_slice(&stream), 100, 100, &trace);
    check_sibling(elements, "long", NULL);
    struct slice fits;
    assert_true(json_elements_sibling(elements, S("fits"), &fits));
    assert_int_equal(fits.size, 512);
    check_sibling(elements, "s1", "1");
    check_sibling(elements, "s15", "15");
    check_sibling(elements, "s16", NULL);
    check_sibling(elements, "s17", NULL);
    assert_true(trace.size > 0 && trace.data[trace.size - 2] == '5');
    json_elements_destroy(elements);
    buffer_finish(&stream);
    buffer_finish(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements),
        cmocka_unit_test(test_random_elements),
        cmocka_unit_test(test_siblings),
        cmocka_unit_test(test_sibling_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
