/* Locks: DATA_DIR/weir.lock, and beside a database in a file one of its own: two servers with a
 * directory each would take themselves for its only one, and a key that dies at the first would
 * live on at the second. */
#include "house_locks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/sys.h"
#include "house.h"

#define LOCK_PATH_BYTES (HOUSE_PATH_BYTES + 16u)

enum err house_lock_data(const char *data_dir, int *ret_fd, struct err_detail *detail)
{
    char path[LOCK_PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/weir.lock", data_dir);
    int fd = sys_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        enum err err = err_from_errno(errno);
        err_detail_set(detail, "%s: %s; give this user the directory, or set DATA_DIR", path,
                       err_text(err));
        return err;
    }
    if (sys_lock(fd) != 0) {
        (void)sys_close(fd); /* nothing was written */
        err_detail_set(detail,
                       "%s is in use by another weir process; stop it, or set another DATA_DIR",
                       data_dir);
        return ERR_LOCKED;
    }
    *ret_fd = fd;
    return ERR_OK;
}

enum err house_lock_store(const char *url, int *ret_fd, struct err_detail *detail)
{
    static const char prefix[] = "sqlite:";
    char path[LOCK_PATH_BYTES];
    if (strncmp(url, prefix, sizeof(prefix) - 1) != 0) {
        return ERR_OK;
    }
    (void)snprintf(path, sizeof(path), "%s-lock", url + sizeof(prefix) - 1);
    int fd = sys_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0 && sys_lock(fd) != 0) {
        (void)sys_close(fd); /* nothing was written */
        err_detail_set(detail,
                       "%s is in use by another weir process; stop it, or set another "
                       "DATABASE_URL",
                       url + sizeof(prefix) - 1);
        return ERR_LOCKED;
    }
    *ret_fd = fd;
    return ERR_OK;
}
