/* The apply rig: see its header. */
#include "support/apply_rig.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#define TICKETS_MAX 200000u

struct rig_ticket {
    struct journal_ticket ticket;
    struct apply_rig *rig;
};

void apply_rig_init(struct apply_rig *rig)
{
    *rig = (struct apply_rig){.retention_days = 30, .upload_form = RECORD_FORM_EVENT_LINES};
    assert_int_equal(sem_init(&rig->applied, 0, 0), 0);
    store_fixture_init(&rig->store);
    (void)snprintf(rig->journal_directory, sizeof(rig->journal_directory), "%s/journal",
                   rig->store.directory);
    (void)snprintf(rig->uploads_directory, sizeof(rig->uploads_directory), "%s/uploads",
                   rig->store.directory);
    (void)snprintf(rig->spill, sizeof(rig->spill), "%s/weir.rows", rig->store.directory);
    rig->tickets = mem_alloc_array(TICKETS_MAX, sizeof(struct rig_ticket));
    store_fixture_open(&rig->store, false);
    store_fixture_add_org(&rig->store, 1);
    store_fixture_add_org(&rig->store, 2);
    store_fixture_close(&rig->store);
    apply_rig_open(rig);
}

void apply_rig_open(struct apply_rig *rig)
{
    struct err_detail detail = {""};
    struct journal_state state;
    struct journal_from cursors = journal_from_all(0);
    uint64_t base = 0;
    struct journal_options options = {.directory = rig->journal_directory,
                                      .uploads_directory = rig->uploads_directory,
                                      .segment_bytes = 1u << 20u,
                                      .backlog_bytes_max = 1ull << 30u,
                                      .producer_count = 1};
    rig->store.appliers = 4;
    store_fixture_open(&rig->store, true);
    if (journal_identify(rig->journal_directory, &state.id) == ERR_OK) {
        assert_int_equal(apply_take_over(rig->store.store, state.id, &cursors), ERR_OK);
    }
    if (journal_open(&rig->journal, &options, &cursors, &detail) != ERR_OK) {
        fail_msg("journal_open: %s", detail.text);
    }
    journal_state(rig->journal, &state);
    assert_int_equal(apply_base(rig->store.store, state.id, state.is_new, &base), ERR_OK);
    assert_int_equal(journal_start(rig->journal, base, &detail), ERR_OK);
    assert_int_equal(
        thread_start(&rig->journal_threads[0], "commit", journal_committer_run, rig->journal),
        ERR_OK);
    assert_int_equal(
        thread_start(&rig->journal_threads[1], "prepare", journal_preparer_run, rig->journal),
        ERR_OK);
    assert_int_equal(
        thread_start(&rig->journal_threads[2], "upload", journal_uploader_run, rig->journal),
        ERR_OK);
    assert_int_equal(mailbox_create(&rig->mailbox, 10000), ERR_OK);
    assert_int_equal(journal_producer_create(&rig->producer, rig->journal, 0, rig->mailbox),
                     ERR_OK);
    rig->ticket_count = 0;
    rig->durable_count = 0;
}

void apply_rig_close(struct apply_rig *rig)
{
    apply_rig_stop(rig);
    if (rig->journal != NULL) {
        apply_rig_flush(rig);
        journal_stop(rig->journal);
        for (int i = 0; i < 3; i++) {
            thread_join(rig->journal_threads[i]);
            rig->journal_threads[i] = NULL;
        }
        (void)mailbox_run_all(rig->mailbox);
    }
    journal_producer_destroy(rig->producer);
    rig->producer = NULL;
    journal_close(rig->journal);
    rig->journal = NULL;
    mailbox_destroy(rig->mailbox);
    rig->mailbox = NULL;
    store_fixture_close(&rig->store);
}

void apply_rig_finish(struct apply_rig *rig)
{
    apply_rig_close(rig);
    store_fixture_finish(&rig->store);
    (void)sem_destroy(&rig->applied);
    mem_free(rig->tickets);
}

static void on_result(void *owner, uint64_t waiter, const struct record_result *result)
{
    struct apply_rig *rig = owner;
    assert_true(waiter < APPLY_RIG_RESULTS);
    assert_false(rig->has_result[waiter]);
    rig->results[waiter] = *result;
    rig->has_result[waiter] = true;
}

static void on_applied(void *owner, uint64_t position, const uint64_t *orgs, uint32_t org_count)
{
    (void)orgs;
    (void)org_count;
    struct apply_rig *rig = owner;
    rig->position_seen = position;
    rig->on_applied_calls++;
    (void)sem_post(&rig->applied);
}

void apply_rig_prepare(struct apply_rig *rig)
{
    struct err_detail detail = {""};
    struct apply_options options = {.journal = rig->journal,
                                    .store = rig->store.store,
                                    .batch_size = 50,
                                    .batch_timeout_ms = 500,
                                    .appliers = rig->appliers,
                                    .is_exclusive = true,
                                    .run = APPLY_RIG_RUN,
                                    .raw_retention_days = rig->retention_days,
                                    .is_alone = !rig->store.is_postgres,
                                    .spill = rig->store.is_postgres ? NULL : rig->spill,
                                    .owner = rig,
                                    .on_result = on_result,
                                    .on_applied = on_applied};
    if (apply_open(&rig->apply, &options, &detail) != ERR_OK) {
        fail_msg("apply_open: %s", detail.text);
    }
}

void apply_rig_start(struct apply_rig *rig)
{
    apply_rig_prepare(rig);
    for (uint32_t i = 0; i < apply_count(rig->apply); i++) {
        assert_int_equal(
            thread_start(&rig->apply_threads[i], "apply", apply_run, apply_applier(rig->apply, i)),
            ERR_OK);
    }
}

void apply_rig_stop(struct apply_rig *rig)
{
    if (rig->apply != NULL) {
        apply_stop(rig->apply);
        for (uint32_t i = 0; i < apply_count(rig->apply) && rig->apply_threads[i] != NULL; i++) {
            thread_join(rig->apply_threads[i]);
            rig->apply_threads[i] = NULL;
        }
        apply_close(rig->apply);
        rig->apply = NULL;
    }
}

static void on_durable(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    struct apply_rig *rig = ((struct rig_ticket *)ticket)->rig;
    assert_int_equal(err, ERR_OK);
    rig->durable_count++;
    if (position > rig->last_position) {
        rig->last_position = position;
    }
}

static struct journal_ticket *next_ticket(struct apply_rig *rig)
{
    assert_true(rig->ticket_count < TICKETS_MAX);
    struct rig_ticket *ticket = (struct rig_ticket *)rig->tickets + rig->ticket_count++;
    *ticket = (struct rig_ticket){.ticket = {.on_durable = on_durable}, .rig = rig};
    return &ticket->ticket;
}

void apply_rig_append_bytes(struct apply_rig *rig, const struct record_frame *frame)
{
    struct buffer head;
    buffer_init(&head, 1u << 16u);
    assert_int_equal(record_frame_encode_head(frame, &head), ERR_OK);
    struct journal_frame_parts parts = {.org = frame->org,
                                        .lane = frame->lane,
                                        .form = frame->form,
                                        .record_count = frame->record_count,
                                        .head = buffer_slice(&head),
                                        .body = frame->body};
    enum err err;
    while ((err = journal_append(rig->producer, &parts, next_ticket(rig))) == ERR_FULL) {
        rig->ticket_count--;
        apply_rig_flush(rig);
    }
    assert_int_equal(err, ERR_OK);
    buffer_finish(&head);
}

void apply_rig_append(struct apply_rig *rig, enum record_form form, uint64_t org, const char *body,
                      uint32_t record_count, uint64_t waiter)
{
    static struct record_frame frame;
    int64_t now_ms = clock_wall_ms();
    frame = (struct record_frame){.form = (uint8_t)form,
                                  .lane = RECORD_LANE_MIXED,
                                  .org = org,
                                  .key = 1,
                                  .received_ms = now_ms,
                                  .id = id_make_v7(now_ms),
                                  .waiter = waiter,
                                  .run = APPLY_RIG_RUN,
                                  .record_count = record_count,
                                  .body = slice_from_text(body)};
    apply_rig_append_bytes(rig, &frame);
}

void apply_rig_flush(struct apply_rig *rig)
{
    journal_submit(rig->producer);
    while (rig->durable_count < rig->ticket_count) {
        mailbox_wait(rig->mailbox, -1);
        (void)mailbox_run_all(rig->mailbox);
    }
}

static void note_slices(struct journal_upload *upload, struct slice lines, uint32_t slice_elements,
                        struct record_upload_end *end)
{
    uint8_t bytes[RECORD_SLICE_BYTES];
    struct record_slice slice = {0, 0, 0};
    for (uint64_t at = 0; at < lines.size;) {
        uint64_t next = at + slice_find(slice_part(lines, at, lines.size), '\n') + 1;
        slice.count++;
        end->element_count++;
        at = next;
        if (slice.count == slice_elements || at >= lines.size) {
            record_slice_encode(&slice, bytes);
            assert_int_equal(journal_upload_note(upload, slice_make(bytes, sizeof(bytes))), ERR_OK);
            end->slice_count++;
            slice = (struct record_slice){at, end->element_count, 0};
        }
    }
    end->accepted_count = end->element_count;
}

static void write_all(struct apply_rig *rig, struct journal_upload *upload, struct slice lines)
{
    for (size_t at = 0; at < lines.size; at += 100000) {
        bool must_pause = false;
        struct slice chunk = slice_part(lines, at, at + 100000);
        assert_int_equal(journal_upload_write(upload, chunk, &must_pause), ERR_OK);
        if (must_pause) {
            mailbox_wait(rig->mailbox, 1);
            (void)mailbox_run_all(rig->mailbox);
        }
    }
}

struct id apply_rig_upload(struct apply_rig *rig, uint64_t org, struct slice lines,
                           uint32_t slice_elements, uint64_t waiter)
{
    static struct record_frame frame;
    static uint8_t body[RECORD_UPLOAD_END_BYTES];
    struct journal_upload *upload = NULL;
    struct buffer head;
    int64_t now_ms = clock_wall_ms();
    struct id id = id_make_v7(now_ms);
    struct record_upload_end end = {
        .upload = id, .form = (uint8_t)rig->upload_form, .decoded_bytes = lines.size};
    assert_int_equal(journal_upload_begin(&upload, rig->producer, id, org), ERR_OK);
    write_all(rig, upload, lines);
    note_slices(upload, lines, slice_elements, &end);
    record_upload_end_encode(&end, body);
    frame = (struct record_frame){.form = RECORD_FORM_UPLOAD_END,
                                  .lane = RECORD_LANE_MIXED,
                                  .org = org,
                                  .received_ms = now_ms,
                                  .id = id,
                                  .waiter = waiter,
                                  .run = APPLY_RIG_RUN,
                                  .record_count = (uint32_t)end.accepted_count,
                                  .body = slice_make(body, sizeof(body))};
    buffer_init(&head, 1u << 16u);
    assert_int_equal(record_frame_encode_head(&frame, &head), ERR_OK);
    struct journal_frame_parts parts = {.org = org,
                                        .lane = RECORD_LANE_MIXED,
                                        .form = RECORD_FORM_UPLOAD_END,
                                        .record_count = frame.record_count,
                                        .head = buffer_slice(&head),
                                        .body = frame.body};
    assert_int_equal(journal_upload_end(upload, &parts, next_ticket(rig)), ERR_OK);
    while (rig->durable_count < rig->ticket_count) {
        journal_submit(rig->producer);
        mailbox_wait(rig->mailbox, -1);
        (void)mailbox_run_all(rig->mailbox);
        journal_submit(rig->producer);
    }
    buffer_finish(&head);
    return id;
}

void apply_rig_wait(struct apply_rig *rig)
{
    apply_rig_flush(rig);
    while (apply_position(rig->apply) < rig->last_position) {
        assert_int_equal(sem_wait(&rig->applied), 0);
    }
}

const struct record_result *apply_rig_result(struct apply_rig *rig, uint64_t waiter)
{
    apply_rig_flush(rig);
    do {
        assert_int_equal(sem_wait(&rig->applied), 0);
    } while (!rig->has_result[waiter]);
    return &rig->results[waiter];
}

int64_t apply_rig_number(struct apply_rig *rig, const char *sql)
{
    return store_fixture_number(&rig->store, sql);
}
