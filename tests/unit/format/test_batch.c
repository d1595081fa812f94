/* Promise: the elements of a body are the same whether it comes whole, cut at any byte, or as
 * slices of an upload; a body that is malformed anywhere is refused as a whole, at the right
 * offset. */
#include "unit/format/read.h"

#include <stdlib.h>

#define ITEMS_MAX 64u

struct list_result {
    enum err err;
    struct format_fault fault;
    uint32_t count;
    struct {
        enum err err;
        uint64_t index;
        uint64_t offset;
        uint64_t bytes;
        struct id id;
        char code[32];
        char pointer[64];
        char type[64];
        char payload[64];
    } items[ITEMS_MAX];
};

static void copy(char *to, size_t size, struct slice from)
{
    size_t used = from.size < size - 1 ? from.size : size - 1;
    if (used != 0) {
        memcpy(to, from.data, used);
    }
    to[used] = 0;
}

static void take(struct list_result *result, const struct format_item *item)
{
    assert_true(result->count < ITEMS_MAX);
    uint32_t i = result->count++;
    memset(&result->items[i], 0, sizeof(result->items[i]));
    result->items[i].err = item->err;
    result->items[i].index = item->index;
    result->items[i].offset = item->offset;
    result->items[i].bytes = item->bytes;
    if (item->err == ERR_OK) {
        result->items[i].id = item->event.id;
        copy(result->items[i].type, sizeof(result->items[i].type), item->event.type);
        copy(result->items[i].payload, sizeof(result->items[i].payload), item->event.payload);
    } else {
        copy(result->items[i].code, sizeof(result->items[i].code),
             slice_from_text(item->fault.code));
        copy(result->items[i].pointer, sizeof(result->items[i].pointer),
             slice_from_text(item->fault.pointer));
    }
}

static enum err feed(struct read *read, struct slice chunk, struct list_result *result)
{
    struct format_item item;
    bool has = true;
    format_batch_feed(read->reader, chunk);
    while (has) {
        enum err err = format_batch_next(read->reader, &item, &has);
        if (err != ERR_OK) {
            return err;
        }
        if (has) {
            take(result, &item);
        }
    }
    return ERR_OK;
}

static enum err finish(struct read *read, struct list_result *result)
{
    struct format_item item;
    bool has = false;
    enum err err = format_batch_end(read->reader, &item, &has);
    if (err == ERR_OK && has) {
        take(result, &item);
    }
    return err;
}

/* `cuts` ascending; each chunk is a copy of its own that is gone when the next one is fed. */
static void list_cut(struct read *read, enum record_form form, struct slice body,
                     const size_t *cuts, size_t cut_count, struct list_result *result)
{
    memset(result, 0, sizeof(*result));
    format_batch_begin(read->reader, form, &read->context);
    size_t from = 0;
    for (size_t i = 0; i <= cut_count && result->err == ERR_OK; i++) {
        size_t to = i < cut_count ? cuts[i] : body.size;
        uint8_t *chunk = malloc(to - from + 1);
        assert_non_null(chunk);
        memcpy(chunk, body.data + from, to - from);
        result->err = feed(read, slice_make(chunk, to - from), result);
        memset(chunk, 0xee, to - from);
        free(chunk);
        from = to;
    }
    if (result->err == ERR_OK) {
        result->err = finish(read, result);
    }
    if (result->err != ERR_OK) {
        result->fault = format_batch_fault(read->reader);
    }
}

static void assert_same(const struct list_result *a, const struct list_result *b)
{
    assert_int_equal(a->err, b->err);
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->items, b->items, a->count * sizeof(a->items[0]));
    if (a->err != ERR_OK) {
        assert_int_equal(a->fault.offset, b->fault.offset);
        assert_string_equal(a->fault.code, b->fault.code);
    }
}

static const struct {
    enum record_form form;
    const char *body;
    enum err err;
    uint32_t count;
} bodies[] = {
    {RECORD_FORM_EVENT_ARRAY,
     " [ {\"type\":\"a\",\"payload\":{\"x\":\"\xc3\xa9\"}} "
     ",\r\n{\"type\":\"b\\/c\",\"payload\":-1.5e2},"
     "7, {\"payload\":[]}, {\"type\":\"d\",\"payload\":\"\\\"]\",\"dedup_id\":\"1\"} ] \n",
     ERR_OK, 5},
    {RECORD_FORM_EVENT_ARRAY, "[]", ERR_OK, 0},
    {RECORD_FORM_EVENT_ARRAY, "[{\"type\":\"a\",\"payload\":1},]", ERR_SYNTAX, 1},
    {RECORD_FORM_EVENT_ARRAY, "[{\"type\":\"a\",\"payload\":1}", ERR_SYNTAX, 1},
    {RECORD_FORM_EVENT_ARRAY, "[{\"type\":\"a\",\"payload\":1}] x", ERR_SYNTAX, 1},
    {RECORD_FORM_EVENT_ARRAY, "{\"type\":\"a\",\"payload\":1}", ERR_INVALID, 0},
    {RECORD_FORM_EVENT_ARRAY, "", ERR_SYNTAX, 0},
    {RECORD_FORM_EVENT_ARRAY, "[\"\xff\"]", ERR_SYNTAX, 0},
    {RECORD_FORM_EVENT_LINES,
     "{\"type\":\"a\",\"payload\":1}\n\n  \r\n{\"type\":\"b\",\"payload\":{\"k\":[1,2]}}\r\n[]\n"
     "{\"type\":\"c\",\"type\":\"c\",\"payload\":3}\n {\"type\":\"d\",\"payload\":4} ",
     ERR_OK, 5},
    {RECORD_FORM_EVENT_LINES, "", ERR_OK, 0},
    {RECORD_FORM_EVENT_LINES, "{\"type\":\"a\",\"payload\":1}\n{\"type\":\"b\",\n", ERR_SYNTAX, 1},
    {RECORD_FORM_EVENT_LINES, "{\"type\":\"a\",\"payload\":1} {\"type\":\"b\",\"payload\":1}\n",
     ERR_SYNTAX, 0},
    {RECORD_FORM_CLOUDEVENT_BATCH,
     "[{\"specversion\":\"1.0\",\"type\":\"t\",\"source\":\"/s\",\"id\":\"1\",\"data\":[]},"
     "{\"specversion\":\"1.0\",\"type\":\"t\",\"source\":\"/s\"}]",
     ERR_OK, 2},
    {RECORD_FORM_SEGMENT_BATCH,
     "{\"writeKey\":\"k\",\"batch\":[{\"type\":\"track\",\"event\":\"e\"},{\"type\":\"x\"}],"
     "\"sentAt\":{\"batch\":[1]}}",
     ERR_OK, 2},
    {RECORD_FORM_SEGMENT_BATCH, "{\"writeKey\":\"k\"}", ERR_INVALID, 0},
    {RECORD_FORM_SEGMENT_BATCH, "{\"batch\":{}}", ERR_INVALID, 0},
    {RECORD_FORM_SEGMENT_BATCH, "[]", ERR_INVALID, 0},
    {RECORD_FORM_POSTHOG_BATCH, "{\"batch\":[{\"event\":\"$x\",\"uuid\":\"u\"}],\"api_key\":\"k\"}",
     ERR_OK, 1},
};
#define BODY_COUNT (sizeof(bodies) / sizeof(bodies[0]))

static void every_cut_equals_whole(void **state)
{
    struct read *read = *state;
    static struct list_result whole;
    static struct list_result cut;
    for (size_t i = 0; i < BODY_COUNT; i++) {
        struct slice body = slice_from_text(bodies[i].body);
        list_cut(read, bodies[i].form, body, NULL, 0, &whole);
        if (whole.err != bodies[i].err || whole.count != bodies[i].count) {
            fail_msg("%s: %s, %u elements", bodies[i].body, err_code(whole.err), whole.count);
        }
        for (size_t a = 0; a <= body.size; a++) {
            list_cut(read, bodies[i].form, body, &a, 1, &cut);
            assert_same(&whole, &cut);
        }
        size_t all[512];
        assert_true(body.size < 512);
        for (size_t a = 0; a < body.size; a++) {
            all[a] = a;
        }
        list_cut(read, bodies[i].form, body, all, body.size, &cut);
        assert_same(&whole, &cut);
    }
}

static void elements_say_where_they_stand(void **state)
{
    struct read *read = *state;
    static struct list_result whole;
    for (size_t i = 0; i < BODY_COUNT; i++) {
        struct slice body = slice_from_text(bodies[i].body);
        list_cut(read, bodies[i].form, body, NULL, 0, &whole);
        for (uint32_t k = 0; k < whole.count; k++) {
            assert_int_equal(whole.items[k].index, k);
            assert_true(whole.items[k].offset + whole.items[k].bytes <= body.size);
            uint8_t first = body.data[whole.items[k].offset];
            assert_true(first == '{' || first == '7' || first == '[');
        }
    }
}

static void faults_are_at_their_place(void **state)
{
    struct read *read = *state;
    static struct list_result result;
    static const struct {
        enum record_form form;
        const char *body;
        uint64_t offset;
        const char *code;
    } rows[] = {
        {RECORD_FORM_EVENT_LINES, "{\"type\":\"a\",\"payload\":1}\n{\"type\":tru}\n", 37,
         "malformed"},
        {RECORD_FORM_EVENT_ARRAY, "[{\"type\":\"a\",\"payload\":1},\n{\"type\":tru}]", 38,
         "malformed"},
        {RECORD_FORM_EVENT_ARRAY, "3", 0, "invalid_type"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        list_cut(read, rows[i].form, slice_from_text(rows[i].body), NULL, 0, &result);
        assert_int_not_equal(result.err, ERR_OK);
        assert_string_equal(result.fault.code, rows[i].code);
        assert_in_range(result.fault.offset, rows[i].offset < 3 ? 0 : rows[i].offset - 3,
                        rows[i].offset + 1);
    }
}

/* Each slice by itself gives what the whole gave, ids too. */
static void slices_equal_whole(void **state)
{
    struct read *read = *state;
    static struct list_result whole;
    static struct list_result part;
    for (size_t i = 0; i < BODY_COUNT; i++) {
        struct slice body = slice_from_text(bodies[i].body);
        list_cut(read, bodies[i].form, body, NULL, 0, &whole);
        if (whole.err != ERR_OK) {
            continue;
        }
        for (uint32_t from = 0; from < whole.count; from++) {
            for (uint32_t to = from + 1; to <= whole.count; to++) {
                uint64_t begin = whole.items[from].offset;
                uint64_t end = to < whole.count ? whole.items[to].offset : body.size;
                memset(&part, 0, sizeof(part));
                format_batch_begin_at(read->reader, bodies[i].form, &read->context, from,
                                      to - from);
                assert_int_equal(feed(read, slice_part(body, begin, end), &part), ERR_OK);
                assert_int_equal(finish(read, &part), ERR_OK);
                assert_int_equal(part.count, to - from);
                for (uint32_t k = 0; k < part.count; k++) {
                    assert_int_equal(part.items[k].offset + begin, whole.items[from + k].offset);
                    part.items[k].offset += begin;
                }
                assert_memory_equal(part.items, &whole.items[from],
                                    part.count * sizeof(part.items[0]));
            }
        }
    }
}

static void a_slice_that_lacks_elements_is_refused(void **state)
{
    struct read *read = *state;
    static struct list_result part;
    static const struct {
        enum record_form form;
        struct slice bytes;
    } rows[] = {
        {RECORD_FORM_EVENT_ARRAY, {(const uint8_t *)"{\"type\":\"a\",\"payload\":1},", 25}},
        {RECORD_FORM_EVENT_ARRAY, {(const uint8_t *)"{\"type\":\"a\"", 11}},
        {RECORD_FORM_EVENT_LINES, {(const uint8_t *)"{\"type\":\"a\",\"payload\":1}\n", 25}},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        memset(&part, 0, sizeof(part));
        format_batch_begin_at(read->reader, rows[i].form, &read->context, 0, 2);
        enum err err = feed(read, rows[i].bytes, &part);
        if (err == ERR_OK) {
            err = finish(read, &part);
        }
        assert_int_equal(err, ERR_SYNTAX);
    }
}

/* An element above the limit is one rejected item, in every form, cut or not. */
static void large_elements_are_rejected_alone(void **state)
{
    struct read *read = *state;
    static struct list_result result;
    static const char *const frames[][2] = {{"[", "]"}, {"", "\n"}};
    static const enum record_form forms[] = {RECORD_FORM_EVENT_ARRAY, RECORD_FORM_EVENT_LINES};
    size_t fill = LIMIT_EVENT_BYTES;
    for (size_t f = 0; f < 2; f++) {
        char *text = calloc(1, fill + 300);
        assert_non_null(text);
        const char *comma = f == 0 ? "," : "\n";
        int at = sprintf(text, "%s{\"type\":\"a\",\"payload\":1}%s{\"type\":\"b\",\"payload\":\"",
                         frames[f][0], comma);
        memset(text + at, 'x', fill);
        (void)sprintf(text + at + fill, "\"}%s{\"type\":\"c\",\"payload\":2}%s", comma,
                      frames[f][1]);
        size_t cuts[3] = {100, 5000, 200000};
        for (size_t n = 0; n <= 3; n++) {
            list_cut(read, forms[f], slice_from_text(text), cuts, n, &result);
            assert_int_equal(result.err, ERR_OK);
            assert_int_equal(result.count, 3);
            assert_int_equal(result.items[0].err, ERR_OK);
            assert_int_equal(result.items[1].err, ERR_TOO_LARGE);
            assert_string_equal(result.items[1].code, "payload_too_large");
            assert_int_equal(result.items[2].err, ERR_OK);
            assert_string_equal(result.items[2].type, "c");
        }
        free(text);
    }
}

static void depth_refuses_the_body(void **state)
{
    struct read *read = *state;
    static struct list_result result;
    char text[512] = "[{\"type\":\"a\",\"payload\":";
    for (int i = 0; i < 100; i++) {
        strncat(text, "[", 2);
    }
    list_cut(read, RECORD_FORM_EVENT_ARRAY, slice_from_text(text), NULL, 0, &result);
    assert_int_equal(result.err, ERR_DEPTH);
    assert_string_equal(result.fault.code, "too_deep");
    list_cut(read, RECORD_FORM_EVENT_LINES, slice_from_text(text + 1), NULL, 0, &result);
    assert_int_equal(result.err, ERR_DEPTH);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, read_setup, read_teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_cut_equals_whole),
        TEST(elements_say_where_they_stand),
        TEST(faults_are_at_their_place),
        TEST(slices_equal_whole),
        TEST(a_slice_that_lacks_elements_is_refused),
        TEST(large_elements_are_rejected_alone),
        TEST(depth_refuses_the_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
