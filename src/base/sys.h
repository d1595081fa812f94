/* Sys: every system call that can fail for reasons of the world, in one place, so that tests can
 * put another implementation behind it (faults, recordings, power cuts) by linking their own.
 *
 * Thread: any.
 * Memory: nothing is kept.
 * Errors: as the system call: -1 (or NULL) and errno. EINTR is retried inside. */
#pragma once
#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

int sys_open(const char *path, int flags, mode_t mode);
int sys_close(int fd);
ssize_t sys_pread(int fd, void *to, size_t size, off_t offset);
ssize_t sys_pwrite(int fd, const void *from, size_t size, off_t offset);
ssize_t sys_pwritev(int fd, const struct iovec *parts, int count, off_t offset);
int sys_fdatasync(int fd);
int sys_fsync(int fd);
int sys_ftruncate(int fd, off_t size);
/* Allocates without changing what is read (zeros); falls back to ENOTSUP of the file system. */
int sys_fallocate(int fd, off_t offset, off_t size);
int sys_fstat(int fd, struct stat *ret);
int sys_stat(const char *path, struct stat *ret);
int sys_rename(const char *from, const char *to);
int sys_unlink(const char *path);
int sys_mkdir(const char *path, mode_t mode);
/* Opens the directory, fsyncs it, closes it: makes creates, renames and unlinks in it durable. */
int sys_sync_directory(const char *path);
DIR *sys_opendir(const char *path);
/* As readdir: NULL at the end with errno 0. */
struct dirent *sys_readdir(DIR *directory);
int sys_closedir(DIR *directory);
/* Exclusive advisory lock on an open file; EWOULDBLOCK when another process has it. */
int sys_lock(int fd);
/* Bytes free for this user on the file system of `path`. */
int sys_free_bytes(const char *path, uint64_t *ret_bytes);
/* Dirty pages of the range go to the disk soon; a hint, no durability. */
int sys_write_back(int fd, off_t offset, off_t size);
