/* Lane: which of the 64 orders a key belongs to.
 *
 * The number is written into frames and must be the same in every run and on every node, so the
 * hash has no random key. Somebody who picks keys of one lane slows down only himself: the org is
 * the seed, so another org's keys are spread differently. */
#include "base/hash.h"
#include "record/record.h"

#include <assert.h>

static_assert((LIMIT_LANES & (LIMIT_LANES - 1)) == 0, "lanes are masked out of a hash");
static_assert(LIMIT_LANES <= RECORD_LANE_MIXED, "a lane has one byte");

uint8_t record_lane(uint64_t org, struct slice key)
{
    return (uint8_t)(hash_xxh3(key.data, key.size, org) & (LIMIT_LANES - 1));
}

uint8_t record_event_lane(uint64_t org, const struct record_event *event)
{
    struct slice key = event->subject.data != NULL
                           ? event->subject
                           : slice_make(event->id.bytes, sizeof(event->id.bytes));
    return record_lane(org, key);
}
