/* Promise: every durable record is in the store exactly once, whatever stops in between; one that
 * the store refuses is a dead letter and blocks nothing; who waits gets the exact result.
 *
 * link: store_fixture.c apply_rig.c */
#include "support/apply_rig.h"

#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

static int setup(void **state)
{
    static struct apply_rig rig;
    apply_rig_init(&rig);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    apply_rig_finish(*state);
    return 0;
}

static void append_numbered(struct apply_rig *rig, uint32_t number, uint64_t waiter)
{
    char body[128];
    (void)snprintf(body, sizeof(body),
                   "{\"type\":\"t\",\"dedup_id\":\"d%u\",\"payload\":{\"n\":%u}}", number, number);
    apply_rig_append(rig, RECORD_FORM_EVENT, 1, body, 1, waiter);
}

/* Exactly numbers 0 to count - 1, each once. */
static void assert_numbers(struct apply_rig *rig, uint32_t count)
{
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM events WHERE type = 't'"), count);
    assert_int_equal(
        apply_rig_number(rig, "SELECT count(DISTINCT json_extract(payload, '$.n')) FROM events"),
        count);
    assert_int_equal(
        apply_rig_number(rig, "SELECT coalesce(max(json_extract(payload, '$.n')), -1) FROM events"),
        (int64_t)count - 1);
}

static void test_results_are_exact(void **state)
{
    struct apply_rig *rig = *state;
    apply_rig_start(rig);
    append_numbered(rig, 0, 1);
    const struct record_result *result = apply_rig_result(rig, 1);
    assert_int_equal(result->err, ERR_OK);
    assert_int_equal(result->inserted, 1);
    assert_int_equal(result->position, rig->last_position);
    append_numbered(rig, 0, 2);
    result = apply_rig_result(rig, 2);
    assert_int_equal(result->inserted, 0);
    assert_int_equal(result->duplicates, 1);
    assert_int_equal(result->conflicts, 0);
    apply_rig_append(rig, RECORD_FORM_EVENT, 1,
                     "{\"type\":\"t\",\"dedup_id\":\"d0\",\"payload\":{\"n\":9}}", 1, 3);
    result = apply_rig_result(rig, 3);
    assert_int_equal(result->duplicates, 1);
    assert_int_equal(result->conflicts, 1);
    apply_rig_append(rig, RECORD_FORM_EVENT_ARRAY, 1,
                     "[{\"type\":\"t\",\"dedup_id\":\"d0\",\"payload\":{\"n\":0}},{\"type\":7},"
                     "{\"type\":\"t\",\"payload\":{\"n\":1}}]",
                     2, 4);
    result = apply_rig_result(rig, 4);
    assert_int_equal(result->item_count, 3);
    assert_int_equal(result->items[0], RECORD_ITEM_DUPLICATE);
    assert_int_equal(result->items[1], RECORD_ITEM_REJECTED);
    assert_int_equal(result->items[2], RECORD_ITEM_INSERTED);
    assert_numbers(rig, 2);
    assert_int_equal(rig->position_seen, rig->last_position);
}

static void test_waiter_of_another_run_is_void(void **state)
{
    struct apply_rig *rig = *state;
    static struct record_frame frame;
    frame = (struct record_frame){
        .form = RECORD_FORM_EVENT,
        .org = 1,
        .waiter = 5,
        .run = APPLY_RIG_RUN + 1,
        .record_count = 1,
        .id = id_make_v7(1),
        .received_ms = 1,
        .body = slice_from_text("{\"type\":\"t\",\"payload\":{\"n\":0}}"),
    };
    apply_rig_start(rig);
    apply_rig_append_bytes(rig, &frame);
    apply_rig_wait(rig);
    apply_rig_stop(rig);
    assert_false(rig->has_result[5]);
    assert_numbers(rig, 1);
}

/* Stops after each handful, reopens everything, and what was there is not applied again. */
static void test_exactly_once_over_restarts(void **state)
{
    struct apply_rig *rig = *state;
    uint32_t count = 0;
    for (uint32_t round = 0; round < 12; round++) {
        for (uint32_t i = 0; i < 100; i++) {
            append_numbered(rig, count++, RECORD_WAITER_NONE);
        }
        if (round % 3 == 0) {
            apply_rig_flush(rig); /* durable, and nobody applies it in this round */
        } else {
            apply_rig_start(rig);
            apply_rig_flush(rig);
            if (round % 3 == 1) {
                apply_rig_wait(rig);
            }
            apply_rig_stop(rig); /* anywhere in between */
        }
        apply_rig_close(rig);
        apply_rig_open(rig);
    }
    apply_rig_start(rig);
    apply_rig_wait(rig);
    assert_numbers(rig, count);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM cursors"), 1);
}

/* The cursor is in the transaction of the rows: taking it back a commit repeats nothing. */
static void test_store_that_went_back_is_brought_forward(void **state)
{
    struct apply_rig *rig = *state;
    apply_rig_start(rig);
    for (uint32_t i = 0; i < 20; i++) {
        append_numbered(rig, i, RECORD_WAITER_NONE);
    }
    apply_rig_wait(rig);
    apply_rig_stop(rig);
    assert_int_equal(store_fixture_sql(&rig->store, "UPDATE cursors SET position = position - 15"),
                     ERR_OK);
    apply_rig_start(rig);
    append_numbered(rig, 20, 1);
    (void)apply_rig_result(rig, 1);
    assert_numbers(rig, 21);
}

static void test_refused_records_are_dead_letters(void **state)
{
    struct apply_rig *rig = *state;
    store_fixture_refuse(&rig->store, "NEW.type = 'bad'");
    for (uint32_t i = 0; i < 300; i++) {
        append_numbered(rig, i, RECORD_WAITER_NONE);
        if (i % 100 == 50) {
            apply_rig_append(rig, RECORD_FORM_EVENT, 1,
                             "{\"type\":\"bad\",\"subject\":\"s\",\"payload\":[1, 2],\"x\":true}",
                             1, i);
        }
    }
    apply_rig_start(rig);
    apply_rig_wait(rig);
    assert_numbers(rig, 300);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM dead_letters WHERE org = 1 AND "
                                           "kind = 'event' AND reason = 'refused'"),
                     3);
    assert_int_equal(rig->results[50].refused, 1);
    assert_int_equal(rig->results[50].items[0], RECORD_ITEM_REFUSED);
    /* The record can be sent again as it is. */
    assert_int_equal(
        apply_rig_number(rig, "SELECT count(*) FROM dead_letters WHERE json_extract(record, "
                              "'$.type') = 'bad' AND json_extract(record, '$.subject') = 's' AND "
                              "json_extract(record, '$.payload[1]') = 2 AND "
                              "json_extract(record, '$.x') = 1"),
        3);
}

static void append_end_of_later_version(struct apply_rig *rig)
{
    static struct record_frame frame;
    static uint8_t body[RECORD_UPLOAD_END_BYTES];
    struct record_upload_end end = {.form = RECORD_FORM_EVENT_LINES};
    record_upload_end_encode(&end, body);
    body[0]++; /* its version */
    frame = (struct record_frame){.form = RECORD_FORM_UPLOAD_END,
                                  .lane = RECORD_LANE_MIXED,
                                  .org = 1,
                                  .id = id_make_v7(1),
                                  .run = APPLY_RIG_RUN,
                                  .record_count = 1,
                                  .body = slice_make(body, sizeof(body))};
    apply_rig_append_bytes(rig, &frame);
}

static void test_unreadable_frames_are_dead_letters(void **state)
{
    struct apply_rig *rig = *state;
    append_numbered(rig, 0, RECORD_WAITER_NONE);
    apply_rig_append(rig, RECORD_FORM_EVENT_ARRAY, 1, "[{\"type\":\"t\",\"payload\":1},{", 2, 1);
    apply_rig_append(rig, (enum record_form)63, 1, "what", 1, 2);
    apply_rig_append(rig, RECORD_FORM_EVENT, 99, "{\"type\":\"t\",\"payload\":1}", 1, 3);
    append_end_of_later_version(rig);
    append_numbered(rig, 1, RECORD_WAITER_NONE);
    apply_rig_start(rig);
    apply_rig_wait(rig);
    assert_numbers(rig, 2);
    assert_int_equal(rig->results[1].err, ERR_CORRUPT);
    assert_int_equal(rig->results[2].err, ERR_CORRUPT);
    assert_int_equal(rig->results[3].refused, 1); /* no such org */
    assert_int_equal(
        apply_rig_number(rig, "SELECT count(*) FROM dead_letters WHERE reason = 'unreadable'"), 3);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM dead_letters WHERE org = 99"), 1);
}

/* A newer program accepted what this one rejects: the rest is applied and nothing is lost. */
static void test_fewer_elements_than_accepted_are_kept_too(void **state)
{
    struct apply_rig *rig = *state;
    apply_rig_start(rig);
    apply_rig_append(rig, RECORD_FORM_EVENT_ARRAY, 1,
                     "[{\"type\":\"t\",\"payload\":{\"n\":0}},{\"type\":\"\",\"payload\":1}]", 2,
                     1);
    assert_int_equal(apply_rig_result(rig, 1)->inserted, 1);
    assert_numbers(rig, 1);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM dead_letters"), 1);
}

/* Another process holds the database: nothing is lost, and it goes on by itself. */
static void test_locked_database_is_waited_for(void **state)
{
    struct apply_rig *rig = *state;
    sqlite3 *other = NULL;
    if (rig->store.is_postgres) {
        return; /* there it is the server that goes away: tests/integration */
    }
    apply_rig_start(rig);
    append_numbered(rig, 0, RECORD_WAITER_NONE);
    apply_rig_wait(rig);
    assert_int_equal(sqlite3_open(rig->store.path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    for (uint32_t i = 1; i < 200; i++) {
        append_numbered(rig, i, RECORD_WAITER_NONE);
    }
    apply_rig_flush(rig);
    uint64_t position = apply_position(rig->apply);
    while (store_health(rig->store.store) == ERR_OK) {
        assert_int_equal(apply_position(rig->apply), position);
        (void)sched_yield();
    }
    assert_int_equal(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    apply_rig_wait(rig);
    assert_numbers(rig, 200);
    assert_int_equal(store_health(rig->store.store), ERR_OK);
}

static void test_journal_goes_when_the_store_is_durable(void **state)
{
    struct apply_rig *rig = *state;
    struct journal_backlog backlog;
    apply_rig_start(rig);
    for (uint32_t i = 0; i < 1000; i++) {
        append_numbered(rig, i, RECORD_WAITER_NONE);
    }
    apply_rig_wait(rig);
    apply_rig_stop(rig);
    journal_backlog(rig->journal, &backlog);
    assert_int_equal(backlog.bytes, 0);
    assert_int_equal(backlog.records, 0);
}

/* Each journal has 2^44 positions of its own, in the order in which the store met them. */
static void test_new_journal_begins_above_what_was_applied(void **state)
{
    struct apply_rig *rig = *state;
    struct id other = id_make_v7(5);
    struct id third = id_make_v7(6);
    uint64_t base = 0;
    apply_rig_start(rig);
    append_numbered(rig, 0, RECORD_WAITER_NONE);
    apply_rig_wait(rig);
    apply_rig_stop(rig);
    assert_true(rig->last_position < UINT64_C(1) << 44u);
    assert_int_equal(apply_base(rig->store.store, other, true, &base), ERR_OK);
    assert_int_equal(base, UINT64_C(1) << 44u);
    append_numbered(rig, 1, RECORD_WAITER_NONE);
    apply_rig_start(rig);
    apply_rig_wait(rig);
    assert_true(rig->last_position < UINT64_C(1) << 44u);
    /* It stays what it was when they met. */
    assert_int_equal(apply_base(rig->store.store, other, false, &base), ERR_OK);
    assert_int_equal(base, UINT64_C(1) << 44u);
    /* Nothing was applied of the other one yet. */
    assert_int_equal(apply_base(rig->store.store, third, true, &base), ERR_OK);
    assert_int_equal(base, UINT64_C(2) << 44u);
}

/* A journal that another node applies into the same store, far ahead: this one's frames that are
 * not applied are found again, counted, and its positions go on in its own range. */
static void test_other_journal_is_none_of_its_business(void **state)
{
    struct apply_rig *rig = *state;
    struct journal_backlog backlog;
    apply_rig_start(rig);
    append_numbered(rig, 0, RECORD_WAITER_NONE);
    apply_rig_wait(rig);
    apply_rig_stop(rig);
    append_numbered(rig, 1, RECORD_WAITER_NONE);
    uint64_t before = rig->last_position;
    apply_rig_close(rig);
    store_fixture_open(&rig->store, false);
    assert_int_equal(store_fixture_sql(&rig->store,
                                       "INSERT INTO cursors (journal, lane, position)"
                                       " VALUES (x'00112233445566778899aabbccddeeff', 64,"
                                       " 52776558133255)"),
                     ERR_OK);
    store_fixture_close(&rig->store);
    apply_rig_open(rig);
    journal_backlog(rig->journal, &backlog);
    assert_int_equal(backlog.records, 1);
    append_numbered(rig, 2, RECORD_WAITER_NONE);
    assert_int_equal(rig->last_position, before + 1);
    apply_rig_start(rig);
    apply_rig_wait(rig);
    assert_int_equal(store_fixture_number(&rig->store, "SELECT count(*) FROM events"), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_results_are_exact, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiter_of_another_run_is_void, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exactly_once_over_restarts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_that_went_back_is_brought_forward, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_refused_records_are_dead_letters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unreadable_frames_are_dead_letters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fewer_elements_than_accepted_are_kept_too, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_locked_database_is_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_journal_goes_when_the_store_is_durable, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_new_journal_begins_above_what_was_applied, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_other_journal_is_none_of_its_business, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
