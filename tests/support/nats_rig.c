/* NATS rig: see its header. */
#include "support/nats_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/list.h"
#include "support/journal_place.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

void nats_rig_open(struct nats_rig *rig)
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

void nats_rig_stop(struct nats_rig *rig)
{
    journal_stop(rig->journal);
    for (uint32_t i = 0; i < 3; i++) {
        thread_join(rig->threads[i]);
        rig->threads[i] = NULL;
    }
}

void nats_rig_close(struct nats_rig *rig)
{
    if (rig->threads[0] != NULL) {
        nats_rig_stop(rig);
    }
    (void)mailbox_run_all(rig->loop);
    journal_subscribe(rig->journal, NULL);
    journal_producer_destroy(rig->producer);
    journal_close(rig->journal);
    mailbox_destroy(rig->loop);
    mailbox_destroy(rig->apply);
}

void nats_rig_init(struct nats_rig *rig)
{
    *rig = (struct nats_rig){.producer = NULL};
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
    nats_rig_open(rig);
}

void nats_rig_finish(struct nats_rig *rig)
{
    nats_rig_close(rig);
    nats_server_finish(&rig->server);
    assert_int_equal(rmdir(rig->directory), 0);
    assert_int_equal(rmdir(rig->uploads), 0);
    assert_int_equal(rmdir(rig->root), 0);
}

void nats_rig_on_durable(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    struct nats_ticket *mine = LIST_CONTAINER(ticket, struct nats_ticket, ticket);
    assert_false(mine->is_answered);
    mine->is_answered = true;
    mine->err = err;
    mine->position = position;
}

enum err nats_rig_append(struct nats_rig *rig, struct nats_ticket *ticket, uint32_t number)
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
    *ticket = (struct nats_ticket){.ticket = {.on_durable = nats_rig_on_durable}};
    enum err err = journal_append(rig->producer, &parts, &ticket->ticket);
    buffer_finish(&head);
    return err;
}

void nats_rig_wait(struct nats_rig *rig, const struct nats_ticket *ticket)
{
    while (!ticket->is_answered) {
        mailbox_wait(rig->loop, -1);
        (void)mailbox_run_all(rig->loop);
    }
}

/* Appends frames numbered from `first` on and waits for all of them. */
void nats_rig_append_many(struct nats_rig *rig, struct nats_ticket *tickets, uint32_t first,
                          uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(nats_rig_append(rig, &tickets[i], first + i), ERR_OK);
        if (i % 7 == 0) {
            journal_submit(rig->producer);
        }
    }
    journal_submit(rig->producer);
    for (uint32_t i = 0; i < count; i++) {
        nats_rig_wait(rig, &tickets[i]);
        assert_int_equal(tickets[i].err, ERR_OK);
    }
}

/* The next frame's number; its position must be `position`. */
uint32_t nats_rig_read(struct nats_rig *rig, struct journal_reader *reader, uint64_t position)
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
    journal_tell_applied(rig->journal, record.run, &(struct record_applied){frame.checksum, 1, 1},
                         1);
    return number;
}

void nats_rig_remove_copy(const struct nats_rig *rig, uint64_t sequence)
{
    char path[160];
    (void)snprintf(path, sizeof(path), "%s/quarantine/message-%" PRIu64 ".bad", rig->directory,
                   sequence);
    assert_int_equal(unlink(path), 0);
}

void nats_rig_remove_quarantine(const struct nats_rig *rig)
{
    char path[160];
    (void)snprintf(path, sizeof(path), "%s/quarantine", rig->directory);
    assert_int_equal(rmdir(path), 0);
}

uint64_t nats_rig_messages(const struct nats_rig *rig, const char *stream)
{
    jsCtx *js = NULL;
    jsStreamInfo *info = NULL;
    natsConnection *connection = nats_server_connect(&rig->server);
    assert_int_equal(natsConnection_JetStream(&js, connection, NULL), NATS_OK);
    assert_int_equal(js_GetStreamInfo(&info, js, stream, NULL, NULL), NATS_OK);
    uint64_t count = info->State.Msgs;
    jsStreamInfo_Destroy(info);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
    return count;
}
