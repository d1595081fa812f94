/* Promise: a copy holds exactly the frames that are wanted, byte for byte, as a journal that
 * recovers cleanly; damage is counted and left behind; and while the journal is pinned nothing
 * goes. link: journal_rig.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/journal_rig.h"
#include "support/tree.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define POSITIONS_MAX 4096u

static struct rig rig;
static char copy_path[128];

static int setup(void **state)
{
    (void)state;
    rig_init(&rig);
    (void)snprintf(copy_path, sizeof(copy_path), "%s/copy", rig.root);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_finish(&rig);
    return 0;
}

static struct journal_copied copy(uint64_t after, uint64_t until)
{
    struct err_detail detail = {{0}};
    struct journal_copied copied = {0};
    struct journal_copy what = {
        .from = rig.directory, .to = copy_path, .after = after, .until = until};
    tree_remove(copy_path);
    assert_int_equal(journal_copy(&what, &copied, &detail), ERR_OK);
    return copied;
}

/* The rig's journal is closed, and the copy stands in its place. */
static void take_copy(uint64_t applied)
{
    rig_close(&rig, true);
    tree_remove(rig.directory);
    assert_int_equal(rename(copy_path, rig.directory), 0);
    rig_open(&rig, applied);
}

static void fill(uint32_t from, uint32_t to, size_t size)
{
    for (uint32_t i = from; i < to; i++) {
        (void)rig_append(&rig, i, size);
        if (i % 7 == 6) {
            rig_run(&rig);
        }
    }
    rig_run(&rig);
}

/* Frames number i have position i + 1. */
static void expect_frames(uint64_t after, uint64_t until)
{
    static uint32_t numbers[POSITIONS_MAX];
    static uint64_t positions[POSITIONS_MAX];
    uint32_t count = rig_read(&rig, after, numbers, positions, POSITIONS_MAX);
    assert_int_equal(count, until - after);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(positions[i], after + i + 1);
        assert_int_equal(numbers[i], after + i);
    }
}

static void test_a_part_over_many_segments(void **state)
{
    (void)state;
    struct journal_state before;
    struct journal_state found;
    rig_open(&rig, 0);
    journal_state(rig.journal, &before);
    fill(0, 100, 50000); /* five segments and more than one commit of the copy */
    assert_true(rig_segment_count(&rig) > 4);
    fill(100, 130, 500);
    struct journal_copied copied = copy(30, 110);
    assert_int_equal(copied.frames, 80);
    assert_int_equal(copied.last_position, 110);
    assert_int_equal(copied.missing, 0);
    take_copy(30);
    assert_int_equal(rig_segment_count(&rig), 2); /* the copy, and that of this run */
    journal_state(rig.journal, &found);
    assert_true(found.clean && found.torn_bytes == 0 && found.damaged_bytes == 0);
    assert_true(id_equal(found.id, before.id));
    assert_int_equal(found.last_position, 110);
    expect_frames(30, 110);
    /* It goes on behind the copy. */
    uint32_t ticket = rig_append(&rig, 110, 10);
    rig_run(&rig);
    assert_int_equal(rig.tickets[ticket].position, 111);
}

static void test_nothing_above_is_still_a_journal(void **state)
{
    (void)state;
    struct journal_state before;
    struct journal_state found;
    rig_open(&rig, 0);
    journal_state(rig.journal, &before);
    fill(0, 20, 500);
    struct journal_copied copied = copy(20, 20);
    assert_int_equal(copied.frames, 0);
    assert_int_equal(copied.last_position, 20);
    take_copy(20);
    journal_state(rig.journal, &found);
    assert_true(id_equal(found.id, before.id) && !found.is_new && found.clean);
    uint32_t ticket = rig_append(&rig, 20, 10);
    rig_run(&rig);
    assert_int_equal(rig.tickets[ticket].position, 21);
    expect_frames(20, 21);
}

static void test_to_the_end_after_a_kill(void **state)
{
    (void)state;
    rig_open(&rig, 0);
    fill(0, 20, 500);
    rig_close(&rig, false);
    rig_open(&rig, 0);
    fill(20, 25, 500);
    rig_close(&rig, false);
    struct journal_copied copied = copy(0, UINT64_MAX);
    assert_int_equal(copied.frames, 25);
    assert_int_equal(copied.missing, 0);
    rig_open(&rig, 0);
    take_copy(0);
    expect_frames(0, 25);
}

static void test_damage_is_counted_and_left_behind(void **state)
{
    (void)state;
    struct journal_state found;
    char path[JOURNAL_PATH_BYTES];
    rig_open(&rig, 0);
    fill(0, 40, 2000);
    rig_segment_path(&rig, 0, path);
    rig_flip(path, 3 * 4096 + 300, 4); /* in the first commit, of seven frames */
    struct journal_copied copied = copy(0, 40);
    assert_int_equal(copied.frames + copied.missing, 40);
    assert_int_equal(copied.missing, 1);
    /* Where frames are missing at the end, they are counted too. */
    assert_int_equal(copy(30, 45).missing, 5);
    (void)copy(0, 40);
    take_copy(0);
    journal_state(rig.journal, &found);
    assert_int_equal(found.damaged_bytes, 0);
    assert_int_equal(found.last_position, 40);
}

/* As after a restore: the base lies far above what the older segments hold. */
static void test_a_jump_is_no_damage(void **state)
{
    (void)state;
    static uint32_t numbers[100];
    static uint64_t positions[100];
    struct err_detail detail;
    rig_open(&rig, 0);
    fill(0, 10, 500);
    rig_close(&rig, true);
    assert_int_equal(rig_try_open(&rig, 0), ERR_OK);
    rig_close(&rig, true);
    assert_int_equal(journal_open(&rig.journal, &rig.options,
                                  (struct journal_from[]){journal_from_all(0)}, &detail),
                     ERR_OK);
    assert_int_equal(journal_start(rig.journal, 1000000, &detail), ERR_OK);
    assert_int_equal(journal_producer_create(&rig.producer, rig.journal, 0, rig.mailbox), ERR_OK);
    fill(10, 20, 500);
    struct journal_copied copied = copy(4, 1000010);
    assert_int_equal(copied.frames, 16);
    assert_int_equal(copied.missing, 0);
    take_copy(4);
    uint32_t count = rig_read(&rig, 4, numbers, positions, 100);
    assert_int_equal(count, 16);
    assert_int_equal(positions[5], 10);
    assert_int_equal(positions[6], 1000001);
    assert_int_equal(numbers[15], 19);
}

static void test_while_it_is_pinned_nothing_goes(void **state)
{
    (void)state;
    int pin = -1;
    int second = -1;
    rig_open(&rig, 0);
    assert_false(journal_is_pinned(rig.journal));
    fill(0, 100, 50000);
    uint32_t count = rig_segment_count(&rig);
    assert_int_equal(journal_pin(rig.directory, &pin), ERR_OK);
    assert_int_equal(journal_pin(rig.directory, &second), ERR_BUSY);
    assert_true(journal_is_pinned(rig.journal));
    journal_release(rig.journal, 100);
    rig_run_all(&rig);
    assert_int_equal(rig_segment_count(&rig), count);
    journal_unpin(pin);
    assert_false(journal_is_pinned(rig.journal));
    rig_run_all(&rig);
    assert_true(rig_segment_count(&rig) < count);
}

static void test_no_journal(void **state)
{
    (void)state;
    struct id id;
    int pin = -1;
    assert_int_equal(journal_identify(rig.directory, &id), ERR_NOT_FOUND);
    assert_int_equal(journal_pin(rig.directory, &pin), ERR_NOT_FOUND);
    assert_int_equal(pin, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_part_over_many_segments, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_above_is_still_a_journal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_to_the_end_after_a_kill, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_counted_and_left_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_jump_is_no_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_while_it_is_pinned_nothing_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_journal, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
