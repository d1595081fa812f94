/* Reply: what every answer has in common.
 *
 * The limits' headers (IETF draft: RateLimit-Policy and RateLimit; and the older X-RateLimit-…)
 * cost bytes on a hot path, so they are sent when a tenth of the quota or less is left, and with
 * every refusal. */
#include "api/reply.h"

#include "base/log.h"

#include <assert.h>
#include <stdio.h>

#define API_LIMIT_NEAR 10u /* headers at 1/10 of the quota and below */

static void api_reply_limits(struct http_request *http, const struct gate_window *window)
{
    char text[128];
    bool is_bytes =
        strcmp(window->name, "org-bytes") == 0 || strcmp(window->name, "key-bytes") == 0;
    int size = snprintf(text, sizeof(text), "\"%s\";q=%llu%s;w=%u", window->name,
                        (unsigned long long)window->quota, is_bytes ? ";qu=\"content-bytes\"" : "",
                        window->window_s);
    http_reply_header(http, "RateLimit-Policy", slice_make(text, (size_t)size));
    size = snprintf(text, sizeof(text), "\"%s\";r=%llu;t=%u", window->name,
                    (unsigned long long)window->remaining, window->reset_s);
    http_reply_header(http, "RateLimit", slice_make(text, (size_t)size));
    size = snprintf(text, sizeof(text), "%llu", (unsigned long long)window->quota);
    http_reply_header(http, "X-RateLimit-Limit", slice_make(text, (size_t)size));
    size = snprintf(text, sizeof(text), "%llu", (unsigned long long)window->remaining);
    http_reply_header(http, "X-RateLimit-Remaining", slice_make(text, (size_t)size));
    size = snprintf(text, sizeof(text), "%u", window->reset_s);
    http_reply_header(http, "X-RateLimit-Reset", slice_make(text, (size_t)size));
}

void api_reply_headers(struct api_request *request)
{
    const struct gate_window *window = &request->window;
    assert(!request->is_begun);
    request->is_begun = true;
    http_reply_header(request->http, "Cache-Control", slice_from_text(request->route->cache));
    bool is_near = window->remaining <= window->quota / API_LIMIT_NEAR;
    if (window->quota > 0 && (is_near || request->is_limited)) {
        api_reply_limits(request->http, window);
    }
}

void api_reply(struct api_request *request, int status, const char *type, struct slice body)
{
    if (request->http == NULL) {
        return;
    }
    api_reply_headers(request);
    http_reply(request->http, status, type, body);
}

void api_reply_json(struct api_request *request, int status, struct slice body)
{
    api_reply(request, status, "application/json", body);
}

void api_reply_problem(struct api_request *request, const struct http_problem *problem,
                       uint32_t retry_after_s)
{
    char text[16];
    if (request->http == NULL) {
        return;
    }
    api_reply_headers(request);
    if (retry_after_s > 0 && (problem->status == 429 || problem->status == 503)) {
        int size = snprintf(text, sizeof(text), "%u", retry_after_s);
        http_reply_header(request->http, "Retry-After", slice_make(text, (size_t)size));
    }
    http_reply_problem(request->http, problem);
}

void api_reply_err(struct api_request *request, enum err err, const char *detail)
{
    const struct api_problem_row *row = api_problem_of(err);
    struct http_problem problem = {.status = row->status,
                                   .code = row->code,
                                   .detail = detail != NULL ? detail : row->detail,
                                   .offset = -1};
    if (request->http == NULL) {
        return;
    }
    if (err == ERR_UNAUTHORIZED) {
        api_reply_unauthorized(request, problem.detail);
        return;
    }
    if (row->status == 500) {
        struct slice id = http_request_id(request->http);
        log_write(LOG_ERROR, "api", "%s failed: %s (request_id %.*s)", request->route->operation,
                  err_text(err), (int)id.size, (const char *)id.data);
    }
    api_reply_problem(request, &problem, 1);
}

static void api_reply_item(struct api_request *request, int status, const char *code,
                           const char *pointer, const char *message)
{
    struct http_problem_item item = {
        .pointer = slice_from_text(pointer), .offset = -1, .code = code, .message = message};
    struct http_problem problem = {.status = status,
                                   .code = code,
                                   .detail = message,
                                   .offset = -1,
                                   .items = &item,
                                   .item_count = 1};
    api_reply_problem(request, &problem, 0);
}

void api_reply_bad_query(struct api_request *request, const char *name, const char *message)
{
    api_reply_item(request, 400, "bad_query", name, message);
}

void api_reply_bad_member(struct api_request *request, const char *pointer, const char *message)
{
    api_reply_item(request, 422, "invalid", pointer, message);
}

void api_reply_unauthorized(struct api_request *request, const char *detail)
{
    struct http_problem problem = {
        .status = 401, .code = "unauthorized", .detail = detail, .offset = -1};
    if (request->http == NULL) {
        return;
    }
    http_reply_header(request->http, "WWW-Authenticate", SLICE_LITERAL("Bearer realm=\"weir\""));
    api_reply_problem(request, &problem, 0);
}

void api_reply_limited(struct api_request *request, const char *code)
{
    char extra[96];
    const struct gate_window *window = &request->window;
    request->is_limited = true;
    int size = snprintf(extra, sizeof(extra), "\"violated-policies\":[\"%s\"]", window->name);
    struct http_problem problem = {.status = 429,
                                   .code = code,
                                   .detail = "The limit is reached; Retry-After says when there is "
                                             "room again.",
                                   .offset = -1,
                                   .extra = slice_make(extra, (size_t)size)};
    api_reply_problem(request, &problem, window->reset_s > 0 ? window->reset_s : 1);
}
