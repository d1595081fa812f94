/* SQLite over base/sys: see the header. Each file is two: the engine's own, for locks and shared
 * memory, and a descriptor of base/sys on the same path, for everything that must survive. */
#include "support/sqlite_sys.h"

#include "base/sys.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 512

struct sys_file {
    sqlite3_file base;
    int fd;
    bool is_new_log; /* its directory is synced with the first sync, as the engine does */
    char path[PATH_BYTES];
    sqlite3_file *real;
};

static sqlite3_vfs *real_vfs;
static sqlite3_vfs sys_vfs;

static struct sys_file *file_of(sqlite3_file *file)
{
    return (struct sys_file *)(void *)file;
}

static int io_error(int code)
{
    return errno == ENOSPC ? SQLITE_FULL : code;
}

static int sys_file_close(sqlite3_file *file)
{
    struct sys_file *f = file_of(file);
    int code = f->real->pMethods != NULL ? f->real->pMethods->xClose(f->real) : SQLITE_OK;
    (void)sys_close(f->fd); /* what counts was synced */
    free(f->real);
    return code;
}

static int sys_file_read(sqlite3_file *file, void *to, int size, sqlite3_int64 offset)
{
    ssize_t got = sys_pread(file_of(file)->fd, to, (size_t)size, offset);
    if (got < 0) {
        return SQLITE_IOERR_READ;
    }
    if (got < size) {
        memset((char *)to + got, 0, (size_t)(size - got));
        return SQLITE_IOERR_SHORT_READ;
    }
    return SQLITE_OK;
}

static int sys_file_write(sqlite3_file *file, const void *from, int size, sqlite3_int64 offset)
{
    ssize_t done = sys_pwrite(file_of(file)->fd, from, (size_t)size, offset);
    if (done == size) {
        return SQLITE_OK;
    }
    return done < 0 ? io_error(SQLITE_IOERR_WRITE) : SQLITE_FULL;
}

static int sys_file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return sys_ftruncate(file_of(file)->fd, size) == 0 ? SQLITE_OK : SQLITE_IOERR_TRUNCATE;
}

static int sync_directory_of(const char *path)
{
    char directory[PATH_BYTES];
    (void)snprintf(directory, sizeof(directory), "%s", path);
    char *end = strrchr(directory, '/');
    if (end == NULL) {
        return sys_sync_directory(".");
    }
    *end = '\0';
    return sys_sync_directory(directory);
}

static int sys_file_sync(sqlite3_file *file, int flags)
{
    (void)flags;
    struct sys_file *f = file_of(file);
    if (sys_fdatasync(f->fd) != 0) {
        return SQLITE_IOERR_FSYNC;
    }
    if (f->is_new_log) {
        if (sync_directory_of(f->path) != 0) {
            return SQLITE_IOERR_DIR_FSYNC;
        }
        f->is_new_log = false;
    }
    return SQLITE_OK;
}

static int sys_file_size(sqlite3_file *file, sqlite3_int64 *ret)
{
    struct stat state;
    if (sys_fstat(file_of(file)->fd, &state) != 0) {
        return SQLITE_IOERR_FSTAT;
    }
    *ret = state.st_size;
    return SQLITE_OK;
}

static int sys_file_lock(sqlite3_file *file, int level)
{
    sqlite3_file *real = file_of(file)->real;
    return real->pMethods->xLock(real, level);
}

static int sys_file_unlock(sqlite3_file *file, int level)
{
    sqlite3_file *real = file_of(file)->real;
    return real->pMethods->xUnlock(real, level);
}

static int sys_file_reserved(sqlite3_file *file, int *ret)
{
    sqlite3_file *real = file_of(file)->real;
    return real->pMethods->xCheckReservedLock(real, ret);
}

static int sys_file_control(sqlite3_file *file, int what, void *argument)
{
    sqlite3_file *real = file_of(file)->real;
    if (what == SQLITE_FCNTL_SIZE_HINT || what == SQLITE_FCNTL_CHUNK_SIZE) {
        return SQLITE_OK; /* would change the file behind base/sys */
    }
    return real->pMethods->xFileControl(real, what, argument);
}

static int sys_file_sector(sqlite3_file *file)
{
    (void)file;
    return 4096;
}

static int sys_file_traits(sqlite3_file *file)
{
    (void)file;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE; /* what the engine assumes of this system */
}

static int sys_file_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **ret)
{
    sqlite3_file *real = file_of(file)->real;
    return real->pMethods->xShmMap(real, page, size, extend, ret);
}

static int sys_file_shm_lock(sqlite3_file *file, int offset, int count, int flags)
{
    sqlite3_file *real = file_of(file)->real;
    return real->pMethods->xShmLock(real, offset, count, flags);
}

static void sys_file_shm_barrier(sqlite3_file *file)
{
    sqlite3_file *real = file_of(file)->real;
    real->pMethods->xShmBarrier(real);
}

static int sys_file_shm_unmap(sqlite3_file *file, int must_delete)
{
    sqlite3_file *real = file_of(file)->real;
    return real->pMethods->xShmUnmap(real, must_delete);
}

static const sqlite3_io_methods sys_methods = {.iVersion = 2,
                                               .xClose = sys_file_close,
                                               .xRead = sys_file_read,
                                               .xWrite = sys_file_write,
                                               .xTruncate = sys_file_truncate,
                                               .xSync = sys_file_sync,
                                               .xFileSize = sys_file_size,
                                               .xLock = sys_file_lock,
                                               .xUnlock = sys_file_unlock,
                                               .xCheckReservedLock = sys_file_reserved,
                                               .xFileControl = sys_file_control,
                                               .xSectorSize = sys_file_sector,
                                               .xDeviceCharacteristics = sys_file_traits,
                                               .xShmMap = sys_file_shm_map,
                                               .xShmLock = sys_file_shm_lock,
                                               .xShmBarrier = sys_file_shm_barrier,
                                               .xShmUnmap = sys_file_shm_unmap};

static int sys_open_file(sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags,
                         int *ret_flags)
{
    (void)vfs;
    struct sys_file *f = file_of(file);
    f->base.pMethods = NULL;
    if (path == NULL) {
        return SQLITE_CANTOPEN; /* no temporary files: temp_store is memory */
    }
    struct stat state;
    bool is_new = sys_stat(path, &state) != 0;
    bool creates = (flags & SQLITE_OPEN_CREATE) != 0;
    f->fd = sys_open(path, O_RDWR | O_CLOEXEC | (creates ? O_CREAT : 0), 0600);
    if (f->fd < 0) {
        return SQLITE_CANTOPEN;
    }
    f->is_new_log = is_new && (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL)) != 0;
    (void)snprintf(f->path, sizeof(f->path), "%s", path);
    f->real = calloc(1, (size_t)real_vfs->szOsFile);
    assert(f->real != NULL);
    int code = real_vfs->xOpen(real_vfs, path, f->real, flags, ret_flags);
    if (code != SQLITE_OK) {
        (void)sys_close(f->fd); /* nothing was written */
        free(f->real);
        return code;
    }
    f->base.pMethods = &sys_methods;
    return SQLITE_OK;
}

static int sys_delete(sqlite3_vfs *vfs, const char *path, int must_sync)
{
    (void)vfs;
    if (sys_unlink(path) != 0) {
        return errno == ENOENT ? SQLITE_IOERR_DELETE_NOENT : SQLITE_IOERR_DELETE;
    }
    if (must_sync && sync_directory_of(path) != 0) {
        return SQLITE_IOERR_DIR_FSYNC;
    }
    return SQLITE_OK;
}

/* Names stay as they are given: a recording knows its files by them. */
static int sys_full_path(sqlite3_vfs *vfs, const char *path, int size, char *to)
{
    (void)vfs;
    int length = snprintf(to, (size_t)size, "%s", path);
    return length < size ? SQLITE_OK : SQLITE_CANTOPEN;
}

void sqlite_sys_register(void)
{
    real_vfs = sqlite3_vfs_find("unix");
    assert(real_vfs != NULL);
    sys_vfs = *real_vfs;
    sys_vfs.zName = "weir_sys";
    sys_vfs.szOsFile = (int)sizeof(struct sys_file);
    sys_vfs.pNext = NULL;
    sys_vfs.xOpen = sys_open_file;
    sys_vfs.xDelete = sys_delete;
    sys_vfs.xFullPathname = sys_full_path;
    int code = sqlite3_vfs_register(&sys_vfs, 1);
    assert(code == SQLITE_OK);
}
