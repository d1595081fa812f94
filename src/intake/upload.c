/* Intake upload: a batch above 256 KiB goes to a file of its own while it is still coming.
 *
 * Happy path: the journal gives it a slot; each chunk is read, then written. About every MiB or
 * 8,192 elements a row of the table of contents is noted, so that the applier can take the upload
 * in slices. At the end the rejected elements are noted and the end record is appended as a frame:
 * from then on the upload exists.
 *
 * Failure modes: malformed: the file goes, the answer says where. An atomic batch with a rejected
 * element: the file goes, the rest is read so that the answer can name all of them. The journal
 * asks for a pause: reading stops until it has room, also behind the last byte. No slot, or no room
 * for a beginning: the request pauses with what has come, until it can begin. */
#include <assert.h>

#include "base/mem.h"
#include "intake/request.h"

static struct intake_upload *intake_upload_take(struct intake *intake)
{
    struct intake_upload *upload = intake->uploads_unused;
    if (upload != NULL) {
        intake->uploads_unused = upload->next_free;
        intake->uploads_unused_count--;
        *upload = (struct intake_upload){.reader = upload->reader};
        return upload;
    }
    upload = mem_alloc(sizeof(*upload));
    upload->reader = format_reader_create();
    return upload;
}

static void intake_upload_free(struct intake_upload *upload)
{
    format_reader_destroy(upload->reader);
    mem_free(upload);
}

static void intake_upload_give(struct intake *intake, struct intake_upload *upload)
{
    if (intake->uploads_unused_count == INTAKE_UPLOADS_KEPT) {
        intake_upload_free(upload);
        return;
    }
    upload->next_free = intake->uploads_unused;
    intake->uploads_unused = upload;
    intake->uploads_unused_count++;
}

void intake_upload_drop(struct intake_request *request)
{
    if (request->upload != NULL) {
        journal_upload_abort(request->upload->journal);
        intake_upload_give(request->intake, request->upload);
        request->upload = NULL;
    }
}

void intake_uploads_finish(struct intake *intake)
{
    while (intake->uploads_unused != NULL) {
        struct intake_upload *next = intake->uploads_unused->next_free;
        intake_upload_free(intake->uploads_unused);
        intake->uploads_unused = next;
    }
}

/* --- reading ------------------------------------------------------------------------------- */

static enum err intake_upload_note_slice(struct intake_upload *upload)
{
    uint8_t row[RECORD_SLICE_BYTES];
    if (upload->slice.count == 0 || upload->journal == NULL) {
        return ERR_OK;
    }
    record_slice_encode(&upload->slice, row);
    upload->slice_count++;
    return journal_upload_note(upload->journal, slice_make(row, sizeof(row)));
}

static enum err intake_upload_take_item(struct intake_request *request,
                                        const struct format_item *item)
{
    struct intake_upload *upload = request->upload;
    struct record_slice *slice = &upload->slice;
    if (slice->count == INTAKE_SLICE_ELEMENTS ||
        (slice->count > 0 && item->offset - slice->offset >= INTAKE_SLICE_BYTES)) {
        enum err err = intake_upload_note_slice(upload);
        if (err != ERR_OK) {
            return err;
        }
        slice->count = 0;
    }
    if (slice->count == 0) {
        slice->offset = item->offset;
        slice->index = item->index;
    }
    slice->count++;
    enum err err = intake_tally_add(request, upload->reader, item);
    if (request->atomic && request->tally.rejected > 0) {
        journal_upload_abort(upload->journal);
        upload->journal = NULL;
    }
    return err;
}

static enum err intake_upload_read(struct intake_request *request, struct slice chunk)
{
    struct format_reader *reader = request->upload->reader;
    struct format_item item;
    bool has = true;
    (void)intake_tally_ids(request);
    format_batch_feed(reader, chunk);
    while (has) {
        enum err err = format_batch_next(reader, &item, &has);
        if (err == ERR_OK && has) {
            err = intake_upload_take_item(request, &item);
        }
        if (err != ERR_OK) {
            return err;
        }
    }
    return intake_tally_end(request); /* another body may come before the next chunk */
}

/* --- the body ------------------------------------------------------------------------------ */

static void intake_upload_append(struct intake_request *request);

static void intake_upload_on_room(struct journal_upload *journal, void *context)
{
    struct intake_request *request = context;
    assert(request->upload != NULL && request->upload->journal == journal);
    if (request->upload->is_whole) {
        list_remove(&request->pause);
        intake_upload_append(request);
    } else {
        intake_resume(request);
    }
}

static void intake_upload_refuse(struct intake_request *request, enum err err)
{
    struct format_fault fault = {.code = err_code(err), .message = err_text(err)};
    if (err == ERR_TOO_LARGE) {
        fault.message = "the body is larger than what one organisation may have waiting";
    }
    intake_refuse(request, err, &fault);
}

/* False when it had to be refused; the request is then void. */
static bool intake_upload_chunk(struct intake_request *request, struct slice chunk, bool *ret_pause)
{
    struct intake_upload *upload = request->upload;
    enum err err = intake_upload_read(request, chunk);
    if (err != ERR_OK) {
        struct format_fault fault = format_batch_fault(upload->reader);
        request->tally.rejected = 0;
        intake_refuse(request, err, &fault);
        return false;
    }
    upload->decoded_bytes += chunk.size;
    *ret_pause = false; /* also when it had to wait and is only read from now on */
    if (upload->journal != NULL) {
        err = journal_upload_write(upload->journal, chunk, ret_pause);
    }
    if (err != ERR_OK) {
        intake_upload_refuse(request, err);
        return false;
    }
    return true;
}

void intake_upload_data(struct intake_request *request, struct slice chunk, bool *ret_pause)
{
    if (intake_upload_chunk(request, chunk, ret_pause) && *ret_pause) {
        intake_pause(request);
    }
}

/* --- the beginning -------------------------------------------------------------------------- */

static enum err intake_upload_start(struct intake_request *request)
{
    struct intake *intake = request->intake;
    struct format_context context;
    intake_context(request, &context);
    context.ids = intake_tally_ids(request);
    struct journal_upload *journal = NULL;
    enum err err =
        journal_upload_begin(&journal, intake->options.producer, request->frame_id, request->org);
    if (err != ERR_OK) {
        return err;
    }
    request->upload = intake_upload_take(intake);
    request->upload->journal = journal;
    journal_upload_on_room(journal, intake_upload_on_room, request);
    format_batch_begin(request->upload->reader, request->form, &context);
    return ERR_OK;
}

/* What has come so far is read and written. False: refused, the request is void. */
static bool intake_upload_catch_up(struct intake_request *request, struct slice chunk,
                                   bool *ret_pause)
{
    struct slice before = slice_make(request->body, request->body_size);
    if (before.size > 0 && !intake_upload_chunk(request, before, ret_pause)) {
        return false;
    }
    intake_turn_upload(request);
    return chunk.size == 0 || intake_upload_chunk(request, chunk, ret_pause);
}

static bool intake_upload_may_wait(enum err err)
{
    return err == ERR_FULL || err == ERR_BUSY || err == ERR_NO_SPACE;
}

/* It cannot begin yet; the chunk is kept until it can. */
static void intake_upload_hold(struct intake_request *request, struct slice chunk, bool *ret_pause)
{
    size_t room;
    uint8_t *block = chunk.size > INTAKE_BLOCK_LARGE_BYTES
                         ? NULL
                         : intake_pool_take(&request->intake->pool, chunk.size, &room);
    if (block == NULL) {
        intake_refuse(request, ERR_FULL, NULL);
        return;
    }
    memcpy(block, chunk.data, chunk.size);
    request->held = block;
    request->held_size = chunk.size;
    intake_wait_for_slot(request);
    *ret_pause = true;
}

void intake_upload_begin(struct intake_request *request, struct slice chunk, bool *ret_pause)
{
    enum err err = intake_upload_start(request);
    if (intake_upload_may_wait(err)) {
        intake_upload_hold(request, chunk, ret_pause);
    } else if (err != ERR_OK) {
        intake_refuse(request, err, NULL);
    } else if (intake_upload_catch_up(request, chunk, ret_pause) && *ret_pause) {
        intake_pause(request);
    }
}

/* One that waits for a slot. */
static void intake_upload_try_begin(struct intake_request *request)
{
    bool pause = false;
    enum err err = journal_upload_room(request->intake->options.journal, request->org);
    if (err == ERR_OK && !request->is_single) {
        err = intake_upload_start(request);
    }
    if (intake_upload_may_wait(err)) {
        return;
    }
    list_remove(&request->pause);
    request->waits_for_slot = false;
    if (err != ERR_OK) {
        intake_refuse(request, err, NULL);
        return;
    }
    if (request->is_single) { /* nothing has come: its first byte says what it is */
        intake_resume(request);
        return;
    }
    uint8_t *held = request->held;
    request->held = NULL;
    struct intake_pool *pool = &request->intake->pool;
    if (intake_upload_catch_up(request, slice_make(held, request->held_size), &pause)) {
        if (pause) {
            intake_pause(request);
        } else {
            intake_resume(request);
        }
    }
    intake_pool_give(pool, held);
}

void intake_upload_retry(struct intake_request *request)
{
    if (request->waits_for_slot) {
        intake_upload_try_begin(request);
    } else if (request->upload != NULL && request->upload->journal != NULL) {
        journal_upload_retry(request->upload->journal);
    }
}

/* --- the end ------------------------------------------------------------------------------- */

static enum err intake_upload_note_rejects(struct intake_request *request)
{
    struct intake_chain_walk walk = intake_chain_begin(&request->tally.rejects);
    const struct intake_reject *reject;
    enum err err = ERR_OK;
    while (err == ERR_OK && (reject = intake_chain_next(&walk, sizeof(*reject))) != NULL) {
        uint8_t row[RECORD_REJECT_BYTES];
        struct record_reject record = {.index = reject->index,
                                       .offset = reject->offset,
                                       .code = slice_from_text(reject->code),
                                       .pointer = slice_from_text(reject->pointer),
                                       .message = slice_from_text(reject->message)};
        record_reject_encode(&record, row);
        err = journal_upload_note(request->upload->journal, slice_make(row, sizeof(row)));
    }
    return err;
}

/* The end record; what is stored is the journal's to say. */
static void intake_upload_end_body(const struct intake_request *request,
                                   uint8_t body[RECORD_UPLOAD_END_BYTES])
{
    const struct intake_tally *tally = &request->tally;
    uint64_t taken = tally->accepted + tally->duplicates;
    const struct record_upload_end end = {
        .upload = request->frame_id,
        .form = (uint8_t)request->form,
        .decoded_bytes = request->upload->decoded_bytes,
        .element_count = taken + tally->rejected,
        .accepted_count = taken,
        .rejected_count = tally->rejected,
        .slice_count = request->upload->slice_count,
    };
    record_upload_end_encode(&end, body);
}

/* The end record and its frame go to the journal. */
static void intake_upload_append(struct intake_request *request)
{
    struct intake_upload *upload = request->upload;
    uint64_t taken = request->tally.accepted + request->tally.duplicates;
    uint8_t body[RECORD_UPLOAD_END_BYTES];
    struct record_frame *frame = intake_frame(request, RECORD_FORM_UPLOAD_END);
    intake_upload_end_body(request, body);
    frame->lane = record_lane(request->org, slice_make(frame->id.bytes, sizeof(frame->id.bytes)));
    frame->record_count = taken > UINT32_MAX ? UINT32_MAX : (uint32_t)taken;
    frame->body = slice_make(body, sizeof(body));
    enum err err = intake_encode(request, frame);
    if (err == ERR_OK) {
        struct journal_frame_parts parts = intake_parts(request, frame);
        struct journal_upload *journal = upload->journal;
        upload->journal = NULL; /* consumed by the next call, whatever it says */
        err = journal_upload_end(journal, &parts, &request->ticket);
    }
    if (err != ERR_OK) {
        intake_upload_refuse(request, err);
        return;
    }
    intake_upload_give(request->intake, upload);
    request->upload = NULL;
    request->is_upload = true;
    intake_appended(request);
}

static void intake_upload_complete(struct intake_request *request)
{
    bool pause = false;
    if (!intake_takes_any(request)) {
        return;
    }
    enum err err = intake_upload_note_slice(request->upload);
    if (err == ERR_OK) {
        err = intake_upload_note_rejects(request);
    }
    if (err == ERR_OK) {
        err = journal_upload_flush(request->upload->journal, &pause);
    }
    if (err != ERR_OK) {
        intake_upload_refuse(request, err);
    } else if (pause) {
        request->upload->is_whole = true;
        intake_pause(request);
    } else {
        intake_upload_append(request);
    }
}

void intake_upload_end(struct intake_request *request)
{
    struct format_item item;
    bool has = false;
    (void)intake_tally_ids(request);
    enum err err = format_batch_end(request->upload->reader, &item, &has);
    if (err == ERR_OK && has) {
        err = intake_upload_take_item(request, &item);
    }
    if (err == ERR_OK) {
        err = intake_tally_end(request);
    }
    if (err != ERR_OK) {
        struct format_fault fault = format_batch_fault(request->upload->reader);
        request->tally.rejected = 0;
        intake_refuse(request, err, &fault);
        return;
    }
    intake_upload_complete(request);
}
