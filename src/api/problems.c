/* Problems: the one table from our errors to what a client is told. The sentences name no SQL, no
 * path and nothing of another org; what an operator needs is in the log. */
#include "api/reply.h"

#include <assert.h>

static const struct api_problem_row api_problems[ERR_COUNT] = {
    [ERR_OK] = {500, "internal", "An answer without an error was treated as one."},
    [ERR_SYNTAX] = {400, "malformed", "The body is not well-formed."},
    [ERR_INVALID] = {422, "invalid", "A value is not permitted here."},
    [ERR_TOO_LARGE] = {413, "payload_too_large", "The body is larger than permitted here."},
    [ERR_DEPTH] = {400, "too_deep", "The JSON is nested deeper than 64 levels."},
    [ERR_NOT_FOUND] = {404, "not_found", "There is nothing of this name."},
    [ERR_EXISTS] = {409, "already_exists", "It exists already."},
    [ERR_UNAUTHORIZED] = {401, "unauthorized", "The key is missing or not valid."},
    [ERR_FORBIDDEN] = {403, "forbidden", "The key lacks the scope for this."},
    [ERR_UNSUPPORTED] = {415, "unsupported", "The content type is not taken here."},
    [ERR_REFUSED] = {422, "refused", "The store refused the record again."},
    [ERR_FULL] = {503, "unavailable", "Too much is waiting at the moment."},
    [ERR_BUSY] = {503, "unavailable", "The store is busy at the moment."},
    [ERR_AWAY] = {503, "unavailable", "The store is not reachable at the moment."},
    [ERR_TIMEOUT] = {503, "query_timeout", "The query took longer than permitted."},
    [ERR_NO_MEMORY] = {503, "no_memory", "There is not enough memory at the moment."},
    [ERR_NO_SPACE] = {503, "unavailable", "The disk is full."},
    [ERR_DRAINING] = {503, "draining", "The server is shutting down."},
    [ERR_CLOSED] = {503, "draining", "The server is shutting down."},
    [ERR_IO] = {500, "internal", "An internal error; the log has more under this request_id."},
    [ERR_CORRUPT] = {500, "internal", "An internal error; the log has more under this request_id."},
    [ERR_VERSION] = {500, "internal", "An internal error; the log has more under this request_id."},
    [ERR_PERMISSION] = {500, "internal",
                        "An internal error; the log has more under this request_id."},
    [ERR_LOCKED] = {503, "unavailable", "The store is locked by another process."},
    [ERR_CONFIG] = {500, "internal", "An internal error; the log has more under this request_id."},
};

const struct api_problem_row *api_problem_of(enum err err)
{
    assert(err < ERR_COUNT && api_problems[err].status != 0);
    return &api_problems[err];
}
