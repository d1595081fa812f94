/* Limits: windows of orgs and keys in one table, and the tiers.
 *
 * A request counts in two windows: its key's, then its org's. If the org's is full, the key's count
 * is taken back, so a refused request counts nowhere; nor do the bytes of a body that is refused
 * after they were counted. No two locks are held.
 *
 * Happy path: one or two upserts, a few dozen instructions under each lock.
 * Failure modes: more orgs and keys than LIMIT_WINDOWS within an hour: the least recently used
 * window is forgotten and starts anew. */
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/metrics.h"
#include "base/table.h"
#include "gate/gate_private.h"
#include "gate/limits.h"
#include "gate/shared.h"
#include "gate/window.h"

#define MINUTE_S 60u
#define HOUR_S   3600u
#define MS       1000u

struct tier_row {
    const char *text;
    uint32_t requests_per_minute;
};
static const struct tier_row tier_rows[GATE_TIER_COUNT] = {
#define X(name, text, requests) {text, requests},
    GATE_TIERS(X)
#undef X
};

bool gate_tier_from_text(struct slice text, enum gate_tier *ret)
{
    for (uint32_t i = 0; i < GATE_TIER_COUNT; i++) {
        if (slice_equal(text, slice_from_text(tier_rows[i].text))) {
            *ret = (enum gate_tier)i;
            return true;
        }
    }
    return false;
}

uint32_t gate_limits_of_tier(enum gate_tier tier)
{
    assert((uint32_t)tier < GATE_TIER_COUNT);
    return tier_rows[tier].requests_per_minute;
}

struct table *gate_limits_create(void)
{
    return table_create(LIMIT_WINDOWS, sizeof(struct gate_window_state));
}

struct limit_step {
    struct gate_window_rule rule;
    uint64_t amount;
    uint64_t now_ms;
    struct gate_window_verdict verdict;
};

static void limit_visit_step(void *value, void *context)
{
    struct limit_step *step = context;
    gate_window_step(value, &step->rule, step->amount, step->now_ms, &step->verdict);
}

static void limit_visit_refund(void *value, void *context)
{
    const struct gate_limits_request *request = context;
    gate_window_refund(value, request->amount, request->now_ms);
}

struct slice gate_limit_name(const struct gate_limit *limit, uint8_t to[GATE_LIMIT_NAME_BYTES])
{
    to[0] = (uint8_t)limit->kind;
    memcpy(to + 1, &limit->owner, sizeof(limit->owner));
    return slice_make(to, GATE_LIMIT_NAME_BYTES);
}

void gate_limit_note(const struct gate_limit *limit, const struct gate_window_verdict *verdict,
                     struct gate_window *ret)
{
    if (ret->quota != 0 && verdict->is_admitted && verdict->remaining >= ret->remaining) {
        return;
    }
    *ret = (struct gate_window){.name = limit->name,
                                .quota = limit->quota,
                                .remaining = verdict->remaining,
                                .window_s = limit->window_s,
                                .reset_s = (uint32_t)((verdict->wait_ms + MS - 1) / MS)};
    if (ret->reset_s == 0 && (ret->remaining == 0 || !verdict->is_admitted)) {
        ret->reset_s = 1;
    }
}

/* Whether the amount was counted. */
static bool limit_take(struct table *windows, const struct gate_limit *limit, uint64_t amount,
                       uint64_t now_ms, struct gate_window *ret)
{
    uint8_t name[GATE_LIMIT_NAME_BYTES];
    if (limit->quota == 0) {
        return true;
    }
    struct limit_step step = {
        .rule = {.quota = limit->quota, .length_ms = (uint64_t)limit->window_s * MS},
        .amount = amount,
        .now_ms = now_ms};
    table_upsert(windows, gate_limit_name(limit, name), limit_visit_step, &step);
    gate_limit_note(limit, &step.verdict, ret);
    return step.verdict.is_admitted;
}

static void limit_give_back(struct table *windows, const struct gate_limit *limit,
                            const struct gate_limits_request *request)
{
    uint8_t name[GATE_LIMIT_NAME_BYTES];
    struct gate_limits_request back = *request;
    if (limit->quota != 0) {
        (void)table_find(windows, gate_limit_name(limit, name), limit_visit_refund, &back);
    }
}

void gate_limits_of(const struct gate_limits_request *request, struct gate_limit *ret_key,
                    struct gate_limit *ret_org)
{
    const struct gate_identity *identity = request->identity;
    if (request->is_bytes) {
        *ret_key = (struct gate_limit){.name = "key-bytes",
                                       .quota = (uint64_t)identity->key_mb_per_hour << 20u,
                                       .owner = identity->key,
                                       .window_s = HOUR_S,
                                       .kind = GATE_LIMIT_KEY_BYTES};
        *ret_org = (struct gate_limit){.name = "org-bytes",
                                       .quota = (uint64_t)identity->mb_per_hour << 20u,
                                       .owner = identity->org,
                                       .window_s = HOUR_S,
                                       .kind = GATE_LIMIT_ORG_BYTES};
        return;
    }
    *ret_key = (struct gate_limit){.name = "key",
                                   .quota = identity->key_requests_per_minute,
                                   .owner = identity->key,
                                   .window_s = MINUTE_S,
                                   .kind = GATE_LIMIT_KEY};
    *ret_org = (struct gate_limit){.name = "org",
                                   .quota = identity->requests_per_minute,
                                   .owner = identity->org,
                                   .window_s = MINUTE_S,
                                   .kind = GATE_LIMIT_ORG};
}

enum err gate_limits_take(struct table *windows, const struct gate_limits_request *request,
                          struct gate_window *ret)
{
    struct gate_limit key;
    struct gate_limit org;
    gate_limits_of(request, &key, &org);
    struct gate_window tightest = {.name = org.name, .window_s = org.window_s};
    bool is_admitted = limit_take(windows, &key, request->amount, request->now_ms, &tightest);
    if (is_admitted) {
        is_admitted = limit_take(windows, &org, request->amount, request->now_ms, &tightest);
        if (!is_admitted) {
            limit_give_back(windows, &key, request);
        }
    }
    *ret = tightest;
    return is_admitted ? ERR_OK : ERR_FULL;
}

void gate_limits_give_back(struct table *windows, const struct gate_limits_request *request)
{
    struct gate_limit key;
    struct gate_limit org;
    gate_limits_of(request, &key, &org);
    limit_give_back(windows, &key, request);
    limit_give_back(windows, &org, request);
}

static enum err limit_count(struct gate *gate, const struct gate_limits_request *request,
                            struct gate_window *ret)
{
    enum err err = gate->shared == NULL ? gate_limits_take(gate->windows, request, ret)
                                        : gate_shared_take(gate->shared, request, ret);
    if (err != ERR_OK) {
        metrics_add(request->is_bytes ? METRIC_LIMITED_BYTES : METRIC_LIMITED_REQUESTS, 1);
    }
    return err;
}

enum err gate_limit_request(struct gate *gate, const struct gate_identity *identity,
                            struct gate_window *ret)
{
    if (identity->requests_per_minute == 0 && identity->key_requests_per_minute == 0) {
        *ret = (struct gate_window){.name = "org", .window_s = MINUTE_S};
        return ERR_OK;
    }
    uint64_t started_ns = clock_mono_ns();
    struct gate_limits_request request = {
        .identity = identity, .amount = 1, .now_ms = started_ns / 1000000u};
    enum err err = limit_count(gate, &request, ret);
    metrics_observe(METRIC_RATE_LIMIT_LATENCY, clock_mono_ns() - started_ns);
    return err;
}

enum err gate_limit_bytes(struct gate *gate, const struct gate_identity *identity, uint64_t bytes,
                          struct gate_window *ret)
{
    struct gate_limits_request request = {
        .identity = identity, .amount = bytes, .now_ms = clock_mono_ms(), .is_bytes = true};
    return limit_count(gate, &request, ret);
}

void gate_limit_bytes_back(struct gate *gate, const struct gate_identity *identity, uint64_t bytes,
                           uint64_t since_ms)
{
    struct gate_limits_request request = {
        .identity = identity, .amount = bytes, .now_ms = since_ms, .is_bytes = true};
    if (gate->shared == NULL) {
        gate_limits_give_back(gate->windows, &request);
    } else {
        gate_shared_give_back(gate->shared, &request, clock_mono_ms());
    }
}
