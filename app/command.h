/* Command: what each word of the command line does, one file per command. Each gives the exit
 * status: 0 done, 1 failed, 2 used wrongly.
 *
 * Thread: main. */
#pragma once
#include "settings.h"

int command_serve(const struct settings *settings);
/* argv[0] is "org" or "key": asks the running server, or opens the store itself. */
int command_admin(const struct settings *settings, int argc, char **argv);
/* argv[0] is "journal". */
int command_journal(const struct settings *settings, int argc, char **argv);
/* argv[0] is "backup". */
int command_backup(const struct settings *settings, int argc, char **argv);
/* argv[0] is "restore". */
int command_restore(const struct settings *settings, int argc, char **argv);
/* argv[0] is "migrate-store". */
int command_migrate(const struct settings *settings, int argc, char **argv);
/* argv[0] is "config". */
int command_config(const struct settings *settings, int argc, char **argv);
/* argv[0] is "bench". */
int command_bench(int argc, char **argv);

/* "weir: <text>" on stderr. Gives 1, for return. */
int command_fail(const char *format, ...) PRINTF_LIKE(1, 2);
