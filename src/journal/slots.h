/* Slots: how many uploads there may be at once, of all orgs and of one. Bytes are bounded by the
 * room; these bounds stand where memory follows the number.
 *
 *   active: begun and not answered: each has a block that fills, blocks on the way, a reader
 *   open:   begun, or accepted and not wholly applied: each is known to the applier
 *
 * Thread: any. The sums are atomics, counts for their own sake (relaxed); what orgs hold stands in
 *         a base/table.
 * Memory: the owner embeds it.
 * Errors: begin gives ERR_FULL (open ones) or ERR_BUSY (active ones), and then holds nothing. */
#pragma once
#include "base/err.h"

#include <stdatomic.h>
#include <stdint.h>

#define SLOTS_ACTIVE_MAX 64u
#define SLOTS_OPEN_MAX   16384u

struct table;

struct journal_slots {
    struct table *orgs; /* org -> what it holds */
    atomic_uint_fast32_t active;
    atomic_uint_fast32_t open;
};

void journal_slots_init(struct journal_slots *slots);
void journal_slots_finish(struct journal_slots *slots);
MUST_CHECK enum err journal_slots_begin(struct journal_slots *slots, uint64_t org);
/* What begin would say now. */
enum err journal_slots_look(struct journal_slots *slots, uint64_t org);
/* A begun one was answered: it is not in the loop's memory any more. */
void journal_slots_leave(struct journal_slots *slots, uint64_t org);
/* It is wholly applied, or was given up. */
void journal_slots_close(struct journal_slots *slots, uint64_t org);
/* One that an earlier run accepted, whatever the bounds say. */
void journal_slots_force(struct journal_slots *slots, uint64_t org);
