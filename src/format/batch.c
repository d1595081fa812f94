/* Format batch: the elements of a body that comes in chunks.
 *
 * Happy path: the body is cut into elements; each complete one is read as a document of its own.
 * Arrays are verified as a whole while they are cut; of lines each is verified when it is read.
 *
 * A slice of an upload begins at an element in the middle of an array. It is read as an array of
 * its own: a '[' goes first, and it ends after its count of elements, whatever follows.
 *
 * Failure modes: a body that is malformed anywhere is refused as a whole; the fault's offset counts
 * from the body's first byte. An element above LIMIT_EVENT_BYTES is one rejected item. */
#include "format/reader.h"

#include <assert.h>

static const struct json_elements_options format_elements_options = {
    .json = {.depth_max = LIMIT_JSON_DEPTH, .string_bytes_max = 4 * LIMIT_EVENT_BYTES},
    .shape = JSON_SHAPE_ARRAY,
    .element_bytes_max = LIMIT_EVENT_BYTES,
};

static enum json_shape format_batch_shape(enum record_form form)
{
    assert(format_form_is_batch(form));
    if (form == RECORD_FORM_EVENT_LINES || form == RECORD_FORM_READING_LINES) {
        return JSON_SHAPE_LINES;
    }
    bool is_member = form == RECORD_FORM_SEGMENT_BATCH || form == RECORD_FORM_POSTHOG_BATCH;
    return is_member ? JSON_SHAPE_MEMBER : JSON_SHAPE_ARRAY;
}

/* No element is in hand: what a large one needed is given back. */
static void format_batch_rest(struct format_reader *reader)
{
    buffer_shrink(&reader->texts, FORMAT_KEEP_BYTES);
    buffer_shrink(&reader->attributes, FORMAT_KEEP_BYTES);
    buffer_shrink(&reader->payload, FORMAT_KEEP_BYTES);
}

static void format_batch_reset(struct format_reader *reader, enum record_form form,
                               enum json_shape shape, const struct format_context *context)
{
    reader->batch = (struct format_batch){
        .form = form,
        .context = *context,
        .count_left = UINT64_MAX,
    };
    if (reader->elements == NULL) {
        reader->elements = json_elements_create(&format_elements_options);
    }
    json_elements_reset(reader->elements, shape, SLICE_LITERAL("batch"));
    format_batch_rest(reader);
}

void format_batch_begin(struct format_reader *reader, enum record_form form,
                        const struct format_context *context)
{
    format_batch_reset(reader, form, format_batch_shape(form), context);
}

void format_batch_begin_at(struct format_reader *reader, enum record_form form,
                           const struct format_context *context, uint64_t first_index,
                           uint64_t element_count)
{
    bool is_lines = format_batch_shape(form) == JSON_SHAPE_LINES;
    format_batch_reset(reader, form, is_lines ? JSON_SHAPE_LINES : JSON_SHAPE_ARRAY, context);
    reader->batch.first_index = first_index;
    reader->batch.count_left = element_count;
    if (!is_lines) {
        reader->batch.offset_before = 1;
        json_elements_feed(reader->elements, SLICE_LITERAL("["));
    }
}

void format_batch_feed(struct format_reader *reader, struct slice chunk)
{
    format_batch_rest(reader); /* readers of slow bodies wait between chunks, many at a time */
    reader->batch.chunk = chunk;
}

static enum err format_batch_refuse(struct format_reader *reader, enum err err)
{
    struct json_fault fault = json_elements_fault(reader->elements);
    uint64_t before = reader->batch.offset_before;
    const char *code = err == ERR_INVALID ? "invalid_type" : err_code(err);
    const char *message = err == ERR_INVALID ? "the body is not a list of events" : fault.message;
    format_fault_set(&reader->batch.fault, code, message, "",
                     fault.offset < before ? 0 : fault.offset - before);
    return err;
}

/* One element as an item; an error is the whole body's. */
static enum err format_batch_take(struct format_reader *reader, const struct json_element *element,
                                  struct format_item *ret)
{
    struct format_batch *batch = &reader->batch;
    ret->index = batch->first_index + element->index;
    ret->offset = element->offset - batch->offset_before;
    ret->bytes = element->raw.size;
    if (element->too_large) {
        ret->err = ERR_TOO_LARGE;
        format_fault_set(&ret->fault, err_code(ERR_TOO_LARGE),
                         "the event is larger than 262144 bytes", "", 0);
        return ERR_OK;
    }
    batch->context.index = ret->index;
    ret->err = format_event_read(reader, batch->form, element->raw, &batch->context, &ret->event,
                                 &ret->fault);
    if (ret->err == ERR_OK || ret->err == ERR_INVALID || ret->err == ERR_TOO_LARGE) {
        return ERR_OK;
    }
    batch->fault = ret->fault;
    batch->fault.offset += ret->offset;
    return ret->err;
}

enum err format_batch_next(struct format_reader *reader, struct format_item *ret, bool *ret_has)
{
    struct format_batch *batch = &reader->batch;
    struct json_element element;
    bool has = false;
    while (batch->count_left > 0) {
        enum err err = json_elements_next(reader->elements, &element, &has);
        if (err != ERR_OK) {
            return format_batch_refuse(reader, err);
        }
        if (has) {
            batch->count_left -= batch->count_left == UINT64_MAX ? 0 : 1;
            *ret_has = true;
            return format_batch_take(reader, &element, ret);
        }
        if (batch->chunk.size == 0) {
            break;
        }
        json_elements_feed(reader->elements, batch->chunk);
        batch->chunk = slice_make(NULL, 0);
    }
    *ret_has = false;
    return ERR_OK;
}

enum err format_batch_end(struct format_reader *reader, struct format_item *ret, bool *ret_has)
{
    struct format_batch *batch = &reader->batch;
    struct json_element element;
    bool has = false;
    *ret_has = false;
    if (batch->count_left == 0) {
        return ERR_OK;
    }
    enum err err = json_elements_end(reader->elements, &element, &has);
    /* A slice ends where the next one begins, so its array has no end. */
    bool is_open_slice = batch->count_left != UINT64_MAX && batch->offset_before != 0;
    if (err != ERR_OK && !is_open_slice) {
        return format_batch_refuse(reader, err);
    }
    if (err == ERR_OK && has) {
        batch->count_left -= batch->count_left == UINT64_MAX ? 0 : 1;
        *ret_has = true;
        return format_batch_take(reader, &element, ret);
    }
    if (batch->count_left != 0 && batch->count_left != UINT64_MAX) {
        format_fault_set(&batch->fault, err_code(ERR_SYNTAX), "elements are missing", "", 0);
        return ERR_SYNTAX;
    }
    return ERR_OK;
}

struct format_fault format_batch_fault(const struct format_reader *reader)
{
    return reader->batch.fault;
}
