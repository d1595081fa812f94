/* Redis route: which Redis keeps which key, and the connections to them: one server, the master
 * that sentinels name, or the masters of a cluster.
 *
 * Thread: one owner; tend and follow may sleep.
 * Memory: links are the route's; a link that was given is good until the next tend, follow or drop.
 * Errors: tend says why something is not reachable: ERR_PERMISSION and ERR_CONFIG are for a person
 *         to mend, others may pass. */
#pragma once
#include "gate/redis_link.h"

#define GATE_REDIS_SLOTS 16384u

struct gate_redis_route;

MUST_CHECK enum err gate_redis_route_create(struct gate_redis_route **ret,
                                            const struct gate_redis_url *url,
                                            struct err_detail *detail);
/* NULL is fine. */
void gate_redis_route_destroy(struct gate_redis_route *route);

/* When tend is to be called next, monotonic. */
uint64_t gate_redis_route_due_ms(const struct gate_redis_route *route);
/* Connects what is not connected, asks who is master where that is in doubt, and looks whether
 * quiet connections still live. ERR_OK: all is there. */
MUST_CHECK enum err gate_redis_route_tend(struct gate_redis_route *route, uint32_t timeout_ms,
                                          struct err_detail *detail);
/* Where the key is kept; NULL: not connected now. Never sleeps. */
struct gate_redis_link *gate_redis_route_find(struct gate_redis_route *route, struct slice key);
/* After an error of the link: closes it and makes tend due. NULL is fine. */
void gate_redis_route_drop(struct gate_redis_route *route, struct gate_redis_link *link);
/* After "MOVED slot host:port" or "ASK slot host:port": where that is; NULL: out of reach. */
struct gate_redis_link *gate_redis_route_follow(struct gate_redis_route *route, struct slice error,
                                                uint64_t deadline_ms);
/* Whether some Redis may throw keys out when its memory is full. */
bool gate_redis_route_may_evict(const struct gate_redis_route *route);
/* Slot of a key in a cluster: CRC-16 (XMODEM) of what stands between its first braces. */
uint32_t gate_redis_slot(struct slice key);
