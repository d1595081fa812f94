/* Stream: the live tail as server-sent events, in commit order.
 *
 * Each stream pulls: a job reads one page after the stream's place, the loop writes it, and the
 * next page is asked for when the last is sent. So catching up from an old Last-Event-ID and
 * following live are the same, and a slow subscriber holds no snapshot, no reader, and one page.
 *
 *   READING --page written--> FULL      sent --> READING if there is more or news, else IDLE
 *                                       5 s in which nothing is sent --> cut
 *   READING --empty page----> IDLE      news or heartbeat --> READING
 *
 * The pages of all streams together are bounded too: above the bound the stream whose page waits
 * for longest is cut.
 *
 * Happy path: the place is found (Last-Event-ID, or the org's newest event), the stream begins, the
 * first page is read, then one after each commit of the org.
 * Failure modes: the key is revoked or expires: the stream ends at the next page or heartbeat. The
 * store does not answer: tried again with the next heartbeat. The subscriber does not read: it is
 * cut, counted, and resumes with Last-Event-ID. The server drains: the stream ends. */
#include "api/handlers.h"

#include "api/job.h"
#include "api/parameters.h"
#include "api/reply.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/metrics.h"
#include "query/query.h"

#include <assert.h>

#define API_STREAM_PAGE_BYTES   ((size_t)48 * 1024)
#define API_STREAM_HELD_MAX     ((size_t)4 * 1024) /* with no more left, a page counts as sent */
#define API_STREAM_HEARTBEAT_MS 15000u
#define API_STREAM_LOOK_MS      1000u /* in FULL: whether anything was sent */
#define API_STREAM_STALL_LOOKS  5u
#define API_STREAM_LOG_EACH_NS  (UINT64_C(60) * 1000000000u)

enum api_stream_state {
    API_STREAM_BEGINNING,
    API_STREAM_READING,
    API_STREAM_IDLE,
    API_STREAM_FULL
};

struct api_stream_job {
    struct api_job job; /* first */
    struct query_tail tail;
    enum api_stream_state state; /* the loop's */
    bool has_place;
    bool has_news; /* the loop's: something was committed while a page was read */
    bool more;
    struct list_link full; /* the loop's: in its full_streams */
    size_t page_bytes;     /* the loop's: memory of its page, counted in stream_bytes */
    uint32_t stalled_looks;
    size_t room; /* of the connection's output, when it was last looked at in FULL */
};

static void api_stream_timer(struct api_request *request);

/* Without Last-Event-ID the tail begins behind the newest event. With it, this only proves that the
 * store answers, while an error can still be told. */
static enum err api_stream_first(struct api_job *job, struct store_connection *connection)
{
    struct api_stream_job *stream = (struct api_stream_job *)job;
    uint64_t end = 0;
    enum err err = query_tail_end(connection, job->org, &end);
    if (err == ERR_OK && !stream->has_place) {
        stream->tail.after = end;
    }
    return err;
}

static enum err api_stream_query(struct api_job *job, struct store_connection *connection)
{
    struct api_stream_job *stream = (struct api_stream_job *)job;
    return query_tail_read(connection, &stream->tail, &job->body, &stream->tail.after,
                           &stream->more);
}

/* The one place where the state changes. */
static void api_stream_set(struct api_stream_job *stream, enum api_stream_state state)
{
    struct api_request *request = stream->job.request;
    stream->state = state;
    request->on_timer = api_stream_timer;
    http_request_set_timer(request->http,
                           state == API_STREAM_FULL ? API_STREAM_LOOK_MS : API_STREAM_HEARTBEAT_MS);
}

static void api_stream_read(struct api_stream_job *stream)
{
    struct api_request *request = stream->job.request;
    if (stream->state != API_STREAM_IDLE) {
        stream->has_news = true;
        return;
    }
    stream->has_news = false;
    stream->tail.now_ms = clock_wall_ms();
    buffer_clear(&stream->job.body);
    if (store_post_read(request->loop->api->options.store, &stream->job.store) != ERR_OK) {
        return; /* the readers are busy: the heartbeat comes back */
    }
    request->pending++;
    api_stream_set(stream, API_STREAM_READING);
}

/* Its page is sent, or will never be. */
static void api_stream_uncount(struct api_stream_job *stream)
{
    stream->job.request->loop->stream_bytes -= stream->page_bytes;
    stream->page_bytes = 0;
    list_remove(&stream->full);
}

static void api_stream_cut(struct api_stream_job *stream, enum metrics_counter reason)
{
    struct api_loop *loop = stream->job.request->loop;
    uint64_t now_ns = clock_mono_ns();
    api_stream_uncount(stream);
    metrics_add(reason, 1);
    if (now_ns - loop->stream_logged_ns > API_STREAM_LOG_EACH_NS || loop->stream_logged_ns == 0) {
        loop->stream_logged_ns = now_ns;
        log_write(LOG_WARN, "api", "a live tail was cut, %s; event_streams_cut_total counts them",
                  reason == METRIC_STREAM_CUT_SLOW ? "its subscriber does not read"
                                                   : "subscribers that do not read hold too much");
    }
    http_stream_abort(stream->job.request->http);
}

/* A page waits to be sent: it counts, and so does the time. */
static void api_stream_fill(struct api_stream_job *stream)
{
    struct api_loop *loop = stream->job.request->loop;
    stream->page_bytes = http_stream_memory(stream->job.request->http);
    buffer_shrink(&stream->job.body, API_STREAM_HELD_MAX);
    stream->room = http_stream_room(stream->job.request->http);
    stream->stalled_looks = 0;
    loop->stream_bytes += stream->page_bytes;
    list_push_back(&loop->full_streams, &stream->full);
    api_stream_set(stream, API_STREAM_FULL);
    http_stream_ask_room(stream->job.request->http, API_STREAM_HELD_MAX);
    while (loop->stream_bytes > LIMIT_STREAMS_BYTES / loop->api->loop_count) {
        struct list_link *first = list_first(&loop->full_streams);
        assert(first != NULL);
        api_stream_cut(LIST_CONTAINER(first, struct api_stream_job, full),
                       METRIC_STREAM_CUT_MEMORY);
    }
}

static void api_stream_page(struct api_job *job)
{
    struct api_stream_job *stream = (struct api_stream_job *)job;
    struct http_request *http = job->request->http;
    api_stream_set(stream, API_STREAM_IDLE);
    if (job->store.err == ERR_UNAUTHORIZED || job->store.err == ERR_NOT_FOUND) {
        http_stream_end(http);
        return;
    }
    if (job->store.err != ERR_OK) {
        return;
    }
    if (job->body.size == 0) {
        if (stream->more || stream->has_news) {
            api_stream_read(stream);
        }
        return;
    }
    if (http_stream_write(http, buffer_slice(&job->body)) != ERR_OK) {
        http_stream_abort(http);
        return;
    }
    api_stream_fill(stream);
}

/* A slow subscriber that reads is http's business, which holds it to the minimum rate. */
static void api_stream_look(struct api_stream_job *stream)
{
    struct http_request *http = stream->job.request->http;
    size_t room = http_stream_room(http);
    stream->stalled_looks = room > stream->room ? 0 : stream->stalled_looks + 1;
    stream->room = room;
    if (stream->stalled_looks == API_STREAM_STALL_LOOKS) {
        api_stream_cut(stream, METRIC_STREAM_CUT_SLOW);
        return;
    }
    http_request_set_timer(http, API_STREAM_LOOK_MS);
}

static void api_stream_timer(struct api_request *request)
{
    struct api_stream_job *stream = (struct api_stream_job *)request->job;
    if (stream->state == API_STREAM_FULL) {
        api_stream_look(stream);
        return;
    }
    if (http_stream_write(request->http, SLICE_LITERAL(": heartbeat\n\n")) != ERR_OK) {
        http_stream_abort(request->http);
        return;
    }
    if (stream->state == API_STREAM_IDLE) {
        api_stream_read(stream);
    } else {
        http_request_set_timer(request->http, API_STREAM_HEARTBEAT_MS);
    }
}

static void api_stream_news(struct api_request *request)
{
    api_stream_read((struct api_stream_job *)request->job);
}

static void api_stream_room(struct api_request *request)
{
    struct api_stream_job *stream = (struct api_stream_job *)request->job;
    if (stream->state == API_STREAM_FULL) {
        api_stream_uncount(stream);
        api_stream_set(stream, API_STREAM_IDLE);
        if (stream->more || stream->has_news) {
            api_stream_read(stream);
        }
    }
}

static void api_stream_finish(struct api_request *request)
{
    api_stream_uncount((struct api_stream_job *)request->job);
    api_live_remove(request);
    api_live_count(request->loop->api, -1);
}

static void api_stream_begin(struct api_job *job)
{
    struct api_stream_job *stream = (struct api_stream_job *)job;
    struct api_request *request = job->request;
    if (job->store.err != ERR_OK) {
        api_reply_err(request, job->store.err, NULL);
        return;
    }
    api_reply_headers(request);
    http_stream_begin(request->http, 200, "text/event-stream", HTTP_IDENTITY);
    if (http_request_method(request->http) == HTTP_HEAD) {
        http_stream_end(request->http); /* the next request does not wait for an end */
        return;
    }
    if (http_stream_write(request->http, SLICE_LITERAL("retry: 1000\n\n")) != ERR_OK) {
        http_stream_abort(request->http);
        return;
    }
    job->query = api_stream_query;
    job->on_done = api_stream_page;
    request->on_applied = api_stream_news;
    request->on_room = api_stream_room;
    request->detail_finish = api_stream_finish;
    api_live_add(request);
    api_live_count(request->loop->api, 1);
    api_stream_set(stream, API_STREAM_IDLE);
    api_stream_read(stream);
}

void api_stream_get(struct api_request *request)
{
    struct api_parameters parameters;
    struct query_tail tail = {.filter.org = request->identity.org,
                              .key = request->identity.key,
                              .bytes_max = API_STREAM_PAGE_BYTES};
    if (request->loop->server != NULL && http_server_is_draining(request->loop->server)) {
        api_reply_err(request, ERR_DRAINING, NULL);
        return;
    }
    api_parameters_begin(&parameters, request);
    tail.filter.type = api_parameter_text(&parameters, "type");
    tail.filter.subject = api_parameter_text(&parameters, "subject");
    tail.filter.app = api_parameter_text(&parameters, "app");
    struct slice place = http_request_header(request->http, "Last-Event-ID");
    if (place.size == 0) {
        place = api_parameter_text(&parameters, "last_event_id");
    }
    if (place.size > 0 &&
        !query_cursor_parse(QUERY_LIST_TAIL, tail.filter.org, place, &tail.after)) {
        api_parameter_refuse(&parameters, "Last-Event-ID", "It is not an id that a stream gave.");
    }
    if (!api_parameters_end(&parameters)) {
        return;
    }
    struct api_stream_job *stream = api_job_create(request, sizeof(*stream));
    stream->has_place = place.size > 0;
    stream->tail = tail;
    stream->tail.filter.type = api_job_copy(&stream->job, tail.filter.type);
    stream->tail.filter.subject = api_job_copy(&stream->job, tail.filter.subject);
    stream->tail.filter.app = api_job_copy(&stream->job, tail.filter.app);
    stream->tail.now_ms = clock_wall_ms();
    stream->job.query = api_stream_first;
    stream->job.on_done = api_stream_begin;
    api_read_raw(&stream->job);
}
