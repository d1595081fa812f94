/* Errors for clients: application/problem+json (RFC 9457) with our extensions `code`, `request_id`,
 * `offset`, `errors` and `error_totals`.
 *
 * `type` is about:blank, so `title` is the phrase of the status, save for the types that the IANA
 * registry of problem types has for 429 and 503.
 *
 * Happy path: one buffer is filled and becomes the body of the reply.
 * Failure modes: text longer than the buffer's limit: the body is cut to the members that fit,
 * which are `type`, `title`, `status`, `code` and `request_id`. */
#include <assert.h>

#include "http/connection.h"

#define PROBLEM_BYTES_MAX (256u << 10)
#define TOTALS_MAX        32u

/* Appends and remembers the first error, so that only the end has to look. */
struct writer {
    struct buffer buffer;
    enum err err;
};

static void put(struct writer *writer, struct slice text)
{
    if (writer->err == ERR_OK) {
        writer->err = buffer_append_slice(&writer->buffer, text);
    }
}

static void put_text(struct writer *writer, const char *text)
{
    put(writer, slice_from_text(text));
}

static void put_number(struct writer *writer, int64_t number)
{
    if (writer->err == ERR_OK) {
        writer->err = buffer_append_i64(&writer->buffer, number);
    }
}

/* A JSON string. Bytes that are no ASCII are written as U+FFFD: they may not be UTF-8. */
static void put_string(struct writer *writer, struct slice text)
{
    static const char digits[] = "0123456789abcdef";
    put_text(writer, "\"");
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        char escape[7] = {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15], 0};
        if (c == '"' || c == '\\') {
            char pair[3] = {'\\', (char)c, 0};
            put_text(writer, pair);
        } else if (c < 0x20) {
            put_text(writer, escape);
        } else if (c >= 0x7f) {
            put_text(writer, "\\ufffd");
        } else {
            put(writer, slice_make(&text.data[i], 1));
        }
    }
    put_text(writer, "\"");
}

/* `,"name":` and the string. */
static void put_member(struct writer *writer, const char *name, struct slice value)
{
    put_text(writer, ",\"");
    put_text(writer, name);
    put_text(writer, "\":");
    put_string(writer, value);
}

static const char *type_of(int status)
{
    if (status == 429) {
        return "https://iana.org/assignments/http-problem-types#quota-exceeded";
    }
    if (status == 503) {
        return "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
    }
    return "about:blank";
}

static void put_basics(struct writer *writer, const struct http_request *request, int status,
                       const char *code)
{
    put_text(writer, "{\"type\":");
    put_string(writer, slice_from_text(type_of(status)));
    put_member(writer, "title", slice_from_text(http_status_text(status)));
    put_text(writer, ",\"status\":");
    put_number(writer, status);
    put_member(writer, "code", slice_from_text(code));
    put_member(writer, "request_id", http_request_id(request));
}

static void put_item(struct writer *writer, const struct http_problem_item *item)
{
    put_text(writer, "{\"code\":");
    put_string(writer, slice_from_text(item->code));
    put_member(writer, "message", slice_from_text(item->message));
    if (item->pointer.data != NULL) {
        put_member(writer, "pointer", item->pointer);
    }
    if (item->offset >= 0) {
        put_text(writer, ",\"offset\":");
        put_number(writer, item->offset);
    }
    put_text(writer, "}");
}

struct total {
    const char *code;
    uint32_t count;
};

/* Codes are few; what does not fit is counted as "other". */
static uint32_t count_codes(const struct http_problem *problem, struct total *totals)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < problem->item_count; i++) {
        const char *code = problem->items[i].code;
        uint32_t at = 0;
        while (at < count && strcmp(totals[at].code, code) != 0) {
            at++;
        }
        if (at == count && count == TOTALS_MAX) {
            at = TOTALS_MAX - 1;
            totals[at].code = "other";
        } else if (at == count) {
            totals[at] = (struct total){code, 0};
            count++;
        }
        totals[at].count++;
    }
    return count;
}

static void put_items(struct writer *writer, const struct http_problem *problem)
{
    struct total totals[TOTALS_MAX];
    uint32_t shown =
        problem->item_count < LIMIT_PROBLEM_ERRORS ? problem->item_count : LIMIT_PROBLEM_ERRORS;
    put_text(writer, ",\"errors\":[");
    for (uint32_t i = 0; i < shown; i++) {
        put_text(writer, i == 0 ? "" : ",");
        put_item(writer, &problem->items[i]);
    }
    put_text(writer, "],\"error_totals\":{");
    uint32_t count = count_codes(problem, totals);
    for (uint32_t i = 0; i < count; i++) {
        put_text(writer, i == 0 ? "" : ",");
        put_string(writer, slice_from_text(totals[i].code));
        put_text(writer, ":");
        put_number(writer, totals[i].count);
    }
    put_text(writer, "}");
}

/* The path that was asked for; when the request line could not be read, a reference that names this
 * occurrence alone. */
static void put_instance(struct writer *writer, const struct http_request *request)
{
    if (request->head.target_size > 0) {
        put_member(writer, "instance", http_request_path(request));
        return;
    }
    put_text(writer, ",\"instance\":\"#");
    put(writer, request->id);
    put_text(writer, "\"");
}

static void put_problem(struct writer *writer, const struct http_request *request,
                        const struct http_problem *problem)
{
    put_basics(writer, request, problem->status, problem->code);
    put_instance(writer, request);
    if (problem->detail != NULL) {
        put_member(writer, "detail", slice_from_text(problem->detail));
    }
    if (problem->offset >= 0) {
        put_text(writer, ",\"offset\":");
        put_number(writer, problem->offset);
    }
    if (problem->item_count > 0) {
        put_items(writer, problem);
    }
    if (problem->extra.size > 0) {
        put_text(writer, ",");
        put(writer, problem->extra);
    }
    put_text(writer, "}");
}

void http_reply_problem(struct http_request *request, const struct http_problem *problem)
{
    struct writer writer = {.err = ERR_OK};
    if (!http_request_is_open(request)) {
        return;
    }
    buffer_init(&writer.buffer, PROBLEM_BYTES_MAX);
    put_problem(&writer, request, problem);
    if (writer.err != ERR_OK) {
        buffer_clear(&writer.buffer);
        writer.err = ERR_OK;
        put_basics(&writer, request, problem->status, problem->code);
        put_text(&writer, "}");
    }
    http_reply(request, problem->status, "application/problem+json", buffer_slice(&writer.buffer));
    buffer_finish(&writer.buffer);
}

void http_reply_error(struct http_request *request, int status, const char *code,
                      const char *detail)
{
    const struct http_problem problem = {
        .status = status, .code = code, .detail = detail, .offset = -1};
    http_reply_problem(request, &problem);
}
