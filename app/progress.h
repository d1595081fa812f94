/* Progress: a bar on stderr while it is a terminal; silence otherwise.
 *
 * Thread: one.  Memory: values.  Errors: none. */
#pragma once
#include <stdint.h>

struct progress {
    const char *label;
    uint64_t shown_ns; /* when it was drawn last */
    uint64_t started_ns;
    int is_terminal;
};
void progress_begin(struct progress *progress, const char *label);
/* Draws at most ten times a second. `all` 0: the end is not known. */
void progress_show(struct progress *progress, uint64_t done, uint64_t all);
void progress_end(struct progress *progress);
