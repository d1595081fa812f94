/* Promise: the first door ends the program, the second says NULL, and an arena keeps its bound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The sanitizers ask these at start: their allocators must give NULL as the system's does. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);

const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

/* Beyond what any system gives; volatile, so that the compiler does not see it. */
static volatile size_t impossible = SIZE_MAX / 4;

/* Runs `call` in a child that must end by SIGABRT. */
static void assert_ends_program(void (*call)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
        (void)dup2(nowhere, STDERR_FILENO);
        (void)signal(SIGABRT, SIG_DFL);
        call();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(!(WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

static void ask_for_too_much(void)
{
    mem_free(mem_alloc(impossible));
}

static void ask_for_an_overflow(void)
{
    mem_free(mem_alloc_array(impossible, 8));
}

static void test_alloc_gives_zeros(void **state)
{
    (void)state;
    uint8_t *memory = mem_alloc(1000);
    uint64_t *array = mem_alloc_array(100, 8);
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(memory[i], 0);
        assert_int_equal(array[i / 10], 0);
    }
    mem_free(memory);
    mem_free(array);
    void *empty = mem_alloc(0);
    assert_non_null(empty);
    mem_free(empty);
    mem_free(NULL);
}

static void test_alloc_beyond_memory_ends_the_program(void **state)
{
    (void)state;
    assert_ends_program(ask_for_too_much);
    assert_ends_program(ask_for_an_overflow);
}

static void test_try_alloc_and_copy(void **state)
{
    (void)state;
    char *memory = mem_try_alloc(4);
    assert_non_null(memory);
    memcpy(memory, "abc", 4);
    memory = mem_try_realloc(memory, 100000);
    assert_non_null(memory);
    assert_string_equal(memory, "abc");
    char *copy = mem_copy_text(memory);
    mem_free(memory);
    assert_string_equal(copy, "abc");
    mem_free(copy);
}

static void test_try_alloc_beyond_memory_is_null(void **state)
{
    (void)state;
    char *memory = mem_try_alloc(4);
    assert_non_null(memory);
    memcpy(memory, "abc", 4);
    assert_null(mem_try_alloc(impossible));
    assert_null(mem_try_realloc(memory, impossible));
    assert_string_equal(memory, "abc");
    mem_free(memory);
}

static void test_arena_hands_out_aligned_memory_of_its_own(void **state)
{
    (void)state;
    struct mem_arena *arena = mem_arena_create(64, 4096);
    uint8_t *parts[20];
    for (size_t i = 0; i < 20; i++) {
        parts[i] = mem_arena_try_alloc(arena, i + 1);
        assert_non_null(parts[i]);
        assert_int_equal((uintptr_t)parts[i] % 16, 0);
        memset(parts[i], (int)i, i + 1);
    }
    for (size_t i = 0; i < 20; i++) {
        for (size_t j = 0; j <= i; j++) {
            assert_int_equal(parts[i][j], i);
        }
    }
    mem_arena_destroy(arena);
    mem_arena_destroy(NULL);
}

static void test_arena_stops_at_its_bound(void **state)
{
    (void)state;
    struct mem_arena *arena = mem_arena_create(100, 1000);
    assert_null(mem_arena_try_alloc(arena, 1001));
    assert_null(mem_arena_try_alloc(arena, SIZE_MAX));
    assert_non_null(mem_arena_try_alloc(arena, 900));
    /* 100 bytes stay in no block: the bound counts whole blocks, 100 + 900. */
    assert_null(mem_arena_try_alloc(arena, 1));
    mem_arena_reset(arena);
    /* After a reset the first block alone is held. */
    void *first = mem_arena_try_alloc(arena, 100);
    assert_non_null(first);
    mem_arena_reset(arena);
    assert_ptr_equal(mem_arena_try_alloc(arena, 100), first);
    assert_non_null(mem_arena_try_alloc(arena, 900));
    mem_arena_destroy(arena);
    /* A block is doubled only as far as the bound permits: 100, then 150, not 200. */
    arena = mem_arena_create(100, 250);
    assert_non_null(mem_arena_try_alloc(arena, 100));
    assert_non_null(mem_arena_try_alloc(arena, 16));
    assert_non_null(mem_arena_try_alloc(arena, 134));
    assert_null(mem_arena_try_alloc(arena, 1));
    mem_arena_destroy(arena);
}

static void test_map_gives_zeros(void **state)
{
    (void)state;
    const size_t size = (size_t)1 << 30;
    uint8_t *memory = mem_map(size);
    assert_int_equal(memory[0], 0);
    assert_int_equal(memory[size - 1], 0);
    memory[size - 1] = 1;
    assert_int_equal(memory[size - 1], 1);
    mem_unmap(memory, size);
    mem_unmap(NULL, size);
}

static void ask_for_too_large_a_map(void)
{
    mem_unmap(mem_map(impossible), impossible);
}

static void test_map_beyond_memory_ends_the_program(void **state)
{
    (void)state;
    assert_ends_program(ask_for_too_large_a_map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc_gives_zeros),
        cmocka_unit_test(test_alloc_beyond_memory_ends_the_program),
        cmocka_unit_test(test_try_alloc_and_copy),
        cmocka_unit_test(test_try_alloc_beyond_memory_is_null),
        cmocka_unit_test(test_arena_hands_out_aligned_memory_of_its_own),
        cmocka_unit_test(test_arena_stops_at_its_bound),
        cmocka_unit_test(test_map_gives_zeros),
        cmocka_unit_test(test_map_beyond_memory_ends_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
