/* Text: what may stand between the quotes of a string, and what it means.
 *
 * Thread: any; pure.  Memory: none.  Errors: as results, never by enum err. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json/scan.h"

enum json_text_result {
    JSON_TEXT_END,     /* `at` is the closing quote */
    JSON_TEXT_CUT,     /* the bytes ran out; everything before `at` is settled */
    JSON_TEXT_CONTROL, /* `at` is a control character */
    JSON_TEXT_ESCAPE,  /* `at` is the backslash of a wrong escape */
    JSON_TEXT_UTF8,    /* `at` is the first byte of a sequence that is not UTF-8 */
};

struct json_text {
    const uint8_t *at;
    uint8_t result; /* enum json_text_result */
    bool escaped;   /* a backslash stands before `at` */
};

/* Checks the text of a string from `at`, which lies on a border between characters, up to its
 * closing quote. */
struct json_text json_text_scan(json_plain_fn plain, const uint8_t *at, const uint8_t *end);

/* Bytes of the UTF-8 sequence (RFC 3629) that begins at `at`, which is below `end` and not ASCII:
 * 2 to 4; 0 when it is none; -1 when the bytes ran out before that is known. */
int json_utf8_size(const uint8_t *at, const uint8_t *end);

/* Bytes of the escape that begins with the backslash at `at`: 2, 6, or 12 for a surrogate pair;
 * 0 when it is wrong; -1 when the bytes ran out before that is known. */
int json_escape_size(const uint8_t *at, const uint8_t *end);

/* Writes the character that the escape of `size` bytes means as UTF-8; returns its bytes, 1-4. */
size_t json_escape_decode(const uint8_t *at, int size, uint8_t to[4]);
