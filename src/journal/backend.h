/* Backend: where the journal's frames are: in segments on this machine's disk, or in a stream of
 * NATS JetStream. Producers, batches, the backlog's room and uploads are the same for both.
 *
 * Thread: as the call of the same name in journal.h.
 * Memory: a reader embeds struct journal_reader as its first member.
 * Errors: as in journal.h. */
#pragma once
#include "journal/internal.h"

struct journal_backend {
    /* Finds out what is there: state, backlog, uploads without end record. */
    enum err (*open)(struct journal *journal, uint64_t applied_position, struct err_detail *detail);
    enum err (*start)(struct journal *journal, uint64_t base, struct err_detail *detail);
    /* The threads: batches become durable; what is done beside that. */
    void (*commit)(struct journal *journal);
    void (*prepare)(struct journal *journal);
    /* After the threads were joined; also of one that open or start left half made. */
    void (*close)(struct journal *journal);
    enum err (*reader_open)(struct journal_reader **ret, struct journal *journal,
                            uint64_t after_position);
    enum err (*reader_next)(struct journal_reader *reader, struct journal_frame *ret,
                            bool *ret_has);
    void (*reader_applied)(struct journal_reader *reader, uint64_t position);
    void (*reader_close)(struct journal_reader *reader);
};

struct journal_reader {
    struct journal *journal;
    bool tells_progress; /* apply's */
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
