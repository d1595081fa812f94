/* Clock: what time it is. Windows, timeouts and retries use the monotonic clock only; wall time
 * names moments for people.
 *
 * Thread: any.  Memory: none.  Errors: none. */
#pragma once
#include <stdint.h>

#include "base/slice.h"

/* Milliseconds since 1970 UTC; may step. */
int64_t clock_wall_ms(void);
/* Nanoseconds of a clock that never steps. */
uint64_t clock_mono_ns(void);
static inline uint64_t clock_mono_ms(void)
{
    return clock_mono_ns() / 1000000u;
}

/* "2026-11-21T10:00:00.123Z" is 24 bytes. */
#define CLOCK_TEXT_BYTES 24
/* RFC 3339, UTC, milliseconds; writes exactly CLOCK_TEXT_BYTES bytes, no NUL. Valid for years 0000
 * to 9999; clamped outside. */
void clock_format_rfc3339(int64_t wall_ms, char *to);
/* RFC 3339 (any offset, 0-9 fraction digits, 'T' or ' '): false when malformed, *ret untouched. */
bool clock_parse_rfc3339(struct slice text, int64_t *ret_wall_ms);
