/* Loop: its life, for the server. See http.h for the rest.
 *
 * Thread: the server's owner, before the loop's thread runs and after it was joined; drain any.
 * Memory: the server owns the loops.
 * Errors: a loop that did not initialise can be finished. */
#pragma once
#include "http/connection.h"

#define HTTP_MAILBOX_CAPACITY 65536u

MUST_CHECK enum err http_loop_init(struct http_loop *loop, struct http_server *server,
                                   uint32_t index);
/* Cuts what is left, also connections that were on their way to the loop. */
void http_loop_cut(struct http_loop *loop);
void http_loop_finish(struct http_loop *loop);
/* Asks loop 0 to drain; it tells the others. */
void http_loop_drain(struct http_loop *loop);
