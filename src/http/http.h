/* Http: sockets -> requests -> replies, HTTP/1.1 (RFC 9110, 9112), strict.
 *
 * N loops; each is one thread with its epoll set, its connections and its mailbox. Loop 0 accepts
 * and hands out in turn. A connection works on one request at a time; pipelined requests wait in
 * its input. A request that waits for another thread is simply not answered yet.
 *
 * Thread: server_open, drain and close: the thread that owns the server. Everything that takes a
 *         request or a loop: that request's loop thread, except http_encode and the validators,
 *         which are pure.
 * Memory: slices of a request (target, headers, parameters) live until its reply is complete;
 *         replies copy what they are given. A request that is answered from elsewhere is kept by
 *         http_request_ref and given back by http_request_unref.
 * Errors: what a client does wrong is answered here as problem+json (RFC 9457); handlers see only
 *         requests whose framing and route are right. */
#pragma once
#include <stdbool.h>

#include "base/buffer.h"
#include "base/err.h"
#include "base/mailbox.h"
#include "base/mem.h"
#include "base/slice.h"

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_PATCH,
    HTTP_DELETE,
    HTTP_OPTIONS,
};

enum http_coding { HTTP_IDENTITY, HTTP_GZIP, HTTP_BROTLI, HTTP_ZSTD };

struct http_server;
struct http_loop;
struct http_request;

/* One row of the table of routes. `pattern`: literal segments and {names}: "/api/v1/events/{id}".
 * Literal segments win over names. A GET row serves HEAD too. A trailing slash in the pattern is
 * significant. */
struct http_route {
    enum http_method method;
    const char *pattern;
    const void *data; /* the handler's own row */
};

/* What the server calls, always on the request's loop thread. */
struct http_handler {
    /* Once per loop, on its thread, before its first connection: gives the loop's context, which
     * every request on it can reach. */
    void *(*on_loop_start)(void *owner, struct http_loop *loop);
    void (*on_loop_stop)(void *context);
    /* Twice in every round, after its events and at its end: hand over what was collected (open
     * frames). */
    void (*on_collected)(void *context);
    /* The head is complete and its route found. The handler replies, or accepts the body
     * (http_body_accept), or refs the request and does one of the two later. */
    void (*on_head)(struct http_request *request, const struct http_route *route);
    /* Decoded bytes of an accepted body, in order. Not called while the request is paused. After a
     * reply in here the rest of the body is dropped (lingering) by the server. */
    void (*on_body)(struct http_request *request, struct slice chunk);
    /* The body is complete and well framed. */
    void (*on_body_end)(struct http_request *request);
    /* More than half of the stream's buffer is free again, or what was asked for (see
     * http_stream_*). */
    void (*on_stream_room)(struct http_request *request);
    /* The time set by http_request_set_timer has passed, and the reply is not complete. */
    void (*on_timer)(struct http_request *request);
    /* Exactly once for each on_head: the reply is complete, or the connection is gone before it.
     * References may outlive it; `is_open` is false from here on. */
    void (*on_finish)(struct http_request *request);
};

struct http_options {
    const char *host; /* address to bind: IPv4, IPv6 */
    uint16_t port;    /* 0: the kernel chooses; see http_server_port */
    uint32_t loops;
    const struct http_route *routes;
    uint32_t route_count;
    const struct http_handler *handler;
    void *owner;               /* given to on_loop_start */
    const char *tls_cert_file; /* both NULL: no TLS */
    const char *tls_key_file;
    const char *cors_allowed_origins; /* NULL: off; "*" or a comma-separated list */
    uint32_t connections_max;
    uint32_t connections_per_address_max;
    uint32_t head_timeout_ms;
    uint32_t idle_timeout_ms;
    uint32_t body_grace_ms;        /* a body and a reader may be slower than the minimum rate for */
    uint32_t rate_min_bytes_per_s; /* this long; then the connection is closed (408 for bodies) */
};

/* Binds and listens, compiles the routes; no thread runs yet. ERR_BUSY: the port is in use;
 * ERR_CONFIG: a route twice, a certificate that does not load. */
MUST_CHECK enum err http_server_open(struct http_server **ret, const struct http_options *options,
                                     struct err_detail *detail);
uint16_t http_server_port(const struct http_server *server);
uint32_t http_server_loop_count(const struct http_server *server);
struct http_loop *http_server_loop(struct http_server *server, uint32_t index);
/* The body of a loop's thread, given the loop: returns after http_server_drain when its last
 * connection is gone. */
void http_loop_run(void *argument);
uint32_t http_loop_index(const struct http_loop *loop);
/* Where other threads post what is to be run on this loop. */
struct mailbox *http_loop_mailbox(struct http_loop *loop);
/* The clocks as they were when the loop last looked at them: after it slept, and before it takes
 * its mail. What a handler times by the clock of its own thread is later than that. */
uint64_t http_loop_mono_ns(const struct http_loop *loop);
int64_t http_loop_wall_ms(const struct http_loop *loop);
/* Any thread: a drain will follow. Everything is still served; each answer closes its connection,
 * so that clients and balancers look for another server. */
void http_server_leave(struct http_server *server);
/* After leave, and while draining. */
bool http_server_is_leaving(const struct http_server *server);
/* Any thread: stop accepting, answer open requests with Connection: close, close idle connections;
 * after grace_ms the rest is cut. */
void http_server_drain(struct http_server *server, uint32_t grace_ms);
bool http_server_is_draining(const struct http_server *server);
/* After the loops' threads were joined. NULL is fine. */
void http_server_close(struct http_server *server);

/* --- what a request is ------------------------------------------------------------------------ */
enum http_method http_request_method(const struct http_request *request);
/* The path as it came, without the query. */
struct slice http_request_path(const struct http_request *request);
/* Path parameter `index` of the pattern, percent-decoded. */
struct slice http_request_param(const struct http_request *request, uint32_t index);
/* First value of a query parameter, decoded; false when absent. */
bool http_request_query(const struct http_request *request, const char *name, struct slice *ret);
/* Every query parameter in order, both parts decoded: begin gives `*rest`, next takes the first off
 * it; false when none is left. */
struct slice http_request_query_begin(const struct http_request *request);
bool http_request_query_next(const struct http_request *request, struct slice *rest,
                             struct slice *ret_name, struct slice *ret_value);
/* First header of this name, without case; a missing one gives an empty slice with data NULL. */
struct slice http_request_header_named(const struct http_request *request, struct slice name);
static inline struct slice http_request_header(const struct http_request *request, const char *name)
{
    return http_request_header_named(request, slice_from_text(name));
}
uint32_t http_request_header_count(const struct http_request *request);
void http_request_header_at(const struct http_request *request, uint32_t n, struct slice *ret_name,
                            struct slice *ret_value);
/* Echoed from X-Request-Id (1 to 128 visible ASCII) or made. */
struct slice http_request_id(const struct http_request *request);
/* Numeric address of the peer as text. */
struct slice http_request_address(const struct http_request *request);
/* Monotonic time at which the head was complete. */
uint64_t http_request_started_ns(const struct http_request *request);
/* Content-Length, or -1 for a chunked body; 0 when there is no body. */
int64_t http_request_body_bytes(const struct http_request *request);
void *http_request_loop_context(const struct http_request *request);
struct http_loop *http_request_loop(const struct http_request *request);
/* Freed when the reply is complete; bounded (1 MiB). */
struct mem_arena *http_request_arena(struct http_request *request);
/* The handler's own state of this request; NULL at on_head. */
void *http_request_state(const struct http_request *request);
void http_request_set_state(struct http_request *request, void *state);
/* on_timer runs once after `ms`, unless the reply is complete by then; 0 stops it. While the server
 * drains it runs at half of the grace, so that whoever waits is answered and not cut. The api's:
 * waits with a bound, heartbeats of a stream. */
void http_request_set_timer(struct http_request *request, uint32_t ms);
/* Keeps the request's memory while another thread works for it. */
void http_request_ref(struct http_request *request);
void http_request_unref(struct http_request *request);
/* False once the peer is gone or the reply complete; replying then does nothing. */
bool http_request_is_open(const struct http_request *request);

/* --- bodies ----------------------------------------------------------------------------------- */
/* Take the body: at most decoded_bytes_max decoded bytes (0: no limit), else 413, before reading it
 * when Content-Length says so. Content codings gzip, br, zstd (and identity) are decoded; another
 * is 415. Sends 100 Continue when asked for. on_body may be called from inside. */
void http_body_accept(struct http_request *request, uint64_t decoded_bytes_max);
/* Stop and go on reading: back-pressure. */
void http_body_pause(struct http_request *request);
void http_body_resume(struct http_request *request);

/* --- replies ---------------------------------------------------------------------------------- */
/* A header of the coming reply; name and value are copied; CR and LF are refused by assert. */
void http_reply_header(struct http_request *request, const char *name, struct slice value);
/* The whole reply. Content-Length, Date, X-Request-Id and the security headers are added; the body
 * is compressed when the client takes it, it is above 1 KiB and no coding was set. */
void http_reply(struct http_request *request, int status, const char *content_type,
                struct slice body);
/* As http_reply for a body encoded elsewhere with http_encode. */
void http_reply_encoded(struct http_request *request, int status, const char *content_type,
                        enum http_coding coding, struct slice body);
struct http_problem_item {
    struct slice pointer; /* JSON Pointer or path; data NULL: none */
    int64_t offset;       /* byte of the body; -1: none */
    const char *code;
    const char *message;
};
struct http_problem {
    int status;
    const char *code;   /* stable snake_case */
    const char *detail; /* one sentence for people; NULL: none */
    int64_t offset;     /* -1: none */
    const struct http_problem_item *items;
    uint32_t item_count; /* at most LIMIT_PROBLEM_ERRORS are shown; totals per code are added */
    struct slice extra;  /* further members, `"name":value,…`, or empty */
};
void http_reply_problem(struct http_request *request, const struct http_problem *problem);
/* The short form. */
void http_reply_error(struct http_request *request, int status, const char *code,
                      const char *detail);
/* The connection closes after this reply. */
void http_reply_close(struct http_request *request);

/* A reply of unknown length (chunked; to HTTP/1.0 clients until close). Writes are buffered up to
 * LIMIT_STREAM_BUFFER_BYTES beyond one write; ERR_FULL then, nothing taken. */
void http_stream_begin(struct http_request *request, int status, const char *content_type,
                       enum http_coding coding);
/* Bytes encoded already when the coding is not identity. */
MUST_CHECK enum err http_stream_write(struct http_request *request, struct slice bytes);
/* Free bytes of the buffer. */
size_t http_stream_room(const struct http_request *request);
/* Bytes of memory that hold what is left to be sent. */
size_t http_stream_memory(const struct http_request *request);
/* Asks for on_stream_room as soon as at most `held_max` bytes are left to be sent: soon, when that
 * is so already. */
void http_stream_ask_room(struct http_request *request, size_t held_max);
void http_stream_end(struct http_request *request);
/* The reply cannot be completed: the connection is cut so that the client sees it. */
void http_stream_abort(struct http_request *request);

/* --- negotiation and validators --------------------------------------------------------------- */
/* The best coding by Accept-Encoding with q-values: zstd, br, gzip at equal q. */
enum http_coding http_request_coding(const struct http_request *request);
/* "gzip", "br", "zstd"; "identity" otherwise. */
const char *http_coding_name(enum http_coding coding);
/* Pure, any thread: one complete encoded body, appended to `to`. */
MUST_CHECK enum err http_encode(enum http_coding coding, struct slice body, struct buffer *to);
/* Streaming encoder for bodies that are made page by page; any one thread at a time. */
struct http_encoder;
MUST_CHECK enum err http_encoder_create(struct http_encoder **ret, enum http_coding coding);
/* Appends to `to`; with `last` the stream is finished. Each call flushes, so pages travel whole. */
MUST_CHECK enum err http_encoder_write(struct http_encoder *encoder, struct slice bytes, bool last,
                                       struct buffer *to);
void http_encoder_destroy(struct http_encoder *encoder);
/* Whether If-None-Match names `etag` (weak comparison, "*" too). */
bool http_request_matches(const struct http_request *request, struct slice etag);
/* 304 with the tag and the cache headers set before. */
void http_reply_not_modified(struct http_request *request, struct slice etag);
/* Standard phrase of a status. */
const char *http_status_text(int status);
