/* Sqlite: what the files of the SQLite backend share.
 *
 * Thread: the owner of the connection.
 * Memory: a connection owns its statements and the arrays of the batch in hand.
 * Errors: store_sqlite_err maps the engine's codes. */
#pragma once
#include "store/backend.h"
#include "store/batch.h"
#include "store/statements.h"

#include <sqlite3.h>

#define SQLITE_PAGE_BYTES       4096u
#define SQLITE_APPLICATION_ID   0x57656972 /* "Weir" */
#define SQLITE_PARAMETERS_MAX   64u
#define SQLITE_BUSY_TIMEOUT_MS  1000
#define SQLITE_PROGRESS_STEPS   1000 /* virtual machine steps between looks at the clock */
#define SQLITE_READER_CACHE_KIB 2048
#define SQLITE_JOURNAL_SIZE_MAX (64u << 20u) /* what is kept of the WAL file after a checkpoint */

struct sqlite_connection;
struct sqlite_statement {
    struct store_statement base;
    struct sqlite_connection *connection;
    sqlite3_stmt *statement;
    uint8_t parameters[SQLITE_PARAMETERS_MAX]; /* $n -> the engine's own number */
};

/* What the keys of an order are: what is asked of every row need not be read from its bytes. */
enum sqlite_rows_order { SQLITE_ROWS_BY_SEQUENCE, SQLITE_ROWS_BY_ID, SQLITE_ROWS_BY_SUBJECT };
/* The engine orders the keys of subjects by the signed number. */
#define SQLITE_SUBJECT_FLIP (1ull << 63u)

/* The batch in hand, as the virtual table weir_rows shows it. */
struct sqlite_rows {
    struct store_connection *connection;
    struct store_packed *events;
    const struct store_key *order; /* which, in which order */
    uint32_t count;
    enum sqlite_rows_order order_is;
    struct store_spill *spill;
};

/* Of the checkpointer's connection: see sqlite_checkpoint.c. */
struct sqlite_steps {
    sqlite3_io_methods methods; /* the file's own, but for one; the file points to it */
    struct sqlite_steps *self;
    const sqlite3_io_methods *real;
    uint32_t bytes; /* written and not synced */
    void (*pause)(void *owner);
    void *owner;
};

struct sqlite_connection {
    struct store_connection base;
    sqlite3 *db;
    sqlite3_stmt *begin;
    sqlite3_stmt *begin_immediate;
    sqlite3_stmt *commit;
    sqlite3_stmt *rollback;
    char *path;
    enum store_role role;
    bool is_full;        /* PRAGMA synchronous now */
    bool is_suspect;     /* a sync may have failed: see sqlite_open.c */
    uint32_t wal_pages;  /* in the WAL after the last commit */
    bool is_synced;      /* every commit so far is durable */
    uint64_t log_pushed; /* bytes of the WAL whose writing to the disk was started */
    int log_fd;          /* of the WAL, for that; -1: not opened yet */
    struct sqlite_steps steps;
    uint64_t deadline_ns;
    uint64_t slow_ns;
    char *slow_sql; /* the last statement above slow_ns in this job */
    uint64_t slow_took_ns;
    struct sqlite_rows rows;
};

static inline struct sqlite_connection *sqlite_from(struct store_connection *connection)
{
    return (struct sqlite_connection *)connection;
}

enum err store_sqlite_err(const struct sqlite_connection *c, int code);

enum err store_sqlite_statement_create(struct store_connection *connection, struct slice sql,
                                       struct store_statement **ret);
void store_sqlite_statement_destroy(struct store_statement *statement);
void store_sqlite_bind_i64(struct store_statement *statement, int parameter, int64_t value);
void store_sqlite_bind_double(struct store_statement *statement, int parameter, double value);
void store_sqlite_bind_text(struct store_statement *statement, int parameter, struct slice text);
void store_sqlite_bind_blob(struct store_statement *statement, int parameter, struct slice bytes);
enum err store_sqlite_step(struct store_statement *statement, bool *ret_row);
void store_sqlite_reset(struct store_statement *statement);
int64_t store_sqlite_column_i64(struct store_statement *statement, int column);
double store_sqlite_column_double(struct store_statement *statement, int column);
struct slice store_sqlite_column_bytes(struct store_statement *statement, int column);
bool store_sqlite_column_is_null(struct store_statement *statement, int column);
/* Watches for statements above slow_ns; log writes what was seen in this job, with its plan. */
void store_sqlite_slow_watch(struct sqlite_connection *c);
void store_sqlite_slow_log(struct sqlite_connection *c);

enum err store_sqlite_checkpoint_beside(struct store_connection *connection,
                                        void (*pause)(void *owner), void *owner);
/* The next checkpoint copies the whole WAL, whatever was copied before. On the writer's connection,
 * between transactions. ERR_BUSY: one is going on. */
enum err store_sqlite_move_all_again(struct sqlite_connection *c);
/* Pages of the WAL that checkpoints of any connection have copied to the database. */
uint32_t store_sqlite_moved_pages(const struct sqlite_connection *c);
/* After a commit of the writer. */
void store_sqlite_push_log(struct sqlite_connection *c);
/* See store_backup. */
enum err store_sqlite_backup(const char *from, const char *to,
                             void (*on_progress)(uint64_t done, uint64_t all, void *context),
                             void *context, struct err_detail *detail);

/* Registers the virtual table weir_rows. */
enum err store_sqlite_rows_register(struct sqlite_connection *c);

enum err store_sqlite_insert_events(struct store_connection *connection,
                                    const struct store_part *part, bool careful);
/* store_loader.events */
enum err store_sqlite_load_events(struct store_connection *connection, struct store_packed *events,
                                  size_t count);
enum err store_sqlite_find_event(struct store_connection *connection, uint64_t org,
                                 const uint8_t id[16], bool *ret_is, uint64_t *ret_sequence);
