/* Replies: status line, fields and body, put together in the connection's output.
 *
 * The handler's own header lines are collected in the request until the reply is made; then one
 * reservation holds everything and each part is copied into it once. Nothing is sent here.
 *
 * Happy path: http_reply, one reservation, six copies.
 * Failure modes: the request is not open any more: nothing happens. No memory for the output: the
 * connection is broken. A value that would end its line is our fault: assert. */
#include <assert.h>

#include "base/metrics.h"
#include "http/connection.h"
#include "http/encode.h"

/* Bodies from here on are worth compressing. */
#define COMPRESS_BYTES_MIN 1024u
/* Status line, Date, Content-Length, Connection, Vary, the security headers and the coding. */
#define FIXED_BYTES_MAX 640u

#define STATUS_LIST(X)                                                                             \
    X(200, "OK")                                                                                   \
    X(201, "Created")                                                                              \
    X(202, "Accepted")                                                                             \
    X(204, "No Content")                                                                           \
    X(206, "Partial Content")                                                                      \
    X(301, "Moved Permanently")                                                                    \
    X(302, "Found")                                                                                \
    X(303, "See Other")                                                                            \
    X(304, "Not Modified")                                                                         \
    X(307, "Temporary Redirect")                                                                   \
    X(308, "Permanent Redirect")                                                                   \
    X(400, "Bad Request")                                                                          \
    X(401, "Unauthorized")                                                                         \
    X(403, "Forbidden")                                                                            \
    X(404, "Not Found")                                                                            \
    X(405, "Method Not Allowed")                                                                   \
    X(406, "Not Acceptable")                                                                       \
    X(408, "Request Timeout")                                                                      \
    X(409, "Conflict")                                                                             \
    X(410, "Gone")                                                                                 \
    X(411, "Length Required")                                                                      \
    X(412, "Precondition Failed")                                                                  \
    X(413, "Content Too Large")                                                                    \
    X(414, "URI Too Long")                                                                         \
    X(415, "Unsupported Media Type")                                                               \
    X(416, "Range Not Satisfiable")                                                                \
    X(417, "Expectation Failed")                                                                   \
    X(421, "Misdirected Request")                                                                  \
    X(422, "Unprocessable Content")                                                                \
    X(426, "Upgrade Required")                                                                     \
    X(428, "Precondition Required")                                                                \
    X(429, "Too Many Requests")                                                                    \
    X(431, "Request Header Fields Too Large")                                                      \
    X(500, "Internal Server Error")                                                                \
    X(501, "Not Implemented")                                                                      \
    X(502, "Bad Gateway")                                                                          \
    X(503, "Service Unavailable")                                                                  \
    X(504, "Gateway Timeout")                                                                      \
    X(505, "HTTP Version Not Supported")                                                           \
    X(507, "Insufficient Storage")

struct status_row {
    int status;
    uint32_t line_size;
    const char *line;
    const char *text;
};

static const struct status_row statuses[] = {
#define X(status, text)                                                                            \
    {status, sizeof("HTTP/1.1 " #status " " text "\r\n") - 1, "HTTP/1.1 " #status " " text "\r\n", \
     text},
    STATUS_LIST(X)
#undef X
};

static const struct status_row *find_status(int status)
{
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        if (statuses[i].status == status) {
            return &statuses[i];
        }
    }
    assert(false); /* a status that we chose and did not list */
    return &statuses[0];
}

const char *http_status_text(int status)
{
    return find_status(status)->text;
}

static const char fields_of_all[] = "X-Content-Type-Options: nosniff\r\n"
                                    "Referrer-Policy: no-referrer\r\n";
static const char field_of_policy[] =
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n";

/* Where the reply is being written; room was reserved before. */
struct pen {
    uint8_t *at;
};

static void put(struct pen *pen, struct slice text)
{
    if (text.size > 0) {
        memcpy(pen->at, text.data, text.size);
        pen->at += text.size;
    }
}

static void put_text(struct pen *pen, const char *text)
{
    put(pen, slice_from_text(text));
}

/* --- the handler's lines ---------------------------------------------------------------------- */

void http_reply_header(struct http_request *request, const char *name, struct slice value)
{
    struct buffer *fields = &request->reply_fields;
    struct slice name_text = slice_from_text(name);
    assert(http_is_token(name_text) && http_is_field_value(value));
    if (!http_request_is_open(request)) {
        return;
    }
    assert(request->reply == HTTP_REPLY_NONE);
    request->has_policy = request->has_policy ||
                          slice_equal_nocase(name_text, SLICE_LITERAL("Content-Security-Policy"));
    request->has_coding =
        request->has_coding || slice_equal_nocase(name_text, SLICE_LITERAL("Content-Encoding"));
    if (buffer_reserve(fields, name_text.size + value.size + 4) != ERR_OK) {
        request->connection->broken = true; /* more than 64 KiB of headers, or no memory */
        return;
    }
    struct pen pen = {fields->data + fields->size};
    put(&pen, name_text);
    put(&pen, SLICE_LITERAL(": "));
    put(&pen, value);
    put(&pen, SLICE_LITERAL("\r\n"));
    fields->size += name_text.size + value.size + 4;
}

void http_reply_text(struct http_request *request, const char *name, const char *value)
{
    http_reply_header(request, name, slice_from_text(value));
}

void http_reply_close(struct http_request *request)
{
    request->close = true;
}

/* --- heads ------------------------------------------------------------------------------------ */

static void put_number(struct pen *pen, uint64_t number)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        at--;
        digits[at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    put(pen, slice_make(digits + at, sizeof(digits) - at));
}

/* A reply before the body's end: whether the connection can go on after it. */
static bool can_drop_rest(const struct http_request *request)
{
    if (http_body_is_ended(&request->body)) {
        return true;
    }
    if (request->head.expect_continue && !request->continue_sent) {
        return false; /* the client may or may not send the body now */
    }
    return request->head.body_bytes < 0 || http_body_left(&request->body) <= HTTP_DROP_BYTES_MAX;
}

struct reply {
    const char *content_type; /* NULL: none */
    enum http_coding coding;
    bool varies;  /* by Accept-Encoding */
    bool chunked; /* Transfer-Encoding */
    bool has_length;
    uint64_t length;
};

static void put_connection(struct pen *pen, struct http_request *request)
{
    bool is_leaving = http_server_is_leaving(request->loop->server);
    request->close =
        request->close || is_leaving || !request->head.keep_alive || !can_drop_rest(request);
    if (request->close) {
        put_text(pen, "Connection: close\r\n");
    } else if (request->head.minor == 0) {
        put_text(pen, "Connection: keep-alive\r\n");
    }
}

static void put_head(struct pen *pen, struct http_request *request, int status,
                     const struct reply *reply)
{
    const struct status_row *row = find_status(status);
    const struct buffer *fields = &request->reply_fields;
    put(pen, slice_make(row->line, row->line_size));
    put(pen, slice_make(request->loop->date, HTTP_DATE_BYTES));
    if (reply->content_type != NULL) {
        put_text(pen, "Content-Type: ");
        put_text(pen, reply->content_type);
        put_text(pen, "\r\n");
    }
    if (reply->coding != HTTP_IDENTITY) {
        put_text(pen, "Content-Encoding: ");
        put_text(pen, http_coding_name(reply->coding));
        put_text(pen, "\r\n");
    }
    if (reply->varies) {
        put_text(pen, "Vary: Accept-Encoding\r\n");
    }
    if (reply->chunked) {
        put_text(pen, "Transfer-Encoding: chunked\r\n");
    } else if (reply->has_length) {
        put_text(pen, "Content-Length: ");
        put_number(pen, reply->length);
        put_text(pen, "\r\n");
    }
    put_text(pen, "X-Request-Id: ");
    put(pen, request->id);
    put_text(pen, "\r\n");
    put_text(pen, fields_of_all);
    if (!request->has_policy) {
        put_text(pen, field_of_policy);
    }
    put(pen, buffer_slice(fields));
    put_connection(pen, request);
    put_text(pen, "\r\n");
}

static void count_status(int status)
{
    if (status < 300) {
        metrics_add(METRIC_HTTP_REQUESTS_2XX, 1);
    } else if (status < 400) {
        metrics_add(METRIC_HTTP_REQUESTS_3XX, 1);
    } else if (status < 500) {
        metrics_add(METRIC_HTTP_REQUESTS_4XX, 1);
    } else {
        metrics_add(METRIC_HTTP_REQUESTS_5XX, 1);
    }
}

static size_t head_bytes_max(const struct http_request *request, const char *content_type)
{
    return FIXED_BYTES_MAX + request->reply_fields.size + request->id.size +
           (content_type == NULL ? 0 : strlen(content_type));
}

/* The connection goes on: now if it is not in the middle of it, at the latest in this round. */
static void wake(struct http_request *request)
{
    if (!request->connection->running) {
        http_connection_make_ready(request->connection);
    }
}

/* --- whole replies ---------------------------------------------------------------------------- */

static void send_reply(struct http_request *request, int status, const struct reply *reply,
                       struct slice body)
{
    struct http_connection *connection = request->connection;
    bool has_body = request->head.method != HTTP_HEAD && status != 304 && status != 204;
    size_t body_size = has_body ? body.size : 0;
    assert(request->reply == HTTP_REPLY_NONE);
    uint8_t *start =
        http_output_reserve(connection, head_bytes_max(request, reply->content_type) + body_size);
    request->reply = HTTP_REPLY_DONE;
    request->reply_status = status;
    count_status(status);
    wake(request);
    if (start == NULL) {
        return;
    }
    struct pen pen = {start};
    put_head(&pen, request, status, reply);
    put(&pen, slice_make(body.data, body_size));
    http_output_added(connection, (size_t)(pen.at - start));
}

static bool is_compressible(const char *content_type)
{
    static const char *const words[] = {"text/", "json",        "xml", "javascript",
                                        "csv",   "openmetrics", "yaml"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strstr(content_type, words[i]) != NULL) {
            return true;
        }
    }
    return false;
}

void http_reply(struct http_request *request, int status, const char *content_type,
                struct slice body)
{
    if (!http_request_is_open(request)) {
        return;
    }
    http_cors_allow(request);
    struct reply reply = {.content_type = body.size > 0 ? content_type : NULL,
                          .has_length = status != 204 && status != 304,
                          .length = body.size};
    if (body.size > COMPRESS_BYTES_MIN && content_type != NULL && !request->has_coding &&
        is_compressible(content_type)) {
        enum http_coding coding = http_request_coding(request);
        struct buffer *encoded = &request->loop->encoded;
        reply.varies = true;
        buffer_clear(encoded);
        if (coding != HTTP_IDENTITY &&
            http_encode_reusing(&request->loop->encoders[coding], coding, body, encoded) ==
                ERR_OK &&
            encoded->size < body.size) {
            body = buffer_slice(encoded);
            reply.coding = coding;
            reply.length = body.size;
        }
    }
    send_reply(request, status, &reply, body);
    buffer_shrink(&request->loop->encoded, HTTP_SCRATCH_BYTES);
}

void http_reply_encoded(struct http_request *request, int status, const char *content_type,
                        enum http_coding coding, struct slice body)
{
    if (!http_request_is_open(request)) {
        return;
    }
    http_cors_allow(request);
    const struct reply reply = {.content_type = content_type,
                                .coding = coding,
                                .varies = true,
                                .has_length = true,
                                .length = body.size};
    send_reply(request, status, &reply, body);
}

void http_reply_not_modified(struct http_request *request, struct slice etag)
{
    if (!http_request_is_open(request)) {
        return;
    }
    http_cors_allow(request);
    http_reply_header(request, "ETag", etag);
    const struct reply reply = {.varies = true};
    send_reply(request, 304, &reply, (struct slice){NULL, 0});
}

void http_reply_fault(struct http_request *request, const struct http_fault *fault)
{
    http_reply_error(request, fault->status, fault->code, fault->detail);
}

/* --- streams ---------------------------------------------------------------------------------- */

void http_stream_begin(struct http_request *request, int status, const char *content_type,
                       enum http_coding coding)
{
    if (!http_request_is_open(request)) {
        return;
    }
    struct http_connection *connection = request->connection;
    assert(request->reply == HTTP_REPLY_NONE && status != 204 && status != 304);
    http_cors_allow(request);
    request->chunked_reply = request->head.minor == 1;
    request->close = request->close || !request->chunked_reply;
    request->reply = HTTP_REPLY_STREAM;
    request->reply_status = status;
    count_status(status);
    wake(request);
    const struct reply reply = {.content_type = content_type,
                                .coding = coding,
                                .varies = true,
                                .chunked = request->chunked_reply};
    uint8_t *start = http_output_reserve(connection, head_bytes_max(request, content_type));
    if (start != NULL) {
        struct pen pen = {start};
        put_head(&pen, request, status, &reply);
        http_output_added(connection, (size_t)(pen.at - start));
    }
}

/* "<hex size> CRLF", at most 18 bytes. */
static void put_chunk_size(struct pen *pen, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    char text[16];
    size_t at = sizeof(text);
    do {
        at--;
        text[at] = digits[size & 15];
        size >>= 4;
    } while (size > 0);
    put(pen, slice_make(text + at, sizeof(text) - at));
    put_text(pen, "\r\n");
}

/* Without being asked: half of the buffer is free. */
#define STREAM_HELD_MAX ((size_t)LIMIT_STREAM_BUFFER_BYTES / 2 - 1)

static void want_room(struct http_request *request, size_t held_max)
{
    bool is_more = request->wants_room && request->room_held < held_max;
    request->room_held = is_more ? request->room_held : held_max;
    request->wants_room = true;
}

enum err http_stream_write(struct http_request *request, struct slice bytes)
{
    if (!http_request_is_open(request)) {
        return ERR_CLOSED;
    }
    struct http_connection *connection = request->connection;
    assert(request->reply == HTTP_REPLY_STREAM);
    if (request->head.method == HTTP_HEAD || bytes.size == 0) {
        return ERR_OK;
    }
    if (http_output_bytes(connection) >= (size_t)LIMIT_STREAM_BUFFER_BYTES) {
        want_room(request, STREAM_HELD_MAX);
        return ERR_FULL;
    }
    uint8_t *start = http_output_reserve(connection, bytes.size + 20);
    if (start == NULL) {
        wake(request);
        return ERR_NO_MEMORY;
    }
    struct pen pen = {start};
    if (request->chunked_reply) {
        put_chunk_size(&pen, bytes.size);
    }
    put(&pen, bytes);
    if (request->chunked_reply) {
        put_text(&pen, "\r\n");
    }
    http_output_added(connection, (size_t)(pen.at - start));
    if (http_output_bytes(connection) > STREAM_HELD_MAX) {
        want_room(request, STREAM_HELD_MAX);
    }
    wake(request);
    return ERR_OK;
}

size_t http_stream_memory(const struct http_request *request)
{
    bool is_held = http_request_is_open(request) && request->connection->output != NULL;
    return is_held ? request->connection->output->capacity : 0;
}

void http_stream_ask_room(struct http_request *request, size_t held_max)
{
    if (http_request_is_open(request)) {
        want_room(request, held_max);
        wake(request);
    }
}

size_t http_stream_room(const struct http_request *request)
{
    if (!http_request_is_open(request)) {
        return 0;
    }
    size_t held = http_output_bytes(request->connection);
    return held < (size_t)LIMIT_STREAM_BUFFER_BYTES ? (size_t)LIMIT_STREAM_BUFFER_BYTES - held : 0;
}

void http_stream_end(struct http_request *request)
{
    if (!http_request_is_open(request)) {
        return;
    }
    assert(request->reply == HTTP_REPLY_STREAM);
    if (request->chunked_reply && request->head.method != HTTP_HEAD) {
        static const struct slice last = {(const uint8_t *)"0\r\n\r\n", 5};
        struct pen pen = {http_output_reserve(request->connection, last.size)};
        if (pen.at != NULL) {
            put(&pen, last);
            http_output_added(request->connection, last.size);
        }
    }
    request->reply = HTTP_REPLY_DONE;
    wake(request);
}

void http_stream_abort(struct http_request *request)
{
    if (http_request_is_open(request)) {
        request->connection->broken = true;
        wake(request);
    }
}
