/* Promise: on a server that nobody uses any more, what a frame held stands in no file of the
 * journal a day later; and nothing that is not applied goes. link: journal_rig.c clock_shift.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/clock_shift.h"
#include "support/journal_rig.h"

#include "base/clock.h"
#include "base/mem.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define MINUTE_NS (60 * UINT64_C(1000000000))
#define SECRET    "what-ann-said"

static uint32_t numbers[RIG_FRAMES_MAX];

static uint32_t append_secret(struct rig *rig, size_t size)
{
    uint32_t ticket = UINT32_MAX;
    uint8_t *body = mem_alloc(size);
    memset(body, 'x', size);
    memcpy(body + size - strlen(SECRET), SECRET, strlen(SECRET));
    assert_int_equal(rig_try_append(rig, 1, slice_make(body, size), &ticket), ERR_OK);
    mem_free(body);
    return ticket;
}

/* Files of the journal that hold it, whatever their names. */
static uint32_t count_holders(const struct rig *rig)
{
    DIR *directory = opendir(rig->directory);
    uint32_t count = 0;
    const struct dirent *entry;
    assert_non_null(directory);
    uint8_t *bytes = mem_alloc(rig->options.segment_bytes);
    while ((entry = readdir(directory)) != NULL) {
        char path[512];
        (void)snprintf(path, sizeof(path), "%s/%s", rig->directory, entry->d_name);
        FILE *file = entry->d_type == DT_REG ? fopen(path, "rb") : NULL;
        if (file != NULL) {
            size_t size = fread(bytes, 1, rig->options.segment_bytes, file);
            count += memmem(bytes, size, SECRET, strlen(SECRET)) != NULL;
            assert_int_equal(fclose(file), 0);
        }
    }
    mem_free(bytes);
    assert_int_equal(closedir(directory), 0);
    return count;
}

/* As the threads do: the committer looks once a minute, the preparer each second. */
static void pass(struct rig *rig, uint32_t minutes)
{
    for (uint32_t i = 0; i < minutes; i++) {
        clock_shift_ns += MINUTE_NS;
        rig_run_all(rig);
        journal_committer_look(rig->journal, clock_mono_ns());
        rig_run_all(rig);
    }
}

static void open_with_window(struct rig *rig)
{
    rig_init_in_memory(rig);
    rig->options.replay_window_s = 600; /* the default */
    rig_open(rig, 0);
    rig_run_all(rig);
}

static void apply_all(struct rig *rig)
{
    journal_credit(rig->journal, 1, UINT64_C(1) << 30u, 1);
    journal_release(rig->journal, journal_durable_position(rig->journal));
}

/* One frame, and nothing after it. */
static void test_lone_frame_goes(void **state)
{
    (void)state;
    struct rig rig;
    open_with_window(&rig);
    (void)append_secret(&rig, 1000);
    rig_run_all(&rig);
    apply_all(&rig);
    pass(&rig, 58);
    assert_int_equal(count_holders(&rig), 1); /* not before its time */
    pass(&rig, 2 + 12);
    assert_int_equal(rig_segment_count(&rig), 1);
    pass(&rig, 60); /* as a spare it waits at most this long */
    assert_int_equal(count_holders(&rig), 0);
    uint64_t sequence = atomic_load(&rig.journal->active_sequence);
    pass(&rig, 24 * 60);
    assert_int_equal(atomic_load(&rig.journal->active_sequence), sequence); /* an empty one stays */
    (void)rig_append(&rig, 7, 100);
    rig_run_all(&rig);
    assert_int_equal(rig_read(&rig, 1, numbers, NULL, RIG_FRAMES_MAX), 1);
    assert_int_equal(numbers[0], 7);
    rig_finish(&rig);
}

/* Files that are used again and again, then rest; then a little, each hour. */
static void test_recycled_files_go(void **state)
{
    (void)state;
    struct rig rig;
    open_with_window(&rig);
    rig.journal->options.replay_window_s = 0;
    for (uint32_t i = 0; i < 200; i++) {
        (void)append_secret(&rig, 60000);
        rig_run_all(&rig);
        apply_all(&rig);
        rig_run_all(&rig);
    }
    assert_int_equal(rig.journal->committer.segment.head.flags & JOURNAL_SEGMENT_WAS_ZERO, 0);
    assert_true(count_holders(&rig) >= 2);
    for (uint32_t hour = 0; hour < 24; hour++) {
        pass(&rig, 60);
        (void)rig_append(&rig, hour, 100);
        rig_run_all(&rig);
        apply_all(&rig);
    }
    assert_int_equal(count_holders(&rig), 0);
    rig_finish(&rig);
}

/* However busy: each life may leave the end of the one before it unwritten. */
static void test_no_file_lives_for_ever(void **state)
{
    (void)state;
    struct rig rig;
    bool are_kept = false;
    open_with_window(&rig);
    for (uint32_t i = 0; i < 10; i++) {
        (void)rig_append(&rig, i, 400000);
        (void)rig_append(&rig, i, 400000);
        (void)append_secret(&rig, 200000);
        rig_run_all(&rig);
        apply_all(&rig);
        pass(&rig, 4);
    }
    assert_true(count_holders(&rig) > 0);
    for (uint32_t i = 0; i < 24 * 30; i++) { /* two a segment: the last fifth of it stays */
        (void)rig_append(&rig, i, 400000);
        rig_run_all(&rig);
        apply_all(&rig);
        pass(&rig, 2);
        are_kept = are_kept || (i == 100 && count_holders(&rig) > 0);
    }
    assert_true(are_kept); /* else it would try nothing */
    assert_int_equal(count_holders(&rig), 0);
    rig_finish(&rig);
}

/* The failing twin: what is not applied stays, in its order, however old. */
static void test_what_is_not_applied_stays(void **state)
{
    (void)state;
    struct rig rig;
    open_with_window(&rig);
    for (uint32_t i = 0; i < 5; i++) {
        (void)rig_append(&rig, i, 100);
        rig_run_all(&rig);
        pass(&rig, 10 * 60);
    }
    assert_int_equal(rig_segment_count(&rig), 6);
    for (uint32_t round = 0; round < 2; round++) {
        assert_int_equal(rig_read(&rig, 0, numbers, NULL, RIG_FRAMES_MAX), 5);
        for (uint32_t i = 0; i < 5; i++) {
            assert_int_equal(numbers[i], i);
        }
        rig_close(&rig, round == 0);
        rig_open(&rig, 0);
    }
    rig_finish(&rig);
}

/* Short of disk no segment is begun for its age alone. */
static void test_short_of_disk(void **state)
{
    (void)state;
    struct rig rig;
    open_with_window(&rig);
    (void)rig_append(&rig, 1, 100);
    rig_run_all(&rig);
    uint64_t sequence = atomic_load(&rig.journal->active_sequence);
    atomic_store(&rig.journal->room.is_short, true);
    clock_shift_ns += 100 * MINUTE_NS;
    journal_committer_look(rig.journal, clock_mono_ns());
    assert_int_equal(atomic_load(&rig.journal->active_sequence), sequence);
    atomic_store(&rig.journal->room.is_short, false);
    journal_committer_look(rig.journal, clock_mono_ns());
    assert_true(atomic_load(&rig.journal->active_sequence) > sequence);
    rig_finish(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lone_frame_goes),           cmocka_unit_test(test_recycled_files_go),
        cmocka_unit_test(test_no_file_lives_for_ever),    cmocka_unit_test(test_short_of_disk),
        cmocka_unit_test(test_what_is_not_applied_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
