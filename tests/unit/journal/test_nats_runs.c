/* Promise: frames that wait go into one message of the stream, each with a place of its own, and
 * are read from any place on; one that is damaged costs only itself; a message that is sent again
 * comes once; a stream of the version before goes on as it was made.
 * link: nats_rig.c nats_server.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "journal/format.h"
#include "support/nats_rig.h"

#include <signal.h>
#include <string.h>

#define RUN       UINT64_C(16) /* frames in a message */
#define SECOND_NS UINT64_C(1000000000)

/* Frames numbered from `first` on, at once. */
static void append_batch(struct nats_rig *rig, struct nats_ticket *tickets, uint32_t first,
                         uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(nats_rig_append(rig, &tickets[i], first + i), ERR_OK);
    }
    journal_submit(rig->producer);
}

static void wait_for_batch(struct nats_rig *rig, const struct nats_ticket *tickets, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        nats_rig_wait(rig, &tickets[i]);
        assert_int_equal(tickets[i].err, ERR_OK);
    }
}

/* 16 of 20 are in the first message; the last of each has the message's own place. */
static void test_what_waits_goes_together(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct journal_reader *reader = NULL;
    struct nats_ticket tickets[20];
    nats_rig_init(&rig);
    append_batch(&rig, tickets, 0, 20);
    wait_for_batch(&rig, tickets, 20);
    assert_int_equal(nats_rig_messages(&rig, "test"), 2);
    for (uint64_t i = 0; i < 20; i++) {
        assert_int_equal(tickets[i].position, i < RUN ? i + 1 : 2 * RUN - (19 - i));
    }
    for (uint32_t from = 0; from <= 20; from++) { /* from each place within, too */
        struct journal_from after = journal_from_all(from == 0 ? 0 : tickets[from - 1].position);
        assert_int_equal(journal_reader_open(&reader, rig.journal, &after), ERR_OK);
        for (uint32_t i = from; i < 20; i++) {
            assert_int_equal(nats_rig_read(&rig, reader, tickets[i].position), i);
        }
        journal_reader_close(reader);
    }
    nats_rig_finish(&rig);
}

/* What one message holds, at most: else several of the largest would be one. */
static void test_large_frames_go_alone(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct nats_ticket tickets[3] = {{.ticket = {.on_durable = nats_rig_on_durable}},
                                     {.ticket = {.on_durable = nats_rig_on_durable}},
                                     {.ticket = {.on_durable = nats_rig_on_durable}}};
    uint8_t *body = mem_alloc(40000);
    struct journal_frame_parts parts = {
        .org = 5, .form = RECORD_FORM_EVENT, .record_count = 1, .body = slice_make(body, 40000)};
    nats_rig_init(&rig);
    for (uint32_t i = 0; i < 3; i++) {
        parts.body.size = i == 2 ? 20000 : 40000; /* 60,080 bytes with the one before */
        assert_int_equal(journal_append(rig.producer, &parts, &tickets[i].ticket), ERR_OK);
    }
    journal_submit(rig.producer);
    wait_for_batch(&rig, tickets, 3);
    assert_int_equal(tickets[0].position, RUN);
    assert_int_equal(tickets[1].position, 2 * RUN - 1);
    assert_int_equal(tickets[2].position, 2 * RUN);
    nats_rig_finish(&rig);
    mem_free(body);
}

/* As it was: JetStream has seen it, and keeps it once. */
static void test_a_message_is_sent_again(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct nats_ticket tickets[5];
    nats_rig_init(&rig);
    assert_int_equal(kill(rig.server.pid, SIGSTOP), 0);
    append_batch(&rig, tickets, 0, 5);
    uint64_t until_ns = clock_mono_ns() + 3 * SECOND_NS / 2;
    while (clock_mono_ns() < until_ns) {
        nats_Sleep(10);
    }
    assert_int_equal(kill(rig.server.pid, SIGCONT), 0);
    wait_for_batch(&rig, tickets, 5);
    nats_rig_append_many(&rig, tickets, 5, 1); /* is behind all that was sent before it */
    assert_int_equal(tickets[0].position, 2 * RUN);
    assert_int_equal(nats_rig_messages(&rig, "test"), 2);
    nats_rig_finish(&rig);
}

/* Message 1 once more, with another byte at `offset`, as message `sequence`. */
static void publish_damaged(const struct nats_rig *rig, size_t offset, uint64_t sequence)
{
    jsCtx *js = NULL;
    natsMsg *message = NULL;
    jsPubAck *ack = NULL;
    uint8_t bytes[4000];
    natsConnection *connection = nats_server_connect(&rig->server);
    assert_int_equal(natsConnection_JetStream(&js, connection, NULL), NATS_OK);
    assert_int_equal(js_GetMsg(&message, js, "test", 1, NULL, NULL), NATS_OK);
    size_t size = (size_t)natsMsg_GetDataLength(message);
    assert_true(offset < size && size <= sizeof(bytes));
    memcpy(bytes, natsMsg_GetData(message), size);
    bytes[offset] ^= 0x10;
    assert_int_equal(js_Publish(&ack, js, "test.frames.mixed", bytes, (int)size, NULL, NULL),
                     NATS_OK);
    assert_int_equal(ack->Sequence, sequence);
    jsPubAck_Destroy(ack);
    natsMsg_Destroy(message);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
}

/* Five frames, of which the third begins at `at` and has `size` bytes. */
static void test_the_others_of_a_damaged_message_are_read(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct journal_reader *reader = NULL;
    struct journal_from all = journal_from_all(0);
    struct nats_ticket tickets[5];
    struct journal_frame frame;
    bool has = true;
    nats_rig_init(&rig);
    append_batch(&rig, tickets, 0, 5);
    wait_for_batch(&rig, tickets, 5);
    assert_int_equal(nats_rig_messages(&rig, "test"), 1);
    struct buffer head;
    struct record_frame record = {
        .form = RECORD_FORM_EVENT, .org = 5, .received_ms = 1000, .record_count = 1, .run = 7};
    buffer_init(&head, 4096);
    assert_int_equal(record_frame_encode_head(&record, &head), ERR_OK);
    size_t sizes[3];
    for (size_t i = 0; i < 3; i++) {
        sizes[i] = (size_t)journal_frame_size(head.size + 4 + i);
    }
    buffer_finish(&head);
    size_t at = sizes[0] + sizes[1];
    const size_t places[] = {at + sizes[2] - 1, at + 8, at + 12}; /* body, magic, size */
    uint64_t before = metrics_total(METRIC_JOURNAL_DAMAGED);
    assert_int_equal(journal_reader_open(&reader, rig.journal, &all), ERR_OK);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(nats_rig_read(&rig, reader, tickets[i].position), i);
    }
    for (uint64_t i = 0; i < 3; i++) {
        publish_damaged(&rig, places[i], 2 + i);
        uint64_t last = (2 + i) * RUN;
        assert_int_equal(nats_rig_read(&rig, reader, last - 4), 0);
        assert_int_equal(nats_rig_read(&rig, reader, last - 3), 1);
        assert_int_equal(nats_rig_read(&rig, reader, last - 1), 3);
        assert_int_equal(nats_rig_read(&rig, reader, last), 4);
    }
    publish_damaged(&rig, 5 * sizes[2] - 1, 5); /* the last: nothing of it is waited for */
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(nats_rig_read(&rig, reader, 5 * RUN - 4 + i), i);
    }
    assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
    assert_false(has);
    assert_int_equal(journal_reader_place(reader), 5 * RUN);
    nats_rig_append_many(&rig, tickets, 5, 1);
    assert_int_equal(nats_rig_read(&rig, reader, tickets[0].position), 5);
    assert_int_equal(metrics_total(METRIC_JOURNAL_DAMAGED), before + 4 * sizes[2]);
    journal_reader_close(reader);
    for (uint64_t i = 2; i < 6; i++) {
        nats_rig_remove_copy(&rig, i);
    }
    nats_rig_remove_quarantine(&rig);
    nats_rig_finish(&rig);
}

/* Its note says whose it is, and no more. */
static void test_a_stream_of_the_version_before_keeps_its_form(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct journal_reader *reader = NULL;
    struct journal_from all = journal_from_all(0);
    struct nats_ticket tickets[20];
    char store[ID_TEXT_BYTES];
    jsCtx *js = NULL;
    jsStreamConfig config;
    const char *subjects[] = {"old.uploads.*"};
    nats_rig_init(&rig);
    nats_rig_close(&rig);
    natsConnection *connection = nats_server_connect(&rig.server);
    assert_int_equal(natsConnection_JetStream(&js, connection, NULL), NATS_OK);
    (void)jsStreamConfig_Init(&config);
    config.Name = "old_uploads";
    config.Subjects = subjects;
    config.SubjectsLen = 1;
    config.Discard = js_DiscardNew;
    config.Duplicates = 2 * 60 * INT64_C(1000000000);
    assert_int_equal(js_AddStream(NULL, js, &config, NULL, NULL), NATS_OK);
    id_format(rig.options.nats.store, store);
    assert_int_equal(js_Publish(NULL, js, "old.uploads.store", store, sizeof(store), NULL, NULL),
                     NATS_OK);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
    rig.options.nats.stream = "old";
    nats_rig_open(&rig);
    append_batch(&rig, tickets, 0, 20);
    wait_for_batch(&rig, tickets, 20);
    assert_int_equal(nats_rig_messages(&rig, "old"), 20);
    assert_int_equal(journal_reader_open(&reader, rig.journal, &all), ERR_OK);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(tickets[i].position, i + 1);
        assert_int_equal(nats_rig_read(&rig, reader, i + 1), i);
    }
    journal_reader_close(reader);
    nats_rig_finish(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_waits_goes_together),
        cmocka_unit_test(test_large_frames_go_alone),
        cmocka_unit_test(test_a_message_is_sent_again),
        cmocka_unit_test(test_the_others_of_a_damaged_message_are_read),
        cmocka_unit_test(test_a_stream_of_the_version_before_keeps_its_form),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    nats_Close();
    return failed;
}
