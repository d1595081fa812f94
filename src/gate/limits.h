/* Limits: the windows of orgs and keys, with the clock coming in.
 *
 * Thread: any; the locks are the table's.
 * Memory: the table is the caller's.
 * Errors: ERR_FULL refused and counted nowhere. */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "gate/gate.h"

struct table;

struct gate_limits_request {
    const struct gate_identity *identity;
    uint64_t amount; /* requests or bytes */
    uint64_t now_ms; /* monotonic */
    bool is_bytes;
};

struct table *gate_limits_create(void);
/* *ret: the tightest window, or the one that refuses. */
enum err gate_limits_take(struct table *windows, const struct gate_limits_request *request,
                          struct gate_window *ret);
/* Requests a minute; 0: no limit. */
uint32_t gate_limits_of_tier(enum gate_tier tier);
