/* Promise: a list keeps its order, and a link that is in no list may be removed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/list.h"

struct member {
    int number;
    struct list_link link;
};

static int number_of(struct list_link *link)
{
    return link == NULL ? -1 : LIST_CONTAINER(link, struct member, link)->number;
}

static void test_order(void **state)
{
    (void)state;
    struct list list;
    struct member members[3] = {{.number = 1}, {.number = 2}, {.number = 3}};
    list_init(&list);
    for (int i = 0; i < 3; i++) {
        list_push_back(&list, &members[i].link);
    }
    struct list_link *link = list_first(&list);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(number_of(link), i);
        link = list_after(&list, link);
    }
    assert_null(link);
    list_remove(&members[1].link);
    assert_int_equal(number_of(list_take_first(&list)), 1);
    assert_int_equal(number_of(list_take_first(&list)), 3);
    assert_true(list_is_empty(&list));
}

static void test_front(void **state)
{
    (void)state;
    struct list list;
    struct member members[3] = {{.number = 1}, {.number = 2}, {.number = 3}};
    list_init(&list);
    list_push_front(&list, &members[1].link);
    list_push_front(&list, &members[0].link);
    list_push_back(&list, &members[2].link);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(number_of(list_take_first(&list)), i);
    }
    assert_true(list_is_empty(&list));
}

static void test_empty_and_removed(void **state)
{
    (void)state;
    struct list list;
    struct member member = {.number = 1};
    list_init(&list);
    assert_null(list_first(&list));
    assert_null(list_take_first(&list));
    list_remove(&member.link);
    list_push_back(&list, &member.link);
    list_remove(&member.link);
    list_remove(&member.link);
    assert_true(list_is_empty(&list));
    list_push_back(&list, &member.link);
    assert_ptr_equal(list_first(&list), &member.link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_front),
        cmocka_unit_test(test_empty_and_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
