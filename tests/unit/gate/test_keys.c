/* Promise: a key's row says what the key may do, only its own org finds, replaces or revokes it,
 * and a key is revoked once. link: gate_fixture.c store_fixture.c */
#include "support/gate_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "gate/keys.h"

static struct gate_fixture fixture;

#define ALL_OF(number)                                                                             \
    {                                                                                              \
        .org = (number), .limit = 1000, .oldest_first = true                                       \
    }

/* One call of the stage inside a job. */
struct call {
    enum { CALL_INSERT, CALL_REVOKE, CALL_REPLACE, CALL_LIST, CALL_LOAD } what;
    uint64_t org;
    struct slice id;
    const struct gate_new_key *key;
    const struct gate_key_options *options;
    struct gate_key_found found;
    uint64_t old_number;
    uint64_t number;
    struct gate_page page;
    uint64_t last;
    char listed[4096];
};

static void list_row(const struct gate_key_row *row, void *context)
{
    struct call *call = context;
    size_t size = strlen(call->listed);
    call->last = row->number;
    (void)snprintf(call->listed + size, sizeof(call->listed) - size,
                   "%.*s name=%.*s scopes=%u expires=%lld revoked=%d rpm=%u mb=%u\n",
                   (int)row->id.size, (const char *)row->id.data, (int)row->name.size,
                   (const char *)row->name.data, row->scopes, (long long)row->expires_ms,
                   row->revoked_ms != 0, row->requests_per_minute, row->mb_per_hour);
}

static enum err run_call(struct store_connection *connection, void *context)
{
    struct call *call = context;
    switch (call->what) {
    case CALL_INSERT:
        return gate_key_insert(connection, call->key, call->options, &call->number);
    case CALL_REVOKE:
        return gate_key_revoke(connection, call->org, call->id, &call->number);
    case CALL_REPLACE:
        return gate_key_replace(connection, call->org, call->id, call->key, &call->old_number,
                                &call->number);
    case CALL_LIST:
        return gate_key_list(connection, &call->page, list_row, call);
    case CALL_LOAD:
        return gate_key_load(connection, call->id, 9, &call->found);
    }
    return ERR_INVALID;
}

static enum err run(struct call *call)
{
    return store_fixture_run(&fixture.store, run_call, call);
}

static enum err insert(const struct gate_key_options *options, struct gate_new_key *key,
                       uint64_t *ret_number)
{
    struct call call = {.what = CALL_INSERT, .key = key, .options = options, .number = 77};
    assert_int_equal(gate_key_prepare(fixture.gate, key), ERR_OK);
    enum err err = run(&call);
    *ret_number = call.number;
    return err;
}

static enum err revoke(uint64_t org, const char *id, uint64_t *ret_number)
{
    struct call call = {.what = CALL_REVOKE, .org = org, .id = slice_from_text(id), .number = 77};
    enum err err = run(&call);
    *ret_number = call.number;
    return err;
}

static int64_t version_of(uint64_t org)
{
    char sql[96];
    (void)snprintf(sql, sizeof(sql), "SELECT data_version FROM orgs WHERE number = %llu",
                   (unsigned long long)org);
    return store_fixture_number(&fixture.store, sql);
}

static void test_a_row_says_what_the_key_may(void **state)
{
    (void)state;
    const struct gate_key_options options = {.org = 1,
                                             .scopes = GATE_WRITE,
                                             .name = SLICE_LITERAL("Werk 7, \xC3\xA9t\xC3\xA9"),
                                             .expires_ms = 1900000000000,
                                             .requests_per_minute = 12,
                                             .mb_per_hour = 34};
    struct gate_new_key key;
    uint64_t number;
    char expected[256];
    int64_t before = version_of(1);
    assert_int_equal(insert(&options, &key, &number), ERR_OK);
    assert_int_equal(version_of(1), before + 1);
    struct call call = {.what = CALL_LIST, .page = ALL_OF(1)};
    assert_int_equal(run(&call), ERR_OK);
    (void)snprintf(expected, sizeof(expected),
                   "%s name=Werk 7, \xC3\xA9t\xC3\xA9 scopes=2 expires=1900000000000 revoked=0"
                   " rpm=12 mb=34\n",
                   key.id);
    assert_string_equal(call.listed, expected);
    assert_true(number > 0);
}

static void test_what_a_check_reads(void **state)
{
    (void)state;
    const struct gate_key_options options = {
        .org = 2, .scopes = GATE_READ, .expires_ms = 5, .requests_per_minute = 6, .mb_per_hour = 7};
    struct gate_new_key key;
    uint64_t number;
    assert_int_equal(insert(&options, &key, &number), ERR_OK);
    assert_int_equal(
        store_fixture_sql(&fixture.store, "UPDATE orgs SET tier = 'business' WHERE number = 2"),
        ERR_OK);
    struct call call = {.what = CALL_LOAD, .id = slice_from_text(key.id)};
    assert_int_equal(run(&call), ERR_OK);
    const struct gate_identity *identity = &call.found.identity;
    assert_int_equal(identity->org, 2);
    assert_int_equal(identity->key, number);
    assert_int_equal(identity->scopes, GATE_READ);
    assert_int_equal(identity->requests_per_minute, 10000);
    assert_int_equal(identity->key_requests_per_minute, 6);
    assert_int_equal(identity->mb_per_hour, 9); /* the setting, for the org has none */
    assert_int_equal(identity->key_mb_per_hour, 7);
    assert_int_equal(identity->expires_ms, 5);
    assert_string_equal(call.found.hash, key.hash);
    assert_int_equal(call.found.revoked_ms, 0);
    assert_int_equal(
        store_fixture_sql(&fixture.store,
                          "UPDATE orgs SET tier = 'of a later version', mb_per_hour = 0"),
        ERR_OK);
    assert_int_equal(run(&call), ERR_OK);
    assert_int_equal(identity->requests_per_minute, 1000);
    assert_int_equal(identity->mb_per_hour, 0);
    call.id = SLICE_LITERAL("0000000000000000");
    assert_int_equal(run(&call), ERR_NOT_FOUND);
}

static void test_a_damaged_org_row(void **state)
{
    (void)state;
    const struct gate_key_options options = {.org = 1, .scopes = GATE_READ};
    struct gate_new_key key;
    uint64_t number;
    assert_int_equal(insert(&options, &key, &number), ERR_OK);
    assert_int_equal(
        store_fixture_sql(&fixture.store, "UPDATE orgs SET id_key = x'00' WHERE number = 1"),
        ERR_OK);
    struct call call = {.what = CALL_LOAD, .id = slice_from_text(key.id)};
    assert_int_equal(run(&call), ERR_CORRUPT);
}

static void test_what_is_no_key(void **state)
{
    (void)state;
    static const char long_name[] = "12345678901234567890123456789012345678901234567890"
                                    "123456789012345678901234567890123456789012345678901";
    const struct gate_key_options good = {.org = 1, .scopes = GATE_READ};
    struct gate_key_options bad[5] = {good, good, good, good, good};
    struct gate_new_key key;
    uint64_t number;
    bad[0].scopes = 0;
    bad[1].scopes = (uint32_t)GATE_SCOPES_KNOWN + 1;
    bad[2].name = SLICE_LITERAL("two\nlines");
    bad[3].name = SLICE_LITERAL("\xFF");
    bad[4].name = slice_from_text(long_name);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(insert(&bad[i], &key, &number), ERR_INVALID);
        assert_int_equal(number, 77);
    }
    bad[4].name.size = 100;
    assert_int_equal(insert(&bad[4], &key, &number), ERR_OK);
    const struct gate_key_options nowhere = {.org = 3, .scopes = GATE_READ};
    assert_int_equal(insert(&nowhere, &key, &number), ERR_NOT_FOUND);
    assert_int_equal(number, 77);
}

static void test_only_its_own_org_reaches_a_key(void **state)
{
    (void)state;
    const struct gate_key_options options = {.org = 1, .scopes = GATE_ALL};
    struct gate_new_key key;
    struct gate_new_key next;
    uint64_t number;
    uint64_t revoked;
    assert_int_equal(insert(&options, &key, &number), ERR_OK);
    assert_int_equal(gate_key_prepare(fixture.gate, &next), ERR_OK);
    struct call call = {.what = CALL_LIST, .page = ALL_OF(2)};
    assert_int_equal(run(&call), ERR_OK);
    assert_string_equal(call.listed, "");
    call =
        (struct call){.what = CALL_REPLACE, .org = 2, .id = slice_from_text(key.id), .key = &next};
    assert_int_equal(run(&call), ERR_NOT_FOUND);
    assert_int_equal(revoke(2, key.id, &revoked), ERR_NOT_FOUND);
    assert_int_equal(revoked, 77);
    assert_int_equal(store_fixture_number(&fixture.store, "SELECT count(*) FROM keys"), 1);
    /* The operator reaches all. */
    assert_int_equal(revoke(0, key.id, &revoked), ERR_OK);
    assert_int_equal(revoked, number);
}

static void test_revoked_once(void **state)
{
    (void)state;
    const struct gate_key_options options = {.org = 1, .scopes = GATE_ALL};
    struct gate_new_key key;
    uint64_t number;
    uint64_t revoked;
    assert_int_equal(insert(&options, &key, &number), ERR_OK);
    int64_t before = version_of(1);
    assert_int_equal(revoke(1, key.id, &revoked), ERR_OK);
    assert_int_equal(revoked, number);
    assert_int_equal(version_of(1), before + 1);
    assert_int_equal(revoke(1, key.id, &revoked), ERR_NOT_FOUND);
    assert_int_equal(revoke(1, "0000000000000000", &revoked), ERR_NOT_FOUND);
    struct call call = {.what = CALL_LOAD, .id = slice_from_text(key.id)};
    assert_int_equal(run(&call), ERR_OK);
    assert_true(call.found.revoked_ms > 0);
}

static void test_replacing_carries_all_but_the_secret(void **state)
{
    (void)state;
    const struct gate_key_options options = {.org = 1,
                                             .scopes = GATE_READ | GATE_ADMIN,
                                             .name = SLICE_LITERAL("shop"),
                                             .expires_ms = 1900000000000,
                                             .requests_per_minute = 3,
                                             .mb_per_hour = 4};
    struct gate_new_key old;
    struct gate_new_key key;
    uint64_t number;
    char expected[512];
    assert_int_equal(insert(&options, &old, &number), ERR_OK);
    assert_int_equal(gate_key_prepare(fixture.gate, &key), ERR_OK);
    struct call call = {.what = CALL_REPLACE, .org = 1, .id = slice_from_text(old.id), .key = &key};
    assert_int_equal(run(&call), ERR_OK);
    assert_int_equal(call.old_number, number);
    assert_int_not_equal(call.number, number);
    struct call list = {.what = CALL_LIST, .page = ALL_OF(1)};
    assert_int_equal(run(&list), ERR_OK);
    (void)snprintf(expected, sizeof(expected),
                   "%s name=shop scopes=5 expires=1900000000000 revoked=1 rpm=3 mb=4\n"
                   "%s name=shop scopes=5 expires=1900000000000 revoked=0 rpm=3 mb=4\n",
                   old.id, key.id);
    assert_string_equal(list.listed, expected);
    /* A key that is dead already makes no other. */
    struct gate_new_key third;
    assert_int_equal(gate_key_prepare(fixture.gate, &third), ERR_OK);
    call =
        (struct call){.what = CALL_REPLACE, .org = 1, .id = slice_from_text(old.id), .key = &third};
    assert_int_equal(run(&call), ERR_NOT_FOUND);
    assert_int_equal(store_fixture_number(&fixture.store, "SELECT count(*) FROM keys"), 2);
}

static void test_pages_both_ways(void **state)
{
    (void)state;
    struct gate_new_key keys[3];
    const char *names[3] = {"a", "b", "c"};
    uint64_t numbers[3];
    for (int i = 0; i < 3; i++) {
        const struct gate_key_options options = {
            .org = 1, .scopes = GATE_READ, .name = slice_from_text(names[i])};
        assert_int_equal(insert(&options, &keys[i], &numbers[i]), ERR_OK);
    }
    for (int oldest_first = 0; oldest_first < 2; oldest_first++) {
        struct call call = {.what = CALL_LIST,
                            .page = {.org = 1, .limit = 2, .oldest_first = oldest_first != 0}};
        assert_int_equal(run(&call), ERR_OK);
        assert_int_equal(call.last, numbers[1]);
        assert_non_null(strstr(call.listed, oldest_first != 0 ? "name=a" : "name=c"));
        assert_null(strstr(call.listed, oldest_first != 0 ? "name=c" : "name=a"));
        call.page.after = call.last;
        call.listed[0] = 0;
        assert_int_equal(run(&call), ERR_OK);
        assert_int_equal(call.last, oldest_first != 0 ? numbers[2] : numbers[0]);
        assert_null(strstr(call.listed, "name=b"));
    }
}

#define KEYS_TEST(name)                                                                            \
    cmocka_unit_test_prestate_setup_teardown(name, gate_fixture_setup, gate_fixture_teardown,      \
                                             &fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KEYS_TEST(test_a_row_says_what_the_key_may),
        KEYS_TEST(test_what_a_check_reads),
        KEYS_TEST(test_a_damaged_org_row),
        KEYS_TEST(test_what_is_no_key),
        KEYS_TEST(test_only_its_own_org_reaches_a_key),
        KEYS_TEST(test_revoked_once),
        KEYS_TEST(test_replacing_carries_all_but_the_secret),
        KEYS_TEST(test_pages_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
