/* Parts bench: what one event costs on its way in (P22): checking its body, handing its frame to
 * the committer, the rate-limit check. Each figure is the median of nine runs; the file system
 * under the working directory takes the journal. Prints one row a part and ends non-zero when one
 * is short. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "format/format.h"
#include "gate/gate.h"
#include "intake/intake.h"
#include "journal/journal.h"

#define RUNS           9u
#define ROUND_EVENTS   64u
#define ROUNDS         200u
#define BODY_BYTES_MAX (128u * 1024u)

static bool is_short;

static void must(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "parts_bench: %s\n", what);
        exit(2);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* target_us 0: no target is set for this part, it is printed for orientation. */
static void print_row(const char *part, double *runs_us, double target_us)
{
    qsort(runs_us, RUNS, sizeof(runs_us[0]), compare);
    double median = runs_us[RUNS / 2];
    (void)printf("P22  %-44s %8.2f us  (min %.2f, max %.2f)  ", part, median, runs_us[0],
                 runs_us[RUNS - 1]);
    if (target_us == 0) {
        (void)printf("no target\n");
        return;
    }
    is_short = is_short || median > target_us;
    (void)printf("target <= %g us  %s\n", target_us, median <= target_us ? "met" : "short");
}

/* An event of exactly `bytes`, whose payload is a list of orders. */
static size_t make_event(char *to, size_t bytes)
{
    size_t at = (size_t)sprintf(to, "{\"type\":\"order.completed\",\"dedup_id\":\"order-4711\","
                                    "\"subject\":\"customer/42\",\"payload\":{\"orders\":[");
    for (unsigned i = 0; at + 200 < bytes; i++) {
        at += (size_t)sprintf(to + at,
                              "%s{\"id\":%u,\"sku\":\"AB-%05u\",\"name\":\"A thing of some use\","
                              "\"price\":%u.95,\"in_stock\":true,\"tags\":[\"new\",\"blue\"],"
                              "\"seen\":\"2024-02-29T12:00:00Z\"}",
                              i == 0 ? "" : ",", i, i * 7, i % 900);
    }
    at += (size_t)sprintf(to + at, "],\"note\":\"");
    must(at + 3 <= bytes, "the event is longer than asked for");
    memset(to + at, 'x', bytes - 3 - at);
    memcpy(to + bytes - 3, "\"}}", 4);
    return bytes;
}

static void bench_check(size_t kilobytes, double target_us)
{
    static char body[BODY_BYTES_MAX];
    static const uint8_t id_key[32] = {1};
    double runs[RUNS];
    char part[64];
    size_t size = make_event(body, kilobytes * 1024);
    uint32_t count = (uint32_t)(20000000u / size);
    struct format_reader *reader = format_reader_create();
    struct format_context context = {.id_key = id_key, .received_ms = clock_wall_ms()};
    for (uint32_t run = 0; run < RUNS; run++) {
        uint64_t start = clock_mono_ns();
        for (uint32_t i = 0; i < count; i++) {
            struct record_event event;
            struct format_fault fault;
            must(format_event_read(reader, RECORD_FORM_EVENT, slice_make(body, size), &context,
                                   &event, &fault) == ERR_OK,
                 "the event is refused");
        }
        runs[run] = (double)(clock_mono_ns() - start) / 1000.0 / count;
    }
    (void)snprintf(part, sizeof(part), "checking a body of %zu bytes", size);
    print_row(part, runs, target_us);
    format_reader_destroy(reader);
}

static void bench_limit(void)
{
    static const uint8_t tag_key[32] = {2};
    double runs[RUNS];
    const uint32_t count = 200000;
    struct gate *gate = NULL;
    struct err_detail detail = {{0}};
    struct gate_options options = {.argon2_memory_kib = 19456,
                                   .argon2_passes = 2,
                                   .cache_ttl_s = 300,
                                   .cache_entries = 1024,
                                   .verifier_count = 1,
                                   .verify_queue_max = 16,
                                   .tag_key = tag_key};
    must(gate_open(&gate, &options, &detail) == ERR_OK, detail.text);
    struct gate_identity identity = {.org = 1,
                                     .key = 2,
                                     .requests_per_minute = 1000000000,
                                     .key_requests_per_minute = 1000000000};
    for (uint32_t run = 0; run < RUNS; run++) {
        struct gate_window window;
        uint64_t start = clock_mono_ns();
        for (uint32_t i = 0; i < count; i++) {
            must(gate_limit_request(gate, &identity, &window) == ERR_OK, "a limit was reached");
        }
        runs[run] = (double)(clock_mono_ns() - start) / 1000.0 / count;
    }
    print_row("rate-limit check, org and key", runs, 1);
    gate_close(gate);
}

/* --- hand-over ----------------------------------------------------------------------------- */

struct house {
    struct journal *journal;
    struct journal_producer *producer;
    struct mailbox *mailbox;
    struct intake_recent *recent;
    struct intake *intake;
    struct thread *threads[3];
    char directory[32];
};

static void house_open(struct house *house)
{
    char journal_path[64];
    char uploads_path[64];
    struct err_detail detail = {{0}};
    (void)snprintf(house->directory, sizeof(house->directory), "parts_bench_XXXXXX");
    must(mkdtemp(house->directory) != NULL, "no directory");
    (void)snprintf(journal_path, sizeof(journal_path), "%s/journal", house->directory);
    (void)snprintf(uploads_path, sizeof(uploads_path), "%s/uploads", house->directory);
    struct journal_options options = {.directory = journal_path,
                                      .uploads_directory = uploads_path,
                                      .segment_bytes = 64u << 20,
                                      .backlog_bytes_max = UINT64_C(4) << 30,
                                      .producer_count = 1};
    must(journal_open(&house->journal, &options, (struct journal_from[]){journal_from_all(0)},
                      &detail) == ERR_OK,
         detail.text);
    must(journal_start(house->journal, 0, &detail) == ERR_OK, detail.text);
    must(mailbox_create(&house->mailbox, 1024) == ERR_OK, "no mailbox");
    must(journal_producer_create(&house->producer, house->journal, 0, house->mailbox) == ERR_OK,
         "no producer");
    house->recent = intake_recent_create(1000000);
    struct intake_options intake = {.journal = house->journal,
                                    .producer = house->producer,
                                    .mailbox = house->mailbox,
                                    .pool_bytes = 16u << 20,
                                    .waiters_max = 16,
                                    .recent = house->recent};
    must(intake_create(&house->intake, &intake) == ERR_OK, "no intake");
    must(thread_start(&house->threads[0], "commit", journal_committer_run, house->journal) ==
             ERR_OK,
         "no thread");
    must(thread_start(&house->threads[1], "prepare", journal_preparer_run, house->journal) ==
             ERR_OK,
         "no thread");
    must(thread_start(&house->threads[2], "upload", journal_uploader_run, house->journal) == ERR_OK,
         "no thread");
}

static void house_close(struct house *house)
{
    char command[64];
    journal_stop(house->journal);
    for (size_t i = 0; i < 3; i++) {
        thread_join(house->threads[i]);
    }
    (void)mailbox_run_all(house->mailbox);
    intake_destroy(house->intake);
    journal_producer_destroy(house->producer);
    mailbox_destroy(house->mailbox);
    journal_close(house->journal);
    intake_recent_destroy(house->recent);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", house->directory);
    must(system(command) == 0, "the directory stays");
}

static uint32_t answered;

static void on_answer(struct intake_request *request, const struct intake_answer *answer,
                      void *context)
{
    (void)request;
    (void)context;
    must(answer->err == ERR_OK, err_text(answer->err));
    answered++;
}

static void on_durable(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    (void)ticket;
    (void)position;
    must(err == ERR_OK, err_text(err));
    answered++;
}

static void wait_for_round(struct house *house)
{
    while (answered < ROUND_EVENTS) {
        mailbox_wait(house->mailbox, -1);
        (void)mailbox_run_all(house->mailbox);
    }
    answered = 0;
}

/* Encoding the head, append, and the round's share of submit. */
static void bench_hand_over(struct house *house, struct slice body)
{
    static struct record_frame frame;
    static struct journal_ticket tickets[ROUND_EVENTS];
    struct buffer head;
    double runs[RUNS];
    buffer_init(&head, LIMIT_FRAME_BYTES);
    frame = (struct record_frame){.form = RECORD_FORM_EVENT, .org = 1, .key = 2, .record_count = 1};
    for (uint32_t run = 0; run < RUNS; run++) {
        uint64_t spent = 0;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            uint64_t start = clock_mono_ns();
            for (uint32_t i = 0; i < ROUND_EVENTS; i++) {
                buffer_clear(&head);
                must(record_frame_encode_head(&frame, &head) == ERR_OK, "no head");
                struct journal_frame_parts parts = {.org = 1,
                                                    .form = RECORD_FORM_EVENT,
                                                    .record_count = 1,
                                                    .head = buffer_slice(&head),
                                                    .body = body};
                tickets[i].on_durable = on_durable;
                must(journal_append(house->producer, &parts, &tickets[i]) == ERR_OK, "no room");
            }
            journal_submit(house->producer);
            spent += clock_mono_ns() - start;
            wait_for_round(house);
        }
        runs[run] = (double)spent / 1000.0 / (ROUNDS * ROUND_EVENTS);
    }
    print_row("hand-over to the committer", runs, 2);
    buffer_finish(&head);
}

/* The whole of intake: open, read, lane, known ids, hand-over. */
static void bench_intake(struct house *house)
{
    static const uint8_t id_key[32] = {3};
    double runs[RUNS];
    uint64_t number = 0;
    for (uint32_t run = 0; run < RUNS; run++) {
        uint64_t spent = 0;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            char bodies[ROUND_EVENTS][256];
            size_t sizes[ROUND_EVENTS];
            for (uint32_t i = 0; i < ROUND_EVENTS; i++) {
                sizes[i] = (size_t)sprintf(
                    bodies[i],
                    "{\"type\":\"user.login\",\"dedup_id\":\"load-%llu\",\"payload\":"
                    "{\"user_id\":\"u-1234\",\"timestamp\":\"2024-02-29T12:00:00Z\"}}",
                    (unsigned long long)number++);
            }
            uint64_t start = clock_mono_ns();
            for (uint32_t i = 0; i < ROUND_EVENTS; i++) {
                struct intake_request *request = NULL;
                bool pause = false;
                struct intake_begin begin = {.org = 1,
                                             .key = 2,
                                             .id_key = id_key,
                                             .form = RECORD_FORM_EVENT,
                                             .may_be_array = true,
                                             .body_bytes = sizes[i],
                                             .on_answer = on_answer};
                must(intake_open(house->intake, &begin, &request) == ERR_OK, "no room");
                intake_data(request, slice_make(bodies[i], sizes[i]), &pause);
                intake_end(request);
            }
            intake_round_end(house->intake);
            spent += clock_mono_ns() - start;
            wait_for_round(house);
        }
        runs[run] = (double)spent / 1000.0 / (ROUNDS * ROUND_EVENTS);
    }
    print_row("all of intake for an event of 110 bytes", runs, 0);
}

/* The same for each element of an NDJSON body of one frame. */
static void bench_lines(struct house *house)
{
    static const uint8_t id_key[32] = {3};
    static char body[LIMIT_SMALL_BODY_BYTES];
    const uint32_t count = 1500;
    double runs[RUNS];
    uint64_t number = 0;
    for (uint32_t run = 0; run < RUNS; run++) {
        uint64_t spent = 0;
        for (uint32_t round = 0; round < 20; round++) {
            size_t size = 0;
            for (uint32_t i = 0; i < count; i++) {
                size += (size_t)sprintf(
                    body + size,
                    "{\"type\":\"user.login\",\"dedup_id\":\"line-%012llu\",\"payload\":"
                    "{\"user_id\":\"u-1234\",\"timestamp\":\"2024-02-29T12:00:00Z\","
                    "\"agent\":\"some browser\"}}\n",
                    (unsigned long long)number++);
            }
            uint64_t start = clock_mono_ns();
            struct intake_request *request = NULL;
            bool pause = false;
            struct intake_begin begin = {.org = 1,
                                         .key = 2,
                                         .id_key = id_key,
                                         .form = RECORD_FORM_EVENT_LINES,
                                         .body_bytes = size,
                                         .on_answer = on_answer};
            must(intake_open(house->intake, &begin, &request) == ERR_OK, "no room");
            intake_data(request, slice_make(body, size), &pause);
            intake_end(request);
            intake_round_end(house->intake);
            spent += clock_mono_ns() - start;
            answered += ROUND_EVENTS - 1;
            wait_for_round(house);
        }
        runs[run] = (double)spent / 1000.0 / (20 * count);
    }
    print_row("all of intake for an NDJSON line of 142 bytes", runs, 0);
}

int main(void)
{
    static char body[2048];
    struct house house = {.journal = NULL};
    must(hash_start() == ERR_OK, "no hash");
    metrics_open_row();
    bench_check(1, 3);
    bench_check(10, 20);
    bench_check(100, 150);
    bench_limit();
    house_open(&house);
    bench_hand_over(&house, slice_make(body, make_event(body, 400)));
    bench_intake(&house);
    bench_lines(&house);
    house_close(&house);
    return is_short ? 1 : 0;
}
