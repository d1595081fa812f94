/* Promise: when memory is refused, reading, cutting, unescaping and writing say ERR_NO_MEMORY, give
 * nothing wrong, leak nothing, and work again after a reset.
 * link: sys_fault.c mem_fault.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/mem_fault.h"
#include "json/json.h"

#define PIECE_BYTES 700u

static char document[9000];
static size_t document_size;

/* {"key":"<400 digits>","batch":[{"text":"<4000 digits>"},"<3000 digits>",7]}: 13 tokens, three
 * texts longer than a piece or cut by one. */
static void make_document(void)
{
    struct buffer to;
    buffer_init(&to, sizeof(document));
    assert_int_equal(buffer_printf(&to,
                                   "{\"key\":\"%0400d\",\"batch\":[{\"text\":\"%04000d\"},"
                                   "\"%03000d\",7]}",
                                   1, 2, 3),
                     ERR_OK);
    memcpy(document, to.data, to.size);
    document_size = to.size;
    buffer_finish(&to);
}

static struct slice document_piece(size_t at)
{
    size_t left = document_size - at;
    return slice_make(document + at, left < PIECE_BYTES ? left : PIECE_BYTES);
}

static enum err read_document(struct json_reader *reader, size_t *ret_total)
{
    struct json_token tokens[4];
    enum err err = ERR_OK;
    size_t total = 0;
    bool has_token = false;
    for (size_t at = 0; at < document_size && err == ERR_OK; at += PIECE_BYTES) {
        size_t count = 1;
        json_reader_feed(reader, document_piece(at));
        while (err == ERR_OK && count > 0) {
            err = json_reader_read(reader, tokens, 4, &count);
            total += err == ERR_OK ? count : 0;
        }
    }
    if (err == ERR_OK) {
        err = json_reader_end(reader, tokens, &has_token);
    }
    *ret_total = total;
    return err;
}

static void test_reader(void **state)
{
    (void)state;
    static const struct json_options options = {.depth_max = 9, .string_bytes_max = 5000};
    int64_t live = mem_fault_live_count();
    uint32_t runs = 0;
    FAULT_LOOP {
        struct json_reader *reader = json_reader_create(&options);
        size_t total = 0;
        enum err err = read_document(reader, &total);
        fault_pause();
        assert_int_equal(err, fault_was_met() ? ERR_NO_MEMORY : ERR_OK);
        assert_true(fault_was_met() ? json_reader_fault(reader).message != NULL : total == 13);
        json_reader_reset(reader);
        assert_int_equal(read_document(reader, &total), ERR_OK);
        assert_int_equal(total, 13);
        json_reader_destroy(reader);
        assert_int_equal(mem_fault_live_count(), live);
        runs++;
    }
    assert_true(runs > 4);
}

static enum err take_document(struct json_elements *elements, uint64_t *ret_bytes)
{
    struct json_element element;
    enum err err = ERR_OK;
    bool has = false;
    uint64_t bytes = 0;
    for (size_t at = 0; at < document_size && err == ERR_OK; at += PIECE_BYTES) {
        json_elements_feed(elements, document_piece(at));
        has = true;
        while (err == ERR_OK && has) {
            err = json_elements_next(elements, &element, &has);
            bytes += err == ERR_OK && has ? element.raw.size : 0;
        }
    }
    if (err == ERR_OK) {
        err = json_elements_end(elements, &element, &has);
    }
    *ret_bytes = bytes;
    return err;
}

static void test_elements(void **state)
{
    (void)state;
    static const struct json_elements_options options = {
        .json = {.depth_max = 9, .string_bytes_max = 5000},
        .shape = JSON_SHAPE_LINES,
        .element_bytes_max = 5000,
    };
    int64_t live = mem_fault_live_count();
    uint32_t runs = 0;
    FAULT_LOOP {
        struct json_elements *elements = json_elements_create(&options);
        struct slice raw = {NULL, 0};
        uint64_t bytes = 0;
        json_elements_reset(elements, JSON_SHAPE_MEMBER, SLICE_LITERAL("batch"));
        enum err err = take_document(elements, &bytes);
        fault_pause();
        assert_int_equal(err, fault_was_met() ? ERR_NO_MEMORY : ERR_OK);
        assert_true(fault_was_met() ? json_elements_fault(elements).message != NULL
                                    : json_elements_sibling(elements, SLICE_LITERAL("key"), &raw));
        json_elements_reset(elements, JSON_SHAPE_MEMBER, SLICE_LITERAL("batch"));
        assert_int_equal(take_document(elements, &bytes), ERR_OK);
        /* {"text":"…"} has 11 bytes around 4,000; a string 2 around 3,000; 7 is one. */
        assert_int_equal(bytes, 4011 + 3002 + 1);
        assert_true(json_elements_sibling(elements, SLICE_LITERAL("key"), &raw));
        assert_int_equal(raw.size, 402);
        json_elements_destroy(elements);
        assert_int_equal(mem_fault_live_count(), live);
        runs++;
    }
    assert_true(runs > 8);
}

static void test_unescape_and_writer(void **state)
{
    (void)state;
    int64_t live = mem_fault_live_count();
    uint32_t runs = 0;
    FAULT_LOOP {
        struct buffer plain;
        struct buffer written;
        struct json_writer writer;
        buffer_init(&plain, 20000);
        buffer_init(&written, 20000);
        enum err err = json_unescape(slice_make(document + 8, 400), &plain);
        json_writer_init(&writer, &written);
        json_write_array_begin(&writer);
        for (int i = 0; i < 10; i++) {
            json_write_string(&writer, slice_make(document, 500)); /* quotes that grow */
            json_write_double(&writer, 0.1);
        }
        json_write_array_end(&writer);
        fault_pause();
        enum err writer_err = json_writer_err(&writer);
        assert_true(err == ERR_OK || err == ERR_NO_MEMORY);
        assert_true(writer_err == ERR_OK || writer_err == ERR_NO_MEMORY);
        assert_int_equal(err != ERR_OK || writer_err != ERR_OK, fault_was_met());
        assert_int_equal(plain.size, err == ERR_OK ? 400 : 0);
        assert_true(writer_err != ERR_OK || written.data[written.size - 1] == ']');
        buffer_finish(&plain);
        buffer_finish(&written);
        assert_int_equal(mem_fault_live_count(), live);
        runs++;
    }
    assert_true(runs > 8);
}

int main(void)
{
    make_document();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader),
        cmocka_unit_test(test_elements),
        cmocka_unit_test(test_unescape_and_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
