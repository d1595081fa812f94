/* Talking with the server: waiting for it without blocking in the library, and what its errors
 * mean.
 *
 * The session is non-blocking, so every wait is a poll of ours with an end: the job's deadline for
 * a read (the server cuts itself off first; this is for one that does not answer at all), a minute
 * of silence for a write.
 *
 * Failure modes: a server that says nothing, or a broken session: ERR_AWAY (a read above its time:
 * ERR_TIMEOUT), and the session is closed; whoever begins the next transaction opens another. The
 * text of an error is the server's own sentence without its detail, which would show values. */
#include "store/postgres.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

/* By the whole code, else by its class; the first row that fits. */
static const struct {
    const char *state;
    enum err err;
} states[] = {
    {"57014", ERR_TIMEOUT},   /* the statement's time is over */
    {"57P04", ERR_NOT_FOUND}, /* the database was dropped */
    {"57P", ERR_AWAY},         {"08", ERR_AWAY},
    {"25P03", ERR_AWAY}, /* it stood still in a transaction */
    {"23514", ERR_BUSY}, /* a month of readings was dropped at this moment; checks there are none */
    {"22", ERR_REFUSED},       {"23", ERR_REFUSED},
    {"54", ERR_REFUSED},                         /* a row that is too large for an index */
    {"P0", ERR_REFUSED},                         /* a trigger says no */
    {"44", ERR_REFUSED},                         /* a view's check option */
    {"40003", ERR_AWAY},       {"40", ERR_BUSY}, /* serialization, deadlock */
    {"55", ERR_BUSY},                            /* a lock was not to be had */
    {"26000", ERR_BUSY},                         /* somebody discarded our statements */
    {"0A000", ERR_BUSY},                         /* a plan that the schema's change made void */
    {"53100", ERR_NO_SPACE},   {"53200", ERR_NO_MEMORY},
    {"53", ERR_AWAY},          {"25006", ERR_PERMISSION}, /* read-only */
    {"42501", ERR_PERMISSION}, {"28", ERR_PERMISSION},
    {"3D", ERR_NOT_FOUND},     {"58", ERR_IO},
    {"XX001", ERR_CORRUPT},    {"XX002", ERR_CORRUPT},
};

static enum err err_from_state(const char *state)
{
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        if (slice_starts_with(slice_from_text(state), slice_from_text(states[i].state))) {
            return states[i].err;
        }
    }
    return ERR_INVALID;
}

/* One line. */
static void keep_text(struct postgres_connection *c, const char *text)
{
    (void)snprintf(c->error, sizeof(c->error), "%s", text == NULL ? "" : text);
    size_t size = strlen(c->error);
    while (size > 0 && (c->error[size - 1] == '\n' || c->error[size - 1] == ' ')) {
        c->error[--size] = '\0';
    }
    for (size_t i = 0; i < size; i++) {
        if (c->error[i] == '\n' || c->error[i] == '\t') {
            c->error[i] = ' ';
        }
    }
}

static enum err note(struct postgres_connection *c, enum err err)
{
    if (c->is_in_transaction && c->failed == ERR_OK) {
        c->failed = err;
    }
    return err;
}

static enum err lose_session(struct postgres_connection *c, enum err err)
{
    store_postgres_disconnect(c);
    return note(c, err);
}

enum err store_postgres_fail(struct postgres_connection *c, const PGresult *result)
{
    const char *state = result == NULL ? NULL : PQresultErrorField(result, PG_DIAG_SQLSTATE);
    enum err err = ERR_AWAY;
    if (state == NULL) {
        keep_text(c, PQerrorMessage(c->session));
    } else {
        keep_text(c, PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
        err = err_from_state(state);
    }
    if (err == ERR_TIMEOUT && c->role == STORE_ROLE_WRITER) {
        err = ERR_BUSY;
    }
    bool is_read_only_writer = err == ERR_PERMISSION && c->role == STORE_ROLE_WRITER &&
                               state != NULL && strcmp(state, "25006") == 0;
    if (err == ERR_AWAY || PQstatus(c->session) == CONNECTION_BAD || is_read_only_writer) {
        return lose_session(c, is_read_only_writer ? err : ERR_AWAY);
    }
    if (state != NULL && (strcmp(state, "26000") == 0 || strcmp(state, "0A000") == 0)) {
        c->epoch++; /* every statement is prepared anew */
    }
    return note(c, err);
}

/* Milliseconds that may still be waited; 0: none. */
static int patience_ms(const struct postgres_connection *c, uint64_t from_ns)
{
    uint64_t now_ns = clock_mono_ns();
    uint64_t end_ns = from_ns + POSTGRES_SILENCE_MS * UINT64_C(1000000);
    if (c->deadline_ns != 0) {
        end_ns = c->deadline_ns + POSTGRES_GRACE_MS * UINT64_C(1000000);
    }
    return end_ns <= now_ns ? 0 : (int)((end_ns - now_ns) / 1000000u) + 1;
}

static enum err wait_for(struct postgres_connection *c, short what, uint64_t from_ns)
{
    struct pollfd socket = {.fd = PQsocket(c->session), .events = what};
    int ms = patience_ms(c, from_ns);
    int count = ms == 0 ? 0 : poll(&socket, 1, ms);
    if (count < 0 && errno == EINTR) {
        return ERR_OK;
    }
    if (count == 0) {
        keep_text(c, "the server does not answer");
        return lose_session(c, c->deadline_ns != 0 ? ERR_TIMEOUT : ERR_AWAY);
    }
    return count < 0 ? lose_session(c, ERR_AWAY) : ERR_OK;
}

enum err store_postgres_await(struct postgres_connection *c)
{
    uint64_t from_ns = clock_mono_ns();
    for (;;) {
        int is_unsent = PQflush(c->session);
        if (is_unsent < 0 || (is_unsent == 0 && PQstatus(c->session) == CONNECTION_BAD)) {
            /* What the server has said before it went tells more than the broken pipe. */
            return ERR_OK;
        }
        if (is_unsent == 0 && PQisBusy(c->session) == 0) {
            return ERR_OK;
        }
        enum err err = wait_for(c, is_unsent != 0 ? POLLIN | POLLOUT : POLLIN, from_ns);
        if (err != ERR_OK) {
            return err;
        }
        if (PQconsumeInput(c->session) == 0) {
            return ERR_OK; /* the error comes as the next result */
        }
    }
}

enum err store_postgres_await_room(struct postgres_connection *c)
{
    uint64_t from_ns = clock_mono_ns();
    int is_unsent = PQflush(c->session);
    while (is_unsent > 0) {
        enum err err = wait_for(c, POLLIN | POLLOUT, from_ns);
        if (err != ERR_OK) {
            return err;
        }
        if (PQconsumeInput(c->session) == 0) {
            break;
        }
        is_unsent = PQflush(c->session);
    }
    return ERR_OK; /* a broken session tells itself at the next call */
}

static void keep_last(const PGresult *result, char *ret, size_t size)
{
    if (ret != NULL && PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) > 0) {
        (void)snprintf(ret, size, "%s",
                       PQgetvalue(result, PQntuples(result) - 1, PQnfields(result) - 1));
    }
}

static enum err take_all(struct postgres_connection *c, char *ret, size_t size)
{
    enum err first = ERR_OK;
    for (;;) {
        enum err err = store_postgres_await(c);
        if (err != ERR_OK) {
            return err;
        }
        PGresult *result = PQgetResult(c->session);
        if (result == NULL) {
            return first == ERR_OK && PQstatus(c->session) == CONNECTION_BAD
                       ? store_postgres_fail(c, NULL)
                       : first;
        }
        ExecStatusType status = PQresultStatus(result);
        bool is_error = status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE;
        if (is_error && first == ERR_OK) {
            first = store_postgres_fail(c, result);
        } else {
            keep_last(result, ret, size);
            c->was_rolled_back |= strcmp(PQcmdStatus(result), "ROLLBACK") == 0;
        }
        PQclear(result);
        if (c->session == NULL) {
            return first;
        }
        if (status == PGRES_COPY_IN) {
            return first;
        }
    }
}

enum err store_postgres_drain(struct postgres_connection *c)
{
    return c->session == NULL ? ERR_AWAY : take_all(c, NULL, 0);
}

enum err store_postgres_drain_pipeline(struct postgres_connection *c)
{
    enum err first = ERR_OK;
    ExecStatusType status = PGRES_EMPTY_QUERY;
    while (status != PGRES_PIPELINE_SYNC) {
        enum err err = store_postgres_await(c);
        if (err != ERR_OK) {
            return err;
        }
        PGresult *result = PQgetResult(c->session);
        status = result == NULL ? PGRES_EMPTY_QUERY : PQresultStatus(result);
        if (status == PGRES_FATAL_ERROR && first == ERR_OK) {
            first = store_postgres_fail(c, result);
        }
        PQclear(result);
        if (c->session == NULL) {
            return first;
        }
        if (PQstatus(c->session) == CONNECTION_BAD) {
            return store_postgres_fail(c, NULL);
        }
    }
    return PQexitPipelineMode(c->session) != 0 ? first : store_postgres_fail(c, NULL);
}

enum err store_postgres_run(struct postgres_connection *c, const char *sql, char *ret, size_t size)
{
    if (c->session == NULL) {
        return ERR_AWAY;
    }
    c->was_rolled_back = false;
    if (PQsendQuery(c->session, sql) == 0) {
        return store_postgres_fail(c, NULL);
    }
    return take_all(c, ret, size);
}
