/* Backend: what a database engine does for the store. One struct of functions per engine; its
 * connection and statement embed the structs below as first member.
 *
 * Thread: a connection belongs to the thread that runs jobs on it.
 * Memory: open and prepare allocate; a statement lives as long as its connection.
 * Errors: as in store.h; the engine's codes are mapped here and nowhere else. */
#pragma once
#include "store/store.h"

#include "base/list.h"

#include <stdatomic.h>

/* How long a transaction may be while something of higher priority waits. */
#define STORE_TRANSACTION_MS 50u

#define STORE_CONSTANTS_MAX      512u /* statements of constant text; a power of two */
#define STORE_TEXTS_MAX          32u  /* statements made at run time */
#define STORE_STATEMENT_TEXT_MAX 16384u

enum store_role {
    STORE_ROLE_WRITER,
    STORE_ROLE_READER,
    STORE_ROLE_CHECKPOINTER,
    STORE_ROLE_LISTENER
};

/* Jobs that were posted and have not begun, by priority. The poster adds (relaxed: only a hint for
 * the running job, the mailbox orders the job itself), the writer subtracts. */
struct store_waiting {
    atomic_uint_least32_t jobs[STORE_PRIORITIES];
    atomic_bool is_urgent; /* control or results jobs run; relaxed: a hint for who applies beside */
};

/* What readers of a replica share. */
struct store_log {
    /* How far the engine's own log is: release by the writer after a commit, acquire by readers. */
    atomic_uint_least64_t place;
    /* When the replica, which is away, is tried again by one of them; 0: it serves. Relaxed: it
     * orders nothing. */
    atomic_uint_least64_t retry_ns;
};

struct store_backend;
struct store_loader;
struct store_minute;
struct store_readings;

struct store_statement {
    const struct store_backend *backend;
    const char *text; /* ends with a NUL */
    char *copy;       /* made at run time: the text; NULL: it is constant */
    size_t size;
    uint64_t used;            /* counter of the connection when last prepared */
    struct list_link running; /* from its first step to its end; see store_statements_run */
};

static inline bool store_statement_is_running(const struct store_statement *statement)
{
    return statement->running.next != NULL;
}

/* See statements.h. */
struct store_statements {
    struct store_statement *constants[STORE_CONSTANTS_MAX];
    struct store_statement *texts[STORE_TEXTS_MAX];
    struct list running;
    uint64_t prepared; /* counts */
};

struct store_connection {
    const struct store_backend *backend;
    struct store_waiting *waiting; /* NULL: nobody waits (readers, commands) */
    enum store_priority priority;  /* of the job that runs */
    uint64_t began_ns;             /* of the transaction */
    struct store_statements statements;
};

/* What several nodes that share a database tell each other, on a connection of the role LISTENER.
 * Messages are words with spaces between: "key VERSION NUMBER", so are "keys" and "org", from the
 * engine when these change; "applied NODE POSITION ORG…" from nodes. */
struct store_ears {
    /* Connects when it is not. *ret_is_new: what was said before was not heard. */
    enum err (*listen)(struct store_connection *connection, bool *ret_is_new);
    /* The version of the changes, then the positions of all journals, with spaces between. */
    enum err (*look)(struct store_connection *connection, char *ret, size_t size);
    enum err (*tell)(struct store_connection *connection, const char *message);
    /* Gives what was said, first what is there already; waits for more until something came,
     * wake_fd can be read, or timeout_ms are over. What the readers' replicas must have reached by
     * then is known before on_message. */
    enum err (*hear)(struct store_connection *connection, int wake_fd, int timeout_ms,
                     void (*on_message)(void *owner, struct slice message), void *owner);
};

struct store_backend {
    struct store_texts texts;
    const struct store_ears *ears; /* NULL: one process has a database for itself */
    /* ERR_VERSION: another program's database. */
    enum err (*open)(struct store_connection **ret, const struct store_options *options,
                     enum store_role role, struct err_detail *detail);
    void (*close)(struct store_connection *connection);

    /* 0: empty. */
    enum err (*schema_version)(struct store_connection *connection, uint32_t *ret);
    /* Inside a transaction: runs the statements of `sql` and records the version. */
    enum err (*schema_apply)(struct store_connection *connection, const char *sql,
                             uint32_t version);

    enum err (*begin_read)(struct store_connection *connection);
    enum err (*begin_write)(struct store_connection *connection, bool durable);
    enum err (*commit)(struct store_connection *connection);
    /* Also after a failed commit; nothing open: nothing happens. */
    void (*rollback)(struct store_connection *connection);
    /* One at a time, per name: whoever nests uses another. */
    enum err (*savepoint)(struct store_connection *connection, const char *name);
    enum err (*savepoint_release)(struct store_connection *connection, const char *name);
    enum err (*savepoint_rollback)(struct store_connection *connection, const char *name);
    /* Everything committed so far becomes durable and moves to its final place. *ret_complete
     * false: a reader or another process was in the way. */
    enum err (*checkpoint)(struct store_connection *connection, bool *ret_complete);
    /* Does most of a checkpoint on a connection of the role CHECKPOINTER, beside the writer, and
     * calls `pause` between its steps; the writer's checkpoint, which completes it, follows.
     * ERR_BUSY: a reader of an old state was in the way. NULL: the engine has no use for it, and
     * no such connection is opened. */
    enum err (*checkpoint_beside)(struct store_connection *connection, void (*pause)(void *owner),
                                  void *owner);
    /* To the writer's connection: checkpoint_beside failed, so a sync may have. */
    void (*doubt)(struct store_connection *connection);
    /* Whether a power cut can take back nothing that was committed. */
    bool (*is_durable)(const struct store_connection *connection);
    /* Bytes that a checkpoint would move. */
    uint64_t (*checkpoint_bytes)(const struct store_connection *connection);
    /* Before a job, and with 0 after it: statements are cut off at this time of the monotonic clock
     * (0: never). After the job every statement is reset. */
    void (*job_begin)(struct store_connection *connection, uint64_t deadline_ns);
    void (*job_end)(struct store_connection *connection);
    /* When no job waits: looks after the connection, opens or closes it. *ret_ms: when it wants to
     * be asked again, -1 never. The error is what a transaction would get now. */
    enum err (*rest)(struct store_connection *connection, int *ret_ms);

    /* The text ends with a NUL and outlives the statement, whose first member, the struct above, is
     * for the caller to fill. */
    enum err (*statement_create)(struct store_connection *connection, struct slice sql,
                                 struct store_statement **ret);
    void (*statement_destroy)(struct store_statement *statement);
    void (*bind_i64)(struct store_statement *statement, int parameter, int64_t value);
    void (*bind_double)(struct store_statement *statement, int parameter, double value);
    void (*bind_text)(struct store_statement *statement, int parameter, struct slice text);
    void (*bind_blob)(struct store_statement *statement, int parameter, struct slice bytes);
    enum err (*step)(struct store_statement *statement, bool *ret_row);
    void (*reset)(struct store_statement *statement);
    int64_t (*column_i64)(struct store_statement *statement, int column);
    double (*column_double)(struct store_statement *statement, int column);
    struct slice (*column_bytes)(struct store_statement *statement, int column);
    bool (*column_is_null)(struct store_statement *statement, int column);
    uint64_t (*changes)(struct store_connection *connection);
    const char *(*error_text)(struct store_connection *connection);

    enum err (*insert_events)(struct store_connection *connection, const struct store_part *part,
                              bool careful);
    /* *ret_is false: the org has no event of this id. */
    enum err (*find_event)(struct store_connection *connection, uint64_t org, const uint8_t id[16],
                           bool *ret_is, uint64_t *ret_sequence);
    /* Before readings of this time are written: a place for them. *ret_from_ms, *ret_to_ms: the
     * times that it is for, as long as the transaction lasts. NULL: there is one for all times. */
    enum err (*reading_room)(struct store_connection *connection, int64_t time_ms,
                             int64_t *ret_from_ms, int64_t *ret_to_ms);
    /* Makes the places for readings of the months to come and takes away those that nobody keeps.
     * NULL: see reading_room. */
    enum err (*keep_months)(struct store_connection *connection, int64_t now_ms);
    /* Ids and subjects of events stand in tables of their own. */
    bool has_subjects;
    /* Writes many readings with few statements, to the same end as row by row; ERR_REFUSED: one of
     * them, or of what it names. NULL: row by row is as good. */
    enum err (*write_readings)(struct store_readings *batch);
    /* Dirty minutes: org $1, series $2 and start $3 become one; up to $1 of them, of series behind
     * org $2 and series $3, are taken out and given in any order, none that a transaction of
     * somebody else has just noted. */
    const char *note_dirty;
    const char *take_dirty;
    uint32_t minutes_max; /* that are taken at once */
    /* Computes and writes the buckets around dirty minutes with few statements. NULL: row by row is
     * as good. */
    enum err (*write_rollups)(struct store_connection *connection,
                              const struct store_minute *minutes, uint32_t count);
    const struct store_loader *loader;
};

/* `now`: milliseconds of the database's clock. */
#define STORE_TAKE_LEASE(now)                                                                      \
    "INSERT INTO leases AS l (name, holder, until_ms) VALUES ($1, $2, " now " + $3)"               \
    " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms"     \
    " WHERE l.holder = excluded.holder OR l.until_ms <= " now " RETURNING 1"

/* A lane's bit is in the mask $3. */
#define STORE_FREE_LANES                                                                           \
    " journal = $1 AND (($3 >> CAST(lane AS integer)) & 1) = 1 AND (holder = 0 OR until_ms <= $5)"
#define STORE_CLAIM_LANES     "UPDATE cursors SET holder = $2, until_ms = $4 WHERE"
#define STORE_GONE_APPLIERS   " journal = $1 AND (until_ms <= $2 OR holder = $3)"
#define STORE_FORGET_APPLIERS "DELETE FROM appliers WHERE"

extern const struct store_backend store_sqlite;
extern const struct store_backend store_postgres;

/* Opens the engine of options->url with the role WRITER, waits for locks, brings the schema up to
 * date. must_exist: ERR_NOT_FOUND for a database that holds nothing of ours yet. */
MUST_CHECK enum err store_connect(struct store_connection **ret,
                                  const struct store_options *options, bool must_exist,
                                  struct err_detail *detail);

/* True when the job that runs should give way in the middle of a statement. */
bool store_must_yield(const struct store_connection *connection);
