/* Promise: a batch is one frame or nothing; each element is answered by its number; what is
 * rejected is named, and nothing of a broken, refused or abandoned batch is taken. */
#include "unit/intake/fixture.h"

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

/* Reads a frame again, as the applier will. */
struct again {
    struct format_reader *reader;
    uint32_t accepted;
    uint32_t rejected;
    uint32_t record_count;
    enum record_form form;
    uint8_t lane;
    struct id ids[FIXTURE_ITEMS_MAX];
};

static void read_again(const struct journal_frame *frame, const struct record_frame *record,
                       void *context)
{
    struct again *again = context;
    struct format_item item;
    bool has = true;
    assert_int_equal(frame->record_count, record->record_count);
    again->record_count = record->record_count;
    again->form = (enum record_form)record->form;
    again->lane = record->lane;
    again->accepted = 0;
    again->rejected = 0;
    again->reader = format_reader_create();
    assert_int_equal(format_frame_begin(again->reader, record, fixture_id_key), ERR_OK);
    while (true) {
        assert_int_equal(format_frame_next(again->reader, &item, &has), ERR_OK);
        if (!has) {
            break;
        }
        if (item.err != ERR_OK) {
            again->rejected++;
        } else if (item.index < FIXTURE_ITEMS_MAX) {
            again->ids[item.index] = item.event.id;
            again->accepted++;
        }
    }
    format_reader_destroy(again->reader);
}

static const char array[] =
    "[{\"type\":\"a\",\"payload\":1,\"subject\":\"s\"},{\"type\":\"b\",\"payload\":2,\"dedup_id\":"
    "\"x\"},\n{\"payload\":3},{\"type\":\"d\",\"payload\":4}]";

static void elements_are_answered_by_number(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static struct again again;
    for (size_t chunk = 1; chunk < sizeof(array); chunk += 5) {
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT, &answered);
        begin.may_be_array = true;
        fixture_send(fixture, &begin, SLICE_LITERAL(array), chunk);
        const struct intake_answer *answer = &answered.answer;
        assert_int_equal(answer->err, ERR_OK);
        assert_false(answer->is_single);
        assert_int_equal(answer->accepted, chunk == 1 ? 3 : 2);
        assert_int_equal(answer->duplicates, chunk == 1 ? 0 : 1);
        assert_int_equal(answer->rejected, 1);
        assert_int_equal(answer->item_count, 4);
        static const uint8_t first[] = {INTAKE_ACCEPTED, INTAKE_ACCEPTED, INTAKE_REJECTED,
                                        INTAKE_ACCEPTED};
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(answered.items[i].index, i);
            if (i != 1 || chunk == 1) {
                assert_int_equal(answered.items[i].status, first[i]);
            } else {
                assert_int_equal(answered.items[i].status, INTAKE_DUPLICATE);
            }
        }
        assert_string_equal(answered.items[2].code, "missing_field");
        assert_string_equal(answered.items[2].pointer, "/type");
        assert_true(fixture_read(fixture, read_again, &again));
        assert_int_equal(again.form, RECORD_FORM_EVENT_ARRAY);
        assert_int_equal(again.accepted, 3);
        assert_int_equal(again.rejected, 1);
        assert_int_equal(again.record_count, 3);
        assert_int_equal(again.lane, RECORD_LANE_MIXED);
        for (uint32_t i = 0; i < 4; i++) {
            assert_true(i == 2 || id_equal(again.ids[i], answered.items[i].id));
        }
    }
}

/* Ids are made four at a time as a batch comes, and one by one as the frame is read again; kinds of
 * elements, and rejected ones, stand in every place of a four. */
static void ids_made_together_are_those_made_alone(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static struct again again;
    static char lines[FIXTURE_ITEMS_MAX * 40];
    const uint32_t count = 1000;
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t kind = i % 7 == 0 ? i / 7 % 4 : i / 16 % 4;
        static const char *const types[] = {"\"type\":\"a\",", "\"type\":\"b\",", "",
                                            "\"type\":\"c\","};
        int digits = kind == 3 ? 150 : 1; /* too long to be made with others */
        int written =
            snprintf(lines + size, sizeof(lines) - size, "{%s\"%s\":\"%0*u\",\"payload\":1}\n",
                     types[kind], kind == 1 ? "x" : "dedup_id", digits, i);
        assert_true(written > 0 && (size_t)written < sizeof(lines) - size);
        size += (size_t)written;
    }
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered);
    fixture_send(fixture, &begin, slice_make(lines, size), size);
    assert_int_equal(answered.answer.err, ERR_OK);
    assert_int_equal(answered.answer.item_count, count);
    assert_true(fixture_read(fixture, read_again, &again));
    assert_int_equal(again.accepted, answered.answer.accepted);
    assert_int_equal(again.rejected, answered.answer.rejected);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(answered.items[i].index, i);
        if (answered.items[i].status != INTAKE_REJECTED) {
            assert_int_equal(answered.items[i].status, INTAKE_ACCEPTED);
            assert_true(id_equal(again.ids[i], answered.items[i].id));
        }
    }
}

static void one_subject_is_one_lane(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static struct again again;
    static const char lines[] = "{\"type\":\"a\",\"payload\":1,\"subject\":\"s\"}\n"
                                "{\"type\":\"b\",\"payload\":2,\"subject\":\"s\"}\n";
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered);
    begin.body_bytes = sizeof(lines) - 1;
    fixture_send(fixture, &begin, SLICE_LITERAL(lines), sizeof(lines));
    assert_int_equal(answered.answer.accepted, 2);
    assert_true(fixture_read(fixture, read_again, &again));
    assert_int_equal(again.lane, record_lane(FIXTURE_ORG, SLICE_LITERAL("s")));
}

static void refused_batches_leave_nothing(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static const struct {
        enum record_form form;
        const char *body;
        bool atomic;
        enum err err;
        uint64_t rejected;
        const char *code;
    } rows[] = {
        {RECORD_FORM_EVENT_ARRAY, array, true, ERR_INVALID, 1, NULL},
        {RECORD_FORM_EVENT_ARRAY, "[{\"payload\":1},2,{}]", false, ERR_INVALID, 3, NULL},
        {RECORD_FORM_EVENT_ARRAY, "[{\"type\":\"a\",\"payload\":1}", false, ERR_SYNTAX, 0,
         "malformed"},
        {RECORD_FORM_EVENT_ARRAY, "[{},{\"type\":\"a\",\"payload\":1}]]", false, ERR_SYNTAX, 0,
         "malformed"},
        {RECORD_FORM_EVENT_ARRAY, "{\"type\":\"a\",\"payload\":1}", false, ERR_INVALID, 0,
         "invalid_type"},
        {RECORD_FORM_EVENT_ARRAY, "", false, ERR_SYNTAX, 0, "malformed"},
        {RECORD_FORM_EVENT_LINES, "{\"type\":\"a\",\"payload\":1}\n{\"type\":\n", false, ERR_SYNTAX,
         0, "malformed"},
        {RECORD_FORM_SEGMENT_BATCH, "{\"writeKey\":\"k\"}", false, ERR_INVALID, 0, "invalid_type"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct intake_begin begin = fixture_begin(rows[i].form, &answered);
        begin.atomic = rows[i].atomic;
        fixture_send(fixture, &begin, slice_from_text(rows[i].body), 11);
        assert_int_equal(answered.answer.err, rows[i].err);
        assert_int_equal(answered.answer.rejected, rows[i].rejected);
        assert_int_equal(answered.answer.accepted, 0);
        assert_int_equal(answered.answer.item_count, rows[i].rejected);
        for (uint32_t k = 0; k < answered.answer.item_count; k++) {
            assert_int_equal(answered.items[k].status, INTAKE_REJECTED);
        }
        if (rows[i].code != NULL) {
            assert_string_equal(answered.answer.fault.code, rows[i].code);
        }
    }
    /* Nothing in it: nothing to take, and that is no fault. */
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_ARRAY, &answered);
    fixture_send(fixture, &begin, SLICE_LITERAL(" [ ] "), 2);
    assert_int_equal(answered.answer.err, ERR_OK);
    assert_int_equal(answered.answer.accepted + answered.answer.rejected, 0);
    assert_false(fixture_read(fixture, NULL, NULL));
}

static void atomic_takes_all_when_all_are_right(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_ARRAY, &answered);
    begin.atomic = true;
    fixture_send(fixture, &begin,
                 SLICE_LITERAL("[{\"type\":\"a\",\"payload\":1},{\"type\":\"b\",\"payload\":2}]"),
                 9);
    assert_int_equal(answered.answer.err, ERR_OK);
    assert_int_equal(answered.answer.accepted, 2);
    assert_true(fixture_read(fixture, NULL, NULL));
}

/* 3,000 lines, each third one wrong: 1,000 items, then the rejected ones among the first 1,000. */
static void items_are_bounded(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static struct again again;
    char *body = calloc(1, 3000 * 80);
    size_t at = 0;
    assert_non_null(body);
    for (int i = 0; i < 3000; i++) {
        at += (size_t)sprintf(body + at,
                              i % 3 == 0 ? "{\"payload\":%d}\n"
                                         : "{\"type\":\"a\",\"payload\":1,\"dedup_id\":\"n%d\"}\n",
                              i);
    }
    assert_true(at < LIMIT_SMALL_BODY_BYTES);
    for (int round = 0; round < 2; round++) {
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered);
        fixture_send(fixture, &begin, slice_make(body, at), 16384);
        const struct intake_answer *answer = &answered.answer;
        assert_int_equal(answer->err, ERR_OK);
        assert_int_equal(answer->rejected, 1000);
        assert_int_equal(answer->accepted + answer->duplicates, 2000);
        /* The fixture remembers 4,096 ids in buckets of eight: nearly all are known. */
        assert_in_range(answer->duplicates, round == 0 ? 0 : 1800, round == 0 ? 0 : 2000);
        assert_int_equal(answer->item_count, 1000 + 666);
        uint64_t last = 0;
        for (uint32_t i = 0; i < answer->item_count; i++) {
            assert_true(i == 0 || answered.items[i].index > last);
            last = answered.items[i].index;
            assert_int_equal(answered.items[i].status == INTAKE_REJECTED, last % 3 == 0);
            assert_true(i < 1000 ? last == i : answered.items[i].status == INTAKE_REJECTED);
        }
        assert_int_equal(last, 2997);
        assert_true(fixture_read(fixture, read_again, &again));
        assert_int_equal(again.rejected, 1000);
        assert_int_equal(again.record_count, 2000);
    }
    free(body);
}

static void an_idempotency_key_names_the_elements(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    struct id ids[4];
    for (int round = 0; round < 2; round++) {
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_ARRAY, &answered);
        begin.idempotency_key = SLICE_LITERAL("batch-1");
        fixture_send(fixture, &begin, SLICE_LITERAL(array), 40);
        assert_int_equal(answered.answer.duplicates, round == 0 ? 0 : 3);
        for (uint32_t i = 0; i < 4; i++) {
            assert_true(round == 0 || id_equal(ids[i], answered.items[i].id));
            ids[i] = answered.items[i].id;
        }
    }
}

static void cancelled_batches_leave_nothing(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_ARRAY, &answered);
    struct intake_request *request = NULL;
    bool pause = false;
    assert_int_equal(intake_open(fixture->intake, &begin, &request), ERR_OK);
    intake_data(request, SLICE_LITERAL(array), &pause);
    assert_true(intake_cancel(request));
    intake_round_end(fixture->intake);
    assert_int_equal(answered.count, 0);
    assert_false(fixture_read(fixture, NULL, NULL));
}

int main(void)
{
    metrics_open_row();
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_default, close_it)
    const struct CMUnitTest tests[] = {
        TEST(elements_are_answered_by_number),
        TEST(ids_made_together_are_those_made_alone),
        TEST(one_subject_is_one_lane),
        TEST(refused_batches_leave_nothing),
        TEST(atomic_takes_all_when_all_are_right),
        TEST(items_are_bounded),
        TEST(an_idempotency_key_names_the_elements),
        TEST(cancelled_batches_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
