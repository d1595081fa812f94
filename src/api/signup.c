/* Signup: an org and its first key without a key, only where the operator permits it (OPEN_SIGNUP).
 *
 * It costs an Argon2id and a durable write and nobody has to show a key for it, so a loop does one
 * at a time; who comes meanwhile is told to come back. */
#include "api/handlers.h"

#include "api/document.h"
#include "api/keys.h"
#include "api/reply.h"
#include "base/clock.h"
#include "manage/manage.h"

#include <assert.h>
#include <stdio.h>

#define API_SIGNUPS_MAX 1u

static enum err api_signup_query(struct api_job *job, struct store_connection *connection)
{
    struct api_key_job *made = (struct api_key_job *)job;
    struct manage_org org;
    enum err err = manage_org_create(connection, made->target, SLICE_LITERAL("pro"), &org);
    if (err == ERR_OK) {
        job->org = org.number;
        made->options.org = org.number;
        made->org_id = org.id;
        err = gate_key_insert(connection, &made->key, &made->options, &made->number);
    }
    if (err == ERR_OK) {
        err = api_audited_insert(&made->audited, connection, "org.create", made->target);
    }
    return err;
}

static void api_signup_done(struct api_job *job)
{
    struct api_key_job *made = (struct api_key_job *)job;
    if (job->store.err == ERR_INVALID) {
        api_reply_bad_member(job->request, "/name", "A name has 1 to 100 printable bytes.");
    } else if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
    } else {
        api_key_reply(made, 201, &made->org_id);
    }
}

static void api_signup_prepared(struct api_job *job)
{
    if (job->store.err != ERR_OK) {
        api_reply_err(job->request, job->store.err, NULL);
        return;
    }
    job->query = api_signup_query;
    job->on_done = api_signup_done;
    api_write(job);
}

static void api_signup_finish(struct api_request *request)
{
    request->loop->signups--;
}

/* A name of our own when none is given. */
static struct slice api_signup_name(struct api_key_job *made)
{
    char id[ID_TEXT_BYTES];
    char text[ID_TEXT_BYTES + 8];
    id_format(id_make_v7(clock_wall_ms()), id);
    int size = snprintf(text, sizeof(text), "org-%.*s", ID_TEXT_BYTES, id);
    return api_job_copy(&made->audited.job, slice_make(text, (size_t)size));
}

void api_keys_generate(struct api_request *request)
{
    struct api_document document;
    struct slice name = {NULL, 0};
    if (!request->loop->api->options.open_signup) {
        api_reply_err(request, ERR_FORBIDDEN,
                      "Signing up is closed here; the operator makes orgs with `weir org create`.");
        return;
    }
    if (!api_document_read(request, &document)) {
        return;
    }
    size_t value = api_document_member(&document, 0, "name");
    if (value != API_NO_VALUE &&
        (!api_document_text(&document, value, &name) || name.size > API_KEY_NAME_MAX)) {
        api_reply_bad_member(request, "/name", "A name has 1 to 100 printable bytes.");
        return;
    }
    if (request->loop->signups == API_SIGNUPS_MAX) {
        api_reply_err(request, ERR_BUSY, "Somebody else is signing up at the moment.");
        return;
    }
    request->loop->signups++;
    request->detail_finish = api_signup_finish;
    struct api_key_job *made = api_key_job_create(request);
    made->options = (struct gate_key_options){.scopes = GATE_ALL, .name = SLICE_LITERAL("first")};
    made->target =
        name.data != NULL ? api_job_copy(&made->audited.job, name) : api_signup_name(made);
    made->audited.job.query = api_key_prepare;
    made->audited.job.on_done = api_signup_prepared;
    api_read_raw(&made->audited.job);
}
