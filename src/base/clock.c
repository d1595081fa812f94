/* Clock: the two clocks, and RFC 3339 text.
 *
 * Days are counted in the proleptic Gregorian calendar from 0000-03-01: with March first, the leap
 * day is the last of its year, and the day of the year of a month's first is (153 m + 2) / 5.
 * 400 years are 146,097 days. */
#include "base/clock.h"

#include <assert.h>
#include <stddef.h>
#include <time.h>

#define CLOCK_DAY_MS          86400000
#define CLOCK_ERA_DAYS        146097 /* of 400 years */
#define CLOCK_EPOCH_DAY       719468 /* 1970-01-01 counted from 0000-03-01 */
#define CLOCK_TEXT_MS_MIN     (-62167219200000)
#define CLOCK_TEXT_MS_MAX     253402300799999
#define CLOCK_FRACTION_DIGITS 9u

int64_t clock_wall_ms(void)
{
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    assert(result == 0);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t clock_mono_ns(void)
{
    struct timespec now;
    int result = clock_gettime(CLOCK_MONOTONIC, &now);
    assert(result == 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Days from 1970-01-01, years 0 to 9999. */
static int64_t clock_day_number(int64_t year, int64_t month, int64_t day)
{
    /* January and February belong to the year before; +400 keeps year 0 positive. */
    int64_t march_year = year + 400 - (month <= 2 ? 1 : 0);
    int64_t march_month = (month + 9) % 12;
    int64_t day_of_year = (153 * march_month + 2) / 5 + day - 1;
    int64_t leap_days = march_year / 4 - march_year / 100 + march_year / 400;
    return march_year * 365 + leap_days + day_of_year - CLOCK_ERA_DAYS - CLOCK_EPOCH_DAY;
}

/* The year, month and day of a day number, by the same count. */
static void clock_date(int64_t day_number, int64_t *ret_year, int64_t *ret_month, int64_t *ret_day)
{
    int64_t days = day_number + CLOCK_EPOCH_DAY + CLOCK_ERA_DAYS;
    int64_t era = days / CLOCK_ERA_DAYS;
    int64_t day_of_era = days % CLOCK_ERA_DAYS;
    /* Take the leap days before this day out (one in 4 years, not in 100, but in 400). */
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t march_month = (5 * day_of_year + 2) / 153;
    *ret_day = day_of_year - (153 * march_month + 2) / 5 + 1;
    *ret_month = (march_month + 2) % 12 + 1;
    *ret_year = era * 400 + year_of_era - 400 + (*ret_month <= 2 ? 1 : 0);
}

static void clock_put_digits(char *to, int64_t value, size_t count)
{
    while (count > 0) {
        to[--count] = (char)('0' + value % 10);
        value /= 10;
    }
}

void clock_format_rfc3339(int64_t wall_ms, char *to)
{
    wall_ms = wall_ms < CLOCK_TEXT_MS_MIN ? CLOCK_TEXT_MS_MIN : wall_ms;
    wall_ms = wall_ms > CLOCK_TEXT_MS_MAX ? CLOCK_TEXT_MS_MAX : wall_ms;
    int64_t ms = (wall_ms % CLOCK_DAY_MS + CLOCK_DAY_MS) % CLOCK_DAY_MS;
    int64_t year;
    int64_t month;
    int64_t day;
    clock_date((wall_ms - ms) / CLOCK_DAY_MS, &year, &month, &day);
    clock_put_digits(to, year, 4);
    clock_put_digits(to + 5, month, 2);
    clock_put_digits(to + 8, day, 2);
    clock_put_digits(to + 11, ms / 3600000, 2);
    clock_put_digits(to + 14, ms / 60000 % 60, 2);
    clock_put_digits(to + 17, ms / 1000 % 60, 2);
    clock_put_digits(to + 20, ms % 1000, 3);
    to[4] = '-';
    to[7] = '-';
    to[10] = 'T';
    to[13] = ':';
    to[16] = ':';
    to[19] = '.';
    to[23] = 'Z';
}

/* Takes `count` digits off the front. */
static bool clock_take_digits(struct slice *text, size_t count, int64_t *ret_value)
{
    if (text->size < count) {
        return false;
    }
    int64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        if (text->data[i] < '0' || text->data[i] > '9') {
            return false;
        }
        value = value * 10 + (text->data[i] - '0');
    }
    *text = slice_part(*text, count, text->size);
    *ret_value = value;
    return true;
}

/* Takes one byte of `choice` off the front. */
static bool clock_take_byte(struct slice *text, const char *choice, uint8_t *ret_byte)
{
    if (text->size == 0 || text->data[0] == 0 || strchr(choice, text->data[0]) == NULL) {
        return false;
    }
    *ret_byte = text->data[0];
    *text = slice_part(*text, 1, text->size);
    return true;
}

static bool clock_date_is_valid(int64_t year, int64_t month, int64_t day)
{
    static const uint8_t month_days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (month < 1 || month > 12) {
        return false;
    }
    bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return day >= 1 && day <= month_days[month - 1] + (month == 2 && is_leap ? 1 : 0);
}

/* "YYYY-MM-DD" to milliseconds. */
static bool clock_take_date(struct slice *text, int64_t *ret_ms)
{
    int64_t year;
    int64_t month;
    int64_t day;
    uint8_t byte;
    if (!clock_take_digits(text, 4, &year) || !clock_take_byte(text, "-", &byte) ||
        !clock_take_digits(text, 2, &month) || !clock_take_byte(text, "-", &byte) ||
        !clock_take_digits(text, 2, &day) || !clock_date_is_valid(year, month, day)) {
        return false;
    }
    *ret_ms = clock_day_number(year, month, day) * CLOCK_DAY_MS;
    return true;
}

/* "HH:MM" to minutes. */
static bool clock_take_minutes(struct slice *text, int64_t *ret_minutes)
{
    int64_t hours;
    int64_t minutes;
    uint8_t byte;
    if (!clock_take_digits(text, 2, &hours) || !clock_take_byte(text, ":", &byte) ||
        !clock_take_digits(text, 2, &minutes) || hours > 23 || minutes > 59) {
        return false;
    }
    *ret_minutes = hours * 60 + minutes;
    return true;
}

/* Digits after the point, cut to milliseconds. Without a point: zero. */
static bool clock_take_fraction(struct slice *text, int64_t *ret_ms)
{
    int64_t ms = 0;
    uint8_t byte;
    if (clock_take_byte(text, ".", &byte)) {
        size_t count = 0;
        int64_t digit;
        while (count < CLOCK_FRACTION_DIGITS && clock_take_digits(text, 1, &digit)) {
            static const int16_t weight[3] = {100, 10, 1};
            ms += count < 3 ? digit * weight[count] : 0;
            count++;
        }
        if (count == 0) {
            return false;
        }
    }
    *ret_ms = ms;
    return true;
}

/* "Z" or "+HH:MM" to the milliseconds that local time is ahead. */
static bool clock_take_offset(struct slice *text, int64_t *ret_ms)
{
    uint8_t byte;
    int64_t minutes = 0;
    if (!clock_take_byte(text, "Zz+-", &byte)) {
        return false;
    }
    bool is_utc = byte == 'Z' || byte == 'z';
    if (!is_utc && !clock_take_minutes(text, &minutes)) {
        return false;
    }
    *ret_ms = (byte == '-' ? -minutes : minutes) * 60000;
    return true;
}

bool clock_parse_rfc3339(struct slice text, int64_t *ret_wall_ms)
{
    int64_t date_ms;
    int64_t minutes;
    int64_t seconds;
    int64_t fraction_ms;
    int64_t offset_ms;
    uint8_t byte;
    /* Second 60 is a leap second, which the count does not have: it is the next second. */
    if (!clock_take_date(&text, &date_ms) || !clock_take_byte(&text, "Tt ", &byte) ||
        !clock_take_minutes(&text, &minutes) || !clock_take_byte(&text, ":", &byte) ||
        !clock_take_digits(&text, 2, &seconds) || seconds > 60 ||
        !clock_take_fraction(&text, &fraction_ms) || !clock_take_offset(&text, &offset_ms) ||
        text.size != 0) {
        return false;
    }
    *ret_wall_ms = date_ms + minutes * 60000 + seconds * 1000 + fraction_ms - offset_ms;
    return true;
}
