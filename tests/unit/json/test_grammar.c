/* Promise: the reader takes exactly the documents of RFC 8259 in UTF-8, and says of every other one
 * at which byte it goes wrong. */
#include "unit/json/reading.h"
#include "unit/json/vectors.h"

static const struct json_options options = {.depth_max = 64, .string_bytes_max = 4096};

/* One contiguous document; the error, and how many tokens came before it. */
static enum err grammar_read(struct json_reader *reader, struct slice document, size_t *ret_total)
{
    struct json_token tokens[32];
    size_t total = 0;
    size_t count = 0;
    enum err err = ERR_OK;
    json_document_begin(reader, document);
    do {
        err = json_document_next(reader, tokens, 32, &count);
        total += err == ERR_OK ? count : 0;
    } while (err == ERR_OK && count > 0);
    *ret_total = total;
    return err;
}

/* The document with white space behind it: what stands in the last 32 bytes is read another way
 * than what stands before, and both must be right. */
static struct slice grammar_padded(struct slice document, struct buffer *to)
{
    static const char padding[] = "                                        ";
    buffer_clear(to);
    assert_int_equal(buffer_append_slice(to, document), ERR_OK);
    assert_int_equal(buffer_append_text(to, padding), ERR_OK);
    return buffer_slice(to);
}

static void check_accepted(struct json_reader *reader, struct slice document)
{
    size_t total = 0;
    enum err err = grammar_read(reader, document, &total);
    if (err != ERR_OK || total == 0) {
        struct json_fault fault = json_reader_fault(reader);
        fail_msg("%.*s: %s at %llu", (int)document.size, (const char *)document.data, fault.message,
                 (unsigned long long)fault.offset);
    }
}

static void test_accepts(void **state)
{
    (void)state;
    struct json_reader *reader = json_reader_create(&options);
    struct buffer padded;
    buffer_init(&padded, 4096);
    for (size_t i = 0; i < VECTORS_ACCEPT; i++) {
        check_accepted(reader, vectors_accept[i]);
        check_accepted(reader, grammar_padded(vectors_accept[i], &padded));
    }
    buffer_finish(&padded);
    json_reader_destroy(reader);
}

static void check_rejected(struct json_reader *reader, struct slice document, uint64_t offset)
{
    size_t total = 0;
    enum err err = grammar_read(reader, document, &total);
    struct json_fault fault = json_reader_fault(reader);
    if (err != ERR_SYNTAX || fault.offset != offset) {
        fail_msg("%.*s: %s at %llu, expected at %llu", (int)document.size,
                 (const char *)document.data, err_code(err), (unsigned long long)fault.offset,
                 (unsigned long long)offset);
    }
}

static void test_rejects(void **state)
{
    (void)state;
    struct json_reader *reader = json_reader_create(&options);
    struct buffer padded;
    buffer_init(&padded, 4096);
    for (size_t i = 0; i < VECTORS_REJECT; i++) {
        struct slice text = vectors_reject[i].text;
        uint64_t offset = vectors_reject[i].offset;
        check_rejected(reader, text, offset);
        if (offset < text.size) { /* it is not the end that is wrong */
            check_rejected(reader, grammar_padded(text, &padded), offset);
        }
    }
    buffer_finish(&padded);
    json_reader_destroy(reader);
}

/* Every document cut short anywhere is refused, unless what is left is a number or only white space
 * was cut. */
static void test_rejects_every_beginning(void **state)
{
    (void)state;
    struct json_reader *reader = json_reader_create(&options);
    for (size_t i = 0; i < VECTORS_ACCEPT; i++) {
        struct slice text = vectors_accept[i];
        if (text.data[0] != '{' && text.data[0] != '[') {
            continue;
        }
        size_t last = text.size;
        while (text.data[last - 1] <= ' ') {
            last--;
        }
        for (size_t size = 0; size < last; size++) {
            size_t total = 0;
            assert_int_equal(grammar_read(reader, slice_part(text, 0, size), &total), ERR_SYNTAX);
            assert_int_equal(json_reader_fault(reader).offset, size);
        }
    }
    json_reader_destroy(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_rejects),
        cmocka_unit_test(test_rejects_every_beginning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
