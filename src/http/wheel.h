/* Wheel: deadlines of many connections, cheap to move.
 *
 * Thread: one loop's.
 * Memory: a timer lives in what it times; unlink it before that is freed.
 * Errors: none. A deadline is met at most one tick late. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

#define HTTP_WHEEL_SLOTS   1024u
#define HTTP_WHEEL_TICK_MS 32u
#define HTTP_NO_DEADLINE   UINT64_MAX

struct http_timer {
    struct list_link link;
    uint64_t deadline_ms;
    uint64_t seen_ms; /* when its slot is looked at; at most the deadline's tick */
    bool of_request;  /* set by its owner: it lies in a request, not in a connection */
};

struct http_wheel {
    struct list slots[HTTP_WHEEL_SLOTS];
    uint64_t used[HTTP_WHEEL_SLOTS / 64]; /* a bit for each slot that may hold a timer */
    uint64_t tick;                        /* the last one looked at */
};

void http_wheel_init(struct http_wheel *wheel, uint64_t now_ms);
/* Moves the deadline; HTTP_NO_DEADLINE stops it. */
void http_wheel_set(struct http_wheel *wheel, struct http_timer *timer, uint64_t deadline_ms);
void http_wheel_remove(struct http_timer *timer);
/* Unlinks and gives a timer that is due; NULL: none is, until time moves on. */
struct http_timer *http_wheel_take_due(struct http_wheel *wheel, uint64_t now_ms);
/* Milliseconds to the next look, -1 when no timer is linked. */
int http_wheel_wait_ms(const struct http_wheel *wheel, uint64_t now_ms);
