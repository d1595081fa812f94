/* Every request is answered once and in order, whatever the framing, the pace of the client and the
 * thread that answers; every on_head has its on_finish. */
#include "server_rig.h"

#include <malloc.h>

static struct answer *answer;

static int make_answer(void **state)
{
    (void)state;
    answer = mem_alloc(sizeof(*answer));
    return 0;
}

static int free_answer(void **state)
{
    (void)state;
    mem_free(answer);
    return 0;
}

static void open_default(void)
{
    struct http_options options = rig_defaults();
    rig_open(&options);
}

static void check_hello(int fd)
{
    read_answer(fd, answer);
    assert_int_equal(answer->status, 200);
    assert_string_equal(answer->body, "hello");
}

static void test_keep_alive(void **state)
{
    (void)state;
    open_default();
    int fd = client_open();
    for (uint32_t i = 0; i < 3; i++) {
        client_send_text(fd, GET_HELLO);
        check_hello(fd);
        assert_false(has_line(answer, "Connection:"));
        assert_true(has_line(answer, "X-Content-Type-Options: nosniff\r\n"));
        assert_true(has_line(answer, "Date: "));
    }
    client_send_text(fd, "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    check_hello(fd);
    assert_true(has_line(answer, "Connection: close\r\n"));
    check_closed(fd);
    fd = client_open();
    client_send_text(fd, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    check_hello(fd);
    assert_true(has_line(answer, "Connection: keep-alive\r\n"));
    client_send_text(fd, "GET /hello HTTP/1.0\r\n\r\n");
    check_hello(fd);
    assert_true(has_line(answer, "Connection: close\r\n"));
    check_closed(fd);
    rig_close();
}

static void test_pipelining(void **state)
{
    char bytes[16384];
    size_t size = 0;
    (void)state;
    open_default();
    int fd = client_open();
    for (uint32_t i = 0; i < 200; i++) {
        size += (size_t)snprintf(bytes + size, sizeof(bytes) - size,
                                 "GET /param/%u HTTP/1.1\r\nHost: a\r\n\r\n", i);
    }
    client_send(fd, bytes, size);
    for (uint32_t i = 0; i < 200; i++) {
        char wanted[16];
        (void)snprintf(wanted, sizeof(wanted), "%u", i);
        read_answer(fd, answer);
        assert_string_equal(answer->body, wanted);
    }
    /* The twin: the request that is malformed ends it, those before it are answered. */
    client_send_text(fd, GET_HELLO "GET /hello HTTP/1.1\r\n\r\n" GET_HELLO);
    check_hello(fd);
    read_answer(fd, answer);
    assert_int_equal(answer->status, 400);
    assert_true(has_line(answer, "Connection: close\r\n"));
    check_closed(fd);
    rig_close();
}

static void test_bytes_one_by_one(void **state)
{
    static const char bytes[] =
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n" GET_HELLO;
    (void)state;
    open_default();
    int fd = client_open();
    for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
        client_send(fd, bytes + i, 1);
    }
    check_hello(fd);
    read_answer(fd, answer);
    assert_string_equal(answer->body, "abcde");
    check_hello(fd);
    rig_close();
    (void)close(fd);
}

/* A body of `size` bytes comes back as it went. */
static void check_echo(int fd, size_t size, bool chunked)
{
    char head[128];
    uint8_t *body = mem_alloc(size + 1);
    for (size_t i = 0; i < size; i++) {
        body[i] = (uint8_t)(i * 7 % 253);
    }
    if (chunked) {
        client_send_text(fd,
                         "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (size_t at = 0; at < size;) {
            size_t part = size - at < 10000 + at / 3 ? size - at : 10000 + at / 3;
            (void)snprintf(head, sizeof(head), "%zx\r\n", part);
            client_send_text(fd, head);
            client_send(fd, body + at, part);
            client_send_text(fd, "\r\n");
            at += part;
        }
        client_send_text(fd, "0\r\n\r\n");
    } else {
        (void)snprintf(head, sizeof(head),
                       "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", size);
        client_send_text(fd, head);
        client_send(fd, body, size);
    }
    read_answer(fd, answer);
    assert_int_equal(answer->body_size, size);
    assert_memory_equal(answer->body, body, size);
    mem_free(body);
}

static void test_bodies_of_all_sizes(void **state)
{
    (void)state;
    open_default();
    int fd = client_open();
    for (size_t size = 0; size < ((size_t)3 << 20); size = size * 3 + 1) {
        check_echo(fd, size, false);
        check_echo(fd, size, true);
    }
    rig_close();
    (void)close(fd);
}

static void test_continue(void **state)
{
    char line[64];
    (void)state;
    open_default();
    int fd = client_open();
    client_send_text(fd, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
                         "Expect: 100-continue\r\n\r\n");
    read_line(fd, line, sizeof(line));
    assert_string_equal(line, "HTTP/1.1 100 Continue");
    read_line(fd, line, sizeof(line));
    client_send_text(fd, "hello");
    read_answer(fd, answer);
    assert_string_equal(answer->body, "5");
    /* The body came at once: nobody waits for a 100. */
    client_send_text(fd, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
                         "Expect: 100-continue\r\n\r\nhello");
    read_answer(fd, answer);
    assert_int_equal(answer->status, 200);
    /* The twin: refused before; whether the body follows is not known, so it closes. */
    client_send_text(fd, "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
                         "Expect: 100-continue\r\n\r\n");
    read_answer(fd, answer);
    assert_int_equal(answer->status, 403);
    assert_true(has_line(answer, "Connection: close\r\n"));
    check_closed(fd);
    rig_close();
}

static void test_head(void **state)
{
    (void)state;
    open_default();
    int fd = client_open();
    client_send_text(fd, "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n"
                         "HEAD /stream?n=100000 HTTP/1.1\r\nHost: a\r\n\r\n" GET_HELLO);
    read_head(fd, answer);
    assert_true(has_line(answer, "Content-Length: 5\r\n"));
    read_head(fd, answer);
    assert_true(has_line(answer, "Transfer-Encoding: chunked\r\n"));
    check_hello(fd);
    rig_close();
    (void)close(fd);
}

#define LATE "POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"

static void test_answers_from_elsewhere(void **state)
{
    int fds[100];
    struct rig_state *held[100];
    (void)state;
    open_default();
    for (uint32_t i = 0; i < 100; i++) {
        fds[i] = client_open();
        client_send_text(fds[i], LATE GET_HELLO);
    }
    for (uint32_t i = 0; i < 100; i++) {
        held[i] = rig_take_held();
    }
    for (uint32_t i = 100; i > 0; i--) {
        rig_send_back(held[i - 1], rig_answer_late);
    }
    for (uint32_t i = 0; i < 100; i++) {
        read_answer(fds[i], answer);
        assert_int_equal(answer->status, 202);
        assert_string_equal(answer->body, "late");
        check_hello(fds[i]);
        (void)close(fds[i]);
    }
    rig_close();
    for (uint32_t i = 0; i < 100; i++) {
        rig_free(held[i]);
    }
}

/* On the loop: the request is still readable although its connection is gone. */
static void check_gone(struct mail *mail)
{
    struct rig_state *state = (struct rig_state *)(void *)mail;
    struct http_request *request = state->request;
    assert_false(http_request_is_open(request));
    assert_true(slice_equal(http_request_header(request, "host"), SLICE_LITERAL("a")));
    assert_true(slice_equal(http_request_address(request), SLICE_LITERAL("127.0.0.1")));
    http_reply(request, 202, "text/plain", SLICE_LITERAL("late")); /* nothing happens */
    http_request_unref(request);
    mail->on_arrive = rig_nothing;
    mailbox_answer(rig.held, mail);
}

static void test_peer_goes_away(void **state)
{
    (void)state;
    open_default();
    int fd = client_open();
    client_send_text(fd, LATE);
    struct rig_state *held = rig_take_held();
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    (void)close(fd);
    /* Another request on the same loop, answered: events before it were seen. */
    fd = client_open();
    client_send_text(fd, GET_HELLO);
    check_hello(fd);
    rig_send_back(held, check_gone);
    assert_ptr_equal(rig_take_held(), held);
    assert_true(held->is_finished);
    rig_close();
    rig_free(held);
    (void)close(fd);
}

static void test_half_closed_peer_is_answered(void **state)
{
    (void)state;
    open_default();
    int fd = client_open();
    client_send_text(fd, LATE);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    struct rig_state *held = rig_take_held();
    rig_send_back(held, rig_answer_late);
    read_answer(fd, answer);
    assert_int_equal(answer->status, 202);
    check_closed(fd);
    rig_close();
    rig_free(held);
}

static void test_pause_holds_the_client(void **state)
{
    size_t total = (size_t)64 << 20;
    size_t sent = 0;
    uint8_t *block = mem_alloc(1 << 20);
    char head[128];
    (void)state;
    open_default();
    int fd = client_open();
    (void)snprintf(head, sizeof(head),
                   "POST /pause HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", total);
    client_send_text(fd, head);
    client_send(fd, block, 100);
    sent = 100;
    struct rig_state *held = rig_take_held();
    /* The kernel's buffers fill, then the client cannot go on. */
    ssize_t size = 1;
    while (size > 0 && sent < total) {
        size = send(fd, block, 1 << 20, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += size > 0 ? (size_t)size : 0;
    }
    assert_true(size < 0 && errno == EAGAIN && sent < total);
    rig_send_back(held, rig_resume);
    while (sent < total) {
        size_t part = total - sent < (1 << 20) ? total - sent : (1 << 20);
        client_send(fd, block, part);
        sent += part;
    }
    read_answer(fd, answer);
    assert_string_equal(answer->body, "67108864");
    rig_close();
    rig_free(held);
    mem_free(block);
    (void)close(fd);
}

/* The stream is not read until another connection was served, so the server's buffer fills. */
static void test_stream_with_a_slow_reader(void **state)
{
    size_t total = 40000000;
    size_t got = 0;
    uint8_t *page = mem_alloc(1 << 20);
    char line[64];
    (void)state;
    open_default();
    int fd = client_open();
    client_send_text(fd, "GET /stream?n=40000000 HTTP/1.1\r\nHost: a\r\n\r\n" GET_HELLO);
    read_head(fd, answer);
    assert_true(has_line(answer, "Transfer-Encoding: chunked\r\n"));
    /* Others are served while this one is not read. */
    int other = client_open();
    client_send_text(other, GET_HELLO);
    struct answer *second = mem_alloc(sizeof(*second));
    read_answer(other, second);
    assert_int_equal(second->status, 200);
    mem_free(second);
    for (;;) {
        read_line(fd, line, sizeof(line));
        size_t size = strtoul(line, NULL, 16);
        if (size == 0) {
            break;
        }
        read_exactly(fd, (char *)page, size);
        for (size_t i = 0; i < size; i++) {
            assert_int_equal(page[i], (got + i) % 251);
        }
        got += size;
        read_line(fd, line, sizeof(line));
    }
    read_line(fd, line, sizeof(line));
    assert_int_equal(got, total);
    check_hello(fd);
    rig_close();
    mem_free(page);
    (void)close(fd);
    (void)close(other);
}

static void test_stream_to_an_old_client(void **state)
{
    char bytes[1000];
    size_t got = 0;
    ssize_t size = 0;
    (void)state;
    open_default();
    int fd = client_open();
    client_send_text(fd, "GET /stream?n=300000 HTTP/1.0\r\n\r\n");
    read_head(fd, answer);
    assert_true(has_line(answer, "Connection: close\r\n"));
    assert_false(has_line(answer, "Transfer-Encoding"));
    while ((size = client_read(fd, bytes, sizeof(bytes))) > 0) {
        got += (size_t)size;
    }
    assert_int_equal(size, 0);
    assert_int_equal(got, 300000);
    (void)close(fd);
    /* The twin: a stream that breaks off has no last chunk. */
    fd = client_open();
    client_send_text(fd, "GET /abort HTTP/1.1\r\nHost: a\r\n\r\n");
    got = 0;
    while ((size = client_read(fd, bytes + got, sizeof(bytes) - got)) > 0) {
        got += (size_t)size;
    }
    assert_true(got < 5 || memcmp(bytes + got - 5, "0\r\n\r\n", 5) != 0);
    (void)close(fd);
    rig_close();
}

static void test_too_large_bodies(void **state)
{
    uint8_t *block = mem_alloc(1 << 20);
    (void)state;
    open_default();
    int fd = client_open();
    /* Exactly the limit is fine; one more is refused, and so little is dropped. */
    client_send_text(fd, "POST /limit HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    client_send(fd, block, 1000);
    read_answer(fd, answer);
    assert_string_equal(answer->body, "1000");
    client_send_text(fd, "POST /limit HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n");
    client_send(fd, block, 1001);
    read_answer(fd, answer);
    assert_int_equal(answer->status, 413);
    client_send_text(fd, "POST /limit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                         "3e9\r\n");
    client_send(fd, block, 1001);
    client_send_text(fd, "\r\n0\r\n\r\n" GET_HELLO);
    read_answer(fd, answer);
    assert_int_equal(answer->status, 413);
    check_hello(fd);
    /* A body that is not worth reading: the client, which goes on sending, still gets the answer.
     */
    client_send_text(fd, "POST /limit HTTP/1.1\r\nHost: a\r\nContent-Length: 8388608\r\n\r\n");
    for (uint32_t i = 0; i < 8; i++) {
        client_send(fd, block, 1 << 20);
    }
    read_answer(fd, answer);
    assert_int_equal(answer->status, 413);
    assert_true(has_line(answer, "Connection: close\r\n"));
    check_closed(fd);
    /* Answered at the first piece: the rest is dropped, the connection goes on. */
    fd = client_open();
    client_send_text(fd, "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    read_answer(fd, answer);
    assert_int_equal(answer->status, 422);
    client_send_text(fd, "56789" GET_HELLO);
    check_hello(fd);
    rig_close();
    mem_free(block);
    (void)close(fd);
}

static void test_refusals_keep_the_connection(void **state)
{
    static const struct {
        int status;
        const char *bytes;
    } rows[] = {
        {404, "POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"},
        {405, "PUT /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"},
        {501, "BREW /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"},
        {417, "POST /count HTTP/1.1\r\nHost: a\r\nExpect: a\r\nContent-Length: 3\r\n\r\nabc"},
        {415, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Encoding: deflate\r\n"
              "Content-Length: 3\r\n\r\nabc"},
        {415, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n"
              "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"},
        {400, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n"
              "Content-Length: 3\r\n\r\nabc"},
        {204, "OPTIONS /hello HTTP/1.1\r\nHost: a\r\n\r\n"},
        {204, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"},
    };
    (void)state;
    open_default();
    int fd = client_open();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        client_send_text(fd, rows[i].bytes);
        read_answer(fd, answer);
        assert_int_equal(answer->status, rows[i].status);
        assert_false(has_line(answer, "Connection: close"));
        assert_true(rows[i].status != 405 || has_line(answer, "Allow: GET, HEAD, OPTIONS\r\n"));
        assert_false(has_line(answer, "Access-Control"));
        client_send_text(fd, GET_HELLO);
        check_hello(fd);
    }
    rig_close();
    (void)close(fd);
}

static void test_chunk_faults_close(void **state)
{
    (void)state;
    open_default();
    int fd = client_open();
    client_send_text(fd, "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                         "3\r\nabcX" GET_HELLO);
    read_answer(fd, answer);
    assert_int_equal(answer->status, 400);
    assert_true(has_line(answer, "Connection: close\r\n"));
    check_closed(fd);
    rig_close();
}

static void test_ids_parameters_and_queries(void **state)
{
    (void)state;
    open_default();
    int fd = client_open();
    client_send_text(fd,
                     "GET /param/a%2Fb%20c+d HTTP/1.1\r\nHost: a\r\nX-Request-Id: my-id\r\n\r\n");
    read_answer(fd, answer);
    assert_string_equal(answer->body, "a/b c+d");
    assert_true(has_line(answer, "X-Request-Id: my-id\r\n"));
    client_send_text(fd, "GET /hello HTTP/1.1\r\nHost: a\r\nX-Request-Id: my id\r\n\r\n");
    check_hello(fd);
    assert_true(has_line(answer, "X-Request-Id: "));
    assert_false(has_line(answer, "my id"));
    rig_close();
    (void)close(fd);
}

static void test_cors(void **state)
{
    struct http_options options = rig_defaults();
    options.cors_allowed_origins = "https://x.example, https://a.example";
    (void)state;
    rig_open(&options);
    int fd = client_open();
    client_send_text(fd, "GET /hello HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n\r\n");
    check_hello(fd);
    assert_true(has_line(answer, "Access-Control-Allow-Origin: https://a.example\r\n"));
    assert_true(has_line(answer, "Vary: Origin\r\n"));
    client_send_text(fd, "OPTIONS /echo HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n"
                         "Access-Control-Request-Method: POST\r\n"
                         "Access-Control-Request-Headers: x-api-key\r\n\r\n");
    read_answer(fd, answer);
    assert_true(has_line(answer, "Access-Control-Allow-Methods: POST, OPTIONS\r\n"));
    assert_true(has_line(answer, "Access-Control-Allow-Headers: x-api-key\r\n"));
    /* The twin. */
    client_send_text(fd, "GET /hello HTTP/1.1\r\nHost: a\r\nOrigin: https://b.example\r\n\r\n");
    check_hello(fd);
    assert_false(has_line(answer, "Access-Control"));
    rig_close();
    (void)close(fd);
}

/* One is short in each of these, so that a slow machine runs into no other. */
static void test_a_head_has_its_time(void **state)
{
    struct http_options options = rig_defaults();
    options.head_timeout_ms = 20;
    (void)state;
    rig_open(&options);
    int fd = client_open();
    client_send_text(fd, "GET /hello HTTP/1.1\r\nHos");
    read_answer(fd, answer);
    assert_int_equal(answer->status, 408);
    assert_true(has_line(answer, "Connection: close\r\n"));
    check_closed(fd);
    rig_close();
}

static void test_a_body_and_a_reader_have_their_time(void **state)
{
    struct http_options options = rig_defaults();
    options.body_grace_ms = 20;
    options.rate_min_bytes_per_s = 1000000;
    (void)state;
    rig_open(&options);
    int fd = client_open();
    client_send_text(fd, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
    read_answer(fd, answer);
    assert_int_equal(answer->status, 408);
    check_closed(fd);
    /* A reader that does not read is cut: the stream cannot end. */
    fd = client_open();
    client_send_text(fd, "GET /stream?n=400000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    struct pollfd poll_fd = {.fd = fd, .events = POLLERR | POLLRDHUP};
    assert_int_equal(poll(&poll_fd, 1, RIG_WAIT_MS), 1);
    (void)close(fd);
    rig_close();
}

static void test_an_idle_connection_has_its_time(void **state)
{
    struct http_options options = rig_defaults();
    options.idle_timeout_ms = 1000; /* enough to send a request in */
    (void)state;
    rig_open(&options);
    /* The twin: a request that waits for us is not timed out. */
    int fd = client_open();
    client_send_text(fd, LATE);
    struct rig_state *held = rig_take_held();
    int idle = client_open();
    check_closed(idle); /* nothing was sent: nothing is answered */
    rig_send_back(held, rig_answer_late);
    read_answer(fd, answer);
    assert_int_equal(answer->status, 202);
    check_closed(fd);
    rig_close();
    rig_free(held);
}

static void test_limits_of_connections(void **state)
{
    struct http_options options = rig_defaults();
    int fds[3];
    options.connections_max = 3;
    options.connections_per_address_max = 2;
    (void)state;
    rig_open(&options);
    for (uint32_t i = 0; i < 2; i++) {
        fds[i] = client_open();
        client_send_text(fds[i], GET_HELLO);
        check_hello(fds[i]);
    }
    check_closed(client_open()); /* a third of one address */
    fds[2] = client_open_from("127.0.0.2");
    client_send_text(fds[2], GET_HELLO);
    check_hello(fds[2]);
    check_closed(client_open_from("127.0.0.3")); /* a fourth in all */
    /* One leaves, another may come. The close is seen before what follows it on this loop. */
    client_send_text(fds[0], "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    check_hello(fds[0]);
    check_closed(fds[0]);
    client_send_text(fds[1], GET_HELLO);
    check_hello(fds[1]);
    fds[0] = client_open();
    client_send_text(fds[0], GET_HELLO);
    check_hello(fds[0]);
    rig_close();
    for (uint32_t i = 0; i < 3; i++) {
        (void)close(fds[i]);
    }
}

static void test_drain(void **state)
{
    (void)state;
    struct http_options options = rig_defaults();
    options.loops = 2;
    rig_open(&options);
    int idle[4];
    for (uint32_t i = 0; i < 4; i++) {
        idle[i] = client_open();
        client_send_text(idle[i], GET_HELLO);
        check_hello(idle[i]);
    }
    int busy = client_open();
    client_send_text(busy, LATE);
    struct rig_state *held = rig_take_held();
    assert_false(http_server_is_draining(rig.server));
    http_server_drain(rig.server, RIG_WAIT_MS);
    assert_true(http_server_is_draining(rig.server));
    for (uint32_t i = 0; i < 4; i++) {
        check_closed(idle[i]);
    }
    rig_send_back(held, rig_answer_late);
    read_answer(busy, answer);
    assert_int_equal(answer->status, 202);
    assert_true(has_line(answer, "Connection: close\r\n"));
    check_closed(busy);
    rig_join();
    rig_free(held);
    rig_close();
}

static void test_drain_cuts_what_does_not_end(void **state)
{
    (void)state;
    open_default();
    int fd = client_open();
    client_send_text(fd, LATE);
    struct rig_state *held = rig_take_held();
    http_server_drain(rig.server, 20);
    check_closed(fd);
    rig_join();
    assert_true(held->is_finished);
    rig_close(); /* frees the request, although we never gave it back */
    rig_free(held);
}

static void test_many_loops(void **state)
{
    struct http_options options = rig_defaults();
    int fds[64];
    options.loops = 4;
    (void)state;
    rig_open(&options);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 64; i++) {
            fds[i] = client_open();
            client_send_text(fds[i], GET_HELLO GET_HELLO);
        }
        for (uint32_t i = 0; i < 64; i++) {
            check_hello(fds[i]);
            check_hello(fds[i]);
            (void)close(fds[i]);
        }
    }
    rig_close();
}

static void test_idle_connections_are_cheap(void **state)
{
    enum { COUNT = 4000 };
    int *fds = mem_alloc_array(COUNT, sizeof(*fds));
    (void)state;
    open_default();
    int fd = client_open();
    client_send_text(fd, GET_HELLO);
    check_hello(fd);
    struct mallinfo2 before = mallinfo2();
    for (uint32_t i = 0; i < COUNT; i++) {
        fds[i] = client_open();
        client_send_text(fds[i], GET_HELLO);
        check_hello(fds[i]);
    }
    struct mallinfo2 after = mallinfo2();
    assert_true(after.uordblks < before.uordblks + (size_t)COUNT * 1024);
    rig_close();
    for (uint32_t i = 0; i < COUNT; i++) {
        (void)close(fds[i]);
    }
    (void)close(fd);
    mem_free(fds);
}

static void test_open_failures(void **state)
{
    struct http_options options = rig_defaults();
    struct http_server *second = NULL;
    struct err_detail detail = {""};
    (void)state;
    rig_open(&options);
    options.port = rig.port;
    assert_int_equal(http_server_open(&second, &options, &detail), ERR_BUSY);
    assert_non_null(strstr(detail.text, "listen on 127.0.0.1"));
    options.port = 0;
    options.tls_cert_file = "no-such-file.pem";
    options.tls_key_file = "no-such-file.pem";
    assert_int_equal(http_server_open(&second, &options, &detail), ERR_CONFIG);
    assert_non_null(strstr(detail.text, "no-such-file.pem"));
    assert_null(second);
    rig_close();
}

#define LOOP_TEST(name) cmocka_unit_test_setup_teardown(name, make_answer, free_answer)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_keep_alive),
        LOOP_TEST(test_pipelining),
        LOOP_TEST(test_bytes_one_by_one),
        LOOP_TEST(test_bodies_of_all_sizes),
        LOOP_TEST(test_continue),
        LOOP_TEST(test_head),
        LOOP_TEST(test_answers_from_elsewhere),
        LOOP_TEST(test_peer_goes_away),
        LOOP_TEST(test_half_closed_peer_is_answered),
        LOOP_TEST(test_pause_holds_the_client),
        LOOP_TEST(test_stream_with_a_slow_reader),
        LOOP_TEST(test_stream_to_an_old_client),
        LOOP_TEST(test_too_large_bodies),
        LOOP_TEST(test_refusals_keep_the_connection),
        LOOP_TEST(test_chunk_faults_close),
        LOOP_TEST(test_ids_parameters_and_queries),
        LOOP_TEST(test_cors),
        LOOP_TEST(test_a_head_has_its_time),
        LOOP_TEST(test_a_body_and_a_reader_have_their_time),
        LOOP_TEST(test_an_idle_connection_has_its_time),
        LOOP_TEST(test_limits_of_connections),
        LOOP_TEST(test_drain),
        LOOP_TEST(test_drain_cuts_what_does_not_end),
        LOOP_TEST(test_many_loops),
        LOOP_TEST(test_idle_connections_are_cheap),
        LOOP_TEST(test_open_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
