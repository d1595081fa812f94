/* Upload: a loop's side of a large body.
 *
 *   receiving --end--> finishing (blocks, then the finish, are on the way)
 *                          --written and synced--> recording (the end record is in a batch)
 *                          --durable--> gone, the file stays
 *   any of them --abort, error--> gone, the file too
 *
 * (upload_on_block and upload_on_durable make the transitions after end.)
 *
 * Happy path: decoded bytes fill a block of 256 KiB; a full one is compressed here, on the loop,
 * charged to its org and posted to the uploader. More than 1 MiB on the way asks the caller to
 * pause; half of it back, and on_room runs.
 *
 * Failure modes: the backlog is full or the disk short: write says so, and the caller aborts. A
 * block could not be written: the next call says so; a caller that has paused is called for it. The
 * end record could not be made durable: the ticket gets the error, the file goes, the backlog gets
 * its bytes back. */
#include "journal/upload.h"

#include "base/mem.h"
#include "base/sys.h"

#include <assert.h>
#include <errno.h>
#include <zstd.h>

#define UPLOAD_IN_FLIGHT_BYTES (1024u * UINT64_C(1024))
#define UPLOADS_MAX            1024u
#define UPLOAD_LEVEL           1

static void upload_free(struct journal_upload *upload)
{
    struct journal *journal = upload->producer->journal;
    assert(upload->in_flight_count == 0 && upload->control == NULL);
    upload->producer->uploads--;
    atomic_fetch_sub_explicit(&journal->upload_count, 1, memory_order_relaxed);
    buffer_finish(&upload->table);
    buffer_finish(&upload->end_bytes);
    mem_free(upload->fill);
    mem_free(upload);
}

/* The last word about the file; never answered, so it cannot fail. */
static void upload_let_go(struct journal_upload *upload, enum journal_block_action action)
{
    struct journal *journal = upload->producer->journal;
    struct journal_block *block = upload->control;
    upload->control = NULL;
    block->action = action;
    block->mail.on_arrive = journal_uploader_on_block;
    mailbox_answer(journal->uploader_mailbox, &block->mail);
    if (action == JOURNAL_BLOCK_REMOVE) {
        journal_room_give(&journal->room, upload->org, upload->stored_bytes);
    }
}

static void upload_on_durable(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    struct journal_upload *upload = LIST_CONTAINER(ticket, struct journal_upload, end_ticket);
    struct journal_ticket *caller = upload->ticket;
    upload_let_go(upload, err == ERR_OK ? JOURNAL_BLOCK_RELEASE : JOURNAL_BLOCK_REMOVE);
    upload_free(upload);
    caller->on_durable(caller, err, position);
}

/* The file is whole and synced: its end record makes it exist. */
static void upload_record_end(struct journal_upload *upload)
{
    upload->end_ticket.on_durable = upload_on_durable;
    enum err err = upload->err;
    if (err == ERR_OK) {
        err = journal_append(upload->producer, &upload->parts, &upload->end_ticket);
    }
    if (err != ERR_OK) {
        upload_on_durable(&upload->end_ticket, err, 0);
        return;
    }
    journal_submit(upload->producer);
}

static void upload_make_room(struct journal_upload *upload)
{
    bool has_room = upload->in_flight_bytes <= UPLOAD_IN_FLIGHT_BYTES / 2 || upload->err != ERR_OK;
    if (upload->is_paused && has_room) {
        upload->is_paused = false;
        if (upload->on_room != NULL) {
            upload->on_room(upload, upload->context);
        }
    }
}

/* Back from the uploader. */
static void upload_on_block(struct mail *mail)
{
    struct journal_block *block = LIST_CONTAINER(mail, struct journal_block, mail);
    struct journal_upload *upload = block->upload;
    bool is_finish = block->action == JOURNAL_BLOCK_FINISH;
    upload->in_flight_count--;
    upload->in_flight_bytes -= block->head.decoded_bytes;
    upload->err = upload->err == ERR_OK ? block->err : upload->err;
    if (is_finish) {
        upload->control = block;
        upload_record_end(upload);
        return;
    }
    mem_free(block);
    if (!upload->is_aborted) {
        upload_make_room(upload);
    } else if (upload->in_flight_count == 0) {
        upload_free(upload);
    }
}

static enum err upload_post(struct journal_upload *upload, struct journal_block *block)
{
    block->mail.on_arrive = journal_uploader_on_block;
    block->upload = upload;
    block->file = upload->file;
    block->mailbox = upload->producer->mailbox;
    block->on_answer = upload_on_block;
    enum err err = mailbox_post(upload->producer->journal->uploader_mailbox, &block->mail);
    if (err == ERR_OK) {
        upload->in_flight_count++;
        upload->in_flight_bytes += block->head.decoded_bytes;
    }
    return err == ERR_CLOSED ? ERR_DRAINING : err;
}

static struct journal_block *block_create(size_t payload_bytes)
{
    struct journal_block *block =
        mem_try_alloc(sizeof(*block) + JOURNAL_BLOCK_HEAD_BYTES + payload_bytes);
    if (block != NULL) {
        *block = (struct journal_block){.action = JOURNAL_BLOCK_WRITE};
    }
    return block;
}

/* Charged first: what cannot be charged is not written. */
static enum err upload_post_block(struct journal_upload *upload, struct journal_block *block)
{
    struct journal_room *room = &upload->producer->journal->room;
    uint64_t size = JOURNAL_BLOCK_HEAD_BYTES + (uint64_t)block->head.stored_bytes;
    enum err err = journal_room_take(room, upload->org, size);
    if (err == ERR_OK) {
        err = upload_post(upload, block);
        if (err != ERR_OK) {
            journal_room_give(room, upload->org, size);
        }
    }
    if (err != ERR_OK) {
        mem_free(block);
        upload->err = err;
        return err;
    }
    upload->stored_bytes += size;
    return ERR_OK;
}

static enum err upload_post_fill(struct journal_upload *upload)
{
    struct journal_producer *producer = upload->producer;
    size_t bound = ZSTD_compressBound(upload->fill_size);
    struct journal_block *block = block_create(bound);
    if (producer->compressor == NULL) {
        producer->compressor = ZSTD_createCCtx();
    }
    if (block == NULL || producer->compressor == NULL) {
        mem_free(block);
        return ERR_NO_MEMORY;
    }
    size_t stored = ZSTD_compressCCtx(producer->compressor, block->bytes + JOURNAL_BLOCK_HEAD_BYTES,
                                      bound, upload->fill, upload->fill_size, UPLOAD_LEVEL);
    if (ZSTD_isError(stored)) { /* only memory can fail it, the bound is right */
        mem_free(block);
        return ERR_NO_MEMORY;
    }
    block->head.type = JOURNAL_BLOCK_DATA;
    block->head.decoded_bytes = (uint32_t)upload->fill_size;
    block->head.stored_bytes = (uint32_t)stored;
    upload->fill_size = 0;
    return upload_post_block(upload, block);
}

static enum err upload_post_table(struct journal_upload *upload, size_t size)
{
    struct journal_block *block = block_create(size);
    if (block == NULL) {
        return ERR_NO_MEMORY;
    }
    memcpy(block->bytes + JOURNAL_BLOCK_HEAD_BYTES, upload->table.data, size);
    buffer_consume(&upload->table, size);
    block->head.type = JOURNAL_BLOCK_TABLE;
    block->head.decoded_bytes = (uint32_t)size;
    block->head.stored_bytes = (uint32_t)size;
    return upload_post_block(upload, block);
}

enum err journal_upload_begin(struct journal_upload **ret, struct journal_producer *producer,
                              struct id id, uint64_t org)
{
    struct journal *journal = producer->journal;
    if (atomic_load_explicit(&journal->is_draining, memory_order_relaxed)) {
        return ERR_DRAINING;
    }
    enum err err = journal_room_look(&journal->room, org, LIMIT_UPLOAD_BLOCK_BYTES);
    if (err != ERR_OK) {
        return err;
    }
    if (atomic_fetch_add_explicit(&journal->upload_count, 1, memory_order_relaxed) >= UPLOADS_MAX) {
        atomic_fetch_sub_explicit(&journal->upload_count, 1, memory_order_relaxed);
        return ERR_FULL;
    }
    uint8_t *fill = mem_try_alloc(LIMIT_UPLOAD_BLOCK_BYTES);
    if (fill == NULL) {
        atomic_fetch_sub_explicit(&journal->upload_count, 1, memory_order_relaxed);
        return ERR_NO_MEMORY;
    }
    struct journal_upload *upload = mem_alloc(sizeof(*upload));
    upload->producer = producer;
    upload->id = id;
    upload->org = org;
    upload->fill = fill;
    buffer_init(&upload->table, (size_t)2 * JOURNAL_TABLE_BYTES);
    buffer_init(&upload->end_bytes, LIMIT_FRAME_BYTES);
    upload->file = mem_alloc(sizeof(*upload->file));
    *upload->file = (struct journal_upload_file){.journal = journal, .id = id, .fd = -1};
    upload->file->tail.last_index = JOURNAL_BLOCK_NONE;
    upload->file->tail.last_table = JOURNAL_BLOCK_NONE;
    upload->control = mem_alloc(sizeof(*upload->control) + JOURNAL_BLOCK_HEAD_BYTES);
    upload->control->file = upload->file;
    producer->uploads++;
    *ret = upload;
    return ERR_OK;
}

enum err journal_upload_write(struct journal_upload *upload, struct slice decoded, bool *ret_pause)
{
    while (decoded.size > 0 && upload->err == ERR_OK) {
        size_t room = LIMIT_UPLOAD_BLOCK_BYTES - upload->fill_size;
        size_t size = decoded.size < room ? decoded.size : room;
        memcpy(upload->fill + upload->fill_size, decoded.data, size);
        upload->fill_size += size;
        decoded = slice_part(decoded, size, decoded.size);
        if (upload->fill_size == LIMIT_UPLOAD_BLOCK_BYTES) {
            upload->err = upload_post_fill(upload);
        }
    }
    if (upload->err != ERR_OK) {
        return upload->err;
    }
    upload->is_paused = upload->in_flight_bytes > UPLOAD_IN_FLIGHT_BYTES;
    *ret_pause = upload->is_paused;
    return ERR_OK;
}

enum err journal_upload_note(struct journal_upload *upload, struct slice table)
{
    while (table.size > 0 && upload->err == ERR_OK) {
        size_t room = JOURNAL_TABLE_BYTES - upload->table.size;
        struct slice part = slice_part(table, 0, room);
        table = slice_part(table, part.size, table.size);
        upload->err = buffer_append_slice(&upload->table, part);
        if (upload->err == ERR_OK && upload->table.size == JOURNAL_TABLE_BYTES) {
            upload->err = upload_post_table(upload, JOURNAL_TABLE_BYTES);
        }
    }
    return upload->err;
}

void journal_upload_on_room(struct journal_upload *upload,
                            void (*on_room)(struct journal_upload *upload, void *context),
                            void *context)
{
    upload->on_room = on_room;
    upload->context = context;
}

uint64_t journal_upload_stored_bytes(const struct journal_upload *upload)
{
    return upload->stored_bytes;
}

/* Keeps the end record; its stored bytes are those that were charged, the last block included. */
static enum err upload_keep_parts(struct journal_upload *upload,
                                  const struct journal_frame_parts *parts)
{
    struct record_upload_end end;
    uint8_t body[RECORD_UPLOAD_END_BYTES];
    enum err err = record_upload_end_decode(parts->body, &end);
    if (err != ERR_OK) {
        return err;
    }
    end.stored_bytes = upload->stored_bytes;
    record_upload_end_encode(&end, body);
    err = buffer_append_slice(&upload->end_bytes, parts->head);
    if (err == ERR_OK) {
        err = buffer_append(&upload->end_bytes, body, sizeof(body));
    }
    upload->parts = *parts;
    upload->parts.head = slice_part(buffer_slice(&upload->end_bytes), 0, parts->head.size);
    upload->parts.body =
        slice_part(buffer_slice(&upload->end_bytes), parts->head.size, upload->end_bytes.size);
    return err;
}

enum err journal_upload_end(struct journal_upload *upload, const struct journal_frame_parts *parts,
                            struct journal_ticket *ticket)
{
    enum err err = upload->err;
    if (err == ERR_OK && upload->fill_size > 0) {
        err = upload_post_fill(upload);
    }
    if (err == ERR_OK && upload->table.size > 0) {
        err = upload_post_table(upload, upload->table.size);
    }
    if (err == ERR_OK) {
        err = upload_keep_parts(upload, parts);
    }
    if (err == ERR_OK) {
        upload->ticket = ticket;
        upload->control->action = JOURNAL_BLOCK_FINISH;
        err = upload_post(upload, upload->control);
    }
    if (err != ERR_OK) {
        journal_upload_abort(upload);
        return err;
    }
    upload->control = NULL;
    upload->is_paused = false;
    return ERR_OK;
}

void journal_upload_abort(struct journal_upload *upload)
{
    if (upload == NULL) {
        return;
    }
    upload->is_aborted = true;
    upload_let_go(upload, JOURNAL_BLOCK_REMOVE);
    if (upload->in_flight_count == 0) {
        upload_free(upload);
    }
}

void journal_upload_settle(struct journal *journal, const struct journal_frame *frame)
{
    struct record_frame record;
    struct record_upload_end end;
    char from[JOURNAL_PATH_BYTES];
    char to[JOURNAL_PATH_BYTES];
    if (record_frame_decode(frame->bytes_slice, &record) != ERR_OK ||
        record_upload_end_decode(record.body, &end) != ERR_OK) {
        return; /* not one of ours: nothing has this name */
    }
    journal_upload_path(from, journal, end.upload, false);
    journal_upload_path(to, journal, end.upload, true);
    if (sys_rename(from, to) != 0 && errno != ENOENT) {
        atomic_store_explicit(&journal->keeps_segments, true, memory_order_relaxed);
    }
}
