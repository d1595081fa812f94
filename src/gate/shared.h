/* Shared: the windows of orgs and keys, counted by many nodes together.
 *
 * Thread: take: any. create, connect, stop, destroy: main. run: a thread of its own.
 * Memory: the identity of a request is copied.
 * Errors: as the local limits; ERR_FULL refused and counted nowhere. */
#pragma once
#include "base/err.h"
#include "base/slice.h"
#include "gate/limits.h"

struct gate_shared;

MUST_CHECK enum err gate_shared_create(struct gate_shared **ret, struct slice url,
                                       struct err_detail *detail);
/* Once, before run. ERR_PERMISSION, ERR_CONFIG: a person must mend it; others may pass. */
MUST_CHECK enum err gate_shared_connect(struct gate_shared *shared, struct err_detail *detail);
void gate_shared_run(struct gate_shared *shared);
void gate_shared_stop(struct gate_shared *shared);
/* NULL is fine. */
void gate_shared_destroy(struct gate_shared *shared);
enum err gate_shared_health(const struct gate_shared *shared);

/* As gate_limits_take. Never waits. */
enum err gate_shared_take(struct gate_shared *shared, const struct gate_limits_request *request,
                          struct gate_window *ret);
/* As gate_limits_give_back. */
void gate_shared_give_back(struct gate_shared *shared, const struct gate_limits_request *request,
                           uint64_t now_ms);
