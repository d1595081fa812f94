/* The command socket, both ends. The path is reached through a descriptor of the directory, so a
 * DATA_DIR longer than a socket address works too. */
#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/sys.h"

#define REQUEST_BYTES_MAX 16384u

static enum err address_of(const char *data_dir, struct sockaddr_un *ret, int *ret_directory)
{
    int directory = sys_open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (directory < 0) {
        return err_from_errno(errno);
    }
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    (void)snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/weir.sock", directory);
    *ret_directory = directory;
    return ERR_OK;
}

enum err socket_listen(const char *data_dir, int *ret_fd, struct err_detail *detail)
{
    struct sockaddr_un address;
    int directory = -1;
    int fd = -1;
    enum err err = address_of(data_dir, &address, &directory);
    if (err != ERR_OK) {
        goto out;
    }
    (void)unlinkat(directory, "weir.sock", 0);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t old_mask = umask(0177);
    bool good = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                listen(fd, 16) == 0;
    if (!good) {
        err = err_from_errno(errno);
    }
    (void)umask(old_mask);
    if (good) {
        *ret_fd = fd;
        fd = -1;
    }
out:
    if (err != ERR_OK) {
        err_detail_set(detail, "%s/weir.sock: %s", data_dir, err_text(err));
    }
    if (fd >= 0) {
        (void)sys_close(fd);
    }
    if (directory >= 0) {
        (void)sys_close(directory);
    }
    return err;
}

static bool send_all(int fd, const void *data, size_t size)
{
    const char *from = data;
    while (size > 0) {
        ssize_t sent = send(fd, from, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent <= 0) {
            return false;
        }
        from += sent;
        size -= (size_t)sent;
    }
    return true;
}

/* Reads until the empty word that ends a request. */
static bool request_read(int fd, char *to, size_t *ret_size)
{
    size_t size = 0;
    while (size < REQUEST_BYTES_MAX) {
        ssize_t got = recv(fd, to + size, REQUEST_BYTES_MAX - size, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        size += (size_t)got;
        if (size >= 2 && to[size - 1] == '\0' && to[size - 2] == '\0') {
            *ret_size = size - 1;
            return true;
        }
    }
    return false;
}

void socket_serve_one(int fd,
                      void (*run)(void *context, int argc, char **argv, struct buffer *reply,
                                  int *ret_status),
                      void *context)
{
    static const struct timeval patience = {.tv_sec = 2};
    char request[REQUEST_BYTES_MAX];
    char *words[SOCKET_WORDS_MAX];
    size_t size = 0;
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) {
        return;
    }
    (void)setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    (void)setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (request_read(client, request, &size)) {
        int count = 0;
        for (size_t i = 0; i < size && count < SOCKET_WORDS_MAX; i += strlen(request + i) + 1) {
            words[count++] = request + i;
        }
        struct buffer reply;
        int status = 2;
        buffer_init(&reply, 16777216u);
        if (count > 0) {
            run(context, count, words, &reply, &status);
        }
        char byte = (char)status;
        if (send_all(client, &byte, 1)) {
            (void)send_all(client, reply.data, reply.size);
        }
        buffer_finish(&reply);
    }
    (void)sys_close(client);
}

static enum err answer_read(int fd, struct buffer *reply, int *ret_status)
{
    char chunk[4096];
    bool has_status = false;
    for (;;) {
        ssize_t got = recv(fd, chunk, sizeof(chunk), 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return err_from_errno(errno);
        }
        if (got == 0) {
            return has_status ? ERR_OK : ERR_CLOSED;
        }
        size_t skip = has_status ? 0 : 1;
        if (!has_status) {
            *ret_status = (unsigned char)chunk[0];
            has_status = true;
        }
        enum err err = buffer_append(reply, chunk + skip, (size_t)got - skip);
        if (err != ERR_OK) {
            return err;
        }
    }
}

enum err socket_ask(const char *data_dir, int argc, char **argv, struct buffer *reply,
                    int *ret_status)
{
    struct sockaddr_un address;
    int directory = -1;
    int fd = -1;
    enum err err = address_of(data_dir, &address, &directory);
    if (err != ERR_OK) {
        return ERR_NOT_FOUND;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        err = errno == EACCES ? ERR_PERMISSION : ERR_NOT_FOUND;
        goto out;
    }
    for (int i = 0; i < argc && err == ERR_OK; i++) {
        if (argv[i][0] != '\0' && !send_all(fd, argv[i], strlen(argv[i]) + 1)) {
            err = ERR_CLOSED;
        }
    }
    if (err == ERR_OK) {
        err = send_all(fd, "", 1) ? answer_read(fd, reply, ret_status) : ERR_CLOSED;
    }
out:
    if (fd >= 0) {
        (void)sys_close(fd);
    }
    (void)sys_close(directory);
    return err;
}
