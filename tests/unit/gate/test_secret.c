/* Promise: Argon2id here is the Argon2id of everybody else, no other text than a hash matches
 * anything, and memory that is not there is never taken for a wrong secret. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "gate/secret.h"

/* printf 'weir' | argon2 sixteenbytesalt! -id -t 3 -k 64 -p 1 -e   (Debian argon2 0~20171227) */
static const char hash_small[] = "$argon2id$v=19$m=64,t=3,p=1$c2l4dGVlbmJ5dGVzYWx0IQ$ZWYfj/"
                                 "NnNZafrfO5IvZWQjx9Y1I4gIOj3mZxEUCmoLw";
/* printf 'zyxwvutsrqponmlkjihgfe01234567' | argon2 sixteenbytesalt! -id -t 2 -k 19456 -p 1 -l 32 -e
 */
static const char hash_usual[] = "$argon2id$v=19$m=19456,t=2,p=1$c2l4dGVlbmJ5dGVzYWx0IQ$"
                                 "kYlEBTStPESD65i4PLHr+g79DO4iAcxW/LlvDoavvck";

static void test_hashes_of_the_argon2_tool(void **state)
{
    (void)state;
    assert_int_equal(gate_secret_check(hash_small, SLICE_LITERAL("weir")), ERR_OK);
    assert_int_equal(gate_secret_check(hash_small, SLICE_LITERAL("Weir")), ERR_UNAUTHORIZED);
    assert_int_equal(gate_secret_check(hash_usual, SLICE_LITERAL("zyxwvutsrqponmlkjihgfe01234567")),
                     ERR_OK);
    assert_int_equal(gate_secret_check(hash_usual, SLICE_LITERAL("zyxwvutsrqponmlkjihgfe01234568")),
                     ERR_UNAUTHORIZED);
    assert_int_equal(gate_secret_check("not a hash", SLICE_LITERAL("weir")), ERR_UNAUTHORIZED);
    assert_int_equal(gate_secret_check("", SLICE_LITERAL("")), ERR_UNAUTHORIZED);
}

static void test_what_is_no_hash(void **state)
{
    (void)state;
    char text[sizeof(hash_small)];
    for (size_t size = 0; size < sizeof(hash_small) - 1; size++) {
        memcpy(text, hash_small, sizeof(text));
        text[size] = '\0';
        assert_int_equal(gate_secret_check(text, SLICE_LITERAL("weir")), ERR_UNAUTHORIZED);
    }
    for (size_t at = 0; at < sizeof(hash_small) - 1; at++) {
        if (strchr("0123456789", hash_small[at]) != NULL && at < 30) {
            continue; /* other parameters may be large; they are tried below */
        }
        memcpy(text, hash_small, sizeof(text));
        text[at] = text[at] == 'x' ? 'y' : 'x';
        assert_int_equal(gate_secret_check(text, SLICE_LITERAL("weir")), ERR_UNAUTHORIZED);
    }
    static const char *parameters[] = {
        "m=65,t=3,p=1",         "m=64,t=4,p=1",  "m=64,t=3,p=2",         "m=0,t=3,p=1",
        "m=64,t=0,p=1",         "m=64,t=3",      "m=-1,t=3,p=1",         "t=3,m=64,p=1",
        "m=4294967296,t=3,p=1", "m=64,t=3,p=1,", "m=64,t=4294967296,p=1"};
    for (size_t i = 0; i < sizeof(parameters) / sizeof(parameters[0]); i++) {
        char other[200];
        (void)snprintf(other, sizeof(other), "$argon2id$v=19$%s%s", parameters[i],
                       strrchr(hash_small, ',') + 4);
        assert_int_equal(gate_secret_check(other, SLICE_LITERAL("weir")), ERR_UNAUTHORIZED);
    }
}

static void test_hashes_of_our_own(void **state)
{
    (void)state;
    char first[GATE_HASH_BYTES_MAX];
    char second[GATE_HASH_BYTES_MAX];
    assert_int_equal(gate_secret_hash(SLICE_LITERAL("secret"), 3, 16, first), ERR_OK);
    assert_int_equal(gate_secret_hash(SLICE_LITERAL("secret"), 3, 16, second), ERR_OK);
    assert_int_equal(strncmp(first, "$argon2id$v=19$m=16,t=3,p=1$", 28), 0);
    assert_string_not_equal(first, second);
    assert_int_equal(gate_secret_check(first, SLICE_LITERAL("secret")), ERR_OK);
    assert_int_equal(gate_secret_check(first, SLICE_LITERAL("secreT")), ERR_UNAUTHORIZED);
}

static void test_no_memory_is_not_a_wrong_secret(void **state)
{
    (void)state;
    char hash[GATE_HASH_BYTES_MAX] = "kept";
    /* 4 TiB less 1 KiB: the largest that can be asked for, and more than a kernel promises. */
    assert_int_equal(gate_secret_hash(SLICE_LITERAL("secret"), 1, UINT32_MAX, hash), ERR_NO_MEMORY);
    assert_string_equal(hash, "kept");
    assert_int_equal(gate_secret_check("$argon2id$v=19$m=4294967295,t=1,p=1$c2l4dGVlbmJ5dGVzYWx0IQ$"
                                       "OlLb5g+T6MrNelfrRDYxw0b7d7vHOiZcHVz1/4bhwuE",
                                       SLICE_LITERAL("secret")),
                     ERR_NO_MEMORY);
}

static int start(void **state)
{
    (void)state;
    return hash_start() == ERR_OK ? 0 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hashes_of_the_argon2_tool),
        cmocka_unit_test(test_what_is_no_hash),
        cmocka_unit_test(test_hashes_of_our_own),
        cmocka_unit_test(test_no_memory_is_not_a_wrong_secret),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
