/* One request and its reply: from the head's last byte to the moment when the reply is complete.
 *
 * Happy path: the head is parsed and its route found, the handler is told, accepts the body, gets
 * its pieces and its end, replies; the request is let go and the next one begins.
 * Failure modes: what the client did wrong is answered here; the connection goes on when it is
 * certain where the request ends and little of it is left to read, otherwise it closes. The peer
 * goes away: the handler is told by on_finish. */
#include <assert.h>

#include "base/hex.h"
#include "base/metrics.h"
#include "http/connection.h"

static void make_id(struct http_request *request)
{
    struct http_loop *loop = request->loop;
    struct slice given = http_request_known(request, HTTP_KNOWN_REQUEST_ID);
    bool is_visible = given.size >= 1 && given.size <= 128;
    for (size_t i = 0; i < given.size && is_visible; i++) {
        is_visible = given.data[i] > 0x20 && given.data[i] < 0x7f;
    }
    if (is_visible) {
        request->id = given;
        return;
    }
    char count[16];
    const size_t digits = HTTP_REQUEST_ID_BYTES - sizeof(loop->id_prefix);
    hex_put_u64(loop->id_count++, count);
    memcpy(request->id_text, loop->id_prefix, sizeof(loop->id_prefix));
    memcpy(request->id_text + sizeof(loop->id_prefix), count + sizeof(count) - digits, digits);
    request->id = slice_make(request->id_text, HTTP_REQUEST_ID_BYTES);
}

static void answer_unrouted(struct http_request *request, const struct http_match *match)
{
    if (match->by_method == NULL) {
        http_reply_error(request, 404, "not_found", "There is nothing at this path.");
        return;
    }
    if (request->head.method == HTTP_OPTIONS) {
        http_cors_options(request, match->by_method);
        return;
    }
    char allow[HTTP_ALLOW_BYTES];
    size_t size = http_router_allow(match->by_method, allow);
    http_reply_header(request, "Allow", slice_make(allow, size));
    http_reply_error(request, 405, "method_not_allowed", "The path does not take this method.");
}

static void dispatch(struct http_request *request)
{
    const struct http_server *server = request->loop->server;
    struct http_match match;
    if (request->head.refusal.status != 0) {
        http_reply_fault(request, &request->head.refusal);
        return;
    }
    if (request->head.asterisk) {
        http_cors_options(request, NULL);
        return;
    }
    http_router_find(server->router, request->head.method, http_request_path(request), &match);
    if (match.route == NULL) {
        answer_unrouted(request, &match);
        return;
    }
    request->route = match.route;
    request->param_count = match.param_count;
    memcpy(request->params, match.params, match.param_count * sizeof(match.params[0]));
    request->handler_knows = true;
    server->options.handler->on_head(request, match.route);
}

void http_exchange_refuse_head(struct http_connection *connection, const struct http_fault *fault)
{
    struct http_request *request = connection->request;
    memset(request->head.known, 0, sizeof(request->head.known));
    request->head.field_count = 0;
    request->head.names = 0;
    request->head.query_size = 0;
    if (request->head.path_size == 0 || connection->input == NULL) {
        /* The fault lies in the request line, or before it: nobody can say what was asked for. */
        request->head.path_size = 0;
        request->head.target_size = 0;
    } else {
        request->head_bytes = connection->input->data + connection->input_start;
    }
    request->head.method = HTTP_GET;
    request->head.body_bytes = 0;
    request->started_ns = connection->loop->now_ns;
    http_connection_set_state(connection, HTTP_STATE_WAIT);
    make_id(request);
    http_reply_close(request);
    http_reply_fault(request, fault);
}

static void begin_request(struct http_connection *connection)
{
    struct http_request *request = connection->request;
    request->head_block = connection->input;
    request->head_bytes = connection->input->data + connection->input_start;
    request->started_ns = connection->loop->now_ns;
    connection->input_start += request->head.size;
    connection->round_requests++;
    http_connection_set_state(connection, HTTP_STATE_WAIT);
    http_body_init(&request->body, request->head.body_bytes);
    make_id(request);
    dispatch(request);
}

bool http_exchange_parse(struct http_connection *connection)
{
    if (connection->request == NULL) {
        connection->request = http_request_take(connection);
        http_parser_init(&connection->parser, &connection->request->head);
        http_connection_set_state(connection, HTTP_STATE_HEAD);
    }
    enum http_parse result = http_parser_step(&connection->parser, &connection->request->head,
                                              connection->input->data + connection->input_start,
                                              connection->input_end - connection->input_start);
    switch (result) {
    case HTTP_PARSE_MORE:
        break;
    case HTTP_PARSE_DONE:
        begin_request(connection);
        break;
    case HTTP_PARSE_BAD:
        http_exchange_refuse_head(connection, &connection->parser.fault);
        break;
    }
    return result != HTTP_PARSE_MORE;
}

/* --- bodies ----------------------------------------------------------------------------------- */

/* One piece of the decoded body, with its caps. */
static void deliver(struct http_request *request, struct slice piece)
{
    request->decoded_bytes += piece.size;
    uint64_t consumed = request->encoded_bytes - request->undecoded.size;
    if (request->decoded_bytes_max > 0 && request->decoded_bytes > request->decoded_bytes_max) {
        http_refuse_large(request, request->decoded_bytes_max);
        return;
    }
    if (request->decoder != NULL && request->decoded_bytes > (size_t)LIMIT_RATIO_FREE_BYTES &&
        request->decoded_bytes / LIMIT_RATIO > consumed) {
        http_reply_error(request, 413, "payload_too_large",
                         "The body is compressed more than 200 to 1.");
        return;
    }
    request->loop->server->options.handler->on_body(request, piece);
}

static void decode_piece(struct http_request *request)
{
    uint8_t *to = request->loop->decoded;
    size_t size = 0;
    enum err err =
        http_decoder_step(request->decoder, &request->undecoded, to, HTTP_SCRATCH_BYTES, &size);
    if (err != ERR_OK) {
        http_reply_error(request, 400, "malformed", "The body is not of its Content-Encoding.");
        return;
    }
    request->decoder_full = size == HTTP_SCRATCH_BYTES;
    if (size > 0) {
        deliver(request, slice_make(to, size));
    }
}

static void end_body(struct http_request *request)
{
    if (request->body_told) {
        return;
    }
    if (request->decoder != NULL && !http_decoder_is_whole(request->decoder)) {
        http_reply_error(request, 400, "malformed", "The compressed body is cut.");
        return;
    }
    request->body_told = true;
    request->loop->server->options.handler->on_body_end(request);
}

/* One step; false: more bytes have to come. */
static bool take_body(struct http_request *request, struct slice *rest)
{
    struct slice data = {NULL, 0};
    switch (http_body_step(&request->body, rest, &data)) {
    case HTTP_BODY_BYTES:
        request->encoded_bytes += data.size;
        if (request->decoder == NULL) {
            deliver(request, data);
        } else {
            request->undecoded = data;
        }
        return true;
    case HTTP_BODY_MORE:
        return false;
    case HTTP_BODY_END:
        end_body(request);
        return false;
    case HTTP_BODY_BAD:
        http_reply_close(request);
        http_reply_fault(request, &request->body.fault);
        return false;
    }
    assert(false);
    return false;
}

void http_exchange_read_body(struct http_connection *connection, struct slice *rest)
{
    struct http_request *request = connection->request;
    bool goes_on = true;
    while (goes_on && request->reply != HTTP_REPLY_DONE && !request->paused &&
           !connection->broken) {
        if (request->undecoded.size > 0 || request->decoder_full) {
            decode_piece(request);
        } else {
            goes_on = take_body(request, rest);
        }
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

/* Tells the handler and separates request and connection. */
static void let_go(struct http_connection *connection)
{
    struct http_request *request = connection->request;
    assert(request->reply == HTTP_REPLY_DONE);
    http_wheel_remove(&request->timer);
    if (request->handler_knows) {
        connection->loop->server->options.handler->on_finish(request);
    }
    connection->request = NULL;
    request->connection = NULL;
    if (request->refs > 1) {
        /* The handler may still look at the request: it keeps its bytes. */
        memcpy(request->address_text, connection->address_text, sizeof(request->address_text));
        if (connection->input != NULL && connection->input == request->head_block) {
            struct slice left = slice_make(connection->input->data + connection->input_start,
                                           connection->input_end - connection->input_start);
            connection->input = NULL;
            connection->input_start = 0;
            connection->input_end = 0;
            http_input_save(connection, left);
        }
    } else if (connection->input == request->head_block) {
        request->head_block = NULL; /* it stays the connection's */
    }
    http_request_unref(request);
}

void http_exchange_finish(struct http_connection *connection)
{
    struct http_request *request = connection->request;
    bool is_ended = http_body_is_ended(&request->body) && request->head_block != NULL;
    bool closes = request->close;
    assert(closes || request->head_block != NULL);
    if (!is_ended) {
        connection->dropped = request->body;
        connection->drop_bytes = 0;
    }
    let_go(connection);
    if (closes) {
        connection->linger = !is_ended || connection->input_start < connection->input_end;
        http_connection_set_state(connection, HTTP_STATE_FLUSH);
    } else {
        http_connection_set_state(connection, is_ended ? HTTP_STATE_IDLE : HTTP_STATE_DROP);
    }
}

void http_exchange_abort(struct http_connection *connection)
{
    if (connection->request != NULL) {
        connection->request->reply = HTTP_REPLY_DONE;
        let_go(connection);
    }
}
