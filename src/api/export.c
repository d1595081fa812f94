/* Export: everything that a filter fits, as JSON, NDJSON or CSV, in the order in which it came.
 *
 * What was there when the export began is what it gives: later events lie behind its end. The count
 * stands last, so nothing has to be known before. */
#include "api/handlers.h"

#include "api/download.h"
#include "api/parameters.h"
#include "api/reply.h"
#include "base/clock.h"
#include "base/limits.h"

#include <assert.h>
#include <stdio.h>

struct api_export {
    struct api_download download; /* first */
    struct query_events query;
    enum query_format format;
    uint64_t count;
};

static const struct {
    const char *word;
    const char *type;
    enum query_format format;
} api_export_formats[] = {{"json", "application/json", QUERY_JSON},
                          {"ndjson", "application/x-ndjson", QUERY_NDJSON},
                          {"csv", "text/csv; charset=utf-8", QUERY_CSV}};

#define API_EXPORT_FORMATS (sizeof(api_export_formats) / sizeof(api_export_formats[0]))

static enum err api_export_begin(struct api_export *export, struct store_connection *connection,
                                 struct buffer *to)
{
    enum err err = query_tail_end(connection, export->query.filter.org, &export->query.until);
    if (err == ERR_OK && export->format == QUERY_JSON) {
        err = buffer_append_text(to, "{\"events\":[");
    } else if (err == ERR_OK && export->format == QUERY_CSV) {
        err = query_events_csv_head(to);
    }
    return err;
}

static enum err api_export_page(struct api_download *download, struct store_connection *connection,
                                struct buffer *to, bool *ret_more)
{
    struct api_export *export = (struct api_export *)download;
    struct query_events_end end = {0};
    enum err err = ERR_OK;
    if (export->query.until == 0) {
        err = api_export_begin(export, connection, to);
    } else if (export->count > 0 && export->format == QUERY_JSON) {
        err = buffer_append_byte(to, ',');
    }
    size_t from = to->size;
    if (err == ERR_OK) {
        err = query_events_page(connection, &export->query, export->format, to, &end);
    }
    if (err != ERR_OK) {
        return err;
    }
    if (end.count == 0 && export->count > 0 && export->format == QUERY_JSON) {
        assert(to->size == from && from > 0);
        to->size = from - 1; /* no event for the comma */
    }
    export->count += end.count;
    export->query.after = end.place;
    *ret_more = end.has_more;
    if (!end.has_more && export->format == QUERY_JSON) {
        err = buffer_printf(to, "],\"record_count\":%llu}", (unsigned long long)export->count);
    }
    return err;
}

static void api_export_name(struct api_export *export, const char *word)
{
    char time[CLOCK_TEXT_BYTES + 1] = {0};
    clock_format_rfc3339(clock_wall_ms(), time); /* 2026-11-21T14:50:24.123Z */
    (void)snprintf(export->download.file_name, sizeof(export->download.file_name),
                   "events_export_%.4s%.2s%.2s_%.2s%.2s%.2s.%s", time, time + 5, time + 8,
                   time + 11, time + 14, time + 17, word);
}

void api_export_events(struct api_request *request)
{
    struct api_parameters parameters;
    struct query_events query = {.filter.org = request->identity.org,
                                 .status = QUERY_STATUS_ANY,
                                 .limit = LIMIT_LIST_MAX,
                                 .bytes_max = API_DOWNLOAD_PAGE_BYTES};
    size_t format = 0;
    api_parameters_begin(&parameters, request);
    api_parameter_events(&parameters, &query);
    query.oldest_first = api_parameter_order(&parameters, true);
    struct slice word = api_parameter_text(&parameters, "format");
    while (word.data != NULL && format < API_EXPORT_FORMATS &&
           !slice_equal(word, slice_from_text(api_export_formats[format].word))) {
        format++;
    }
    if (format == API_EXPORT_FORMATS) {
        api_parameter_refuse(&parameters, "format", "The format is json, ndjson or csv.");
    }
    if (!api_parameters_end(&parameters)) {
        return;
    }
    struct api_export *export = api_download_create(request, sizeof(*export));
    struct api_job *job = &export->download.job;
    export->query = query;
    export->query.filter.type = api_job_copy(job, query.filter.type);
    export->query.filter.subject = api_job_copy(job, query.filter.subject);
    export->query.filter.app = api_job_copy(job, query.filter.app);
    export->format = api_export_formats[format].format;
    export->download.type = api_export_formats[format].type;
    export->download.page = api_export_page;
    export->download.is_versioned = true;
    api_export_name(export, api_export_formats[format].word);
    api_download_start(&export->download);
}
