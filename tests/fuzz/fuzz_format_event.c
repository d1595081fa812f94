/* Fuzz: one event object in each single form and as an element. What is read keeps the promises
 * that the store relies on (bounds, no U+0000, a payload that is one JSON document, attributes that
 * are an object), and reading the frame again, as the applier does, gives the same event. */
#include "base/hash.h"
#include "format/format.h"
#include "json/json.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz_format_event: %s\n", what);
        abort();
    }
}

static void check_document(struct slice raw, bool is_object)
{
    static const struct json_options options = {.depth_max = LIMIT_JSON_DEPTH + 1,
                                                .string_bytes_max = 8 * LIMIT_EVENT_BYTES};
    struct json_reader *reader = json_reader_create(&options);
    struct json_token tokens[64];
    size_t count = 1;
    json_document_begin(reader, raw);
    while (count > 0) {
        must(json_document_next(reader, tokens, 64, &count) == ERR_OK, "a part is no document");
        must(!is_object || count == 0 || tokens[0].depth > 0 ||
                 tokens[0].kind == JSON_OBJECT_BEGIN || tokens[0].kind == JSON_OBJECT_END,
             "attributes are no object");
    }
    json_reader_destroy(reader);
}

static void check_text(struct slice text, size_t size_max)
{
    must(text.size <= size_max, "a text is too long");
    must(text.data == NULL || text.size > 0, "a text is empty");
    must(text.size == 0 || memchr(text.data, 0, text.size) == NULL, "a text holds U+0000");
}

static void check_event(const struct record_event *event)
{
    must(format_type_is_valid(event->type), "the type is not valid");
    check_text(event->dedup_id, LIMIT_DEDUP_ID_BYTES);
    check_text(event->subject, LIMIT_SUBJECT_BYTES);
    check_text(event->source, LIMIT_SOURCE_BYTES);
    check_text(event->app, LIMIT_APP_BYTES);
    check_document(event->payload, false);
    if (event->attributes.data != NULL) {
        check_document(event->attributes, true);
    }
}

static void check_same(const struct record_event *a, const struct record_event *b)
{
    must(id_equal(a->id, b->id) && slice_equal(a->type, b->type) &&
             slice_equal(a->payload, b->payload) && slice_equal(a->dedup_id, b->dedup_id) &&
             slice_equal(a->subject, b->subject) && slice_equal(a->attributes, b->attributes) &&
             a->occurred_ms == b->occurred_ms,
         "the applier reads another event");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t id_key[32] = {1};
    static const enum record_form forms[] = {RECORD_FORM_EVENT, RECORD_FORM_CLOUDEVENT,
                                             RECORD_FORM_SEGMENT_CALL, RECORD_FORM_SEGMENT_BATCH,
                                             RECORD_FORM_POSTHOG_BATCH};
    static struct record_frame frame;
    must(hash_start() == ERR_OK, "no hash");
    struct format_reader *first = format_reader_create();
    struct format_reader *second = format_reader_create();
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct record_event event;
        struct format_fault fault = {.code = NULL};
        struct format_item item;
        struct format_context context;
        bool has = false;
        frame.form = (uint8_t)forms[i];
        frame.received_ms = 1700000000000;
        frame.body = slice_make(data, size);
        frame.attributes[0].name = SLICE_LITERAL("call");
        frame.attributes[0].value = SLICE_LITERAL("track");
        frame.attribute_count = 1;
        format_context_of_frame(&frame, id_key, &context);
        enum err err = format_event_read(first, forms[i], frame.body, &context, &event, &fault);
        must(err == ERR_OK || fault.code != NULL, "a refusal without a reason");
        must(err == ERR_OK || fault.offset <= size, "a fault outside");
        if (err != ERR_OK) {
            continue;
        }
        check_event(&event);
        if (!format_form_is_batch(forms[i])) {
            must(format_frame_begin(second, &frame, id_key) == ERR_OK, "the frame does not begin");
            must(format_frame_next(second, &item, &has) == ERR_OK && has && item.err == ERR_OK,
                 "the applier refuses what was accepted");
            check_same(&event, &item.event);
        }
    }
    format_reader_destroy(first);
    format_reader_destroy(second);
    return 0;
}
