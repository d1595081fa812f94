/* Fuzz: a body of several elements, whole, in pieces and as slices of an upload, must give the same
 * events and faults. The first byte chooses the form, the second the pieces; the rest is the body.
 */
#include "base/hash.h"
#include "format/format.h"

#include <stdio.h>
#include <stdlib.h>

#define TRACE_BYTES_MAX ((size_t)256 << 20)
#define PLACES_MAX      64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t id_key[32] = {1};

static void must(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz_format_lines: %s\n", what);
        abort();
    }
}

struct walk {
    struct format_reader *reader;
    struct buffer trace;
    uint64_t base;               /* of a slice in the body */
    uint64_t places[PLACES_MAX]; /* offsets of the first elements */
    uint64_t count;
};

static void note(struct walk *walk, const struct format_item *item)
{
    struct buffer *to = &walk->trace;
    uint64_t offset = item->offset + walk->base;
    if (walk->count < PLACES_MAX) {
        walk->places[walk->count] = offset;
    }
    walk->count++;
    must(buffer_printf(to, "%llu %llu %llu %d ", (unsigned long long)item->index,
                       (unsigned long long)offset, (unsigned long long)item->bytes,
                       (int)item->err) == ERR_OK,
         "no memory");
    if (item->err == ERR_OK) {
        must(buffer_append(to, item->event.id.bytes, sizeof(item->event.id.bytes)) == ERR_OK &&
                 buffer_append_slice(to, item->event.type) == ERR_OK &&
                 buffer_append_slice(to, item->event.payload) == ERR_OK &&
                 buffer_append_slice(to, item->event.subject) == ERR_OK &&
                 buffer_append_slice(to, item->event.attributes) == ERR_OK,
             "no memory");
    } else {
        must(buffer_append_text(to, item->fault.code) == ERR_OK &&
                 buffer_append_text(to, item->fault.pointer) == ERR_OK,
             "no memory");
    }
    must(buffer_append_byte(to, '\n') == ERR_OK, "no memory");
}

static enum err feed(struct walk *walk, struct slice chunk)
{
    struct format_item item;
    bool has = true;
    format_batch_feed(walk->reader, chunk);
    while (has) {
        enum err err = format_batch_next(walk->reader, &item, &has);
        if (err != ERR_OK) {
            return err;
        }
        if (has) {
            note(walk, &item);
        }
    }
    return ERR_OK;
}

static enum err finish(struct walk *walk, enum err err)
{
    struct format_item item;
    bool has = false;
    if (err == ERR_OK) {
        err = format_batch_end(walk->reader, &item, &has);
    }
    if (err == ERR_OK && has) {
        note(walk, &item);
    }
    if (err != ERR_OK) {
        struct format_fault fault = format_batch_fault(walk->reader);
        must(fault.code != NULL, "a refusal without a reason");
        must(buffer_printf(&walk->trace, "%s %llu", fault.code, (unsigned long long)fault.offset) ==
                 ERR_OK,
             "no memory");
    }
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum record_form forms[] = {RECORD_FORM_EVENT_ARRAY, RECORD_FORM_EVENT_LINES,
                                             RECORD_FORM_CLOUDEVENT_BATCH,
                                             RECORD_FORM_SEGMENT_BATCH, RECORD_FORM_POSTHOG_BATCH};
    static struct walk whole;
    static struct walk other;
    if (size < 2) {
        return 0;
    }
    must(hash_start() == ERR_OK, "no hash");
    struct format_context context = {.id_key = id_key, .received_ms = 1700000000000};
    enum record_form form = forms[data[0] % 5];
    size_t piece = data[1] % 32 + 1u;
    struct slice body = slice_make(data + 2, size - 2);
    whole = (struct walk){.reader = format_reader_create()};
    other = (struct walk){.reader = format_reader_create()};
    buffer_init(&whole.trace, TRACE_BYTES_MAX);
    buffer_init(&other.trace, TRACE_BYTES_MAX);

    format_batch_begin(whole.reader, form, &context);
    enum err err = finish(&whole, feed(&whole, body));

    format_batch_begin(other.reader, form, &context);
    enum err cut_err = ERR_OK;
    for (size_t at = 0; at < body.size && cut_err == ERR_OK; at += piece) {
        struct slice part = slice_part(body, at, at + piece);
        uint8_t *copy = malloc(part.size); /* so that a look beyond the piece is seen */
        must(copy != NULL, "no memory");
        memcpy(copy, part.data, part.size);
        cut_err = feed(&other, slice_make(copy, part.size));
        free(copy);
    }
    cut_err = finish(&other, cut_err);
    must(err == cut_err, "pieces end otherwise");
    must(slice_equal(buffer_slice(&whole.trace), buffer_slice(&other.trace)), "pieces differ");

    if (err == ERR_OK && whole.count <= PLACES_MAX) {
        buffer_clear(&other.trace);
        for (uint64_t i = 0; i < whole.count; i += piece) {
            uint64_t next = i + piece < whole.count ? i + piece : whole.count;
            uint64_t end = next < whole.count ? whole.places[next] : body.size;
            format_batch_begin_at(other.reader, form, &context, i, next - i);
            other.base = whole.places[i];
            must(finish(&other, feed(&other, slice_part(body, whole.places[i], end))) == ERR_OK,
                 "a slice is refused");
        }
        must(slice_equal(buffer_slice(&whole.trace), buffer_slice(&other.trace)), "slices differ");
    }
    format_reader_destroy(whole.reader);
    format_reader_destroy(other.reader);
    buffer_finish(&whole.trace);
    buffer_finish(&other.trace);
    return 0;
}
