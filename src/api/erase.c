/* Erase: what is stored of a subject, of an app, or one event, goes.
 *
 * Happy path: everything that was accepted before the request, by any node, is applied first: what
 * this one accepted (as a wait_for), what others have on their disks, which they tell in the store,
 * what is in the stream that they share. Then step after step erases, each a durable transaction,
 * and the last one writes the audit. The answer comes when the store holds nothing more of it. Raw
 * bodies follow within the hour, the journal when its segments go.
 *
 * Failure modes: 504: not all of it was applied in time, or a node is away that may hold some: it
 * would come back with that; 409: an upload is being applied; an answer
 * that is lost: asking again finishes what was begun. */
#include "api/handlers.h"

#include "api/audited.h"
#include "api/document.h"
#include "api/reply.h"
#include "base/clock.h"
#include "base/limits.h"
#include "journal/journal.h"
#include "query/query.h"

#include <assert.h>
#include <stdio.h>

struct api_erase {
    struct api_audited audited; /* first */
    struct query_erase erase;
    struct query_erase done; /* of the steps that are committed */
    struct id id;
    const char *what; /* "event", "subject", "app" */
    struct id own;    /* the journal on this node's disk; zeros: none */
    uint64_t question;
    uint64_t end_ms;  /* monotonic */
    int64_t since_ms; /* the database's: what was accepted before is to be applied */
    bool is_behind;   /* another node is */
};

#define ERASE_LOOK_MS 100u

/* The audit says what was asked for and not whom it was about: that is to be forgotten. */
static enum err api_erase_query(struct api_job *job, struct store_connection *connection)
{
    struct api_erase *asked = (struct api_erase *)job;
    char target[40];
    asked->erase = asked->done;
    enum err err = query_erase_step(connection, &asked->erase);
    if (err != ERR_OK || asked->erase.has_more) {
        return err;
    }
    int size = snprintf(target, sizeof(target), "%s: %llu", asked->what,
                        (unsigned long long)asked->erase.events);
    return api_audited_insert(&asked->audited, connection, "erase",
                              slice_make(target, (size_t)size));
}

static void api_erase_done(struct api_job *job)
{
    struct api_erase *asked = (struct api_erase *)job;
    char text[128];
    if (job->store.err == ERR_EXISTS) {
        struct http_problem problem = {.status = 409,
                                       .code = "upload_in_progress",
                                       .detail = "An upload is still being applied; erase again "
                                                 "when it is done.",
                                       .offset = -1};
        api_reply_problem(job->request, &problem, 0);
        return;
    }
    if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
        return;
    }
    asked->done = asked->erase;
    if (asked->done.has_more) {
        api_write(job);
        return;
    }
    int size = snprintf(text, sizeof(text),
                        "{\"success\":true,\"events\":%llu,\"dead_letters\":%llu,"
                        "\"raw_uploads\":%llu}",
                        (unsigned long long)asked->done.events,
                        (unsigned long long)asked->done.dead_letters,
                        (unsigned long long)asked->done.uploads);
    api_reply_json(job->request, 200, slice_make(text, (size_t)size));
}

static void api_erase_run(struct api_request *request)
{
    struct api_job *job = request->job;
    job->query = api_erase_query;
    job->on_done = api_erase_done;
    api_write(job);
}

static enum err api_erase_behind_query(struct api_job *job, struct store_connection *connection)
{
    struct api_erase *asked = (struct api_erase *)job;
    return query_is_behind(connection, asked->own, &asked->since_ms, &asked->is_behind);
}

static void api_erase_look(struct api_request *request)
{
    request->on_timer = NULL;
    api_write(request->job);
}

static void api_erase_behind_done(struct api_job *job)
{
    struct api_erase *asked = (struct api_erase *)job;
    struct api_request *request = job->request;
    const struct api_options *options = &request->loop->api->options;
    if (job->store.err != ERR_OK) {
        api_reply_err(request, job->store.err, NULL);
        return;
    }
    if (!asked->is_behind && journal_is_answered(options->journal, asked->question)) {
        api_wait_for(request, journal_durable_position(options->journal), api_erase_run);
        return;
    }
    if (clock_mono_ms() >= asked->end_ms) {
        struct http_problem problem = {.status = 504,
                                       .code = "timeout",
                                       .detail = "Another node may hold records that are not "
                                                 "applied; erase again when it has applied them.",
                                       .offset = -1};
        api_reply_problem(request, &problem, 0);
        return;
    }
    store_announce_free(options->store); /* so that they look, and tell */
    request->on_timer = api_erase_look;
    http_request_set_timer(request->http, ERASE_LOOK_MS);
}

static void api_erase_settle(struct api_request *request)
{
    struct api_job *job = request->job;
    job->query = api_erase_behind_query;
    job->on_done = api_erase_behind_done;
    api_write(job);
}

static struct id api_erase_own(const struct journal *journal)
{
    const struct journal *own = journal_own(journal);
    struct journal_state state = {.base = 0};
    if (own != NULL) {
        journal_state(own, &state);
    }
    return state.id;
}

/* False: refused and answered. */
static bool api_erase_read(const struct api_document *document, struct api_erase *asked)
{
    static const char *const members[] = {"event_id", "subject", "user_id", "app"};
    size_t value = API_NO_VALUE;
    size_t which = 0;
    uint32_t count = 0;
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        size_t found = api_document_member(document, 0, members[i]);
        if (found != API_NO_VALUE) {
            value = found;
            which = i;
            count++;
        }
    }
    struct slice text = {NULL, 0};
    if (count != 1 || !api_document_text(document, value, &text) || text.size == 0 ||
        (which == 0 && !id_parse(text, &asked->id))) {
        api_reply_bad_member(document->request, "",
                             "One of event_id, subject, user_id and app is needed, as a text.");
        return false;
    }
    text = api_job_copy(&asked->audited.job, text);
    asked->what = which == 2 ? "subject" : members[which];
    if (which == 0) {
        asked->done.id = &asked->id;
        asked->what = "event";
    } else if (which == 3) {
        asked->done.filter.app = text;
    } else {
        asked->done.filter.subject = text; /* events call a user their subject */
    }
    return true;
}

void api_erase(struct api_request *request)
{
    struct api_document document;
    if (!api_document_read(request, &document)) {
        return;
    }
    struct api_erase *asked = api_audited_create(request, sizeof(*asked));
    asked->done =
        (struct query_erase){.filter.org = request->identity.org, .limit = QUERY_ERASE_ROWS_MAX};
    if (api_erase_read(&document, asked)) {
        struct journal *journal = request->loop->api->options.journal;
        asked->own = api_erase_own(journal);
        asked->question = journal_ask(journal);
        asked->end_ms = clock_mono_ms() + LIMIT_WAIT_FOR_MS;
        api_wait_for(request, journal_accepted_position(journal), api_erase_settle);
    }
}
