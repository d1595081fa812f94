/* Sessions of the PostgreSQL backend: when one is opened, what is set in it, when it is closed.
 *
 * A reader's connection opens its session when its first job begins (or, for the first
 * DATABASE_MIN_CONNECTIONS of them, when its thread does), and closes it when it was idle for
 * DATABASE_IDLE_TIMEOUT or has lived for DATABASE_MAX_LIFETIME. Jobs go to the free reader of the
 * lowest number, so that as many sessions are open as there is work for. The writer keeps its one.
 *
 * Happy path: connect within DATABASE_ACQUIRE_TIMEOUT -> encoding, version, role checked -> the
 * session's settings -> jobs.
 * With a replica (DATABASE_READ_URL) readers hold sessions there. Each commit tells its place in
 * the server's log; a read that begins waits until the replica has it, a moment at most, and then
 * takes the primary: so who was told that something is stored finds it, and a live tail misses
 * nothing. A replica that is away, or cannot be used, is tried again by one reader at a time; when
 * it serves, all go back to it, each before its next job.
 *
 * Failure modes: a server that is away is tried again after a pause that doubles up to two seconds;
 * whoever asks in between is told so at once. A server that may only be read, another encoding, a
 * version that is too old: one sentence for the operator, who finds it in the log too.
 * The password stands in the URL only; no text of ours repeats the URL. */
#include "store/postgres.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#define MS           UINT64_C(1000000)
#define ALIVE_MS     1000 /* how soon an idle writer notices that the server is gone */
#define LAG_PAUSE_MS 2    /* between looks at a replica */

/* What the URL says comes after these and wins. */
static const char *const names[] = {
    "application_name", "connect_timeout",  "gssencmode", "keepalives_idle", "keepalives_interval",
    "keepalives_count", "tcp_user_timeout", "dbname",     "client_encoding", NULL};

static const char staging[] =
    "CREATE TEMPORARY TABLE IF NOT EXISTS weir_rows (org bigint, sequence bigint, position bigint,"
    " occurred_ms bigint, created_ms bigint, subject_key bigint, id uuid, type text, subject text,"
    " source text, app text, dedup_id text, payload text, attributes text, org_number bigint)"
    " ON COMMIT DELETE ROWS;"
    /* No row is compressed on its way; the table itself does so. */
    "ALTER TABLE weir_rows ALTER payload SET STORAGE EXTERNAL,"
    " ALTER attributes SET STORAGE EXTERNAL";

void store_postgres_target(const char *url, char *to, size_t size)
{
    const char *host = "";
    const char *port = "";
    const char *name = "";
    PQconninfoOption *parts = PQconninfoParse(url, NULL);
    for (PQconninfoOption *part = parts; part != NULL && part->keyword != NULL; part++) {
        if (part->val == NULL) {
            continue;
        }
        if (strcmp(part->keyword, "host") == 0) {
            host = part->val;
        } else if (strcmp(part->keyword, "port") == 0) {
            port = part->val;
        } else if (strcmp(part->keyword, "dbname") == 0) {
            name = part->val;
        }
    }
    (void)snprintf(to, size, "PostgreSQL %s%s%s/%s", host, port[0] != '\0' ? ":" : "", port, name);
    PQconninfoFree(parts);
}

void store_postgres_disconnect(struct postgres_connection *c)
{
    PQfinish(c->session);
    c->session = NULL;
    c->is_staged = false;
    store_statements_reset(&c->base);
}

/* The library's sentence tells the host, the user and the reason, never the password. */
static enum err refuse(struct postgres_connection *c, enum err err, struct err_detail *detail,
                       const char *text)
{
    char target[256];
    store_postgres_target(c->urls[c->is_on_replica ? 1 : 0], target, sizeof(target));
    (void)snprintf(c->error, sizeof(c->error), "%s", text);
    size_t size = strcspn(c->error, "\n");
    c->error[size] = '\0';
    err_detail_set(detail, "%s: %s", target, c->error);
    return err;
}

/* Only the sentence tells which; the library gives no code for a session that did not begin. */
static enum err classify(const char *text)
{
    static const struct {
        const char *part;
        enum err err;
    } rows[] = {
        {"authentication failed", ERR_PERMISSION}, {"no password supplied", ERR_PERMISSION},
        {"no pg_hba.conf entry", ERR_PERMISSION},  {"role \"", ERR_PERMISSION},
        {"permission denied for", ERR_PERMISSION}, {"database \"", ERR_NOT_FOUND},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strstr(text, rows[i].part) != NULL && strstr(text, "starting up") == NULL) {
            return rows[i].err;
        }
    }
    return ERR_AWAY;
}

static enum err await_open(struct postgres_connection *c)
{
    uint32_t timeout_ms = c->options.acquire_timeout_ms;
    if (c->is_on_replica && timeout_ms > POSTGRES_REPLICA_MS) {
        timeout_ms = POSTGRES_REPLICA_MS; /* the primary can be asked */
    }
    uint64_t end_ns = clock_mono_ns() + timeout_ms * MS;
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    while (state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED) {
        struct pollfd socket = {.fd = PQsocket(c->session),
                                .events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT};
        uint64_t now_ns = clock_mono_ns();
        int count = now_ns >= end_ns ? 0 : poll(&socket, 1, (int)((end_ns - now_ns) / MS) + 1);
        if (count == 0) {
            return ERR_TIMEOUT;
        }
        if (count < 0 && errno != EINTR) {
            return ERR_AWAY;
        }
        if (count > 0) {
            state = PQconnectPoll(c->session);
        }
    }
    return state == PGRES_POLLING_OK ? ERR_OK : ERR_AWAY;
}

static enum err open_session(struct postgres_connection *c, bool is_on_replica,
                             struct err_detail *detail)
{
    c->is_on_replica = is_on_replica;
    c->replayed = 0;
    char seconds[16];
    (void)snprintf(seconds, sizeof(seconds), "%u", c->options.acquire_timeout_ms / 1000u + 1);
    const char *name = c->role == STORE_ROLE_LISTENER ? "weir listen" : "weir";
    const char *const values[] = {name,   seconds, "disable", "5",
                                  "2",    "3",     "15000",   c->urls[is_on_replica ? 1 : 0],
                                  "UTF8", NULL};
    c->session = PQconnectStartParams(names, values, 1);
    if (c->session == NULL) {
        return ERR_NO_MEMORY;
    }
    if (PQstatus(c->session) == CONNECTION_BAD) {
        return refuse(c, classify(PQerrorMessage(c->session)), detail, PQerrorMessage(c->session));
    }
    enum err err = await_open(c);
    if (err == ERR_TIMEOUT) {
        return refuse(c, ERR_AWAY, detail, "no answer within DATABASE_ACQUIRE_TIMEOUT");
    }
    if (err != ERR_OK) {
        const char *text = PQerrorMessage(c->session);
        return refuse(c, classify(text), detail, text);
    }
    c->epoch++;
    c->opened_ns = clock_mono_ns();
    c->used_ns = c->opened_ns;
    return PQsetnonblocking(c->session, 1) == 0 ? ERR_OK : ERR_AWAY;
}

static void on_notice(void *context, const PGresult *result)
{
    (void)context; /* nothing that we ask for is noteworthy */
    (void)result;
}

static enum err check_server(struct postgres_connection *c, struct err_detail *detail)
{
    char recovering[8] = "";
    char text[160];
    if (PQserverVersion(c->session) < POSTGRES_VERSION_MIN) {
        return refuse(c, ERR_VERSION, detail, "the server is too old: PostgreSQL 13 or newer");
    }
    const char *encoding = PQparameterStatus(c->session, "server_encoding");
    if (encoding == NULL || strcmp(encoding, "UTF8") != 0) {
        (void)snprintf(text, sizeof(text),
                       "the database has encoding %s: make one with ENCODING 'UTF8'",
                       encoding == NULL ? "unknown" : encoding);
        return refuse(c, ERR_CONFIG, detail, text);
    }
    if (c->role != STORE_ROLE_WRITER) {
        return ERR_OK;
    }
    enum err err = store_postgres_run(c, "SELECT current_setting('transaction_read_only')",
                                      recovering, sizeof(recovering));
    if (err == ERR_OK && strcmp(recovering, "off") != 0) {
        return refuse(c, ERR_PERMISSION, detail,
                      "the database is read-only: name the primary server in DATABASE_URL");
    }
    return err;
}

/* Stronger settings than "on" are the operator's; a weaker one would lose what was answered. */
static const char durable[] =
    "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')"
    " WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)";

/* Recovery after a crash begins the statistics anew; so does somebody by hand, which is taken for a
 * crash. */
static const char life[] = "SELECT coalesce(stats_reset::text, '') FROM pg_stat_bgwriter";

/* A node that stands still (its machine, or SIGSTOP) would hold its locks against all others. */
#define POSTGRES_STILL_MS 5000u

static enum err set_up(struct postgres_connection *c)
{
    char sql[256];
    if (c->role == STORE_ROLE_WRITER) {
        (void)snprintf(sql, sizeof(sql),
                       "SET statement_timeout = 0; SET lock_timeout = %d;"
                       " SET idle_in_transaction_session_timeout = %u",
                       POSTGRES_LOCK_TIMEOUT_MS, POSTGRES_STILL_MS);
        enum err err = store_postgres_run(c, sql, NULL, 0);
        if (err == ERR_OK) {
            err = store_postgres_run(c, durable, NULL, 0);
        }
        if (err == ERR_OK) {
            err = store_postgres_run(c, life, c->life, sizeof(c->life));
        }
        return err != ERR_OK ? err : store_postgres_run(c, staging, NULL, 0);
    }
    (void)snprintf(sql, sizeof(sql),
                   "SET default_transaction_read_only = on; SET statement_timeout = %u;"
                   " SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 60000",
                   c->options.query_timeout_ms);
    return store_postgres_run(c, sql, NULL, 0);
}

static void step_back(struct postgres_connection *c, enum err err)
{
    c->away = err;
    c->backoff_ms = c->backoff_ms == 0 ? POSTGRES_BACKOFF_FIRST_MS : c->backoff_ms * 2;
    if (c->backoff_ms > POSTGRES_BACKOFF_MAX_MS) {
        c->backoff_ms = POSTGRES_BACKOFF_MAX_MS;
    }
    /* Spread, so that a hundred connections do not come back at the same instant. */
    uint32_t random = 0;
    hash_random(&random, sizeof(random));
    c->retry_ns = clock_mono_ns() + (c->backoff_ms / 2 + random % (c->backoff_ms / 2 + 1)) * MS;
}

/* A session that may be used. */
static enum err open_checked(struct postgres_connection *c, bool is_on_replica,
                             struct err_detail *detail)
{
    enum err err = open_session(c, is_on_replica, detail);
    if (err == ERR_OK) {
        (void)PQsetNoticeReceiver(c->session, on_notice, NULL);
        err = check_server(c, detail);
    }
    if (err == ERR_OK) {
        err = set_up(c);
        if (err != ERR_OK) {
            err = refuse(c, err, detail, c->error);
        }
    }
    if (err != ERR_OK) {
        store_postgres_disconnect(c);
    }
    return err;
}

static bool may_use_replica(struct postgres_connection *c)
{
    uint64_t now_ns = clock_mono_ns();
    if (c->urls[1] == NULL || now_ns < c->avoid_ns) {
        return false;
    }
    atomic_uint_least64_t *retry_ns = &c->options.log->retry_ns;
    uint64_t at_ns = atomic_load_explicit(retry_ns, memory_order_relaxed);
    return at_ns == 0 || (now_ns >= at_ns && atomic_compare_exchange_strong_explicit(
                                                 retry_ns, &at_ns, now_ns + POSTGRES_AVOID_MS * MS,
                                                 memory_order_relaxed, memory_order_relaxed));
}

/* Told once, when it changes. */
static void know_replica(struct postgres_connection *c, enum err err)
{
    char target[256];
    uint64_t at_ns = err == ERR_OK ? 0 : clock_mono_ns() + POSTGRES_AVOID_MS * MS;
    uint64_t before =
        atomic_exchange_explicit(&c->options.log->retry_ns, at_ns, memory_order_relaxed);
    store_postgres_target(c->urls[1], target, sizeof(target));
    if (err != ERR_OK && before == 0) {
        log_write(LOG_WARN, "store", "replica %s: %s: the primary is read from", target, c->error);
    } else if (err == ERR_OK && before != 0) {
        log_write(LOG_INFO, "store", "replica %s: it is read from again", target);
    }
}

enum err store_postgres_connect(struct postgres_connection *c, struct err_detail *detail)
{
    if (c->session != NULL) {
        return ERR_OK;
    }
    if (c->retry_ns != 0 && clock_mono_ns() < c->retry_ns) {
        return c->away;
    }
    c->is_in_transaction = false;
    c->failed = ERR_OK;
    bool is_on_replica = may_use_replica(c);
    enum err err = open_checked(c, is_on_replica, detail);
    if (is_on_replica) {
        know_replica(c, err);
    }
    if (err != ERR_OK && is_on_replica) {
        err = open_checked(c, false, detail);
    }
    if (err != ERR_OK) {
        step_back(c, err);
        return err;
    }
    c->backoff_ms = 0;
    c->retry_ns = 0;
    return ERR_OK;
}

uint64_t store_postgres_place(const char *text)
{
    char *end = NULL;
    uint64_t high = strtoull(text, &end, 16);
    return *end == '/' ? high << 32u | strtoull(end + 1, NULL, 16) : 0;
}

enum err store_postgres_catch_up(struct postgres_connection *c)
{
    uint64_t wanted = atomic_load_explicit(&c->options.log->place, memory_order_acquire);
    uint64_t until_ns = clock_mono_ns() + POSTGRES_LAG_MS * MS;
    enum err err = store_postgres_connect(c, NULL);
    while (err == ERR_OK && c->is_on_replica && c->replayed < wanted) {
        char text[32] = "";
        enum err asked =
            store_postgres_run(c, "SELECT pg_last_wal_replay_lsn()", text, sizeof(text));
        if (asked == ERR_OK) {
            /* A server that replays nothing is a primary, and always up to date. */
            c->replayed = text[0] == '\0' ? UINT64_MAX : store_postgres_place(text);
        }
        if (c->replayed < wanted && (asked != ERR_OK || clock_mono_ns() >= until_ns)) {
            store_postgres_disconnect(c);
            c->avoid_ns = clock_mono_ns() + POSTGRES_AVOID_MS * MS;
            err = store_postgres_connect(c, NULL);
        } else if (c->replayed < wanted) {
            (void)poll(NULL, 0, LAG_PAUSE_MS);
        }
    }
    return err;
}

/* A server that has gone sends the end of the stream. */
static bool is_alive(struct postgres_connection *c)
{
    struct pollfd socket = {.fd = PQsocket(c->session), .events = POLLIN};
    if (poll(&socket, 1, 0) > 0) {
        return PQconsumeInput(c->session) != 0 && PQstatus(c->session) != CONNECTION_BAD;
    }
    return true;
}

static bool is_kept(const struct postgres_connection *c)
{
    return c->role == STORE_ROLE_WRITER || c->options.connection < c->options.min_connections;
}

/* When a session on the primary is closed, so that the replica is tried. While that is away, only
 * the first reader's is, which is the one that is used most; the others look from time to time. */
static uint64_t back_at(const struct postgres_connection *c)
{
    uint64_t retry_ns = atomic_load_explicit(&c->options.log->retry_ns, memory_order_relaxed);
    if (retry_ns != 0 && c->options.connection != 0) {
        return clock_mono_ns() + POSTGRES_AVOID_MS * MS;
    }
    return retry_ns > c->avoid_ns ? retry_ns : c->avoid_ns;
}

/* When an open session is to be closed. */
static uint64_t end_of(const struct postgres_connection *c)
{
    uint64_t end_ns = UINT64_MAX;
    if (c->options.max_lifetime_ms != 0) {
        /* Each a little earlier than the next, so that they do not all end at once. */
        uint64_t share = 100 - c->options.connection % 10;
        end_ns = c->opened_ns + c->options.max_lifetime_ms * MS / 100 * share;
    }
    if (!is_kept(c) && c->options.idle_timeout_ms != 0) {
        uint64_t idle_ns = c->used_ns + c->options.idle_timeout_ms * MS;
        end_ns = idle_ns < end_ns ? idle_ns : end_ns;
    }
    uint64_t back_ns = c->urls[1] != NULL && !c->is_on_replica ? back_at(c) : UINT64_MAX;
    return back_ns < end_ns ? back_ns : end_ns;
}

static int ms_until(uint64_t end_ns, uint64_t now_ns)
{
    if (end_ns == UINT64_MAX) {
        return -1;
    }
    uint64_t ms = end_ns <= now_ns ? 0 : (end_ns - now_ns) / MS + 1;
    return ms > 3600000 ? 3600000 : (int)ms;
}

enum err store_postgres_rest(struct store_connection *connection, int *ret_ms)
{
    struct postgres_connection *c = postgres_from(connection);
    uint64_t now_ns = clock_mono_ns();
    enum err err = ERR_OK;
    if (c->session != NULL && (end_of(c) <= now_ns || !is_alive(c))) {
        store_postgres_disconnect(c);
    }
    if (c->session == NULL && is_kept(c)) {
        err = store_postgres_connect(c, NULL);
    }
    if (c->session == NULL) {
        *ret_ms = err == ERR_OK ? -1 : ms_until(c->retry_ns, now_ns);
        return err;
    }
    *ret_ms = ms_until(end_of(c), now_ns);
    if (c->role == STORE_ROLE_WRITER && (*ret_ms < 0 || *ret_ms > ALIVE_MS)) {
        *ret_ms = ALIVE_MS;
    }
    return ERR_OK;
}
