/* Slow queries of the SQLite backend: a statement of a reader that takes longer than SLOW_QUERY_MS
 * is logged after its job, with the plan that the engine chose. The text is the program's own, with
 * its parameters as $n, so no value of anybody gets into the log.
 *
 * Failure modes: a plan that cannot be had (the database is away) leaves the line without it. */
#include "store/sqlite.h"

#include "base/buffer.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"

#define PLAN_BYTES_MAX 1024u

static int slow_profile(unsigned kind, void *context, void *statement, void *took)
{
    (void)kind;
    struct sqlite_connection *c = context;
    sqlite3_int64 took_ns = *(sqlite3_int64 *)took;
    if ((uint64_t)took_ns >= c->slow_ns && c->slow_sql == NULL) {
        const char *sql = sqlite3_sql((sqlite3_stmt *)statement);
        if (sql != NULL) {
            c->slow_sql = mem_copy_text(sql);
            c->slow_took_ns = (uint64_t)took_ns;
        }
    }
    return 0;
}

void store_sqlite_slow_watch(struct sqlite_connection *c)
{
    if (c->slow_ns != 0) {
        (void)sqlite3_trace_v2(c->db, SQLITE_TRACE_PROFILE, slow_profile, c);
    }
}

static void slow_plan(struct sqlite_connection *c, struct buffer *plan)
{
    sqlite3_stmt *statement = NULL;
    char *sql = sqlite3_mprintf("EXPLAIN QUERY PLAN %s", c->slow_sql);
    if (sql != NULL && sqlite3_prepare_v2(c->db, sql, -1, &statement, NULL) == SQLITE_OK) {
        while (sqlite3_step(statement) == SQLITE_ROW) {
            const char *line = (const char *)sqlite3_column_text(statement, 3);
            if (buffer_printf(plan, "%s%s", plan->size == 0 ? "" : "; ",
                              line == NULL ? "" : line) != ERR_OK) {
                break;
            }
        }
    }
    (void)sqlite3_finalize(statement); /* the plan is a help, not a result */
    sqlite3_free(sql);
}

void store_sqlite_slow_log(struct sqlite_connection *c)
{
    if (c->slow_sql == NULL) {
        return;
    }
    struct buffer plan;
    buffer_init(&plan, PLAN_BYTES_MAX);
    slow_plan(c, &plan);
    metrics_add(METRIC_SLOW_QUERIES, 1);
    log_write(LOG_WARN, "store", "slow query, %llu ms: %.600s | plan: %.*s",
              (unsigned long long)(c->slow_took_ns / 1000000u), c->slow_sql, (int)plan.size,
              plan.size == 0 ? "" : (const char *)plan.data);
    buffer_finish(&plan);
    mem_free(c->slow_sql);
    c->slow_sql = NULL;
}
