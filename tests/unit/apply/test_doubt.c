/* Promise: a commit that happened, and whose answer was lost, is not done twice and stalls nobody:
 * events, small uploads and large ones are in the store once, and counted once.
 *
 * link: store_fixture.c apply_rig.c
 *
 * The file under test is included with one of its calls renamed: of each part the first answer is
 * replaced by "the store is away", after its transaction was committed. */
#include "support/apply_rig.h"

#include "apply/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void (*real_done)(struct store_job *job);
static uint32_t answers;
static uint32_t lost;

static void done_in_doubt(struct store_job *job)
{
    if (job->err == ERR_OK && answers++ % 2 == 0) {
        lost++;
        job->err = ERR_AWAY;
    }
    real_done(job);
}

static enum err post_in_doubt(struct store *store, struct store_job *job)
{
    real_done = job->on_done;
    job->on_done = done_in_doubt;
    return store_post_write(store, job);
}

#define store_post_write post_in_doubt
#include "../../../src/apply/apply.c"
#undef store_post_write

static int setup(void **state)
{
    static struct apply_rig rig;
    answers = 0;
    lost = 0;
    apply_rig_init(&rig);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    apply_rig_finish(*state);
    return 0;
}

static struct slice make_lines(struct buffer *to, uint32_t count)
{
    buffer_init(to, 64u << 20u);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(
            buffer_printf(to, "{\"type\":\"t\",\"dedup_id\":\"u%u\",\"payload\":{\"n\":%u}}\n", i,
                          i),
            ERR_OK);
    }
    return buffer_slice(to);
}

/* They come in any order. */
static enum err result_of(struct apply_rig *rig, uint64_t waiter)
{
    while (!rig->has_result[waiter]) {
        assert_int_equal(sem_wait(&rig->applied), 0);
    }
    return rig->results[waiter].err;
}

static void test_events(void **state)
{
    struct apply_rig *rig = *state;
    apply_rig_append(rig, RECORD_FORM_EVENT, 1, "{\"type\":\"a\",\"payload\":1}", 1, 5);
    apply_rig_append(rig, RECORD_FORM_EVENT, 2, "{\"type\":\"b\",\"payload\":2}", 1, 6);
    apply_rig_flush(rig);
    apply_rig_start(rig);
    assert_int_equal(result_of(rig, 5), ERR_OK);
    assert_int_equal(result_of(rig, 6), ERR_OK);
    assert_true(lost > 0);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM events"), 2);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM dead_letters"), 0);
}

static void check_upload(struct apply_rig *rig, uint32_t count, uint32_t slice_elements)
{
    struct buffer lines;
    (void)apply_rig_upload(rig, 1, make_lines(&lines, count), slice_elements, 7);
    apply_rig_append(rig, RECORD_FORM_EVENT, 2, "{\"type\":\"after\",\"payload\":1}", 1, 8);
    apply_rig_flush(rig);
    apply_rig_start(rig);
    assert_int_equal(result_of(rig, 8), ERR_OK);
    assert_int_equal(result_of(rig, 7), ERR_OK);
    assert_true(lost >= 2);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM events"), count + 1);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE state = 2"
                                           " AND slices_done = slice_count"
                                           " AND duplicate_count = 0"),
                     1);
    assert_int_equal(apply_rig_number(rig, "SELECT inserted_count FROM uploads"), count);
    assert_int_equal(apply_rig_number(rig, "SELECT applied_count FROM uploads"), count);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM upload_slices"), 0);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM dead_letters"), 0);
    buffer_finish(&lines);
}

static void test_a_small_upload(void **state)
{
    check_upload(*state, 300, 100);
}

static void test_a_large_upload(void **state)
{
    check_upload(*state, 5000, 1500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_small_upload, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_large_upload, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
