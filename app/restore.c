/* weir restore DIR [--data-dir D]: makes a data directory of a backup.
 *
 * Everything is verified before anything is written, and again while it is copied. A mark in the
 * directory says that it is half a restore, and no command opens it while the mark is there.
 * Last, positions, sequences and versions jump (apply/restored.c).
 *
 * Happy path: manifest -> sums -> lock -> mark -> copies -> jump -> mark goes.
 * Failure modes: a sum that differs: the file's name, and nothing was written. The directory is not
 * empty: refused. Later failures: what was written is removed. Killed: the mark stays. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "apply/apply.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/sys.h"
#include "command.h"
#include "files.h"
#include "house.h"
#include "manifest.h"
#include "store/store.h"

static const char usage[] =
    "weir restore DIR [--data-dir D]\n"
    "  Verifies the backup in DIR and makes a data directory of it: DATA_DIR, or D, which must be\n"
    "  empty or absent. Then start weir serve. Cursors of clients stay valid; what they have seen\n"
    "  after the backup was made may come again under the same ids.\n";

struct restore {
    struct settings settings; /* with another DATA_DIR perhaps; owns nothing */
    const char *from;
    char store_to[FILES_PATH_BYTES];
    char mark[FILES_PATH_BYTES];
    struct house *house;
    struct files_progress progress;
    bool has_made;
    bool has_begun;
    struct err_detail detail;
};

static enum err compare(struct restore *restore, const struct manifest_file *file,
                        const struct files_sum *found)
{
    if (found->size == file->sum.size && found->hash == file->sum.hash) {
        return ERR_OK;
    }
    err_detail_set(&restore->detail, "%s/%s is damaged: %s; nothing was restored", restore->from,
                   file->name, found->size != file->sum.size ? "wrong size" : "wrong checksum");
    return ERR_CORRUPT;
}

static enum err verify_file(const struct manifest_file *file, void *context)
{
    struct restore *restore = context;
    struct files_sum found = {0};
    char path[FILES_PATH_BYTES];
    files_join(path, restore->from, file->name);
    enum err err = files_copy(path, NULL, &restore->progress, &found, &restore->detail);
    return err == ERR_OK ? compare(restore, file, &found) : err;
}

static enum err restore_file(const struct manifest_file *file, void *context)
{
    struct restore *restore = context;
    struct files_sum found = {0};
    char from[FILES_PATH_BYTES];
    char to[FILES_PATH_BYTES];
    files_join(from, restore->from, file->name);
    if (strcmp(file->name, "weir.db") == 0) {
        (void)snprintf(to, sizeof(to), "%s", restore->store_to);
    } else {
        files_join(to, restore->settings.data_dir, file->name);
    }
    enum err err = files_copy(from, to, &restore->progress, &found, &restore->detail);
    return err == ERR_OK ? compare(restore, file, &found) : err;
}

/* One pass over the manifest's files. */
static enum err pass(struct restore *restore, struct manifest_reading *reading, const char *label,
                     enum err (*on_file)(const struct manifest_file *file, void *context))
{
    restore->progress = (struct files_progress){.all = reading->bytes};
    reading->on_file = on_file;
    reading->context = restore;
    progress_begin(&restore->progress.bar, label);
    enum err err = manifest_read(restore->from, reading, &restore->detail);
    progress_end(&restore->progress.bar);
    return err;
}

static enum err set_mark(struct restore *restore)
{
    int fd = sys_open(restore->mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        enum err err = err_from_errno(errno);
        err_detail_set(&restore->detail, "%s: %s", restore->mark, err_text(err));
        return err;
    }
    (void)sys_close(fd); /* nothing was written */
    restore->has_begun = true;
    return files_sync(restore->settings.data_dir, &restore->detail);
}

static void path_in(const struct restore *restore, char to[FILES_PATH_BYTES], const char *name)
{
    files_join(to, restore->settings.data_dir, name);
}

static enum err make_directories(struct restore *restore)
{
    char path[FILES_PATH_BYTES];
    path_in(restore, path, "journal");
    enum err err = files_make_directory(path, &restore->detail);
    path_in(restore, path, "uploads");
    return err == ERR_OK ? files_make_directory(path, &restore->detail) : err;
}

static enum err jump(struct restore *restore, const struct manifest_head *head)
{
    char url[HOUSE_PATH_BYTES];
    struct store *store = NULL;
    struct store_options options = {.url = url, .cache_mb = 2, .write_queue_max = 16};
    house_store_url(&restore->settings, url);
    enum err err = store_open(&store, &options, &restore->detail);
    if (err == ERR_OK) {
        uint64_t position = head->durable > head->applied ? head->durable : head->applied;
        err = apply_restored(store, head->journal, position);
    }
    store_close(store);
    return err;
}

static enum err sync_all(struct restore *restore)
{
    char path[FILES_PATH_BYTES];
    path_in(restore, path, "journal");
    enum err err = files_sync(path, &restore->detail);
    path_in(restore, path, "uploads");
    if (err == ERR_OK) {
        err = files_sync(path, &restore->detail);
    }
    (void)snprintf(path, sizeof(path), "%s", restore->store_to);
    char *slash = strrchr(path, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    if (err == ERR_OK) {
        err = files_sync(slash == NULL ? "." : path, &restore->detail);
    }
    if (err == ERR_OK && sys_unlink(restore->mark) != 0) {
        err = err_from_errno(errno);
    }
    return err == ERR_OK ? files_sync(restore->settings.data_dir, &restore->detail) : err;
}

static enum err run(struct restore *restore, struct manifest_reading *reading)
{
    enum err err = manifest_read(restore->from, reading, &restore->detail);
    if (err == ERR_OK) {
        err = files_take_empty(restore->settings.data_dir, &restore->has_made, &restore->detail);
    }
    if (err == ERR_OK) {
        err = pass(restore, reading, "verifying", verify_file);
    }
    if (err == ERR_OK) {
        err = house_open(&restore->house, &restore->settings, &restore->detail);
    }
    if (err == ERR_OK) {
        err = set_mark(restore);
    }
    if (err == ERR_OK) {
        err = make_directories(restore);
    }
    if (err == ERR_OK) {
        err = pass(restore, reading, "restoring", restore_file);
    }
    if (err == ERR_OK) {
        err = jump(restore, &reading->head);
    }
    return err == ERR_OK ? sync_all(restore) : err;
}

static void discard(struct restore *restore)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    char path[FILES_PATH_BYTES];
    if (!restore->has_begun) {
        return;
    }
    path_in(restore, path, "journal");
    files_discard(path);
    path_in(restore, path, "uploads");
    files_discard(path);
    for (int i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof(path), "%s%s", restore->store_to, ends[i]);
        (void)sys_unlink(path); /* as far as it goes: the mark stays if it does not */
    }
    (void)sys_unlink(restore->mark);
}

static bool read_words(struct restore *restore, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--data-dir") == 0 && i + 1 < argc && argv[i + 1][0] != '\0') {
            restore->settings.data_dir = argv[++i];
        } else if (restore->from == NULL && argv[i][0] != '-' && argv[i][0] != '\0') {
            restore->from = argv[i];
        } else {
            return false;
        }
    }
    return restore->from != NULL;
}

/* The path behind "sqlite:". */
static bool find_store(struct restore *restore)
{
    static const char prefix[] = "sqlite:";
    char url[HOUSE_PATH_BYTES];
    house_store_url(&restore->settings, url);
    if (strncmp(url, prefix, sizeof(prefix) - 1) != 0) {
        return false;
    }
    (void)snprintf(restore->store_to, FILES_PATH_BYTES, "%s", url + sizeof(prefix) - 1);
    return true;
}

int command_restore(const struct settings *settings, int argc, char **argv)
{
    struct restore restore = {.settings = *settings};
    struct manifest_reading reading = {.on_file = NULL};
    char made[CLOCK_TEXT_BYTES];
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        (void)fputs(usage, stdout);
        return 0;
    }
    if (!read_words(&restore, argc, argv)) {
        (void)command_fail("usage: weir restore DIR [--data-dir D] (weir restore --help)");
        return 2;
    }
    if (!find_store(&restore)) {
        return command_fail("restore: the store is PostgreSQL: restore it with pg_restore");
    }
    path_in(&restore, restore.mark, HOUSE_RESTORING);
    log_set_level(LOG_ERROR);
    enum err err = hash_start();
    if (err == ERR_OK) {
        err = run(&restore, &reading);
    }
    if (err != ERR_OK) {
        discard(&restore);
        house_close(restore.house);
        return command_fail("restore: %s",
                            restore.detail.text[0] != '\0' ? restore.detail.text : err_text(err));
    }
    house_close(restore.house);
    clock_format_rfc3339(reading.head.made_ms, made);
    (void)printf(
        "%s: restored from the backup of %.*s, positions to %" PRIu64 ", %" PRIu64 " uploads\n",
        restore.settings.data_dir, CLOCK_TEXT_BYTES, made, reading.head.durable, reading.uploads);
    return 0;
}
