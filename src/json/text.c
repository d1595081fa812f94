/* Text: checks and decodes what stands between quotes.
 *
 * Happy path: plain characters are skipped many at a time; an escape or a UTF-8 sequence is checked
 * by itself, and the scan goes on behind it.
 * Failure modes: a wrong byte is reported at the first byte of its escape or sequence, so the place
 * is the same wherever the bytes were cut. Too few bytes to decide: JSON_TEXT_CUT, also at the
 * first byte, so the caller can go on from there when more have come. */
#include "json/text.h"

#include <assert.h>
#include <string.h>

#define ESCAPE_UNIT_BYTES 6  /* \uXXXX */
#define ESCAPE_PAIR_BYTES 12 /* \uD8XX\uDCXX */

/* The value of a hexadecimal digit, or -1. */
static int text_hex(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* Whether the bytes there are, at most six, can begin (or be) a \uXXXX. */
static bool text_unit_fits(const uint8_t *at, const uint8_t *end)
{
    for (int i = 0; i < ESCAPE_UNIT_BYTES && at + i < end; i++) {
        bool fits = i == 0 ? at[i] == '\\' : i == 1 ? at[i] == 'u' : text_hex(at[i]) >= 0;
        if (!fits) {
            return false;
        }
    }
    return true;
}

static uint32_t text_unit(const uint8_t *at)
{
    uint32_t unit = 0;
    for (int i = 2; i < ESCAPE_UNIT_BYTES; i++) {
        unit = unit << 4 | (uint32_t)text_hex(at[i]);
    }
    return unit;
}

int json_escape_size(const uint8_t *at, const uint8_t *end)
{
    if (end - at < 2) {
        return -1;
    }
    if (at[1] != 'u') {
        bool known = at[1] != 0 && strchr("\"\\/bfnrt", at[1]) != NULL;
        return known ? 2 : 0;
    }
    if (!text_unit_fits(at, end)) {
        return 0;
    }
    if (end - at < ESCAPE_UNIT_BYTES) {
        return -1;
    }
    uint32_t unit = text_unit(at);
    if (unit < 0xd800 || unit > 0xdfff) {
        return ESCAPE_UNIT_BYTES;
    }
    const uint8_t *low = at + ESCAPE_UNIT_BYTES;
    if (unit > 0xdbff || !text_unit_fits(low, end)) {
        return 0;
    }
    if (end - at < ESCAPE_PAIR_BYTES) {
        return -1;
    }
    unit = text_unit(low);
    return unit >= 0xdc00 && unit <= 0xdfff ? ESCAPE_PAIR_BYTES : 0;
}

static size_t text_put_utf8(uint32_t point, uint8_t to[4])
{
    if (point < 0x80) {
        to[0] = (uint8_t)point;
        return 1;
    }
    if (point < 0x800) {
        to[0] = (uint8_t)(0xc0 | point >> 6);
        to[1] = (uint8_t)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        to[0] = (uint8_t)(0xe0 | point >> 12);
        to[1] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
        to[2] = (uint8_t)(0x80 | (point & 0x3f));
        return 3;
    }
    to[0] = (uint8_t)(0xf0 | point >> 18);
    to[1] = (uint8_t)(0x80 | (point >> 12 & 0x3f));
    to[2] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
    to[3] = (uint8_t)(0x80 | (point & 0x3f));
    return 4;
}

size_t json_escape_decode(const uint8_t *at, int size, uint8_t to[4])
{
    if (size == ESCAPE_PAIR_BYTES) {
        uint32_t high = text_unit(at) - 0xd800;
        uint32_t low = text_unit(at + ESCAPE_UNIT_BYTES) - 0xdc00;
        return text_put_utf8(0x10000 + (high << 10 | low), to);
    }
    if (size == ESCAPE_UNIT_BYTES) {
        return text_put_utf8(text_unit(at), to);
    }
    assert(size == 2);
    switch (at[1]) {
    case 'b':
        to[0] = '\b';
        break;
    case 'f':
        to[0] = '\f';
        break;
    case 'n':
        to[0] = '\n';
        break;
    case 'r':
        to[0] = '\r';
        break;
    case 't':
        to[0] = '\t';
        break;
    default:
        to[0] = at[1];
    }
    return 1;
}

int json_utf8_size(const uint8_t *at, const uint8_t *end)
{
    uint8_t lead = at[0];
    if (lead < 0xc2 || lead > 0xf4) {
        return 0;
    }
    int size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    /* Only the second byte's range depends on the lead: no overlong form (E0, F0), no surrogate
     * (ED), nothing above U+10FFFF (F4). RFC 3629 section 4. */
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    for (int i = 1; i < size; i++) {
        if (at + i == end) {
            return -1;
        }
        if (at[i] < low || at[i] > high) {
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return size;
}

struct json_text json_text_scan(json_plain_fn plain, const uint8_t *at, const uint8_t *end)
{
    bool escaped = false;
    for (;;) {
        at = plain(at, end);
        if (at == end) {
            return (struct json_text){at, JSON_TEXT_CUT, escaped};
        }
        if (*at == '"') {
            return (struct json_text){at, JSON_TEXT_END, escaped};
        }
        if (*at < 0x20) {
            return (struct json_text){at, JSON_TEXT_CONTROL, escaped};
        }
        int size = 0;
        enum json_text_result fault = JSON_TEXT_UTF8;
        if (*at == '\\') {
            size = json_escape_size(at, end);
            fault = JSON_TEXT_ESCAPE;
            escaped = escaped || size > 0;
        } else {
            size = json_utf8_size(at, end);
            while (size > 0 && at + size < end && at[size] >= 0x80) {
                at += size;
                size = json_utf8_size(at, end);
            }
        }
        if (size <= 0) {
            return (struct json_text){at, (uint8_t)(size < 0 ? JSON_TEXT_CUT : fault), escaped};
        }
        at += size;
    }
}
