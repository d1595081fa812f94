/* Format reader: walks one object, once, and keeps what its form says.
 *
 * Happy path: tokens come 64 at a time; those below the object's own members are skipped, so a
 * payload costs its tokens and nothing else; texts without escapes are slices of the bytes read;
 * what the form does not know is appended to the attributes as it came.
 *
 * Failure modes: bytes that are no JSON end the walk with ERR_SYNTAX or ERR_DEPTH and the reader's
 * offset. A member that is wrong is noted, the first one stays, and the walk goes on, because an
 * element that is both wrong and malformed is malformed. */
#include "format/reader.h"

#include <assert.h>

#include "base/mem.h"

#define FORMAT_TEXTS_BYTES_MAX      ((size_t)2 * LIMIT_FRAME_BYTES)
#define FORMAT_ATTRIBUTES_BYTES_MAX ((size_t)4 * LIMIT_FRAME_BYTES)
#define FORMAT_PAYLOAD_BYTES_MAX    ((size_t)8 * LIMIT_EVENT_BYTES)
#define FORMAT_TYPE_ROOM            512u /* a mapped type, beside the texts */

static const struct json_options format_json_options = {
    .depth_max = LIMIT_JSON_DEPTH,
    .string_bytes_max = LIMIT_EVENT_BYTES,
};

struct format_reader *format_reader_create(void)
{
    struct format_reader *reader = mem_alloc(sizeof(*reader));
    reader->json = json_reader_create(&format_json_options);
    buffer_init(&reader->texts, FORMAT_TEXTS_BYTES_MAX);
    buffer_init(&reader->attributes, FORMAT_ATTRIBUTES_BYTES_MAX);
    buffer_init(&reader->payload, FORMAT_PAYLOAD_BYTES_MAX);
    return reader;
}

void format_reader_destroy(struct format_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    json_reader_destroy(reader->json);
    json_elements_destroy(reader->elements);
    json_reader_destroy(reader->metrics);
    mem_free(reader->message.readings);
    buffer_finish(&reader->texts);
    buffer_finish(&reader->attributes);
    buffer_finish(&reader->payload);
    mem_free(reader);
}

void format_fault_set(struct format_fault *fault, const char *code, const char *message,
                      const char *pointer, uint64_t offset)
{
    size_t size = strlen(pointer);
    assert(size < sizeof(fault->pointer));
    fault->code = code;
    fault->message = message;
    fault->offset = offset;
    memcpy(fault->pointer, pointer, size + 1);
}

static void format_refuse(struct format_reader *reader, enum err err)
{
    if (reader->draft.err == ERR_OK) {
        reader->draft.err = err;
        format_fault_set(&reader->draft.fault, err_code(err), err_text(err), "", 0);
    }
}

void format_reject(struct format_reader *reader, const char *code, const char *message,
                   const char *pointer, uint64_t offset)
{
    if (reader->draft.err == ERR_OK) {
        reader->draft.err = ERR_INVALID;
        format_fault_set(&reader->draft.fault, code, message, pointer, offset);
    }
}

void format_draft_begin(struct format_reader *reader, const struct format_context *context,
                        size_t texts_bytes)
{
    reader->draft = (struct format_draft){
        .event = {.received_ms = context->received_ms,
                  .occurred_ms = context->received_ms,
                  .index = context->index},
        .texts_bytes = texts_bytes,
    };
    reader->message = (struct format_message){.readings = reader->message.readings,
                                              .capacity = reader->message.capacity};
    reader->context = context;
    buffer_clear(&reader->texts);
    buffer_clear(&reader->attributes);
}

struct buffer *format_texts(struct format_reader *reader)
{
    struct format_draft *draft = &reader->draft;
    if (!draft->has_texts) {
        enum err err = buffer_reserve(&reader->texts, draft->texts_bytes + FORMAT_TYPE_ROOM);
        if (err != ERR_OK) {
            format_refuse(reader, err);
            return NULL;
        }
        draft->has_texts = true;
    }
    return &reader->texts;
}

/* --- attributes ---------------------------------------------------------------------------- */

/* A JSON object that is open until the draft ends. */
static void format_keep_parts(struct format_reader *reader, struct slice key, struct slice value)
{
    struct buffer *to = &reader->attributes;
    enum err err = buffer_append_text(to, to->size == 0 ? "{\"" : ",\"");
    if (err == ERR_OK) {
        err = buffer_append_slice(to, key);
    }
    if (err == ERR_OK) {
        err = buffer_append_text(to, "\":");
    }
    if (err == ERR_OK) {
        err = buffer_append_slice(to, value);
    }
    if (err != ERR_OK) {
        format_refuse(reader, err);
    }
}

void format_keep_raw(struct format_reader *reader, struct slice key, struct slice value)
{
    format_keep_parts(reader, key, value);
}

void format_keep_text(struct format_reader *reader, struct slice key, struct slice text)
{
    if (slice_equal(key, SLICE_LITERAL("traceparent"))) {
        reader->draft.has_traceparent = true;
    }
    format_keep_parts(reader, key, slice_make("", 0));
    struct json_writer writer;
    json_writer_init(&writer, &reader->attributes);
    json_write_string(&writer, text);
    if (json_writer_err(&writer) != ERR_OK) {
        format_refuse(reader, json_writer_err(&writer));
    }
}

void format_keep_member(struct format_reader *reader, const struct format_member *member)
{
    if (json_text_equal(member->key, member->key_escaped, SLICE_LITERAL("traceparent"))) {
        reader->draft.has_traceparent = true;
    }
    format_keep_parts(reader, member->key, member->raw);
}

/* --- members ------------------------------------------------------------------------------- */

static bool format_take_unescaped(struct format_reader *reader, struct slice text, bool escaped,
                                  struct slice *ret)
{
    if (!escaped) {
        *ret = text;
        return true;
    }
    struct buffer *texts = format_texts(reader);
    if (texts == NULL) {
        return false;
    }
    size_t before = texts->size;
    enum err err = json_unescape(text, texts);
    if (err != ERR_OK) {
        format_refuse(reader, err);
        return false;
    }
    *ret = slice_make(texts->data + before, texts->size - before);
    return true;
}

static void format_take(struct format_reader *reader, const struct format_member *member,
                        const char *pointer, size_t size_max, struct slice *ret)
{
    struct slice text;
    if (!format_take_unescaped(reader, member->text, member->escaped, &text)) {
        return;
    }
    if (text.size == 0) {
        format_reject(reader, "invalid_value", "must not be empty", pointer, member->offset);
    } else if (text.size > size_max) {
        format_reject(reader, "too_long", "is longer than the limit", pointer, member->offset);
    } else if (member->escaped && memchr(text.data, 0, text.size) != NULL) {
        format_reject(reader, "invalid_value", "must not hold U+0000", pointer, member->offset);
    } else {
        *ret = text;
    }
}

void format_take_text(struct format_reader *reader, const struct format_member *member,
                      const char *pointer, size_t size_max, struct slice *ret)
{
    if (member->kind == JSON_NULL) {
        return;
    }
    if (member->kind != JSON_STRING) {
        format_reject(reader, "invalid_type", "must be a string", pointer, member->offset);
        return;
    }
    format_take(reader, member, pointer, size_max, ret);
}

void format_take_name(struct format_reader *reader, const struct format_member *member,
                      const char *pointer, size_t size_max, struct slice *ret)
{
    if (member->kind == JSON_NUMBER) {
        format_take(reader, member, pointer, size_max, ret);
        return;
    }
    format_take_text(reader, member, pointer, size_max, ret);
}

void format_take_type(struct format_reader *reader, const struct format_member *member,
                      const char *pointer)
{
    struct slice type = {NULL, 0};
    format_take_text(reader, member, pointer, LIMIT_TYPE_BYTES, &type);
    if (type.data == NULL) {
        return;
    }
    if (!format_type_is_valid(type)) {
        format_reject(reader, "invalid_value", "must hold only letters, digits and . _ / -",
                      pointer, member->offset);
        return;
    }
    reader->draft.event.type = type;
}

void format_draft_name(struct format_reader *reader, struct slice prefix, struct slice name)
{
    struct buffer *texts = format_texts(reader);
    if (texts == NULL) {
        return;
    }
    size_t before = texts->size;
    enum err err = format_type_map(prefix, name, texts);
    if (err != ERR_OK) {
        format_refuse(reader, err);
        return;
    }
    reader->draft.event.type = slice_make(texts->data + before, texts->size - before);
}

void format_take_time(struct format_reader *reader, const struct format_member *member,
                      const char *pointer)
{
    if (member->kind == JSON_NULL) {
        return;
    }
    struct slice text = {NULL, 0};
    if (member->kind != JSON_STRING && member->kind != JSON_NUMBER) {
        format_reject(reader, "invalid_type", "must be a time", pointer, member->offset);
        return;
    }
    if (!format_take_unescaped(reader, member->text, member->escaped, &text)) {
        return;
    }
    if (!format_time_read(text, &reader->draft.event.occurred_ms)) {
        format_reject(reader, "invalid_value", "must be RFC 3339 or epoch milliseconds", pointer,
                      member->offset);
    }
}

void format_try_time(struct format_reader *reader, const struct format_member *member)
{
    struct slice text = {NULL, 0};
    bool may_be_time = member->kind == JSON_STRING || member->kind == JSON_NUMBER;
    if (may_be_time && format_take_unescaped(reader, member->text, member->escaped, &text)) {
        (void)format_time_read(text, &reader->draft.event.occurred_ms);
    }
}

/* --- the walk ------------------------------------------------------------------------------ */

static void format_fault_of_json(const struct format_reader *reader, enum err err,
                                 struct format_fault *ret_fault)
{
    struct json_fault fault = json_reader_fault(reader->json);
    format_fault_set(ret_fault, err_code(err), fault.message, "", fault.offset);
}

static void format_walk_begin(struct format_reader *reader, struct slice document)
{
    struct format_walk *walk = &reader->walk;
    walk->document = document;
    walk->token_count = 0;
    walk->token_at = 0;
    walk->is_object = false;
    json_document_begin(reader->json, document);
}

static uint64_t format_token_end(const struct json_token *token)
{
    switch ((enum json_kind)token->kind) {
    case JSON_OBJECT_BEGIN:
    case JSON_OBJECT_END:
    case JSON_ARRAY_BEGIN:
    case JSON_ARRAY_END:
        return token->offset + 1;
    case JSON_KEY:
    case JSON_STRING:
        return token->offset + token->size + 2;
    case JSON_NUMBER:
        return token->offset + token->size;
    case JSON_FALSE:
        return token->offset + 5;
    case JSON_TRUE:
    case JSON_NULL:
        return token->offset + 4;
    }
    assert(false);
    return 0;
}

enum err format_value_verify(struct format_reader *reader, struct slice document,
                             struct slice *ret_value, struct format_fault *ret_fault)
{
    struct format_walk *walk = &reader->walk;
    uint64_t begin = document.size;
    uint64_t end = 0;
    format_walk_begin(reader, document);
    do {
        enum err err =
            json_document_next(reader->json, walk->tokens, FORMAT_TOKENS, &walk->token_count);
        if (err != ERR_OK) {
            format_fault_of_json(reader, err, ret_fault);
            return err;
        }
        if (walk->token_count > 0) {
            begin = begin < document.size ? begin : walk->tokens[0].offset;
            end = format_token_end(&walk->tokens[walk->token_count - 1]);
        }
    } while (walk->token_count > 0);
    assert(begin < end && end <= document.size);
    *ret_value = slice_part(document, begin, end);
    return ERR_OK;
}

/* Takes a token of the object's own level; true when it completes a member. */
static bool format_walk_take(struct format_walk *walk, const struct json_token *token)
{
    struct format_member *member = &walk->member;
    if (token->kind == JSON_KEY) {
        member->key = json_token_slice(token);
        member->key_escaped = token->escaped != 0;
        return false;
    }
    bool is_end = token->kind == JSON_OBJECT_END || token->kind == JSON_ARRAY_END;
    if (!is_end) {
        member->kind = token->kind;
        member->text = json_token_slice(token);
        member->escaped = token->escaped != 0;
        member->offset = token->offset;
    }
    if (token->kind == JSON_OBJECT_BEGIN || token->kind == JSON_ARRAY_BEGIN) {
        return false;
    }
    uint64_t end = format_token_end(token);
    assert(end <= walk->document.size && member->offset < end);
    member->raw = slice_make(walk->document.data + member->offset, end - member->offset);
    return true;
}

/* The object's next member, verified to the document's end when there is none. */
static enum err format_walk_next(struct format_reader *reader, bool *ret_has)
{
    struct format_walk *walk = &reader->walk;
    for (;;) {
        while (walk->token_at < walk->token_count) {
            const struct json_token *token = &walk->tokens[walk->token_at++];
            if (token->depth == 0) {
                walk->is_object = walk->is_object || token->kind == JSON_OBJECT_BEGIN;
            } else if (token->depth == 1 && walk->is_object && format_walk_take(walk, token)) {
                *ret_has = true;
                return ERR_OK;
            }
        }
        walk->token_at = 0;
        walk->token_count = 0;
        enum err err =
            json_document_next(reader->json, walk->tokens, FORMAT_TOKENS, &walk->token_count);
        if (err != ERR_OK) {
            return err;
        }
        if (walk->token_count == 0) {
            *ret_has = false;
            return ERR_OK;
        }
    }
}

static size_t format_field_find(const struct format_shape *shape,
                                const struct format_member *member)
{
    size_t i = 0;
    if (!member->key_escaped) {
        while (i < shape->field_count && !slice_equal(member->key, shape->fields[i].name)) {
            i++;
        }
        return i;
    }
    while (i < shape->field_count && !json_text_equal(member->key, true, shape->fields[i].name)) {
        i++;
    }
    return i;
}

static void format_member_read(struct format_reader *reader, const struct format_shape *shape)
{
    const struct format_member *member = &reader->walk.member;
    size_t field = format_field_find(shape, member);
    if (field == shape->field_count) {
        if (!shape->drops_null || member->kind != JSON_NULL) {
            format_keep_member(reader, member);
        }
        return;
    }
    uint32_t bit = UINT32_C(1) << field;
    if ((reader->draft.seen & bit) != 0) {
        format_reject(reader, "duplicate_key", "stands in the object twice",
                      shape->fields[field].pointer, member->offset);
        return;
    }
    reader->draft.seen |= bit;
    shape->on_member(reader, field, member);
}

enum err format_object_read(struct format_reader *reader, const struct format_shape *shape,
                            struct slice raw, struct format_fault *ret_fault)
{
    enum err err;
    bool has = false;
    assert(shape->field_count <= 32);
    format_walk_begin(reader, raw);
    do {
        err = format_walk_next(reader, &has);
        if (err != ERR_OK) {
            format_fault_of_json(reader, err, ret_fault);
            return err;
        }
        if (has) {
            format_member_read(reader, shape);
        }
    } while (has);
    if (!reader->walk.is_object) {
        format_reject(reader, "invalid_type", "must be an object", "", 0);
    }
    shape->on_end(reader);
    return ERR_OK;
}

/* --- the end of an element ----------------------------------------------------------------- */

/* DESIGN I8: now, or with others. */
static struct id format_id_of(struct format_reader *reader, struct slice kind, struct slice source,
                              struct slice dedup_id)
{
    const struct format_context *context = reader->context;
    struct id none = {{0}};
    if (context->ids != NULL &&
        id_four_add(context->ids, context->id_key, kind, source, dedup_id)) {
        reader->draft.id_is_due = true;
        return none;
    }
    return id_make_dedup(context->id_key, kind, source, dedup_id);
}

/* Elements of a batch sent with an idempotency key are named by it and their number, in a kind of
 * their own, so that a second try of the same batch names them the same. */
static struct id format_id_make(struct format_reader *reader)
{
    const struct format_context *context = reader->context;
    const struct record_event *event = &reader->draft.event;
    if (event->dedup_id.size != 0 && reader->draft.is_reading) {
        return format_id_of(reader, SLICE_LITERAL("reading"), event->subject, event->dedup_id);
    }
    if (event->dedup_id.size != 0) {
        return format_id_of(reader, SLICE_LITERAL("event"), event->source, event->dedup_id);
    }
    if (reader->draft.is_single) {
        return context->frame_id;
    }
    if (context->idempotency_key.size != 0) {
        uint8_t index[sizeof(uint64_t)];
        buffer_put_u64(index, event->index);
        return format_id_of(reader, SLICE_LITERAL("event-element"), context->idempotency_key,
                            slice_make(index, sizeof(index)));
    }
    return id_make_element(context->frame_id, event->index);
}

bool format_id_is_due(const struct format_reader *reader)
{
    return reader->draft.id_is_due;
}

enum err format_draft_end(struct format_reader *reader, struct record_event *ret,
                          struct format_fault *ret_fault)
{
    struct format_draft *draft = &reader->draft;
    const struct format_context *context = reader->context;
    if (draft->is_single && draft->event.dedup_id.size == 0 && context->idempotency_key.size != 0) {
        draft->event.dedup_id = context->idempotency_key;
    }
    if (draft->event.dedup_id.size > LIMIT_DEDUP_ID_BYTES ||
        context->idempotency_key.size > LIMIT_DEDUP_ID_BYTES) {
        format_reject(reader, "too_long", "the idempotency key is longer than the limit", "", 0);
    }
    if (context->traceparent.size != 0 && !draft->has_traceparent) {
        format_keep_text(reader, SLICE_LITERAL("traceparent"), context->traceparent);
    }
    if (reader->attributes.size != 0) {
        enum err err = buffer_append_byte(&reader->attributes, '}');
        if (err != ERR_OK) {
            format_refuse(reader, err);
        }
        draft->event.attributes = buffer_slice(&reader->attributes);
    }
    if (draft->err != ERR_OK) {
        *ret_fault = draft->fault;
        return draft->err;
    }
    draft->event.id = format_id_make(reader);
    *ret = draft->event;
    return ERR_OK;
}
