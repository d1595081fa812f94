/* Promise: it is libsodium's keyed BLAKE2b, for every length and any key, also of four texts at
 * once, with and without wide vector instructions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/blake2b_wide.h"

static void check(const uint8_t key[BLAKE2B_KEY_BYTES], const uint8_t *data, size_t size)
{
    uint8_t wanted[BLAKE2B_BYTES];
    uint8_t found[BLAKE2B_BYTES];
    struct blake2b_keyed keyed;
    assert_int_equal(crypto_generichash(wanted, sizeof(wanted), data, size, key, BLAKE2B_KEY_BYTES),
                     0);
    blake2b_key(&keyed, key);
    blake2b_hash(&keyed, data, size, found);
    assert_memory_equal(found, wanted, sizeof(wanted));
}

static void test_every_length(void **state)
{
    (void)state;
    uint8_t seed[randombytes_SEEDBYTES];
    uint8_t bytes[BLAKE2B_KEY_BYTES + 1024];
    randombytes_buf(seed, sizeof(seed));
    uint32_t shown;
    memcpy(&shown, seed, sizeof(shown));
    memset(seed + sizeof(shown), 0, sizeof(seed) - sizeof(shown));
    print_message("seed %08x\n", shown);
    for (size_t size = 1; size <= 1024; size++) {
        seed[randombytes_SEEDBYTES - 1] = (uint8_t)size;
        seed[randombytes_SEEDBYTES - 2] = (uint8_t)(size >> 8);
        randombytes_buf_deterministic(bytes, sizeof(bytes), seed);
        check(bytes, bytes + BLAKE2B_KEY_BYTES, size);
    }
}

static void test_bytes_of_one_kind(void **state)
{
    (void)state;
    uint8_t bytes[300];
    for (int byte = 0; byte < 256; byte += 255) {
        memset(bytes, byte, sizeof(bytes));
        for (size_t size = 1; size <= sizeof(bytes); size++) {
            check(bytes, bytes, size);
        }
    }
}

static void set_of_four(struct blake2b_four *four, size_t k, const uint8_t *data, size_t size)
{
    blake2b_key(&four->keyed[k], data);
    memset(four->texts[k], 0, BLAKE2B_BLOCK_BYTES);
    memcpy(four->texts[k], data + BLAKE2B_KEY_BYTES, size);
    four->sizes[k] = (uint32_t)size;
}

static void check_of_four(const struct blake2b_four *four, size_t k, const uint8_t *data,
                          size_t size)
{
    uint8_t wanted[BLAKE2B_BYTES];
    assert_int_equal(crypto_generichash(wanted, sizeof(wanted), data + BLAKE2B_KEY_BYTES, size,
                                        data, BLAKE2B_KEY_BYTES),
                     0);
    assert_memory_equal(four->hashes[k], wanted, sizeof(wanted));
}

/* Each of the four has a length, a key and a text of its own; every length in every place. */
static void check_four(bool (*hash_four)(struct blake2b_four *four))
{
    static const size_t steps[BLAKE2B_TOGETHER] = {1, 3, 5, 127};
    uint8_t bytes[BLAKE2B_TOGETHER][BLAKE2B_KEY_BYTES + BLAKE2B_BLOCK_BYTES];
    struct blake2b_four four;
    uint32_t seed = randombytes_random();
    print_message("seed %08x\n", seed);
    for (size_t round = 0; round < BLAKE2B_BLOCK_BYTES; round++) {
        uint8_t long_seed[randombytes_SEEDBYTES] = {(uint8_t)round};
        size_t sizes[BLAKE2B_TOGETHER];
        memcpy(long_seed + 1, &seed, sizeof(seed));
        randombytes_buf_deterministic(bytes, sizeof(bytes), long_seed);
        for (size_t k = 0; k < BLAKE2B_TOGETHER; k++) {
            sizes[k] = 1 + (round * steps[k] + k) % BLAKE2B_BLOCK_BYTES;
            set_of_four(&four, k, bytes[k], sizes[k]);
        }
        if (!hash_four(&four)) {
            return; /* this processor has no such instructions, and the others do the work */
        }
        for (size_t k = 0; k < BLAKE2B_TOGETHER; k++) {
            check_of_four(&four, k, bytes[k], sizes[k]);
        }
    }
}

static bool hash_plain(struct blake2b_four *four)
{
    blake2b_plain_four(four);
    return true;
}

static bool hash_chosen(struct blake2b_four *four)
{
    blake2b_hash_four(four);
    return true;
}

static void test_four_plain(void **state)
{
    (void)state;
    check_four(hash_plain);
}

static void test_four_wide(void **state)
{
    (void)state;
    check_four(blake2b_wide_four);
}

static void test_four_chosen(void **state)
{
    (void)state;
    check_four(hash_chosen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_length), cmocka_unit_test(test_bytes_of_one_kind),
        cmocka_unit_test(test_four_plain),   cmocka_unit_test(test_four_wide),
        cmocka_unit_test(test_four_chosen),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
