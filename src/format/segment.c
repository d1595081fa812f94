/* Format Segment: what clients of Segment and RudderStack send, one call at a time.
 *
 * The type is the call, and for track, page and screen the name after a '.', with '_' for each
 * character that a type may not hold: "track.Order_Completed". messageId is the dedup_id, userId
 * else anonymousId the subject, and the payload the properties (of identify and group: the traits).
 * Everything else, the original name with it, is kept in the attributes; a writeKey is not: it is
 * the secret of who sent the call.
 *
 * A timestamp that cannot be read leaves the time of arrival: these clients cannot be told. */
#include "format/reader.h"

enum format_segment_field {
    SEGMENT_TYPE,
    SEGMENT_EVENT,
    SEGMENT_NAME,
    SEGMENT_USER_ID,
    SEGMENT_ANONYMOUS_ID,
    SEGMENT_MESSAGE_ID,
    SEGMENT_TIMESTAMP,
    SEGMENT_PROPERTIES,
    SEGMENT_TRAITS,
    SEGMENT_WRITE_KEY,
    SEGMENT_FIELD_COUNT
};

static const struct format_field format_segment_fields[SEGMENT_FIELD_COUNT] = {
    [SEGMENT_TYPE] = {FORMAT_NAME("type"), "/type"},
    [SEGMENT_EVENT] = {FORMAT_NAME("event"), "/event"},
    [SEGMENT_NAME] = {FORMAT_NAME("name"), "/name"},
    [SEGMENT_USER_ID] = {FORMAT_NAME("userId"), "/userId"},
    [SEGMENT_ANONYMOUS_ID] = {FORMAT_NAME("anonymousId"), "/anonymousId"},
    [SEGMENT_MESSAGE_ID] = {FORMAT_NAME("messageId"), "/messageId"},
    [SEGMENT_TIMESTAMP] = {FORMAT_NAME("timestamp"), "/timestamp"},
    [SEGMENT_PROPERTIES] = {FORMAT_NAME("properties"), "/properties"},
    [SEGMENT_TRAITS] = {FORMAT_NAME("traits"), "/traits"},
    [SEGMENT_WRITE_KEY] = {FORMAT_NAME("writeKey"), "/writeKey"},
};

/* A text that is also kept as it came. */
static void format_segment_keep(struct format_reader *reader, const struct format_member *member,
                                const char *pointer, size_t size_max, struct slice *ret)
{
    bool is_empty = member->kind == JSON_STRING && member->text.size == 0;
    if (member->kind == JSON_NULL || is_empty) {
        return;
    }
    format_take_name(reader, member, pointer, size_max, ret);
    format_keep_member(reader, member);
}

static void format_segment_member(struct format_reader *reader, size_t field,
                                  const struct format_member *member)
{
    struct format_draft *draft = &reader->draft;
    const char *pointer = format_segment_fields[field].pointer;
    switch ((enum format_segment_field)field) {
    case SEGMENT_TYPE:
        format_segment_keep(reader, member, pointer, LIMIT_TYPE_BYTES, &draft->call);
        break;
    case SEGMENT_EVENT:
        format_segment_keep(reader, member, pointer, LIMIT_EVENT_BYTES, &draft->name);
        break;
    case SEGMENT_NAME:
        format_segment_keep(reader, member, pointer, LIMIT_EVENT_BYTES, &draft->page_name);
        break;
    case SEGMENT_USER_ID:
        format_segment_keep(reader, member, pointer, LIMIT_SUBJECT_BYTES, &draft->event.subject);
        break;
    case SEGMENT_ANONYMOUS_ID:
        format_segment_keep(reader, member, pointer, LIMIT_SUBJECT_BYTES, &draft->anonymous_id);
        break;
    case SEGMENT_MESSAGE_ID:
        format_take_name(reader, member, pointer, LIMIT_DEDUP_ID_BYTES, &draft->event.dedup_id);
        break;
    case SEGMENT_TIMESTAMP:
        format_try_time(reader, member);
        break;
    case SEGMENT_PROPERTIES:
        draft->properties = member->raw;
        break;
    case SEGMENT_TRAITS:
        draft->traits = member->raw;
        break;
    case SEGMENT_WRITE_KEY:
    case SEGMENT_FIELD_COUNT:
        break;
    }
}

/* How a call is named and which member is its payload. */
struct format_segment_call {
    struct slice name;
    struct slice prefix; /* of the type when a name follows */
    bool is_named_by_event;
    bool is_named_by_name;
    bool has_traits;
};

static const struct format_segment_call format_segment_calls[] = {
    {FORMAT_NAME("track"), FORMAT_NAME("track."), true, false, false},
    {FORMAT_NAME("identify"), FORMAT_NAME("identify"), false, false, true},
    {FORMAT_NAME("page"), FORMAT_NAME("page."), false, true, false},
    {FORMAT_NAME("screen"), FORMAT_NAME("screen."), false, true, false},
    {FORMAT_NAME("group"), FORMAT_NAME("group"), false, false, true},
    {FORMAT_NAME("alias"), FORMAT_NAME("alias"), false, false, false},
};

static const struct format_segment_call *format_segment_call_find(struct slice name)
{
    for (size_t i = 0; i < sizeof(format_segment_calls) / sizeof(format_segment_calls[0]); i++) {
        if (slice_equal(name, format_segment_calls[i].name)) {
            return &format_segment_calls[i];
        }
    }
    return NULL;
}

static void format_segment_payload(struct format_reader *reader,
                                   const struct format_segment_call *call)
{
    struct format_draft *draft = &reader->draft;
    struct slice payload = call->has_traits ? draft->traits : draft->properties;
    struct slice other = call->has_traits ? draft->properties : draft->traits;
    draft->event.payload = payload.data != NULL ? payload : SLICE_LITERAL("{}");
    if (other.data != NULL) {
        format_keep_raw(reader,
                        call->has_traits ? SLICE_LITERAL("properties") : SLICE_LITERAL("traits"),
                        other);
    }
}

static void format_segment_end(struct format_reader *reader)
{
    struct format_draft *draft = &reader->draft;
    const struct format_segment_call *call = format_segment_call_find(
        reader->context->call.size != 0 && draft->is_single ? reader->context->call : draft->call);
    if (call == NULL) {
        format_reject(reader, draft->call.data == NULL ? "missing_field" : "invalid_value",
                      "type must be track, identify, page, screen, group or alias", "/type", 0);
        return;
    }
    if (call->is_named_by_event && draft->name.data == NULL) {
        format_reject(reader, "missing_field", "event is required", "/event", 0);
        return;
    }
    if (draft->event.subject.data == NULL) {
        draft->event.subject = draft->anonymous_id;
    }
    format_segment_payload(reader, call);
    draft->event.type = call->name;
    struct slice name = call->is_named_by_event ? draft->name : draft->page_name;
    if ((call->is_named_by_event || call->is_named_by_name) && name.data != NULL) {
        format_draft_name(reader, call->prefix, name);
    }
}

const struct format_shape format_shape_segment = {
    .fields = format_segment_fields,
    .field_count = SEGMENT_FIELD_COUNT,
    .on_member = format_segment_member,
    .on_end = format_segment_end,
};
