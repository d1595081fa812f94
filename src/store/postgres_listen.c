/* What nodes tell each other, by LISTEN and NOTIFY, on a session of its own.
 *
 * The channel is named after the schema, which is what nodes share. The session must be one with
 * the server itself: a pooler that gives the session of another at each transaction tells nothing.
 *
 * With replicas that are read from: before a message is given on, the place in the log that the
 * server has reached by then is noted, so that who reads because of it waits until the replica is
 * there.
 *
 * Happy path: connect -> LISTEN -> messages as they come.
 * Failure modes: the session breaks, or the server is silent for three seconds when it is asked
 * something: ERR_AWAY; the next listen opens another session. */
#include "store/postgres.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

#define ANSWER_NS (UINT64_C(3000) * 1000000u)
#define SQL_BYTES 8192u
#define CHANNEL   "left('weir.' || current_schema(), 63)"

/* One command, with an end to its waiting. */
static enum err ask(struct postgres_connection *c, const char *sql, char *ret, size_t size)
{
    c->deadline_ns = clock_mono_ns() + ANSWER_NS;
    enum err err = store_postgres_run(c, sql, ret, size);
    c->deadline_ns = 0;
    return err == ERR_TIMEOUT ? ERR_AWAY : err;
}

static enum err postgres_listen(struct store_connection *connection, bool *ret_is_new)
{
    struct postgres_connection *c = postgres_from(connection);
    char sql[160] = "";
    *ret_is_new = false;
    if (c->session != NULL) {
        return ERR_OK;
    }
    enum err err = store_postgres_connect(c, NULL);
    if (err == ERR_OK) {
        err = ask(c, "SELECT 'LISTEN ' || quote_ident(" CHANNEL ")", sql, sizeof(sql));
    }
    if (err == ERR_OK) {
        err = ask(c, sql, NULL, 0);
    }
    if (err == ERR_OK) {
        *ret_is_new = true;
    } else {
        store_postgres_disconnect(c);
    }
    return err;
}

/* After this a reader on a replica sees what is known here. */
static enum err note_place(struct postgres_connection *c)
{
    char place[32] = "";
    if (!c->has_replica) {
        return ERR_OK;
    }
    enum err err = ask(c, "SELECT pg_current_wal_flush_lsn()", place, sizeof(place));
    if (err == ERR_OK) {
        store_postgres_raise_place(c, store_postgres_place(place));
    }
    return err;
}

/* A journal is applied as far as the last of its lanes; the row of lane 64 stands for all. One
 * without rows is applied up to its base. */
static enum err postgres_look(struct store_connection *connection, char *ret, size_t size)
{
    struct postgres_connection *c = postgres_from(connection);
    ret[0] = '\0';
    enum err err =
        ask(c,
            "SELECT coalesce((SELECT version FROM changes WHERE name = 'gate'), 0)"
            " || coalesce((SELECT string_agg(' ' || position, '') FROM ("
            "SELECT greatest(j.base, max(c.position) FILTER (WHERE c.lane >= 64),"
            " CASE WHEN count(*) FILTER (WHERE c.lane < 64) = 64"
            " THEN min(c.position) FILTER (WHERE c.lane < 64) END) AS position"
            " FROM journals j LEFT JOIN cursors c ON c.journal = j.id GROUP BY j.id) AS p), '')",
            ret, size);
    return err == ERR_OK ? note_place(c) : err;
}

static enum err postgres_tell(struct store_connection *connection, const char *message)
{
    char sql[SQL_BYTES];
    int size = snprintf(sql, sizeof(sql), "SELECT pg_notify(" CHANNEL ", '%s')", message);
    return size < 0 || (size_t)size >= sizeof(sql) ? ERR_TOO_LARGE
                                                   : ask(postgres_from(connection), sql, NULL, 0);
}

static enum err give_messages(struct postgres_connection *c,
                              void (*on_message)(void *owner, struct slice message), void *owner,
                              bool *ret_any)
{
    *ret_any = false;
    PGnotify *message = NULL;
    enum err err = ERR_OK;
    while (err == ERR_OK && (message = PQnotifies(c->session)) != NULL) {
        err = note_place(c);
        *ret_any = true;
        on_message(owner, slice_from_text(message->extra));
        PQfreemem(message);
    }
    return err;
}

static enum err wait_for_more(struct postgres_connection *c, int wake_fd, int timeout_ms)
{
    struct pollfd waits[2] = {{.fd = PQsocket(c->session), .events = POLLIN},
                              {.fd = wake_fd, .events = POLLIN}};
    int count = poll(waits, 2, timeout_ms);
    if (count > 0 && waits[0].revents != 0 &&
        (PQconsumeInput(c->session) == 0 || PQstatus(c->session) == CONNECTION_BAD)) {
        return store_postgres_fail(c, NULL);
    }
    return count < 0 && errno != EINTR ? err_from_errno(errno) : ERR_OK;
}

static enum err postgres_hear(struct store_connection *connection, int wake_fd, int timeout_ms,
                              void (*on_message)(void *owner, struct slice message), void *owner)
{
    struct postgres_connection *c = postgres_from(connection);
    bool is_any = false;
    enum err err = give_messages(c, on_message, owner, &is_any);
    if (err != ERR_OK || is_any) {
        return err;
    }
    err = wait_for_more(c, wake_fd, timeout_ms);
    return err == ERR_OK ? give_messages(c, on_message, owner, &is_any) : err;
}

const struct store_ears store_postgres_ears = {
    .listen = postgres_listen,
    .look = postgres_look,
    .tell = postgres_tell,
    .hear = postgres_hear,
};
