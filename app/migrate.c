/* weir migrate-store FROM TO: carries all data of one store to another, with no server running.
 *
 * The journal, the uploads and everything else in DATA_DIR stay as they are: the new store knows
 * how far the journal is applied, so a server that is started on it goes on where the last one
 * stopped.
 *
 * Happy path: the lock of DATA_DIR -> the store's own transfer, with a bar -> one line.
 * Failure modes: a server runs: refused. All others are the store's; nothing in DATA_DIR is
 * touched. No text of ours repeats a URL. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "command.h"
#include "house.h"
#include "progress.h"
#include "store/store.h"

#define CACHE_MB     64u
#define LOCK_WAIT_MS 2000u

static const char usage[] =
    "weir migrate-store FROM TO\n"
    "  Copies everything that the store FROM holds to the store TO, and compares both. Each is\n"
    "  sqlite:/path/weir.db (sqlite: alone is the one in DATA_DIR) or postgresql://host/database.\n"
    "  Stop every server that uses one of them first. TO must be empty, or be left by a migration\n"
    "  that did not finish: that one begins anew. FROM stays as it is. Then set DATABASE_URL to "
    "TO\n"
    "  and start weir serve with the same DATA_DIR. A password is better given in PGPASSWORD or\n"
    "  ~/.pgpass, since words of a command can be seen by others.\n";

static void on_progress(uint64_t done, uint64_t all, void *context)
{
    progress_show(context, done, all);
}

/* The URL of a store; false: neither of both kinds. */
static bool read_url(const struct settings *settings, const char *word, char to[HOUSE_PATH_BYTES])
{
    static const char prefix[] = "sqlite:";
    if (strlen(word) >= HOUSE_PATH_BYTES) {
        return false;
    }
    if (strcmp(word, prefix) == 0) {
        (void)snprintf(to, HOUSE_PATH_BYTES, "sqlite:%s/weir.db", settings->data_dir);
        return true;
    }
    (void)snprintf(to, HOUSE_PATH_BYTES, "%s", word);
    return strncmp(word, prefix, sizeof(prefix) - 1) == 0 || store_url_is_postgres(word);
}

static struct store_options options_of(const struct settings *settings, const char *url)
{
    return (struct store_options){.url = url,
                                  .cache_mb = CACHE_MB,
                                  .lock_wait_ms = LOCK_WAIT_MS,
                                  .acquire_timeout_ms = (uint32_t)settings->connection_acquire_ms};
}

static enum err run(const struct settings *settings, const char *from, const char *to,
                    uint64_t *ret_rows, struct err_detail *detail)
{
    struct house *house = NULL;
    struct progress bar;
    struct store_options from_options = options_of(settings, from);
    struct store_options to_options = options_of(settings, to);
    enum err err = house_open(&house, settings, detail);
    if (err == ERR_OK) {
        progress_begin(&bar, "migrating");
        err = store_transfer(&from_options, &to_options, on_progress, &bar, ret_rows, detail);
        progress_end(&bar);
    }
    house_close(house);
    return err;
}

int command_migrate(const struct settings *settings, int argc, char **argv)
{
    char from[HOUSE_PATH_BYTES];
    char to[HOUSE_PATH_BYTES];
    uint64_t rows = 0;
    struct err_detail detail = {{0}};
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        (void)fputs(usage, stdout);
        return 0;
    }
    if (argc != 3) {
        (void)command_fail("usage: weir migrate-store FROM TO (weir migrate-store --help)");
        return 2;
    }
    if (!read_url(settings, argv[1], from) || !read_url(settings, argv[2], to)) {
        (void)command_fail("migrate-store: FROM and TO are sqlite:/path or postgresql://…");
        return 2;
    }
    if (strcmp(from, to) == 0) {
        (void)command_fail("migrate-store: FROM and TO are the same");
        return 2;
    }
    log_set_level(LOG_ERROR);
    enum err err = run(settings, from, to, &rows, &detail);
    if (err != ERR_OK) {
        return command_fail("migrate-store: %s",
                            detail.text[0] != '\0' ? detail.text : err_text(err));
    }
    (void)printf("%" PRIu64 " rows, the same on both sides: set DATABASE_URL to TO\n", rows);
    return 0;
}
