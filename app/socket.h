/* Socket: DATA_DIR/weir.sock (0600), over which commands reach the running server.
 *
 * A request is the command's words, each ended by a NUL, ended by an empty word; the answer is one
 * byte of exit status and then text until the end of the stream.
 *
 * Thread: main.
 * Memory: a request is at most 16 KiB.
 * Errors: ask gives ERR_NOT_FOUND when no server listens there. */
#pragma once
#include "base/buffer.h"
#include "base/err.h"

#define SOCKET_WORDS_MAX 64
/* A word for programs: the highest durable position. */
#define SOCKET_DURABLE "durable"

/* The listening descriptor. A stale socket is replaced: the caller holds the lock of DATA_DIR. */
MUST_CHECK enum err socket_listen(const char *data_dir, int *ret_fd, struct err_detail *detail);
/* Accepts one client, reads its words, runs `run`, answers and closes. A client that is slower than
 * two seconds is dropped. */
void socket_serve_one(int fd,
                      void (*run)(void *context, int argc, char **argv, struct buffer *reply,
                                  int *ret_status),
                      void *context);
/* Asks the server of `data_dir`; its text is appended to `reply`. */
MUST_CHECK enum err socket_ask(const char *data_dir, int argc, char **argv, struct buffer *reply,
                               int *ret_status);
