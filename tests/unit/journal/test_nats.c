/* Promise: with its frames in a JetStream stream the journal keeps what the local one promises:
 * what a ticket called durable is read again once, in order of its position, from any place on,
 * by this run and by the next; what is damaged is passed over, and another stream of the same name
 * is never taken for this one.
 * Large bodies are in a stream of their own: read back byte for byte, and what was never ended
 * goes. link: nats_rig.c nats_server.c clock_shift.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/metrics.h"
#include "journal/internal.h"
#include "support/clock_shift.h"
#include "support/nats_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAMES 3000u
#define RUN    UINT64_C(16) /* frames in a message */

static void test_what_is_durable_is_read_in_order(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct journal_reader *reader = NULL;
    struct journal_backlog backlog;
    struct nats_ticket *tickets = mem_alloc_array(FRAMES, sizeof(*tickets));
    nats_rig_init(&rig);
    nats_rig_append_many(&rig, tickets, 0, FRAMES);
    assert_int_equal(journal_durable_position(rig.journal), tickets[FRAMES - 1].position);
    assert_int_equal(
        journal_reader_open(&reader, rig.journal, (struct journal_from[]){journal_from_all(0)}),
        ERR_OK);
    for (uint32_t i = 0; i < FRAMES; i++) {
        assert_true(tickets[i].position > (i == 0 ? 0 : tickets[i - 1].position));
        assert_int_equal(nats_rig_read(&rig, reader, tickets[i].position), i);
    }
    do { /* the committer's thread hears that they are applied */
        nats_Sleep(1);
        journal_backlog(rig.journal, &backlog);
    } while (backlog.records != 0);
    assert_int_equal(backlog.bytes, 0);
    journal_reader_close(reader);
    nats_rig_finish(&rig);
    mem_free(tickets);
}

static void test_the_next_run_reads_on_from_its_place(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct journal_reader *reader = NULL;
    struct journal_backlog backlog;
    struct nats_ticket tickets[20];
    struct nats_ticket another;
    nats_rig_init(&rig);
    nats_rig_append_many(&rig, tickets, 0, 20);
    nats_rig_close(&rig);
    rig.options.run = 8; /* what it reads was not charged by it */
    nats_rig_open(&rig);
    /* Frames 8 to 14 were one batch: the place is within a message, unless 16 ended before it. */
    struct journal_from from = journal_from_all(tickets[10].position);
    assert_int_equal(journal_reader_open(&reader, rig.journal, &from), ERR_OK);
    for (uint32_t i = 11; i < 20; i++) {
        assert_int_equal(nats_rig_read(&rig, reader, tickets[i].position), i);
        journal_backlog(rig.journal, &backlog);
        assert_true(i == 19 || backlog.records > 0); /* zero is: all of it is in the store */
    }
    nats_rig_append_many(&rig, &another, 20, 1);
    assert_int_equal(nats_rig_read(&rig, reader, another.position), 20);
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.bytes, 0);
    journal_reader_close(reader);
    assert_int_equal(
        journal_reader_open(&reader, rig.journal, (struct journal_from[]){journal_from_all(1000)}),
        ERR_CORRUPT);
    nats_rig_finish(&rig);
}

static void test_damage_is_passed_over(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct journal_reader *reader = NULL;
    struct nats_ticket tickets[2];
    jsCtx *js = NULL;
    nats_rig_init(&rig);
    nats_rig_append_many(&rig, tickets, 0, 1);
    natsConnection *connection = nats_server_connect(&rig.server);
    assert_int_equal(natsConnection_JetStream(&js, connection, NULL), NATS_OK);
    uint64_t before = metrics_total(METRIC_JOURNAL_DAMAGED);
    assert_int_equal(js_Publish(NULL, js, "test.frames.1", "no frame at all", 15, NULL, NULL),
                     NATS_OK);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
    nats_rig_append_many(&rig, tickets, 1, 1);
    assert_int_equal(
        journal_reader_open(&reader, rig.journal, (struct journal_from[]){journal_from_all(0)}),
        ERR_OK);
    assert_int_equal(nats_rig_read(&rig, reader, RUN), 0);
    assert_int_equal(nats_rig_read(&rig, reader, 3 * RUN), 1);
    assert_int_equal(metrics_total(METRIC_JOURNAL_DAMAGED), before + 15);
    journal_reader_close(reader);
    /* The next run reads on behind it, and knows all the same. */
    assert_true(journal_has_damage(rig.journal));
    nats_rig_close(&rig);
    nats_rig_open(&rig);
    assert_true(journal_has_damage(rig.journal));
    nats_rig_remove_copy(&rig, 2);
    nats_rig_remove_quarantine(&rig);
    nats_rig_finish(&rig);
}

static void test_a_server_that_goes_and_comes(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct journal_reader *reader = NULL;
    struct nats_ticket tickets[2];
    nats_rig_init(&rig);
    nats_rig_append_many(&rig, tickets, 0, 1);
    assert_int_equal(
        journal_reader_open(&reader, rig.journal, (struct journal_from[]){journal_from_all(0)}),
        ERR_OK);
    assert_int_equal(nats_rig_read(&rig, reader, RUN), 0);
    nats_server_kill(&rig.server);
    while (journal_room(rig.journal, 5, 1) != ERR_AWAY) {
        nats_Sleep(1);
    }
    assert_int_equal(nats_rig_append(&rig, &tickets[0], 1), ERR_AWAY);
    nats_server_start(&rig.server);
    while (journal_room(rig.journal, 5, 1) != ERR_OK) {
        nats_Sleep(1);
    }
    nats_rig_append_many(&rig, tickets, 1, 2);
    assert_int_equal(nats_rig_read(&rig, reader, tickets[0].position), 1);
    assert_int_equal(nats_rig_read(&rig, reader, tickets[1].position), 2);
    journal_reader_close(reader);
    nats_rig_finish(&rig);
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

static enum err write_upload(struct nats_rig *rig, struct journal_upload *upload,
                             const uint8_t *bytes, size_t size)
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

static enum err end_upload(struct nats_rig *rig, struct journal_upload *upload, struct id id)
{
    struct record_upload_end end = {.upload = id, .form = RECORD_FORM_EVENT_LINES};
    struct record_frame record = {.form = RECORD_FORM_UPLOAD_END, .org = 5};
    struct nats_ticket ticket = {.ticket = {.on_durable = nats_rig_on_durable}};
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
        nats_rig_wait(rig, &ticket);
        err = ticket.err;
    }
    return err;
}

static struct id make_upload(struct nats_rig *rig, const uint8_t *bytes)
{
    struct journal_upload *upload = NULL;
    struct id id = id_make_v7(1);
    assert_int_equal(journal_upload_begin(&upload, rig->producer, id, 5), ERR_OK);
    assert_int_equal(write_upload(rig, upload, bytes, BODY_BYTES), ERR_OK);
    assert_int_equal(journal_upload_note(upload, slice_make(bytes, TABLE_BYTES)), ERR_OK);
    assert_int_equal(end_upload(rig, upload, id), ERR_OK);
    return id;
}

static void check_upload(struct nats_rig *rig, struct id id, const uint8_t *bytes)
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

static uint64_t messages_of_uploads(const struct nats_rig *rig)
{
    return nats_rig_messages(rig, "test_uploads") - 1; /* one says whose the stream is */
}

/* A message of another sender on the subject of an upload. */
static void publish_foreign(const struct nats_rig *rig, struct id id, const char *text)
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
static uint32_t walk(struct nats_rig *rig, struct id *ret)
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
    struct nats_rig rig;
    uint8_t *bytes = make_bytes();
    nats_rig_init(&rig);
    struct id id = make_upload(&rig, bytes);
    /* 13 blocks of data, 3 of the table, the index and the end */
    assert_int_equal(messages_of_uploads(&rig), 18);
    check_upload(&rig, id, bytes);
    nats_rig_close(&rig);
    nats_rig_open(&rig);
    check_upload(&rig, id, bytes);
    assert_int_equal(journal_upload_delete(rig.journal, id), ERR_OK);
    assert_int_equal(journal_upload_delete(rig.journal, id), ERR_NOT_FOUND);
    assert_int_equal(messages_of_uploads(&rig), 0);
    nats_rig_finish(&rig);
    mem_free(bytes);
}

static void test_an_aborted_upload_leaves_nothing(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct journal_upload *upload = NULL;
    uint8_t *bytes = make_bytes();
    nats_rig_init(&rig);
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id_make_v7(1), 5), ERR_OK);
    assert_int_equal(write_upload(&rig, upload, bytes, BODY_BYTES), ERR_OK);
    assert_true(messages_of_uploads(&rig) > 0);
    journal_upload_abort(upload);
    (void)make_upload(&rig, bytes); /* is written behind it */
    assert_int_equal(messages_of_uploads(&rig), 18);
    nats_rig_finish(&rig);
    mem_free(bytes);
}

/* Old enough is what no living sender can be at. */
static void test_what_was_never_ended_is_given_up(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct id found;
    uint8_t *bytes = make_bytes();
    nats_rig_init(&rig);
    struct id whole = make_upload(&rig, bytes);
    publish_foreign(&rig, id_make_v7(2), "the first block of a sender that died");
    assert_int_equal(walk(&rig, &found), 0);
    nats_rig_close(&rig);
    clock_shift_ns += 2 * HOUR_NS;
    nats_rig_open(&rig);
    assert_int_equal(walk(&rig, &found), 1);
    assert_true(id_equal(found, whole));
    assert_int_equal(messages_of_uploads(&rig), 19);
    nats_rig_close(&rig);
    clock_shift_ns += 23 * HOUR_NS;
    nats_rig_open(&rig);
    assert_int_equal(walk(&rig, &found), 1);
    assert_int_equal(messages_of_uploads(&rig), 18);
    check_upload(&rig, whole, bytes);
    nats_rig_finish(&rig);
    mem_free(bytes);
}

static void test_who_was_given_up_is_told(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct journal_upload *upload = NULL;
    struct id id = id_make_v7(3);
    uint8_t *bytes = make_bytes();
    nats_rig_init(&rig);
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
    nats_rig_finish(&rig);
    mem_free(bytes);
}

static void test_a_stream_is_of_one_store(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct journal *other = NULL;
    struct journal_from none = journal_from_all(0);
    struct err_detail detail = {""};
    nats_rig_init(&rig);
    nats_rig_close(&rig);
    rig.options.nats.store = id_make_v7(1);
    assert_int_equal(journal_open(&other, &rig.options, &none, &detail), ERR_CONFIG);
    assert_non_null(strstr(detail.text, "another store"));
    rig.options.nats.stream = "other";
    nats_rig_open(&rig);
    nats_rig_close(&rig);
    rig.options.nats.stream = "test";
    rig.options.nats.store = (struct id){{0}};
    nats_rig_open(&rig);
    nats_rig_finish(&rig);
}

static uint64_t backlog_bytes(struct nats_rig *rig)
{
    struct journal_backlog backlog;
    journal_backlog(rig->journal, &backlog);
    return backlog.bytes;
}

/* Whoever applies it says so; the word may come twice, or never. */
static void test_an_upload_leaves_the_backlog_once(void **state)
{
    (void)state;
    struct nats_rig rig;
    struct id silent[2];
    uint8_t *bytes = make_bytes();
    nats_rig_init(&rig);
    nats_rig_close(&rig);
    rig.options.nats.is_shared = true;
    nats_rig_open(&rig);
    struct id first = make_upload(&rig, bytes);
    uint64_t of_first = backlog_bytes(&rig);
    struct id second = make_upload(&rig, bytes);
    uint64_t of_both = backlog_bytes(&rig);
    uint64_t end = journal_durable_position(rig.journal);
    nats_rig_stop(&rig); /* nothing else may run when the clock is moved */
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
    nats_rig_finish(&rig);
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
