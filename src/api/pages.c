/* Pages: what is no question to the store: the metrics page, the OpenAPI document, the root. */
#include "api/handlers.h"

#include "api/openapi.h"
#include "api/reply.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/metrics.h"
#include "journal/journal.h"

#include <assert.h>
#include <stdio.h>

static bool api_wants_openmetrics(const struct http_request *http)
{
    static const char type[] = "application/openmetrics-text";
    struct slice rest = http_request_header(http, "Accept");
    while (rest.size > 0) {
        struct slice one = slice_trim(slice_cut(rest, ',', &rest));
        if (slice_equal_nocase(slice_part(one, 0, sizeof(type) - 1), slice_from_text(type))) {
            return true;
        }
    }
    return false;
}

/* Gauges that nobody moves while nothing happens are set when they are looked at. */
static void api_metrics_gauges(const struct api *api)
{
    struct journal_backlog backlog;
    int64_t now_ms = clock_wall_ms();
    journal_backlog(api->options.journal, &backlog);
    metrics_set(METRIC_QUEUE_SIZE, (double)backlog.records);
    metrics_set(METRIC_QUEUE_DEPTH, (double)backlog.records);
    double age_s = 0;
    if (backlog.oldest_received_ms != 0 && now_ms > (int64_t)backlog.oldest_received_ms) {
        age_s = (double)(now_ms - (int64_t)backlog.oldest_received_ms) / 1000.0;
    }
    metrics_set(METRIC_JOURNAL_OLDEST, age_s);
}

static enum err api_metrics_page(const struct api *api, const struct http_request *http,
                                 struct buffer *to, const char **ret_type)
{
    bool openmetrics = api_wants_openmetrics(http);
    api_metrics_gauges(api);
    *ret_type = openmetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                            : "text/plain; version=0.0.4; charset=utf-8";
    return metrics_write(to, openmetrics);
}

void api_metrics_get(struct api_request *request)
{
    struct buffer *scratch = api_scratch(request->loop);
    const char *type = NULL;
    enum err err = request->loop->api->options.metrics_moved
                       ? ERR_NOT_FOUND
                       : api_metrics_page(request->loop->api, request->http, scratch, &type);
    if (err != ERR_OK) {
        api_reply_err(request, err, NULL);
        return;
    }
    api_reply(request, 200, type, buffer_slice(scratch));
}

/* --- the metrics port: a server of its own that knows this one page ----------------------------
 */

static void *api_metrics_on_loop_start(void *owner, struct http_loop *loop)
{
    (void)loop;
    return owner;
}

static void api_metrics_on_loop(void *context)
{
    (void)context; /* nothing is collected in a round and nothing is held */
}

static void api_metrics_on_head(struct http_request *http, const struct http_route *route)
{
    (void)route;
    struct buffer page;
    const char *type = NULL;
    buffer_init(&page, LIMIT_PAGE_BYTES);
    enum err err = api_metrics_page(http_request_loop_context(http), http, &page, &type);
    if (err == ERR_OK) {
        http_reply_header(http, "Cache-Control", SLICE_LITERAL("no-store"));
        http_reply(http, 200, type, buffer_slice(&page));
    } else {
        http_reply_error(http, 503, err_code(err), NULL);
    }
    buffer_finish(&page);
}

static void api_metrics_on_request(struct http_request *http)
{
    (void)http; /* answered at its head: no body is accepted, no stream begun, no state kept */
}

static void api_metrics_on_body(struct http_request *http, struct slice chunk)
{
    (void)http;
    (void)chunk;
}

const struct http_handler *api_metrics_handler(void)
{
    static const struct http_handler handler = {
        .on_loop_start = api_metrics_on_loop_start,
        .on_loop_stop = api_metrics_on_loop,
        .on_collected = api_metrics_on_loop,
        .on_head = api_metrics_on_head,
        .on_body = api_metrics_on_body,
        .on_body_end = api_metrics_on_request,
        .on_stream_room = api_metrics_on_request,
        .on_timer = api_metrics_on_request,
        .on_finish = api_metrics_on_request,
    };
    return &handler;
}

const struct http_route *api_metrics_routes(uint32_t *ret_count)
{
    static const struct http_route routes[] = {{HTTP_GET, "/metrics", NULL}};
    *ret_count = 1;
    return routes;
}

void api_openapi_get(struct api_request *request)
{
    char tag[20];
    struct slice document = slice_make(api_openapi, api_openapi_size);
    uint64_t parts[] = {hash_xxh3(document.data, document.size, request->loop->api->build),
                        (uint64_t)http_request_coding(request->http)};
    (void)snprintf(tag, sizeof(tag), "\"%016llx\"",
                   (unsigned long long)hash_xxh3(parts, sizeof(parts), 0));
    struct slice etag = slice_make(tag, 18);
    if (http_request_matches(request->http, etag)) {
        api_reply_headers(request);
        http_reply_not_modified(request->http, etag);
        return;
    }
    http_reply_header(request->http, "ETag", etag);
    api_reply(request, 200, "application/yaml", document);
}

void api_root_get(struct api_request *request)
{
    api_reply_json(request, 200,
                   SLICE_LITERAL("{\"service\":\"weir\",\"version\":\"" WEIR_VERSION
                                 "\",\"documentation\":\"/api/openapi.yaml\","
                                 "\"health\":\"/health\",\"metrics\":\"/metrics\"}"));
}
