/* Intake single: one event, read once, appended as one frame. */
#include "base/metrics.h"
#include "intake/request.h"

static enum err intake_single_read(struct intake_request *request, struct record_frame *frame,
                                   struct record_event *ret, struct format_fault *ret_fault)
{
    struct format_reader *reader = request->intake->reader;
    struct format_context context;
    intake_context(request, &context);
    if (request->form == RECORD_FORM_CLOUDEVENT_BINARY) {
        return format_cloudevent_binary_read(reader, frame, &context, ret, ret_fault);
    }
    return format_event_read(reader, request->form, frame->body, &context, ret, ret_fault);
}

void intake_single(struct intake_request *request, struct slice body)
{
    struct record_event event;
    struct format_fault fault;
    struct record_frame *frame = intake_frame(request, request->form);
    frame->body = body;
    enum err err = intake_single_read(request, frame, &event, &fault);
    if (err != ERR_OK) {
        request->tally.rejected = err == ERR_INVALID ? 1 : 0;
        intake_refuse(request, err, &fault);
        return;
    }
    frame->lane = record_event_lane(request->org, &event);
    request->event_id = event.id;
    request->tally.accepted = 1;
    intake_call_known(request, event.id);
    intake_append(request, frame);
}
