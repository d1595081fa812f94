/* Log: one JSON object a line on stderr.
 *
 * {"time":"…","level":"warn","stage":"journal","message":"…"}
 *
 * Thread: any; one short lock.
 * Memory: a line is cut at 2 KiB.
 * Errors: none; a line that cannot be written is lost. No secret, key or value of a person is ever
 *         given to it. */
#pragma once
#include <stdbool.h>

#include "base/err.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_set_level(enum log_level level);
/* "debug", "info", "warn", "error"; false for another word. */
bool log_level_from_text(const char *text, enum log_level *ret_level);
void log_write(enum log_level level, const char *stage, const char *format, ...) PRINTF_LIKE(3, 4);
