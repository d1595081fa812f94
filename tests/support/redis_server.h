/* Redis server: a real redis-server in a temporary directory, on a Unix socket, stopped by its pid.
 *
 * Thread: the test's.
 * Memory: the struct is the caller's; finish stops the server and removes the directory.
 * Errors: a failing step fails the test. */
#pragma once
#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <sys/types.h>

struct redis_server {
    char directory[64];
    char socket[80];
    char url[96]; /* unix://… */
    pid_t pid;    /* 0: not running */
};

void redis_server_init(struct redis_server *server);
/* Returns when it takes connections. `options`: pairs of name and value, ended by NULL; or NULL. */
void redis_server_start(struct redis_server *server, const char *const *options);
/* At once, as a crash. Nothing is kept: a start begins empty. */
void redis_server_kill(struct redis_server *server);
void redis_server_signal(const struct redis_server *server, int signal_number);
void redis_server_finish(struct redis_server *server);

/* A connection of the test's own, closed with redisFree. */
redisContext *redis_server_connect(const struct redis_server *server);
/* The integer that a command answers. */
long long redis_server_number(const struct redis_server *server, const char *command);
