/* Segments: a range of sequences cut into stretches that are acknowledged and stretches that are
 * not.
 *
 * Thread, memory: inside a store job; a value.
 * Errors: the store's. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct store_connection;

struct query_segments {
    struct store_connection *connection;
    uint64_t first; /* what is left, both ends included; empty when first > last */
    uint64_t last;
    bool oldest_first;
};
struct query_segment {
    uint64_t first;
    uint64_t last;
    bool acknowledged;
};
/* The next stretch in the order asked for; *ret_has false: none is left. */
MUST_CHECK enum err query_segments_next(struct query_segments *segments, struct query_segment *ret,
                                        bool *ret_has);
/* Moves the end at which a walk begins to the first sequence that there is an event for: a restore
 * leaves gaps of billions. Empty (first > last) when there is none. */
MUST_CHECK enum err query_segment_trim(struct store_connection *connection, bool oldest_first,
                                       struct query_segment *segment);
/* The acknowledged range that begins at or before `sequence`, of all of them the last; *ret_has
 * false when there is none. */
MUST_CHECK enum err query_ack_range_before(struct store_connection *connection, uint64_t sequence,
                                           uint64_t *ret_first, uint64_t *ret_last, bool *ret_has);
/* Whether a single sequence is acknowledged. */
MUST_CHECK enum err query_is_acknowledged(struct store_connection *connection, uint64_t sequence,
                                          bool *ret);
