/* NATS server: a real nats-server with JetStream in a temporary directory, on a free port, stopped
 * by its pid.
 *
 * Thread: the test's.
 * Memory: the struct is the caller's; finish stops the server and removes the directory.
 * Errors: a failing step fails the test. */
#pragma once
#include <nats/nats.h>
#include <sys/types.h>

struct nats_server {
    char directory[64];
    char url[64];
    int port;
    pid_t pid; /* 0: not running */
};

void nats_server_init(struct nats_server *server);
/* Returns when JetStream answers. What was stored before is there. */
void nats_server_start(struct nats_server *server);
/* At once, as a crash. */
void nats_server_kill(struct nats_server *server);
void nats_server_finish(struct nats_server *server);

/* A connection of the test's own; closed with natsConnection_Destroy. */
natsConnection *nats_server_connect(const struct nats_server *server);
