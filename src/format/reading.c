/* Format reading: a device's message: {device_id, metrics: [{parameter_key, value, quality,
 * attributes}], project_id?, site_id?, protocol?, source_timestamp?, event_id?, …}.
 *
 * Happy path: the members are read as those of an event; the metrics, an array within, are read by
 * a second reader into the message's readings. Members beyond these (config_version, metadata)
 * become the attributes of the message.
 *
 * A value is a number, true or false (1 and 0), or null: a device that had no value says so, and
 * its other metrics count all the same.
 *
 * Failure modes: a metric that is wrong refuses the message, with the metric's place. */
#include "format/reader.h"

#include <assert.h>
#include <stdio.h>

#include "base/mem.h"

#define READINGS_FIRST      16u
#define READING_POINTER_MAX 64u

enum format_reading_field {
    READING_DEVICE,
    READING_PROJECT,
    READING_SITE,
    READING_METRICS,
    READING_SOURCE,
    READING_TIME,
    READING_EVENT_ID,
    READING_FIELD_COUNT
};

static const struct format_field format_reading_fields[READING_FIELD_COUNT] = {
    [READING_DEVICE] = {FORMAT_NAME("device_id"), "/device_id"},
    [READING_PROJECT] = {FORMAT_NAME("project_id"), "/project_id"},
    [READING_SITE] = {FORMAT_NAME("site_id"), "/site_id"},
    [READING_METRICS] = {FORMAT_NAME("metrics"), "/metrics"},
    [READING_SOURCE] = {FORMAT_NAME("protocol"), "/protocol"},
    [READING_TIME] = {FORMAT_NAME("source_timestamp"), "/source_timestamp"},
    [READING_EVENT_ID] = {FORMAT_NAME("event_id"), "/event_id"},
};

static const struct slice format_protocols[] = {
    FORMAT_NAME("SMS"),
    FORMAT_NAME("GPRS"),
    FORMAT_NAME("HTTP"),
    FORMAT_NAME("MQTT"),
};

/* --- one metric ---------------------------------------------------------------------------- */

struct metric_walk {
    struct format_reader *reader;
    const struct format_member *metrics;
    struct format_member member; /* of the metric in hand */
    bool has_parameter;
    bool has_value;
    bool has_quality;
    bool has_attributes;
};

static void metric_reject(struct metric_walk *walk, const char *code, const char *message,
                          const char *name)
{
    char pointer[READING_POINTER_MAX];
    (void)snprintf(pointer, sizeof(pointer), "/metrics/%u%s",
                   walk->reader->message.count == 0 ? 0 : walk->reader->message.count - 1, name);
    format_reject(walk->reader, code, message, pointer, walk->member.offset);
}

static struct record_reading *metric_begin(struct metric_walk *walk)
{
    struct format_message *message = &walk->reader->message;
    if (message->count == message->capacity) {
        uint32_t capacity = message->capacity == 0 ? READINGS_FIRST : message->capacity * 2;
        struct record_reading *readings =
            mem_try_realloc(message->readings, capacity * sizeof(*readings));
        if (readings == NULL) {
            metric_reject(walk, "too_long", "there are too many metrics", "");
            return NULL;
        }
        message->readings = readings;
        message->capacity = capacity;
    }
    walk->has_parameter = false;
    walk->has_value = false;
    walk->has_quality = false;
    walk->has_attributes = false;
    struct record_reading *reading = &message->readings[message->count++];
    *reading = (struct record_reading){.quality = -1};
    return reading;
}

static bool metric_once(struct metric_walk *walk, bool *seen, const char *name)
{
    if (*seen) {
        metric_reject(walk, "duplicate_key", "stands in the object twice", name);
        return false;
    }
    *seen = true;
    return true;
}

static void metric_take_value(struct metric_walk *walk, struct record_reading *reading)
{
    const struct format_member *member = &walk->member;
    reading->has_value = true;
    if (member->kind == JSON_TRUE || member->kind == JSON_FALSE) {
        reading->value = member->kind == JSON_TRUE ? 1.0 : 0.0;
    } else if (member->kind == JSON_NULL) {
        reading->has_value = false;
    } else if (member->kind != JSON_NUMBER) {
        metric_reject(walk, "invalid_type", "must be a number, true, false or null", "/value");
    } else if (!json_to_double(member->text, &reading->value)) {
        metric_reject(walk, "invalid_value", "is out of the range of numbers", "/value");
    }
}

static void metric_take_quality(struct metric_walk *walk, struct record_reading *reading)
{
    int64_t quality = -1;
    if (walk->member.kind == JSON_NULL) {
        return;
    }
    if (walk->member.kind != JSON_NUMBER || !json_to_i64(walk->member.text, &quality) ||
        quality < 0 || quality > 255) {
        metric_reject(walk, "invalid_value", "must be a whole number from 0 to 255", "/quality");
        return;
    }
    reading->quality = (int16_t)quality;
}

/* Members that are not known say nothing about the value and are left in the message. */
static void metric_member(struct metric_walk *walk)
{
    struct format_message *message = &walk->reader->message;
    struct record_reading *reading = &message->readings[message->count - 1];
    const struct format_member *member = &walk->member;
    if (json_text_equal(member->key, member->key_escaped, SLICE_LITERAL("parameter_key"))) {
        char pointer[READING_POINTER_MAX];
        (void)snprintf(pointer, sizeof(pointer), "/metrics/%u/parameter_key", message->count - 1);
        if (metric_once(walk, &walk->has_parameter, "/parameter_key")) {
            format_take_text(walk->reader, member, pointer, LIMIT_PARAMETER_KEY_BYTES,
                             &reading->parameter);
        }
    } else if (json_text_equal(member->key, member->key_escaped, SLICE_LITERAL("value"))) {
        if (metric_once(walk, &walk->has_value, "/value")) {
            metric_take_value(walk, reading);
        }
    } else if (json_text_equal(member->key, member->key_escaped, SLICE_LITERAL("quality"))) {
        if (metric_once(walk, &walk->has_quality, "/quality")) {
            metric_take_quality(walk, reading);
        }
    } else if (json_text_equal(member->key, member->key_escaped, SLICE_LITERAL("attributes"))) {
        if (!metric_once(walk, &walk->has_attributes, "/attributes")) {
            return;
        }
        if (member->kind == JSON_OBJECT_BEGIN) {
            reading->attributes = member->raw;
        } else if (member->kind != JSON_NULL) {
            metric_reject(walk, "invalid_type", "must be an object", "/attributes");
        }
    }
}

static void metric_end(struct metric_walk *walk)
{
    const struct format_message *message = &walk->reader->message;
    if (message->readings[message->count - 1].parameter.data == NULL) {
        metric_reject(walk, "missing_field", "parameter_key is required", "/parameter_key");
    }
    if (!walk->has_value) {
        metric_reject(walk, "missing_field", "value is required", "/value");
    }
}

/* --- all of them --------------------------------------------------------------------------- */

/* A token of a metric's own members. */
static void metric_token(struct metric_walk *walk, const struct json_token *token)
{
    struct format_member *member = &walk->member;
    if (token->kind == JSON_KEY) {
        member->key = json_token_slice(token);
        member->key_escaped = token->escaped != 0;
        return;
    }
    if (token->kind == JSON_OBJECT_END || token->kind == JSON_ARRAY_END) {
        uint64_t from = member->offset - walk->metrics->offset;
        member->raw = slice_part(walk->metrics->raw, (size_t)from, (size_t)token->offset + 1);
        metric_member(walk);
        return;
    }
    member->kind = token->kind;
    member->text = json_token_slice(token);
    member->escaped = token->escaped != 0;
    member->offset = walk->metrics->offset + token->offset;
    if (token->kind != JSON_OBJECT_BEGIN && token->kind != JSON_ARRAY_BEGIN) {
        metric_member(walk);
    }
}

/* False: nothing more is to be read. */
static bool metrics_token(struct metric_walk *walk, const struct json_token *token)
{
    if (token->depth == 2) {
        metric_token(walk, token);
    } else if (token->depth == 1) {
        walk->member.offset = walk->metrics->offset + token->offset;
        if (token->kind == JSON_OBJECT_END) {
            metric_end(walk);
        } else if (metric_begin(walk) != NULL && token->kind != JSON_OBJECT_BEGIN) {
            metric_reject(walk, "invalid_type", "must be an object", "");
        }
    }
    return walk->reader->draft.err == ERR_OK;
}

static void format_take_metrics(struct format_reader *reader, const struct format_member *member)
{
    static const struct json_options options = {.depth_max = LIMIT_JSON_DEPTH,
                                                .string_bytes_max = LIMIT_EVENT_BYTES};
    struct metric_walk walk = {.reader = reader, .metrics = member};
    struct json_token tokens[FORMAT_TOKENS];
    size_t count = 0;
    bool goes_on = true;
    if (member->kind != JSON_ARRAY_BEGIN) {
        format_reject(reader, "invalid_type", "must be an array", "/metrics", member->offset);
        return;
    }
    if (reader->metrics == NULL) {
        reader->metrics = json_reader_create(&options);
    }
    json_document_begin(reader->metrics, member->raw);
    do {
        enum err err = json_document_next(reader->metrics, tokens, FORMAT_TOKENS, &count);
        assert(err == ERR_OK); /* the reader of the message has verified these bytes */
        (void)err;
        for (size_t i = 0; i < count && goes_on; i++) {
            goes_on = metrics_token(&walk, &tokens[i]);
        }
    } while (count > 0 && goes_on);
}

/* --- the message --------------------------------------------------------------------------- */

static void format_take_id(struct format_reader *reader, const struct format_member *member,
                           const char *pointer, struct id *ret)
{
    struct slice text = {NULL, 0};
    format_take_text(reader, member, pointer, LIMIT_SUBJECT_BYTES, &text);
    if (text.data != NULL && !id_parse(text, ret)) {
        format_reject(reader, "invalid_value", "must be a UUID", pointer, member->offset);
    }
}

static void format_take_protocol(struct format_reader *reader, const struct format_member *member,
                                 const char *pointer)
{
    struct slice text = {NULL, 0};
    format_take_text(reader, member, pointer, LIMIT_SOURCE_BYTES, &text);
    for (size_t i = 0; i < sizeof(format_protocols) / sizeof(format_protocols[0]); i++) {
        if (slice_equal_nocase(text, format_protocols[i])) {
            reader->draft.event.source = format_protocols[i];
        }
    }
    if (text.data != NULL && reader->draft.event.source.data == NULL) {
        format_reject(reader, "invalid_value", "must be SMS, GPRS, HTTP or MQTT", pointer,
                      member->offset);
    }
}

static void format_reading_member(struct format_reader *reader, size_t field,
                                  const struct format_member *member)
{
    struct format_message *message = &reader->message;
    const char *pointer = format_reading_fields[field].pointer;
    switch ((enum format_reading_field)field) {
    case READING_DEVICE:
        format_take_id(reader, member, pointer, &message->device);
        break;
    case READING_PROJECT:
        format_take_id(reader, member, pointer, &message->project);
        break;
    case READING_SITE:
        format_take_id(reader, member, pointer, &message->site);
        break;
    case READING_METRICS:
        format_take_metrics(reader, member);
        break;
    case READING_SOURCE:
        format_take_protocol(reader, member, pointer);
        break;
    case READING_TIME:
        format_take_time(reader, member, pointer);
        break;
    case READING_EVENT_ID:
        format_take_name(reader, member, pointer, LIMIT_DEDUP_ID_BYTES,
                         &reader->draft.event.dedup_id);
        break;
    case READING_FIELD_COUNT:
        break;
    }
}

/* The device as text, the same for every way of writing it. */
static void format_reading_subject(struct format_reader *reader)
{
    char text[ID_TEXT_BYTES];
    struct buffer *texts = format_texts(reader);
    if (texts == NULL) {
        return;
    }
    id_format(reader->message.device, text);
    size_t before = texts->size;
    enum err err = buffer_append(texts, text, sizeof(text));
    assert(err == ERR_OK); /* room was made for it */
    (void)err;
    reader->draft.event.subject = slice_make(texts->data + before, sizeof(text));
    const struct slice only = reader->context->device;
    if (only.data != NULL && !slice_equal(only, reader->draft.event.subject)) {
        format_reject(reader, "device_forbidden", "the key may write for its own device alone",
                      "/device_id", 0);
    }
}

static void format_reading_end(struct format_reader *reader)
{
    static const struct id none;
    struct format_message *message = &reader->message;
    struct record_event *event = &reader->draft.event;
    if (id_equal(message->device, none)) {
        format_reject(reader, "missing_field", "device_id is required", "/device_id", 0);
    }
    if (message->count == 0) {
        format_reject(reader, "missing_field", "metrics are required", "/metrics", 0);
    }
    reader->draft.is_reading = true;
    format_reading_subject(reader);
    event->type = SLICE_LITERAL("reading");
    event->payload = slice_trim(reader->walk.document);
    for (uint32_t i = 0; i < message->count; i++) {
        struct record_reading *reading = &message->readings[i];
        reading->device = message->device;
        reading->project = message->project;
        reading->site = message->site;
        reading->source = event->source;
        reading->event_id = event->dedup_id;
        reading->time_ms = event->occurred_ms;
        reading->received_ms = event->received_ms;
    }
}

const struct format_shape format_shape_reading = {
    .fields = format_reading_fields,
    .field_count = READING_FIELD_COUNT,
    .drops_null = true,
    .on_member = format_reading_member,
    .on_end = format_reading_end,
};

const struct record_reading *format_readings(const struct format_reader *reader,
                                             uint32_t *ret_count)
{
    bool is_read = reader->draft.err == ERR_OK && reader->draft.is_reading;
    *ret_count = is_read ? reader->message.count : 0;
    return reader->message.readings;
}
