/* Redis: asks the keeper of shared windows for leases, on a thread of its own.
 *
 * Thread: create, connect, stop, destroy: main. post, health: any. run: the thread's, and there
 *         every answer comes.
 * Memory: a fetch is the poster's until posted, then the thread's until on_done, which owns it.
 * Errors: post: ERR_FULL, ERR_CLOSED. on_done: ERR_AWAY and whatever else kept the answer from
 *         coming. */
#pragma once
#include "base/err.h"
#include "base/mailbox.h"
#include "base/slice.h"
#include "gate/lease.h"

#define GATE_REDIS_NAME_BYTES  96u
#define GATE_REDIS_WINDOWS_MAX 4u

struct gate_redis;

/* One window in one fetch. */
struct gate_redis_window {
    char name[GATE_REDIS_NAME_BYTES]; /* its key in Redis; all of a fetch share a {tag} */
    struct gate_window_rule rule;
    uint64_t charge;
    uint64_t ask;
    uint64_t give_back; /* taken out if this is the current bucket: */
    uint64_t bucket;
    struct gate_lease_answer answer; /* the thread's to fill */
};

struct gate_redis_fetch {
    struct mail mail; /* the thread's while posted */
    void (*on_done)(struct gate_redis_fetch *fetch, enum err err);
    uint32_t count; /* at least 1 */
    struct gate_redis_window windows[GATE_REDIS_WINDOWS_MAX];

    /* The thread's while posted. */
    struct gate_redis *redis;
    struct gate_redis_fetch *next;
};

MUST_CHECK enum err gate_redis_create(struct gate_redis **ret, struct slice url,
                                      struct err_detail *detail);
/* Once, before run: tries to connect. ERR_PERMISSION, ERR_CONFIG: a person must mend it; any other:
 * the thread goes on trying. */
MUST_CHECK enum err gate_redis_connect(struct gate_redis *redis, struct err_detail *detail);
void gate_redis_run(struct gate_redis *redis);
/* Whoever waits is answered, run returns. */
void gate_redis_stop(struct gate_redis *redis);
/* After the thread was joined. NULL is fine. */
void gate_redis_destroy(struct gate_redis *redis);

MUST_CHECK enum err gate_redis_post(struct gate_redis *redis, struct gate_redis_fetch *fetch);
/* ERR_OK, or what keeps it from Redis. */
enum err gate_redis_health(const struct gate_redis *redis);
