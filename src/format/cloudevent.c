/* Format CloudEvents 1.0: structured and binary mode; a batch is an array of structured ones.
 *
 * source and id together name an event, so they become source and dedup_id. Extensions,
 * datacontenttype and dataschema go to the attributes; an attribute that is null is absent. What
 * data_base64 holds becomes the payload as a JSON string, marked by the attribute
 * "data_encoding":"base64", a name that no extension can have.
 *
 * Binary mode: each ce- header is an attribute. Values are unquoted, then percent-decoded once; a
 * '%' that begins no escape, spaces and quotes stand for themselves, because common clients send
 * them raw. Bad UTF-8 is refused. A body of a JSON content type, or of none that reads as JSON, is
 * the payload; text becomes a JSON string; anything else base64.
 *
 * Source: CloudEvents 1.0.2, its JSON format and its HTTP protocol binding. */
#include "format/reader.h"

#include <assert.h>

enum format_cloudevent_field {
    CLOUDEVENT_SPECVERSION,
    CLOUDEVENT_TYPE,
    CLOUDEVENT_SOURCE,
    CLOUDEVENT_ID,
    CLOUDEVENT_SUBJECT,
    CLOUDEVENT_TIME,
    CLOUDEVENT_DATA,
    CLOUDEVENT_DATA_BASE64,
    CLOUDEVENT_FIELD_COUNT
};

static const struct format_field format_cloudevent_fields[CLOUDEVENT_FIELD_COUNT] = {
    [CLOUDEVENT_SPECVERSION] = {FORMAT_NAME("specversion"), "/specversion"},
    [CLOUDEVENT_TYPE] = {FORMAT_NAME("type"), "/type"},
    [CLOUDEVENT_SOURCE] = {FORMAT_NAME("source"), "/source"},
    [CLOUDEVENT_ID] = {FORMAT_NAME("id"), "/id"},
    [CLOUDEVENT_SUBJECT] = {FORMAT_NAME("subject"), "/subject"},
    [CLOUDEVENT_TIME] = {FORMAT_NAME("time"), "/time"},
    [CLOUDEVENT_DATA] = {FORMAT_NAME("data"), "/data"},
    [CLOUDEVENT_DATA_BASE64] = {FORMAT_NAME("data_base64"), "/data_base64"},
};

static void format_cloudevent_version(struct format_reader *reader,
                                      const struct format_member *member, const char *pointer)
{
    struct slice version = {NULL, 0};
    format_take_text(reader, member, pointer, LIMIT_TYPE_BYTES, &version);
    if (version.data == NULL) {
        return;
    }
    if (!slice_equal(version, SLICE_LITERAL("1.0"))) {
        format_reject(reader, "invalid_value", "must be 1.0", pointer, member->offset);
        return;
    }
    reader->draft.has_version = true;
}

static void format_cloudevent_payload(struct format_reader *reader,
                                      const struct format_member *member, const char *pointer)
{
    if (reader->draft.event.payload.data != NULL) {
        format_reject(reader, "invalid_value", "data and data_base64 exclude each other", pointer,
                      member->offset);
        return;
    }
    reader->draft.event.payload = member->raw;
}

static void format_cloudevent_base64(struct format_reader *reader,
                                     const struct format_member *member, const char *pointer)
{
    struct slice text = {NULL, 0};
    if (member->kind == JSON_NULL) {
        return;
    }
    if (member->kind != JSON_STRING || member->text.size != 0) {
        format_take_text(reader, member, pointer, LIMIT_EVENT_BYTES, &text);
        if (text.data == NULL) {
            return;
        }
    }
    if (!format_base64_is_valid(text)) {
        format_reject(reader, "invalid_value", "must be base64", pointer, member->offset);
        return;
    }
    format_cloudevent_payload(reader, member, pointer);
    format_keep_raw(reader, SLICE_LITERAL("data_encoding"), SLICE_LITERAL("\"base64\""));
}

static void format_cloudevent_member(struct format_reader *reader, size_t field,
                                     const struct format_member *member)
{
    struct record_event *event = &reader->draft.event;
    const char *pointer = format_cloudevent_fields[field].pointer;
    switch ((enum format_cloudevent_field)field) {
    case CLOUDEVENT_SPECVERSION:
        format_cloudevent_version(reader, member, pointer);
        break;
    case CLOUDEVENT_TYPE:
        format_take_type(reader, member, pointer);
        break;
    case CLOUDEVENT_SOURCE:
        format_take_text(reader, member, pointer, LIMIT_SOURCE_BYTES, &event->source);
        break;
    case CLOUDEVENT_ID:
        format_take_text(reader, member, pointer, LIMIT_DEDUP_ID_BYTES, &event->dedup_id);
        break;
    case CLOUDEVENT_SUBJECT:
        format_take_text(reader, member, pointer, LIMIT_SUBJECT_BYTES, &event->subject);
        break;
    case CLOUDEVENT_TIME:
        format_take_time(reader, member, pointer);
        break;
    case CLOUDEVENT_DATA:
        format_cloudevent_payload(reader, member, pointer);
        break;
    case CLOUDEVENT_DATA_BASE64:
        format_cloudevent_base64(reader, member, pointer);
        break;
    case CLOUDEVENT_FIELD_COUNT:
        break;
    }
}

static void format_cloudevent_end(struct format_reader *reader)
{
    struct record_event *event = &reader->draft.event;
    if (!reader->draft.has_version) {
        format_reject(reader, "missing_field", "specversion is required", "/specversion", 0);
    }
    if (event->type.data == NULL) {
        format_reject(reader, "missing_field", "type is required", "/type", 0);
    }
    if (event->source.data == NULL) {
        format_reject(reader, "missing_field", "source is required", "/source", 0);
    }
    if (event->dedup_id.data == NULL) {
        format_reject(reader, "missing_field", "id is required", "/id", 0);
    }
    if (event->payload.data == NULL) {
        event->payload = SLICE_LITERAL("null");
    }
}

const struct format_shape format_shape_cloudevent = {
    .fields = format_cloudevent_fields,
    .field_count = CLOUDEVENT_FIELD_COUNT,
    .drops_null = true,
    .on_member = format_cloudevent_member,
    .on_end = format_cloudevent_end,
};

/* --- binary mode --------------------------------------------------------------------------- */

static int format_hex_value(uint8_t digit)
{
    uint8_t lower = digit | 0x20;
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* The byte that an escape at `i` stands for; false when none begins there. */
static bool format_percent_at(struct slice value, size_t i, uint8_t *ret_byte)
{
    if (value.data[i] != '%' || value.size - i < 3) {
        return false;
    }
    int high = format_hex_value(value.data[i + 1]);
    int low = format_hex_value(value.data[i + 2]);
    if (high < 0 || low < 0) {
        return false;
    }
    *ret_byte = (uint8_t)(high << 4 | low);
    return true;
}

static enum err format_header_decode(struct slice value, struct buffer *to)
{
    bool is_quoted = value.size >= 2 && value.data[0] == '"' && value.data[value.size - 1] == '"';
    if (is_quoted) {
        value = slice_part(value, 1, value.size - 1);
    }
    for (size_t i = 0; i < value.size; i++) {
        uint8_t byte = value.data[i];
        if (is_quoted && byte == '\\' && i + 1 < value.size) {
            byte = value.data[++i];
        } else if (format_percent_at(value, i, &byte)) {
            i += 2;
        }
        enum err err = buffer_append_byte(to, byte);
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

/* What an attribute may be called: letters and digits, and none of the names that say how data is
 * carried. */
static bool format_extension_is_valid(struct slice name)
{
    for (size_t i = 0; i < name.size; i++) {
        uint8_t byte = name.data[i];
        if ((byte < 'a' || byte > 'z') && (byte < '0' || byte > '9')) {
            return false;
        }
    }
    return name.size != 0 && !slice_equal(name, SLICE_LITERAL("datacontenttype")) &&
           !slice_equal(name, SLICE_LITERAL("data"));
}

/* An attribute of the event itself, or CLOUDEVENT_DATA: an extension. */
static size_t format_attribute_find(struct slice name)
{
    size_t field = 0;
    while (field < CLOUDEVENT_DATA && !slice_equal(name, format_cloudevent_fields[field].name)) {
        field++;
    }
    return field;
}

/* One ce- header; `name` without the prefix. */
static void format_cloudevent_header(struct format_reader *reader, struct slice name,
                                     struct slice value)
{
    struct format_member member = {.key = name, .kind = JSON_STRING};
    struct buffer *texts = format_texts(reader);
    if (texts == NULL) {
        return;
    }
    size_t before = texts->size;
    enum err err = format_header_decode(value, texts);
    member.text = slice_make(texts->data + before, texts->size - before);
    if (err != ERR_OK || !format_utf8_is_valid(member.text) ||
        memchr(member.text.data, 0, member.text.size) != NULL) {
        format_reject(reader, "invalid_value", "a ce- header is not valid UTF-8", "", 0);
        return;
    }
    size_t field = format_attribute_find(name);
    if (field < CLOUDEVENT_DATA) {
        uint32_t bit = UINT32_C(1) << field;
        if ((reader->draft.seen & bit) != 0) {
            format_reject(reader, "duplicate_key", "a ce- header stands in the request twice",
                          format_cloudevent_fields[field].pointer, 0);
        }
        reader->draft.seen |= bit;
        format_cloudevent_member(reader, field, &member);
    } else if (format_extension_is_valid(name)) {
        format_keep_text(reader, name, member.text);
    } else {
        format_reject(reader, "invalid_value", "a ce- header has a name that no attribute may have",
                      "", 0);
    }
}

#define BASE64_PAD 64u /* place of the padding among the digits */

static enum err format_base64_append(struct slice data, struct buffer *to)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
    for (size_t i = 0; i < data.size; i += 3) {
        uint32_t bits = (uint32_t)data.data[i] << 16;
        bits |= i + 1 < data.size ? (uint32_t)data.data[i + 1] << 8 : 0;
        bits |= i + 2 < data.size ? (uint32_t)data.data[i + 2] : 0;
        const char four[4] = {
            digits[bits >> 18],
            digits[bits >> 12 & 63],
            digits[i + 1 < data.size ? bits >> 6 & 63 : BASE64_PAD],
            digits[i + 2 < data.size ? bits & 63 : BASE64_PAD],
        };
        enum err err = buffer_append(to, four, sizeof(four));
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

static bool format_media_is_text(struct slice media_type)
{
    return slice_starts_with(media_type, SLICE_LITERAL("text/")) ||
           slice_equal_nocase(media_type, SLICE_LITERAL("application/xml"));
}

/* Data that is no JSON, as a JSON string. */
static void format_cloudevent_encode(struct format_reader *reader, struct slice media_type,
                                     struct slice data)
{
    struct buffer *to = &reader->payload;
    enum err err;
    buffer_clear(to);
    if (format_media_is_text(media_type) && format_utf8_is_valid(data)) {
        struct json_writer writer;
        json_writer_init(&writer, to);
        json_write_string(&writer, data);
        err = json_writer_err(&writer);
    } else {
        err = buffer_append_byte(to, '"');
        err = err == ERR_OK ? format_base64_append(data, to) : err;
        err = err == ERR_OK ? buffer_append_byte(to, '"') : err;
        format_keep_raw(reader, SLICE_LITERAL("data_encoding"), SLICE_LITERAL("\"base64\""));
    }
    if (err != ERR_OK) {
        format_reject(reader, err_code(err), err_text(err), "/data", 0);
        return;
    }
    reader->draft.event.payload = buffer_slice(to);
}

static enum err format_cloudevent_data(struct format_reader *reader, struct slice content_type,
                                       struct slice data, struct format_fault *ret_fault)
{
    struct slice media_type = format_media_type(content_type);
    if (data.size == 0) {
        return ERR_OK;
    }
    if (media_type.size == 0 || format_media_is_json(media_type)) {
        struct slice value;
        enum err err = format_value_verify(reader, data, &value, ret_fault);
        if (err == ERR_OK) {
            reader->draft.event.payload = value;
        }
        if (err == ERR_OK || media_type.size != 0) {
            return err;
        }
    }
    format_cloudevent_encode(reader, media_type, data);
    return ERR_OK;
}

enum err format_cloudevent_binary_read(struct format_reader *reader,
                                       const struct record_frame *frame,
                                       const struct format_context *context,
                                       struct record_event *ret, struct format_fault *ret_fault)
{
    size_t texts_bytes = 0;
    if (frame->body.size > LIMIT_EVENT_BYTES) {
        format_fault_set(ret_fault, err_code(ERR_TOO_LARGE),
                         "the event is larger than 262144 bytes", "", LIMIT_EVENT_BYTES);
        return ERR_TOO_LARGE;
    }
    assert(frame->attribute_count <= RECORD_ATTRIBUTES_MAX);
    for (uint32_t i = 0; i < frame->attribute_count; i++) {
        texts_bytes += frame->attributes[i].value.size;
    }
    format_draft_begin(reader, context, texts_bytes);
    reader->draft.is_single = true;
    struct slice content_type = record_frame_attribute(frame, "content-type");
    if (content_type.size != 0) {
        format_keep_text(reader, SLICE_LITERAL("datacontenttype"), content_type);
    }
    for (uint32_t i = 0; i < frame->attribute_count; i++) {
        const struct record_attribute *attribute = &frame->attributes[i];
        if (slice_starts_with(attribute->name, SLICE_LITERAL("ce-"))) {
            format_cloudevent_header(reader, slice_part(attribute->name, 3, attribute->name.size),
                                     attribute->value);
        }
    }
    enum err err = format_cloudevent_data(reader, content_type, frame->body, ret_fault);
    if (err != ERR_OK) {
        return err;
    }
    format_cloudevent_end(reader);
    return format_draft_end(reader, ret, ret_fault);
}
