/* Promise: a request counts for its key and its org or for neither, one org's use never narrows
 * another's, and the answer names the window that is tightest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/hash.h"
#include "base/table.h"
#include "gate/limits.h"

#define NOW_MS 1000000u

static struct table *windows;

static enum err take(const struct gate_identity *identity, uint64_t amount, uint64_t now_ms,
                     bool is_bytes, struct gate_window *ret)
{
    struct gate_limits_request request = {
        .identity = identity, .amount = amount, .now_ms = now_ms, .is_bytes = is_bytes};
    return gate_limits_take(windows, &request, ret);
}

static enum err request(const struct gate_identity *identity, struct gate_window *ret)
{
    return take(identity, 1, NOW_MS, false, ret);
}

/* The table of API.md, Common, Limits. */
static void test_tiers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t requests;
    } rows[] = {{"free", 100},
                {"pro", 1000},
                {"business", 10000},
                {"enterprise", 100000},
                {"unlimited", 0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        enum gate_tier tier;
        assert_true(gate_tier_from_text(slice_from_text(rows[i].text), &tier));
        assert_int_equal(gate_limits_of_tier(tier), rows[i].requests);
    }
    enum gate_tier tier = GATE_TIER_BUSINESS;
    assert_false(gate_tier_from_text(SLICE_LITERAL("Free"), &tier));
    assert_false(gate_tier_from_text(SLICE_LITERAL(""), &tier));
    assert_int_equal(tier, GATE_TIER_BUSINESS);
}

static void test_the_org_limit(void **state)
{
    (void)state;
    const struct gate_identity identity = {.org = 1, .key = 1, .requests_per_minute = 100};
    struct gate_window window;
    for (uint32_t i = 1; i <= 100; i++) {
        assert_int_equal(request(&identity, &window), ERR_OK);
        assert_string_equal(window.name, "org");
        assert_int_equal(window.quota, 100);
        assert_int_equal(window.window_s, 60);
        assert_int_equal(window.remaining, 100 - i);
    }
    assert_int_equal(window.reset_s, 61); /* one length, and until one of a hundred has faded */
    assert_int_equal(request(&identity, &window), ERR_FULL);
    assert_int_equal(window.remaining, 0);
    assert_int_equal(window.reset_s, 61);
    assert_int_equal(take(&identity, 1, NOW_MS + 60000, false, &window), ERR_FULL);
    assert_int_equal(take(&identity, 1, NOW_MS + 61000, false, &window), ERR_OK);
}

static void test_orgs_do_not_share(void **state)
{
    (void)state;
    const struct gate_identity full = {.org = 1, .key = 1, .requests_per_minute = 1};
    const struct gate_identity other = {.org = 2, .key = 1, .requests_per_minute = 1};
    struct gate_window window;
    assert_int_equal(request(&full, &window), ERR_OK);
    assert_int_equal(request(&full, &window), ERR_FULL);
    assert_int_equal(request(&other, &window), ERR_OK);
}

static void test_keys_of_an_org_share_its_limit(void **state)
{
    (void)state;
    const struct gate_identity first = {.org = 1, .key = 1, .requests_per_minute = 2};
    const struct gate_identity second = {.org = 1, .key = 2, .requests_per_minute = 2};
    struct gate_window window;
    assert_int_equal(request(&first, &window), ERR_OK);
    assert_int_equal(request(&second, &window), ERR_OK);
    assert_int_equal(request(&first, &window), ERR_FULL);
    assert_int_equal(request(&second, &window), ERR_FULL);
}

static void test_a_refusing_key_costs_the_org_nothing(void **state)
{
    (void)state;
    const struct gate_identity narrow = {
        .org = 1, .key = 1, .requests_per_minute = 10, .key_requests_per_minute = 2};
    const struct gate_identity wide = {.org = 1, .key = 2, .requests_per_minute = 10};
    struct gate_window window;
    assert_int_equal(request(&narrow, &window), ERR_OK);
    assert_string_equal(window.name, "key");
    assert_int_equal(window.remaining, 1);
    assert_int_equal(request(&narrow, &window), ERR_OK);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(request(&narrow, &window), ERR_FULL);
        assert_string_equal(window.name, "key");
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal(request(&wide, &window), ERR_OK);
    }
    assert_int_equal(window.remaining, 0);
    assert_int_equal(request(&wide, &window), ERR_FULL);
}

static void test_a_refusing_org_costs_the_key_nothing(void **state)
{
    (void)state;
    const struct gate_identity both = {
        .org = 1, .key = 1, .requests_per_minute = 1, .key_requests_per_minute = 3};
    struct gate_identity raised = both;
    struct gate_window window;
    raised.requests_per_minute = 100;
    assert_int_equal(request(&both, &window), ERR_OK);
    assert_string_equal(window.name, "org"); /* 0 left against the key's 2 */
    for (int i = 0; i < 50; i++) {
        assert_int_equal(request(&both, &window), ERR_FULL);
        assert_string_equal(window.name, "org");
    }
    assert_int_equal(request(&raised, &window), ERR_OK);
    assert_int_equal(request(&raised, &window), ERR_OK);
    assert_int_equal(request(&raised, &window), ERR_FULL);
    assert_string_equal(window.name, "key");
}

static void test_no_limit(void **state)
{
    (void)state;
    const struct gate_identity identity = {.org = 1, .key = 1};
    struct gate_window window;
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(request(&identity, &window), ERR_OK);
    }
    assert_int_equal(window.quota, 0);
    assert_string_equal(window.name, "org");
    assert_int_equal(table_count(windows), 0);
}

static void test_bytes(void **state)
{
    (void)state;
    const struct gate_identity identity = {
        .org = 1, .key = 1, .requests_per_minute = 1, .mb_per_hour = 3, .key_mb_per_hour = 2};
    const uint64_t mib = 1048576;
    struct gate_window window;
    assert_int_equal(take(&identity, mib, NOW_MS, true, &window), ERR_OK);
    assert_string_equal(window.name, "key-bytes");
    assert_int_equal(window.quota, 2 * mib);
    assert_int_equal(window.remaining, mib);
    assert_int_equal(window.window_s, 3600);
    assert_int_equal(take(&identity, mib + 1, NOW_MS, true, &window), ERR_FULL);
    assert_int_equal(window.remaining, mib);
    assert_true(window.reset_s >= 1);
    assert_int_equal(take(&identity, mib, NOW_MS, true, &window), ERR_OK);
    /* Bytes are not requests. */
    assert_int_equal(request(&identity, &window), ERR_OK);
    assert_int_equal(request(&identity, &window), ERR_FULL);
}

static void test_the_largest_limits(void **state)
{
    (void)state;
    const struct gate_identity identity = {
        .org = 1, .key = 1, .requests_per_minute = UINT32_MAX, .mb_per_hour = UINT32_MAX};
    struct gate_window window;
    assert_int_equal(request(&identity, &window), ERR_OK);
    assert_int_equal(window.remaining, UINT32_MAX - 1u);
    assert_int_equal(take(&identity, UINT64_MAX, NOW_MS, true, &window), ERR_FULL);
    assert_int_equal(take(&identity, 1ull << 51, NOW_MS, true, &window), ERR_OK);
}

static int open_windows(void **state)
{
    (void)state;
    windows = gate_limits_create();
    return hash_start() == ERR_OK ? 0 : 1;
}

static int close_windows(void **state)
{
    (void)state;
    table_destroy(windows);
    return 0;
}

#define LIMITS_TEST(name) cmocka_unit_test_setup_teardown(name, open_windows, close_windows)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiers),
        LIMITS_TEST(test_the_org_limit),
        LIMITS_TEST(test_orgs_do_not_share),
        LIMITS_TEST(test_keys_of_an_org_share_its_limit),
        LIMITS_TEST(test_a_refusing_key_costs_the_org_nothing),
        LIMITS_TEST(test_a_refusing_org_costs_the_key_nothing),
        LIMITS_TEST(test_no_limit),
        LIMITS_TEST(test_bytes),
        LIMITS_TEST(test_the_largest_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
