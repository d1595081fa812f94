/* Readings lie in parts by month (UTC), so that a month is dropped whole. Which part holds which
 * times is told by the table reading_months; the engine's own catalogue says it only as text.
 *
 * There is no part for whatever fits nowhere: attaching a month to a table that has one locks all
 * who read it. A reading is never refused all the same: its month is made before its row.
 *
 * Happy path: the month is there, since it was made ahead: one look. A month before which every org
 * that has readings in it has ended is dropped.
 * Failure modes: two sessions make one month: the second waits and finds it. A deadlock of theirs,
 * or a lock that is not to be had (a month is dropped only while nobody reads): ERR_BUSY, and the
 * job is tried again. */
#include "store/postgres_readings.h"

#include <inttypes.h>
#include <stdio.h>

#define MONTH_NAME_BYTES 48u
#define MONTH_LOCK_MS    "50"
#define MONTHS_AHEAD     3
#define MONTH_LOCK       "5075435918210245994" /* any number that nobody else uses */

struct month {
    int64_t from_ms;
    int64_t to_ms;
    char name[MONTH_NAME_BYTES];
};

static enum err ask(struct store_connection *connection, const char *sql, int64_t time_ms,
                    bool *ret_has, struct month *ret)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection, sql, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, time_ms);
    err = store_step(statement, ret_has);
    if (err == ERR_OK && *ret_has) {
        struct slice name = store_column_bytes(statement, 2);
        ret->from_ms = store_column_i64(statement, 0);
        ret->to_ms = store_column_i64(statement, 1);
        (void)snprintf(ret->name, sizeof(ret->name), "%.*s", (int)name.size,
                       (const char *)name.data);
        store_reset(statement);
    }
    return err;
}

static const char find_sql[] = "SELECT start_ms, end_ms, name FROM reading_months"
                               " WHERE start_ms <= $1 AND end_ms > $1";

static enum err make_part(struct store_connection *connection, const struct month *month)
{
    char sql[512];
    (void)snprintf(sql, sizeof(sql),
                   "CREATE TABLE %s (LIKE readings INCLUDING ALL);"
                   "ALTER TABLE readings ATTACH PARTITION %s FOR VALUES FROM (%" PRId64
                   ") TO (%" PRId64 ");"
                   "INSERT INTO reading_months VALUES (%" PRId64 ", %" PRId64 ", '%s')",
                   month->name, month->name, month->from_ms, month->to_ms, month->from_ms,
                   month->to_ms, month->name);
    return store_postgres_run(postgres_from(connection), sql, NULL, 0);
}

static enum err make_month(struct store_connection *connection, int64_t time_ms, struct month *ret)
{
    bool has_one = false;
    enum err err = store_postgres_run(postgres_from(connection),
                                      "SELECT pg_advisory_xact_lock(" MONTH_LOCK ")", NULL, 0);
    if (err == ERR_OK) {
        err = ask(connection, find_sql, time_ms, &has_one, ret);
    }
    if (err != ERR_OK || has_one) {
        return err;
    }
    err = ask(connection,
              "SELECT (extract(epoch FROM m) * 1000)::bigint,"
              " (extract(epoch FROM m + interval '1 month') * 1000)::bigint,"
              " 'readings_' || to_char(m, 'YYYY_MM') FROM (SELECT"
              " date_trunc('month', to_timestamp($1 / 1000.0) AT TIME ZONE 'UTC') AS m) t",
              time_ms, &has_one, ret);
    return err != ERR_OK ? err : make_part(connection, ret);
}

enum err store_postgres_reading_room(struct store_connection *connection, int64_t time_ms,
                                     int64_t *ret_from_ms, int64_t *ret_to_ms)
{
    struct month month = {.from_ms = 0};
    bool has_one = false;
    enum err err = ask(connection, find_sql, time_ms, &has_one, &month);
    if (err == ERR_OK && !has_one) {
        err = make_month(connection, time_ms, &month);
    }
    if (err == ERR_OK) {
        *ret_from_ms = month.from_ms;
        *ret_to_ms = month.to_ms;
    }
    return err;
}

/* --- dropping --------------------------------------------------------------------------------- */

/* Whether an org that keeps anything of the month has a reading in it. */
static enum err is_kept(struct postgres_connection *c, const struct month *month, bool *ret)
{
    char sql[512];
    char text[8] = "";
    (void)snprintf(sql, sizeof(sql),
                   "SELECT EXISTS (SELECT FROM orgs o WHERE (o.readings_from_ms IS NULL OR"
                   " o.readings_from_ms < %" PRId64 ") AND EXISTS (SELECT FROM %s r"
                   " WHERE r.org = o.number))",
                   month->to_ms, month->name);
    enum err err = store_postgres_run(c, sql, text, sizeof(text));
    *ret = strcmp(text, "f") != 0;
    return err;
}

/* Who reads readings at this moment is waited for, but not for long: those who come wait with us.
 * Nothing comes into the month between the second look and its end. */
static enum err drop_month(struct postgres_connection *c, const struct month *month)
{
    char sql[512];
    char timeout[32] = "";
    bool is_there = true;
    enum err err = store_postgres_run(c,
                                      "SELECT current_setting('lock_timeout');"
                                      "SET LOCAL lock_timeout = " MONTH_LOCK_MS,
                                      timeout, sizeof(timeout));
    if (err == ERR_OK) {
        err = store_postgres_run(c, "LOCK TABLE readings IN ACCESS EXCLUSIVE MODE", NULL, 0);
    }
    if (err == ERR_OK) {
        err = is_kept(c, month, &is_there);
    }
    if (err == ERR_OK) {
        (void)snprintf(sql, sizeof(sql), "SET LOCAL lock_timeout = '%s'", timeout);
        err = store_postgres_run(c, sql, NULL, 0);
    }
    (void)snprintf(sql, sizeof(sql), "DROP TABLE %s; DELETE FROM reading_months WHERE name = '%s'",
                   month->name, month->name);
    if (err == ERR_OK && !is_there) {
        err = store_postgres_run(c, sql, NULL, 0);
    }
    return err;
}

static enum err drop_months(struct store_connection *connection)
{
    struct postgres_connection *c = postgres_from(connection);
    struct month month = {.to_ms = INT64_MIN};
    bool has_one = true;
    enum err err = ERR_OK;
    while (err == ERR_OK && has_one) {
        bool is_there = true;
        err = ask(connection,
                  "SELECT start_ms, end_ms, name FROM reading_months WHERE end_ms > $1"
                  " AND end_ms <= (SELECT max(readings_from_ms) FROM orgs)"
                  " ORDER BY end_ms LIMIT 1",
                  month.to_ms, &has_one, &month);
        if (err == ERR_OK && has_one) {
            err = is_kept(c, &month, &is_there);
        }
        if (err == ERR_OK && has_one && !is_there) {
            return drop_month(c, &month); /* one in a transaction */
        }
    }
    return err;
}

enum err store_postgres_keep_months(struct store_connection *connection, int64_t now_ms)
{
    int64_t from_ms = 0;
    int64_t to_ms = now_ms;
    enum err err = ERR_OK;
    for (int i = 0; i < MONTHS_AHEAD && err == ERR_OK; i++) {
        err = store_postgres_reading_room(connection, to_ms, &from_ms, &to_ms);
    }
    return err == ERR_OK ? drop_months(connection) : err;
}
