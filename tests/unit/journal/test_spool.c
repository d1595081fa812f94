/* Promise: what the spool takes while NATS is away is in the stream afterwards, each frame once and
 * those of a lane in their order, also when the process ends in between; its state is read as it
 * was written, or not at all. link: nats_server.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/thread.h"
#include "journal/spool.h"
#include "support/journal_place.h"
#include "support/journal_ticket.h"
#include "support/nats_server.h"
#include "support/tree.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAMES     1000u
#define RUN        UINT64_C(16) /* positions of a message */
#define SPOOL_BASE (UINT64_C(1) << LIMIT_RANGE_SHIFT)
#define THREADS    5

struct rig {
    struct nats_server server;
    char root[64];
    char directory[96];
    char uploads[96];
    char spool[128];
    struct journal_options options;
    struct journal *journal;
    struct journal_producer *producer;
    struct mailbox *loop;
    struct thread *threads[THREADS];
};

static void rig_open(struct rig *rig)
{
    struct err_detail detail = {""};
    if (journal_open(&rig->journal, &rig->options, (struct journal_from[]){journal_from_all(0)},
                     &detail) != ERR_OK) {
        fail_msg("%s", detail.text);
    }
    struct journal *spool = journal_spool(rig->journal);
    assert_non_null(spool);
    assert_int_equal(journal_start(spool, SPOOL_BASE, &detail), ERR_OK);
    assert_int_equal(journal_start(rig->journal, 0, &detail), ERR_OK);
    assert_int_equal(mailbox_create(&rig->loop, 1024), ERR_OK);
    assert_int_equal(journal_producer_create(&rig->producer, rig->journal, 0, rig->loop), ERR_OK);
    void (*const runs[THREADS])(void *) = {journal_committer_run, journal_preparer_run,
                                           journal_uploader_run, journal_committer_run,
                                           journal_preparer_run};
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(
            thread_start(&rig->threads[i], "test", runs[i], i < 3 ? rig->journal : spool), ERR_OK);
    }
}

static void rig_close(struct rig *rig)
{
    journal_stop(rig->journal);
    for (int i = 0; i < THREADS; i++) {
        thread_join(rig->threads[i]);
    }
    (void)mailbox_run_all(rig->loop);
    journal_producer_destroy(rig->producer);
    journal_close(rig->journal);
    mailbox_destroy(rig->loop);
}

static void rig_init(struct rig *rig)
{
    *rig = (struct rig){.producer = NULL};
    assert_int_equal(hash_start(), ERR_OK);
    nats_server_init(&rig->server);
    nats_server_start(&rig->server);
    journal_place_make(".", rig->root, rig->directory, rig->uploads, &rig->options);
    (void)snprintf(rig->spool, sizeof(rig->spool), "%s/spool", rig->root);
    rig->options.run = 7;
    rig->options.spool_directory = rig->spool;
    rig->options.nats = (struct journal_nats_options){.url = rig->server.url,
                                                      .stream = "test",
                                                      .replicas = 1,
                                                      .pull_batch = 100,
                                                      .ack_wait_s = 30,
                                                      .ack_pending_max = 1000,
                                                      .spools = true};
    rig_open(rig);
}

static void rig_finish(struct rig *rig)
{
    rig_close(rig);
    nats_server_finish(&rig->server);
    tree_remove(rig->root);
}

/* Frame `number` of lane number % 7, or (each 50th) of several. */
static enum err append(struct rig *rig, struct ticket *ticket, uint32_t number)
{
    struct record_frame record = {.form = RECORD_FORM_EVENT,
                                  .org = 5,
                                  .received_ms = 1000,
                                  .record_count = 1,
                                  .run = rig->options.run,
                                  .id = id_make_v7(1000 + number)};
    uint8_t body[4];
    struct buffer head;
    buffer_init(&head, 4096);
    assert_int_equal(record_frame_encode_head(&record, &head), ERR_OK);
    buffer_put_u32(body, number);
    struct journal_frame_parts parts = {.org = 5,
                                        .lane = number % 50 == 49 ? RECORD_LANE_MIXED
                                                                  : (uint8_t)(number % 7),
                                        .form = RECORD_FORM_EVENT,
                                        .record_count = 1,
                                        .head = buffer_slice(&head),
                                        .body = slice_make(body, sizeof(body))};
    *ticket = ticket_make();
    enum err err = journal_append(rig->producer, &parts, &ticket->ticket);
    buffer_finish(&head);
    return err;
}

static void append_many(struct rig *rig, struct ticket *tickets, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(append(rig, &tickets[i], first + i), ERR_OK);
        if (i % 11 == 0) {
            journal_submit(rig->producer);
        }
    }
    journal_submit(rig->producer);
    for (uint32_t i = 0; i < count; i++) {
        ticket_wait(&tickets[i], rig->loop);
        assert_int_equal(tickets[i].err, ERR_OK);
    }
}

static void wait_until_spooling(const struct rig *rig, bool is_spooling)
{
    uint64_t frames;
    while (journal_spooled(rig->journal, &frames) != is_spooling) {
        nats_Sleep(1);
    }
}

/* Message `sequence` of the stream is a frame that verifies; gives its number and lane. */
static uint32_t read_message(struct rig *rig, jsCtx *js, uint64_t sequence, uint8_t *ret_lane)
{
    natsMsg *message = NULL;
    struct journal_frame frame;
    struct record_frame record;
    assert_int_equal(js_GetMsg(&message, js, "test", sequence, NULL, NULL), NATS_OK);
    assert_true(journal_frame_decode((const uint8_t *)natsMsg_GetData(message),
                                     rig->journal->nats->salt, &frame));
    assert_int_equal(record_frame_decode(frame.bytes_slice, &record), ERR_OK);
    uint32_t number = buffer_get_u32(record.body.data);
    *ret_lane = frame.lane;
    natsMsg_Destroy(message);
    return number;
}

/* The stream holds frames 0 to count - 1, once, in an order that each lane agrees with; one of
 * several lanes stands behind all before it and before all behind it. */
static void check_stream(struct rig *rig, uint32_t count)
{
    jsCtx *js = NULL;
    jsStreamInfo *info = NULL;
    uint32_t next_of_lane[7] = {0};
    uint32_t barrier = 0; /* frames below it are there */
    bool *is_there = mem_alloc_array(count, sizeof(*is_there));
    natsConnection *connection = nats_server_connect(&rig->server);
    assert_int_equal(natsConnection_JetStream(&js, connection, NULL), NATS_OK);
    assert_int_equal(js_GetStreamInfo(&info, js, "test", NULL, NULL), NATS_OK);
    assert_int_equal(info->State.Msgs, count);
    for (uint64_t sequence = 1; sequence <= count; sequence++) {
        uint8_t lane;
        uint32_t number = read_message(rig, js, sequence, &lane);
        assert_true(number < count && !is_there[number] && number >= barrier);
        is_there[number] = true;
        if (lane == RECORD_LANE_MIXED) {
            assert_int_equal(sequence, number + 1); /* nothing before it is missing */
            barrier = number + 1;
            continue;
        }
        assert_true(number >= next_of_lane[lane]);
        next_of_lane[lane] = number + 1;
    }
    jsStreamInfo_Destroy(info);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
    mem_free(is_there);
}

static void test_what_comes_while_it_is_away_is_forwarded(void **state)
{
    (void)state;
    struct rig rig;
    struct ticket *tickets = mem_alloc_array(FRAMES, sizeof(*tickets));
    rig_init(&rig);
    append_many(&rig, tickets, 0, 10);
    assert_int_equal(tickets[9].position, 10 * RUN); /* a message each */
    assert_int_equal(journal_place(rig.journal, 10 * RUN), 10 * RUN);
    nats_server_kill(&rig.server);
    wait_until_spooling(&rig, true);
    append_many(&rig, tickets, 10, FRAMES - 10);
    uint64_t last = tickets[FRAMES - 11].position;
    assert_true(journal_is_spooled(rig.journal, last));
    assert_int_equal(last, SPOOL_BASE + FRAMES - 10);
    assert_int_equal(journal_accepted_position(rig.journal), last);
    assert_true(journal_place(rig.journal, last) == UINT64_MAX);
    nats_server_start(&rig.server);
    wait_until_spooling(&rig, false);
    assert_int_equal(journal_place(rig.journal, last), FRAMES * RUN);
    assert_int_equal(journal_accepted_position(rig.journal), FRAMES * RUN);
    check_stream(&rig, FRAMES);
    rig_finish(&rig);
    mem_free(tickets);
}

static void test_the_next_run_forwards_what_is_left(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_backlog backlog;
    struct ticket *tickets = mem_alloc_array(FRAMES, sizeof(*tickets));
    rig_init(&rig);
    nats_server_kill(&rig.server);
    wait_until_spooling(&rig, true);
    append_many(&rig, tickets, 0, FRAMES / 2);
    for (uint64_t run = 8; run < 10; run++) { /* one of them accepts nothing */
        rig_close(&rig);
        rig.options.run = run;
        rig_open(&rig);
        wait_until_spooling(&rig, true);
        journal_backlog(rig.journal, &backlog);
        assert_int_equal(backlog.records, FRAMES / 2);
    }
    append_many(&rig, tickets, FRAMES / 2, FRAMES / 2);
    nats_server_start(&rig.server);
    wait_until_spooling(&rig, false);
    check_stream(&rig, FRAMES);
    rig_close(&rig);
    rig_open(&rig);
    uint64_t frames;
    assert_false(journal_spooled(rig.journal, &frames)); /* nothing is forwarded again */
    check_stream(&rig, FRAMES);
    rig_finish(&rig);
    mem_free(tickets);
}

/* A start without the spool would leave them behind. */
static void test_frames_are_not_left_behind(void **state)
{
    (void)state;
    struct rig rig;
    struct ticket ticket;
    struct err_detail detail = {""};
    struct journal *journal = NULL;
    rig_init(&rig);
    nats_server_kill(&rig.server);
    wait_until_spooling(&rig, true);
    append_many(&rig, &ticket, 0, 1);
    rig_close(&rig);
    rig.options.nats.url = NULL;
    rig.options.nats.spools = false;
    assert_int_equal(
        journal_open(&journal, &rig.options, (struct journal_from[]){journal_from_all(0)}, &detail),
        ERR_CONFIG);
    assert_non_null(strstr(detail.text, "JOURNAL_SPOOL=1"));
    rig.options.nats.url = rig.server.url;
    rig.options.nats.spools = true;
    rig_open(&rig);
    nats_server_start(&rig.server);
    rig_finish(&rig);
}

/* Offsets as the head of spool_state.c has them. */
static void test_the_state_is_read_as_it_was_written(void **state)
{
    (void)state;
    char directory[] = "./spool_test_XXXXXX";
    struct spool_state written = {.stream = "weir",
                                  .created = 1234567,
                                  .segments = {{1, 2, 3}},
                                  .forwarded = 77,
                                  .run_bits = 4};
    struct spool_state read = {.forwarded = 1};
    uint8_t bytes[200];
    int fd = -1;
    assert_non_null(mkdtemp(directory));
    assert_int_equal(journal_spool_state_open(directory, &fd, &read), ERR_OK);
    assert_int_equal(read.forwarded, 0);
    assert_string_equal(read.stream, "");
    assert_int_equal(journal_spool_state_write(fd, &written, true), ERR_OK);
    assert_int_equal(pread(fd, bytes, sizeof(bytes), 0), 128);
    assert_memory_equal(bytes + 8, "WEIRSPL1weir\0\0", 14);
    assert_int_equal(buffer_get_u64(bytes + 80), 1234567);
    assert_memory_equal(bytes + 88, "\1\2\3\0", 4);
    assert_int_equal(buffer_get_u64(bytes + 104), 77);
    assert_int_equal(buffer_get_u32(bytes + 112), 4);
    assert_int_equal(close(fd), 0);
    assert_int_equal(journal_spool_state_open(directory, &fd, &read), ERR_OK);
    assert_string_equal(read.stream, "weir");
    assert_int_equal(read.created, 1234567);
    assert_int_equal(read.forwarded, 77);
    assert_int_equal(read.run_bits, 4);
    assert_true(id_equal(read.segments, written.segments));
    for (off_t at = 0; at < 128; at++) { /* whichever byte is wrong */
        uint8_t wrong = bytes[at] ^ 1u;
        assert_int_equal(pwrite(fd, &wrong, 1, at), 1);
        assert_int_equal(close(fd), 0);
        assert_int_equal(journal_spool_state_open(directory, &fd, &read), ERR_OK);
        assert_int_equal(read.forwarded, 0);
        assert_int_equal(pwrite(fd, &bytes[at], 1, at), 1);
    }
    assert_int_equal(close(fd), 0);
    char path[64];
    (void)snprintf(path, sizeof(path), "%s/state", directory);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_state_is_read_as_it_was_written),
        cmocka_unit_test(test_what_comes_while_it_is_away_is_forwarded),
        cmocka_unit_test(test_the_next_run_forwards_what_is_left),
        cmocka_unit_test(test_frames_are_not_left_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
