/* The command line: finds the command, loads the settings, runs it. */
#include <stdio.h>
#include <string.h>

#include "admin.h"
#include "base/thread.h"
#include "command.h"
#include "settings.h"

static const char usage[] =
    "weir " WEIR_VERSION " - takes in events, answers when they are safe on disk, gives them back\n"
    "\n"
    "  weir serve                  run the server\n"
    "  weir org create|list        tenants\n"
    "  weir key create|list|rotate|revoke\n"
    "  weir journal check|dump     verify or show what is on disk\n"
    "  weir backup DIR             copy everything, while the server runs\n"
    "  weir restore DIR            into an empty DATA_DIR\n"
    "  weir migrate-store FROM TO  all data from one store to another\n"
    "  weir config                 effective settings, and where each came from\n"
    "  weir bench                  load generator and audit\n"
    "  weir version\n"
    "\n"
    "  --config FILE               settings file (default: weir.conf, if there is one)\n"
    "  COMMAND --help              more about one command\n";

static int help_serve(void)
{
    struct buffer text;
    buffer_init(&text, 1048576u);
    (void)fputs("weir serve [--config FILE]\n\n"
                "  Runs until SIGTERM or SIGINT. Settings are environment variables, or lines\n"
                "  NAME=value of weir.conf; every one has a default:\n\n",
                stdout);
    if (settings_print_help(&text) == ERR_OK) {
        (void)fwrite(text.data, 1, text.size, stdout);
    }
    buffer_finish(&text);
    return 0;
}

static bool wants_help(int argc, char **argv)
{
    return argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
}

static int run(const struct settings *settings, int argc, char **argv)
{
    if (strcmp(argv[0], "serve") == 0) {
        if (argc > 1) {
            (void)command_fail("serve: unknown word %s (weir serve --help)", argv[1]);
            return 2;
        }
        return command_serve(settings);
    }
    if (admin_knows(argv[0])) {
        return command_admin(settings, argc, argv);
    }
    if (strcmp(argv[0], "journal") == 0) {
        return command_journal(settings, argc, argv);
    }
    if (strcmp(argv[0], "backup") == 0) {
        return command_backup(settings, argc, argv);
    }
    if (strcmp(argv[0], "restore") == 0) {
        return command_restore(settings, argc, argv);
    }
    if (strcmp(argv[0], "migrate-store") == 0) {
        return command_migrate(settings, argc, argv);
    }
    if (strcmp(argv[0], "config") == 0) {
        return command_config(settings, argc, argv);
    }
    (void)command_fail("unknown command %s (weir --help lists them)", argv[0]);
    return 2;
}

/* Takes --config FILE out of the words, wherever it stands. */
static const char *take_config(int *argc, char **argv)
{
    for (int i = 1; i + 1 < *argc; i++) {
        if (strcmp(argv[i], "--config") == 0) {
            const char *file = argv[i + 1];
            for (int k = i; k + 2 <= *argc; k++) {
                argv[k] = argv[k + 2];
            }
            *argc -= 2;
            return file;
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    const char *file = take_config(&argc, argv);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        (void)fputs(usage, argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    if (strcmp(argv[1], "version") == 0 || strcmp(argv[1], "--version") == 0) {
        (void)puts("weir " WEIR_VERSION);
        return 0;
    }
    if (strcmp(argv[1], "bench") == 0) {
        return command_bench(argc - 1, argv + 1);
    }
    if (strcmp(argv[1], "serve") == 0 && wants_help(argc - 1, argv + 1)) {
        return help_serve();
    }
    struct settings settings;
    struct err_detail detail = {{0}};
    enum err err = settings_load(&settings, file, &detail);
    if (err != ERR_OK) {
        return command_fail("%s", detail.text[0] != '\0' ? detail.text : err_text(err));
    }
    int status = run(&settings, argc - 1, argv + 1);
    settings_finish(&settings);
    return status;
}
