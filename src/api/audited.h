/* Audited: a job whose deed is written into the audit in its own transaction.
 *
 * Thread: create: the request's loop; insert: inside the job.
 * Memory: freed with its request.
 * Errors: the job's. */
#pragma once
#include "api/job.h"

struct api_audited {
    struct api_job job;  /* first */
    uint64_t actor;      /* number of the key that asks */
    size_t address_size; /* of who asks */
    uint8_t address[GATE_ADDRESS_BYTES_MAX];
};
/* `size` of a struct that begins with an api_audited; zeroed. */
void *api_audited_create(struct api_request *request, size_t size);
MUST_CHECK enum err api_audited_insert(const struct api_audited *audited,
                                       struct store_connection *connection, const char *action,
                                       struct slice target);
