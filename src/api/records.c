/* Records: a body on its way into intake.
 *
 * Happy path: intake is opened at the head, so that a full journal is told before the body is sent;
 * the body is accepted; its chunks are handed on as they come (counted against the limit of bytes);
 * at its end intake answers once it is durable, or stored with wait=stored.
 * Failure modes: intake asks for a pause: the connection is not read until there is room; a timer
 * makes the rounds in which intake looks for it. The limit of bytes is reached within the body:
 * intake is cancelled, 429. The bytes of a body of which nothing is taken, whatever the reason,
 * count nowhere. The store takes too long for wait=stored: the answer is that of wait=journal. So
 * it is when another node has applied the frame and its word about it was lost. */
#include "api/records.h"

#include "api/parameters.h"
#include "api/reply.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

#include <assert.h>

#define API_ROOM_TICK_MS   100u
#define API_RESULT_TICK_MS 1000u /* twice as long a result may be on its way */

void api_records_uncount(struct api_request *request)
{
    if (request->counted_bytes > 0) {
        gate_limit_bytes_back(request->loop->api->options.gate, &request->identity,
                              request->counted_bytes, request->counted_ms);
        request->counted_bytes = 0;
    }
}

/* What becomes a dead letter was taken too. */
static void api_records_settle(struct api_request *request, const struct intake_answer *answer)
{
    if (answer->err == ERR_OK || answer->err == ERR_REFUSED) {
        request->counted_bytes = 0;
    }
    api_records_uncount(request);
}

static void api_records_on_answer(struct intake_request *intake, const struct intake_answer *answer,
                                  void *context)
{
    struct api_request *request = context;
    assert(intake == request->intake || request->intake == NULL);
    request->intake = NULL;
    request->on_timer = NULL;
    api_records_settle(request, answer);
    if (request->http != NULL) {
        api_records_answer(request, answer);
    }
    assert(request->pending > 0);
    request->pending--;
    api_request_release(request);
}

static void api_records_on_room(struct intake_request *intake, void *context)
{
    struct api_request *request = context;
    (void)intake;
    if (request->http != NULL) {
        http_body_resume(request->http);
    }
}

/* Counts body bytes against the hour; false: refused and answered. */
static bool api_records_count(struct api_request *request, uint64_t bytes)
{
    struct gate_window window = {0};
    if (request->identity.mb_per_hour == 0 && request->identity.key_mb_per_hour == 0) {
        return true;
    }
    request->counted_ms = request->counted_bytes == 0 ? clock_mono_ms() : request->counted_ms;
    if (gate_limit_bytes(request->loop->api->options.gate, &request->identity, bytes, &window) ==
        ERR_OK) {
        request->counted_bytes += bytes;
        return true;
    }
    /* What of this body was counted is told as there again: it comes back here. */
    window.remaining += request->counted_bytes;
    api_records_uncount(request);
    request->window = window;
    if (request->intake != NULL && intake_cancel(request->intake)) {
        request->intake = NULL;
        request->pending--;
    }
    api_reply_limited(request, "bytes_limited");
    return false;
}

/* Also when the server drains: then before its time. */
static void api_records_timeout(struct api_request *request)
{
    request->on_timer = NULL;
    if (request->intake != NULL) {
        intake_stop_waiting(request->intake);
    }
}

/* Applied, and still so a look later: looks are counted, since time also passes while this process
 * stands still. */
static bool api_records_result_is_lost(struct api_request *request)
{
    uint64_t position = 0;
    if (!intake_wants_result(request->intake, &position) ||
        !api_is_applied(request->loop, position)) {
        return false;
    }
    bool was_overdue = request->is_overdue;
    request->is_overdue = true;
    return was_overdue;
}

static void api_records_watch(struct api_request *request);

/* A server that drains ends the wait itself. */
static void api_records_await(struct api_request *request, uint64_t rest_ms)
{
    bool is_short = rest_ms <= API_RESULT_TICK_MS;
    const struct http_server *server = request->loop->server;
    bool is_last = is_short || (server != NULL && http_server_is_draining(server));
    request->on_timer = is_last ? api_records_timeout : api_records_watch;
    http_request_set_timer(request->http, is_last ? (uint32_t)rest_ms : API_RESULT_TICK_MS);
}

/* While intake waits for room there is a round now and then; behind the body's end the wait for the
 * store has its bound. */
static void api_records_watch(struct api_request *request)
{
    request->on_timer = NULL;
    if (request->intake == NULL) {
        return;
    }
    if (intake_is_paused(request->intake)) {
        request->on_timer = api_records_watch;
        http_request_set_timer(request->http, API_ROOM_TICK_MS);
        return;
    }
    uint64_t now_ms = clock_mono_ms();
    if (request->stored_due_ms == 0) {
        return;
    }
    if (request->stored_due_ms <= now_ms || api_records_result_is_lost(request)) {
        intake_stop_waiting(request->intake);
        return;
    }
    api_records_await(request, request->stored_due_ms - now_ms);
}

void api_records_data(struct api_request *request, struct slice chunk)
{
    bool pause = false;
    if (!api_records_count(request, chunk.size)) {
        return;
    }
    intake_data(request->intake, chunk, &pause);
    if (pause && request->intake != NULL) {
        http_body_pause(request->http);
        api_records_watch(request);
    }
}

void api_records_end(struct api_request *request)
{
    if (request->intake == NULL) {
        return;
    }
    if (request->wait_stored) {
        request->stored_due_ms =
            clock_mono_ms() + request->loop->api->options.processing_timeout_ms;
    }
    intake_end(request->intake);
    api_records_watch(request);
}

/* wait=, atomic=, Idempotency-Key, traceparent. */
static bool api_records_options(struct api_request *request, struct intake_begin *begin,
                                uint8_t key[API_IDEMPOTENCY_KEY_MAX])
{
    struct slice text = {NULL, 0};
    struct slice header = http_request_header(request->http, "Idempotency-Key");
    if (!api_idempotency_key(header, key, &begin->idempotency_key)) {
        api_reply_bad_query(request, "Idempotency-Key",
                            "It has 1 to 255 visible ASCII characters, bare or in quotes.");
        return false;
    }
    if (http_request_query(request->http, "wait", &text) && text.size > 0) {
        request->wait_stored = slice_equal(text, SLICE_LITERAL("stored"));
        if (!request->wait_stored && !slice_equal(text, SLICE_LITERAL("journal"))) {
            api_reply_bad_query(request, "wait", "The value is journal or stored.");
            return false;
        }
    }
    if (http_request_query(request->http, "atomic", &text)) {
        begin->atomic =
            slice_equal(text, SLICE_LITERAL("true")) || slice_equal(text, SLICE_LITERAL("1"));
        if (!begin->atomic && text.size > 0 && !slice_equal(text, SLICE_LITERAL("false")) &&
            !slice_equal(text, SLICE_LITERAL("0"))) {
            api_reply_bad_query(request, "atomic", "The value is true or false.");
            return false;
        }
    }
    return true;
}

static void api_records_warn(const struct api_request *request)
{
    const struct api_options *options = &request->loop->api->options;
    int64_t bytes = http_request_body_bytes(request->http);
    if (options->payload_warning_bytes > 0 && bytes > 0 &&
        (uint64_t)bytes > options->payload_warning_bytes) {
        struct slice id = http_request_id(request->http);
        log_write(LOG_WARN, "api", "a body of %lld bytes (request_id %.*s)", (long long)bytes,
                  (int)id.size, (const char *)id.data);
    }
}

/* Decoded bytes of the body when they are known before it. */
static uint64_t api_records_bytes(const struct api_request *request)
{
    int64_t bytes = http_request_body_bytes(request->http);
    bool is_coded = http_request_header(request->http, "Content-Encoding").data != NULL;
    return bytes > 0 && !is_coded ? (uint64_t)bytes : 0;
}

uint32_t api_trace_attribute(const struct http_request *http, struct record_attribute *attribute)
{
    struct slice value = http_request_header(http, "traceparent");
    if (value.data == NULL) {
        return 0;
    }
    *attribute = (struct record_attribute){.name = SLICE_LITERAL("traceparent"), .value = value};
    return 1;
}

bool api_records_prepare(struct api_request *request, struct api_records *records,
                         struct record_attribute *attributes, enum err err, const char *forms)
{
    if (err != ERR_OK) {
        metrics_add(METRIC_VALIDATION_UNSUPPORTED, 1);
        api_reply_err(request, ERR_UNSUPPORTED, forms);
        return false;
    }
    records->may_be_array =
        records->form == RECORD_FORM_EVENT || records->form == RECORD_FORM_READING;
    records->attributes = attributes;
    records->attribute_count = api_trace_attribute(request->http, attributes);
    return true;
}

bool api_records_begin(struct api_request *request, const struct api_records *records)
{
    const struct api_loop *loop = request->loop;
    uint8_t key[API_IDEMPOTENCY_KEY_MAX];
    struct intake_begin begin = {.org = request->identity.org,
                                 .key = request->identity.key,
                                 .id_key = request->identity.id_key,
                                 .form = records->form,
                                 .may_be_array = records->may_be_array,
                                 .body_bytes = api_records_bytes(request),
                                 .received_ms = http_loop_wall_ms(loop->http),
                                 .attributes = records->attributes,
                                 .attribute_count = records->attribute_count,
                                 .on_answer = api_records_on_answer,
                                 .on_room = api_records_on_room,
                                 .context = request};
    if (!api_records_options(request, &begin, key)) {
        return false;
    }
    begin.wait = request->wait_stored ? INTAKE_WAIT_STORED : INTAKE_WAIT_JOURNAL;
    request->answer = (uint8_t)records->answer;
    enum err err =
        loop->intake == NULL ? ERR_IO : intake_open(loop->intake, &begin, &request->intake);
    if (err != ERR_OK) {
        api_records_refused(request, err);
        return false;
    }
    request->pending++;
    request->on_body = api_records_data;
    request->on_body_end = api_records_end;
    api_records_warn(request);
    http_body_accept(request->http, loop->api->options.payload_bytes_max);
    if (request->intake != NULL && intake_is_paused(request->intake)) {
        http_body_pause(request->http);
        api_records_watch(request);
    }
    return true;
}
