/* Promise: failed checks are one row per (key id, address) and minute with their count, uses are
 * written once, neither grows without bound under a flood, and a store that is away loses none that
 * was taken. link: store_fixture.c */
#include "support/store_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/metrics.h"
#include "gate/ledger.h"

#define MINUTE_MS 60000ll
#define NOW_MS    (1800000000000ll / MINUTE_MS * MINUTE_MS)

static struct store_fixture fixture;
static struct gate_ledger *ledger;
static struct mailbox *mailbox;

static void write_all(void)
{
    gate_ledger_write(ledger, mailbox);
    while (gate_ledger_is_writing(ledger)) {
        mailbox_wait(mailbox, -1);
        (void)mailbox_run_all(mailbox);
    }
}

static void failed(const char *id, const char *address, int64_t wall_ms)
{
    gate_ledger_failed(ledger, slice_from_text(id), slice_from_text(address), wall_ms);
}

static int64_t number(const char *sql)
{
    return store_fixture_number(&fixture, sql);
}

static void add_key(uint64_t key, const char *id, uint64_t org)
{
    char sql[512];
    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO keys (number, id, org, name, hash, scopes, requests_per_minute,"
                   " mb_per_hour, created_ms, expires_ms)"
                   " VALUES (%llu, '%s', %llu, '', '', 7, 0, 0, 1, 0)",
                   (unsigned long long)key, id, (unsigned long long)org);
    assert_int_equal(store_fixture_sql(&fixture, sql), ERR_OK);
}

static void test_one_row_per_id_address_and_minute(void **state)
{
    (void)state;
    for (int64_t i = 0; i < 5; i++) {
        failed("keyOfOrgOne00000", "192.0.2.1", NOW_MS + i * 10000);
    }
    failed("keyOfOrgOne00000", "192.0.2.1", NOW_MS + 60000);
    failed("keyOfOrgOne00000", "192.0.2.2", NOW_MS);
    write_all();
    assert_int_equal(number("SELECT count(*) FROM audit"), 3);
    assert_int_equal(number("SELECT count(*) FROM audit WHERE action = 'auth.failed'"
                            " AND org = 1 AND key = 11 AND target = 'keyOfOrgOne00000'"),
                     3);
    assert_int_equal(number("SELECT count FROM audit WHERE address = '192.0.2.1'"
                            " AND time_ms = 1800000000000"),
                     5);
    assert_int_equal(number("SELECT count FROM audit WHERE time_ms = 1800000060000"), 1);
    /* A later write in the same minute adds to the row. */
    failed("keyOfOrgOne00000", "192.0.2.1", NOW_MS + 59999);
    write_all();
    assert_int_equal(number("SELECT count(*) FROM audit"), 3);
    assert_int_equal(number("SELECT count FROM audit WHERE address = '192.0.2.1'"
                            " AND time_ms = 1800000000000"),
                     6);
}

static void test_ids_that_no_key_has_are_one_row_per_address(void **state)
{
    (void)state;
    char id[17];
    for (int i = 0; i < 300; i++) {
        (void)snprintf(id, sizeof(id), "madeup%010u", (unsigned)i % 100000u);
        failed(id, i % 2 == 0 ? "192.0.2.1" : "2001:db8::1", NOW_MS);
    }
    failed("", "192.0.2.1", NOW_MS);
    failed("much too long to be an id of a key", "192.0.2.1", NOW_MS);
    write_all();
    assert_int_equal(number("SELECT count(*) FROM audit"), 3);
    assert_int_equal(number("SELECT count(*) FROM audit WHERE target = '' AND org = 0"), 3);
    assert_int_equal(number("SELECT sum(count) FROM audit"), 302);
}

static void test_a_flood_is_bounded(void **state)
{
    (void)state;
    char address[32];
    char id[17];
    for (int i = 0; i < 50000; i++) {
        (void)snprintf(address, sizeof(address), "2001:db8::%x", i);
        (void)snprintf(id, sizeof(id), "madeup%010u", (unsigned)i % 100000u);
        failed(id, address, NOW_MS);
    }
    for (int i = 0; i < 50000; i++) {
        (void)snprintf(address, sizeof(address), "2001:db8::%x", i);
        failed("keyOfOrgOne00000", address, NOW_MS);
    }
    write_all();
    int64_t known = number("SELECT count(*) FROM audit WHERE org = 1");
    int64_t unknown = number("SELECT count(*) FROM audit WHERE org = 0");
    assert_true(known > 0 && known <= LIMIT_FAILURE_ROWS_KNOWN);
    assert_true(unknown <= LIMIT_FAILURE_ROWS_UNKNOWN + 1);
    /* What went beyond the rows is counted in the one without a name. */
    assert_true(number("SELECT count FROM audit WHERE address = ''") > 0);
    assert_true(number("SELECT sum(count) FROM audit") <= LIMIT_FAILURES);
}

static void test_old_failures_go_and_deeds_stay(void **state)
{
    (void)state;
    assert_int_equal(
        store_fixture_sql(&fixture, "INSERT INTO audit (time_ms, org, key, action, target, address,"
                                    " count) VALUES (1, 1, 0, 'key.create', 'x', '', 1)"),
        ERR_OK);
    failed("", "192.0.2.1", NOW_MS - GATE_FAILURES_KEPT_MS - MINUTE_MS);
    failed("", "192.0.2.2", NOW_MS - GATE_FAILURES_KEPT_MS);
    write_all();
    failed("", "192.0.2.3", NOW_MS);
    write_all();
    assert_int_equal(number("SELECT count(*) FROM audit WHERE action = 'auth.failed'"), 2);
    assert_int_equal(number("SELECT count(*) FROM audit WHERE address = '192.0.2.1'"), 0);
    assert_int_equal(number("SELECT count(*) FROM audit WHERE action = 'key.create'"), 1);
}

static void test_uses_are_written_to_the_minute_and_forward_only(void **state)
{
    (void)state;
    gate_ledger_used(ledger, 11, NOW_MS + 59999);
    gate_ledger_used(ledger, 12, NOW_MS - 1);
    write_all();
    assert_int_equal(number("SELECT last_used_ms FROM keys WHERE number = 11"), NOW_MS);
    assert_int_equal(number("SELECT last_used_ms FROM keys WHERE number = 12"), NOW_MS - MINUTE_MS);
    gate_ledger_used(ledger, 11, NOW_MS - 3600000); /* the clock was stepped back */
    write_all();
    assert_int_equal(number("SELECT last_used_ms FROM keys WHERE number = 11"), NOW_MS);
}

static void test_more_uses_than_a_job_holds(void **state)
{
    (void)state;
    const int64_t count = 2 * LIMIT_USES_PER_JOB + 100;
    char sql[512];
    (void)snprintf(sql, sizeof(sql),
                   "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %lld)"
                   " INSERT INTO keys (number, id, org, name, hash, scopes, requests_per_minute,"
                   " mb_per_hour, created_ms, expires_ms)"
                   " SELECT 1000 + i, 'key ' || i, 1, '', '', 7, 0, 0, 1, 0 FROM n",
                   (long long)count);
    assert_int_equal(store_fixture_sql(&fixture, sql), ERR_OK);
    for (int64_t i = 1; i <= count; i++) {
        gate_ledger_used(ledger, (uint64_t)(1000 + i), NOW_MS);
    }
    write_all();
    assert_int_equal(number("SELECT count(*) FROM keys WHERE last_used_ms <> 0"), count);
}

static void test_a_store_that_is_away_loses_nothing(void **state)
{
    (void)state;
    failed("keyOfOrgOne00000", "192.0.2.1", NOW_MS);
    gate_ledger_used(ledger, 11, NOW_MS);
    assert_int_equal(store_fixture_sql(&fixture, "ALTER TABLE audit RENAME TO audit_away"), ERR_OK);
    write_all();
    failed("keyOfOrgOne00000", "192.0.2.1", NOW_MS);
    write_all();
    assert_int_equal(store_fixture_sql(&fixture, "ALTER TABLE audit_away RENAME TO audit"), ERR_OK);
    write_all(); /* what was taken */
    write_all(); /* what came meanwhile */
    assert_int_equal(number("SELECT count(*) FROM audit"), 1);
    assert_int_equal(number("SELECT count FROM audit"), 2);
    assert_int_equal(number("SELECT last_used_ms FROM keys WHERE number = 11"), NOW_MS);
}

static void test_nothing_to_write_posts_nothing(void **state)
{
    (void)state;
    gate_ledger_write(ledger, mailbox);
    assert_false(gate_ledger_is_writing(ledger));
}

static void test_closing_with_something_left(void **state)
{
    (void)state;
    failed("", "192.0.2.1", NOW_MS);
    assert_int_equal(store_fixture_sql(&fixture, "ALTER TABLE audit RENAME TO audit_away"), ERR_OK);
    write_all();
    gate_ledger_used(ledger, 11, NOW_MS);
}

static int open_ledger(void **state)
{
    (void)state;
    metrics_open_row();
    store_fixture_init(&fixture);
    store_fixture_open(&fixture, true);
    store_fixture_add_org(&fixture, 1);
    add_key(11, "keyOfOrgOne00000", 1);
    add_key(12, "keyOfOrgOne00001", 1);
    ledger = gate_ledger_create(fixture.store, 10000);
    return mailbox_create(&mailbox, 8) == ERR_OK ? 0 : 1;
}

static int close_ledger(void **state)
{
    (void)state;
    store_fixture_finish(&fixture);
    gate_ledger_destroy(ledger);
    mailbox_destroy(mailbox);
    return 0;
}

#define LEDGER_TEST(name) cmocka_unit_test_setup_teardown(name, open_ledger, close_ledger)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LEDGER_TEST(test_one_row_per_id_address_and_minute),
        LEDGER_TEST(test_ids_that_no_key_has_are_one_row_per_address),
        LEDGER_TEST(test_a_flood_is_bounded),
        LEDGER_TEST(test_old_failures_go_and_deeds_stay),
        LEDGER_TEST(test_uses_are_written_to_the_minute_and_forward_only),
        LEDGER_TEST(test_more_uses_than_a_job_holds),
        LEDGER_TEST(test_a_store_that_is_away_loses_nothing),
        LEDGER_TEST(test_nothing_to_write_posts_nothing),
        LEDGER_TEST(test_closing_with_something_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
