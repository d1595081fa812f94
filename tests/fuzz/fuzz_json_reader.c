/* Fuzz: a document read whole and in pieces must give the same tokens, texts, offsets and faults;
 * and what is read must survive being unescaped, written and converted. The first byte chooses
 * bounds, the second the pieces; the rest is the document. Any difference aborts. */
#include "base/buffer.h"
#include "json/json.h"

#include <stdio.h>
#include <stdlib.h>

#define TRACE_BYTES_MAX ((size_t)256 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz_json_reader: %s\n", what);
        abort();
    }
}

static void note(struct buffer *trace, const struct json_token *token)
{
    must(buffer_printf(trace, "%u %llu %u %u ", token->kind, (unsigned long long)token->offset,
                       token->depth, token->escaped) == ERR_OK &&
             buffer_append(trace, token->text, token->size) == ERR_OK &&
             buffer_append_byte(trace, '\n') == ERR_OK,
         "no memory for the trace");
}

/* Unescaped and written, a string means the same; a number is a double unless it overflows. */
static void convert(const struct json_token *token)
{
    struct slice text = json_token_slice(token);
    if (token->kind == JSON_NUMBER) {
        double value = 0;
        int64_t integer = 0;
        bool is_double = json_to_double(text, &value);
        must(!json_to_i64(text, &integer) || (is_double && (double)integer == value),
             "an integer is another double");
    } else if (token->kind == JSON_STRING || token->kind == JSON_KEY) {
        struct buffer plain;
        struct buffer written;
        struct json_writer writer;
        buffer_init(&plain, TRACE_BYTES_MAX);
        buffer_init(&written, TRACE_BYTES_MAX);
        json_writer_init(&writer, &written);
        must(json_unescape(text, &plain) == ERR_OK, "a string that was read is not unescaped");
        must(json_text_equal(text, token->escaped != 0, buffer_slice(&plain)),
             "a string is not equal to its own meaning");
        json_write_string(&writer, buffer_slice(&plain));
        must(json_writer_err(&writer) == ERR_OK && written.size >= 2, "a string is not written");
        must(json_text_equal(slice_part(buffer_slice(&written), 1, written.size - 1), true,
                             buffer_slice(&plain)),
             "a string is written as another");
        buffer_finish(&plain);
        buffer_finish(&written);
    }
}

/* piece 0: whole. Pieces grow from 1 to `piece` and begin anew. */
static void read_pieces(const struct json_options *options, struct slice document, size_t piece,
                        size_t batch, struct buffer *trace)
{
    struct json_reader *reader = json_reader_create(options);
    struct json_token tokens[64];
    enum err err = ERR_OK;
    size_t step = 0;
    for (size_t at = 0; at < document.size && err == ERR_OK;) {
        step = step < piece ? step + 1 : 1;
        struct slice part = slice_part(document, at, piece == 0 ? document.size : at + step);
        uint8_t *copy = malloc(part.size);
        must(copy != NULL, "no memory");
        memcpy(copy, part.data, part.size);
        json_reader_feed(reader, slice_make(copy, part.size));
        at += part.size;
        size_t count = 1;
        while (err == ERR_OK && count > 0) {
            err = json_reader_read(reader, tokens, batch, &count);
            for (size_t i = 0; i < count && err == ERR_OK; i++) {
                note(trace, &tokens[i]);
                convert(&tokens[i]);
            }
        }
        free(copy);
    }
    bool has_token = false;
    if (err == ERR_OK) {
        err = json_reader_end(reader, tokens, &has_token);
    }
    if (err == ERR_OK && has_token) {
        note(trace, &tokens[0]);
    }
    struct json_fault fault = json_reader_fault(reader);
    must(buffer_printf(trace, "%s %llu %s", err_code(err), (unsigned long long)fault.offset,
                       fault.message != NULL ? fault.message : "") == ERR_OK,
         "no memory for the trace");
    json_reader_destroy(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    struct json_options options = {
        .depth_max = (data[0] & 1) != 0 ? 3 : 1024,
        .string_bytes_max = (data[0] & 2) != 0 ? 5 : 1u << 20,
        .nan_is_number = (data[0] & 4) != 0,
    };
    struct slice document = slice_make(data + 2, size - 2);
    struct buffer whole;
    struct buffer pieces;
    buffer_init(&whole, TRACE_BYTES_MAX);
    buffer_init(&pieces, TRACE_BYTES_MAX);
    read_pieces(&options, document, 0, 64, &whole);
    read_pieces(&options, document, 1 + data[1], 1 + data[0] % 64, &pieces);
    must(slice_equal(buffer_slice(&whole), buffer_slice(&pieces)), "the cuts changed the answer");
    buffer_finish(&whole);
    buffer_finish(&pieces);
    return 0;
}
