/* Promise: ids are valid UUIDs of versions 7 and 8; the same parts give the same id for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/id.h"
#include "base/thread.h"

#include <stdlib.h>

#define ID_COUNT 100000u

static int start(void **state)
{
    (void)state;
    return hash_start() == ERR_OK ? 0 : -1;
}

static void assert_stamped(struct id id, int version)
{
    assert_int_equal(id.bytes[6] >> 4, version);
    assert_int_equal(id.bytes[8] >> 6, 2);
}

/* RFC 9562 appendix A.6: its time is 0x017F22E279B0 = 1645557742000 ms. */
static void test_v7_holds_the_time(void **state)
{
    (void)state;
    struct id id = id_make_v7(1645557742000);
    assert_stamped(id, 7);
    assert_memory_equal(id.bytes, "\x01\x7f\x22\xe2\x79\xb0", 6);
}

static void test_v7_clamps_the_time(void **state)
{
    (void)state;
    struct id id = id_make_v7(-1);
    assert_stamped(id, 7);
    assert_memory_equal(id.bytes, "\0\0\0\0\0\0", 6);
    id = id_make_v7(INT64_MAX);
    assert_stamped(id, 7);
    assert_memory_equal(id.bytes, "\xff\xff\xff\xff\xff\xff", 6);
}

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct id));
}

static void make_many(void *argument)
{
    struct id *ids = argument;
    for (size_t i = 0; i < ID_COUNT; i++) {
        ids[i] = id_make_v7(1);
    }
}

/* 74 random bits: 200,000 ids of one millisecond collide with probability 10^-12. Every random
 * bit must be seen as 0 and as 1. */
static void test_v7_is_random_in_every_thread(void **state)
{
    (void)state;
    struct id *ids = calloc((size_t)2 * ID_COUNT, sizeof(*ids));
    struct thread *threads[2];
    assert_non_null(ids);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(thread_start(&threads[i], "ids", make_many, ids + i * ID_COUNT), ERR_OK);
    }
    thread_join(threads[0]);
    thread_join(threads[1]);
    uint8_t all_or[16] = {0};
    uint8_t all_and[16];
    memset(all_and, 0xff, sizeof(all_and));
    for (size_t i = 0; i < (size_t)2 * ID_COUNT; i++) {
        for (size_t j = 0; j < 16; j++) {
            all_or[j] |= ids[i].bytes[j];
            all_and[j] &= ids[i].bytes[j];
        }
    }
    assert_memory_equal(all_or + 6, "\x7f\xff\xbf\xff\xff\xff\xff\xff\xff\xff", 10);
    assert_memory_equal(all_and + 6, "\x70\0\x80\0\0\0\0\0\0\0", 10);
    qsort(ids, (size_t)2 * ID_COUNT, sizeof(*ids), compare_ids);
    for (size_t i = 1; i < (size_t)2 * ID_COUNT; i++) {
        assert_false(id_equal(ids[i - 1], ids[i]));
    }
    free(ids);
}

static void test_elements_follow_their_base(void **state)
{
    (void)state;
    struct id base;
    struct id id;
    char text[ID_TEXT_BYTES];
    assert_true(id_parse(SLICE_LITERAL("017f22e2-79b0-7cc3-98c4-dc0c0c07ffff"), &base));
    id = id_make_element(base, 0);
    id_format(id, text);
    assert_memory_equal(text, "017f22e2-79b0-7cc3-98c4-dc0c0c080000", ID_TEXT_BYTES);
    id_format(id_make_element(base, 15), text);
    assert_memory_equal(text, "017f22e2-79b0-7cc3-98c4-dc0c0c08000f", ID_TEXT_BYTES);
    for (uint64_t i = 1; i < 1000; i++) {
        struct id next = id_make_element(base, i);
        assert_true(compare_ids(&id, &next) < 0);
        assert_stamped(next, 7);
        id = next;
    }
}

static void test_elements_wrap_without_touching_the_variant(void **state)
{
    (void)state;
    struct id base;
    struct id expected;
    assert_true(id_parse(SLICE_LITERAL("017f22e2-79b0-7cc3-bfff-ffffffffffff"), &base));
    assert_true(id_parse(SLICE_LITERAL("017f22e2-79b0-7cc3-8000-000000000002"), &expected));
    assert_true(id_equal(id_make_element(base, 2), expected));
}

/* Computed with Python's hashlib.blake2b(digest_size=16, key=bytes(range(32))). */
static void test_dedup_ids_are_for_ever(void **state)
{
    (void)state;
    static const struct {
        const char *kind;
        const char *source;
        const char *dedup_id;
        const char *text;
    } rows[] = {
        {"event", "crm", "order-1", "3f8c5121-0313-8bac-b0f0-7c90722ca6ef"},
        {"ev", "entcrm", "order-1", "874df507-a096-87a0-a9e0-24772363d6f2"},
        {"event", "", "", "f9188f2c-79e2-874d-bffa-5c954a6c3e8b"},
    };
    uint8_t key[32];
    for (uint8_t i = 0; i < 32; i++) {
        key[i] = i;
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[ID_TEXT_BYTES];
        struct id id =
            id_make_dedup(key, slice_from_text(rows[i].kind), slice_from_text(rows[i].source),
                          slice_from_text(rows[i].dedup_id));
        assert_stamped(id, 8);
        id_format(id, text);
        assert_memory_equal(text, rows[i].text, ID_TEXT_BYTES);
    }
    key[0] = 1; /* another org */
    struct id other =
        id_make_dedup(key, SLICE_LITERAL("event"), SLICE_LITERAL("crm"), SLICE_LITERAL("order-1"));
    struct id first;
    assert_true(id_parse(slice_from_text(rows[0].text), &first));
    assert_false(id_equal(other, first));
}

static void test_text_round_trip(void **state)
{
    (void)state;
    struct id id;
    char text[ID_TEXT_BYTES];
    assert_true(id_parse(SLICE_LITERAL("017F22E2-79b0-7CC3-98C4-DC0C0C07398F"), &id));
    assert_memory_equal(id.bytes,
                        "\x01\x7f\x22\xe2\x79\xb0\x7c\xc3\x98\xc4\xdc\x0c\x0c\x07\x39\x8f", 16);
    id_format(id, text);
    assert_memory_equal(text, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f", ID_TEXT_BYTES);
}

static void test_bytes_of_another_size_are_the_nil_id(void **state)
{
    (void)state;
    static const struct id nil = {{0}};
    uint8_t bytes[17];
    memset(bytes, 0xa5, sizeof(bytes));
    assert_memory_equal(id_from_bytes(slice_make(bytes, 16)).bytes, bytes, 16);
    assert_true(id_equal(id_from_bytes(slice_make(bytes, 15)), nil));
    assert_true(id_equal(id_from_bytes(slice_make(bytes, 17)), nil));
    assert_true(id_equal(id_from_bytes(slice_make(NULL, 0)), nil));
}

static void test_text_that_is_no_id(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "017f22e279b07cc398c4dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398ff",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
        "017f22e2-79b0-7cc3-98c4_dc0c0c07398f",
        "017f22e27-9b0-7cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c0739@f",
        "{17f22e2-79b0-7cc3-98c4-dc0c0c07398}",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07\020\0219f",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct id id = {{42}};
        assert_false(id_parse(slice_from_text(bad[i]), &id));
        assert_int_equal(id.bytes[0], 42);
    }
}

/* Fours of every fullness, of parts from none to one byte too long to be made together. */
static void test_four_at_a_time_are_the_same(void **state)
{
    (void)state;
    uint8_t keys[2][32];
    uint8_t bytes[200];
    static struct id_four four;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 7 + 1);
    }
    memset(keys[0], 1, sizeof(keys[0]));
    memset(keys[1], 2, sizeof(keys[1]));
    size_t room = BLAKE2B_BLOCK_BYTES - 3 * sizeof(uint32_t);
    for (size_t size = 0; size <= room; size++) {
        struct slice whole = slice_make(bytes + size % 50, size);
        struct id wanted[BLAKE2B_TOGETHER];
        uint32_t count = (uint32_t)(size % BLAKE2B_TOGETHER) + 1;
        for (uint32_t i = 0; i < count; i++) {
            size_t cut = size * i / count;
            struct slice parts[2] = {slice_part(whole, 0, cut), slice_part(whole, cut, size)};
            const uint8_t *key = keys[(size + i) % 2];
            wanted[i] = id_make_dedup(key, SLICE_LITERAL(""), parts[0], parts[1]);
            assert_true(id_four_add(&four, key, SLICE_LITERAL(""), parts[0], parts[1]));
        }
        id_four_make(&four);
        assert_int_equal(four.count, 0);
        for (uint32_t i = 0; i < count; i++) {
            assert_stamped(four.ids[i], 8);
            assert_true(id_equal(four.ids[i], wanted[i]));
        }
    }
    assert_false(id_four_add(&four, keys[0], SLICE_LITERAL(""), slice_make(bytes, 1),
                             slice_make(bytes, room)));
    assert_int_equal(four.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v7_holds_the_time),
        cmocka_unit_test(test_v7_clamps_the_time),
        cmocka_unit_test(test_v7_is_random_in_every_thread),
        cmocka_unit_test(test_elements_follow_their_base),
        cmocka_unit_test(test_elements_wrap_without_touching_the_variant),
        cmocka_unit_test(test_dedup_ids_are_for_ever),
        cmocka_unit_test(test_four_at_a_time_are_the_same),
        cmocka_unit_test(test_text_round_trip),
        cmocka_unit_test(test_bytes_of_another_size_are_the_nil_id),
        cmocka_unit_test(test_text_that_is_no_id),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
