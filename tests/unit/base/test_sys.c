/* Promise: each wrapper does its system call, and a failure comes back as -1 and errno. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[] = "sys_test_XXXXXX";

static const char *in_directory(const char *name)
{
    static char path[2][256];
    static int turn;
    turn = 1 - turn;
    (void)snprintf(path[turn], sizeof(path[turn]), "%s/%s", directory, name);
    return path[turn];
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(directory) == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(directory);
}

static void test_files(void **state)
{
    (void)state;
    char first[] = "hello ";
    char second[] = "world";
    struct iovec parts[2] = {{first, 6}, {second, 5}};
    struct stat found;
    char got[32];
    int fd = sys_open(in_directory("a"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(sys_pwritev(fd, parts, 2, 0), 11);
    assert_int_equal(sys_pwrite(fd, "W", 1, 6), 1);
    assert_int_equal(sys_fdatasync(fd), 0);
    assert_int_equal(sys_fsync(fd), 0);
    assert_int_equal(sys_write_back(fd, 0, 11), 0);
    assert_int_equal(sys_pread(fd, got, sizeof(got), 0), 11);
    assert_memory_equal(got, "hello World", 11);
    assert_int_equal(sys_ftruncate(fd, 5), 0);
    assert_int_equal(sys_fstat(fd, &found), 0);
    assert_int_equal(found.st_size, 5);
    if (sys_fallocate(fd, 0, 4096) == 0) {
        assert_int_equal(sys_pread(fd, got, sizeof(got), 0), 32);
        assert_memory_equal(got, "hello\0\0", 7);
    } else {
        assert_int_equal(errno, ENOTSUP);
    }
    assert_int_equal(sys_close(fd), 0);
    assert_int_equal(sys_rename(in_directory("a"), in_directory("b")), 0);
    assert_int_equal(sys_stat(in_directory("b"), &found), 0);
    assert_int_equal(sys_sync_directory(directory), 0);
    assert_int_equal(sys_unlink(in_directory("b")), 0);
}

static void test_failures_say_errno(void **state)
{
    (void)state;
    struct stat found;
    uint64_t bytes = 42;
    assert_int_equal(sys_open(in_directory("none"), O_RDONLY | O_CLOEXEC, 0), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(sys_stat(in_directory("none"), &found), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(sys_rename(in_directory("none"), in_directory("b")), -1);
    assert_int_equal(sys_unlink(in_directory("none")), -1);
    assert_int_equal(sys_mkdir(directory, 0700), -1);
    assert_int_equal(errno, EEXIST);
    assert_int_equal(sys_sync_directory(in_directory("none")), -1);
    assert_int_equal(errno, ENOENT);
    assert_null(sys_opendir(in_directory("none")));
    assert_int_equal(sys_free_bytes(in_directory("none"), &bytes), -1);
    assert_int_equal(bytes, 42);
    assert_int_equal(sys_close(-1), -1);
    assert_int_equal(errno, EBADF);
    assert_int_equal(sys_fdatasync(-1), -1);
    assert_int_equal(sys_pread(-1, &bytes, 8, 0), -1);
    assert_int_equal(sys_pwrite(-1, &bytes, 8, 0), -1);
    assert_int_equal(sys_ftruncate(-1, 0), -1);
    assert_int_equal(sys_fstat(-1, &found), -1);
    assert_int_equal(sys_lock(-1), -1);
    assert_int_equal(errno, EBADF);
}

static void test_directories(void **state)
{
    (void)state;
    assert_int_equal(sys_mkdir(in_directory("d"), 0700), 0);
    DIR *opened = sys_opendir(directory);
    assert_non_null(opened);
    int count = 0;
    int own = 0;
    for (struct dirent *entry = sys_readdir(opened); entry != NULL; entry = sys_readdir(opened)) {
        count++;
        own += strcmp(entry->d_name, "d") == 0 ? 1 : 0;
    }
    assert_int_equal(errno, 0);
    assert_int_equal(count, 3); /* ".", ".." and ours */
    assert_int_equal(own, 1);
    assert_int_equal(sys_closedir(opened), 0);
    assert_int_equal(rmdir(in_directory("d")), 0);
    uint64_t bytes = 0;
    assert_int_equal(sys_free_bytes(directory, &bytes), 0);
    assert_true(bytes > 0);
}

static void test_lock_excludes_another_process(void **state)
{
    (void)state;
    int fd = sys_open(in_directory("lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(sys_lock(fd), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int other = sys_open(in_directory("lock"), O_RDWR | O_CLOEXEC, 0);
        _exit(sys_lock(other) == -1 && errno == EWOULDBLOCK ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
    /* Closing lets it go. */
    assert_int_equal(sys_close(fd), 0);
    fd = sys_open(in_directory("lock"), O_RDWR | O_CLOEXEC, 0);
    assert_int_equal(sys_lock(fd), 0);
    assert_int_equal(sys_close(fd), 0);
    assert_int_equal(sys_unlink(in_directory("lock")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_failures_say_errno),
        cmocka_unit_test(test_directories),
        cmocka_unit_test(test_lock_excludes_another_process),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
