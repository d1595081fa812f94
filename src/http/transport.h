/* Transport: the bytes of a connection, plain or by TLS.
 *
 * Thread: the connection's loop.
 * Memory: the connection owns its descriptor and, with TLS, its session.
 * Errors: results below zero. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct http_connection;

#define HTTP_TRANSPORT_LATER (-1) /* nothing to read, or no room to write: an event will tell */
#define HTTP_TRANSPORT_GONE  (-2) /* the connection is broken */

struct http_transport {
    /* 0: the peer sends no more. Clears the connection's `readable` when nothing is left. */
    ssize_t (*read)(struct http_connection *connection, void *to, size_t size);
    /* Clears the connection's `writable` when not everything was taken. */
    ssize_t (*write)(struct http_connection *connection, const void *from, size_t size);
    /* Nothing more will be written. */
    void (*shutdown)(struct http_connection *connection);
    /* `reset`: not everything was sent, and the peer shall see that. */
    void (*close)(struct http_connection *connection, bool reset);
};

/* The end of every transport's close. */
void http_transport_close_fd(struct http_connection *connection, bool reset);

extern const struct http_transport http_transport_plain;
extern const struct http_transport http_transport_tls;

/* The certificate and key of all TLS connections. */
struct http_tls;
MUST_CHECK enum err http_tls_create(struct http_tls **ret, const char *cert_file,
                                    const char *key_file, struct err_detail *detail);
void http_tls_destroy(struct http_tls *tls);
/* A session for the connection's descriptor. */
MUST_CHECK enum err http_tls_open(const struct http_tls *tls, struct http_connection *connection);
