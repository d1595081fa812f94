/* Cursor: a place in a list as an opaque text.
 *
 * 13 bytes: number of the list (1), place (8, little-endian), check (4), in base64url without
 * padding: 18 characters (the last 4 bits are zero). The check covers the org too, so a cursor of
 * another org, of another list or of another order, or one made up, is a malformed parameter and
 * never a place in somebody else's rows. It guards against mistakes; what an org may see is bound
 * by the ranges of the queries alone. */
#include "query/query.h"

#include "base/hash.h"

#include <assert.h>

#define QUERY_CURSOR_BYTES 13u
#define QUERY_CURSOR_SEED  0x7765697263757273u

static const char query_base64url[65] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static_assert((QUERY_CURSOR_BYTES * 8 + 5) / 6 == QUERY_CURSOR_TEXT_BYTES, "size of the text");

static void query_cursor_encode(enum query_list list, uint64_t org, uint64_t place,
                                uint8_t to[QUERY_CURSOR_BYTES])
{
    uint8_t covered[17];
    to[0] = (uint8_t)list;
    buffer_put_u64(to + 1, place);
    memcpy(covered, to, 9);
    buffer_put_u64(covered + 9, org);
    buffer_put_u32(to + 9, (uint32_t)hash_xxh3(covered, sizeof(covered), QUERY_CURSOR_SEED));
}

void query_cursor_format(enum query_list list, uint64_t org, uint64_t place,
                         char to[QUERY_CURSOR_TEXT_BYTES])
{
    uint8_t bytes[QUERY_CURSOR_BYTES];
    uint32_t bits = 0;
    uint32_t bit_count = 0;
    size_t size = 0;
    query_cursor_encode(list, org, place, bytes);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bits = (bits << 8) | bytes[i];
        for (bit_count += 8; bit_count >= 6; bit_count -= 6) {
            to[size++] = query_base64url[(bits >> (bit_count - 6)) & 63];
        }
    }
    to[size++] = query_base64url[(bits << (6 - bit_count)) & 63];
    assert(size == QUERY_CURSOR_TEXT_BYTES);
}

bool query_cursor_parse(enum query_list list, uint64_t org, struct slice text, uint64_t *ret_place)
{
    uint8_t bytes[QUERY_CURSOR_BYTES + 1] = {0};
    uint8_t expected[QUERY_CURSOR_BYTES];
    uint32_t bits = 0;
    uint32_t bit_count = 0;
    size_t size = 0;
    if (text.size != QUERY_CURSOR_TEXT_BYTES) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        const char *found = text.data[i] == 0 ? NULL : strchr(query_base64url, text.data[i]);
        if (found == NULL) {
            return false;
        }
        bits = (bits << 6) | (uint32_t)(found - query_base64url);
        bit_count += 6;
        if (bit_count >= 8) {
            bit_count -= 8;
            bytes[size++] = (uint8_t)(bits >> bit_count);
        }
    }
    uint64_t place = buffer_get_u64(bytes + 1);
    query_cursor_encode(list, org, place, expected);
    if ((bits & 15u) != 0 || memcmp(bytes, expected, sizeof(expected)) != 0) {
        return false;
    }
    *ret_place = place;
    return true;
}

enum err query_list_end(enum query_list list, uint64_t org, bool has_more, uint64_t place,
                        struct buffer *to)
{
    if (!has_more) {
        return buffer_append_text(to, ",\"next_cursor\":null}");
    }
    char text[QUERY_CURSOR_TEXT_BYTES];
    query_cursor_format(list, org, place, text);
    return buffer_printf(to, ",\"next_cursor\":\"%.*s\"}", QUERY_CURSOR_TEXT_BYTES, text);
}
