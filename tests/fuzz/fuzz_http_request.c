/* Fuzz: a stream of requests must be read the same whole, cut in two, and byte by byte: the same
 * heads, the same bodies, the same refusal at the end. The first two bytes choose the cut; the rest
 * is the stream. Any difference aborts. */
#include "base/mem.h"
#include "http/body.h"
#include "http/parser.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz_http_request: %s\n", what);
        abort();
    }
}

/* A checksum of all that was understood, by which two readings are compared. */
struct trace {
    uint64_t sum;
    uint64_t items;
};

static void note(struct trace *trace, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size; i++) {
        trace->sum = (trace->sum ^ at[i]) * 0x100000001b3u;
    }
}

static void note_number(struct trace *trace, int64_t number)
{
    note(trace, &number, sizeof(number));
    trace->items++;
}

struct reading {
    struct trace trace;
    struct http_parser parser;
    struct http_head head;
    struct http_body body;
    size_t begin; /* of the current head or of the body's unread bytes */
    bool in_body;
    bool is_over;
};

static void note_head(struct reading *reading, const uint8_t *head)
{
    const struct http_head *parsed = &reading->head;
    note_number(&reading->trace, parsed->method);
    note_number(&reading->trace, parsed->refusal.status);
    note_number(&reading->trace, parsed->body_bytes);
    note_number(&reading->trace, parsed->keep_alive);
    note(&reading->trace, head + parsed->target, parsed->target_size);
    must((size_t)parsed->path + parsed->path_size <= parsed->size, "the path is outside");
    must((size_t)parsed->query + parsed->query_size <= parsed->size, "the query is outside");
    for (uint32_t i = 0; i < parsed->field_count; i++) {
        const struct http_field *field = &parsed->fields[i];
        must((size_t)field->name + field->name_size <= parsed->size, "a name is outside");
        must((size_t)field->value + field->value_size <= parsed->size, "a value is outside");
        note(&reading->trace, head + field->name, field->name_size);
        note(&reading->trace, head + field->value, field->value_size);
        note_number(&reading->trace, (int64_t)i);
    }
}

/* True: there may be more to read in what is there. */
static bool read_head(struct reading *reading, const uint8_t *data, size_t end)
{
    const uint8_t *head = data + reading->begin;
    if (end == reading->begin) {
        return false;
    }
    switch (http_parser_step(&reading->parser, &reading->head, head, end - reading->begin)) {
    case HTTP_PARSE_MORE:
        return false;
    case HTTP_PARSE_BAD:
        must(reading->parser.fault.status >= 400, "a fault without a status");
        note_number(&reading->trace, reading->parser.fault.status);
        reading->is_over = true;
        return false;
    case HTTP_PARSE_DONE:
        break;
    }
    must(reading->head.size <= end - reading->begin, "a head longer than its bytes");
    note_head(reading, head);
    reading->begin += reading->head.size;
    http_body_init(&reading->body, reading->head.body_bytes);
    reading->in_body = true;
    return true;
}

static bool read_body(struct reading *reading, const uint8_t *data, size_t end)
{
    struct slice rest = slice_make(data + reading->begin, end - reading->begin);
    struct slice bytes = {NULL, 0};
    enum http_body_step step = HTTP_BODY_BYTES;
    while (step == HTTP_BODY_BYTES) {
        step = http_body_step(&reading->body, &rest, &bytes);
        if (step == HTTP_BODY_BYTES) {
            must(bytes.size > 0, "an empty piece");
            note(&reading->trace, bytes.data, bytes.size);
        }
    }
    reading->begin = end - rest.size;
    if (step == HTTP_BODY_BAD) {
        note_number(&reading->trace, reading->body.fault.status);
        reading->is_over = true;
        return false;
    }
    if (step == HTTP_BODY_END) {
        note_number(&reading->trace, -1);
        reading->in_body = false;
        reading->is_over = !reading->head.keep_alive;
        http_parser_init(&reading->parser, &reading->head);
        return !reading->is_over;
    }
    must(rest.size == 0, "bytes are left and more is wanted");
    return false;
}

static void read_up_to(struct reading *reading, const uint8_t *data, size_t end)
{
    bool goes_on = !reading->is_over;
    while (goes_on) {
        goes_on = reading->in_body ? read_body(reading, data, end) : read_head(reading, data, end);
    }
}

static struct trace read_stream(const uint8_t *data, size_t size, size_t first, size_t step)
{
    static struct reading reading;
    reading = (struct reading){0};
    http_parser_init(&reading.parser, &reading.head);
    for (size_t end = first; end < size; end += step) {
        read_up_to(&reading, data, end);
    }
    read_up_to(&reading, data, size);
    return reading.trace;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    /* A block of its own, so that a sanitizer sees a read past the end. */
    size_t cut = (size_t)(data[0] << 8 | data[1]);
    uint8_t *stream = mem_alloc(size - 2);
    memcpy(stream, data + 2, size - 2);
    size -= 2;
    struct trace whole = read_stream(stream, size, size, 1);
    struct trace two = read_stream(stream, size, size == 0 ? 0 : cut % size, size + 1);
    struct trace bytes = read_stream(stream, size, 1, 1);
    must(whole.sum == two.sum && whole.items == two.items, "cut in two it reads differently");
    must(whole.sum == bytes.sum && whole.items == bytes.items, "byte by byte it reads differently");
    mem_free(stream);
    return 0;
}
