/* Format time: moments as clients write them. */
#include "base/clock.h"
#include "format/reader.h"

/* 0000-01-01T00:00:00.000Z and 9999-12-31T23:59:59.999Z: what RFC 3339 can say. */
#define FORMAT_TIME_MS_MIN (-62167219200000)
#define FORMAT_TIME_MS_MAX 253402300799999

static bool format_time_read_number(struct slice text, int64_t *ret_ms)
{
    int64_t ms;
    if (json_to_i64(text, &ms)) {
        *ret_ms = ms;
        return true;
    }
    double value;
    if (!json_to_double(text, &value) || !(value >= (double)FORMAT_TIME_MS_MIN) ||
        !(value <= (double)FORMAT_TIME_MS_MAX)) {
        return false;
    }
    *ret_ms = (int64_t)value;
    return true;
}

static size_t format_time_skip_digits(struct slice text, size_t from)
{
    while (from < text.size && text.data[from] >= '0' && text.data[from] <= '9') {
        from++;
    }
    return from;
}

/* The grammar of a number, so that the conversions see nothing else. */
static bool format_time_is_number(struct slice text)
{
    size_t start = text.size != 0 && text.data[0] == '-' ? 1 : 0;
    size_t end = format_time_skip_digits(text, start);
    bool is_number = end > start;
    if (end < text.size && text.data[end] == '.') {
        start = end + 1;
        end = format_time_skip_digits(text, start);
        is_number = is_number && end > start;
    }
    if (end < text.size && (text.data[end] == 'e' || text.data[end] == 'E')) {
        start = end + 1;
        start += start < text.size && (text.data[start] == '-' || text.data[start] == '+') ? 1 : 0;
        end = format_time_skip_digits(text, start);
        is_number = is_number && end > start;
    }
    return is_number && end == text.size;
}

bool format_time_read(struct slice text, int64_t *ret_ms)
{
    int64_t ms;
    bool is_read = format_time_is_number(text) ? format_time_read_number(text, &ms)
                                               : clock_parse_rfc3339(text, &ms);
    if (!is_read || ms < FORMAT_TIME_MS_MIN || ms > FORMAT_TIME_MS_MAX) {
        return false;
    }
    *ret_ms = ms;
    return true;
}
