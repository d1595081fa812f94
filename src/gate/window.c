/* Window: the sliding window counter in its two-bucket form.
 *
 *        previous              current
 *   |----------------|------------.-----|        now = start + fraction * length
 *                      fraction
 *   used = current + previous * (1 - fraction)
 *
 * The estimate takes the previous bucket's requests as evenly spread over it. Buckets are not
 * aligned to the clock: one that begins after a pause begins with its first request.
 *
 * Bound. With quota q, at most p <= q are in a bucket. Anything admitted at fraction f of the next
 * one leaves current <= q - p * (1 - f). A window of one length that ends there has at most
 * p + current <= q + p * f: the error is at most p * f, 0 when traffic is even, below q always. So
 * no window ever holds 2 * q, and none that lies in one bucket more than q. It costs 24 bytes and
 * the same few instructions for every rate; an exact log would cost 8 bytes for every request.
 *
 * Happy path: roll to now, estimate, compare, add.
 * Failure modes: a clock that is a little behind another thread's (the state is then taken as of
 * its own start); a quota lowered meanwhile (the estimate may exceed it: nothing is admitted until
 * it has run out). */
#include "gate/window.h"

#include <assert.h>

#define WINDOW_SCALE 4096u /* fractions of a window are counted in these */

static_assert(GATE_WINDOW_QUOTA_MAX <= UINT64_MAX / WINDOW_SCALE, "products fit 64 bits");

static void window_roll(struct gate_window_state *state, uint64_t length_ms, uint64_t now_ms)
{
    uint64_t age_ms = now_ms > state->start_ms ? now_ms - state->start_ms : 0;
    if (age_ms >= length_ms) {
        state->previous = age_ms < 2 * length_ms ? state->current : 0;
        state->current = 0;
        state->start_ms += length_ms;
    }
    if (state->previous == 0 && state->current == 0) {
        state->start_ms = now_ms;
    }
}

/* Part of the previous bucket that the window still covers, in WINDOW_SCALE, rounded up. */
static uint64_t window_weight(const struct gate_window_state *state, uint64_t length_ms,
                              uint64_t now_ms)
{
    uint64_t age_ms = now_ms > state->start_ms ? now_ms - state->start_ms : 0;
    assert(age_ms < length_ms);
    return ((length_ms - age_ms) * WINDOW_SCALE + length_ms - 1) / length_ms;
}

static uint64_t window_used(const struct gate_window_state *state, uint64_t weight)
{
    return state->current + (state->previous * weight + WINDOW_SCALE - 1) / WINDOW_SCALE;
}

/* Age at which a bucket that holds `count` and fades out over length_ms has faded to `room`. */
static uint64_t fade_ms(uint64_t count, uint64_t room, uint64_t length_ms)
{
    if (room >= count) {
        return 0;
    }
    uint64_t weight = room * WINDOW_SCALE / count; /* the largest that leaves no more than room */
    uint64_t left_ms = weight * length_ms / WINDOW_SCALE;
    return length_ms - left_ms;
}

/* From now until `amount` fits, if nothing else comes. */
static uint64_t window_wait_ms(const struct gate_window_state *state,
                               const struct gate_window_rule *rule, uint64_t amount,
                               uint64_t now_ms)
{
    uint64_t age_ms = now_ms > state->start_ms ? now_ms - state->start_ms : 0;
    if (amount > rule->quota) {
        return rule->length_ms;
    }
    uint64_t room = rule->quota - amount;
    uint64_t at_ms = 0;
    if (room >= state->current) {
        at_ms = fade_ms(state->previous, room - state->current, rule->length_ms);
    } else {
        at_ms = rule->length_ms + fade_ms(state->current, room, rule->length_ms);
    }
    return at_ms > age_ms ? at_ms - age_ms : 0;
}

void gate_window_step(struct gate_window_state *state, const struct gate_window_rule *rule,
                      uint64_t amount, uint64_t now_ms, struct gate_window_verdict *ret)
{
    assert(rule->quota > 0 && rule->quota <= GATE_WINDOW_QUOTA_MAX && rule->length_ms > 0);
    window_roll(state, rule->length_ms, now_ms);
    uint64_t used = window_used(state, window_weight(state, rule->length_ms, now_ms));
    uint64_t free = used < rule->quota ? rule->quota - used : 0;
    ret->is_admitted = amount <= free;
    if (ret->is_admitted) {
        state->current += amount;
        free -= amount;
    }
    ret->remaining = free;
    uint64_t awaited = ret->is_admitted ? free + 1 : amount;
    bool is_unused = ret->is_admitted && free == rule->quota;
    ret->wait_ms = is_unused ? 0 : window_wait_ms(state, rule, awaited, now_ms);
}

void gate_window_refund(struct gate_window_state *state, uint64_t amount, uint64_t since_ms)
{
    if (since_ms >= state->start_ms || state->previous == 0) {
        state->current -= amount < state->current ? amount : state->current;
    }
}
