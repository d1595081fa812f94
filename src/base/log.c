/* Log: a line is built on the stack, escaped for JSON, and given to the kernel in one write.
 *
 * Happy path: the level passes, the message is formatted, each byte is copied or escaped, the line
 * is written under the lock, so that lines of two threads never mix.
 * Failure modes: a message longer than the line is cut between two characters, bytes that are not
 * UTF-8 become U+FFFD, and a line that stderr does not take is lost. */
#include "base/log.h"

#include "base/clock.h"
#include "base/slice.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define LOG_LINE_BYTES 2048u
#define LOG_TAIL_BYTES 3u /* quote, brace, newline */

static const char *const log_level_texts[] = {"debug", "info", "warn", "error"};
#define LOG_LEVEL_COUNT (sizeof(log_level_texts) / sizeof(log_level_texts[0]))

/* Relaxed: pairs with the loads in log_write; a line more or less at the change is fine. */
static atomic_int log_level_min = LOG_INFO;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

struct log_line {
    char text[LOG_LINE_BYTES];
    size_t size;
};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_level_min, (int)level, memory_order_relaxed);
}

bool log_level_from_text(const char *text, enum log_level *ret_level)
{
    for (size_t i = 0; i < LOG_LEVEL_COUNT; i++) {
        if (strcmp(text, log_level_texts[i]) == 0) {
            *ret_level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

/* All of it or nothing; the tail's room is kept free. */
static bool log_put(struct log_line *line, const void *bytes, size_t size)
{
    if (size > LOG_LINE_BYTES - LOG_TAIL_BYTES - line->size) {
        return false;
    }
    memcpy(line->text + line->size, bytes, size);
    line->size += size;
    return true;
}

/* Bytes of the UTF-8 character that stands first; 0 when it is none (RFC 3629, table of 4). */
static size_t log_character_bytes(struct slice s)
{
    uint8_t first = s.data[0];
    if (first < 0x80) {
        return 1;
    }
    if (first < 0xc2 || first > 0xf4) {
        return 0;
    }
    size_t size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (s.size < size || s.data[1] < low || s.data[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < size; i++) {
        if ((s.data[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return size;
}

static bool log_put_character(struct log_line *line, struct slice s, size_t size)
{
    uint8_t byte = s.data[0];
    if (size == 0) {
        return log_put(line, "\\ufffd", 6);
    }
    if (byte == '"' || byte == '\\') {
        return log_put(line, (char[]){'\\', (char)byte}, 2);
    }
    if (byte < 0x20) {
        static const char hex[] = "0123456789abcdef";
        char escape[6] = {'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]};
        return log_put(line, escape, sizeof(escape));
    }
    return log_put(line, s.data, size);
}

static void log_put_escaped(struct log_line *line, struct slice s)
{
    while (s.size > 0) {
        size_t size = log_character_bytes(s);
        if (!log_put_character(line, s, size)) {
            return;
        }
        s = slice_part(s, size == 0 ? 1 : size, s.size);
    }
}

static void log_emit(const struct log_line *line)
{
    int result = pthread_mutex_lock(&log_lock);
    assert(result == 0);
    size_t done = 0;
    while (done < line->size) {
        ssize_t written = write(STDERR_FILENO, line->text + done, line->size - done);
        if (written < 0 && errno != EINTR) {
            break;
        }
        done += written > 0 ? (size_t)written : 0;
    }
    result = pthread_mutex_unlock(&log_lock);
    assert(result == 0);
}

void log_write(enum log_level level, const char *stage, const char *format, ...)
{
    if ((int)level < atomic_load_explicit(&log_level_min, memory_order_relaxed)) {
        return;
    }
    int error_number = errno; /* callers log between a failure and its handling */
    char message[LOG_LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    assert(length >= 0);

    struct log_line line = {.size = 0};
    char time[CLOCK_TEXT_BYTES];
    clock_format_rfc3339(clock_wall_ms(), time);
    (void)log_put(&line, "{\"time\":\"", 9);
    (void)log_put(&line, time, sizeof(time));
    (void)log_put(&line, "\",\"level\":\"", 11);
    (void)log_put(&line, log_level_texts[level], strlen(log_level_texts[level]));
    (void)log_put(&line, "\",\"stage\":\"", 11);
    (void)log_put(&line, stage, strlen(stage));
    (void)log_put(&line, "\",\"message\":\"", 13);
    log_put_escaped(&line, slice_from_text(message));
    memcpy(line.text + line.size, "\"}\n", LOG_TAIL_BYTES);
    line.size += LOG_TAIL_BYTES;
    log_emit(&line);
    errno = error_number;
}
