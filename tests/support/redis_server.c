/* Redis server: see its header. */
#include "support/redis_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"

#define WORDS_MAX 32u

void redis_server_init(struct redis_server *server)
{
    *server = (struct redis_server){.pid = 0};
    (void)snprintf(server->directory, sizeof(server->directory), "/tmp/weir-redis-XXXXXX");
    assert_non_null(mkdtemp(server->directory));
    (void)snprintf(server->socket, sizeof(server->socket), "%s/redis.sock", server->directory);
    (void)snprintf(server->url, sizeof(server->url), "unix://%s", server->socket);
}

static void server_run(const struct redis_server *server, const char *const *options, int output)
{
    const char *const fixed[] = {"redis-server",
                                 "--port",
                                 "0",
                                 "--unixsocket",
                                 server->socket,
                                 "--dir",
                                 server->directory,
                                 "--save",
                                 "",
                                 "--appendonly",
                                 "no"};
    char *words[WORDS_MAX] = {NULL};
    size_t count = 0;
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
        words[count++] = mem_copy_text(fixed[i]);
    }
    for (size_t i = 0; options != NULL && options[i] != NULL && count + 1 < WORDS_MAX; i++) {
        words[count++] = mem_copy_text(options[i]);
    }
    (void)dup2(output, STDOUT_FILENO);
    (void)dup2(output, STDERR_FILENO);
    execvp(words[0], words);
    _exit(127);
}

void redis_server_start(struct redis_server *server, const char *const *options)
{
    int output[2];
    char line[512];
    bool is_ready = false;
    assert_int_equal(server->pid, 0);
    assert_int_equal(pipe(output), 0);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0) {
        (void)close(output[0]);
        server_run(server, options, output[1]);
    }
    (void)close(output[1]);
    FILE *said = fdopen(output[0], "r");
    assert_non_null(said);
    while (!is_ready && fgets(line, sizeof(line), said) != NULL) {
        is_ready = strstr(line, "ready to accept connections at") != NULL;
    }
    /* The pipe closes; what Redis says later is lost, and it minds not (SIGPIPE is ignored). */
    (void)fclose(said);
    if (!is_ready) {
        fail_msg("redis-server did not start: %s", line);
    }
}

void redis_server_signal(const struct redis_server *server, int signal_number)
{
    assert_true(server->pid > 0);
    assert_int_equal(kill(server->pid, signal_number), 0);
}

void redis_server_kill(struct redis_server *server)
{
    redis_server_signal(server, SIGKILL);
    assert_int_equal(waitpid(server->pid, NULL, 0), server->pid);
    server->pid = 0;
    (void)unlink(server->socket);
}

void redis_server_finish(struct redis_server *server)
{
    if (server->pid > 0) {
        redis_server_kill(server);
    }
    assert_int_equal(rmdir(server->directory), 0);
}

redisContext *redis_server_connect(const struct redis_server *server)
{
    redisContext *context = redisConnectUnix(server->socket);
    assert_non_null(context);
    assert_int_equal(context->err, 0);
    return context;
}

long long redis_server_number(const struct redis_server *server, const char *command)
{
    redisContext *context = redis_server_connect(server);
    redisReply *reply = redisCommand(context, command);
    assert_non_null(reply);
    long long number = reply->integer;
    if (reply->type == REDIS_REPLY_STRING) {
        number = strtoll(reply->str, NULL, 10);
    } else if (reply->type != REDIS_REPLY_INTEGER) {
        fail_msg("%s: no number", command);
    }
    freeReplyObject(reply);
    redisFree(context);
    return number;
}
