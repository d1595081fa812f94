/* Job: one question to the store, from a request and back to it.
 *
 * Thread: create, post and on_done: the request's loop. query: a reader's or the writer's; of what
 *         is outside the job it touches only what any thread may.
 * Memory: freed with its request. Inputs are copied into the job.
 * Errors: what query returns comes to on_done in store.err. */
#pragma once
#include "api/context.h"

struct api_job_text {
    struct api_job_text *next;
    uint8_t bytes[];
};

struct api_job {
    struct store_job store; /* first: the store gives back its address */
    struct api_request *request;
    /* Fills `body`, or the job's own members. */
    enum err (*query)(struct api_job *job, struct store_connection *connection);
    /* May be NULL. The result is in store.err; runs before on_done, and also when nobody is there
     * any more to be told: for what must follow a commit. */
    void (*on_settled)(struct api_job *job);
    /* The result is in store.err; the request is open. */
    void (*on_done)(struct api_job *job);
    void (*on_destroy)(struct api_job *job); /* may be NULL: frees the job's own members */
    struct buffer body;                      /* JSON */
    struct buffer encoded; /* body, encoded by `coding`; empty: body is sent as it is */
    enum http_coding coding;
    uint64_t org;
    uint64_t version; /* of the org's data, in the answer's snapshot */
    bool is_versioned;
    bool version_only;          /* If-None-Match may match: the query is not run yet */
    struct api_job_text *texts; /* copies of parameters */
};

/* `size` of a struct that begins with an api_job; zeroed. */
void *api_job_create(struct api_request *request, size_t size);
/* NULL is fine. */
void api_job_destroy(struct api_job *job);
/* Copies a slice into the job; data NULL stays so. */
struct slice api_job_copy(struct api_job *job, struct slice text);

/* A GET: query fills the body, which is encoded on the reader's thread and sent with a strong tag.
 * The query may be called again, with the body emptied, when the server went meanwhile.
 * api_read_versioned: the tag is made from the org's data version, so If-None-Match is answered
 * without running the query. api_read: from the answer's bytes, for what has no version. */
void api_read_versioned(struct api_job *job);
void api_read(struct api_job *job);
/* A read whose on_done does the rest. */
void api_read_raw(struct api_job *job);
/* Posts a job whose request was answered in part: once more, as api_read_raw did. False: the
 * readers' queue is full, and nothing was answered. */
MUST_CHECK bool api_job_post(struct api_job *job);
/* The tag of its answer: quoted, no NUL needed after API_TAG_BYTES. */
#define API_TAG_BYTES 18
void api_job_tag(const struct api_job *job, char to[API_TAG_BYTES + 1]);
/* True: the client has the answer with this tag already, and was told so (304). */
MUST_CHECK bool api_job_is_known(const struct api_job *job, struct slice etag);
/* A durable write; on_done does the rest. */
void api_write(struct api_job *job);
