/* Parameters: the query by name. Every value is folded into the request's seed in the order in
 * which the handler asks, with relative and absent ones in their resolved form; so two spellings of
 * one question have one tag, and two questions never share one but by a collision of 64 bits. */
#include "api/parameters.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/limits.h"
#include "format/format.h"

#include <assert.h>

void api_parameters_begin(struct api_parameters *parameters, struct api_request *request)
{
    struct slice path = http_request_path(request->http);
    *parameters = (struct api_parameters){.request = request};
    request->seed = hash_xxh3(path.data, path.size, request->loop->api->build);
}

static void api_parameter_fold(struct api_parameters *parameters, const void *value, size_t size)
{
    struct api_request *request = parameters->request;
    uint64_t parts[2] = {hash_xxh3(value, size, size), request->seed};
    request->seed = hash_xxh3(parts, sizeof(parts), 0);
}

void api_parameter_refuse(struct api_parameters *parameters, const char *name, const char *message)
{
    if (parameters->bad == NULL) {
        parameters->bad = name;
        parameters->message = message;
    }
}

struct slice api_parameter_text(struct api_parameters *parameters, const char *name)
{
    struct slice value = {NULL, 0};
    if (!http_request_query(parameters->request->http, name, &value) || value.size == 0) {
        value = (struct slice){NULL, 0};
    }
    api_parameter_fold(parameters, value.data, value.size);
    return value;
}

static void api_parameter_number(struct api_parameters *parameters, uint64_t value)
{
    api_parameter_fold(parameters, &value, sizeof(value));
}

/* A whole number, however long; what is above the maximum counts as just above it. */
static bool api_limit_read(struct slice text, uint64_t *ret)
{
    uint64_t limit = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        limit = limit > UINT32_MAX ? limit : limit * 10 + (uint64_t)(text.data[i] - '0');
    }
    *ret = limit;
    return limit != 0;
}

uint32_t api_parameter_limit(struct api_parameters *parameters)
{
    return api_parameter_limit_of(parameters, LIMIT_LIST_DEFAULT, LIMIT_LIST_MAX);
}

uint32_t api_parameter_limit_of(struct api_parameters *parameters, uint32_t absent, uint32_t max)
{
    struct slice text = {NULL, 0};
    uint64_t limit = absent;
    if (http_request_query(parameters->request->http, "limit", &text) &&
        !api_limit_read(text, &limit)) {
        api_parameter_refuse(parameters, "limit", "The limit has to be a number from 1 on.");
        limit = absent;
    }
    limit = limit > max ? max : limit;
    api_parameter_number(parameters, limit);
    return (uint32_t)limit;
}

int64_t api_parameter_time(struct api_parameters *parameters, const char *const *names,
                           int64_t absent)
{
    struct slice text = {NULL, 0};
    int64_t value = absent;
    for (size_t i = 0; names[i] != NULL; i++) {
        if (!http_request_query(parameters->request->http, names[i], &text) || text.size == 0) {
            continue;
        }
        if (!format_time_read(text, &value)) {
            api_parameter_refuse(parameters, names[i], "A time is RFC 3339 or epoch milliseconds.");
        }
        break;
    }
    api_parameter_number(parameters, (uint64_t)value);
    return value;
}

bool api_parameter_order(struct api_parameters *parameters, bool absent)
{
    struct slice text = {NULL, 0};
    bool oldest_first = absent;
    if (http_request_query(parameters->request->http, "order", &text) && text.size > 0) {
        oldest_first = slice_equal(text, SLICE_LITERAL("asc"));
        if (!oldest_first && !slice_equal(text, SLICE_LITERAL("desc"))) {
            api_parameter_refuse(parameters, "order", "The order is asc or desc.");
        }
    }
    api_parameter_number(parameters, oldest_first);
    return oldest_first;
}

void api_parameter_events(struct api_parameters *parameters, struct query_events *query)
{
    static const char *const starts[] = {"start", "since", "start_date", "from", NULL};
    static const char *const ends[] = {"end", "until", "end_date", "to", NULL};
    query->filter.type = api_parameter_text(parameters, "type");
    if (query->filter.type.data == NULL) {
        query->filter.type = api_parameter_text(parameters, "event_type");
    }
    query->filter.subject = api_parameter_text(parameters, "subject");
    query->filter.app = api_parameter_text(parameters, "app");
    query->start_ms = api_parameter_time(parameters, starts, INT64_MIN);
    query->end_ms = api_parameter_time(parameters, ends, INT64_MAX);
    struct slice status = api_parameter_text(parameters, "status");
    if (status.data != NULL && !query_status_parse(status, &query->status)) {
        api_parameter_refuse(parameters, "status",
                             "The status is pending, delivered, failed or acknowledged.");
    }
}

uint64_t api_parameter_cursor(struct api_parameters *parameters, enum query_list list)
{
    uint64_t place = 0;
    struct slice text = api_parameter_text(parameters, "cursor");
    if (text.data != NULL &&
        !query_cursor_parse(list, parameters->request->identity.org, text, &place)) {
        api_parameter_refuse(parameters, "cursor",
                             "The cursor is not one that this list gave with this order.");
    }
    return place;
}

bool api_parameters_end(const struct api_parameters *parameters)
{
    if (parameters->bad == NULL) {
        return true;
    }
    api_reply_bad_query(parameters->request, parameters->bad, parameters->message);
    return false;
}

void api_position_format(uint64_t position, char to[API_POSITION_BYTES])
{
    static_assert(API_POSITION_BYTES == 16, "a position is 64 bits");
    hex_put_u64(position, to);
}

bool api_position_parse(struct slice text, uint64_t *ret)
{
    uint64_t value = 0;
    if (text.size != API_POSITION_BYTES) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c >= '0' && c <= '9') {
            value = (value << 4) | (uint64_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            value = (value << 4) | (uint64_t)(c - 'a' + 10);
        } else {
            return false;
        }
    }
    *ret = value;
    return true;
}

/* Between the quotes of a structured field string (RFC 9651, 3.3.3): visible ASCII and space, with
 * backslash before a quote or a backslash. */
static bool api_idempotency_quoted(struct slice text, uint8_t *to, size_t *ret_size)
{
    size_t size = 0;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c == '\\') {
            c = ++i < text.size ? text.data[i] : 0;
            if (c != '"' && c != '\\') {
                return false;
            }
        } else if (c == '"') {
            return false;
        }
        if (c < 0x20 || c > 0x7e || size == API_IDEMPOTENCY_KEY_MAX) {
            return false;
        }
        to[size++] = c;
    }
    *ret_size = size;
    return size > 0;
}

bool api_idempotency_key(struct slice header, uint8_t to[API_IDEMPOTENCY_KEY_MAX],
                         struct slice *ret)
{
    struct slice text = slice_trim(header);
    size_t size = 0;
    if (header.data == NULL) {
        *ret = (struct slice){NULL, 0};
        return true;
    }
    if (text.size >= 2 && text.data[0] == '"' && text.data[text.size - 1] == '"') {
        if (!api_idempotency_quoted(slice_part(text, 1, text.size - 1), to, &size)) {
            return false;
        }
        *ret = slice_make(to, size);
        return true;
    }
    if (text.size == 0 || text.size > API_IDEMPOTENCY_KEY_MAX || text.data[0] == '"') {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < 0x21 || text.data[i] > 0x7e) {
            return false;
        }
    }
    *ret = text;
    return true;
}
