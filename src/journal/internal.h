/* Internal: what the files of the journal share.
 *
 * Thread: see each field. Between the committer and readers three numbers are shared without a
 *         lock; the comments at them name the pairs.
 * Memory: struct journal owns everything below it.
 * Errors: none of its own. */
#pragma once
#include <stdatomic.h>

#include "base/list.h"
#include "journal/files.h"
#include "journal/room.h"
#include "journal/segment.h"
#include "journal/slots.h"

#define JOURNAL_BATCHES_MAX 64u /* of one producer with the committer */

/* What was erased from the store must not stay in the journal's files for a day. So a segment is
 * left this long after its first frame, however little it holds; and no file gets another life when
 * it is older than this, since a life may leave the end of the one before unwritten. A file is
 * therefore gone after 12 h, at most 1 h as a spare, 1 h as the newest segment, and the replay
 * window. */
#define JOURNAL_SEGMENT_AGE_NS (UINT64_C(3600) * 1000000000)
#define JOURNAL_FILE_AGE_NS    (12 * JOURNAL_SEGMENT_AGE_NS)

struct thread;
struct journal_backend;
struct nats_journal;

/* What became of one frame of a batch, where frames of a batch need not follow each other. */
struct journal_outcome {
    uint64_t position;
    enum err err;
};

/* A run of frames of one producer, in their final layout. */
struct journal_batch {
    struct mail mail; /* to the committer, then back */
    struct journal_producer *producer;
    struct journal_batch *next;  /* in the producer's or the committer's list */
    struct journal_batch *after; /* of the same producer, answered with the same mail */
    uint8_t *bytes;
    size_t size;
    size_t capacity;
    uint32_t frame_count;
    uint32_t record_count; /* set by the committer */
    struct journal_ticket *first;
    struct journal_ticket **last;
    enum err err;                     /* the committer's answer */
    uint64_t first_position;          /* of its frames, which follow each other; or else … */
    struct journal_outcome *outcomes; /* … one for each frame; NULL: as above */
    uint32_t waiting_count;           /* frames without outcome: the publisher's */
};

struct journal_batch_list {
    struct journal_batch *first;
    struct journal_batch **last;
};

struct journal_producer {
    struct journal *journal;
    struct mailbox *mailbox;
    struct journal_batch *open;
    struct journal_batch_list ready; /* sealed, not posted */
    struct journal_batch *unused;
    uint32_t unused_count;
    uint32_t in_flight;                  /* batches with the committer */
    size_t pool_bytes;                   /* of frames open, ready or in flight */
    size_t batch_bytes;                  /* bound of one batch */
    uint32_t uploads;                    /* not ended or aborted */
    struct journal_batch *answers_first; /* the committer's: done, to be answered */
    struct journal_batch *answers_last;
};

struct journal_committer {
    struct journal_segment segment;
    struct journal_batch_list pending;
    struct list spares; /* struct journal_spare */
    uint64_t next_position;
    uint64_t next_sequence;
    uint64_t base;
    uint64_t next_open_ns; /* after a failed open: not before */
    uint64_t backoff_ns;
    enum err open_err; /* what is answered until then */
    uint64_t sampled_ns;
    uint64_t held_ns; /* since then the segment holds frames, its own or old ones; 0: it does not */
    uint8_t *padding; /* a page of zeros */
};

struct journal_spare {
    struct mail mail;
    struct list_link link;
    struct journal *journal;
    struct journal_spare_file file;
    uint64_t since_ns; /* it waits */
};

/* A segment, as the preparer knows it. */
struct journal_known {
    struct mail mail;
    struct list_link link;
    struct journal *journal;
    uint64_t sequence;
    uint64_t first_position;
    uint64_t size;
    uint64_t made_ns;   /* of its file; 0: in an earlier run, or not known */
    uint64_t closed_ns; /* when the next one was opened; 0: it is the newest */
};

struct journal_preparer {
    struct list known;    /* struct journal_known by sequence; the last is the newest */
    uint64_t next_number; /* of spares: even */
    uint64_t retry_ns;    /* after a failure: not before */
    uint8_t *zeros;       /* while a spare is being written */
};

struct journal_uploader {
    struct list files;   /* that are open */
    void *compressor;    /* ZSTD_CCtx; this and the next are made when first needed */
    uint8_t *compressed; /* head and payload of the block in hand */
};

struct journal {
    const struct journal_backend *backend;
    struct nats_journal *nats; /* NULL: local */
    struct journal_options options;
    char *directory;
    char *uploads_directory;
    char *spool_directory;
    struct journal_state state; /* read only after start */
    struct journal_room room;
    struct journal_slots slots;
    uint32_t run_bits; /* of positions: below the number of a message; 0: of segments */
    struct id left;    /* of a spool that was used here before, and is empty; zeros: none */
    uint64_t recovered_position; /* the highest that earlier runs made durable; set at open */
    /* Frames were lost in this run or an earlier one. Set at open and by who passes over bad bytes.
     * Relaxed: apply asks on the thread that reads. */
    atomic_bool has_damage;

    /* Committer stores, in this order, after a commit: offset, position (release). Readers load
     * position or offset (acquire): what lies below has been written. */
    atomic_uint_fast64_t durable_offset; /* in the active segment */
    atomic_uint_fast64_t durable_position;
    /* Sequence of the newest segment; 0 before the start. Stored (release) when its name is durable
     * and before any position in it is published; loaded (acquire) by readers. */
    atomic_uint_fast64_t active_sequence;
    /* Set once by stop, read (relaxed) by append: an early look, the mailboxes decide. */
    atomic_bool is_draining;
    /* Stored by release, loaded by the preparer each time it looks. Relaxed: it only rises, and an
     * old value lets a segment stay until the next look. */
    atomic_uint_fast64_t released;
    /* Set by the committer when an upload could not be given its final name: until the next start
     * its end record must not go, so no segment does. Relaxed: the release of positions that lets
     * segments go comes after, through apply. */
    atomic_bool keeps_segments;
    /* Stored (release) by subscribe, loaded (acquire) by who wakes them. */
    _Atomic(struct mailbox *) subscribers[JOURNAL_SUBSCRIBERS_MAX];
    /* Whole spares that the committer has or will have: the preparer adds, the committer takes off.
     * Relaxed: a count; the spares themselves go by mail. */
    atomic_uint_fast32_t spare_count;
    /* Of segments, spares and uploads. Relaxed: a sum for the gauge, from every thread. */
    atomic_uint_fast64_t disk_bytes;
    /* Frames of earlier runs that apply's reader has not seen, where recovery did not count them.
     * Relaxed: for the backlog's numbers. */
    atomic_uint_fast64_t unread;
    atomic_uint_fast64_t charged; /* records of uploads from before the start; of a shared stream */
    /* Stored (release) after its context, loaded (acquire) by the committer. */
    _Atomic(journal_take_share) take_share;
    void *share_context;
    struct mailbox *committer_mailbox;
    struct mailbox *preparer_mailbox;
    struct mailbox *uploader_mailbox;
    struct journal_committer committer; /* the committer's */
    struct journal_preparer preparer;   /* the preparer's */
    struct journal_uploader uploader;   /* the uploader's */
};

/* --- one step of each thread, without waiting: for its loop, and for tests without threads ------
 */
/* True when something was done. */
bool journal_committer_step(struct journal *journal);
void journal_committer_finish(struct journal *journal); /* the closing frame */
/* What is due by time alone: segments and spares that are too old. */
void journal_committer_look(struct journal *journal, uint64_t now_ns);
bool journal_preparer_step(struct journal *journal);
bool journal_uploader_step(struct journal *journal);

/* --- committer ----------------------------------------------------------------------------------
 */
/* Opens the next segment at the committer's next position. */
MUST_CHECK enum err journal_committer_open_segment(struct journal *journal);
void journal_committer_sample_space(struct journal *journal, uint64_t now_ns);
/* At close: what the committer's thread left. */
void journal_committer_discard(struct journal *journal);

/* --- preparer -----------------------------------------------------------------------------------
 */
/* Takes a listing: segments become known, whole spares are given to the committer, the rest goes.
 */
void journal_preparer_init(struct journal *journal, const struct journal_files *files);
void journal_preparer_know(struct journal *journal, const struct journal_segment_head *head,
                           uint64_t made_ns);
void journal_preparer_discard(struct journal *journal);

/* --- quarantine: what could not be read; this run and later ones know that it was lost ------ */
/* Whether there is one from before, or that is not known. */
bool journal_quarantine_has_copy(const struct journal *journal);
/* Bytes of an open segment. True: they were not kept before. */
bool journal_quarantine_segment(struct journal *journal, const struct journal_file *segment, int fd,
                                uint64_t offset, uint64_t size);
/* A message of a stream; none of its bytes when it is gone. */
void journal_quarantine_message(struct journal *journal, uint64_t sequence, struct slice bytes);

/* --- recovery -----------------------------------------------------------------------------------
 */
MUST_CHECK enum err journal_recover(struct journal *journal, const struct journal_from *applied,
                                    struct err_detail *detail);
/* The spool of `journal` holds a frame that the stream does not. */
void journal_nats_spool_found(struct journal *journal, const struct journal_frame *frame);

/* --- uploads ------------------------------------------------------------------------------------
 */
/* Committer: a frame of this form is durable; the upload that it names gets its final name. */
/* False: it could not be renamed. */
bool journal_upload_settle(struct journal *journal, const struct journal_frame *frame);
void journal_uploader_discard(struct journal *journal);

/* Any thread. A stream takes large bodies while it is there; with a spool there is always a place.
 */
bool journal_takes_bodies(const struct journal *journal);
/* Where a body that begins now is kept: this journal, or its spool. */
struct journal *journal_body_place(struct journal *journal);
/* Whether the body of an end record is a file of this journal that has no final name yet. */
bool journal_upload_is_pending(const struct journal *journal, const struct journal_frame *frame);
/* There is more to read, or may be. */
void journal_wake_subscribers(struct journal *journal);
/* As journal_append, of a frame that the backlog holds already; on failure it still does. */
MUST_CHECK enum err journal_append_charged(struct journal_producer *producer,
                                           const struct journal_frame_parts *parts,
                                           struct journal_ticket *ticket);
/* What it takes of the backlog. */
uint64_t journal_parts_bytes(const struct journal_frame_parts *parts);
/* Committer: back to its producer, with what hangs on `after`. */
void journal_batch_return(struct journal_batch *batch);
void journal_batch_list_init(struct journal_batch_list *list);
void journal_batch_list_push(struct journal_batch_list *list, struct journal_batch *batch);
struct journal_batch *journal_batch_list_take(struct journal_batch_list *list);
