/* Promise: each form of REDIS_URL is read as its scheme says, a wrong one is refused in words that
 * hold neither user nor password, and a key has the slot that Redis gives it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "gate/redis_route.h"
#include "gate/redis_url.h"

static struct gate_redis_url parse(const char *text)
{
    struct gate_redis_url url;
    struct err_detail detail = {""};
    if (gate_redis_url_parse(slice_from_text(text), &url, &detail) != ERR_OK) {
        fail_msg("%s: %s", text, detail.text);
    }
    return url;
}

static void test_one_server(void **state)
{
    (void)state;
    struct gate_redis_url url = parse("redis://cache.example");
    assert_int_equal(url.kind, GATE_REDIS_SINGLE);
    assert_false(url.is_tls);
    assert_string_equal(url.addresses[0].host, "cache.example");
    assert_int_equal(url.addresses[0].port, 6379);
    assert_int_equal(url.database, 0);
    assert_string_equal(url.password, "");
    url = parse("rediss://weir:s3cr%40t%2F@10.0.0.1:7000/3");
    assert_true(url.is_tls);
    assert_string_equal(url.user, "weir");
    assert_string_equal(url.password, "s3cr@t/");
    assert_int_equal(url.addresses[0].port, 7000);
    assert_int_equal(url.database, 3);
    url = parse("redis://:p@ss@[::1]:6380/");
    assert_string_equal(url.user, "");
    assert_string_equal(url.password, "p@ss");
    assert_string_equal(url.addresses[0].host, "::1");
    assert_int_equal(url.addresses[0].port, 6380);
}

static void test_a_socket(void **state)
{
    (void)state;
    struct gate_redis_url url = parse("unix:///run/redis/redis.sock");
    assert_string_equal(url.addresses[0].host, "/run/redis/redis.sock");
    assert_int_equal(url.addresses[0].port, 0);
    url = parse("redis+unix://:word@/run/redis.sock?db=5");
    assert_string_equal(url.password, "word");
    assert_int_equal(url.database, 5);
    assert_string_equal(url.addresses[0].host, "/run/redis.sock");
}

static void test_many_servers(void **state)
{
    (void)state;
    struct gate_redis_url url = parse("redis+sentinel://a,b:26380,[fe80::1]:1/main/2");
    assert_int_equal(url.kind, GATE_REDIS_SENTINEL);
    assert_int_equal(url.address_count, 3);
    assert_int_equal(url.addresses[0].port, 26379);
    assert_int_equal(url.addresses[1].port, 26380);
    assert_string_equal(url.addresses[2].host, "fe80::1");
    assert_string_equal(url.master, "main");
    assert_int_equal(url.database, 2);
    url = parse("rediss+cluster://u:p@n1:7001,n2:7002,n3");
    assert_int_equal(url.kind, GATE_REDIS_CLUSTER);
    assert_true(url.is_tls);
    assert_int_equal(url.address_count, 3);
    assert_int_equal(url.addresses[2].port, 6379);
}

static void test_wrong_ones_are_refused_without_the_password(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "redis",
        "http://hush:hush@host",
        "redis://",
        "redis://hush@host",
        "redis://:hush%4@host",
        "redis://:hush%zz@host",
        "redis://:hush%00@host",
        "redis://:hush@host:0",
        "redis://:hush@host:65536",
        "redis://:hush@host:port",
        "redis://:hush@host/x",
        "redis://:hush@host/-1",
        "redis://:hush@a,b",
        "redis://:hush@[::1",
        "redis://:hush@[::1]x",
        "redis://:hush@a/0/1",
        "redis+sentinel://:hush@a",
        "redis+sentinel://:hush@a/",
        "redis+sentinel://:hush@a,/m",
        "redis+cluster://:hush@a/1",
        "redis+cluster://a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q",
        "unix://:hush@",
        "unix://:hush@path",
        "unix:///path?db=x",
        "unix:///path?hush=1",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct gate_redis_url url = {.address_count = 77};
        struct err_detail detail = {""};
        if (gate_redis_url_parse(slice_from_text(wrong[i]), &url, &detail) != ERR_CONFIG) {
            fail_msg("taken: %s", wrong[i]);
        }
        assert_int_equal(url.address_count, 77);
        assert_true(detail.text[0] != '\0');
        assert_null(strstr(detail.text, "hush"));
    }
}

/* The check value of CRC-16/XMODEM, 0x31C3, and the slots that the cluster specification and
 * `CLUSTER KEYSLOT` of Redis 7 give. */
static void test_slots(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint32_t slot;
    } rows[] = {{"123456789", 0x31C3},
                {"foo", 12182},
                {"{foo}.bar", 12182},
                {"a{foo}{bar}", 12182},
                {"", 0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(gate_redis_slot(slice_from_text(rows[i].key)), rows[i].slot);
    }
    /* An empty tag and an open brace are no tags. */
    assert_int_not_equal(gate_redis_slot(SLICE_LITERAL("foo{}{bar}")),
                         gate_redis_slot(SLICE_LITERAL("bar")));
    assert_int_not_equal(gate_redis_slot(SLICE_LITERAL("{foo")),
                         gate_redis_slot(SLICE_LITERAL("foo")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_server),
        cmocka_unit_test(test_a_socket),
        cmocka_unit_test(test_many_servers),
        cmocka_unit_test(test_wrong_ones_are_refused_without_the_password),
        cmocka_unit_test(test_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
