/* Promise: bytes that go bad within a run, where the reader alone meets them, are known to this run
 * and to all later ones, whatever they look at. link: journal_rig.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/metrics.h"
#include "support/journal_rig.h"

static uint32_t numbers[RIG_FRAMES_MAX];

/* Appends a commit of one frame; where it begins in the active segment. */
static uint64_t append_one(struct rig *rig, uint32_t number)
{
    uint64_t offset = rig->journal->committer.segment.offset;
    (void)rig_append(rig, number, 500);
    rig_run(rig);
    return offset;
}

/* Within the frame. */
static void spoil(struct rig *rig, uint64_t commit_offset)
{
    char path[JOURNAL_PATH_BYTES];
    rig_segment_path(rig, 0, path);
    rig_flip(path, commit_offset + 200, 1);
}

/* Who reads now knows, counts a place once, and so does the next run, which reads nothing of it. */
static void check_is_known(struct rig *rig, uint32_t expected)
{
    uint64_t before = metrics_total(METRIC_JOURNAL_DAMAGED);
    assert_false(journal_has_damage(rig->journal));
    assert_int_equal(rig_read(rig, 0, numbers, NULL, RIG_FRAMES_MAX), expected);
    assert_true(journal_has_damage(rig->journal));
    uint64_t after = metrics_total(METRIC_JOURNAL_DAMAGED);
    assert_true(after > before);
    assert_int_equal(rig_read(rig, 0, numbers, NULL, RIG_FRAMES_MAX), expected);
    assert_int_equal(metrics_total(METRIC_JOURNAL_DAMAGED), after);
    uint64_t applied = journal_durable_position(rig->journal);
    rig_close(rig, true);
    rig_open(rig, applied);
    assert_true(journal_has_damage(rig->journal));
    rig_finish(rig);
}

static void test_in_the_middle(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_open(&rig, 0);
    (void)append_one(&rig, 0);
    uint64_t offset = append_one(&rig, 1);
    (void)append_one(&rig, 2);
    spoil(&rig, offset);
    check_is_known(&rig, 2);
}

static void test_last_of_the_newest_segment(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_open(&rig, 0);
    (void)append_one(&rig, 0);
    spoil(&rig, append_one(&rig, 1));
    check_is_known(&rig, 1);
}

static void test_last_of_an_older_segment(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    rig_open(&rig, 0);
    (void)append_one(&rig, 0);
    spoil(&rig, append_one(&rig, 1));
    assert_int_equal(journal_committer_open_segment(rig.journal), ERR_OK);
    (void)append_one(&rig, 2);
    check_is_known(&rig, 2);
}

/* Nothing is bad: the ends of segments, of runs and of what is there are no damage. */
static void test_ends_are_no_damage(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    for (uint32_t run = 0; run < 4; run++) {
        rig_open(&rig, 0);
        (void)append_one(&rig, 2 * run);
        assert_int_equal(rig_read(&rig, 0, numbers, NULL, RIG_FRAMES_MAX), 2 * run + 1);
        assert_int_equal(journal_committer_open_segment(rig.journal), ERR_OK);
        (void)append_one(&rig, 2 * run + 1);
        assert_int_equal(rig_read(&rig, 0, numbers, NULL, RIG_FRAMES_MAX), 2 * run + 2);
        assert_false(journal_has_damage(rig.journal));
        rig_close(&rig, run % 2 == 0);
    }
    rig_finish(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_the_middle),
        cmocka_unit_test(test_last_of_the_newest_segment),
        cmocka_unit_test(test_last_of_an_older_segment),
        cmocka_unit_test(test_ends_are_no_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
