/* Promise: only text that has the shape of a key and the tag that our tag key gives its id and
 * secret is taken for a key of ours; every other text, also one wrong character, is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h>
#include <string.h>

#include "base/hash.h"
#include "gate/key_text.h"

static const uint8_t tag_key[GATE_TAG_KEY_BYTES] = "0123456789abcdef0123456789abcdef";
static const uint8_t other_tag_key[GATE_TAG_KEY_BYTES] = "0123456789abcdef0123456789abcdeF";

#define KEY_ID     "AbCdEfGh01234567"
#define KEY_SECRET "zyxwvutsrqponmlkjihgfe"

static bool is_ours(struct slice text, const uint8_t *key)
{
    struct gate_key_text parts;
    return gate_key_text_parse(text, &parts) && gate_key_text_tag_is_right(key, &parts);
}

/* The tag as the head of the file describes it, written a second time with libsodium alone. */
static void tag_by_hand(const char *id_and_secret, char *to)
{
    static const char characters[] =
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    uint8_t digest[16];
    uint64_t number = 0;
    assert_int_equal(crypto_generichash(digest, sizeof(digest), (const uint8_t *)id_and_secret,
                                        strlen(id_and_secret), tag_key, sizeof(tag_key)),
                     0);
    for (int i = 7; i >= 0; i--) {
        number = number << 8 | digest[i];
    }
    for (int i = 0; i < 8; i++) {
        to[i] = characters[number % 62];
        number /= 62;
    }
}

static void test_tag_is_what_the_format_says(void **state)
{
    (void)state;
    char text[] = "weir_" KEY_ID "_" KEY_SECRET "........";
    tag_by_hand(KEY_ID KEY_SECRET, text + sizeof(text) - 9);
    assert_true(is_ours(slice_from_text(text), tag_key));
    assert_false(is_ours(slice_from_text(text), other_tag_key));
}

static void test_made_keys_are_ours_and_differ(void **state)
{
    (void)state;
    char a[GATE_KEY_CHARS + 1];
    char b[GATE_KEY_CHARS + 1];
    struct gate_key_text parts;
    gate_key_text_make(tag_key, a);
    gate_key_text_make(tag_key, b);
    assert_int_equal(strlen(a), 52);
    assert_true(is_ours(slice_from_text(a), tag_key));
    assert_true(is_ours(slice_from_text(b), tag_key));
    assert_memory_not_equal(a + 5, b + 5, 16);
    assert_memory_not_equal(a + 22, b + 22, 22);
    assert_true(gate_key_text_parse(slice_from_text(a), &parts));
    assert_memory_equal(parts.id.data, a + 5, 16);
    assert_int_equal(parts.id.size, 16);
    assert_int_equal(parts.secret.size, 30);
}

/* 62 equally likely characters in 1,000 keys: 38,000 / 62 = 613 of each on average, with a standard
 * deviation of 25; 300 lies 12 of them away. */
static void test_made_keys_use_every_character(void **state)
{
    (void)state;
    uint32_t counts[256] = {0};
    for (int n = 0; n < 1000; n++) {
        char text[GATE_KEY_CHARS + 1];
        gate_key_text_make(tag_key, text);
        for (size_t i = 5; i < 44; i++) {
            counts[(uint8_t)text[i]] += i != 21;
        }
    }
    for (int c = 0; c < 256; c++) {
        bool is_base62 = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        assert_true(is_base62 ? counts[c] > 300 && counts[c] < 926 : counts[c] == 0);
    }
}

static void test_any_wrong_character_is_refused(void **state)
{
    (void)state;
    char text[GATE_KEY_CHARS + 1];
    gate_key_text_make(tag_key, text);
    for (size_t i = 0; i < GATE_KEY_CHARS; i++) {
        char kept = text[i];
        text[i] = kept == 'x' ? 'y' : 'x';
        assert_false(is_ours(slice_from_text(text), tag_key));
        text[i] = kept;
    }
    assert_true(is_ours(slice_from_text(text), tag_key));
}

static void test_what_has_not_the_shape(void **state)
{
    (void)state;
    static const char good[] = "weir_" KEY_ID "_" KEY_SECRET "01234567";
    struct gate_key_text parts;
    char text[sizeof(good) + 1];
    assert_true(gate_key_text_parse(slice_from_text(good), &parts));
    for (size_t size = 0; size < sizeof(good) - 1; size++) {
        assert_false(gate_key_text_parse(slice_make(good, size), &parts));
    }
    memcpy(text, good, sizeof(good));
    memcpy(text + sizeof(good) - 1, "8", 2);
    assert_false(gate_key_text_parse(slice_from_text(text), &parts));
    for (int c = 0; c < 256; c++) {
        bool is_base62 = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        memcpy(text, good, sizeof(good));
        text[30] = (char)c;
        assert_int_equal(gate_key_text_parse(slice_make(text, sizeof(good) - 1), &parts),
                         is_base62);
        memcpy(text, good, sizeof(good));
        text[7] = (char)c;
        assert_int_equal(gate_key_text_parse(slice_make(text, sizeof(good) - 1), &parts),
                         is_base62);
    }
    assert_false(gate_key_text_parse(slice_make(NULL, 0), &parts));
    assert_true(gate_key_text_id_is_shaped(SLICE_LITERAL(KEY_ID)));
    assert_false(gate_key_text_id_is_shaped(SLICE_LITERAL(KEY_ID "8")));
    assert_false(gate_key_text_id_is_shaped(SLICE_LITERAL("AbCdEfGh0123456-")));
}

static int start(void **state)
{
    (void)state;
    return hash_start() == ERR_OK ? 0 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tag_is_what_the_format_says),
        cmocka_unit_test(test_made_keys_are_ours_and_differ),
        cmocka_unit_test(test_made_keys_use_every_character),
        cmocka_unit_test(test_any_wrong_character_is_refused),
        cmocka_unit_test(test_what_has_not_the_shape),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
