/* Health: whether the server serves, and what is degraded. No key is needed, so nothing of an org
 * is told. `ready` turns 503 while draining or degraded; `intake` does not while only the store is
 * away, since records are taken all the same; `live` says only that a loop answers. Redis away is
 * said, and no reason to take traffic elsewhere: every node has the same trouble, and
 * limits by itself. So is NATS while the spool takes the records.
 *
 * "for how long it lasts": the journal's free bytes by the rate at which the backlog grew since
 * this loop was last asked. */
#include "api/handlers.h"

#include "api/parameters.h"
#include "api/reply.h"
#include "apply/apply.h"
#include "base/clock.h"
#include "gate/gate.h"
#include "journal/journal.h"
#include "json/json.h"

#include <assert.h>

#define API_SAMPLE_MIN_NS 1000000000u

struct api_health {
    bool is_started;
    bool is_draining;
    bool has_intake; /* a role of this node */
    enum err store;
    enum err journal;
    enum err sharing; /* of limits: a node goes on without, so it is ready all the same */
    bool has_spool;
    bool is_spooling;    /* ready, too: elsewhere it is the same */
    uint64_t spooled;    /* frames */
    const char *refusal; /* of the stream that is not written to; NULL: none */
    struct journal_backlog backlog;
    bool has_lasts;
    uint64_t lasts_s;
};

static void api_health_rate(struct api_loop *loop, struct api_health *health)
{
    uint64_t now_ns = clock_mono_ns();
    uint64_t since_ns = now_ns - loop->sample_ns;
    uint64_t bytes = health->backlog.bytes;
    uint64_t bytes_max = loop->api->options.journal_bytes_max;
    if (loop->sample_ns != 0 && since_ns > 0 && bytes > loop->sample_bytes && bytes < bytes_max) {
        double rate = (double)(bytes - loop->sample_bytes) / ((double)since_ns / 1e9);
        health->has_lasts = true;
        health->lasts_s = (uint64_t)((double)(bytes_max - bytes) / rate);
    }
    if (since_ns >= API_SAMPLE_MIN_NS) {
        loop->sample_ns = now_ns;
        loop->sample_bytes = bytes;
    }
}

static void api_health_look(struct api_loop *loop, struct api_health *ret)
{
    const struct api_options *options = &loop->api->options;
    *ret = (struct api_health){
        .is_started = loop->server != NULL,
        .is_draining = loop->server != NULL && http_server_is_leaving(loop->server),
        .has_intake = (options->roles & API_ROLE_INTAKE) != 0,
        .store = store_health(options->store),
        .journal = loop->intake == NULL ? ERR_IO : journal_room(options->journal, 0, 1),
        .sharing = gate_share_health(options->gate),
    };
    ret->has_spool = journal_spool(options->journal) != NULL;
    ret->is_spooling = journal_spooled(options->journal, &ret->spooled);
    ret->refusal = journal_refusal(options->journal);
    journal_backlog(options->journal, &ret->backlog);
    api_health_rate(loop, ret);
}

static bool api_health_takes_in(const struct api_health *health)
{
    return health->is_started && !health->is_draining && health->has_intake &&
           health->journal == ERR_OK;
}

/* A journal that takes nothing is no matter to a node that puts nothing in. */
static bool api_health_is_ready(const struct api_health *health)
{
    return health->is_started && !health->is_draining && health->store == ERR_OK &&
           (health->journal == ERR_OK || !health->has_intake);
}

static bool api_health_is_here(const struct api_health *health)
{
    (void)health;
    return true;
}

static const char *api_health_word(const struct api_health *health)
{
    if (!health->is_started) {
        return "starting";
    }
    if (health->is_draining) {
        return "draining";
    }
    bool is_whole = health->sharing == ERR_OK && !health->is_spooling;
    return api_health_is_ready(health) && is_whole ? "ok" : "degraded";
}

static void api_health_part(struct json_writer *writer, const char *name, enum err err,
                            const char *why)
{
    json_write_key(writer, name);
    json_write_object_begin(writer);
    json_write_member_text(writer, "status", err == ERR_OK ? "ok" : "degraded");
    if (err != ERR_OK) {
        json_write_member_text(writer, "code", err_code(err));
        json_write_member_text(writer, "detail", err_text(err));
    }
    if (err != ERR_OK && why != NULL) {
        json_write_member_text(writer, "reason", why);
    }
    json_write_object_end(writer);
}

static void api_health_spool(struct json_writer *writer, const struct api_health *health)
{
    json_write_key(writer, "spool");
    json_write_object_begin(writer);
    json_write_member_text(writer, "status", health->is_spooling ? "degraded" : "ok");
    if (health->is_spooling) {
        json_write_member_text(writer, "code", err_code(ERR_AWAY));
        json_write_member_text(writer, "detail",
                               "NATS takes nothing, or has just come back: records are on this "
                               "machine's disk, and are applied when it has them");
        if (health->refusal != NULL) {
            json_write_member_text(writer, "reason", health->refusal);
        }
        json_write_member_u64(writer, "frames", health->spooled);
    }
    json_write_object_end(writer);
}

static void api_health_roles(struct json_writer *writer, uint32_t roles)
{
    static const char *const names[] = {"intake", "apply", "query"};
    static_assert(API_ROLE_INTAKE == 1 && API_ROLE_APPLY == 2 && API_ROLE_QUERY == 4, "in order");
    json_write_key(writer, "roles");
    json_write_array_begin(writer);
    for (uint32_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if ((roles >> i & 1u) != 0) {
            json_write_string(writer, slice_from_text(names[i]));
        }
    }
    json_write_array_end(writer);
}

static void api_health_parts(struct json_writer *writer, const struct api_loop *loop,
                             const struct api_health *health)
{
    const struct journal_backlog *backlog = &health->backlog;
    json_write_key(writer, "parts");
    json_write_object_begin(writer);
    api_health_part(writer, "store", health->store, NULL);
    api_health_part(writer, "journal", health->journal, health->refusal);
    if (health->has_spool) {
        api_health_spool(writer, health);
    }
    if (gate_is_shared(loop->api->options.gate)) {
        api_health_part(writer, "redis", health->sharing, NULL);
    }
    json_write_object_end(writer);
    api_health_roles(writer, loop->api->options.roles);
    json_write_key(writer, "queue");
    json_write_object_begin(writer);
    json_write_member_u64(writer, "records", backlog->records);
    json_write_member_u64(writer, "bytes", backlog->bytes);
    json_write_member_u64(writer, "bytes_max", loop->api->options.journal_bytes_max);
    json_write_key(writer, "lasts_seconds");
    if (health->has_lasts) {
        json_write_u64(writer, health->lasts_s);
    } else {
        json_write_null(writer);
    }
    json_write_object_end(writer);
}

static void api_health_reply(struct api_request *request, struct json_writer *writer, int status)
{
    if (json_writer_err(writer) != ERR_OK) {
        api_reply_err(request, ERR_NO_MEMORY, NULL);
        return;
    }
    if (status == 503) {
        http_reply_header(request->http, "Retry-After", SLICE_LITERAL("1"));
    }
    api_reply_json(request, status, buffer_slice(writer->to));
}

static void api_health_answer(struct api_request *request,
                              bool (*is_good)(const struct api_health *health))
{
    struct api_health health;
    struct json_writer writer;
    api_health_look(request->loop, &health);
    json_writer_init(&writer, api_scratch(request->loop));
    json_write_object_begin(&writer);
    json_write_member_text(&writer, "status", api_health_word(&health));
    api_health_parts(&writer, request->loop, &health);
    json_write_object_end(&writer);
    api_health_reply(request, &writer, is_good(&health) ? 200 : 503);
}

void api_health_get(struct api_request *request)
{
    api_health_answer(request, api_health_is_here);
}

void api_ready_get(struct api_request *request)
{
    api_health_answer(request, api_health_is_ready);
}

void api_intake_get(struct api_request *request)
{
    api_health_answer(request, api_health_takes_in);
}

void api_live_get(struct api_request *request)
{
    api_reply_json(request, 200, SLICE_LITERAL("{\"status\":\"ok\"}"));
}

static void api_status_position(struct json_writer *writer, const char *key, uint64_t position)
{
    char text[API_POSITION_BYTES];
    api_position_format(position, text);
    json_write_member_string(writer, key, slice_make(text, sizeof(text)));
}

void api_status_get(struct api_request *request)
{
    const struct api_loop *loop = request->loop;
    const struct api *api = loop->api;
    struct api_health health;
    struct json_writer writer;
    api_health_look(request->loop, &health);
    json_writer_init(&writer, api_scratch(request->loop));
    json_write_object_begin(&writer);
    json_write_member_text(&writer, "status", api_health_word(&health));
    json_write_member_text(&writer, "service", "weir");
    json_write_member_text(&writer, "version", WEIR_VERSION);
    json_write_member_time(&writer, "started_at", api->started_ms);
    json_write_member_u64(&writer, "uptime_seconds",
                          (clock_mono_ns() - api->started_ns) / 1000000000u);
    api_health_parts(&writer, loop, &health);
    api_status_position(&writer, "durable_position",
                        journal_durable_position(api->options.journal));
    api_status_position(&writer, "applied_position",
                        loop->apply == NULL ? 0 : apply_position(loop->apply));
    json_write_object_end(&writer);
    api_health_reply(request, &writer, 200);
}
