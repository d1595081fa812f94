/* Files: what backup and restore do to whole files and directories.
 *
 * Thread: main.
 * Memory: one buffer of a mebibyte in each call.
 * Errors: with the path in the detail. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "progress.h"

#define FILES_PATH_BYTES 4096u

/* Where a bar stands over many files. */
struct files_progress {
    struct progress bar;
    uint64_t done; /* bytes */
    uint64_t all;  /* 0: not known */
};

struct files_sum {
    uint64_t size;
    uint64_t hash; /* XXH3-64 */
};

/* directory/name. One that does not fit is cut, and then no file of the system has that name. */
void files_join(char to[FILES_PATH_BYTES], const char *directory, const char *name);
/* Reads `from` to its end and sums it up; `to` NULL: only that. Else what is read goes to the new
 * file `to` (0600), synced. ERR_EXISTS: there is such a file. */
MUST_CHECK enum err files_copy(const char *from, const char *to, struct files_progress *progress,
                               struct files_sum *ret, struct err_detail *detail);
/* Makes the directory (0700) when it is absent; its name becomes durable. ERR_EXISTS: there is
 * something in it other than lost+found and weir.lock. */
MUST_CHECK enum err files_take_empty(const char *path, bool *ret_made, struct err_detail *detail);
MUST_CHECK enum err files_make_directory(const char *path, struct err_detail *detail);
MUST_CHECK enum err files_sync(const char *directory, struct err_detail *detail);
/* Calls `on_name` for each file of the directory. */
MUST_CHECK enum err files_each(const char *directory,
                               enum err (*on_name)(const char *name, void *context), void *context,
                               struct err_detail *detail);
/* Removes the files of a directory, and then itself. What is absent is fine, and nobody is told of
 * what stays: for what failed anyway. */
void files_discard(const char *directory);
