/* Document: a small JSON body, read once into tokens and looked at by member.
 *
 * Thread: the request's loop.
 * Memory: tokens and texts stand in the request's arena and body, until its reply is complete.
 * Errors: api_document_read answers what is malformed; the rest gives false. */
#pragma once
#include "api/context.h"
#include "json/json.h"

struct api_document {
    struct api_request *request;
    const struct json_token *tokens;
    size_t count; /* 0: an empty body, which counts as {} */
};
/* The whole body as one object, no key twice. False: answered. */
MUST_CHECK bool api_document_read(struct api_request *request, struct api_document *ret);

/* A value: its place among the tokens. */
#define API_NO_VALUE SIZE_MAX
/* Of an object: the value of a member; API_NO_VALUE: absent or null. `object` 0 is the body. */
size_t api_document_member(const struct api_document *document, size_t object, const char *name);
/* Whether the body has a member that is not one of these. */
bool api_document_unknown(const struct api_document *document, const char *const *known,
                          size_t count);
/* The place after a value: the next element of an array, or its end. */
size_t api_document_after(const struct api_document *document, size_t value);
enum json_kind api_document_kind(const struct api_document *document, size_t value);
/* False when the value is not of the kind, or out of range. */
MUST_CHECK bool api_document_text(const struct api_document *document, size_t value,
                                  struct slice *ret);
MUST_CHECK bool api_document_u32(const struct api_document *document, size_t value, uint32_t *ret);
/* RFC 3339, or epoch milliseconds. */
MUST_CHECK bool api_document_time(const struct api_document *document, size_t value, int64_t *ret);
