/* Postgres: what the files of the PostgreSQL backend share.
 *
 * Thread: the owner of the connection.
 * Memory: a connection owns its statements, what is left of their results and the buffer of a copy.
 * Errors: store_postgres_fail maps SQLSTATE; the first error of a transaction is kept, since the
 *         engine takes nothing more until it is rolled back. */
#pragma once
#include "store/statements.h"

#include "base/buffer.h"

#include <libpq-fe.h>

#define POSTGRES_PARAMETERS_MAX   64u
#define POSTGRES_NUMBER_BYTES     32u
#define POSTGRES_VERSION_MIN      130000
#define POSTGRES_LOCK_TIMEOUT_MS  2000   /* a part of a statement, too */
#define POSTGRES_SILENCE_MS       60000u /* of a server that a write waits for */
#define POSTGRES_GRACE_MS         1000u  /* after which a read does not wait for the server */
#define POSTGRES_BACKOFF_FIRST_MS 50u
#define POSTGRES_BACKOFF_MAX_MS   2000u
#define POSTGRES_DOUBT_MS         10000u /* how long the outcome of a commit is asked for */
#define POSTGRES_XID_BYTES        24u
#define POSTGRES_LIFE_BYTES       40u
#define POSTGRES_LAG_MS           200u  /* that a read waits for a replica */
#define POSTGRES_AVOID_MS         5000u /* how long a replica is left alone that lags or is away */
#define POSTGRES_REPLICA_MS       1000u /* within which a replica must take a session */

/* Type numbers of the engine's catalogue; they never change. */
enum postgres_type {
    POSTGRES_UNKNOWN = 0,
    POSTGRES_BOOL = 16,
    POSTGRES_BYTEA = 17,
    POSTGRES_INT8 = 20,
    POSTGRES_INT2 = 21,
    POSTGRES_INT4 = 23,
    POSTGRES_TEXT = 25,
    POSTGRES_FLOAT4 = 700,
    POSTGRES_FLOAT8 = 701,
    POSTGRES_NUMERIC = 1700,
};

struct postgres_connection;

struct postgres_value {
    enum postgres_type type; /* POSTGRES_UNKNOWN: NULL */
    struct slice bytes;      /* of a text or a blob */
    char number[POSTGRES_NUMBER_BYTES];
};

struct postgres_statement {
    struct store_statement base;
    struct postgres_connection *connection;
    uint64_t epoch; /* of the session that knows it; 0: none */
    uint32_t number;
    uint32_t parameter_count;
    uint64_t parameters; /* bit n: $n stands in the text */
    struct postgres_value *values;
    bool is_at_end;     /* nothing more is to be fetched */
    uint32_t cursor;    /* its number */
    uint32_t row_bytes; /* of those fetched last; 0: unknown */
    uint64_t began_ns;
    PGresult *rows; /* at hand */
    int row;
};

struct postgres_connection {
    struct store_connection base;
    struct store_options options; /* without the URLs */
    enum store_role role;
    PGconn *session;    /* NULL: not connected */
    uint64_t epoch;     /* counts sessions */
    char *urls[2];      /* the primary's; the replica's, NULL: there is none */
    bool is_on_replica; /* the session */
    bool has_replica;   /* somebody's readers have one */
    uint64_t replayed;  /* the replica's place in the log, when it was last asked */
    uint64_t avoid_ns;  /* until then the replica is not used */
    uint64_t opened_ns;
    uint64_t used_ns;  /* when the last job ended */
    uint64_t retry_ns; /* not tried before */
    uint32_t backoff_ms;
    enum err away; /* why the last try failed */
    bool is_in_transaction;
    enum err failed;                      /* first error of the transaction */
    bool was_rolled_back;                 /* by what was run last */
    char xid[POSTGRES_XID_BYTES];         /* of the transaction */
    char life[POSTGRES_LIFE_BYTES];       /* of the session's server: another after each crash */
    char began_life[POSTGRES_LIFE_BYTES]; /* when the transaction began */
    uint64_t deadline_ns;                 /* of the job */
    uint64_t changes;                     /* of the last statement */
    uint32_t statements;                  /* counts, for their names */
    bool is_staged;                       /* rows stand in the staging table */
    bool has_readings;                    /* the same of those for readings */
    uint64_t readings_epoch;              /* of the session that has made those; 0: none */
    bool has_rollups;                     /* the same of that for roll-ups */
    uint64_t rollups_epoch;
    struct buffer copy;
    char error[256];
};

static inline struct postgres_connection *postgres_from(struct store_connection *connection)
{
    return (struct postgres_connection *)connection;
}

/* --- session ---------------------------------------------------------------------------------- */
/* Connects when there is no session. Within the backoff after a failure: that failure's error. */
enum err store_postgres_connect(struct postgres_connection *c, struct err_detail *detail);
void store_postgres_disconnect(struct postgres_connection *c);
/* A reader's session on a replica: waits until that holds what was committed last, else takes a
 * session on the primary. */
enum err store_postgres_catch_up(struct postgres_connection *c);
/* "16/B374D848" */
uint64_t store_postgres_place(const char *text);
enum err store_postgres_rest(struct store_connection *connection, int *ret_ms);
/* Where the URL leads, without user and password. */
void store_postgres_target(const char *url, char *to, size_t size);

/* --- exchange --------------------------------------------------------------------------------- */
/* Until the next result can be taken without waiting. */
enum err store_postgres_await(struct postgres_connection *c);
/* Until more can be sent. */
enum err store_postgres_await_room(struct postgres_connection *c);
/* Commands without parameters; the last column of the last row as text (cut) when ret is not NULL.
 * Everything that comes back is taken. */
enum err store_postgres_run(struct postgres_connection *c, const char *sql, char *ret, size_t size);
/* Takes and drops what is left of the exchange; the first error of it. */
enum err store_postgres_drain(struct postgres_connection *c);
/* The same of a pipeline, which is left. */
enum err store_postgres_drain_pipeline(struct postgres_connection *c);
/* The error of a result, or of the session when it is NULL. */
enum err store_postgres_fail(struct postgres_connection *c, const PGresult *result);

/* --- statements ------------------------------------------------------------------------------- */
enum err store_postgres_statement_create(struct store_connection *connection, struct slice sql,
                                         struct store_statement **ret);
void store_postgres_statement_destroy(struct store_statement *statement);
void store_postgres_bind_i64(struct store_statement *statement, int parameter, int64_t value);
void store_postgres_bind_double(struct store_statement *statement, int parameter, double value);
void store_postgres_bind_text(struct store_statement *statement, int parameter, struct slice text);
void store_postgres_bind_blob(struct store_statement *statement, int parameter, struct slice bytes);
enum err store_postgres_step(struct store_statement *statement, bool *ret_row);
void store_postgres_reset(struct store_statement *statement);
int64_t store_postgres_column_i64(struct store_statement *statement, int column);
double store_postgres_column_double(struct store_statement *statement, int column);
struct slice store_postgres_column_bytes(struct store_statement *statement, int column);
bool store_postgres_column_is_null(struct store_statement *statement, int column);
/* Arrays for the engine of what is bound. */
struct postgres_arguments {
    const char *values[POSTGRES_PARAMETERS_MAX];
    Oid types[POSTGRES_PARAMETERS_MAX];
    int sizes[POSTGRES_PARAMETERS_MAX];
    int formats[POSTGRES_PARAMETERS_MAX];
};
void store_postgres_arguments(const struct postgres_statement *s, struct postgres_arguments *ret);
/* Logs a read that took longer than SLOW_QUERY_MS, with its plan. */
void store_postgres_slow(struct postgres_statement *s);

/* --- other nodes ------------------------------------------------------------------------------ */
extern const struct store_ears store_postgres_ears;
/* How far the server's log is: replicas that are read from must have come there. */
void store_postgres_raise_place(struct postgres_connection *c, uint64_t place);

/* --- events ----------------------------------------------------------------------------------- */
enum err store_postgres_insert_events(struct store_connection *connection,
                                      const struct store_part *part, bool careful);
/* store_loader.events */
enum err store_postgres_load_events(struct store_connection *connection,
                                    struct store_packed *events, size_t count);
enum err store_postgres_find_event(struct store_connection *connection, uint64_t org,
                                   const uint8_t id[16], bool *ret_is, uint64_t *ret_sequence);
