/* Slice: bytes that somebody else owns. Not NUL-terminated.
 *
 * Thread: values.
 * Memory: a slice owns nothing; whoever hands it out says how long it lives.
 * Errors: none. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *data;
    size_t size;
};

/* A string literal as a slice, without its NUL. */
#define SLICE_LITERAL(text) ((struct slice){(const uint8_t *)(text), sizeof(text) - 1})

static inline struct slice slice_make(const void *data, size_t size)
{
    return (struct slice){(const uint8_t *)data, size};
}

static inline struct slice slice_from_text(const char *text)
{
    return slice_make(text, strlen(text));
}

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* ASCII letters compare without case; other bytes exactly. */
bool slice_equal_nocase(struct slice a, struct slice b);
bool slice_starts_with(struct slice s, struct slice prefix);
/* memcmp order, shorter first. */
int slice_compare(struct slice a, struct slice b);
/* [from, to) clamped to the slice. */
static inline struct slice slice_part(struct slice s, size_t from, size_t to)
{
    to = to < s.size ? to : s.size;
    from = from < to ? from : to;
    return slice_make(from == 0 ? s.data : s.data + from, to - from);
}

/* Without leading and trailing space and tab. */
static inline struct slice slice_trim(struct slice s)
{
    while (s.size > 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s = slice_make(s.data + 1, s.size - 1);
    }
    while (s.size > 0 && (s.data[s.size - 1] == ' ' || s.data[s.size - 1] == '\t')) {
        s.size--;
    }
    return s;
}

/* Position of `byte`, or s.size when absent. */
size_t slice_find(struct slice s, uint8_t byte);
/* Cuts at the first `byte`: returns what stands before, *rest becomes what stands after (empty
 * with data NULL when there was no `byte`). */
struct slice slice_cut(struct slice s, uint8_t byte, struct slice *rest);
/* Decimal digits only, the whole slice, at least one; false on anything else or overflow;
 * *ret_value is untouched then. */
bool slice_to_u64(struct slice s, uint64_t *ret_value);
/* As slice_to_u64 with an optional leading '-'. */
bool slice_to_i64(struct slice s, int64_t *ret_value);
/* Whether it is UTF-8 (RFC 3629) without control characters (C0, DEL, C1): a name for people. Empty
 * is. */
bool slice_is_printable(struct slice s);
