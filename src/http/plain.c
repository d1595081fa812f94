/* The plain transport: a non-blocking socket.
 *
 * Happy path: a read or write moves bytes; a short read has emptied the socket.
 * The two calls of every request are made without the C library's wrappers: those make a call a
 * point of cancellation by two locked instructions around it, and no thread here is ever cancelled.
 *
 * Failure modes: the peer is gone: HTTP_TRANSPORT_GONE. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "http/connection.h"

static ssize_t plain_read(struct http_connection *connection, void *to, size_t size)
{
    ssize_t got;
    do {
        got = syscall(SYS_recvfrom, connection->fd, to, size, 0, NULL, NULL);
    } while (got < 0 && errno == EINTR);
    if (got >= 0) {
        /* After a short read the end of the peer would be told by a further event, unless that
         * event came already. */
        connection->readable = (size_t)got == size || (got > 0 && connection->peer_ended);
        return got;
    }
    connection->readable = false;
    return errno == EAGAIN ? HTTP_TRANSPORT_LATER : HTTP_TRANSPORT_GONE;
}

static ssize_t plain_write(struct http_connection *connection, const void *from, size_t size)
{
    ssize_t sent;
    do {
        sent = syscall(SYS_sendto, connection->fd, from, size, MSG_NOSIGNAL, NULL, 0);
    } while (sent < 0 && errno == EINTR);
    connection->writable = sent == (ssize_t)size;
    if (sent < 0) {
        return errno == EAGAIN ? HTTP_TRANSPORT_LATER : HTTP_TRANSPORT_GONE;
    }
    return sent;
}

static void plain_shutdown(struct http_connection *connection)
{
    (void)shutdown(connection->fd, SHUT_WR); /* fails only when the peer is gone */
}

void http_transport_close_fd(struct http_connection *connection, bool reset)
{
    static const struct linger now = {.l_onoff = 1, .l_linger = 0};
    if (reset) {
        /* Best effort: without it the peer may take a part for the whole. */
        (void)setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    (void)close(connection->fd); /* nothing of ours is unsent, or it is given up */
    connection->fd = -1;
}

const struct http_transport http_transport_plain = {
    .read = plain_read,
    .write = plain_write,
    .shutdown = plain_shutdown,
    .close = http_transport_close_fd,
};
