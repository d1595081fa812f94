/* Apply, private: what its files share.
 *
 * Thread: the applier's; what the writer's thread does inside a job is named write_*.
 * Memory: a batch owns its rows and frames until it is reset; an upload that is open is on the
 * heap. Errors: as in apply.h. */
#pragma once
#include "apply/apply.h"
#include "apply/batch.h"

#include "base/list.h"
#include "base/mailbox.h"
#include "base/mem.h"
#include "format/format.h"
#include "journal/journal.h"
#include "store/store.h"

#include <stdatomic.h>

#define APPLY_CURSOR_LANE 64 /* all lanes together */
#define APPLY_ROWS_MAX    100000u
/* Of one batch, and there are two: with the store's cache and what intake holds the program stays
 * within 64 MiB above its rest; fewer bytes make random ids dearer. */
#define APPLY_BYTES_MAX (8u << 20u)
/* Between two transactions of small batches: a hundred a second cost little, and nobody sees the
 * delay beside that of his own request. */
#define APPLY_GAP_MS          10u
#define APPLY_GAP_ROWS        2000u
#define APPLY_SLICE_ROWS      1000u /* of a slice, in one step; and one element more */
#define APPLY_CAREFUL_ROWS    4096u
#define APPLY_RELEASES        64u
#define APPLY_LEASE_MS        60000
#define APPLY_ORGS_TOLD_MAX   256u
#define APPLY_ARENA_BYTES_MAX (APPLY_BYTES_MAX + (8u << 20u))

enum apply_upload_state {
    APPLY_UPLOAD_APPLYING = 1,
    APPLY_UPLOAD_PROCESSED = 2,
    APPLY_UPLOAD_PARTIAL = 3,
    APPLY_UPLOAD_FAILED = 4,
};

/* An upload of few elements and bytes is applied in one transaction. */
#define APPLY_WHOLE_BYTES_MAX (8u << 20u)
/* A message may hold readings by the hundred. */
#define APPLY_WHOLE_READING_BYTES_MAX (512u << 10u)

enum apply_table { APPLY_TABLE_WRITTEN, APPLY_TABLE_MISSING, APPLY_TABLE_UNWRITTEN };

/* An upload whose elements are not all in the store. */
struct apply_upload {
    struct list_link link;
    struct record_upload_end end;
    struct record_frame frame; /* its slices point into head */
    uint8_t *head;
    size_t head_size;
    struct record_slice *slices;
    uint32_t slice_count;
    uint32_t slice_next;    /* first that is not done */
    uint64_t slice_done;    /* elements of it that are done */
    enum apply_table table; /* slices and refused elements: missing until they can be read */
    uint64_t position;
    struct buffer errors;         /* JSON array of refused elements */
    enum err failed;              /* its file cannot be read: this is why */
    struct record_result *result; /* somebody waits for it */
    uint64_t waiter;
    uint64_t pending_count; /* of one of an earlier run: accepted and not applied when loaded */
    uint64_t retry_ns;      /* not before */
    uint32_t pause_ms;
    uint32_t io_errors; /* in a row */
    struct journal_upload_reader *reader;
};

enum apply_frame_kind {
    APPLY_FRAME_EVENTS,
    APPLY_FRAME_UPLOAD,     /* an upload begins to exist */
    APPLY_FRAME_UNREADABLE, /* becomes a dead letter whole */
};

/* A frame of the journal, or a step of a slice. */
struct apply_frame {
    enum apply_frame_kind kind;
    uint8_t form;
    uint64_t position;
    uint64_t org;
    struct id id;
    int64_t received_ms;
    uint64_t credit_bytes;
    uint32_t credit_records;
    uint64_t waiter; /* RECORD_WAITER_NONE also for one of another run */
    uint32_t first_event;
    uint32_t event_count;
    uint32_t first_reading; /* of messages */
    uint64_t element_count; /* rejected ones too; of a slice: elements done after this step */
    struct apply_upload *upload;
    struct slice bytes; /* kept as a dead letter: it could not be read, or not all of it */
};

struct apply;

struct apply_batch {
    struct store_job job;
    struct apply *apply;
    struct mem_arena *arena;
    struct store_packed *events;
    uint64_t *elements; /* number of each event in its frame or upload */
    uint32_t event_count;
    uint32_t event_capacity;
    struct store_reading *readings; /* of the events that are messages */
    uint32_t reading_count;
    uint32_t reading_capacity;
    struct apply_frame *frames;
    uint32_t frame_count;
    uint32_t frame_capacity;
    size_t bytes;
    uint64_t first_ns;           /* when its first frame was read */
    struct apply_upload *upload; /* NULL: frames; else a slice of it */
    bool is_whole;               /* all its slices */
    bool is_closed;
    bool is_waited_for; /* one of its frames has a waiter */
    /* The part that the writer has: frames [part_from, part_to). */
    uint32_t part_from;
    uint32_t part_to;
    bool careful;
    bool has_run;
    uint64_t posted_ns;
};

/* What is due by itself: roll-ups, silent devices. */
#define APPLY_TELEMETRY_ORGS 64u
struct apply_telemetry {
    struct store_job job;
    struct apply *apply;
    bool is_posted;
    bool has_news;    /* readings were applied since the job was posted */
    uint64_t due_ns;  /* 0: at once */
    uint32_t minutes; /* dirty ones to take in the next job */
    int64_t until_ms; /* wall: what came before was applied when the job was posted */
    uint64_t holder;  /* of the lease, where other nodes use the store too */
    uint64_t retention_due_ns;
    bool is_retention_due;            /* in the job that is posted */
    struct store_retention retention; /* as it was committed last */
    struct store_retention step;      /* of the job */
    /* What the last job said. */
    bool is_held; /* the lease */
    uint32_t done;
    int64_t silent_due_ms;
    uint32_t org_count;
    uint64_t orgs[APPLY_TELEMETRY_ORGS];
};

struct apply_dead_letter {
    const uint8_t *id;
    uint64_t org;
    const char *kind;
    const char *reason;
    const char *detail; /* may be NULL */
    uint64_t position;
    uint64_t element;
    uint8_t form;
    struct slice record;
    int64_t received_ms;
};

struct apply_release {
    uint64_t commit;
    uint64_t position;
};

struct apply_old_upload {
    struct id id;
    uint64_t org;
};

struct apply {
    struct apply_options options;
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
    uint64_t retry_ns;   /* the part in hand is tried again then; 0: it is with the writer */
    uint64_t handed_ns;  /* when the last batch was handed over */
    struct list uploads; /* those of the org that was served last come last */
    uint64_t read_position;
    uint64_t frames_unsettled; /* read and not committed */
    struct apply_release releases[APPLY_RELEASES];
    uint32_t release_count;
    struct buffer chunk; /* decoded bytes of a slice */
    struct record_result result;
    uint64_t orgs[APPLY_ORGS_TOLD_MAX];
    /* Retention of raw uploads. */
    uint64_t retention_due_ns;
    struct apply_old_upload *old;
    uint32_t old_count;
    uint64_t old_commit;
    struct apply_telemetry telemetry;
    struct journal_upload_walk *orphans; /* NULL: not begun, or done */
    bool orphans_are_done;
    atomic_uint_least64_t position; /* release here, acquire by who asks */
    atomic_bool is_stopping;        /* release by stop, acquire here */
};

/* --- keys.c: the id keys of orgs ------------------------------------------------------------- */
/* ERR_NOT_FOUND: no such org. Waits for a reader of the store. */
MUST_CHECK enum err apply_id_key(struct apply *apply, uint64_t org, uint8_t ret[32]);
/* The same, inside a job. */
MUST_CHECK enum err apply_id_key_read(struct store_connection *connection, uint64_t org,
                                      uint8_t ret[32]);

/* --- fill.c: frames -> rows ------------------------------------------------------------------ */
void apply_batch_reset(struct apply_batch *batch);
void apply_batch_finish(struct apply_batch *batch);
/* Of an empty batch: gives back what only a backlog needs. */
void apply_batch_rest(struct apply_batch *batch);
/* One frame of the journal. ERR_FULL: it does not fit any more; others: as apply_id_key. On failure
 * the batch is as before. */
MUST_CHECK enum err apply_fill_frame(struct apply *apply, struct apply_batch *batch,
                                     const struct journal_frame *frame);
/* The next event of a frame whose elements are being read. */
MUST_CHECK enum err apply_fill_event(struct apply_batch *batch, struct apply_frame *frame,
                                     const struct record_event *event);
struct apply_frame *apply_fill_begin(struct apply_batch *batch);
/* What it costs the writer: events, or the readings of messages. Of the frame that is being filled,
 * frame_count, so far. */
uint32_t apply_frame_rows(const struct apply_batch *batch, uint32_t frame);

/* --- upload.c -------------------------------------------------------------------------------- */
MUST_CHECK enum err apply_upload_create(struct apply_upload **ret, struct apply *apply,
                                        const struct record_frame *frame, struct slice head,
                                        uint64_t position);
void apply_upload_destroy(struct apply_upload *upload);
/* Open ones of earlier runs. */
MUST_CHECK enum err apply_uploads_load(struct apply *apply);
/* Counts them in the journal's backlog again: recovery saw only frames above the cursor. */
void apply_uploads_charge(struct apply *apply);
/* The one whose turn it is, or NULL; *ret_wait_ms: until one may be tried again (-1: none). */
struct apply_upload *apply_upload_turn(struct apply *apply, int *ret_wait_ms);
/* The next slice of it. Errors make it wait, or make it a failed one. */
MUST_CHECK enum err apply_fill_slice(struct apply *apply, struct apply_batch *batch,
                                     struct apply_upload *upload);
/* Answers who waits, gives its bytes back, frees it. */
void apply_upload_end(struct apply *apply, struct apply_upload *upload, enum err err);
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
void apply_telemetry_init(struct apply *apply);
/* Readings were applied. */
void apply_telemetry_news(struct apply *apply);
/* Posts what is due. */
void apply_telemetry_look(struct apply *apply, uint64_t now_ns);
/* Until it is due; -1: an answer will come. */
int apply_telemetry_wait_ms(const struct apply *apply, uint64_t now_ns);

/* --- settle.c: after the commit ------------------------------------------------------------------
 */
/* Results, credit, metrics, the position. */
void apply_settle_part(struct apply *apply, struct apply_batch *batch);
/* Lets the journal go as far as the store can no longer lose. */
void apply_settle_release(struct apply *apply);
void apply_settle_gauges(struct apply *apply);

/* --- retention.c: raw bodies of uploads --------------------------------------------------------
 */
void apply_retention_look(struct apply *apply, uint64_t now_ns);
void apply_retention_finish(struct apply *apply);

/* --- orphans.c: raw bodies that no row knows -----------------------------------------------------
 */
void apply_orphans_look(struct apply *apply);
void apply_orphans_finish(struct apply *apply);

/* --- cursor.c ------------------------------------------------------------------------------------
 */
/* Of bodies that lie here: $n whether those of all journals do, $n+1 this one. */
void apply_bind_journal(const struct apply *apply, struct store_statement *statement, int n);
