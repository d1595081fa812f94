/* Uploads: bodies too large for a frame, applied slice by slice.
 *
 * Applying the end record only makes the upload's row and those of its slices. From then on the
 * upload is open, and its slices are applied in their order, each in a transaction (or a few) with
 * its own cursor, done_count. Orgs take turns, and slices take turns with frames, so a big upload
 * delays a small event by one slice at most. Whoever raises done_count from the value that he knows
 * has the slice; his name and the time of his lease stand beside it.
 *
 * One of few elements (LIMIT_BATCH_ATOMIC_ELEMENTS) and bytes is applied whole, in one transaction.
 *
 * Happy path: end record -> rows -> slices -> counts final, slices deleted, the waiter answered.
 * Failure modes: the file cannot be read for now: this upload waits, with pauses that grow, and the
 * others and all frames go on; also when it is the table of contents, which is then written when it
 * could be read. An I/O error that stays, a damaged or lost file: the upload fails, with what was
 * applied kept and counted, and becomes a dead letter with the reason; the file stays for its time.
 * The upload was deleted meanwhile: it is forgotten. A new start finds open uploads in the store.
 */
#include "apply/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "json/json.h"

#include <assert.h>

#define ERRORS_BYTES_MAX (1u << 20u)
#define CHUNK_BYTES      LIMIT_UPLOAD_BLOCK_BYTES

void apply_upload_destroy(struct apply_upload *upload)
{
    if (upload == NULL) {
        return;
    }
    list_remove(&upload->link);
    journal_upload_close(upload->reader);
    buffer_finish(&upload->errors);
    mem_free(upload->result);
    mem_free(upload->slices);
    mem_free(upload->head);
    mem_free(upload);
}

bool apply_upload_is_done(const struct apply_upload *upload)
{
    return upload->table == APPLY_TABLE_WRITTEN && upload->slice_next >= upload->slice_count;
}

uint8_t apply_upload_lane(const struct apply_upload *upload)
{
    return upload->frame.lane < LIMIT_LANES ? upload->frame.lane : 0;
}

static bool is_whole(const struct apply_upload *upload)
{
    uint64_t bytes_max = format_form_is_reading((enum record_form)upload->end.form)
                             ? APPLY_WHOLE_READING_BYTES_MAX
                             : APPLY_WHOLE_BYTES_MAX;
    return upload->end.element_count <= LIMIT_BATCH_ATOMIC_ELEMENTS &&
           upload->end.decoded_bytes <= bytes_max && upload->slice_next == 0 &&
           upload->slice_done == 0;
}

static void write_reject(struct json_writer *writer, const struct record_reject *reject)
{
    json_write_object_begin(writer);
    json_write_member_u64(writer, "index", reject->index);
    json_write_member_u64(writer, "offset", reject->offset);
    json_write_member_string(writer, "code", reject->code);
    json_write_member_string(writer, "pointer", reject->pointer);
    json_write_member_string(writer, "message", reject->message);
    json_write_object_end(writer);
}

/* Slices, then refused elements. */
static enum err read_table(struct apply_upload *upload, struct slice table)
{
    uint64_t slices = upload->end.slice_count;
    uint64_t rejects = upload->end.rejected_count < LIMIT_BATCH_ITEMS_ANSWERED
                           ? upload->end.rejected_count
                           : LIMIT_BATCH_ITEMS_ANSWERED;
    if (table.size < slices * RECORD_SLICE_BYTES + rejects * RECORD_REJECT_BYTES) {
        return ERR_CORRUPT;
    }
    upload->slices = mem_try_alloc((slices + 1) * sizeof(*upload->slices));
    if (upload->slices == NULL) {
        return ERR_NO_MEMORY;
    }
    for (uint64_t i = 0; i < slices; i++) {
        record_slice_decode(table.data + i * RECORD_SLICE_BYTES, &upload->slices[i]);
    }
    upload->slice_count = (uint32_t)slices;
    struct json_writer writer;
    json_writer_init(&writer, &upload->errors);
    json_write_array_begin(&writer);
    const uint8_t *from = table.data + slices * RECORD_SLICE_BYTES;
    for (uint64_t i = 0; i < rejects; i++) {
        struct record_reject reject;
        record_reject_decode(from + i * RECORD_REJECT_BYTES, &reject);
        write_reject(&writer, &reject);
    }
    json_write_array_end(&writer);
    return json_writer_err(&writer);
}

/* Whether it is tried again, later; else this is why it fails. */
static bool postpone(struct apply_upload *upload, enum err err)
{
    if (apply_give_up_step(err, &upload->io_errors)) {
        return false;
    }
    if (upload->pause_ms == 0) {
        log_write(LOG_WARN, "apply", "an upload cannot be read for now, will try again: %s",
                  err_text(err));
    }
    upload->pause_ms = apply_backoff_step(upload->pause_ms);
    upload->retry_ns = clock_mono_ns() + upload->pause_ms * 1000000ull;
    return true;
}

static void give_up(struct apply_upload *upload, enum err err)
{
    log_write(LOG_ERROR, "apply", "an upload cannot be read: %s", err_text(err));
    upload->failed = err;
    upload->table = APPLY_TABLE_WRITTEN; /* as far as there will be one */
}

static enum err load_table(struct applier *applier, struct apply_upload *upload)
{
    struct buffer table;
    buffer_init(&table, (size_t)upload->end.slice_count * RECORD_SLICE_BYTES +
                            (LIMIT_BATCH_ITEMS_ANSWERED + (size_t)1) * RECORD_REJECT_BYTES);
    enum err err =
        journal_upload_open(&upload->reader, applier->options.journal, upload->end.upload);
    if (err == ERR_OK) {
        err = journal_upload_table(upload->reader, &table);
    }
    if (err == ERR_OK) {
        err = read_table(upload, buffer_slice(&table));
    }
    buffer_finish(&table);
    journal_upload_close(upload->reader); /* opened again at its turn: files are few */
    upload->reader = NULL;
    return err;
}

/* What was read of it before the error. */
static void forget_table(struct apply_upload *upload)
{
    mem_free(upload->slices);
    upload->slices = NULL;
    upload->slice_count = 0;
    buffer_clear(&upload->errors);
    upload->table = APPLY_TABLE_MISSING;
}

static enum err take_head(struct apply_upload *upload, struct slice head)
{
    upload->head = mem_try_alloc(head.size + RECORD_UPLOAD_END_BYTES);
    if (upload->head == NULL) {
        return ERR_NO_MEMORY;
    }
    memcpy(upload->head, head.data, head.size);
    record_upload_end_encode(&upload->end, upload->head + head.size);
    upload->head_size = head.size;
    return record_frame_decode(slice_make(upload->head, head.size + RECORD_UPLOAD_END_BYTES),
                               &upload->frame);
}

static struct apply_upload *make_upload(void)
{
    struct apply_upload *upload = mem_alloc(sizeof(*upload));
    buffer_init(&upload->errors, ERRORS_BYTES_MAX);
    return upload;
}

static void take_waiter(struct applier *applier, struct apply_upload *upload)
{
    const struct record_frame *frame = &upload->frame;
    if (frame->waiter == RECORD_WAITER_NONE || !apply_can_tell(applier, frame->run)) {
        return;
    }
    upload->waiter = frame->waiter;
    upload->result = mem_alloc(sizeof(*upload->result));
    uint64_t count = upload->end.element_count;
    upload->result->item_count =
        (uint32_t)(count < LIMIT_BATCH_ITEMS_ANSWERED ? count : LIMIT_BATCH_ITEMS_ANSWERED);
    upload->result->position = upload->position;
}

enum err apply_upload_create(struct apply_upload **ret, struct applier *applier,
                             const struct record_frame *frame, struct slice head, uint64_t position)
{
    struct apply_upload *upload = make_upload();
    enum err err = record_upload_end_decode(frame->body, &upload->end);
    if (err == ERR_OK) {
        err = take_head(upload, head);
    }
    if (err == ERR_OK) {
        err = load_table(applier, upload);
        if (err != ERR_OK) {
            forget_table(upload);
            if (!postpone(upload, err)) {
                give_up(upload, err);
            }
            err = ERR_OK; /* nothing else waits for it */
        }
    }
    if (err != ERR_OK) {
        goto out;
    }
    upload->position = position;
    upload->pending_count = upload->end.accepted_count;
    take_waiter(applier, upload);
    *ret = upload;
    upload = NULL;
out:
    apply_upload_destroy(upload);
    return err;
}

/* --- those of earlier runs
 * ------------------------------------------------------------------------ */

struct load_job {
    struct store_job job;
    const struct applier *applier;
    uint64_t lanes;
    struct list uploads;
};

static enum err load_slices(struct apply_upload *upload, struct store_connection *connection)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    upload->slices = mem_try_alloc((upload->end.slice_count + 1u) * sizeof(*upload->slices));
    if (upload->slices == NULL) {
        return ERR_NO_MEMORY;
    }
    enum err err = store_prepare(connection,
                                 "SELECT byte_offset, first_index, element_count, done_count"
                                 " FROM upload_slices WHERE upload = $1 ORDER BY number",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(upload->end.upload.bytes, 16));
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row &&
           upload->slice_count < upload->end.slice_count) {
        struct record_slice *slice = &upload->slices[upload->slice_count];
        slice->offset = (uint64_t)store_column_i64(statement, 0);
        slice->index = (uint64_t)store_column_i64(statement, 1);
        slice->count = (uint64_t)store_column_i64(statement, 2);
        uint64_t done = (uint64_t)store_column_i64(statement, 3);
        if (upload->slice_next == upload->slice_count) {
            upload->slice_next += done >= slice->count;
            upload->slice_done = done >= slice->count ? 0 : done;
        }
        upload->slice_count++;
    }
    if (err == ERR_OK && upload->slice_count < upload->end.slice_count) {
        forget_table(upload); /* the last run could not read it */
    }
    return err;
}

static enum err load_row(struct load_job *load, struct store_statement *statement)
{
    struct apply_upload *upload = make_upload();
    struct slice id = store_column_bytes(statement, 0);
    if (id.size == sizeof(upload->end.upload.bytes)) {
        memcpy(upload->end.upload.bytes, id.data, id.size);
    }
    upload->end.form = (uint8_t)store_column_i64(statement, 1);
    upload->end.decoded_bytes = (uint64_t)store_column_i64(statement, 2);
    upload->end.stored_bytes = (uint64_t)store_column_i64(statement, 3);
    upload->end.element_count = (uint64_t)store_column_i64(statement, 4);
    upload->end.slice_count = (uint32_t)store_column_i64(statement, 5);
    upload->position = (uint64_t)store_column_i64(statement, 6);
    uint64_t accepted = (uint64_t)store_column_i64(statement, 8);
    uint64_t applied = (uint64_t)store_column_i64(statement, 9);
    upload->pending_count = accepted > applied ? accepted - applied : 0;
    enum err err = take_head(upload, store_column_bytes(statement, 7));
    if (err != ERR_OK || (load->lanes >> apply_upload_lane(upload) & 1u) == 0) {
        apply_upload_destroy(upload);
        return err;
    }
    list_push_back(&load->uploads, &upload->link);
    return ERR_OK;
}

static enum err load_run(struct store_job *job, struct store_connection *connection)
{
    struct load_job *load = (struct load_job *)job;
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = store_prepare(connection,
                                 "SELECT id, form, decoded_bytes, stored_bytes, element_count,"
                                 " slice_count, position, head, accepted_count, applied_count"
                                 " FROM uploads WHERE state = 1"
                                 " AND ($1 = 1 OR journal = $2 OR journal IS NULL)"
                                 " ORDER BY position",
                                 &statement);
    if (err == ERR_OK) {
        apply_bind_journal(load->applier, statement, 1);
    }
    while (err == ERR_OK && has_row) {
        err = store_step(statement, &has_row);
        if (err == ERR_OK && has_row) {
            err = load_row(load, statement);
        }
    }
    for (struct list_link *link = list_first(&load->uploads); link != NULL && err == ERR_OK;
         link = list_after(&load->uploads, link)) {
        err = load_slices(LIST_CONTAINER(link, struct apply_upload, link), connection);
    }
    return err;
}

static void load_done(struct store_job *job)
{
    (void)job;
}

enum err apply_uploads_load(struct applier *applier, uint64_t lanes)
{
    struct list_link *link = NULL;
    struct load_job load = {.applier = applier, .lanes = lanes};
    list_init(&load.uploads);
    load.job.priority = STORE_CONTROL;
    load.job.run = load_run;
    load.job.on_done = load_done;
    enum err err = store_run_here(applier->options.store, &load.job);
    while ((link = list_take_first(&load.uploads)) != NULL) {
        if (err == ERR_OK) {
            list_push_back(&applier->uploads, link);
        } else {
            apply_upload_destroy(LIST_CONTAINER(link, struct apply_upload, link));
        }
    }
    return err;
}

void apply_uploads_drop(struct applier *applier, uint64_t lanes)
{
    struct list_link *link = list_first(&applier->uploads);
    while (link != NULL) {
        struct list_link *next = list_after(&applier->uploads, link);
        struct apply_upload *upload = LIST_CONTAINER(link, struct apply_upload, link);
        if ((lanes >> apply_upload_lane(upload) & 1u) != 0) {
            apply_upload_destroy(upload);
        }
        link = next;
    }
}

static uint64_t open_records(uint64_t pending)
{
    return pending == 0 ? 1 : pending; /* its end is missing */
}

void apply_uploads_charge(struct applier *applier)
{
    uint64_t recovered = journal_recovered_position(applier->options.journal);
    for (struct list_link *link = list_first(&applier->uploads); link != NULL;
         link = list_after(&applier->uploads, link)) {
        const struct apply_upload *upload = LIST_CONTAINER(link, struct apply_upload, link);
        journal_charge(applier->options.journal, upload->frame.org, upload->end.stored_bytes,
                       upload->pending_count);
        if (upload->position <= recovered) {
            applier->found.records += open_records(upload->pending_count);
            applier->found.bytes += upload->end.stored_bytes;
        }
    }
}

bool apply_uploads_are_past(const struct applier *applier)
{
    return apply_position(applier->apply) >= journal_recovered_position(applier->options.journal);
}

enum err apply_uploads_count(const struct applier *applier, struct store_connection *connection,
                             struct apply_found *ret)
{
    struct store_statement *statement = NULL;
    struct apply_found sum = {.records = 0};
    bool has_row = true;
    enum err err = store_prepare(connection,
                                 "SELECT accepted_count - applied_count, stored_bytes FROM uploads"
                                 " WHERE state = 1 AND journal = $1 AND position <= $2",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1,
                    slice_make(applier->journal.bytes, sizeof(applier->journal.bytes)));
    store_bind_i64(statement, 2, (int64_t)journal_recovered_position(applier->options.journal));
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        int64_t pending = store_column_i64(statement, 0);
        sum.records += open_records(pending > 0 ? (uint64_t)pending : 0);
        sum.bytes += (uint64_t)store_column_i64(statement, 1);
    }
    if (err == ERR_OK) {
        *ret = sum;
    }
    return err;
}

/* Between the last frame and the next look at the rows it is not known what is left: one at least.
 */
void apply_uploads_tell(struct applier *applier)
{
    bool is_unknown = applier->found.records == 0 && apply_uploads_are_past(applier);
    if (!applier->found_are_over) {
        journal_charge_shared(applier->options.journal, applier->found.bytes,
                              is_unknown ? 1 : applier->found.records);
    }
}

void apply_uploads_take(struct applier *applier)
{
    if (applier->found_are_over) {
        return;
    }
    applier->found = applier->lease.found;
    if (applier->lease.is_past && applier->found.records == 0) {
        applier->found_are_over = true;
        journal_charge_shared(applier->options.journal, 0, 0);
    }
    apply_uploads_tell(applier);
}

/* Once for all appliers of a node. Their rows are in the store when their end records are applied.
 */
void apply_uploads_ask(struct applier *applier)
{
    static_assert(APPLY_SILENT_MAX <= 64, "a bit for each");
    applier->lease.silent_over = 0;
    applier->lease.silent_count = 0;
    if (applier->index == 0) {
        applier->lease.silent_count =
            journal_uploads_silent(applier->options.journal, apply_position(applier->apply),
                                   applier->lease.silent, APPLY_SILENT_MAX);
    }
}

enum err apply_uploads_find(struct applier *applier, struct store_connection *connection)
{
    struct store_statement *statement = NULL;
    uint64_t over = 0;
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < applier->lease.silent_count && err == ERR_OK; i++) {
        bool is_open = false;
        err = store_prepare(connection, "SELECT 1 FROM uploads WHERE id = $1 AND state = 1",
                            &statement);
        if (err == ERR_OK) {
            store_bind_blob(statement, 1, slice_make(applier->lease.silent[i].bytes, 16));
            err = store_step(statement, &is_open);
        }
        if (err == ERR_OK) {
            store_reset(statement);
        }
        over |= is_open ? 0 : UINT64_C(1) << i;
    }
    applier->lease.silent_over = err == ERR_OK ? over : 0;
    return err;
}

void apply_uploads_settle(struct applier *applier)
{
    for (uint32_t i = 0; i < applier->lease.silent_count; i++) {
        if ((applier->lease.silent_over >> i & 1u) != 0) {
            journal_credit_upload(applier->options.journal, applier->lease.silent[i], 0, 0);
        }
    }
}

/* --- turns
 * ---------------------------------------------------------------------------------------- */

/* The org was served: its uploads go behind those of all others, in the order that they had. */
static void pass_turn(struct applier *applier, uint64_t org)
{
    struct list theirs;
    struct list_link *link = list_first(&applier->uploads);
    list_init(&theirs);
    while (link != NULL) {
        struct list_link *next = list_after(&applier->uploads, link);
        if (LIST_CONTAINER(link, struct apply_upload, link)->frame.org == org) {
            list_remove(link);
            list_push_back(&theirs, link);
        }
        link = next;
    }
    while ((link = list_take_first(&theirs)) != NULL) {
        list_push_back(&applier->uploads, link);
    }
}

struct apply_upload *apply_upload_turn(struct applier *applier, int *ret_wait_ms)
{
    uint64_t now_ns = clock_mono_ns();
    *ret_wait_ms = -1;
    for (struct list_link *link = list_first(&applier->uploads); link != NULL;
         link = list_after(&applier->uploads, link)) {
        struct apply_upload *upload = LIST_CONTAINER(link, struct apply_upload, link);
        if (upload->retry_ns <= now_ns) {
            return upload;
        }
        int wait_ms = (int)((upload->retry_ns - now_ns) / 1000000u) + 1;
        *ret_wait_ms = *ret_wait_ms < 0 || wait_ms < *ret_wait_ms ? wait_ms : *ret_wait_ms;
    }
    return NULL;
}

/* --- one slice
 * ------------------------------------------------------------------------------------- */

struct slice_walk {
    struct applier *applier;
    struct apply_batch *batch;
    struct apply_upload *upload;
    struct apply_frame *step; /* NULL: none is open */
    const struct record_slice *slice;
};

static enum err step_begin(struct slice_walk *walk)
{
    walk->step = apply_fill_begin(walk->batch);
    if (walk->step == NULL) {
        return ERR_NO_MEMORY;
    }
    walk->step->kind = APPLY_FRAME_EVENTS;
    walk->step->form = walk->upload->end.form;
    walk->step->position = walk->upload->position;
    walk->step->org = walk->upload->frame.org;
    walk->step->id = walk->upload->end.upload;
    walk->step->received_ms = walk->upload->frame.received_ms;
    return ERR_OK;
}

static void step_end(struct slice_walk *walk, uint64_t done)
{
    if (walk->step != NULL) {
        walk->step->element_count = done;
        walk->step->credit_records = walk->step->event_count;
        walk->batch->frame_count++;
        walk->step = NULL;
    }
}

static enum err take_item(struct slice_walk *walk, const struct format_item *item)
{
    uint64_t done = item->index - walk->slice->index + 1;
    if (done <= walk->upload->slice_done) {
        return ERR_OK; /* by an earlier transaction */
    }
    enum err err = walk->step == NULL ? step_begin(walk) : ERR_OK;
    if (err == ERR_OK && item->err == ERR_OK) {
        err = apply_fill_event(walk->batch, walk->step, &item->event);
        if (err == ERR_OK && format_form_is_reading((enum record_form)walk->step->form)) {
            err = apply_fill_readings(walk->batch, walk->applier->format);
        }
    }
    if (err == ERR_OK && !walk->batch->is_whole &&
        apply_frame_rows(walk->batch, walk->batch->frame_count) >= APPLY_SLICE_ROWS) {
        step_end(walk, done);
    }
    return err;
}

static enum err take_items(struct slice_walk *walk, bool is_end)
{
    struct format_reader *format = walk->applier->format;
    for (;;) {
        struct format_item item;
        bool has_item = false;
        enum err err = is_end ? format_batch_end(format, &item, &has_item)
                              : format_batch_next(format, &item, &has_item);
        if (err != ERR_OK || !has_item) {
            return err;
        }
        err = take_item(walk, &item);
        if (err != ERR_OK || is_end) {
            return err;
        }
    }
}

static enum err read_slice(struct slice_walk *walk)
{
    struct apply_upload *upload = walk->upload;
    uint64_t at = walk->slice->offset;
    bool is_last = walk->slice + 1 == upload->slices + upload->slice_count;
    uint64_t end = is_last ? upload->end.decoded_bytes : walk->slice[1].offset;
    struct buffer *chunk = &walk->applier->chunk;
    buffer_clear(chunk);
    enum err err = buffer_reserve(chunk, CHUNK_BYTES);
    while (err == ERR_OK && at < end) {
        size_t size = 0;
        size_t wanted = end - at < CHUNK_BYTES ? (size_t)(end - at) : CHUNK_BYTES;
        err = journal_upload_read(upload->reader, at, chunk->data, wanted, &size);
        if (err == ERR_OK && size == 0) {
            err = ERR_CORRUPT;
        }
        if (err == ERR_OK) {
            at += size;
            format_batch_feed(walk->applier->format, slice_make(chunk->data, size));
            err = take_items(walk, false);
        }
    }
    return err != ERR_OK ? err : take_items(walk, true);
}

static enum err read_slices(struct slice_walk *walk, const uint8_t id_key[32])
{
    struct apply_upload *upload = walk->upload;
    const struct record_slice *last =
        walk->batch->is_whole ? &upload->slices[upload->slice_count - 1] : walk->slice;
    struct format_context context;
    enum err err = ERR_OK;
    format_context_of_frame(&upload->frame, id_key, &context);
    for (; walk->slice <= last && err == ERR_OK; walk->slice++) {
        format_batch_begin_at(walk->applier->format, (enum record_form)upload->end.form, &context,
                              walk->slice->index, walk->slice->count);
        err = read_slice(walk);
    }
    return err;
}

static enum err open_slice(struct slice_walk *walk)
{
    uint8_t id_key[32];
    struct apply_upload *upload = walk->upload;
    if (upload->failed != ERR_OK || apply_upload_is_done(upload)) {
        return ERR_OK; /* only its end is missing */
    }
    if (upload->table == APPLY_TABLE_MISSING) {
        enum err err = load_table(walk->applier, upload);
        if (err == ERR_OK) {
            upload->table = APPLY_TABLE_UNWRITTEN;
        } else {
            forget_table(upload);
        }
        return err;
    }
    walk->slice = &upload->slices[upload->slice_next];
    walk->batch->is_whole = is_whole(upload);
    enum err err = apply_id_key(walk->applier, upload->frame.org, id_key);
    if (err == ERR_OK && upload->reader == NULL) {
        err = journal_upload_open(&upload->reader, walk->applier->options.journal,
                                  upload->end.upload);
    }
    return err != ERR_OK ? err : read_slices(walk, id_key);
}

/* A step without rows: the cursor, the table or the end is to be written. */
static enum err empty_step(struct slice_walk *walk)
{
    apply_batch_reset(walk->batch);
    walk->batch->upload = walk->upload;
    return step_begin(walk);
}

enum err apply_fill_slice(struct applier *applier, struct apply_batch *batch,
                          struct apply_upload *upload)
{
    struct slice_walk walk = {.applier = applier, .batch = batch, .upload = upload};
    assert(batch->frame_count == 0);
    batch->upload = upload;
    pass_turn(applier, upload->frame.org);
    enum err err = open_slice(&walk);
    if (err != ERR_OK && postpone(upload, err)) {
        apply_batch_reset(batch);
        return err;
    }
    if (err == ERR_OK) {
        upload->pause_ms = 0;
        upload->io_errors = 0;
    } else {
        give_up(upload, err);
        batch->frame_count = 0;
        walk.step = NULL;
    }
    bool is_whole_now = batch->is_whole && upload->failed == ERR_OK;
    if (walk.step == NULL && batch->frame_count == 0) {
        err = empty_step(&walk);
        if (err != ERR_OK) {
            apply_batch_reset(batch);
            (void)postpone(upload, err); /* memory: it comes back */
            return err;
        }
    }
    step_end(&walk, 0);
    batch->is_whole = is_whole_now;
    batch->frames[batch->frame_count - 1].element_count =
        walk.slice == NULL ? 0 : upload->slices[upload->slice_next].count;
    batch->is_closed = true;
    return ERR_OK;
}
