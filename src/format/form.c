/* Format form: which form a body has. */
#include "format/reader.h"

struct slice format_media_type(struct slice content_type)
{
    struct slice rest;
    return slice_trim(slice_cut(content_type, ';', &rest));
}

static bool format_ends_with_nocase(struct slice s, struct slice suffix)
{
    return s.size >= suffix.size &&
           slice_equal_nocase(slice_part(s, s.size - suffix.size, s.size), suffix);
}

bool format_media_is_json(struct slice media_type)
{
    return slice_equal_nocase(media_type, SLICE_LITERAL("application/json")) ||
           slice_equal_nocase(media_type, SLICE_LITERAL("text/json")) ||
           format_ends_with_nocase(media_type, SLICE_LITERAL("+json"));
}

static bool format_media_is_lines(struct slice media_type)
{
    static const struct slice names[] = {
        FORMAT_NAME("application/x-ndjson"),
        FORMAT_NAME("application/ndjson"),
        FORMAT_NAME("application/jsonl"),
        FORMAT_NAME("application/x-jsonlines"),
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (slice_equal_nocase(media_type, names[i])) {
            return true;
        }
    }
    return false;
}

static bool format_starts_with_nocase(struct slice s, struct slice prefix)
{
    return s.size >= prefix.size && slice_equal_nocase(slice_part(s, 0, prefix.size), prefix);
}

enum err format_body_form(struct slice content_type, bool has_ce_headers, uint8_t first_byte,
                          enum record_form *ret)
{
    struct slice media_type = format_media_type(content_type);
    /* The longer name first: one begins with the other. */
    if (format_starts_with_nocase(media_type, SLICE_LITERAL("application/cloudevents-batch"))) {
        *ret = RECORD_FORM_CLOUDEVENT_BATCH;
    } else if (format_starts_with_nocase(media_type, SLICE_LITERAL("application/cloudevents"))) {
        *ret = RECORD_FORM_CLOUDEVENT;
    } else if (has_ce_headers) {
        *ret = RECORD_FORM_CLOUDEVENT_BINARY;
    } else if (format_media_is_lines(media_type)) {
        *ret = RECORD_FORM_EVENT_LINES;
    } else if (media_type.size == 0 || format_media_is_json(media_type) ||
               slice_equal_nocase(media_type, SLICE_LITERAL("text/plain"))) {
        *ret = first_byte == '[' ? RECORD_FORM_EVENT_ARRAY : RECORD_FORM_EVENT;
    } else {
        return ERR_UNSUPPORTED;
    }
    return ERR_OK;
}

bool format_form_is_batch(enum record_form form)
{
    switch (form) {
    case RECORD_FORM_EVENT_ARRAY:
    case RECORD_FORM_EVENT_LINES:
    case RECORD_FORM_CLOUDEVENT_BATCH:
    case RECORD_FORM_SEGMENT_BATCH:
    case RECORD_FORM_POSTHOG_BATCH:
    case RECORD_FORM_READING_ARRAY:
    case RECORD_FORM_READING_LINES:
        return true;
    case RECORD_FORM_EVENT:
    case RECORD_FORM_CLOUDEVENT:
    case RECORD_FORM_CLOUDEVENT_BINARY:
    case RECORD_FORM_SEGMENT_CALL:
    case RECORD_FORM_READING:
    case RECORD_FORM_UPLOAD_END:
        break;
    }
    return false;
}

bool format_form_is_reading(enum record_form form)
{
    return form == RECORD_FORM_READING || form == RECORD_FORM_READING_ARRAY ||
           form == RECORD_FORM_READING_LINES;
}

enum err format_reading_form(struct slice content_type, enum record_form *ret)
{
    struct slice media_type = format_media_type(content_type);
    if (format_media_is_lines(media_type)) {
        *ret = RECORD_FORM_READING_LINES;
    } else if (media_type.size == 0 || format_media_is_json(media_type) ||
               slice_equal_nocase(media_type, SLICE_LITERAL("text/plain"))) {
        *ret = RECORD_FORM_READING;
    } else {
        return ERR_UNSUPPORTED;
    }
    return ERR_OK;
}

const struct format_shape *format_shape_of(enum record_form form)
{
    switch (form) {
    case RECORD_FORM_EVENT:
    case RECORD_FORM_EVENT_ARRAY:
    case RECORD_FORM_EVENT_LINES:
        return &format_shape_event;
    case RECORD_FORM_CLOUDEVENT:
    case RECORD_FORM_CLOUDEVENT_BATCH:
        return &format_shape_cloudevent;
    case RECORD_FORM_SEGMENT_BATCH:
    case RECORD_FORM_SEGMENT_CALL:
        return &format_shape_segment;
    case RECORD_FORM_POSTHOG_BATCH:
        return &format_shape_posthog;
    case RECORD_FORM_READING:
    case RECORD_FORM_READING_ARRAY:
    case RECORD_FORM_READING_LINES:
        return &format_shape_reading;
    case RECORD_FORM_CLOUDEVENT_BINARY:
    case RECORD_FORM_UPLOAD_END:
        break;
    }
    return NULL;
}
