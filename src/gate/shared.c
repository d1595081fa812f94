/* Shared.
 *
 * A table of leases in place of the table of windows; what a lease asks for goes to the thread that
 * speaks with Redis, and that thread puts the answer into the table. So loops and thread meet in
 * the mailbox and in the table, and nowhere else.
 *
 *   loop: step of the key's lease, step of the org's --> verdict
 *           '--must_ask--> one fetch for both --> Redis --> on_done: both leases
 *                                               ^              '--must_ask--.
 *                                               '---- one fetch for both <--'
 *
 * Happy path: two upserts, as the local limits.
 * Failure modes: the thread's mailbox is full or closed: as if Redis were away. A lease that the
 * table forgot while it was asked for is lost, with its credit. */
#include "gate/shared.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/table.h"
#include "gate/lease.h"
#include "gate/redis.h"

#define MS 1000u

struct gate_shared {
    struct table *leases;
    struct gate_redis *redis;
};

/* A fetch with what its answer is for. */
struct shared_fetch {
    struct gate_redis_fetch fetch;
    struct gate_shared *shared;
    struct gate_limit limits[GATE_REDIS_WINDOWS_MAX];
};

static_assert(offsetof(struct shared_fetch, fetch) == 0, "a fetch is its first member");

/* --- answers, on the thread of Redis -------------------------------------------------------- */

struct settle {
    const struct gate_redis_window *window; /* NULL: no answer came */
    uint64_t now_ms;
    struct gate_lease_verdict verdict;
};

static void lease_visit_settle(void *value, void *context)
{
    struct settle *settle = context;
    if (settle->window == NULL) {
        gate_lease_on_failure(value, settle->now_ms);
    } else {
        gate_lease_on_answer(value, &settle->window->rule, &settle->window->answer, settle->now_ms,
                             &settle->verdict);
    }
}

static void fetch_on_done(struct gate_redis_fetch *fetch, enum err err);

/* A window of one fetch; the fetch is made with its first. */
static struct gate_redis_window *fetch_add(struct gate_shared *shared,
                                           const struct gate_limit *limit,
                                           const struct gate_lease_verdict *verdict,
                                           struct shared_fetch **fetch)
{
    if (*fetch == NULL) {
        *fetch = mem_alloc(sizeof(**fetch));
        (*fetch)->shared = shared;
        (*fetch)->fetch.on_done = fetch_on_done;
    }
    uint32_t index = (*fetch)->fetch.count++;
    struct gate_redis_window *window = &(*fetch)->fetch.windows[index];
    (*fetch)->limits[index] = *limit;
    window->charge = verdict->charge;
    window->ask = verdict->ask;
    window->give_back = verdict->give_back;
    window->bucket = verdict->bucket;
    return window;
}

static void fetch_post(struct shared_fetch *fetch)
{
    if (fetch != NULL && gate_redis_post(fetch->shared->redis, &fetch->fetch) != ERR_OK) {
        fetch_on_done(&fetch->fetch, ERR_FULL);
    }
}

static void fetch_on_done(struct gate_redis_fetch *fetch, enum err err)
{
    struct shared_fetch *self = (struct shared_fetch *)(void *)fetch;
    struct shared_fetch *again = NULL;
    uint8_t name[GATE_LIMIT_NAME_BYTES];
    for (uint32_t i = 0; i < fetch->count; i++) {
        struct settle settle = {.window = err == ERR_OK ? &fetch->windows[i] : NULL,
                                .now_ms = clock_mono_ms() + GATE_LEASE_CLOCK_MS};
        (void)table_find(self->shared->leases, gate_limit_name(&self->limits[i], name),
                         lease_visit_settle, &settle);
        if (settle.verdict.must_ask) {
            struct gate_redis_window *window =
                fetch_add(self->shared, &self->limits[i], &settle.verdict, &again);
            window->rule = fetch->windows[i].rule;
            memcpy(window->name, fetch->windows[i].name, sizeof(window->name));
        }
    }
    mem_free(self);
    fetch_post(again);
}

/* --- requests ------------------------------------------------------------------------------- */

struct take {
    struct gate_window_rule rule;
    uint64_t amount;
    uint64_t now_ms;
    struct gate_lease_verdict verdict;
};

static void lease_visit_step(void *value, void *context)
{
    struct take *take = context;
    gate_lease_step(value, &take->rule, take->amount, take->now_ms, &take->verdict);
}

struct take_back {
    struct take take;
    struct gate_lease_refund refund;
};

static void lease_visit_take_back(void *value, void *context)
{
    struct take_back *back = context;
    gate_lease_take_back(value, &back->take.rule, &back->refund, &back->take.verdict);
}

/* Adds what a lease asks for to the request's fetch. */
static void request_add(struct gate_shared *shared, const struct gate_limits_request *request,
                        const struct gate_limit *limit, const struct take *take,
                        struct shared_fetch **fetch)
{
    char org[ID_TEXT_BYTES];
    struct gate_redis_window *window = fetch_add(shared, limit, &take->verdict, fetch);
    window->rule = take->rule;
    id_format(request->identity->org_id, org);
    (void)snprintf(window->name, sizeof(window->name), "weir:{%.*s}:%s:%llu", (int)sizeof(org), org,
                   limit->name, (unsigned long long)limit->owner);
}

static struct take take_of(const struct gate_limits_request *request,
                           const struct gate_limit *limit)
{
    uint64_t quota = limit->quota;
    return (struct take){.rule = {.quota = quota, .length_ms = (uint64_t)limit->window_s * MS},
                         .amount = request->amount,
                         .now_ms = request->now_ms + GATE_LEASE_CLOCK_MS};
}

/* Whether the amount was counted. */
static bool shared_take(struct gate_shared *shared, const struct gate_limits_request *request,
                        const struct gate_limit *limit, struct shared_fetch **fetch,
                        struct gate_window *ret)
{
    uint8_t name[GATE_LIMIT_NAME_BYTES];
    if (limit->quota == 0) {
        return true;
    }
    struct take take = take_of(request, limit);
    table_upsert(shared->leases, gate_limit_name(limit, name), lease_visit_step, &take);
    if (take.verdict.must_ask) {
        request_add(shared, request, limit, &take, fetch);
    }
    gate_limit_note(limit, &take.verdict.window, ret);
    return take.verdict.window.is_admitted;
}

static void shared_give_back(struct gate_shared *shared, const struct gate_limits_request *request,
                             const struct gate_limit *limit, uint64_t now_ms,
                             struct shared_fetch **fetch)
{
    uint8_t name[GATE_LIMIT_NAME_BYTES];
    struct take_back back = {.take = take_of(request, limit)};
    if (limit->quota == 0) {
        return;
    }
    back.refund = (struct gate_lease_refund){.amount = request->amount,
                                             .since_ms = back.take.now_ms,
                                             .now_ms = now_ms + GATE_LEASE_CLOCK_MS};
    (void)table_find(shared->leases, gate_limit_name(limit, name), lease_visit_take_back, &back);
    if (back.take.verdict.must_ask) {
        request_add(shared, request, limit, &back.take, fetch);
    }
}

void gate_shared_give_back(struct gate_shared *shared, const struct gate_limits_request *request,
                           uint64_t now_ms)
{
    struct gate_limit key;
    struct gate_limit org;
    struct shared_fetch *fetch = NULL;
    gate_limits_of(request, &key, &org);
    shared_give_back(shared, request, &key, now_ms, &fetch);
    shared_give_back(shared, request, &org, now_ms, &fetch);
    fetch_post(fetch);
}

enum err gate_shared_take(struct gate_shared *shared, const struct gate_limits_request *request,
                          struct gate_window *ret)
{
    struct gate_limit key;
    struct gate_limit org;
    struct shared_fetch *fetch = NULL;
    gate_limits_of(request, &key, &org);
    struct gate_window tightest = {.name = org.name, .window_s = org.window_s};
    bool is_admitted = shared_take(shared, request, &key, &fetch, &tightest);
    if (is_admitted) {
        is_admitted = shared_take(shared, request, &org, &fetch, &tightest);
        if (!is_admitted) {
            shared_give_back(shared, request, &key, request->now_ms, &fetch);
        }
    }
    fetch_post(fetch);
    *ret = tightest;
    return is_admitted ? ERR_OK : ERR_FULL;
}

/* --- opening and closing -------------------------------------------------------------------- */

enum err gate_shared_create(struct gate_shared **ret, struct slice url, struct err_detail *detail)
{
    struct gate_shared *shared = mem_alloc(sizeof(*shared));
    enum err err = gate_redis_create(&shared->redis, url, detail);
    if (err == ERR_OK) {
        shared->leases = table_create(LIMIT_WINDOWS, sizeof(struct gate_lease));
        *ret = shared;
        shared = NULL;
    }
    gate_shared_destroy(shared);
    return err;
}

enum err gate_shared_connect(struct gate_shared *shared, struct err_detail *detail)
{
    return gate_redis_connect(shared->redis, detail);
}

void gate_shared_run(struct gate_shared *shared)
{
    gate_redis_run(shared->redis);
}

void gate_shared_stop(struct gate_shared *shared)
{
    gate_redis_stop(shared->redis);
}

enum err gate_shared_health(const struct gate_shared *shared)
{
    return gate_redis_health(shared->redis);
}

void gate_shared_destroy(struct gate_shared *shared)
{
    if (shared == NULL) {
        return;
    }
    gate_redis_destroy(shared->redis);
    table_destroy(shared->leases);
    mem_free(shared);
}
