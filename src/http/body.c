/* Framing of bodies, byte by byte except for the data itself.
 *
 *   chunk   = 1*16HEXDIG *( ";" token [ "=" ( token / quoted-string ) ] ) CRLF data CRLF
 *   body    = *chunk 1*16"0" [ extensions ] CRLF *( name ":" value CRLF ) CRLF
 *
 * Stricter than RFC 9112 where others read on and come to different ends: no whitespace around a
 * size or inside extensions, CR LF only. Extensions and trailers are checked and dropped.
 *
 *   FIXED -> ENDED
 *   CHUNK_SIZE -> [NAME -> VALUE | QUOTED -> CLOSED] -> CHUNK_LF -> DATA -> DATA_CR -> DATA_LF
 *       ^                                                 |                                |
 *       +-------------------------------------------------|--------------------------------+
 *                                      size 0: TRAILER_BEGIN -> NAME -> VALUE -> TRAILER_LF
 *                                                   ^   +-> LAST_LF -> ENDED        |
 *                                                   +-------------------------------+
 *
 * Happy path: BYTES and MORE in turn, then END.
 * Failure modes: a byte that may not stand there, a size above 63 bits, a line or the trailers
 * above their limits: BAD, and BAD again. */
#include "http/body.h"

#include <assert.h>

#include "base/limits.h"
#include "http/chars.h"

#define SIZE_DIGITS_MAX   16u
#define TRAILER_BYTES_MAX (8u << 10)

void http_body_init(struct http_body *body, int64_t body_bytes)
{
    *body = (struct http_body){0};
    if (body_bytes < 0) {
        body->state = HTTP_BODY_CHUNK_SIZE;
    } else {
        body->left = (uint64_t)body_bytes;
        body->state = body_bytes == 0 ? HTTP_BODY_ENDED : HTTP_BODY_FIXED;
    }
}

static bool bad(struct http_body *body, int status, const char *code, const char *detail)
{
    body->fault = (struct http_fault){status, code, detail};
    return false;
}

static bool bad_chunk(struct http_body *body)
{
    return bad(body, 400, "bad_request", "The chunked body is malformed.");
}

static bool is_token_byte(uint8_t byte)
{
    return (http_chars[byte] & HTTP_CHAR_TOKEN) != 0;
}

/* The value of a hexadecimal digit, or 16. */
static uint32_t digit_value(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return (uint32_t)(byte - '0');
    }
    uint8_t lower = byte | 0x20;
    return lower >= 'a' && lower <= 'f' ? (uint32_t)(lower - 'a' + 10) : 16;
}

/* After a size, a name or a value: what may follow them. */
static bool end_part(struct http_body *body, uint8_t byte)
{
    if (byte == ';') {
        body->has_part = false;
        body->state = HTTP_BODY_CHUNK_NAME;
        return true;
    }
    body->state = HTTP_BODY_CHUNK_LF;
    return byte == '\r' || bad_chunk(body);
}

static bool size_byte(struct http_body *body, uint8_t byte)
{
    uint32_t digit = digit_value(byte);
    if (digit == 16) {
        return body->has_digit ? end_part(body, byte) : bad_chunk(body);
    }
    if (body->line_bytes > SIZE_DIGITS_MAX || body->left > (uint64_t)INT64_MAX >> 4) {
        return bad(body, 400, "bad_request", "The size of a chunk is too large.");
    }
    body->left = body->left << 4 | digit;
    body->has_digit = true;
    return true;
}

/* Inside the quotes of a value. */
static bool quoted_byte(struct http_body *body, uint8_t byte)
{
    if (body->state == HTTP_BODY_CHUNK_ESCAPED) {
        body->state = HTTP_BODY_CHUNK_QUOTED;
    } else if (byte == '"' || byte == '\\') {
        body->state = byte == '"' ? HTTP_BODY_CHUNK_CLOSED : HTTP_BODY_CHUNK_ESCAPED;
        return true;
    }
    return (http_chars[byte] & HTTP_CHAR_VALUE) != 0 || bad_chunk(body);
}

/* In a name, or in a value that is a token or has not begun. */
static bool token_byte(struct http_body *body, uint8_t byte)
{
    if (is_token_byte(byte)) {
        body->has_part = true;
        return true;
    }
    if (body->state == HTTP_BODY_CHUNK_VALUE && byte == '"' && !body->has_part) {
        body->state = HTTP_BODY_CHUNK_QUOTED;
        return true;
    }
    if (!body->has_part) {
        return bad_chunk(body);
    }
    if (body->state == HTTP_BODY_CHUNK_NAME && byte == '=') {
        body->has_part = false;
        body->state = HTTP_BODY_CHUNK_VALUE;
        return true;
    }
    return end_part(body, byte);
}

static bool extension_byte(struct http_body *body, uint8_t byte)
{
    if (body->state == HTTP_BODY_CHUNK_QUOTED || body->state == HTTP_BODY_CHUNK_ESCAPED) {
        return quoted_byte(body, byte);
    }
    return body->state == HTTP_BODY_CHUNK_CLOSED ? end_part(body, byte) : token_byte(body, byte);
}

static bool size_line_byte(struct http_body *body, uint8_t byte)
{
    body->line_bytes++;
    if (body->line_bytes > LIMIT_CHUNK_LINE_BYTES) {
        return bad(body, 400, "bad_request", "The line of a chunk's size is too long.");
    }
    if (body->state == HTTP_BODY_CHUNK_SIZE) {
        return size_byte(body, byte);
    }
    if (body->state != HTTP_BODY_CHUNK_LF) {
        return extension_byte(body, byte);
    }
    body->state = body->left > 0 ? HTTP_BODY_DATA : HTTP_BODY_TRAILER_BEGIN;
    return byte == '\n' || bad_chunk(body);
}

static bool data_end_byte(struct http_body *body, uint8_t byte)
{
    if (body->state == HTTP_BODY_DATA_CR) {
        body->state = HTTP_BODY_DATA_LF;
        return byte == '\r' || bad_chunk(body);
    }
    body->state = HTTP_BODY_CHUNK_SIZE;
    body->line_bytes = 0;
    body->has_digit = false;
    return byte == '\n' || bad_chunk(body);
}

static bool trailer_name_byte(struct http_body *body, uint8_t byte)
{
    if (is_token_byte(byte)) {
        body->state = HTTP_BODY_TRAILER_NAME;
        return true;
    }
    if (body->state == HTTP_BODY_TRAILER_BEGIN && byte == '\r') {
        body->state = HTTP_BODY_LAST_LF;
        return true;
    }
    if (body->state == HTTP_BODY_TRAILER_NAME && byte == ':') {
        body->state = HTTP_BODY_TRAILER_VALUE;
        return true;
    }
    return bad(body, 400, "bad_request", "The trailers are malformed.");
}

static bool trailer_byte(struct http_body *body, uint8_t byte)
{
    body->trailer_bytes++;
    if (body->trailer_bytes > TRAILER_BYTES_MAX || body->trailer_lines > LIMIT_HEADER_COUNT) {
        return bad(body, 431, "headers_too_large", "The trailers are too large.");
    }
    if (body->state == HTTP_BODY_TRAILER_BEGIN || body->state == HTTP_BODY_TRAILER_NAME) {
        return trailer_name_byte(body, byte);
    }
    if (body->state == HTTP_BODY_TRAILER_VALUE) {
        if (byte == '\r') {
            body->state = HTTP_BODY_TRAILER_LF;
            return true;
        }
        return (http_chars[byte] & HTTP_CHAR_VALUE) != 0 ||
               bad(body, 400, "bad_request", "The trailers are malformed.");
    }
    body->trailer_lines++;
    body->state = body->state == HTTP_BODY_LAST_LF ? HTTP_BODY_ENDED : HTTP_BODY_TRAILER_BEGIN;
    return byte == '\n' || bad(body, 400, "bad_request", "The trailers are malformed.");
}

static bool framing_byte(struct http_body *body, uint8_t byte)
{
    if (body->state < HTTP_BODY_DATA) {
        return size_line_byte(body, byte);
    }
    return body->state < HTTP_BODY_TRAILER_BEGIN ? data_end_byte(body, byte)
                                                 : trailer_byte(body, byte);
}

static_assert(HTTP_BODY_FIXED == 0 && HTTP_BODY_DATA < HTTP_BODY_TRAILER_BEGIN,
              "states stand in the order of the groups that framing_byte tells apart");

enum http_body_step http_body_step(struct http_body *body, struct slice *rest,
                                   struct slice *ret_data)
{
    while (body->fault.status == 0 && body->state != HTTP_BODY_ENDED && rest->size > 0) {
        if (body->state == HTTP_BODY_FIXED || body->state == HTTP_BODY_DATA) {
            size_t size = rest->size < body->left ? rest->size : (size_t)body->left;
            *ret_data = slice_make(rest->data, size);
            *rest = slice_make(rest->data + size, rest->size - size);
            body->left -= size;
            if (body->left == 0) {
                body->state = body->state == HTTP_BODY_FIXED ? HTTP_BODY_ENDED : HTTP_BODY_DATA_CR;
            }
            return HTTP_BODY_BYTES;
        }
        if (framing_byte(body, rest->data[0])) {
            *rest = slice_make(rest->data + 1, rest->size - 1);
        }
    }
    if (body->fault.status != 0) {
        return HTTP_BODY_BAD;
    }
    return body->state == HTTP_BODY_ENDED ? HTTP_BODY_END : HTTP_BODY_MORE;
}
