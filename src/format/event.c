/* Format event: Weir's own form, {type, payload, dedup_id?, subject?, source?, app?, occurred_at?}.
 *
 * Members given as null are absent, except the payload, which may be any JSON value. Members beyond
 * these are kept in the attributes as they came. */
#include "format/reader.h"

enum format_event_field {
    EVENT_TYPE,
    EVENT_PAYLOAD,
    EVENT_DEDUP_ID,
    EVENT_SUBJECT,
    EVENT_SOURCE,
    EVENT_APP,
    EVENT_OCCURRED_AT,
    EVENT_FIELD_COUNT
};

static const struct format_field format_event_fields[EVENT_FIELD_COUNT] = {
    [EVENT_TYPE] = {FORMAT_NAME("type"), "/type"},
    [EVENT_PAYLOAD] = {FORMAT_NAME("payload"), "/payload"},
    [EVENT_DEDUP_ID] = {FORMAT_NAME("dedup_id"), "/dedup_id"},
    [EVENT_SUBJECT] = {FORMAT_NAME("subject"), "/subject"},
    [EVENT_SOURCE] = {FORMAT_NAME("source"), "/source"},
    [EVENT_APP] = {FORMAT_NAME("app"), "/app"},
    [EVENT_OCCURRED_AT] = {FORMAT_NAME("occurred_at"), "/occurred_at"},
};

static void format_event_member(struct format_reader *reader, size_t field,
                                const struct format_member *member)
{
    struct record_event *event = &reader->draft.event;
    const char *pointer = format_event_fields[field].pointer;
    switch ((enum format_event_field)field) {
    case EVENT_TYPE:
        format_take_type(reader, member, pointer);
        break;
    case EVENT_PAYLOAD:
        event->payload = member->raw;
        break;
    case EVENT_DEDUP_ID:
        format_take_text(reader, member, pointer, LIMIT_DEDUP_ID_BYTES, &event->dedup_id);
        break;
    case EVENT_SUBJECT:
        format_take_text(reader, member, pointer, LIMIT_SUBJECT_BYTES, &event->subject);
        break;
    case EVENT_SOURCE:
        format_take_text(reader, member, pointer, LIMIT_SOURCE_BYTES, &event->source);
        break;
    case EVENT_APP:
        format_take_text(reader, member, pointer, LIMIT_APP_BYTES, &event->app);
        break;
    case EVENT_OCCURRED_AT:
        format_take_time(reader, member, pointer);
        break;
    case EVENT_FIELD_COUNT:
        break;
    }
}

static void format_event_end(struct format_reader *reader)
{
    const struct record_event *event = &reader->draft.event;
    if (event->type.data == NULL) {
        format_reject(reader, "missing_field", "type is required", "/type", 0);
    }
    if (event->payload.data == NULL) {
        format_reject(reader, "missing_field", "payload is required", "/payload", 0);
    }
}

const struct format_shape format_shape_event = {
    .fields = format_event_fields,
    .field_count = EVENT_FIELD_COUNT,
    .on_member = format_event_member,
    .on_end = format_event_end,
};
