/* Backend: where the journal's frames are: in segments on this machine's disk, or in a stream of
 * NATS JetStream. Producers, batches, the backlog's room and the form of uploads are the same for
 * both.
 *
 * Thread: as the call of the same name in journal.h.
 * Memory: a reader embeds struct journal_reader as its first member.
 * Errors: as in journal.h. */
#pragma once
#include "journal/upload.h"

struct journal_backend {
    /* Finds out what is there: state, backlog, uploads without end record. */
    enum err (*open)(struct journal *journal, const struct journal_from *applied,
                     struct err_detail *detail);
    enum err (*start)(struct journal *journal, uint64_t base, struct err_detail *detail);
    /* The threads: batches become durable; what is done beside that. */
    void (*commit)(struct journal *journal);
    void (*prepare)(struct journal *journal);
    /* After the threads were joined; also of one that open or start left half made. */
    void (*close)(struct journal *journal);
    enum err (*reader_open)(struct journal_reader **ret, struct journal *journal,
                            uint64_t after_position);
    /* Of all lanes: journal.c passes over what is not wanted. */
    enum err (*reader_next)(struct journal_reader *reader, struct journal_frame *ret,
                            bool *ret_has);
    void (*reader_applied)(struct journal_reader *reader, uint64_t position);
    void (*reader_close)(struct journal_reader *reader);
    /* Uploads. The uploader's thread: seals and writes a block; *ret_place names it from then on.
     */
    enum err (*upload_write)(struct journal_upload_file *file, uint8_t *block,
                             const struct journal_block_head *head, uint64_t *ret_place);
    enum err (*upload_sync)(struct journal_upload_file *file); /* all that was written lasts */
    void (*upload_remove)(struct journal_upload_file *file);
    /* Any thread. Looks for a whole upload and reads its end block. */
    enum err (*upload_find)(struct journal_upload_source *ret, struct journal *journal,
                            struct id id);
    enum err (*upload_delete)(struct journal *journal, struct id id);
    enum err (*walk_open)(struct journal_upload_walk *walk);
    enum err (*walk_next)(struct journal_upload_walk *walk, struct id *ret, bool *ret_has);
    void (*walk_close)(struct journal_upload_walk *walk);
};

struct journal_reader {
    struct journal *journal;
    struct journal_from from;
    uint64_t place; /* up to here the backend gave everything, wanted or not */
};

extern const struct journal_backend journal_local;
extern const struct journal_backend journal_nats;

/* --- local ------------------------------------------------------------------------------------ */
void journal_local_commit(struct journal *journal);
void journal_local_prepare(struct journal *journal);
enum err journal_local_reader_open(struct journal_reader **ret, struct journal *journal,
                                   uint64_t after_position);
enum err journal_local_reader_next(struct journal_reader *base, struct journal_frame *ret,
                                   bool *ret_has);
void journal_local_reader_close(struct journal_reader *base);

/* --- uploads in files: uploader.c, upload_reader.c, upload_file.c -------------------------------
 */
enum err journal_file_upload_write(struct journal_upload_file *file, uint8_t *block,
                                   const struct journal_block_head *head, uint64_t *ret_place);
enum err journal_file_upload_sync(struct journal_upload_file *file);
void journal_file_upload_remove(struct journal_upload_file *file);
enum err journal_file_upload_find(struct journal_upload_source *ret, struct journal *journal,
                                  struct id id);
enum err journal_file_upload_delete(struct journal *journal, struct id id);
enum err journal_file_walk_open(struct journal_upload_walk *walk);
enum err journal_file_walk_next(struct journal_upload_walk *walk, struct id *ret, bool *ret_has);
void journal_file_walk_close(struct journal_upload_walk *walk);
