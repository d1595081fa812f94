/* The batch policy.
 *
 * While the writer is free, what is there is handed over: a lone record at once, and of a backlog
 * no more than batch_size, or what batch_timeout gives time for. While the writer is busy the next
 * batch fills. So the size of a batch is what arrived, or could be read, during the commit before
 * it: it grows with the load and with the cost of a commit.
 *
 * Under steady load that alone would make a transaction of a few records without a pause, each of
 * which rewrites the same dozen pages: a busy core, and tens of megabytes a second of WAL, whose
 * syncs stand before the journal's. So batches are handed over gap_ms apart. A record that comes
 * after a pause of that length goes at once, and so does one that somebody waits for, a backlog
 * (gap_rows), and a slice of an upload.
 *
 * A part that had to give way to something of higher priority is tried again at half the size; a
 * part that was committed lets the limit grow by an eighth, until a whole batch is one part again.
 */
#include "apply/batch.h"

/* Whether the writer is left alone until the gap is over. */
static bool must_rest(const struct apply_policy *policy, const struct apply_filling *filling)
{
    return filling->gap_ms < policy->gap_ms && filling->rows < policy->gap_rows &&
           !filling->is_waited_for && !filling->is_closed;
}

enum apply_action apply_batch_step(const struct apply_policy *policy,
                                   const struct apply_filling *filling)
{
    bool can_take = !filling->is_closed && filling->has_more && filling->rows < policy->rows_max &&
                    filling->bytes < policy->bytes_max;
    if (filling->frames == 0 || filling->is_in_flight) {
        return can_take ? APPLY_FILL : APPLY_WAIT;
    }
    bool is_enough =
        filling->rows >= policy->batch_size || filling->age_ms >= policy->batch_timeout_ms;
    bool rests = must_rest(policy, filling);
    if (can_take && (!is_enough || rests)) {
        return APPLY_FILL;
    }
    return rests ? APPLY_WAIT : APPLY_POST;
}

uint32_t apply_part_step(uint32_t limit, uint32_t rows, bool gave_way, uint32_t rows_max)
{
    if (gave_way) {
        uint32_t half = (rows < limit ? rows : limit) / 2;
        return half < APPLY_PART_ROWS_MIN ? APPLY_PART_ROWS_MIN : half;
    }
    uint32_t growth = limit / 8;
    return limit >= rows_max - growth ? rows_max : limit + growth;
}

bool apply_give_up_step(enum err err, uint32_t *io_errors)
{
    if (err == ERR_IO) {
        *io_errors += 1;
        return *io_errors >= APPLY_IO_ERRORS_MAX;
    }
    return err_class(err) != ERR_CLASS_RETRY;
}

uint32_t apply_backoff_step(uint32_t pause_ms)
{
    if (pause_ms == 0) {
        return APPLY_BACKOFF_FIRST_MS;
    }
    return pause_ms >= APPLY_BACKOFF_MAX_MS / 2 ? APPLY_BACKOFF_MAX_MS : pause_ms * 2;
}
