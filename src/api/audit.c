/* Audit: who did what with keys and settings, and failed checks of keys, newest first. */
#include "api/handlers.h"

#include "api/job.h"
#include "api/parameters.h"
#include "base/clock.h"
#include "query/query.h"
#include "json/json.h"

#include <assert.h>

struct api_audit_job {
    struct api_job job; /* first */
    uint32_t limit;
    uint64_t before;
    /* while the list is written */
    struct json_writer writer;
    uint32_t count;
    uint64_t place;
};

static void api_audit_row(const struct gate_audit_row *row, void *context)
{
    struct api_audit_job *list = context;
    struct json_writer *writer = &list->writer;
    char time[CLOCK_TEXT_BYTES];
    if (list->count++ == list->limit) {
        return; /* the one more that says there is a next page */
    }
    list->place = row->number;
    clock_format_rfc3339(row->time_ms, time);
    json_write_object_begin(writer);
    json_write_member_string(writer, "time", slice_make(time, sizeof(time)));
    json_write_member_string(writer, "action", row->action);
    json_write_member_string(writer, "target", row->target);
    json_write_member_string(writer, "address", row->address);
    if (row->key_id.size > 0) {
        json_write_member_string(writer, "key_id", row->key_id);
    }
    json_write_member_u64(writer, "count", row->count);
    json_write_object_end(writer);
}

static enum err api_audit_query(struct api_job *job, struct store_connection *connection)
{
    struct api_audit_job *list = (struct api_audit_job *)job;
    json_writer_init(&list->writer, &job->body);
    enum err err = buffer_append_text(&job->body, "{\"audit\":[");
    if (err == ERR_OK) {
        err = gate_audit_list(connection, job->org, list->before, list->limit + 1, api_audit_row,
                              list);
    }
    if (err == ERR_OK) {
        err = json_writer_err(&list->writer);
    }
    if (err == ERR_OK) {
        err = buffer_append_byte(&job->body, ']');
    }
    if (err == ERR_OK) {
        err = query_list_end(QUERY_LIST_AUDIT, job->org, list->count > list->limit, list->place,
                             &job->body);
    }
    return err;
}

void api_audit_get(struct api_request *request)
{
    struct api_parameters parameters;
    api_parameters_begin(&parameters, request);
    uint32_t limit = api_parameter_limit(&parameters);
    uint64_t before = api_parameter_cursor(&parameters, QUERY_LIST_AUDIT);
    if (!api_parameters_end(&parameters)) {
        return;
    }
    struct api_audit_job *list = api_job_create(request, sizeof(*list));
    list->limit = limit;
    list->before = before;
    list->job.query = api_audit_query;
    api_read(&list->job);
}
