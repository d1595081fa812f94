/* Uploader: compresses and writes the blocks of all uploads; in files, of which this page speaks,
 * or in a stream (nats_upload.c).
 *
 * A thread of its own, so that neither the syncs of large files stand before a commit of events,
 * nor compression before the requests of a loop (docs/decisions says what was weighed).
 *
 * Happy path: blocks are written as they come, each followed by a hint that the disk may start with
 * it, and the file is synced every 2 MiB, so that no sync has much to do. Finish writes the index
 * and the end block, syncs the file and then its directory; the end record is appended after that,
 * by the loop.
 *
 * Failure modes: a failed write or sync is final for the file: it is removed, and every later block
 * of it is answered with the error. Stop: files that are not finished are removed. */
#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"
#include "journal/backend.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <zstd.h>

#define UPLOADER_LEVEL 1

void journal_file_upload_remove(struct journal_upload_file *file)
{
    char path[JOURNAL_PATH_BYTES];
    if (file->fd >= 0) {
        (void)sys_close(file->fd); /* it goes */
        file->fd = -1;
    }
    if (file->is_made) {
        journal_upload_path(path, file->journal, file->id, false);
        (void)sys_unlink(path); /* tried again at the next start */
        atomic_fetch_sub_explicit(&file->journal->disk_bytes, file->offset, memory_order_relaxed);
        file->is_made = false;
    }
}

void journal_upload_file_free(struct journal_upload_file *file)
{
    if (file == NULL) {
        return;
    }
    if (file->fd >= 0) {
        (void)sys_close(file->fd); /* what counts was synced */
    }
    list_remove(&file->link);
    mem_free(file->index);
    mem_free(file);
}

static enum err file_make(struct journal_upload_file *file)
{
    char path[JOURNAL_PATH_BYTES];
    journal_upload_path(path, file->journal, file->id, false);
    file->fd = sys_open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file->fd < 0) {
        return err_from_errno(errno);
    }
    file->is_made = true;
    list_push_back(&file->journal->uploader.files, &file->link);
    return ERR_OK;
}

/* `block` has `head` and payload; the head is completed. */
enum err journal_file_upload_write(struct journal_upload_file *file, uint8_t *block,
                                   const struct journal_block_head *head, uint64_t *ret_place)
{
    size_t size = JOURNAL_BLOCK_HEAD_BYTES + (size_t)head->stored_bytes;
    uint64_t offset = file->offset;
    enum err err = file->fd < 0 ? file_make(file) : ERR_OK;
    if (err != ERR_OK) {
        return err;
    }
    journal_block_seal(block, head, file->id, offset);
    ssize_t written = sys_pwrite(file->fd, block, size, (off_t)offset);
    if (written != (ssize_t)size) {
        return written < 0 ? err_from_errno(errno) : ERR_NO_SPACE;
    }
    (void)sys_write_back(file->fd, (off_t)offset, (off_t)size); /* a hint */
    file->offset += size;
    atomic_fetch_add_explicit(&file->journal->disk_bytes, size, memory_order_relaxed);
    if (file->offset - file->synced >= LIMIT_UPLOAD_SYNC_BYTES) {
        file->synced = file->offset;
        if (sys_fdatasync(file->fd) != 0) {
            return err_from_errno(errno);
        }
    }
    *ret_place = offset;
    return ERR_OK;
}

enum err journal_file_upload_sync(struct journal_upload_file *file)
{
    if (sys_fdatasync(file->fd) != 0 || sys_sync_directory(file->journal->uploads_directory) != 0) {
        return err_from_errno(errno);
    }
    return ERR_OK;
}

static enum err file_write(struct journal_upload_file *file, uint8_t *block,
                           const struct journal_block_head *head, uint64_t *ret_place)
{
    return file->journal->backend->upload_write(file, block, head, ret_place);
}

static enum err file_write_index(struct journal_upload_file *file)
{
    uint32_t stored = file->index_count * (uint32_t)sizeof(*file->index);
    struct journal_block_head head = {JOURNAL_BLOCK_INDEX, stored, stored, file->tail.last_index};
    uint8_t *block = mem_alloc(JOURNAL_BLOCK_HEAD_BYTES + stored);
    memcpy(block + JOURNAL_BLOCK_HEAD_BYTES, file->index, stored);
    enum err err = file_write(file, block, &head, &file->tail.last_index);
    mem_free(block);
    if (err == ERR_OK) {
        file->index_count = 0;
    }
    return err;
}

static enum err file_put_table(struct journal_upload_file *file, uint8_t *block,
                               struct journal_block_head *head)
{
    head->previous = file->tail.last_table;
    enum err err = file_write(file, block, head, &file->tail.last_table);
    if (err == ERR_OK) {
        file->tail.table_bytes += head->stored_bytes;
    }
    return err;
}

static enum err file_put_data(struct journal_upload_file *file, uint8_t *block,
                              struct journal_block_head *head)
{
    uint64_t place = 0;
    enum err err = ERR_OK;
    if (file->index_count == JOURNAL_INDEX_ENTRIES) {
        err = file_write_index(file);
    }
    head->previous = JOURNAL_BLOCK_NONE;
    if (err == ERR_OK) {
        err = file_write(file, block, head, &place);
    }
    if (err != ERR_OK) {
        return err;
    }
    file->tail.decoded_bytes += head->decoded_bytes;
    file->tail.data_blocks++;
    if (file->index == NULL) {
        file->index = mem_alloc_array(JOURNAL_INDEX_ENTRIES, sizeof(*file->index));
    }
    file->index[file->index_count++] =
        journal_index_entry(place, JOURNAL_BLOCK_HEAD_BYTES + head->stored_bytes);
    return ERR_OK;
}

enum err journal_upload_put(struct journal_upload_file *file, uint8_t *block,
                            struct journal_block_head *head)
{
    return head->type == JOURNAL_BLOCK_TABLE ? file_put_table(file, block, head)
                                             : file_put_data(file, block, head);
}

static enum err uploader_prepare(struct journal_uploader *uploader)
{
    if (uploader->compressor == NULL) {
        uploader->compressor = ZSTD_createCCtx();
    }
    if (uploader->compressed == NULL) {
        uploader->compressed =
            mem_try_alloc(JOURNAL_BLOCK_HEAD_BYTES + ZSTD_compressBound(LIMIT_UPLOAD_BLOCK_BYTES));
    }
    bool is_ready = uploader->compressor != NULL && uploader->compressed != NULL;
    return is_ready ? ERR_OK : ERR_NO_MEMORY;
}

static enum err file_add_data(struct journal_upload_file *file, struct journal_block *block)
{
    struct journal_uploader *uploader = &file->journal->uploader;
    struct journal_block_head *head = &block->head;
    enum err err = uploader_prepare(uploader);
    if (err != ERR_OK) {
        return err;
    }
    size_t stored = ZSTD_compressCCtx(
        uploader->compressor, uploader->compressed + JOURNAL_BLOCK_HEAD_BYTES,
        ZSTD_compressBound(head->decoded_bytes), block->bytes + JOURNAL_BLOCK_HEAD_BYTES,
        head->decoded_bytes, UPLOADER_LEVEL);
    if (ZSTD_isError(stored)) { /* only memory can fail it, the bound is right */
        return ERR_NO_MEMORY;
    }
    head->stored_bytes = (uint32_t)stored;
    assert(JOURNAL_BLOCK_HEAD_BYTES + head->stored_bytes <= block->charged_bytes);
    return file_put_data(file, uploader->compressed, head);
}

enum err journal_upload_finish(struct journal_upload_file *file)
{
    uint8_t block[JOURNAL_BLOCK_HEAD_BYTES + JOURNAL_UPLOAD_END_BYTES];
    struct journal_block_head head = {JOURNAL_BLOCK_END, JOURNAL_UPLOAD_END_BYTES,
                                      JOURNAL_UPLOAD_END_BYTES, JOURNAL_BLOCK_NONE};
    uint64_t place = 0;
    enum err err = file->index_count > 0 ? file_write_index(file) : ERR_OK;
    file->tail.durable_before =
        atomic_load_explicit(&file->journal->durable_position, memory_order_acquire);
    journal_upload_tail_encode(&file->tail, block + JOURNAL_BLOCK_HEAD_BYTES);
    if (err == ERR_OK) {
        err = file_write(file, block, &head, &place);
    }
    return err == ERR_OK ? file->journal->backend->upload_sync(file) : err;
}

static enum err file_take(struct journal_upload_file *file, struct journal_block *block)
{
    if (block->action == JOURNAL_BLOCK_FINISH) {
        return journal_upload_finish(file);
    }
    if (block->head.type == JOURNAL_BLOCK_TABLE) {
        block->head.stored_bytes = block->head.decoded_bytes;
        return file_put_table(file, block->bytes, &block->head);
    }
    return file_add_data(file, block);
}

void journal_uploader_on_block(struct mail *mail)
{
    struct journal_block *block = LIST_CONTAINER(mail, struct journal_block, mail);
    struct journal_upload_file *file = block->file;
    if (block->action == JOURNAL_BLOCK_REMOVE || block->action == JOURNAL_BLOCK_RELEASE) {
        if (block->action == JOURNAL_BLOCK_REMOVE) {
            file->journal->backend->upload_remove(file);
        }
        journal_upload_file_free(file);
        mem_free(block);
        return;
    }
    if (file->err == ERR_OK) {
        file->err = file_take(file, block);
    }
    if (file->err != ERR_OK) {
        file->journal->backend->upload_remove(file);
    }
    block->err = file->err;
    block->mail.on_arrive = block->on_answer;
    mailbox_answer(block->mailbox, &block->mail);
}

bool journal_uploader_step(struct journal *journal)
{
    return mailbox_run_all(journal->uploader_mailbox) > 0;
}

void journal_uploader_run(void *argument)
{
    struct journal *journal = argument;
    bool is_closed = false;
    while (!is_closed) {
        mailbox_wait(journal->uploader_mailbox, -1);
        /* Before the mail is taken: what was posted before closing is then in it. */
        is_closed = mailbox_is_closed(journal->uploader_mailbox);
        while (journal_uploader_step(journal)) {
        }
    }
}

void journal_uploader_discard(struct journal *journal)
{
    struct list_link *link;
    (void)mailbox_run_all(journal->uploader_mailbox); /* last words that came after the stop */
    while ((link = list_first(&journal->uploader.files)) != NULL) {
        struct journal_upload_file *file = LIST_CONTAINER(link, struct journal_upload_file, link);
        journal->backend->upload_remove(file); /* its loop never ended it */
        journal_upload_file_free(file);
    }
    (void)ZSTD_freeCCtx(journal->uploader.compressor); /* NULL is fine; it cannot fail */
    mem_free(journal->uploader.compressed);
    journal->uploader.compressor = NULL;
    journal->uploader.compressed = NULL;
}
