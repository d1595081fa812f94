/* Settings of an org: read by any key that reads, replaced whole by an admin. */
#include "api/handlers.h"

#include "api/audited.h"
#include "api/document.h"
#include "api/parameters.h"
#include "api/reply.h"
#include "manage/manage.h"

#include <assert.h>

static enum err api_settings_query(struct api_job *job, struct store_connection *connection)
{
    return manage_settings_get(connection, job->org, &job->body);
}

void api_settings_get(struct api_request *request)
{
    struct api_parameters parameters;
    api_parameters_begin(&parameters, request);
    struct api_job *job = api_job_create(request, sizeof(*job));
    job->query = api_settings_query;
    api_read_versioned(job);
}

/* --- replace
 * ----------------------------------------------------------------------------------- */

struct api_settings_job {
    struct api_audited audited; /* first */
    struct manage_settings settings;
    struct slice sources[MANAGE_SOURCES_MAX];
    bool has_more;
};

static enum err api_settings_put_query(struct api_job *job, struct store_connection *connection)
{
    struct api_settings_job *put = (struct api_settings_job *)job;
    enum err err = manage_settings_put(connection, job->org, &put->settings, &job->body);
    if (err == ERR_OK) {
        err = api_audited_insert(&put->audited, connection, "settings.replace", SLICE_LITERAL(""));
    }
    return err;
}

static enum err api_settings_follow_query(struct api_job *job, struct store_connection *connection)
{
    struct api_settings_job *put = (struct api_settings_job *)job;
    return manage_settings_follow(connection, job->org, &put->has_more);
}

static void api_settings_done(struct api_job *job)
{
    struct api_settings_job *put = (struct api_settings_job *)job;
    if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
        return;
    }
    if (put->has_more) {
        job->query = api_settings_follow_query;
        api_write(job);
        return;
    }
    api_reply_json(job->request, 200, buffer_slice(&job->body));
}

static const char *api_settings_sources(const struct api_document *document,
                                        struct api_settings_job *put)
{
    size_t value = api_document_member(document, 0, "source_priority");
    struct manage_settings *settings = &put->settings;
    settings->source_priority = put->sources;
    if (value == API_NO_VALUE) {
        return NULL;
    }
    if (api_document_kind(document, value) != JSON_ARRAY_BEGIN) {
        return "/source_priority";
    }
    for (size_t i = value + 1; api_document_kind(document, i) != JSON_ARRAY_END; i++) {
        struct slice text = {NULL, 0};
        if (settings->source_count == MANAGE_SOURCES_MAX ||
            !api_document_text(document, i, &text)) {
            return "/source_priority";
        }
        put->sources[settings->source_count++] = api_job_copy(&put->audited.job, text);
    }
    return NULL;
}

struct api_settings_member {
    size_t object;
    const char *name;
    const char *pointer;
    struct slice *text; /* or */
    uint32_t *number;
};

/* A member that is absent or null has its default. */
static const char *api_settings_member_read(const struct api_document *document,
                                            struct api_job *job,
                                            const struct api_settings_member *member)
{
    size_t value = api_document_member(document, member->object, member->name);
    if (value == API_NO_VALUE) {
        return NULL;
    }
    if (member->number != NULL) {
        bool is_number = api_document_u32(document, value, member->number);
        return is_number && *member->number != MANAGE_UNSET ? NULL : member->pointer;
    }
    struct slice text = {NULL, 0};
    if (!api_document_text(document, value, &text)) {
        return member->pointer;
    }
    *member->text = api_job_copy(job, text);
    return NULL;
}

/* The pointer of the first member that is wrong, or NULL. */
static const char *api_settings_read(const struct api_document *document,
                                     struct api_settings_job *put)
{
    static const char *const known[] = {"timezone",      "units",  "week_start", "source_priority",
                                        "silence_hours", "late_s", "retention"};
    struct manage_settings *settings = &put->settings;
    size_t retention = api_document_member(document, 0, "retention");
    bool has_retention = retention != API_NO_VALUE;
    if (has_retention && api_document_kind(document, retention) != JSON_OBJECT_BEGIN) {
        return "/retention";
    }
    const struct api_settings_member members[] = {
        {0, "timezone", "/timezone", &settings->timezone, NULL},
        {0, "units", "/units", &settings->units, NULL},
        {0, "week_start", "/week_start", &settings->week_start, NULL},
        {0, "silence_hours", "/silence_hours", NULL, &settings->silence_hours},
        {0, "late_s", "/late_s", NULL, &settings->late_s},
        {retention, "raw_days", "/retention/raw_days", NULL, &settings->raw_days},
        {retention, "events_days", "/retention/events_days", NULL, &settings->events_days},
        {retention, "readings_days", "/retention/readings_days", NULL, &settings->readings_days},
        {retention, "rollups_days", "/retention/rollups_days", NULL, &settings->rollups_days},
        {retention, "dead_letters_days", "/retention/dead_letters_days", NULL,
         &settings->dead_letters_days},
    };
    const char *wrong = api_document_unknown(document, known, sizeof(known) / sizeof(known[0]))
                            ? ""
                            : api_settings_sources(document, put);
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]) && wrong == NULL; i++) {
        if (members[i].object != API_NO_VALUE) {
            wrong = api_settings_member_read(document, &put->audited.job, &members[i]);
        }
    }
    return wrong != NULL ? wrong : manage_settings_check(settings);
}

void api_settings_put(struct api_request *request)
{
    struct api_document document;
    if (!api_document_read(request, &document)) {
        return;
    }
    struct api_settings_job *put = api_audited_create(request, sizeof(*put));
    put->settings = manage_settings_default;
    const char *wrong = api_settings_read(&document, put);
    if (wrong != NULL) {
        api_reply_bad_member(request, wrong,
                             wrong[0] == 0 ? "There is a member that is not one of the settings."
                                           : "The value is not permitted here.");
        return;
    }
    put->has_more = true;
    put->audited.job.query = api_settings_put_query;
    put->audited.job.on_done = api_settings_done;
    api_write(&put->audited.job);
}
