/* Window: how many in any hour or minute, by two numbers. Pure: the clock comes in.
 *
 * Thread: the state's owner (here: whoever holds the lock of its table stripe).
 * Memory: values.
 * Errors: a verdict, never enum err. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* Quotas above this are taken as this, so that the products below fit 64 bits. */
#define GATE_WINDOW_QUOTA_MAX ((1ull << 52u) - 1u)

/* All zero is a window in which nothing has happened. */
struct gate_window_state {
    uint64_t start_ms; /* of the current bucket, monotonic */
    uint64_t current;
    uint64_t previous;
};

struct gate_window_rule {
    uint64_t quota;     /* at least 1 */
    uint64_t length_ms; /* at least 1 */
};

struct gate_window_verdict {
    bool is_admitted;
    uint64_t remaining; /* after this step */
    uint64_t wait_ms;   /* until the refused amount fits (one length when it never does), or else
                           until `remaining` has grown; 0 when nothing is used */
};

/* Counts `amount` if it fits. now_ms may lie a little before an earlier call's. */
void gate_window_step(struct gate_window_state *state, const struct gate_window_rule *rule,
                      uint64_t amount, uint64_t now_ms, struct gate_window_verdict *ret);
/* Takes back what earlier steps counted, the first of them at since_ms. What was counted in the
 * bucket before stays: which part of it has faded by now is not known. */
void gate_window_refund(struct gate_window_state *state, uint64_t amount, uint64_t since_ms);
