/* Format PostHog: what clients of PostHog send in the "batch" of POST /batch/.
 *
 * The type is the event's name, with '_' for each character that a type may not hold: "$pageview"
 * is "_pageview". uuid is the dedup_id, distinct_id the subject, properties the payload. Everything
 * else, the original name with it, is kept in the attributes; an api_key or token is not: it is the
 * secret of who sent it. */
#include "format/reader.h"

enum format_posthog_field {
    POSTHOG_EVENT,
    POSTHOG_DISTINCT_ID,
    POSTHOG_UUID,
    POSTHOG_TIMESTAMP,
    POSTHOG_PROPERTIES,
    POSTHOG_API_KEY,
    POSTHOG_TOKEN,
    POSTHOG_FIELD_COUNT
};

static const struct format_field format_posthog_fields[POSTHOG_FIELD_COUNT] = {
    [POSTHOG_EVENT] = {FORMAT_NAME("event"), "/event"},
    [POSTHOG_DISTINCT_ID] = {FORMAT_NAME("distinct_id"), "/distinct_id"},
    [POSTHOG_UUID] = {FORMAT_NAME("uuid"), "/uuid"},
    [POSTHOG_TIMESTAMP] = {FORMAT_NAME("timestamp"), "/timestamp"},
    [POSTHOG_PROPERTIES] = {FORMAT_NAME("properties"), "/properties"},
    [POSTHOG_API_KEY] = {FORMAT_NAME("api_key"), "/api_key"},
    [POSTHOG_TOKEN] = {FORMAT_NAME("token"), "/token"},
};

static void format_posthog_member(struct format_reader *reader, size_t field,
                                  const struct format_member *member)
{
    struct format_draft *draft = &reader->draft;
    const char *pointer = format_posthog_fields[field].pointer;
    switch ((enum format_posthog_field)field) {
    case POSTHOG_EVENT:
        format_take_text(reader, member, pointer, LIMIT_EVENT_BYTES, &draft->name);
        format_keep_member(reader, member);
        break;
    case POSTHOG_DISTINCT_ID:
        format_take_name(reader, member, pointer, LIMIT_SUBJECT_BYTES, &draft->event.subject);
        break;
    case POSTHOG_UUID:
        format_take_text(reader, member, pointer, LIMIT_DEDUP_ID_BYTES, &draft->event.dedup_id);
        break;
    case POSTHOG_TIMESTAMP:
        format_try_time(reader, member);
        break;
    case POSTHOG_PROPERTIES:
        draft->properties = member->raw;
        break;
    case POSTHOG_API_KEY:
    case POSTHOG_TOKEN:
    case POSTHOG_FIELD_COUNT:
        break;
    }
}

static void format_posthog_end(struct format_reader *reader)
{
    struct format_draft *draft = &reader->draft;
    if (draft->name.data == NULL) {
        format_reject(reader, "missing_field", "event is required", "/event", 0);
        return;
    }
    draft->event.payload = draft->properties.data != NULL ? draft->properties : SLICE_LITERAL("{}");
    format_draft_name(reader, SLICE_LITERAL(""), draft->name);
}

const struct format_shape format_shape_posthog = {
    .fields = format_posthog_fields,
    .field_count = POSTHOG_FIELD_COUNT,
    .on_member = format_posthog_member,
    .on_end = format_posthog_end,
};
