/* Audit: who did what with keys and settings, and failed checks of keys. */
#include "api/handlers.h"

#include "api/audited.h"
#include "api/list.h"

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

static void api_audit_row(const struct gate_audit_row *row, void *context)
{
    struct json_writer *writer = api_list_row(context, row->number);
    if (writer == NULL) {
        return;
    }
    json_write_object_begin(writer);
    json_write_member_time(writer, "time", row->time_ms);
    json_write_member_string(writer, "action", row->action);
    json_write_member_string(writer, "target", row->target);
    json_write_member_string(writer, "address", row->address);
    if (row->key_id.size > 0) {
        json_write_member_string(writer, "key_id", row->key_id);
    }
    json_write_member_u64(writer, "count", row->count);
    json_write_object_end(writer);
}

static enum err api_audit_rows(struct store_connection *connection, struct api_list *list)
{
    return gate_audit_list(connection, &list->page, api_audit_row, list);
}

void api_audit_get(struct api_request *request)
{
    static const struct api_list_shape shape = {
        .name = "audit",
        .lists = {QUERY_LIST_AUDIT, QUERY_LIST_AUDIT_OLDEST},
        .rows = api_audit_rows};
    api_list_get(request, &shape);
}
