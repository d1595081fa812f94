/* Format, private: the reader that every form shares.
 *
 * An object is walked once. Its members reach the form's shape, which keeps what it knows in the
 * draft; what it does not know becomes a member of the event's attributes. The walk always goes to
 * the end, so a fault in the meaning never hides a fault in the syntax.
 *
 * Thread: as the reader.
 * Memory: texts that had escapes stand in `texts`, whose room is made before the first is put
 * there, so that slices of it stay valid until the next element. Errors: format_reject keeps the
 * first fault of an element. */
#pragma once
#include "base/buffer.h"
#include "base/limits.h"
#include "format/format.h"
#include "json/json.h"

#define FORMAT_TOKENS     64u
#define FORMAT_KEEP_BYTES ((size_t)64 * 1024) /* memory kept from one body to the next */

/* A literal as a slice where only a constant may stand. */
#define FORMAT_NAME(text)                                                                          \
    {                                                                                              \
        (const uint8_t *)(text), sizeof(text) - 1                                                  \
    }

struct format_member {
    struct slice key; /* escapes as they came */
    bool key_escaped;
    uint8_t kind;      /* enum json_kind; of containers the BEGIN */
    struct slice text; /* strings: between the quotes; numbers: the digits */
    bool escaped;
    struct slice raw; /* the value as it came */
    uint64_t offset;  /* of the value in the element */
};

struct format_field {
    struct slice name;
    const char *pointer; /* JSON Pointer of the member */
};

/* How the members of one outside form become an event. */
struct format_shape {
    const struct format_field *fields;
    size_t field_count; /* at most 32 */
    bool drops_null;    /* an unknown member that is null is absent */
    void (*on_member)(struct format_reader *reader, size_t field,
                      const struct format_member *member);
    /* After the last member: required members, defaults, the id. */
    void (*on_end)(struct format_reader *reader);
};

struct format_walk {
    struct slice document;
    struct json_token tokens[FORMAT_TOKENS];
    size_t token_count;
    size_t token_at;
    struct format_member member; /* the one that is open */
    bool is_object;
    bool needs_value;
};

/* What is known of the element in hand. */
struct format_draft {
    struct record_event event;
    uint32_t seen; /* bit per field of the shape */
    enum err err;  /* first fault */
    struct format_fault fault;
    size_t texts_bytes;      /* bound of what the texts can take */
    bool has_texts;          /* room for them is made */
    bool id_is_due;          /* added to context.ids */
    bool is_single;          /* takes the frame's own id */
    bool has_traceparent;    /* of its own */
    bool has_version;        /* CloudEvents */
    bool is_reading;         /* its id is made from the device and the event_id */
    struct slice call;       /* Segment: what the client did */
    struct slice name;       /* Segment, PostHog: event name, unescaped */
    struct slice page_name;  /* Segment */
    struct slice properties; /* Segment, PostHog */
    struct slice traits;     /* Segment */
    struct slice anonymous_id;
};

/* What is known of the message in hand. */
struct format_message {
    struct id device;
    struct id project;
    struct id site;
    struct record_reading *readings;
    uint32_t count;
    uint32_t capacity;
};

struct format_batch {
    enum record_form form;
    struct format_context context;
    struct slice chunk; /* given and not yet fed: the array's bracket goes first */
    uint64_t first_index;
    uint64_t offset_before; /* bytes fed before the body's own first byte */
    uint64_t count_left;    /* elements still to be given; UINT64_MAX: all there are */
    struct format_fault fault;
};

struct format_frame_walk {
    const struct record_frame *record; /* the caller's */
    struct format_context context;
    bool is_batch;
    bool is_done; /* the last item was given */
};

struct format_reader {
    struct json_reader *json;
    struct json_elements *elements; /* made when the first batch comes */
    struct buffer texts;
    struct buffer attributes;
    struct buffer payload; /* binary CloudEvents whose data is no JSON */
    const struct format_context *context;
    struct format_walk walk;
    struct format_draft draft;
    struct format_message message;
    struct json_reader *metrics; /* made when the first message comes */
    struct format_batch batch;
    struct format_frame_walk frame;
};

/* --- reader.c ------------------------------------------------------------------------------ */
void format_fault_set(struct format_fault *fault, const char *code, const char *message,
                      const char *pointer, uint64_t offset);
/* The element in hand is refused; the first reason stays. */
void format_reject(struct format_reader *reader, const char *code, const char *message,
                   const char *pointer, uint64_t offset);
/* Empties what the last element left. `texts_bytes` bounds what its texts can take. */
void format_draft_begin(struct format_reader *reader, const struct format_context *context,
                        size_t texts_bytes);
/* ERR_OK also when the object is refused for its meaning: format_draft_end says so. */
MUST_CHECK enum err format_object_read(struct format_reader *reader,
                                       const struct format_shape *shape, struct slice raw,
                                       struct format_fault *ret_fault);
/* Hands over the draft or its fault. */
MUST_CHECK enum err format_draft_end(struct format_reader *reader, struct record_event *ret,
                                     struct format_fault *ret_fault);
/* An object that is wrong in form ends a walk; the whole document, whatever it is, is verified.
 * *ret_value: without the white space around it. */
MUST_CHECK enum err format_value_verify(struct format_reader *reader, struct slice document,
                                        struct slice *ret_value, struct format_fault *ret_fault);
/* A string of 1 to size_max bytes without U+0000; null leaves *ret alone; anything else is refused.
 * `pointer` names the member. */
void format_take_text(struct format_reader *reader, const struct format_member *member,
                      const char *pointer, size_t size_max, struct slice *ret);
/* As format_take_text, and numbers are taken by their text. */
void format_take_name(struct format_reader *reader, const struct format_member *member,
                      const char *pointer, size_t size_max, struct slice *ret);
void format_take_type(struct format_reader *reader, const struct format_member *member,
                      const char *pointer);
/* The type becomes `prefix` and the mapped `name`. */
void format_draft_name(struct format_reader *reader, struct slice prefix, struct slice name);
/* Refuses text that is no time. */
void format_take_time(struct format_reader *reader, const struct format_member *member,
                      const char *pointer);
/* Text that is no time leaves the time of arrival. */
void format_try_time(struct format_reader *reader, const struct format_member *member);
/* Adds a member to the attributes. */
void format_keep_member(struct format_reader *reader, const struct format_member *member);
/* Adds a member; the key needs no escaping, the text still does. */
void format_keep_text(struct format_reader *reader, struct slice key, struct slice text);
void format_keep_raw(struct format_reader *reader, struct slice key, struct slice value);
/* Where texts of the element in hand go; NULL: no memory, and the element is refused. */
struct buffer *format_texts(struct format_reader *reader);

/* --- the forms ----------------------------------------------------------------------------- */
extern const struct format_shape format_shape_event;
extern const struct format_shape format_shape_cloudevent;
extern const struct format_shape format_shape_segment;
extern const struct format_shape format_shape_posthog;
extern const struct format_shape format_shape_reading;
/* The form of an element of a body of this form. */
const struct format_shape *format_shape_of(enum record_form form);

/* --- text.c -------------------------------------------------------------------------------- */
/* Media type of a content type, without parameters and the space around it. */
struct slice format_media_type(struct slice content_type);
bool format_media_is_json(struct slice media_type);
bool format_utf8_is_valid(struct slice text);
bool format_base64_is_valid(struct slice text);
/* `name` with every character that a type may not hold replaced by one '_', after `prefix`, cut at
 * LIMIT_TYPE_BYTES; appended to `to`. */
MUST_CHECK enum err format_type_map(struct slice prefix, struct slice name, struct buffer *to);
