/* Fuzz: a stream cut into elements whole and in pieces must give the same elements and faults, and
 * each element of an array must be a document by itself. The first byte chooses the shape and the
 * bound, the second the pieces; the rest is the stream. Any difference aborts. */
#include "base/buffer.h"
#include "json/json.h"

#include <stdio.h>
#include <stdlib.h>

#define TRACE_BYTES_MAX ((size_t)256 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz_json_elements: %s\n", what);
        abort();
    }
}

static void check_document(const struct json_options *options, struct slice raw)
{
    struct json_reader *reader = json_reader_create(options);
    struct json_token tokens[64];
    size_t count = 1;
    json_document_begin(reader, raw);
    while (count > 0) {
        must(json_document_next(reader, tokens, 64, &count) == ERR_OK, "an element is no document");
    }
    json_reader_destroy(reader);
}

static void note(const struct json_elements_options *options, struct buffer *trace,
                 const struct json_element *element)
{
    must(element->too_large
             ? element->raw.data == NULL
             : element->raw.size <= options->element_bytes_max && element->raw.size > 0,
         "an element is not within its bound");
    if (!element->too_large && options->shape != JSON_SHAPE_LINES) {
        check_document(&options->json, element->raw);
    }
    must(buffer_printf(trace, "%llu %llu %u ", (unsigned long long)element->index,
                       (unsigned long long)element->offset, element->too_large) == ERR_OK &&
             buffer_append_slice(trace, element->raw) == ERR_OK &&
             buffer_append_byte(trace, '\n') == ERR_OK,
         "no memory for the trace");
}

/* piece 0: whole. Pieces grow from 1 to `piece` and begin anew. */
static void take_pieces(const struct json_elements_options *options, struct slice stream,
                        size_t piece, struct buffer *trace)
{
    struct json_elements *elements = json_elements_create(options);
    struct json_element element;
    enum err err = ERR_OK;
    size_t step = 0;
    bool has = true;
    for (size_t at = 0; at < stream.size && err == ERR_OK;) {
        step = step < piece ? step + 1 : 1;
        struct slice part = slice_part(stream, at, piece == 0 ? stream.size : at + step);
        uint8_t *copy = malloc(part.size);
        must(copy != NULL, "no memory");
        memcpy(copy, part.data, part.size);
        json_elements_feed(elements, slice_make(copy, part.size));
        at += part.size;
        has = true;
        while (err == ERR_OK && has) {
            err = json_elements_next(elements, &element, &has);
            if (err == ERR_OK && has) {
                note(options, trace, &element);
            }
        }
        free(copy);
    }
    if (err == ERR_OK) {
        err = json_elements_end(elements, &element, &has);
        if (err == ERR_OK && has) {
            note(options, trace, &element);
        }
    }
    struct slice sibling = slice_make(NULL, 0);
    (void)json_elements_sibling(elements, SLICE_LITERAL("a"), &sibling);
    struct json_fault fault = json_elements_fault(elements);
    must(buffer_printf(trace, "%s %llu ", err_code(err), (unsigned long long)fault.offset) ==
                 ERR_OK &&
             buffer_append_slice(trace, sibling) == ERR_OK,
         "no memory for the trace");
    json_elements_destroy(elements);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    static const enum json_shape shapes[] = {JSON_SHAPE_ARRAY, JSON_SHAPE_MEMBER, JSON_SHAPE_LINES};
    struct json_elements_options options = {
        .json = {.depth_max = 64, .string_bytes_max = 1u << 20},
        .shape = shapes[data[0] % 3],
        .member = SLICE_LITERAL("batch"),
        .element_bytes_max = data[0] >= 128 ? 10 : 1u << 20,
    };
    struct slice stream = slice_make(data + 2, size - 2);
    struct buffer whole;
    struct buffer pieces;
    buffer_init(&whole, TRACE_BYTES_MAX);
    buffer_init(&pieces, TRACE_BYTES_MAX);
    take_pieces(&options, stream, 0, &whole);
    take_pieces(&options, stream, 1 + data[1], &pieces);
    must(slice_equal(buffer_slice(&whole), buffer_slice(&pieces)), "the cuts changed the answer");
    buffer_finish(&whole);
    buffer_finish(&pieces);
    return 0;
}
