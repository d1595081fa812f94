/* Reply: every answer of this stage is made here: cache headers, limits' headers, problems.
 *
 * Thread: the request's loop.
 * Memory: what is given is copied.
 * Errors: a request whose peer is gone is answered with nothing. */
#pragma once
#include "api/context.h"

/* JSON with the route's Cache-Control. */
void api_reply_json(struct api_request *request, int status, struct slice body);
void api_reply(struct api_request *request, int status, const char *type, struct slice body);
/* Headers that every reply of a route has. */
void api_reply_headers(struct api_request *request);

/* From the one table. `detail` NULL: the table's own sentence. */
void api_reply_err(struct api_request *request, enum err err, const char *detail);
/* 400 bad_query naming the parameter. */
void api_reply_bad_query(struct api_request *request, const char *name, const char *message);
/* 422 invalid naming a member of the body. */
void api_reply_bad_member(struct api_request *request, const char *pointer, const char *message);
/* 401 with WWW-Authenticate. */
void api_reply_unauthorized(struct api_request *request, const char *detail);
/* 429 by the window, with its headers. */
void api_reply_limited(struct api_request *request, const char *code);
/* With Retry-After when the status is 429 or 503 and retry_after_s is not 0. */
void api_reply_problem(struct api_request *request, const struct http_problem *problem,
                       uint32_t retry_after_s);

/* Status and code of an error, from the table. */
struct api_problem_row {
    int status;
    const char *code;
    const char *detail;
};
const struct api_problem_row *api_problem_of(enum err err);
