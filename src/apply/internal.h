/* Apply, private: what its files share.
 *
 * Thread: the applier's; what the writer's thread does inside a job is named write_*. What appliers
 *         share is in struct apply: atomics, tables, and what never changes.
 * Memory: a batch owns its rows and frames until it is reset; an upload that is open is on the
 * heap. Errors: as in apply.h. */
#pragma once
#include "apply/apply.h"
#include "apply/data.h"
#include "apply/lanes.h"

#include "base/mem.h"
#include "format/format.h"

#include <stdatomic.h>

#define APPLY_ROWS_MAX 80000u
/* Of one batch, and there are two: with the store's cache and what intake holds the program stays
 * within 64 MiB above its rest; fewer bytes make random ids dearer. */
#define APPLY_BYTES_MAX (8u << 20u)
/* Of its events' texts so many lie in memory, and then so many in a file. */
#define APPLY_TEXTS_MAX (512u << 10u)
#define APPLY_SPILL_MAX (24u << 20u)
/* Between two transactions of small batches: a hundred a second cost little, and nobody sees the
 * delay beside that of his own request. */
#define APPLY_GAP_MS          10u
#define APPLY_GAP_ROWS        2000u
#define APPLY_SLICE_ROWS      1000u /* of a slice, in one step; and one element more */
#define APPLY_CAREFUL_ROWS    4096u
#define APPLY_RELEASES        64u
#define APPLY_SLICE_LEASE_MS  60000
#define APPLY_ORGS_TOLD_MAX   256u
#define APPLY_ARENA_BYTES_MAX (APPLY_BYTES_MAX + (8u << 20u))
#define APPLY_MIXED_MAX       32768u /* frames of several lanes that some applier has not passed */
#define APPLY_RESULTS_MAX     4096u
#define APPLY_OPEN_TRIES      10u /* the database ends one of two jobs that wait for each other */
#define APPLY_RUNS_MAX        64u /* whose frames one part may hold, all told of */
#define APPLY_SILENT_MAX      32u /* asked about in one look */

/* What is on this machine's disk alone. */
struct apply_own {
    bool has_mark;
    int64_t mark_ms; /* the database's: what was acknowledged before lies at or below … */
    uint64_t mark;
    uint64_t spool; /* up to here the row of the spool says */
};

/* All of them. */
struct apply {
    struct apply_options options;
    struct id journal;
    struct table *id_keys;
    struct table *results; /* of frames that several share, by position */
    struct applier *appliers[APPLY_APPLIERS_MAX];
    uint32_t count;
    /* Of each lane: up to where it is applied, and up to where its cursor says so. Both rise;
     * relaxed: numbers that are compared alone. */
    atomic_uint_least64_t passed[LIMIT_LANES];
    atomic_uint_least64_t written[LIMIT_LANES];
    atomic_uint_least64_t position; /* the lowest of passed: release here, acquire by who asks */
    /* The highest frame of several lanes that is in some applier's list: each is in one, whoever
     * reads it again. */
    atomic_uint_least64_t mixed_counted;
    /* Who has lane 0, and counts frames of several lanes and looks at telemetry. Relaxed: a hint */
    atomic_uint_least32_t first;
    struct apply_own own;     /* of the jobs of the first applier's looks */
    atomic_bool has_readings; /* readings were applied; relaxed: its setter wakes who looks */
    atomic_bool is_stopping;  /* release by stop, acquire by appliers */
};

struct applier {
    struct apply *apply;
    uint32_t index;
    struct apply_options options; /* as the apply's; the same for the next two */
    struct apply_policy policy;
    struct id journal;
    struct mailbox *mailbox;
    struct journal_reader *reader;
    struct format_reader *format;
    struct table *id_keys;
    struct apply_batch batches[2];
    struct apply_batch *filling;
    struct apply_batch *in_flight; /* NULL: the writer is free */
    struct journal_frame held;     /* read, did not fit */
    bool is_held;
    bool is_stalled; /* the first frame of a batch could not be read yet; it was logged */
    bool has_more;
    bool was_slice; /* what the last batch was */
    uint32_t part_rows;
    uint32_t pause_ms;
    uint32_t told_capacity;
    uint64_t retry_ns;   /* the part in hand is tried again then; 0: it is with the writer */
    uint64_t handed_ns;  /* when the last batch was handed over */
    struct list uploads; /* those of the org that was served last come last */
    struct apply_release releases[APPLY_RELEASES];
    uint32_t release_count;
    /* Its lanes. Without leases it has all, for good. */
    struct journal_from from;
    struct apply_mixed *mixed; /* a ring; of who has lane 0 */
    uint32_t mixed_first;
    uint32_t mixed_count;
    struct {
        struct store_job job;
        struct apply_lease look;
        bool is_posted;
        bool is_new;  /* what it says is not followed yet */
        bool is_past; /* when it was posted, all frames from before the start were applied */
        uint32_t silent_count;
        uint64_t due_ns;
        uint64_t looked_ns;
        uint64_t advanced;        /* up to here the cursors of all its lanes say */
        struct apply_found found; /* out */
        /* Uploads that this node counts, of which nothing was heard; out: which are over. */
        struct id silent[APPLY_SILENT_MAX];
        uint64_t silent_over;
    } lease;
    /* Of a shared stream: what uploads from before the start have left, whoever applies them. */
    struct apply_found found;
    bool found_are_over;   /* there are none, and none will come */
    atomic_bool is_called; /* to look at the leases now. Relaxed: a wake follows it */
    /* For what is told of all: stored here, loaded by any applier; relaxed. */
    atomic_uint_least64_t lanes;
    atomic_uint_least64_t unsettled; /* frames that were read and are not applied */
    atomic_int_least64_t until_ms;   /* wall: what came before is applied */
    struct buffer chunk;             /* decoded bytes of a slice */
    struct record_applied *told;     /* to the journal, of one part */
    struct record_share share;
    uint64_t orgs[APPLY_ORGS_TOLD_MAX];
    /* Retention of raw uploads. */
    uint64_t retention_due_ns;
    struct apply_old_upload *old;
    uint32_t old_count;
    uint64_t old_commit;
    struct apply_telemetry telemetry;
    struct journal_upload_walk *orphans; /* NULL: not begun, or done */
    bool orphans_are_done;
};

/* --- lanes.c: which an applier has -------------------------------------------------------------
 */
/* own.c: inside a job. */
enum err apply_own_open(const struct apply *apply, struct store_connection *connection);
enum err apply_own_tell(struct apply *apply, struct store_connection *connection);
enum err apply_own_end(const struct apply *apply, struct store_connection *connection);
/* Looks at the leases, follows what they say; true: nothing else may be done now. */
bool apply_lanes_look(struct applier *applier, uint64_t now_ns);
/* Until it wants to look; -1: its answer will come. */
int apply_lanes_wait_ms(const struct applier *applier, uint64_t now_ns);
/* From now on these are its lanes. */
void apply_lanes_set(struct applier *applier, uint64_t lanes);
/* A lane was not held any more: what is in hand is dropped. */
void apply_lanes_lost(struct applier *applier);
/* Everything is given up. */
void apply_lanes_end(struct applier *applier);
/* How far this applier is, to all; true: what is queryable has risen. */
bool apply_lanes_tell(struct applier *applier);
/* One of several lanes is in the list of who has lane 0 until all have passed it. */
bool apply_lanes_has_room(const struct applier *applier, const struct journal_frame *frame);
void apply_lanes_count(struct applier *applier, const struct journal_frame *frame);
static inline bool apply_has_leases(const struct applier *applier)
{
    return applier->options.appliers > 0;
}
/* Who has lane 0 does what is to be done once. */
static inline bool apply_is_first(const struct applier *applier)
{
    return (applier->from.lanes & 1u) != 0;
}
/* Wall: what came before was applied; 0: not known. */
int64_t apply_applied_until_ms(const struct apply *apply);
/* The cursors of some of its lanes stand at `position` in the store. */
void apply_lanes_write(struct applier *applier, uint64_t lanes, uint64_t position);
/* The least of all cursors. */
uint64_t apply_lanes_written(const struct apply *apply);
/* Frames that were read and are not applied. */
uint64_t apply_lanes_unsettled(const struct apply *apply);

/* --- keys.c: the id keys of orgs -----------------------------------------------------------------
 */
/* ERR_NOT_FOUND: no such org. Waits for a reader of the store. */
MUST_CHECK enum err apply_id_key(struct applier *applier, uint64_t org, uint8_t ret[32]);
/* The same, inside a job. */
MUST_CHECK enum err apply_id_key_read(struct store_connection *connection, uint64_t org,
                                      uint8_t ret[32]);

/* --- fill.c: frames -> rows ------------------------------------------------------------------ */
void apply_batch_reset(struct apply_batch *batch);
void apply_batch_finish(struct apply_batch *batch);
/* Takes no more frames. */
bool apply_batch_is_full(const struct apply_batch *batch);
/* Of an empty batch: gives back what only a backlog needs. */
void apply_batch_rest(struct apply_batch *batch);
/* One frame of the journal. ERR_FULL: it does not fit any more; others: as apply_id_key. On failure
 * the batch is as before. */
MUST_CHECK enum err apply_fill_frame(struct applier *applier, struct apply_batch *batch,
                                     const struct journal_frame *frame);
/* The next event of a frame whose elements are being read. */
MUST_CHECK enum err apply_fill_event(struct apply_batch *batch, struct apply_frame *frame,
                                     const struct record_event *event);
struct apply_frame *apply_fill_begin(struct apply_batch *batch);
/* What it costs the writer: events, or the readings of messages. Of the frame that is being filled,
 * frame_count, so far. */
uint32_t apply_frame_rows(const struct apply_batch *batch, uint32_t frame);

/* --- upload.c -----------------------------------------------------------------------------------
 */
MUST_CHECK enum err apply_upload_create(struct apply_upload **ret, struct applier *applier,
                                        const struct record_frame *frame, struct slice head,
                                        uint64_t position);
void apply_upload_destroy(struct apply_upload *upload);
/* Open ones of these lanes. */
MUST_CHECK enum err apply_uploads_load(struct applier *applier, uint64_t lanes);
/* Those of these lanes are somebody else's. */
void apply_uploads_drop(struct applier *applier, uint64_t lanes);
/* Counts them in the journal's backlog again: recovery saw only frames above the cursor. */
void apply_uploads_charge(struct applier *applier);
/* Of a shared stream: all frames from before the start are applied. */
bool apply_uploads_are_past(const struct applier *applier);
/* Inside a job: open ones from before the start. */
MUST_CHECK enum err apply_uploads_count(const struct applier *applier,
                                        struct store_connection *connection,
                                        struct apply_found *ret);
/* Tells the journal of them, before it is told that their frames are applied. */
void apply_uploads_tell(struct applier *applier);
/* The look has counted them. */
void apply_uploads_take(struct applier *applier);
/* Of a shared stream: what a look asks about uploads that this node counts; inside the job; what is
 * over by its answer leaves the backlog. */
void apply_uploads_ask(struct applier *applier);
MUST_CHECK enum err apply_uploads_find(struct applier *applier,
                                       struct store_connection *connection);
void apply_uploads_settle(struct applier *applier);
/* The one whose turn it is, or NULL; *ret_wait_ms: until one may be tried again (-1: none). */
struct apply_upload *apply_upload_turn(struct applier *applier, int *ret_wait_ms);
/* The next slice of it. Errors make it wait, or make it a failed one. */
MUST_CHECK enum err apply_fill_slice(struct applier *applier, struct apply_batch *batch,
                                     struct apply_upload *upload);
/* Answers who waits, gives its bytes back, frees it. */
void apply_upload_end(struct applier *applier, struct apply_upload *upload, enum err err);
/* Whose lane it is in. */
uint8_t apply_upload_lane(const struct apply_upload *upload);
bool apply_upload_is_done(const struct apply_upload *upload);

/* --- write.c: inside the writer's job ------------------------------------------------------------
 */
enum err apply_write_part(struct store_job *job, struct store_connection *connection);
MUST_CHECK enum err apply_write_dead_letter(struct store_connection *connection,
                                            const struct apply_dead_letter *letter);

/* --- telemetry.c ---------------------------------------------------------------------------------
 */
/* The readings of the message that was added last. */
MUST_CHECK enum err apply_fill_readings(struct apply_batch *batch,
                                        const struct format_reader *format);
/* Inside the writer's job: events, readings and dead letters of messages of the part. */
MUST_CHECK enum err apply_write_rows(struct store_connection *connection,
                                     struct apply_batch *batch);
void apply_telemetry_init(struct applier *applier);
/* Readings were applied. */
void apply_telemetry_news(struct applier *applier);
/* Posts what is due. */
void apply_telemetry_look(struct applier *applier, uint64_t now_ns);
/* Until it is due; -1: an answer will come. */
int apply_telemetry_wait_ms(const struct applier *applier, uint64_t now_ns);

/* --- settle.c: after the commit ------------------------------------------------------------------
 */
/* Results, credit, metrics, the position. */
void apply_settle_part(struct applier *applier, struct apply_batch *batch);
/* Lets the journal go as far as the store can no longer lose. */
void apply_settle_release(struct applier *applier);
/* Any thread; context: struct apply. What another node made of a frame of this one. */
void apply_settle_share(void *context, const struct record_share *share);
/* Whether who waits in that run can be told what became of its frame. */
static inline bool apply_can_tell(const struct applier *applier, uint64_t run)
{
    return run == applier->options.run || journal_is_shared(applier->options.journal);
}
/* When nothing is to be done: the same, and how far it is, to all. */
void apply_settle_rest(struct applier *applier);
void apply_settle_gauges(struct applier *applier);

/* --- retention.c: raw bodies of uploads --------------------------------------------------------
 */
void apply_retention_look(struct applier *applier, uint64_t now_ns);
void apply_retention_finish(struct applier *applier);

/* --- orphans.c: raw bodies that no row knows -----------------------------------------------------
 */
void apply_orphans_look(struct applier *applier);
void apply_orphans_finish(struct applier *applier);

/* --- cursor.c ------------------------------------------------------------------------------------
 */
/* Of bodies that lie here: $n whether those of all journals do, $n+1 this one. */
void apply_bind_journal(const struct applier *applier, struct store_statement *statement, int n);
