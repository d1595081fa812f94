/* Manifest: the list of what is in a backup. It is written last, so that a backup without one is
 * none. The format stands at the head of manifest.c.
 *
 * Thread: main.
 * Memory: a line at a time.
 * Errors: ERR_CORRUPT for anything that a writer of ours did not write, with the line in the
 * detail. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "files.h"

#define MANIFEST_NAME       "MANIFEST"
#define MANIFEST_TEMPORARY  "MANIFEST.tmp"
#define MANIFEST_NAME_BYTES 96u

struct manifest_head {
    int64_t made_ms;
    struct id journal; /* zeros: there was none */
    uint64_t applied;  /* position: what is in the store */
    uint64_t durable;  /* position: what is in the journal after it */
    uint64_t missing;  /* frames that were damaged where the backup was made */
};

struct manifest_file {
    char name[MANIFEST_NAME_BYTES]; /* weir.db, journal/…, uploads/… */
    struct files_sum sum;
};

struct manifest;

MUST_CHECK enum err manifest_create(struct manifest **ret, const char *directory,
                                    struct err_detail *detail);
MUST_CHECK enum err manifest_add(struct manifest *manifest, const struct manifest_file *file);
/* Writes the end, syncs, and gives it its name. Consumes it, also on failure. */
MUST_CHECK enum err manifest_finish(struct manifest *manifest, const struct manifest_head *head,
                                    struct err_detail *detail);
/* NULL is fine. */
void manifest_discard(struct manifest *manifest);

struct manifest_reading {
    struct manifest_head head; /* out */
    uint64_t bytes;            /* out: of all files */
    uint64_t uploads;          /* out: how many */
    /* May be NULL: only the manifest itself is checked. */
    enum err (*on_file)(const struct manifest_file *file, void *context);
    void *context;
};
/* ERR_NOT_FOUND: there is none. */
MUST_CHECK enum err manifest_read(const char *directory, struct manifest_reading *reading,
                                  struct err_detail *detail);
