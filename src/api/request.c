/* Request: the common way of every request, from its head to its handler.
 *
 * Happy path: a key in the query string is refused; the key of the head is checked by the gate (a
 * hit in its cache answers at once, else the request waits without its body being read); the scope;
 * the limits; `wait_for`; then the handler, for documents after the body.
 * Failure modes: each step answers by itself and the rest is not run. The peer goes away while
 * another thread works: the state stays until what is under way is back, and is then dropped. */
#include "api/reply.h"

#include "api/handlers.h"
#include "api/parameters.h"
#include "api/records.h"
#include "apply/apply.h"
#include "base/limits.h"
#include "base/metrics.h"

#include <assert.h>
#include <sodium.h>

static const char *const api_key_names[] = {
    "key",       "api_key",      "apikey", "api-key",  "x-api-key",
    "write_key", "access_token", "token",  "writekey", "authorization",
};

/* A key in a query string ends up in logs and histories, so it is refused even when it is right. */
static bool api_has_key_in_query(const struct http_request *http)
{
    struct slice name = {NULL, 0};
    struct slice value = {NULL, 0};
    struct slice rest = http_request_query_begin(http);
    while (http_request_query_next(http, &rest, &name, &value)) {
        if (slice_starts_with(value, SLICE_LITERAL("weir_"))) {
            return true;
        }
        for (size_t i = 0; i < sizeof(api_key_names) / sizeof(api_key_names[0]); i++) {
            if (slice_equal_nocase(name, slice_from_text(api_key_names[i]))) {
                return true;
            }
        }
    }
    return false;
}

/* Basic: the key is the user name. */
static struct slice api_basic_key(struct slice encoded, uint8_t to[API_KEY_TEXT_MAX])
{
    size_t size = 0;
    if (sodium_base642bin(to, API_KEY_TEXT_MAX, (const char *)encoded.data, encoded.size, NULL,
                          &size, NULL, sodium_base64_VARIANT_ORIGINAL) != 0) {
        return slice_make(to, 0);
    }
    struct slice decoded = slice_make(to, size);
    return slice_part(decoded, 0, slice_find(decoded, ':'));
}

struct slice api_request_key(const struct http_request *http, uint8_t to[API_KEY_TEXT_MAX])
{
    struct slice header = http_request_header(http, "X-API-Key");
    if (header.data != NULL) {
        return slice_trim(header);
    }
    header = slice_trim(http_request_header(http, "Authorization"));
    if (header.data == NULL) {
        return (struct slice){NULL, 0};
    }
    struct slice rest = {NULL, 0};
    struct slice scheme = slice_cut(header, ' ', &rest);
    rest = slice_trim(rest);
    if (slice_equal_nocase(scheme, SLICE_LITERAL("Bearer"))) {
        return rest;
    }
    if (slice_equal_nocase(scheme, SLICE_LITERAL("Basic")) && rest.size > 0) {
        return api_basic_key(rest, to);
    }
    return slice_make(to, 0); /* a scheme that is not known: a key that is not valid */
}

static void api_collect(struct api_request *request, struct slice chunk)
{
    if (buffer_append_slice(&request->body, chunk) != ERR_OK) {
        api_reply_err(request, ERR_TOO_LARGE, NULL);
    }
}

static void api_collected(struct api_request *request)
{
    request->route->on_ready(request);
}

static void api_hand_over(struct api_request *request)
{
    if (request->route->body != API_BODY_JSON) {
        request->route->on_ready(request);
        return;
    }
    request->on_body = api_collect;
    request->on_body_end = api_collected;
    http_body_accept(request->http, API_JSON_BODY_BYTES_MAX);
}

/* `wait_for` on a GET: the answer shows everything up to that position. */
static void api_dispatch(struct api_request *request)
{
    struct slice text = {NULL, 0};
    uint64_t position = 0;
    bool is_read = request->route->method == HTTP_GET && request->route->scope != API_SCOPE_OPEN;
    if (!is_read || !http_request_query(request->http, "wait_for", &text) || text.size == 0) {
        api_hand_over(request);
        return;
    }
    if (!api_position_parse(text, &position)) {
        api_reply_bad_query(request, "wait_for", "It is not a position that an answer gave.");
        return;
    }
    api_wait_for(request, position, api_hand_over);
}

static bool api_has_scope(const struct api_request *request)
{
    uint32_t scope = request->route->scope;
    return scope == API_SCOPE_OPEN || (request->identity.scopes & scope) != 0;
}

/* The key is good; scope and limits decide. */
static void api_admit(struct api_request *request)
{
    request->has_identity = true;
    if (!api_has_scope(request) ||
        (request->identity.has_device && request->route->on_ready != api_readings_post)) {
        api_reply_err(request, ERR_FORBIDDEN, NULL);
        return;
    }
    if (gate_limit_request(request->loop->api->options.gate, &request->identity,
                           &request->window) != ERR_OK) {
        api_reply_limited(request, "rate_limited");
        return;
    }
    request->on_admitted(request);
}

static void api_auth_busy(struct api_request *request)
{
    struct http_problem problem = {.status = 503,
                                   .code = "auth_busy",
                                   .detail = "Too many keys are being checked at the moment.",
                                   .offset = -1};
    api_reply_problem(request, &problem, 1);
}

static void api_on_checked(struct gate_waiter *waiter, enum err err,
                           const struct gate_identity *identity)
{
    struct api_request *request = LIST_CONTAINER(waiter, struct api_request, waiter);
    assert(request->pending > 0);
    if (request->http == NULL) {
        request->pending--;
        api_request_release(request);
        return;
    }
    if (err == ERR_OK) {
        request->identity = *identity;
        api_admit(request);
    } else if (err == ERR_BUSY) {
        api_auth_busy(request);
    } else {
        api_reply_err(request, err, NULL);
    }
    request->pending--;
    api_request_release(request);
}

void api_authorize(struct api_request *request, struct slice key,
                   void (*on_admitted)(struct api_request *request))
{
    const struct http_loop *loop = request->loop->http;
    const struct gate_question question = {
        .key = key,
        .address = http_request_address(request->http),
        .now = {.mono_ms = http_loop_mono_ns(loop) / 1000000u, .wall_ms = http_loop_wall_ms(loop)}};
    request->on_admitted = on_admitted;
    request->waiter.reply_to = request->loop->mailbox;
    request->waiter.on_checked = api_on_checked;
    switch (gate_desk_check(request->loop->desk, &question, &request->waiter, &request->identity)) {
    case GATE_CHECK_OK:
        api_admit(request);
        break;
    case GATE_CHECK_DENIED:
        api_reply_unauthorized(request, "The key is not valid.");
        break;
    case GATE_CHECK_BUSY:
        api_auth_busy(request);
        break;
    case GATE_CHECK_WAIT:
        request->pending++;
        break;
    }
}

/* Any node answers any question; records are for those that take them in. */
static bool api_is_here(const struct api_request *request)
{
    const struct api_route *route = request->route;
    bool takes_records = route->body == API_BODY_RECORDS || route->body == API_BODY_KEYED;
    return !takes_records || route->scope == API_SCOPE_OPEN ||
           (request->loop->api->options.roles & API_ROLE_INTAKE) != 0;
}

static void api_not_here(struct api_request *request)
{
    struct http_problem problem = {.status = 503,
                                   .code = "not_here",
                                   .detail = "This node takes no records; another one does.",
                                   .offset = -1};
    api_reply_problem(request, &problem, 1);
}

static void api_begin(struct api_request *request)
{
    uint8_t decoded[API_KEY_TEXT_MAX];
    const struct api_route *route = request->route;
    if (!api_is_here(request)) {
        api_not_here(request);
        return;
    }
    if (api_has_key_in_query(request->http)) {
        api_reply_unauthorized(request, "A key in the query string is not accepted; send it in the "
                                        "X-API-Key or Authorization header.");
        return;
    }
    if (route->scope == API_SCOPE_OPEN) {
        api_hand_over(request);
        return;
    }
    struct slice key = api_request_key(request->http, decoded);
    if (key.data == NULL && route->body == API_BODY_KEYED) {
        route->on_ready(request);
        return;
    }
    if (key.data == NULL) {
        metrics_add(METRIC_AUTH_FAILED, 1);
        api_reply_unauthorized(
            request, "A key is needed: X-API-Key, Authorization: Bearer, or Basic with the key as "
                     "user name.");
        return;
    }
    api_authorize(request, key, api_dispatch);
}

void api_on_head(struct http_request *http, const struct http_route *route)
{
    struct api_loop *loop = http_request_loop_context(http);
    struct api_request *request = api_request_create(loop, http, route->data);
    http_request_set_state(http, request);
    api_begin(request);
}

void api_on_body(struct http_request *http, struct slice chunk)
{
    struct api_request *request = api_request_of(http);
    if (!request->is_begun) {
        request->on_body(request, chunk);
    }
}

void api_on_body_end(struct http_request *http)
{
    struct api_request *request = api_request_of(http);
    request->body_ended = true;
    if (!request->is_begun) {
        request->on_body_end(request);
    }
}

void api_on_stream_room(struct http_request *http)
{
    struct api_request *request = api_request_of(http);
    if (request->on_room != NULL) {
        request->on_room(request);
    }
}

void api_on_timer(struct http_request *http)
{
    struct api_request *request = api_request_of(http);
    if (request->on_timer != NULL) {
        request->on_timer(request);
    }
}

void api_on_finish(struct http_request *http)
{
    struct api_request *request = api_request_of(http);
    http_request_set_state(http, NULL);
    request->http = NULL;
    list_remove(&request->wait);
    if (request->detail_finish != NULL) {
        request->detail_finish(request);
        request->detail_finish = NULL;
    }
    if (request->intake == NULL) {
        api_request_release(request);
    } else if (intake_cancel(request->intake)) {
        request->intake = NULL;
        api_records_uncount(request);
        assert(request->pending > 0);
        request->pending--;
        api_request_release(request);
    } /* else its answer releases it, and may have done so */
}
