/* Promise: with its frames in a JetStream stream the journal keeps what the local one promises:
 * what a ticket called durable is read again once, in order of its position, from any place on,
 * by this run and by the next; what is damaged is passed over, and another stream of the same name
 * is never taken for this one.
 * Large bodies are in a stream of their own: read back byte for byte, and what was never ended
 * goes. link: nats_server.c clock_shift.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "journal/internal.h"
#include "support/clock_shift.h"
#include "support/journal_place.h"
#include "support/nats_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAMES 3000u

struct rig {
    struct nats_server server;
    char root[64];
    char directory[96];
    char uploads[96];
    struct journal_options options;
    struct journal *journal;
    struct journal_producer *producer;
    struct mailbox *loop;  /* the producer's */
    struct mailbox *apply; /* the subscriber's */
    struct thread *threads[3];
};

struct ticket {
    struct journal_ticket ticket;
    uint64_t position;
    enum err err;
    bool is_answered;
};

static void rig_open(struct rig *rig)
{
    struct err_detail detail = {""};
    if (journal_open(&rig->journal, &rig->options, (struct journal_from[]){journal_from_all(0)},
                     &detail) != ERR_OK) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(journal_start(rig->journal, 0, &detail), ERR_OK);
    assert_int_equal(mailbox_create(&rig->loop, 1024), ERR_OK);
    assert_int_equal(mailbox_create(&rig->apply, 16), ERR_OK);
    assert_int_equal(journal_producer_create(&rig->producer, rig->journal, 0, rig->loop), ERR_OK);
    journal_subscribe(rig->journal, rig->apply);
    assert_int_equal(thread_start(&rig->threads[0], "commit", journal_committer_run, rig->journal),
                     ERR_OK);
    assert_int_equal(thread_start(&rig->threads[1], "prepare", journal_preparer_run, rig->journal),
                     ERR_OK);
    assert_int_equal(thread_start(&rig->threads[2], "upload", journal_uploader_run, rig->journal),
                     ERR_OK);
}

static void rig_stop(struct rig *rig)
{
    journal_stop(rig->journal);
    for (uint32_t i = 0; i < 3; i++) {
        thread_join(rig->threads[i]);
        rig->threads[i] = NULL;
    }
}

static void rig_close(struct rig *rig)
{
    if (rig->threads[0] != NULL) {
        rig_stop(rig);
    }
    (void)mailbox_run_all(rig->loop);
    journal_subscribe(rig->journal, NULL);
    journal_producer_destroy(rig->producer);
    journal_close(rig->journal);
    mailbox_destroy(rig->loop);
    mailbox_destroy(rig->apply);
}

static void rig_init(struct rig *rig)
{
    *rig = (struct rig){.producer = NULL};
    assert_int_equal(hash_start(), ERR_OK);
    nats_server_init(&rig->server);
    nats_server_start(&rig->server);
    journal_place_make(".", rig->root, rig->directory, rig->uploads, &rig->options);
    rig->options.run = 7;
    rig->options.nats = (struct journal_nats_options){.url = rig->server.url,
                                                      .stream = "test",
                                                      .replicas = 1,
                                                      .pull_batch = 100,
                                                      .ack_wait_s = 30,
                                                      .ack_pending_max = 1000};
    rig_open(rig);
}

static void rig_finish(struct rig *rig)
{
    rig_close(rig);
    nats_server_finish(&rig->server);
    assert_int_equal(rmdir(rig->directory), 0);
    assert_int_equal(rmdir(rig->uploads), 0);
    assert_int_equal(rmdir(rig->root), 0);
}

static void on_durable(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    struct ticket *mine = LIST_CONTAINER(ticket, struct ticket, ticket);
    assert_false(mine->is_answered);
    mine->is_answered = true;
    mine->err = err;
    mine->position = position;
}

static enum err append(struct rig *rig, struct ticket *ticket, uint32_t number)
{
    struct record_frame record = {.form = RECORD_FORM_EVENT,
                                  .org = 5,
                                  .received_ms = 1000,
                                  .record_count = 1,
                                  .run = rig->options.run};
    uint8_t body[400] = {0};
    struct buffer head;
    buffer_init(&head, 4096);
    assert_int_equal(record_frame_encode_head(&record, &head), ERR_OK);
    buffer_put_u32(body, number);
    struct journal_frame_parts parts = {.org = 5,
                                        .lane = number % 3 == 0 ? RECORD_LANE_MIXED
                                                                : (uint8_t)(number % LIMIT_LANES),
                                        .form = RECORD_FORM_EVENT,
                                        .record_count = 1,
                                        .head = buffer_slice(&head),
                                        .body = slice_make(body, 4 + number % 300)};
    *ticket = (struct ticket){.ticket = {.on_durable = on_durable}};
    enum err err = journal_append(rig->producer, &parts, &ticket->ticket);
    buffer_finish(&head);
    return err;
}

static void wait_for(struct rig *rig, const struct ticket *ticket)
{
    while (!ticket->is_answered) {
        mailbox_wait(rig->loop, -1);
        (void)mailbox_run_all(rig->loop);
    }
}

/* Appends frames numbered from `first` on and waits for all of them. */
static void append_many(struct rig *rig, struct ticket *tickets, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(append(rig, &tickets[i], first + i), ERR_OK);
        if (i % 7 == 0) {
            journal_submit(rig->producer);
        }
    }
    journal_submit(rig->producer);
    for (uint32_t i = 0; i < count; i++) {
        wait_for(rig, &tickets[i]);
        assert_int_equal(tickets[i].err, ERR_OK);
    }
}

/* The next frame's number; its position must be `position`. */
static uint32_t read_one(struct rig *rig, struct journal_reader *reader, uint64_t position)
{
    struct journal_frame frame;
    struct record_frame record;
    bool has = false;
    assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
    while (!has) {
        mailbox_wait(rig->apply, -1);
        (void)mailbox_run_all(rig->apply);
        assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
    }
    assert_int_equal(frame.position, position);
    assert_int_equal(record_frame_decode(frame.bytes_slice, &record), ERR_OK);
    uint32_t number = buffer_get_u32(record.body.data);
    assert_int_equal(record.body.size, 4 + number % 300);
    journal_reader_applied(reader, frame.position);
    journal_credit(rig->journal, frame.org, frame.bytes, frame.record_count);
    return number;
}

static void test_what_is_durable_is_read_in_order(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_reader *reader = NULL;
    struct journal_backlog backlog;
    struct ticket *tickets = mem_alloc_array(FRAMES, sizeof(*tickets));
    rig_init(&rig);
    append_many(&rig, tickets, 0, FRAMES);
    assert_int_equal(journal_durable_position(rig.journal), FRAMES);
    assert_int_equal(
        journal_reader_open(&reader, rig.journal, (struct journal_from[]){journal_from_all(0)}),
        ERR_OK);
    for (uint32_t i = 0; i < FRAMES; i++) {
        assert_int_equal(tickets[i].position, i + 1);
        assert_int_equal(read_one(&rig, reader, i + 1), i);
    }
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.bytes, 0);
    assert_int_equal(backlog.records, 0);
    journal_reader_close(reader);
    rig_finish(&rig);
    mem_free(tickets);
}

static void test_the_next_run_reads_on_from_its_place(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_reader *reader = NULL;
    struct journal_backlog backlog;
    struct ticket tickets[20];
    rig_init(&rig);
    append_many(&rig, tickets, 0, 20);
    rig_close(&rig);
    rig.options.run = 8; /* what it reads was not charged by it */
    rig_open(&rig);
    assert_int_equal(
        journal_reader_open(&reader, rig.journal, (struct journal_from[]){journal_from_all(15)}),
        ERR_OK);
    for (uint32_t i = 15; i < 20; i++) {
        assert_int_equal(read_one(&rig, reader, i + 1), i);
    }
    append_many(&rig, tickets, 20, 1);
    assert_int_equal(read_one(&rig, reader, 21), 20);
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.bytes, 0);
    journal_reader_close(reader);
    assert_int_equal(
        journal_reader_open(&reader, rig.journal, (struct journal_from[]){journal_from_all(1000)}),
        ERR_CORRUPT);
    rig_finish(&rig);
}

static void remove_quarantine(const struct rig *rig, const char *name)
{
    char path[160];
    (void)snprintf(path, sizeof(path), "%s/quarantine/%s", rig->directory, name);
    assert_int_equal(unlink(path), 0);
    (void)snprintf(path, sizeof(path), "%s/quarantine", rig->directory);
    assert_int_equal(rmdir(path), 0);
}

static void test_damage_is_passed_over(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_reader *reader = NULL;
    struct ticket tickets[2];
    jsCtx *js = NULL;
    rig_init(&rig);
    append_many(&rig, tickets, 0, 1);
    natsConnection *connection = nats_server_connect(&rig.server);
    assert_int_equal(natsConnection_JetStream(&js, connection, NULL), NATS_OK);
    uint64_t before = metrics_total(METRIC_JOURNAL_DAMAGED);
    assert_int_equal(js_Publish(NULL, js, "test.frames.1", "no frame at all", 15, NULL, NULL),
                     NATS_OK);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
    append_many(&rig, tickets, 1, 1);
    assert_int_equal(
        journal_reader_open(&reader, rig.journal, (struct journal_from[]){journal_from_all(0)}),
        ERR_OK);
    assert_int_equal(read_one(&rig, reader, 1), 0);
    assert_int_equal(read_one(&rig, reader, 3), 1);
    assert_int_equal(metrics_total(METRIC_JOURNAL_DAMAGED), before + 15);
    journal_reader_close(reader);
    /* The next run reads on behind it, and knows all the same. */
    assert_true(journal_has_damage(rig.journal));
    rig_close(&rig);
    rig_open(&rig);
    assert_true(journal_has_damage(rig.journal));
    remove_quarantine(&rig, "message-2.bad");
    rig_finish(&rig);
}

static void test_a_server_that_goes_and_comes(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_reader *reader = NULL;
    struct ticket tickets[2];
    rig_init(&rig);
    append_many(&rig, tickets, 0, 1);
    assert_int_equal(
        journal_reader_open(&reader, rig.journal, (struct journal_from[]){journal_from_all(0)}),
        ERR_OK);
    assert_int_equal(read_one(&rig, reader, 1), 0);
    nats_server_kill(&rig.server);
    while (journal_room(rig.journal, 5, 1) != ERR_AWAY) {
        nats_Sleep(1);
    }
    assert_int_equal(append(&rig, &tickets[0], 1), ERR_AWAY);
    nats_server_start(&rig.server);
    while (journal_room(rig.journal, 5, 1) != ERR_OK) {
        nats_Sleep(1);
    }
    append_many(&rig, tickets, 1, 2);
    assert_int_equal(read_one(&rig, reader, 2), 1);
    assert_int_equal(read_one(&rig, reader, 3), 2);
    journal_reader_close(reader);
    rig_finish(&rig);
}

/* --- uploads ---------------------------------------------------------------------------------- */

#define BODY_BYTES  ((size_t)3 * 1024 * 1024 + 77)
#define TABLE_BYTES ((size_t)150000)
#define MINUTE_NS   (UINT64_C(60) * 1000000000)
#define HOUR_NS     (UINT64_C(3600) * 1000000000)

/* Compresses to about a half. */
static uint8_t *make_bytes(void)
{
    uint8_t *bytes = mem_alloc(BODY_BYTES);
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < BODY_BYTES; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17; /* xorshift64 */
        bytes[i] = (uint8_t)(x & 15);
    }
    return bytes;
}

static void run_until_room(struct journal_upload *upload, void *context)
{
    (void)upload;
    *(bool *)context = true;
}

static enum err write_upload(struct rig *rig, struct journal_upload *upload, const uint8_t *bytes,
                             size_t size)
{
    size_t step = 100000;
    bool has_room = false;
    journal_upload_on_room(upload, run_until_room, &has_room);
    for (size_t done = 0; done < size; done += step) {
        bool must_pause = false;
        step = size - done < step ? size - done : step;
        enum err err = journal_upload_write(upload, slice_make(bytes + done, step), &must_pause);
        has_room = false;
        while (err == ERR_OK && must_pause && !has_room) {
            mailbox_wait(rig->loop, -1);
            (void)mailbox_run_all(rig->loop);
        }
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

static enum err end_upload(struct rig *rig, struct journal_upload *upload, struct id id)
{
    struct record_upload_end end = {.upload = id, .form = RECORD_FORM_EVENT_LINES};
    struct record_frame record = {.form = RECORD_FORM_UPLOAD_END, .org = 5};
    struct ticket ticket = {.ticket = {.on_durable = on_durable}};
    uint8_t body[RECORD_UPLOAD_END_BYTES];
    struct buffer head;
    record_upload_end_encode(&end, body);
    buffer_init(&head, 4096);
    assert_int_equal(record_frame_encode_head(&record, &head), ERR_OK);
    struct journal_frame_parts parts = {.org = 5,
                                        .form = RECORD_FORM_UPLOAD_END,
                                        .head = buffer_slice(&head),
                                        .body = slice_make(body, sizeof(body))};
    enum err err = journal_upload_end(upload, &parts, &ticket.ticket);
    buffer_finish(&head);
    if (err == ERR_OK) {
        wait_for(rig, &ticket);
        err = ticket.err;
    }
    return err;
}

static struct id make_upload(struct rig *rig, const uint8_t *bytes)
{
    struct journal_upload *upload = NULL;
    struct id id = id_make_v7(1);
    assert_int_equal(journal_upload_begin(&upload, rig->producer, id, 5), ERR_OK);
    assert_int_equal(write_upload(rig, upload, bytes, BODY_BYTES), ERR_OK);
    assert_int_equal(journal_upload_note(upload, slice_make(bytes, TABLE_BYTES)), ERR_OK);
    assert_int_equal(end_upload(rig, upload, id), ERR_OK);
    return id;
}

static void check_upload(struct rig *rig, struct id id, const uint8_t *bytes)
{
    struct journal_upload_reader *reader = NULL;
    struct buffer table;
    uint8_t *found = mem_alloc(BODY_BYTES + 1);
    size_t got = 0;
    assert_int_equal(journal_upload_open(&reader, rig->journal, id), ERR_OK);
    for (size_t i = 0; i < 20; i++) {
        size_t offset = i * 7919 * 1031 % BODY_BYTES;
        size_t left = BODY_BYTES - offset;
        assert_int_equal(journal_upload_read(reader, offset, found, 300000, &got), ERR_OK);
        assert_int_equal(got, left < 300000 ? left : 300000);
        assert_memory_equal(found, bytes + offset, got);
    }
    assert_int_equal(journal_upload_read(reader, 0, found, BODY_BYTES + 1, &got), ERR_OK);
    assert_int_equal(got, BODY_BYTES);
    assert_memory_equal(found, bytes, BODY_BYTES);
    buffer_init(&table, TABLE_BYTES);
    assert_int_equal(journal_upload_table(reader, &table), ERR_OK);
    assert_int_equal(table.size, TABLE_BYTES);
    assert_memory_equal(table.data, bytes, TABLE_BYTES);
    buffer_finish(&table);
    journal_upload_close(reader);
    mem_free(found);
}

static uint64_t messages_of_uploads(const struct rig *rig)
{
    jsCtx *js = NULL;
    jsStreamInfo *info = NULL;
    natsConnection *connection = nats_server_connect(&rig->server);
    assert_int_equal(natsConnection_JetStream(&js, connection, NULL), NATS_OK);
    assert_int_equal(js_GetStreamInfo(&info, js, "test_uploads", NULL, NULL), NATS_OK);
    uint64_t count = info->State.Msgs - 1; /* one says whose the stream is */
    jsStreamInfo_Destroy(info);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
    return count;
}

/* A message of another sender on the subject of an upload. */
static void publish_foreign(const struct rig *rig, struct id id, const char *text)
{
    char subject[64];
    char name[ID_TEXT_BYTES];
    jsCtx *js = NULL;
    natsConnection *connection = nats_server_connect(&rig->server);
    id_format(id, name);
    (void)snprintf(subject, sizeof(subject), "test.uploads.%.*s", ID_TEXT_BYTES, name);
    assert_int_equal(natsConnection_JetStream(&js, connection, NULL), NATS_OK);
    assert_int_equal(js_Publish(NULL, js, subject, text, (int)strlen(text), NULL, NULL), NATS_OK);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
}

/* How many the walk names; the last of them. */
static uint32_t walk(struct rig *rig, struct id *ret)
{
    struct journal_upload_walk *walk = NULL;
    uint32_t count = 0;
    bool has = true;
    assert_int_equal(journal_upload_walk_open(&walk, rig->journal), ERR_OK);
    while (has) {
        assert_int_equal(journal_upload_walk_next(walk, ret, &has), ERR_OK);
        count += has;
    }
    journal_upload_walk_close(walk);
    return count;
}

static void test_an_upload_is_read_at_any_offset(void **state)
{
    (void)state;
    struct rig rig;
    uint8_t *bytes = make_bytes();
    rig_init(&rig);
    struct id id = make_upload(&rig, bytes);
    /* 13 blocks of data, 3 of the table, the index and the end */
    assert_int_equal(messages_of_uploads(&rig), 18);
    check_upload(&rig, id, bytes);
    rig_close(&rig);
    rig_open(&rig);
    check_upload(&rig, id, bytes);
    assert_int_equal(journal_upload_delete(rig.journal, id), ERR_OK);
    assert_int_equal(journal_upload_delete(rig.journal, id), ERR_NOT_FOUND);
    assert_int_equal(messages_of_uploads(&rig), 0);
    rig_finish(&rig);
    mem_free(bytes);
}

static void test_an_aborted_upload_leaves_nothing(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_upload *upload = NULL;
    uint8_t *bytes = make_bytes();
    rig_init(&rig);
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id_make_v7(1), 5), ERR_OK);
    assert_int_equal(write_upload(&rig, upload, bytes, BODY_BYTES), ERR_OK);
    assert_true(messages_of_uploads(&rig) > 0);
    journal_upload_abort(upload);
    (void)make_upload(&rig, bytes); /* is written behind it */
    assert_int_equal(messages_of_uploads(&rig), 18);
    rig_finish(&rig);
    mem_free(bytes);
}

/* Old enough is what no living sender can be at. */
static void test_what_was_never_ended_is_given_up(void **state)
{
    (void)state;
    struct rig rig;
    struct id found;
    uint8_t *bytes = make_bytes();
    rig_init(&rig);
    struct id whole = make_upload(&rig, bytes);
    publish_foreign(&rig, id_make_v7(2), "the first block of a sender that died");
    assert_int_equal(walk(&rig, &found), 0);
    rig_close(&rig);
    clock_shift_ns += 2 * HOUR_NS;
    rig_open(&rig);
    assert_int_equal(walk(&rig, &found), 1);
    assert_true(id_equal(found, whole));
    assert_int_equal(messages_of_uploads(&rig), 19);
    rig_close(&rig);
    clock_shift_ns += 23 * HOUR_NS;
    rig_open(&rig);
    assert_int_equal(walk(&rig, &found), 1);
    assert_int_equal(messages_of_uploads(&rig), 18);
    check_upload(&rig, whole, bytes);
    rig_finish(&rig);
    mem_free(bytes);
}

static void test_who_was_given_up_is_told(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_upload *upload = NULL;
    struct id id = id_make_v7(3);
    uint8_t *bytes = make_bytes();
    rig_init(&rig);
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id, 5), ERR_OK);
    assert_int_equal(write_upload(&rig, upload, bytes, BODY_BYTES / 2), ERR_OK);
    publish_foreign(&rig, id, "");
    enum err err = write_upload(&rig, upload, bytes, BODY_BYTES);
    if (err == ERR_OK) {
        err = end_upload(&rig, upload, id);
    } else {
        journal_upload_abort(upload);
    }
    assert_int_equal(err, ERR_IO);
    assert_int_equal(journal_durable_position(rig.journal), 0); /* no end record */
    rig_finish(&rig);
    mem_free(bytes);
}

static void test_a_stream_is_of_one_store(void **state)
{
    (void)state;
    struct rig rig;
    struct journal *other = NULL;
    struct journal_from none = journal_from_all(0);
    struct err_detail detail = {""};
    rig_init(&rig);
    rig_close(&rig);
    rig.options.nats.store = id_make_v7(1);
    assert_int_equal(journal_open(&other, &rig.options, &none, &detail), ERR_CONFIG);
    assert_non_null(strstr(detail.text, "another store"));
    rig.options.nats.stream = "other";
    rig_open(&rig);
    rig_close(&rig);
    rig.options.nats.stream = "test";
    rig.options.nats.store = (struct id){{0}};
    rig_open(&rig);
    rig_finish(&rig);
}

static uint64_t backlog_bytes(struct rig *rig)
{
    struct journal_backlog backlog;
    journal_backlog(rig->journal, &backlog);
    return backlog.bytes;
}

/* Whoever applies it says so; the word may come twice, or never. */
static void test_an_upload_leaves_the_backlog_once(void **state)
{
    (void)state;
    struct rig rig;
    struct id silent[2];
    uint8_t *bytes = make_bytes();
    rig_init(&rig);
    rig_close(&rig);
    rig.options.nats.is_shared = true;
    rig_open(&rig);
    struct id first = make_upload(&rig, bytes);
    uint64_t of_first = backlog_bytes(&rig);
    struct id second = make_upload(&rig, bytes);
    uint64_t of_both = backlog_bytes(&rig);
    uint64_t end = journal_durable_position(rig.journal);
    rig_stop(&rig); /* nothing else may run when the clock is moved */
    assert_true(of_first > BODY_BYTES / 2 && of_both > of_first);
    journal_credit_upload(rig.journal, id_make_v7(1), 5, BODY_BYTES);
    assert_true(backlog_bytes(&rig) == of_both);
    journal_credit_upload(rig.journal, first, 0, 0);
    uint64_t left = backlog_bytes(&rig);
    assert_true(left < of_both && left > BODY_BYTES / 2);
    journal_credit_upload(rig.journal, first, 0, 0);
    assert_true(backlog_bytes(&rig) == left);

    assert_int_equal(journal_uploads_silent(rig.journal, end, silent, 2), 0); /* a word may come */
    clock_shift_ns += MINUTE_NS;
    assert_int_equal(journal_uploads_silent(rig.journal, end - 1, silent, 2), 0);
    assert_int_equal(journal_uploads_silent(rig.journal, end, silent, 2), 1);
    assert_true(id_equal(silent[0], second));
    assert_int_equal(journal_uploads_silent(rig.journal, end, silent, 2), 0);
    clock_shift_ns += MINUTE_NS;
    assert_int_equal(journal_uploads_silent(rig.journal, end, silent, 2), 1);
    journal_credit_upload(rig.journal, second, 0, 0);
    assert_true(backlog_bytes(&rig) < BODY_BYTES / 2);
    clock_shift_ns += MINUTE_NS;
    assert_int_equal(journal_uploads_silent(rig.journal, end, silent, 2), 0);
    rig_finish(&rig);
    mem_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_durable_is_read_in_order),
        cmocka_unit_test(test_the_next_run_reads_on_from_its_place),
        cmocka_unit_test(test_damage_is_passed_over),
        cmocka_unit_test(test_a_server_that_goes_and_comes),
        cmocka_unit_test(test_an_upload_is_read_at_any_offset),
        cmocka_unit_test(test_an_aborted_upload_leaves_nothing),
        cmocka_unit_test(test_what_was_never_ended_is_given_up),
        cmocka_unit_test(test_who_was_given_up_is_told),
        cmocka_unit_test(test_a_stream_is_of_one_store),
        cmocka_unit_test(test_an_upload_leaves_the_backlog_once),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    nats_Close();
    return failed;
}
