/* List: a page of rows that gate keeps.
 *
 * Happy path: one row more than is asked for is read; it only says that there is a next page.
 * Failure modes: the store's and the buffer's. */
#include "api/list.h"

#include "api/parameters.h"

#include <assert.h>

struct json_writer *api_list_row(struct api_list *list, uint64_t number)
{
    assert(list->count < list->page.limit);
    if (++list->count == list->page.limit) {
        return NULL;
    }
    list->place = number;
    return &list->writer;
}

static enum err api_list_query(struct api_job *job, struct store_connection *connection)
{
    struct api_list *list = (struct api_list *)job;
    list->count = 0;
    json_writer_init(&list->writer, &job->body);
    json_write_object_begin(&list->writer);
    json_write_key(&list->writer, list->shape->name);
    json_write_array_begin(&list->writer);
    enum err err = list->shape->rows(connection, list);
    json_write_array_end(&list->writer);
    if (err == ERR_OK) {
        err = json_writer_err(&list->writer);
    }
    if (err == ERR_OK) {
        err = query_list_end(list->shape->lists[list->page.oldest_first], job->org,
                             list->count == list->page.limit, list->place, &job->body);
    }
    return err;
}

void api_list_get(struct api_request *request, const struct api_list_shape *shape)
{
    struct api_parameters parameters;
    api_parameters_begin(&parameters, request);
    struct gate_page page = {.org = request->identity.org};
    page.limit = api_parameter_limit(&parameters) + 1;
    page.oldest_first = api_parameter_order(&parameters, shape->oldest_first);
    page.after = api_parameter_cursor(&parameters, shape->lists[page.oldest_first]);
    if (!api_parameters_end(&parameters)) {
        return;
    }
    struct api_list *list = api_job_create(request, sizeof(*list));
    list->page = page;
    list->shape = shape;
    list->job.query = api_list_query;
    api_read(&list->job);
}
