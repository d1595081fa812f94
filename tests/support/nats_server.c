/* NATS server: see its header. */
#include "support/nats_server.h"
#include "support/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TRIES 1500 /* of 20 ms */

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    (void)close(fd);
    return ntohs(address.sin_port);
}

void nats_server_init(struct nats_server *server)
{
    *server = (struct nats_server){.pid = 0};
    (void)snprintf(server->directory, sizeof(server->directory), "/tmp/weir-nats-XXXXXX");
    assert_non_null(mkdtemp(server->directory));
    server->port = free_port();
    (void)snprintf(server->url, sizeof(server->url), "nats://127.0.0.1:%d", server->port);
}

static bool is_there(const struct nats_server *server)
{
    natsConnection *connection = NULL;
    jsCtx *js = NULL;
    jsAccountInfo *info = NULL;
    bool is = natsConnection_ConnectTo(&connection, server->url) == NATS_OK &&
              natsConnection_JetStream(&js, connection, NULL) == NATS_OK &&
              js_GetAccountInfo(&info, js, NULL, NULL) == NATS_OK;
    jsAccountInfo_Destroy(info);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
    return is;
}

void nats_server_start(struct nats_server *server)
{
    char port[16];
    char log[96];
    assert_int_equal(server->pid, 0);
    (void)snprintf(port, sizeof(port), "%d", server->port);
    (void)snprintf(log, sizeof(log), "%s/log", server->directory);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0) {
        int output = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(output, STDOUT_FILENO);
        (void)dup2(output, STDERR_FILENO);
        (void)execlp("nats-server", "nats-server", "-js", "-a", "127.0.0.1", "-p", port, "-sd",
                     server->directory, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < START_TRIES && !is_there(server); i++) {
        if (waitpid(server->pid, NULL, WNOHANG) != 0) {
            fail_msg("nats-server ended (is it installed?)");
        }
        nats_Sleep(20);
    }
}

void nats_server_kill(struct nats_server *server)
{
    assert_int_equal(kill(server->pid, SIGKILL), 0);
    assert_int_equal(waitpid(server->pid, NULL, 0), server->pid);
    server->pid = 0;
}

void nats_server_finish(struct nats_server *server)
{
    if (server->pid > 0) {
        nats_server_kill(server);
    }
    tree_remove(server->directory);
}

natsConnection *nats_server_connect(const struct nats_server *server)
{
    natsConnection *connection = NULL;
    assert_int_equal(natsConnection_ConnectTo(&connection, server->url), NATS_OK);
    return connection;
}
