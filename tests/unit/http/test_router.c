/* A path leads to the row of the table that names it: literals before names, methods apart.
 *
 * Expected values come from the contract in http.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/router.h"

static const struct http_route routes[] = {
    {HTTP_GET, "/", "root"},         {HTTP_GET, "/a", "a"},
    {HTTP_POST, "/a", "post a"},     {HTTP_GET, "/a/{x}", "x"},
    {HTTP_GET, "/a/b", "b"},         {HTTP_GET, "/a/{x}/c", "x c"},
    {HTTP_GET, "/a/b/d", "b d"},     {HTTP_GET, "/a/{x}/{y}/{z}", "x y z"},
    {HTTP_POST, "/batch/", "slash"}, {HTTP_HEAD, "/h", "own head"},
    {HTTP_GET, "/h", "get h"},       {HTTP_DELETE, "/only", "delete"},
};

static struct http_router *open_router(void)
{
    struct http_router *router = NULL;
    struct err_detail detail = {""};
    assert_int_equal(
        http_router_create(&router, routes, sizeof(routes) / sizeof(routes[0]), &detail), ERR_OK);
    return router;
}

static const char *find(const struct http_router *router, enum http_method method, const char *path,
                        struct http_match *match)
{
    http_router_find(router, method, slice_from_text(path), match);
    return match->route == NULL ? NULL : match->route->data;
}

static void check_param(const struct http_match *match, uint32_t index, const char *text)
{
    assert_true(index < match->param_count);
    assert_true(slice_equal(match->params[index], slice_from_text(text)));
}

static void test_finds(void **state)
{
    struct http_router *router = open_router();
    struct http_match match;
    (void)state;
    assert_string_equal(find(router, HTTP_GET, "/", &match), "root");
    assert_string_equal(find(router, HTTP_GET, "/a", &match), "a");
    assert_string_equal(find(router, HTTP_POST, "/a", &match), "post a");
    assert_string_equal(find(router, HTTP_GET, "/a/b", &match), "b");
    assert_int_equal(match.param_count, 0);
    assert_string_equal(find(router, HTTP_GET, "/a/bb", &match), "x");
    check_param(&match, 0, "bb");
    assert_string_equal(find(router, HTTP_POST, "/batch/", &match), "slash");
    http_router_destroy(router);
}

static void test_comes_back_from_a_literal(void **state)
{
    struct http_router *router = open_router();
    struct http_match match;
    (void)state;
    assert_string_equal(find(router, HTTP_GET, "/a/b/d", &match), "b d");
    assert_string_equal(find(router, HTTP_GET, "/a/b/c", &match), "x c");
    check_param(&match, 0, "b");
    assert_string_equal(find(router, HTTP_GET, "/a/b/d/e", &match), "x y z");
    check_param(&match, 0, "b");
    check_param(&match, 1, "d");
    check_param(&match, 2, "e");
    http_router_destroy(router);
}

static void test_does_not_find(void **state)
{
    static const char *const paths[] = {
        "",           "a",     "//",      "/b",
        "/a/",        "/a//c", "/batch",  "/batch/x",
        "/a/b/x/y/z", "/A",    "/a/x/c/", "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18",
    };
    struct http_router *router = open_router();
    struct http_match match;
    (void)state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        assert_null(find(router, HTTP_GET, paths[i], &match));
        assert_true(match.by_method == NULL || i == 6);
    }
    http_router_destroy(router);
}

static void test_head_and_allow(void **state)
{
    struct http_router *router = open_router();
    struct http_match match;
    char allow[HTTP_ALLOW_BYTES];
    (void)state;
    assert_string_equal(find(router, HTTP_HEAD, "/a", &match), "a");
    assert_string_equal(find(router, HTTP_HEAD, "/h", &match), "own head");
    /* The twins: known path, other method. */
    assert_null(find(router, HTTP_PUT, "/a", &match));
    assert_non_null(match.by_method);
    size_t size = http_router_allow(match.by_method, allow);
    assert_true(slice_equal(slice_make(allow, size), SLICE_LITERAL("GET, HEAD, POST, OPTIONS")));
    assert_null(find(router, HTTP_HEAD, "/only", &match));
    size = http_router_allow(match.by_method, allow);
    assert_true(slice_equal(slice_make(allow, size), SLICE_LITERAL("DELETE, OPTIONS")));
    http_router_destroy(router);
}

static void test_bad_tables(void **state)
{
    static const struct http_route twice[] = {{HTTP_GET, "/a/{x}", NULL},
                                              {HTTP_GET, "/a/{y}", NULL}};
    static const struct http_route bare[] = {{HTTP_GET, "a", NULL}};
    static const struct http_route open[] = {{HTTP_GET, "/{a", NULL}};
    static const struct http_route empty[] = {{HTTP_GET, "/{}", NULL}};
    struct http_router *router = NULL;
    struct err_detail detail = {""};
    (void)state;
    assert_int_equal(http_router_create(&router, twice, 2, &detail), ERR_CONFIG);
    assert_string_equal(detail.text, "route GET /a/{y} stands twice");
    assert_int_equal(http_router_create(&router, bare, 1, &detail), ERR_CONFIG);
    assert_int_equal(http_router_create(&router, open, 1, &detail), ERR_CONFIG);
    assert_int_equal(http_router_create(&router, empty, 1, &detail), ERR_CONFIG);
    assert_null(router);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds),         cmocka_unit_test(test_comes_back_from_a_literal),
        cmocka_unit_test(test_does_not_find), cmocka_unit_test(test_head_and_allow),
        cmocka_unit_test(test_bad_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
