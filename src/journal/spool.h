/* Spool: segments that take the frames while the stream takes nothing, and what forwards them.
 *
 * Thread: open, start, close: main. All else the committer's (which is the publisher's), but what
 *         says otherwise.
 * Memory: struct nats_spool owns the journal of its segments and the frames that are on their way.
 * Errors: as in journal.h. */
#pragma once
#include "journal/nats.h"

#define SPOOL_RING_MAX   256u       /* frames on their way to the stream */
#define SPOOL_RING_BYTES (4u << 20) /* of them */
#define SPOOL_PATH_BYTES (JOURNAL_PATH_BYTES)

/* What of the spool outlives the process, beside its segments. */
struct spool_state {
    char stream[NATS_NAME_BYTES]; /* the one that was met last; empty: none */
    int64_t created;              /* its time, which names it */
    uint32_t run_bits;            /* of its positions */
    struct id segments;           /* the journal that `forwarded` is of */
    uint64_t forwarded;           /* frames up to here are in the stream */
};

/* A frame of the spool, on its way. */
struct spool_frame {
    uint8_t *bytes;             /* as the stream gets it */
    struct journal_frame frame; /* its position is the spool's */
    bool is_of_this_run;
    bool is_stored;
    bool is_upload;      /* it has a body, … */
    bool wants_body;     /* … which goes first */
    bool keeps_file;     /* what it holds could not be read */
    struct id upload;    /* of one with a body; … */
    uint64_t bytes_body; /* … counted in the backlog */
    uint64_t carried_ns; /* since then the body waits in the stream */
    bool is_renamed;     /* sent once more, as another message … */
    uint64_t message;    /* … of this number */
    uint64_t after;      /* known to be in the stream when it was first sent: its own is higher */
    uint32_t uses;       /* of its place in the ring, so that a late word finds another name */
    uint64_t sent_ns;    /* 0: not, or not by this connection */
};

/* A body on its way out of a file into the stream. */
struct nats_carry {
    struct mail mail;
    struct nats_spool *spool;
    bool is_under_way; /* the uploader's thread has it, else the committer's */
    bool has_some;     /* `id` is not at its end */
    bool is_damaged;
    enum err err; /* of the last turn; not ERR_OK: it is gone on with */
    struct id id;
    uint64_t again_ns; /* after a failure: not before */
    /* The uploader's. */
    struct journal_upload_source source;
    struct journal_upload_file *file; /* in the stream; NULL: not begun */
    uint64_t offset;                  /* in the source */
    uint8_t *block;
};

struct nats_spool {
    struct journal *journal; /* whose spool it is */
    struct journal *segments;
    struct journal_producer *producer;
    struct journal_reader *reader;
    struct nats_feed acks;
    int state_fd;
    struct spool_state state; /* as in the file */
    uint64_t base;            /* of the segments' positions; set by start, before the threads */
    bool was_taking;
    uint32_t waiting;   /* frames that the segments do not hold for good yet */
    uint64_t left;      /* frames that they hold and the stream does not */
    uint64_t credit;    /* of forwarded frames, for new ones */
    uint64_t begun_at;  /* the stream's last known number when the spool took over */
    uint64_t went_back; /* the publisher's, then */
    uint64_t stored_ns; /* when the stream took one last */
    uint64_t empty_ns;  /* since then the reader finds nothing; 0: it does */
    uint64_t read_ns;   /* after a failure: not before */
    uint64_t saved_ns;
    struct spool_frame ring[SPOOL_RING_MAX];
    uint32_t first;
    uint32_t count;
    size_t ring_bytes;
    struct nats_carry carry;
    /* Relaxed: for who asks; the three are looked at one by one. */
    atomic_bool is_on;
    atomic_uint_fast64_t since_ms; /* wall */
    atomic_uint_fast64_t frames;   /* waiting and left */
    /* Frames up to `forwarded` are at or below `place` in the stream. `place` is raised first, and
     * loaded last (release, acquire). */
    atomic_uint_fast64_t forwarded;
    atomic_uint_fast64_t place; /* 0: not known */
};

/* --- spool_state.c ------------------------------------------------------------------------------
 */
/* The file in `directory`, made when absent; of one that cannot be read, an empty state. */
MUST_CHECK enum err journal_spool_state_open(const char *directory, int *ret_fd,
                                             struct spool_state *ret);
/* `is_durable`: also over a power cut. */
MUST_CHECK enum err journal_spool_state_write(int fd, const struct spool_state *state,
                                              bool is_durable);

/* --- nats_spool.c -------------------------------------------------------------------------------
 */
/* Where there is to be none: ERR_CONFIG when there is one that holds frames. */
MUST_CHECK enum err journal_nats_spool_refuse(struct journal *journal, struct err_detail *detail);
/* Finds out what it holds. */
MUST_CHECK enum err journal_nats_spool_open(struct journal *journal, struct err_detail *detail);
MUST_CHECK enum err journal_nats_spool_start(struct journal *journal, struct err_detail *detail);
void journal_nats_spool_close(struct journal *journal);
/* Whether the stream of this name was met by an earlier run: its time is known. */
bool journal_nats_spool_knows(const struct journal *journal);
/* The stream, which was away at the start, is there: all of it may have been forwarded. */
void journal_nats_spool_met(struct journal *journal);
/* Whether frames go to the spool. */
bool journal_nats_spool_is_on(const struct nats_journal *nats);
/* The stream takes nothing: what is on the way to it, and all that comes, goes to the spool. */
void journal_nats_spool_begin(struct journal *journal, const char *why);
/* A frame of a batch: its slot is settled when the segments hold it. */
void journal_nats_spool_take(struct journal *journal, struct nats_slot *slot);
/* Whether a new frame may come now: while the spool is emptied they come slower than they go. */
bool journal_nats_spool_has_room(struct journal *journal);
/* What is due: forwarding, and back to the stream when nothing is left. */
void journal_nats_spool_look(struct journal *journal, uint64_t now_ns);
/* The committer ends. */
void journal_nats_spool_stop(struct journal *journal);

/* --- nats_forward.c -----------------------------------------------------------------------------
 */
/* Reads, sends, and takes off what the stream has. True: the spool is empty. */
bool journal_nats_forward(struct nats_spool *spool, uint64_t now_ns);
void journal_nats_forward_on_ack(struct mail *mail);
void journal_nats_forward_on_carried(struct mail *mail);
void journal_nats_forward_drop(struct nats_spool *spool);

/* --- nats_carry.c -------------------------------------------------------------------------------
 */
void journal_nats_carry_open(struct nats_spool *spool);
void journal_nats_carry_close(struct nats_spool *spool);
/* The body of this upload goes to the stream; on_carried says what became of it. */
void journal_nats_carry_post(struct nats_spool *spool, struct id id);
