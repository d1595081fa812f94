/* Readings: messages of devices in, values out.
 *
 * In: as events, with answers of their own (200 queued). A key that belongs to a device puts its
 * device beside the record, and whoever reads the record then refuses any other.
 * Out: the newest, the history, or buckets, as one answer; CSV and NDJSON without an end go page by
 * page. */
#include "api/handlers.h"

#include "api/job.h"
#include "api/parameters.h"
#include "api/records.h"
#include "api/reply.h"
#include "base/limits.h"
#include "base/metrics.h"
#include "query/query.h"
#include "store/store.h"

#include <assert.h>

#define API_READINGS_DEFAULT 10000u
#define API_READINGS_MAX     100000u

void api_readings_post(struct api_request *request)
{
    struct http_request *http = request->http;
    struct record_attribute attributes[2];
    char device[ID_TEXT_BYTES];
    struct api_records records = {.answer = API_ANSWER_TELEMETRY, .attributes = attributes};
    enum err err = format_reading_form(http_request_header(http, "Content-Type"), &records.form);
    if (err != ERR_OK) {
        metrics_add(METRIC_VALIDATION_UNSUPPORTED, 1);
        api_reply_err(request, ERR_UNSUPPORTED,
                      "Readings come as application/json, application/x-ndjson, or text/plain that "
                      "is JSON.");
        return;
    }
    records.may_be_array = records.form == RECORD_FORM_READING;
    records.attribute_count = api_trace_attribute(http, attributes);
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

static void api_readings_latest(struct api_parameters *parameters, struct query_readings *query)
{
    struct slice text = api_parameter_text(parameters, "latest");
    query->latest =
        slice_equal(text, SLICE_LITERAL("true")) || slice_equal(text, SLICE_LITERAL("1"));
    if (text.data != NULL && !query->latest && !slice_equal(text, SLICE_LITERAL("false")) &&
        !slice_equal(text, SLICE_LITERAL("0"))) {
        api_parameter_refuse(parameters, "latest", "The value is true or false.");
    }
    if (query->latest && query->is_bucketed) {
        api_parameter_refuse(parameters, "bucket", "The newest readings have no buckets.");
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
    api_readings_latest(parameters, query);
    api_readings_place(parameters, query);
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
    query.rows_alone = slice_equal(format, SLICE_LITERAL("rows"));
    if (format.data != NULL && !query.rows_alone && !slice_equal(format, SLICE_LITERAL("json"))) {
        api_parameter_refuse(&parameters, "format", "It is json or rows.");
    }
    if (!api_parameters_end(&parameters)) {
        return;
    }
    struct api_readings_job *one = api_job_create(request, sizeof(*one));
    one->query = query;
    one->query.parameter = api_job_copy(&one->job, query.parameter);
    one->job.query = api_readings_query;
    api_read_versioned(&one->job);
}
