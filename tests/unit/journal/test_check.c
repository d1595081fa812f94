/* Promise: the offline check counts what is in a journal, hands out every frame that counts, finds
 * damage and torn tails, and changes nothing.
 * link: journal_rig.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/journal_rig.h"

#include <unistd.h>

struct seen {
    uint32_t frames;
    uint64_t done;
    uint64_t all;
};

static void on_frame(const struct journal_frame *frame, void *context)
{
    struct seen *seen = context;
    assert_int_equal(rig_number(frame), seen->frames);
    assert_int_equal(frame->position, seen->frames + 1);
    seen->frames++;
}

static void on_progress(uint64_t done, uint64_t all, void *context)
{
    struct seen *seen = context;
    assert_true(done >= seen->done && done <= all);
    seen->done = done;
    seen->all = all;
}

static void check(struct rig *rig, struct journal_check_report *report, struct seen *seen)
{
    struct err_detail detail;
    *seen = (struct seen){0};
    assert_int_equal(journal_check(rig->directory, report, on_frame, on_progress, seen, &detail),
                     ERR_OK);
    assert_int_equal(seen->done, seen->all);
}

static void make(struct rig *rig)
{
    rig_init(rig);
    for (uint32_t round = 0; round < 3; round++) {
        rig_open(rig, 0);
        for (uint32_t i = 0; i < 10; i++) {
            (void)rig_append(rig, round * 10 + i, 500);
            if (i % 5 == 4) {
                rig_run(rig);
            }
        }
        rig_close(rig, true);
    }
}

static void test_counts(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_check_report report;
    struct seen seen;
    make(&rig);
    check(&rig, &report, &seen);
    assert_int_equal(seen.frames, 30);
    assert_int_equal(report.frames, 30);
    assert_int_equal(report.segments, 3);
    assert_int_equal(report.commits, 9); /* two and a closing one each */
    assert_int_equal(report.bytes, 30 * journal_frame_size(72 + 500));
    assert_int_equal(report.first_position, 1);
    assert_int_equal(report.last_position, 30);
    assert_true(report.clean && report.torn_bytes == 0 && report.damaged_bytes == 0);
    assert_int_equal(seen.all, 3 * 1024 * 1024);
    /* Unchanged: the journal still opens as after a clean stop. */
    struct journal_state found;
    rig_open(&rig, 0);
    journal_state(rig.journal, &found);
    assert_true(found.clean && found.last_position == 30);
    rig_finish(&rig);
}

static void test_torn_tail(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_check_report report;
    struct seen seen;
    char path[JOURNAL_PATH_BYTES];
    make(&rig);
    rig_segment_path(&rig, 2, path);
    /* Head page, then the first commit of 64 + 5 * 616 bytes on one page; the second, and no more.
     */
    assert_int_equal(truncate(path, 4096 + 4096 + 64 + 616 * 2 + 100), 0);
    check(&rig, &report, &seen);
    assert_int_equal(report.frames, 27);
    assert_int_equal(report.torn_bytes, 100);
    assert_true(!report.clean && report.damaged_bytes == 0);
    rig_finish(&rig);
}

static void test_damage(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_check_report report;
    struct err_detail detail;
    char path[JOURNAL_PATH_BYTES];
    make(&rig);
    rig_segment_path(&rig, 1, path);
    rig_flip(path, 4096 + 64 + 616 + 50, 1); /* its second frame */
    assert_int_equal(journal_check(rig.directory, &report, NULL, NULL, NULL, &detail), ERR_OK);
    assert_int_equal(report.frames, 29);
    assert_int_equal(report.damaged_bytes, 616);
    assert_int_equal(report.damaged_places, 1);
    /* The same by recovery, which keeps a copy. */
    struct journal_state found;
    rig_open(&rig, 0);
    journal_state(rig.journal, &found);
    assert_int_equal(found.damaged_bytes, 616);
    rig_close(&rig, true);
    /* The end of an older segment is lost: its successor knows. */
    assert_int_equal(truncate(path, 4096 + 4096), 0);
    assert_int_equal(journal_check(rig.directory, &report, NULL, NULL, NULL, &detail), ERR_OK);
    assert_int_equal(report.frames, 24);
    assert_int_equal(report.damaged_places, 2);
    assert_int_equal(journal_check("no/such/directory", &report, NULL, NULL, NULL, &detail),
                     ERR_NOT_FOUND);
    assert_non_null(strstr(detail.text, "no/such/directory"));
    rig_finish(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_torn_tail),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
