/* What a connection does next. One function, http_connection_run, goes from step to step until
 * nothing more can be done without waiting; whatever happens to a connection (an event, a reply
 * from another thread's mail, a timer) only notes it and calls or schedules that function, so no
 * step is ever entered twice.
 *
 * Output is not sent by the steps: it waits for the end of the round, so that all that a round
 * answered on a connection goes out by one call.
 *
 * Happy path: IDLE, an event, one read, HEAD, WAIT, the reply, IDLE, one send.
 * Failure modes: the peer goes away, or memory is out: broken, then CLOSED. A peer that is slower
 * than the minimum rate, or silent for too long: 408 where a request is being read and nothing was
 * answered, else CLOSED. */
#include <assert.h>
#include <sys/epoll.h>

#include "base/metrics.h"
#include "http/connection.h"

void http_connection_set_state(struct http_connection *connection, enum http_state state)
{
    bool reads_body = state == HTTP_STATE_BODY || state == HTTP_STATE_DROP;
    assert(connection->state != HTTP_STATE_CLOSED);
    assert(state != HTTP_STATE_DROP || connection->request == NULL);
    connection->state = state;
    connection->state_since_ms = connection->loop->now_ms;
    connection->reading.since_ms = reads_body ? connection->loop->now_ms : 0;
    connection->reading.bytes = 0;
}

void http_connection_make_ready(struct http_connection *connection)
{
    if (connection->ready_link.next == NULL) {
        list_push_back(&connection->loop->ready, &connection->ready_link);
    }
}

static void make_dirty(struct http_connection *connection)
{
    if (connection->dirty_link.next == NULL) {
        list_push_back(&connection->loop->dirty, &connection->dirty_link);
    }
}

/* From any state; the memory lives until the end of the round. */
static void close_connection(struct http_connection *connection)
{
    struct http_loop *loop = connection->loop;
    struct http_request *request = connection->request;
    if (connection->state == HTTP_STATE_CLOSED) {
        return;
    }
    bool is_cut = connection->broken || http_output_bytes(connection) > 0 ||
                  (request != NULL && request->reply == HTTP_REPLY_STREAM);
    http_exchange_abort(connection);
    http_connection_set_state(connection, HTTP_STATE_CLOSED);
    list_remove(&connection->ready_link);
    list_remove(&connection->dirty_link);
    list_remove(&connection->all_link);
    http_wheel_remove(&connection->timer);
    http_pool_give(&loop->pool, connection->input);
    http_pool_give(&loop->pool, connection->output);
    connection->input = NULL;
    connection->output = NULL;
    connection->transport->close(connection, is_cut);
    list_push_back(&loop->closed, &connection->all_link);
}

/* --- steps: true means that another step may be possible -------------------------------------- */

/* All is sent after the last reply: say so to the peer, and wait for its end if it may still be
 * sending, since closing at once would destroy the reply on its way. */
static bool end_flush(struct http_connection *connection)
{
    if (!connection->linger && !connection->readable) {
        close_connection(connection);
        return false;
    }
    connection->transport->shutdown(connection);
    http_connection_set_state(connection, HTTP_STATE_LINGER);
    connection->sending.since_ms = connection->loop->now_ms; /* LINGER's beginning */
    return true;
}

static bool peer_ended(struct http_connection *connection)
{
    connection->linger = false;
    if (http_output_bytes(connection) > 0) {
        http_exchange_abort(connection);
        http_connection_set_state(connection, HTTP_STATE_FLUSH);
    } else {
        close_connection(connection);
    }
    return false;
}

static bool step_head(struct http_connection *connection)
{
    if (connection->round_requests >= LIMIT_PIPELINE_DEPTH ||
        http_output_bytes(connection) > HTTP_OUTPUT_HIGH_BYTES) {
        connection->gated = true;
        return false;
    }
    bool is_fresh = connection->state == HTTP_STATE_IDLE;
    if (is_fresh && connection->input_start < connection->input_end &&
        http_exchange_parse(connection)) {
        return true;
    }
    switch (http_input_read(connection)) {
    case HTTP_INPUT_SOME:
        (void)http_exchange_parse(connection); /* not whole yet: the next step reads on */
        return true;
    case HTTP_INPUT_ENDED:
        return peer_ended(connection);
    case HTTP_INPUT_NONE:
        break;
    }
    http_input_release(connection);
    if (connection->loop->cut_ms != 0 && connection->state == HTTP_STATE_IDLE) {
        return peer_ended(connection); /* draining: no further request is awaited */
    }
    return false;
}

static bool step_wait(struct http_connection *connection)
{
    struct http_request *request = connection->request;
    if (request->reply == HTTP_REPLY_DONE) {
        http_exchange_finish(connection);
        return true;
    }
    if (request->body_accepted && !request->body_told && !request->paused) {
        http_connection_set_state(connection, HTTP_STATE_BODY);
        return true;
    }
    return false;
}

/* Body bytes that came with the head, or were kept during a pause. */
static void read_body_kept(struct http_connection *connection)
{
    struct http_block *block = connection->input;
    struct slice rest = slice_make(block == NULL ? NULL : block->data + connection->input_start,
                                   connection->input_end - connection->input_start);
    http_exchange_read_body(connection, &rest);
    connection->input_start = connection->input_end - rest.size;
}

/* What a pause or the body's end left over: bytes of the body that are not decoded yet stand in
 * front of the rest. */
static void keep_rest(struct http_connection *connection, struct slice rest)
{
    struct http_request *request = connection->request;
    size_t undecoded = request->undecoded.size;
    if (undecoded > 0) {
        rest = slice_make(request->undecoded.data, undecoded + rest.size);
        http_input_save(connection, rest);
        if (!connection->broken) {
            request->undecoded.data = connection->input->data + connection->input_start;
            connection->input_start += undecoded;
        }
    } else {
        http_input_save(connection, rest);
    }
}

static bool step_body(struct http_connection *connection)
{
    struct http_request *request = connection->request;
    struct slice rest = {NULL, 0};
    read_body_kept(connection);
    if (request->reply == HTTP_REPLY_DONE || request->paused || request->body_told) {
        http_connection_set_state(connection, HTTP_STATE_WAIT);
        return request->reply == HTTP_REPLY_DONE;
    }
    switch (http_input_read_scratch(connection, &rest)) {
    case HTTP_INPUT_SOME:
        http_exchange_read_body(connection, &rest);
        keep_rest(connection, rest);
        return true;
    case HTTP_INPUT_ENDED:
        return peer_ended(connection);
    case HTTP_INPUT_NONE:
        break;
    }
    return false;
}

/* Drops bytes from the front of *rest; true: the body ended there. */
static bool drop_body(struct http_connection *connection, struct slice *rest)
{
    struct slice data = {NULL, 0};
    enum http_body_step step = HTTP_BODY_BYTES;
    while (step == HTTP_BODY_BYTES) {
        step = http_body_step(&connection->dropped, rest, &data);
        connection->drop_bytes += data.size;
    }
    if (step == HTTP_BODY_BAD || connection->drop_bytes > HTTP_DROP_BYTES_MAX) {
        connection->linger = true;
        http_connection_set_state(connection, HTTP_STATE_FLUSH);
    }
    return step == HTTP_BODY_END;
}

static bool step_drop(struct http_connection *connection)
{
    struct http_block *block = connection->input;
    struct slice rest = slice_make(block == NULL ? NULL : block->data + connection->input_start,
                                   connection->input_end - connection->input_start);
    bool is_kept = rest.size > 0;
    enum http_input input = HTTP_INPUT_SOME;
    if (!is_kept && !http_body_is_ended(&connection->dropped)) {
        input = http_input_read_scratch(connection, &rest);
    }
    if (input != HTTP_INPUT_SOME) {
        return input == HTTP_INPUT_ENDED ? peer_ended(connection) : false;
    }
    bool is_ended = drop_body(connection, &rest);
    if (is_kept) {
        connection->input_start = connection->input_end - rest.size;
    } else {
        http_input_save(connection, rest);
    }
    if (is_ended && connection->state == HTTP_STATE_DROP) {
        http_connection_set_state(connection, HTTP_STATE_IDLE);
    }
    return true;
}

static bool step_linger(struct http_connection *connection)
{
    struct slice dropped = {NULL, 0};
    connection->input_start = connection->input_end;
    switch (http_input_read_scratch(connection, &dropped)) {
    case HTTP_INPUT_SOME:
        connection->state_since_ms = connection->loop->now_ms;
        return true;
    case HTTP_INPUT_ENDED:
        close_connection(connection);
        break;
    case HTTP_INPUT_NONE:
        break;
    }
    return false;
}

static bool step(struct http_connection *connection)
{
    if (connection->broken) {
        close_connection(connection);
        return false;
    }
    switch (connection->state) {
    case HTTP_STATE_IDLE:
    case HTTP_STATE_HEAD:
        return step_head(connection);
    case HTTP_STATE_WAIT:
        return step_wait(connection);
    case HTTP_STATE_BODY:
        return step_body(connection);
    case HTTP_STATE_DROP:
        return step_drop(connection);
    case HTTP_STATE_FLUSH:
        return http_output_bytes(connection) == 0 && end_flush(connection);
    case HTTP_STATE_LINGER:
        return step_linger(connection);
    case HTTP_STATE_CLOSED:
        break;
    }
    return false;
}

/* --- deadlines -------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t find_deadline(const struct http_connection *connection)
{
    const struct http_options *options = &connection->loop->server->options;
    uint64_t since = connection->state_since_ms;
    uint64_t deadline = HTTP_NO_DEADLINE;
    switch (connection->state) {
    case HTTP_STATE_IDLE:
        deadline = since + options->idle_timeout_ms;
        break;
    case HTTP_STATE_HEAD:
        deadline = since + options->head_timeout_ms;
        break;
    case HTTP_STATE_BODY:
    case HTTP_STATE_DROP:
        deadline = connection->reading.since_ms + options->body_grace_ms;
        break;
    case HTTP_STATE_LINGER:
        return earlier(since + HTTP_LINGER_MS, connection->sending.since_ms + HTTP_LINGER_TOTAL_MS);
    case HTTP_STATE_WAIT:
    case HTTP_STATE_FLUSH:
    case HTTP_STATE_CLOSED:
        break;
    }
    if (connection->sending.since_ms != 0) {
        deadline = earlier(deadline, connection->sending.since_ms + options->body_grace_ms);
    }
    return deadline;
}

static void settle(struct http_connection *connection)
{
    if (connection->broken) {
        close_connection(connection);
    }
    if (connection->state == HTTP_STATE_CLOSED) {
        return;
    }
    if (http_output_bytes(connection) > 0) {
        make_dirty(connection);
    }
    http_wheel_set(&connection->loop->wheel, &connection->timer, find_deadline(connection));
}

/* Tells a stream that there is room. */
static void give_room(struct http_connection *connection)
{
    struct http_request *request = connection->request;
    if (request != NULL && request->wants_room && request->reply == HTTP_REPLY_STREAM &&
        http_output_bytes(connection) <= request->room_held) {
        request->wants_room = false;
        connection->loop->server->options.handler->on_stream_room(request);
    }
}

void http_connection_run(struct http_connection *connection)
{
    if (connection->running || connection->state == HTTP_STATE_CLOSED) {
        return;
    }
    connection->running = true;
    give_room(connection);
    while (step(connection)) {
    }
    connection->running = false;
    connection->round_bytes = 0;
    settle(connection);
}

void http_connection_start(struct http_connection *connection)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = connection};
    list_push_back(&connection->loop->connections, &connection->all_link);
    connection->writable = true;
    http_connection_set_state(connection, HTTP_STATE_IDLE);
    if (epoll_ctl(connection->loop->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event) < 0) {
        connection->broken = true;
    }
    settle(connection);
}

void http_connection_on_event(struct http_connection *connection, uint32_t events)
{
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
        connection->broken = true;
    }
    if ((events & EPOLLRDHUP) != 0) {
        connection->peer_ended = true;
    }
    connection->readable = connection->readable || (events & (EPOLLIN | EPOLLRDHUP)) != 0;
    connection->writable = true; /* TLS may want to read before it writes */
    bool awaits = connection->state == HTTP_STATE_IDLE && !connection->gated &&
                  !connection->broken && connection->input_start == connection->input_end;
    if (awaits && http_input_read(connection) == HTTP_INPUT_ENDED) {
        connection->readable = true; /* the run is told so again, and acts on it */
    }
}

void http_connection_begin(struct http_connection *connection)
{
    if (connection->state == HTTP_STATE_IDLE && connection->input_start < connection->input_end) {
        connection->running = true;
        (void)step(connection); /* what is left to do the run will find */
        connection->running = false;
    }
}

/* Whether a window that is over moved enough bytes; begins the next one. */
static bool was_fast_enough(const struct http_connection *connection, struct http_window *window)
{
    const struct http_options *options = &connection->loop->server->options;
    uint64_t wanted = (uint64_t)options->rate_min_bytes_per_s * options->body_grace_ms / 1000;
    bool is_enough = window->bytes > 0 && window->bytes >= wanted;
    window->since_ms = connection->loop->now_ms;
    window->bytes = 0;
    return is_enough;
}

static bool is_over(const struct http_connection *connection, const struct http_window *window)
{
    const struct http_options *options = &connection->loop->server->options;
    return window->since_ms != 0 &&
           window->since_ms + options->body_grace_ms <= connection->loop->now_ms;
}

static void time_out(struct http_connection *connection, const char *detail)
{
    const struct http_fault fault = {408, "request_timeout", detail};
    struct http_request *request = connection->request;
    metrics_add(METRIC_HTTP_TIMEOUTS, 1);
    if (request == NULL || request->reply != HTTP_REPLY_NONE) {
        close_connection(connection);
        return;
    }
    if (connection->state == HTTP_STATE_HEAD) {
        http_exchange_refuse_head(connection, &fault);
    } else {
        http_connection_set_state(connection, HTTP_STATE_WAIT);
        http_reply_close(request);
        http_reply_fault(request, &fault);
    }
    http_connection_run(connection);
}

void http_connection_on_timer(struct http_connection *connection)
{
    uint64_t now_ms = connection->loop->now_ms;
    bool is_lingering = connection->state == HTTP_STATE_LINGER;
    if (connection->state == HTTP_STATE_CLOSED) {
        return;
    }
    if (!is_lingering && is_over(connection, &connection->sending) &&
        !was_fast_enough(connection, &connection->sending)) {
        metrics_add(METRIC_HTTP_TIMEOUTS, 1);
        close_connection(connection);
    } else if (is_over(connection, &connection->reading)) {
        if (!was_fast_enough(connection, &connection->reading)) {
            time_out(connection, "The body came too slowly.");
        }
    } else if (find_deadline(connection) <= now_ms) {
        if (connection->state == HTTP_STATE_HEAD) {
            time_out(connection, "The request head took too long.");
        } else if (connection->state == HTTP_STATE_IDLE || is_lingering) {
            close_connection(connection);
        }
    }
    settle(connection);
}

/* --- output ----------------------------------------------------------------------------------- */

/* After a send: what had to wait for room. */
static void after_send(struct http_connection *connection)
{
    struct http_request *request = connection->request;
    size_t left = http_output_bytes(connection);
    if (connection->gated && left <= HTTP_OUTPUT_HIGH_BYTES) {
        connection->gated = false;
        http_connection_make_ready(connection);
    }
    if (request != NULL && request->wants_room && left <= request->room_held) {
        http_connection_make_ready(connection);
    }
    if (connection->state == HTTP_STATE_FLUSH && left == 0) {
        http_connection_run(connection);
    }
}

void http_connection_flush(struct http_connection *connection)
{
    size_t size = http_output_bytes(connection);
    connection->round_requests = 0;
    if (!connection->writable || size == 0) {
        return;
    }
    ssize_t sent = connection->transport->write(
        connection, connection->output->data + connection->output_start, size);
    if (sent > 0) {
        connection->sending.bytes += (uint64_t)sent;
        metrics_add(METRIC_HTTP_BYTES_OUT, (uint64_t)sent);
        http_output_sent(connection, (size_t)sent);
    }
    connection->broken = connection->broken || sent == HTTP_TRANSPORT_GONE;
    if (http_output_bytes(connection) == 0) {
        connection->sending = (struct http_window){0};
    } else if (connection->sending.since_ms == 0) {
        connection->sending = (struct http_window){.since_ms = connection->loop->now_ms};
    }
    after_send(connection);
    settle(connection);
}

void http_connection_drain(struct http_connection *connection)
{
    if (connection->state == HTTP_STATE_IDLE) {
        connection->readable = true; /* a request that came but was not told yet is answered */
        http_connection_run(connection);
    }
}

void http_connection_cut(struct http_connection *connection)
{
    close_connection(connection);
}
