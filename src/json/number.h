/* Number: where a number ends, byte by byte (RFC 8259 section 6), so that it can be cut anywhere.
 *
 * Thread: any; pure.  Memory: none.  Errors: none; the caller judges the state. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum json_number_state {
    JSON_NUMBER_START,
    JSON_NUMBER_MINUS,
    JSON_NUMBER_ZERO,
    JSON_NUMBER_INTEGER,
    JSON_NUMBER_POINT,
    JSON_NUMBER_FRACTION,
    JSON_NUMBER_E,
    JSON_NUMBER_E_SIGN,
    JSON_NUMBER_EXPONENT,
};

struct json_number {
    const uint8_t *at; /* the first byte that does not belong to it, or the end */
    uint8_t state;     /* enum json_number_state */
};

/* Goes on from `state` as far as the bytes continue a number. */
struct json_number json_number_scan(uint8_t state, const uint8_t *at, const uint8_t *end);

/* Whether a number may end in this state. */
static inline bool json_number_ends(uint8_t state)
{
    return state == JSON_NUMBER_ZERO || state == JSON_NUMBER_INTEGER ||
           state == JSON_NUMBER_FRACTION || state == JSON_NUMBER_EXPONENT;
}
