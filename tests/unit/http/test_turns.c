/* Promise: connections that become ready in the same round get what each would get alone, whatever
 * the others do, and in the order of its own requests.
 *
 * The loop is held in a mail while the clients write, so that it finds them all at once. What each
 * must get is HTTP's: RFC 9112 9.3 (persistence, pipelining), 9.6 (closing), RFC 9110 15.5.1. */
#include <semaphore.h>

#include "server_rig.h"

#define TURNS_CLIENTS 49 /* three turns of sixteen and one more */
#define GET_HELLO     "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST_COUNT    "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"

struct gate {
    struct mail mail;
    sem_t entered;
    sem_t open;
};

static struct answer *answer;

static void wait_at_gate(struct mail *mail)
{
    struct gate *gate = (struct gate *)(void *)mail;
    assert_int_equal(sem_post(&gate->entered), 0);
    assert_int_equal(sem_wait(&gate->open), 0);
}

/* The loop is in the gate's mail when this returns. */
static void hold_loop(struct gate *gate)
{
    gate->mail.on_arrive = wait_at_gate;
    assert_int_equal(sem_init(&gate->entered, 0, 0), 0);
    assert_int_equal(sem_init(&gate->open, 0, 0), 0);
    mailbox_answer(http_loop_mailbox(http_server_loop(rig.server, 0)), &gate->mail);
    assert_int_equal(sem_wait(&gate->entered), 0);
}

static void check_hello(int fd)
{
    read_answer(fd, answer);
    assert_int_equal(answer->status, 200);
    assert_int_equal(answer->body_size, 5);
    assert_memory_equal(answer->body, "hello", 5);
}

static void check_count(int fd)
{
    read_answer(fd, answer);
    assert_int_equal(answer->status, 200);
    assert_int_equal(answer->body_size, 1);
    assert_memory_equal(answer->body, "3", 1);
}

enum client {
    CLIENT_WHOLE,  /* a request with its body */
    CLIENT_HALF,   /* half of a head; the rest when the others were answered */
    CLIENT_LEAVES, /* nothing, and the end */
    CLIENT_LAST,   /* a request and the end */
    CLIENT_THREE,  /* three requests at once */
    CLIENT_BAD,    /* no HTTP */
    CLIENT_RESETS, /* a request, and it is gone */
    CLIENT_BODY,   /* a head; its body when the others were answered */
    CLIENT_KINDS,
};

static void write_of(enum client kind, int fd)
{
    static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    static const char *const texts[CLIENT_KINDS] = {
        [CLIENT_WHOLE] = POST_COUNT,
        [CLIENT_HALF] = "GET /hello HT",
        [CLIENT_LEAVES] = "",
        [CLIENT_LAST] = GET_HELLO,
        [CLIENT_THREE] = (GET_HELLO POST_COUNT GET_HELLO),
        [CLIENT_BAD] = "\x01\x02\r\n\r\n",
        [CLIENT_RESETS] = GET_HELLO,
        [CLIENT_BODY] = "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
    };
    client_send_text(fd, texts[kind]);
    if (kind == CLIENT_LEAVES || kind == CLIENT_LAST) {
        assert_int_equal(shutdown(fd, SHUT_WR), 0);
    }
    if (kind == CLIENT_RESETS) {
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
        assert_int_equal(close(fd), 0);
    }
}

static void check_first(enum client kind, int fd)
{
    if (kind == CLIENT_WHOLE) {
        check_count(fd);
    } else if (kind == CLIENT_LEAVES) {
        check_closed(fd);
    } else if (kind == CLIENT_LAST) {
        check_hello(fd);
        check_closed(fd);
    } else if (kind == CLIENT_THREE) {
        check_hello(fd);
        check_count(fd);
        check_hello(fd);
    } else if (kind == CLIENT_BAD) {
        read_answer(fd, answer);
        assert_int_equal(answer->status, 400);
        check_closed(fd);
    }
}

static void check_rest(enum client kind, int fd)
{
    if (kind == CLIENT_HALF) {
        client_send_text(fd, "TP/1.1\r\nHost: a\r\n\r\n");
        check_hello(fd);
        assert_int_equal(close(fd), 0);
    } else if (kind == CLIENT_BODY) {
        client_send_text(fd, "abc");
        check_count(fd);
        assert_int_equal(close(fd), 0);
    } else if (kind == CLIENT_WHOLE || kind == CLIENT_THREE) {
        assert_int_equal(close(fd), 0);
    }
}

/* `offset` shifts who stands where in a turn. */
static void run_all_at_once(uint32_t offset)
{
    struct http_options options = rig_defaults();
    struct gate gate;
    int fds[TURNS_CLIENTS];
    rig_open(&options);
    for (uint32_t i = 0; i < TURNS_CLIENTS; i++) {
        fds[i] = client_open();
        client_send_text(fds[i], GET_HELLO);
        check_hello(fds[i]);
    }
    hold_loop(&gate);
    for (uint32_t i = 0; i < TURNS_CLIENTS; i++) {
        write_of((i + offset) % CLIENT_KINDS, fds[i]);
    }
    int late = client_open(); /* one to accept among them */
    client_send_text(late, GET_HELLO);
    assert_int_equal(sem_post(&gate.open), 0);
    for (uint32_t i = 0; i < TURNS_CLIENTS; i++) {
        check_first((i + offset) % CLIENT_KINDS, fds[i]);
    }
    for (uint32_t i = 0; i < TURNS_CLIENTS; i++) {
        check_rest((i + offset) % CLIENT_KINDS, fds[i]);
    }
    check_hello(late);
    assert_int_equal(close(late), 0);
    rig_close();
    assert_int_equal(sem_destroy(&gate.entered), 0);
    assert_int_equal(sem_destroy(&gate.open), 0);
}

static void test_all_at_once(void **state)
{
    (void)state;
    for (uint32_t offset = 0; offset < CLIENT_KINDS; offset++) {
        run_all_at_once(offset);
    }
}

/* More than a turn of pipelined requests on one connection, beside others. */
static void test_deep_pipeline_among_others(void **state)
{
    struct http_options options = rig_defaults();
    struct gate gate;
    int fds[20];
    (void)state;
    rig_open(&options);
    for (uint32_t i = 0; i < 20; i++) {
        fds[i] = client_open();
    }
    hold_loop(&gate);
    for (uint32_t i = 0; i < 20; i++) {
        for (uint32_t k = 0; k < (i == 10 ? 200 : 2); k++) {
            client_send_text(fds[i], k % 2 == 0 ? POST_COUNT : GET_HELLO);
        }
    }
    assert_int_equal(sem_post(&gate.open), 0);
    for (uint32_t i = 0; i < 20; i++) {
        for (uint32_t k = 0; k < (i == 10 ? 200 : 2); k++) {
            if (k % 2 == 0) {
                check_count(fds[i]);
            } else {
                check_hello(fds[i]);
            }
        }
        assert_int_equal(close(fds[i]), 0);
    }
    rig_close();
    assert_int_equal(sem_destroy(&gate.entered), 0);
    assert_int_equal(sem_destroy(&gate.open), 0);
}

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_deep_pipeline_among_others),
    };
    return cmocka_run_group_tests(tests, make_answer, free_answer);
}
