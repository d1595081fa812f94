/* Limits: the windows of orgs and keys, with the clock coming in.
 *
 * Thread: any; the locks are the table's.
 * Memory: the table is the caller's.
 * Errors: ERR_FULL refused and counted nowhere. */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "gate/gate.h"
#include "gate/window.h"

struct table;

struct gate_limits_request {
    const struct gate_identity *identity;
    uint64_t amount; /* requests or bytes */
    uint64_t now_ms; /* monotonic */
    bool is_bytes;
};

enum gate_limit_kind {
    GATE_LIMIT_ORG,
    GATE_LIMIT_KEY,
    GATE_LIMIT_ORG_BYTES,
    GATE_LIMIT_KEY_BYTES,
};

/* One limit and what it limits. */
struct gate_limit {
    const char *name;
    uint64_t quota; /* 0: no limit */
    uint64_t owner; /* number of the org or key */
    uint32_t window_s;
    enum gate_limit_kind kind;
};

/* The two limits that a request counts in. */
void gate_limits_of(const struct gate_limits_request *request, struct gate_limit *ret_key,
                    struct gate_limit *ret_org);
/* Of a window in its table. */
#define GATE_LIMIT_NAME_BYTES (sizeof(uint8_t) + sizeof(uint64_t))
struct slice gate_limit_name(const struct gate_limit *limit, uint8_t to[GATE_LIMIT_NAME_BYTES]);
/* *ret becomes this limit's state if it is tighter than what is there, or refuses. */
void gate_limit_note(const struct gate_limit *limit, const struct gate_window_verdict *verdict,
                     struct gate_window *ret);

struct table *gate_limits_create(void);
/* *ret: the tightest window, or the one that refuses. */
enum err gate_limits_take(struct table *windows, const struct gate_limits_request *request,
                          struct gate_window *ret);
/* Takes back what was counted; request->now_ms is when the first of it was. */
void gate_limits_give_back(struct table *windows, const struct gate_limits_request *request);
/* Requests a minute; 0: no limit. */
uint32_t gate_limits_of_tier(enum gate_tier tier);
