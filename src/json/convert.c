/* Convert: what the text of a token means.
 *
 * A number's text is read once into sign, digits and a decimal exponent: value = digits *
 * 10^exponent.
 *
 * json_to_double, three ways, each exact (nearest, ties to even):
 *  1. digits < 2^53 and |exponent| <= 22: both are doubles without error, so one multiplication or
 *     division rounds once (Clinger, "How to Read Floating Point Numbers Accurately", 1990).
 *  2. at most 19 digits and exponent -19 to -1: digits / 10^k as a division of integers with 128
 *     bits, whose quotient has at least 64 bits; the remainder says whether it was exact.
 *  3. all others: strtod in the C locale, on the text written anew with at most 800 digits. A
 * double and the middle between two have at most 767 significant digits, so what follows counts
 * only as "more than this": one more digit 1 stands for it.
 *
 * Failure modes: a text that is no JSON number, or does not fit: false, nothing written. */
#include "json/json.h"
#include "json/number.h"
#include "json/text.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define CONVERT_EXPONENT_MAX                                                                       \
    1000000000000 /* beyond any text: what is cut off no longer matters                            \
                   */
#define CONVERT_DIGITS_MAX 800u
#define CONVERT_TEXT_BYTES (CONVERT_DIGITS_MAX + 32u)

__extension__ typedef unsigned __int128 convert_u128;

/* A number taken apart. Digits are those without leading and trailing zeros; none: zero. */
struct convert_parts {
    struct slice text; /* from the first to the last digit that counts; may hold the point */
    int64_t exponent;  /* of the last digit */
    size_t digit_count;
    uint64_t value; /* of the digits, when there are at most 19 */
    bool negative;
};

static const uint64_t convert_powers[] = {
    1u,
    10u,
    100u,
    1000u,
    10000u,
    100000u,
    1000000u,
    10000000u,
    100000000u,
    1000000000u,
    10000000000u,
    100000000000u,
    1000000000000u,
    10000000000000u,
    100000000000000u,
    1000000000000000u,
    10000000000000000u,
    100000000000000000u,
    1000000000000000000u,
    10000000000000000000u,
};
#define CONVERT_POWER_MAX  19
#define CONVERT_DIGITS_U64 19u /* always fit in 64 bits */

static const double convert_exact_powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                              1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                              1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define CONVERT_EXACT_MAX 22

enum err json_unescape(struct slice text, struct buffer *to)
{
    const uint8_t *at = text.data;
    const uint8_t *end = text.size > 0 ? at + text.size : at;
    enum err err = buffer_reserve(to, text.size); /* no escape is shorter than what it means */
    if (err != ERR_OK || text.size == 0) {
        return err;
    }
    uint8_t *put = to->data + to->size;
    while (at < end) {
        const uint8_t *slash = memchr(at, '\\', (size_t)(end - at));
        size_t plain = slash != NULL ? (size_t)(slash - at) : (size_t)(end - at);
        memcpy(put, at, plain);
        put += plain;
        at += plain;
        int size = slash != NULL ? json_escape_size(at, end) : 1;
        if (size <= 0) {
            return ERR_SYNTAX;
        }
        if (slash != NULL) {
            put += json_escape_decode(at, size, put);
            at += size;
        }
    }
    to->size = (size_t)(put - to->data);
    return ERR_OK;
}

bool json_text_equal(struct slice text, bool escaped, struct slice plain)
{
    if (!escaped) {
        return slice_equal(text, plain);
    }
    const uint8_t *at = text.data;
    const uint8_t *end = at + text.size;
    size_t matched = 0;
    while (at < end) {
        uint8_t bytes[4] = {*at};
        size_t count = 1;
        int size = 1;
        if (*at == '\\') {
            size = json_escape_size(at, end);
            if (size <= 0) {
                return false;
            }
            count = json_escape_decode(at, size, bytes);
        }
        if (count > plain.size - matched || memcmp(plain.data + matched, bytes, count) != 0) {
            return false;
        }
        matched += count;
        at += size;
    }
    return matched == plain.size;
}

/* The exponent behind 'e', cut off where it no longer matters. */
static int64_t convert_exponent(const uint8_t *at, const uint8_t *end)
{
    bool negative = at < end && *at == '-';
    int64_t value = 0;
    at += at < end && (*at == '-' || *at == '+');
    for (; at < end; at++) {
        value = value < CONVERT_EXPONENT_MAX ? value * 10 + (*at - '0') : value;
    }
    return negative ? -value : value;
}

/* From the first digit that is not 0: counts, and sums up to 19. */
static void convert_digits(struct convert_parts *parts, const uint8_t *from, const uint8_t *end)
{
    size_t count = 0;
    uint64_t value = 0;
    for (const uint8_t *at = from; at < end; at++) {
        if (*at != '.') {
            count++;
            value = count <= CONVERT_DIGITS_U64 ? value * 10 + (uint64_t)(*at - '0') : value;
        }
    }
    parts->text = slice_make(from, (size_t)(end - from));
    parts->digit_count = count;
    parts->value = value;
}

static bool convert_split(struct slice number, struct convert_parts *ret)
{
    const uint8_t *at = number.data;
    const uint8_t *end = number.size > 0 ? at + number.size : at;
    struct json_number scan = json_number_scan(JSON_NUMBER_START, at, end);
    if (scan.at != end || !json_number_ends(scan.state)) {
        return false;
    }
    struct convert_parts parts = {.negative = *at == '-'};
    at += parts.negative;
    const uint8_t *mantissa_end = at;
    const uint8_t *point = NULL;
    while (mantissa_end < end && (*mantissa_end | 0x20) != 'e') {
        point = *mantissa_end == '.' ? mantissa_end : point;
        mantissa_end++;
    }
    int64_t exponent = mantissa_end < end ? convert_exponent(mantissa_end + 1, end) : 0;
    exponent -= point != NULL ? mantissa_end - point - 1 : 0;
    while (at < mantissa_end && (*at == '0' || *at == '.')) {
        at++;
    }
    while (mantissa_end > at && (mantissa_end[-1] == '0' || mantissa_end[-1] == '.')) {
        mantissa_end--;
        exponent += *mantissa_end == '0';
    }
    convert_digits(&parts, at, mantissa_end);
    parts.exponent = exponent;
    *ret = parts;
    return true;
}

bool json_to_i64(struct slice number, int64_t *ret_value)
{
    struct convert_parts parts;
    if (!convert_split(number, &parts)) {
        return false;
    }
    if (parts.digit_count == 0) {
        *ret_value = 0;
        return true;
    }
    if (parts.exponent < 0 || parts.exponent > CONVERT_POWER_MAX ||
        parts.digit_count > CONVERT_DIGITS_U64) {
        return false;
    }
    uint64_t magnitude = 0;
    uint64_t bound = (uint64_t)INT64_MAX + parts.negative;
    if (__builtin_mul_overflow(parts.value, convert_powers[parts.exponent], &magnitude) ||
        magnitude > bound) {
        return false;
    }
    /* The negation is done unsigned, where it is defined; the sum of both halves fits. */
    *ret_value = parts.negative ? -(int64_t)(magnitude - 1) - 1 : (int64_t)magnitude;
    return true;
}

/* value / 10^power, nearest, ties to even. value > 0, power 1 to 19: always a normal double. */
static double convert_divide(uint64_t value, uint32_t power)
{
    uint64_t divisor = convert_powers[power];
    int shift = __builtin_clzll(value);
    convert_u128 dividend = (convert_u128)(value << shift) << 64;
    convert_u128 quotient = dividend / divisor;
    bool inexact = quotient * divisor != dividend;
    uint64_t high = (uint64_t)(quotient >> 64);
    int width = high != 0 ? 128 - __builtin_clzll(high) : 64 - __builtin_clzll((uint64_t)quotient);
    /* 54 bits are kept: the double's 53 and the one that decides; the rest only says "more". */
    int drop = width - 54;
    uint64_t kept = (uint64_t)(quotient >> drop);
    inexact = inexact || (convert_u128)kept << drop != quotient;
    bool up = (kept & 1) != 0 && (inexact || (kept & 2) != 0);
    uint64_t mantissa = (kept >> 1) + up;
    return ldexp((double)mantissa, drop + 1 - 64 - shift);
}

/* Any number, by the C library. */
static bool convert_by_library(const struct convert_parts *parts, double *ret_value)
{
    char text[CONVERT_TEXT_BYTES];
    size_t size = 0;
    int64_t exponent = parts->exponent;
    for (size_t i = 0; i < parts->text.size && size < CONVERT_DIGITS_MAX; i++) {
        if (parts->text.data[i] != '.') {
            text[size++] = (char)parts->text.data[i];
        }
    }
    exponent += (int64_t)(parts->digit_count - size);
    if (parts->digit_count > size) {
        text[size++] = '1';
        exponent--;
    }
    (void)snprintf(text + size, sizeof(text) - size, "e%lld", (long long)exponent);
    locale_t locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    assert(locale != (locale_t)0);
    double value = strtod_l(text, NULL, locale);
    freelocale(locale);
    if (isinf(value)) {
        return false;
    }
    *ret_value = value;
    return true;
}

bool json_to_double(struct slice number, double *ret_value)
{
    struct convert_parts parts;
    if (!convert_split(number, &parts)) {
        return false;
    }
    double value = 0;
    int64_t exponent = parts.exponent;
    bool fits = parts.digit_count <= CONVERT_DIGITS_U64;
    if (parts.digit_count == 0) {
        value = 0;
    } else if (fits && parts.value <= (uint64_t)1 << 53 && exponent >= -CONVERT_EXACT_MAX &&
               exponent <= CONVERT_EXACT_MAX) {
        double power = convert_exact_powers[exponent < 0 ? -exponent : exponent];
        value = exponent < 0 ? (double)parts.value / power : (double)parts.value * power;
    } else if (fits && exponent < 0 && exponent >= -CONVERT_POWER_MAX) {
        value = convert_divide(parts.value, (uint32_t)-exponent);
    } else if (!convert_by_library(&parts, &value)) {
        return false;
    }
    *ret_value = parts.negative ? -value : value;
    return true;
}
