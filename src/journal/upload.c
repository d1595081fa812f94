/* Upload: a loop's side of a large body.
 *
 *   receiving --flush--> whole --end--> finishing (the finish is on the way behind all blocks)
 *                          --written and synced--> recording (the end record is in a batch)
 *                          --durable--> gone, the file stays
 *   any of them --abort, error--> gone, the file too
 *
 * (upload_on_block and upload_on_durable make the transitions after end.)
 *
 * Happy path: decoded bytes fill a block of 256 KiB; a full one is charged to its org and posted to
 * the uploader, which compresses and writes it. What it takes is known only then, so the most that
 * it can take is charged, and the rest given back when the block returns. More than 512 KiB on the
 * way asks the caller to pause; half of it back, and on_room runs.
 *
 * Failure modes: the backlog is full or the disk short: the block waits, with all behind it, and
 * the caller pauses until a retry finds room. An upload that is larger than what one org may have
 * waiting never will: it ends at once. A block could not be written: the next call says so; a
 * caller that has paused is called for it. The end record could not be made durable: the ticket
 * gets the error, the file goes, the backlog gets its bytes back. */
#include "journal/upload.h"

#include "base/mem.h"
#include "base/sys.h"

#include <assert.h>
#include <errno.h>
#include <zstd.h>

#define UPLOAD_IN_FLIGHT_BYTES (512u * UINT64_C(1024))

/* Everything that it charged is given back, unless its end record is durable: then apply does. */
static void upload_free(struct journal_upload *upload)
{
    struct journal *journal = upload->producer->journal;
    struct journal_block *block;
    assert(upload->in_flight_count == 0 && upload->control == NULL);
    while ((block = upload->waiting) != NULL) {
        upload->waiting = block->next;
        mem_free(block);
    }
    upload->producer->uploads--;
    journal_slots_leave(&journal->slots, upload->org);
    if (!upload->is_durable) {
        journal_slots_close(&journal->slots, upload->org);
        journal_room_give(&journal->room, upload->org, upload->charged_bytes);
    }
    buffer_finish(&upload->table);
    buffer_finish(&upload->end_bytes);
    mem_free(upload->fill);
    mem_free(upload->spare);
    mem_free(upload);
}

/* The last word about the file; never answered, so it cannot fail. */
static void upload_let_go(struct journal_upload *upload, enum journal_block_action action)
{
    struct journal_block *block = upload->control;
    upload->control = NULL;
    block->action = action;
    block->mail.on_arrive = journal_uploader_on_block;
    mailbox_answer(upload->producer->journal->uploader_mailbox, &block->mail);
}

static void upload_on_durable(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    struct journal_upload *upload = LIST_CONTAINER(ticket, struct journal_upload, end_ticket);
    struct journal_ticket *caller = upload->ticket;
    upload->is_durable = err == ERR_OK;
    upload_let_go(upload, err == ERR_OK ? JOURNAL_BLOCK_RELEASE : JOURNAL_BLOCK_REMOVE);
    upload_free(upload);
    caller->on_durable(caller, err, position);
}

/* The stored bytes are what is charged, now that every block has returned. */
static enum err upload_complete_parts(struct journal_upload *upload)
{
    struct record_upload_end end;
    uint8_t *body = upload->end_bytes.data + upload->parts.head.size;
    enum err err = record_upload_end_decode(upload->parts.body, &end);
    if (err == ERR_OK) {
        end.stored_bytes = upload->charged_bytes;
        record_upload_end_encode(&end, body);
    }
    return err;
}

/* The file is whole and synced: its end record makes it exist. Its few bytes are taken whatever the
 * bounds say, so that no whole body fails for them. */
static void upload_record_end(struct journal_upload *upload)
{
    struct journal_room *room = &upload->producer->journal->room;
    uint64_t bytes = journal_parts_bytes(&upload->parts);
    enum err err = upload->err == ERR_OK ? upload_complete_parts(upload) : upload->err;
    upload->end_ticket.on_durable = upload_on_durable;
    if (err == ERR_OK) {
        journal_room_force(room, upload->org, bytes);
        err = journal_append_charged(upload->producer, &upload->parts, &upload->end_ticket);
        if (err != ERR_OK) {
            journal_room_give(room, upload->org, bytes);
        }
    }
    if (err != ERR_OK) {
        upload_on_durable(&upload->end_ticket, err, 0);
        return;
    }
    journal_submit(upload->producer);
}

/* --- blocks --------------------------------------------------------------------------------- */

static void upload_on_block(struct mail *mail);

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

/* Charged first: what cannot be charged is not written. */
static enum err upload_charge_and_post(struct journal_upload *upload, struct journal_block *block)
{
    struct journal_room *room = &upload->producer->journal->room;
    uint64_t size = block->charged_bytes;
    enum err err = journal_room_take(room, upload->org, size);
    if (err == ERR_AWAY && upload->charged_bytes > 0) {
        /* Not at the door any more: the uploader knows how long to wait for the server. */
        journal_room_force(room, upload->org, size);
        err = ERR_OK;
    }
    if (err == ERR_OK) {
        err = upload_post(upload, block);
        if (err != ERR_OK) {
            journal_room_give(room, upload->org, size);
            return err;
        }
        upload->charged_bytes += size;
        return ERR_OK;
    }
    bool is_alone_too_large =
        upload->in_flight_count == 0 && upload->charged_bytes + size > journal_room_org_max(room);
    return is_alone_too_large ? ERR_TOO_LARGE : err;
}

/* Posts what waits, as long as there is room. */
static void upload_post_waiting(struct journal_upload *upload)
{
    while (upload->waiting != NULL && upload->err == ERR_OK) {
        struct journal_block *block = upload->waiting;
        struct journal_block *next = block->next; /* it is the uploader's once it is posted */
        enum err err = upload_charge_and_post(upload, block);
        if (err == ERR_FULL || err == ERR_NO_SPACE) {
            return;
        }
        if (err != ERR_OK) {
            upload->err = err;
            return;
        }
        upload->waiting = next;
        if (next == NULL) {
            upload->waiting_last = &upload->waiting;
        }
    }
}

static void upload_send(struct journal_upload *upload, struct journal_block *block)
{
    block->next = NULL;
    *upload->waiting_last = block;
    upload->waiting_last = &block->next;
    upload_post_waiting(upload);
}

static bool upload_must_pause(const struct journal_upload *upload, uint64_t in_flight_max)
{
    return upload->err == ERR_OK &&
           (upload->waiting != NULL || upload->in_flight_bytes > in_flight_max);
}

/* The last thing that is done with an upload: on_room may end it. */
static void upload_make_room(struct journal_upload *upload)
{
    if (upload->is_paused && !upload_must_pause(upload, UPLOAD_IN_FLIGHT_BYTES / 2)) {
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
    upload->in_flight_count--;
    upload->in_flight_bytes -= block->head.decoded_bytes;
    upload->err = upload->err == ERR_OK ? block->err : upload->err;
    if (block->action == JOURNAL_BLOCK_FINISH) {
        upload->control = block;
        upload_record_end(upload);
        return;
    }
    uint64_t stored = JOURNAL_BLOCK_HEAD_BYTES + (uint64_t)block->head.stored_bytes;
    uint64_t unused = block->err == ERR_OK ? block->charged_bytes - stored : 0;
    journal_room_give(&upload->producer->journal->room, upload->org, unused);
    upload->charged_bytes -= unused;
    if (upload->spare == NULL && block->head.type == JOURNAL_BLOCK_DATA) {
        upload->spare = block;
    } else {
        mem_free(block);
    }
    if (!upload->is_aborted) {
        upload_post_waiting(upload);
        upload_make_room(upload);
    } else if (upload->in_flight_count == 0) {
        upload_free(upload);
    }
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

/* A block to fill. */
static enum err upload_take_fill(struct journal_upload *upload)
{
    struct journal_block *block = upload->spare;
    upload->spare = NULL;
    if (block == NULL) {
        block = block_create(LIMIT_UPLOAD_BLOCK_BYTES);
    }
    if (block == NULL) {
        return ERR_NO_MEMORY;
    }
    *block = (struct journal_block){.action = JOURNAL_BLOCK_WRITE, .head.type = JOURNAL_BLOCK_DATA};
    upload->fill = block;
    return ERR_OK;
}

static void upload_send_fill(struct journal_upload *upload)
{
    struct journal_block *block = upload->fill;
    size_t bound = JOURNAL_BLOCK_HEAD_BYTES + ZSTD_compressBound(block->head.decoded_bytes);
    block->charged_bytes = (uint32_t)bound;
    upload->fill = NULL;
    upload_send(upload, block);
}

static enum err upload_send_table(struct journal_upload *upload, size_t size)
{
    struct journal_block *block = block_create(size);
    if (block == NULL) {
        return ERR_NO_MEMORY;
    }
    memcpy(block->bytes + JOURNAL_BLOCK_HEAD_BYTES, upload->table.data, size);
    buffer_consume(&upload->table, size);
    block->head.type = JOURNAL_BLOCK_TABLE;
    block->head.decoded_bytes = (uint32_t)size;
    block->charged_bytes = JOURNAL_BLOCK_HEAD_BYTES + (uint32_t)size;
    upload_send(upload, block);
    return upload->err;
}

/* --- what the loop calls --------------------------------------------------------------------- */

enum err journal_upload_room(struct journal *journal, uint64_t org)
{
    enum err err = journal_takes_bodies(journal) ? ERR_OK : ERR_AWAY;
    if (err == ERR_OK) {
        err = journal_room_look(&journal->room, org, LIMIT_UPLOAD_BLOCK_BYTES);
    }
    return err == ERR_OK ? journal_slots_look(&journal->slots, org) : err;
}

enum err journal_upload_begin(struct journal_upload **ret, struct journal_producer *producer,
                              struct id id, uint64_t org)
{
    struct journal *journal = producer->journal;
    if (atomic_load_explicit(&journal->is_draining, memory_order_relaxed)) {
        return ERR_DRAINING;
    }
    enum err err = journal_takes_bodies(journal) ? ERR_OK : ERR_AWAY;
    if (err == ERR_OK) {
        err = journal_room_look(&journal->room, org, LIMIT_UPLOAD_BLOCK_BYTES);
    }
    if (err == ERR_OK) {
        err = journal_slots_begin(&journal->slots, org);
    }
    if (err != ERR_OK) {
        return err;
    }
    struct journal_upload *upload = mem_alloc(sizeof(*upload));
    upload->producer = producer;
    upload->id = id;
    upload->org = org;
    upload->waiting_last = &upload->waiting;
    buffer_init(&upload->table, (size_t)2 * JOURNAL_TABLE_BYTES);
    buffer_init(&upload->end_bytes, LIMIT_FRAME_BYTES);
    upload->file = mem_alloc(sizeof(*upload->file));
    *upload->file =
        (struct journal_upload_file){.journal = journal_body_place(journal), .id = id, .fd = -1};
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
        if (upload->fill == NULL) {
            upload->err = upload_take_fill(upload);
            continue;
        }
        struct journal_block_head *head = &upload->fill->head;
        size_t room = LIMIT_UPLOAD_BLOCK_BYTES - head->decoded_bytes;
        size_t size = decoded.size < room ? decoded.size : room;
        memcpy(upload->fill->bytes + JOURNAL_BLOCK_HEAD_BYTES + head->decoded_bytes, decoded.data,
               size);
        head->decoded_bytes += (uint32_t)size;
        decoded = slice_part(decoded, size, decoded.size);
        if (head->decoded_bytes == LIMIT_UPLOAD_BLOCK_BYTES) {
            upload_send_fill(upload);
        }
    }
    if (upload->err != ERR_OK) {
        return upload->err;
    }
    upload->is_paused = upload_must_pause(upload, UPLOAD_IN_FLIGHT_BYTES);
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
            upload->err = upload_send_table(upload, JOURNAL_TABLE_BYTES);
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

void journal_upload_retry(struct journal_upload *upload)
{
    upload_post_waiting(upload);
    upload_make_room(upload);
}

enum err journal_upload_flush(struct journal_upload *upload, bool *ret_pause)
{
    if (upload->err == ERR_OK && upload->fill != NULL) {
        upload_send_fill(upload);
    }
    if (upload->err == ERR_OK && upload->table.size > 0) {
        upload->err = upload_send_table(upload, upload->table.size);
    }
    if (upload->err != ERR_OK) {
        return upload->err;
    }
    upload->is_paused = upload->waiting != NULL;
    *ret_pause = upload->is_paused;
    return ERR_OK;
}

static enum err upload_keep_parts(struct journal_upload *upload,
                                  const struct journal_frame_parts *parts)
{
    enum err err = buffer_append_slice(&upload->end_bytes, parts->head);
    if (err == ERR_OK) {
        err = buffer_append_slice(&upload->end_bytes, parts->body);
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
    bool must_wait = false;
    enum err err = journal_upload_flush(upload, &must_wait);
    if (err == ERR_OK) {
        err = must_wait ? ERR_FULL : upload_keep_parts(upload, parts);
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

/* False: not an upload's. */
static bool upload_end_of(const struct journal_frame *frame, struct record_upload_end *ret)
{
    struct record_frame record;
    return frame->form == RECORD_FORM_UPLOAD_END &&
           record_frame_decode(frame->bytes_slice, &record) == ERR_OK &&
           record_upload_end_decode(record.body, ret) == ERR_OK;
}

bool journal_upload_is_pending(const struct journal *journal, const struct journal_frame *frame)
{
    struct record_upload_end end;
    struct stat found;
    char path[JOURNAL_PATH_BYTES];
    if (!upload_end_of(frame, &end)) {
        return false;
    }
    journal_upload_path(path, journal, end.upload, false);
    return sys_stat(path, &found) == 0;
}

bool journal_upload_settle(struct journal *journal, const struct journal_frame *frame)
{
    struct record_upload_end end;
    char from[JOURNAL_PATH_BYTES];
    char to[JOURNAL_PATH_BYTES];
    if (!upload_end_of(frame, &end)) {
        return true; /* not one of ours: nothing has this name */
    }
    journal_upload_path(from, journal, end.upload, false);
    journal_upload_path(to, journal, end.upload, true);
    if (sys_rename(from, to) != 0 && errno != ENOENT) {
        atomic_store_explicit(&journal->keeps_segments, true, memory_order_relaxed);
        return false;
    }
    return true;
}
