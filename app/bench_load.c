/* The load: one thread, one epoll set, N keep-alive connections, one request at a time on each.
 *
 * Closed loop: a connection sends its next request when the last one is answered. Open loop:
 * requests fall due at a fixed rate whether or not the server keeps up; one that finds no idle
 * connection waits, and its latency counts from when it was due, so a stall of the server shows in
 * every request that it delayed (no coordinated omission).
 *
 * An answer counts when its status is 2xx and its body is complete; its ids are then written to the
 * ids file. A request whose answer never came may or may not have been kept: its ids are not
 * written. */
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/thread.h"

#define NUMBER_OF_SIGNALS UINT32_MAX /* in the epoll set, where connections have theirs */
#define ANSWER_BYTES_MAX  262144u
#define EVENTS_AT_ONCE    256
#define NS_PER_S          1000000000ull
#define WAIT_NS_MAX       100000000ull

struct bench_connection {
    int fd; /* -1: closed */
    bool busy;
    uint64_t due_ns; /* when the request in flight was due, or sent */
    size_t request_size;
    size_t sent;
    size_t received;
    uint8_t *request;
    uint8_t *answer;
};

struct bench_run {
    const struct bench_options *options;
    struct bench_result *result;
    struct bench_connection *connections;
    uint32_t *idle; /* stack of idle connections' numbers */
    uint32_t idle_count;
    int epoll_fd;
    int signal_fd;
    bool interrupted; /* SIGINT or SIGTERM: what is in flight is finished, then it is over */
    FILE *ids;
    uint64_t started_ns;
    uint64_t ended_ns;
    uint64_t begun;  /* requests sent or being sent */
    uint64_t serial; /* of the next event: makes dedup ids unique */
    uint64_t in_flight;
    size_t request_bytes_max;
    char head[2048]; /* see head_write */
    size_t head_size;
    size_t key_end; /* of the key's text within head */
    char event_begin[80];
};

int bench_connect(const struct bench_options *options)
{
    static const int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(options->port)};
    if (inet_pton(AF_INET, options->host, &address.sin_addr) != 1) {
        errno = EINVAL;
        return -1;
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        int failed = errno;
        (void)close(fd);
        errno = failed;
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

/* --- requests -------------------------------------------------------------------------------- */

static char *put_text(char *to, struct slice text)
{
    memcpy(to, text.data, text.size);
    return to + text.size;
}

static char *put_number(char *to, uint64_t number)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    memcpy(to, digits + at, sizeof(digits) - at);
    return to + (sizeof(digits) - at);
}

/* One event: the shape that users' own load tests post, padded to event_bytes. Written without
 * printf, because the generator must cost less than the server that it measures. */
static char *event_write(struct bench_run *run, char *to)
{
    const struct bench_options *options = run->options;
    const char *begin = to;
    uint64_t serial = run->serial++;
    to = put_text(to, slice_from_text(run->event_begin));
    if (!options->server_ids) {
        to = put_number(to, serial);
        to = put_text(to, SLICE_LITERAL("\","));
    }
    to = put_text(to, SLICE_LITERAL("\"payload\":{\"user_id\":\"u"));
    to = put_number(to, serial % 10007);
    to = put_text(to, SLICE_LITERAL("\",\"timestamp\":"));
    to = put_number(to, serial);
    size_t used = (size_t)(to - begin);
    if (used + 12 < options->event_bytes) {
        size_t pad = options->event_bytes - used - 11;
        to = put_text(to, SLICE_LITERAL(",\"pad\":\""));
        memset(to, 'x', pad);
        to += pad;
        *to++ = '"';
    }
    return put_text(to, SLICE_LITERAL("}}"));
}

/* What every request begins with. The length of a body is nine digits, filled in later: leading
 * zeros are valid. */
static void head_write(struct bench_run *run)
{
    const struct bench_options *options = run->options;
    const char *path = options->path != NULL ? options->path
                       : options->batch > 1  ? "/api/v1/events/batch"
                                             : "/api/events";
    int used =
        snprintf(run->head, sizeof(run->head), "%s %s HTTP/1.1\r\nHost: %s:%u\r\nX-API-Key: %s\r\n",
                 options->get ? "GET" : "POST", path, options->host, options->port, options->key);
    run->key_end = (size_t)used - 2;
    if (!options->get) {
        used += snprintf(run->head + used, sizeof(run->head) - (size_t)used,
                         "Content-Type: application/%s\r\nContent-Length: 000000000\r\n",
                         options->batch > 1 ? "x-ndjson" : "json");
    }
    used += snprintf(run->head + used, sizeof(run->head) - (size_t)used, "\r\n");
    run->head_size = (size_t)used;
    (void)snprintf(run->event_begin, sizeof(run->event_begin),
                   options->server_ids ? "{\"type\":\"user.login\","
                                       : "{\"type\":\"user.login\",\"dedup_id\":\"%016" PRIx64 "-",
                   options->seed);
}

/* Sixteen digits in front of `end`: a key of the right form that nobody was ever given. */
static void wrong_key_write(char *end, uint64_t serial)
{
    for (int i = 0; i < 16; i++) {
        *--end = (char)('0' + serial % 10);
        serial /= 10;
    }
}

static void request_write(struct bench_run *run, struct bench_connection *connection)
{
    const struct bench_options *options = run->options;
    char *begin = (char *)connection->request;
    char *body = put_text(begin, slice_make(run->head, run->head_size));
    char *to = body;
    if (options->wrong_keys) {
        wrong_key_write(begin + run->key_end, run->begun);
    }
    for (uint32_t i = 0; i < options->batch && !options->get; i++) {
        to = event_write(run, to);
        if (options->batch > 1) {
            *to++ = '\n';
        }
    }
    connection->request_size = (size_t)(to - begin);
    size_t length = (size_t)(to - body);
    for (char *digit = body - 5; length > 0; digit--) {
        *digit = (char)('0' + length % 10);
        length /= 10;
    }
}

/* --- answers --------------------------------------------------------------------------------- */

struct bench_answer {
    int status;
    struct slice body;
    bool complete;
    bool close;
};

static void answer_parse(struct slice bytes, struct bench_answer *ret)
{
    *ret = (struct bench_answer){0};
    const uint8_t *end = memmem(bytes.data, bytes.size, "\r\n\r\n", 4);
    uint64_t length = 0;
    if (end == NULL || bytes.size < 12) {
        return;
    }
    size_t head = (size_t)(end - bytes.data) + 4;
    uint64_t status = 0;
    (void)slice_to_u64(slice_part(bytes, 9, 12), &status);
    ret->status = (int)status;
    struct slice rest = slice_part(bytes, 0, head);
    while (rest.size > 2) {
        struct slice line = slice_cut(rest, '\n', &rest);
        struct slice value;
        struct slice name = slice_cut(line, ':', &value);
        if (slice_equal_nocase(name, SLICE_LITERAL("content-length"))) {
            value.size -= value.size > 0 && value.data[value.size - 1] == '\r' ? 1 : 0;
            (void)slice_to_u64(slice_trim(value), &length);
        } else if (slice_equal_nocase(name, SLICE_LITERAL("connection"))) {
            ret->close = memmem(value.data, value.size, "close", 5) != NULL;
        }
    }
    ret->complete = bytes.size >= head + length;
    ret->body = slice_part(bytes, head, head + length);
}

/* Every "id":"…" of an acknowledgement; a batch shows its first thousand. */
static uint64_t ids_write(struct bench_run *run, struct slice body)
{
    static const char mark[] = "\"id\":\"";
    uint64_t count = 0;
    while (run->ids != NULL) {
        const uint8_t *at = memmem(body.data, body.size, mark, sizeof(mark) - 1);
        if (at == NULL) {
            break;
        }
        size_t from = (size_t)(at - body.data) + sizeof(mark) - 1;
        struct slice id = slice_part(body, from, from + 36);
        if (id.size == 36) {
            (void)fwrite(id.data, 1, id.size, run->ids);
            (void)fputc('\n', run->ids);
            count++;
        }
        body = slice_part(body, from, body.size);
    }
    return count;
}

/* --- connections ----------------------------------------------------------------------------- */

static void connection_close(struct bench_run *run, struct bench_connection *connection)
{
    if (connection->fd >= 0) {
        (void)close(connection->fd);
        connection->fd = -1;
    }
    if (connection->busy) {
        connection->busy = false;
        run->in_flight--;
    }
}

static enum err connection_open(struct bench_run *run, uint32_t number)
{
    struct bench_connection *connection = &run->connections[number];
    connection->fd = bench_connect(run->options);
    if (connection->fd < 0) {
        return err_from_errno(errno);
    }
    (void)fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP,
                                .data.u32 = number};
    return epoll_ctl(run->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event) == 0
               ? ERR_OK
               : err_from_errno(errno);
}

/* The connection failed in the middle: it is opened anew and goes back to the idle ones. */
static void connection_broken(struct bench_run *run, uint32_t number)
{
    struct bench_connection *connection = &run->connections[number];
    if (connection->busy) {
        run->result->broken++;
    }
    connection_close(run, connection);
    if (connection_open(run, number) == ERR_OK) {
        run->idle[run->idle_count++] = number;
    }
}

static void connection_send(struct bench_run *run, uint32_t number)
{
    struct bench_connection *connection = &run->connections[number];
    while (connection->sent < connection->request_size) {
        ssize_t n = send(connection->fd, connection->request + connection->sent,
                         connection->request_size - connection->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n < 0 && errno != EINTR) {
            connection_broken(run, number);
            return;
        }
        if (n > 0) {
            connection->sent += (size_t)n;
            run->result->bytes_sent += (uint64_t)n;
        }
    }
}

static void request_begin(struct bench_run *run, uint32_t number, uint64_t due_ns)
{
    struct bench_connection *connection = &run->connections[number];
    connection->busy = true;
    connection->due_ns = due_ns;
    connection->sent = 0;
    connection->received = 0;
    run->begun++;
    run->in_flight++;
    request_write(run, connection);
    connection_send(run, number);
}

static void answer_done(struct bench_run *run, uint32_t number, const struct bench_answer *answer)
{
    struct bench_connection *connection = &run->connections[number];
    struct bench_result *result = run->result;
    connection->busy = false;
    run->in_flight--;
    bench_histogram_add(&result->latency, clock_mono_ns() - connection->due_ns);
    if (answer->status >= 200 && answer->status < 300) {
        result->requests++;
        result->events += run->options->get ? 0 : run->options->batch;
        (void)ids_write(run, answer->body);
    } else {
        result->errors++;
        result->first_error_status =
            result->first_error_status == 0 ? answer->status : result->first_error_status;
    }
    connection->received = 0;
    if (answer->close) {
        connection_close(run, connection);
        if (connection_open(run, number) != ERR_OK) {
            return;
        }
    }
    run->idle[run->idle_count++] = number;
}

static void connection_receive(struct bench_run *run, uint32_t number)
{
    struct bench_connection *connection = &run->connections[number];
    while (connection->fd >= 0 && connection->busy) {
        ssize_t n = recv(connection->fd, connection->answer + connection->received,
                         ANSWER_BYTES_MAX - connection->received, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n <= 0) {
            connection_broken(run, number);
            return;
        }
        connection->received += (size_t)n;
        struct bench_answer answer;
        answer_parse(slice_make(connection->answer, connection->received), &answer);
        if (answer.complete) {
            answer_done(run, number, &answer);
            return;
        }
    }
}

/* --- the run --------------------------------------------------------------------------------- */

/* Connections that take part at this time (ramps). */
static uint32_t active_count(const struct bench_run *run, double elapsed_s)
{
    const struct bench_options *options = run->options;
    double share = 1.0;
    double down_at = options->ramp_up_s + options->duration_s;
    if (elapsed_s < options->ramp_up_s) {
        share = elapsed_s / options->ramp_up_s;
    } else if (options->ramp_down_s > 0.0 && elapsed_s > down_at) {
        share = 1.0 - (elapsed_s - down_at) / options->ramp_down_s;
    }
    uint32_t count = (uint32_t)(share * options->connections);
    return count < 1 ? 1 : count;
}

/* Begins what is due. Gives the time of the next request that will fall due, 0 for "when one is
 * answered". */
static uint64_t begin_due(struct bench_run *run, uint64_t now)
{
    const struct bench_options *options = run->options;
    double elapsed_s = (double)(now - run->started_ns) / (double)NS_PER_S;
    uint32_t active = active_count(run, elapsed_s);
    bool open_loop = options->rate > 0.0;
    for (;;) {
        uint64_t due = now;
        if (open_loop) {
            due = run->started_ns + (uint64_t)((double)run->begun / options->rate * 1e9);
        }
        if ((options->count != 0 && run->begun >= options->count) || run->idle_count == 0 ||
            (!open_loop && run->in_flight >= active)) {
            return 0;
        }
        if (due > now) {
            return due;
        }
        request_begin(run, run->idle[--run->idle_count], due);
    }
}

static bool is_over(const struct bench_run *run, uint64_t now)
{
    if (run->interrupted) {
        return true;
    }
    if (run->options->count != 0) {
        return run->begun >= run->options->count;
    }
    return now >= run->ended_ns;
}

/* Sleeps to the microsecond instead of polling: the cores belong to the server as well. */
static void wait_events(struct bench_run *run, uint64_t timeout_ns)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / NS_PER_S),
                               .tv_nsec = (long)(timeout_ns % NS_PER_S)};
    int n = epoll_pwait2(run->epoll_fd, events, EVENTS_AT_ONCE, &timeout, NULL);
    for (int i = 0; i < n; i++) {
        uint32_t number = events[i].data.u32;
        if (number == NUMBER_OF_SIGNALS) {
            struct signalfd_siginfo signal;
            run->interrupted = read(run->signal_fd, &signal, sizeof(signal)) > 0;
            continue;
        }
        struct bench_connection *connection = &run->connections[number];
        if (connection->fd >= 0 && connection->busy &&
            connection->sent < connection->request_size) {
            connection_send(run, number);
        }
        connection_receive(run, number);
    }
}

static void run_load(struct bench_run *run)
{
    const struct bench_options *options = run->options;
    double whole_s = options->ramp_up_s + options->duration_s + options->ramp_down_s;
    run->started_ns = clock_mono_ns();
    run->ended_ns = run->started_ns + (uint64_t)(whole_s * 1e9);
    uint64_t now = run->started_ns;
    while (!is_over(run, now) && (run->in_flight > 0 || run->idle_count > 0)) {
        uint64_t next = begin_due(run, now);
        wait_events(run, next != 0 ? next - now : WAIT_NS_MAX);
        now = clock_mono_ns();
    }
    run->result->seconds = (double)(now - run->started_ns) / 1e9;
    if (options->rate > 0.0 && options->count == 0) {
        /* What fell due during the last sleep still goes out; late is what found no connection. */
        uint64_t end_ns = now < run->ended_ns ? now : run->ended_ns;
        (void)begin_due(run, end_ns);
        uint64_t due = (uint64_t)((double)(end_ns - run->started_ns) / 1e9 * options->rate);
        run->result->late = due > run->begun ? due - run->begun : 0;
    }
    /* What is in flight may take 30 s more: an answer that comes is counted, one that does not is
     * an error. */
    uint64_t patience = now + 30 * NS_PER_S;
    while (run->in_flight > 0 && clock_mono_ns() < patience) {
        wait_events(run, WAIT_NS_MAX);
    }
    run->result->broken += run->in_flight;
}

/* SIGINT and SIGTERM end the run early: its numbers are printed and its ids are whole. */
static void signals_open(struct bench_run *run)
{
    sigset_t set;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = NUMBER_OF_SIGNALS};
    thread_block_signals();
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (run->signal_fd >= 0) {
        (void)epoll_ctl(run->epoll_fd, EPOLL_CTL_ADD, run->signal_fd, &event);
    }
}

static enum err run_open(struct bench_run *run, struct err_detail *detail)
{
    const struct bench_options *options = run->options;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    head_write(run);
    run->request_bytes_max = run->head_size + (size_t)options->batch * (options->event_bytes + 256);
    run->connections = mem_alloc_array(options->connections, sizeof(*run->connections));
    run->idle = mem_alloc_array(options->connections, sizeof(*run->idle));
    for (uint32_t i = 0; i < options->connections; i++) {
        run->connections[i].fd = -1;
        run->connections[i].request = mem_alloc(run->request_bytes_max);
        run->connections[i].answer = mem_alloc(ANSWER_BYTES_MAX);
    }
    (void)prctl(PR_SET_TIMERSLACK, 1000ul); /* ns; the default of 50 us would show in latencies */
    run->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    signals_open(run);
    if (options->ids_file != NULL) {
        run->ids = fopen(options->ids_file, "ae");
        if (run->ids == NULL) {
            err_detail_set(detail, "%s: %s", options->ids_file, err_text(err_from_errno(errno)));
            return ERR_IO;
        }
    }
    for (uint32_t i = 0; i < options->connections; i++) {
        enum err err = connection_open(run, i);
        if (err != ERR_OK) {
            err_detail_set(detail, "connect to %s port %u: %s", options->host, options->port,
                           err_text(err));
            return err;
        }
        run->idle[run->idle_count++] = i;
    }
    return ERR_OK;
}

enum err bench_load(const struct bench_options *options, struct bench_result *ret,
                    struct err_detail *detail)
{
    struct bench_run run = {.options = options, .result = ret, .epoll_fd = -1, .signal_fd = -1};
    enum err err = run_open(&run, detail);
    if (err == ERR_OK) {
        run_load(&run);
    }
    for (uint32_t i = 0; run.connections != NULL && i < options->connections; i++) {
        connection_close(&run, &run.connections[i]);
        mem_free(run.connections[i].request);
        mem_free(run.connections[i].answer);
    }
    if (run.signal_fd >= 0) {
        (void)close(run.signal_fd);
    }
    if (run.epoll_fd >= 0) {
        (void)close(run.epoll_fd);
    }
    if (run.ids != NULL && fclose(run.ids) != 0 && err == ERR_OK) {
        err_detail_set(detail, "%s: not written whole", options->ids_file);
        err = ERR_IO;
    }
    mem_free(run.connections);
    mem_free(run.idle);
    return err;
}
