/* Recent, private: what the intake asks of the recent ids.
 *
 * Thread: any.
 * Memory: marks are values.
 * Errors: none: a mark that was lost is a hint less. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/id.h"

struct intake_recent;

/* Only ids made of a dedup_id can come twice. */
static inline bool intake_id_can_repeat(struct id id)
{
    return id.bytes[6] >> 4 == 8;
}
/* What is kept of an id: 64 bits of its hash, never 0. */
uint64_t intake_recent_mark(struct id id);
bool intake_recent_has(struct intake_recent *recent, uint64_t mark);
/* The mark is soon asked for: what that takes is fetched meanwhile. */
void intake_recent_call(struct intake_recent *recent, uint64_t mark);
void intake_recent_add(struct intake_recent *recent, uint64_t mark);
