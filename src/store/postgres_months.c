/* Readings lie in parts by month (UTC), so that a month is dropped whole. Which part holds which
 * times is told by the table reading_months; the engine's own catalogue says it only as text.
 *
 * There is no part for whatever fits nowhere: attaching a month to a table that has one locks all
 * who read it. A reading is never refused all the same: its month is made before its row.
 *
 * Happy path: the month is there, since it was made ahead: one look.
 * Failure modes: two sessions make one month: the second waits and finds it. A deadlock of theirs,
 * or a lock that is not to be had: ERR_BUSY, and the job is tried again. */
#include "store/postgres_readings.h"

#include <inttypes.h>
#include <stdio.h>

#define MONTH_NAME_BYTES 48u
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
