/* Connection, request, loop and server: the structs that the files of this folder share.
 *
 * Thread: a loop, its connections and its requests belong to the loop's thread. A connection is
 *         loop 0's before it is handed out and after it has come back.
 * Memory: a connection holds a block of input only while bytes of a request are there, a block of
 *         output only while something is to be sent. A request keeps the block that its head stands
 *         in until the last reference is gone.
 * Errors: a connection that cannot go on is CLOSED and freed at the end of the round. */
#pragma once
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/mailbox.h"
#include "http/body.h"
#include "http/decode.h"
#include "http/http.h"
#include "http/parser.h"
#include "http/pool.h"
#include "http/router.h"
#include "http/transport.h"
#include "http/wheel.h"

#define HTTP_REQUEST_ID_BYTES 28u
#define HTTP_DATE_BYTES       37u /* "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n" */
#define HTTP_SCRATCH_BYTES    (64u << 10)
#define HTTP_ARENAS_KEPT      64u
/* A reply before the body's end: the rest is read and dropped up to this, else the connection is
 * closed (after lingering). */
#define HTTP_DROP_BYTES_MAX (64u << 10)
/* With more than this to be sent, no further pipelined request is begun. */
#define HTTP_OUTPUT_HIGH_BYTES (64u << 10)
#define HTTP_LINGER_MS         5000u  /* between two reads */
#define HTTP_LINGER_TOTAL_MS   30000u /* in all */

/* IDLE     no byte of a request is there, no memory is held
 * HEAD     a part of a head is there
 * WAIT     a request is the handler's; nothing is read
 * BODY     an accepted body is being read
 * DROP     the reply is complete, the small rest of the body is read and dropped
 * FLUSH    the last reply is complete and being sent
 * LINGER   all is sent and the write side shut; what comes is dropped until the peer closes
 * CLOSED   freed at the end of the round
 *
 *   IDLE <-> HEAD -> WAIT <-> BODY
 *    ^  ^            |  |      |
 *    |  +---DROP <---+  |      |        any state -> CLOSED
 *    +---------------+  +------+-> FLUSH -> LINGER -> CLOSED */
enum http_state {
    HTTP_STATE_IDLE,
    HTTP_STATE_HEAD,
    HTTP_STATE_WAIT,
    HTTP_STATE_BODY,
    HTTP_STATE_DROP,
    HTTP_STATE_FLUSH,
    HTTP_STATE_LINGER,
    HTTP_STATE_CLOSED,
};

/* The bytes that moved since `since_ms`: to hold a peer to the minimum rate. */
struct http_window {
    uint64_t since_ms; /* 0: not measured */
    uint64_t bytes;
};

/* What every request touches stands in front, in four cache lines: with many connections each
 * visit finds them cold. */
#define HTTP_CONNECTION_HOT_BYTES 256u

struct http_connection {
    struct http_loop *loop;
    const struct http_transport *transport;
    struct http_request *request; /* in HEAD, WAIT and BODY */
    struct http_block *input;     /* bytes start..end are there and not used yet */
    struct http_block *output;    /* bytes start..end are to be sent */
    size_t input_start;
    size_t input_end;
    size_t output_start;
    size_t output_end;
    int fd;
    enum http_state state;
    uint32_t round_requests; /* begun since the last flush */
    bool readable;           /* the last read was not short */
    bool writable;
    bool peer_ended; /* an event said that the peer sends no more, or is gone */
    bool running;
    bool gated;         /* pipelined requests wait until more is sent */
    bool broken;        /* memory or the peer is gone: close */
    bool linger;        /* FLUSH: bytes of the peer may be unread */
    size_t round_bytes; /* read for this run */
    uint64_t state_since_ms;
    struct http_timer timer;
    struct http_window reading;  /* measured in BODY and DROP */
    struct http_window sending;  /* measured while output waits for the peer */
    struct list_link ready_link; /* has something to do that no event will tell */
    struct list_link dirty_link; /* has output for the end of the round */
    struct http_parser parser;   /* of the head that begins at input_start */
    struct list_link all_link;
    struct mail mail;         /* to its loop, and back to loop 0 */
    void *tls;                /* SSL */
    struct http_body dropped; /* DROP: the rest of the body */
    uint64_t drop_bytes;      /* of it so far */
    uint8_t address[16];      /* IPv6, or IPv4 mapped into it */
    char address_text[INET6_ADDRSTRLEN];
};

static_assert(offsetof(struct http_connection, all_link) <= HTTP_CONNECTION_HOT_BYTES,
              "what every request touches fits its cache lines");
static_assert(sizeof(struct http_connection) < 1024, "10,000 idle connections cost < 1 KB each");

enum http_reply_state {
    HTTP_REPLY_NONE,
    HTTP_REPLY_STREAM, /* begun, more to come */
    HTTP_REPLY_DONE,   /* all of it is in the connection's output */
};

struct http_request {
    struct http_request *self; /* for accessors, which decode into the arena of a const request */
    struct http_loop *loop;
    struct http_connection *connection; /* NULL once the reply is complete or the peer gone */
    struct http_block *head_block;
    const uint8_t *head_bytes; /* the offsets of `head` count from here */
    const struct http_route *route;
    struct mem_arena *arena; /* NULL until asked for */
    void *state;
    uint64_t started_ns;
    struct list_link all_link;  /* of the loop's live requests, or its free list */
    struct http_timer timer;    /* the handler's, see http_request_set_timer */
    struct buffer reply_fields; /* complete lines */
    struct http_body body;
    struct http_decoder *decoder; /* NULL: identity */
    struct slice undecoded;       /* without its frame, not decoded yet; before the input's start */
    bool decoder_full;            /* the last piece filled its room: there may be more */
    uint64_t encoded_bytes;
    uint64_t decoded_bytes;
    uint64_t decoded_bytes_max; /* 0: none */
    uint32_t refs;              /* the connection's and the handler's */
    enum http_reply_state reply;
    int reply_status;
    enum http_coding stream_coding;
    bool body_accepted;
    bool body_told; /* on_body_end was called */
    bool paused;
    bool close;         /* the connection closes after the reply */
    bool chunked_reply; /* a stream in chunks */
    bool handler_knows; /* on_head was called: on_finish is due */
    bool wants_room;    /* on_stream_room is due when no more than this is left to be sent: */
    size_t room_held;
    bool continue_sent;
    bool has_policy; /* the handler set Content-Security-Policy */
    bool has_coding; /* the handler set Content-Encoding */
    uint32_t param_count;
    struct slice id;
    /* From here on a request begins with what its memory held before. */
    struct slice params[HTTP_PARAMS_MAX];
    char id_text[HTTP_REQUEST_ID_BYTES];
    char address_text[INET6_ADDRSTRLEN];
    struct http_head head;
};

struct http_loop {
    struct http_server *server;
    struct mailbox *mailbox;
    void *context; /* on_loop_start gave it */
    uint32_t index;
    int epoll_fd;
    struct http_pool pool;
    struct http_wheel wheel;
    struct list connections;
    struct list ready;
    struct list dirty;
    struct list closed;
    struct list requests;      /* live */
    struct list free_requests; /* kept for the next */
    uint32_t free_request_count;
    uint32_t live_request_count;
    struct mem_arena *arenas[HTTP_ARENAS_KEPT];
    uint32_t arena_count;
    struct http_encoder *encoders[HTTP_ZSTD + 1]; /* made when first used */
    struct buffer encoded;                        /* of the reply being made */
    uint64_t now_ms;
    uint64_t now_ns;
    int64_t wall_ms;
    int64_t date_s;        /* the second that `date` shows */
    uint64_t cut_ms;       /* draining: when the rest is cut; 0: not draining */
    uint64_t end_waits_ms; /* draining: timers of requests are due by then, while it is ahead */
    uint64_t id_count;
    char id_prefix[16];
    char date[HTTP_DATE_BYTES];
    struct mail drain_mail;
    uint8_t *scratch; /* HTTP_SCRATCH_BYTES: one read of a body */
    uint8_t *decoded; /* HTTP_SCRATCH_BYTES: one piece of decoded body */
};

struct http_acceptor;

struct http_server {
    struct http_options options;
    struct http_router *router;
    struct http_loop *loops;
    struct http_tls *tls; /* NULL: plain */
    struct http_acceptor *acceptor;
    /* Set by drain from any thread (seq_cst), read by is_draining from any thread. What a loop does
     * about it comes by mail. */
    atomic_bool is_draining;
    /* Set by leave and drain from any thread, read by any. Relaxed: nothing else is told by it. */
    atomic_bool is_leaving;
    uint32_t drain_grace_ms; /* set before the first drain mail is posted */
    uint16_t port;
};

/* --- connection.c: its states ----------------------------------------------------------------- */
/* On its loop's thread; its fd, address and transport are set. */
void http_connection_start(struct http_connection *connection);
/* The one function that changes the state. */
void http_connection_set_state(struct http_connection *connection, enum http_state state);
/* Events of the epoll set: notes them, and reads what an idle connection got. Its begin and run
 * follow in the same round. */
void http_connection_on_event(struct http_connection *connection, uint32_t events);
/* Takes the head that was read, if it is whole, and tells the handler of it. */
void http_connection_begin(struct http_connection *connection);
void http_connection_on_timer(struct http_connection *connection);
/* Does what can be done now without waiting. */
void http_connection_run(struct http_connection *connection);
/* Sends what is to be sent. */
void http_connection_flush(struct http_connection *connection);
/* Begins to drain: closes an idle connection. */
void http_connection_drain(struct http_connection *connection);
/* Cuts it, whatever it does. */
void http_connection_cut(struct http_connection *connection);
/* Runs it once more, in this round or the next. */
void http_connection_make_ready(struct http_connection *connection);

/* --- input.c: bytes that came ----------------------------------------------------------------- */
enum http_input { HTTP_INPUT_SOME, HTTP_INPUT_NONE, HTTP_INPUT_ENDED };
/* Reads more of a head behind what is there. */
enum http_input http_input_read(struct http_connection *connection);
/* Reads into the loop's scratch; the input is empty. */
enum http_input http_input_read_scratch(struct http_connection *connection, struct slice *ret);
/* Keeps bytes of the scratch that cannot be used now. */
void http_input_save(struct http_connection *connection, struct slice bytes);
/* Gives the block back when nothing is left in it and no request needs it. */
void http_input_release(struct http_connection *connection);

/* --- exchange.c: one request and its reply ---------------------------------------------------- */
/* Tries to parse a head at the front of the input; false: more has to come. */
bool http_exchange_parse(struct http_connection *connection);
/* Answers a head that is malformed or late; nothing of it is used. */
void http_exchange_refuse_head(struct http_connection *connection, const struct http_fault *fault);
/* Takes body bytes from the front of *rest, until they end, a pause or the reply. */
void http_exchange_read_body(struct http_connection *connection, struct slice *rest);
/* The reply is complete: tells the handler, lets the request go, chooses the next state. */
void http_exchange_finish(struct http_connection *connection);
/* The peer is gone before the reply was complete. */
void http_exchange_abort(struct http_connection *connection);

/* --- output.c: bytes to be sent --------------------------------------------------------------- */
/* Room for `size` bytes at the end of the output, to be confirmed by http_output_added; NULL:
 * memory is out and the connection broken. */
uint8_t *http_output_reserve(struct http_connection *connection, size_t size);
void http_output_added(struct http_connection *connection, size_t size);
void http_output_sent(struct http_connection *connection, size_t size);
static inline size_t http_output_bytes(const struct http_connection *connection)
{
    return connection->output_end - connection->output_start;
}

/* --- request.c -------------------------------------------------------------------------------- */
struct http_request *http_request_take(struct http_connection *connection);
/* The value of a known field; data NULL when absent. */
struct slice http_request_known(const struct http_request *request, enum http_known known);
/* Frees every request of the loop, whoever holds it, and what the loop keeps for the next ones. */
/* Draining: its timer is due at half of the grace, if that is ahead. */
void http_request_end_wait(struct http_request *request);
void http_request_finish_loop(struct http_loop *loop);

/* --- reply.c ---------------------------------------------------------------------------------- */
/* Answers a fault of the parser or the framing. */
void http_reply_fault(struct http_request *request, const struct http_fault *fault);
/* 413 that names the limit. */
void http_refuse_large(struct http_request *request, uint64_t decoded_bytes_max);
/* A line of the coming reply whose name and value are ours. */
void http_reply_text(struct http_request *request, const char *name, const char *value);

/* --- cors.c ----------------------------------------------------------------------------------- */
/* Adds the headers that let a permitted origin read the reply. */
void http_cors_allow(struct http_request *request);
/* Answers OPTIONS for a path with these rows (NULL: for the server as a whole). */
void http_cors_options(struct http_request *request, const struct http_route *const *by_method);
