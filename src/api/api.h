/* Api: one file per resource; the table of routes; the only place that knows http and the stages at
 * once. Thin: it finds who asks, hands the body to intake or a job to the store, and writes
 * answers.
 *
 * Thread: open, close: main. The handler's callbacks: loops. on_applied, on_result: any thread.
 * Memory: per request in http's arena; jobs come from the request's state.
 * Errors: mapped to problem+json here, in one table. */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "http/http.h"
#include "record/record.h"

struct api;
struct apply;
struct gate;
struct journal;
struct store;

enum api_role {
    API_ROLE_INTAKE = 1, /* takes records */
    API_ROLE_APPLY = 2,
    API_ROLE_QUERY = 4, /* is sent questions; any node answers those that it is sent */
};

struct api_options {
    struct store *store;
    struct gate *gate;
    struct journal *journal;
    uint32_t loops;
    uint64_t run;               /* random number of this process */
    uint64_t payload_bytes_max; /* MAX_PAYLOAD_SIZE_MB; 0: no limit */
    uint64_t payload_warning_bytes;
    uint32_t processing_timeout_ms; /* of an explicit wait=stored */
    uint64_t intake_pool_bytes;     /* per loop */
    bool open_signup;
    uint64_t journal_bytes_max; /* for the queue's capacity */
    bool metrics_moved;         /* /metrics has a port of its own and is 404 here */
    uint32_t roles;             /* enum api_role, a set: what this node does */
    const char *durability;     /* what a journal's word means, for answers; constant text */
};

MUST_CHECK enum err api_open(struct api **ret, const struct api_options *options,
                             struct err_detail *detail);
/* For http_options. The owner to give is the api itself. */
const struct http_handler *api_handler(void);
const struct http_route *api_routes(uint32_t *ret_count);
/* "METHOD pattern operationId", a line each. */
MUST_CHECK enum err api_print_routes(struct buffer *to);
/* For a server of its own, one loop, on the metrics port; the owner is the api. */
const struct http_handler *api_metrics_handler(void);
const struct http_route *api_metrics_routes(uint32_t *ret_count);
/* Once the stages behind it run: ready may turn 200. `server` and `apply` are known only now; the
 * loops learn them by mail, so their threads may run before or after. */
void api_start(struct api *api, struct http_server *server, struct apply *apply);
/* For apply_options; the owner is the api. */
void api_on_result(void *owner, uint64_t waiter, const struct record_result *result);
void api_on_applied(void *owner, uint64_t position, const uint64_t *orgs, uint32_t org_count);
/* Another node has applied its journal up to there; orgs NULL: any may have changed. */
void api_on_applied_elsewhere(void *owner, uint64_t position, const uint64_t *orgs,
                              uint32_t org_count);
/* After every thread was joined and before the journal and the server are closed. NULL is fine. */
void api_close(struct api *api);
