/* Journal place: a directory of its own for a journal and its uploads, and the options of a small
 * journal: segments of 1 MiB, a backlog of 64 MiB, no replay window, no disk reserve.
 *
 * Thread: the test's.
 * Memory: the options point to the caller's texts.
 * Errors: fail the test. */
#pragma once
#include "journal/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#define JOURNAL_PLACE_ROOT_BYTES 64u
#define JOURNAL_PLACE_BYTES      96u

static inline void journal_place_make(const char *parent, char root[JOURNAL_PLACE_ROOT_BYTES],
                                      char directory[JOURNAL_PLACE_BYTES],
                                      char uploads[JOURNAL_PLACE_BYTES],
                                      struct journal_options *ret)
{
    (void)snprintf(root, JOURNAL_PLACE_ROOT_BYTES, "%s/journal_rig_XXXXXX", parent);
    assert_non_null(mkdtemp(root));
    (void)snprintf(directory, JOURNAL_PLACE_BYTES, "%s/journal", root);
    (void)snprintf(uploads, JOURNAL_PLACE_BYTES, "%s/uploads", root);
    *ret = (struct journal_options){
        .directory = directory,
        .uploads_directory = uploads,
        .segment_bytes = UINT64_C(1024) * 1024,
        .backlog_bytes_max = UINT64_C(64) * 1024 * 1024,
        .producer_count = 1,
    };
}
