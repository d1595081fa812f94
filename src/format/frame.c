/* Format frame: single events, and a whole frame of any form, one event at a time. */
#include "format/reader.h"

#include <assert.h>

void format_context_of_frame(const struct record_frame *frame, const uint8_t id_key[32],
                             struct format_context *ret)
{
    *ret = (struct format_context){
        .id_key = id_key,
        .frame_id = frame->id,
        .received_ms = frame->received_ms,
        .idempotency_key = record_frame_attribute(frame, "idempotency-key"),
        .traceparent = record_frame_attribute(frame, "traceparent"),
        .call = record_frame_attribute(frame, "call"),
        .device = record_frame_attribute(frame, "device"),
    };
}

enum err format_event_read(struct format_reader *reader, enum record_form form, struct slice raw,
                           const struct format_context *context, struct record_event *ret,
                           struct format_fault *ret_fault)
{
    const struct format_shape *shape = format_shape_of(form);
    assert(shape != NULL);
    if (raw.size > LIMIT_EVENT_BYTES) {
        format_fault_set(ret_fault, err_code(ERR_TOO_LARGE),
                         "the event is larger than 262144 bytes", "", LIMIT_EVENT_BYTES);
        return ERR_TOO_LARGE;
    }
    format_draft_begin(reader, context, raw.size);
    reader->draft.is_single = !format_form_is_batch(form);
    enum err err = format_object_read(reader, shape, raw, ret_fault);
    if (err != ERR_OK) {
        return err;
    }
    return format_draft_end(reader, ret, ret_fault);
}

enum err format_frame_begin(struct format_reader *reader, const struct record_frame *frame,
                            const uint8_t id_key[32])
{
    enum record_form form = (enum record_form)frame->form;
    bool is_batch = format_form_is_batch(form);
    if (!is_batch && form != RECORD_FORM_CLOUDEVENT_BINARY && format_shape_of(form) == NULL) {
        return ERR_INVALID;
    }
    reader->frame.record = frame;
    reader->frame.is_batch = is_batch;
    reader->frame.is_done = false;
    format_context_of_frame(frame, id_key, &reader->frame.context);
    if (is_batch) {
        format_batch_begin(reader, form, &reader->frame.context);
        format_batch_feed(reader, frame->body);
    }
    return ERR_OK;
}

static enum err format_frame_next_batch(struct format_reader *reader, struct format_item *ret,
                                        bool *ret_has)
{
    enum err err = format_batch_next(reader, ret, ret_has);
    if (err != ERR_OK || *ret_has) {
        return err;
    }
    reader->frame.is_done = true;
    return format_batch_end(reader, ret, ret_has);
}

enum err format_frame_next(struct format_reader *reader, struct format_item *ret, bool *ret_has)
{
    struct format_frame_walk *walk = &reader->frame;
    if (walk->is_done) {
        *ret_has = false;
        return ERR_OK;
    }
    if (walk->is_batch) {
        return format_frame_next_batch(reader, ret, ret_has);
    }
    const struct record_frame *frame = walk->record;
    walk->is_done = true;
    ret->index = 0;
    ret->offset = 0;
    ret->bytes = frame->body.size;
    if (frame->form == RECORD_FORM_CLOUDEVENT_BINARY) {
        ret->err =
            format_cloudevent_binary_read(reader, frame, &walk->context, &ret->event, &ret->fault);
    } else {
        ret->err = format_event_read(reader, (enum record_form)frame->form, frame->body,
                                     &walk->context, &ret->event, &ret->fault);
    }
    *ret_has = true;
    bool is_item = ret->err == ERR_OK || ret->err == ERR_INVALID || ret->err == ERR_TOO_LARGE;
    return is_item ? ERR_OK : ret->err;
}
