/* P4's yardstick on PostgreSQL: what a hand-made loader of the same rows reaches.
 *
 *     postgres_copy --url URL [--rows N] [--batch N]
 *
 * Makes Weir's schema (the database must be empty or Weir's), then loads N rows as apply_bench's
 * events become them: COPY (text) of a batch into a temporary table, INSERT … ON CONFLICT DO
 * NOTHING into events, commit. No JSON is read and no journal, no cursor and no totals are kept.
 * Prints
 *
 *     copy_rows_per_s <mean> rows <n> batch <n> */
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/store.h"

#include <getopt.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

#define LINE_BYTES_MAX 512u

static void fail(const char *what, const char *why)
{
    (void)fprintf(stderr, "postgres_copy: %s: %s\n", what, why);
    exit(1); /* NOLINT(concurrency-mt-unsafe): a tool's end */
}

static void run(PGconn *session, const char *sql)
{
    PGresult *result = PQexec(session, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_COPY_IN) {
        fail(sql, PQerrorMessage(session));
    }
    PQclear(result);
}

static uint64_t random_state = 88172645463325252u;
static uint64_t next_random(void)
{
    random_state ^= random_state << 13u;
    random_state ^= random_state >> 7u;
    random_state ^= random_state << 17u;
    return random_state * 2685821657736338717u;
}

/* Columns in the order of the table. */
static int write_row(char *to, uint64_t number, int64_t now_ms)
{
    return snprintf(to, LINE_BYTES_MAX,
                    "1\t%" PRIu64 "\t%" PRIu64 "\t%" PRId64 "\t%" PRId64 "\t\\N\t%016" PRIx64
                    "%016" PRIx64 "\tuser.login%02u\t\\N\t\\N\t\\N\t%016" PRIx64 "%016" PRIx64
                    "\t{\"user_id\":%u,\"timestamp\":\"2026-11-21T10:00:00.123Z\",\"ok\":true}"
                    "\t\\N\n",
                    store_sequence_first(1) + number, number / 1000, now_ms, now_ms, next_random(),
                    next_random(), (unsigned)(next_random() % 20), next_random(), next_random(),
                    (unsigned)(next_random() % 1000000));
}

static void load(PGconn *session, uint64_t from, uint64_t to)
{
    char line[LINE_BYTES_MAX];
    int64_t now_ms = clock_wall_ms();
    run(session, "BEGIN");
    run(session, "COPY staging FROM STDIN");
    for (uint64_t i = from; i < to; i++) {
        if (PQputCopyData(session, line, write_row(line, i + 1, now_ms)) != 1) {
            fail("copy", PQerrorMessage(session));
        }
    }
    if (PQputCopyEnd(session, NULL) != 1) {
        fail("copy", PQerrorMessage(session));
    }
    PGresult *result = PQgetResult(session);
    while (result != NULL) {
        if (PQresultStatus(result) != PGRES_COMMAND_OK) {
            fail("copy", PQerrorMessage(session));
        }
        PQclear(result);
        result = PQgetResult(session);
    }
    run(session, "INSERT INTO events SELECT * FROM staging ON CONFLICT DO NOTHING");
    run(session, "COMMIT");
}

static void make_schema(const char *url)
{
    struct store *store = NULL;
    struct err_detail detail = {""};
    struct store_options options = {
        .url = url, .acquire_timeout_ms = 5000, .write_queue_max = 1, .read_queue_max = 1};
    if (store_open(&store, &options, &detail) != ERR_OK) {
        fail("open", detail.text);
    }
    store_close(store);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"url", required_argument, NULL, 'u'},
                                            {"rows", required_argument, NULL, 'r'},
                                            {"batch", required_argument, NULL, 'b'},
                                            {NULL, 0, NULL, 0}};
    const char *url = NULL;
    uint64_t rows = 500000;
    uint64_t batch = 10000;
    int option = 0;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): the only thread */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'u') {
            url = optarg;
        } else if (option == '?' ||
                   !slice_to_u64(slice_from_text(optarg), option == 'r' ? &rows : &batch)) {
            url = NULL;
            break;
        }
    }
    if (url == NULL || batch == 0) {
        fail("usage", "postgres_copy --url URL [--rows N] [--batch N]");
    }
    log_set_level(LOG_WARN);
    if (hash_start() != ERR_OK) {
        fail("start", "crypto");
    }
    make_schema(url);
    PGconn *session = PQconnectdb(url);
    if (PQstatus(session) != CONNECTION_OK) {
        fail("connect", PQerrorMessage(session));
    }
    run(session, "CREATE TEMPORARY TABLE staging (LIKE events) ON COMMIT DELETE ROWS");
    uint64_t started_ns = clock_mono_ns();
    for (uint64_t from = 0; from < rows; from += batch) {
        load(session, from, from + batch < rows ? from + batch : rows);
    }
    (void)printf("copy_rows_per_s %.0f rows %" PRIu64 " batch %" PRIu64 "\n",
                 (double)rows * 1e9 / (double)(clock_mono_ns() - started_ns), rows, batch);
    PQfinish(session);
    return 0;
}
