/* Apply: journal -> store. Takes durable frames in the order of their lanes, reads what they mean,
 * writes rows and cursors in one transaction, so a crash at any instant applies each record exactly
 * once.
 *
 * Thread: open, close: main. apply_run: an applier's thread. position: any.
 * Memory: bounded by the batch.
 * Errors: a record that the store refuses, or that cannot be read, becomes a dead letter in the
 * same transaction; a store that is away never makes one: the batch is tried again with backoff. */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "record/record.h"

struct apply;
struct journal;
struct journal_from;
struct store;

struct apply_options {
    struct journal *journal;
    struct store *store;
    uint32_t batch_size; /* records in a filling batch under light load; grows with the backlog */
    uint32_t batch_timeout_ms; /* a batch that is filling waits at most this long */
    uint32_t appliers; /* they share the lanes by leases; 0: one has them all, without (SQLite) */
    bool is_exclusive; /* nobody else applies this journal: leases of an earlier run are void */
    bool paused;       /* APPLY_PAUSED: reads nothing */
    bool is_follower;  /* others apply: it looks how far they are, and takes their results */
    uint64_t run;      /* waiters of another run are void */
    uint32_t raw_retention_days;
    uint32_t replay_s; /* no event goes younger */
    struct id former;  /* the journal that was in files here before NATS; zeros: none */
    bool is_alone;     /* no other journal's records are applied into this store */
    const char
        *spill; /* a path for rows of a backlog, the caller's text; NULL: they stay in memory */
    void *owner;
    /* On an applier's thread, after the commit. `waiter` as in the frame. */
    void (*on_result)(void *owner, uint64_t waiter, const struct record_result *result);
    /* On an applier's thread, after each commit and whenever `position` rises: everything up to it
     * is queryable; the orgs whose data changed. */
    void (*on_applied)(void *owner, uint64_t position, const uint64_t *orgs, uint32_t org_count);
};

MUST_CHECK enum err apply_open(struct apply **ret, const struct apply_options *options,
                               struct err_detail *detail);
#define APPLY_APPLIERS_MAX 64u
uint32_t apply_count(const struct apply *apply);
/* Argument: apply_applier(apply, i), each on a thread of its own. */
void apply_run(void *argument);
void *apply_applier(struct apply *apply, uint32_t index);
/* Any thread: batches in hand are committed, lanes given up, then each apply_run returns. */
void apply_stop(struct apply *apply);
void apply_close(struct apply *apply);
/* Everything up to it is queryable. Any thread. */
uint64_t apply_position(const struct apply *apply);

/* Any thread: what another node says of a journal that they share: each of these lanes is applied
 * up to `position`; lanes can be taken. */
void apply_on_passed(struct apply *apply, uint64_t lanes, uint64_t position);
void apply_on_free(struct apply *apply);

/* The base of a journal that the store may not have met (it is recorded there). These run as
 * store jobs on the caller's behalf, synchronously. */
MUST_CHECK enum err apply_base(struct store *store, struct id journal, bool is_new,
                               uint64_t *ret_base);
/* What names the store, for ever, wherever its rows are moved to; made when first asked for. */
MUST_CHECK enum err apply_store_id(struct store *store, struct id *ret);
/* How far each lane of this journal is; 0: none. */
MUST_CHECK enum err apply_cursors_of(struct store *store, struct id journal,
                                     struct journal_from *ret);
/* The same, when nobody else applies this journal: a commit of a run that was killed may still be
 * on its way in the database, and is waited for, so that the journal counts what apply will find.
 */
MUST_CHECK enum err apply_take_over(struct store *store, struct id journal,
                                    struct journal_from *ret);
/* The least of them. */
MUST_CHECK enum err apply_cursor_of(struct store *store, struct id journal, uint64_t *ret_position);
/* Whether there are uploads whose bodies this journal has and that are not applied to the end. */
MUST_CHECK enum err apply_has_open_uploads(struct store *store, struct id journal, bool *ret);
/* After a restore, before anything else uses the store: positions, sequences and data versions jump
 * past what the server of the backup can have told anybody. `position`: the highest in the backup.
 */
MUST_CHECK enum err apply_restored(struct store *store, struct id journal, uint64_t position);
