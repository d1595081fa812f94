/* Promise (R3): whichever call fails, once or from then on, nothing is called durable that recovery
 * does not find, nothing that was answered as failed comes back in place of something else, every
 * ticket is answered, and when calls work again the journal goes on by itself.
 * link: sys_fault.c mem_fault.c journal_rig.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "support/journal_rig.h"
#include "support/mem_fault.h"
#include "support/sys_fault.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum { FRAMES = 30, UPLOAD_BYTES = 700000 };

static uint32_t numbers[RIG_FRAMES_MAX];
static uint64_t positions[RIG_FRAMES_MAX];

struct story {
    struct rig rig;
    bool was_appended[FRAMES];
    uint32_t tickets[FRAMES];
    bool upload_is_durable;
    struct id upload;
    uint8_t *bytes;
};

struct upload_ticket {
    struct journal_ticket ticket;
    bool is_answered;
    enum err err;
};

static void on_upload(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    struct upload_ticket *mine = LIST_CONTAINER(ticket, struct upload_ticket, ticket);
    (void)position;
    mine->is_answered = true;
    mine->err = err;
}

static void story_append(struct story *story, uint32_t number)
{
    uint8_t body[300];
    size_t size = 8 + number * 9;
    buffer_put_u32(body, number);
    buffer_put_u32(body + 4, (uint32_t)size);
    for (size_t i = 8; i < size; i++) {
        body[i] = (uint8_t)(number + i);
    }
    story->was_appended[number] =
        rig_try_append(&story->rig, 1, slice_make(body, size), &story->tickets[number]) == ERR_OK;
}

static void story_upload(struct story *story)
{
    struct journal_upload *upload = NULL;
    struct upload_ticket ticket = {.ticket.on_durable = on_upload};
    struct record_upload_end end = {.upload = story->upload};
    struct record_frame record = {.form = RECORD_FORM_UPLOAD_END, .org = 1};
    uint8_t body[RECORD_UPLOAD_END_BYTES];
    uint8_t head_bytes[256];
    struct buffer head = {head_bytes, 0, sizeof(head_bytes), sizeof(head_bytes)};
    bool must_pause = false;
    if (journal_upload_begin(&upload, story->rig.producer, story->upload, 1) != ERR_OK) {
        return;
    }
    if (journal_upload_write(upload, slice_make(story->bytes, UPLOAD_BYTES), &must_pause) !=
            ERR_OK ||
        journal_upload_note(upload, slice_make(story->bytes, 100)) != ERR_OK) {
        journal_upload_abort(upload);
        return;
    }
    rig_run(&story->rig);
    record_upload_end_encode(&end, body);
    assert_int_equal(record_frame_encode_head(&record, &head), ERR_OK);
    struct journal_frame_parts parts = {.org = 1,
                                        .form = RECORD_FORM_UPLOAD_END,
                                        .head = buffer_slice(&head),
                                        .body = slice_make(body, sizeof(body))};
    if (journal_upload_end(upload, &parts, &ticket.ticket) == ERR_OK) {
        rig_run(&story->rig);
        assert_true(ticket.is_answered);
        story->upload_is_durable = ticket.err == ERR_OK;
    }
}

/* Everything appended was answered; what was answered as durable is there, and only what was
 * appended is, in its order, each at most once. */
static void story_check(struct story *story, uint64_t applied)
{
    uint32_t count = rig_read(&story->rig, applied, numbers, positions, RIG_FRAMES_MAX);
    uint32_t at = 0;
    uint32_t last = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (numbers[i] == UINT32_MAX) { /* the upload's end record */
            continue;
        }
        assert_true(numbers[i] < FRAMES && story->was_appended[numbers[i]]);
        assert_true(last == 0 || numbers[i] + 1 > last);
        last = numbers[i] + 1;
    }
    for (uint32_t i = 0; i < FRAMES; i++) {
        if (!story->was_appended[i]) {
            continue;
        }
        const struct rig_ticket *ticket = &story->rig.tickets[story->tickets[i]];
        assert_true(ticket->is_answered);
        if (ticket->err != ERR_OK || ticket->position <= applied) {
            continue;
        }
        while (at < count && positions[at] < ticket->position) {
            at++;
        }
        assert_true(at < count && positions[at] == ticket->position);
        assert_int_equal(numbers[at], i);
    }
}

static void story_check_upload(struct story *story)
{
    struct journal_upload_reader *reader = NULL;
    uint8_t *found = mem_alloc(UPLOAD_BYTES);
    size_t size = 0;
    assert_int_equal(journal_upload_open(&reader, story->rig.journal, story->upload), ERR_OK);
    assert_int_equal(journal_upload_read(reader, 0, found, UPLOAD_BYTES, &size), ERR_OK);
    assert_int_equal(size, UPLOAD_BYTES);
    assert_memory_equal(found, story->bytes, UPLOAD_BYTES);
    journal_upload_close(reader);
    mem_free(found);
}

static void story_init(struct story *story)
{
    *story = (struct story){.upload_is_durable = false};
    story->upload.bytes[0] = 7;
    rig_init_in_memory(&story->rig);
    story->bytes = mem_alloc(UPLOAD_BYTES);
    for (size_t i = 0; i < UPLOAD_BYTES; i++) {
        story->bytes[i] = (uint8_t)(i * i >> 7);
    }
}

static void story_finish(struct story *story)
{
    rig_finish(&story->rig);
    mem_free(story->bytes);
}

/* Commits, a spare prepared and used, an upload; then faults are over and a last frame is written;
 * then the next start finds all of it. */
static void run_appends(int error_number, bool writes_are_short)
{
    fault_set_errno(error_number);
    fault_set_short_writes(writes_are_short);
    FAULT_LOOP {
        static struct story story;
        fault_pause();
        int64_t live = mem_fault_live_count();
        story_init(&story);
        rig_open(&story.rig, 0);
        fault_resume();
        for (uint32_t i = 0; i < FRAMES - 1; i++) {
            story_append(&story, i);
            if (i % 3 == 2) {
                rig_run(&story.rig);
            }
            if (i == 10) {
                (void)journal_preparer_step(story.rig.journal);
            }
            if (i == 15) {
                story_upload(&story);
            }
        }
        rig_run(&story.rig);
        fault_pause();
        story.rig.journal->committer.next_open_ns = 0; /* the pause before another try is over */
        story_append(&story, FRAMES - 1);
        rig_run(&story.rig);
        assert_true(story.was_appended[FRAMES - 1]);
        assert_int_equal(story.rig.tickets[story.tickets[FRAMES - 1]].err, ERR_OK);
        story_check(&story, 0);
        rig_close(&story.rig, false);
        rig_open(&story.rig, 0);
        story_check(&story, 0);
        if (story.upload_is_durable) {
            story_check_upload(&story);
        }
        story_finish(&story);
        assert_int_equal(mem_fault_live_count(), live);
    }
}

static void test_appends_io(void **state)
{
    (void)state;
    run_appends(EIO, false);
}

static void test_appends_no_space(void **state)
{
    (void)state;
    run_appends(ENOSPC, false);
}

static void test_appends_short_writes(void **state)
{
    (void)state;
    run_appends(ENOSPC, true);
}

/* Opening over a journal that holds frames, some damaged, and an upload whose name is not settled:
 * refused or right, and right when it is tried again. */
static void test_open(void **state)
{
    (void)state;
    fault_set_errno(EIO);
    fault_set_short_writes(false);
    FAULT_LOOP {
        static struct story story;
        char part[JOURNAL_PATH_BYTES];
        char path[JOURNAL_PATH_BYTES];
        fault_pause();
        int64_t live = mem_fault_live_count();
        story_init(&story);
        rig_open(&story.rig, 0);
        for (uint32_t i = 0; i < 12; i++) {
            story_append(&story, i);
            rig_run(&story.rig);
        }
        story_upload(&story);
        assert_true(story.upload_is_durable);
        (void)journal_preparer_step(story.rig.journal);
        rig_close(&story.rig, true);
        (void)snprintf(part, sizeof(part), "%s/07000000-0000-0000-0000-000000000000.part",
                       story.rig.uploads);
        (void)snprintf(path, sizeof(path), "%s/07000000-0000-0000-0000-000000000000.up",
                       story.rig.uploads);
        assert_int_equal(rename(path, part), 0);
        fault_resume();
        enum err err = rig_try_open(&story.rig, 0);
        fault_pause();
        assert_true(err == ERR_OK || fault_was_met());
        if (err == ERR_OK) {
            story_check(&story, 0);
            rig_close(&story.rig, false);
        }
        rig_open(&story.rig, 0);
        story_check(&story, 0);
        story_check_upload(&story);
        story_finish(&story);
        assert_int_equal(mem_fault_live_count(), live);
    }
}

/* A .part that cannot be opened, or read, for now: the start goes on without it. One whose end
 * record is there gets its name all the same, the other is kept until it can be looked into. */
static void test_unreadable_part_does_not_stop_the_start(void **state)
{
    (void)state;
    static const enum fault_call calls[] = {FAULT_OPEN, FAULT_FSTAT, FAULT_PREAD};
    for (uint32_t i = 0; i < 6; i++) {
        static struct story story;
        char part[JOURNAL_PATH_BYTES];
        char path[JOURNAL_PATH_BYTES];
        bool is_ended = i < 3;
        story_init(&story);
        rig_open(&story.rig, 0);
        story_append(&story, 0);
        rig_run(&story.rig);
        story_upload(&story);
        assert_true(story.upload_is_durable);
        rig_close(&story.rig, true);
        (void)snprintf(part, sizeof(part), "%s/%s000000-0000-0000-0000-000000000000.part",
                       story.rig.uploads, is_ended ? "07" : "08");
        (void)snprintf(path, sizeof(path), "%s/07000000-0000-0000-0000-000000000000.up",
                       story.rig.uploads);
        assert_int_equal(rename(path, part), 0);
        fault_set_errno(EACCES);
        fault_set_only(calls[i % 3]);
        /* The first call of its kind is for the .part, which is looked into before any segment. */
        fault_arm(FAULT_ONCE, 0);
        enum err err = rig_try_open(&story.rig, 2);
        fault_disarm();
        fault_set_only(FAULT_CALL_COUNT);
        assert_int_equal(err, ERR_OK);
        assert_int_equal(access(is_ended ? path : part, F_OK), 0);
        if (is_ended) {
            story_check_upload(&story);
        }
        rig_close(&story.rig, true);
        /* Looked into: it never had an end record. */
        rig_open(&story.rig, 2);
        assert_int_equal(access(part, F_OK), -1);
        assert_int_equal(access(path, F_OK), is_ended ? 0 : -1);
        story_finish(&story);
    }
}

/* Segments roll, are released and recycled, while the preparer's calls fail. */
static void test_recycling(void **state)
{
    (void)state;
    fault_set_errno(EIO);
    FAULT_LOOP {
        static struct story story;
        static uint8_t filler[500000];
        fault_pause();
        int64_t live = mem_fault_live_count();
        uint64_t applied = 0;
        story_init(&story);
        rig_open(&story.rig, 0);
        fault_resume();
        for (uint32_t i = 0; i < 12; i++) {
            uint32_t ticket;
            uint32_t *spent = &story.rig.ticket_count;
            if (rig_try_append(&story.rig, 2, slice_make(filler, sizeof(filler)), &ticket) ==
                ERR_OK) {
                rig_run(&story.rig);
                const struct rig_ticket *answer = &story.rig.tickets[ticket];
                assert_true(answer->is_answered);
                if (answer->err == ERR_OK) {
                    journal_release(story.rig.journal, answer->position);
                    applied = answer->position;
                }
            }
            assert_true(*spent < RIG_FRAMES_MAX);
            (void)journal_preparer_step(story.rig.journal);
        }
        fault_pause();
        story.rig.journal->committer.next_open_ns = 0;
        for (uint32_t i = 0; i < 5; i++) {
            story_append(&story, i);
        }
        rig_run(&story.rig);
        story_check(&story, applied);
        rig_close(&story.rig, false);
        rig_open(&story.rig, applied);
        story_check(&story, applied);
        story_finish(&story);
        assert_int_equal(mem_fault_live_count(), live);
    }
}

/* Reading: an error is told and the next try goes on where it was, or nothing was noticed. */
static void test_reading(void **state)
{
    (void)state;
    fault_set_errno(EIO);
    FAULT_LOOP {
        static struct story story;
        struct journal_reader *reader = NULL;
        struct journal_frame frame;
        uint32_t next = 0;
        uint32_t failures = 0;
        bool has = true;
        fault_pause();
        int64_t live = mem_fault_live_count();
        story_init(&story);
        for (uint32_t round = 0; round < 2; round++) {
            rig_open(&story.rig, 0);
            for (uint32_t i = 0; i < 10; i++) {
                (void)rig_append(&story.rig, round * 10 + i, 30000);
            }
            rig_run(&story.rig);
            if (round == 0) {
                rig_close(&story.rig, true);
            }
        }
        assert_int_equal(journal_reader_open(&reader, story.rig.journal,
                                             (struct journal_from[]){journal_from_all(0)}),
                         ERR_OK);
        fault_resume();
        while (has && failures < 20) {
            enum err err = journal_reader_next(reader, &frame, &has);
            if (err != ERR_OK) {
                failures++;
                continue;
            }
            if (has) {
                assert_int_equal(rig_number(&frame), next);
                next++;
            }
        }
        fault_pause();
        has = true;
        while (has) {
            assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
            next += has;
        }
        assert_int_equal(next, 20);
        journal_reader_close(reader);
        story_finish(&story);
        assert_int_equal(mem_fault_live_count(), live);
    }
}

/* I3: the sync fails, the data are in the file all the same: answered as failed, the segment is not
 * synced again, its positions go to others, and the failed frames never come back. */
static void test_failed_sync_is_final(void **state)
{
    (void)state;
    struct rig rig;
    static const enum fault_call calls[] = {FAULT_FDATASYNC, FAULT_PWRITEV};
    for (uint32_t i = 0; i < 2; i++) {
        rig_init_in_memory(&rig);
        rig_open(&rig, 0);
        fault_set_errno(EIO);
        fault_set_short_writes(false);
        uint32_t before = rig_append(&rig, 0, 100);
        rig_run(&rig);
        uint32_t failed = rig_append(&rig, 666, 100);
        fault_set_only(calls[i]);
        fault_arm(FAULT_ONCE, 0);
        rig_run(&rig);
        fault_disarm();
        fault_set_only(FAULT_CALL_COUNT);
        assert_int_equal(rig.tickets[before].position, 1);
        assert_int_equal(rig.tickets[failed].err, ERR_IO);
        assert_int_equal(journal_durable_position(rig.journal), 1);
        assert_int_equal(rig.journal->committer.segment.fd, -1);
        struct journal_backlog backlog;
        journal_backlog(rig.journal, &backlog);
        assert_int_equal(backlog.bytes, journal_frame_size(72 + 100));
        uint32_t after = rig_append(&rig, 1, 100);
        rig_run(&rig);
        assert_int_equal(rig.tickets[after].err, ERR_OK);
        assert_int_equal(rig.tickets[after].position, 2);
        assert_int_equal(rig_segment_count(&rig), 2);
        for (int round = 0; round < 2; round++) {
            assert_int_equal(rig_read(&rig, 0, numbers, positions, RIG_FRAMES_MAX), 2);
            assert_true(numbers[0] == 0 && numbers[1] == 1 && positions[1] == 2);
            rig_close(&rig, false);
            rig_open(&rig, 0);
        }
        rig_finish(&rig);
    }
}

/* No segment can be opened: answered at once, tried again only after the pause, which grows. */
static void test_opening_is_tried_again(void **state)
{
    (void)state;
    struct rig rig;
    rig_init_in_memory(&rig);
    rig_open(&rig, 0);
    struct journal_committer *committer = &rig.journal->committer;
    uint32_t ticket = 0;
    fault_set_errno(ENOSPC);
    fault_set_only(FAULT_PWRITEV);
    fault_arm(FAULT_ONCE, 0);
    ticket = rig_append(&rig, 0, 100); /* its segment is given up */
    rig_run(&rig);
    assert_int_equal(rig.tickets[ticket].err, ERR_NO_SPACE);
    fault_set_only(FAULT_OPEN);
    fault_arm(FAULT_FROM_THEN, 0);
    uint64_t pause_ns = 0;
    for (int i = 0; i < 12; i++) {
        uint32_t opens = fault_call_count(FAULT_OPEN);
        committer->next_open_ns = 0;
        ticket = rig_append(&rig, 0, 100);
        rig_run(&rig);
        assert_int_equal(rig.tickets[ticket].err, ERR_NO_SPACE);
        assert_true(fault_call_count(FAULT_OPEN) > opens);
        assert_true(committer->backoff_ns >= pause_ns && committer->backoff_ns <= 5000000000u);
        pause_ns = committer->backoff_ns;
        opens = fault_call_count(FAULT_OPEN);
        committer->next_open_ns = UINT64_MAX;
        ticket = rig_append(&rig, 0, 100);
        rig_run(&rig);
        assert_int_equal(rig.tickets[ticket].err, ERR_NO_SPACE);
        assert_int_equal(fault_call_count(FAULT_OPEN), opens);
    }
    assert_true(pause_ns == 5000000000u);
    fault_disarm();
    fault_set_only(FAULT_CALL_COUNT);
    committer->next_open_ns = 0;
    ticket = rig_append(&rig, 0, 100);
    rig_run(&rig);
    assert_int_equal(rig.tickets[ticket].err, ERR_OK);
    assert_int_equal(rig.tickets[ticket].position, 1);
    rig_finish(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appends_io),
        cmocka_unit_test(test_appends_no_space),
        cmocka_unit_test(test_appends_short_writes),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_unreadable_part_does_not_stop_the_start),
        cmocka_unit_test(test_recycling),
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_failed_sync_is_final),
        cmocka_unit_test(test_opening_is_tried_again),
    };
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
