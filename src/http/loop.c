/* Loop: rounds of events, mail, timers, what they made possible, and one send per connection.
 *
 *   wait -> events -> on_collected -> mail -> timers -> ready connections, each with its send
 *        -> on_collected -> the other sends -> closed
 *
 * Edge-triggered and for all events at once: after it was added, a connection costs no epoll_ctl.
 * What was collected from the events is handed over before anything is sent, so that the committer
 * works while we send; what mail and timers answered leaves with its connection's turn, the rest at
 * the round's end. Either way a connection that answered several requests in its turn sends once.
 *
 * Connections have their turn sixteen at a time: all are read, then all heads are taken, then all
 * run; and when answered all run, then all send. The code of one request, ours and the kernel's, is
 * larger than the processor's cache for code: one connection after the other would fetch all of it
 * again for each (decision 0005), and more than sixteen would push out each other's bytes.
 *
 * Happy path: as above; with nothing ready the loop sleeps until an event, mail or a deadline.
 * Failure modes: none of its own; those of a connection are the connection's. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "http/acceptor.h"
#include "http/encode.h"
#include "http/loop.h"

#define EVENTS_PER_ROUND  256
#define TURN_CONNECTIONS  16
#define ENCODED_BYTES_MAX (64u << 20)

/* RFC 9110 5.6.7; the names are those of the C locale, which is set nowhere else. */
static void format_date(char *to, int64_t seconds)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t time = (time_t)seconds;
    struct tm tm = {0};
    char text[HTTP_DATE_BYTES + 64];
    (void)gmtime_r(&time, &tm); /* fails only for years beyond 2^31 */
    int size =
        snprintf(text, sizeof(text), "Date: %.3s, %02d %.3s %04d %02d:%02d:%02d GMT\r\n",
                 days + (ptrdiff_t)tm.tm_wday * 3, tm.tm_mday, months + (ptrdiff_t)tm.tm_mon * 3,
                 tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
    assert(size == (int)HTTP_DATE_BYTES);
    memcpy(to, text, HTTP_DATE_BYTES);
}

static void look_at_clock(struct http_loop *loop)
{
    loop->wall_ms = clock_wall_ms();
    int64_t seconds = loop->wall_ms / 1000;
    loop->now_ns = clock_mono_ns();
    loop->now_ms = loop->now_ns / 1000000;
    if (seconds != loop->date_s) {
        loop->date_s = seconds;
        format_date(loop->date, seconds);
    }
}

/* --- draining --------------------------------------------------------------------------------- */

/* Loop 0 first, so that no connection is handed out after the others heard of it. */
static void on_drain(struct mail *mail)
{
    struct http_loop *loop = LIST_CONTAINER(mail, struct http_loop, drain_mail);
    struct http_server *server = loop->server;
    loop->cut_ms = loop->now_ms + server->drain_grace_ms;
    loop->end_waits_ms = loop->now_ms + server->drain_grace_ms / 2;
    if (loop->index == 0) {
        http_acceptor_stop(server->acceptor);
        for (uint32_t i = 1; i < server->options.loops; i++) {
            mailbox_answer(server->loops[i].mailbox, &server->loops[i].drain_mail);
        }
    }
    struct list_link *link = list_first(&loop->connections);
    while (link != NULL) {
        struct list_link *next = list_after(&loop->connections, link);
        http_connection_drain(LIST_CONTAINER(link, struct http_connection, all_link));
        link = next;
    }
    for (link = list_first(&loop->requests); link != NULL;
         link = list_after(&loop->requests, link)) {
        http_request_end_wait(LIST_CONTAINER(link, struct http_request, all_link));
    }
}

void http_loop_drain(struct http_loop *loop)
{
    mailbox_answer(loop->mailbox, &loop->drain_mail);
}

/* --- life ------------------------------------------------------------------------------------- */

enum err http_loop_init(struct http_loop *loop, struct http_server *server, uint32_t index)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t random[sizeof(loop->id_prefix)];
    loop->server = server;
    loop->index = index;
    loop->drain_mail.on_arrive = on_drain;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        return err_from_errno(errno);
    }
    enum err err = mailbox_create(&loop->mailbox, HTTP_MAILBOX_CAPACITY);
    if (err != ERR_OK) {
        return err;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = loop->mailbox};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, mailbox_fd(loop->mailbox), &event) < 0) {
        return err_from_errno(errno);
    }
    list_init(&loop->connections);
    list_init(&loop->ready);
    list_init(&loop->dirty);
    list_init(&loop->closed);
    list_init(&loop->requests);
    list_init(&loop->free_requests);
    look_at_clock(loop);
    http_wheel_init(&loop->wheel, loop->now_ms);
    buffer_init(&loop->encoded, ENCODED_BYTES_MAX);
    loop->scratch = mem_alloc(HTTP_SCRATCH_BYTES);
    loop->decoded = mem_alloc(HTTP_SCRATCH_BYTES);
    hash_random(random, sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++) {
        loop->id_prefix[i] = digits[random[i] & 15];
    }
    return ERR_OK;
}

static void free_closed(struct http_loop *loop)
{
    struct list_link *link = NULL;
    while ((link = list_take_first(&loop->closed)) != NULL) {
        http_acceptor_return(LIST_CONTAINER(link, struct http_connection, all_link));
    }
}

static void cut_all(struct http_loop *loop)
{
    struct list_link *link = NULL;
    while ((link = list_first(&loop->connections)) != NULL) {
        http_connection_cut(LIST_CONTAINER(link, struct http_connection, all_link));
    }
    free_closed(loop);
}

void http_loop_cut(struct http_loop *loop)
{
    if (loop->mailbox != NULL) {
        (void)mailbox_run_all(loop->mailbox); /* how many does not matter */
        cut_all(loop);
    }
}

void http_loop_finish(struct http_loop *loop)
{
    if (loop->mailbox != NULL) {
        (void)mailbox_run_all(loop->mailbox); /* connections that came back: they are freed */
        http_request_finish_loop(loop);
    }
    for (size_t i = 0; i < sizeof(loop->encoders) / sizeof(loop->encoders[0]); i++) {
        http_encoder_destroy(loop->encoders[i]);
    }
    buffer_finish(&loop->encoded);
    http_pool_finish(&loop->pool);
    mem_free(loop->scratch);
    mem_free(loop->decoded);
    mailbox_destroy(loop->mailbox);
    if (loop->epoll_fd >= 0) {
        (void)close(loop->epoll_fd); /* an epoll set has nothing to lose */
    }
}

/* Draining, and nobody is left: no connection, and no request that a handler still holds. */
static bool is_over(struct http_loop *loop)
{
    if (loop->cut_ms == 0) {
        return false;
    }
    if (loop->now_ms >= loop->cut_ms) {
        cut_all(loop);
        return true;
    }
    return list_is_empty(&loop->connections) && loop->live_request_count == 0;
}

/* --- rounds ----------------------------------------------------------------------------------- */

static int shorter_wait(int a, int b)
{
    if (a < 0 || b < 0) {
        return a < 0 ? b : a;
    }
    return a < b ? a : b;
}

static int find_wait(struct http_loop *loop)
{
    if (!list_is_empty(&loop->ready)) {
        return 0;
    }
    int wait_ms = http_wheel_wait_ms(&loop->wheel, loop->now_ms);
    if (loop->index == 0) {
        wait_ms =
            shorter_wait(wait_ms, http_acceptor_wait_ms(loop->server->acceptor, loop->now_ms));
    }
    if (loop->cut_ms != 0) {
        uint64_t left_ms = loop->cut_ms > loop->now_ms ? loop->cut_ms - loop->now_ms : 0;
        wait_ms = shorter_wait(wait_ms, left_ms > INT32_MAX ? INT32_MAX : (int)left_ms);
    }
    return wait_ms;
}

/* Asks for the memory of the connection whose turn is next, while this one's is worked on. For
 * another member of the epoll set it does nothing useful and no harm. */
static void fetch_connection(const void *connection)
{
    for (size_t i = 0; i < HTTP_CONNECTION_HOT_BYTES; i += 64) {
        __builtin_prefetch((const char *)connection + i);
    }
}

static bool is_connection(const struct http_loop *loop, const void *who)
{
    return who != loop->mailbox && who != loop->server->acceptor;
}

static void take_turn(struct http_loop *loop, const struct epoll_event *events, int count)
{
    struct http_connection *turn[TURN_CONNECTIONS];
    int turn_count = 0;
    for (int i = 0; i < count; i++) {
        void *who = events[i].data.ptr;
        if (i + 1 < count) {
            fetch_connection(events[i + 1].data.ptr);
        }
        if (is_connection(loop, who)) {
            http_connection_on_event(who, events[i].events);
            turn[turn_count++] = who;
        } else if (who == loop->server->acceptor) {
            http_acceptor_on_event(loop->server->acceptor);
        }
    }
    for (int i = 0; i < turn_count; i++) {
        http_connection_begin(turn[i]);
    }
    for (int i = 0; i < turn_count; i++) {
        http_connection_run(turn[i]);
    }
}

static void take_events(struct http_loop *loop)
{
    struct epoll_event events[EVENTS_PER_ROUND];
    int count = epoll_wait(loop->epoll_fd, events, EVENTS_PER_ROUND, find_wait(loop));
    assert(count >= 0 || errno == EINTR);
    look_at_clock(loop);
    for (int i = 0; i < count; i += TURN_CONNECTIONS) {
        int left = count - i;
        take_turn(loop, events + i, left < TURN_CONNECTIONS ? left : TURN_CONNECTIONS);
    }
}

static void run_timers(struct http_loop *loop)
{
    struct http_timer *timer = NULL;
    while ((timer = http_wheel_take_due(&loop->wheel, loop->now_ms)) != NULL) {
        if (timer->of_request) {
            struct http_request *request = LIST_CONTAINER(timer, struct http_request, timer);
            if (http_request_is_open(request)) {
                loop->server->options.handler->on_timer(request);
            }
        } else {
            http_connection_on_timer(LIST_CONTAINER(timer, struct http_connection, timer));
        }
    }
}

/* Only those that are ready now: what becomes ready meanwhile has its turn in the next round. */
static void run_ready(struct http_loop *loop)
{
    struct list now;
    struct list_link *link = NULL;
    list_init(&now);
    while ((link = list_take_first(&loop->ready)) != NULL) {
        list_push_back(&now, link);
    }
    while (!list_is_empty(&now)) {
        struct http_connection *turn[TURN_CONNECTIONS];
        int count = 0;
        while (count < TURN_CONNECTIONS && (link = list_take_first(&now)) != NULL) {
            turn[count] = LIST_CONTAINER(link, struct http_connection, ready_link);
            http_connection_run(turn[count++]);
        }
        for (int i = 0; i < count; i++) {
            if (turn[i]->dirty_link.next != NULL) {
                list_remove(&turn[i]->dirty_link);
                http_connection_flush(turn[i]);
            }
        }
    }
}

static void flush_dirty(struct http_loop *loop)
{
    struct list now;
    struct list_link *link = NULL;
    list_init(&now);
    while ((link = list_take_first(&loop->dirty)) != NULL) {
        list_push_back(&now, link);
    }
    while ((link = list_take_first(&now)) != NULL) {
        http_connection_flush(LIST_CONTAINER(link, struct http_connection, dirty_link));
    }
}

void http_loop_run(void *argument)
{
    struct http_loop *loop = argument;
    const struct http_options *options = &loop->server->options;
    loop->context = options->handler->on_loop_start(options->owner, loop);
    if (loop->index == 0) {
        http_acceptor_start(loop->server->acceptor);
    }
    do {
        take_events(loop);
        options->handler->on_collected(loop->context);
        look_at_clock(loop);                  /* the events took their time */
        (void)mailbox_run_all(loop->mailbox); /* how many does not matter */
        run_timers(loop);
        run_ready(loop);
        options->handler->on_collected(loop->context);
        flush_dirty(loop);
        free_closed(loop);
    } while (!is_over(loop));
    options->handler->on_loop_stop(loop->context);
}

uint32_t http_loop_index(const struct http_loop *loop)
{
    return loop->index;
}

uint64_t http_loop_mono_ns(const struct http_loop *loop)
{
    return loop->now_ns;
}

int64_t http_loop_wall_ms(const struct http_loop *loop)
{
    return loop->wall_ms;
}

struct mailbox *http_loop_mailbox(struct http_loop *loop)
{
    return loop->mailbox;
}
