/* Journal: makes accepted frames durable before they are acknowledged, keeps them in order, and
 * keeps uploads' bodies until they are applied.
 *
 * A producer (one per loop) collects a round's frames in a batch; the committer takes the batches
 * of all, makes them durable, and each goes back to its producer, who runs the tickets in it.
 *
 * Order of a life: open, start, the three threads, producers and readers; stop, the threads are
 * joined, each producer's thread takes its last mail, producers and readers go, close.
 *
 * Thread: open, start, close: main. Producers and uploads: their loop's. committer_run,
 * preparer_run (fills segments with zeros before use) and uploader_run (so that the syncs of
 * uploads never stand before a commit): their own. A reader: its. What is left: any. Memory: append
 * copies head and body into the batch. A frame from a reader lives until its next call. Tickets are
 * the caller's and stay put until they are run. Errors: after a failed write or sync the segment is
 * given up for good: its frames are answered ERR_IO or ERR_NO_SPACE, never retried, and a new
 * segment is opened for what comes later. append: ERR_FULL (backlog of all or of this org; pool),
 * ERR_NO_SPACE (disk reserve), ERR_TOO_LARGE (LIMIT_FRAME_BYTES), ERR_DRAINING. */
#pragma once
#include <stdbool.h>

#include "base/buffer.h"
#include "base/err.h"
#include "base/id.h"
#include "base/mailbox.h"
#include "journal/nodes.h"
#include "record/record.h"

struct journal;
struct journal_producer;
struct journal_reader;
struct journal_upload;
struct journal_upload_reader;
struct journal_upload_walk;

/* A stream of NATS JetStream in place of segments. */
struct journal_nats_options {
    const char *url;    /* NULL: local */
    const char *stream; /* its name */
    uint32_t replicas;
    uint32_t pull_batch;      /* frames asked for at a time */
    uint32_t ack_wait_s;      /* of the consumer */
    uint32_t ack_pending_max; /* frames given to apply and not applied */
    bool is_shared;           /* other nodes with the same store may read it, too */
    struct id store;          /* of the store; the stream is of one alone */
    bool spools;              /* while the stream takes nothing: to segments in spool_directory */
};

struct journal_options {
    const char *directory;         /* segments; made when absent */
    const char *uploads_directory; /* upload files; made when absent */
    uint64_t segment_bytes;        /* of one segment file; multiple of 1 MiB */
    uint64_t backlog_bytes_max;    /* JOURNAL_MAX_MB: of all unapplied; one org may hold half */
    uint64_t disk_reserve_bytes;   /* DISK_RESERVE_MB: below it nothing is accepted */
    uint64_t replay_window_s;      /* applied segments stay this long while there is room */
    uint32_t producer_count;
    uint64_t run; /* random number of this process, as in its frames */
    struct journal_nats_options nats;
    const char *spool_directory; /* NULL: there never was one */
    struct journal *spool_of;    /* the journal that opens this one as its spool */
};
struct journal_state { /* what open found */
    struct id id;      /* of this journal, for ever in its segments' headers */
    bool is_new;
    uint64_t base;          /* position = base + number; of the newest segment; 0 when new */
    uint64_t last_position; /* highest frame that verifies; 0: none */
    uint64_t torn_bytes;    /* cut above it */
    uint64_t damaged_bytes; /* quarantined below it */
    bool clean;             /* the last run wrote its closing frame; true when new */
};
/* How far each lane is applied: bit i of `lanes`, and after[i], for lane i. */
struct journal_from {
    uint64_t lanes;
    uint64_t after[LIMIT_LANES];
};
struct journal_from journal_from_all(uint64_t after);
/* The lowest position of the lanes that are in it. */
uint64_t journal_from_least(const struct journal_from *from);
/* Whether a frame is above the position of its lane; of one of several lanes, of any. */
bool journal_from_wants(const struct journal_from *from, uint8_t lane, uint64_t position);

/* Checks every frame above `applied`, settles the backlog per org, deletes uploads without end
 * record; nothing is written but quarantine files. DATA_DIR is locked before. */
MUST_CHECK enum err journal_open(struct journal **ret, const struct journal_options *options,
                                 const struct journal_from *applied, struct err_detail *detail);
void journal_state(const struct journal *journal, struct journal_state *ret);
/* Opens the first segment of this run. `base` as the store says for this journal id. */
MUST_CHECK enum err journal_start(struct journal *journal, uint64_t base,
                                  struct err_detail *detail);
/* The threads; the argument is the journal. */
void journal_committer_run(void *argument);
void journal_preparer_run(void *argument);
void journal_uploader_run(void *argument);
/* Any thread: commits what was submitted, writes the closing frame, then the three return. Later
 * appends give ERR_DRAINING, and so do the tickets of what is submitted later. */
void journal_stop(struct journal *journal);
/* After the threads were joined. NULL is fine. */
void journal_close(struct journal *journal);

/* --- producing ----------------------------------------------------------------------------- */
/* `mailbox` is the loop's: durable batches come back through it. index < producer_count. */
MUST_CHECK enum err journal_producer_create(struct journal_producer **ret, struct journal *journal,
                                            uint32_t index, struct mailbox *mailbox);
/* Nothing of it may be on the way: its mailbox was run after the stop. NULL is fine. */
void journal_producer_destroy(struct journal_producer *producer);

struct journal_ticket {
    struct journal_ticket *next; /* the producer's */
    /* On the producer's thread. err ERR_OK: durable at `position`; else nothing was kept. */
    void (*on_durable)(struct journal_ticket *ticket, enum err err, uint64_t position);
};

struct journal_frame_parts {
    uint64_t org;
    uint8_t lane, form;
    uint32_t record_count;
    struct slice head; /* record_frame_encode_head */
    struct slice body;
};
/* Adds a frame to the open batch. */
MUST_CHECK enum err journal_append(struct journal_producer *producer,
                                   const struct journal_frame_parts *parts,
                                   struct journal_ticket *ticket);
/* At the end of a round: the open batch goes to the committer. Nothing open: nothing happens. */
void journal_submit(struct journal_producer *producer);
/* Whether an append of `bytes` for `org` would be taken now: ERR_OK, ERR_FULL, ERR_NO_SPACE. */
enum err journal_room(struct journal *journal, uint64_t org, uint64_t bytes);
/* Whole seconds, at least 1: when room is likely, from the drain rate of late. */
uint32_t journal_retry_after_s(struct journal *journal);

/* --- uploads: a body above LIMIT_SMALL_BODY_BYTES, in a file of its own ---------------------- */
/* So many of all and of one org at once: ERR_BUSY, until others end; ERR_FULL, until some are
 * applied, also when not even a first block would be taken. */
MUST_CHECK enum err journal_upload_begin(struct journal_upload **ret,
                                         struct journal_producer *producer, struct id id,
                                         uint64_t org);
/* What begin would say now: ERR_OK, ERR_BUSY, ERR_FULL, ERR_NO_SPACE. */
enum err journal_upload_room(struct journal *journal, uint64_t org);
/* Takes all of `decoded`; full blocks are posted, or wait for room in the backlog and on the disk.
 * When *ret_pause is true the caller stops reading until on_room ran. An error (ERR_TOO_LARGE: more
 * than one org may ever have waiting; else the write failed) is for good, and the caller aborts;
 * on_room also runs for one that is found while it pauses. */
MUST_CHECK enum err journal_upload_write(struct journal_upload *upload, struct slice decoded,
                                         bool *ret_pause);
/* Bytes of the table of contents, kept beside the blocks, in order. */
MUST_CHECK enum err journal_upload_note(struct journal_upload *upload, struct slice table);
void journal_upload_on_room(struct journal_upload *upload,
                            void (*on_room)(struct journal_upload *upload, void *context),
                            void *context);
/* For one that pauses, now and then: on_room runs from inside if the backlog has room again. */
void journal_upload_retry(struct journal_upload *upload);
/* The body is whole: what is left of it goes. *ret_pause: end must wait until on_room ran. */
MUST_CHECK enum err journal_upload_flush(struct journal_upload *upload, bool *ret_pause);
/* After flush (made if it was not: ERR_FULL when it must wait): what was written becomes durable,
 * then the end record `parts` (body: a record_upload_end; its stored bytes are filled in here) as a
 * frame. Consumes the upload, also on failure (it then goes; the ticket is not run). */
MUST_CHECK enum err journal_upload_end(struct journal_upload *upload,
                                       const struct journal_frame_parts *parts,
                                       struct journal_ticket *ticket);
void journal_upload_abort(struct journal_upload *upload); /* the file goes; NULL is fine */

MUST_CHECK enum err journal_upload_open(struct journal_upload_reader **ret, struct journal *journal,
                                        struct id id);
/* Up to `size` decoded bytes from `offset`; *ret_size 0 at the end. */
MUST_CHECK enum err journal_upload_read(struct journal_upload_reader *reader, uint64_t offset,
                                        uint8_t *to, size_t size, size_t *ret_size);
/* The whole table of contents, appended to `to` (its limit is the caller's bound). */
MUST_CHECK enum err journal_upload_table(struct journal_upload_reader *reader, struct buffer *to);
void journal_upload_close(struct journal_upload_reader *reader);
/* Any thread; ERR_NOT_FOUND when there is none. */
MUST_CHECK enum err journal_upload_delete(struct journal *journal, struct id id);

/* Those that earlier runs made whole, in no order: for finding what nothing knows any more. */
MUST_CHECK enum err journal_upload_walk_open(struct journal_upload_walk **ret,
                                             struct journal *journal);
MUST_CHECK enum err journal_upload_walk_next(struct journal_upload_walk *walk, struct id *ret,
                                             bool *ret_has);
void journal_upload_walk_close(struct journal_upload_walk *walk); /* NULL is fine */
/* What earlier runs made durable: their end records lie at or below it. */
uint64_t journal_recovered_position(const struct journal *journal);
/* Whether frames were ever lost, or that cannot be told; an end record may be among them. */
bool journal_has_damage(const struct journal *journal);

/* --- reading -------------------------------------------------------------------------------- */
struct journal_frame {
    uint64_t position;
    uint64_t org;
    uint8_t lane, form;
    uint32_t record_count;
    uint64_t bytes;           /* against the backlog; to be given back by journal_credit */
    uint64_t checksum;        /* names it in its journal, whatever its position is */
    struct slice bytes_slice; /* head and body, for record_frame_decode */
};
/* Several at a time. */
MUST_CHECK enum err journal_reader_open(struct journal_reader **ret, struct journal *journal,
                                        const struct journal_from *from);
/* Durable frames only. *ret_has false: nothing more for now. */
MUST_CHECK enum err journal_reader_next(struct journal_reader *reader, struct journal_frame *ret,
                                        bool *ret_has);
/* Up to here every frame that is wanted was given. */
uint64_t journal_reader_place(const struct journal_reader *reader);
/* Frames up to `position` are applied: a shared journal need not give them again. */
void journal_reader_applied(struct journal_reader *reader, uint64_t position);
void journal_reader_close(struct journal_reader *reader);
/* Highest durable position; 0 before the first. */
uint64_t journal_durable_position(const struct journal *journal);
/* `mailbox` is woken whenever the durable position has risen, until it is taken off again. */
#define JOURNAL_SUBSCRIBERS_MAX 64u
void journal_subscribe(struct journal *journal, struct mailbox *mailbox);
void journal_unsubscribe(struct journal *journal, const struct mailbox *mailbox);
/* Applied, and so off the backlog: a frame, or (bytes 0) so many elements of an upload. */
void journal_credit(struct journal *journal, uint64_t org, uint64_t bytes, uint32_t record_count);
/* All of an upload is applied: its stored bytes; of a shared stream those counted for its id. */
void journal_credit_upload(struct journal *journal, struct id upload, uint64_t org, uint64_t bytes);
/* Uploads from before the start that are applied in part count again, whatever the bounds say:
 * one, until it is credited; of a shared stream, all that are left, whoever accepted them. */
void journal_charge(struct journal *journal, uint64_t org, uint64_t bytes, uint64_t record_count);
void journal_charge_shared(struct journal *journal, uint64_t bytes, uint64_t record_count);
/* Every lane's durable cursor has passed it: older segments may go. */
void journal_release(struct journal *journal, uint64_t position);
/* All up to `position` is applied; the oldest that was read and is not came at `oldest_ms`. */
void journal_progress(struct journal *journal, uint64_t position, uint64_t oldest_ms);
/* Accepted and unapplied. Frames and the oldest are as apply has said last. */
struct journal_backlog {
    uint64_t frames, records, bytes;
    uint64_t oldest_received_ms; /* wall; 0: nothing waits */
};
void journal_backlog(struct journal *journal, struct journal_backlog *ret);

/* --- backup: by another process, beside the server or without one ----------------------------- */
/* Holds every segment of `directory`, and retained uploads, where they are, for as long as the
 * descriptor is open. ERR_BUSY: another process has it. */
MUST_CHECK enum err journal_pin(const char *directory, int *ret_fd);
void journal_unpin(int fd);
/* Any thread: whether a process holds them now. */
bool journal_is_pinned(const struct journal *journal);
/* The id in the newest segment; ERR_NOT_FOUND: there is none. */
MUST_CHECK enum err journal_identify(const char *directory, struct id *ret);

#define JOURNAL_UPLOAD_NAME_BYTES 40u
/* Name of a whole upload in the uploads' directory. */
void journal_upload_name(char to[JOURNAL_UPLOAD_NAME_BYTES], struct id upload);

struct journal_copy {
    const char *from; /* directory of the segments */
    const char *to;   /* directory, made when absent */
    uint64_t after;   /* frames above it … */
    uint64_t until;   /* … up to this one; all of them must be durable. UINT64_MAX: to the end */
    /* Each end record of an upload. */
    enum err (*on_upload)(struct id upload, void *context);
    void (*on_progress)(uint64_t done, uint64_t all, void *context); /* positions */
    void *context;
};
struct journal_copied {
    uint64_t frames;
    uint64_t last_position; /* the highest; `after` when there was none */
    uint64_t missing;       /* frames that the segments should hold and do not */
};
/* Writes the frames, verified, as new segments of the same journal, synced, with a closing frame.
 * ERR_NOT_FOUND: there is no journal. */
MUST_CHECK enum err journal_copy(const struct journal_copy *copy, struct journal_copied *ret,
                                 struct err_detail *detail);

/* --- offline: weir journal check|dump -------------------------------------------------------- */
struct journal_check_report {
    uint64_t segments, commits, frames, bytes, first_position, last_position;
    uint64_t torn_bytes, damaged_bytes, damaged_places;
    bool clean;
};
/* Writes nothing; on_frame (may be NULL) sees each good frame; on_progress (may be NULL) bytes. */
MUST_CHECK enum err journal_check(const char *directory, struct journal_check_report *ret,
                                  void (*on_frame)(const struct journal_frame *frame,
                                                   void *context),
                                  void (*on_progress)(uint64_t done, uint64_t all, void *context),
                                  void *context, struct err_detail *detail);
