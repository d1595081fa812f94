/* Batch: when to read on, when to hand a batch to the writer, how large its parts are, how long to
 * wait after a failure. Pure decisions.
 *
 * Thread: any. Memory: none. Errors: none. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum apply_action {
    APPLY_WAIT, /* for mail */
    APPLY_FILL, /* read more into the batch */
    APPLY_POST, /* hand it to the writer */
};

struct apply_policy {
    uint32_t batch_size;       /* rows that are enough while the writer is free */
    uint32_t batch_timeout_ms; /* a batch that is filling while the writer is free */
    uint32_t gap_ms;           /* between two transactions under steady load */
    uint32_t gap_rows;         /* so many do not wait for the gap */
    uint32_t rows_max;
    size_t bytes_max;
};

struct apply_filling {
    uint32_t frames; /* in the batch; 0: empty */
    uint32_t rows;
    size_t bytes;
    uint64_t age_ms;    /* since its first frame was read */
    uint64_t gap_ms;    /* since the last batch was handed over */
    bool is_waited_for; /* somebody's answer depends on it */
    bool is_closed;     /* nothing may be added */
    bool has_more;      /* something is there to be read */
    bool is_in_flight;  /* the writer has another batch */
};

enum apply_action apply_batch_step(const struct apply_policy *policy,
                                   const struct apply_filling *filling);

#define APPLY_PART_ROWS_MIN 256u
/* Rows of the next part after one of `rows` rows was committed, or had to give way. */
uint32_t apply_part_step(uint32_t limit, uint32_t rows, bool gave_way, uint32_t rows_max);

#define APPLY_IO_ERRORS_MAX 10u
/* Whether an upload that could not be read is given up; *io_errors counts its I/O errors in a row.
 * Others pass by themselves and are waited for as long as it takes. */
bool apply_give_up_step(enum err err, uint32_t *io_errors);

#define APPLY_BACKOFF_FIRST_MS 50u
#define APPLY_BACKOFF_MAX_MS   2000u
/* Pause after one of `pause_ms` (0: none before). */
uint32_t apply_backoff_step(uint32_t pause_ms);
