/* Audit: who did what with keys and settings, and failed checks of keys. */
#include "api/handlers.h"

#include "api/audited.h"
#include "api/parameters.h"
#include "base/clock.h"
#include "query/query.h"
#include "json/json.h"

#include <assert.h>

void *api_audited_create(struct api_request *request, size_t size)
{
    struct api_audited *audited = api_job_create(request, size);
    struct slice address = http_request_address(request->http);
    audited->actor = request->identity.key;
    audited->address_size =
        address.size < sizeof(audited->address) ? address.size : sizeof(audited->address);
    memcpy(audited->address, address.data, audited->address_size);
    return audited;
}

enum err api_audited_insert(const struct api_audited *audited, struct store_connection *connection,
                            const char *action, struct slice target)
{
    struct gate_audit entry = {.org = audited->job.org,
                               .key = audited->actor,
                               .action = action,
                               .target = target,
                               .address = slice_make(audited->address, audited->address_size)};
    return gate_audit_insert(connection, &entry);
}

struct api_audit_job {
    struct api_job job;    /* first */
    struct gate_page page; /* one row more than is asked for */
    enum query_list list;
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
    if (list->count++ == list->page.limit - 1) {
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
    list->count = 0;
    json_writer_init(&list->writer, &job->body);
    enum err err = buffer_append_text(&job->body, "{\"audit\":[");
    if (err == ERR_OK) {
        err = gate_audit_list(connection, &list->page, api_audit_row, list);
    }
    if (err == ERR_OK) {
        err = json_writer_err(&list->writer);
    }
    if (err == ERR_OK) {
        err = buffer_append_byte(&job->body, ']');
    }
    if (err == ERR_OK) {
        err = query_list_end(list->list, job->org, list->count == list->page.limit, list->place,
                             &job->body);
    }
    return err;
}

void api_audit_get(struct api_request *request)
{
    struct api_parameters parameters;
    api_parameters_begin(&parameters, request);
    struct gate_page page = {.org = request->identity.org};
    page.limit = api_parameter_limit(&parameters) + 1;
    page.oldest_first = api_parameter_order(&parameters, false);
    enum query_list name = page.oldest_first ? QUERY_LIST_AUDIT_OLDEST : QUERY_LIST_AUDIT;
    page.after = api_parameter_cursor(&parameters, name);
    if (!api_parameters_end(&parameters)) {
        return;
    }
    struct api_audit_job *list = api_job_create(request, sizeof(*list));
    list->page = page;
    list->list = name;
    list->job.query = api_audit_query;
    api_read(&list->job);
}
