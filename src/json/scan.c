/* Scan: the scalar definition, the variant of the base instruction set, and the choice.
 *
 * Happy path: 16 or 32 bytes a step until a byte that is not plain; the rest byte by byte, so that
 * nothing past the end is read.
 * Failure modes: none. All variants give the same answer for all bytes. */
#include "json/scan.h"

#include "json/scan_wide.h"

const uint8_t *json_plain_scalar(const uint8_t *at, const uint8_t *end)
{
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\') {
        at++;
    }
    return at;
}

const uint8_t *json_plain_base(const uint8_t *at, const uint8_t *end)
{
    while (end - at >= 16) {
        uint32_t odd = scan_odd_mask(at);
        if (odd != 0) {
            return at + __builtin_ctz(odd);
        }
        at += 16;
    }
    return json_plain_scalar(at, end);
}

json_plain_fn json_plain_choose(void)
{
    json_plain_fn wide = json_plain_wide();
    return wide != NULL ? wide : json_plain_base;
}
