/* Readings: messages of devices in, values out.
 *
 * In: as events, with answers of their own (200 queued). A key that belongs to a device puts its
 * device beside the record, and whoever reads the record then refuses any other.
 * Out: the newest, the history, or buckets, as one answer; CSV and NDJSON without an end go page by
 * page. */
#include "api/handlers.h"

#include "api/download.h"
#include "api/job.h"
#include "api/parameters.h"
#include "api/records.h"
#include "api/reply.h"
#include "base/clock.h"
#include "base/limits.h"
#include "query/query.h"
#include "store/store.h"

#include <assert.h>
#include <stdio.h>

#define API_READINGS_DEFAULT 10000u
#define API_READINGS_MAX     100000u

void api_readings_post(struct api_request *request)
{
    struct http_request *http = request->http;
    struct record_attribute attributes[2];
    char device[ID_TEXT_BYTES];
    struct api_records records = {.answer = API_ANSWER_TELEMETRY};
    enum err err = format_reading_form(http_request_header(http, "Content-Type"), &records.form);
    if (!api_records_prepare(request, &records, attributes, err,
                             "Readings come as application/json, application/x-ndjson, or "
                             "text/plain that is JSON.")) {
        return;
    }
    if (request->identity.has_device) {
        id_format(request->identity.device, device);
        attributes[records.attribute_count++] = (struct record_attribute){
            .name = SLICE_LITERAL("device"), .value = slice_make(device, sizeof(device))};
    }
    (void)api_records_begin(request, &records);
}

/* --- the question -------------------------------------------------------------------------- */

static bool api_readings_id(struct api_parameters *parameters, const char *name, struct id *ret)
{
    struct slice text = api_parameter_text(parameters, name);
    if (text.data != NULL && !id_parse(text, ret)) {
        api_parameter_refuse(parameters, name, "It is not a UUID.");
    }
    return text.data != NULL;
}

static bool api_readings_flag(struct api_parameters *parameters, const char *name)
{
    struct slice text = api_parameter_text(parameters, name);
    bool is_set = slice_equal(text, SLICE_LITERAL("true")) || slice_equal(text, SLICE_LITERAL("1"));
    if (text.data != NULL && !is_set && !slice_equal(text, SLICE_LITERAL("false")) &&
        !slice_equal(text, SLICE_LITERAL("0"))) {
        api_parameter_refuse(parameters, name, "The value is true or false.");
    }
    return is_set;
}

static void api_readings_aggregate(struct api_parameters *parameters, struct query_readings *query)
{
    static const char *const words[] = {"avg", "min", "max", "sum", "last", "count"};
    struct slice text = api_parameter_text(parameters, "agg");
    query->aggregate = QUERY_AVG;
    if (text.data == NULL) {
        return;
    }
    for (uint32_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (slice_equal(text, slice_from_text(words[i]))) {
            query->aggregate = (enum query_aggregate)i;
            return;
        }
    }
    api_parameter_refuse(parameters, "agg", "It is avg, min, max, sum, last or count.");
}

static void api_readings_bucket(struct api_parameters *parameters, struct query_readings *query)
{
    static const struct {
        const char *word;
        uint32_t width;
    } words[] = {{"1m", 0},     {"5m", 1},   {"1h", 2}, {"1d", 3},
                 {"minute", 0}, {"hour", 2}, {"day", 3}};
    struct slice text = api_parameter_text(parameters, "bucket");
    if (text.data == NULL || slice_equal(text, SLICE_LITERAL("raw"))) {
        return;
    }
    for (uint32_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (slice_equal(text, slice_from_text(words[i].word))) {
            query->is_bucketed = true;
            query->width = words[i].width;
            return;
        }
    }
    api_parameter_refuse(parameters, "bucket", "It is raw, 1m, 5m, 1h or 1d.");
}

/* max_points: the narrowest bucket of which the range has no more than that. */
static void api_readings_points(struct api_parameters *parameters, struct query_readings *query)
{
    struct slice text = api_parameter_text(parameters, "max_points");
    uint64_t points = 0;
    if (text.data == NULL) {
        return;
    }
    if (!slice_to_u64(text, &points) || points == 0) {
        api_parameter_refuse(parameters, "max_points", "It is a number from 1 on.");
        return;
    }
    if (query->is_bucketed || query->start_ms == INT64_MIN || query->end_ms == INT64_MAX ||
        query->end_ms <= query->start_ms) {
        query->limit = points < query->limit ? (uint32_t)points : query->limit;
        return;
    }
    uint64_t range_ms = (uint64_t)query->end_ms - (uint64_t)query->start_ms;
    query->is_bucketed = true;
    query->width = 0;
    while (query->width + 1 < STORE_ROLLUP_WIDTHS &&
           range_ms / (uint64_t)store_rollup_widths_ms[query->width] >= points) {
        query->width++;
    }
}

static void api_readings_place(struct api_parameters *parameters, struct query_readings *query)
{
    struct slice text = api_parameter_text(parameters, "cursor");
    if (text.data != NULL &&
        !query_readings_cursor_parse(query->newest_first, query->org, text, &query->after)) {
        api_parameter_refuse(parameters, "cursor",
                             "The cursor is not one that this list gave with this order.");
    }
}

static void api_readings_question(struct api_parameters *parameters, struct query_readings *query)
{
    static const char *const starts[] = {"start", "since", "start_date", "from", NULL};
    static const char *const ends[] = {"end", "until", "end_date", "to", NULL};
    query->org = parameters->request->identity.org;
    query->has_device = api_readings_id(parameters, "device_id", &query->device);
    query->has_site = api_readings_id(parameters, "site_id", &query->site);
    query->parameter = api_parameter_text(parameters, "parameter");
    if (query->parameter.data == NULL) {
        query->parameter = api_parameter_text(parameters, "parameter_key");
    }
    query->start_ms = api_parameter_time(parameters, starts, INT64_MIN);
    query->end_ms = api_parameter_time(parameters, ends, INT64_MAX);
    query->newest_first = !api_parameter_order(parameters, true);
    query->limit = api_parameter_limit_of(parameters, API_READINGS_DEFAULT, API_READINGS_MAX);
    api_readings_bucket(parameters, query);
    api_readings_aggregate(parameters, query);
    api_readings_points(parameters, query);
    query->latest = api_readings_flag(parameters, "latest");
    if (query->latest && query->is_bucketed) {
        api_parameter_refuse(parameters, "bucket", "The newest readings have no buckets.");
    }
    api_readings_place(parameters, query);
}

/* --- as a file ----------------------------------------------------------------------------- */

struct api_readings_file {
    struct api_download download; /* first */
    struct query_readings query;
    bool is_begun;
    uint64_t count;
};

static const struct {
    const char *word;
    const char *type;
    enum query_readings_form form;
} api_readings_forms[] = {{"json", "application/json", QUERY_READINGS_JSON},
                          {"ndjson", "application/x-ndjson", QUERY_READINGS_NDJSON},
                          {"csv", "text/csv; charset=utf-8", QUERY_READINGS_CSV},
                          {"txt", "text/plain; charset=utf-8", QUERY_READINGS_TXT}};

static enum err api_readings_page(struct api_download *download,
                                  struct store_connection *connection, struct buffer *to,
                                  bool *ret_more)
{
    struct api_readings_file *file = (struct api_readings_file *)download;
    struct query_readings_end end = {.count = 0};
    bool is_json = file->query.form == QUERY_READINGS_JSON;
    bool is_lines = file->query.form == QUERY_READINGS_NDJSON;
    enum err err = ERR_OK;
    if (!file->is_begun && !is_lines) {
        err = is_json ? buffer_append_text(to, "{\"readings\":[")
                      : query_readings_head(&file->query, to);
    } else if (is_json && file->count > 0) {
        err = buffer_append_byte(to, ',');
    }
    size_t from = to->size;
    if (err == ERR_OK) {
        err = query_readings_page(connection, &file->query, to, &end);
    }
    if (err != ERR_OK) {
        return err;
    }
    if (is_json && end.count == 0 && file->count > 0) {
        to->size = from - 1; /* no reading for the comma */
    }
    file->is_begun = true;
    file->count += end.count;
    file->query.after = end.place;
    *ret_more = end.has_more;
    return is_json && !end.has_more
               ? buffer_printf(to, "],\"record_count\":%llu}", (unsigned long long)file->count)
               : ERR_OK;
}

static void api_readings_file_name(struct api_readings_file *file, const char *word)
{
    char time[CLOCK_TEXT_BYTES + 1] = {0};
    clock_format_rfc3339(clock_wall_ms(), time); /* 2026-11-21T14:50:24.123Z */
    (void)snprintf(file->download.file_name, sizeof(file->download.file_name),
                   "scada_%s%s_%.4s%.2s%.2s_%.2s%.2s%.2s.%s",
                   file->query.latest ? "latest" : "history",
                   file->query.readable ? "_readable" : "", time, time + 5, time + 8, time + 11,
                   time + 14, time + 17, word);
}

static void api_readings_start(struct api_request *request, const struct query_readings *query,
                               size_t form)
{
    struct api_readings_file *file = api_download_create(request, sizeof(*file));
    file->query = *query;
    file->query.form = api_readings_forms[form].form;
    file->query.parameter = api_job_copy(&file->download.job, query->parameter);
    file->query.limit = UINT32_MAX;
    file->query.bytes_max = API_DOWNLOAD_PAGE_BYTES;
    file->download.page = api_readings_page;
    file->download.type = api_readings_forms[form].type;
    file->download.is_versioned = true;
    api_readings_file_name(file, api_readings_forms[form].word);
    api_download_start(&file->download);
}

#define API_READINGS_FORMS (sizeof(api_readings_forms) / sizeof(api_readings_forms[0]))

static size_t api_readings_form(struct slice word)
{
    size_t form = 0;
    while (form < API_READINGS_FORMS &&
           !slice_equal(word, slice_from_text(api_readings_forms[form].word))) {
        form++;
    }
    return form;
}

void api_export_readings(struct api_request *request)
{
    struct api_parameters parameters;
    struct query_readings query = {.org = 0};
    api_parameters_begin(&parameters, request);
    api_readings_question(&parameters, &query);
    query.readable = api_readings_flag(&parameters, "readable");
    struct slice word = api_parameter_text(&parameters, "format");
    size_t form = api_readings_form(word.data == NULL ? SLICE_LITERAL("csv") : word);
    if (form == API_READINGS_FORMS) {
        api_parameter_refuse(&parameters, "format", "The format is csv, txt, json or ndjson.");
    }
    if (query.is_bucketed) {
        api_parameter_refuse(&parameters, "bucket", "An export has readings, no buckets.");
    }
    if (api_parameters_end(&parameters)) {
        api_readings_start(request, &query, form);
    }
}

/* --- one answer ---------------------------------------------------------------------------- */

struct api_readings_job {
    struct api_job job; /* first */
    struct query_readings query;
};

static enum err api_readings_query(struct api_job *job, struct store_connection *connection)
{
    const struct api_readings_job *one = (const struct api_readings_job *)job;
    return query_readings_list(connection, &one->query, &job->body);
}

void api_readings_get(struct api_request *request)
{
    struct api_parameters parameters;
    struct query_readings query = {.org = 0};
    api_parameters_begin(&parameters, request);
    api_readings_question(&parameters, &query);
    struct slice format = api_parameter_text(&parameters, "format");
    bool is_rows = slice_equal(format, SLICE_LITERAL("rows"));
    size_t form = format.data == NULL || is_rows ? 0 : api_readings_form(format);
    bool is_file = form != 0;
    if (form == API_READINGS_FORMS) {
        api_parameter_refuse(&parameters, "format", "It is json, rows, csv or ndjson.");
    }
    if (is_file && query.is_bucketed) {
        api_parameter_refuse(&parameters, "format", "Buckets come as json or rows.");
    }
    if (!api_parameters_end(&parameters)) {
        return;
    }
    if (is_file) {
        api_readings_start(request, &query, form);
        return;
    }
    query.form = is_rows ? QUERY_READINGS_ROWS : QUERY_READINGS_JSON;
    struct api_readings_job *one = api_job_create(request, sizeof(*one));
    one->query = query;
    one->query.parameter = api_job_copy(&one->job, query.parameter);
    one->job.query = api_readings_query;
    api_read_versioned(&one->job);
}
