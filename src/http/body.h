/* Body: where the bytes of a request's body begin and end, by Content-Length or chunks (RFC 9112 6
 * and 7), as a step function without I/O.
 *
 * Thread: values.
 * Memory: nothing is allocated; data comes out as slices of what was given.
 * Errors: HTTP_BODY_BAD with a fault; the connection has to close. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"
#include "http/parser.h"

enum http_body_state {
    HTTP_BODY_FIXED,         /* `left` bytes of a Content-Length body to come */
    HTTP_BODY_CHUNK_SIZE,    /* at a digit of a chunk's size */
    HTTP_BODY_CHUNK_NAME,    /* in the name of a chunk extension */
    HTTP_BODY_CHUNK_VALUE,   /* in its value, a token */
    HTTP_BODY_CHUNK_QUOTED,  /* in its value, between quotes */
    HTTP_BODY_CHUNK_ESCAPED, /* after a backslash between quotes */
    HTTP_BODY_CHUNK_CLOSED,  /* after the closing quote */
    HTTP_BODY_CHUNK_LF,      /* at the LF that ends the line of a size */
    HTTP_BODY_DATA,          /* `left` bytes of a chunk to come */
    HTTP_BODY_DATA_CR,
    HTTP_BODY_DATA_LF,
    HTTP_BODY_TRAILER_BEGIN, /* at the first byte of a line of trailers */
    HTTP_BODY_TRAILER_NAME,
    HTTP_BODY_TRAILER_VALUE,
    HTTP_BODY_TRAILER_LF,
    HTTP_BODY_LAST_LF,
    HTTP_BODY_ENDED,
};

struct http_body {
    uint64_t left;
    uint32_t line_bytes;    /* of the current line of a size */
    uint32_t trailer_bytes; /* of all trailers */
    uint32_t trailer_lines;
    enum http_body_state state;
    bool has_digit;
    bool has_part; /* the extension's name or value, or the trailer's name, has a byte */
    struct http_fault fault;
};

enum http_body_step { HTTP_BODY_MORE, HTTP_BODY_BYTES, HTTP_BODY_END, HTTP_BODY_BAD };

/* `body_bytes` as in a head: -1 is chunked. */
void http_body_init(struct http_body *body, int64_t body_bytes);
/* Looks at the front of *rest and moves it past what was used. BYTES: *ret_data is the next piece
 * of the body. MORE: *rest is used up. END: what is left in *rest belongs to the next request. */
enum http_body_step http_body_step(struct http_body *body, struct slice *rest,
                                   struct slice *ret_data);
static inline bool http_body_is_ended(const struct http_body *body)
{
    return body->state == HTTP_BODY_ENDED;
}
/* Bytes known to come: of the body or of the current chunk. */
static inline uint64_t http_body_left(const struct http_body *body)
{
    return body->left;
}
