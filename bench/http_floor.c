/* The bare HTTP loop: a constant 202 for every POST, nothing checked and nothing stored. It is the
 * ceiling for the whole server, to be held against nginx's `return 202` on the same core.
 *
 *   http_floor        binds a free port of 127.0.0.1, prints it, serves with one loop until SIGTERM
 */
#include <signal.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "http/http.h"

#define DRAIN_MS 1000u

static void *on_loop_start(void *owner, struct http_loop *loop)
{
    (void)loop; /* one loop, no state */
    return owner;
}

static void on_context(void *context)
{
    (void)context; /* no state */
}

static void on_head(struct http_request *request, const struct http_route *route)
{
    (void)route; /* there is one */
    http_body_accept(request, 0);
}

static void on_body(struct http_request *request, struct slice chunk)
{
    (void)request; /* dropped */
    (void)chunk;
}

static void on_body_end(struct http_request *request)
{
    http_reply(request, 202, "application/json",
               SLICE_LITERAL("{\"id\":\"018f2f6e-7b1c-7c3a-8a51-1f0d7c3f9a10\","
                             "\"status\":\"accepted\"}"));
}

static void on_request(struct http_request *request)
{
    (void)request; /* no state */
}

static const struct http_handler handler = {
    .on_loop_start = on_loop_start,
    .on_loop_stop = on_context,
    .on_collected = on_context,
    .on_head = on_head,
    .on_body = on_body,
    .on_body_end = on_body_end,
    .on_stream_room = on_request,
    .on_finish = on_request,
};

static const struct http_route routes[] = {{HTTP_POST, "/api/events", NULL}};

static int serve(void)
{
    const struct http_options options = {
        .host = "127.0.0.1",
        .loops = 1,
        .routes = routes,
        .route_count = 1,
        .handler = &handler,
        .connections_max = 20000,
        .connections_per_address_max = 20000,
        .head_timeout_ms = 10000,
        .idle_timeout_ms = 60000,
        .body_grace_ms = 10000,
        .rate_min_bytes_per_s = 100,
    };
    struct http_server *server = NULL;
    struct thread *thread = NULL;
    struct err_detail detail = {""};
    sigset_t signals;
    int number = 0;
    if (http_server_open(&server, &options, &detail) != ERR_OK ||
        thread_start(&thread, "loop", http_loop_run, http_server_loop(server, 0)) != ERR_OK) {
        (void)fprintf(stderr, "http_floor: %s\n", detail.text);
        http_server_close(server);
        return 1;
    }
    (void)printf("%u\n", (unsigned)http_server_port(server));
    (void)fflush(stdout);
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigwait(&signals, &number);
    http_server_drain(server, DRAIN_MS);
    thread_join(thread);
    http_server_close(server);
    return 0;
}

int main(void)
{
    thread_block_signals();
    metrics_open_row();
    return hash_start() == ERR_OK ? serve() : 1;
}
