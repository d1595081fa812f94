/* The short commands: org and key (asked of the server, or done here), config. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "admin.h"
#include "base/log.h"
#include "base/thread.h"
#include "command.h"
#include "house.h"
#include "socket.h"

#define REPLY_BYTES_MAX 16777216u

int command_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fputs("weir: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    return 1;
}

/* The reply goes to stdout, or, when the command failed, as one line to stderr. */
static int reply_print(const struct buffer *reply, int status)
{
    if (status == 0) {
        (void)fwrite(reply->data, 1, reply->size, stdout);
        return 0;
    }
    size_t size = reply->size;
    while (size > 0 && reply->data[size - 1] == '\n') {
        size--;
    }
    (void)command_fail("%.*s", (int)size, (const char *)reply->data);
    return status;
}

/* No server has the directory: the store is opened here. */
static int run_here(const struct settings *settings, int argc, char **argv, struct buffer *reply)
{
    struct err_detail detail = {{0}};
    struct house *house = NULL;
    struct admin admin;
    int status = 1;
    enum err err = house_open(&house, settings, &detail);
    if (err == ERR_OK) {
        err = house_open_store(house, &detail);
    }
    if (err == ERR_OK) {
        house_admin(house, &admin, reply);
        admin_command(&admin, argc, argv);
        status = reply_print(reply, admin.status);
    } else {
        (void)command_fail("%s", detail.text[0] != '\0' ? detail.text : err_text(err));
    }
    house_close(house);
    return status;
}

/* Help and wrong use need no store, so they are answered before anything is opened. */
static bool is_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return true;
        }
    }
    return argc == 1;
}

int command_admin(const struct settings *settings, int argc, char **argv)
{
    struct buffer reply;
    int status = 1;
    log_set_level(LOG_WARN);
    buffer_init(&reply, REPLY_BYTES_MAX);
    if (is_help(argc, argv)) {
        struct admin admin = {.reply = &reply};
        admin_command(&admin, argc, argv);
        status = reply_print(&reply, admin.status);
    } else {
        enum err err = socket_ask(settings->data_dir, argc, argv, &reply, &status);
        if (err == ERR_OK) {
            status = reply_print(&reply, status);
        } else if (err == ERR_NOT_FOUND) {
            status = run_here(settings, argc, argv, &reply);
        } else {
            status = command_fail("%s/weir.sock: %s", settings->data_dir, err_text(err));
        }
    }
    buffer_finish(&reply);
    return status;
}

int command_config(const struct settings *settings, int argc, char **argv)
{
    struct buffer text;
    int status = 0;
    buffer_init(&text, REPLY_BYTES_MAX);
    enum err err = ERR_OK;
    if (argc > 1 && strcmp(argv[1], "--markdown") == 0) {
        err = settings_print_markdown(&text);
    } else if (argc > 1) {
        bool help = strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0;
        err = buffer_append_text(&text, "weir config [--markdown]\n"
                                        "  The effective settings, and where each came from. "
                                        "--markdown: docs/config.md.\n");
        status = help ? 0 : 2;
    } else {
        err = settings_print(settings, &text);
    }
    if (err != ERR_OK) {
        status = command_fail("config: %s", err_text(err));
    } else {
        (void)fwrite(text.data, 1, text.size, status == 0 ? stdout : stderr);
    }
    buffer_finish(&text);
    return status;
}
