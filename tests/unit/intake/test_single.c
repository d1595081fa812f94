/* Promise: a single event is answered with its id once it is durable, and the journal then holds
 * exactly what came; whatever is refused leaves nothing behind. */
#include "unit/intake/fixture.h"

static const char event[] = "{\"type\":\"user.login\",\"payload\":{\"n\":1},\"dedup_id\":\"d1\","
                            "\"subject\":\"u1\"}";

static int open_default(void **state)
{
    *state = fixture_open(&(struct fixture_options){0});
    return 0;
}

static int close_it(void **state)
{
    fixture_close(*state);
    return 0;
}

struct seen {
    const char *body;
    struct id frame_id;
    enum record_form form;
    uint8_t lane;
    uint32_t record_count;
    uint32_t attribute_count;
};

static void see_frame(const struct journal_frame *frame, const struct record_frame *record,
                      void *context)
{
    struct seen *seen = context;
    assert_int_equal(frame->org, FIXTURE_ORG);
    assert_int_equal(record->org, FIXTURE_ORG);
    assert_int_equal(record->key, FIXTURE_KEY);
    assert_int_equal(record->run, FIXTURE_RUN);
    assert_int_equal(record->form, frame->form);
    assert_int_equal(record->lane, frame->lane);
    assert_true(slice_equal(record->body, slice_from_text(seen->body)));
    seen->frame_id = record->id;
    seen->form = (enum record_form)record->form;
    seen->lane = record->lane;
    seen->record_count = record->record_count;
    seen->attribute_count = record->attribute_count;
}

static void whole_body_in_one_chunk(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
    begin.body_bytes = sizeof(event) - 1;
    fixture_send(fixture, &begin, SLICE_LITERAL(event), sizeof(event));
    assert_int_equal(answered.answer.err, ERR_OK);
    assert_true(answered.answer.is_single);
    assert_false(answered.answer.is_upload);
    assert_false(answered.answer.is_stored);
    assert_int_equal(answered.answer.accepted, 1);
    assert_int_equal(answered.answer.duplicates, 0);
    struct id expected = id_make_dedup(fixture_id_key, SLICE_LITERAL("event"), SLICE_LITERAL(""),
                                       SLICE_LITERAL("d1"));
    assert_true(id_equal(answered.answer.id, expected));
    struct seen seen = {.body = event};
    assert_true(fixture_read(fixture, see_frame, &seen));
    assert_int_equal(fixture->read_after, answered.answer.position);
    assert_int_equal(seen.form, RECORD_FORM_EVENT);
    assert_int_equal(seen.record_count, 1);
    assert_int_equal(seen.lane, record_lane(FIXTURE_ORG, SLICE_LITERAL("u1")));
    assert_false(fixture_read(fixture, see_frame, &seen));
}

static void any_chunks_give_the_same(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    for (size_t chunk = 1; chunk <= sizeof(event); chunk++) {
        for (uint64_t known = 0; known < 2; known++) {
            struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
            begin.may_be_array = true;
            begin.body_bytes = known * (sizeof(event) - 1);
            fixture_send(fixture, &begin, SLICE_LITERAL(event), chunk);
            assert_int_equal(answered.answer.err, ERR_OK);
            struct seen seen = {.body = event};
            assert_true(fixture_read(fixture, see_frame, &seen));
            assert_int_equal(seen.form, RECORD_FORM_EVENT);
        }
    }
}

/* Both are on the way before either is durable; the first that becomes so is the new one. */
static void a_second_one_of_the_same_commit_is_known(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered[2];
    for (size_t i = 0; i < 2; i++) {
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered[i]);
        assert_true(fixture_give(fixture, &begin, SLICE_LITERAL(event), sizeof(event)));
    }
    for (size_t i = 0; i < 2; i++) {
        fixture_wait(fixture, &answered[i]);
        assert_int_equal(answered[i].answer.err, ERR_OK);
        assert_int_equal(answered[i].answer.accepted, i == 0);
        assert_int_equal(answered[i].answer.duplicates, i == 1);
    }
}

static void a_second_one_is_known(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    struct id first = {{0}};
    for (int i = 0; i < 2; i++) {
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
        fixture_send(fixture, &begin, SLICE_LITERAL(event), 10);
        assert_int_equal(answered.answer.err, ERR_OK);
        assert_int_equal(answered.answer.accepted, i == 0);
        assert_int_equal(answered.answer.duplicates, i == 1);
        assert_true(i == 0 || id_equal(first, answered.answer.id));
        first = answered.answer.id;
    }
    /* Without a dedup_id the frame's own id is the event's, and nothing is known. */
    for (int i = 0; i < 2; i++) {
        static const char plain[] = "{\"type\":\"a\",\"payload\":1}";
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
        fixture_send(fixture, &begin, SLICE_LITERAL(plain), 100);
        assert_int_equal(answered.answer.accepted, 1);
        assert_false(id_equal(first, answered.answer.id));
        first = answered.answer.id;
    }
    struct seen seen = {.body = event};
    assert_true(fixture_read(fixture, see_frame, &seen));
    assert_true(fixture_read(fixture, see_frame, &seen));
    seen.body = "{\"type\":\"a\",\"payload\":1}";
    assert_true(fixture_read(fixture, see_frame, &seen));
    assert_true(fixture_read(fixture, see_frame, &seen));
    assert_true(id_equal(seen.frame_id, first));
}

/* Bad input of each kind: answered with its reason, and the journal stays empty. */
static void refused_ones_leave_nothing(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static const struct {
        const char *body;
        enum err err;
        const char *code;
        uint64_t rejected;
    } rows[] = {
        {"{\"type\":\"a\",\"payload\":", ERR_SYNTAX, "malformed", 0},
        {"", ERR_SYNTAX, "malformed", 0},
        {"  \n", ERR_SYNTAX, "malformed", 0},
        {"{\"type\":\"\xff\",\"payload\":1}", ERR_SYNTAX, "malformed", 0},
        {"{\"type\":\"a\",\"payload\":1,\"payload\":1}", ERR_INVALID, "duplicate_key", 1},
        {"{\"payload\":1}", ERR_INVALID, "missing_field", 1},
        {"{\"type\":\"a\",\"payload\":"
         "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
         ERR_DEPTH, "too_deep", 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
        begin.may_be_array = true;
        fixture_send(fixture, &begin, slice_from_text(rows[i].body), 7);
        assert_int_equal(answered.answer.err, rows[i].err);
        assert_int_equal(answered.answer.rejected, rows[i].rejected);
        assert_string_equal(answered.answer.fault.code, rows[i].code);
        assert_true(answered.answer.is_single);
    }
    assert_false(fixture_read(fixture, NULL, NULL));
}

static void one_above_the_limit_is_refused_early(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static uint8_t body[LIMIT_EVENT_BYTES + 1];
    memset(body, ' ', sizeof(body));
    memcpy(body, event, sizeof(event) - 1);
    for (uint64_t over = 0; over < 2; over++) {
        for (uint64_t known = 0; known < 2; known++) {
            struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
            begin.may_be_array = true;
            begin.body_bytes = known * (LIMIT_EVENT_BYTES + over);
            bool ended =
                fixture_give(fixture, &begin, slice_make(body, LIMIT_EVENT_BYTES + over), 60000);
            assert_int_equal(ended, over == 0);
            fixture_wait(fixture, &answered);
            assert_int_equal(answered.answer.err, over == 0 ? ERR_OK : ERR_TOO_LARGE);
        }
    }
    assert_string_equal(answered.answer.fault.code, "payload_too_large");
}

static void cancelled_ones_leave_nothing(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    for (size_t given = 0; given < sizeof(event) - 1; given += 20) {
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
        struct intake_request *request = NULL;
        bool pause = false;
        assert_int_equal(intake_open(fixture->intake, &begin, &request), ERR_OK);
        intake_data(request, slice_make(event, given), &pause);
        assert_true(intake_cancel(request));
        assert_int_equal(answered.count, 0);
    }
    intake_round_end(fixture->intake);
    assert_false(fixture_read(fixture, NULL, NULL));
    /* Too late: it is with the journal and is answered. */
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
    struct intake_request *request = NULL;
    bool pause = false;
    assert_int_equal(intake_open(fixture->intake, &begin, &request), ERR_OK);
    intake_data(request, SLICE_LITERAL(event), &pause);
    intake_end(request);
    assert_false(intake_cancel(request));
    fixture_wait(fixture, &answered);
    assert_int_equal(answered.answer.err, ERR_OK);
    assert_true(fixture_read(fixture, NULL, NULL));
}

static void attributes_travel_with_the_frame(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static const char body[] = "{\"a\":1}";
    char names[60][16];
    struct record_attribute attributes[RECORD_ATTRIBUTES_MAX];
    const struct record_attribute head[] = {
        {SLICE_LITERAL("ce-specversion"), SLICE_LITERAL("1.0")},
        {SLICE_LITERAL("ce-type"), SLICE_LITERAL("t")},
        {SLICE_LITERAL("ce-source"), SLICE_LITERAL("/s")},
        {SLICE_LITERAL("ce-id"), SLICE_LITERAL("1")},
    };
    for (uint32_t more = 0; more <= 60; more += 30) {
        memcpy(attributes, head, sizeof(head));
        for (uint32_t i = 0; i < more; i++) {
            (void)snprintf(names[i], sizeof(names[i]), "ce-x%u", i);
            attributes[4 + i].name = slice_from_text(names[i]);
            attributes[4 + i].value = SLICE_LITERAL("a value of some bytes");
        }
        struct intake_begin begin = fixture_begin(RECORD_FORM_CLOUDEVENT_BINARY, &answered);
        begin.attributes = attributes;
        begin.attribute_count = 4 + more;
        fixture_send(fixture, &begin, SLICE_LITERAL(body), 3);
        assert_int_equal(answered.answer.err, ERR_OK);
        struct seen seen = {.body = body};
        assert_true(fixture_read(fixture, see_frame, &seen));
        assert_int_equal(seen.attribute_count, 4 + more);
        struct id expected = id_make_dedup(fixture_id_key, SLICE_LITERAL("event"),
                                           SLICE_LITERAL("/s"), SLICE_LITERAL("1"));
        assert_true(id_equal(answered.answer.id, expected));
    }
    struct intake_begin begin = fixture_begin(RECORD_FORM_CLOUDEVENT_BINARY, &answered);
    struct intake_request *request = NULL;
    begin.attributes = attributes;
    begin.attribute_count = RECORD_ATTRIBUTES_MAX;
    begin.idempotency_key = SLICE_LITERAL("one too many");
    assert_int_equal(intake_open(fixture->intake, &begin, &request), ERR_TOO_LARGE);
}

static void idempotency_key_names_the_event(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static const char plain[] = "{\"type\":\"a\",\"payload\":1}";
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
    begin.idempotency_key = SLICE_LITERAL("idem");
    fixture_send(fixture, &begin, SLICE_LITERAL(plain), 100);
    struct id expected = id_make_dedup(fixture_id_key, SLICE_LITERAL("event"), SLICE_LITERAL(""),
                                       SLICE_LITERAL("idem"));
    assert_true(id_equal(answered.answer.id, expected));
    struct seen seen = {.body = plain};
    assert_true(fixture_read(fixture, see_frame, &seen));
    assert_int_equal(seen.attribute_count, 1);
}

/* --- no room ------------------------------------------------------------------------------- */

static int open_small_backlog(void **state)
{
    *state = fixture_open(&(struct fixture_options){.backlog_bytes = 64 * 1024});
    return 0;
}

static void a_full_backlog_refuses_and_recovers(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static char body[4096];
    char fill[3900];
    memset(fill, 'x', sizeof(fill));
    (void)snprintf(body, sizeof(body), "{\"type\":\"a\",\"payload\":\"%.*s\"}", (int)sizeof(fill),
                   fill);
    uint64_t accepted = 0;
    do {
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
        begin.body_bytes = strlen(body);
        fixture_send(fixture, &begin, slice_from_text(body), sizeof(body));
        accepted += answered.answer.err == ERR_OK;
        assert_true(accepted < 64);
    } while (answered.answer.err == ERR_OK);
    assert_int_equal(answered.answer.err, ERR_FULL);
    assert_true(accepted > 0);
    /* A larger one is not even begun. */
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
    struct intake_request *request = NULL;
    begin.body_bytes = 20000;
    assert_int_equal(intake_open(fixture->intake, &begin, &request), ERR_FULL);
    journal_credit(fixture->journal, FIXTURE_ORG, 40000, (uint32_t)accepted);
    begin = fixture_begin(RECORD_FORM_EVENT, &answered);
    fixture_send(fixture, &begin, slice_from_text(body), 1000);
    assert_int_equal(answered.answer.err, ERR_OK);
}

static void a_draining_journal_refuses(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    journal_stop(fixture->journal);
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
    fixture_send(fixture, &begin, SLICE_LITERAL(event), 50);
    assert_int_equal(answered.answer.err, ERR_DRAINING);
}

/* The pool holds two large blocks: slow bodies that hold small ones are paused when both are taken,
 * and go on, in order, when one is free. */
static int open_small_pool(void **state)
{
    *state = fixture_open(&(struct fixture_options){.pool_bytes = 1024 * 1024});
    return 0;
}

static void a_full_pool_pauses_and_resumes(void **state)
{
    struct fixture *fixture = *state;
    static struct answered large[2];
    static struct answered small[2];
    static uint8_t body[200000];
    struct intake_request *large_requests[2];
    struct intake_request *small_requests[2];
    bool pause = false;
    memset(body, ' ', sizeof(body));
    memcpy(body, event, sizeof(event) - 1);
    for (int i = 0; i < 2; i++) {
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &large[i]);
        assert_int_equal(intake_open(fixture->intake, &begin, &large_requests[i]), ERR_OK);
        intake_data(large_requests[i], slice_make(body, 100000), &pause);
        assert_false(pause);
    }
    for (int i = 0; i < 2; i++) {
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &small[i]);
        assert_int_equal(intake_open(fixture->intake, &begin, &small_requests[i]), ERR_OK);
        intake_data(small_requests[i], slice_make(event, 10), &pause);
        assert_true(pause);
    }
    intake_end(large_requests[0]);
    assert_int_equal(small[0].rooms, 1);
    assert_int_equal(small[1].rooms, 0);
    assert_true(intake_cancel(large_requests[1]));
    assert_int_equal(small[1].rooms, 1);
    for (int i = 0; i < 2; i++) {
        intake_data(small_requests[i], slice_make(event + 10, sizeof(event) - 11), &pause);
        assert_false(pause);
        intake_end(small_requests[i]);
        fixture_wait(fixture, &small[i]);
        assert_int_equal(small[i].answer.err, ERR_OK);
    }
    fixture_wait(fixture, &large[0]);
    assert_int_equal(large[0].answer.err, ERR_OK);
    assert_int_equal(large[1].count, 0);
}

static void a_first_chunk_without_a_block_is_refused(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered[3];
    static uint8_t body[200000];
    struct intake_request *requests[3];
    bool pause = false;
    memset(body, ' ', sizeof(body));
    for (int i = 0; i < 3; i++) {
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered[i]);
        assert_int_equal(intake_open(fixture->intake, &begin, &requests[i]), ERR_OK);
        intake_data(requests[i], slice_make(body, 100000), &pause);
    }
    assert_int_equal(answered[2].count, 1);
    assert_int_equal(answered[2].answer.err, ERR_FULL);
    assert_true(intake_cancel(requests[0]));
    assert_true(intake_cancel(requests[1]));
}

int main(void)
{
    metrics_open_row();
#define TEST(open, name) cmocka_unit_test_setup_teardown(name, open, close_it)
    const struct CMUnitTest tests[] = {
        TEST(open_default, whole_body_in_one_chunk),
        TEST(open_default, any_chunks_give_the_same),
        TEST(open_default, a_second_one_of_the_same_commit_is_known),
        TEST(open_default, a_second_one_is_known),
        TEST(open_default, refused_ones_leave_nothing),
        TEST(open_default, one_above_the_limit_is_refused_early),
        TEST(open_default, cancelled_ones_leave_nothing),
        TEST(open_default, attributes_travel_with_the_frame),
        TEST(open_default, idempotency_key_names_the_event),
        TEST(open_small_backlog, a_full_backlog_refuses_and_recovers),
        TEST(open_default, a_draining_journal_refuses),
        TEST(open_small_pool, a_full_pool_pauses_and_resumes),
        TEST(open_small_pool, a_first_chunk_without_a_block_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
