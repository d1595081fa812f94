/* A real server in this process, on a free port, and a plain client: for the tests of the loop. The
 * handler does what the path says; the paths stand at the table of routes.
 *
 * Included by one test each. Waiting is always on a socket or a mailbox, with a bound of 20 s that
 * only a failure reaches. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/limits.h"
#include "base/mailbox.h"
#include "base/mem.h"
#include "base/thread.h"
#include "http/http.h"

#define RIG_WAIT_MS  60000
#define RIG_ECHO_MAX ((size_t)4 << 20)

/* What the handler keeps of a request. */
struct rig_state {
    struct mail mail; /* from the test to the loop */
    struct http_request *request;
    struct buffer body;
    uint64_t bytes;
    uint64_t left; /* of a stream */
    uint32_t pieces;
    uint32_t fulls;
    bool is_finished;
};

struct rig {
    struct http_server *server;
    struct thread *threads[8];
    uint32_t loops;
    struct mailbox *held; /* requests of /late, /pause: the test takes them */
    struct mailbox *done; /* finished requests of /late and /pause */
    uint16_t port;
    /* Written by the loops; read once they are joined, or with one loop after its answer. */
    uint32_t heads;
    uint32_t finishes;
    uint32_t rounds_with_work;
};

static struct rig rig;

static inline void *rig_on_loop_start(void *owner, struct http_loop *loop)
{
    (void)loop;
    return owner;
}

static inline void rig_on_context(void *context)
{
    (void)context;
}

static inline void rig_nothing(struct mail *mail)
{
    (void)mail;
}

static inline void rig_stream_on(struct http_request *request)
{
    struct rig_state *state = http_request_state(request);
    static uint8_t page[50000];
    while (state->left > 0) {
        size_t size = state->left < sizeof(page) ? (size_t)state->left : sizeof(page);
        for (size_t i = 0; i < size; i++) {
            page[i] = (uint8_t)((state->bytes + i) % 251);
        }
        size_t room = http_stream_room(request);
        enum err err = http_stream_write(request, slice_make(page, size));
        if (err != ERR_OK) {
            assert_true(err == ERR_FULL && room == 0);
            state->fulls++;
            return;
        }
        assert_true(room > 0);
        state->bytes += size;
        state->left -= size;
    }
    http_stream_end(request);
}

static inline bool rig_is(const struct http_route *route, const char *name)
{
    return strcmp(route->data, name) == 0;
}

static inline void rig_head_of_stream(struct http_request *request, struct rig_state *state)
{
    struct slice n = {NULL, 0};
    assert_true(http_request_query(request, "n", &n) && slice_to_u64(n, &state->left));
    http_stream_begin(request, 200, "application/octet-stream", HTTP_IDENTITY);
    rig_stream_on(request);
}

static inline void rig_on_head(struct http_request *request, const struct http_route *route)
{
    struct rig_state *state = mem_alloc(sizeof(*state));
    state->request = request;
    buffer_init(&state->body, RIG_ECHO_MAX);
    http_request_set_state(request, state);
    __atomic_fetch_add(&rig.heads, 1, __ATOMIC_RELAXED);
    if (rig_is(route, "hello")) {
        http_reply(request, 200, "text/plain", SLICE_LITERAL("hello"));
    } else if (rig_is(route, "refuse")) {
        http_reply_error(request, 403, "forbidden", "No.");
    } else if (rig_is(route, "stream")) {
        rig_head_of_stream(request, state);
    } else if (rig_is(route, "abort")) {
        http_stream_begin(request, 200, "text/plain", HTTP_IDENTITY);
        assert_int_equal(http_stream_write(request, SLICE_LITERAL("part")), ERR_OK);
        http_stream_abort(request);
    } else if (rig_is(route, "param")) {
        struct slice value = http_request_param(request, 0);
        http_reply(request, 200, "text/plain", value);
    } else {
        http_body_accept(request, rig_is(route, "limit") ? 1000 : 0);
    }
}

/* Gives the request to the test, which sends its mail back to go on. */
static inline void rig_hold(struct http_request *request)
{
    struct rig_state *state = http_request_state(request);
    http_request_ref(request);
    state->mail.on_arrive = rig_nothing;
    mailbox_answer(rig.held, &state->mail);
}

static inline bool rig_path_is(const struct http_request *request, const char *path)
{
    return slice_equal(http_request_path(request), slice_from_text(path));
}

static inline void rig_on_body(struct http_request *request, struct slice chunk)
{
    struct rig_state *state = http_request_state(request);
    state->bytes += chunk.size;
    state->pieces++;
    if (rig_path_is(request, "/echo")) {
        assert_int_equal(buffer_append_slice(&state->body, chunk), ERR_OK);
    }
    if (rig_path_is(request, "/pause") && state->pieces == 1) {
        http_body_pause(request);
        rig_hold(request);
    }
    if (rig_path_is(request, "/early")) {
        http_reply_error(request, 422, "invalid", "Enough.");
    }
}

static inline void rig_on_body_end(struct http_request *request)
{
    struct rig_state *state = http_request_state(request);
    char text[32];
    if (rig_path_is(request, "/echo")) {
        http_reply(request, 200, "application/octet-stream", buffer_slice(&state->body));
    } else if (rig_path_is(request, "/late")) {
        rig_hold(request);
    } else {
        int size = snprintf(text, sizeof(text), "%llu", (unsigned long long)state->bytes);
        http_reply(request, 200, "text/plain", slice_make(text, (size_t)size));
    }
}

static inline void rig_free(struct rig_state *state)
{
    buffer_finish(&state->body);
    mem_free(state);
}

static inline void rig_on_finish(struct http_request *request)
{
    struct rig_state *state = http_request_state(request);
    assert_false(state->is_finished);
    assert_false(http_request_is_open(request));
    state->is_finished = true;
    __atomic_fetch_add(&rig.finishes, 1, __ATOMIC_RELAXED);
    if (!rig_path_is(request, "/late") && !rig_path_is(request, "/pause")) {
        rig_free(state);
    }
}

/* On the loop: the test lets a held request of /late be answered. */
static inline void rig_answer_late(struct mail *mail)
{
    struct rig_state *state = (struct rig_state *)(void *)mail;
    struct http_request *request = state->request;
    http_reply(request, 202, "text/plain", SLICE_LITERAL("late"));
    http_request_unref(request);
}

static inline void rig_resume(struct mail *mail)
{
    struct rig_state *state = (struct rig_state *)(void *)mail;
    http_body_resume(state->request);
    http_request_unref(state->request);
}

static const struct http_handler rig_handler = {
    .on_loop_start = rig_on_loop_start,
    .on_loop_stop = rig_on_context,
    .on_collected = rig_on_context,
    .on_head = rig_on_head,
    .on_body = rig_on_body,
    .on_body_end = rig_on_body_end,
    .on_stream_room = rig_stream_on,
    .on_finish = rig_on_finish,
};

static const struct http_route rig_routes[] = {
    {HTTP_GET, "/hello", "hello"},     /* "hello" */
    {HTTP_POST, "/echo", "echo"},      /* the body */
    {HTTP_POST, "/count", "count"},    /* its size */
    {HTTP_POST, "/limit", "limit"},    /* its size, at most 1000 */
    {HTTP_POST, "/late", "late"},      /* 202 when the test says so */
    {HTTP_POST, "/pause", "pause"},    /* its size; pauses after the first piece */
    {HTTP_POST, "/refuse", "refuse"},  /* 403 before the body */
    {HTTP_POST, "/early", "early"},    /* 422 at the first piece */
    {HTTP_GET, "/stream", "stream"},   /* ?n= bytes */
    {HTTP_GET, "/abort", "abort"},     /* a stream that breaks off */
    {HTTP_GET, "/param/{x}", "param"}, /* x */
};

static inline struct http_options rig_defaults(void)
{
    return (struct http_options){
        .host = "127.0.0.1",
        .loops = 1,
        .routes = rig_routes,
        .route_count = sizeof(rig_routes) / sizeof(rig_routes[0]),
        .handler = &rig_handler,
        .connections_max = 10000,
        .connections_per_address_max = 10000,
        .head_timeout_ms = 60000,
        .idle_timeout_ms = 60000,
        .body_grace_ms = 60000,
        .rate_min_bytes_per_s = 1,
    };
}

static inline void rig_open(const struct http_options *options)
{
    struct err_detail detail = {""};
    memset(&rig, 0, sizeof(rig));
    assert_int_equal(hash_start(), ERR_OK);
    assert_int_equal(mailbox_create(&rig.held, 10000), ERR_OK);
    if (http_server_open(&rig.server, options, &detail) != ERR_OK) {
        fail_msg("%s", detail.text);
    }
    rig.loops = options->loops;
    rig.port = http_server_port(rig.server);
    for (uint32_t i = 0; i < rig.loops; i++) {
        assert_int_equal(
            thread_start(&rig.threads[i], "loop", http_loop_run, http_server_loop(rig.server, i)),
            ERR_OK);
    }
}

static inline void rig_join(void)
{
    for (uint32_t i = 0; i < rig.loops; i++) {
        thread_join(rig.threads[i]);
        rig.threads[i] = NULL;
    }
}

static inline void rig_close(void)
{
    http_server_drain(rig.server, 0);
    rig_join();
    http_server_close(rig.server);
    mailbox_destroy(rig.held);
    assert_int_equal(rig.heads, rig.finishes);
}

/* The next request that the handler holds. */
static inline struct rig_state *rig_take_held(void)
{
    static struct mail *waiting;
    uint32_t waits = 0;
    while (waiting == NULL) {
        mailbox_wait(rig.held, RIG_WAIT_MS);
        waiting = mailbox_take_all(rig.held);
        waits++;
        assert_true(waits < 3);
    }
    struct mail *mail = waiting;
    waiting = mail->next;
    return (struct rig_state *)(void *)mail;
}

static inline void rig_send_back(struct rig_state *state, void (*on_arrive)(struct mail *mail))
{
    struct http_loop *loop = http_request_loop(state->request);
    state->mail.on_arrive = on_arrive;
    mailbox_answer(http_loop_mailbox(loop), &state->mail);
}

/* --- client ----------------------------------------------------------------------------------- */

static inline int client_open_from(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(rig.port)};
    struct sockaddr_in from = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(inet_pton(AF_INET, "127.0.0.1", &to.sin_addr), 1);
    assert_int_equal(inet_pton(AF_INET, address, &from.sin_addr), 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static inline int client_open(void)
{
    return client_open_from("127.0.0.1");
}

static inline void client_send(int fd, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    while (size > 0) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        assert_true(sent > 0);
        bytes += sent;
        size -= (size_t)sent;
    }
}

static inline void client_send_text(int fd, const char *text)
{
    client_send(fd, text, strlen(text));
}

/* At least one byte; 0: the server closed; -1: it reset. */
static inline ssize_t client_read(int fd, void *to, size_t size)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, RIG_WAIT_MS), 1);
    return recv(fd, to, size, 0);
}

struct answer {
    int status;
    size_t head_size;
    size_t body_size;
    char head[4096];
    char body[RIG_ECHO_MAX];
};

static inline void read_line(int fd, char *to, size_t room)
{
    size_t size = 0;
    while (size < 2 || memcmp(to + size - 2, "\r\n", 2) != 0) {
        assert_true(size + 1 < room);
        assert_int_equal(client_read(fd, to + size, 1), 1);
        size++;
    }
    to[size - 2] = 0;
}

static inline void read_exactly(int fd, char *to, size_t size)
{
    while (size > 0) {
        ssize_t got = client_read(fd, to, size);
        assert_true(got > 0);
        to += got;
        size -= (size_t)got;
    }
}

static inline bool has_line(const struct answer *answer, const char *line)
{
    return strstr(answer->head, line) != NULL;
}

static inline void read_head(int fd, struct answer *answer)
{
    size_t size = 0;
    while (size < 4 || memcmp(answer->head + size - 4, "\r\n\r\n", 4) != 0) {
        assert_true(size + 1 < sizeof(answer->head));
        assert_int_equal(client_read(fd, answer->head + size, 1), 1);
        size++;
    }
    answer->head[size] = 0;
    answer->head_size = size;
    assert_memory_equal(answer->head, "HTTP/1.1 ", 9);
    answer->status = (int)strtol(answer->head + 9, NULL, 10);
    answer->body_size = 0;
}

/* One whole answer, by Content-Length or chunks. */
static inline void read_answer(int fd, struct answer *answer)
{
    char line[64];
    read_head(fd, answer);
    const char *length = strstr(answer->head, "Content-Length: ");
    if (length != NULL) {
        answer->body_size = strtoul(length + 16, NULL, 10);
        assert_true(answer->body_size < sizeof(answer->body));
        read_exactly(fd, answer->body, answer->body_size);
    } else if (has_line(answer, "Transfer-Encoding: chunked\r\n")) {
        size_t size = 1;
        while (size > 0) {
            read_line(fd, line, sizeof(line));
            size = strtoul(line, NULL, 16);
            assert_true(answer->body_size + size < sizeof(answer->body));
            read_exactly(fd, answer->body + answer->body_size, size);
            answer->body_size += size;
            read_line(fd, line, sizeof(line));
            assert_string_equal(line, "");
        }
    }
    answer->body[answer->body_size] = 0;
}

static inline void check_closed(int fd)
{
    char byte;
    assert_true(client_read(fd, &byte, 1) <= 0);
    (void)close(fd);
}

#define GET_HELLO "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
