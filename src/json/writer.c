/* Writer: appends JSON to a buffer and puts the commas.
 *
 * Happy path: room for the most that a value can take is reserved, then the bytes are copied.
 * Strings are copied in runs of plain characters; what is not plain is escaped or checked.
 *
 * A double is written with the fewest digits that read back as the same double, laid out as
 * ECMAScript does (Number::toString, radix 10; only the sign of zero is kept). Two ways to find the
 * digits:
 *  1. The smallest k for which m = round(value * 10^k) is below 2^53 and m / 10^k is the value
 *     again. Both are doubles without error, so this division is just how a reader reads "m e-k".
 *  2. The C library prints 15, 16, 17 digits (1 and up for subnormal values, whose digits count for
 *     less) until it reads back. A power of two has a nearer neighbour below than above, so there
 *     the decimal above may read back when the nearest does not.
 *
 * Failure modes: the buffer's limit or no memory. The first is remembered, and nothing is written
 * after it. */
#include "json/json.h"

#include "base/clock.h"
#include "json/scan.h"
#include "json/text.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

#define WRITER_DIGITS_MAX   17
#define WRITER_NUMBER_BYTES 32u /* sign, 17 digits, point, up to 6 zeros, exponent */
#define WRITER_POWER_MAX    22

static const double writer_powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                       1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                       1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* value = digits * 10^exponent; the last digit is not 0. */
struct writer_decimal {
    uint64_t digits;
    int exponent;
};

void json_writer_init(struct json_writer *writer, struct buffer *to)
{
    *writer = (struct json_writer){.to = to};
}

enum err json_writer_err(const struct json_writer *writer)
{
    return writer->err;
}

/* Whether `size` more bytes may be put. */
static bool writer_room(struct json_writer *writer, size_t size)
{
    if (writer->err == ERR_OK) {
        writer->err = buffer_reserve(writer->to, size);
    }
    return writer->err == ERR_OK;
}

/* The room is there. */
static void writer_put(struct json_writer *writer, const void *data, size_t size)
{
    struct buffer *to = writer->to;
    assert(to->capacity - to->size >= size);
    if (size > 0) {
        memcpy(to->data + to->size, data, size);
        to->size += size;
    }
}

static void writer_put_byte(struct json_writer *writer, uint8_t byte)
{
    writer_put(writer, &byte, 1);
}

/* Begins a value (or key) that takes at most `size` bytes: makes room, puts the comma. */
static bool writer_begin(struct json_writer *writer, size_t size)
{
    if (!writer_room(writer, size + 1)) {
        return false;
    }
    if (writer->needs_comma) {
        writer_put_byte(writer, ',');
    }
    writer->needs_comma = true;
    return true;
}

static void writer_open(struct json_writer *writer, uint8_t bracket)
{
    if (writer_begin(writer, 1)) {
        writer_put_byte(writer, bracket);
        writer->needs_comma = false;
    }
}

static void writer_close(struct json_writer *writer, uint8_t bracket)
{
    if (writer_room(writer, 1)) {
        writer_put_byte(writer, bracket);
        writer->needs_comma = true;
    }
}

void json_write_object_begin(struct json_writer *writer)
{
    writer_open(writer, '{');
}

void json_write_object_end(struct json_writer *writer)
{
    writer_close(writer, '}');
}

void json_write_array_begin(struct json_writer *writer)
{
    writer_open(writer, '[');
}

void json_write_array_end(struct json_writer *writer)
{
    writer_close(writer, ']');
}

void json_write_key(struct json_writer *writer, const char *key)
{
    size_t size = strlen(key);
    if (writer_begin(writer, size + 3)) {
        writer_put_byte(writer, '"');
        writer_put(writer, key, size);
        writer_put(writer, "\":", 2);
        writer->needs_comma = false;
    }
}

/* One character that is not plain, at `at`: puts what stands for it, gives the bytes it took. */
static size_t writer_put_odd(struct json_writer *writer, const uint8_t *at, const uint8_t *end)
{
    static const char shorts[] = "\bb\ff\nn\rr\tt\"\"\\\\";
    static const char hex[] = "0123456789abcdef";
    if (!writer_room(writer, 6)) {
        return 1;
    }
    if (*at >= 0x80) {
        int size = json_utf8_size(at, end);
        writer_put(writer, size > 0 ? at : (const uint8_t *)"\xef\xbf\xbd",
                   size > 0 ? (size_t)size : 3);
        return size > 0 ? (size_t)size : 1;
    }
    for (size_t i = 0; i + 1 < sizeof(shorts); i += 2) {
        if (*at == (uint8_t)shorts[i]) {
            writer_put_byte(writer, '\\');
            writer_put_byte(writer, (uint8_t)shorts[i + 1]);
            return 1;
        }
    }
    writer_put(writer, "\\u00", 4);
    writer_put_byte(writer, (uint8_t)hex[*at >> 4]);
    writer_put_byte(writer, (uint8_t)hex[*at & 15]);
    return 1;
}

void json_write_string(struct json_writer *writer, struct slice text)
{
    const uint8_t *at = text.data;
    const uint8_t *end = text.size > 0 ? at + text.size : at;
    if (!writer_begin(writer, text.size + 2)) {
        return;
    }
    writer_put_byte(writer, '"');
    while (at < end && writer->err == ERR_OK) {
        const uint8_t *odd = json_plain_base(at, end);
        if (writer_room(writer, (size_t)(odd - at))) {
            writer_put(writer, at, (size_t)(odd - at));
        }
        at = odd < end ? odd + writer_put_odd(writer, odd, end) : end;
    }
    if (writer_room(writer, 1)) {
        writer_put_byte(writer, '"');
    }
}

void json_write_text(struct json_writer *writer, const char *text)
{
    json_write_string(writer, slice_from_text(text));
}

void json_write_raw(struct json_writer *writer, struct slice value)
{
    if (writer_begin(writer, value.size)) {
        writer_put(writer, value.data, value.size);
    }
}

/* Decimal digits in front of `end`; gives where they begin. */
static char *writer_digits(uint64_t value, char *end)
{
    do {
        *--end = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    return end;
}

void json_write_u64(struct json_writer *writer, uint64_t value)
{
    char text[WRITER_NUMBER_BYTES];
    char *end = text + sizeof(text);
    char *from = writer_digits(value, end);
    json_write_raw(writer, slice_make(from, (size_t)(end - from)));
}

void json_write_i64(struct json_writer *writer, int64_t value)
{
    char text[WRITER_NUMBER_BYTES];
    char *end = text + sizeof(text);
    /* Negated as unsigned, where the smallest value is no exception. */
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    char *from = writer_digits(magnitude, end);
    if (value < 0) {
        *--from = '-';
    }
    json_write_raw(writer, slice_make(from, (size_t)(end - from)));
}

static struct writer_decimal writer_trim(uint64_t digits, int exponent)
{
    while (digits > 0 && digits % 10 == 0) {
        digits /= 10;
        exponent++;
    }
    return (struct writer_decimal){digits, exponent};
}

/* Way 1; value is above 0. */
static bool writer_short_decimal(double value, struct writer_decimal *ret)
{
    const double digits_max = 9007199254740992.0; /* 2^53 */
    for (int power = 0; power <= WRITER_POWER_MAX; power++) {
        double scaled = value * writer_powers[power];
        if (scaled >= digits_max) {
            return false;
        }
        double digits = nearbyint(scaled);
        if (digits > 0 && digits / writer_powers[power] == value) {
            *ret = writer_trim((uint64_t)digits, -power);
            return true;
        }
    }
    return false;
}

static bool writer_reads_back(struct writer_decimal decimal, double value)
{
    char text[WRITER_NUMBER_BYTES];
    int size = snprintf(text, sizeof(text), "%llue%d", (unsigned long long)decimal.digits,
                        decimal.exponent);
    double read = 0;
    return json_to_double(slice_make(text, (size_t)size), &read) && read == value;
}

/* The decimal of that many digits nearest to the value, as the C library prints it. The locale's
 * point, whatever it is, is passed over. */
static struct writer_decimal writer_printed(double value, int digit_count)
{
    char text[64];
    int size = snprintf(text, sizeof(text), "%.*e", digit_count - 1, value);
    assert(size > 0 && (size_t)size < sizeof(text));
    uint64_t digits = 0;
    const char *at = text;
    for (; *at != 'e'; at++) {
        digits = *at >= '0' && *at <= '9' ? digits * 10 + (uint64_t)(*at - '0') : digits;
    }
    bool negative = at[1] == '-';
    int exponent = 0;
    for (at += 2; *at != '\0'; at++) {
        exponent = exponent * 10 + (*at - '0');
    }
    return (struct writer_decimal){digits, (negative ? -exponent : exponent) - (digit_count - 1)};
}

/* Way 2; value is above 0. */
static struct writer_decimal writer_long_decimal(double value)
{
    int exponent = 0;
    bool power_of_two = frexp(value, &exponent) == 0.5;
    int digit_count = value < DBL_MIN ? 1 : DBL_DIG;
    struct writer_decimal decimal = writer_printed(value, digit_count);
    while (digit_count < WRITER_DIGITS_MAX && !writer_reads_back(decimal, value)) {
        struct writer_decimal above = {decimal.digits + 1, decimal.exponent};
        if (power_of_two && writer_reads_back(above, value)) {
            decimal = above;
            break;
        }
        digit_count++;
        decimal = writer_printed(value, digit_count);
    }
    return writer_trim(decimal.digits, decimal.exponent);
}

/* Lays the decimal out; gives its bytes. ECMA-262, Number::toString: n is where the point stands
 * behind the first digit, k the number of digits. */
static size_t writer_layout(struct writer_decimal decimal, char *to)
{
    char digits[WRITER_NUMBER_BYTES];
    char *digits_end = digits + sizeof(digits);
    char *from = writer_digits(decimal.digits, digits_end);
    int k = (int)(digits_end - from);
    int n = k + decimal.exponent;
    if (k <= n && n <= 21) {
        return (size_t)snprintf(to, WRITER_NUMBER_BYTES, "%.*s%.*s", k, from, n - k,
                                "000000000000000000000");
    }
    if (0 < n && n <= 21) {
        return (size_t)snprintf(to, WRITER_NUMBER_BYTES, "%.*s.%.*s", n, from, k - n, from + n);
    }
    if (-6 < n && n <= 0) {
        return (size_t)snprintf(to, WRITER_NUMBER_BYTES, "0.%.*s%.*s", -n, "000000", k, from);
    }
    return (size_t)snprintf(to, WRITER_NUMBER_BYTES, "%.1s%s%.*se%+d", from, k > 1 ? "." : "",
                            k - 1, from + 1, n - 1);
}

void json_write_double(struct json_writer *writer, double value)
{
    char text[WRITER_NUMBER_BYTES + 1];
    size_t size = 0;
    if (!isfinite(value)) {
        json_write_null(writer);
        return;
    }
    if (signbit(value)) {
        text[size++] = '-';
        value = -value;
    }
    struct writer_decimal decimal = {0, 0};
    if (value > 0 && !writer_short_decimal(value, &decimal)) {
        decimal = writer_long_decimal(value);
    }
    size += writer_layout(decimal, text + size);
    json_write_raw(writer, slice_make(text, size));
}

void json_write_bool(struct json_writer *writer, bool value)
{
    json_write_raw(writer, value ? SLICE_LITERAL("true") : SLICE_LITERAL("false"));
}

void json_write_null(struct json_writer *writer)
{
    json_write_raw(writer, SLICE_LITERAL("null"));
}

void json_write_member_text(struct json_writer *writer, const char *key, const char *value)
{
    json_write_key(writer, key);
    json_write_text(writer, value);
}

void json_write_member_string(struct json_writer *writer, const char *key, struct slice value)
{
    json_write_key(writer, key);
    json_write_string(writer, value);
}

void json_write_member_i64(struct json_writer *writer, const char *key, int64_t value)
{
    json_write_key(writer, key);
    json_write_i64(writer, value);
}

void json_write_member_u64(struct json_writer *writer, const char *key, uint64_t value)
{
    json_write_key(writer, key);
    json_write_u64(writer, value);
}

void json_write_member_bool(struct json_writer *writer, const char *key, bool value)
{
    json_write_key(writer, key);
    json_write_bool(writer, value);
}

void json_write_member_id(struct json_writer *writer, const char *key, struct id id)
{
    char text[ID_TEXT_BYTES];
    id_format(id, text);
    json_write_member_string(writer, key, slice_make(text, sizeof(text)));
}

void json_write_member_time(struct json_writer *writer, const char *key, int64_t wall_ms)
{
    char text[CLOCK_TEXT_BYTES];
    clock_format_rfc3339(wall_ms, text);
    json_write_member_string(writer, key, slice_make(text, sizeof(text)));
}
