/* Router: method and path -> route, from the one table of routes.
 *
 * Thread: made by the server's owner; read-only after, so any loop may find.
 * Memory: rows of the table are the caller's and outlive the router.
 * Errors: ERR_CONFIG when a route stands twice or a pattern is malformed. */
#pragma once
#include "base/err.h"
#include "base/slice.h"
#include "http/http.h"

#define HTTP_PARAMS_MAX   8u
#define HTTP_METHOD_COUNT 7u

struct http_router;

struct http_match {
    const struct http_route *route;            /* NULL: no such path or method */
    const struct http_route *const *by_method; /* NULL: no such path */
    struct slice params[HTTP_PARAMS_MAX];      /* as they came, in order */
    uint32_t param_count;
};

MUST_CHECK enum err http_router_create(struct http_router **ret, const struct http_route *routes,
                                       uint32_t route_count, struct err_detail *detail);
void http_router_destroy(struct http_router *router);
/* A HEAD finds the GET row. */
void http_router_find(const struct http_router *router, enum http_method method, struct slice path,
                      struct http_match *ret);
/* "GET, HEAD, POST, OPTIONS": the methods of a path; at most HTTP_ALLOW_BYTES bytes. */
#define HTTP_ALLOW_BYTES 64u
size_t http_router_allow(const struct http_route *const *by_method, char *to);
const char *http_method_name(enum http_method method);
