/* Import: the registry's CSV files in and out.
 *
 * In, happy path: the file is collected, at most 4 MiB, and one durable job writes all of it.
 * Failure modes: a wrong line: 422 with a report of each (the first hundred), and nothing is kept.
 */
#include "api/handlers.h"

#include "api/download.h"
#include "api/parameters.h"
#include "api/reply.h"
#include "base/clock.h"
#include "manage/manage.h"
#include "json/json.h"

#include <assert.h>
#include <stdio.h>

#define API_IMPORT_BYTES_MAX   ((size_t)4 * 1024 * 1024)
#define API_IMPORT_POINTER_MAX 64u

struct api_import {
    struct api_job job; /* first */
    enum manage_file file;
    struct buffer bytes;
    struct manage_import import;
};

static enum manage_file api_import_file(const struct api_request *request)
{
    bool is_parameters =
        slice_starts_with(http_request_path(request->http), SLICE_LITERAL("/api/v1/parameters/"));
    return is_parameters ? MANAGE_FILE_PARAMETERS : MANAGE_FILE_REGISTRY;
}

/* --- in ------------------------------------------------------------------------------------ */

static void api_import_destroy(struct api_job *job)
{
    buffer_finish(&((struct api_import *)job)->bytes);
}

static void api_import_counts(struct json_writer *writer, const char *key,
                              const uint32_t counts[MANAGE_KINDS])
{
    json_write_key(writer, key);
    json_write_object_begin(writer);
    for (uint32_t i = 0; i < MANAGE_KINDS; i++) {
        json_write_member_u64(writer, manage_kind((enum manage_kind)i)->name, counts[i]);
    }
    json_write_object_end(writer);
}

static enum err api_import_query(struct api_job *job, struct store_connection *connection)
{
    struct api_import *one = (struct api_import *)job;
    struct json_writer writer;
    enum err err = manage_import(connection, one->file, buffer_slice(&one->bytes), &one->import);
    if (err != ERR_OK) {
        return err;
    }
    json_writer_init(&writer, &job->body);
    json_write_object_begin(&writer);
    json_write_member_u64(&writer, "lines", one->import.lines);
    api_import_counts(&writer, "created", one->import.created);
    api_import_counts(&writer, "updated", one->import.updated);
    json_write_object_end(&writer);
    return json_writer_err(&writer);
}

static void api_import_report(struct api_import *one)
{
    struct api_request *request = one->job.request;
    const struct manage_import *import = &one->import;
    struct mem_arena *arena = http_request_arena(request->http);
    struct http_problem_item *items =
        mem_arena_try_alloc(arena, import->fault_count * sizeof(*items) + 1);
    char(*pointers)[API_IMPORT_POINTER_MAX] =
        mem_arena_try_alloc(arena, import->fault_count * sizeof(*pointers) + 1);
    char extra[64];
    if (items == NULL || pointers == NULL) {
        api_reply_err(request, ERR_NO_MEMORY, NULL);
        return;
    }
    for (uint32_t i = 0; i < import->fault_count; i++) {
        const struct manage_line_fault *fault = &import->faults[i];
        int size =
            snprintf(pointers[i], sizeof(pointers[i]), "/%u%s%s", fault->line,
                     fault->column != NULL ? "/" : "", fault->column != NULL ? fault->column : "");
        items[i] = (struct http_problem_item){.pointer = slice_make(pointers[i], (size_t)size),
                                              .offset = -1,
                                              .code = fault->code,
                                              .message = fault->message};
    }
    int size = snprintf(extra, sizeof(extra), "\"lines\":%u,\"wrong_lines\":%u", import->lines,
                        import->wrong_lines);
    struct http_problem problem = {
        .status = 422,
        .code = "invalid",
        .detail = "Lines are wrong; nothing of the file was kept. Pointers are the line's number, "
                  "from 1, and the column.",
        .offset = -1,
        .items = items,
        .item_count = import->fault_count,
        .extra = slice_make(extra, (size_t)size)};
    api_reply_problem(request, &problem, 0);
}

static void api_imported(struct api_job *job)
{
    struct api_import *one = (struct api_import *)job;
    if (job->store.err == ERR_INVALID) {
        api_import_report(one);
    } else if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
    } else {
        api_reply_json(job->request, 200, buffer_slice(&job->body));
    }
}

static void api_import_data(struct api_request *request, struct slice chunk)
{
    struct api_import *one = (struct api_import *)request->job;
    if (buffer_append_slice(&one->bytes, chunk) != ERR_OK) {
        api_reply_err(request, ERR_TOO_LARGE, NULL);
    }
}

static void api_import_end(struct api_request *request)
{
    api_write(request->job);
}

/* customer_id: the org's own id; what stands in customer_name then does not count. */
static bool api_import_customer(struct api_request *request, bool *ret_any)
{
    struct api_parameters parameters;
    struct id id;
    api_parameters_begin(&parameters, request);
    struct slice text = api_parameter_text(&parameters, "customer_id");
    *ret_any = text.data != NULL;
    if (*ret_any && (!id_parse(text, &id) || !id_equal(id, request->identity.org_id))) {
        api_reply_err(request, ERR_NOT_FOUND, NULL);
        return false;
    }
    return true;
}

void api_registry_import(struct api_request *request)
{
    bool any_customer = false;
    struct slice type = http_request_header(request->http, "Content-Type");
    struct slice rest = {NULL, 0};
    struct slice media = slice_trim(slice_cut(type, ';', &rest));
    if (media.size > 0 && !slice_equal_nocase(media, SLICE_LITERAL("text/csv")) &&
        !slice_equal_nocase(media, SLICE_LITERAL("application/csv")) &&
        !slice_equal_nocase(media, SLICE_LITERAL("text/plain"))) {
        api_reply_err(request, ERR_UNSUPPORTED, "The file comes as text/csv.");
        return;
    }
    if (!api_import_customer(request, &any_customer)) {
        return;
    }
    struct api_import *one = api_job_create(request, sizeof(*one));
    one->file = api_import_file(request);
    one->import.org = request->identity.org;
    one->import.any_customer = any_customer;
    one->job.on_destroy = api_import_destroy;
    one->job.query = api_import_query;
    one->job.on_done = api_imported;
    buffer_init(&one->bytes, API_IMPORT_BYTES_MAX);
    request->on_body = api_import_data;
    request->on_body_end = api_import_end;
    http_body_accept(request->http, API_IMPORT_BYTES_MAX);
}

/* --- out ----------------------------------------------------------------------------------- */

struct api_file {
    struct api_download download; /* first */
    enum manage_file file;
};

static enum err api_file_page(struct api_download *download, struct store_connection *connection,
                              struct buffer *to, bool *ret_more)
{
    *ret_more = false;
    return manage_export(connection, ((struct api_file *)download)->file, download->job.org, to);
}

void api_registry_export(struct api_request *request)
{
    struct api_parameters parameters;
    char time[CLOCK_TEXT_BYTES + 1] = {0};
    api_parameters_begin(&parameters, request);
    struct api_file *one = api_download_create(request, sizeof(*one));
    one->file = api_import_file(request);
    one->download.page = api_file_page;
    one->download.type = "text/csv; charset=utf-8";
    one->download.is_versioned = true;
    clock_format_rfc3339(clock_wall_ms(), time);
    (void)snprintf(one->download.file_name, sizeof(one->download.file_name),
                   "%s_%.4s%.2s%.2s_%.2s%.2s%.2s.csv",
                   one->file == MANAGE_FILE_PARAMETERS ? "parameters" : "registry", time, time + 5,
                   time + 8, time + 11, time + 14, time + 17);
    api_download_start(&one->download);
}
