/* Whole files: copied with a sum, listed, synced, discarded. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/sys.h"

#define CHUNK_BYTES 1048576u
#define SYNC_BYTES  4194304u

static enum err fail(struct err_detail *detail, const char *path, enum err err)
{
    err_detail_set(detail, "%s: %s", path, err_text(err));
    return err;
}

void files_join(char to[FILES_PATH_BYTES], const char *directory, const char *name)
{
    int size = snprintf(to, FILES_PATH_BYTES, "%s/%s", directory, name);
    if (size < 0 || (uint32_t)size >= FILES_PATH_BYTES) {
        memset(to, 'x', FILES_PATH_BYTES - 1); /* longer than a name may be */
        to[FILES_PATH_BYTES - 1] = '\0';
    }
}

/* One chunk; *ret_size 0 at the end. */
static enum err copy_chunk(int from, int to, uint8_t *chunk, uint64_t offset, size_t *ret_size)
{
    ssize_t got = sys_pread(from, chunk, CHUNK_BYTES, (off_t)offset);
    if (got < 0) {
        return err_from_errno(errno);
    }
    *ret_size = (size_t)got;
    if (to < 0 || got == 0) {
        return ERR_OK;
    }
    ssize_t written = sys_pwrite(to, chunk, (size_t)got, (off_t)offset);
    if (written != got) {
        return written < 0 ? err_from_errno(errno) : ERR_NO_SPACE;
    }
    /* In parts: what is written stands in the disk's queue, and the journal's syncs behind it. */
    if ((offset + (uint64_t)got) % SYNC_BYTES == 0 && sys_fdatasync(to) != 0) {
        return err_from_errno(errno);
    }
    return ERR_OK;
}

static enum err copy_all(int from, int to, struct files_progress *progress, struct files_sum *ret)
{
    struct hash_stream *stream = hash_stream_create();
    uint8_t *chunk = mem_alloc(CHUNK_BYTES);
    struct files_sum sum = {0};
    enum err err = ERR_OK;
    for (size_t size = 1; err == ERR_OK && size > 0;) {
        err = copy_chunk(from, to, chunk, sum.size, &size);
        if (err == ERR_OK) {
            hash_stream_add(stream, chunk, size);
            sum.size += size;
            progress->done += size;
            progress_show(&progress->bar, progress->done, progress->all);
        }
    }
    if (err == ERR_OK && to >= 0 && sys_fdatasync(to) != 0) {
        err = err_from_errno(errno);
    }
    sum.hash = hash_stream_value(stream);
    hash_stream_destroy(stream);
    mem_free(chunk);
    if (err == ERR_OK) {
        *ret = sum;
    }
    return err;
}

enum err files_copy(const char *from, const char *to, struct files_progress *progress,
                    struct files_sum *ret, struct err_detail *detail)
{
    int to_fd = -1;
    int from_fd = sys_open(from, O_RDONLY | O_CLOEXEC, 0);
    if (from_fd < 0) {
        return fail(detail, from, err_from_errno(errno));
    }
    enum err err = ERR_OK;
    if (to != NULL) {
        to_fd = sys_open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        err = to_fd < 0 ? err_from_errno(errno) : ERR_OK;
    }
    if (err == ERR_OK) {
        err = copy_all(from_fd, to_fd, progress, ret);
    }
    if (err != ERR_OK) {
        (void)fail(detail, err == ERR_IO || to == NULL ? from : to, err);
    }
    (void)sys_close(from_fd); /* only read */
    if (to_fd >= 0) {
        (void)sys_close(to_fd); /* synced, or good for nothing */
    }
    return err;
}

enum err files_each(const char *directory, enum err (*on_name)(const char *name, void *context),
                    void *context, struct err_detail *detail)
{
    DIR *handle = sys_opendir(directory);
    enum err err = ERR_OK;
    if (handle == NULL) {
        return fail(detail, directory, err_from_errno(errno));
    }
    while (err == ERR_OK) {
        const struct dirent *entry = sys_readdir(handle);
        if (entry == NULL) {
            err = errno == 0 ? ERR_OK : fail(detail, directory, err_from_errno(errno));
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            err = on_name(entry->d_name, context);
        }
    }
    (void)sys_closedir(handle); /* only read */
    return err;
}

static enum err refuse_name(const char *name, void *context)
{
    (void)context;
    bool is_fine = strcmp(name, "lost+found") == 0 || strcmp(name, "weir.lock") == 0;
    return is_fine ? ERR_OK : ERR_EXISTS;
}

enum err files_take_empty(const char *path, bool *ret_made, struct err_detail *detail)
{
    char parent[FILES_PATH_BYTES];
    *ret_made = sys_mkdir(path, 0700) == 0;
    if (!*ret_made && errno != EEXIST) {
        return fail(detail, path, err_from_errno(errno));
    }
    if (*ret_made) {
        files_join(parent, path, "..");
        return files_sync(parent, detail);
    }
    enum err err = files_each(path, refuse_name, NULL, detail);
    if (err == ERR_EXISTS) {
        err_detail_set(detail, "%s is not empty: name a directory that is, or that does not exist",
                       path);
    }
    return err;
}

enum err files_make_directory(const char *path, struct err_detail *detail)
{
    return sys_mkdir(path, 0700) == 0 || errno == EEXIST
               ? ERR_OK
               : fail(detail, path, err_from_errno(errno));
}

enum err files_sync(const char *directory, struct err_detail *detail)
{
    return sys_sync_directory(directory) == 0 ? ERR_OK
                                              : fail(detail, directory, err_from_errno(errno));
}

static enum err discard_one(const char *name, void *context)
{
    char path[FILES_PATH_BYTES];
    files_join(path, (const char *)context, name);
    (void)sys_unlink(path); /* as far as it goes */
    return ERR_OK;
}

void files_discard(const char *directory)
{
    char path[FILES_PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s", directory);
    if (files_each(directory, discard_one, path, NULL) == ERR_OK) {
        (void)rmdir(directory); /* as far as it goes */
    }
}
