/* Parameters: the query of a request, read by name, checked, and folded into the answer's tag.
 *
 * Thread: the request's loop.
 * Memory: texts are slices of the request; a job copies what it keeps.
 * Errors: the first malformed parameter is remembered; api_parameters_end answers 400 for it. */
#pragma once
#include "api/reply.h"
#include "query/query.h"

struct api_parameters {
    struct api_request *request;
    const char *bad; /* name of the first malformed one */
    const char *message;
};
void api_parameters_begin(struct api_parameters *parameters, struct api_request *request);
/* data NULL: absent or empty. */
struct slice api_parameter_text(struct api_parameters *parameters, const char *name);
/* Absent: LIMIT_LIST_DEFAULT; above LIMIT_LIST_MAX: clamped. */
uint32_t api_parameter_limit(struct api_parameters *parameters);
/* The same with other bounds. */
uint32_t api_parameter_limit_of(struct api_parameters *parameters, uint32_t absent, uint32_t max);
/* RFC 3339 or epoch milliseconds; `names` are aliases, ended by NULL. */
int64_t api_parameter_time(struct api_parameters *parameters, const char *const *names,
                           int64_t absent);
/* order=asc|desc; true: oldest first. `absent`: what it is without one. */
bool api_parameter_order(struct api_parameters *parameters, bool absent);
/* Which events: type, subject, app, a range of times, status (as it stands in `query`, when
 * absent). */
void api_parameter_events(struct api_parameters *parameters, struct query_events *query);
/* 0: absent. */
uint64_t api_parameter_cursor(struct api_parameters *parameters, enum query_list list);
/* Marks a parameter as malformed. */
void api_parameter_refuse(struct api_parameters *parameters, const char *name, const char *message);
/* False: 400 was answered. */
MUST_CHECK bool api_parameters_end(const struct api_parameters *parameters);

/* A position as clients see it: 16 hexadecimal digits. */
#define API_POSITION_BYTES 16
void api_position_format(uint64_t position, char to[API_POSITION_BYTES]);
bool api_position_parse(struct slice text, uint64_t *ret);
/* Idempotency-Key: a structured field string, or bare. data NULL: absent; false: malformed. The
 * unescaped text may stand in `to`. */
#define API_IDEMPOTENCY_KEY_MAX 255u
bool api_idempotency_key(struct slice header, uint8_t to[API_IDEMPOTENCY_KEY_MAX],
                         struct slice *ret);
