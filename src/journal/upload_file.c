/* Upload file: blocks one after the other, little-endian.
 *
 *   offset size  what, of each block
 *        0    8  checksum: XXH3-64 of bytes 8 to its end, seed = first 8 bytes of the id + offset
 *        8    4  magic "WUPB"
 *       12    4  type: 1 data, 2 table, 3 index, 4 end
 *       16    4  decoded bytes
 *       20    4  stored bytes: the payload
 *       24    8  offset of the block of the same type before it, all ones when there is none
 *       32       payload
 *
 *   data   262,144 decoded bytes (the last one may have fewer) as one zstd frame
 *   table  bytes of the table of contents, as they are; all table blocks together are the table
 *   index  8 bytes for each of up to 4,096 data blocks in order: offset * 2^20 + bytes of the block
 *   end    64 bytes, the last 96 of the file: decoded bytes 8, data blocks 8, last index 8, last
 *          table 8, table bytes 8, durable position when it was written 8, zeros 16
 *
 * A chain from the end block leads to all tables and indexes, so writing needs no memory that grows
 * with the body, and reading at an offset is one look at an index (kept), one pread and one
 * decompression.
 *
 * Names: <id>.part while it is written. The end record in the journal makes it exist; when that is
 * durable, before anybody hears of it, the name becomes <id>.up. A start that finds a .part looks
 * for its end record, and only where it can be: above the durable position in the end block. One
 * that cannot be read now is kept until it can, unless its end record is found. */
#include "journal/backend.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define BLOCK_MAGIC         0x42505557u /* "WUPB" */
#define BLOCK_STORED_MAX    ((1u << 20) - 1u - JOURNAL_BLOCK_HEAD_BYTES)
#define PENDING_UPLOADS_MAX (1u << 20)

static_assert(JOURNAL_INDEX_ENTRIES * 8 <= BLOCK_STORED_MAX, "an index is a block");
static_assert(JOURNAL_TABLE_BYTES <= BLOCK_STORED_MAX, "a table is a block");
static_assert(LIMIT_UPLOAD_BLOCK_BYTES + LIMIT_UPLOAD_BLOCK_BYTES / 128 <= BLOCK_STORED_MAX,
              "what does not compress still fits 20 bits of size");

static uint64_t block_checksum(const uint8_t *block, uint32_t stored, struct id upload,
                               uint64_t offset)
{
    uint64_t seed = buffer_get_u64(upload.bytes) + offset;
    return hash_xxh3(block + 8, JOURNAL_BLOCK_HEAD_BYTES - 8 + stored, seed);
}

void journal_block_seal(uint8_t *block, const struct journal_block_head *head, struct id upload,
                        uint64_t offset)
{
    assert(head->stored_bytes <= BLOCK_STORED_MAX);
    buffer_put_u32(block + 8, BLOCK_MAGIC);
    buffer_put_u32(block + 12, head->type);
    buffer_put_u32(block + 16, head->decoded_bytes);
    buffer_put_u32(block + 20, head->stored_bytes);
    buffer_put_u64(block + 24, head->previous);
    buffer_put_u64(block, block_checksum(block, head->stored_bytes, upload, offset));
}

bool journal_block_peek(const uint8_t *from, struct journal_block_head *ret)
{
    uint32_t stored = buffer_get_u32(from + 20);
    if (buffer_get_u32(from + 8) != BLOCK_MAGIC || stored > BLOCK_STORED_MAX) {
        return false;
    }
    ret->type = buffer_get_u32(from + 12);
    ret->decoded_bytes = buffer_get_u32(from + 16);
    ret->stored_bytes = stored;
    ret->previous = buffer_get_u64(from + 24);
    return true;
}

bool journal_block_check(const uint8_t *block, struct id upload, uint64_t offset,
                         struct journal_block_head *ret)
{
    struct journal_block_head head;
    if (!journal_block_peek(block, &head) ||
        buffer_get_u64(block) != block_checksum(block, head.stored_bytes, upload, offset)) {
        return false;
    }
    *ret = head;
    return true;
}

void journal_upload_tail_encode(const struct journal_upload_tail *tail,
                                uint8_t to[JOURNAL_UPLOAD_END_BYTES])
{
    memset(to, 0, JOURNAL_UPLOAD_END_BYTES);
    buffer_put_u64(to, tail->decoded_bytes);
    buffer_put_u64(to + 8, tail->data_blocks);
    buffer_put_u64(to + 16, tail->last_index);
    buffer_put_u64(to + 24, tail->last_table);
    buffer_put_u64(to + 32, tail->table_bytes);
    buffer_put_u64(to + 40, tail->durable_before);
}

void journal_upload_tail_decode(const uint8_t from[JOURNAL_UPLOAD_END_BYTES],
                                struct journal_upload_tail *ret)
{
    ret->decoded_bytes = buffer_get_u64(from);
    ret->data_blocks = buffer_get_u64(from + 8);
    ret->last_index = buffer_get_u64(from + 16);
    ret->last_table = buffer_get_u64(from + 24);
    ret->table_bytes = buffer_get_u64(from + 32);
    ret->durable_before = buffer_get_u64(from + 40);
}

enum err journal_upload_read_tail(int fd, struct id upload, struct journal_upload_tail *ret)
{
    uint8_t block[JOURNAL_BLOCK_HEAD_BYTES + JOURNAL_UPLOAD_END_BYTES];
    struct journal_block_head head;
    struct stat found;
    if (sys_fstat(fd, &found) != 0) {
        return err_from_errno(errno);
    }
    if (found.st_size < (off_t)sizeof(block)) {
        return ERR_CORRUPT;
    }
    off_t offset = found.st_size - (off_t)sizeof(block);
    ssize_t got = sys_pread(fd, block, sizeof(block), offset);
    if (got < 0) {
        return err_from_errno(errno);
    }
    if (got != (ssize_t)sizeof(block) || !journal_block_peek(block, &head) ||
        head.type != JOURNAL_BLOCK_END || head.stored_bytes != JOURNAL_UPLOAD_END_BYTES ||
        !journal_block_check(block, upload, (uint64_t)offset, &head)) {
        return ERR_CORRUPT;
    }
    journal_upload_tail_decode(block + JOURNAL_BLOCK_HEAD_BYTES, ret);
    return ERR_OK;
}

void journal_upload_path(char to[JOURNAL_PATH_BYTES], const struct journal *journal,
                         struct id upload, bool is_ended)
{
    char text[ID_TEXT_BYTES];
    id_format(upload, text);
    int size = snprintf(to, JOURNAL_PATH_BYTES, "%s/%.*s.%s", journal->uploads_directory,
                        ID_TEXT_BYTES, text, is_ended ? "up" : "part");
    assert(size > 0 && (uint32_t)size < JOURNAL_PATH_BYTES); /* checked when it was opened */
}

/* --- pending ------------------------------------------------------------------------------------
 */

/* A file that cannot be looked into now may be whole: every segment is read for its end record. */
static void pending_look_into(struct journal_pending_uploads *uploads, struct journal *journal,
                              struct journal_pending_upload *upload)
{
    char path[JOURNAL_PATH_BYTES];
    struct journal_upload_tail tail = {.durable_before = 0};
    journal_upload_path(path, journal, upload->id, false);
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    enum err err = fd < 0 ? err_from_errno(errno) : journal_upload_read_tail(fd, upload->id, &tail);
    if (fd >= 0) {
        (void)sys_close(fd); /* only read */
    }
    if (err == ERR_CORRUPT || err == ERR_NOT_FOUND) {
        return; /* it was never finished, or is gone */
    }
    if (err != ERR_OK) {
        log_write(LOG_WARN, "journal", "%s: %s", path, err_text(err));
        upload->is_unread = true;
    }
    if (tail.durable_before < uploads->least_position) {
        uploads->least_position = tail.durable_before;
    }
}

static void pending_add(struct journal_pending_uploads *uploads, struct journal *journal,
                        struct id id)
{
    if ((uploads->count & (uploads->count - 1)) == 0) { /* grows at powers of two */
        uint32_t capacity = uploads->count == 0 ? 1 : 2 * uploads->count;
        struct journal_pending_upload *rows =
            capacity > PENDING_UPLOADS_MAX
                ? NULL
                : mem_try_realloc(uploads->rows, capacity * sizeof(*rows));
        if (rows == NULL) { /* the rest has its turn at the next start */
            atomic_store_explicit(&journal->keeps_segments, true, memory_order_relaxed);
            return;
        }
        uploads->rows = rows;
    }
    struct journal_pending_upload *upload = &uploads->rows[uploads->count++];
    *upload = (struct journal_pending_upload){.id = id};
    pending_look_into(uploads, journal, upload);
}

static void pending_count_bytes(struct journal *journal, struct id id)
{
    char path[JOURNAL_PATH_BYTES];
    struct stat found;
    journal_upload_path(path, journal, id, true);
    if (sys_stat(path, &found) == 0) {
        atomic_fetch_add_explicit(&journal->disk_bytes, (uint64_t)found.st_size,
                                  memory_order_relaxed);
    }
}

/* The id in a name that has this ending. */
static bool upload_name_parse(const char *name, struct slice ending, struct id *ret)
{
    struct slice text = slice_from_text(name);
    return slice_equal(slice_part(text, ID_TEXT_BYTES, text.size), ending) &&
           id_parse(slice_part(text, 0, ID_TEXT_BYTES), ret);
}

static void pending_look_at(struct journal_pending_uploads *uploads, struct journal *journal,
                            const char *name)
{
    struct id id;
    if (upload_name_parse(name, SLICE_LITERAL(".up"), &id)) {
        pending_count_bytes(journal, id);
    } else if (upload_name_parse(name, SLICE_LITERAL(".part"), &id)) {
        pending_add(uploads, journal, id);
    }
}

enum err journal_pending_uploads_list(struct journal_pending_uploads *ret, struct journal *journal,
                                      struct err_detail *detail)
{
    struct journal_pending_uploads uploads = {.least_position = UINT64_MAX};
    DIR *handle = sys_opendir(journal->uploads_directory);
    enum err err = handle == NULL ? err_from_errno(errno) : ERR_OK;
    while (err == ERR_OK) {
        errno = 0;
        struct dirent *entry = sys_readdir(handle);
        if (entry == NULL) {
            err = errno == 0 ? ERR_OK : err_from_errno(errno);
            break;
        }
        pending_look_at(&uploads, journal, entry->d_name);
    }
    if (handle != NULL) {
        (void)sys_closedir(handle); /* only read */
    }
    if (err != ERR_OK) {
        err_detail_set(detail, "list %s: %s", journal->uploads_directory, err_text(err));
        journal_pending_uploads_finish(&uploads);
        return err;
    }
    *ret = uploads;
    return ERR_OK;
}

void journal_pending_uploads_mark(struct journal_pending_uploads *uploads, struct id upload)
{
    for (uint32_t i = 0; i < uploads->count; i++) {
        uploads->rows[i].is_ended |= id_equal(uploads->rows[i].id, upload);
    }
}

void journal_pending_uploads_settle(struct journal_pending_uploads *uploads,
                                    struct journal *journal)
{
    for (uint32_t i = 0; i < uploads->count; i++) {
        const struct journal_pending_upload *upload = &uploads->rows[i];
        char from[JOURNAL_PATH_BYTES];
        char to[JOURNAL_PATH_BYTES];
        journal_upload_path(from, journal, upload->id, false);
        journal_upload_path(to, journal, upload->id, true);
        if (!upload->is_ended && upload->is_unread) {
            continue; /* looked at again at the next start */
        }
        if (!upload->is_ended) {
            (void)sys_unlink(from); /* tried again at the next start */
        } else if (sys_rename(from, to) != 0) {
            atomic_store_explicit(&journal->keeps_segments, true, memory_order_relaxed);
        } else {
            pending_count_bytes(journal, upload->id);
        }
    }
}

void journal_pending_uploads_finish(struct journal_pending_uploads *uploads)
{
    mem_free(uploads->rows);
    *uploads = (struct journal_pending_uploads){0};
}

/* --- those of earlier runs
 * ------------------------------------------------------------------------ */

enum err journal_file_walk_open(struct journal_upload_walk *walk)
{
    walk->handle = sys_opendir(walk->journal->uploads_directory);
    return walk->handle == NULL ? err_from_errno(errno) : ERR_OK;
}

/* The end block says what was durable when the file became whole: its end record came after that,
 * and in the same run. */
static bool upload_is_older(const struct journal *journal, struct id id)
{
    char path[JOURNAL_PATH_BYTES];
    struct journal_upload_tail tail = {0};
    journal_upload_path(path, journal, id, true);
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) {
        return false; /* not known: not told */
    }
    enum err err = journal_upload_read_tail(fd, id, &tail);
    (void)sys_close(fd); /* only read */
    return err == ERR_OK && tail.durable_before < journal->recovered_position;
}

enum err journal_file_walk_next(struct journal_upload_walk *walk, struct id *ret, bool *ret_has)
{
    struct id id;
    for (;;) {
        errno = 0;
        struct dirent *entry = sys_readdir(walk->handle);
        if (entry == NULL && errno != 0) {
            return err_from_errno(errno);
        }
        if (entry == NULL) {
            *ret_has = false;
            return ERR_OK;
        }
        if (upload_name_parse(entry->d_name, SLICE_LITERAL(".up"), &id) &&
            upload_is_older(walk->journal, id)) {
            *ret = id;
            *ret_has = true;
            return ERR_OK;
        }
    }
}

void journal_file_walk_close(struct journal_upload_walk *walk)
{
    if (walk->handle != NULL) {
        (void)sys_closedir(walk->handle); /* only read */
    }
}

enum err journal_upload_walk_open(struct journal_upload_walk **ret, struct journal *journal)
{
    struct journal_upload_walk *walk = mem_alloc(sizeof(*walk));
    walk->journal = journal;
    enum err err = journal->backend->walk_open(walk);
    if (err != ERR_OK) {
        journal_upload_walk_close(walk);
        return err;
    }
    *ret = walk;
    return ERR_OK;
}

enum err journal_upload_walk_next(struct journal_upload_walk *walk, struct id *ret, bool *ret_has)
{
    return walk->journal->backend->walk_next(walk, ret, ret_has);
}

void journal_upload_walk_close(struct journal_upload_walk *walk)
{
    if (walk != NULL) {
        walk->journal->backend->walk_close(walk);
        mem_free(walk);
    }
}

uint64_t journal_recovered_position(const struct journal *journal)
{
    return journal->recovered_position;
}
