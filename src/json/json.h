/* Json: bytes -> values: a push reader that takes chunks cut at any byte, a splitter that hands
 * over the complete elements of an array or of lines, and a writer. Strict RFC 8259 with UTF-8
 * checks.
 *
 * Thread: an object belongs to the thread that uses it; the conversions are pure.
 * Memory: nothing is allocated per value. Token text points into the chunk, or into the reader's
 *         carry when the value was cut by a chunk border (the carry grows with what is cut, up to
 *         string_bytes_max); both are valid until the next json_reader_feed or json_reader_read.
 *         The chunk must stay until json_reader_read gave 0 tokens.
 * Errors: ERR_SYNTAX (malformed, also bad UTF-8 and unpaired surrogate escapes), ERR_DEPTH,
 *         ERR_TOO_LARGE (a string, key or number above its bound). After an error the reader
 * refuses everything until reset; json_reader_fault says where and why. */
#pragma once
#include "base/buffer.h"
#include "base/err.h"
#include "base/id.h"
#include "base/slice.h"

enum json_kind {
    JSON_OBJECT_BEGIN,
    JSON_OBJECT_END,
    JSON_ARRAY_BEGIN,
    JSON_ARRAY_END,
    JSON_KEY,
    JSON_STRING,
    JSON_NUMBER,
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL,
};

struct json_token {
    const uint8_t *text; /* keys and strings: between the quotes, escapes as they came; numbers: the
                            digits; others: NULL */
    uint64_t offset;     /* of the token's first byte (the quote, for strings) in the stream */
    uint32_t size;       /* bytes of text */
    uint16_t depth;      /* open containers around it: 0 for a top-level value; a begin and its end
                            have the same depth */
    uint8_t kind;        /* enum json_kind */
    uint8_t escaped;     /* 1: text holds at least one backslash */
};

static inline struct slice json_token_slice(const struct json_token *token)
{
    return slice_make(token->text, token->size);
}

struct json_options {
    uint32_t depth_max;        /* containers open at once; at most 1024 */
    uint32_t string_bytes_max; /* of one string, key or number when it is cut by a chunk border, and
                                  also when it is not: the answer never depends on the cuts */
    bool nan_is_number; /* NaN, Infinity, -Infinity come as JSON_NUMBER (health, on_error=keep) */
};

struct json_fault {
    uint64_t offset;     /* byte of the stream at which it is wrong */
    const char *message; /* constant, for people: "expected ',' or '}'" */
};

struct json_reader;

struct json_reader *json_reader_create(const struct json_options *options);
void json_reader_destroy(struct json_reader *reader);
/* Ready for a new stream; keeps memory (up to 4 KiB of carry). Cheap: called per request and per
 * NDJSON line. */
void json_reader_reset(struct json_reader *reader);
/* Gives the next bytes. Everything of the last chunk must have been taken (read gave 0). */
void json_reader_feed(struct json_reader *reader, struct slice chunk);
/* Fills up to `count` tokens (the fast way is 32 or more at a time). *ret_count 0 with ERR_OK: the
 * chunk is used up (or the document is complete and only white space followed). Tokens found before
 * a fault are delivered first; the fault comes from the call after. */
MUST_CHECK enum err json_reader_read(struct json_reader *reader, struct json_token *tokens,
                                     size_t count, size_t *ret_count);
/* No more bytes: ERR_SYNTAX when the document is not complete. A top-level number cut only by the
 * end is delivered here: *ret_token.kind JSON_NUMBER with *ret_has_token true. */
MUST_CHECK enum err json_reader_end(struct json_reader *reader, struct json_token *ret_token,
                                    bool *ret_has_token);
struct json_fault json_reader_fault(const struct json_reader *reader);

/* One contiguous document in one call each: reset, feed, and end inside. Use: begin, then next
 * until *ret_count is 0; the whole document is then verified, its end included. */
void json_document_begin(struct json_reader *reader, struct slice document);
MUST_CHECK enum err json_document_next(struct json_reader *reader, struct json_token *tokens,
                                       size_t count, size_t *ret_count);

/* Elements: the complete elements of the top-level array, of the array that is the value of the
 * top-level member `member`, or of lines (NDJSON: one JSON value a line, blank lines skipped, CR
 * before LF permitted), one at a time, raw. */
enum json_shape { JSON_SHAPE_ARRAY, JSON_SHAPE_MEMBER, JSON_SHAPE_LINES };

struct json_elements_options {
    struct json_options json;
    enum json_shape shape;
    struct slice member;        /* JSON_SHAPE_MEMBER: e.g. "batch"; must outlive the object */
    uint32_t element_bytes_max; /* larger elements are verified and counted, not handed over */
};

struct json_element {
    struct slice raw; /* the element's bytes without white space around it; valid until the next
                         call; empty with data NULL when too_large */
    uint64_t offset;  /* of its first byte in the stream */
    uint64_t index;   /* 0, 1, 2 … */
    bool too_large;
};

struct json_elements;

struct json_elements *json_elements_create(const struct json_elements_options *options);
void json_elements_destroy(struct json_elements *elements);
void json_elements_reset(struct json_elements *elements, enum json_shape shape,
                         struct slice member);
void json_elements_feed(struct json_elements *elements, struct slice chunk);
/* *ret_has false with ERR_OK: the chunk is used up; it must stay until then. Array and member
 * shapes are verified as JSON in full. JSON_SHAPE_LINES only cuts lines: who takes a line reads it
 * as a document and so verifies it once, not twice. ERR_INVALID: the stream is well-formed so far
 * but is not of the shape (not an array). */
MUST_CHECK enum err json_elements_next(struct json_elements *elements, struct json_element *ret,
                                       bool *ret_has);
/* No more bytes. A last line without LF is handed over by this call. ERR_SYNTAX when cut short;
 * ERR_INVALID when the member or array never came. */
MUST_CHECK enum err json_elements_end(struct json_elements *elements, struct json_element *ret,
                                      bool *ret_has);
struct json_fault json_elements_fault(const struct json_elements *elements);
/* Members beside the chosen array (JSON_SHAPE_MEMBER): the raw value of scalar top-level members
 * seen so far, up to 16 of at most 512 bytes each (writeKey, sentAt, api_key); false when absent.
 */
bool json_elements_sibling(const struct json_elements *elements, struct slice name,
                           struct slice *ret_raw);

/* Conversions of token text. */
/* Unescapes into `to` (appends); text that has no escape is appended as it is. On failure `to` is
 * as it was. `text` must not lie in `to`. */
MUST_CHECK enum err json_unescape(struct slice text, struct buffer *to);
/* Exact: false when not an integer (1e3 and 5.0 are integers) or out of range. */
bool json_to_i64(struct slice number, int64_t *ret_value);
/* Nearest double, ties to even, independent of the locale; false when it overflows. */
bool json_to_double(struct slice number, double *ret_value);
/* Whether the text (escapes as they came) means the characters of `plain`. */
bool json_text_equal(struct slice text, bool escaped, struct slice plain);

/* Writer: appends to a buffer; puts the commas. An append that fails is remembered, so only the end
 * needs a check. */
struct json_writer {
    struct buffer *to;
    enum err err; /* first failure */
    bool needs_comma;
};
void json_writer_init(struct json_writer *writer, struct buffer *to);
void json_write_object_begin(struct json_writer *writer);
void json_write_object_end(struct json_writer *writer);
void json_write_array_begin(struct json_writer *writer);
void json_write_array_end(struct json_writer *writer);
/* A key of our own choosing; needs no escaping. */
void json_write_key(struct json_writer *writer, const char *key);
/* Escapes; bytes that are not UTF-8 become U+FFFD. */
void json_write_string(struct json_writer *writer, struct slice text);
void json_write_text(struct json_writer *writer, const char *text);
/* A complete JSON value, written as it is. */
void json_write_raw(struct json_writer *writer, struct slice value);
void json_write_i64(struct json_writer *writer, int64_t value);
void json_write_u64(struct json_writer *writer, uint64_t value);
/* Fewest digits that read back as the same double, laid out as ECMAScript does (-0 keeps its sign);
 * null for NaN and infinities. */
void json_write_double(struct json_writer *writer, double value);
void json_write_bool(struct json_writer *writer, bool value);
void json_write_null(struct json_writer *writer);
/* key and value at once */
void json_write_member_text(struct json_writer *writer, const char *key, const char *value);
void json_write_member_string(struct json_writer *writer, const char *key, struct slice value);
void json_write_member_i64(struct json_writer *writer, const char *key, int64_t value);
void json_write_member_u64(struct json_writer *writer, const char *key, uint64_t value);
void json_write_member_bool(struct json_writer *writer, const char *key, bool value);
void json_write_member_id(struct json_writer *writer, const char *key, struct id id);
/* RFC 3339, UTC, milliseconds. */
void json_write_member_time(struct json_writer *writer, const char *key, int64_t wall_ms);
/* The first failure of all writes. */
MUST_CHECK enum err json_writer_err(const struct json_writer *writer);
