/* Slice: comparing, cutting and reading numbers. No function here looks past s.size or does
 * arithmetic on a NULL pointer, so an empty slice with NULL data is welcome everywhere. */
#include "base/slice.h"

static uint8_t slice_lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte | 0x20) : byte;
}

bool slice_equal_nocase(struct slice a, struct slice b)
{
    if (a.size != b.size) {
        return false;
    }
    if (a.size == 0 || memcmp(a.data, b.data, a.size) == 0) {
        return true;
    }
    for (size_t i = 0; i < a.size; i++) {
        if (a.data[i] != b.data[i] && (((a.data[i] ^ b.data[i]) != 0x20) ||
                                       slice_lower(a.data[i]) != slice_lower(b.data[i]))) {
            return false;
        }
    }
    return true;
}

bool slice_starts_with(struct slice s, struct slice prefix)
{
    return s.size >= prefix.size && slice_equal(slice_part(s, 0, prefix.size), prefix);
}

int slice_compare(struct slice a, struct slice b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common == 0 ? 0 : memcmp(a.data, b.data, common);
    if (order != 0) {
        return order;
    }
    return (a.size > b.size) - (a.size < b.size);
}

size_t slice_find(struct slice s, uint8_t byte)
{
    const uint8_t *found = s.size == 0 ? NULL : memchr(s.data, byte, s.size);
    return found == NULL ? s.size : (size_t)(found - s.data);
}

struct slice slice_cut(struct slice s, uint8_t byte, struct slice *rest)
{
    size_t at = slice_find(s, byte);
    *rest = at == s.size ? (struct slice){NULL, 0} : slice_part(s, at + 1, s.size);
    return slice_part(s, 0, at);
}

bool slice_to_u64(struct slice s, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (size_t i = 0; i < s.size; i++) {
        uint64_t digit = (uint64_t)s.data[i] - '0'; /* wraps to a large number below '0' */
        if (digit > 9 || __builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, digit, &value)) {
            return false;
        }
    }
    if (s.size == 0) {
        return false;
    }
    *ret_value = value;
    return true;
}

bool slice_to_i64(struct slice s, int64_t *ret_value)
{
    bool is_negative = s.size > 0 && s.data[0] == '-';
    uint64_t magnitude = 0;
    if (!slice_to_u64(slice_part(s, is_negative ? 1 : 0, s.size), &magnitude)) {
        return false;
    }
    if (magnitude > (uint64_t)INT64_MAX + (is_negative ? 1 : 0)) {
        return false;
    }
    /* Negated as unsigned, because -INT64_MIN does not exist. */
    *ret_value = (int64_t)(is_negative ? 0 - magnitude : magnitude);
    return true;
}

/* Bytes of the character at the start of `s`, which is not empty; 0 when it is not UTF-8. */
static size_t slice_utf8_size(struct slice s, uint32_t *ret_character)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800,
                                        0x10000}; /* by size: shortest form only */
    uint8_t first = s.data[0];
    size_t size = first < 0x80 ? 1 : first < 0xC0 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    uint32_t character = size == 1 ? first : first & (0x7Fu >> size);
    if (size == 0 || first > 0xF4 || size > s.size) {
        return 0;
    }
    for (size_t i = 1; i < size; i++) {
        if ((s.data[i] & 0xC0u) != 0x80u) {
            return 0;
        }
        character = character << 6u | (s.data[i] & 0x3Fu);
    }
    bool is_surrogate = character >= 0xD800 && character <= 0xDFFF;
    if (character < smallest[size] || character > 0x10FFFF || is_surrogate) {
        return 0;
    }
    *ret_character = character;
    return size;
}

bool slice_is_printable(struct slice s)
{
    while (s.size > 0) {
        uint32_t character = 0;
        size_t size = slice_utf8_size(s, &character);
        if (size == 0 || character < 0x20 || (character >= 0x7F && character < 0xA0)) {
            return false;
        }
        s = slice_part(s, size, s.size);
    }
    return true;
}
