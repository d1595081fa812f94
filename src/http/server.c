/* Server: opens the parts in order, closes them in reverse.
 *
 * Happy path: routes are compiled, the certificate is loaded, the socket bound, the loops made; the
 * owner runs each loop on a thread, drains, joins, closes.
 * Failure modes: any part fails to open: what was opened is closed, the detail says what. */
#include <assert.h>

#include "base/mem.h"
#include "http/acceptor.h"
#include "http/loop.h"

static enum err open_parts(struct http_server *server, struct err_detail *detail)
{
    const struct http_options *options = &server->options;
    enum err err =
        http_router_create(&server->router, options->routes, options->route_count, detail);
    if (err == ERR_OK && options->tls_cert_file != NULL) {
        err = http_tls_create(&server->tls, options->tls_cert_file, options->tls_key_file, detail);
    }
    if (err == ERR_OK) {
        err = http_acceptor_create(&server->acceptor, server, detail);
    }
    for (uint32_t i = 0; i < options->loops && err == ERR_OK; i++) {
        err = http_loop_init(&server->loops[i], server, i);
        if (err != ERR_OK) {
            err_detail_set(detail, "make loop %u: %s", i, err_text(err));
        }
    }
    return err;
}

enum err http_server_open(struct http_server **ret, const struct http_options *options,
                          struct err_detail *detail)
{
    assert(options->loops > 0);
    struct http_server *server = mem_alloc(sizeof(*server));
    server->options = *options;
    server->loops = mem_alloc_array(options->loops, sizeof(*server->loops));
    for (uint32_t i = 0; i < options->loops; i++) {
        server->loops[i].epoll_fd = -1;
    }
    enum err err = open_parts(server, detail);
    if (err == ERR_OK) {
        *ret = server;
        server = NULL; /* the caller owns it now */
    }
    http_server_close(server);
    return err;
}

void http_server_close(struct http_server *server)
{
    if (server == NULL) {
        return;
    }
    for (uint32_t i = 0; i < server->options.loops; i++) {
        http_loop_cut(&server->loops[i]);
    }
    /* Loop 0 is the last: the others' connections came back to its mailbox. */
    for (uint32_t i = server->options.loops; i > 0; i--) {
        http_loop_finish(&server->loops[i - 1]);
    }
    http_acceptor_destroy(server->acceptor);
    http_tls_destroy(server->tls);
    http_router_destroy(server->router);
    mem_free(server->loops);
    mem_free(server);
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

uint32_t http_server_loop_count(const struct http_server *server)
{
    return server->options.loops;
}

struct http_loop *http_server_loop(struct http_server *server, uint32_t index)
{
    assert(index < server->options.loops);
    return &server->loops[index];
}

void http_server_leave(struct http_server *server)
{
    atomic_store_explicit(&server->is_leaving, true, memory_order_relaxed);
}

bool http_server_is_leaving(const struct http_server *server)
{
    return atomic_load_explicit(&server->is_leaving, memory_order_relaxed);
}

void http_server_drain(struct http_server *server, uint32_t grace_ms)
{
    http_server_leave(server);
    if (!atomic_exchange(&server->is_draining, true)) {
        server->drain_grace_ms = grace_ms; /* the mail below carries it over */
        http_loop_drain(&server->loops[0]);
    }
}

bool http_server_is_draining(const struct http_server *server)
{
    return atomic_load(&server->is_draining);
}
