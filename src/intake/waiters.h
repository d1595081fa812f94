/* Waiters: slots in which the store's results come back.
 *
 * Thread: claim: any. All else: the loop's. Result and mail of a slot belong to who claimed it,
 *         until the mail has run.
 * Memory: mapped once, touched as slots are used. A slot holds its mail and its result, so
 *         answering cannot fail.
 * Errors: take gives RECORD_WAITER_NONE when all are in use. */
#pragma once
#include <stdatomic.h>
#include <stdint.h>

#include "base/mailbox.h"
#include "record/record.h"

struct intake;
struct intake_request;

struct intake_slot {
    struct mail mail;
    struct intake *intake;
    struct intake_request *request; /* NULL while free, and when nobody waits any more */
    /* Its name while a result may come; each use has another. Whoever exchanges it for
     * RECORD_WAITER_NONE first has the slot: the result (claim), or the loop (abandon). */
    atomic_uint_fast64_t waiter;
    uint32_t uses;
    uint32_t next_free;
    struct record_result result;
};

struct intake_waiters {
    struct intake_slot *slots;
    uint32_t count;
    uint32_t used_before; /* slots from here on were never in use */
    uint32_t free_first;  /* number + 1; 0: none */
    uint32_t loop_index;
};

void intake_waiters_init(struct intake_waiters *waiters, uint32_t count, uint32_t loop_index);
void intake_waiters_finish(struct intake_waiters *waiters);
uint64_t intake_waiters_take(struct intake_waiters *waiters, struct intake *intake,
                             struct intake_request *request);
/* Of a frame that was never durable, or whose result has come. */
void intake_waiters_give(struct intake_waiters *waiters, uint64_t waiter);
/* As give, of a slot whose mail has run. */
void intake_waiters_free(struct intake_waiters *waiters, struct intake_slot *slot);
/* Nobody waits any more: the slot is free at once, unless its result is on the way: then whoever
 * takes that gives it back. */
void intake_waiters_abandon(struct intake_waiters *waiters, uint64_t waiter);
/* The slot, for its result; NULL when nobody waits. */
struct intake_slot *intake_waiters_claim(struct intake_waiters *waiters, uint64_t waiter);
