/* Uploads: state, progress, results and raw bytes of bodies above 256 KiB. */
#include "api/handlers.h"

#include "api/download.h"
#include "api/parameters.h"
#include "api/reply.h"
#include "base/clock.h"
#include "base/limits.h"
#include "journal/journal.h"
#include "query/query.h"

#include <assert.h>
#include <stdio.h>

#define API_RAW_PAGE_BYTES LIMIT_UPLOAD_BLOCK_BYTES

struct api_page_job {
    struct api_job job; /* first */
    struct query_page page;
    struct id id;
    uint32_t areas; /* of one */
};

uint32_t api_areas(const struct api_request *request)
{
    uint32_t scopes = request->identity.scopes;
    bool has_events = (scopes & (GATE_READ | GATE_READ_EVENTS)) != 0;
    bool has_readings = (scopes & (GATE_READ | GATE_READ_TELEMETRY)) != 0;
    return (has_events ? QUERY_AREA_EVENTS : 0u) | (has_readings ? QUERY_AREA_READINGS : 0u);
}

uint32_t api_areas_to_write(const struct api_request *request)
{
    uint32_t scopes = request->identity.scopes;
    bool has_events = (scopes & (GATE_WRITE | GATE_WRITE_EVENTS)) != 0;
    bool has_readings = (scopes & (GATE_WRITE | GATE_WRITE_TELEMETRY)) != 0;
    return (has_events ? QUERY_AREA_EVENTS : 0u) | (has_readings ? QUERY_AREA_READINGS : 0u);
}

static enum err api_uploads_query(struct api_job *job, struct store_connection *connection)
{
    const struct api_page_job *list = (const struct api_page_job *)job;
    return query_uploads_list(connection, &list->page, &job->body);
}

void api_uploads_get(struct api_request *request)
{
    struct api_parameters parameters;
    struct query_page page = {.org = request->identity.org, .areas = api_areas(request)};
    api_parameters_begin(&parameters, request);
    page.limit = api_parameter_limit(&parameters);
    page.oldest_first = api_parameter_order(&parameters, false);
    page.after = api_parameter_cursor(&parameters, page.oldest_first ? QUERY_LIST_UPLOADS_OLDEST
                                                                     : QUERY_LIST_UPLOADS);
    if (!api_parameters_end(&parameters)) {
        return;
    }
    struct api_page_job *list = api_job_create(request, sizeof(*list));
    list->page = page;
    request->seed += page.areas;
    list->job.query = api_uploads_query;
    api_read(&list->job);
}

static struct api_page_job *api_upload_job(struct api_request *request)
{
    struct api_parameters parameters;
    struct id id;
    api_parameters_begin(&parameters, request);
    if (!id_parse(http_request_param(request->http, 0), &id)) {
        api_reply_err(request, ERR_NOT_FOUND, NULL);
        return NULL;
    }
    struct api_page_job *one = api_job_create(request, sizeof(*one));
    one->id = id;
    return one;
}

/* Accepted, and its end record not applied yet: it is no row, and its owner may ask already. */
static enum err api_upload_accepted(struct api_job *job, struct id id, uint32_t areas)
{
    const struct api *api = job->request->loop->api;
    struct api_accepted accepted = {0};
    char text[ID_TEXT_BYTES];
    char time[CLOCK_TEXT_BYTES];
    if (!table_copy(api->accepted, slice_make(id.bytes, sizeof(id.bytes)), &accepted) ||
        accepted.org != job->org || (accepted.area & areas) == 0) {
        return ERR_NOT_FOUND;
    }
    id_format(id, text);
    clock_format_rfc3339(accepted.received_ms, time);
    return buffer_printf(
        &job->body,
        "{\"raw_ingestion_id\":\"%.*s\",\"upload_id\":\"%.*s\",\"state\":\"accepted\","
        "\"bytes\":null,\"points_total\":%llu,\"points_applied\":0,"
        "\"counts\":{\"accepted\":%llu,\"rejected\":%llu},\"errors\":[],"
        "\"received_at\":\"%.*s\",\"finished_at\":null}",
        ID_TEXT_BYTES, text, ID_TEXT_BYTES, text,
        (unsigned long long)accepted.accepted + accepted.rejected,
        (unsigned long long)accepted.accepted, (unsigned long long)accepted.rejected,
        CLOCK_TEXT_BYTES, time);
}

static enum err api_upload_query(struct api_job *job, struct store_connection *connection)
{
    const struct api_page_job *one = (const struct api_page_job *)job;
    enum err err = query_upload_get(connection, job->org, one->id, one->areas, &job->body);
    return err == ERR_NOT_FOUND ? api_upload_accepted(job, one->id, one->areas) : err;
}

void api_upload_get(struct api_request *request)
{
    struct api_page_job *one = api_upload_job(request);
    if (one != NULL) {
        /* Who may write an area is told what became of what it sent. */
        one->areas = api_areas(request) | api_areas_to_write(request);
        request->seed += one->areas; /* the tag is of what this key may see */
        one->job.query = api_upload_query;
        api_read(&one->job);
    }
}

/* --- the body as it came ------------------------------------------------------------------------
 */

struct api_raw {
    struct api_download download; /* first */
    struct id id;
    uint32_t areas;
    struct journal_upload_reader *reader;
    uint64_t offset;
};

static const char *api_raw_type(uint32_t form)
{
    if (form == RECORD_FORM_EVENT_LINES) {
        return "application/x-ndjson";
    }
    return "application/json";
}

static enum err api_raw_open(struct api_raw *raw, struct store_connection *connection)
{
    const struct api *api = raw->download.job.request->loop->api;
    uint32_t form = 0;
    enum err err = query_upload_form(connection, raw->download.job.org, raw->id, raw->areas, &form);
    if (err == ERR_OK) {
        raw->download.type = api_raw_type(form);
        err = journal_upload_open(&raw->reader, api->options.journal, raw->id);
    }
    return err;
}

static enum err api_raw_page(struct api_download *download, struct store_connection *connection,
                             struct buffer *to, bool *ret_more)
{
    struct api_raw *raw = (struct api_raw *)download;
    size_t size = 0;
    enum err err = raw->reader == NULL ? api_raw_open(raw, connection) : ERR_OK;
    if (err == ERR_OK) {
        err = buffer_reserve(to, API_RAW_PAGE_BYTES);
    }
    if (err == ERR_OK) {
        err = journal_upload_read(raw->reader, raw->offset, to->data + to->size, API_RAW_PAGE_BYTES,
                                  &size);
    }
    if (err == ERR_OK) {
        to->size += size;
        raw->offset += size;
        *ret_more = size == API_RAW_PAGE_BYTES;
    }
    return err;
}

static void api_raw_destroy(struct api_download *download)
{
    journal_upload_close(((struct api_raw *)download)->reader);
}

/* A body that is being received is nobody's yet, and one that is accepted and not applied is no
 * row: 404 until then, as for one whose time is over. */
void api_upload_raw(struct api_request *request)
{
    struct api_parameters parameters;
    struct id id;
    char text[ID_TEXT_BYTES];
    api_parameters_begin(&parameters, request);
    if (!id_parse(http_request_param(request->http, 0), &id)) {
        api_reply_err(request, ERR_NOT_FOUND, NULL);
        return;
    }
    struct api_raw *raw = api_download_create(request, sizeof(*raw));
    raw->id = id;
    raw->areas = api_areas(request);
    request->seed += raw->areas;
    raw->download.page = api_raw_page;
    raw->download.on_destroy = api_raw_destroy;
    id_format(id, text);
    (void)snprintf(raw->download.file_name, sizeof(raw->download.file_name), "upload_%.*s",
                   ID_TEXT_BYTES, text);
    api_download_start(&raw->download);
}

/* --- delete
 * ------------------------------------------------------------------------------------ */

static enum err api_upload_settle_query(struct api_job *job, struct store_connection *connection)
{
    const struct api_page_job *one = (const struct api_page_job *)job;
    return query_upload_settle(connection, job->org, one->id, one->areas);
}

/* The file goes first: if the commit then fails, the row is still there to be deleted again, while
 * the other way round a crash would leave a file that nothing names. */
static enum err api_upload_delete_query(struct api_job *job, struct store_connection *connection)
{
    const struct api_page_job *one = (const struct api_page_job *)job;
    enum err err = query_upload_delete(connection, job->org, one->id, one->areas);
    if (err == ERR_OK) {
        err = journal_upload_delete(job->request->loop->api->options.journal, one->id);
        err = err == ERR_NOT_FOUND ? ERR_OK : err;
        (void)table_erase(job->request->loop->api->accepted,
                          slice_make(one->id.bytes, sizeof(one->id.bytes)));
    }
    return err;
}

static void api_upload_deleted(struct api_job *job)
{
    if (job->store.err == ERR_EXISTS) {
        struct http_problem problem = {.status = 409,
                                       .code = "upload_in_progress",
                                       .detail = "The upload is still being applied.",
                                       .offset = -1};
        api_reply_problem(job->request, &problem, 0);
    } else if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
    } else {
        api_reply(job->request, 204, NULL, (struct slice){NULL, 0});
    }
}

static void api_upload_settled(struct api_job *job)
{
    if (job->store.err != ERR_OK) {
        api_upload_deleted(job);
        return;
    }
    job->query = api_upload_delete_query;
    job->on_done = api_upload_deleted;
    api_write(job);
}

/* Two commits: until the first, a power cut could take back what was applied, and then the file
 * would be needed again. */
void api_upload_delete(struct api_request *request)
{
    struct api_page_job *one = api_upload_job(request);
    if (one != NULL) {
        one->areas = api_areas_to_write(request);
        one->job.query = api_upload_settle_query;
        one->job.on_done = api_upload_settled;
        api_write(&one->job);
    }
}
