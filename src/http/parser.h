/* Parser: the bytes of a request head -> what they say, as a step function without I/O.
 *
 * The caller keeps the head's bytes together and gives all of them at every step (the old ones and
 * what came since), so the result never depends on how they were cut. Fields are offsets from the
 * first byte.
 *
 * Thread: values.
 * Memory: nothing is allocated; a head refers to the caller's bytes by offset.
 * Errors: HTTP_PARSE_BAD with a fault: the framing is not certain, the connection has to close.
 *         A fault in a parsed head (`refusal`): answer it; the framing is certain. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/slice.h"

/* The shape of a refusal, all text constant. status 0: none. */
struct http_fault {
    int status;
    const char *code;
    const char *detail;
};

/* Headers that the server itself looks at, found while parsing. */
enum http_known {
    HTTP_KNOWN_HOST,
    HTTP_KNOWN_EXPECT,
    HTTP_KNOWN_ORIGIN,
    HTTP_KNOWN_CONNECTION,
    HTTP_KNOWN_REQUEST_ID,
    HTTP_KNOWN_IF_NONE_MATCH,
    HTTP_KNOWN_CONTENT_LENGTH,
    HTTP_KNOWN_ACCEPT_ENCODING,
    HTTP_KNOWN_CONTENT_ENCODING,
    HTTP_KNOWN_TRANSFER_ENCODING,
    HTTP_KNOWN_OTHER,
};

struct http_field {
    uint16_t name;
    uint16_t name_size;
    uint16_t value;
    uint16_t value_size;
};

struct http_head {
    int64_t body_bytes; /* -1: chunked; 0: no body */
    uint64_t names;     /* http_name_bit of each field: most that are absent are seen at a look */
    struct http_fault refusal;
    uint32_t size; /* bytes of the head with its last empty line */
    uint16_t target;
    uint16_t target_size;
    uint16_t path; /* path_size 0: the absolute form had none, it means "/" */
    uint16_t path_size;
    uint16_t query; /* without the '?' */
    uint16_t query_size;
    uint16_t field_count;
    uint8_t method; /* enum http_method */
    uint8_t minor;  /* HTTP/1.minor */
    bool asterisk;  /* OPTIONS * */
    bool keep_alive;
    bool expect_continue;
    bool content_codings_many;
    uint8_t known[HTTP_KNOWN_OTHER]; /* index of the first such field + 1; 0: absent */
    struct http_field fields[LIMIT_HEADER_COUNT];
};

struct http_parser {
    uint32_t line; /* first byte of the line being looked for */
    uint32_t scanned;
    uint32_t leading_lines;
    bool have_request_line;
    bool close_named; /* Connection: close */
    bool keep_named;  /* Connection: keep-alive */
    bool is_connect;
    struct http_fault fault;
};

/* One of 64 bits, by the length and the first letter of a field's name, which is not empty. */
static inline uint64_t http_name_bit(const uint8_t *name, size_t size)
{
    return UINT64_C(1) << ((size + (size_t)(name[0] & 0x1f) * 7) & 63);
}

enum http_parse { HTTP_PARSE_MORE, HTTP_PARSE_DONE, HTTP_PARSE_BAD };

void http_parser_init(struct http_parser *parser, struct http_head *head);
/* `data` begins with the head's first byte and holds everything that came so far. */
enum http_parse http_parser_step(struct http_parser *parser, struct http_head *head,
                                 const uint8_t *data, size_t size);

/* Character classes of RFC 9110, for other files that check text. */
bool http_is_token(struct slice s);
/* VCHAR, space, tab and obs-text only. */
bool http_is_field_value(struct slice s);
/* A host with an optional port, as a Host field has it. */
bool http_is_authority(struct slice s);
/* Whether the comma-separated list has this token, without case. */
bool http_list_has(struct slice list, const char *token);
