/* Promise: the pool gives each block to one owner at a time, the smallest that fits, and nothing
 * beyond its size; chains keep their items in order. The set of recent ids knows what was added of
 * late and forgets the oldest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "intake/intake.h"
#include "intake/pool.h"
#include "intake/recent.h"

static void blocks_are_the_smallest_that_fit(void **state)
{
    (void)state;
    struct intake_pool pool;
    size_t size;
    intake_pool_init(&pool, 8u << 20);
    static const size_t rows[][2] = {{1, 4096},      {4096, 4096},    {4097, 32768},
                                     {32768, 32768}, {32769, 262144}, {262144, 262144}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint8_t *block = intake_pool_take(&pool, rows[i][0], &size);
        assert_non_null(block);
        assert_int_equal(size, rows[i][1]);
        memset(block, 0xaa, size);
        intake_pool_give(&pool, block);
    }
    intake_pool_give(&pool, NULL);
    intake_pool_finish(&pool);
}

static void every_block_has_one_owner(void **state)
{
    (void)state;
    struct intake_pool pool;
    static uint8_t *blocks[100000];
    uint32_t count = 0;
    size_t bytes = 0;
    size_t size;
    intake_pool_init(&pool, 4u << 20);
    while ((blocks[count] = intake_pool_take(&pool, 100, &size)) != NULL) {
        memcpy(blocks[count], &count, sizeof(count));
        bytes += size;
        count++;
    }
    assert_true(bytes <= 4u << 20 && bytes > 3u << 20);
    assert_false(intake_pool_has_large(&pool));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t mark;
        memcpy(&mark, blocks[i], sizeof(mark));
        assert_int_equal(mark, i);
        intake_pool_give(&pool, blocks[i]);
    }
    assert_true(intake_pool_has_large(&pool));
    for (uint32_t i = 0; i < count; i++) {
        assert_non_null(intake_pool_take(&pool, 100, &size));
    }
    assert_null(intake_pool_take(&pool, 100, &size));
    intake_pool_finish(&pool);
}

static void chains_keep_their_order(void **state)
{
    (void)state;
    struct intake_pool pool;
    struct intake_chain chain = {NULL, NULL, 0};
    intake_pool_init(&pool, 1u << 20);
    uint64_t count = 0;
    uint64_t *item;
    while ((item = intake_chain_add(&pool, &chain, 24)) != NULL) {
        item[0] = count++;
    }
    /* Heads and ends of blocks apart, the pool's memory is items. */
    assert_true(count * 24 > 700000);
    assert_int_equal(chain.count, count);
    struct intake_chain_walk walk = intake_chain_begin(&chain);
    const uint64_t *found;
    for (uint64_t i = 0; (found = intake_chain_next(&walk, 24)) != NULL; i++) {
        assert_int_equal(found[0], i);
        count--;
    }
    assert_int_equal(count, 0);
    intake_chain_clear(&pool, &chain);
    assert_true(intake_pool_has_large(&pool));
    walk = intake_chain_begin(&chain);
    assert_null(intake_chain_next(&walk, 24));
    intake_pool_finish(&pool);
}

static struct id made(uint64_t number)
{
    static const uint8_t key[32] = {5};
    return id_make_dedup(key, SLICE_LITERAL("event"), SLICE_LITERAL(""),
                         slice_make(&number, sizeof(number)));
}

static void recent_ids_are_known(void **state)
{
    (void)state;
    const uint32_t ids = 65536;
    struct intake_recent *recent = intake_recent_create(ids);
    for (uint64_t i = 0; i < 4 * ids; i++) {
        uint64_t mark = intake_recent_mark(made(i));
        assert_false(intake_recent_has(recent, mark));
        intake_recent_add(recent, mark);
        assert_true(intake_recent_has(recent, mark));
    }
    /* Eight places for four expected: Poisson(4) has 2.1 % above eight; the oldest are gone. */
    uint32_t known = 0;
    uint32_t old = 0;
    for (uint64_t i = 0; i < ids; i++) {
        known += intake_recent_has(recent, intake_recent_mark(made(4 * ids - 1 - i)));
        old += intake_recent_has(recent, intake_recent_mark(made(i)));
    }
    assert_true(known > ids - ids / 20);
    assert_true(old < ids / 20);
    intake_recent_destroy(recent);
    intake_recent_destroy(NULL);
}

static void adding_again_keeps_the_others(void **state)
{
    (void)state;
    struct intake_recent *recent = intake_recent_create(8); /* one bucket of sixteen */
    for (uint64_t i = 1; i <= 16; i++) {
        intake_recent_add(recent, i << 32u);
    }
    for (uint64_t round = 0; round < 100; round++) {
        intake_recent_add(recent, 5ull << 32u);
    }
    for (uint64_t i = 1; i <= 16; i++) {
        assert_true(intake_recent_has(recent, i << 32u));
    }
    intake_recent_add(recent, 17ull << 32u);
    assert_false(intake_recent_has(recent, 1ull << 32u));
    intake_recent_destroy(recent);
}

static void only_made_ids_can_repeat(void **state)
{
    (void)state;
    assert_true(intake_id_can_repeat(made(1)));
    assert_false(intake_id_can_repeat(id_make_v7(1700000000000)));
}

static int start(void **state)
{
    (void)state;
    return hash_start() == ERR_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_the_smallest_that_fit),
        cmocka_unit_test(every_block_has_one_owner),
        cmocka_unit_test(chains_keep_their_order),
        cmocka_unit_test(recent_ids_are_known),
        cmocka_unit_test(adding_again_keeps_the_others),
        cmocka_unit_test(only_made_ids_can_repeat),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
