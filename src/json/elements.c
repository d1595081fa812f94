/* Elements: cuts a stream into the elements of an array, of the array that is one member of an
 * object, or into lines, and hands each over raw.
 *
 * Happy path (arrays): the reader's tokens say where an element begins and ends. Inside one chunk
 * the element is a slice of the chunk. When a chunk ends inside an element, what is there of it is
 * kept, and the next chunk's part is appended. A scalar that a chunk border cut stands in the
 * reader's token already, so only its quotes are put back.
 *
 * Happy path (lines): each line feed ends a line; spaces around it are not part of it.
 *
 *   BEFORE --array begins--> INSIDE --array ends--> BEHIND       (JSON_SHAPE_MEMBER goes from
 *                                                                 BEFORE to INSIDE by its key)
 * Failure modes: malformed (what the reader says, after the elements before it were handed over),
 * not of the shape (ERR_INVALID, also when the member comes twice: which one is meant nobody can
 * know), no memory for what is kept. The first is final. An element above the bound is no failure:
 * nothing more of it is kept, and it comes as too_large. */
#include "base/mem.h"
#include "json/json.h"
#include "json/scan.h"

#define ELEMENTS_TOKENS        64u
#define ELEMENTS_KEEP_BYTES    65536u /* of kept bytes over a reset */
#define ELEMENTS_SIBLINGS      16u
#define ELEMENTS_SIBLING_BYTES 512u
#define ELEMENTS_QUOTES        2u

enum elements_place { ELEMENTS_BEFORE, ELEMENTS_INSIDE, ELEMENTS_BEHIND };

struct elements_sibling {
    uint32_t name_at; /* in siblings */
    uint32_t name_size;
    uint32_t raw_size; /* stands behind the name */
};

struct json_elements {
    struct json_reader *reader;
    struct slice chunk;
    uint64_t chunk_offset; /* of its first byte in the stream */
    enum json_shape shape;
    struct slice member;
    uint32_t element_bytes_max;
    uint32_t token_count; /* in tokens; the next to look at is token_index */
    uint32_t token_index;
    uint8_t place;          /* enum elements_place */
    bool open;              /* an element has begun and not ended */
    bool member_next;       /* the next token is the member's value */
    bool sibling_next;      /* the next token is the value of the last sibling's name */
    uint64_t index;         /* of the next element */
    uint64_t begin;         /* offset of the open element (lines: of the first ink) */
    uint64_t ink_end;       /* lines: offset behind the last byte that is not a space */
    size_t line_at;         /* lines: bytes of the chunk that are read */
    struct buffer kept;     /* the open element's bytes of earlier chunks; cut at its bound */
    struct buffer siblings; /* names and raw values, one behind the other */
    uint32_t sibling_count;
    struct elements_sibling sibling[ELEMENTS_SIBLINGS];
    enum err err; /* of our own; the reader keeps its own */
    struct json_fault fault;
    struct json_token tokens[ELEMENTS_TOKENS];
};

struct json_elements *json_elements_create(const struct json_elements_options *options)
{
    struct json_elements *elements = mem_alloc(sizeof(*elements));
    elements->reader = json_reader_create(&options->json);
    elements->element_bytes_max = options->element_bytes_max;
    buffer_init(&elements->kept, (size_t)options->element_bytes_max + ELEMENTS_QUOTES);
    buffer_init(&elements->siblings, (size_t)ELEMENTS_SIBLINGS * 2 * ELEMENTS_SIBLING_BYTES);
    json_elements_reset(elements, options->shape, options->member);
    return elements;
}

void json_elements_destroy(struct json_elements *elements)
{
    if (elements != NULL) {
        json_reader_destroy(elements->reader);
        buffer_finish(&elements->kept);
        buffer_finish(&elements->siblings);
        mem_free(elements);
    }
}

void json_elements_reset(struct json_elements *elements, enum json_shape shape, struct slice member)
{
    json_reader_reset(elements->reader);
    elements->chunk = slice_make(NULL, 0);
    elements->chunk_offset = 0;
    elements->shape = shape;
    elements->member = member;
    elements->token_count = 0;
    elements->token_index = 0;
    elements->place = ELEMENTS_BEFORE;
    elements->open = false;
    elements->member_next = false;
    elements->sibling_next = false;
    elements->index = 0;
    elements->line_at = 0;
    elements->sibling_count = 0;
    elements->err = ERR_OK;
    elements->fault = (struct json_fault){0};
    buffer_shrink(&elements->kept, ELEMENTS_KEEP_BYTES);
    buffer_clear(&elements->siblings);
}

void json_elements_feed(struct json_elements *elements, struct slice chunk)
{
    elements->chunk_offset += elements->chunk.size;
    elements->chunk = chunk;
    elements->line_at = 0;
    if (elements->shape != JSON_SHAPE_LINES && elements->err == ERR_OK) {
        assert(elements->token_index == elements->token_count);
        json_reader_feed(elements->reader, chunk);
    }
}

struct json_fault json_elements_fault(const struct json_elements *elements)
{
    return elements->err != ERR_OK ? elements->fault : json_reader_fault(elements->reader);
}

static enum err elements_fail(struct json_elements *elements, enum err err, uint64_t offset,
                              const char *message)
{
    elements->err = err;
    elements->fault = (struct json_fault){offset, message};
    return err;
}

/* Appends to what is kept of the open element, as much as its bound permits. */
static enum err elements_keep(struct json_elements *elements, const void *data, size_t size)
{
    size_t room = elements->kept.bytes_max - elements->kept.size;
    if (buffer_append(&elements->kept, data, size < room ? size : room) != ERR_OK) {
        return elements_fail(elements, ERR_NO_MEMORY, elements->begin, "no memory for an element");
    }
    return ERR_OK;
}

/* The bytes of the chunk at these offsets of the stream. */
static struct slice elements_part(const struct json_elements *elements, uint64_t from, uint64_t to)
{
    assert(from >= elements->chunk_offset && to >= from);
    assert(to - elements->chunk_offset <= elements->chunk.size);
    return slice_make(elements->chunk.data + (from - elements->chunk_offset), (size_t)(to - from));
}

/* The open element ended before `end`: fills *ret. What is kept already stands in front of the
 * chunk's part. */
static enum err elements_close(struct json_elements *elements, uint64_t end,
                               struct json_element *ret)
{
    struct json_element element = {.offset = elements->begin, .index = elements->index};
    element.too_large = end - elements->begin > elements->element_bytes_max;
    if (!element.too_large && elements->begin >= elements->chunk_offset) {
        element.raw = elements_part(elements, elements->begin, end);
    } else if (!element.too_large) {
        size_t missing = (size_t)(end - elements->begin) - elements->kept.size;
        enum err err = elements_keep(elements, elements->chunk.data, missing);
        if (err != ERR_OK) {
            return err;
        }
        element.raw = buffer_slice(&elements->kept);
    }
    elements->open = false;
    elements->index++;
    *ret = element;
    return ERR_OK;
}

/* The chunk is used up: what it holds of the open element is kept, and the chunk is let go. */
static enum err elements_leave_chunk(struct json_elements *elements)
{
    enum err err = ERR_OK;
    uint64_t end = elements->chunk_offset + elements->chunk.size;
    if (elements->open && elements->chunk.size > 0) {
        bool here = elements->begin > elements->chunk_offset;
        uint64_t from = here ? elements->begin : elements->chunk_offset;
        struct slice part = elements_part(elements, from, end);
        err = elements_keep(elements, part.data, part.size);
    }
    elements->chunk_offset = end;
    elements->chunk = slice_make(NULL, 0);
    elements->line_at = 0;
    return err;
}

/* Bytes that a scalar token takes in the stream. */
static uint64_t elements_scalar_size(const struct json_token *token)
{
    switch ((enum json_kind)token->kind) {
    case JSON_KEY:
    case JSON_STRING:
        return (uint64_t)token->size + ELEMENTS_QUOTES;
    case JSON_NUMBER:
        return token->size;
    case JSON_FALSE:
        return 5;
    case JSON_TRUE:
    case JSON_NULL:
        return 4;
    case JSON_OBJECT_BEGIN:
    case JSON_OBJECT_END:
    case JSON_ARRAY_BEGIN:
    case JSON_ARRAY_END:
        break;
    }
    return 1;
}

static bool elements_is_begin(const struct json_token *token)
{
    return token->kind == JSON_OBJECT_BEGIN || token->kind == JSON_ARRAY_BEGIN;
}

static bool elements_is_end(const struct json_token *token)
{
    return token->kind == JSON_OBJECT_END || token->kind == JSON_ARRAY_END;
}

/* The raw text of a scalar token, put together again in `to`. */
static enum err elements_rebuild(struct buffer *to, const struct json_token *token)
{
    static const char *const names[] = {
        [JSON_TRUE] = "true", [JSON_FALSE] = "false", [JSON_NULL] = "null"};
    if (token->kind == JSON_NUMBER) {
        return buffer_append(to, token->text, token->size);
    }
    if (token->kind != JSON_STRING) {
        return buffer_append_text(to, names[token->kind]);
    }
    enum err err = buffer_append_byte(to, '"');
    err = err != ERR_OK ? err : buffer_append(to, token->text, token->size);
    return err != ERR_OK ? err : buffer_append_byte(to, '"');
}

/* An element that is a scalar. One that began in an earlier chunk is rebuilt from its token. */
static enum err elements_scalar(struct json_elements *elements, const struct json_token *token,
                                struct json_element *ret)
{
    uint64_t size = elements_scalar_size(token);
    elements->begin = token->offset;
    buffer_clear(&elements->kept);
    if (token->offset < elements->chunk_offset && size <= elements->element_bytes_max &&
        elements_rebuild(&elements->kept, token) != ERR_OK) {
        return elements_fail(elements, ERR_NO_MEMORY, token->offset, "no memory for an element");
    }
    return elements_close(elements, token->offset + size, ret);
}

/* A token at or below the elements' depth, inside the array; *ret_has when it completes one. */
static enum err elements_inside(struct json_elements *elements, const struct json_token *token,
                                struct json_element *ret, bool *ret_has)
{
    uint32_t depth = elements->shape == JSON_SHAPE_ARRAY ? 1 : 2;
    if (token->depth > depth) {
        return ERR_OK;
    }
    if (token->depth < depth) {
        elements->place = ELEMENTS_BEHIND;
        return ERR_OK;
    }
    enum err err = ERR_OK;
    if (elements_is_begin(token)) {
        elements->open = true;
        elements->begin = token->offset;
        buffer_clear(&elements->kept);
        return ERR_OK;
    }
    if (elements_is_end(token)) {
        err = elements_close(elements, token->offset + 1, ret);
    } else {
        err = elements_scalar(elements, token, ret);
    }
    *ret_has = err == ERR_OK;
    return err;
}

/* A top-level key beside the array: remembered when there is room. */
static enum err elements_sibling_name(struct json_elements *elements,
                                      const struct json_token *token)
{
    struct buffer *to = &elements->siblings;
    size_t at = to->size;
    if (elements->sibling_count == ELEMENTS_SIBLINGS || token->size > ELEMENTS_SIBLING_BYTES) {
        return ERR_OK;
    }
    if (json_unescape(json_token_slice(token), to) != ERR_OK) {
        return elements_fail(elements, ERR_NO_MEMORY, token->offset, "no memory for a member");
    }
    elements->sibling[elements->sibling_count] =
        (struct elements_sibling){.name_at = (uint32_t)at, .name_size = (uint32_t)(to->size - at)};
    elements->sibling_next = true;
    return ERR_OK;
}

/* Its value: kept when it is a scalar of permitted size; the name is dropped otherwise. */
static enum err elements_sibling_value(struct json_elements *elements,
                                       const struct json_token *token)
{
    struct elements_sibling *sibling = &elements->sibling[elements->sibling_count];
    struct buffer *to = &elements->siblings;
    size_t raw_at = to->size;
    elements->sibling_next = false;
    if (elements_is_begin(token) || elements_scalar_size(token) > ELEMENTS_SIBLING_BYTES) {
        to->size = sibling->name_at;
        return ERR_OK;
    }
    if (elements_rebuild(to, token) != ERR_OK) {
        return elements_fail(elements, ERR_NO_MEMORY, token->offset, "no memory for a member");
    }
    sibling->raw_size = (uint32_t)(to->size - raw_at);
    elements->sibling_count++;
    return ERR_OK;
}

/* A top-level key of JSON_SHAPE_MEMBER. */
static enum err elements_key(struct json_elements *elements, const struct json_token *token)
{
    if (!json_text_equal(json_token_slice(token), token->escaped != 0, elements->member)) {
        return elements_sibling_name(elements, token);
    }
    if (elements->place == ELEMENTS_BEHIND) {
        return elements_fail(elements, ERR_INVALID, token->offset, "the array comes twice");
    }
    elements->member_next = true;
    return ERR_OK;
}

/* A token outside the array: looks for the array. */
static enum err elements_outside(struct json_elements *elements, const struct json_token *token)
{
    bool member = elements->shape == JSON_SHAPE_MEMBER;
    if (token->depth == 0 && !elements_is_end(token)) {
        if (token->kind != (member ? JSON_OBJECT_BEGIN : JSON_ARRAY_BEGIN)) {
            return elements_fail(elements, ERR_INVALID, token->offset,
                                 member ? "not an object" : "not an array");
        }
        elements->place = member ? ELEMENTS_BEFORE : ELEMENTS_INSIDE;
        return ERR_OK;
    }
    if (!member || token->depth != 1 || elements_is_end(token)) {
        return ERR_OK;
    }
    if (token->kind == JSON_KEY) {
        return elements_key(elements, token);
    }
    if (elements->sibling_next) {
        return elements_sibling_value(elements, token);
    }
    if (elements->member_next) {
        elements->member_next = false;
        if (token->kind != JSON_ARRAY_BEGIN) {
            return elements_fail(elements, ERR_INVALID, token->offset, "not an array");
        }
        elements->place = ELEMENTS_INSIDE;
    }
    return ERR_OK;
}

static enum err elements_next_token(struct json_elements *elements, struct json_element *ret,
                                    bool *ret_has)
{
    bool has = false;
    while (!has) {
        if (elements->token_index == elements->token_count) {
            size_t count = 0;
            enum err err =
                json_reader_read(elements->reader, elements->tokens, ELEMENTS_TOKENS, &count);
            if (err != ERR_OK) {
                return err;
            }
            if (count == 0) {
                err = elements_leave_chunk(elements);
                *ret_has = err == ERR_OK ? false : *ret_has;
                return err;
            }
            elements->token_index = 0;
            elements->token_count = (uint32_t)count;
        }
        const struct json_token *token = &elements->tokens[elements->token_index++];
        enum err err = elements->place == ELEMENTS_INSIDE
                           ? elements_inside(elements, token, ret, &has)
                           : elements_outside(elements, token);
        if (err != ERR_OK) {
            return err;
        }
    }
    *ret_has = true;
    return ERR_OK;
}

/* One stretch of a line, without its line feed: notes where ink begins and ends. */
static void elements_line_stretch(struct json_elements *elements, struct slice stretch,
                                  uint64_t offset)
{
    size_t end = stretch.size;
    while (end > 0 && json_is_space(stretch.data[end - 1])) {
        end--;
    }
    if (end == 0) {
        return;
    }
    if (!elements->open) {
        size_t from = (size_t)(json_space_end(stretch.data, stretch.data + end) - stretch.data);
        elements->open = true;
        elements->begin = offset + from;
        buffer_clear(&elements->kept);
    }
    elements->ink_end = offset + end;
}

/* The line ends: its bytes are kept ones, then the chunk's up to the last ink. */
static enum err elements_line_close(struct json_elements *elements, struct json_element *ret)
{
    size_t ink = (size_t)(elements->ink_end - elements->begin);
    elements->kept.size = elements->kept.size < ink ? elements->kept.size : ink;
    return elements_close(elements, elements->ink_end, ret);
}

static enum err elements_next_line(struct json_elements *elements, struct json_element *ret,
                                   bool *ret_has)
{
    bool has = false;
    enum err err = ERR_OK;
    while (!has && err == ERR_OK && elements->line_at < elements->chunk.size) {
        const uint8_t *from = elements->chunk.data + elements->line_at;
        size_t left = elements->chunk.size - elements->line_at;
        const uint8_t *feed = memchr(from, '\n', left);
        size_t size = feed != NULL ? (size_t)(feed - from) : left;
        elements_line_stretch(elements, slice_make(from, size),
                              elements->chunk_offset + elements->line_at);
        elements->line_at += size + (feed != NULL);
        if (feed == NULL) {
            err = elements_leave_chunk(elements);
        } else if (elements->open) {
            err = elements_line_close(elements, ret);
            has = true;
        }
    }
    if (err == ERR_OK) {
        *ret_has = has;
    }
    return err;
}

enum err json_elements_next(struct json_elements *elements, struct json_element *ret, bool *ret_has)
{
    if (elements->err != ERR_OK) {
        return elements->err;
    }
    return elements->shape == JSON_SHAPE_LINES ? elements_next_line(elements, ret, ret_has)
                                               : elements_next_token(elements, ret, ret_has);
}

/* The last line may lack its line feed. */
static enum err elements_end_line(struct json_elements *elements, struct json_element *ret,
                                  bool *ret_has)
{
    bool has = elements->open;
    if (has) {
        enum err err = elements_line_close(elements, ret);
        if (err != ERR_OK) {
            return err;
        }
    }
    *ret_has = has;
    return ERR_OK;
}

enum err json_elements_end(struct json_elements *elements, struct json_element *ret, bool *ret_has)
{
    if (elements->err != ERR_OK) {
        return elements->err;
    }
    if (elements->shape == JSON_SHAPE_LINES) {
        return elements_end_line(elements, ret, ret_has);
    }
    struct json_token token;
    bool has_token = false;
    enum err err = json_reader_end(elements->reader, &token, &has_token);
    if (err != ERR_OK) {
        return err;
    }
    if (elements->place != ELEMENTS_BEHIND) {
        return elements_fail(elements, ERR_INVALID, has_token ? token.offset : 0,
                             "the array never came");
    }
    *ret_has = false;
    return ERR_OK;
}

bool json_elements_sibling(const struct json_elements *elements, struct slice name,
                           struct slice *ret_raw)
{
    /* Of equal names the last counts, as in most readers of JSON. */
    for (uint32_t i = elements->sibling_count; i > 0; i--) {
        const struct elements_sibling *sibling = &elements->sibling[i - 1];
        const uint8_t *at = elements->siblings.data + sibling->name_at;
        if (slice_equal(slice_make(at, sibling->name_size), name)) {
            *ret_raw = slice_make(at + sibling->name_size, sibling->raw_size);
            return true;
        }
    }
    return false;
}
