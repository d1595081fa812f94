/* Document: tokens of a small body. The reader has verified it whole, so walking needs no checks
 * but kinds; a member given twice is refused, because nobody can say which one was meant. */
#include "api/document.h"

#include "api/reply.h"
#include "base/mem.h"
#include "format/format.h"

#include <assert.h>

static void api_document_malformed(struct api_request *request, enum err err)
{
    struct json_fault fault = json_reader_fault(request->loop->json);
    const struct api_problem_row *row = api_problem_of(err);
    struct http_problem problem = {.status = row->status,
                                   .code = row->code,
                                   .detail = fault.message != NULL ? fault.message : row->detail,
                                   .offset = (int64_t)fault.offset};
    api_reply_problem(request, &problem, 0);
}

size_t api_document_after(const struct api_document *document, size_t value)
{
    const struct json_token *token = &document->tokens[value];
    if (token->kind != JSON_OBJECT_BEGIN && token->kind != JSON_ARRAY_BEGIN) {
        return value + 1;
    }
    uint16_t depth = token->depth;
    size_t i = value + 1;
    while (document->tokens[i].depth != depth) {
        i++;
    }
    return i + 1;
}

/* Key after key of one object: compares each with those after it. Small: bodies are at most 64 KiB
 * and objects of ours have few members; above 64 of them it is no document of ours. */
static bool api_document_is_plain(const struct api_document *document)
{
    size_t keys[64];
    size_t count = 0;
    for (size_t i = 1; document->tokens[i].kind == JSON_KEY;
         i = api_document_after(document, i + 1)) {
        for (size_t n = 0; n < count; n++) {
            if (slice_equal(json_token_slice(&document->tokens[keys[n]]),
                            json_token_slice(&document->tokens[i]))) {
                return false;
            }
        }
        if (count == sizeof(keys) / sizeof(keys[0])) {
            return false;
        }
        keys[count++] = i;
    }
    return true;
}

bool api_document_read(struct api_request *request, struct api_document *ret)
{
    struct json_reader *reader = request->loop->json;
    size_t token_max = request->body.size + 1;
    size_t count = 0;
    size_t got = 0;
    *ret = (struct api_document){.request = request};
    if (request->body.size == 0) {
        return true;
    }
    /* At least two bytes a token, but for the first and the last. */
    token_max = token_max / 2 + 2;
    struct json_token *tokens =
        mem_arena_try_alloc(http_request_arena(request->http), token_max * sizeof(*tokens));
    if (tokens == NULL) {
        api_reply_err(request, ERR_NO_MEMORY, NULL);
        return false;
    }
    json_document_begin(reader, buffer_slice(&request->body));
    enum err err = ERR_OK;
    do {
        err = json_document_next(reader, tokens + count, token_max - count, &got);
        count += got;
    } while (err == ERR_OK && got > 0 && count < token_max);
    if (err != ERR_OK || count == 0) {
        api_document_malformed(request, err != ERR_OK ? err : ERR_SYNTAX);
        return false;
    }
    ret->tokens = tokens;
    ret->count = count;
    if (tokens[0].kind != JSON_OBJECT_BEGIN || !api_document_is_plain(ret)) {
        api_reply_bad_member(request, "", "The body has to be an object with each member once.");
        return false;
    }
    return true;
}

size_t api_document_member(const struct api_document *document, size_t object, const char *name)
{
    if (document->count == 0 || document->tokens[object].kind != JSON_OBJECT_BEGIN) {
        return API_NO_VALUE;
    }
    for (size_t i = object + 1; document->tokens[i].kind == JSON_KEY;
         i = api_document_after(document, i + 1)) {
        const struct json_token *key = &document->tokens[i];
        if (json_text_equal(json_token_slice(key), key->escaped != 0, slice_from_text(name))) {
            return document->tokens[i + 1].kind == JSON_NULL ? API_NO_VALUE : i + 1;
        }
    }
    return API_NO_VALUE;
}

static bool api_document_is_known(const struct json_token *key, const char *const *known,
                                  size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (json_text_equal(json_token_slice(key), key->escaped != 0, slice_from_text(known[i]))) {
            return true;
        }
    }
    return false;
}

bool api_document_unknown(const struct api_document *document, const char *const *known,
                          size_t count)
{
    if (document->count == 0) {
        return false;
    }
    for (size_t i = 1; document->tokens[i].kind == JSON_KEY;
         i = api_document_after(document, i + 1)) {
        if (!api_document_is_known(&document->tokens[i], known, count)) {
            return true;
        }
    }
    return false;
}

enum json_kind api_document_kind(const struct api_document *document, size_t value)
{
    assert(value < document->count);
    return document->tokens[value].kind;
}

bool api_document_text(const struct api_document *document, size_t value, struct slice *ret)
{
    const struct json_token *token = &document->tokens[value];
    if (token->kind != JSON_STRING) {
        return false;
    }
    if (token->escaped == 0) {
        *ret = json_token_slice(token);
        return true;
    }
    struct buffer plain;
    buffer_init(&plain, API_JSON_BODY_BYTES_MAX);
    uint8_t *to = NULL;
    if (json_unescape(json_token_slice(token), &plain) == ERR_OK) {
        to = mem_arena_try_alloc(http_request_arena(document->request->http), plain.size + 1);
    }
    if (to != NULL) {
        memcpy(to, plain.data, plain.size);
        *ret = slice_make(to, plain.size);
    }
    buffer_finish(&plain);
    return to != NULL;
}

bool api_document_u32(const struct api_document *document, size_t value, uint32_t *ret)
{
    const struct json_token *token = &document->tokens[value];
    int64_t number = 0;
    if (token->kind != JSON_NUMBER || !json_to_i64(json_token_slice(token), &number) ||
        number < 0 || number > UINT32_MAX) {
        return false;
    }
    *ret = (uint32_t)number;
    return true;
}

bool api_document_time(const struct api_document *document, size_t value, int64_t *ret)
{
    const struct json_token *token = &document->tokens[value];
    if (token->kind == JSON_NUMBER) {
        return json_to_i64(json_token_slice(token), ret);
    }
    return token->kind == JSON_STRING && format_time_read(json_token_slice(token), ret);
}
