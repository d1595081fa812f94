/* What the writer does for a part of a batch, in one transaction: rows, dead letters, uploads, and
 * the cursor. So a crash at any instant leaves each record applied once or not at all, and then it
 * is read again.
 *
 * Failure modes: a row that the engine refuses fails the part; it comes back smaller, then careful,
 * and the refused rows become dead letters here. Whatever else fails rolls everything back. A
 * commit that happened though its answer was lost is met by the same part once more: its rows are
 * duplicates, its cursors have moved, and nothing is counted twice. */
#include "apply/internal.h"

#include "base/clock.h"
#include "json/json.h"

#include <assert.h>

#define DEAD_RECORD_BYTES_MAX (4u << 20u)

enum err apply_write_dead_letter(struct store_connection *connection,
                                 const struct apply_dead_letter *letter)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        connection,
        "INSERT INTO dead_letters (id, org, kind, reason, detail, position, element, form, record,"
        " received_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        " ON CONFLICT (id) DO NOTHING",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(letter->id, 16));
    store_bind_i64(statement, 2, (int64_t)letter->org);
    store_bind_text(statement, 3, slice_from_text(letter->kind));
    store_bind_text(statement, 4, slice_from_text(letter->reason));
    if (letter->detail != NULL) {
        store_bind_text(statement, 5, slice_from_text(letter->detail));
    }
    store_bind_i64(statement, 6, (int64_t)letter->position);
    store_bind_i64(statement, 7, (int64_t)letter->element);
    store_bind_i64(statement, 8, letter->form);
    store_bind_blob(statement, 9, letter->record);
    store_bind_i64(statement, 10, letter->received_ms);
    return store_execute(statement);
}

/* The event as one that can be sent again. */
static enum err event_document(const struct store_event *event, struct buffer *to)
{
    struct json_writer writer;
    json_writer_init(&writer, to);
    json_write_object_begin(&writer);
    json_write_member_string(&writer, "type", event->type);
    if (event->dedup_id.size > 0) {
        json_write_member_string(&writer, "dedup_id", event->dedup_id);
    }
    if (event->subject.data != NULL) {
        json_write_member_string(&writer, "subject", event->subject);
    }
    if (event->source.data != NULL) {
        json_write_member_string(&writer, "source", event->source);
    }
    if (event->app.data != NULL) {
        json_write_member_string(&writer, "app", event->app);
    }
    json_write_member_time(&writer, "occurred_at", event->occurred_ms);
    if (event->attributes.size > 2) {
        /* Members again, as they came: the object without its braces. */
        json_write_raw(&writer, slice_part(event->attributes, 1, event->attributes.size - 1));
    }
    json_write_key(&writer, "payload");
    json_write_raw(&writer, event->payload);
    json_write_object_end(&writer);
    return json_writer_err(&writer);
}

static enum err write_refused(struct store_connection *connection, const struct apply_batch *batch,
                              uint32_t number)
{
    struct buffer record;
    buffer_init(&record, DEAD_RECORD_BYTES_MAX);
    struct store_event event;
    enum err err = store_spill_unpack(batch->spill, &batch->events[number], &event);
    if (err == ERR_OK) {
        err = event_document(&event, &record);
    }
    if (err == ERR_OK) {
        struct apply_dead_letter letter = {.id = event.id,
                                           .org = event.org,
                                           .kind = "event",
                                           .reason = "refused",
                                           .position = event.position,
                                           .element = batch->elements[number],
                                           .form = RECORD_FORM_EVENT,
                                           .record = buffer_slice(&record),
                                           .received_ms = event.created_ms};
        err = apply_write_dead_letter(connection, &letter);
    }
    buffer_finish(&record);
    return err;
}

static enum err write_unreadable(struct store_connection *connection,
                                 const struct apply_frame *frame)
{
    uint8_t id[16] = {0};
    struct id none = {{0}};
    if (id_equal(frame->id, none)) {
        memcpy(id, &frame->position, sizeof(frame->position)); /* its head is not known either */
    } else {
        memcpy(id, frame->id.bytes, sizeof(id));
    }
    struct apply_dead_letter letter = {.id = id,
                                       .org = frame->org,
                                       .kind = "frame",
                                       .reason = "unreadable",
                                       .position = frame->position,
                                       .form = frame->form,
                                       .record = frame->bytes,
                                       .received_ms = frame->received_ms};
    return apply_write_dead_letter(connection, &letter);
}

static enum err write_failed_upload(struct store_connection *connection,
                                    const struct apply_upload *upload)
{
    struct apply_dead_letter letter = {.id = upload->end.upload.bytes,
                                       .org = upload->frame.org,
                                       .kind = "upload",
                                       .reason = "unreadable",
                                       .detail = err_text(upload->failed),
                                       .position = upload->position,
                                       .form = RECORD_FORM_UPLOAD_END,
                                       .record = slice_make(upload->head, upload->head_size),
                                       .received_ms = upload->frame.received_ms};
    return apply_write_dead_letter(connection, &letter);
}

/* --- uploads
 * -------------------------------------------------------------------------------------- */

static enum err write_upload_row(struct store_connection *connection,
                                 const struct apply_upload *upload, const struct id *journal)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        connection,
        "INSERT INTO uploads (id, org, key, position, form, state, head, decoded_bytes,"
        " stored_bytes, element_count, accepted_count, rejected_count, slice_count, errors,"
        " received_ms, journal) VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8, $9, $10, $11, $12,"
        " $13, $14, $15)"
        " ON CONFLICT (id) DO NOTHING",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    const struct record_upload_end *end = &upload->end;
    store_bind_blob(statement, 1, slice_make(end->upload.bytes, 16));
    store_bind_i64(statement, 2, (int64_t)upload->frame.org);
    store_bind_i64(statement, 3, (int64_t)upload->frame.key);
    store_bind_i64(statement, 4, (int64_t)upload->position);
    store_bind_i64(statement, 5, end->form);
    store_bind_blob(statement, 6, slice_make(upload->head, upload->head_size));
    store_bind_i64(statement, 7, (int64_t)end->decoded_bytes);
    store_bind_i64(statement, 8, (int64_t)end->stored_bytes);
    store_bind_i64(statement, 9, (int64_t)end->element_count);
    store_bind_i64(statement, 10, (int64_t)end->accepted_count);
    store_bind_i64(statement, 11, (int64_t)end->rejected_count);
    store_bind_i64(statement, 12, end->slice_count);
    store_bind_text(statement, 13, buffer_slice(&upload->errors));
    store_bind_i64(statement, 14, upload->frame.received_ms);
    store_bind_blob(statement, 15, slice_make(journal->bytes, sizeof(journal->bytes)));
    return store_execute(statement);
}

static enum err write_slice_rows(struct store_connection *connection,
                                 const struct apply_upload *upload)
{
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < upload->slice_count && err == ERR_OK; i++) {
        struct store_statement *statement = NULL;
        err = store_prepare(connection,
                            "INSERT INTO upload_slices (upload, number, byte_offset, first_index,"
                            " element_count) VALUES ($1, $2, $3, $4, $5)"
                            " ON CONFLICT (upload, number) DO NOTHING",
                            &statement);
        if (err == ERR_OK) {
            store_bind_blob(statement, 1, slice_make(upload->end.upload.bytes, 16));
            store_bind_i64(statement, 2, i);
            store_bind_i64(statement, 3, (int64_t)upload->slices[i].offset);
            store_bind_i64(statement, 4, (int64_t)upload->slices[i].index);
            store_bind_i64(statement, 5, (int64_t)upload->slices[i].count);
            err = store_execute(statement);
        }
    }
    return err;
}

/* What could not be read when its row was written. */
static enum err write_late_table(struct store_connection *connection,
                                 const struct apply_upload *upload)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(connection, "UPDATE uploads SET errors = $1 WHERE id = $2", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_text(statement, 1, buffer_slice(&upload->errors));
    store_bind_blob(statement, 2, slice_make(upload->end.upload.bytes, 16));
    err = store_execute(statement);
    if (err == ERR_OK && store_changes(connection) == 0) {
        return ERR_NOT_FOUND;
    }
    return err != ERR_OK ? err : write_slice_rows(connection, upload);
}

/* Its row is there already. As this part may have been committed before without our knowing, that
 * is another frame only if it has another place. */
static enum err find_first_frame(struct store_connection *connection, struct apply_upload *upload)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(connection, "SELECT position FROM uploads WHERE id = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(upload->end.upload.bytes, 16));
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        upload->is_again = (uint64_t)store_column_i64(statement, 0) != upload->position;
        store_reset(statement);
    }
    return err;
}

static enum err write_upload(struct store_connection *connection, struct apply_upload *upload,
                             const struct id *journal)
{
    enum err err = write_upload_row(connection, upload, journal);
    if (err == ERR_OK && store_changes(connection) == 0) {
        err = find_first_frame(connection, upload);
    }
    if (err == ERR_OK && !upload->is_again) {
        err = write_slice_rows(connection, upload);
    }
    return err != ERR_OK ? err : store_raise_version(connection, upload->frame.org);
}

/* The slice's cursor, if nobody has moved it; else ERR_NOT_FOUND. */
static enum err write_slice_cursor(struct store_connection *connection,
                                   const struct apply_batch *batch, uint64_t done)
{
    const struct apply_upload *upload = batch->upload;
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection,
                                 "UPDATE upload_slices SET done_count = $1, holder = $2,"
                                 " lease_until_ms = $3 WHERE upload = $4 AND number = $5"
                                 " AND done_count = $6",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)done);
    store_bind_i64(statement, 2, (int64_t)batch->applier->options.run);
    store_bind_i64(statement, 3, clock_wall_ms() + APPLY_SLICE_LEASE_MS);
    store_bind_blob(statement, 4, slice_make(upload->end.upload.bytes, 16));
    store_bind_i64(statement, 5, upload->slice_next);
    store_bind_i64(statement, 6, (int64_t)upload->slice_done);
    err = store_execute(statement);
    return err == ERR_OK && store_changes(connection) == 0 ? ERR_NOT_FOUND : err;
}

/* All slices at once, if nobody has moved them; else ERR_NOT_FOUND. */
static enum err write_whole_cursor(struct store_connection *connection,
                                   const struct apply_upload *upload)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection,
                                 "UPDATE upload_slices SET done_count = element_count"
                                 " WHERE upload = $1 AND done_count = 0",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(upload->end.upload.bytes, 16));
    err = store_execute(statement);
    bool is_all = err == ERR_OK && store_changes(connection) == upload->slice_count;
    return err == ERR_OK && !is_all ? ERR_NOT_FOUND : err;
}

static enum err write_upload_end(struct store_connection *connection,
                                 const struct apply_upload *upload)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        connection,
        "UPDATE uploads SET finished_ms = $1, state = CASE WHEN $2 = 1 THEN 4"
        " WHEN rejected_count = 0 AND refused_count = 0 THEN 2 ELSE 3 END WHERE id = $3",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, clock_wall_ms());
    store_bind_i64(statement, 2, upload->failed != ERR_OK);
    store_bind_blob(statement, 3, slice_make(upload->end.upload.bytes, 16));
    err = store_execute(statement);
    if (err == ERR_OK) {
        err = store_prepare(connection, "DELETE FROM upload_slices WHERE upload = $1", &statement);
    }
    if (err == ERR_OK) {
        store_bind_blob(statement, 1, slice_make(upload->end.upload.bytes, 16));
        err = store_execute(statement);
    }
    if (err == ERR_OK && upload->failed != ERR_OK) {
        err = write_failed_upload(connection, upload);
    }
    return err;
}

static enum err write_upload_counts(struct store_connection *connection,
                                    const struct apply_upload *upload, const uint64_t counts[4],
                                    uint32_t slices_done)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        connection,
        "UPDATE uploads SET applied_count = applied_count + $1,"
        " inserted_count = inserted_count + $2, duplicate_count = duplicate_count + $3,"
        " conflict_count = conflict_count + $4, refused_count = refused_count + $5,"
        " slices_done = slices_done + $6 WHERE id = $7",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    uint64_t duplicates = counts[STORE_EVENT_DUPLICATE] + counts[STORE_EVENT_CONFLICT];
    uint64_t all = counts[STORE_EVENT_INSERTED] + duplicates + counts[STORE_EVENT_REFUSED];
    store_bind_i64(statement, 1, (int64_t)all);
    store_bind_i64(statement, 2, (int64_t)counts[STORE_EVENT_INSERTED]);
    store_bind_i64(statement, 3, (int64_t)duplicates);
    store_bind_i64(statement, 4, (int64_t)counts[STORE_EVENT_CONFLICT]);
    store_bind_i64(statement, 5, (int64_t)counts[STORE_EVENT_REFUSED]);
    store_bind_i64(statement, 6, slices_done);
    store_bind_blob(statement, 7, slice_make(upload->end.upload.bytes, 16));
    return store_execute(statement);
}

/* The cursor did not move. *ret_is: a commit that was thought lost has moved it, with all else.
 * ERR_NOT_FOUND: the upload was deleted, or somebody else was here. */
static enum err look_whether_moved(struct store_connection *connection,
                                   const struct apply_upload *upload, uint64_t done, bool *ret_is)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection,
                                 "SELECT u.state, s.done_count FROM uploads u"
                                 " LEFT JOIN upload_slices s ON s.upload = u.id AND s.number = $1"
                                 " WHERE u.id = $2",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, upload->slice_next);
    store_bind_blob(statement, 2, slice_make(upload->end.upload.bytes, 16));
    err = store_step(statement, &has_row);
    if (err != ERR_OK || !has_row) {
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    }
    bool is_ended = store_column_i64(statement, 0) != APPLY_UPLOAD_APPLYING;
    *ret_is = is_ended || (uint64_t)store_column_i64(statement, 1) >= done;
    store_reset(statement);
    return *ret_is ? ERR_OK : ERR_NOT_FOUND;
}

/* The cursor and the counts; *ret_is_end: nothing is left. */
static enum err write_progress(struct store_connection *connection, const struct apply_batch *batch,
                               const uint64_t counts[4], bool *ret_is_end)
{
    const struct apply_upload *upload = batch->upload;
    uint64_t done = batch->frames[batch->part_to - 1].element_count;
    uint32_t slices_done = done == upload->slices[upload->slice_next].count;
    bool was_moved = false;
    enum err err = ERR_OK;
    if (batch->is_whole) {
        slices_done = upload->slice_count;
        err = write_whole_cursor(connection, upload);
    } else {
        err = write_slice_cursor(connection, batch, done);
    }
    if (err == ERR_NOT_FOUND) {
        err = look_whether_moved(connection, upload, done, &was_moved);
    }
    *ret_is_end = upload->slice_next + slices_done >= upload->slice_count;
    return err != ERR_OK || was_moved
               ? err
               : write_upload_counts(connection, upload, counts, slices_done);
}

static enum err write_slice(struct store_connection *connection, const struct apply_batch *batch,
                            const uint64_t counts[4])
{
    const struct apply_upload *upload = batch->upload;
    bool is_end = true;
    enum err err = ERR_OK;
    if (upload->table == APPLY_TABLE_UNWRITTEN) {
        is_end = upload->slice_count == 0;
        err = write_late_table(connection, upload);
    } else if (upload->failed == ERR_OK && !apply_upload_is_done(upload)) {
        err = write_progress(connection, batch, counts, &is_end);
    }
    if (err == ERR_OK && is_end) {
        err = write_upload_end(connection, upload);
    }
    return err != ERR_OK ? err : store_raise_version(connection, upload->frame.org);
}

/* --- the part
 * ------------------------------------------------------------------------------------- */

static enum err write_cursor(struct store_connection *connection, const struct apply_batch *batch)
{
    struct store_statement *statement = NULL;
    const struct applier *applier = batch->applier;
    uint64_t position = batch->frames[batch->part_to - 1].position;
    uint64_t lanes = 0;
    for (uint32_t i = batch->part_from; i < batch->part_to; i++) {
        lanes |= batch->frames[i].lanes;
    }
    if (apply_has_leases(applier)) {
        return apply_lease_move(connection, applier->journal, applier->lease.look.holder, lanes,
                                position);
    }
    enum err err =
        store_prepare(connection,
                      "INSERT INTO cursors (journal, lane, position) VALUES ($1, $2, $3)"
                      " ON CONFLICT (journal, lane) DO UPDATE SET position = excluded.position",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(applier->journal.bytes, 16));
    store_bind_i64(statement, 2, APPLY_LANE_ALL);
    store_bind_i64(statement, 3, (int64_t)position);
    return store_execute(statement);
}

/* A slice may only be applied by who has its upload's lane. */
static enum err hold_lane(struct store_connection *connection, const struct apply_batch *batch)
{
    const struct applier *applier = batch->applier;
    uint8_t lane = apply_upload_lane(batch->upload);
    return !apply_has_leases(applier)
               ? ERR_OK
               : apply_lease_move(connection, applier->journal, applier->lease.look.holder,
                                  UINT64_C(1) << lane, 0);
}

static enum err write_events(struct store_connection *connection, struct apply_batch *batch,
                             uint64_t counts[4])
{
    enum err err = apply_write_rows(connection, batch);
    for (uint32_t n = batch->part_from; n < batch->part_to && err == ERR_OK; n++) {
        const struct apply_frame *frame = &batch->frames[n];
        bool is_event = !format_form_is_reading((enum record_form)frame->form);
        uint32_t to = frame->first_event + frame->event_count;
        for (uint32_t i = frame->first_event; i < to && err == ERR_OK; i++) {
            const struct store_packed *event = &batch->events[i];
            counts[event->state]++;
            if (event->state == STORE_EVENT_REFUSED && is_event) {
                err = write_refused(connection, batch, i);
            }
        }
    }
    return err;
}

enum err apply_write_part(struct store_job *job, struct store_connection *connection)
{
    struct apply_batch *batch = LIST_CONTAINER(job, struct apply_batch, job);
    uint64_t counts[4] = {0};
    static_assert(STORE_EVENT_REFUSED == 3, "one count for each state");
    batch->has_run = true;
    enum err err = batch->upload != NULL ? hold_lane(connection, batch) : ERR_OK;
    if (err == ERR_OK) {
        err = write_events(connection, batch, counts);
    }
    for (uint32_t i = batch->part_from; i < batch->part_to && err == ERR_OK; i++) {
        const struct apply_frame *frame = &batch->frames[i];
        if (frame->kind == APPLY_FRAME_UPLOAD) {
            err = write_upload(connection, frame->upload, &batch->applier->journal);
        } else if (frame->bytes.data != NULL) {
            err = write_unreadable(connection, frame);
        }
    }
    if (err == ERR_OK) {
        err = batch->upload != NULL ? write_slice(connection, batch, counts)
                                    : write_cursor(connection, batch);
    }
    return err;
}
