/* Promise: it is libsodium's keyed BLAKE2b, for every length and any key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/blake2b.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_bytes_of_one_kind),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
