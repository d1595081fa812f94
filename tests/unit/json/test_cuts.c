/* Promise: where the chunks are cut changes nothing: the same tokens, texts, offsets and faults
 * come of every document, with and without wide vector instructions. */
#include "unit/json/reading.h"
#include "unit/json/vectors.h"

/* The unit itself, so that the choice of instructions can be taken from it. */
#include "json/reader.c" /* NOLINT(bugprone-suspicious-include) */

#include <unistd.h>

static const struct json_options options = {
    .depth_max = 8, .string_bytes_max = 40, .nan_is_number = false};
static const struct json_options options_nan = {
    .depth_max = 3, .string_bytes_max = 9, .nan_is_number = true};

#define S SLICE_LITERAL

/* Beside the vectors: bounds, NaN, and long texts. */
static const struct slice more[] = {
    VECTOR("[NaN,Infinity,-Infinity,-1,{\"a\":NaN}]"),
    VECTOR("[NaN,Infinit,1]"),
    VECTOR("[-Infinite]"),
    VECTOR("[-I"),
    VECTOR("NaN"),
    VECTOR("-Infinity"),
    VECTOR("-Inf"),
    VECTOR("[[[[1]]]]"),
    VECTOR("[[[[[[[[[[1]]]]]]]]]]"),
    VECTOR("{\"a\":{\"b\":{\"c\":{\"d\":[1]}}}}"),
    VECTOR("[\"1234567890123456789012345678901234567890\"]"),
    VECTOR("[\"12345678901234567890123456789012345678901\"]"),
    VECTOR("[\"123456789012345678901234567890123456789\\n\"]"),
    VECTOR("[\"1234567890123456789012345678901234567890\n\"]"),
    VECTOR("[\"12345678901234567890123456789012345678901\n\"]"),
    VECTOR("[\"12345678901234567890123456789012345678\xe6\x97\xa5\"]"),
    VECTOR("[\"12345678901234567890123456789012345678\xe6\x97z\"]"),
    VECTOR("[\"1234567890123456789012345678901234567890\\ud800x\"]"),
    VECTOR("[\"1234567890123456789012345678901234567890\\ud800\\udc00\"]"),
    VECTOR("[1234567890123456789012345678901234567890]"),
    VECTOR("[12345678901234567890123456789012345678901]"),
    VECTOR("[123456789012345678901234567890123456789.]"),
    VECTOR("[1234567890123456789012345678901234567890.]"),
    VECTOR("[12345678901234567890123456789012345678901.x]"),
    VECTOR("[123456789]"),
    VECTOR("[1234567890]"),
    VECTOR("[-12345678x]"),
    VECTOR("[\"12345678\\u"),
    VECTOR("{\"12345678901234567890123456789012345678901\":1}"),
    VECTOR("{\"qty\":72.36363636363636,\"date\":\"2024-01-01 00:00:00 "
           "+0000\",\"source\":\"W\\u00e4tch\"}"),
};
#define MORE (sizeof(more) / sizeof(more[0]))

static struct slice cuts_document(size_t i)
{
    if (i < VECTORS_ACCEPT) {
        return vectors_accept[i];
    }
    i -= VECTORS_ACCEPT;
    return i < VECTORS_REJECT ? vectors_reject[i].text : more[i - VECTORS_REJECT];
}
#define CUTS_DOCUMENTS (VECTORS_ACCEPT + VECTORS_REJECT + MORE)

static void cuts_check(const struct json_options *with)
{
    struct json_reader *reader = json_reader_create(with);
    static const char padding[] = "                                        ";
    struct buffer padded;
    struct buffer whole;
    struct buffer trace;
    buffer_init(&whole, READING_BYTES_MAX);
    buffer_init(&trace, READING_BYTES_MAX);
    buffer_init(&padded, 4096);
    for (size_t i = 0; i < 2 * CUTS_DOCUMENTS; i++) {
        /* Each as it is, and with white space behind it, which leads to the fast ways. */
        buffer_clear(&padded);
        assert_int_equal(buffer_append_slice(&padded, cuts_document(i / 2)), ERR_OK);
        assert_int_equal(buffer_append_text(&padded, i % 2 == 0 ? "" : padding), ERR_OK);
        struct slice document = buffer_slice(&padded);
        reading_in_two(reader, document, 0, &whole);
        for (size_t cut = 1; cut < document.size; cut++) {
            reading_in_two(reader, document, cut, &trace);
            reading_compare(&whole, &trace);
        }
        for (size_t piece = 1; piece < 20; piece++) {
            reading_in_pieces(reader, document, piece, NULL, &trace);
            reading_compare(&whole, &trace);
        }
    }
    buffer_finish(&padded);
    buffer_finish(&whole);
    buffer_finish(&trace);
    json_reader_destroy(reader);
}

static void test_every_cut(void **state)
{
    (void)state;
    cuts_check(&options);
}

static void test_every_cut_with_nan_and_small_bounds(void **state)
{
    (void)state;
    cuts_check(&options_nan);
}

static void cuts_append_text(struct buffer *to, unsigned *seed)
{
    static const char *const bits[] = {"plain",
                                       "x",
                                       "\\n",
                                       "\\\"",
                                       "\xc3\xa9",
                                       "\\u00e9",
                                       "\xe6\x97\xa5",
                                       " ",
                                       "\\ud83d\\ude00",
                                       "\\\\",
                                       "a somewhat longer run of plain characters, 58 bytes of it",
                                       "\xf0\x9f\x98\x80"};
    size_t count = (size_t)rand_r(seed) % 6;
    assert_int_equal(buffer_append_byte(to, '"'), ERR_OK);
    for (size_t i = 0; i < count; i++) {
        const char *bit = bits[(size_t)rand_r(seed) % (sizeof(bits) / sizeof(bits[0]))];
        assert_int_equal(buffer_append_text(to, bit), ERR_OK);
    }
    assert_int_equal(buffer_append_byte(to, '"'), ERR_OK);
}

static void cuts_append_space(struct buffer *to, unsigned *seed)
{
    static const char *const spaces[] = {"", "", "", " ", "\n", "\r\n\t", "\n                    "};
    assert_int_equal(buffer_append_text(to, spaces[(size_t)rand_r(seed) % 7]), ERR_OK);
}

static void cuts_append_value(struct buffer *to, unsigned depth, unsigned *seed)
{
    static const char *const scalars[] = {
        "0", "-1.5", "12345678901234567890", "1e-7", "true", "false", "null", "72.5"};
    unsigned what = (unsigned)rand_r(seed) % (depth < 6 ? 8 : 4);
    cuts_append_space(to, seed);
    if (what < 2) {
        cuts_append_text(to, seed);
    } else if (what < 4) {
        assert_int_equal(buffer_append_text(to, scalars[(size_t)rand_r(seed) % 8]), ERR_OK);
    } else {
        bool object = what < 6;
        unsigned count = (unsigned)rand_r(seed) % 6;
        assert_int_equal(buffer_append_byte(to, object ? '{' : '['), ERR_OK);
        for (unsigned i = 0; i < count; i++) {
            if (i > 0) {
                assert_int_equal(buffer_append_byte(to, ','), ERR_OK);
            }
            if (object) {
                cuts_append_space(to, seed);
                cuts_append_text(to, seed);
                cuts_append_space(to, seed);
                assert_int_equal(buffer_append_byte(to, ':'), ERR_OK);
            }
            cuts_append_value(to, depth + 1, seed);
            cuts_append_space(to, seed);
        }
        assert_int_equal(buffer_append_byte(to, object ? '}' : ']'), ERR_OK);
    }
    cuts_append_space(to, seed);
}

/* Random documents, every fourth with one byte changed, in random pieces and batches, with the
 * chosen instructions and with none. */
static void test_random_documents(void **state)
{
    (void)state;
    static const struct json_options wide = {.depth_max = 16, .string_bytes_max = 200};
    unsigned seed = (unsigned)getpid();
    print_message("seed %u\n", seed);
    struct json_reader *reader = json_reader_create(&wide);
    struct json_reader *scalar = json_reader_create(&wide);
    scalar->plain = json_plain_scalar;
    struct buffer document;
    struct buffer whole;
    struct buffer trace;
    buffer_init(&document, READING_BYTES_MAX);
    buffer_init(&whole, READING_BYTES_MAX);
    buffer_init(&trace, READING_BYTES_MAX);
    for (int round = 0; round < 3000; round++) {
        buffer_clear(&document);
        cuts_append_value(&document, 0, &seed);
        if (round % 4 == 0) {
            document.data[(size_t)rand_r(&seed) % document.size] = (uint8_t)rand_r(&seed);
        }
        reading_in_two(reader, buffer_slice(&document), 0, &whole);
        if (round % 4 != 0) {
            assert_null(memmem(whole.data, whole.size, "malformed", 9));
        }
        reading_in_two(scalar, buffer_slice(&document), 0, &trace);
        reading_compare(&whole, &trace);
        for (size_t piece_max = 1; piece_max < 3000; piece_max *= 3) {
            reading_in_pieces(reader, buffer_slice(&document), piece_max, &seed, &trace);
            reading_compare(&whole, &trace);
        }
    }
    buffer_finish(&document);
    buffer_finish(&whole);
    buffer_finish(&trace);
    json_reader_destroy(reader);
    json_reader_destroy(scalar);
}

/* The twin: the comparison itself sees a difference of one offset. */
static void test_traces_differ_when_readings_do(void **state)
{
    (void)state;
    struct json_reader *reader = json_reader_create(&options);
    struct buffer one;
    struct buffer other;
    buffer_init(&one, READING_BYTES_MAX);
    buffer_init(&other, READING_BYTES_MAX);
    reading_in_two(reader, S("[1,2]"), 0, &one);
    reading_in_two(reader, S("[1, 2]"), 0, &other);
    assert_false(slice_equal(buffer_slice(&one), buffer_slice(&other)));
    reading_in_two(reader, S("[1,2"), 0, &one);
    reading_in_two(reader, S("[1,2x"), 0, &other);
    assert_false(slice_equal(buffer_slice(&one), buffer_slice(&other)));
    buffer_finish(&one);
    buffer_finish(&other);
    json_reader_destroy(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_every_cut_with_nan_and_small_bounds),
        cmocka_unit_test(test_random_documents),
        cmocka_unit_test(test_traces_differ_when_readings_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
