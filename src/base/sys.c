/* Sys: thin wrappers. What they add: EINTR is retried (but never for close, whose descriptor is
 * gone on Linux either way), and the two calls that are made of several. */
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

int sys_open(const char *path, int flags, mode_t mode)
{
    int fd;
    do {
        fd = open(path, flags, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

int sys_close(int fd)
{
    int result = close(fd);
    return result < 0 && errno == EINTR ? 0 : result;
}

ssize_t sys_pread(int fd, void *to, size_t size, off_t offset)
{
    ssize_t result;
    do {
        result = pread(fd, to, size, offset);
    } while (result < 0 && errno == EINTR);
    return result;
}

ssize_t sys_pwrite(int fd, const void *from, size_t size, off_t offset)
{
    ssize_t result;
    do {
        result = pwrite(fd, from, size, offset);
    } while (result < 0 && errno == EINTR);
    return result;
}

ssize_t sys_pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    ssize_t result;
    do {
        result = pwritev(fd, parts, count, offset);
    } while (result < 0 && errno == EINTR);
    return result;
}

int sys_fdatasync(int fd)
{
    int result;
    do {
        result = fdatasync(fd);
    } while (result < 0 && errno == EINTR);
    return result;
}

int sys_fsync(int fd)
{
    int result;
    do {
        result = fsync(fd);
    } while (result < 0 && errno == EINTR);
    return result;
}

int sys_ftruncate(int fd, off_t size)
{
    int result;
    do {
        result = ftruncate(fd, size);
    } while (result < 0 && errno == EINTR);
    return result;
}

int sys_fallocate(int fd, off_t offset, off_t size)
{
    int result;
    do {
        result = fallocate(fd, 0, offset, size);
    } while (result < 0 && errno == EINTR);
    return result;
}

int sys_fstat(int fd, struct stat *ret)
{
    return fstat(fd, ret);
}

int sys_stat(const char *path, struct stat *ret)
{
    return stat(path, ret);
}

int sys_rename(const char *from, const char *to)
{
    return rename(from, to);
}

int sys_unlink(const char *path)
{
    return unlink(path);
}

int sys_mkdir(const char *path, mode_t mode)
{
    return mkdir(path, mode);
}

int sys_sync_directory(const char *path)
{
    int fd = sys_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    int result = sys_fsync(fd);
    int error_number = errno;
    (void)sys_close(fd); /* opened for reading: nothing of ours is lost by a failed close */
    errno = error_number;
    return result;
}

DIR *sys_opendir(const char *path)
{
    return opendir(path);
}

struct dirent *sys_readdir(DIR *directory)
{
    errno = 0;
    /* Unsafe only when two threads share the stream; a DIR has one owner here. */
    return readdir(directory); /* NOLINT(concurrency-mt-unsafe) */
}

int sys_closedir(DIR *directory)
{
    return closedir(directory);
}

int sys_lock(int fd)
{
    int result;
    do {
        result = flock(fd, LOCK_EX | LOCK_NB);
    } while (result < 0 && errno == EINTR);
    return result;
}

int sys_free_bytes(const char *path, uint64_t *ret_bytes)
{
    struct statvfs found;
    int result;
    do {
        result = statvfs(path, &found);
    } while (result < 0 && errno == EINTR);
    if (result == 0) {
        *ret_bytes = (uint64_t)found.f_bavail * found.f_frsize;
    }
    return result;
}

int sys_write_back(int fd, off_t offset, off_t size)
{
    return sync_file_range(fd, offset, size, SYNC_FILE_RANGE_WRITE);
}
