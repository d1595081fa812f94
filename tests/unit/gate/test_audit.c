/* Promise: a deed is one row that its own org reads, page by page in either order.
 * link: gate_fixture.c store_fixture.c */
#include "support/gate_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

static struct gate_fixture fixture;

struct page {
    struct gate_page page;
    char listed[1024];
    uint64_t last;
    int64_t time_ms;
};

static enum err run_insert(struct store_connection *connection, void *context)
{
    return gate_audit_insert(connection, context);
}

static void list_row(const struct gate_audit_row *row, void *context)
{
    struct page *page = context;
    size_t size = strlen(page->listed);
    (void)snprintf(page->listed + size, sizeof(page->listed) - size, "%.*s %.*s %.*s %.*s %llu\n",
                   (int)row->action.size, (const char *)row->action.data, (int)row->target.size,
                   (const char *)row->target.data, (int)row->address.size,
                   (const char *)row->address.data, (int)row->key_id.size,
                   (const char *)row->key_id.data, (unsigned long long)row->count);
    page->last = row->number;
    page->time_ms = row->time_ms;
}

static enum err run_list(struct store_connection *connection, void *context)
{
    struct page *page = context;
    return gate_audit_list(connection, &page->page, list_row, page);
}

static void insert(uint64_t org, uint64_t key, const char *action, const char *target)
{
    struct gate_audit entry = {.org = org,
                               .key = key,
                               .action = action,
                               .target = slice_from_text(target),
                               .address = SLICE_LITERAL("192.0.2.1")};
    assert_int_equal(store_fixture_run(&fixture.store, run_insert, &entry), ERR_OK);
}

static void test_newest_first_page_by_page(void **state)
{
    (void)state;
    struct gate_new_key key;
    char expected[256];
    int64_t before_ms = clock_wall_ms();
    uint64_t number = gate_fixture_key(&fixture, 1, &key, NULL);
    insert(1, 0, "org.create", "main");
    insert(1, number, "key.create", "b");
    insert(1, number, "key.revoke", "c");
    struct page page = {.page = {.org = 1, .limit = 2}};
    assert_int_equal(store_fixture_run(&fixture.store, run_list, &page), ERR_OK);
    (void)snprintf(expected, sizeof(expected),
                   "key.revoke c 192.0.2.1 %s 1\nkey.create b 192.0.2.1 %s 1\n", key.id, key.id);
    assert_string_equal(page.listed, expected);
    assert_true(page.time_ms >= before_ms && page.time_ms <= clock_wall_ms());
    struct page next = {.page = {.org = 1, .after = page.last, .limit = 2}};
    assert_int_equal(store_fixture_run(&fixture.store, run_list, &next), ERR_OK);
    assert_string_equal(next.listed, "org.create main 192.0.2.1  1\n");
    struct page end = {.page = {.org = 1, .after = next.last, .limit = 2}};
    assert_int_equal(store_fixture_run(&fixture.store, run_list, &end), ERR_OK);
    assert_string_equal(end.listed, "");
    struct page oldest = {.page = {.org = 1, .limit = 1, .oldest_first = true}};
    assert_int_equal(store_fixture_run(&fixture.store, run_list, &oldest), ERR_OK);
    assert_string_equal(oldest.listed, "org.create main 192.0.2.1  1\n");
    struct page second = {
        .page = {.org = 1, .after = oldest.last, .limit = 1, .oldest_first = true}};
    assert_int_equal(store_fixture_run(&fixture.store, run_list, &second), ERR_OK);
    assert_non_null(strstr(second.listed, "key.create b"));
}

static void test_another_org_reads_none_of_it(void **state)
{
    (void)state;
    insert(1, 0, "key.create", "a");
    struct page page = {.page = {.org = 2, .limit = 100}};
    assert_int_equal(store_fixture_run(&fixture.store, run_list, &page), ERR_OK);
    assert_string_equal(page.listed, "");
}

static void test_a_deed_without_target_or_address(void **state)
{
    (void)state;
    struct gate_audit entry = {.org = 1, .action = "org.create"};
    assert_int_equal(store_fixture_run(&fixture.store, run_insert, &entry), ERR_OK);
    struct page page = {.page = {.org = 1, .limit = 100}};
    assert_int_equal(store_fixture_run(&fixture.store, run_list, &page), ERR_OK);
    assert_string_equal(page.listed, "org.create    1\n");
}

#define AUDIT_TEST(name)                                                                           \
    cmocka_unit_test_prestate_setup_teardown(name, gate_fixture_setup, gate_fixture_teardown,      \
                                             &fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        AUDIT_TEST(test_newest_first_page_by_page),
        AUDIT_TEST(test_another_org_reads_none_of_it),
        AUDIT_TEST(test_a_deed_without_target_or_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
