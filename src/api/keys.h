/* Keys: what making a key and signing up have in common.
 *
 * Thread: the request's loop, but what takes a connection: the job's.
 * Memory: the new key's text is wiped with the job.
 * Errors: the job's. */
#pragma once
#include "api/audited.h"
#include "json/json.h"

#define API_KEY_NAME_MAX 100u

struct api_key_job {
    struct api_audited audited; /* first */
    struct gate_key_options options;
    struct gate_new_key key;
    struct slice target; /* id of the key that dies */
    uint64_t number;
    uint64_t old_number;
    struct id org_id; /* sign-up */
};
struct api_key_job *api_key_job_create(struct api_request *request);
/* A reader's job: the key's text and hash. */
enum err api_key_prepare(struct api_job *job, struct store_connection *connection);
/* The members of a key's row that every answer shows. */
void api_key_write(struct json_writer *writer, const struct gate_key_row *row);
/* The new key with its text; `org` NULL: not shown. */
void api_key_reply(struct api_key_job *made, int status, const struct id *org);
