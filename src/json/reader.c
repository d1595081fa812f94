/* Reader: turns chunks cut at any byte into tokens, without recursion and without a tree.
 *
 * What is open is one bit per container (object or array); what may come next is `expect`. Reading
 * has two halves:
 *
 * - The run takes whole tokens out of the chunk, with its state in locals and the vector scans of
 *   json/scan.h. It takes only what it is sure of and stops before anything else: a token that the
 *   end of the chunk cuts, one above its bound, a byte that is not permitted.
 * - The part goes on from such a stop. It moves the token's bytes into the carry until it is whole,
 *   or names the fault. So every fault is found in one place, and a token is handled the same
 *   however many chunks it came in. Because the carry serves one token at a time, the run first
 *   hands over the tokens it has.
 *
 *            a whole token                    the token is whole
 *          +-------------+                  +-----------------+
 *          v             |   cut, odd       |                 v
 *         run -----------+----------------> part           (token)  -> run
 *          | fault                           | fault
 *          +------------> broken <-----------+
 *
 * A string's text is settled up to `settled`: the scan goes on from there when more bytes come, so
 * the work is linear also when they come one at a time. A number keeps its state. Literals need no
 * carry: their text is known.
 *
 * Bounds: string_bytes_max is checked against the place at which a text ends or goes wrong,
 * whichever comes first, so the answer does not depend on the cuts. The carry grows with what is
 * cut, up to that bound.
 *
 * Failure modes: the first fault is final until reset. No memory for the carry: ERR_NO_MEMORY. */
#include "base/mem.h"
#include "json/json.h"
#include "json/number.h"
#include "json/scan.h"
#include "json/text.h"

#define READER_DEPTH_MAX   1024u
#define READER_PIECE_BYTES 64u   /* moved into the carry before the first look at it */
#define READER_TAIL_BYTES  16u   /* an unsettled escape or sequence has fewer */
#define READER_KEEP_BYTES  4096u /* of carry over a reset */
#define HOT                static inline __attribute__((always_inline))

enum reader_expect {
    EXPECT_VALUE,
    EXPECT_FIRST_ELEMENT, /* a value or ']' */
    EXPECT_FIRST_KEY,     /* a key or '}' */
    EXPECT_KEY,
    EXPECT_COLON,
    EXPECT_AFTER, /* ',' or the container's end; at depth 0 nothing more */
};

enum reader_part { PART_NONE, PART_STRING, PART_NUMBER, PART_LITERAL };

struct reader_literal {
    const char *text;
    uint32_t size;
    uint8_t kind; /* enum json_kind */
    bool is_text; /* the token carries it */
};

static const struct reader_literal reader_literals[] = {
    {"true", 4, JSON_TRUE, false},      {"false", 5, JSON_FALSE, false},
    {"null", 4, JSON_NULL, false},      {"NaN", 3, JSON_NUMBER, true},
    {"Infinity", 8, JSON_NUMBER, true}, {"-Infinity", 9, JSON_NUMBER, true},
};
#define LITERAL_NAN            3
#define LITERAL_MINUS_INFINITY 5
#define LITERAL_COUNT          (sizeof(reader_literals) / sizeof(reader_literals[0]))

struct json_reader {
    const uint8_t *at; /* of the chunk; all before is read */
    const uint8_t *end;
    uint64_t delta; /* plus an address of the chunk: its offset in the stream */
    uint64_t end_offset;
    json_plain_fn plain;
    struct json_options options;
    uint32_t depth;
    uint8_t expect; /* enum reader_expect */
    uint8_t part;   /* enum reader_part */
    bool in_object;
    bool part_escaped;
    uint8_t part_state;   /* numbers: enum json_number_state; literals: bytes matched */
    uint8_t part_literal; /* index of reader_literals */
    uint64_t part_offset; /* of the token's first byte */
    size_t settled;       /* bytes of carry */
    struct buffer carry;  /* the part's text so far */
    enum err err;         /* first fault; final */
    struct json_fault fault;
    uint64_t objects[READER_DEPTH_MAX / 64]; /* bit per open container: 1 = object */
};

/* The run's copy of what it changes, so that it can stay in registers. */
struct run {
    const uint8_t *at;
    const uint8_t *end;
    struct json_token *out;
    struct json_token *out_end;
    uint64_t delta;
    uint32_t depth;
    uint32_t text_max;
    uint8_t expect;
    bool in_object;
};

struct json_reader *json_reader_create(const struct json_options *options)
{
    assert(options->depth_max >= 1 && options->depth_max <= READER_DEPTH_MAX);
    assert(options->string_bytes_max >= 1);
    struct json_reader *reader = mem_alloc(sizeof(*reader));
    reader->options = *options;
    reader->plain = json_plain_choose();
    buffer_init(&reader->carry, (size_t)options->string_bytes_max + READER_TAIL_BYTES);
    json_reader_reset(reader);
    return reader;
}

void json_reader_destroy(struct json_reader *reader)
{
    if (reader != NULL) {
        buffer_finish(&reader->carry);
        mem_free(reader);
    }
}

void json_reader_reset(struct json_reader *reader)
{
    reader->at = NULL;
    reader->end = NULL;
    reader->delta = 0;
    reader->end_offset = 0;
    reader->depth = 0;
    reader->expect = EXPECT_VALUE;
    reader->part = PART_NONE;
    reader->in_object = false;
    reader->err = ERR_OK;
    reader->fault = (struct json_fault){0};
    buffer_shrink(&reader->carry, READER_KEEP_BYTES);
}

void json_reader_feed(struct json_reader *reader, struct slice chunk)
{
    assert(reader->err != ERR_OK || reader->at == reader->end);
    reader->at = chunk.data;
    reader->end = chunk.size > 0 ? chunk.data + chunk.size : chunk.data;
    /* Modulo 2^64: only sums with addresses of this chunk are used. */
    reader->delta = reader->end_offset - (uint64_t)(uintptr_t)chunk.data;
    reader->end_offset += chunk.size;
}

struct json_fault json_reader_fault(const struct json_reader *reader)
{
    return reader->fault;
}

static bool reader_fail(struct json_reader *reader, enum err err, uint64_t offset,
                        const char *message)
{
    assert(reader->err == ERR_OK);
    reader->err = err;
    reader->fault = (struct json_fault){offset, message};
    return false;
}

static uint64_t reader_offset(const struct json_reader *reader)
{
    return (uint64_t)(uintptr_t)reader->at + reader->delta;
}

HOT void run_emit(struct run *run, enum json_kind kind, const uint8_t *from, struct slice text,
                  bool escaped)
{
    struct json_token *out = run->out++;
    out->text = text.data;
    out->offset = (uint64_t)(uintptr_t)from + run->delta;
    out->size = (uint32_t)text.size;
    out->depth = (uint16_t)run->depth;
    out->kind = (uint8_t)kind;
    out->escaped = escaped;
}

/* Behind a value: the comma that mostly follows at once is taken with it. */
HOT void run_value_done(struct run *run)
{
    run->expect = EXPECT_AFTER;
    if (run->at < run->end && *run->at == ',' && run->depth > 0) {
        run->expect = run->in_object ? EXPECT_KEY : EXPECT_VALUE;
        run->at++;
    }
}

HOT bool run_string(struct run *run, const struct json_reader *reader, enum json_kind kind)
{
    const uint8_t *text = run->at + 1;
    const uint8_t *at = json_plain_short(text, run->end);
    bool escaped = false;
    if (at == run->end || *at != '"') {
        struct json_text scan = json_text_scan(reader->plain, at, run->end);
        if (scan.result != JSON_TEXT_END) {
            return false;
        }
        at = scan.at;
        escaped = scan.escaped;
    }
    size_t size = (size_t)(at - text);
    if (size > run->text_max) {
        return false;
    }
    run_emit(run, kind, run->at, slice_make(text, size), escaped);
    run->at = at + 1;
    return true;
}

/* The end of a number without exponent of at most 15 digits and point, or NULL: ask the table. */
HOT const uint8_t *run_short_number(const uint8_t *at, const uint8_t *end)
{
    if (end - at < 18) {
        return NULL;
    }
    at += *at == '-';
    uint32_t other = ~scan_digit_mask(at); /* bits 16 to 31 are set */
    uint32_t digits = (uint32_t)__builtin_ctz(other);
    if (digits == 0 || (digits > 1 && *at == '0')) {
        return NULL;
    }
    if (at[digits] == '.') {
        uint32_t fraction = (uint32_t)__builtin_ctz(other >> (digits + 1));
        if (fraction == 0) {
            return NULL;
        }
        digits += 1 + fraction;
    }
    if (digits >= 16 || (at[digits] | 0x20) == 'e') {
        return NULL;
    }
    return at + digits;
}

HOT bool run_number(struct run *run)
{
    const uint8_t *from = run->at;
    const uint8_t *at = run_short_number(from, run->end);
    if (at == NULL) {
        struct json_number number = json_number_scan(JSON_NUMBER_START, from, run->end);
        if (number.at == run->end || !json_number_ends(number.state)) {
            return false;
        }
        at = number.at;
    }
    size_t size = (size_t)(at - from);
    if (size > run->text_max) {
        return false;
    }
    run_emit(run, JSON_NUMBER, from, slice_make(from, size), false);
    run->at = at;
    run_value_done(run);
    return true;
}

HOT bool run_begin(struct run *run, struct json_reader *reader)
{
    if (run->depth == reader->options.depth_max) {
        return false;
    }
    bool object = *run->at == '{';
    run_emit(run, object ? JSON_OBJECT_BEGIN : JSON_ARRAY_BEGIN, run->at, slice_make(NULL, 0),
             false);
    uint64_t bit = (uint64_t)1 << (run->depth % 64);
    uint64_t *word = &reader->objects[run->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    run->depth++;
    run->in_object = object;
    run->expect = object ? EXPECT_FIRST_KEY : EXPECT_FIRST_ELEMENT;
    run->at++;
    return true;
}

HOT bool run_end(struct run *run, const struct json_reader *reader)
{
    assert(run->depth > 0);
    run->depth--;
    run_emit(run, run->in_object ? JSON_OBJECT_END : JSON_ARRAY_END, run->at, slice_make(NULL, 0),
             false);
    uint32_t around = run->depth - 1; /* at depth 0 it wraps, and the answer is not used */
    run->in_object = run->depth > 0 && (reader->objects[around / 64] >> (around % 64) & 1) != 0;
    run->at++;
    run_value_done(run);
    return true;
}

HOT bool run_literal(struct run *run)
{
    uint8_t first = *run->at;
    if (first != 't' && first != 'f' && first != 'n') {
        return false;
    }
    const struct reader_literal *literal = &reader_literals[first == 't'   ? 0
                                                            : first == 'f' ? 1
                                                                           : 2];
    if ((size_t)(run->end - run->at) < literal->size ||
        memcmp(run->at, literal->text, literal->size) != 0) {
        return false;
    }
    run_emit(run, literal->kind, run->at, slice_make(NULL, 0), false);
    run->at += literal->size;
    run_value_done(run);
    return true;
}

HOT bool run_value(struct run *run, struct json_reader *reader)
{
    uint8_t first = *run->at;
    if (first == '"') {
        if (!run_string(run, reader, JSON_STRING)) {
            return false;
        }
        run_value_done(run);
        return true;
    }
    if ((uint8_t)(first - '0') <= 9 || first == '-') {
        return run_number(run);
    }
    if (first == '{' || first == '[') {
        return run_begin(run, reader);
    }
    return run_literal(run);
}

HOT bool run_key(struct run *run, const struct json_reader *reader)
{
    if (*run->at != '"' || !run_string(run, reader, JSON_KEY)) {
        return false;
    }
    run->expect = EXPECT_COLON;
    run->at = json_space_end(run->at, run->end);
    if (run->at < run->end && *run->at == ':') {
        run->at++;
        run->expect = EXPECT_VALUE;
    }
    return true;
}

HOT bool run_after(struct run *run, const struct json_reader *reader)
{
    if (run->depth == 0) {
        return false;
    }
    if (*run->at == ',') {
        run->expect = run->in_object ? EXPECT_KEY : EXPECT_VALUE;
        run->at++;
        return true;
    }
    return *run->at == (run->in_object ? '}' : ']') && run_end(run, reader);
}

/* One step at a byte that is not white space; false: nothing was taken, see to it by the part. */
HOT bool run_step(struct run *run, struct json_reader *reader)
{
    switch ((enum reader_expect)run->expect) {
    case EXPECT_FIRST_KEY:
        return *run->at == '}' ? run_end(run, reader) : run_key(run, reader);
    case EXPECT_KEY:
        return run_key(run, reader);
    case EXPECT_COLON:
        if (*run->at != ':') {
            return false;
        }
        run->at++;
        run->expect = EXPECT_VALUE;
        return true;
    case EXPECT_FIRST_ELEMENT:
        return *run->at == ']' ? run_end(run, reader) : run_value(run, reader);
    case EXPECT_VALUE:
        return run_value(run, reader);
    case EXPECT_AFTER:
        return run_after(run, reader);
    }
    return false;
}

/* Takes whole tokens; gives how many. Stops at the end of the chunk, of the tokens, or before what
 * it cannot take; reader->at says where. */
static size_t reader_run(struct json_reader *reader, struct json_token *tokens, size_t count)
{
    struct run run = {
        .at = reader->at,
        .end = reader->end,
        .out = tokens,
        .out_end = tokens + count,
        .delta = reader->delta,
        .depth = reader->depth,
        .text_max = reader->options.string_bytes_max,
        .expect = reader->expect,
        .in_object = reader->in_object,
    };
    while (run.out < run.out_end) {
        run.at = json_space_end(run.at, run.end);
        if (run.at == run.end || !run_step(&run, reader)) {
            break;
        }
    }
    reader->at = run.at;
    reader->depth = run.depth;
    reader->expect = run.expect;
    reader->in_object = run.in_object;
    return (size_t)(run.out - tokens);
}

static const char *reader_expected(const struct json_reader *reader)
{
    switch ((enum reader_expect)reader->expect) {
    case EXPECT_VALUE:
        return "expected a value";
    case EXPECT_FIRST_ELEMENT:
        return "expected a value or ']'";
    case EXPECT_FIRST_KEY:
        return "expected a key or '}'";
    case EXPECT_KEY:
        return "expected a key";
    case EXPECT_COLON:
        return "expected ':'";
    case EXPECT_AFTER:
        break;
    }
    if (reader->depth == 0) {
        return "expected the end of the document";
    }
    return reader->in_object ? "expected ',' or '}'" : "expected ',' or ']'";
}

/* Begins a literal with this first byte; false when there is none. */
static bool part_begin_literal(struct json_reader *reader, uint8_t first)
{
    size_t count = reader->options.nan_is_number ? LITERAL_MINUS_INFINITY : LITERAL_NAN;
    for (size_t i = 0; i < count; i++) {
        if ((uint8_t)reader_literals[i].text[0] == first) {
            reader->part = PART_LITERAL;
            reader->part_literal = (uint8_t)i;
            reader->part_state = 0;
            return true;
        }
    }
    return false;
}

/* At a byte before which the run stopped: a part begins, or it is a fault. */
static void part_begin(struct json_reader *reader)
{
    uint8_t first = *reader->at;
    bool value = reader->expect == EXPECT_VALUE || reader->expect == EXPECT_FIRST_ELEMENT;
    bool key = reader->expect == EXPECT_KEY || reader->expect == EXPECT_FIRST_KEY;
    reader->part_offset = reader_offset(reader);
    reader->part_escaped = false;
    reader->settled = 0;
    buffer_clear(&reader->carry);
    if (first == '"' && (value || key)) {
        reader->part = PART_STRING;
        reader->at++;
    } else if (value && (first == '-' || (first >= '0' && first <= '9'))) {
        reader->part = PART_NUMBER;
        reader->part_state = JSON_NUMBER_START;
    } else if (value && (first == '{' || first == '[')) {
        (void)reader_fail(reader, ERR_DEPTH, reader->part_offset, "nested too deep");
    } else if (!value || !part_begin_literal(reader, first)) {
        (void)reader_fail(reader, ERR_SYNTAX, reader->part_offset, reader_expected(reader));
    }
}

/* The part is whole: its token. */
static bool part_finish(struct json_reader *reader, enum json_kind kind, struct slice text,
                        struct json_token *ret)
{
    *ret = (struct json_token){
        .text = text.data,
        .offset = reader->part_offset,
        .size = (uint32_t)text.size,
        .depth = (uint16_t)reader->depth,
        .kind = (uint8_t)kind,
        .escaped = reader->part_escaped,
    };
    reader->part = PART_NONE;
    reader->expect = kind == JSON_KEY ? EXPECT_COLON : EXPECT_AFTER;
    return true;
}

static bool part_carry(struct json_reader *reader, size_t size)
{
    if (buffer_append(&reader->carry, reader->at, size) != ERR_OK) {
        return reader_fail(reader, ERR_NO_MEMORY, reader_offset(reader), "no memory for the text");
    }
    reader->at += size;
    return true;
}

static const char *part_text_message(uint8_t result)
{
    switch ((enum json_text_result)result) {
    case JSON_TEXT_CONTROL:
        return "control character in a string";
    case JSON_TEXT_ESCAPE:
        return "wrong escape in a string";
    case JSON_TEXT_UTF8:
        return "a string is not UTF-8";
    case JSON_TEXT_END:
    case JSON_TEXT_CUT:
        break;
    }
    return "string";
}

/* The parts give true when their token is whole. */
static bool part_string(struct json_reader *reader, struct json_token *ret)
{
    struct buffer *carry = &reader->carry;
    uint32_t text_max = reader->options.string_bytes_max;
    size_t piece = READER_PIECE_BYTES;
    while (reader->at < reader->end) {
        size_t size = (size_t)(reader->end - reader->at);
        size_t room = carry->bytes_max - carry->size;
        size = size < piece ? size : piece;
        size = size < room ? size : room;
        assert(size > 0);
        if (!part_carry(reader, size)) {
            return false;
        }
        struct json_text scan =
            json_text_scan(reader->plain, carry->data + reader->settled, carry->data + carry->size);
        reader->settled = (size_t)(scan.at - carry->data);
        reader->part_escaped = reader->part_escaped || scan.escaped;
        if (reader->settled > text_max) {
            return reader_fail(reader, ERR_TOO_LARGE, reader->part_offset + 1 + text_max,
                               "string too long");
        }
        if (scan.result == JSON_TEXT_END) {
            reader->at -= carry->size - reader->settled - 1;
            bool key = reader->expect == EXPECT_KEY || reader->expect == EXPECT_FIRST_KEY;
            return part_finish(reader, key ? JSON_KEY : JSON_STRING,
                               slice_make(carry->data, reader->settled), ret);
        }
        if (scan.result != JSON_TEXT_CUT) {
            return reader_fail(reader, ERR_SYNTAX, reader->part_offset + 1 + reader->settled,
                               part_text_message(scan.result));
        }
        piece *= 2;
    }
    return false;
}

static bool part_number(struct json_reader *reader, struct json_token *ret)
{
    struct json_number scan = json_number_scan(reader->part_state, reader->at, reader->end);
    size_t size = (size_t)(scan.at - reader->at);
    uint32_t text_max = reader->options.string_bytes_max;
    if (size > text_max - reader->carry.size) {
        return reader_fail(reader, ERR_TOO_LARGE, reader->part_offset + text_max,
                           "number too long");
    }
    if (!part_carry(reader, size)) {
        return false;
    }
    reader->part_state = scan.state;
    if (reader->at == reader->end) {
        return false;
    }
    if (json_number_ends(scan.state)) {
        return part_finish(reader, JSON_NUMBER, buffer_slice(&reader->carry), ret);
    }
    if (scan.state == JSON_NUMBER_MINUS && *reader->at == 'I' && reader->options.nan_is_number) {
        reader->part = PART_LITERAL;
        reader->part_literal = LITERAL_MINUS_INFINITY;
        reader->part_state = 1;
        return false;
    }
    return reader_fail(reader, ERR_SYNTAX, reader_offset(reader), "expected a digit");
}

static bool part_literal(struct json_reader *reader, struct json_token *ret)
{
    assert(reader->part_literal < LITERAL_COUNT);
    const struct reader_literal *literal = &reader_literals[reader->part_literal];
    while (reader->at < reader->end && reader->part_state < literal->size) {
        if (*reader->at != (uint8_t)literal->text[reader->part_state]) {
            return reader_fail(reader, ERR_SYNTAX, reader_offset(reader), "not a literal of JSON");
        }
        reader->at++;
        reader->part_state++;
    }
    if (reader->part_state < literal->size) {
        return false;
    }
    struct slice text = slice_make(literal->text, literal->size);
    return part_finish(reader, literal->kind, literal->is_text ? text : slice_make(NULL, 0), ret);
}

/* Goes on with the part; true when its token is whole; false when it needs more bytes, became
 * another kind of part, or is at fault. */
static bool part_step(struct json_reader *reader, struct json_token *ret)
{
    switch ((enum reader_part)reader->part) {
    case PART_STRING:
        return part_string(reader, ret);
    case PART_NUMBER:
        return part_number(reader, ret);
    case PART_LITERAL:
        return part_literal(reader, ret);
    case PART_NONE:
        break;
    }
    return false;
}

enum err json_reader_read(struct json_reader *reader, struct json_token *tokens, size_t count,
                          size_t *ret_count)
{
    assert(count > 0);
    size_t filled = 0;
    while (reader->err == ERR_OK && reader->at < reader->end && filled < count) {
        if (reader->part != PART_NONE) {
            filled += part_step(reader, tokens + filled);
            continue;
        }
        filled += reader_run(reader, tokens + filled, count - filled);
        if (reader->at < reader->end && filled < count) {
            if (filled > 0) {
                break;
            }
            part_begin(reader);
        }
    }
    if (filled == 0 && reader->err != ERR_OK) {
        return reader->err;
    }
    *ret_count = filled;
    return ERR_OK;
}

enum err json_reader_end(struct json_reader *reader, struct json_token *ret_token,
                         bool *ret_has_token)
{
    if (reader->err != ERR_OK) {
        return reader->err;
    }
    assert(reader->at == reader->end);
    bool number =
        reader->part == PART_NUMBER && reader->depth == 0 && json_number_ends(reader->part_state);
    if (number) {
        *ret_has_token = part_finish(reader, JSON_NUMBER, buffer_slice(&reader->carry), ret_token);
        return ERR_OK;
    }
    if (reader->part != PART_NONE || reader->depth > 0 || reader->expect != EXPECT_AFTER) {
        (void)reader_fail(reader, ERR_SYNTAX, reader->end_offset, "the document ends too early");
        return reader->err;
    }
    *ret_has_token = false;
    return ERR_OK;
}

void json_document_begin(struct json_reader *reader, struct slice document)
{
    json_reader_reset(reader);
    json_reader_feed(reader, document);
}

enum err json_document_next(struct json_reader *reader, struct json_token *tokens, size_t count,
                            size_t *ret_count)
{
    size_t filled = 0;
    enum err err = json_reader_read(reader, tokens, count, &filled);
    if (err == ERR_OK && filled == 0) {
        bool has_token = false;
        err = json_reader_end(reader, tokens, &has_token);
        filled = has_token;
    }
    if (err == ERR_OK) {
        *ret_count = filled;
    }
    return err;
}
