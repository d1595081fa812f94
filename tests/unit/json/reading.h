/* Reading: reads a document in given pieces and writes down all that came of it, so that two
 * readings can be compared as bytes.
 *
 * Thread: one.  Memory: the trace is the caller's.  Errors: asserted. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "json/json.h"

#define READING_BYTES_MAX ((size_t)64 << 20)

static inline void reading_note(struct buffer *trace, const struct json_token *token)
{
    assert_int_equal(buffer_printf(trace, "%u@%llu^%u%s:", token->kind,
                                   (unsigned long long)token->offset, token->depth,
                                   token->escaped ? "e" : ""),
                     ERR_OK);
    assert_int_equal(buffer_append(trace, token->text, token->size), ERR_OK);
    assert_int_equal(buffer_append_byte(trace, '\n'), ERR_OK);
}

/* All tokens of what was fed. */
static inline enum err reading_drain(struct json_reader *reader, size_t batch, struct buffer *trace)
{
    struct json_token tokens[64];
    assert_true(batch <= 64);
    for (;;) {
        size_t count = 12345;
        enum err err = json_reader_read(reader, tokens, batch, &count);
        if (err != ERR_OK) {
            assert_int_equal(count, 12345); /* untouched on failure */
            return err;
        }
        assert_true(count <= batch);
        for (size_t i = 0; i < count; i++) {
            reading_note(trace, &tokens[i]);
        }
        if (count == 0) {
            return ERR_OK;
        }
    }
}

static inline void reading_finish(struct json_reader *reader, enum err err, struct buffer *trace)
{
    if (err == ERR_OK) {
        struct json_token token;
        bool has_token = false;
        err = json_reader_end(reader, &token, &has_token);
        if (err == ERR_OK && has_token) {
            reading_note(trace, &token);
        }
    }
    if (err != ERR_OK) {
        struct json_fault fault = json_reader_fault(reader);
        assert_non_null(fault.message);
        assert_int_equal(buffer_printf(trace, "%s at %llu: %s\n", err_code(err),
                                       (unsigned long long)fault.offset, fault.message),
                         ERR_OK);
    }
}

/* Copies the piece into a block of exactly its size, which dies at once after it was read, so that
 * a sanitizer sees a read outside it or after it. */
static inline enum err reading_piece(struct json_reader *reader, struct slice piece, size_t batch,
                                     struct buffer *trace)
{
    uint8_t *copy = malloc(piece.size == 0 ? 1 : piece.size);
    assert_non_null(copy);
    if (piece.size > 0) {
        memcpy(copy, piece.data, piece.size);
    }
    json_reader_feed(reader, slice_make(copy, piece.size));
    enum err err = reading_drain(reader, batch, trace);
    memset(copy, 'x', piece.size);
    free(copy);
    return err;
}

/* In two pieces, cut at `cut`; at 0 or the size: whole. */
static inline void reading_in_two(struct json_reader *reader, struct slice document, size_t cut,
                                  struct buffer *trace)
{
    buffer_clear(trace);
    json_reader_reset(reader);
    enum err err = reading_piece(reader, slice_part(document, 0, cut), 64, trace);
    if (err == ERR_OK) {
        err = reading_piece(reader, slice_part(document, cut, document.size), 64, trace);
    }
    reading_finish(reader, err, trace);
}

/* In pieces of 1 to `piece_max` bytes; equal sizes when `seed` is NULL. */
static inline void reading_in_pieces(struct json_reader *reader, struct slice document,
                                     size_t piece_max, unsigned *seed, struct buffer *trace)
{
    buffer_clear(trace);
    json_reader_reset(reader);
    enum err err = ERR_OK;
    for (size_t at = 0; at < document.size && err == ERR_OK;) {
        size_t size = seed != NULL ? 1 + (size_t)rand_r(seed) % piece_max : piece_max;
        size_t batch = seed != NULL ? 1 + (size_t)rand_r(seed) % 64 : 64;
        struct slice piece = slice_part(document, at, at + size);
        err = reading_piece(reader, piece, batch, trace);
        at += piece.size;
    }
    reading_finish(reader, err, trace);
}

static inline void reading_compare(const struct buffer *expected, const struct buffer *got)
{
    if (!slice_equal(buffer_slice(expected), buffer_slice(got))) {
        print_error("whole:\n%.*s\nin pieces:\n%.*s\n", (int)expected->size,
                    (const char *)expected->data, (int)got->size, (const char *)got->data);
        fail();
    }
}
