/* Promise: with its threads, several producers and a reader that follows, every ticket is answered
 * once, positions follow each other without a gap, each producer's frames keep their order, and the
 * reader sees exactly what was answered.
 * link: journal_rig.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/thread.h"
#include "support/journal_rig.h"

#include <assert.h>

enum { PRODUCERS = 3, FRAMES = 6000, BODY_MAX = 2000, UPLOADS = 3, UPLOAD_BYTES = 3000000 };

struct loop {
    struct rig *rig;
    uint32_t index;
    struct mailbox *mailbox;
    struct journal_producer *producer;
    struct thread *thread;
    uint32_t answered;
    uint64_t positions[FRAMES];
    uint32_t uploads_done;
};

struct frame_ticket {
    struct journal_ticket ticket;
    struct loop *loop;
    uint32_t number;
};

static void on_durable(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    struct frame_ticket *mine = LIST_CONTAINER(ticket, struct frame_ticket, ticket);
    assert(err == ERR_OK && mine->loop->positions[mine->number] == 0);
    mine->loop->positions[mine->number] = position;
    mine->loop->answered++;
}

static void on_upload(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    struct frame_ticket *mine = LIST_CONTAINER(ticket, struct frame_ticket, ticket);
    assert(err == ERR_OK && position > 0);
    mine->loop->uploads_done++;
}

static void append_one(struct loop *loop, struct frame_ticket *ticket, uint32_t number)
{
    uint8_t body[BODY_MAX];
    size_t size = 8 + (number * 131u) % (BODY_MAX - 8);
    memset(body, (int)number, sizeof(body));
    buffer_put_u32(body, loop->index);
    buffer_put_u32(body + 4, number);
    *ticket = (struct frame_ticket){{NULL, on_durable}, loop, number};
    struct journal_frame_parts parts = {
        .org = loop->index, .record_count = 1, .form = 1, .body = slice_make(body, size)};
    enum err err = journal_append(loop->producer, &parts, &ticket->ticket);
    assert(err == ERR_OK);
}

static void upload_one(struct loop *loop, struct frame_ticket *ticket)
{
    struct journal_upload *upload = NULL;
    struct id id = id_make_v7(1);
    struct record_upload_end end = {.upload = id};
    struct record_frame record = {.form = RECORD_FORM_UPLOAD_END};
    struct buffer head;
    uint8_t body[RECORD_UPLOAD_END_BYTES];
    static const uint8_t bytes[65536];
    enum err err = journal_upload_begin(&upload, loop->producer, id, loop->index);
    for (size_t done = 0; done < UPLOAD_BYTES && err == ERR_OK; done += sizeof(bytes)) {
        bool must_pause = false;
        err = journal_upload_write(upload, slice_make(bytes, sizeof(bytes)), &must_pause);
        if (must_pause) {
            mailbox_wait(loop->mailbox, 100);
        }
        (void)mailbox_run_all(loop->mailbox);
    }
    assert(err == ERR_OK);
    record_upload_end_encode(&end, body);
    buffer_init(&head, 4096);
    err = record_frame_encode_head(&record, &head);
    assert(err == ERR_OK);
    struct journal_frame_parts parts = {.org = loop->index,
                                        .form = RECORD_FORM_UPLOAD_END,
                                        .head = buffer_slice(&head),
                                        .body = slice_make(body, sizeof(body))};
    *ticket = (struct frame_ticket){{NULL, on_upload}, loop, 0};
    err = journal_upload_end(upload, &parts, &ticket->ticket);
    assert(err == ERR_OK);
    buffer_finish(&head);
}

/* Rounds of one to ten frames, as a loop has them. */
static void loop_run(void *argument)
{
    struct loop *loop = argument;
    struct frame_ticket *tickets = mem_alloc_array(FRAMES, sizeof(*tickets));
    struct frame_ticket uploads[UPLOADS];
    uint32_t next = 0;
    uint32_t uploads_begun = 0;
    while (loop->answered < FRAMES || loop->uploads_done < UPLOADS) {
        for (uint32_t i = 0; i < 1 + next % 10 && next < FRAMES; i++) {
            append_one(loop, &tickets[next], next);
            next++;
        }
        journal_submit(loop->producer);
        if (uploads_begun < UPLOADS && next > uploads_begun * 1000) {
            upload_one(loop, &uploads[uploads_begun++]);
        }
        if (next == FRAMES) {
            mailbox_wait(loop->mailbox, 100);
        }
        (void)mailbox_run_all(loop->mailbox);
    }
    mem_free(tickets);
}

/* Reads until every producer's last frame was seen; credits and releases as apply does. */
static void read_all(struct rig *rig, struct mailbox *mailbox)
{
    struct journal_reader *reader = NULL;
    struct journal_frame frame;
    uint32_t next[PRODUCERS] = {0};
    uint64_t last = 0;
    uint64_t seen = 0;
    bool has = false;
    assert_int_equal(
        journal_reader_open(&reader, rig->journal, (struct journal_from[]){journal_from_all(0)}),
        ERR_OK);
    while (seen < (uint64_t)PRODUCERS * (FRAMES + UPLOADS)) {
        assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
        if (!has) {
            journal_release(rig->journal, last);
            mailbox_wait(mailbox, 100);
            continue;
        }
        assert_int_equal(frame.position, last + 1);
        assert_true(frame.position <= journal_durable_position(rig->journal));
        last = frame.position;
        seen++;
        if (frame.form != RECORD_FORM_UPLOAD_END) {
            uint32_t index = buffer_get_u32(frame.bytes_slice.data);
            assert_true(index < PRODUCERS);
            assert_int_equal(buffer_get_u32(frame.bytes_slice.data + 4), next[index]);
            next[index]++;
        }
        journal_credit(rig->journal, frame.org, frame.bytes, frame.record_count);
    }
    journal_reader_close(reader);
}

static void test_producers_and_reader(void **state)
{
    (void)state;
    static struct loop loops[PRODUCERS];
    struct rig rig;
    struct mailbox *mailbox = NULL;
    struct thread *threads[3] = {NULL};
    struct err_detail detail;
    struct journal_backlog backlog;
    rig_init(&rig);
    rig.options.producer_count = PRODUCERS;
    assert_int_equal(mailbox_create(&mailbox, 16), ERR_OK);
    assert_int_equal(journal_open(&rig.journal, &rig.options,
                                  (struct journal_from[]){journal_from_all(0)}, &detail),
                     ERR_OK);
    assert_int_equal(journal_start(rig.journal, 0, &detail), ERR_OK);
    journal_subscribe(rig.journal, mailbox);
    assert_int_equal(thread_start(&threads[0], "committer", journal_committer_run, rig.journal),
                     ERR_OK);
    assert_int_equal(thread_start(&threads[1], "preparer", journal_preparer_run, rig.journal),
                     ERR_OK);
    assert_int_equal(thread_start(&threads[2], "uploader", journal_uploader_run, rig.journal),
                     ERR_OK);
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        loops[i] = (struct loop){.rig = &rig, .index = i};
        assert_int_equal(mailbox_create(&loops[i].mailbox, 1024), ERR_OK);
        assert_int_equal(
            journal_producer_create(&loops[i].producer, rig.journal, i, loops[i].mailbox), ERR_OK);
        assert_int_equal(thread_start(&loops[i].thread, "loop", loop_run, &loops[i]), ERR_OK);
    }
    read_all(&rig, mailbox);
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        thread_join(loops[i].thread);
        for (uint32_t k = 1; k < FRAMES; k++) {
            assert_true(loops[i].positions[k] > loops[i].positions[k - 1]);
        }
    }
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.records, 0);
    journal_stop(rig.journal);
    for (uint32_t i = 0; i < 3; i++) {
        thread_join(threads[i]);
    }
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        (void)mailbox_run_all(loops[i].mailbox);
        journal_producer_destroy(loops[i].producer);
        mailbox_destroy(loops[i].mailbox);
    }
    journal_close(rig.journal);
    rig.journal = NULL;
    struct journal_check_report report;
    assert_int_equal(journal_check(rig.directory, &report, NULL, NULL, NULL, &detail), ERR_OK);
    assert_true(report.clean && report.damaged_bytes == 0 && report.torn_bytes == 0);
    assert_int_equal(report.last_position, PRODUCERS * (FRAMES + UPLOADS));
    mailbox_destroy(mailbox);
    rig_finish(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_producers_and_reader)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
