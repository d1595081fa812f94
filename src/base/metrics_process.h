/* Metrics, private: the process_* part of the page.
 *
 * Thread: any.
 * Memory: none kept.
 * Errors: those of the buffer; what the system does not tell is left out. */
#pragma once
#include "base/buffer.h"
#include "base/err.h"

#include <stdbool.h>

/* HELP and TYPE lines of a family. */
MUST_CHECK enum err metrics_write_head(struct buffer *to, bool openmetrics, const char *name,
                                       const char *type, const char *help);
MUST_CHECK enum err metrics_process_write(struct buffer *to, bool openmetrics);
