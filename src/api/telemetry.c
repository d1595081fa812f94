/* Telemetry: packet health, the state of the queue, published versions of a registry. */
#include "api/handlers.h"

#include "api/job.h"
#include "api/parameters.h"
#include "api/reply.h"
#include "apply/apply.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/metrics.h"
#include "journal/journal.h"
#include "manage/manage.h"
#include "query/query.h"
#include "json/json.h"

#include <assert.h>
#include <stdio.h>

#define API_PACKET_HOURS_MAX 168

/* --- packet health ------------------------------------------------------------------------- */

struct api_packets_job {
    struct api_job job; /* first */
    struct query_packets query;
};

static enum err api_packets_query(struct api_job *job, struct store_connection *connection)
{
    return query_packets_devices(connection, &((struct api_packets_job *)job)->query, &job->body);
}

static enum err api_packets_site_query(struct api_job *job, struct store_connection *connection)
{
    return query_packets_site(connection, &((struct api_packets_job *)job)->query, &job->body);
}

static void api_packets_window(struct api_parameters *parameters, struct query_packets *query)
{
    struct slice text = api_parameter_text(parameters, "hours");
    query->org = parameters->request->identity.org;
    query->now_ms = clock_wall_ms();
    query->hours = 1;
    if (text.data != NULL && (!slice_to_i64(text, &query->hours) || query->hours < 1 ||
                              query->hours > API_PACKET_HOURS_MAX)) {
        api_parameter_refuse(parameters, "hours", "It is a number from 1 to 168.");
    }
}

static void api_packets_scope(struct api_parameters *parameters, struct query_packets *query)
{
    static const struct {
        const char *name;
        enum query_packets_scope scope;
    } scopes[] = {{"project_id", PACKETS_OF_PROJECT},
                  {"site_id", PACKETS_OF_SITE},
                  {"device_id", PACKETS_OF_DEVICE}};
    for (size_t i = 0; i < sizeof(scopes) / sizeof(scopes[0]); i++) {
        struct slice text = api_parameter_text(parameters, scopes[i].name);
        if (text.data == NULL) {
            continue;
        }
        query->scope = scopes[i].scope;
        if (!id_parse(text, &query->id)) {
            api_parameter_refuse(parameters, scopes[i].name, "It is not a UUID.");
        }
    }
}

void api_packets_devices(struct api_request *request)
{
    struct api_parameters parameters;
    struct query_packets query = {.scope = PACKETS_OF_ORG};
    api_parameters_begin(&parameters, request);
    api_packets_window(&parameters, &query);
    api_packets_scope(&parameters, &query);
    query.limit = api_parameter_limit(&parameters);
    query.after = api_parameter_cursor(&parameters, QUERY_LIST_PACKETS);
    if (!api_parameters_end(&parameters)) {
        return;
    }
    struct api_packets_job *one = api_job_create(request, sizeof(*one));
    one->query = query;
    one->job.query = api_packets_query;
    api_read(&one->job);
}

void api_packets_site(struct api_request *request)
{
    struct api_parameters parameters;
    struct query_packets query = {.scope = PACKETS_OF_SITE, .limit = LIMIT_LIST_MAX};
    api_parameters_begin(&parameters, request);
    api_packets_window(&parameters, &query);
    if (!api_parameters_end(&parameters)) {
        return;
    }
    if (!id_parse(http_request_param(request->http, 0), &query.id)) {
        api_reply_err(request, ERR_NOT_FOUND, NULL);
        return;
    }
    struct api_packets_job *one = api_job_create(request, sizeof(*one));
    one->query = query;
    one->job.query = api_packets_site_query;
    api_read(&one->job);
}

/* --- the queue ----------------------------------------------------------------------------- */

void api_ingest_health(struct api_request *request)
{
    const struct api_loop *loop = request->loop;
    struct journal *journal = loop->api->options.journal;
    enum err store = store_health(loop->api->options.store);
    struct journal_backlog backlog;
    struct json_writer writer;
    uint64_t durable = journal_durable_position(journal);
    uint64_t applied = loop->apply == NULL ? 0 : apply_position(loop->apply);
    journal_backlog(journal, &backlog);
    json_writer_init(&writer, api_scratch(request->loop));
    json_write_object_begin(&writer);
    json_write_member_text(&writer, "service", store == ERR_OK ? "ok" : "degraded");
    json_write_member_u64(&writer, "queue_depth", backlog.records);
    json_write_member_text(&writer, "db", store == ERR_OK ? "ok" : err_code(store));
    json_write_key(&writer, "queue");
    json_write_object_begin(&writer);
    json_write_member_text(&writer, "consumer", "apply");
    json_write_member_u64(&writer, "pending", durable > applied ? durable - applied : 0);
    json_write_member_u64(&writer, "ack_pending", backlog.frames);
    json_write_member_u64(&writer, "redelivered", metrics_total(METRIC_CONSUMER_REDELIVERED));
    json_write_object_end(&writer);
    json_write_object_end(&writer);
    if (json_writer_err(&writer) != ERR_OK) {
        api_reply_err(request, ERR_NO_MEMORY, NULL);
        return;
    }
    api_reply_json(request, 200, buffer_slice(writer.to));
}

/* --- versions ------------------------------------------------------------------------------ */

struct api_version_job {
    struct api_job job; /* first */
    struct id project;
    uint64_t key;
    uint64_t version;
    uint64_t other; /* what it is compared with */
    uint32_t limit;
    struct manage_place place;
};

/* NULL: answered. */
static struct api_version_job *api_version_job(struct api_request *request)
{
    struct id project;
    if (!id_parse(http_request_param(request->http, 0), &project)) {
        api_reply_err(request, ERR_NOT_FOUND, NULL);
        return NULL;
    }
    struct api_version_job *one = api_job_create(request, sizeof(*one));
    one->project = project;
    one->key = request->identity.key;
    return one;
}

static enum err api_publish_query(struct api_job *job, struct store_connection *connection)
{
    struct api_version_job *one = (struct api_version_job *)job;
    return manage_publish(connection, job->org, one->project, one->key, &job->body, &one->version);
}

static void api_published(struct api_job *job)
{
    const struct api_version_job *one = (const struct api_version_job *)job;
    char text[120];
    char id[ID_TEXT_BYTES];
    if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
        return;
    }
    id_format(one->project, id);
    int size = snprintf(text, sizeof(text), "/api/v1/projects/%.*s/versions/%llu", ID_TEXT_BYTES,
                        id, (unsigned long long)one->version);
    http_reply_header(job->request->http, "Location", slice_make(text, (size_t)size));
    api_reply_json(job->request, 201, buffer_slice(&job->body));
}

void api_version_publish(struct api_request *request)
{
    struct api_version_job *one = api_version_job(request);
    if (one != NULL) {
        one->job.query = api_publish_query;
        one->job.on_done = api_published;
        api_write(&one->job);
    }
}

static enum err api_versions_query(struct api_job *job, struct store_connection *connection)
{
    struct api_version_job *one = (struct api_version_job *)job;
    enum err err = buffer_append_text(&job->body, "{\"versions\":[");
    if (err == ERR_OK) {
        err = manage_versions(connection, job->org, one->project, one->limit, &job->body,
                              &one->place);
    }
    if (err == ERR_OK) {
        err = buffer_append_byte(&job->body, ']');
    }
    return err != ERR_OK ? err
                         : query_list_end(QUERY_LIST_VERSIONS, job->org, one->place.has_more,
                                          one->place.place, &job->body);
}

void api_versions_get(struct api_request *request)
{
    struct api_parameters parameters;
    api_parameters_begin(&parameters, request);
    uint32_t limit = api_parameter_limit(&parameters);
    uint64_t after = api_parameter_cursor(&parameters, QUERY_LIST_VERSIONS);
    if (!api_parameters_end(&parameters)) {
        return;
    }
    struct api_version_job *one = api_version_job(request);
    if (one != NULL) {
        one->limit = limit;
        one->place.place = after;
        one->job.query = api_versions_query;
        api_read_versioned(&one->job);
    }
}

static enum err api_version_query(struct api_job *job, struct store_connection *connection)
{
    const struct api_version_job *one = (const struct api_version_job *)job;
    return manage_version_get(connection, job->org, one->project, one->version, true, &job->body);
}

static bool api_version_number(const struct api_request *request, uint32_t param, uint64_t *ret)
{
    return slice_to_u64(http_request_param(request->http, param), ret) && *ret != 0 &&
           *ret <= INT64_MAX;
}

static enum err api_version_diff_query(struct api_job *job, struct store_connection *connection)
{
    const struct api_version_job *one = (const struct api_version_job *)job;
    return manage_version_diff(connection, job->org, one->project, one->version, one->other,
                               &job->body);
}

void api_version_diff(struct api_request *request)
{
    struct api_parameters parameters;
    uint64_t version = 0;
    uint64_t other = 0;
    api_parameters_begin(&parameters, request);
    if (!api_version_number(request, 1, &version) || !api_version_number(request, 2, &other)) {
        api_reply_err(request, ERR_NOT_FOUND, NULL);
        return;
    }
    struct api_version_job *one = api_version_job(request);
    if (one != NULL) {
        one->version = version;
        one->other = other;
        one->job.query = api_version_diff_query;
        api_read_versioned(&one->job);
    }
}

void api_version_get(struct api_request *request)
{
    struct api_parameters parameters;
    uint64_t version = 0;
    api_parameters_begin(&parameters, request);
    if (!api_version_number(request, 1, &version)) {
        api_reply_err(request, ERR_NOT_FOUND, NULL);
        return;
    }
    struct api_version_job *one = api_version_job(request);
    if (one != NULL) {
        one->version = version;
        one->job.query = api_version_query;
        api_read_versioned(&one->job);
    }
}
