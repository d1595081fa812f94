/* Acceptor: loop 0 accepts, counts and hands out; connections come back to it to be counted out.
 *
 * The counts are loop 0's alone: another loop's closed connection comes back by its own mail, so
 * there is neither a lock nor an atomic. IPv6 addresses are counted by their /64, which is what one
 * customer has.
 *
 * Happy path: accept4, count, hand to the next loop in turn.
 * Failure modes: too many connections in all or of one address: closed at once and counted. Out of
 * descriptors: the listener rests for a moment, since it would only wake the loop again. */
#include "http/acceptor.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"

#define BACKLOG           4096
#define ACCEPTS_PER_ROUND 256u
#define REST_MS           100u
#define BUCKETS           4096u

struct address {
    struct address *next;
    uint8_t key[16];
    uint32_t count;
};

union socket_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

struct http_acceptor {
    struct http_server *server;
    int fd;
    uint32_t next_loop;
    uint32_t open;
    uint64_t rest_until_ms; /* 0: listening */
    struct address *buckets[BUCKETS];
};

/* --- opening ---------------------------------------------------------------------------------- */

static enum err bind_to(const struct addrinfo *info, int *ret_fd)
{
    static const int on = 1;
    static const int off = 0;
    enum err err = ERR_OK;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    /* TCP_NODELAY is inherited by what is accepted. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
        (info->ai_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0) ||
        bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        err = errno == EADDRINUSE ? ERR_BUSY : err_from_errno(errno);
        goto out;
    }
    *ret_fd = fd;
    fd = -1; /* the caller owns it now */
out:
    if (fd >= 0) {
        (void)close(fd); /* nothing was written */
    }
    return err;
}

static uint16_t bound_port(int fd)
{
    union socket_address bound = {0};
    socklen_t size = sizeof(bound);
    int result = getsockname(fd, &bound.any, &size);
    assert(result == 0);
    return ntohs(bound.any.sa_family == AF_INET ? bound.v4.sin_port : bound.v6.sin6_port);
}

enum err http_acceptor_create(struct http_acceptor **ret, struct http_server *server,
                              struct err_detail *detail)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    const struct http_options *options = &server->options;
    struct addrinfo *found = NULL;
    char port[8];
    int fd = -1;
    (void)snprintf(port, sizeof(port), "%u", (unsigned)options->port); /* at most 5 digits */
    int result = getaddrinfo(options->host, port, &hints, &found);
    if (result != 0) {
        err_detail_set(detail, "listen on %s: %s", options->host, gai_strerror(result));
        return ERR_CONFIG;
    }
    enum err err = bind_to(found, &fd);
    freeaddrinfo(found);
    if (err != ERR_OK) {
        err_detail_set(detail, "listen on %s port %s: %s", options->host, port, err_text(err));
        return err;
    }
    struct http_acceptor *acceptor = mem_alloc(sizeof(*acceptor));
    acceptor->server = server;
    acceptor->fd = fd;
    server->port = bound_port(fd);
    *ret = acceptor;
    return ERR_OK;
}

void http_acceptor_destroy(struct http_acceptor *acceptor)
{
    if (acceptor == NULL) {
        return;
    }
    for (uint32_t i = 0; i < BUCKETS; i++) {
        while (acceptor->buckets[i] != NULL) {
            struct address *address = acceptor->buckets[i];
            acceptor->buckets[i] = address->next;
            mem_free(address);
        }
    }
    if (acceptor->fd >= 0) {
        (void)close(acceptor->fd); /* a listener has nothing to lose */
    }
    mem_free(acceptor);
}

static void watch(struct http_acceptor *acceptor, int operation)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = acceptor};
    int result = epoll_ctl(acceptor->server->loops[0].epoll_fd, operation, acceptor->fd, &event);
    assert(result == 0);
}

void http_acceptor_start(struct http_acceptor *acceptor)
{
    watch(acceptor, EPOLL_CTL_ADD);
}

void http_acceptor_stop(struct http_acceptor *acceptor)
{
    if (acceptor->fd < 0) {
        return;
    }
    (void)close(acceptor->fd); /* a listener has nothing to lose */
    acceptor->fd = -1;
}

/* --- counting --------------------------------------------------------------------------------- */

/* An IPv4 address as IPv6 has it. */
static bool is_mapped(const uint8_t bytes[16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return memcmp(bytes, mapped, sizeof(mapped)) == 0;
}

static struct address **find_address(struct http_acceptor *acceptor, const uint8_t bytes[16])
{
    uint8_t key[16] = {0};
    memcpy(key, bytes, is_mapped(bytes) ? 16 : 8);
    struct address **slot = &acceptor->buckets[hash_table(key, sizeof(key)) % BUCKETS];
    while (*slot != NULL && memcmp((*slot)->key, key, sizeof(key)) != 0) {
        slot = &(*slot)->next;
    }
    if (*slot == NULL) {
        *slot = mem_alloc(sizeof(**slot));
        memcpy((*slot)->key, key, sizeof(key));
    }
    return slot;
}

static bool count_in(struct http_acceptor *acceptor, const uint8_t bytes[16])
{
    const struct http_options *options = &acceptor->server->options;
    if (acceptor->open >= options->connections_max) {
        return false;
    }
    struct address *address = *find_address(acceptor, bytes);
    if (address->count >= options->connections_per_address_max && address->count > 0) {
        return false;
    }
    address->count++;
    acceptor->open++;
    return true;
}

static void count_out(struct http_acceptor *acceptor, const uint8_t bytes[16])
{
    struct address **slot = find_address(acceptor, bytes);
    struct address *address = *slot;
    assert(address->count > 0 && acceptor->open > 0);
    acceptor->open--;
    address->count--;
    if (address->count == 0) {
        *slot = address->next;
        mem_free(address);
    }
}

static void on_returned(struct mail *mail)
{
    struct http_connection *connection = LIST_CONTAINER(mail, struct http_connection, mail);
    http_acceptor_take_back(connection->loop->server->acceptor, connection);
}

void http_acceptor_take_back(struct http_acceptor *acceptor, struct http_connection *connection)
{
    count_out(acceptor, connection->address);
    metrics_set(METRIC_HTTP_OPEN, acceptor->open);
    mem_free(connection);
}

void http_acceptor_return(struct http_connection *connection)
{
    struct http_server *server = connection->loop->server;
    if (connection->loop->index == 0) {
        http_acceptor_take_back(server->acceptor, connection);
    } else {
        connection->mail.on_arrive = on_returned;
        mailbox_answer(server->loops[0].mailbox, &connection->mail);
    }
}

/* --- accepting -------------------------------------------------------------------------------- */

static void set_address(struct http_connection *connection, const union socket_address *peer)
{
    const void *bytes = NULL;
    if (peer->any.sa_family == AF_INET) {
        memset(connection->address + 10, 0xff, 2);
        memcpy(connection->address + 12, &peer->v4.sin_addr, 4);
    } else {
        memcpy(connection->address, &peer->v6.sin6_addr, 16);
    }
    bool is_v4 = is_mapped(connection->address);
    bytes = is_v4 ? connection->address + 12 : connection->address;
    const char *text = inet_ntop(is_v4 ? AF_INET : AF_INET6, bytes, connection->address_text,
                                 sizeof(connection->address_text));
    assert(text != NULL);
    (void)text;
}

static void on_handed(struct mail *mail)
{
    http_connection_start(LIST_CONTAINER(mail, struct http_connection, mail));
}

static void hand_out(struct http_acceptor *acceptor, struct http_connection *connection)
{
    struct http_server *server = acceptor->server;
    connection->loop = &server->loops[acceptor->next_loop];
    acceptor->next_loop = (acceptor->next_loop + 1) % server->options.loops;
    if (connection->loop->index == 0) {
        http_connection_start(connection);
        return;
    }
    connection->mail.on_arrive = on_handed;
    mailbox_answer(connection->loop->mailbox, &connection->mail);
}

static void admit(struct http_acceptor *acceptor, int fd, const union socket_address *peer)
{
    struct http_server *server = acceptor->server;
    struct http_connection *connection = mem_alloc(sizeof(*connection));
    connection->fd = fd;
    connection->loop = &server->loops[0];
    connection->transport = &http_transport_plain;
    set_address(connection, peer);
    if (!count_in(acceptor, connection->address)) {
        metrics_add(METRIC_HTTP_CONNECTIONS_REFUSED, 1);
        connection->transport->close(connection, false);
        mem_free(connection);
        return;
    }
    metrics_add(METRIC_HTTP_CONNECTIONS, 1);
    metrics_set(METRIC_HTTP_OPEN, acceptor->open);
    if (server->tls != NULL && http_tls_open(server->tls, connection) != ERR_OK) {
        connection->transport->close(connection, false);
        http_acceptor_take_back(acceptor, connection);
        return;
    }
    hand_out(acceptor, connection);
}

static void rest(struct http_acceptor *acceptor)
{
    acceptor->rest_until_ms = acceptor->server->loops[0].now_ms + REST_MS;
    watch(acceptor, EPOLL_CTL_DEL);
    log_write(LOG_WARN, "http", "accept: %s; resting", err_text(err_from_errno(errno)));
}

void http_acceptor_on_event(struct http_acceptor *acceptor)
{
    for (uint32_t i = 0; i < ACCEPTS_PER_ROUND && acceptor->fd >= 0; i++) {
        union socket_address peer = {0};
        socklen_t size = sizeof(peer);
        int fd = accept4(acceptor->fd, &peer.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            admit(acceptor, fd, &peer);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            rest(acceptor);
            return;
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

int http_acceptor_wait_ms(struct http_acceptor *acceptor, uint64_t now_ms)
{
    if (acceptor->rest_until_ms == 0 || acceptor->fd < 0) {
        return -1;
    }
    if (now_ms < acceptor->rest_until_ms) {
        return (int)(acceptor->rest_until_ms - now_ms);
    }
    acceptor->rest_until_ms = 0;
    watch(acceptor, EPOLL_CTL_ADD);
    return -1;
}
