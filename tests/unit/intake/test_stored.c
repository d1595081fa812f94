/* Promise: who asks for wait=stored is answered with the store's exact result, in whichever order
 * result and durability come, and when all slots are taken as soon as it is durable; who stops
 * waiting too. */
#include "unit/intake/fixture.h"

#include "intake/request.h"

static int open_two_waiters(void **state)
{
    *state = fixture_open(&(struct fixture_options){.waiters = 2});
    return 0;
}

static int close_it(void **state)
{
    fixture_close(*state);
    return 0;
}

static void see_waiter(const struct journal_frame *frame, const struct record_frame *record,
                       void *context)
{
    (void)frame;
    assert_int_equal(record->run, FIXTURE_RUN);
    *(uint64_t *)context = record->waiter;
}

/* Until its frame can be read: then it is durable, told or not. */
static uint64_t read_waiter(struct fixture *fixture)
{
    uint64_t waiter = 0;
    while (!fixture_read(fixture, see_waiter, &waiter)) {
        mailbox_wait(fixture->mailbox, 1);
    }
    return waiter;
}

static const char event[] = "{\"type\":\"a\",\"payload\":1,\"dedup_id\":\"w\"}";

static struct intake_begin begin_waiting(enum record_form form, struct answered *answered)
{
    struct intake_begin begin = fixture_begin(form, answered);
    begin.wait = INTAKE_WAIT_STORED;
    return begin;
}

static void the_result_is_the_answer(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static const struct {
        struct record_result result;
        enum err err;
        bool is_stored;
        bool conflict;
        uint64_t accepted;
        uint64_t duplicates;
        uint64_t rejected;
    } rows[] = {
        {{.inserted = 1}, ERR_OK, true, false, 1, 0, 0},
        {{.duplicates = 1}, ERR_OK, true, false, 0, 1, 0},
        {{.duplicates = 1, .conflicts = 1}, ERR_OK, true, true, 0, 1, 0},
        {{.refused = 1}, ERR_REFUSED, true, false, 0, 0, 1},
        {{.err = ERR_AWAY}, ERR_OK, false, false, 0, 1, 0},
    };
    for (size_t i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
        size_t row = i / 2;
        bool result_first = i % 2 == 0;
        struct intake_begin begin = begin_waiting(RECORD_FORM_EVENT, &answered);
        assert_true(fixture_give(fixture, &begin, SLICE_LITERAL(event), 20));
        intake_round_end(fixture->intake);
        uint64_t waiter = read_waiter(fixture);
        assert_int_not_equal(waiter, RECORD_WAITER_NONE);
        assert_int_equal(intake_waiter_loop(waiter), 3);
        if (!result_first) {
            /* The durable batch is there, since its frame can be read, or comes now. */
            (void)mailbox_run_all(fixture->mailbox);
            assert_int_equal(answered.count, 0);
        }
        intake_on_result(fixture->intake, waiter, &rows[row].result);
        fixture_wait(fixture, &answered);
        assert_int_equal(answered.answer.err, rows[row].err);
        assert_int_equal(answered.answer.is_stored, rows[row].is_stored);
        assert_int_equal(answered.answer.conflict, rows[row].conflict);
        if (rows[row].is_stored) {
            assert_int_equal(answered.answer.accepted, rows[row].accepted);
            assert_int_equal(answered.answer.duplicates, rows[row].duplicates);
            assert_int_equal(answered.answer.rejected, rows[row].rejected);
        }
    }
}

static void items_say_what_the_store_says(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    struct intake_begin begin = begin_waiting(RECORD_FORM_EVENT_LINES, &answered);
    assert_true(fixture_give(fixture, &begin,
                             SLICE_LITERAL("{\"type\":\"a\",\"payload\":1}\n"
                                           "{\"type\":\"a\",\"payload\":2,\"dedup_id\":\"1\"}\n"
                                           "{\"type\":\"\",\"payload\":3}\n"
                                           "{\"type\":\"a\",\"payload\":4,\"dedup_id\":\"2\"}\n"
                                           "{\"type\":\"a\",\"payload\":5,\"dedup_id\":\"3\"}\n"),
                             1000));
    intake_round_end(fixture->intake);
    uint64_t waiter = read_waiter(fixture);
    struct record_result result = {
        .inserted = 1,
        .duplicates = 2,
        .conflicts = 1,
        .refused = 1,
        .item_count = 5,
        .items = {RECORD_ITEM_INSERTED, RECORD_ITEM_DUPLICATE, RECORD_ITEM_REJECTED,
                  RECORD_ITEM_CONFLICT, RECORD_ITEM_REFUSED},
    };
    intake_on_result(fixture->intake, waiter, &result);
    fixture_wait(fixture, &answered);
    assert_true(answered.answer.is_stored);
    assert_int_equal(answered.answer.accepted, 1);
    assert_int_equal(answered.answer.duplicates, 2);
    assert_int_equal(answered.answer.rejected, 2);
    static const uint8_t expected[] = {INTAKE_ACCEPTED, INTAKE_DUPLICATE, INTAKE_REJECTED,
                                       INTAKE_DUPLICATE, INTAKE_REJECTED};
    static const char *const codes[] = {NULL, NULL, "invalid_value", "dedup_conflict", "refused"};
    assert_int_equal(answered.answer.item_count, 5);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(answered.items[i].status, expected[i]);
        if (codes[i] == NULL) {
            assert_null(answered.items[i].code);
        } else {
            assert_string_equal(answered.items[i].code, codes[i]);
        }
    }
}

static void without_a_slot_it_is_answered_when_durable(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered[3];
    uint64_t waiters[3];
    for (int i = 0; i < 3; i++) {
        struct intake_begin begin = begin_waiting(RECORD_FORM_EVENT, &answered[i]);
        assert_true(fixture_give(fixture, &begin, SLICE_LITERAL(event), 20));
        intake_round_end(fixture->intake);
        waiters[i] = read_waiter(fixture);
    }
    assert_int_not_equal(waiters[0], waiters[1]);
    assert_int_equal(waiters[2], RECORD_WAITER_NONE);
    fixture_wait(fixture, &answered[2]);
    assert_int_equal(answered[2].answer.err, ERR_OK);
    assert_false(answered[2].answer.is_stored);
    assert_int_equal(answered[0].count + answered[1].count, 0);
    /* A slot that came back has another name: what is said to the old one reaches nobody. */
    struct record_result result = {.inserted = 1};
    intake_on_result(fixture->intake, waiters[0], &result);
    fixture_wait(fixture, &answered[0]);
    struct intake_begin begin = begin_waiting(RECORD_FORM_EVENT, &answered[0]);
    assert_true(fixture_give(fixture, &begin, SLICE_LITERAL(event), 20));
    intake_round_end(fixture->intake);
    uint64_t again = read_waiter(fixture);
    assert_int_not_equal(again, waiters[0]);
    intake_on_result(fixture->intake, waiters[0], &result);
    intake_on_result(fixture->intake, 0, &result);
    intake_on_result(fixture->intake, UINT64_MAX, &result);
    (void)mailbox_run_all(fixture->mailbox);
    assert_int_equal(answered[0].count, 0);
    intake_on_result(fixture->intake, again, &result);
    fixture_wait(fixture, &answered[0]);
    intake_on_result(fixture->intake, waiters[1], &result);
    fixture_wait(fixture, &answered[1]);
}

/* Told to stop before it is durable, or after: answered when it is durable, and its slot is back
 * when the result has come, not before. */
static void who_stops_waiting_is_answered_when_durable(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    struct record_result result = {.inserted = 1};
    for (int round = 0; round < 8; round++) {
        bool before = round % 2 == 0;
        struct intake_begin begin = begin_waiting(RECORD_FORM_EVENT, &answered);
        struct intake_request *request = NULL;
        bool pause = false;
        assert_int_equal(intake_open(fixture->intake, &begin, &request), ERR_OK);
        intake_data(request, SLICE_LITERAL(event), &pause);
        intake_end(request);
        if (before) {
            intake_stop_waiting(request);
            assert_int_equal(answered.count, 0);
            fixture_wait(fixture, &answered);
        } else {
            intake_round_end(fixture->intake);
            while (journal_durable_position(fixture->journal) == fixture->read_after) {
                mailbox_wait(fixture->mailbox, -1);
            }
            (void)mailbox_run_all(fixture->mailbox);
            assert_int_equal(answered.count, 0);
            intake_stop_waiting(request);
            assert_int_equal(answered.count, 1);
        }
        assert_int_equal(answered.answer.err, ERR_OK);
        assert_false(answered.answer.is_stored);
        uint64_t waiter = read_waiter(fixture);
        assert_int_not_equal(waiter, RECORD_WAITER_NONE);
        intake_on_result(fixture->intake, waiter, &result);
        (void)mailbox_run_all(fixture->mailbox);
        assert_int_equal(answered.count, 1);
    }
}

/* How many slots are free: takes them all. */
static uint32_t take_free_slots(struct fixture *fixture)
{
    static struct intake_request nobody;
    uint32_t count = 0;
    while (intake_waiters_take(&fixture->intake->waiters, fixture->intake, &nobody) !=
           RECORD_WAITER_NONE) {
        count++;
    }
    return count;
}

static void who_stops_waiting_and_fails_gives_its_slot_back(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered[3];
    struct intake_request *requests[3];
    bool pause = false;
    for (int i = 0; i < 3; i++) {
        struct intake_begin begin = begin_waiting(RECORD_FORM_EVENT, &answered[i]);
        assert_int_equal(intake_open(fixture->intake, &begin, &requests[i]), ERR_OK);
        intake_data(requests[i], SLICE_LITERAL(event), &pause);
        intake_end(requests[i]);
        intake_stop_waiting(requests[i]);
    }
    /* Appended and not submitted: the journal stops first, so none becomes durable. */
    journal_stop(fixture->journal);
    for (int i = 0; i < 3; i++) {
        fixture_wait(fixture, &answered[i]);
        assert_int_equal(answered[i].answer.err, ERR_DRAINING);
    }
    assert_int_equal(take_free_slots(fixture), 2);
}

/* A client that hangs up, before and after its frame is durable: its slot is free for others at
 * once, and the result that comes later finds nobody. */
static void who_hangs_up_gives_its_slot_back(void **state)
{
    struct fixture *fixture = *state;
    static struct record_result result;
    static struct answered answered[2];
    struct intake_request *requests[2];
    uint64_t waiters[2];
    bool pause = false;
    for (int i = 0; i < 2; i++) {
        struct intake_begin begin = begin_waiting(RECORD_FORM_EVENT, &answered[i]);
        assert_int_equal(intake_open(fixture->intake, &begin, &requests[i]), ERR_OK);
        intake_data(requests[i], SLICE_LITERAL(event), &pause);
        intake_end(requests[i]);
        if (i == 0) {
            assert_false(intake_cancel(requests[i]));
        }
        intake_round_end(fixture->intake);
        waiters[i] = read_waiter(fixture);
        while (requests[i]->state == INTAKE_SYNC && answered[i].count == 0) {
            mailbox_wait(fixture->mailbox, -1);
            (void)mailbox_run_all(fixture->mailbox);
        }
    }
    assert_int_equal(answered[0].count, 1);
    assert_int_equal(answered[1].count, 0);
    assert_int_equal(requests[1]->state, INTAKE_STORE);
    assert_false(intake_cancel(requests[1]));
    assert_int_equal(answered[1].count, 1);
    assert_int_equal(take_free_slots(fixture), 2);
    for (int i = 0; i < 2; i++) {
        intake_on_result(fixture->intake, waiters[i], &result);
    }
    assert_int_equal(mailbox_run_all(fixture->mailbox), 0);
}

static void a_failed_append_gives_its_slot_back(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    journal_stop(fixture->journal);
    for (int i = 0; i < 5; i++) {
        struct intake_begin begin = begin_waiting(RECORD_FORM_EVENT, &answered);
        fixture_send(fixture, &begin, SLICE_LITERAL(event), 20);
        assert_int_equal(answered.answer.err, ERR_DRAINING);
    }
    assert_int_equal(take_free_slots(fixture), 2);
}

int main(void)
{
    metrics_open_row();
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_two_waiters, close_it)
    const struct CMUnitTest tests[] = {
        TEST(the_result_is_the_answer),
        TEST(items_say_what_the_store_says),
        TEST(without_a_slot_it_is_answered_when_durable),
        TEST(who_stops_waiting_is_answered_when_durable),
        TEST(who_stops_waiting_and_fails_gives_its_slot_back),
        TEST(who_hangs_up_gives_its_slot_back),
        TEST(a_failed_append_gives_its_slot_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
