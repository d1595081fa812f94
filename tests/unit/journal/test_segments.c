/* Promise: segments are prepared, recycled and let go without a frame lost or one of an earlier
 * life of a file read again; what a failed commit left on disk stays void, and what a killed run
 * left unwritten costs no reader anything. link: journal_rig.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/journal_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static uint32_t numbers[RIG_FRAMES_MAX];
static uint64_t positions[RIG_FRAMES_MAX];

static uint32_t count_files(struct rig *rig, enum journal_file_kind kind)
{
    struct journal_files files;
    uint32_t count = 0;
    assert_int_equal(journal_files_list(&files, rig->directory), ERR_OK);
    for (uint32_t i = 0; i < files.count; i++) {
        count += files.rows[i].kind == kind;
    }
    journal_files_finish(&files);
    return count;
}

/* A spare is there before it is needed, and the active segment moves to it. */
static void test_spare_is_prepared_and_used(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_open(&rig, 0);
    assert_false(rig.journal->committer.segment.is_prepared);
    rig_run_all(&rig);
    assert_int_equal(count_files(&rig, JOURNAL_FILE_SPARE), 1);
    (void)rig_append(&rig, 0, 100);
    rig_run(&rig);
    assert_true(rig.journal->committer.segment.is_prepared);
    assert_int_equal(count_files(&rig, JOURNAL_FILE_SPARE), 0);
    rig_run_all(&rig);
    rig_close(&rig, true);
    /* The next run starts with the spare that is left, and removes what is not whole. */
    char path[JOURNAL_PATH_BYTES];
    struct journal_file file = {JOURNAL_FILE_UNFINISHED, 77, 0, 0};
    journal_file_path(path, rig.directory, &file);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(count_files(&rig, JOURNAL_FILE_SPARE), 1);
    rig_open(&rig, 0);
    assert_true(rig.journal->committer.segment.is_prepared);
    assert_int_equal(count_files(&rig, JOURNAL_FILE_SPARE), 0);
    assert_int_equal(count_files(&rig, JOURNAL_FILE_UNFINISHED), 0);
    assert_int_equal(rig_read(&rig, 0, numbers, NULL, RIG_FRAMES_MAX), 1);
    rig_finish(&rig);
}

/* The committer has given the next segment its name and has not yet said that it writes there: a
 * reader that comes now must not take it for an old one, which ends where its zeros begin. */
static void test_segment_is_not_read_before_it_is_active(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_reader *reader = NULL;
    struct journal_frame frame;
    bool has = true;
    rig_init(&rig);
    rig_open(&rig, 0);
    rig_run_all(&rig);
    assert_int_equal(
        journal_reader_open(&reader, rig.journal, (struct journal_from[]){journal_from_all(0)}),
        ERR_OK);
    uint64_t before = atomic_load(&rig.journal->active_sequence);
    assert_int_equal(journal_committer_open_segment(rig.journal), ERR_OK);
    uint64_t active = atomic_load(&rig.journal->active_sequence);
    assert_true(active > before);
    atomic_store(&rig.journal->active_sequence, before);
    assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
    assert_false(has);
    atomic_store(&rig.journal->active_sequence, active);
    (void)rig_append(&rig, 7, 100);
    rig_run(&rig);
    assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
    assert_true(has);
    assert_int_equal(rig_number(&frame), 7);
    journal_reader_close(reader);
    rig_finish(&rig);
}

/* Hundreds of frames through a handful of files, each used many times. */
static void test_recycled_segments_hold_only_their_own(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_open(&rig, 0);
    for (uint32_t i = 0; i < 400; i++) {
        uint32_t ticket = rig_append(&rig, i, 60000);
        rig_run_all(&rig);
        journal_credit(rig.journal, 1, journal_frame_size(72 + 60000), 1);
        if (i % 10 == 9) { /* all but the last five are applied */
            journal_release(rig.journal, rig.tickets[ticket].position - 5);
            rig_run_all(&rig);
        }
    }
    uint64_t last = journal_durable_position(rig.journal);
    assert_int_equal(last, 400);
    /* 24 MB have gone through, and in the end through files that were used before. */
    assert_in_range(rig_segment_count(&rig), 1, 4);
    assert_int_equal(rig.journal->committer.segment.head.flags & JOURNAL_SEGMENT_WAS_ZERO, 0);
    rig_close(&rig, false);
    rig_open(&rig, last - 5);
    struct journal_state found;
    journal_state(rig.journal, &found);
    assert_int_equal(found.last_position, last);
    assert_int_equal(found.damaged_bytes, 0);
    uint32_t count = rig_read(&rig, last - 5, numbers, positions, RIG_FRAMES_MAX);
    assert_int_equal(count, 5);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(numbers[i], 395 + i);
        assert_int_equal(positions[i], 396 + i);
    }
    rig_finish(&rig);
}

/* What is not released stays, whatever else goes; the window keeps what is released. */
static void test_only_released_segments_go(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig.options.replay_window_s = 1000;
    rig_open(&rig, 0);
    for (uint32_t i = 0; i < 100; i++) {
        (void)rig_append(&rig, i, 50000);
        rig_run(&rig);
    }
    uint32_t before = rig_segment_count(&rig);
    assert_in_range(before, 4, 8);
    journal_release(rig.journal, 50);
    rig_run_all(&rig);
    assert_int_equal(rig_segment_count(&rig), before);
    /* Short of disk: the window is given up, and no spare is made. */
    atomic_store(&rig.journal->room.is_short, true);
    rig_run_all(&rig);
    assert_true(rig_segment_count(&rig) < before);
    uint32_t count = rig_read(&rig, 50, numbers, NULL, RIG_FRAMES_MAX);
    assert_int_equal(count, 50);
    assert_int_equal(numbers[0], 50);
    /* Everything is released: the newest stays. */
    journal_release(rig.journal, 100);
    rig_run_all(&rig);
    assert_int_equal(rig_segment_count(&rig), 1);
    assert_int_equal(count_files(&rig, JOURNAL_FILE_SPARE), 1); /* made before it was short */
    rig_finish(&rig);
}

/* A segment that was given up still holds the frames of the failed commit, whole and verifying. */
static void test_failed_commit_stays_void(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_state found;
    rig_init(&rig);
    rig_open(&rig, 0);
    (void)rig_append(&rig, 0, 100);
    rig_run(&rig);
    /* The commit reaches the disk, its sync "fails": as the committer would do then. */
    (void)rig_append(&rig, 666, 100);
    rig_run(&rig);
    struct journal_committer *committer = &rig.journal->committer;
    journal_segment_close(&committer->segment);
    committer->next_position = 2;
    atomic_store(&rig.journal->durable_position, 1);
    (void)rig_append(&rig, 1, 100);
    (void)rig_append(&rig, 2, 100);
    rig_run(&rig);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(rig_read(&rig, 0, numbers, positions, RIG_FRAMES_MAX), 3);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(numbers[i], i);
            assert_int_equal(positions[i], i + 1);
        }
        rig_close(&rig, false);
        rig_open(&rig, 0);
        journal_state(rig.journal, &found);
        assert_int_equal(found.last_position, 3);
        assert_int_equal(found.damaged_bytes, 0);
    }
    rig_finish(&rig);
}

/* A closing page that is torn, in a file whose earlier life left frames behind it. */
static void test_torn_closing_page_of_recycled_file(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_state found;
    char path[JOURNAL_PATH_BYTES];
    rig_init(&rig);
    rig_open(&rig, 0);
    uint32_t ticket = 0;
    /* Until it is early in a file that was full before. */
    while (rig.ticket_count < 200 || rig.journal->committer.segment.offset > 200000) {
        ticket = rig_append(&rig, 1, 60000);
        rig_run_all(&rig);
        journal_credit(rig.journal, 1, journal_frame_size(72 + 60000), 1);
        journal_release(rig.journal, rig.tickets[ticket].position);
        rig_run_all(&rig);
    }
    uint64_t last = rig.tickets[ticket].position;
    uint64_t closing = rig.journal->committer.segment.offset;
    assert_int_equal(rig.journal->committer.segment.head.flags & JOURNAL_SEGMENT_WAS_ZERO, 0);
    rig_close(&rig, true);
    rig_segment_path(&rig, rig_segment_count(&rig) - 1, path);
    rig_flip(path, closing + JOURNAL_PAGE_BYTES - 1, 1);
    rig_open(&rig, last);
    journal_state(rig.journal, &found);
    assert_false(found.clean);
    assert_int_equal(found.torn_bytes, JOURNAL_PAGE_BYTES - JOURNAL_COMMIT_HEAD_BYTES);
    assert_int_equal(found.damaged_bytes, 0);
    assert_int_equal(found.last_position, last);
    rig_finish(&rig);
}

/* Bytes that this process has read from files. */
static uint64_t count_read(void)
{
    static const char name[] = "rchar: ";
    char line[64];
    FILE *file = fopen("/proc/self/io", "re");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof(line), file));
    assert_int_equal(fclose(file), 0);
    assert_memory_equal(line, name, sizeof(name) - 1);
    return strtoull(line + sizeof(name) - 1, NULL, 10);
}

static void test_the_rest_of_killed_segments_is_not_read(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig.options.segment_bytes = 16u << 20u;
    for (uint32_t run = 0; run < 4; run++) {
        rig_open(&rig, 0);
        (void)rig_append(&rig, run, 100);
        rig_run(&rig);
        if (run < 3) {
            rig_close(&rig, false);
        }
    }
    assert_int_equal(rig_segment_count(&rig), 4);
    uint64_t before = count_read();
    assert_int_equal(rig_read(&rig, 0, numbers, NULL, RIG_FRAMES_MAX), 4);
    /* Of each one window, and some pages. */
    assert_in_range(count_read() - before, 1, 4 * (2u << 20u));
    for (uint32_t run = 0; run < 4; run++) {
        assert_int_equal(numbers[run], run);
    }
    rig_finish(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spare_is_prepared_and_used),
        cmocka_unit_test(test_segment_is_not_read_before_it_is_active),
        cmocka_unit_test(test_recycled_segments_hold_only_their_own),
        cmocka_unit_test(test_only_released_segments_go),
        cmocka_unit_test(test_failed_commit_stays_void),
        cmocka_unit_test(test_torn_closing_page_of_recycled_file),
        cmocka_unit_test(test_the_rest_of_killed_segments_is_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
