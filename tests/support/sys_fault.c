/* Faults: the countdown, and a base/sys that asks it before every call.
 *
 * The real base/sys.c is compiled in under other names, so what a call does when it does not fail
 * is not written a second time. Failing close and closedir still close: on Linux the descriptor is
 * gone either way. */
#include "support/sys_fault.h"
#include "support/sys_real.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* Sequentially consistent: ticks come from any thread and speed does not matter here. */
static atomic_bool fault_is_armed;
static atomic_bool fault_is_paused;
static atomic_bool fault_is_met;
static atomic_bool fault_is_persistent;
static atomic_bool fault_writes_are_short;
static atomic_uint fault_number; /* of the call that fails first */
static atomic_uint fault_ticks;  /* calls that counted in this run */
static atomic_uint fault_counts[FAULT_CALL_COUNT];
static atomic_int fault_errno = EIO;
static atomic_uint fault_only = FAULT_CALL_COUNT;
/* Whether this thread's last failing call was the run's first. */
static _Thread_local bool fault_is_first;
static bool fault_has_run; /* the test thread's: fault_next was called since fault_begin */

void fault_arm(enum fault_mode mode, uint32_t number)
{
    fault_is_armed = false;
    for (size_t i = 0; i < FAULT_CALL_COUNT; i++) {
        fault_counts[i] = 0;
    }
    fault_is_met = false;
    fault_is_persistent = mode == FAULT_FROM_THEN;
    fault_is_paused = false;
    fault_number = number;
    fault_ticks = 0;
    fault_is_armed = true;
}

void fault_disarm(void)
{
    fault_is_armed = false;
}

void fault_begin(void)
{
    fault_disarm();
    fault_has_run = false;
}

bool fault_next(void)
{
    if (!fault_has_run) {
        fault_has_run = true;
        fault_arm(FAULT_ONCE, 0);
        return true;
    }
    if (fault_number >= FAULT_RUNS_MAX) {
        (void)fprintf(stderr, "fault loop: no run without a fault in %u\n", FAULT_RUNS_MAX);
        abort();
    }
    if (fault_is_met) {
        fault_arm(fault_run_mode(), fault_number + 1);
        return true;
    }
    if (fault_run_mode() == FAULT_ONCE) {
        fault_arm(FAULT_FROM_THEN, 0);
        return true;
    }
    fault_disarm();
    return false;
}

bool fault_was_met(void)
{
    return fault_is_met;
}

enum fault_mode fault_run_mode(void)
{
    return fault_is_persistent ? FAULT_FROM_THEN : FAULT_ONCE;
}

uint32_t fault_run_number(void)
{
    return fault_number;
}

void fault_pause(void)
{
    fault_is_paused = true;
}

void fault_resume(void)
{
    fault_is_paused = false;
}

uint32_t fault_call_count(enum fault_call call)
{
    return fault_counts[call];
}

void fault_set_errno(int error_number)
{
    fault_errno = error_number;
}

void fault_set_short_writes(bool is_on)
{
    fault_writes_are_short = is_on;
}

void fault_set_only(enum fault_call call)
{
    fault_only = call;
}

bool fault_tick(enum fault_call call)
{
    if (!fault_is_armed || fault_is_paused) {
        return false;
    }
    fault_counts[call]++;
    if (fault_only != FAULT_CALL_COUNT && fault_only != call) {
        return false;
    }
    uint32_t tick = fault_ticks++;
    bool must_fail = fault_is_persistent ? tick >= fault_number : tick == fault_number;
    if (must_fail) {
        fault_is_first = !atomic_exchange(&fault_is_met, true);
        errno = fault_errno;
    }
    return must_fail;
}

/* Is the failing write, of this size, one that comes out short instead? Only the first fault of a
 * run is: a disk that stays full takes nothing more. */
static bool fault_is_short(size_t size)
{
    return fault_writes_are_short && size >= 2 && fault_is_first;
}

int sys_open(const char *path, int flags, mode_t mode)
{
    return fault_tick(FAULT_OPEN) ? -1 : real_open(path, flags, mode);
}

int sys_close(int fd)
{
    bool must_fail = fault_tick(FAULT_CLOSE);
    int error_number = errno;
    int result = real_close(fd);
    errno = must_fail ? error_number : errno;
    return must_fail ? -1 : result;
}

ssize_t sys_pread(int fd, void *to, size_t size, off_t offset)
{
    return fault_tick(FAULT_PREAD) ? -1 : real_pread(fd, to, size, offset);
}

ssize_t sys_pwrite(int fd, const void *from, size_t size, off_t offset)
{
    if (fault_tick(FAULT_PWRITE)) {
        return fault_is_short(size) ? real_pwrite(fd, from, size / 2, offset) : -1;
    }
    return real_pwrite(fd, from, size, offset);
}

/* Writes the first half of the bytes. */
static ssize_t fault_write_half(int fd, const struct iovec *parts, int count, size_t size,
                                off_t offset)
{
    uint8_t *bytes = malloc(size);
    assert(bytes != NULL);
    size_t done = 0;
    for (int i = 0; i < count; i++) {
        for (size_t j = 0; j < parts[i].iov_len; j++) {
            bytes[done++] = ((const uint8_t *)parts[i].iov_base)[j];
        }
    }
    ssize_t written = real_pwrite(fd, bytes, size / 2, offset);
    free(bytes);
    return written;
}

ssize_t sys_pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (!fault_tick(FAULT_PWRITEV)) {
        return real_pwritev(fd, parts, count, offset);
    }
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        size += parts[i].iov_len;
    }
    return fault_is_short(size) ? fault_write_half(fd, parts, count, size, offset) : -1;
}

int sys_fdatasync(int fd)
{
    return fault_tick(FAULT_FDATASYNC) ? -1 : real_fdatasync(fd);
}

int sys_fsync(int fd)
{
    return fault_tick(FAULT_FSYNC) ? -1 : real_fsync(fd);
}

int sys_ftruncate(int fd, off_t size)
{
    return fault_tick(FAULT_FTRUNCATE) ? -1 : real_ftruncate(fd, size);
}

int sys_fallocate(int fd, off_t offset, off_t size)
{
    return fault_tick(FAULT_FALLOCATE) ? -1 : real_fallocate(fd, offset, size);
}

int sys_fstat(int fd, struct stat *ret)
{
    return fault_tick(FAULT_FSTAT) ? -1 : real_fstat(fd, ret);
}

int sys_stat(const char *path, struct stat *ret)
{
    return fault_tick(FAULT_STAT) ? -1 : real_stat(path, ret);
}

int sys_rename(const char *from, const char *to)
{
    return fault_tick(FAULT_RENAME) ? -1 : real_rename(from, to);
}

int sys_unlink(const char *path)
{
    return fault_tick(FAULT_UNLINK) ? -1 : real_unlink(path);
}

int sys_mkdir(const char *path, mode_t mode)
{
    return fault_tick(FAULT_MKDIR) ? -1 : real_mkdir(path, mode);
}

int sys_sync_directory(const char *path)
{
    return fault_tick(FAULT_SYNC_DIRECTORY) ? -1 : real_sync_directory(path);
}

DIR *sys_opendir(const char *path)
{
    return fault_tick(FAULT_OPENDIR) ? NULL : real_opendir(path);
}

struct dirent *sys_readdir(DIR *directory)
{
    return fault_tick(FAULT_READDIR) ? NULL : real_readdir(directory);
}

int sys_closedir(DIR *directory)
{
    bool must_fail = fault_tick(FAULT_CLOSEDIR);
    int error_number = errno;
    int result = real_closedir(directory);
    errno = must_fail ? error_number : errno;
    return must_fail ? -1 : result;
}

int sys_lock(int fd)
{
    return fault_tick(FAULT_LOCK) ? -1 : real_lock(fd);
}

int sys_free_bytes(const char *path, uint64_t *ret_bytes)
{
    return fault_tick(FAULT_FREE_BYTES) ? -1 : real_free_bytes(path, ret_bytes);
}

int sys_write_back(int fd, off_t offset, off_t size)
{
    return fault_tick(FAULT_WRITE_BACK) ? -1 : real_write_back(fd, offset, size);
}
