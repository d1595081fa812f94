/* Events: POST of one event or many. The form is read from the head (content type, ce- headers);
 * for application/json intake decides by the first byte between an event and an array. */
#include "api/handlers.h"
#include "api/records.h"
#include "api/reply.h"
#include "base/limits.h"

#include <assert.h>

static bool api_add_attribute(struct record_attribute *attributes, uint32_t *count,
                              struct slice name, struct slice value)
{
    if (*count == RECORD_ATTRIBUTES_MAX) {
        return false;
    }
    attributes[(*count)++] = (struct record_attribute){.name = name, .value = value};
    return true;
}

/* ce- headers by their names in lower case, and the content type of their data. */
static bool api_ce_attributes(struct http_request *http, struct record_attribute *attributes,
                              uint32_t *count)
{
    struct slice name = {NULL, 0};
    struct slice value = {NULL, 0};
    uint32_t header_count = http_request_header_count(http);
    for (uint32_t n = 0; n < header_count; n++) {
        http_request_header_at(http, n, &name, &value);
        if (name.size <= 3 || !slice_equal_nocase(slice_part(name, 0, 3), SLICE_LITERAL("ce-"))) {
            continue;
        }
        uint8_t *lower = mem_arena_try_alloc(http_request_arena(http), name.size);
        if (lower == NULL) {
            return false;
        }
        for (size_t i = 0; i < name.size; i++) {
            uint8_t c = name.data[i];
            lower[i] = c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
        }
        if (!api_add_attribute(attributes, count, slice_make(lower, name.size), value)) {
            return false;
        }
    }
    value = http_request_header(http, "Content-Type");
    return value.data == NULL ||
           api_add_attribute(attributes, count, SLICE_LITERAL("content-type"), value);
}

void api_events_post(struct api_request *request)
{
    struct http_request *http = request->http;
    struct record_attribute attributes[RECORD_ATTRIBUTES_MAX];
    struct api_records records = {.answer = API_ANSWER_WEIR};
    bool has_ce = http_request_header(http, "ce-specversion").data != NULL;
    enum err err =
        format_body_form(http_request_header(http, "Content-Type"), has_ce, '{', &records.form);
    if (!api_records_prepare(request, &records, attributes, err,
                             "Events come as application/json, application/x-ndjson, text/plain "
                             "that is JSON, or CloudEvents.")) {
        return;
    }
    if (records.form == RECORD_FORM_CLOUDEVENT_BINARY &&
        !api_ce_attributes(http, attributes, &records.attribute_count)) {
        api_reply_err(request, ERR_INVALID, "There are too many ce- headers.");
        return;
    }
    (void)api_records_begin(request, &records);
}
