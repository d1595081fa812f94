/* Registry: projects, sites, devices and parameters over HTTP. One set of handlers for all four:
 * the kind is the path's third part.
 *
 * Happy path: the body's members are read by the kind's table of fields into the job, which owns
 * their texts; the writer's job writes the row and reads it back as the answer.
 * Failure modes: a value that is not permitted: 422 with its pointer. Something still belongs to
 * what is to be deleted: 409 in_use. */
#include "api/handlers.h"

#include "api/document.h"
#include "api/job.h"
#include "api/parameters.h"
#include "api/reply.h"
#include "manage/manage.h"
#include "query/query.h"

#include <assert.h>
#include <stdio.h>

struct api_registry_job {
    struct api_job job; /* first */
    enum manage_kind kind;
    struct manage_entity entity;
    struct manage_fault fault;
    struct manage_list list;
    struct buffer texts; /* of the entity's values; its room is made once */
};

static void api_registry_destroy(struct api_job *job)
{
    buffer_finish(&((struct api_registry_job *)job)->texts);
}

static enum manage_kind api_registry_kind(const struct api_request *request)
{
    static const char prefix[] = "/api/v1/";
    struct slice path = http_request_path(request->http);
    struct slice rest = {NULL, 0};
    struct slice word = slice_cut(slice_part(path, sizeof(prefix) - 1, path.size), '/', &rest);
    enum manage_kind kind = MANAGE_PROJECT;
    while (kind < MANAGE_KINDS - 1 &&
           !slice_equal(word, slice_from_text(manage_kind(kind)->name))) {
        kind++;
    }
    return kind;
}

static struct api_registry_job *api_registry_job(struct api_request *request)
{
    struct api_registry_job *one = api_job_create(request, sizeof(*one));
    one->kind = api_registry_kind(request);
    one->entity.org = request->identity.org;
    one->job.on_destroy = api_registry_destroy;
    buffer_init(&one->texts, 2 * API_JSON_BODY_BYTES_MAX);
    return one;
}

/* --- the body ------------------------------------------------------------------------------ */

/* The value of a member, null too; API_NO_VALUE: absent. */
static size_t api_registry_member(const struct api_document *document, const char *name)
{
    if (document->count == 0 || name == NULL) {
        return API_NO_VALUE;
    }
    for (size_t i = 1; document->tokens[i].kind == JSON_KEY;
         i = api_document_after(document, i + 1)) {
        const struct json_token *key = &document->tokens[i];
        if (json_text_equal(json_token_slice(key), key->escaped != 0, slice_from_text(name))) {
            return i + 1;
        }
    }
    return API_NO_VALUE;
}

/* A value as it came. */
static struct slice api_registry_raw(const struct api_document *document, size_t value)
{
    const struct json_token *token = &document->tokens[value];
    struct slice body = buffer_slice(&document->request->body);
    uint64_t end = token->offset + token->size;
    if (token->kind == JSON_STRING) {
        end += 2;
    } else if (token->kind == JSON_OBJECT_BEGIN || token->kind == JSON_ARRAY_BEGIN) {
        end = document->tokens[api_document_after(document, value) - 1].offset + 1;
    } else if (token->kind != JSON_NUMBER) {
        end += token->kind == JSON_FALSE ? 5 : 4;
    }
    return slice_part(body, (size_t)token->offset, (size_t)end);
}

static bool api_registry_keep(struct api_registry_job *one, struct slice text, struct slice *ret)
{
    size_t before = one->texts.size;
    if (one->texts.capacity - before < text.size ||
        buffer_append_slice(&one->texts, text) != ERR_OK) {
        return false;
    }
    *ret = slice_make(one->texts.data + before, text.size);
    return true;
}

static bool api_registry_value(struct api_registry_job *one, const struct api_document *document,
                               size_t at, const struct manage_field *field,
                               struct manage_value *ret)
{
    const struct json_token *token = &document->tokens[at];
    struct slice text = {NULL, 0};
    ret->is_set = true;
    ret->is_null = token->kind == JSON_NULL;
    if (ret->is_null) {
        return true;
    }
    switch (field->type) {
    case MANAGE_TEXT:
        return api_document_text(document, at, &text) && api_registry_keep(one, text, &ret->text);
    case MANAGE_JSON:
        return api_registry_keep(one, api_registry_raw(document, at), &ret->text);
    case MANAGE_WHOLE:
        return token->kind == JSON_NUMBER && json_to_i64(json_token_slice(token), &ret->whole);
    case MANAGE_NUMBER:
        return token->kind == JSON_NUMBER && json_to_double(json_token_slice(token), &ret->number);
    case MANAGE_BOOL:
        ret->whole = token->kind == JSON_TRUE;
        return token->kind == JSON_TRUE || token->kind == JSON_FALSE;
    }
    return false;
}

static bool api_registry_parent(struct api_registry_job *one, const struct api_document *document)
{
    const char *name = manage_kind(one->kind)->parent_name;
    size_t at = api_registry_member(document, name);
    struct slice text = {NULL, 0};
    if (at == API_NO_VALUE || api_document_kind(document, at) == JSON_NULL) {
        return true;
    }
    one->entity.has_parent = true;
    return api_document_text(document, at, &text) && id_parse(text, &one->entity.parent);
}

/* False: answered. */
static bool api_registry_read(struct api_registry_job *one)
{
    const struct manage_kind_row *row = manage_kind(one->kind);
    struct api_request *request = one->job.request;
    struct api_document document;
    char pointer[64];
    const char *wrong = NULL;
    if (!api_document_read(request, &document)) {
        return false;
    }
    if (buffer_reserve(&one->texts, request->body.size + 1) != ERR_OK) {
        api_reply_err(request, ERR_NO_MEMORY, NULL);
        return false;
    }
    if (!api_registry_parent(one, &document)) {
        wrong = row->parent_name;
    }
    for (uint32_t i = 0; i < row->field_count && wrong == NULL; i++) {
        const struct manage_field *field = &row->fields[i];
        size_t at = api_registry_member(&document, field->name);
        at = at == API_NO_VALUE ? api_registry_member(&document, field->alias) : at;
        if (at != API_NO_VALUE &&
            !api_registry_value(one, &document, at, field, &one->entity.values[i])) {
            wrong = field->name;
        }
    }
    if (wrong != NULL) {
        (void)snprintf(pointer, sizeof(pointer), "/%s", wrong);
        api_reply_bad_member(request, pointer, "The value is not permitted here.");
    }
    return wrong == NULL;
}

/* --- answers ------------------------------------------------------------------------------- */

static void api_registry_refused(struct api_registry_job *one)
{
    struct api_request *request = one->job.request;
    enum err err = one->job.store.err;
    char pointer[64];
    char message[128];
    if (err == ERR_INVALID && one->fault.field != NULL) {
        (void)snprintf(pointer, sizeof(pointer), "/%s", one->fault.field);
        (void)snprintf(message, sizeof(message), "The value %s.", one->fault.message);
        api_reply_bad_member(request, pointer, message);
    } else {
        api_reply_err(request, err, NULL);
    }
}

static void api_registry_location(struct api_registry_job *one)
{
    char text[80];
    char id[ID_TEXT_BYTES];
    id_format(one->entity.id, id);
    int size = snprintf(text, sizeof(text), "/api/v1/%s/%.*s", manage_kind(one->kind)->name,
                        ID_TEXT_BYTES, id);
    http_reply_header(one->job.request->http, "Location", slice_make(text, (size_t)size));
}

static void api_registry_created(struct api_job *job)
{
    struct api_registry_job *one = (struct api_registry_job *)job;
    if (job->store.err != ERR_OK) {
        api_registry_refused(one);
        return;
    }
    api_registry_location(one);
    api_reply_json(job->request, 201, buffer_slice(&job->body));
}

static void api_registry_updated(struct api_job *job)
{
    if (job->store.err != ERR_OK) {
        api_registry_refused((struct api_registry_job *)job);
        return;
    }
    api_reply_json(job->request, 200, buffer_slice(&job->body));
}

static void api_registry_deleted(struct api_job *job)
{
    if (job->store.err == ERR_EXISTS) {
        struct http_problem problem = {
            .status = 409,
            .code = "in_use",
            .detail = "Something still belongs to it: sites, devices, parameters, or readings.",
            .offset = -1};
        api_reply_problem(job->request, &problem, 0);
        return;
    }
    if (job->store.err != ERR_OK) {
        api_registry_refused((struct api_registry_job *)job);
        return;
    }
    api_reply(job->request, 204, NULL, (struct slice){NULL, 0});
}

/* --- jobs ---------------------------------------------------------------------------------- */

static enum err api_registry_get_query(struct api_job *job, struct store_connection *connection)
{
    struct api_registry_job *one = (struct api_registry_job *)job;
    return manage_registry_get(connection, one->kind, job->org, one->entity.id, &job->body);
}

static enum err api_registry_create_query(struct api_job *job, struct store_connection *connection)
{
    struct api_registry_job *one = (struct api_registry_job *)job;
    enum err err = manage_registry_lock(connection, job->org);
    if (err == ERR_OK) {
        err = manage_registry_create(connection, one->kind, &one->entity, &one->fault);
    }
    return err != ERR_OK ? err : api_registry_get_query(job, connection);
}

static enum err api_registry_update_query(struct api_job *job, struct store_connection *connection)
{
    struct api_registry_job *one = (struct api_registry_job *)job;
    enum err err = manage_registry_lock(connection, job->org);
    if (err == ERR_OK) {
        err = manage_registry_update(connection, one->kind, &one->entity, &one->fault);
    }
    return err != ERR_OK ? err : api_registry_get_query(job, connection);
}

static enum err api_registry_delete_query(struct api_job *job, struct store_connection *connection)
{
    struct api_registry_job *one = (struct api_registry_job *)job;
    enum err err = manage_registry_lock(connection, job->org);
    return err != ERR_OK ? err
                         : manage_registry_delete(connection, one->kind, job->org, one->entity.id);
}

static enum query_list api_registry_cursor(const struct manage_list *list)
{
    return (enum query_list)(QUERY_LIST_REGISTRY + 2 * (int)list->kind +
                             (list->oldest_first ? 1 : 0));
}

static enum err api_registry_list_query(struct api_job *job, struct store_connection *connection)
{
    struct api_registry_job *one = (struct api_registry_job *)job;
    bool has_more = false;
    uint64_t place = 0;
    enum err err = buffer_printf(&job->body, "{\"%s\":[", manage_kind(one->kind)->name);
    if (err == ERR_OK) {
        err = manage_registry_list(connection, &one->list, &job->body, &has_more, &place);
    }
    if (err == ERR_OK) {
        err = buffer_append_byte(&job->body, ']');
    }
    return err != ERR_OK ? err
                         : query_list_end(api_registry_cursor(&one->list), job->org, has_more,
                                          place, &job->body);
}

/* --- handlers ------------------------------------------------------------------------------ */

static void api_registry_id(struct api_parameters *parameters, const char *name, bool *ret_has,
                            struct id *ret)
{
    struct slice text = api_parameter_text(parameters, name);
    *ret_has = text.data != NULL;
    if (*ret_has && !id_parse(text, ret)) {
        api_parameter_refuse(parameters, name, "It is not a UUID.");
    }
}

void api_registry_list(struct api_request *request)
{
    struct api_parameters parameters;
    enum manage_kind kind = api_registry_kind(request);
    struct manage_list list = {.kind = kind, .org = request->identity.org};
    api_parameters_begin(&parameters, request);
    list.limit = api_parameter_limit(&parameters);
    list.oldest_first = api_parameter_order(&parameters, false);
    list.after = api_parameter_cursor(&parameters, api_registry_cursor(&list));
    list.name = api_parameter_text(&parameters, "name");
    if (manage_kind(kind)->parent_name != NULL) {
        api_registry_id(&parameters, manage_kind(kind)->parent_name, &list.has_parent,
                        &list.parent);
    }
    if (kind == MANAGE_DEVICE) {
        api_registry_id(&parameters, "project_id", &list.has_project, &list.project);
        list.external_id = api_parameter_text(&parameters, "external_id");
    }
    if (!api_parameters_end(&parameters)) {
        return;
    }
    struct api_registry_job *one = api_registry_job(request);
    one->list = list;
    one->list.name = api_job_copy(&one->job, list.name);
    one->list.external_id = api_job_copy(&one->job, list.external_id);
    one->job.query = api_registry_list_query;
    api_read_versioned(&one->job);
}

/* The job of a route with an id; NULL: answered. */
static struct api_registry_job *api_registry_one(struct api_request *request)
{
    struct id id;
    if (!id_parse(http_request_param(request->http, 0), &id)) {
        api_reply_err(request, ERR_NOT_FOUND, NULL);
        return NULL;
    }
    struct api_registry_job *one = api_registry_job(request);
    one->entity.id = id;
    return one;
}

void api_registry_get(struct api_request *request)
{
    struct api_parameters parameters;
    api_parameters_begin(&parameters, request);
    struct api_registry_job *one = api_registry_one(request);
    if (one != NULL) {
        one->job.query = api_registry_get_query;
        api_read_versioned(&one->job);
    }
}

void api_registry_create(struct api_request *request)
{
    struct api_registry_job *one = api_registry_job(request);
    if (api_registry_read(one)) {
        one->job.query = api_registry_create_query;
        one->job.on_done = api_registry_created;
        api_write(&one->job);
    }
}

void api_registry_update(struct api_request *request)
{
    struct api_registry_job *one = api_registry_one(request);
    if (one != NULL && api_registry_read(one)) {
        one->job.query = api_registry_update_query;
        one->job.on_done = api_registry_updated;
        api_write(&one->job);
    }
}

void api_registry_delete(struct api_request *request)
{
    struct api_registry_job *one = api_registry_one(request);
    if (one != NULL) {
        one->job.query = api_registry_delete_query;
        one->job.on_done = api_registry_deleted;
        api_write(&one->job);
    }
}
