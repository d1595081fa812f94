/* Promise: the table of routes is sound: each route once, each with a handler, a name and a cache
 * rule, and nothing open that should need a key. */
#include "api/openapi.h"
#include "api/routes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static void test_rows_are_whole(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < api_route_count; i++) {
        const struct api_route *route = &api_route_table[i];
        assert_non_null(route->on_ready);
        assert_int_equal(route->pattern[0], '/');
        assert_true(strlen(route->operation) > 0);
        bool is_export = strstr(route->pattern, "/export/") != NULL;
        assert_true(
            strcmp(route->cache, "no-store") == 0 ||
            strcmp(route->cache, is_export ? "private, max-age=300" : "private, no-cache") == 0);
        for (uint32_t n = 0; n < i; n++) {
            const struct api_route *before = &api_route_table[n];
            assert_true(strcmp(before->operation, route->operation) != 0);
            assert_true(before->method != route->method ||
                        strcmp(before->pattern, route->pattern) != 0);
        }
    }
}

static void test_http_gets_the_same_rows(void **state)
{
    (void)state;
    uint32_t count = 0;
    const struct http_route *routes = api_routes(&count);
    assert_int_equal(count, api_route_count);
    for (uint32_t i = 0; i < count; i++) {
        assert_ptr_equal(routes[i].data, &api_route_table[i]);
        assert_string_equal(routes[i].pattern, api_route_table[i].pattern);
        assert_int_equal(routes[i].method, api_route_table[i].method);
    }
}

/* Writes are never read scope, and only what API.md lists is open. */
static void test_scopes(void **state)
{
    (void)state;
    static const char *const open[] = {
        "/health",        "/health/live",      "/health/ready",
        "/livez",         "/readyz",           "/",
        "/api/v1/status", "/api/openapi.yaml", "/api/keys/generate",
        "/metrics",       "/v1/health",        "/health/intake",
    };
    for (uint32_t i = 0; i < api_route_count; i++) {
        const struct api_route *route = &api_route_table[i];
        bool may_be_open = false;
        for (size_t n = 0; n < sizeof(open) / sizeof(open[0]); n++) {
            may_be_open = may_be_open || strcmp(open[n], route->pattern) == 0;
        }
        assert_true(may_be_open == (route->scope == API_SCOPE_OPEN));
        if (route->method != HTTP_GET) {
            bool is_read = (route->scope & (GATE_READ | GATE_READ_EVENTS)) != 0;
            assert_true(!is_read || route->scope == API_SCOPE_ANY);
            assert_string_equal(route->cache, "no-store");
        }
    }
}

static void test_printed_table_stands_in_the_document(void **state)
{
    (void)state;
    struct buffer printed;
    buffer_init(&printed, 64 * 1024);
    assert_int_equal(api_print_routes(&printed), ERR_OK);
    struct slice rest = buffer_slice(&printed);
    uint32_t count = 0;
    while (rest.size > 0) {
        struct slice line = slice_cut(rest, '\n', &rest);
        struct slice after = {NULL, 0};
        (void)slice_cut(line, ' ', &after);
        struct slice pattern = slice_cut(after, ' ', &after);
        char path[128];
        char operation[128];
        int size = snprintf(path, sizeof(path), "\n  %.*s:\n", (int)pattern.size,
                            (const char *)pattern.data);
        assert_non_null(memmem(api_openapi, api_openapi_size, path, (size_t)size));
        size = snprintf(operation, sizeof(operation), "operationId: %.*s\n", (int)after.size,
                        (const char *)after.data);
        assert_non_null(memmem(api_openapi, api_openapi_size, operation, (size_t)size));
        count++;
    }
    assert_int_equal(count, api_route_count);
    buffer_finish(&printed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_whole),
        cmocka_unit_test(test_http_gets_the_same_rows),
        cmocka_unit_test(test_scopes),
        cmocka_unit_test(test_printed_table_stands_in_the_document),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
