/* Promise: the backlog has a bound, of all and of one org; what is refused takes nothing, what is
 * applied or failed is given back, and a short disk refuses until it has space again. In a shared
 * stream what was accepted is given back when all lanes have passed it.
 * link: journal_rig.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "support/journal_rig.h"

enum { BODY = 100000 };
#define MIB (UINT64_C(1024) * 1024)

static uint8_t body[BODY];

/* Appends until refused; how many were taken. */
static uint32_t fill(struct rig *rig, uint64_t org, enum err expected)
{
    uint32_t count = 0;
    uint32_t ticket;
    enum err err;
    while ((err = rig_try_append(rig, org, slice_make(body, BODY), &ticket)) == ERR_OK) {
        count++;
        rig_run(rig);
    }
    assert_int_equal(err, expected);
    return count;
}

static void test_bounds(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_backlog backlog;
    /* 40 head of the frame, 72 of the record, body, to a multiple of 8. */
    uint64_t frame = 40 + 72 + BODY;
    uint32_t half = (uint32_t)(2 * MIB / frame);
    rig_init(&rig);
    rig.options.backlog_bytes_max = 4 * MIB;
    rig_open(&rig, 0);
    assert_int_equal(fill(&rig, 1, ERR_FULL), half);
    assert_int_equal(journal_room(rig.journal, 1, frame), ERR_FULL);
    assert_int_equal(journal_room(rig.journal, 2, frame), ERR_OK);
    assert_int_equal(fill(&rig, 2, ERR_FULL), half);
    /* Less than a frame of the whole is left for a third. */
    assert_int_equal(fill(&rig, 3, ERR_FULL), (uint32_t)(4 * MIB / frame) - 2 * half);
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.bytes, backlog.frames * frame);
    assert_int_equal(backlog.records, backlog.frames);
    assert_in_range(journal_retry_after_s(rig.journal), 1, 60);
    journal_credit(rig.journal, 1, frame, 1);
    assert_int_equal(journal_room(rig.journal, 1, frame), ERR_OK);
    assert_int_equal(fill(&rig, 1, ERR_FULL), 1);
    rig_finish(&rig);
}

static void test_restart_counts_what_is_unapplied(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_backlog backlog;
    uint64_t frame = 40 + 72 + BODY;
    rig_init(&rig);
    rig_open(&rig, 0);
    for (uint32_t i = 0; i < 10; i++) {
        uint32_t ticket;
        assert_int_equal(rig_try_append(&rig, i % 2, slice_make(body, BODY), &ticket), ERR_OK);
    }
    rig_run(&rig);
    rig_close(&rig, true);
    rig.options.backlog_bytes_max = 8 * frame;
    rig_open(&rig, 4);
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.bytes, 6 * frame);
    assert_int_equal(backlog.records, 6);
    /* Three of org 0, of four that one may have; two of all. */
    assert_int_equal(fill(&rig, 0, ERR_FULL), 1);
    assert_int_equal(fill(&rig, 5, ERR_FULL), 1);
    rig_finish(&rig);
}

static void test_credit_takes_no_more_than_there_is(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_backlog backlog;
    uint32_t ticket;
    rig_init(&rig);
    rig_open(&rig, 0);
    assert_int_equal(rig_try_append(&rig, 1, slice_make(body, 88), &ticket), ERR_OK);
    assert_int_equal(rig_try_append(&rig, 2, slice_make(body, 88), &ticket), ERR_OK);
    rig_run(&rig);
    journal_credit(rig.journal, 1, 1000000, 50);
    journal_credit(rig.journal, 3, 1000000, 50);
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.bytes, 200); /* org 2's: 40 + 72 + 88 */
    assert_int_equal(backlog.records, 0);
    rig_finish(&rig);
}

static void test_oldest_and_frames(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_reader *reader = NULL;
    struct journal_frame frame;
    struct journal_backlog backlog;
    bool has = false;
    int64_t before_ms = clock_wall_ms();
    rig_init(&rig);
    rig_open(&rig, 0);
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.oldest_received_ms, 0);
    for (uint32_t i = 0; i < 5; i++) {
        (void)rig_append(&rig, i, 100);
    }
    rig_run(&rig);
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.frames, 5);
    assert_true((int64_t)backlog.oldest_received_ms >=
                before_ms); /* nothing read yet: the commit */
    assert_int_equal(
        journal_reader_open(&reader, rig.journal, (struct journal_from[]){journal_from_all(0)}),
        ERR_OK);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
        assert_true(has);
        journal_progress(rig.journal, frame.position - 1, 1000);
        journal_backlog(rig.journal, &backlog);
        assert_int_equal(backlog.oldest_received_ms, 1000);
        assert_int_equal(backlog.frames, 5 - i);
        journal_credit(rig.journal, frame.org, frame.bytes, frame.record_count);
    }
    journal_backlog(rig.journal, &backlog);
    assert_true(backlog.frames == 0 && backlog.records == 0 && backlog.bytes == 0);
    assert_int_equal(backlog.oldest_received_ms, 0);
    journal_reader_close(reader);
    rig_finish(&rig);
}

static void test_short_disk(void **state)
{
    (void)state;
    struct rig rig;
    uint32_t ticket;
    rig_init(&rig);
    rig.options.disk_reserve_bytes = UINT64_MAX; /* no disk has that */
    rig_open(&rig, 0);
    assert_int_equal(rig_try_append(&rig, 1, slice_make(body, 8), &ticket), ERR_NO_SPACE);
    assert_int_equal(journal_room(rig.journal, 1, 8), ERR_NO_SPACE);
    /* Space comes back; looked at no more often than every 250 ms. */
    rig.journal->options.disk_reserve_bytes = 0;
    uint64_t sampled_ns = rig.journal->committer.sampled_ns;
    journal_committer_sample_space(rig.journal, sampled_ns + 249999999);
    assert_int_equal(journal_room(rig.journal, 1, 8), ERR_NO_SPACE);
    journal_committer_sample_space(rig.journal, sampled_ns + 250000000);
    assert_int_equal(rig_try_append(&rig, 1, slice_make(body, 8), &ticket), ERR_OK);
    rig_run(&rig);
    assert_int_equal(rig.tickets[ticket].err, ERR_OK);
    rig_finish(&rig);
}

/* 1,000 bytes a second for ten seconds, of a backlog of 100,000. */
static void test_retry_follows_the_drain_rate(void **state)
{
    (void)state;
    struct journal_room room;
    journal_room_init(&room, 100000, false);
    for (uint64_t org = 0; org < 10; org++) {
        assert_int_equal(journal_room_take(&room, org, 10000), ERR_OK);
    }
    uint64_t now_ns = 5000000000u;
    for (uint64_t i = 0; i <= 10; i++) {
        journal_room_credit(&room, 0, i == 0 ? 0 : 1000, 0, now_ns + i * 1000000000u);
    }
    /* 90,000 are left, below the goal of 95,000: a twentieth, 5,000, takes 5 s and begun ones. */
    assert_int_equal(journal_room_retry_s(&room), 6);
    journal_room_force(&room, 11, 30000);
    /* 120,000: 25,000 above the goal. */
    assert_int_equal(journal_room_retry_s(&room), 26);
    journal_room_force(&room, 11, 1000000);
    assert_int_equal(journal_room_retry_s(&room), 60);
    journal_room_finish(&room);
}

/* Bytes of an upload are credited, and were never handed out as a frame. */
static void test_an_upload_hides_no_older_frame(void **state)
{
    (void)state;
    struct journal_room room;
    journal_room_init(&room, 1000000, false);
    journal_room_force(&room, 1, 100 + 5000 + 100);
    journal_room_progress(&room, 0, 10);
    journal_room_credit_upload(&room, 1, 5000, 1);
    journal_room_durable(&room, 1, 20);
    assert_int_equal(room.oldest_ms, 10);
    journal_room_credit(&room, 1, 200, 0, 1);
    assert_int_equal(room.oldest_ms, 0);
    assert_int_equal(room.bytes, 0);
    journal_room_finish(&room);
}

/* In a shared stream frames leave by position: each org may hold half again when all lanes have
 * passed what it had, and not before, in whichever order acknowledgements come. */
static void test_frames_leave_by_position(void **state)
{
    (void)state;
    struct journal_room room;
    journal_room_init(&room, 4000, true);
    for (uint64_t i = 0; i < 20; i++) {
        assert_int_equal(journal_room_take(&room, 1, 100), ERR_OK);
        journal_room_durable(&room, 1, 1);
        journal_room_place(&room, 1, 100, i % 2 == 0 ? 12 + i : 10 + i); /* 12, 11, 14, 13 … */
    }
    assert_int_equal(journal_room_take(&room, 1, 100), ERR_FULL);
    assert_int_equal(journal_room_look(&room, 1, 100), ERR_FULL);
    journal_room_progress(&room, 11, 0);
    assert_int_equal(journal_room_look(&room, 1, 100), ERR_FULL);
    journal_room_progress(&room, 12, 0); /* the first is the older sum, all others are the next */
    assert_int_equal(journal_room_take(&room, 1, 100), ERR_OK);
    assert_int_equal(journal_room_take(&room, 1, 100), ERR_FULL);
    journal_room_progress(&room, 30, 0);
    for (uint64_t i = 0; i < 19; i++) { /* the one just taken is not placed */
        journal_room_passed(&room, 100, 1, 0);
        assert_int_equal(journal_room_take(&room, 1, 100), ERR_OK);
    }
    assert_int_equal(journal_room_take(&room, 1, 100), ERR_FULL);
    assert_int_equal(journal_room_look(&room, 2, 2000), ERR_FULL); /* 2,100 of 4,000 are held */
    assert_int_equal(journal_room_look(&room, 2, 1900), ERR_OK);
    journal_room_give(&room, 1, 2000);
    assert_int_equal(room.bytes, 100);
    journal_room_finish(&room);
}

/* One that was applied before its acknowledgement came is not kept. */
static void test_a_frame_that_is_passed_already(void **state)
{
    (void)state;
    struct journal_room room;
    journal_room_init(&room, 200, true);
    journal_room_progress(&room, 5, 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(journal_room_take(&room, 1, 100), ERR_OK);
        journal_room_place(&room, 1, 100, 5);
        journal_room_passed(&room, 100, 0, 0);
    }
    journal_room_finish(&room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_restart_counts_what_is_unapplied),
        cmocka_unit_test(test_credit_takes_no_more_than_there_is),
        cmocka_unit_test(test_oldest_and_frames),
        cmocka_unit_test(test_an_upload_hides_no_older_frame),
        cmocka_unit_test(test_short_disk),
        cmocka_unit_test(test_retry_follows_the_drain_rate),
        cmocka_unit_test(test_frames_leave_by_position),
        cmocka_unit_test(test_a_frame_that_is_passed_already),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
