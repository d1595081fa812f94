/* weir serve: starts the house, then main waits for signals and for commands on the socket. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "admin.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"
#include "base/thread.h"
#include "command.h"
#include "gate/gate.h"
#include "house.h"
#include "socket.h"

static void run_command(void *context, int argc, char **argv, struct buffer *reply, int *ret_status)
{
    struct admin admin;
    house_admin(context, &admin, reply);
    if (admin_knows(argv[0])) {
        admin_command(&admin, argc, argv);
        *ret_status = admin.status;
    } else if (strcmp(argv[0], SOCKET_DURABLE) == 0) {
        *ret_status = buffer_append_i64(reply, (int64_t)house_durable(context)) == ERR_OK ? 0 : 1;
    } else {
        *ret_status = buffer_append_text(reply, "unknown command\n") == ERR_OK ? 2 : 1;
    }
}

static void print_first_key(const struct settings *settings, uint16_t port, const char *key)
{
    bool everywhere = strcmp(settings->host, "0.0.0.0") == 0 || strcmp(settings->host, "::") == 0;
    const char *host = everywhere ? "127.0.0.1" : settings->host;
    const char *scheme = settings->tls_cert_file[0] != '\0' ? "https" : "http";
    (void)printf("\nFirst start: org \"main\" (tier unlimited) and its key, shown this once:\n\n"
                 "  %s\n\n"
                 "Post an event:\n\n"
                 "  curl -X POST %s://%s:%u/api/events -H 'X-API-Key: %s' \\\n"
                 "    -H 'Content-Type: application/json' \\\n"
                 "    -d '{\"type\":\"user.login\",\"payload\":{\"user_id\":\"42\"}}'\n\n"
                 "Read it back:\n\n"
                 "  curl '%s://%s:%u/api/inbox' -H 'X-API-Key: %s'\n\n",
                 key, scheme, host, port, key, scheme, host, port, key);
    (void)fflush(stdout);
}

/* Says which one it was. */
static bool take_signal(int signal_fd, const char *what)
{
    struct signalfd_siginfo signal;
    if (read(signal_fd, &signal, sizeof(signal)) != sizeof(signal)) {
        return false;
    }
    log_write(LOG_INFO, "serve", "%s: %s", signal.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT",
              what);
    return true;
}

/* Until a signal, or for `wait_ms` (-1: no limit); serves commands meanwhile. */
static void wait_for_stop(struct house *house, int signal_fd, int command_fd, int64_t wait_ms)
{
    struct pollfd waits[2] = {{.fd = signal_fd, .events = POLLIN},
                              {.fd = command_fd, .events = POLLIN}};
    uint64_t end_ms = wait_ms < 0 ? UINT64_MAX : clock_mono_ms() + (uint64_t)wait_ms;
    for (;;) {
        uint64_t now_ms = clock_mono_ms();
        uint64_t left_ms = now_ms < end_ms ? end_ms - now_ms : 0;
        int ready = poll(waits, 2, wait_ms < 0 ? -1 : (int)left_ms);
        if ((ready < 0 && errno != EINTR) || (ready == 0 && left_ms == 0)) {
            return;
        }
        if (ready > 0 && (waits[1].revents & POLLIN) != 0) {
            socket_serve_one(command_fd, run_command, house);
        }
        if (ready > 0 && (waits[0].revents & POLLIN) != 0 &&
            take_signal(signal_fd, wait_ms < 0 ? "draining" : "not waiting longer")) {
            return;
        }
    }
}

static int signals_open(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static enum err first_start(struct house *house, const struct settings *settings)
{
    char key[GATE_KEY_TEXT_MAX];
    struct buffer reply;
    struct admin admin;
    buffer_init(&reply, 4096);
    house_admin(house, &admin, &reply);
    enum err err = admin_first_org(&admin, key);
    if (err == ERR_OK && key[0] != '\0') {
        print_first_key(settings, house_port(house), key);
    }
    buffer_finish(&reply);
    return err;
}

int command_serve(const struct settings *settings)
{
    struct err_detail detail = {{0}};
    struct house *house = NULL;
    int signal_fd = -1;
    int command_fd = -1;
    enum log_level level = LOG_INFO;
    int status = 0;
    (void)log_level_from_text(settings->log_level, &level);
    log_set_level(level);
    thread_block_signals();
    mem_start();
    enum err err = house_open(&house, settings, &detail);
    if (err == ERR_OK) {
        err = house_start(house, &detail);
    }
    if (err == ERR_OK) {
        err = socket_listen(settings->data_dir, &command_fd, &detail);
    }
    if (err == ERR_OK) {
        err = first_start(house, settings);
    }
    if (err == ERR_OK) {
        signal_fd = signals_open();
        log_write(LOG_INFO, "serve", "weir %s listens on %s port %u", WEIR_VERSION, settings->host,
                  house_port(house));
        wait_for_stop(house, signal_fd, command_fd, -1);
        if (settings->drain_delay_ms > 0) {
            house_leave(house);
            wait_for_stop(house, signal_fd, command_fd, (int64_t)settings->drain_delay_ms);
        }
        house_stop(house);
        log_write(LOG_INFO, "serve", "stopped");
    } else {
        status = command_fail("%s", detail.text[0] != '\0' ? detail.text : err_text(err));
    }
    if (command_fd >= 0) {
        (void)sys_close(command_fd);
    }
    if (signal_fd >= 0) {
        (void)sys_close(signal_fd);
    }
    house_close(house);
    return status;
}
