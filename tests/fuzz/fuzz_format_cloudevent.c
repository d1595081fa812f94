/* Fuzz: a binary CloudEvent. The input is lines "name: value" up to an empty line, then the data.
 * What is read is one JSON document with attributes that are an object, the same when read again
 * from the frame's encoded bytes, as the applier does. */
#include "base/hash.h"
#include "format/format.h"
#include "json/json.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz_format_cloudevent: %s\n", what);
        abort();
    }
}

static void check_document(struct slice raw)
{
    static const struct json_options options = {.depth_max = LIMIT_JSON_DEPTH + 1,
                                                .string_bytes_max = 8 * LIMIT_EVENT_BYTES};
    struct json_reader *reader = json_reader_create(&options);
    struct json_token tokens[64];
    size_t count = 1;
    json_document_begin(reader, raw);
    while (count > 0) {
        must(json_document_next(reader, tokens, 64, &count) == ERR_OK, "a part is no document");
    }
    json_reader_destroy(reader);
}

static void split(struct slice input, struct record_frame *frame)
{
    frame->attribute_count = 0;
    while (input.size > 0) {
        struct slice rest;
        struct slice value;
        struct slice line = slice_cut(input, '\n', &rest);
        input = rest;
        if (line.size == 0) {
            break;
        }
        struct slice name = slice_cut(line, ':', &value);
        if (frame->attribute_count < RECORD_ATTRIBUTES_MAX && name.size > 0) {
            frame->attributes[frame->attribute_count].name = name;
            frame->attributes[frame->attribute_count].value = slice_trim(value);
            frame->attribute_count++;
        }
    }
    frame->body = input;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t id_key[32] = {1};
    static struct record_frame frame;
    static struct record_frame again;
    struct format_context context;
    struct record_event event;
    struct format_fault fault = {.code = NULL};
    struct format_item item;
    struct buffer bytes;
    bool has = false;
    must(hash_start() == ERR_OK, "no hash");
    frame.form = RECORD_FORM_CLOUDEVENT_BINARY;
    frame.received_ms = 1700000000000;
    split(slice_make(data, size), &frame);
    struct format_reader *first = format_reader_create();
    struct format_reader *second = format_reader_create();
    buffer_init(&bytes, 2 * LIMIT_FRAME_BYTES);
    format_context_of_frame(&frame, id_key, &context);
    enum err err = format_cloudevent_binary_read(first, &frame, &context, &event, &fault);
    must(err == ERR_OK || fault.code != NULL, "a refusal without a reason");
    if (err == ERR_OK) {
        check_document(event.payload);
        if (event.attributes.data != NULL) {
            check_document(event.attributes);
        }
        if (record_frame_encode_head(&frame, &bytes) == ERR_OK) {
            must(buffer_append_slice(&bytes, frame.body) == ERR_OK, "no memory");
            must(record_frame_decode(buffer_slice(&bytes), &again) == ERR_OK, "frame is lost");
            must(format_frame_begin(second, &again, id_key) == ERR_OK, "frame does not begin");
            must(format_frame_next(second, &item, &has) == ERR_OK && has && item.err == ERR_OK,
                 "the applier refuses what was accepted");
            must(id_equal(item.event.id, event.id) && slice_equal(item.event.type, event.type) &&
                     slice_equal(item.event.payload, event.payload) &&
                     slice_equal(item.event.attributes, event.attributes),
                 "the applier reads another event");
        }
    }
    buffer_finish(&bytes);
    format_reader_destroy(first);
    format_reader_destroy(second);
    return 0;
}
