/* Promise: however many appliers share the lanes, and whoever loses one in the middle, every record
 * is applied once, in the order of its lane, the results of a frame are those of all its parts, and
 * the backlog counts each record until it is in the store, after a restart too, and no longer.
 *
 * link: store_fixture.c apply_rig.c */
#include "apply/internal.h"
#include "support/apply_rig.h"

#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define SUBJECTS 50u

static struct apply_rig rig;
static uint32_t appended; /* numbers 0 to appended - 1 */
static uint64_t waiters;

static int setup(void **state)
{
    (void)state;
    appended = 0;
    waiters = 0;
    apply_rig_init(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    apply_rig_finish(&rig);
    return 0;
}

static void put_event(struct buffer *to, uint32_t number)
{
    assert_int_equal(buffer_printf(to,
                                   "{\"type\":\"t\",\"dedup_id\":\"d%u\",\"subject\":\"s%u\","
                                   "\"payload\":{\"n\":%u}}",
                                   number, number % SUBJECTS, number),
                     ERR_OK);
}

/* `count` events in one frame, of several lanes when there is more than one. */
static void append(uint32_t count, uint64_t waiter)
{
    static struct record_frame frame;
    struct buffer body;
    int64_t now_ms = (int64_t)1000 + appended;
    char subject[16];
    buffer_init(&body, 1u << 20u);
    (void)snprintf(subject, sizeof(subject), "s%u", appended % SUBJECTS);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(buffer_append_text(&body, count == 1 ? "" : i == 0 ? "[" : ","), ERR_OK);
        put_event(&body, appended + i);
    }
    assert_int_equal(buffer_append_text(&body, count == 1 ? "" : "]"), ERR_OK);
    frame = (struct record_frame){.form = count == 1 ? RECORD_FORM_EVENT : RECORD_FORM_EVENT_ARRAY,
                                  .lane = count == 1 ? record_lane(1, slice_from_text(subject))
                                                     : RECORD_LANE_MIXED,
                                  .org = 1,
                                  .received_ms = now_ms,
                                  .id = id_make_v7(now_ms),
                                  .waiter = waiter,
                                  .run = APPLY_RIG_RUN,
                                  .record_count = count,
                                  .body = buffer_slice(&body)};
    apply_rig_append_bytes(&rig, &frame);
    appended += count;
    buffer_finish(&body);
}

static void assert_all(void)
{
    struct journal_backlog backlog;
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM events WHERE type = 't'"),
                     appended);
    assert_int_equal(
        apply_rig_number(&rig, "SELECT count(DISTINCT json_extract(payload, '$.n')) FROM events"),
        appended);
    /* In each subject's order: none stands behind a later one. */
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM events a JOIN events b"
                                            " ON a.subject = b.subject AND a.sequence < b.sequence"
                                            " AND a.created_ms > b.created_ms"),
                     0);
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.bytes, 0);
    assert_int_equal(backlog.records, 0);
    assert_int_equal(backlog.frames, 0);
}

static void test_any_number_over_restarts(void **state)
{
    (void)state;
    static const uint32_t pools[] = {4, 1, 0, 3, 0, 4, 2, 4};
    uint32_t seed = 0;
    hash_random(&seed, sizeof(seed));
    print_message("seed %u\n", seed);
    for (uint32_t round = 0; round < sizeof(pools) / sizeof(pools[0]); round++) {
        rig.appliers = pools[round];
        apply_rig_start(&rig);
        for (uint32_t i = 0; i < 60; i++) {
            seed = seed * 1664525u + 1013904223u;
            append((seed >> 16u) % 3 == 0 ? 1 : 1 + (seed >> 20u) % 40, RECORD_WAITER_NONE);
        }
        apply_rig_flush(&rig);
        if (round % 2 == 1) {
            apply_rig_wait(&rig);
        }
        apply_rig_stop(&rig); /* anywhere in between, in the even ones */
        apply_rig_close(&rig);
        apply_rig_open(&rig);
    }
    rig.appliers = 4;
    apply_rig_start(&rig);
    apply_rig_wait(&rig);
    apply_rig_stop(&rig);
    assert_all();
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM cursors"), 64);
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM cursors WHERE holder <> 0"), 0);
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM appliers"), 0);
    assert_true(apply_rig_number(&rig, "SELECT min(position) FROM cursors") ==
                (int64_t)rig.last_position);
}

static void test_results_are_put_together(void **state)
{
    (void)state;
    rig.appliers = 4;
    apply_rig_start(&rig);
    append(40, ++waiters);
    const struct record_result *result = apply_rig_result(&rig, waiters);
    assert_int_equal(result->inserted, 40);
    assert_int_equal(result->item_count, 40);
    assert_int_equal(result->position, rig.last_position);
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(result->items[i], RECORD_ITEM_INSERTED);
    }
    appended = 20; /* 20 of before, then 20 that are new */
    append(40, ++waiters);
    result = apply_rig_result(&rig, waiters);
    assert_int_equal(result->inserted, 20);
    assert_int_equal(result->duplicates, 20);
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(result->items[i], i < 20 ? RECORD_ITEM_DUPLICATE : RECORD_ITEM_INSERTED);
    }
    apply_rig_wait(&rig);
    apply_rig_stop(&rig);
    assert_all();
}

/* What somebody else does; an applier that locks the same rows in another order may win. */
static void interfere(const char *sql)
{
    enum err err = ERR_BUSY;
    while (err == ERR_BUSY) {
        err = store_fixture_sql(&rig.store, sql);
    }
    assert_int_equal(err, ERR_OK);
}

/* Somebody takes every third lane, has it for a while, and dies. */
static void test_lanes_are_lost_and_come_back(void **state)
{
    (void)state;
    rig.appliers = 4;
    apply_rig_start(&rig);
    append(40, RECORD_WAITER_NONE);
    apply_rig_wait(&rig);
    for (uint32_t round = 0; round < 3; round++) {
        interfere("UPDATE cursors SET holder = 99, until_ms = 9000000000000000 WHERE lane % 3 = 0");
        for (uint32_t i = 0; i < 30; i++) {
            append(1 + i % 7, RECORD_WAITER_NONE);
        }
        apply_rig_flush(&rig);
        interfere("UPDATE cursors SET until_ms = 0 WHERE holder = 99");
        apply_rig_wait(&rig);
    }
    apply_rig_stop(&rig);
    assert_all();
}

/* Uploads are of the lane that their end record is in. */
static void test_uploads_are_shared(void **state)
{
    (void)state;
    struct buffer lines;
    buffer_init(&lines, 1u << 20u);
    rig.appliers = 4;
    rig.upload_form = RECORD_FORM_EVENT_LINES;
    apply_rig_start(&rig);
    for (uint32_t upload = 0; upload < 6; upload++) {
        buffer_clear(&lines);
        for (uint32_t i = 0; i < 100; i++) {
            put_event(&lines, appended++);
            assert_int_equal(buffer_append_byte(&lines, '\n'), ERR_OK);
        }
        (void)apply_rig_upload(&rig, 1, buffer_slice(&lines), 30, ++waiters);
    }
    for (uint64_t waiter = 1; waiter <= 6; waiter++) {
        while (!rig.has_result[waiter]) {
            assert_int_equal(sem_wait(&rig.applied), 0);
        }
        assert_int_equal(rig.results[waiter].inserted, 100);
    }
    apply_rig_stop(&rig);
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM events"), appended);
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM uploads WHERE state = 2"), 6);
    buffer_finish(&lines);
}

/* Who has lost lane 0 and does not know it lists the same frames as who has it now. The records of
 * an upload leave by its slices, whatever becomes of its end record. */
static void test_a_frame_of_several_lanes_leaves_once(void **state)
{
    (void)state;
    struct journal_backlog backlog;
    struct journal_frame frames[2] = {{.position = 1,
                                       .lane = RECORD_LANE_MIXED,
                                       .form = RECORD_FORM_EVENT_ARRAY,
                                       .org = 1,
                                       .record_count = 40,
                                       .bytes = 64},
                                      {.position = 2,
                                       .lane = RECORD_LANE_MIXED,
                                       .form = RECORD_FORM_UPLOAD_END,
                                       .org = 1,
                                       .record_count = 30,
                                       .bytes = 64}};
    append(40, RECORD_WAITER_NONE);
    append(30, RECORD_WAITER_NONE); /* as if it were the upload */
    append(20, RECORD_WAITER_NONE); /* stays */
    apply_rig_flush(&rig);
    rig.appliers = 2;
    apply_rig_prepare(&rig);
    struct applier *both[2] = {apply_applier(rig.apply, 0), apply_applier(rig.apply, 1)};
    for (int i = 0; i < 2; i++) {
        apply_lanes_set(both[i], APPLY_LANES_ALL);
        apply_lanes_count(both[i], &frames[0]);
        apply_lanes_count(both[i], &frames[1]);
    }
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        atomic_store(&both[0]->apply->passed[i], 2);
    }
    for (int i = 0; i < 2; i++) {
        (void)apply_lanes_tell(both[i]);
        apply_lanes_set(both[i], 0);
    }
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.records, 30 + 20);
    apply_rig_stop(&rig);
}

/* How many of the numbers are of that lane. */
static uint32_t count_of_lane(uint32_t from, uint32_t to, uint8_t lane)
{
    uint32_t count = 0;
    for (uint32_t i = from; i < to; i++) {
        char subject[16];
        (void)snprintf(subject, sizeof(subject), "s%u", i % SUBJECTS);
        count += record_lane(1, slice_from_text(subject)) == lane;
    }
    return count;
}

/* Lane 0 has passed a frame, and somebody who died had another of its lanes. */
static void test_a_start_counts_what_some_lanes_have_not_passed(void **state)
{
    (void)state;
    struct journal_backlog backlog;
    char sql[128];
    uint8_t lane = 0;
    while (lane == 0 || count_of_lane(40, 80, lane) == 0) {
        lane++;
    }
    rig.appliers = 2;
    apply_rig_start(&rig);
    append(40, RECORD_WAITER_NONE);
    apply_rig_wait(&rig);
    (void)snprintf(sql, sizeof(sql),
                   "UPDATE cursors SET holder = 99, until_ms = 9000000000000000 WHERE lane = %u",
                   lane);
    interfere(sql);
    append(40, RECORD_WAITER_NONE);
    apply_rig_flush(&rig);
    while (apply_rig_number(&rig, "SELECT count(*) FROM events") <
           80 - (int64_t)count_of_lane(40, 80, lane)) {
        assert_int_equal(sem_wait(&rig.applied), 0);
    }
    apply_rig_stop(&rig);
    apply_rig_close(&rig);
    apply_rig_open(&rig);
    assert_true(apply_rig_number(&rig, "SELECT position FROM cursors WHERE lane = 0") ==
                (int64_t)rig.last_position);
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.records, 40);
    apply_rig_start(&rig);
    apply_rig_wait(&rig);
    apply_rig_stop(&rig);
    assert_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_any_number_over_restarts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_results_are_put_together, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lanes_are_lost_and_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_uploads_are_shared, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_frame_of_several_lanes_leaves_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_start_counts_what_some_lanes_have_not_passed, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
