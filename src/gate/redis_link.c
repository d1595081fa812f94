/* Redis link.
 *
 * hiredis writes and reads the protocol; the socket is ours, because its own blocking calls know no
 * deadline that covers a connection, a TLS handshake and an answer together, and because the one of
 * Debian 12 has no TLS.
 *
 * Happy path: connect without blocking, poll; TLS if asked for; AUTH, SELECT and PING in one
 * write; their answers. Then: append some commands, flush once, read as many answers.
 * Failure modes: the name does not resolve, nobody listens, no answer in time, the certificate is
 * not trusted or of another name, a wrong password, no such database: the detail has Redis' or the
 * system's own words. */
#include "gate/redis_link.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/sys.h"

#define LINK_OUT_BYTES_MAX 1048576u /* appended and not flushed */
#define LINK_READ_BYTES    16384u
#define LINK_WORDS_MAX     32u
#define LINK_GREETINGS_MAX 3u

struct gate_redis_link {
    int fd;
    SSL *ssl; /* NULL: plain */
    redisReader *reader;
    struct buffer out;
    uint64_t used_ms;
};

uint64_t gate_redis_link_used_ms(const struct gate_redis_link *link)
{
    return link->used_ms;
}

/* --- bytes ---------------------------------------------------------------------------------- */

static enum err link_wait(const struct gate_redis_link *link, short events, uint64_t deadline_ms)
{
    for (;;) {
        uint64_t now_ms = clock_mono_ms();
        if (now_ms >= deadline_ms) {
            return ERR_TIMEOUT;
        }
        struct pollfd wait = {.fd = link->fd, .events = events};
        int ready = poll(&wait, 1, (int)(deadline_ms - now_ms));
        if (ready > 0) {
            return ERR_OK;
        }
        if (ready < 0 && errno != EINTR) {
            return err_from_errno(errno);
        }
    }
}

/* After a TLS call that gave `result`: waits for what it wants. */
static enum err link_wait_tls(const struct gate_redis_link *link, int result, uint64_t deadline_ms)
{
    int wanted = SSL_get_error(link->ssl, result);
    if (wanted == SSL_ERROR_WANT_READ) {
        return link_wait(link, POLLIN, deadline_ms);
    }
    return wanted == SSL_ERROR_WANT_WRITE ? link_wait(link, POLLOUT, deadline_ms) : ERR_CLOSED;
}

static enum err link_send(struct gate_redis_link *link, struct slice bytes, uint64_t deadline_ms,
                          size_t *ret_sent)
{
    if (link->ssl != NULL) {
        ERR_clear_error();
        int sent = SSL_write(link->ssl, bytes.data, (int)bytes.size);
        *ret_sent = sent > 0 ? (size_t)sent : 0;
        return sent > 0 ? ERR_OK : link_wait_tls(link, sent, deadline_ms);
    }
    ssize_t sent = send(link->fd, bytes.data, bytes.size, MSG_NOSIGNAL);
    *ret_sent = sent > 0 ? (size_t)sent : 0;
    if (sent < 0 && errno == EAGAIN) {
        return link_wait(link, POLLOUT, deadline_ms);
    }
    return sent < 0 && errno != EINTR ? ERR_CLOSED : ERR_OK;
}

static enum err link_receive(struct gate_redis_link *link, char *to, uint64_t deadline_ms,
                             size_t *ret_size)
{
    ssize_t got;
    if (link->ssl != NULL) {
        ERR_clear_error();
        got = SSL_read(link->ssl, to, LINK_READ_BYTES);
        *ret_size = got > 0 ? (size_t)got : 0;
        return got > 0 ? ERR_OK : link_wait_tls(link, (int)got, deadline_ms);
    }
    got = recv(link->fd, to, LINK_READ_BYTES, 0);
    *ret_size = got > 0 ? (size_t)got : 0;
    if (got < 0 && errno == EAGAIN) {
        return link_wait(link, POLLIN, deadline_ms);
    }
    return got == 0 || (got < 0 && errno != EINTR) ? ERR_CLOSED : ERR_OK;
}

/* --- commands and answers ------------------------------------------------------------------- */

enum err gate_redis_link_append(struct gate_redis_link *link, uint32_t count,
                                const struct slice *words)
{
    const char *texts[LINK_WORDS_MAX];
    size_t sizes[LINK_WORDS_MAX];
    char *command = NULL;
    assert(count > 0 && count <= LINK_WORDS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        texts[i] = (const char *)words[i].data;
        sizes[i] = words[i].size;
    }
    int size = redisFormatCommandArgv(&command, (int)count, texts, sizes);
    if (size < 0) {
        return ERR_NO_MEMORY;
    }
    enum err err = buffer_append(&link->out, command, (size_t)size);
    redisFreeCommand(command);
    return err;
}

enum err gate_redis_link_flush(struct gate_redis_link *link, uint64_t deadline_ms)
{
    enum err err = ERR_OK;
    struct slice rest = buffer_slice(&link->out);
    while (rest.size > 0 && err == ERR_OK) {
        size_t sent = 0;
        err = link_send(link, rest, deadline_ms, &sent);
        rest = slice_part(rest, sent, rest.size);
    }
    buffer_clear(&link->out);
    return err;
}

enum err gate_redis_link_read(struct gate_redis_link *link, uint64_t deadline_ms, redisReply **ret)
{
    char bytes[LINK_READ_BYTES];
    for (;;) {
        void *reply = NULL;
        if (redisReaderGetReply(link->reader, &reply) != REDIS_OK) {
            return ERR_CORRUPT;
        }
        if (reply != NULL) {
            *ret = reply;
            return ERR_OK;
        }
        size_t size = 0;
        enum err err = link_receive(link, bytes, deadline_ms, &size);
        if (err != ERR_OK) {
            return err;
        }
        if (size > 0 && redisReaderFeed(link->reader, bytes, size) != REDIS_OK) {
            return ERR_NO_MEMORY;
        }
        link->used_ms = clock_mono_ms();
    }
}

enum err gate_redis_link_call(struct gate_redis_link *link, uint32_t count,
                              const struct slice *words, uint64_t deadline_ms, redisReply **ret)
{
    enum err err = gate_redis_link_append(link, count, words);
    if (err == ERR_OK) {
        err = gate_redis_link_flush(link, deadline_ms);
    }
    return err == ERR_OK ? gate_redis_link_read(link, deadline_ms, ret) : err;
}

/* --- opening -------------------------------------------------------------------------------- */

/* Begins a connection; -1 and errno when that fails at once. */
static int socket_begin(int family, const struct sockaddr *address, socklen_t size)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    int one = 1;
    if (family != AF_UNIX) {
        /* Only slower without. */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    if (connect(fd, address, size) != 0 && errno != EINPROGRESS) {
        int error_number = errno;
        (void)sys_close(fd);
        errno = error_number;
        return -1;
    }
    return fd;
}

static enum err socket_end(struct gate_redis_link *link, uint64_t deadline_ms,
                           struct err_detail *detail)
{
    int error_number = 0;
    socklen_t size = sizeof(error_number);
    enum err err = link_wait(link, POLLOUT, deadline_ms);
    if (err == ERR_OK && getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error_number, &size) != 0) {
        error_number = errno;
    }
    if (err == ERR_OK && error_number != 0) {
        char text[128];
        err_detail_set(detail, "connect: %s", strerror_r(error_number, text, sizeof(text)));
        return ERR_AWAY;
    }
    if (err != ERR_OK) {
        err_detail_set(detail, "connect: %s", err_text(err));
    }
    return err;
}

static enum err connect_unix(struct gate_redis_link *link, const char *path, uint64_t deadline_ms,
                             struct err_detail *detail)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(path);
    if (size >= sizeof(address.sun_path)) {
        err_detail_set(detail, "the path of a Unix socket has at most 107 bytes");
        return ERR_CONFIG;
    }
    memcpy(address.sun_path, path, size);
    link->fd = socket_begin(AF_UNIX, (const struct sockaddr *)(const void *)&address,
                            (socklen_t)sizeof(address));
    if (link->fd < 0) {
        char text[128];
        err_detail_set(detail, "connect: %s", strerror_r(errno, text, sizeof(text)));
        return ERR_AWAY;
    }
    return socket_end(link, deadline_ms, detail);
}

/* Each address of the name in turn; the detail is about the last. */
static enum err connect_host(struct gate_redis_link *link, const struct gate_redis_address *to,
                             uint64_t deadline_ms, struct err_detail *detail)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char port[8];
    (void)snprintf(port, sizeof(port), "%u", to->port);
    int result = getaddrinfo(to->host, port, &hints, &found);
    if (result != 0) {
        err_detail_set(detail, "%s", gai_strerror(result));
        return ERR_AWAY;
    }
    enum err err = ERR_AWAY;
    for (struct addrinfo *one = found; one != NULL && err != ERR_OK; one = one->ai_next) {
        link->fd = socket_begin(one->ai_family, one->ai_addr, one->ai_addrlen);
        if (link->fd < 0) {
            char text[128];
            err_detail_set(detail, "connect: %s", strerror_r(errno, text, sizeof(text)));
            continue;
        }
        err = socket_end(link, deadline_ms, detail);
        if (err != ERR_OK) {
            (void)sys_close(link->fd);
            link->fd = -1;
        }
    }
    freeaddrinfo(found);
    return err;
}

static enum err start_tls(struct gate_redis_link *link,
                          const struct gate_redis_link_options *options, struct err_detail *detail)
{
    char host[GATE_REDIS_HOST_BYTES]; /* the library's macro wants one that may be written */
    uint8_t address[sizeof(struct in6_addr)];
    memcpy(host, options->address->host, sizeof(host));
    bool is_number =
        inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    link->ssl = SSL_new(options->tls);
    if (link->ssl == NULL || SSL_set_fd(link->ssl, link->fd) != 1) {
        return ERR_NO_MEMORY;
    }
    int named = is_number ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(link->ssl), host)
                          : SSL_set1_host(link->ssl, host);
    if (named != 1 || (!is_number && SSL_set_tlsext_host_name(link->ssl, host) != 1)) {
        return ERR_NO_MEMORY;
    }
    for (;;) {
        ERR_clear_error();
        int result = SSL_connect(link->ssl);
        if (result == 1) {
            return ERR_OK;
        }
        long verified = SSL_get_verify_result(link->ssl);
        if (verified != X509_V_OK) {
            err_detail_set(detail, "TLS: %s", X509_verify_cert_error_string(verified));
            return ERR_CONFIG;
        }
        enum err err = link_wait_tls(link, result, options->deadline_ms);
        if (err != ERR_OK) {
            err_detail_set(detail, "TLS handshake: %s", err_text(err));
            return err;
        }
    }
}

/* NOAUTH and WRONGPASS are about the password; what else AUTH or SELECT refuse about the URL. */
static enum err greeting_check(const redisReply *reply, struct err_detail *detail)
{
    if (reply->type != REDIS_REPLY_ERROR) {
        return ERR_OK;
    }
    struct slice text = slice_make(reply->str, (size_t)reply->len);
    err_detail_set(detail, "%.*s", (int)(text.size < 200 ? text.size : 200), reply->str);
    if (slice_starts_with(text, SLICE_LITERAL("LOADING")) ||
        slice_starts_with(text, SLICE_LITERAL("MASTERDOWN"))) {
        return ERR_AWAY;
    }
    bool is_access = slice_starts_with(text, SLICE_LITERAL("NOAUTH")) ||
                     slice_starts_with(text, SLICE_LITERAL("WRONGPASS"));
    return is_access ? ERR_PERMISSION : ERR_CONFIG;
}

static enum err greet(struct gate_redis_link *link, const struct gate_redis_link_options *options,
                      struct err_detail *detail)
{
    char database[16];
    (void)snprintf(database, sizeof(database), "%u", options->database);
    bool has_user = options->user[0] != '\0';
    struct slice auth[3] = {SLICE_LITERAL("AUTH"), slice_from_text(options->user),
                            slice_from_text(options->password)};
    struct slice select[2] = {SLICE_LITERAL("SELECT"), slice_from_text(database)};
    struct slice ping = SLICE_LITERAL("PING");
    enum err err = ERR_OK;
    uint32_t count = 1;
    if (options->password[0] != '\0') {
        auth[1] = has_user ? auth[1] : auth[2];
        err = gate_redis_link_append(link, has_user ? 3 : 2, auth);
        count++;
    }
    if (err == ERR_OK && options->database != 0) {
        err = gate_redis_link_append(link, 2, select);
        count++;
    }
    if (err == ERR_OK) {
        err = gate_redis_link_append(link, 1, &ping);
    }
    if (err == ERR_OK) {
        err = gate_redis_link_flush(link, options->deadline_ms);
    }
    assert(count <= LINK_GREETINGS_MAX);
    for (uint32_t i = 0; i < count && err == ERR_OK; i++) {
        redisReply *reply = NULL;
        err = gate_redis_link_read(link, options->deadline_ms, &reply);
        if (err == ERR_OK) {
            err = greeting_check(reply, detail);
            freeReplyObject(reply);
        } else {
            err_detail_set(detail, "no answer to the greeting: %s", err_text(err));
        }
    }
    return err;
}

void gate_redis_link_prefix(struct err_detail *detail, const struct gate_redis_address *address)
{
    if (address->port == 0) {
        err_detail_prefix(detail, "%s", address->host);
    } else {
        err_detail_prefix(detail, "%s:%u", address->host, address->port);
    }
}

enum err gate_redis_link_open(struct gate_redis_link **ret,
                              const struct gate_redis_link_options *options,
                              struct err_detail *detail)
{
    const struct gate_redis_address *address = options->address;
    struct gate_redis_link *link = mem_alloc(sizeof(*link));
    link->fd = -1;
    link->used_ms = clock_mono_ms();
    buffer_init(&link->out, LINK_OUT_BYTES_MAX);
    link->reader = redisReaderCreate();
    enum err err = link->reader == NULL ? ERR_NO_MEMORY : ERR_OK;
    if (err == ERR_OK) {
        err = address->port == 0 ? connect_unix(link, address->host, options->deadline_ms, detail)
                                 : connect_host(link, address, options->deadline_ms, detail);
    }
    if (err == ERR_OK && options->tls != NULL) {
        err = start_tls(link, options, detail);
    }
    if (err == ERR_OK) {
        err = greet(link, options, detail);
    }
    if (err != ERR_OK) {
        gate_redis_link_prefix(detail, address);
        goto out;
    }
    *ret = link;
    link = NULL;
out:
    gate_redis_link_close(link);
    return err;
}

void gate_redis_link_close(struct gate_redis_link *link)
{
    if (link == NULL) {
        return;
    }
    SSL_free(link->ssl);
    if (link->fd >= 0) {
        (void)sys_close(link->fd);
    }
    if (link->reader != NULL) {
        redisReaderFree(link->reader);
    }
    buffer_finish(&link->out);
    mem_free(link);
}
