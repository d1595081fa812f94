/* Inbox: lists of events, one event, and acknowledging. The inbox is the list without acknowledged
 * events, unless they are asked for. */
#include "api/handlers.h"

#include "api/document.h"
#include "api/job.h"
#include "api/parameters.h"
#include "api/reply.h"
#include "base/limits.h"
#include "base/mem.h"
#include "query/query.h"

#include <assert.h>
#include <stdio.h>

#define API_ACK_IDS_MAX 1000u

struct api_list_job {
    struct api_job job; /* first */
    struct query_events query;
};

static enum err api_list_query(struct api_job *job, struct store_connection *connection)
{
    struct api_list_job *list = (struct api_list_job *)job;
    return query_events_list(connection, &list->query, &job->body);
}

static void api_list(struct api_request *request, enum query_status absent)
{
    struct api_parameters parameters;
    struct query_events query = {.filter.org = request->identity.org, .status = absent};
    api_parameters_begin(&parameters, request);
    api_parameter_events(&parameters, &query);
    query.oldest_first = api_parameter_order(&parameters, false);
    query.limit = api_parameter_limit(&parameters);
    query.after = api_parameter_cursor(&parameters, query.oldest_first ? QUERY_LIST_EVENTS_OLDEST
                                                                       : QUERY_LIST_EVENTS_NEWEST);
    if (!api_parameters_end(&parameters)) {
        return;
    }
    struct api_list_job *list = api_job_create(request, sizeof(*list));
    list->query = query;
    list->query.filter.type = api_job_copy(&list->job, query.filter.type);
    list->query.filter.subject = api_job_copy(&list->job, query.filter.subject);
    list->query.filter.app = api_job_copy(&list->job, query.filter.app);
    list->job.query = api_list_query;
    api_read_versioned(&list->job);
}

void api_inbox_get(struct api_request *request)
{
    api_list(request, QUERY_STATUS_OPEN);
}

void api_events_get(struct api_request *request)
{
    api_list(request, QUERY_STATUS_ANY);
}

struct api_ids_job {
    struct api_job job; /* first */
    uint32_t count;
    uint32_t acknowledged;
    uint32_t malformed;
    bool is_single;
    struct id ids[API_ACK_IDS_MAX];
};

static enum err api_event_query(struct api_job *job, struct store_connection *connection)
{
    struct api_ids_job *one = (struct api_ids_job *)job;
    return query_event_get(connection, job->org, one->ids[0], &job->body);
}

void api_event_get(struct api_request *request)
{
    struct api_parameters parameters;
    struct id id;
    api_parameters_begin(&parameters, request);
    if (!id_parse(http_request_param(request->http, 0), &id)) {
        api_reply_err(request, ERR_NOT_FOUND, NULL);
        return;
    }
    struct api_ids_job *one = api_job_create(request, sizeof(*one));
    one->ids[0] = id;
    one->count = 1;
    one->job.query = api_event_query;
    api_read_versioned(&one->job);
}

static enum err api_ack_query(struct api_job *job, struct store_connection *connection)
{
    struct api_ids_job *ack = (struct api_ids_job *)job;
    return query_acknowledge(connection, job->org, ack->ids, ack->count, &ack->acknowledged);
}

static void api_ack_done(struct api_job *job)
{
    const struct api_ids_job *ack = (const struct api_ids_job *)job;
    char text[64];
    if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
        return;
    }
    if (ack->is_single && ack->acknowledged == 0) {
        api_reply_err(job->request, ERR_NOT_FOUND, NULL);
        return;
    }
    int size = ack->is_single
                   ? snprintf(text, sizeof(text), "{\"success\":true}")
                   : snprintf(text, sizeof(text), "{\"acknowledged\":%u,\"failed\":%u}",
                              ack->acknowledged, ack->count - ack->acknowledged + ack->malformed);
    api_reply_json(job->request, 200, slice_make(text, (size_t)size));
}

static void api_ack_post(struct api_ids_job *ack)
{
    ack->job.query = api_ack_query;
    ack->job.on_done = api_ack_done;
    api_write(&ack->job);
}

void api_ack_one(struct api_request *request)
{
    struct id id;
    if (!id_parse(http_request_param(request->http, 0), &id)) {
        api_reply_err(request, ERR_NOT_FOUND, NULL);
        return;
    }
    struct api_ids_job *ack = api_job_create(request, sizeof(*ack));
    ack->is_single = true;
    ack->ids[0] = id;
    ack->count = 1;
    api_ack_post(ack);
}

/* Ids that are no ids cannot exist: they count as failed. */
void api_ack_many(struct api_request *request)
{
    struct api_document document;
    if (!api_document_read(request, &document)) {
        return;
    }
    size_t array = api_document_member(&document, 0, "event_ids");
    if (array == API_NO_VALUE || api_document_kind(&document, array) != JSON_ARRAY_BEGIN) {
        api_reply_bad_member(request, "/event_ids", "An array of 1 to 1000 ids is needed.");
        return;
    }
    struct api_ids_job *ack = api_job_create(request, sizeof(*ack));
    size_t i = array + 1;
    bool is_right = api_document_kind(&document, i) != JSON_ARRAY_END;
    while (is_right && api_document_kind(&document, i) != JSON_ARRAY_END) {
        struct slice text = {NULL, 0};
        is_right =
            api_document_text(&document, i, &text) && ack->count + ack->malformed < API_ACK_IDS_MAX;
        if (is_right && id_parse(text, &ack->ids[ack->count])) {
            ack->count++;
        } else {
            ack->malformed++;
        }
        i++;
    }
    if (!is_right) {
        api_reply_bad_member(request, "/event_ids", "An array of 1 to 1000 ids is needed.");
        return;
    }
    api_ack_post(ack);
}
