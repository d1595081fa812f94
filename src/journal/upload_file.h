/* Upload file: its bytes and its names. The layout stands at the head of upload_file.c.
 *
 * Thread: pure, but for the listing at start (main).
 * Memory: values; a listing owns its rows.
 * Errors: a block that does not verify gives false. */
#pragma once
#include "journal/internal.h"

enum {
    JOURNAL_BLOCK_HEAD_BYTES = 32,
    JOURNAL_UPLOAD_END_BYTES = 64, /* payload of the last block */
    JOURNAL_INDEX_ENTRIES = 4096,  /* blocks that one index block names: 1 GiB of decoded bytes */
    JOURNAL_TABLE_BYTES = 65536,   /* of the table, held back until that much has come */
};
#define JOURNAL_BLOCK_NONE UINT64_MAX

enum journal_block_type {
    JOURNAL_BLOCK_DATA = 1,
    JOURNAL_BLOCK_TABLE = 2,
    JOURNAL_BLOCK_INDEX = 3,
    JOURNAL_BLOCK_END = 4,
};

struct journal_block_head {
    uint32_t type; /* enum journal_block_type */
    uint32_t decoded_bytes;
    uint32_t stored_bytes;
    uint64_t previous; /* offset of the block of this type before it, or JOURNAL_BLOCK_NONE */
};

struct journal_upload_tail { /* payload of the end block */
    uint64_t decoded_bytes;
    uint64_t data_blocks;
    uint64_t last_index;
    uint64_t last_table;
    uint64_t table_bytes;
    uint64_t durable_before; /* the end record has a higher position */
};

/* `block` holds the payload behind the room for the head. */
void journal_block_seal(uint8_t *block, const struct journal_block_head *head, struct id upload,
                        uint64_t offset);
/* Needs JOURNAL_BLOCK_HEAD_BYTES; says how much follows, false when no block begins so. */
bool journal_block_peek(const uint8_t *from, struct journal_block_head *ret);
/* Needs head and payload. */
bool journal_block_check(const uint8_t *block, struct id upload, uint64_t offset,
                         struct journal_block_head *ret);
void journal_upload_tail_encode(const struct journal_upload_tail *tail,
                                uint8_t to[JOURNAL_UPLOAD_END_BYTES]);
void journal_upload_tail_decode(const uint8_t from[JOURNAL_UPLOAD_END_BYTES],
                                struct journal_upload_tail *ret);
/* Entry of an index block. */
static inline uint64_t journal_index_entry(uint64_t offset, uint32_t block_bytes)
{
    return offset << 20 | block_bytes;
}

/* Reads the end block: ERR_CORRUPT when the file has none. */
MUST_CHECK enum err journal_upload_read_tail(int fd, struct id upload,
                                             struct journal_upload_tail *ret);

/* Without its end record: .part; with it: .up. */
void journal_upload_path(char to[JOURNAL_PATH_BYTES], const struct journal *journal,
                         struct id upload, bool is_ended);

/* --- at start: files without a final name ----------------------------------------------------- */
struct journal_pending_upload {
    struct id id;
    bool is_ended;  /* its end record was found */
    bool is_unread; /* whether it is whole is not known */
};
struct journal_pending_uploads {
    struct journal_pending_upload *rows;
    uint32_t count;
    uint64_t least_position; /* end records of whole files lie above it */
};
MUST_CHECK enum err journal_pending_uploads_list(struct journal_pending_uploads *ret,
                                                 struct journal *journal,
                                                 struct err_detail *detail);
void journal_pending_uploads_mark(struct journal_pending_uploads *uploads, struct id upload);
/* Ended ones get their final names, the others go. */
void journal_pending_uploads_settle(struct journal_pending_uploads *uploads,
                                    struct journal *journal);
void journal_pending_uploads_finish(struct journal_pending_uploads *uploads);
