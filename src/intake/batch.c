/* Intake batch: a body of several elements that is whole, appended as one frame.
 *
 * Every element is read before the frame is appended, so a body that is malformed anywhere leaves
 * nothing behind. Rejected elements stay in the frame's body: reading it again rejects them again.
 */
#include "base/metrics.h"
#include "intake/request.h"

static enum err intake_batch_read(struct intake_request *request, struct slice body)
{
    struct format_reader *reader = request->intake->reader;
    struct format_context context;
    intake_context(request, &context);
    context.ids = intake_tally_ids(request);
    struct format_item item;
    bool has = true;
    format_batch_begin(reader, request->form, &context);
    format_batch_feed(reader, body);
    while (has) {
        enum err err = format_batch_next(reader, &item, &has);
        if (err == ERR_OK && has) {
            err = intake_tally_add(request, reader, &item);
        }
        if (err != ERR_OK) {
            return err;
        }
    }
    enum err err = format_batch_end(reader, &item, &has);
    if (err == ERR_OK && has) {
        err = intake_tally_add(request, reader, &item);
    }
    return err == ERR_OK ? intake_tally_end(request) : err;
}

void intake_batch(struct intake_request *request, struct slice body)
{
    struct intake_tally *tally = &request->tally;
    enum err err = intake_batch_read(request, body);
    if (err != ERR_OK) {
        struct format_fault fault = format_batch_fault(request->intake->reader);
        tally->rejected = 0;
        intake_refuse(request, err, &fault);
        return;
    }
    if (!intake_takes_any(request)) {
        return;
    }
    struct record_frame *frame = intake_frame(request, request->form);
    frame->lane = tally->lane;
    frame->record_count = (uint32_t)(tally->accepted + tally->duplicates);
    frame->body = body;
    intake_append(request, frame);
}
