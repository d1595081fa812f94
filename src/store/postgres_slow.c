/* Slow queries of the PostgreSQL backend: a read that took longer than SLOW_QUERY_MS is logged when
 * it ends, with the plan that the engine would choose again. Of the plan only the nodes are told:
 * its conditions show values.
 *
 * Failure modes: in a transaction that has failed there is no plan to be had: the line goes without
 * it. */
#include "store/postgres.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

#include <stdio.h>

#define PLAN_BYTES_MAX 1024u

/* "  ->  Index Scan using … on …  (cost=…)" without the costs. */
static enum err append_node(struct buffer *plan, const char *line)
{
    bool is_first = plan->size == 0;
    const char *arrow = strstr(line, "->  ");
    if (!is_first && arrow == NULL) {
        return ERR_OK;
    }
    const char *from = arrow == NULL ? line : arrow + 4;
    return buffer_printf(plan, "%s%.*s", is_first ? "" : "; ", (int)strcspn(from, "("), from);
}

static void take_plan(const struct postgres_statement *s, struct buffer *plan)
{
    struct postgres_connection *c = s->connection;
    struct postgres_arguments arguments;
    struct buffer sql;
    if (c->session == NULL || c->failed != ERR_OK) {
        return;
    }
    buffer_init(&sql, STORE_STATEMENT_TEXT_MAX + 16);
    store_postgres_arguments(s, &arguments);
    enum err err = buffer_printf(&sql, "EXPLAIN %s", s->base.text);
    if (err == ERR_OK) {
        err = buffer_append_byte(&sql, '\0');
    }
    if (err == ERR_OK &&
        PQsendQueryParams(c->session, (const char *)sql.data, (int)s->parameter_count,
                          arguments.types, arguments.values, arguments.sizes, arguments.formats,
                          0) != 0) {
        err = store_postgres_await(c);
        PGresult *result = err == ERR_OK ? PQgetResult(c->session) : NULL;
        for (int i = 0; i < PQntuples(result) && err == ERR_OK; i++) {
            err = append_node(plan, PQgetvalue(result, i, 0));
        }
        PQclear(result);
        (void)store_postgres_drain(c); /* the plan is a help, not a result */
    }
    buffer_finish(&sql);
}

void store_postgres_slow(struct postgres_statement *s)
{
    struct postgres_connection *c = s->connection;
    uint64_t took_ms = (clock_mono_ns() - s->began_ns) / 1000000u;
    if (c->role != STORE_ROLE_READER || c->options.slow_query_ms == 0 ||
        took_ms < c->options.slow_query_ms) {
        return;
    }
    struct buffer plan;
    buffer_init(&plan, PLAN_BYTES_MAX);
    take_plan(s, &plan);
    metrics_add(METRIC_SLOW_QUERIES, 1);
    log_write(LOG_WARN, "store", "slow query, %llu ms: %.600s | plan: %.*s",
              (unsigned long long)took_ms, s->base.text, (int)plan.size,
              plan.size == 0 ? "" : (const char *)plan.data);
    buffer_finish(&plan);
}
