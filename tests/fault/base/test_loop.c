/* Promise: the fault loop fails every call once and from then on, and ends after a clean run.
 * link: sys_fault.c mem_fault.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/mem.h"
#include "base/sys.h"
#include "support/mem_fault.h"
#include "support/sys_fault.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const char path[] = "fault_loop.tmp";

static void test_each_call_fails_once_and_from_then_on(void **state)
{
    (void)state;
    uint32_t runs[2] = {0, 0};
    uint32_t failed_calls[2] = {0, 0};
    fault_set_errno(ENOSPC);
    FAULT_LOOP {
        for (int i = 0; i < 3; i++) {
            errno = 0;
            if (sys_mkdir("/", 0700) < 0 && errno == ENOSPC) {
                failed_calls[fault_run_mode()]++;
            }
        }
        assert_int_equal(fault_call_count(FAULT_MKDIR), 3);
        assert_int_equal(fault_was_met(), fault_run_number() < 3);
        runs[fault_run_mode()]++;
    }
    fault_set_errno(EIO);
    /* Three calls: three runs with a fault and a clean one per mode; 1+1+1 and 3+2+1 failures. */
    assert_int_equal(runs[FAULT_ONCE], 4);
    assert_int_equal(runs[FAULT_FROM_THEN], 4);
    assert_int_equal(failed_calls[FAULT_ONCE], 3);
    assert_int_equal(failed_calls[FAULT_FROM_THEN], 6);
}

static void test_paused_and_other_calls_are_left_alone(void **state)
{
    (void)state;
    struct stat found;
    fault_arm(FAULT_FROM_THEN, 0);
    fault_pause();
    assert_int_equal(sys_stat("/", &found), 0);
    assert_int_equal(fault_call_count(FAULT_STAT), 0);
    fault_resume();
    fault_set_only(FAULT_FSYNC);
    assert_int_equal(sys_stat("/", &found), 0);
    assert_int_equal(fault_call_count(FAULT_STAT), 1);
    fault_set_only(FAULT_CALL_COUNT);
    assert_int_equal(sys_stat("/", &found), -1);
    assert_int_equal(errno, EIO);
    fault_disarm();
}

static void test_short_write_leaves_half(void **state)
{
    (void)state;
    char part[] = "abcd";
    struct iovec parts[2] = {{part, 3}, {part, 4}};
    int fd = sys_open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    fault_set_short_writes(true);
    fault_arm(FAULT_FROM_THEN, 0);
    assert_int_equal(sys_pwritev(fd, parts, 2, 0), 3);
    assert_int_equal(sys_pwritev(fd, parts, 2, 3), -1);
    fault_arm(FAULT_ONCE, 0);
    assert_int_equal(sys_pwrite(fd, part, 4, 3), 2);
    assert_int_equal(sys_pwrite(fd, part, 4, 5), 4);
    fault_disarm();
    fault_set_short_writes(false);
    char got[16];
    assert_int_equal(sys_pread(fd, got, sizeof(got), 0), 9);
    assert_memory_equal(got, "abcababcd", 9);
    assert_int_equal(sys_close(fd), 0);
    assert_int_equal(sys_unlink(path), 0);
}

/* A story over files and memory that reports what happened and leaves nothing behind. */
static enum err write_story(void)
{
    enum err err = ERR_OK;
    struct buffer text;
    buffer_init(&text, 100);
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        err = err_from_errno(errno);
        goto out;
    }
    err = buffer_append_text(&text, "hello");
    if (err != ERR_OK) {
        goto out;
    }
    if (sys_pwrite(fd, text.data, text.size, 0) < 0 || sys_fdatasync(fd) < 0) {
        err = err_from_errno(errno);
    }
out:
    if (fd >= 0 && sys_close(fd) < 0 && err == ERR_OK) {
        err = err_from_errno(errno);
    }
    buffer_finish(&text);
    return err;
}

static void test_story_reports_each_fault(void **state)
{
    (void)state;
    uint32_t runs = 0;
    int64_t live = mem_fault_live_count();
    FAULT_LOOP {
        enum err err = write_story();
        fault_pause();
        assert_int_equal(err != ERR_OK, fault_was_met());
        assert_int_equal(mem_fault_live_count(), live);
        /* A failing close closes too: the lowest free descriptor stays the same. */
        int fd = sys_open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        assert_true(fd >= 0 && fd < 16);
        assert_int_equal(sys_close(fd), 0);
        runs++;
    }
    /* open, memory, pwrite, fdatasync, close, and a clean run; in two modes. */
    assert_int_equal(runs, 12);
    assert_int_equal(sys_unlink(path), 0);
}

static void test_memory_is_refused_but_not_the_small(void **state)
{
    (void)state;
    fault_arm(FAULT_FROM_THEN, 0);
    void *refused = mem_try_alloc(8);
    void *small = mem_alloc(8);
    struct mem_arena *arena = mem_arena_create(16, 64);
    void *first = mem_arena_try_alloc(arena, 16);
    void *second = mem_arena_try_alloc(arena, 16);
    fault_disarm();
    assert_null(refused);
    assert_non_null(small);
    assert_non_null(first);
    assert_null(second);
    assert_non_null(mem_arena_try_alloc(arena, 16));
    mem_arena_destroy(arena);
    mem_free(small);
}

static void test_buffer_is_unchanged_without_memory(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 10000);
    assert_int_equal(buffer_append_text(&buffer, "abc"), ERR_OK);
    fault_arm(FAULT_FROM_THEN, 0);
    enum err grown = buffer_reserve(&buffer, 1000);
    enum err printed = buffer_printf(&buffer, "%1000d", 1);
    fault_disarm();
    assert_int_equal(grown, ERR_NO_MEMORY);
    assert_int_equal(printed, ERR_NO_MEMORY);
    assert_int_equal(buffer.size, 3);
    assert_memory_equal(buffer.data, "abc", 3);
    buffer_finish(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_call_fails_once_and_from_then_on),
        cmocka_unit_test(test_paused_and_other_calls_are_left_alone),
        cmocka_unit_test(test_short_write_leaves_half),
        cmocka_unit_test(test_story_reports_each_fault),
        cmocka_unit_test(test_memory_is_refused_but_not_the_small),
        cmocka_unit_test(test_buffer_is_unchanged_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
