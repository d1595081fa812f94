/* Upload: what a loop and the uploader share about one upload.
 *
 * Thread: struct journal_upload is its loop's; struct journal_upload_file is the uploader's from
 *         the first post on; a block belongs to whoever has its mail.
 * Memory: the loop makes all three. Blocks to write and to finish come back to it, and it frees
 *         them (or fills them again), and the upload after the last of them. Its last word is a
 * block to release or remove, which the uploader frees with the file. Errors: a block that could
 * not be written carries the error, and so do all after it. */
#pragma once
#include "journal/upload_file.h"

enum journal_block_action {
    JOURNAL_BLOCK_WRITE,
    JOURNAL_BLOCK_FINISH,  /* index, end block, sync of file and directory */
    JOURNAL_BLOCK_RELEASE, /* the file stays; not answered */
    JOURNAL_BLOCK_REMOVE,  /* the file goes; not answered */
};

/* The uploader's side. */
struct journal_upload_file {
    struct list_link link;
    struct journal *journal;
    struct id id;
    int fd; /* -1: not made yet, or finished */
    enum err err;
    uint64_t offset;
    uint64_t synced;
    struct journal_upload_tail tail;
    uint64_t *index; /* JOURNAL_INDEX_ENTRIES */
    uint32_t index_count;
    bool is_made;
    uint64_t carried;     /* out of a spool: names the try; 0: it comes from a request */
    uint64_t block_count; /* written */
    uint64_t last_place;  /* of the last of them */
};

/* Where a whole upload is read. */
struct journal_upload_source {
    struct journal *journal;
    struct id id;
    int fd; /* -1: in the stream */
    struct journal_upload_tail tail;
    /* Up to `size` bytes of the block at `place`, head first. */
    enum err (*load)(const struct journal_upload_source *source, uint64_t place, uint8_t *to,
                     size_t size, size_t *ret_size);
};

struct journal_upload_walk {
    struct journal *journal;
    void *handle;     /* DIR, of the files */
    struct id *names; /* of those in the stream */
    size_t name_count;
    size_t name_next;
};

struct journal_block {
    struct mail mail;
    struct journal_block *next; /* while it waits for room, or to be filled again */
    struct journal_upload *upload;
    struct journal_upload_file *file;     /* copied: the uploader does not touch the upload */
    struct mailbox *mailbox;              /* where it goes back to, */
    void (*on_answer)(struct mail *mail); /* and what is done with it there */
    enum journal_block_action action;
    enum err err;
    uint32_t charged_bytes;         /* to the org: of data the most that it can take, compressed */
    struct journal_block_head head; /* stored_bytes: set by the uploader */
    uint8_t bytes[]; /* room for the head, and what came: the uploader compresses data */
};

/* The loop's side. */
struct journal_upload {
    struct journal_producer *producer;
    struct id id;
    uint64_t org;
    struct journal_block *fill; /* data: decoded bytes so far */
    struct journal_block *spare;
    struct buffer table;
    struct journal_block *waiting; /* for room; in order */
    struct journal_block **waiting_last;
    uint64_t charged_bytes;   /* to the org, of blocks posted; exact when none is in flight */
    uint32_t in_flight_bytes; /* decoded and table bytes */
    uint32_t in_flight_count; /* mails */
    enum err err;
    bool is_paused;
    bool is_aborted;
    bool is_durable;
    void (*on_room)(struct journal_upload *upload, void *context);
    void *context;
    struct journal_upload_file *file;
    struct journal_block *control;    /* for finish, release, remove: NULL while on the way */
    struct journal_frame_parts parts; /* of the end record; head and body in end_bytes */
    struct buffer end_bytes;
    struct journal_ticket *ticket;    /* the caller's */
    struct journal_ticket end_ticket; /* ours */
};

/* Uploader: `block` arrived. */
void journal_uploader_on_block(struct mail *mail);
/* Uploader: a block of data or of the table, as it is to be stored, with room for its head; the
 * head is completed. After an error the same call may be repeated. */
MUST_CHECK enum err journal_upload_put(struct journal_upload_file *file, uint8_t *block,
                                       struct journal_block_head *head);
/* Uploader: what was put is whole; the same holds. */
MUST_CHECK enum err journal_upload_finish(struct journal_upload_file *file);
/* What was written stays. NULL is fine. */
void journal_upload_file_free(struct journal_upload_file *file);
