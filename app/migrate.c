/* weir migrate-store FROM TO: carries all data of one store to another, with no server running.
 *
 * What the journal in DATA_DIR holds beyond FROM is applied to FROM first, when FROM is the store
 * of this directory: so the journal may move at the same time. Otherwise the journal, the uploads
 * and everything else in DATA_DIR stay as they are: the new store knows how far the journal is
 * applied, and a server that is started on it goes on where the last one stopped.
 *
 * Happy path: the lock of DATA_DIR -> both stores are fit -> the journal is applied, with a bar ->
 * the store's own transfer, with a bar -> one line.
 * Failure modes: a server runs: refused. Killed while it applies: as a server that is killed. All
 * others are the store's. No text of ours repeats a URL. */
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
    "  that did not finish: that one begins anew. When FROM is the store of DATA_DIR, what the\n"
    "  journal there holds is applied first (not with APPLY_PAUSED=1); else FROM stays as it is.\n"
    "  Then set DATABASE_URL to TO and start weir serve with the same DATA_DIR. A password is "
    "better given in PGPASSWORD or\n"
    "  ~/.pgpass, since words of a command can be seen by others.\n";

struct migration {
    const struct settings *settings;
    struct settings from; /* as if the journal were applied by a server */
    struct house *house;
    struct progress bar;
    const char *from_url;
    const char *to_url;
};

static void on_progress(uint64_t done, uint64_t all, void *context)
{
    progress_show(&((struct migration *)context)->bar, done, all);
}

/* Is the journal in DATA_DIR that of FROM? The settings may name the new engines already; then it
 * is, if FROM lies there too. */
static bool has_journal(const struct migration *migration)
{
    const struct settings *settings = migration->settings;
    char own[HOUSE_PATH_BYTES];
    char embedded[HOUSE_PATH_BYTES];
    struct id journal;
    house_store_url(settings, own);
    (void)snprintf(embedded, sizeof(embedded), "sqlite:%s/weir.db", settings->data_dir);
    bool is_own = strcmp(own, migration->from_url) == 0 && settings->nats_url[0] == '\0';
    bool was_own =
        strcmp(own, migration->to_url) == 0 && strcmp(embedded, migration->from_url) == 0;
    return (is_own || was_own) && settings->apply_paused == 0 &&
           house_find_journal(settings, &journal);
}

static enum err on_ready(void *context, struct err_detail *detail)
{
    struct migration *migration = context;
    if (!has_journal(migration)) {
        return ERR_OK;
    }
    progress_begin(&migration->bar, "applying the journal");
    enum err err = house_catch_up(migration->house, on_progress, migration, detail);
    progress_end(&migration->bar);
    progress_begin(&migration->bar, "migrating");
    return err;
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
    static char none[] = "";
    static char all_roles[] = "intake,apply,query";
    char url[HOUSE_PATH_BYTES];
    struct migration migration = {
        .settings = settings, .from = *settings, .from_url = from, .to_url = to};
    struct store_options from_options = options_of(settings, from);
    struct store_options to_options = options_of(settings, to);
    struct store_transfer_watch watch = {
        .context = &migration, .on_ready = on_ready, .on_progress = on_progress};
    (void)snprintf(url, sizeof(url), "%s", from);
    migration.from.database_url = url;
    migration.from.database_read_url = none;
    migration.from.nats_url = none;
    migration.from.redis_url = none;
    migration.from.roles = all_roles;
    enum err err = house_open(&migration.house, &migration.from, detail);
    if (err == ERR_OK) {
        progress_begin(&migration.bar, "migrating");
        err = store_transfer(&from_options, &to_options, &watch, ret_rows, detail);
        progress_end(&migration.bar);
    }
    house_close(migration.house);
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
