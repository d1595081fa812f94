/* Upload reader: decoded bytes at any offset, and the table of contents.
 *
 * Happy path: the offset names the block; the index entry, mostly of the index block that is kept,
 * names its place; one pread, one decompression; the decoded block is kept for the next call.
 * Failure modes: a block that does not verify is ERR_CORRUPT; other blocks can still be read. */
#include "base/hash.h"
#include "base/mem.h"
#include "base/sys.h"
#include "journal/backend.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <zstd.h>

struct journal_upload_reader {
    struct journal_upload_source source;
    uint64_t *index;      /* of group index_group */
    uint64_t index_group; /* UINT64_MAX: none */
    uint64_t block;       /* number of the block in `decoded`; UINT64_MAX: none */
    uint8_t *decoded;
    size_t decoded_size;
    uint8_t *stored; /* room for any block */
    ZSTD_DCtx *decompressor;
};

#define UPLOAD_READER_STORED_BYTES (512u * UINT64_C(1024))
static_assert(JOURNAL_INDEX_ENTRIES * 8 + JOURNAL_BLOCK_HEAD_BYTES <= UPLOAD_READER_STORED_BYTES,
              "an index block fits");

static enum err file_load(const struct journal_upload_source *source, uint64_t place, uint8_t *to,
                          size_t size, size_t *ret_size)
{
    ssize_t got = sys_pread(source->fd, to, size, (off_t)place);
    if (got < 0) {
        return err_from_errno(errno);
    }
    *ret_size = (size_t)got;
    return ERR_OK;
}

enum err journal_file_upload_find(struct journal_upload_source *ret, struct journal *journal,
                                  struct id id)
{
    char path[JOURNAL_PATH_BYTES];
    struct journal_upload_source source = {.journal = journal, .id = id, .load = file_load};
    journal_upload_path(path, journal, id, true);
    source.fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (source.fd < 0 && errno == ENOENT) { /* its last change of name failed */
        journal_upload_path(path, journal, id, false);
        source.fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    }
    if (source.fd < 0) {
        return err_from_errno(errno);
    }
    enum err err = journal_upload_read_tail(source.fd, id, &source.tail);
    if (err != ERR_OK) {
        (void)sys_close(source.fd); /* only read */
        return err;
    }
    *ret = source;
    return ERR_OK;
}

enum err journal_upload_open(struct journal_upload_reader **ret, struct journal *journal,
                             struct id id)
{
    struct journal_upload_reader *reader = mem_alloc(sizeof(*reader));
    reader->source.fd = -1;
    reader->index_group = UINT64_MAX;
    reader->block = UINT64_MAX;
    enum err err = journal->backend->upload_find(&reader->source, journal, id);
    if (err != ERR_OK) {
        goto out;
    }
    reader->stored = mem_try_alloc(UPLOAD_READER_STORED_BYTES);
    reader->decoded = mem_try_alloc(LIMIT_UPLOAD_BLOCK_BYTES);
    reader->index = mem_try_alloc(JOURNAL_INDEX_ENTRIES * sizeof(*reader->index));
    reader->decompressor = ZSTD_createDCtx();
    if (reader->stored == NULL || reader->decoded == NULL || reader->index == NULL ||
        reader->decompressor == NULL) {
        err = ERR_NO_MEMORY;
        goto out;
    }
    *ret = reader;
    reader = NULL; /* the caller owns it now */
out:
    journal_upload_close(reader);
    return err;
}

void journal_upload_close(struct journal_upload_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    if (reader->source.fd >= 0) {
        (void)sys_close(reader->source.fd); /* only read */
    }
    (void)ZSTD_freeDCtx(reader->decompressor); /* NULL is fine; it cannot fail */
    mem_free(reader->index);
    mem_free(reader->decoded);
    mem_free(reader->stored);
    mem_free(reader);
}

/* What stands in reader->stored is the block that was meant. In a file its offset is part of its
 * checksum; in the stream, where the id alone is, a data block says its number. */
static bool reader_verify(const struct journal_upload_reader *reader, uint64_t place, size_t size,
                          enum journal_block_type type, struct journal_block_head *ret)
{
    struct journal_block_head head = {0};
    uint64_t offset = reader->source.fd >= 0 ? place : 0;
    if (size < JOURNAL_BLOCK_HEAD_BYTES || !journal_block_peek(reader->stored, &head) ||
        head.type != type || head.stored_bytes + (uint64_t)JOURNAL_BLOCK_HEAD_BYTES != size) {
        return false;
    }
    return journal_block_check(reader->stored, reader->source.id, offset, ret);
}

/* Reads the block of `size` bytes, head included, at `place` into reader->stored. */
static enum err reader_load(struct journal_upload_reader *reader, uint64_t place, size_t size,
                            enum journal_block_type type, struct journal_block_head *ret)
{
    const struct journal_upload_source *source = &reader->source;
    size_t got = 0;
    if (size > UPLOAD_READER_STORED_BYTES) {
        return ERR_CORRUPT;
    }
    enum err err = source->load(source, place, reader->stored, size, &got);
    if (err != ERR_OK) {
        return err;
    }
    return got == size && reader_verify(reader, place, size, type, ret) ? ERR_OK : ERR_CORRUPT;
}

/* As reader_load, where the size stands only in the block itself. */
static enum err reader_load_chained(struct journal_upload_reader *reader, uint64_t place,
                                    enum journal_block_type type, struct journal_block_head *ret)
{
    const struct journal_upload_source *source = &reader->source;
    struct journal_block_head head = {0};
    size_t got = 0;
    size_t first = source->fd >= 0 ? JOURNAL_BLOCK_HEAD_BYTES : UPLOAD_READER_STORED_BYTES;
    enum err err = source->load(source, place, reader->stored, first, &got);
    if (err != ERR_OK) {
        return err;
    }
    if (source->fd < 0) { /* a message comes whole */
        return reader_verify(reader, place, got, type, ret) ? ERR_OK : ERR_CORRUPT;
    }
    if (got != JOURNAL_BLOCK_HEAD_BYTES || !journal_block_peek(reader->stored, &head)) {
        return ERR_CORRUPT;
    }
    return reader_load(reader, place, JOURNAL_BLOCK_HEAD_BYTES + (size_t)head.stored_bytes, type,
                       ret);
}

/* The chain leads from the last group back. */
static enum err reader_load_index(struct journal_upload_reader *reader, uint64_t group)
{
    uint64_t at = (reader->source.tail.data_blocks - 1) / JOURNAL_INDEX_ENTRIES;
    uint64_t offset = reader->source.tail.last_index;
    struct journal_block_head head = {0};
    if (reader->index_group == group) {
        return ERR_OK;
    }
    for (;; at--) {
        enum err err = reader_load_chained(reader, offset, JOURNAL_BLOCK_INDEX, &head);
        if (err != ERR_OK) {
            return err;
        }
        if (at == group) {
            break;
        }
        offset = head.previous;
    }
    if (head.stored_bytes > JOURNAL_INDEX_ENTRIES * sizeof(*reader->index)) {
        return ERR_CORRUPT;
    }
    memset(reader->index, 0, JOURNAL_INDEX_ENTRIES * sizeof(*reader->index));
    memcpy(reader->index, reader->stored + JOURNAL_BLOCK_HEAD_BYTES, head.stored_bytes);
    reader->index_group = group;
    return ERR_OK;
}

static enum err reader_load_block(struct journal_upload_reader *reader, uint64_t block)
{
    struct journal_block_head head = {0};
    if (reader->block == block) {
        return ERR_OK;
    }
    enum err err = reader_load_index(reader, block / JOURNAL_INDEX_ENTRIES);
    if (err != ERR_OK) {
        return err;
    }
    uint64_t entry = reader->index[block % JOURNAL_INDEX_ENTRIES];
    err = reader_load(reader, entry >> 20, (size_t)(entry & 0xfffff), JOURNAL_BLOCK_DATA, &head);
    if (err != ERR_OK) {
        return err;
    }
    if (reader->source.fd < 0 && head.previous != block) {
        return ERR_CORRUPT;
    }
    reader->block = UINT64_MAX; /* nothing is kept while it is being replaced */
    size_t size =
        ZSTD_decompressDCtx(reader->decompressor, reader->decoded, LIMIT_UPLOAD_BLOCK_BYTES,
                            reader->stored + JOURNAL_BLOCK_HEAD_BYTES, head.stored_bytes);
    uint64_t begin = block * LIMIT_UPLOAD_BLOCK_BYTES;
    uint64_t left = reader->source.tail.decoded_bytes - begin;
    uint64_t expected = left < LIMIT_UPLOAD_BLOCK_BYTES ? left : LIMIT_UPLOAD_BLOCK_BYTES;
    if (ZSTD_isError(size) || size != expected) {
        return ERR_CORRUPT;
    }
    reader->decoded_size = size;
    reader->block = block;
    return ERR_OK;
}

enum err journal_upload_read(struct journal_upload_reader *reader, uint64_t offset, uint8_t *to,
                             size_t size, size_t *ret_size)
{
    size_t done = 0;
    while (done < size && offset < reader->source.tail.decoded_bytes) {
        enum err err = reader_load_block(reader, offset / LIMIT_UPLOAD_BLOCK_BYTES);
        if (err != ERR_OK) {
            return err;
        }
        size_t begin = (size_t)(offset % LIMIT_UPLOAD_BLOCK_BYTES);
        size_t step = reader->decoded_size - begin;
        step = step < size - done ? step : size - done;
        memcpy(to + done, reader->decoded + begin, step);
        done += step;
        offset += step;
    }
    *ret_size = done;
    return ERR_OK;
}

/* The chain leads backwards, so the table is filled from its end. */
enum err journal_upload_table(struct journal_upload_reader *reader, struct buffer *to)
{
    uint64_t left = reader->source.tail.table_bytes;
    uint64_t offset = reader->source.tail.last_table;
    if (left > to->bytes_max) {
        return ERR_TOO_LARGE;
    }
    enum err err = buffer_reserve(to, (size_t)left);
    if (err != ERR_OK) {
        return err;
    }
    while (left > 0) {
        struct journal_block_head head = {0};
        err = reader_load_chained(reader, offset, JOURNAL_BLOCK_TABLE, &head);
        if (err != ERR_OK) {
            return err;
        }
        if (head.stored_bytes > left || head.stored_bytes == 0) {
            return ERR_CORRUPT;
        }
        left -= head.stored_bytes;
        memcpy(to->data + to->size + left, reader->stored + JOURNAL_BLOCK_HEAD_BYTES,
               head.stored_bytes);
        offset = head.previous;
    }
    to->size += (size_t)reader->source.tail.table_bytes;
    return ERR_OK;
}

enum err journal_file_upload_delete(struct journal *journal, struct id id)
{
    char path[JOURNAL_PATH_BYTES];
    struct stat found;
    enum err err = ERR_NOT_FOUND;
    for (int is_ended = 1; is_ended >= 0 && err == ERR_NOT_FOUND; is_ended--) {
        journal_upload_path(path, journal, id, is_ended == 1);
        if (sys_stat(path, &found) == 0 && sys_unlink(path) == 0) {
            atomic_fetch_sub_explicit(&journal->disk_bytes, (uint64_t)found.st_size,
                                      memory_order_relaxed);
            return ERR_OK;
        }
        err = err_from_errno(errno);
    }
    return err;
}

enum err journal_upload_delete(struct journal *journal, struct id id)
{
    return journal->backend->upload_delete(journal, id);
}
