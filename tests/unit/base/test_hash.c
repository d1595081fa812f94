/* Promise: the hashes are the published ones, the table hash has a key of its own, and random bytes
 * differ. The file under test is included, so that the known key of SipHash's vectors can be set.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../src/base/hash.c" /* NOLINT(bugprone-suspicious-include) */

static int start(void **state)
{
    (void)state;
    if (hash_start() != ERR_OK) {
        return -1;
    }
    uint64_t hash = hash_table("x", 1);
    /* Starting again changes nothing. */
    return hash_start() == ERR_OK && hash_table("x", 1) == hash ? 0 : -1;
}

/* The values of xxHash's own sanity check (empty input, both seeds). */
static void test_xxh3(void **state)
{
    (void)state;
    assert_true(hash_xxh3(NULL, 0, 0) == 0x2d06800538d394c2u);
    assert_true(hash_xxh3("", 0, 0x9e3779b185ebca8du) == 0xa8a6b918b2f0364au);
    assert_true(hash_xxh3("a", 1, 0) != hash_xxh3("a", 1, 1));
    assert_true(hash_xxh3("a", 1, 0) != hash_xxh3("b", 1, 0));
}

/* In parts of any size the value is that of the whole; other bytes give another. */
static void test_xxh3_in_parts(void **state)
{
    (void)state;
    uint8_t bytes[3000];
    struct hash_stream *stream = hash_stream_create();
    assert_true(hash_stream_value(stream) == 0x2d06800538d394c2u);
    hash_random(bytes, sizeof(bytes));
    for (size_t part = 1; part < sizeof(bytes); part = part * 2 + 1) {
        hash_stream_destroy(stream);
        stream = hash_stream_create();
        for (size_t at = 0; at < sizeof(bytes); at += part) {
            size_t left = sizeof(bytes) - at;
            hash_stream_add(stream, bytes + at, part < left ? part : left);
        }
        assert_true(hash_stream_value(stream) == hash_xxh3(bytes, sizeof(bytes), 0));
    }
    bytes[2999] ^= 1;
    assert_true(hash_stream_value(stream) != hash_xxh3(bytes, sizeof(bytes), 0));
    hash_stream_destroy(stream);
    hash_stream_destroy(NULL);
}

/* Appendix A of the SipHash paper: key 00..0f, message 00..0e. */
static void test_table_hash_is_siphash_2_4(void **state)
{
    (void)state;
    uint8_t own_key[16];
    uint8_t message[15];
    memcpy(own_key, hash_table_key, 16);
    uint64_t own = hash_table("x", 1);
    for (uint8_t i = 0; i < 16; i++) {
        hash_table_key[i] = i;
    }
    for (uint8_t i = 0; i < 15; i++) {
        message[i] = i;
    }
    assert_true(hash_table(message, 15) == 0xa129ca6149be45e5u);
    /* Another key, another hash: the key of the process was not a fixed one. */
    assert_true(hash_table("x", 1) != own);
    memcpy(hash_table_key, own_key, 16);
    assert_true(hash_table("x", 1) == own);
}

/* RFC 7693 gives no keyed vector; computed with Python's hashlib.blake2b. */
static void test_keyed(void **state)
{
    (void)state;
    static const uint8_t expected[16] = {0xc3, 0x3e, 0xde, 0x53, 0x8b, 0x35, 0x09, 0x15,
                                         0x3b, 0x2c, 0xef, 0x9a, 0x07, 0xca, 0x04, 0x68};
    uint8_t key[32];
    uint8_t got[16];
    for (uint8_t i = 0; i < 32; i++) {
        key[i] = i;
    }
    hash_keyed(slice_make(key, 32), SLICE_LITERAL("weir"), got, sizeof(got));
    assert_memory_equal(got, expected, sizeof(got));
    key[31] ^= 1;
    hash_keyed(slice_make(key, 32), SLICE_LITERAL("weir"), got, sizeof(got));
    assert_memory_not_equal(got, expected, sizeof(got));
}

static void test_random_and_equal(void **state)
{
    (void)state;
    uint8_t a[32];
    uint8_t b[32];
    hash_random(a, sizeof(a));
    hash_random(b, sizeof(b));
    assert_false(hash_equal_constant_time(a, b, sizeof(a)));
    memcpy(b, a, sizeof(a));
    assert_true(hash_equal_constant_time(a, b, sizeof(a)));
    b[31] ^= 0x80;
    assert_false(hash_equal_constant_time(a, b, sizeof(a)));
    assert_true(hash_equal_constant_time(a, b, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xxh3),
        cmocka_unit_test(test_xxh3_in_parts),
        cmocka_unit_test(test_table_hash_is_siphash_2_4),
        cmocka_unit_test(test_keyed),
        cmocka_unit_test(test_random_and_equal),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
