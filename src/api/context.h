/* Context: what the files of this stage share: the api, one context per loop, one state per
 * request, one job per question to the store.
 *
 * Thread: a loop's context and everything that hangs on it belong to that loop's thread; a job that
 *         is posted, to the thread that runs it, until it comes back.
 * Memory: a request's state outlives its http request for as long as mail of it is under way
 *         (`pending`); it goes back to the loop's free list then. A job is freed with its request.
 * Errors: every reply is made through reply.h, so none is made twice. */
#pragma once
#include "api/api.h"
#include "base/buffer.h"
#include "base/list.h"
#include "base/mailbox.h"
#include "base/table.h"
#include "gate/gate.h"
#include "intake/intake.h"
#include "store/store.h"

struct api_job;
struct api_request;
struct json_reader;

/* What a route needs before its handler runs. */
enum api_body {
    API_BODY_NONE,    /* on_ready at the head; a body is dropped */
    API_BODY_JSON,    /* a small document, collected; on_ready at its end */
    API_BODY_RECORDS, /* on_ready at the head; the handler accepts the body and takes its chunks */
    API_BODY_KEYED,   /* as records; without a key in the head, on_ready runs without an identity:
                         the key is in the body */
};
#define API_SCOPE_OPEN          0u         /* nobody needs a key */
#define API_SCOPE_ANY           UINT32_MAX /* any valid key */
#define API_JSON_BODY_BYTES_MAX ((size_t)64 * 1024)

struct api_route {
    enum http_method method;
    const char *pattern;
    const char *operation; /* operationId of the OpenAPI document */
    uint32_t scope;        /* set of enum gate_scope, of which one suffices; or one of the above */
    uint32_t body;         /* enum api_body */
    const char *cache;     /* Cache-Control */
    void (*on_ready)(struct api_request *request);
};

/* Mail by which a loop learns what is known only after it was made. */
struct api_start_mail {
    struct mail mail;
    struct api_loop *loop;
    struct http_server *server;
    struct apply *apply;
};

struct api_loop {
    struct api *api;
    struct http_loop *http;
    struct mailbox *mailbox;
    uint32_t index;
    struct journal_producer *producer;
    struct intake *intake; /* NULL: could not be made; records are refused */
    struct json_reader *json;
    struct gate_desk *desk;
    struct http_server *server; /* NULL before api_start */
    struct apply *apply;
    struct api_start_mail start;
    struct list requests; /* in use */
    struct list spare;
    uint32_t spare_count;
    struct buffer scratch;   /* of a reply that is being written */
    struct list waiters;     /* wait_for */
    struct list topics;      /* live tails, by org */
    uint32_t unknown_bodies; /* collected before their key is known */
    uint32_t signups;
    bool streams_ended;
    struct list full_streams;  /* of live tails, those that were not read for longest first */
    uint64_t stream_bytes;     /* of memory of their pages */
    uint64_t stream_logged_ns; /* when the log last told of one that was cut */
    struct mail news;          /* live.c: something was applied */
    uint64_t sample_ns;        /* health.c: the last look at the backlog */
    uint64_t sample_bytes;
};

/* An upload that was answered: what is told of it until its end record is applied. */
struct api_accepted {
    uint64_t org;
    uint64_t accepted;
    uint64_t rejected;
    int64_t received_ms;
    uint32_t area; /* enum query_area */
};

struct api {
    struct api_options options;
    struct table *accepted; /* id -> struct api_accepted, those of late */
    struct intake_recent *recent;
    struct table *loop_watch; /* live.c: a row for each loop and one for the process */
    struct table *watch;      /* live.c: a row for each loop and org with a live tail */
    struct table *elsewhere;  /* live.c: up to where other nodes applied, by journal */
    uint64_t build;           /* hash of the version, part of every tag */
    uint64_t started_ns;
    int64_t started_ms;
    uint32_t loop_count;
    struct api_loop loops[];
};

struct api_request {
    struct list_link link; /* the loop's */
    struct api_loop *loop;
    struct http_request *http; /* NULL once it is finished */
    const struct api_route *route;
    uint32_t pending; /* mails and answers of this request that are under way */
    bool is_begun;    /* a reply was made or a stream begun */
    bool has_identity;
    struct gate_identity identity;
    struct gate_window window;
    bool is_limited; /* by that window */
    void (*on_admitted)(struct api_request *request);
    /* bodies */
    void (*on_body)(struct api_request *request, struct slice chunk);
    void (*on_body_end)(struct api_request *request);
    struct buffer body; /* documents, and bodies whose key is inside */
    bool body_ended;
    /* records */
    struct intake_request *intake;
    bool wait_stored;
    uint64_t stored_due_ms; /* monotonic: until then the store is waited for; 0: not yet, or not */
    bool is_overdue;        /* it was applied a look ago, and the result is not here */
    uint8_t answer;         /* enum api_answer */
    uint64_t counted_bytes; /* of the body, in the hour, that nothing was taken for yet */
    uint64_t counted_ms;    /* monotonic: when the first of them were */
    void *detail;           /* the handler's own, freed with the request by detail_finish */
    void (*detail_finish)(struct api_request *request);
    /* questions */
    struct api_job *job;
    uint64_t seed; /* of the tag: everything that the answer depends on */
    /* waits: in loop->waiters, or in a topic's streams */
    struct list_link wait;
    uint64_t wait_position;
    uint64_t wait_end_ms; /* monotonic */
    void (*on_applied)(struct api_request *request);
    void (*on_timer)(struct api_request *request);
    void (*on_room)(struct api_request *request);
    /* From here on a request begins with what its memory held before. */
    struct gate_waiter waiter;
};

/* api.c */
struct api_request *api_request_create(struct api_loop *loop, struct http_request *http,
                                       const struct api_route *route);
/* An empty buffer of the loop, for one reply that is being written. */
struct buffer *api_scratch(struct api_loop *loop);
/* Frees it when nothing of it is under way. */
void api_request_release(struct api_request *request);
static inline struct api_request *api_request_of(const struct http_request *http)
{
    return (struct api_request *)http_request_state(http);
}

/* request.c: the common way */
void api_on_head(struct http_request *http, const struct http_route *route);
void api_on_body(struct http_request *http, struct slice chunk);
void api_on_body_end(struct http_request *http);
void api_on_stream_room(struct http_request *http);
void api_on_timer(struct http_request *http);
void api_on_finish(struct http_request *http);
/* For bodies that hold their key: checks it, then on_ready. */
void api_authorize(struct api_request *request, struct slice key,
                   void (*on_admitted)(struct api_request *request));
/* The presented key's text, decoded into `to` when it is Basic; data NULL: none. */
#define API_KEY_TEXT_MAX 256u
struct slice api_request_key(const struct http_request *http, uint8_t to[API_KEY_TEXT_MAX]);

/* live.c */
/* What the loops share; loop_count is known. */
void api_live_open(struct api *api);
void api_live_close(struct api *api);
void api_live_start(struct api_loop *loop);
/* On the loop: from here on it is told. */
void api_live_begin(struct api_loop *loop);
void api_live_stop(struct api_loop *loop);
/* Whether everything up to there is queryable. */
bool api_is_applied(const struct api_loop *loop, uint64_t position);
/* Runs on_applied once the position is applied, at once if it is; waits at most LIMIT_WAIT_FOR_MS.
 */
void api_wait_for(struct api_request *request, uint64_t position,
                  void (*on_applied)(struct api_request *request));
/* Adds a stream of the request's org to those that are told of news. */
void api_live_add(struct api_request *request);
void api_live_remove(struct api_request *request);
/* Open live tails of the whole process, for the metric. */
void api_live_count(struct api *api, int32_t change);
/* The server drains: every live tail of the loop ends. */
void api_live_end(struct api_loop *loop);
