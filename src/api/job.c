/* Job: how a request asks the store, and how the answer of a GET is made.
 *
 * Happy path of a read: the job goes to a reader, which opens a snapshot, reads the org's data
 * version, runs the query into `body`, encodes it, and sends the job back to the loop, which adds
 * the tag and replies. With If-None-Match the first turn reads the version alone: if the tag that
 * it makes is the client's, 304 is the whole answer; else a second turn runs the query (with the
 * version of its own snapshot, so a tag always belongs to the bytes beside it).
 *
 * Failure modes: the readers' queue is full: 503 at once; the query is too slow: 503 query_timeout;
 * the peer has gone: the job comes back and is dropped. */
#include "api/job.h"

#include "api/reply.h"
#include "base/hash.h"
#include "base/mem.h"
#include "query/query.h"

#include <assert.h>
#include <stdio.h>

#define API_ANSWER_BYTES_MAX ((size_t)4 * 1024 * 1024)
#define API_ENCODE_BYTES_MIN 1024u

void *api_job_create(struct api_request *request, size_t size)
{
    assert(size >= sizeof(struct api_job) && request->http != NULL);
    api_job_destroy(request->job);
    struct api_job *job = mem_alloc(size);
    job->request = request;
    job->org = request->identity.org;
    job->store.reply_to = request->loop->mailbox;
    job->coding = HTTP_IDENTITY;
    buffer_init(&job->body, API_ANSWER_BYTES_MAX);
    buffer_init(&job->encoded, API_ANSWER_BYTES_MAX);
    request->job = job;
    return job;
}

void api_job_destroy(struct api_job *job)
{
    if (job == NULL) {
        return;
    }
    if (job->on_destroy != NULL) {
        job->on_destroy(job);
    }
    while (job->texts != NULL) {
        struct api_job_text *text = job->texts;
        job->texts = text->next;
        mem_free(text);
    }
    buffer_finish(&job->body);
    buffer_finish(&job->encoded);
    mem_free(job);
}

struct slice api_job_copy(struct api_job *job, struct slice text)
{
    if (text.data == NULL) {
        return text;
    }
    /* Parts of one target or one small document: their size is bounded by those. */
    struct api_job_text *copy = mem_alloc(sizeof(*copy) + text.size);
    memcpy(copy->bytes, text.data, text.size);
    copy->next = job->texts;
    job->texts = copy;
    return slice_make(copy->bytes, text.size);
}

static void api_job_done(struct store_job *store)
{
    struct api_job *job = (struct api_job *)store; /* the first member */
    struct api_request *request = job->request;
    assert(request->pending > 0 && request->job == job);
    if (job->on_settled != NULL) {
        job->on_settled(job);
    }
    if (request->http != NULL) {
        job->on_done(job);
    }
    request->pending--;
    api_request_release(request);
}

static void api_job_posted(struct api_job *job, enum err err)
{
    if (err == ERR_OK) {
        job->request->pending++;
    } else {
        api_reply_err(job->request, err, NULL);
    }
}

static enum err api_job_run(struct store_job *store, struct store_connection *connection)
{
    struct api_job *job = (struct api_job *)store; /* the first member */
    return job->query(job, connection);
}

void api_read_raw(struct api_job *job)
{
    job->store.run = api_job_run;
    job->store.on_done = api_job_done;
    api_job_posted(job, store_post_read(job->request->loop->api->options.store, &job->store));
}

bool api_job_post(struct api_job *job)
{
    if (store_post_read(job->request->loop->api->options.store, &job->store) != ERR_OK) {
        return false;
    }
    job->request->pending++;
    return true;
}

void api_write(struct api_job *job)
{
    job->store.priority = STORE_CONTROL;
    job->store.durable = true;
    job->store.run = api_job_run;
    job->store.on_done = api_job_done;
    api_job_posted(job, store_post_write(job->request->loop->api->options.store, &job->store));
}

/* --- GET ----------------------------------------------------------------------------------------
 */

/* On the reader's thread: the snapshot's version, the body, and its encoded form. */
static enum err api_read_run(struct store_job *store, struct store_connection *connection)
{
    struct api_job *job = (struct api_job *)store; /* the first member */
    enum err err = ERR_OK;
    buffer_clear(&job->body);
    buffer_clear(&job->encoded);
    if (job->is_versioned) {
        err = query_data_version(connection, job->org, &job->version);
        if (err != ERR_OK || job->version_only) {
            return err;
        }
    }
    err = job->query(job, connection);
    if (err != ERR_OK) {
        return err;
    }
    if (!job->is_versioned) {
        job->version = hash_xxh3(job->body.data, job->body.size, 0);
    }
    if (job->coding != HTTP_IDENTITY && job->body.size >= API_ENCODE_BYTES_MIN) {
        err = http_encode(job->coding, buffer_slice(&job->body), &job->encoded);
    }
    return err;
}

void api_job_tag(const struct api_job *job, char to[API_TAG_BYTES + 1])
{
    const struct api_request *request = job->request;
    uint64_t parts[] = {request->seed, job->org, job->version, (uint64_t)job->coding};
    uint64_t hash = hash_xxh3(parts, sizeof(parts), request->loop->api->build);
    (void)snprintf(to, API_TAG_BYTES + 1, "\"%016llx\"", (unsigned long long)hash);
}

static void api_read_post(struct api_job *job)
{
    job->store.run = api_read_run;
    job->store.repeats = true;
    job->store.on_done = api_job_done;
    api_job_posted(job, store_post_read(job->request->loop->api->options.store, &job->store));
}

bool api_job_is_known(const struct api_job *job, struct slice etag)
{
    struct api_request *request = job->request;
    if (!http_request_matches(request->http, etag)) {
        return false;
    }
    api_reply_headers(request);
    http_reply_not_modified(request->http, etag);
    return true;
}

static void api_read_reply(struct api_job *job)
{
    struct api_request *request = job->request;
    char tag[API_TAG_BYTES + 1];
    if (job->store.err != ERR_OK) {
        api_reply_err(request, job->store.err, NULL);
        return;
    }
    api_job_tag(job, tag);
    struct slice etag = slice_make(tag, API_TAG_BYTES);
    if (api_job_is_known(job, etag)) {
        return;
    }
    if (job->version_only) {
        job->version_only = false;
        api_read_post(job);
        return;
    }
    api_reply_headers(request);
    http_reply_header(request->http, "ETag", etag);
    if (job->encoded.size > 0) {
        http_reply_encoded(request->http, 200, "application/json", job->coding,
                           buffer_slice(&job->encoded));
    } else {
        http_reply_encoded(request->http, 200, "application/json", HTTP_IDENTITY,
                           buffer_slice(&job->body));
    }
}

void api_read(struct api_job *job)
{
    job->coding = http_request_coding(job->request->http);
    job->on_done = api_read_reply;
    api_read_post(job);
}

void api_read_versioned(struct api_job *job)
{
    struct http_request *http = job->request->http;
    job->is_versioned = true;
    job->version_only = http_request_header(http, "If-None-Match").data != NULL;
    api_read(job);
}
