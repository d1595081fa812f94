/* Promise: what was answered as durable is read again, in order and whole, by this run and by every
 * later one; what was not answered takes nothing with it.
 * link: journal_rig.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "support/journal_rig.h"

#include <fcntl.h>
#include <unistd.h>

static uint32_t numbers[RIG_FRAMES_MAX];
static uint64_t positions[RIG_FRAMES_MAX];

static void assert_numbers(uint32_t count, uint32_t expected)
{
    assert_int_equal(count, expected);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(numbers[i], i);
    }
}

static void test_append_commit_read(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_state found;
    rig_init(&rig);
    rig_open(&rig, 0);
    journal_state(rig.journal, &found);
    assert_true(found.is_new && found.clean);
    assert_int_equal(journal_durable_position(rig.journal), 0);
    for (uint32_t i = 0; i < 10; i++) {
        (void)rig_append(&rig, i, 8 + 13 * i);
    }
    assert_int_equal(rig_read(&rig, 0, numbers, positions, RIG_FRAMES_MAX), 0);
    rig_run(&rig);
    assert_int_equal(rig.answered_count, 10);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(rig.tickets[i].err, ERR_OK);
        assert_int_equal(rig.tickets[i].position, i + 1);
    }
    assert_int_equal(journal_durable_position(rig.journal), 10);
    assert_numbers(rig_read(&rig, 0, numbers, positions, RIG_FRAMES_MAX), 10);
    assert_int_equal(positions[0], 1);
    assert_int_equal(rig_read(&rig, 7, numbers, positions, RIG_FRAMES_MAX), 3);
    assert_int_equal(numbers[0], 7);
    assert_int_equal(rig_read(&rig, 10, numbers, positions, RIG_FRAMES_MAX), 0);
    rig_finish(&rig);
}

static void test_restart_keeps_all(void **state)
{
    struct rig rig;
    struct journal_state found;
    struct id id;
    bool is_clean = *(bool *)*state;
    rig_init(&rig);
    for (uint32_t round = 0; round < 5; round++) {
        rig_open(&rig, 0);
        journal_state(rig.journal, &found);
        assert_int_equal(found.is_new, round == 0);
        assert_int_equal(found.clean, round == 0 || is_clean);
        assert_int_equal(found.last_position, round * 20);
        assert_int_equal(found.torn_bytes, 0);
        assert_int_equal(found.damaged_bytes, 0);
        assert_true(round == 0 || id_equal(found.id, id));
        id = found.id;
        for (uint32_t i = 0; i < 20; i++) {
            (void)rig_append(&rig, round * 20 + i, 8 + 100 * i);
            if (i % 7 == 0) {
                rig_run(&rig);
            }
        }
        rig_run(&rig);
        assert_numbers(rig_read(&rig, 0, numbers, positions, RIG_FRAMES_MAX), round * 20 + 20);
        rig_close(&rig, is_clean);
        assert_int_equal(rig_segment_count(&rig), round + 1);
    }
    rig_finish(&rig);
}

static void test_base_and_applied_lift_positions(void **state)
{
    (void)state;
    struct rig rig;
    struct err_detail detail;
    rig_init(&rig);
    assert_int_equal(journal_open(&rig.journal, &rig.options,
                                  (struct journal_from[]){journal_from_all(0)}, &detail),
                     ERR_OK);
    assert_int_equal(journal_start(rig.journal, 1000, &detail), ERR_OK);
    assert_int_equal(journal_producer_create(&rig.producer, rig.journal, 0, rig.mailbox), ERR_OK);
    uint32_t ticket = rig_append(&rig, 0, 8);
    rig_run(&rig);
    assert_int_equal(rig.tickets[ticket].position, 1001);
    rig_close(&rig, true);
    /* A store that is ahead of the journal: its position is never given again. */
    rig_open(&rig, 2000);
    struct journal_state found;
    journal_state(rig.journal, &found);
    assert_int_equal(found.base, 1000);
    assert_int_equal(found.last_position, 1001);
    ticket = rig_append(&rig, 1, 8);
    rig_run(&rig);
    assert_int_equal(rig.tickets[ticket].position, 2001);
    assert_int_equal(rig_read(&rig, 0, numbers, positions, RIG_FRAMES_MAX), 2);
    assert_int_equal(positions[0], 1001);
    assert_int_equal(positions[1], 2001);
    rig_close(&rig, false);
    rig_open(&rig, 0);
    journal_state(rig.journal, &found);
    assert_int_equal(found.damaged_bytes, 0);
    rig_finish(&rig);
}

static void test_segments_roll(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_open(&rig, 0);
    for (uint32_t i = 0; i < 200; i++) {
        (void)rig_append(&rig, i, 50000);
        if (i % 3 == 2) {
            rig_run(&rig);
        }
    }
    rig_run(&rig);
    assert_int_equal(rig.answered_count, 200);
    /* 10 MB in segments of 1 MiB, of which the last commit never fits exactly. */
    assert_in_range(rig_segment_count(&rig), 10, 14);
    assert_numbers(rig_read(&rig, 0, numbers, positions, RIG_FRAMES_MAX), 200);
    rig_close(&rig, false);
    rig_open(&rig, 0);
    assert_numbers(rig_read(&rig, 0, numbers, positions, RIG_FRAMES_MAX), 200);
    rig_finish(&rig);
}

static void test_reader_follows(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_reader *reader = NULL;
    struct journal_frame frame;
    bool has = true;
    uint32_t next = 0;
    rig_init(&rig);
    rig_open(&rig, 0);
    assert_int_equal(
        journal_reader_open(&reader, rig.journal, (struct journal_from[]){journal_from_all(0)}),
        ERR_OK);
    for (uint32_t round = 0; round < 60; round++) {
        assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
        assert_false(has);
        for (uint32_t i = 0; i < 5; i++) {
            (void)rig_append(&rig, round * 5 + i, 20000);
        }
        journal_submit(rig.producer);
        assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
        assert_false(has); /* written is not durable */
        rig_run_all(&rig);
        for (uint32_t i = 0; i < 5; i++) {
            assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
            assert_true(has);
            assert_int_equal(rig_number(&frame), next);
            assert_int_equal(frame.lane, 3);
            assert_int_equal(frame.form, RECORD_FORM_EVENT);
            assert_int_equal(frame.org, 1);
            assert_int_equal(frame.record_count, 1);
            next++;
        }
    }
    journal_reader_close(reader);
    rig_finish(&rig);
}

static void test_refusals(void **state)
{
    (void)state;
    struct rig rig;
    uint32_t ticket = 0;
    static uint8_t body[LIMIT_FRAME_BYTES];
    rig_init(&rig);
    rig_open(&rig, 0);
    /* The head takes 72 bytes of it. */
    assert_int_equal(rig_try_append(&rig, 1, slice_make(body, LIMIT_FRAME_BYTES - 71), &ticket),
                     ERR_TOO_LARGE);
    assert_int_equal(rig_try_append(&rig, 1, slice_make(body, LIMIT_FRAME_BYTES - 72), &ticket),
                     ERR_OK);
    rig_run(&rig);
    assert_int_equal(rig.tickets[ticket].err, ERR_OK);
    /* Submitted after the stop: answered, not lost. Appended after: refused. */
    assert_int_equal(rig_try_append(&rig, 1, slice_make(body, 10), &ticket), ERR_OK);
    journal_stop(rig.journal);
    uint32_t last = ticket;
    assert_int_equal(rig_try_append(&rig, 1, slice_make(body, 10), &ticket), ERR_DRAINING);
    journal_submit(rig.producer);
    assert_true(rig.tickets[last].is_answered);
    assert_int_equal(rig.tickets[last].err, ERR_DRAINING);
    rig_finish(&rig);
}

static void test_other_version_is_refused(void **state)
{
    (void)state;
    struct rig rig;
    char path[JOURNAL_PATH_BYTES];
    uint8_t page[JOURNAL_SEGMENT_HEAD_BYTES];
    rig_init(&rig);
    rig_open(&rig, 0);
    rig_close(&rig, true);
    rig_segment_path(&rig, 0, path);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, page, sizeof(page), 0), sizeof(page));
    page[16] = 2; /* a later version, with its own right checksum */
    buffer_put_u64(page, hash_xxh3(page + 8, JOURNAL_SEGMENT_COPY_BYTES - 8, 0));
    assert_int_equal(pwrite(fd, page, sizeof(page), 0), sizeof(page));
    assert_int_equal(close(fd), 0);
    assert_int_equal(rig_try_open(&rig, 0), ERR_VERSION);
    rig_finish(&rig);
}

int main(void)
{
    static bool is_clean = true;
    static bool is_killed = false;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_commit_read),
        {"test_restart_keeps_all_clean", test_restart_keeps_all, NULL, NULL, &is_clean},
        {"test_restart_keeps_all_killed", test_restart_keeps_all, NULL, NULL, &is_killed},
        cmocka_unit_test(test_base_and_applied_lift_positions),
        cmocka_unit_test(test_segments_roll),
        cmocka_unit_test(test_reader_follows),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_other_version_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
