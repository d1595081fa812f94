/* Dead letters: what was given up, with its reason, and a second try. */
#include "api/handlers.h"

#include "api/job.h"
#include "api/parameters.h"
#include "api/reply.h"
#include "query/query.h"

#include <assert.h>

struct api_letters_job {
    struct api_job job; /* first */
    struct query_page page;
    struct id id;
    uint32_t areas; /* of one */
};

static enum err api_letters_query(struct api_job *job, struct store_connection *connection)
{
    const struct api_letters_job *list = (const struct api_letters_job *)job;
    return query_dead_letters_list(connection, &list->page, &job->body);
}

void api_dead_letters_get(struct api_request *request)
{
    struct api_parameters parameters;
    struct query_page page = {.org = request->identity.org, .areas = api_areas(request)};
    api_parameters_begin(&parameters, request);
    page.limit = api_parameter_limit(&parameters);
    page.oldest_first = api_parameter_order(&parameters, false);
    page.after = api_parameter_cursor(
        &parameters, page.oldest_first ? QUERY_LIST_DEAD_LETTERS_OLDEST : QUERY_LIST_DEAD_LETTERS);
    if (!api_parameters_end(&parameters)) {
        return;
    }
    struct api_letters_job *list = api_job_create(request, sizeof(*list));
    list->page = page;
    request->seed += page.areas; /* the tag is of what this key may see */
    list->job.query = api_letters_query;
    api_read(&list->job);
}

static enum err api_retry_query(struct api_job *job, struct store_connection *connection)
{
    const struct api_letters_job *one = (const struct api_letters_job *)job;
    return query_dead_letter_retry(connection, job->org, one->id, one->areas);
}

static void api_retry_done(struct api_job *job)
{
    if (job->store.err == ERR_INVALID) {
        api_reply_err(job->request, ERR_REFUSED, "The record is still not readable.");
    } else if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
    } else {
        api_reply_json(job->request, 200, SLICE_LITERAL("{\"success\":true}"));
    }
}

void api_dead_letter_retry(struct api_request *request)
{
    struct id id;
    if (!id_parse(http_request_param(request->http, 0), &id)) {
        api_reply_err(request, ERR_NOT_FOUND, NULL);
        return;
    }
    struct api_letters_job *one = api_job_create(request, sizeof(*one));
    one->id = id;
    one->areas = api_areas_to_write(request);
    one->job.query = api_retry_query;
    one->job.on_done = api_retry_done;
    api_write(&one->job);
}
