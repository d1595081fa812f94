/* Apply rig: a journal, a store and an applier in a directory of their own, with their real
 * threads; the test's thread is the loop that appends.
 *
 * Thread: the test's. results and position are written by the applier before it posts `applied`.
 * Memory: the rig owns everything.
 * Errors: what a test does not expect fails the test. */
#pragma once
#include "support/store_fixture.h"

#include "apply/apply.h"
#include "base/buffer.h"
#include "journal/journal.h"

#include <semaphore.h>
#include <stdatomic.h>

#define APPLY_RIG_RESULTS 4096u
#define APPLY_RIG_RUN     77u

struct apply_rig {
    struct store_fixture store;
    char journal_directory[96];
    char uploads_directory[96];
    char spill[96];
    struct journal *journal;
    struct thread *journal_threads[3];
    struct mailbox *mailbox;
    struct journal_producer *producer;
    struct journal_ticket *tickets;
    uint32_t ticket_count;
    uint32_t durable_count;
    uint64_t last_position;
    struct apply *apply;
    uint32_t appliers; /* 0: one without leases; counts from the next start */
    struct thread *apply_threads[8];
    enum record_form upload_form; /* EVENT_LINES */
    uint32_t retention_days;      /* 30; counts from the next start */
    sem_t applied;
    struct record_result results[APPLY_RIG_RESULTS]; /* by waiter */
    atomic_bool has_result[APPLY_RIG_RESULTS];       /* set after the result */
    atomic_uint_least64_t on_applied_calls;
    atomic_uint_least64_t position_seen;
};

/* Makes the directory and orgs 1 and 2, and opens everything; the applier is not started. */
void apply_rig_init(struct apply_rig *rig);
void apply_rig_finish(struct apply_rig *rig);
/* Opens what init opened (after close). */
void apply_rig_open(struct apply_rig *rig);
void apply_rig_close(struct apply_rig *rig);
/* Opens the applier, which no thread runs; the test closes it. */
void apply_rig_prepare(struct apply_rig *rig);
void apply_rig_start(struct apply_rig *rig);
/* Stops the applier and closes it. */
void apply_rig_stop(struct apply_rig *rig);

/* Appends a frame of one form and gives the bytes to the committer. */
void apply_rig_append(struct apply_rig *rig, enum record_form form, uint64_t org, const char *body,
                      uint32_t record_count, uint64_t waiter);
void apply_rig_append_bytes(struct apply_rig *rig, const struct record_frame *frame);
/* Until all that was appended is durable. */
void apply_rig_flush(struct apply_rig *rig);
/* An NDJSON upload of `lines`, cut into slices of slice_elements. Durable when it returns. */
struct id apply_rig_upload(struct apply_rig *rig, uint64_t org, struct slice lines,
                           uint32_t slice_elements, uint64_t waiter);
/* Until everything durable is applied. */
void apply_rig_wait(struct apply_rig *rig);
/* Until the waiter has its result. */
const struct record_result *apply_rig_result(struct apply_rig *rig, uint64_t waiter);
int64_t apply_rig_number(struct apply_rig *rig, const char *sql);
