/* A small server on src/http for black-box tests: it answers every request that reaches it with one
 * line, "METHOD path bytes", where bytes is the decoded size of the body.
 *
 *   http_echo [--tls CERT KEY] [--head-ms N] [--idle-ms N] [--grace-ms N] [--rate N]
 *
 * It binds a free port of 127.0.0.1, prints it on a line of its own, serves with one loop, and
 * drains at SIGTERM. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "http/http.h"

#define DRAIN_MS 5000u

struct echo {
    uint64_t bytes;
};

static void *on_loop_start(void *owner, struct http_loop *loop)
{
    (void)loop;
    return owner;
}

static void on_context(void *context)
{
    (void)context; /* no state */
}

static void on_stream_room(struct http_request *request)
{
    (void)request; /* no streams */
}

static void on_head(struct http_request *request, const struct http_route *route)
{
    (void)route;
    http_request_set_state(request, mem_alloc(sizeof(struct echo)));
    http_body_accept(request, 0);
}

static void on_body(struct http_request *request, struct slice chunk)
{
    struct echo *echo = http_request_state(request);
    echo->bytes += chunk.size;
}

static void on_body_end(struct http_request *request)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
    const struct echo *echo = http_request_state(request);
    struct slice path = http_request_path(request);
    char line[9000];
    int size = snprintf(line, sizeof(line), "%s %.*s %llu\n", names[http_request_method(request)],
                        (int)path.size, (const char *)path.data, (unsigned long long)echo->bytes);
    http_reply(request, 200, "text/plain", slice_make(line, (size_t)size));
}

static void on_finish(struct http_request *request)
{
    mem_free(http_request_state(request));
}

static const struct http_handler handler = {
    .on_loop_start = on_loop_start,
    .on_loop_stop = on_context,
    .on_collected = on_context,
    .on_head = on_head,
    .on_body = on_body,
    .on_body_end = on_body_end,
    .on_stream_room = on_stream_room,
    .on_finish = on_finish,
};

static const struct http_route routes[] = {
    {HTTP_GET, "/", NULL},        {HTTP_POST, "/", NULL},         {HTTP_PUT, "/", NULL},
    {HTTP_PATCH, "/", NULL},      {HTTP_DELETE, "/", NULL},       {HTTP_GET, "/{a}", NULL},
    {HTTP_POST, "/{a}", NULL},    {HTTP_PUT, "/{a}", NULL},       {HTTP_PATCH, "/{a}", NULL},
    {HTTP_DELETE, "/{a}", NULL},  {HTTP_GET, "/{a}/{b}", NULL},   {HTTP_POST, "/{a}/{b}", NULL},
    {HTTP_PUT, "/{a}/{b}", NULL}, {HTTP_PATCH, "/{a}/{b}", NULL}, {HTTP_DELETE, "/{a}/{b}", NULL},
};

static uint32_t number(const char *text)
{
    return (uint32_t)strtoul(text, NULL, 10);
}

static int parse_arguments(struct http_options *options, int count, char **arguments)
{
    for (int i = 1; i < count; i++) {
        const char *name = arguments[i];
        if (strcmp(name, "--tls") == 0 && i + 2 < count) {
            options->tls_cert_file = arguments[i + 1];
            options->tls_key_file = arguments[i + 2];
            i += 2;
        } else if (strcmp(name, "--head-ms") == 0 && i + 1 < count) {
            options->head_timeout_ms = number(arguments[++i]);
        } else if (strcmp(name, "--idle-ms") == 0 && i + 1 < count) {
            options->idle_timeout_ms = number(arguments[++i]);
        } else if (strcmp(name, "--grace-ms") == 0 && i + 1 < count) {
            options->body_grace_ms = number(arguments[++i]);
        } else if (strcmp(name, "--rate") == 0 && i + 1 < count) {
            options->rate_min_bytes_per_s = number(arguments[++i]);
        } else {
            (void)fprintf(stderr, "http_echo: unknown argument %s\n", name);
            return 2;
        }
    }
    return 0;
}

static int serve(const struct http_options *options)
{
    struct err_detail detail = {""};
    struct http_server *server = NULL;
    struct thread *thread = NULL;
    sigset_t signals;
    int signal_number = 0;
    if (http_server_open(&server, options, &detail) != ERR_OK) {
        (void)fprintf(stderr, "http_echo: %s\n", detail.text);
        return 1;
    }
    if (thread_start(&thread, "loop", http_loop_run, http_server_loop(server, 0)) != ERR_OK) {
        http_server_close(server);
        return 1;
    }
    (void)printf("%u\n", (unsigned)http_server_port(server));
    (void)fflush(stdout);
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigwait(&signals, &signal_number);
    http_server_drain(server, DRAIN_MS);
    thread_join(thread);
    http_server_close(server);
    return 0;
}

int main(int count, char **arguments)
{
    struct http_options options = {
        .host = "127.0.0.1",
        .loops = 1,
        .routes = routes,
        .route_count = sizeof(routes) / sizeof(routes[0]),
        .handler = &handler,
        .connections_max = 20000,
        .connections_per_address_max = 20000,
        .head_timeout_ms = 10000,
        .idle_timeout_ms = 60000,
        .body_grace_ms = 10000,
        .rate_min_bytes_per_s = 100,
    };
    if (parse_arguments(&options, count, arguments) != 0) {
        return 2;
    }
    thread_block_signals();
    metrics_open_row();
    return hash_start() == ERR_OK ? serve(&options) : 1;
}
