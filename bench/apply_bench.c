/* P4: how fast the journal's events become rows, from an empty store, the whole way of apply
 * counted.
 *
 *     apply_bench [--rows N] [--per-frame N] [--random-dedup | --server-ids] [--subjects N]
 *                 [--cache-mb N] [--directory D] [--url postgresql://…] [--readings N]
 *
 * Fills a journal with N events of about 160 bytes (frames of NDJSON lines, or single events with
 * --per-frame 1), and then times apply until the last is queryable. Prints rows a second in all and
 * by the million, the largest resident size, and one line for bench/run:
 *
 *     apply_rows_per_s <mean> ids <kind> rows <n> per_frame <n> cache_mb <n> rss_mb <n>
 *
 * With --readings the rows are readings of N devices: messages of four metrics each, a minute
 * apart.
 *
 * Yardstick: none but the target of 100,000/s (random dedup ids) and 300,000/s (server-made ids) at
 * 32 MiB of cache; on an empty PostgreSQL database (--url) what postgres_copy reaches. */
#include "apply/apply.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "journal/journal.h"
#include "store/store.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define ORG            1u
#define FRAMES_PENDING 512u
#define LINE_BYTES_MAX 512u
#define METRICS        4u /* of a message */
#define MESSAGE_MS     60000

struct bench {
    uint64_t rows;
    uint32_t per_frame;
    bool random_dedup;
    uint32_t subjects;
    uint32_t devices; /* 0: events */
    uint32_t cache_mb;
    uint32_t appliers; /* PostgreSQL */
    const char *directory;
    const char *url; /* NULL: SQLite in the directory */
    struct store *store;
    struct journal *journal;
    struct mailbox *mailbox;
    struct journal_producer *producer;
    struct journal_ticket ticket;
    uint64_t frames;
    uint64_t durable;
    uint64_t last_position;
    struct thread *threads[160];
    uint32_t thread_count;
    struct mailbox *done; /* woken when everything is applied */
    struct apply *apply;
};

static struct bench bench = {.rows = 1000000,
                             .per_frame = 1000,
                             .random_dedup = true,
                             .cache_mb = 32,
                             .directory = "apply_bench.tmp"};

static void check(enum err err, const char *what)
{
    if (err != ERR_OK) {
        (void)fprintf(stderr, "apply_bench: %s: %s\n", what, err_text(err));
        exit(1); /* NOLINT(concurrency-mt-unsafe): a tool's end */
    }
}

static void start(const char *name, void (*run)(void *argument), void *argument)
{
    check(thread_start(&bench.threads[bench.thread_count++], name, run, argument), name);
}

static enum err insert(struct store_connection *connection, const char *sql, struct slice id,
                       int64_t number)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection, sql, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, id);
    store_bind_i64(statement, 2, number);
    return store_execute(statement);
}

static struct id device_id(uint32_t number)
{
    struct id id = {"a device, number"};
    memcpy(id.bytes + 12, &number, sizeof(number));
    return id;
}

static enum err add_plant(struct store_connection *connection)
{
    enum err err = insert(connection,
                          "INSERT INTO projects (number, org, id, name, created_ms, updated_ms)"
                          " VALUES (1, 1, $1, 'plant', $2, 1)",
                          SLICE_LITERAL("id of a project!"), 1);
    if (err == ERR_OK) {
        err = insert(connection,
                     "INSERT INTO sites (number, org, id, project, name, created_ms, updated_ms)"
                     " VALUES (1, 1, $1, 1, 'site', $2, 1)",
                     SLICE_LITERAL("the id of a site"), 1);
    }
    for (uint32_t i = 0; i < METRICS && err == ERR_OK; i++) {
        char id[17];
        (void)snprintf(id, sizeof(id), "id of metric %03u", i);
        err = insert(connection,
                     "INSERT INTO parameters (org, id, project, name, name_key, key, dtype, policy,"
                     " required, created_ms, updated_ms) VALUES (1, $1, 1,"
                     " 'm' || CAST($2 AS text), 'm' || CAST($2 AS text), 'k' || CAST($2 AS text),"
                     " 'float', 'flag', 0, 1, 1)",
                     slice_make(id, 16), i);
    }
    for (uint32_t i = 0; i < bench.devices && err == ERR_OK; i++) {
        struct id id = device_id(i);
        err = insert(connection,
                     "INSERT INTO devices (org, id, site, name, status, interval_s, created_ms,"
                     " updated_ms) VALUES (1, $1, 1, CAST($2 AS text), 'active', 60, 1, 1)",
                     slice_make(id.bytes, sizeof(id.bytes)), i);
    }
    return err;
}

static enum err add_org(struct store_job *job, struct store_connection *connection)
{
    (void)job;
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection,
                                 "INSERT INTO orgs (number, id, name, tier, id_key, created_ms)"
                                 " VALUES (1, $1, 'bench', 'unlimited', $2, 1)",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, SLICE_LITERAL("sixteen bytes id"));
    store_bind_blob(statement, 2, SLICE_LITERAL("thirty-two bytes of a secret key"));
    err = store_execute(statement);
    return err == ERR_OK && bench.devices > 0 ? add_plant(connection) : err;
}

static void no_answer(struct store_job *job)
{
    (void)job;
}

static void open_all(void)
{
    char url[512];
    char journal[512];
    char uploads[512];
    struct err_detail detail = {""};
    struct journal_state state;
    uint64_t base = 0;
    (void)snprintf(url, sizeof(url), "sqlite:%s/weir.db", bench.directory);
    (void)snprintf(journal, sizeof(journal), "%s/journal", bench.directory);
    (void)snprintf(uploads, sizeof(uploads), "%s/uploads", bench.directory);
    struct store_options store = {.url = bench.url != NULL ? bench.url : url,
                                  .acquire_timeout_ms = 5000,
                                  .appliers = bench.appliers,
                                  .cache_mb = bench.cache_mb,
                                  .reader_count = 1,
                                  .write_queue_max = 100,
                                  .read_queue_max = 100};
    check(store_open(&bench.store, &store, &detail), detail.text);
    struct store_job job = {.durable = true, .run = add_org, .on_done = no_answer};
    check(store_run_here(bench.store, &job), "add the org");
    start("store", store_writer_run, bench.store);
    start("check", store_checkpointer_run, bench.store);
    for (uint32_t i = 0; i < bench.appliers; i++) {
        start("store-apply", store_applier_run, store_applier(bench.store, i));
    }
    start("reader", store_reader_run, store_reader(bench.store, 0));
    struct journal_options options = {.directory = journal,
                                      .uploads_directory = uploads,
                                      .segment_bytes = 64u << 20u,
                                      .backlog_bytes_max = 1ull << 40u,
                                      .producer_count = 1};
    check(journal_open(&bench.journal, &options, (struct journal_from[]){journal_from_all(0)},
                       &detail),
          detail.text);
    journal_state(bench.journal, &state);
    check(apply_base(bench.store, state.id, state.is_new, &base), "base");
    check(journal_start(bench.journal, base, &detail), detail.text);
    start("commit", journal_committer_run, bench.journal);
    start("prepare", journal_preparer_run, bench.journal);
    check(mailbox_create(&bench.mailbox, 1000), "mailbox");
    check(mailbox_create(&bench.done, 1), "mailbox");
    check(journal_producer_create(&bench.producer, bench.journal, 0, bench.mailbox), "producer");
}

/* --- filling the journal -------------------------------------------------------------------------
 */

struct frame_ticket {
    struct journal_ticket ticket;
};
static struct frame_ticket tickets[FRAMES_PENDING];

static void on_durable(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    (void)ticket;
    check(err, "append");
    bench.durable++;
    bench.last_position = position > bench.last_position ? position : bench.last_position;
}

static void drain(void)
{
    journal_submit(bench.producer);
    while (bench.durable < bench.frames) {
        mailbox_wait(bench.mailbox, -1);
        (void)mailbox_run_all(bench.mailbox);
    }
}

static uint64_t random_state = 88172645463325252u;
static uint64_t next_random(void)
{
    random_state ^= random_state << 13u;
    random_state ^= random_state >> 7u;
    random_state ^= random_state << 17u;
    return random_state * 2685821657736338717u;
}

/* About 160 bytes, with a dedup_id or padding of its size. */
static void add_line(struct buffer *body)
{
    char subject[64] = "";
    char dedup[64] = "";
    if (bench.subjects > 0) {
        (void)snprintf(subject, sizeof(subject), "\"subject\":\"user-%" PRIu64 "\",",
                       next_random() % bench.subjects);
    }
    (void)snprintf(dedup, sizeof(dedup), "\"%s\":\"%016" PRIx64 "%016" PRIx64 "\",",
                   bench.random_dedup ? "dedup_id" : "trace_no", next_random(), next_random());
    check(buffer_printf(body,
                        "{\"type\":\"user.login%02u\",%s%s\"payload\":{\"user_id\":%u,"
                        "\"timestamp\":\"2026-11-21T10:00:00.123Z\",\"ok\":true}}\n",
                        (unsigned)(next_random() % 20), dedup, subject,
                        (unsigned)(next_random() % 1000000)),
          "line");
}

/* Each device in its turn, then all of them a minute later; the newest is now. */
static void add_message(struct buffer *body)
{
    static uint64_t number;
    static int64_t now_ms;
    char id[ID_TEXT_BYTES];
    now_ms = now_ms == 0 ? clock_wall_ms() : now_ms;
    uint64_t rounds = bench.rows / METRICS / bench.devices;
    int64_t age_ms = (int64_t)(rounds - number / bench.devices) * MESSAGE_MS;
    id_format(device_id((uint32_t)(number++ % bench.devices)), id);
    check(buffer_printf(body,
                        "{\"device_id\":\"%.*s\",\"source_timestamp\":%" PRId64 ",\"metrics\":[",
                        (int)sizeof(id), id, now_ms - age_ms),
          "message");
    for (uint32_t i = 0; i < METRICS; i++) {
        check(buffer_printf(body, "%s{\"parameter_key\":\"m%u\",\"value\":%u.25}",
                            i == 0 ? "" : ",", i, (unsigned)(next_random() % 1000)),
              "metric");
    }
    check(buffer_append_text(body, "]}\n"), "message");
}

static uint8_t form(void)
{
    if (bench.devices > 0) {
        return RECORD_FORM_READING_LINES;
    }
    return bench.per_frame == 1 ? RECORD_FORM_EVENT : RECORD_FORM_EVENT_LINES;
}

static void append_frame(uint32_t lines)
{
    static struct record_frame frame;
    static struct buffer body;
    static struct buffer head;
    if (body.bytes_max == 0) {
        buffer_init(&body, 1u << 20u);
        buffer_init(&head, 1u << 16u);
    }
    buffer_clear(&body);
    buffer_clear(&head);
    for (uint32_t i = 0; i < lines; i++) {
        if (bench.devices > 0) {
            add_message(&body);
        } else {
            add_line(&body);
        }
    }
    int64_t now_ms = clock_wall_ms();
    frame = (struct record_frame){.form = form(),
                                  .lane = RECORD_LANE_MIXED,
                                  .org = ORG,
                                  .received_ms = now_ms,
                                  .id = id_make_v7(now_ms),
                                  .record_count = lines,
                                  .body = buffer_slice(&body)};
    check(record_frame_encode_head(&frame, &head), "head");
    struct journal_frame_parts parts = {.org = ORG,
                                        .lane = frame.lane,
                                        .form = frame.form,
                                        .record_count = lines,
                                        .head = buffer_slice(&head),
                                        .body = frame.body};
    struct frame_ticket *ticket = &tickets[bench.frames % FRAMES_PENDING];
    *ticket = (struct frame_ticket){.ticket = {.on_durable = on_durable}};
    enum err err = journal_append(bench.producer, &parts, &ticket->ticket);
    if (err == ERR_FULL) {
        drain();
        err = journal_append(bench.producer, &parts, &ticket->ticket);
    }
    check(err, "append");
    bench.frames++;
    if (bench.frames % FRAMES_PENDING == 0) {
        drain();
    }
}

/* --- applying
 * ------------------------------------------------------------------------------------- */

static uint64_t started_ns;
static uint64_t started_bytes;

static void on_result(void *owner, uint64_t waiter, const struct record_result *result)
{
    (void)owner;
    (void)waiter;
    (void)result;
}

/* Bytes that this process has made dirty in files, as the kernel counts them. */
static uint64_t written_bytes(void)
{
    char line[64];
    uint64_t bytes = 0;
    FILE *file = fopen("/proc/self/io", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "write_bytes: ", 13) == 0) {
            line[strcspn(line, "\n")] = 0;
            (void)slice_to_u64(slice_from_text(line + 13), &bytes);
        }
    }
    if (file != NULL) {
        (void)fclose(file); /* only read */
    }
    return bytes;
}

static void on_applied(void *owner, uint64_t position, const uint64_t *orgs, uint32_t count)
{
    static uint64_t next_report = 1;
    static uint64_t last_ns;
    static uint64_t last_rows;
    static uint64_t last_bytes;
    (void)owner;
    (void)orgs;
    (void)count;
    uint64_t first = bench.last_position - bench.frames;
    uint64_t rows = (position - first) * bench.per_frame;
    if (rows >= next_report * 1000000u) {
        uint64_t now_ns = clock_mono_ns();
        uint64_t bytes = written_bytes();
        double fresh = (double)(rows - last_rows);
        last_ns = last_ns == 0 ? started_ns : last_ns;
        last_bytes = last_bytes == 0 ? started_bytes : last_bytes;
        (void)printf("%" PRIu64 " rows, since the last line %.0f/s, %.2f pages written a row\n",
                     rows, fresh * 1e9 / (double)(now_ns - last_ns),
                     (double)(bytes - last_bytes) / 4096 / fresh);
        last_ns = now_ns;
        last_rows = rows;
        last_bytes = bytes;
        next_report = rows / 1000000u + 1;
    }
    if (position >= bench.last_position) {
        mailbox_wake(bench.done);
    }
}

static void run_apply(void)
{
    struct err_detail detail = {""};
    static char spill[512];
    (void)snprintf(spill, sizeof(spill), "%s/weir.rows", bench.directory);
    struct apply_options options = {.journal = bench.journal,
                                    .spill = bench.url == NULL ? spill : NULL,
                                    .store = bench.store,
                                    .batch_size = 50,
                                    .batch_timeout_ms = 500,
                                    .appliers = bench.appliers,
                                    .is_exclusive = true,
                                    .run = 1,
                                    .raw_retention_days = 30,
                                    .is_alone = true,
                                    .on_result = on_result,
                                    .on_applied = on_applied};
    check(apply_open(&bench.apply, &options, &detail), detail.text);
    started_ns = clock_mono_ns();
    started_bytes = written_bytes();
    for (uint32_t i = 0; i < apply_count(bench.apply); i++) {
        start("apply", apply_run, apply_applier(bench.apply, i));
    }
    while (apply_position(bench.apply) < bench.last_position) {
        mailbox_wait(bench.done, -1);
    }
    double seconds = (double)(clock_mono_ns() - started_ns) / 1e9;
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    if (bench.url == NULL && bench.devices == 0) {
        (void)printf("target %u/s at 32 MiB of cache\n", bench.random_dedup ? 100000u : 300000u);
    }
    (void)printf("apply_rows_per_s %.0f ids %s rows %" PRIu64
                 " per_frame %u cache_mb %u rss_mb %ld\n",
                 (double)bench.rows / seconds,
                 bench.devices > 0 ? "readings" : (bench.random_dedup ? "random-dedup" : "server"),
                 bench.rows, bench.per_frame, bench.cache_mb, usage.ru_maxrss / 1024);
}

static void close_all(void)
{
    apply_stop(bench.apply);
    journal_stop(bench.journal);
    for (uint32_t i = 0; i < apply_count(bench.apply); i++) {
        thread_join(bench.threads[--bench.thread_count]);
    }
    store_stop(bench.store);
    while (bench.thread_count > 0) {
        thread_join(bench.threads[--bench.thread_count]);
    }
    (void)mailbox_run_all(bench.mailbox);
    apply_close(bench.apply);
    journal_producer_destroy(bench.producer);
    journal_close(bench.journal);
    store_close(bench.store);
    mailbox_destroy(bench.mailbox);
    mailbox_destroy(bench.done);
}

static void read_options(int argc, char **argv)
{
    static const struct option options[] = {{"rows", required_argument, NULL, 'r'},
                                            {"per-frame", required_argument, NULL, 'f'},
                                            {"random-dedup", no_argument, NULL, 'd'},
                                            {"server-ids", no_argument, NULL, 's'},
                                            {"subjects", required_argument, NULL, 'u'},
                                            {"cache-mb", required_argument, NULL, 'c'},
                                            {"appliers", required_argument, NULL, 'a'},
                                            {"directory", required_argument, NULL, 'D'},
                                            {"readings", required_argument, NULL, 'm'},
                                            {"url", required_argument, NULL, 'U'},
                                            {NULL, 0, NULL, 0}};
    int option = 0;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): before any thread */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint64_t number = 0;
        if (optarg != NULL && option != 'D' && option != 'U' &&
            !slice_to_u64(slice_from_text(optarg), &number)) {
            option = '?';
        }
        switch (option) {
        case 'r':
            bench.rows = number;
            break;
        case 'f':
            bench.per_frame = (uint32_t)number;
            break;
        case 'd':
        case 's':
            bench.random_dedup = option == 'd';
            break;
        case 'u':
            bench.subjects = (uint32_t)number;
            break;
        case 'm':
            bench.devices = (uint32_t)number;
            break;
        case 'c':
            bench.cache_mb = (uint32_t)number;
            break;
        case 'a':
            bench.appliers = number < APPLY_APPLIERS_MAX ? (uint32_t)number : APPLY_APPLIERS_MAX;
            break;
        case 'D':
            bench.directory = optarg;
            break;
        case 'U':
            bench.url = optarg;
            break;
        default:
            (void)fprintf(stderr, "usage: apply_bench [--rows N] [--per-frame N] [--random-dedup |"
                                  " --server-ids] [--subjects N] [--cache-mb N] [--directory D]"
                                  " [--url URL] [--appliers N] [--readings N]\n");
            exit(2); /* NOLINT(concurrency-mt-unsafe): before any thread */
        }
    }
}

int main(int argc, char **argv)
{
    char command[600];
    read_options(argc, argv);
    log_set_level(LOG_WARN);
    check(hash_start(), "crypto");
    (void)snprintf(command, sizeof(command), "rm -rf '%s' && mkdir -p '%s'", bench.directory,
                   bench.directory);
    /* NOLINTNEXTLINE(cert-env33-c,concurrency-mt-unsafe): a tool's own folder */
    if (system(command) != 0) {
        return 1;
    }
    uint64_t per_frame = (uint64_t)bench.per_frame * (bench.devices > 0 ? METRICS : 1);
    bench.rows -= bench.rows % per_frame;
    open_all();
    for (uint64_t rows = 0; rows < bench.rows; rows += per_frame) {
        append_frame(bench.per_frame);
    }
    drain();
    run_apply();
    close_all();
    (void)snprintf(command, sizeof(command), "cd '%s' && rm -rf weir.db* journal uploads",
                   bench.directory);
    return system(command) == 0 ? 0 : 1; /* NOLINT(cert-env33-c,concurrency-mt-unsafe): as above */
}
