/* Acceptor: the listening socket and the count of connections.
 *
 * Thread: create and destroy by the server's owner, http_acceptor_return any loop, the rest loop 0.
 * Memory: connections are made here, handed to a loop, and freed here when they come back.
 * Errors: see http_server_open. */
#pragma once
#include "http/connection.h"

MUST_CHECK enum err http_acceptor_create(struct http_acceptor **ret, struct http_server *server,
                                         struct err_detail *detail);
/* NULL is fine. */
void http_acceptor_destroy(struct http_acceptor *acceptor);
void http_acceptor_start(struct http_acceptor *acceptor);
/* Closes the listener. */
void http_acceptor_stop(struct http_acceptor *acceptor);
void http_acceptor_on_event(struct http_acceptor *acceptor);
/* Milliseconds until it looks again after a rest; -1: it listens. */
int http_acceptor_wait_ms(struct http_acceptor *acceptor, uint64_t now_ms);
/* A closed connection goes back to loop 0. */
void http_acceptor_return(struct http_connection *connection);
/* Counts it out and frees it. */
void http_acceptor_take_back(struct http_acceptor *acceptor, struct http_connection *connection);
