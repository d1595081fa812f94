/* Keys: list, make, rotate, revoke.
 *
 * Making, happy path: the new key's text and its Argon2id hash are made on a reader's thread (tens
 * of milliseconds, so on no loop and not on the writer), then one durable job inserts the row and
 * its audit. A key that dies is forgotten by the gate before its death is answered. Failure modes:
 * the key's text is shown once and kept nowhere; an answer that is lost means a key to be revoked.
 */
#include "api/keys.h"

#include "api/document.h"
#include "api/handlers.h"
#include "api/list.h"
#include "api/reply.h"
#include "base/clock.h"
#include "manage/manage.h"
#include "query/query.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>

/* --- as JSON
 * -------------------------------------------------------------------------------------- */

static void api_key_time(struct json_writer *writer, const char *key, int64_t wall_ms)
{
    if (wall_ms != 0) {
        json_write_member_time(writer, key, wall_ms);
        return;
    }
    json_write_key(writer, key);
    json_write_null(writer);
}

static void api_key_limit(struct json_writer *writer, const char *key, uint32_t limit)
{
    json_write_key(writer, key);
    if (limit == 0) {
        json_write_null(writer);
    } else {
        json_write_u64(writer, limit);
    }
}

void api_key_write(struct json_writer *writer, const struct gate_key_row *row)
{
    json_write_member_string(writer, "id", row->id);
    json_write_member_string(writer, "name", row->name);
    json_write_key(writer, "scopes");
    json_write_array_begin(writer);
    const char *word = NULL;
    uint32_t scopes = row->scopes;
    while ((word = gate_scope_take(&scopes)) != NULL) {
        json_write_text(writer, word);
    }
    json_write_array_end(writer);
    json_write_key(writer, "limits");
    json_write_object_begin(writer);
    api_key_limit(writer, "requests_per_minute", row->requests_per_minute);
    api_key_limit(writer, "mb_per_hour", row->mb_per_hour);
    json_write_object_end(writer);
    api_key_time(writer, "created_at", row->created_ms);
    api_key_time(writer, "expires_at", row->expires_ms);
    if (row->device.size == sizeof(struct id)) {
        json_write_member_id(writer, "device_id", id_from_bytes(row->device));
    }
}

/* --- list
 * ----------------------------------------------------------------------------------------- */

static void api_keys_row(const struct gate_key_row *row, void *context)
{
    struct json_writer *writer = api_list_row(context, row->number);
    if (writer == NULL) {
        return;
    }
    json_write_object_begin(writer);
    api_key_write(writer, row);
    api_key_time(writer, "revoked_at", row->revoked_ms);
    api_key_time(writer, "last_used_at", row->last_used_ms);
    json_write_object_end(writer);
}

static enum err api_keys_rows(struct store_connection *connection, struct api_list *list)
{
    return gate_key_list(connection, &list->page, api_keys_row, list);
}

void api_keys_get(struct api_request *request)
{
    static const struct api_list_shape shape = {.name = "keys",
                                                .lists = {QUERY_LIST_KEYS_NEWEST, QUERY_LIST_KEYS},
                                                .oldest_first = true,
                                                .rows = api_keys_rows};
    api_list_get(request, &shape);
}

/* --- make
 * ------------------------------------------------------------------------------------------ */

static void api_key_job_destroy(struct api_job *job)
{
    struct api_key_job *made = (struct api_key_job *)job;
    sodium_memzero(&made->key, sizeof(made->key));
}

struct api_key_job *api_key_job_create(struct api_request *request)
{
    struct api_key_job *made = api_audited_create(request, sizeof(*made));
    made->audited.job.on_destroy = api_key_job_destroy;
    return made;
}

enum err api_key_prepare(struct api_job *job, struct store_connection *connection)
{
    struct api_key_job *made = (struct api_key_job *)job;
    (void)connection;
    return gate_key_prepare(job->request->loop->api->options.gate, &made->key);
}

static enum err api_key_insert_query(struct api_job *job, struct store_connection *connection)
{
    struct api_key_job *made = (struct api_key_job *)job;
    enum err err = ERR_OK;
    if (made->options.has_device) {
        err = manage_registry_exists(connection, MANAGE_DEVICE, job->org, made->options.device);
    }
    if (err == ERR_OK) {
        err = gate_key_insert(connection, &made->key, &made->options, &made->number);
    }
    if (err == ERR_OK) {
        err = api_audited_insert(&made->audited, connection, "key.create",
                                 slice_from_text(made->key.id));
    }
    return err;
}

void api_key_reply(struct api_key_job *made, int status, const struct id *org)
{
    struct api_request *request = made->audited.job.request;
    struct buffer *scratch = api_scratch(request->loop);
    struct json_writer writer;
    char text[80];
    struct gate_key_row row = {.id = slice_from_text(made->key.id),
                               .name = made->options.name,
                               .scopes = made->options.scopes,
                               .created_ms = clock_wall_ms(),
                               .expires_ms = made->options.expires_ms,
                               .requests_per_minute = made->options.requests_per_minute,
                               .mb_per_hour = made->options.mb_per_hour};
    if (made->options.has_device) {
        row.device = slice_make(made->options.device.bytes, sizeof(made->options.device.bytes));
    }
    json_writer_init(&writer, scratch);
    json_write_object_begin(&writer);
    api_key_write(&writer, &row);
    json_write_member_text(&writer, "api_key", made->key.text);
    if (org != NULL) {
        json_write_member_id(&writer, "org_id", *org);
    }
    json_write_object_end(&writer);
    if (json_writer_err(&writer) != ERR_OK) {
        api_reply_err(request, ERR_NO_MEMORY, NULL);
        return;
    }
    if (status == 201) {
        int size = snprintf(text, sizeof(text), "/api/keys/%s", made->key.id);
        http_reply_header(request->http, "Location", slice_make(text, (size_t)size));
    }
    api_reply_json(request, status, buffer_slice(scratch));
    sodium_memzero(scratch->data, scratch->size);
}

static void api_key_inserted(struct api_job *job)
{
    if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
        return;
    }
    api_key_reply((struct api_key_job *)job, 201, NULL);
}

static void api_key_prepared(struct api_job *job)
{
    if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
        return;
    }
    job->query = api_key_insert_query;
    job->on_done = api_key_inserted;
    api_write(job);
}

static bool api_scope_add(const struct api_document *document, size_t value, uint32_t *scopes)
{
    struct slice word = {NULL, 0};
    if (!api_document_text(document, value, &word)) {
        return false;
    }
    uint32_t scope = gate_scope_from_text(word);
    *scopes |= scope;
    return scope != 0;
}

/* An array of words, or one word. */
static bool api_scopes_read(const struct api_document *document, size_t value, uint32_t *ret)
{
    uint32_t scopes = 0;
    if (api_document_kind(document, value) != JSON_ARRAY_BEGIN) {
        *ret = 0;
        return api_scope_add(document, value, ret);
    }
    for (size_t i = value + 1; api_document_kind(document, i) != JSON_ARRAY_END; i++) {
        if (!api_scope_add(document, i, &scopes)) {
            return false;
        }
    }
    *ret = scopes;
    return scopes != 0;
}

static const char *api_key_limits_read(const struct api_document *document,
                                       struct gate_key_options *options)
{
    size_t limits = api_document_member(document, 0, "limits");
    if (limits == API_NO_VALUE) {
        return NULL;
    }
    size_t requests = api_document_member(document, limits, "requests_per_minute");
    size_t bytes = api_document_member(document, limits, "mb_per_hour");
    if (requests != API_NO_VALUE &&
        !api_document_u32(document, requests, &options->requests_per_minute)) {
        return "/limits/requests_per_minute";
    }
    if (bytes != API_NO_VALUE && !api_document_u32(document, bytes, &options->mb_per_hour)) {
        return "/limits/mb_per_hour";
    }
    return NULL;
}

/* Fills what the body says; the pointer of the first member that is wrong, or NULL. */
static const char *api_key_options_read(const struct api_document *document,
                                        struct gate_key_options *options)
{
    size_t name = api_document_member(document, 0, "name");
    size_t scopes = api_document_member(document, 0, "scopes");
    size_t expires = api_document_member(document, 0, "expires_at");
    size_t device = api_document_member(document, 0, "device_id");
    struct slice text = {NULL, 0};
    options->has_device = device != API_NO_VALUE;
    if (options->has_device &&
        (!api_document_text(document, device, &text) || !id_parse(text, &options->device))) {
        return "/device_id";
    }
    options->scopes = options->has_device ? GATE_WRITE_TELEMETRY : options->scopes;
    if (name != API_NO_VALUE && (!api_document_text(document, name, &options->name) ||
                                 options->name.size > API_KEY_NAME_MAX)) {
        return "/name";
    }
    if (scopes != API_NO_VALUE && !api_scopes_read(document, scopes, &options->scopes)) {
        return "/scopes";
    }
    if (expires != API_NO_VALUE && (!api_document_time(document, expires, &options->expires_ms) ||
                                    options->expires_ms <= clock_wall_ms())) {
        return "/expires_at";
    }
    return api_key_limits_read(document, options);
}

void api_keys_post(struct api_request *request)
{
    struct api_document document;
    struct gate_key_options options = {
        .org = request->identity.org, .scopes = GATE_READ | GATE_WRITE, .name = SLICE_LITERAL("")};
    if (!api_document_read(request, &document)) {
        return;
    }
    const char *wrong = api_key_options_read(&document, &options);
    if (wrong != NULL) {
        api_reply_bad_member(request, wrong, "The value is not permitted here.");
        return;
    }
    struct api_key_job *made = api_key_job_create(request);
    made->options = options;
    made->options.name = api_job_copy(&made->audited.job, options.name);
    made->audited.job.query = api_key_prepare;
    made->audited.job.on_done = api_key_prepared;
    api_read_raw(&made->audited.job);
}

/* --- rotate, revoke
 * -------------------------------------------------------------------------------- */

static enum err api_key_replace_query(struct api_job *job, struct store_connection *connection)
{
    struct api_key_job *made = (struct api_key_job *)job;
    enum err err = gate_key_replace(connection, job->org, made->target, &made->key,
                                    &made->old_number, &made->number);
    if (err == ERR_OK) {
        err = api_audited_insert(&made->audited, connection, "key.rotate", made->target);
    }
    return err;
}

/* Whoever asked may have hung up: the old key dies in the cache all the same. */
static void api_key_died(struct api_job *job)
{
    const struct api_key_job *made = (const struct api_key_job *)job;
    if (job->store.err == ERR_OK) {
        gate_forget_key(job->request->loop->api->options.gate, made->old_number);
    }
}

static void api_key_replaced(struct api_job *job)
{
    const struct api_key_job *made = (const struct api_key_job *)job;
    char text[160];
    if (job->store.err == ERR_NOT_FOUND) {
        api_reply_err(job->request, ERR_UNAUTHORIZED, NULL); /* it died meanwhile */
        return;
    }
    if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
        return;
    }
    int size = snprintf(text, sizeof(text), "{\"id\":\"%s\",\"api_key\":\"%s\"}", made->key.id,
                        made->key.text);
    api_reply_json(job->request, 200, slice_make(text, (size_t)size));
    sodium_memzero(text, sizeof(text));
}

static void api_key_rotate_prepared(struct api_job *job)
{
    if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
        return;
    }
    job->query = api_key_replace_query;
    job->on_settled = api_key_died;
    job->on_done = api_key_replaced;
    api_write(job);
}

/* The key that presents itself: weir_<id>_<secret>. */
void api_keys_rotate(struct api_request *request)
{
    uint8_t decoded[API_KEY_TEXT_MAX];
    struct slice rest = {NULL, 0};
    struct slice key = api_request_key(request->http, decoded);
    (void)slice_cut(key, '_', &rest);
    struct slice id = slice_cut(rest, '_', &rest);
    struct api_key_job *made = api_key_job_create(request);
    made->target = api_job_copy(&made->audited.job, id);
    made->audited.job.query = api_key_prepare;
    made->audited.job.on_done = api_key_rotate_prepared;
    api_read_raw(&made->audited.job);
}

static enum err api_key_revoke_query(struct api_job *job, struct store_connection *connection)
{
    struct api_key_job *made = (struct api_key_job *)job;
    enum err err = gate_key_revoke(connection, job->org, made->target, &made->old_number);
    if (err == ERR_OK) {
        err = api_audited_insert(&made->audited, connection, "key.revoke", made->target);
    }
    return err;
}

static void api_key_revoked(struct api_job *job)
{
    if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
        return;
    }
    api_reply(job->request, 204, NULL, (struct slice){NULL, 0});
}

void api_key_delete(struct api_request *request)
{
    struct api_key_job *made = api_key_job_create(request);
    made->target = api_job_copy(&made->audited.job, http_request_param(request->http, 0));
    made->audited.job.query = api_key_revoke_query;
    made->audited.job.on_settled = api_key_died;
    made->audited.job.on_done = api_key_revoked;
    api_write(&made->audited.job);
}
