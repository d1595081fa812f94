/* Fuzz: one message of a device, alone, and as what the applier reads from the frame. What is read
 * keeps the promises that the store relies on, and both readings are the same. */
#include "base/hash.h"
#include "format/format.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz_format_reading: %s\n", what);
        abort();
    }
}

static void check_readings(const struct record_reading *readings, uint32_t count)
{
    must(count > 0, "a message without a metric");
    for (uint32_t i = 0; i < count; i++) {
        const struct record_reading *one = &readings[i];
        must(one->parameter.size > 0 && one->parameter.size <= LIMIT_PARAMETER_KEY_BYTES,
             "the parameter's size");
        must(memchr(one->parameter.data, 0, one->parameter.size) == NULL, "it holds U+0000");
        must(one->quality >= -1 && one->quality <= 255, "the quality");
        must(!one->has_value || (one->value - one->value) * 0.0 == 0.0, "the value is no number");
        must(one->attributes.data == NULL ||
                 (one->attributes.size >= 2 && one->attributes.data[0] == '{' &&
                  one->attributes.data[one->attributes.size - 1] == '}'),
             "attributes are no object");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t id_key[32] = {1};
    static struct record_frame frame;
    struct record_event event;
    struct format_fault fault = {.code = NULL};
    struct format_context context;
    uint32_t count = 0;
    must(hash_start() == ERR_OK, "no hash");
    struct format_reader *first = format_reader_create();
    struct format_reader *second = format_reader_create();
    frame.form = RECORD_FORM_READING;
    frame.received_ms = 1700000000000;
    frame.body = slice_make(data, size);
    format_context_of_frame(&frame, id_key, &context);
    enum err err =
        format_event_read(first, RECORD_FORM_READING, frame.body, &context, &event, &fault);
    const struct record_reading *readings = format_readings(first, &count);
    must(err == ERR_OK || (fault.code != NULL && count == 0), "a refusal without a reason");
    if (err == ERR_OK) {
        struct format_item item;
        uint32_t again = 0;
        bool has = false;
        check_readings(readings, count);
        must(format_frame_begin(second, &frame, id_key) == ERR_OK, "the frame does not begin");
        must(format_frame_next(second, &item, &has) == ERR_OK && has && item.err == ERR_OK,
             "the applier refuses what was accepted");
        const struct record_reading *other = format_readings(second, &again);
        must(again == count && id_equal(item.event.id, event.id), "the applier reads another");
        for (uint32_t i = 0; i < count; i++) {
            must(slice_equal(other[i].parameter, readings[i].parameter) &&
                     other[i].has_value == readings[i].has_value &&
                     other[i].time_ms == readings[i].time_ms,
                 "a reading differs");
        }
    }
    format_reader_destroy(first);
    format_reader_destroy(second);
    return 0;
}
