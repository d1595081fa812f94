/* Promise: a table gives back what was put, drops the least recently used entry when a stripe is
 * full and nothing else, and costs no memory before it is used. The file under test is included, so
 * that its mapping can be looked at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../src/base/table.c" /* NOLINT(bugprone-suspicious-include) */
#include "base/thread.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int start(void **state)
{
    (void)state;
    return hash_start() == ERR_OK ? 0 : -1;
}

static struct slice key_of(const uint32_t *number)
{
    return slice_make(number, sizeof(*number));
}

static void put_number(struct table *table, uint32_t key, uint64_t value)
{
    table_put(table, key_of(&key), &value);
}

/* UINT64_MAX when absent. */
static uint64_t number_at(struct table *table, uint32_t key)
{
    uint64_t value = 0;
    return table_copy(table, key_of(&key), &value) ? value : UINT64_MAX;
}

static void add_one(void *value, void *context)
{
    uint64_t *number = value;
    *number += *(uint64_t *)context;
}

static void test_put_find_erase(void **state)
{
    (void)state;
    struct table *table = table_create(100, sizeof(uint64_t));
    uint32_t key = 7;
    uint64_t amount = 5;
    put_number(table, 7, 70);
    put_number(table, 8, 80);
    put_number(table, 7, 71);
    assert_int_equal(table_count(table), 2);
    assert_int_equal(number_at(table, 7), 71);
    assert_true(table_find(table, key_of(&key), add_one, &amount));
    assert_int_equal(number_at(table, 7), 76);
    assert_true(table_erase(table, key_of(&key)));
    assert_true(number_at(table, 7) == UINT64_MAX);
    assert_int_equal(number_at(table, 8), 80);
    /* An entry made anew begins at zero, though its memory was used before. */
    table_upsert(table, key_of(&key), add_one, &amount);
    assert_int_equal(number_at(table, 7), 5);
    table_destroy(table);
}

static void test_absent_keys(void **state)
{
    (void)state;
    struct table *table = table_create(100, sizeof(uint64_t));
    uint32_t key = 7;
    uint64_t amount = 1;
    uint64_t value = 42;
    assert_false(table_find(table, key_of(&key), add_one, &amount));
    assert_false(table_copy(table, key_of(&key), &value));
    assert_int_equal(value, 42);
    assert_false(table_erase(table, key_of(&key)));
    assert_int_equal(table_count(table), 0);
    table_destroy(table);
    table_destroy(NULL);
}

static void test_keys_of_every_size(void **state)
{
    (void)state;
    struct table *table = table_create(200, 1);
    uint8_t key[TABLE_KEY_BYTES_MAX] = {0};
    for (uint8_t size = 0; size <= TABLE_KEY_BYTES_MAX; size++) {
        table_put(table, slice_make(key, size), &size);
    }
    assert_int_equal(table_count(table), TABLE_KEY_BYTES_MAX + 1);
    for (uint8_t size = 0; size <= TABLE_KEY_BYTES_MAX; size++) {
        uint8_t value = 0;
        assert_true(table_copy(table, slice_make(key, size), &value));
        assert_int_equal(value, size);
    }
    table_destroy(table);
}

static void test_full_drops_the_least_recently_used(void **state)
{
    (void)state;
    struct table *table = table_create(4, sizeof(uint64_t));
    for (uint32_t key = 1; key <= 4; key++) {
        put_number(table, key, key);
    }
    assert_int_equal(number_at(table, 1), 1); /* 1 is used again: 2 is the oldest now */
    put_number(table, 5, 5);
    assert_true(number_at(table, 2) == UINT64_MAX);
    put_number(table, 3, 33); /* used: 4 is the oldest now */
    put_number(table, 6, 6);
    assert_true(number_at(table, 4) == UINT64_MAX);
    assert_int_equal(table_count(table), 4);
    assert_int_equal(number_at(table, 1), 1);
    assert_int_equal(number_at(table, 3), 33);
    assert_int_equal(number_at(table, 5), 5);
    assert_int_equal(number_at(table, 6), 6);
    /* An erased place is used before anything is dropped. */
    uint32_t key = 5;
    assert_true(table_erase(table, key_of(&key)));
    put_number(table, 7, 7);
    assert_int_equal(table_count(table), 4);
    assert_int_equal(number_at(table, 1), 1);
    table_destroy(table);
}

static void test_bound_holds_over_many_stripes(void **state)
{
    (void)state;
    struct table *table = table_create(20000, sizeof(uint64_t));
    for (uint32_t key = 0; key < 200000; key++) {
        put_number(table, key, key);
    }
    /* Each stripe may round up by one entry. */
    uint32_t count = table_count(table);
    assert_true(count >= 20000 && count <= 20064);
    table_destroy(table);
}

/* An array is the other implementation. */
static void test_random_story_against_an_array(void **state)
{
    (void)state;
    enum { KEYS = 500 };
    static uint64_t model[KEYS];
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srandom(seed);
    struct table *table = table_create(5000, sizeof(uint64_t));
    for (uint32_t key = 0; key < KEYS; key++) {
        model[key] = UINT64_MAX;
    }
    uint32_t count = 0;
    for (int i = 0; i < 100000; i++) {
        uint32_t key = (uint32_t)random() % KEYS;
        bool is_there = model[key] != UINT64_MAX;
        if (random() % 2 == 0) {
            model[key] = (uint64_t)i;
            put_number(table, key, (uint64_t)i);
            count += is_there ? 0 : 1;
        } else if (random() % 2 == 0) {
            assert_int_equal(table_erase(table, key_of(&key)), is_there);
            count -= is_there ? 1 : 0;
            model[key] = UINT64_MAX;
        } else {
            assert_true(number_at(table, key) == model[key]);
        }
    }
    assert_int_equal(table_count(table), count);
    table_destroy(table);
}

static bool is_odd(const void *value, void *context)
{
    uint32_t *looked = context;
    (*looked)++;
    return *(const uint64_t *)value % 2 == 1;
}

static void test_erase_if(void **state)
{
    (void)state;
    struct table *table = table_create(20000, sizeof(uint64_t));
    uint32_t looked = 0;
    table_erase_if(table, is_odd, &looked);
    assert_int_equal(looked, 0);
    for (uint32_t key = 0; key < 10000; key++) {
        put_number(table, key, key);
    }
    table_erase_if(table, is_odd, &looked);
    assert_int_equal(looked, 10000);
    assert_int_equal(table_count(table), 5000);
    for (uint32_t key = 0; key < 10000; key++) {
        assert_true(number_at(table, key) == (key % 2 == 1 ? UINT64_MAX : key));
    }
    table_destroy(table);
}

static void count_up(void *argument)
{
    uint64_t amount = 1;
    for (uint32_t i = 0; i < 50000; i++) {
        uint32_t key = i % 10;
        table_upsert(argument, key_of(&key), add_one, &amount);
    }
}

static void test_threads_add_without_loss(void **state)
{
    (void)state;
    struct table *table = table_create(1000, sizeof(uint64_t));
    struct thread *threads[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(thread_start(&threads[i], "count", count_up, table), ERR_OK);
    }
    for (size_t i = 0; i < 4; i++) {
        thread_join(threads[i]);
    }
    for (uint32_t key = 0; key < 10; key++) {
        assert_int_equal(number_at(table, key), 20000);
    }
    table_destroy(table);
}

/* A million entries of 160 bytes are 160 MB; the table and its first entry take a few pages: the
 * stripes, one page of entries, one of buckets. */
static void test_unused_entries_cost_no_memory(void **state)
{
    (void)state;
    struct table *table = table_create(1000000, 64);
    uint8_t value[64] = {1};
    table_put(table, SLICE_LITERAL("key"), value);
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t page_count = (table->mapped_bytes + page_bytes - 1) / page_bytes;
    unsigned char *resident = calloc(page_count, 1);
    assert_non_null(resident);
    assert_int_equal(mincore(table->stripes, table->mapped_bytes, resident), 0);
    size_t resident_count = 0;
    for (size_t i = 0; i < page_count; i++) {
        resident_count += resident[i] & 1;
    }
    assert_in_range(resident_count, 1, 64 * sizeof(struct table_stripe) / page_bytes + 4);
    free(resident);
    table_destroy(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_find_erase),
        cmocka_unit_test(test_absent_keys),
        cmocka_unit_test(test_keys_of_every_size),
        cmocka_unit_test(test_full_drops_the_least_recently_used),
        cmocka_unit_test(test_bound_holds_over_many_stripes),
        cmocka_unit_test(test_random_story_against_an_array),
        cmocka_unit_test(test_erase_if),
        cmocka_unit_test(test_threads_add_without_loss),
        cmocka_unit_test(test_unused_entries_cost_no_memory),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
