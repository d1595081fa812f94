/* Cross-origin requests (Fetch standard, CORS protocol): off unless origins are named.
 *
 * Happy path: the origin is in the list, it is named in the reply, and the reply varies by it.
 * Failure modes: another origin: the headers are missing, and the browser refuses. */
#include "http/connection.h"

#define PREFLIGHT_SECONDS "600"

static bool is_allowed(const char *list, struct slice origin)
{
    struct slice rest = slice_from_text(list);
    while (rest.size > 0) {
        struct slice one = slice_trim(slice_cut(rest, ',', &rest));
        if (slice_equal(one, SLICE_LITERAL("*")) || slice_equal(one, origin)) {
            return true;
        }
    }
    return false;
}

/* Whether the request comes from an origin that may read the reply. */
static bool has_allowed_origin(const struct http_request *request)
{
    const char *list = request->loop->server->options.cors_allowed_origins;
    struct slice origin = http_request_known(request, HTTP_KNOWN_ORIGIN);
    return list != NULL && origin.size > 0 && is_allowed(list, origin);
}

void http_cors_allow(struct http_request *request)
{
    if (request->loop->server->options.cors_allowed_origins == NULL) {
        return;
    }
    http_reply_text(request, "Vary", "Origin");
    if (has_allowed_origin(request)) {
        http_reply_header(request, "Access-Control-Allow-Origin",
                          http_request_known(request, HTTP_KNOWN_ORIGIN));
        http_reply_text(request, "Access-Control-Expose-Headers",
                        "X-Request-Id, RateLimit, RateLimit-Policy, Retry-After, ETag, Location");
    }
}

void http_cors_options(struct http_request *request, const struct http_route *const *by_method)
{
    static const struct http_route any = {0};
    static const struct http_route *const all[HTTP_METHOD_COUNT] = {&any, &any, &any, &any,
                                                                    &any, &any, &any};
    char allow[HTTP_ALLOW_BYTES];
    struct slice methods =
        slice_make(allow, http_router_allow(by_method == NULL ? all : by_method, allow));
    struct slice wanted = http_request_header(request, "Access-Control-Request-Headers");
    http_reply_header(request, "Allow", methods);
    if (has_allowed_origin(request) &&
        http_request_header(request, "Access-Control-Request-Method").size > 0) {
        http_reply_header(request, "Access-Control-Allow-Methods", methods);
        if (wanted.size > 0) {
            http_reply_header(request, "Access-Control-Allow-Headers", wanted);
        }
        http_reply_text(request, "Access-Control-Max-Age", PREFLIGHT_SECONDS);
    }
    http_reply(request, 204, NULL, (struct slice){NULL, 0});
}
