/* Promise: keys come out in the order of high, low and index, however they are spread. */
#include "base/hash.h"
#include "store/batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_MAX = 5000 };

static uint64_t seed;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* The order, written anew. */
static int compare(const void *a, const void *b)
{
    const struct store_key *x = a;
    const struct store_key *y = b;
    int high = (x->high > y->high) - (x->high < y->high);
    int low = (x->low > y->low) - (x->low < y->low);
    int index = (x->index > y->index) - (x->index < y->index);
    return high != 0 ? high : low != 0 ? low : index;
}

static void check(struct store_key *keys, size_t count)
{
    struct store_key *wanted = calloc(count + 1, sizeof(*wanted));
    assert_non_null(wanted);
    memcpy(wanted, keys, count * sizeof(*keys));
    qsort(wanted, count, sizeof(*wanted), compare);
    store_keys_sort(keys, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(compare(&keys[i], &wanted[i]), 0);
    }
    free(wanted);
}

/* `spread`: bits of the range that the high parts come from. */
static void fill(struct store_key *keys, size_t count, unsigned spread)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t high = spread == 0 ? 7 : next_random() >> (64 - spread);
        keys[i] = (struct store_key){high, next_random() % 4, (uint32_t)i};
    }
}

static void test_any_spread(void **state)
{
    (void)state;
    static struct store_key keys[KEYS_MAX];
    hash_random(&seed, sizeof(seed));
    seed |= 1;
    print_message("seed %016llx\n", (unsigned long long)seed);
    for (unsigned spread = 0; spread <= 64; spread++) {
        static const size_t counts[] = {1, 2, 3, 17, 300, KEYS_MAX};
        for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
            fill(keys, counts[i], spread);
            check(keys, counts[i]);
        }
    }
}

/* One far away makes all others fall into one share. */
static void test_all_but_one_together(void **state)
{
    (void)state;
    static struct store_key keys[KEYS_MAX];
    fill(keys, KEYS_MAX, 10);
    keys[KEYS_MAX / 2].high = UINT64_MAX;
    check(keys, KEYS_MAX);
    keys[0].high = 0;
    check(keys, KEYS_MAX);
}

static void test_order_and_its_reverse(void **state)
{
    (void)state;
    static struct store_key keys[KEYS_MAX];
    for (size_t i = 0; i < KEYS_MAX; i++) {
        keys[i] = (struct store_key){i / 2, 0, (uint32_t)i};
    }
    check(keys, KEYS_MAX);
    for (size_t i = 0; i < KEYS_MAX; i++) {
        keys[i] = (struct store_key){UINT64_MAX - i / 3, 0, (uint32_t)i};
    }
    check(keys, KEYS_MAX);
    store_keys_sort(keys, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_spread),
        cmocka_unit_test(test_all_but_one_together),
        cmocka_unit_test(test_order_and_its_reverse),
    };
    return hash_start() != ERR_OK ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
