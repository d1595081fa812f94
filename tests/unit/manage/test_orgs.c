/* Promise: an org has a name of its own, an id key nobody else has, and a number that is never used
 * twice; it is found by name and by id. link: store_fixture.c */
#include "support/store_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "manage/manage.h"

static struct store_fixture fixture;

struct call {
    struct slice name; /* or id */
    struct slice tier;
    struct manage_org org;
    char listed[1024];
};

static enum err run_create(struct store_connection *connection, void *context)
{
    struct call *call = context;
    return manage_org_create(connection, call->name, call->tier, &call->org);
}

static enum err run_find(struct store_connection *connection, void *context)
{
    struct call *call = context;
    return manage_org_find(connection, call->name, &call->org);
}

static void list_org(const struct manage_org *org, void *context)
{
    struct call *call = context;
    size_t size = strlen(call->listed);
    (void)snprintf(call->listed + size, sizeof(call->listed) - size, "%.*s %.*s %llu\n",
                   (int)org->name.size, (const char *)org->name.data, (int)org->tier.size,
                   (const char *)org->tier.data, (unsigned long long)org->key_count);
}

static enum err run_list(struct store_connection *connection, void *context)
{
    return manage_org_list(connection, list_org, context);
}

static enum err create(const char *name, const char *tier, struct manage_org *ret)
{
    struct call call = {.name = slice_from_text(name), .tier = slice_from_text(tier)};
    enum err err = store_fixture_run(&fixture, run_create, &call);
    if (err == ERR_OK) {
        *ret = call.org;
    }
    return err;
}

static void test_created_and_found(void **state)
{
    (void)state;
    struct manage_org org = {0};
    char id[ID_TEXT_BYTES];
    int64_t before_ms = clock_wall_ms();
    assert_int_equal(create("acme", "pro", &org), ERR_OK);
    assert_true(org.created_ms >= before_ms && org.created_ms <= clock_wall_ms());
    struct call call = {.name = SLICE_LITERAL("acme")};
    assert_int_equal(store_fixture_run(&fixture, run_find, &call), ERR_OK);
    assert_int_equal(call.org.number, org.number);
    assert_true(id_equal(call.org.id, org.id));
    assert_true(slice_equal(call.org.name, SLICE_LITERAL("acme")));
    assert_true(slice_equal(call.org.tier, SLICE_LITERAL("pro")));
    assert_int_equal(call.org.created_ms, org.created_ms);
    id_format(org.id, id);
    struct call by_id = {.name = slice_make(id, sizeof(id))};
    assert_int_equal(store_fixture_run(&fixture, run_find, &by_id), ERR_OK);
    assert_int_equal(by_id.org.number, org.number);
}

static void test_not_found(void **state)
{
    (void)state;
    struct manage_org org = {0};
    assert_int_equal(create("acme", "pro", &org), ERR_OK);
    struct call call = {.name = SLICE_LITERAL("Acme")};
    assert_int_equal(store_fixture_run(&fixture, run_find, &call), ERR_NOT_FOUND);
    call.name = SLICE_LITERAL("01234567-89ab-7def-8123-456789abcdef");
    assert_int_equal(store_fixture_run(&fixture, run_find, &call), ERR_NOT_FOUND);
    assert_int_equal(create("01234567-89ab-7def-8123-456789abcdef", "pro", &org), ERR_OK);
    assert_int_equal(store_fixture_run(&fixture, run_find, &call), ERR_OK);
    assert_int_equal(call.org.number, org.number);
}

static void test_a_name_is_taken_once(void **state)
{
    (void)state;
    struct manage_org first = {0};
    struct manage_org second = {.number = 77};
    assert_int_equal(create("acme", "pro", &first), ERR_OK);
    assert_int_equal(create("acme", "free", &second), ERR_EXISTS);
    assert_int_equal(second.number, 77);
    assert_int_equal(create("acme 2", "free", &second), ERR_OK);
    assert_int_not_equal(first.number, second.number);
    assert_false(id_equal(first.id, second.id));
    assert_int_equal(store_fixture_number(&fixture,
                                          "SELECT count(DISTINCT id_key) FROM orgs"
                                          " WHERE length(id_key) = 32 AND typeof(id_key) = 'blob'"),
                     2);
}

static void test_names_and_tiers_that_cannot_be(void **state)
{
    (void)state;
    static const char *names[] = {"", "two\nlines", "\x7F", "\xC3(", "tab\t"};
    static const char *tiers[] = {"", "Pro", "pro ", "averyverylongwordindeed"};
    char text[102];
    struct manage_org org = {0};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(create(names[i], "pro", &org), ERR_INVALID);
    }
    for (size_t i = 0; i < sizeof(tiers) / sizeof(tiers[0]); i++) {
        assert_int_equal(create("acme", tiers[i], &org), ERR_INVALID);
    }
    memset(text, 'n', sizeof(text));
    text[101] = '\0';
    assert_int_equal(create(text, "pro", &org), ERR_INVALID);
    text[100] = '\0';
    assert_int_equal(create(text, "pro", &org), ERR_OK);
    assert_int_equal(store_fixture_number(&fixture, "SELECT count(*) FROM orgs"), 1);
}

static void test_listed_in_order_with_live_keys(void **state)
{
    (void)state;
    struct manage_org org = {0};
    assert_int_equal(create("zoo", "pro", &org), ERR_OK);
    assert_int_equal(create("acme", "unlimited", &org), ERR_OK);
    assert_int_equal(
        store_fixture_sql(&fixture,
                          "INSERT INTO keys (id, org, name, hash, scopes, requests_per_minute,"
                          " mb_per_hour, created_ms, expires_ms, revoked_ms) VALUES"
                          " ('a', 2, '', '', 7, 0, 0, 1, 0, 0), ('b', 2, '', '', 7, 0, 0, 1, 0, 5),"
                          " ('c', 2, '', '', 7, 0, 0, 1, 0, 0)"),
        ERR_OK);
    struct call call = {.listed = ""};
    assert_int_equal(store_fixture_run(&fixture, run_list, &call), ERR_OK);
    assert_string_equal(call.listed, "zoo pro 0\nacme unlimited 2\n");
}

static void test_numbers_end_where_sequences_do(void **state)
{
    (void)state;
    struct manage_org org = {0};
    store_fixture_add_org(&fixture, STORE_ORG_MAX - 1);
    assert_int_equal(create("last", "pro", &org), ERR_OK);
    assert_int_equal(org.number, STORE_ORG_MAX);
    assert_int_equal(create("one more", "pro", &org), ERR_FULL);
    assert_int_equal(store_fixture_number(&fixture, "SELECT count(*) FROM orgs"), 2);
}

static void test_a_damaged_row(void **state)
{
    (void)state;
    struct manage_org org = {0};
    assert_int_equal(create("acme", "pro", &org), ERR_OK);
    assert_int_equal(store_fixture_sql(&fixture, "UPDATE orgs SET id = x'0102'"), ERR_OK);
    struct call call = {.name = SLICE_LITERAL("acme")};
    assert_int_equal(store_fixture_run(&fixture, run_find, &call), ERR_CORRUPT);
    assert_int_equal(store_fixture_run(&fixture, run_list, &call), ERR_CORRUPT);
}

static int open_fixture(void **state)
{
    (void)state;
    store_fixture_init(&fixture);
    store_fixture_open(&fixture, false);
    return 0;
}

static int close_fixture(void **state)
{
    (void)state;
    store_fixture_finish(&fixture);
    return 0;
}

#define ORGS_TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ORGS_TEST(test_created_and_found),
        ORGS_TEST(test_not_found),
        ORGS_TEST(test_a_name_is_taken_once),
        ORGS_TEST(test_names_and_tiers_that_cannot_be),
        ORGS_TEST(test_listed_in_order_with_live_keys),
        ORGS_TEST(test_numbers_end_where_sequences_do),
        ORGS_TEST(test_a_damaged_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
