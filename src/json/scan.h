/* Scan: the three questions that the reader and the writer ask about many bytes at once: where do
 * plain characters end, where does white space end, which of the next 16 bytes are digits.
 *
 * Plain is a character of a string that needs no second look: ASCII from the space up, neither
 * quote nor backslash. Short runs are answered inline by the base instruction set (SSE2 on x86-64,
 * plain C elsewhere); long ones by a function that is chosen at run time.
 *
 * Thread: any; pure.  Memory: none; nothing at or past `end` is read.  Errors: none. */
#pragma once
#include <stdint.h>

#if defined(__SSE2__)
#include "json/scan_sse2.h"
#else
#include "json/scan_portable.h"
#endif

/* The first byte of [at, end) that is not plain, or `end`. */
typedef const uint8_t *(*json_plain_fn)(const uint8_t *at, const uint8_t *end);

/* Byte by byte: the definition. */
const uint8_t *json_plain_scalar(const uint8_t *at, const uint8_t *end);
/* By the base instruction set. */
const uint8_t *json_plain_base(const uint8_t *at, const uint8_t *end);
/* The fastest that this processor runs. */
json_plain_fn json_plain_choose(void);

/* The first of up to 32 bytes that is not plain, or `end`, or at + 32; `at` itself when fewer than
 * 32 bytes are left. */
static inline const uint8_t *json_plain_short(const uint8_t *at, const uint8_t *end)
{
    if (end - at < 32) {
        return at;
    }
    uint32_t odd = scan_odd_mask(at);
    if (odd != 0) {
        return at + __builtin_ctz(odd);
    }
    odd = scan_odd_mask(at + 16);
    return odd != 0 ? at + 16 + __builtin_ctz(odd) : at + 32;
}

/* Whether JSON calls it white space. */
static inline int json_is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

/* The first byte of [at, end) that is not white space, or `end`. */
static inline const uint8_t *json_space_end(const uint8_t *at, const uint8_t *end)
{
    if (at == end || *at > ' ') {
        return at;
    }
    if (end - at >= 2 && *at == ' ' && at[1] > ' ') {
        return at + 1;
    }
    while (end - at >= 16) {
        uint32_t ink = ~scan_space_mask(at) & 0xffffu;
        if (ink != 0) {
            return at + __builtin_ctz(ink);
        }
        at += 16;
    }
    while (at < end && json_is_space(*at)) {
        at++;
    }
    return at;
}
