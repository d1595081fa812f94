/* Store: the database, behind one interface: SQLite or PostgreSQL.
 *
 * All writes are jobs for the writer; reads are jobs for the readers, who make one page each. SQL
 * stands in the stage that needs it, in the subset that both engines take ($1, ON CONFLICT,
 * RETURNING); bulk writes and the few differences are pairs in here.
 *
 * Thread: open and close: the owner (main). post_*: any. A connection and its statements: the
 *         thread that runs the job, inside the job.
 * Memory: a job is the poster's; it comes back by its reply. Column slices live until the next step
 *         or reset of the statement. Bound bytes must live until the statement is done or reset.
 * Errors: ERR_REFUSED the engine refused this row (constraint, type, size); ERR_AWAY, ERR_BUSY,
 *         ERR_NO_SPACE passing faults; ERR_TIMEOUT a read above its time; ERR_CORRUPT, ERR_IO stop.
 *         Mapped at the edge, in the backend. */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "base/mailbox.h"
#include "base/slice.h"
#include "store/listen.h"
#include "store/packed.h"
#include "store/readings.h"

struct store;
struct store_connection;
struct store_statement;
struct store_writer;
struct store_reader;

struct store_options {
    const char *url;   /* "sqlite:/path/weir.db", or "postgresql://…" */
    uint32_t cache_mb; /* of the writer */
    uint32_t reader_count;
    uint32_t query_timeout_ms;
    uint32_t slow_query_ms;   /* logged with its plan */
    uint32_t lock_wait_ms;    /* open waits for another process's lock; 0: one try */
    uint32_t write_queue_max; /* jobs per priority */
    uint32_t read_queue_max;
    uint32_t appliers; /* PostgreSQL: connections for apply jobs; 0: the writer's */
    /* PostgreSQL alone: */
    const char *read_url;                      /* where the readers connect to; NULL: as url */
    uint32_t min_connections;                  /* readers that stay connected */
    uint32_t idle_timeout_ms;                  /* further ones are closed after; 0: never */
    uint32_t acquire_timeout_ms;               /* to connect */
    uint32_t max_lifetime_ms;                  /* of a connection; 0: without end */
    const struct store_listen_options *listen; /* may be NULL; copied */
    uint32_t connection;                       /* the store's: number of the reader */
    struct store_log *log;                     /* the store's */
};

/* Whether the URL names a PostgreSQL database. */
bool store_url_is_postgres(const char *url);

/* Opens, or creates, and migrates. ERR_VERSION: newer schema, or another program's database;
 * ERR_PERMISSION, ERR_LOCKED (another process), ERR_CORRUPT: the detail says what to do. */
MUST_CHECK enum err store_open(struct store **ret, const struct store_options *options,
                               struct err_detail *detail);
void store_writer_run(void *store);
/* Argument: store_applier(store, i). */
void store_applier_run(void *applier);
void *store_applier(struct store *store, uint32_t index);
/* May be left out: the writer then does all of a checkpoint itself. */
void store_checkpointer_run(void *store);
/* Argument: store_reader(store, i). */
void store_reader_run(void *reader);
void *store_reader(struct store *store, uint32_t index);
/* Any thread: jobs posted so far are done, then the threads return. */
void store_stop(struct store *store);
/* After the threads were joined: checkpoints, closes. NULL is fine. */
void store_close(struct store *store);
/* Copies a database, which any process may be using, to a new file, as it is at one moment, not
 * synced. on_progress (may be NULL) sees pages. ERR_UNSUPPORTED: the detail names a better tool. */
MUST_CHECK enum err store_backup(const struct store_options *options, const char *path,
                                 void (*on_progress)(uint64_t done, uint64_t all, void *context),
                                 void *context, struct err_detail *detail);
struct store_transfer_watch {
    void *context;
    /* Both were found fit, nothing is read yet: the last moment at which `from` may change. */
    enum err (*on_ready)(void *context, struct err_detail *detail);
    void (*on_progress)(uint64_t done, uint64_t all, void *context);
};
/* Copies every row of `from` to `to`, which is empty or holds half a transfer, and compares both
 * (transfer.c). ERR_EXISTS: `to` is not empty; ERR_REFUSED: it cannot hold a row. */
MUST_CHECK enum err store_transfer(const struct store_options *from, const struct store_options *to,
                                   const struct store_transfer_watch *watch, uint64_t *ret_rows,
                                   struct err_detail *detail);
/* Whether the store takes writes now, and if not why (for /health/ready). */
enum err store_health(const struct store *store);

enum store_priority { STORE_CONTROL, STORE_RESULTS, STORE_APPLY, STORE_PRIORITIES };

/* A write: `run` is called in a transaction on the writer's thread, once; its error rolls its own
 * changes back and nothing else. After the commit, or the failure, `on_done` runs on the thread
 * that owns reply_to (on the writer's own when reply_to is NULL). */
struct store_job {
    struct mail mail; /* the store's while posted */
    enum store_priority priority;
    uint32_t applier; /* whose connection an apply job takes */
    bool is_beside;   /* an apply job that takes the writer's: appliers do not give way to it */
    bool durable;     /* committed with FULL: true for everything that is not in the journal */
    bool repeats;     /* a read whose run begins anew when it is called again: as it may be, once,
                         when its server has gone meanwhile (ERR_AWAY) */
    enum err (*run)(struct store_job *job, struct store_connection *connection);
    void (*on_done)(struct store_job *job);
    struct mailbox *reply_to;
    enum err err;                /* the result, for on_done */
    uint64_t commit;             /* number of the commit that holds it, for store_durable_commit */
    struct store_writer *writer; /* the store's while posted */
    struct store_reader *reader; /* the store's while posted */
};
/* Highest commit that a power cut cannot take back any more. Any thread. */
uint64_t store_durable_commit(const struct store *store);
/* ERR_FULL: the queue of this priority is full. */
MUST_CHECK enum err store_post_write(struct store *store, struct store_job *job);
/* As a write, on a reader's thread, in a read transaction of its own (one snapshot). The priority
 * and durable fields are not looked at. Interrupted with ERR_TIMEOUT above query_timeout_ms. */
MUST_CHECK enum err store_post_read(struct store *store, struct store_job *job);
/* Runs a write and waits for it: here and now when no writer's thread runs (commands, start), else
 * by posting it. Not for loops. */
MUST_CHECK enum err store_run_here(struct store *store, struct store_job *job);

/* --- statements, inside run ------------------------------------------------------------------ */
/* `sql` must be constant text: the prepared statement is cached by its address. */
MUST_CHECK enum err store_prepare(struct store_connection *connection, const char *sql,
                                  struct store_statement **ret);
/* Text made at run time (lists with filters): cached by content, bounded. */
MUST_CHECK enum err store_prepare_text(struct store_connection *connection, struct slice sql,
                                       struct store_statement **ret);
/* Parameters count from 1: $1, $2 … */
void store_bind_i64(struct store_statement *statement, int parameter, int64_t value);
void store_bind_double(struct store_statement *statement, int parameter, double value);
/* data NULL binds NULL. */
void store_bind_text(struct store_statement *statement, int parameter, struct slice text);
void store_bind_blob(struct store_statement *statement, int parameter, struct slice bytes);
void store_bind_null(struct store_statement *statement, int parameter);
/* *ret_row false: done. The statement resets itself at the end and at an error. */
MUST_CHECK enum err store_step(struct store_statement *statement, bool *ret_row);
/* Stops before the end. Bindings are cleared. */
void store_reset(struct store_statement *statement);
/* For statements that give no row: step to the end. */
MUST_CHECK enum err store_execute(struct store_statement *statement);
/* Columns count from 0. */
int64_t store_column_i64(struct store_statement *statement, int column);
double store_column_double(struct store_statement *statement, int column);
/* data NULL for NULL. */
struct slice store_column_bytes(struct store_statement *statement, int column);
bool store_column_is_null(struct store_statement *statement, int column);
/* Rows changed by the last statement. */
uint64_t store_changes(struct store_connection *connection);

/* The few texts of SQL that differ between the engines. */
struct store_texts {
    /* FROM and WHERE of the events e of one subject: sequence from $1 to $2, key $3, text $4. */
    const char *by_subject;
    const char *by_subject_order; /* the column whose order costs no sort */
    /* Takes an event off its subject: key $1, sequence $2. */
    const char *forget_subject;
    /* Takes the lease $1 for the holder $2 and $3 ms: a row, or none when another has it. To take
     * waits for a transaction that has its row; to claim passes over it. */
    const char *take_lease;
    const char *claim_lease;
    /* Of the lanes in the mask $3 of the journal $1 those that are free at $5 become the holder
     * $2's until $4, and appliers forgotten whose time is over at $2 or who are $3, but for rows
     * that a transaction has. */
    const char *claim_lanes;
    const char *forget_appliers;
    const char *now;           /* one row: the database's clock, ms */
    const char *lock_registry; /* one row: that of the org $1, until the transaction ends */
};
const struct store_texts *store_texts(const struct store_connection *connection);

/* --- bulk ------------------------------------------------------------------------------------ */
/* Sequence numbers of the rows of an org: org in the high bits, so that an org's rows lie together
 * and in its own commit order. */
#define STORE_ORG_SHIFT 40u
#define STORE_ORG_MAX   ((1u << 22u) - 1u)
static inline uint64_t store_sequence_first(uint64_t org)
{
    return org << STORE_ORG_SHIFT;
}
static inline uint64_t store_sequence_last(uint64_t org)
{
    return (org << STORE_ORG_SHIFT) | ((1ull << STORE_ORG_SHIFT) - 1u);
}

/* Key of an event's subject in event_subjects. Two subjects may share one: compare the text too. */
int64_t store_subject_key(uint64_t org, struct slice subject);

/* Inserts events of any orgs, in order; equal ids: the first stays. Gives each its sequence number
 * (orgs.last_sequence rises), keeps the hours and subjects and raises the orgs' data version.
 *
 * careful false: one bad row gives ERR_REFUSED for all, and the caller's job must fail; it is then
 * tried again with careful true, in smaller parts: each row that the engine refuses (or whose org
 * does not exist) gets STORE_EVENT_REFUSED and does not stop the rest. ERR_BUSY: something of
 * higher priority waits and the transaction has lasted 50 ms: the job fails, to be tried with
 * fewer. After any error nothing may be kept. */
MUST_CHECK enum err store_insert_events(struct store_connection *connection,
                                        struct store_event *events, size_t count, bool careful);
/* The same, of packed events. */
struct store_part {
    struct store_packed *events;
    size_t count;
    struct store_spill *spill; /* NULL: the bytes of all are in memory */
};
MUST_CHECK enum err store_insert_packed(struct store_connection *connection,
                                        const struct store_part *part, bool careful);
/* *ret_is false: the org has no event of this id; *ret_sequence is untouched then. */
MUST_CHECK enum err store_find_event(struct store_connection *connection, uint64_t org,
                                     const uint8_t id[16], bool *ret_is, uint64_t *ret_sequence);

/* The org's data version: raised in the transaction of any change that an answer can show. An org
 * that is not there is no error (store_changes is 0 then). */
MUST_CHECK enum err store_raise_version(struct store_connection *connection, uint64_t org);

/* --- acknowledged events: ranges of sequences (event_acks) ----------------------------------- */
/* *ret_was: it was acknowledged before. */
MUST_CHECK enum err store_event_acknowledge(struct store_connection *connection, uint64_t sequence,
                                            bool *ret_was);

/* --- retention: what is kept for so many days only -------------------------------------------- */
enum store_retention_stage {
    STORE_RETENTION_DONE,
    STORE_RETENTION_BEGIN,
    STORE_RETENTION_EVENTS, /* of the org; so are the next five */
    STORE_RETENTION_UPLOADS,
    STORE_RETENTION_LETTERS,
    STORE_RETENTION_BOUND,
    STORE_RETENTION_READINGS,
    STORE_RETENTION_ROLLUPS,
    STORE_RETENTION_NEXT,
};
/* A pass over all orgs; zeroed: none was made yet. */
struct store_retention {
    enum store_retention_stage stage;
    uint64_t org;
    uint64_t series;
    int64_t now_ms;
    int64_t events_ms_min; /* no event goes younger */
    int64_t day_ms;        /* of the last whole pass */
    bool is_new_day;
    bool has_changed; /* the org's answers, by the last step */
    uint64_t events;  /* deleted in this pass; so are the next three */
    uint64_t letters;
    uint64_t readings;
    uint64_t rollups;
};
void store_retention_begin(struct store_retention *retention, int64_t now_ms,
                           int64_t events_ms_min);
/* A part of some hundred rows, until the stage is DONE. ERR_BUSY: something of higher priority
 * waits, or somebody reads what would go; the step may be tried again. */
MUST_CHECK enum err store_retention_step(struct store_connection *connection,
                                         struct store_retention *retention);

/* --- leases: what one node at a time does ---------------------------------------------------- */
/* Takes the lease, or holds it on: for ttl_ms of the database's clock from now. *ret_held false:
 * another has it. The row is locked until the transaction ends: what is done in the same one is
 * done by the holder alone. `name` is constant text. */
MUST_CHECK enum err store_lease_take(struct store_connection *connection, const char *name,
                                     uint64_t holder, uint32_t ttl_ms, bool *ret_held);
/* The same, but another's transaction that has the row is not waited for: it has the lease. */
MUST_CHECK enum err store_lease_claim(struct store_connection *connection, const char *name,
                                      uint64_t holder, uint32_t ttl_ms, bool *ret_held);
/* Somebody else's stays. */
MUST_CHECK enum err store_lease_give_up(struct store_connection *connection, const char *name,
                                        uint64_t holder);
