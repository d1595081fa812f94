/* Listener: the thread that hears what other nodes say, and says what this one applies.
 *
 * Thread: run: the listener's. announce, stop: any.
 * Memory: owns its connection.
 * Errors: none after create. */
#pragma once
#include "store/backend.h"

struct store_listener;

/* Takes the connection, whose backend can listen. */
MUST_CHECK enum err store_listener_create(struct store_listener **ret,
                                          struct store_connection *connection,
                                          const struct store_listen_options *options);
/* Closes the connection. NULL is fine. */
void store_listener_destroy(struct store_listener *listener);
void store_listener_work(struct store_listener *listener);
void store_listener_stop(struct store_listener *listener);
void store_listener_announce(struct store_listener *listener, uint64_t position,
                             const uint64_t *orgs, uint32_t count);
void store_listener_announce_spool(struct store_listener *listener, uint64_t position);
void store_listener_announce_passed(struct store_listener *listener, uint64_t lanes,
                                    uint64_t position);
void store_listener_announce_free(struct store_listener *listener);
