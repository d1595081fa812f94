/* Chars: which bytes may stand where in HTTP/1.1 (RFC 9110 5.6.2, 5.5; RFC 3986).
 *
 * Thread, memory, errors: a constant table. */
#pragma once
#include <stdint.h>

enum {
    HTTP_CHAR_TOKEN = 1,  /* tchar */
    HTTP_CHAR_VALUE = 2,  /* VCHAR, SP, HTAB, obs-text */
    HTTP_CHAR_TARGET = 4, /* visible ASCII without # " < > \ */
    HTTP_CHAR_HOST = 8,   /* reg-name without the comma, in which merged Host fields would hide */
};

extern const uint8_t http_chars[256];
