/* Api: opening and closing, the loops' contexts, and the memory of requests.
 *
 * Happy path: api_open makes the shared parts; each loop fills its own context when its thread
 * starts; api_start mails to each loop what was known only later (the server, apply). A request's
 * state comes from the loop's free list and goes back to it.
 *
 * Failure modes: a loop whose producer or intake cannot be made serves everything but records.
 * Closing comes after all threads are joined: states whose mail never came back are freed there. */
#include "api/reply.h"

#include "api/job.h"
#include "api/routes.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "journal/journal.h"
#include "json/json.h"

#include <assert.h>

#define API_RECENT_IDS        (1u << 20)
#define API_ACCEPTED_UPLOADS  1024u
#define API_SPARE_REQUESTS    4096u
#define API_WAITERS_MAX       65536u
#define API_SCRATCH_BYTES_MAX ((size_t)2 * 1024 * 1024)
#define API_SCRATCH_KEPT      ((size_t)64 * 1024)

enum err api_open(struct api **ret, const struct api_options *options, struct err_detail *detail)
{
    static const char version[] = WEIR_VERSION;
    if (options->loops == 0) {
        err_detail_set(detail, "open api: no loops");
        return ERR_CONFIG;
    }
    struct api *api = mem_alloc(sizeof(*api) + options->loops * sizeof(api->loops[0]));
    api->options = *options;
    api->loop_count = options->loops;
    api->recent = intake_recent_create(API_RECENT_IDS);
    api_live_open(api);
    api->accepted = table_create(API_ACCEPTED_UPLOADS, sizeof(struct api_accepted));
    api->build = hash_xxh3(version, sizeof(version), 0);
    api->started_ns = clock_mono_ns();
    api->started_ms = clock_wall_ms();
    for (uint32_t i = 0; i < api->loop_count; i++) {
        struct api_loop *loop = &api->loops[i];
        loop->api = api;
        loop->index = i;
        list_init(&loop->requests);
        list_init(&loop->spare);
        list_init(&loop->full_streams);
        buffer_init(&loop->scratch, API_SCRATCH_BYTES_MAX);
        api_live_start(loop);
    }
    metrics_set(METRIC_QUEUE_CAPACITY, (double)options->journal_bytes_max);
    *ret = api;
    return ERR_OK;
}

static enum err api_loop_open_intake(struct api_loop *loop)
{
    const struct api_options *options = &loop->api->options;
    struct intake_options intake = {.journal = options->journal,
                                    .mailbox = loop->mailbox,
                                    .loop_index = loop->index,
                                    .run = options->run,
                                    .pool_bytes = options->intake_pool_bytes,
                                    .waiters_max = API_WAITERS_MAX,
                                    .recent = loop->api->recent};
    enum err err =
        journal_producer_create(&loop->producer, options->journal, loop->index, loop->mailbox);
    if (err == ERR_OK) {
        intake.producer = loop->producer;
        err = intake_create(&loop->intake, &intake);
    }
    return err;
}

static void *api_on_loop_start(void *owner, struct http_loop *http)
{
    struct api *api = owner;
    static const struct json_options options = {.depth_max = LIMIT_JSON_DEPTH,
                                                .string_bytes_max = API_JSON_BODY_BYTES_MAX};
    assert(http_loop_index(http) < api->loop_count);
    struct api_loop *loop = &api->loops[http_loop_index(http)];
    loop->http = http;
    loop->mailbox = http_loop_mailbox(http);
    loop->json = json_reader_create(&options);
    loop->desk = gate_desk_create(api->options.gate);
    enum err err = api_loop_open_intake(loop);
    if (err != ERR_OK) {
        log_write(LOG_ERROR, "api", "loop %u takes no records: %s", loop->index, err_text(err));
    }
    api_live_begin(loop);
    return loop;
}

/* The context stays until api_close: results of the applier may still come for it. */
static void api_on_loop_stop(void *context)
{
    (void)context;
}

static void api_on_collected(void *context)
{
    struct api_loop *loop = context;
    if (loop->intake != NULL) {
        intake_round_end(loop->intake);
    }
    if (loop->server != NULL && !loop->streams_ended && http_server_is_draining(loop->server)) {
        loop->streams_ended = true;
        api_live_end(loop);
    }
}

const struct http_handler *api_handler(void)
{
    static const struct http_handler handler = {
        .on_loop_start = api_on_loop_start,
        .on_loop_stop = api_on_loop_stop,
        .on_collected = api_on_collected,
        .on_head = api_on_head,
        .on_body = api_on_body,
        .on_body_end = api_on_body_end,
        .on_stream_room = api_on_stream_room,
        .on_timer = api_on_timer,
        .on_finish = api_on_finish,
    };
    return &handler;
}

static void api_on_start(struct mail *mail)
{
    struct api_start_mail *start = LIST_CONTAINER(mail, struct api_start_mail, mail);
    start->loop->server = start->server;
    start->loop->apply = start->apply;
}

void api_start(struct api *api, struct http_server *server, struct apply *apply)
{
    assert(http_server_loop_count(server) == api->loop_count);
    for (uint32_t i = 0; i < api->loop_count; i++) {
        struct api_start_mail *start = &api->loops[i].start;
        *start = (struct api_start_mail){.mail.on_arrive = api_on_start,
                                         .loop = &api->loops[i],
                                         .server = server,
                                         .apply = apply};
        mailbox_answer(http_loop_mailbox(http_server_loop(server, i)), &start->mail);
    }
}

void api_on_result(void *owner, uint64_t waiter, const struct record_result *result)
{
    struct api *api = owner;
    uint32_t index = intake_waiter_loop(waiter);
    if (index < api->loop_count && api->loops[index].intake != NULL) {
        intake_on_result(api->loops[index].intake, waiter, result);
    }
}

struct api_request *api_request_create(struct api_loop *loop, struct http_request *http,
                                       const struct api_route *route)
{
    struct list_link *link = list_take_first(&loop->spare);
    struct api_request *request = NULL;
    if (link != NULL) {
        loop->spare_count--;
        request = LIST_CONTAINER(link, struct api_request, link);
        memset(request, 0, offsetof(struct api_request, waiter));
    } else {
        request = mem_alloc(sizeof(*request));
    }
    request->loop = loop;
    request->http = http;
    request->route = route;
    buffer_init(&request->body, API_JSON_BODY_BYTES_MAX);
    list_push_back(&loop->requests, &request->link);
    return request;
}

static void api_request_free_parts(struct api_request *request)
{
    buffer_finish(&request->body);
    api_job_destroy(request->job);
    request->job = NULL;
}

void api_request_release(struct api_request *request)
{
    struct api_loop *loop = request->loop;
    if (request->http != NULL || request->pending > 0) {
        return;
    }
    api_request_free_parts(request);
    list_remove(&request->link);
    if (loop->spare_count == API_SPARE_REQUESTS) {
        mem_free(request);
        return;
    }
    loop->spare_count++;
    list_push_front(&loop->spare, &request->link); /* still in the cache */
}

static void api_loop_close(struct api_loop *loop)
{
    struct list_link *link = NULL;
    intake_destroy(loop->intake);
    journal_producer_destroy(loop->producer);
    json_reader_destroy(loop->json);
    gate_desk_destroy(loop->desk);
    while ((link = list_take_first(&loop->requests)) != NULL) {
        struct api_request *request = LIST_CONTAINER(link, struct api_request, link);
        if (request->detail_finish != NULL) {
            request->detail_finish(request);
        }
        api_request_free_parts(request);
        mem_free(request);
    }
    while ((link = list_take_first(&loop->spare)) != NULL) {
        mem_free(LIST_CONTAINER(link, struct api_request, link));
    }
    api_live_stop(loop);
    buffer_finish(&loop->scratch);
}

void api_close(struct api *api)
{
    if (api == NULL) {
        return;
    }
    for (uint32_t i = 0; i < api->loop_count; i++) {
        api_loop_close(&api->loops[i]);
    }
    intake_recent_destroy(api->recent);
    api_live_close(api);
    table_destroy(api->accepted);
    mem_free(api);
}

struct buffer *api_scratch(struct api_loop *loop)
{
    buffer_shrink(&loop->scratch, API_SCRATCH_KEPT);
    return &loop->scratch;
}
