/* Clients: the routes that clients of other systems call (Segment, RudderStack, PostHog), with the
 * answers that they expect. They do not all send their key in a header: PostHog's stands in the
 * body
 * (`api_key`), Segment's may (`writeKey`).
 *
 * Happy path with the key in the body: the bytes are collected while a reader looks for the key
 * among the members of the document; when it is found the connection pauses, the gate checks it,
 * the bytes go to intake, and the rest follows as it comes. Failure modes: no key within
 * LIMIT_SMALL_BODY_BYTES: 413 (nobody may fill memory without one); more bodies without a known key
 * than API_UNKNOWN_BODIES_MAX on a loop: 503. */
#include "api/handlers.h"

#include "api/records.h"
#include "api/reply.h"
#include "base/limits.h"
#include "base/mem.h"
#include "json/json.h"

#include <assert.h>

#define API_UNKNOWN_BODIES_MAX 64u

struct api_client {
    enum record_form form;
    enum api_answer answer;
    const char *call; /* attribute of a single call, or NULL */
};

static const struct api_client api_client_segment_batch = {RECORD_FORM_SEGMENT_BATCH,
                                                           API_ANSWER_SEGMENT, NULL};
static const struct api_client api_client_track = {RECORD_FORM_SEGMENT_CALL, API_ANSWER_SEGMENT,
                                                   "track"};
static const struct api_client api_client_identify = {RECORD_FORM_SEGMENT_CALL, API_ANSWER_SEGMENT,
                                                      "identify"};
static const struct api_client api_client_page = {RECORD_FORM_SEGMENT_CALL, API_ANSWER_SEGMENT,
                                                  "page"};
static const struct api_client api_client_posthog = {RECORD_FORM_POSTHOG_BATCH, API_ANSWER_POSTHOG,
                                                     NULL};

/* A body whose key is not known yet; the request's detail. */
struct api_unknown {
    const struct api_client *client;
    struct json_elements *elements;
    bool is_checked; /* the key was found and is with the gate */
};

static bool api_client_records(struct api_request *request, const struct api_client *client)
{
    struct record_attribute attributes[2];
    struct api_records records = {
        .form = client->form, .answer = client->answer, .attributes = attributes};
    records.attribute_count = api_trace_attribute(request->http, attributes);
    if (client->call != NULL) {
        attributes[records.attribute_count++] = (struct record_attribute){
            .name = SLICE_LITERAL("call"), .value = slice_from_text(client->call)};
    }
    return api_records_begin(request, &records);
}

static void api_unknown_finish(struct api_request *request)
{
    struct api_unknown *unknown = request->detail;
    request->loop->unknown_bodies--;
    json_elements_destroy(unknown->elements);
    mem_free(unknown);
    request->detail = NULL;
}

/* The key is good: what was collected goes to intake first. */
static void api_client_admitted(struct api_request *request)
{
    const struct api_unknown *unknown = request->detail;
    bool is_whole = request->body_ended;
    if (!api_client_records(request, unknown->client)) {
        return;
    }
    api_records_data(request, buffer_slice(&request->body));
    if (request->is_begun) {
        return;
    }
    if (is_whole) {
        api_records_end(request);
    } else if (request->intake == NULL || !intake_is_paused(request->intake)) {
        http_body_resume(request->http);
    }
}

static void api_client_key_missing(struct api_request *request)
{
    api_reply_unauthorized(request, "A key is needed, in a header or as api_key or writeKey in the "
                                    "body.");
}

static void api_client_look(struct api_request *request, struct slice chunk)
{
    static const char *const names[] = {"api_key", "writeKey", "write_key"};
    struct api_unknown *unknown = request->detail;
    struct json_element element;
    struct slice raw = {NULL, 0};
    bool has = true;
    json_elements_feed(unknown->elements, chunk);
    enum err err = ERR_OK;
    while (err == ERR_OK && has) {
        err = json_elements_next(unknown->elements, &element, &has);
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (json_elements_sibling(unknown->elements, slice_from_text(names[i]), &raw) &&
            raw.size > 2 && raw.data[0] == '"') {
            unknown->is_checked = true;
            http_body_pause(request->http);
            api_authorize(request, slice_part(raw, 1, raw.size - 1), api_client_admitted);
            return;
        }
    }
    if (err != ERR_OK) {
        api_reply_err(request, err == ERR_DEPTH ? ERR_DEPTH : ERR_SYNTAX, NULL);
    }
}

static void api_client_collect(struct api_request *request, struct slice chunk)
{
    const struct api_unknown *unknown = request->detail;
    if (buffer_append_slice(&request->body, chunk) != ERR_OK) {
        api_reply_err(request, ERR_TOO_LARGE,
                      "A body above 256 KiB needs its key in a header, or at its beginning.");
        return;
    }
    if (!unknown->is_checked) {
        api_client_look(request, chunk);
    }
}

static void api_client_collected(struct api_request *request)
{
    const struct api_unknown *unknown = request->detail;
    if (!unknown->is_checked) {
        api_client_key_missing(request);
    }
}

static void api_client_begin(struct api_request *request, const struct api_client *client)
{
    static const struct json_elements_options options = {
        .json = {.depth_max = LIMIT_JSON_DEPTH, .string_bytes_max = LIMIT_EVENT_BYTES},
        .shape = JSON_SHAPE_MEMBER,
        .member = {(const uint8_t *)"batch", 5},
        .element_bytes_max = LIMIT_EVENT_BYTES};
    struct api_loop *loop = request->loop;
    if (request->has_identity) {
        (void)api_client_records(request, client);
        return;
    }
    if (loop->unknown_bodies == API_UNKNOWN_BODIES_MAX) {
        api_reply_err(request, ERR_BUSY, "Too many requests without a key in a header.");
        return;
    }
    struct api_unknown *unknown = mem_alloc(sizeof(*unknown));
    unknown->client = client;
    unknown->elements = json_elements_create(&options);
    loop->unknown_bodies++;
    request->detail = unknown;
    request->detail_finish = api_unknown_finish;
    buffer_init(&request->body, LIMIT_SMALL_BODY_BYTES);
    request->on_body = api_client_collect;
    request->on_body_end = api_client_collected;
    http_body_accept(request->http, loop->api->options.payload_bytes_max);
}

void api_segment_batch(struct api_request *request)
{
    api_client_begin(request, &api_client_segment_batch);
}

void api_segment_track(struct api_request *request)
{
    api_client_begin(request, &api_client_track);
}

void api_segment_identify(struct api_request *request)
{
    api_client_begin(request, &api_client_identify);
}

void api_segment_page(struct api_request *request)
{
    api_client_begin(request, &api_client_page);
}

void api_posthog_batch(struct api_request *request)
{
    api_client_begin(request, &api_client_posthog);
}
