/* Waiters: slots in which the store's results come back.
 *
 * Thread: take and give: the loop's. The result of a slot is written by who answers it, once,
 *         between take and give.
 * Memory: mapped once, touched as slots are used. A slot holds its mail and its result, so
 * answering cannot fail. Errors: take gives RECORD_WAITER_NONE when all are in use. */
#pragma once
#include <stdint.h>

#include "base/mailbox.h"
#include "record/record.h"

struct intake;
struct intake_request;

struct intake_slot {
    struct mail mail;
    struct intake *intake;
    struct intake_request *request; /* NULL while free, and when nobody waits any more */
    uint64_t waiter;                /* its name; each use has another */
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
void intake_waiters_give(struct intake_waiters *waiters, uint64_t waiter);
/* Nobody waits any more, and the result may still come: who takes it gives the slot back. */
void intake_waiters_abandon(struct intake_waiters *waiters, uint64_t waiter);
/* NULL for a number that no slot has. */
struct intake_slot *intake_waiters_find(struct intake_waiters *waiters, uint64_t waiter);
