/* NATS: what the files of the JetStream backend share.
 *
 * Thread: the connection is any thread's (the library locks); each part says whose it is. The
 *         library's own threads run nothing of ours but the callbacks of nats.c, which store
 *         atomics and post mail.
 * Memory: struct nats_journal owns the connection; a mail owns its message until it is taken.
 * Errors: as in journal.h; the text of an address, which may hold a password, is in none. */
#pragma once
#include <nats/nats.h>

#include "journal/backend.h"

#define NATS_NAME_BYTES    64u
#define NATS_SUBJECT_BYTES 128u
#define NATS_CONSUMER      "ingest_workers"     /* of the one reader; others add to the name */
#define NATS_WAIT_MS       2000                 /* for an answer of JetStream's own */
#define NATS_IN_FLIGHT_MAX 4096u                /* frames published and not acknowledged */
#define NATS_RUN_BITS      4u                   /* of a position: so many frames in a message */
#define NATS_RUN_BYTES     65536u               /* 64 * 1024; of a message of several frames */
#define NATS_LAST_MARGIN   (UINT64_C(1) << 20u) /* messages, of all nodes, that are on the way */
#define NATS_RESEND_MS     1000u  /* a message without acknowledgement is sent again */
#define NATS_GIVE_UP_MS    5000u  /* … and then answered as failed */
#define NATS_DUPLICATES_MS 120000 /* JetStream knows message ids for so long: far above both */
#define NATS_LOOK_MS       250
#define NATS_PURGES        64u
#define NATS_PLACED_MAX    4096u
#define NATS_PLACED_BYTES  (1u << 20u) /* of one, once half of them are there */

/* A message of a subscription, on its way to the thread that reads it. */
struct nats_mail {
    struct mail mail;
    void *owner; /* of the feed */
    natsMsg *message;
};

/* A subscription whose messages become mail. */
struct nats_feed {
    struct journal *journal;
    natsSubscription *subscription; /* NULL: none */
    struct mailbox *to;
    void (*on_arrive)(struct mail *mail);
    void *owner;
    bool wakes_subscriber;          /* of the journal, after each message */
    atomic_bool is_over;            /* the library is done with it: released there, acquired here */
    char inbox[NATS_SUBJECT_BYTES]; /* empty: one is made up */
};

/* A frame that was published, or given to the spool. */
struct nats_slot {
    struct journal_batch *batch; /* NULL: free */
    uint32_t frame;              /* its number in the batch */
    uint32_t uses;               /* so that a late acknowledgement finds another name */
    uint32_t next_free;          /* number + 1; 0: none */
    uint32_t next;               /* of its message, number + 1; 0: it is the last */
    uint32_t following;          /* frames of its message behind it */
    bool is_first;               /* of its message, which what follows here is about */
    size_t offset;               /* in the batch */
    uint64_t message;            /* its id for JetStream's own detection of duplicates */
    uint64_t after; /* known to be in the stream when it was first sent: its own is higher */
    uint64_t first_ns;
    uint64_t sent_ns;
    bool is_renamed; /* sent once more, as another message */
    bool is_spooled;
    struct journal_ticket ticket; /* of the spool's segments */
};

/* Frames as they are published, and where to their acknowledgement goes. */
struct nats_message {
    struct slice bytes;
    uint8_t lane;   /* RECORD_LANE_MIXED: of several */
    bool is_single; /* one frame, whose id it has */
    const char *inbox;
    uint32_t number; /* with uses its name there */
    uint32_t uses;
    uint64_t run; /* with message its id, where the frame has none */
    uint64_t message;
    bool is_renamed; /* … or must not be taken for what was sent before */
};

struct nats_stored {
    uint64_t sequence;
    bool is_duplicate; /* the stream had it before */
};

/* Own frames that are in the stream, up to a position. */
struct nats_placed {
    uint64_t position;
    uint64_t bytes;
    uint64_t records;
};

struct nats_publisher {
    struct nats_feed acks;
    struct nats_slot *slots; /* NATS_IN_FLIGHT_MAX */
    uint32_t free_first;     /* number + 1 */
    uint32_t in_flight;
    uint64_t messages;
    struct journal_batch *batch; /* the one that is being published, from `offset` on */
    uint32_t frame;
    size_t offset;
    uint8_t *gathered; /* NATS_RUN_BYTES: a message of several frames */
    uint64_t looked_ns;
    uint64_t went_back; /* the number behind which the stream was found to have gone back; logged */
    uint64_t verify_ns; /* a look at the stream that failed is repeated then */
    bool was_ready;
    struct nats_placed *placed; /* NATS_PLACED_MAX; a ring, of a shared stream */
    uint32_t placed_first;
    uint32_t placed_count;
};

struct nats_purge {
    uint64_t at_ns;
    uint64_t sequence;
};

struct nats_journal {
    natsConnection *connection;
    jsCtx *js;
    char stream[NATS_NAME_BYTES];
    char uploads[NATS_NAME_BYTES + 16]; /* the stream of large bodies */
    int64_t opened_ms;                  /* wall */
    uint64_t upload_away_ms;            /* the uploader's: since then it gets no word; 0: it does */
    uint64_t salt;                      /* of the frames' checksums */
    int64_t created;
    bool is_met; /* when it was opened; else the next two are 0 */
    uint64_t first_sequence;
    uint64_t last_sequence; /* when it was opened */
    uint64_t message_bytes; /* in the mean, when it was opened */
    uint64_t base;          /* set by start, before the threads */
    uint32_t run_bits;      /* of this stream's positions; 0: a frame is a message */
    /* Stored (release) by the library's callbacks, loaded (acquire) by our threads. Each
     * connection that is made raises the generation; one is verified when the stream was seen to be
     * the same. */
    atomic_bool is_connected;
    atomic_bool is_closed;
    atomic_uint_fast64_t generation;
    atomic_uint_fast64_t verified; /* by the publisher */
    atomic_bool is_foreign;        /* the stream is none to write to: never again */
    _Atomic(const char *) refusal; /* why; a constant. Stored before it, for who asks */
    /* What the stream held when this run met it. Stored before the first `verified`. */
    atomic_uint_fast64_t met_sequence;
    atomic_uint_fast64_t names;     /* of readers, a bit for each that is taken. Relaxed */
    atomic_uint_fast64_t consumers; /* made in a cluster, where each has a new number. Relaxed */
    /* When the subscribers are to be woken; 0: not. Stored by readers, loaded by the preparer.
     * Relaxed: a hint that is looked at again and again. */
    atomic_uint_fast64_t wake_ns;
    /* The stream is full: the replay window is given up. Relaxed, as above. */
    atomic_bool is_full;
    atomic_bool has_unsettled;       /* by apply: frames were read and are not applied. Relaxed */
    atomic_uint_fast64_t starved_ns; /* when a reader last found nothing; monotonic. Relaxed */
    /* How far the stream is: raised (release) by who asks; answered (release) by the preparer, and
     * acquired by who asked: the durable position was raised before. */
    atomic_uint_fast64_t questions;
    atomic_uint_fast64_t answered;
    struct table *held;                    /* own uploads by id; any thread */
    struct nats_spool *spool;              /* NULL: none */
    struct nats_publisher publisher;       /* the committer's thread */
    struct nats_kept *kept;                /* the committer's thread */
    struct nats_feed results;              /* taken by the committer's thread */
    struct nats_purge purges[NATS_PURGES]; /* the preparer's thread */
    uint32_t purge_count;
    uint64_t purged; /* sequence */
};

/* A message's position is that of its last frame; others of it lie right below: each by the number
 * in its own position field, which is how many follow it. One that is sent alone later on may keep
 * its number. */
static inline uint64_t journal_nats_position(const struct nats_journal *nats, uint64_t sequence)
{
    return nats->base + (sequence << nats->run_bits);
}

/* The last message all of whose frames lie at or below. */
static inline uint64_t journal_nats_sequence(const struct nats_journal *nats, uint64_t position)
{
    return position > nats->base ? (position - nats->base) >> nats->run_bits : 0;
}

/* How many messages the positions of one journal have room for. */
static inline uint64_t journal_nats_sequence_max(const struct nats_journal *nats)
{
    return (UINT64_C(1) << (LIMIT_RANGE_SHIFT - nats->run_bits)) - NATS_LAST_MARGIN;
}

/* --- nats.c ----------------------------------------------------------------------------------- */
/* Whether frames can be published and read now. Any thread. */
bool journal_nats_is_ready(const struct nats_journal *nats);
jsOptions journal_nats_options(void);
/* Any thread: nothing is written to the stream any more, nor read; `why` is a constant. */
void journal_nats_refuse(struct nats_journal *nats, const char *why);
/* `inbox`, and what is below it by one word when `is_wide`. */
MUST_CHECK enum err journal_nats_feed_open(struct nats_feed *feed, bool is_wide);
/* No callback runs any more; what came is in the mailbox. */
void journal_nats_feed_close(struct nats_feed *feed);
void journal_nats_mail_free(struct nats_mail *mail);

/* --- nats_publish.c: the committer's thread -----------------------------------------------------
 */
MUST_CHECK enum err journal_nats_publisher_open(struct journal *journal);
void journal_nats_publisher_close(struct journal *journal);
void journal_nats_commit(struct journal *journal);
/* Any thread. */
void journal_nats_tell_durable(struct journal *journal, uint64_t position);
/* The frame's outcome is known; with the last one its batch goes back. */
void journal_nats_slot_settle(struct journal *journal, struct nats_slot *slot, enum err err,
                              uint64_t position);
/* In a shared stream: it leaves the backlog when all lanes have passed it. */
void journal_nats_place(struct journal *journal, const struct journal_frame *frame,
                        uint64_t position);
/* What cannot be sent now is sent again when its time has come. */
void journal_nats_send(struct journal *journal, const struct nats_message *message);
/* False: the address of this acknowledgement is no name. */
bool journal_nats_name_read(const natsMsg *message, uint32_t *ret_number, uint32_t *ret_uses);
/* ERR_OK: it is stored. ERR_AWAY: that is not known, it is sent again. Others: it is refused. */
enum err journal_nats_ack_read(struct nats_journal *nats, const natsMsg *message,
                               struct nats_stored *ret);
/* It was given before; said once. */
void journal_nats_tell_went_back(struct nats_journal *nats, uint64_t number, uint64_t after);

/* --- nats_owner.c -------------------------------------------------------------------------------
 */
/* Says in which form the stream is, too. ERR_CONFIG: it is another store's. */
MUST_CHECK enum err journal_nats_own(struct journal *journal, uint32_t *ret_run_bits,
                                     struct err_detail *detail);

/* --- nats_held.c: any thread --------------------------------------------------------------------
 */
void journal_nats_held_open(struct journal *journal);
void journal_nats_held_close(struct journal *journal);
/* A frame of any form is on its way; then it is at `position`, or (0) its sender was refused. */
void journal_nats_held_publish(struct journal *journal, const struct journal_frame *frame);
void journal_nats_held_settle(struct journal *journal, const struct journal_frame *frame,
                              uint64_t position);
void journal_nats_held_over(struct journal *journal, struct id upload);
uint32_t journal_nats_held_silent(struct journal *journal, uint64_t position, struct id *to,
                                  uint32_t max);

/* --- nats_read.c: a reader's thread -------------------------------------------------------------
 */
enum err journal_nats_reader_open(struct journal_reader **ret, struct journal *journal,
                                  uint64_t after_position);
enum err journal_nats_reader_next(struct journal_reader *base, struct journal_frame *ret,
                                  bool *ret_has);
void journal_nats_reader_applied(struct journal_reader *base, uint64_t position);
void journal_nats_reader_close(struct journal_reader *base);

/* --- nats_kept.c: the committer's thread --------------------------------------------------------
 */
MUST_CHECK enum err journal_nats_kept_open(struct journal *journal);
void journal_nats_kept_leave(struct journal *journal); /* its feeds; late mail may still come */
void journal_nats_kept_close(struct journal *journal);
/* A frame is on its way; then it is in the stream at `position`, or (0) its sender was refused. */
void journal_nats_kept_publish(struct journal *journal, const uint8_t *bytes);
void journal_nats_kept_settle(struct journal *journal, const uint8_t *bytes, uint64_t position);
/* Sends again what all lanes have passed and nobody has applied. */
void journal_nats_kept_look(struct journal *journal, uint64_t now_ns);
bool journal_nats_kept_is_empty(const struct journal *journal);
/* A frame that is in the stream, and not kept. */
void journal_nats_kept_without(struct journal *journal, uint64_t position);
/* Nothing that this run gave to the stream is missing in the store, wherever the lanes stand. */
bool journal_nats_kept_is_all_applied(const struct journal *journal);
/* Any thread. */
uint64_t journal_nats_kept_records(const struct journal *journal);
void journal_nats_kept_tell(struct journal *journal, uint64_t run,
                            const struct record_applied *frames, uint32_t count);

/* --- nats_results.c ------------------------------------------------------------------------------
 */
MUST_CHECK enum err journal_nats_results_open(struct journal *journal);
/* Any thread. */
void journal_nats_results_send(struct journal *journal, const struct record_share *share);

/* --- nats_upload.c: the uploader's thread, then any ---------------------------------------------
 */
enum err journal_nats_upload_write(struct journal_upload_file *file, uint8_t *block,
                                   const struct journal_block_head *head, uint64_t *ret_place);
enum err journal_nats_upload_sync(struct journal_upload_file *file);
void journal_nats_upload_remove(struct journal_upload_file *file);
enum err journal_nats_upload_find(struct journal_upload_source *ret, struct journal *journal,
                                  struct id id);
enum err journal_nats_upload_delete(struct journal *journal, struct id id);
/* Before a body is sent by another than its first sender. One that is whole becomes young again; a
 * part of one goes. */
MUST_CHECK enum err journal_nats_upload_renew(struct journal *journal, struct id id,
                                              bool *ret_is_whole);
enum err journal_nats_walk_open(struct journal_upload_walk *walk);
enum err journal_nats_walk_next(struct journal_upload_walk *walk, struct id *ret, bool *ret_has);
void journal_nats_walk_close(struct journal_upload_walk *walk);
