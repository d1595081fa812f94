/* weir backup DIR: a copy of everything that is acknowledged, made beside the running server.
 *
 * DIR/weir.db          the store, with orgs, keys and their id keys
 * DIR/journal/…        the frames that the store does not hold yet
 * DIR/uploads/…        bodies that have to be applied, or are retained
 * DIR/MANIFEST         written last: without it DIR is no backup
 *
 * This process copies; the server is only asked how far the journal is durable, and told by a lock
 * to let nothing go meanwhile. The order makes the copy whole:
 *
 *   1. pin the journal: what is needed stays
 *   2. copy the store, one snapshot; its cursor is `applied`
 *   3. ask for the durable position: `durable`. Everything that was acknowledged before the command
 *      began lies at or below it
 *   4. copy frames above `applied` up to `durable`
 *   5. copy the uploads that the copied store or those frames name
 *   6. sum up, sync, write the manifest
 *
 * Without a server this process takes the lock of DATA_DIR, and copies the journal to its end.
 *
 * Happy path: as above.
 * Failure modes: anything fails: what was written is removed, one line says why. The server ends
 * meanwhile: before step 3 the command fails, later it does not matter. Killed: no manifest. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apply/apply.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/thread.h"
#include "command.h"
#include "files.h"
#include "house.h"
#include "journal/journal.h"
#include "manifest.h"
#include "socket.h"
#include "store/store.h"

#define MEBIBYTE          (1024ull * 1024ull)
#define UPLOADS_BYTES_MAX (1u << 28) /* of ids that only the journal names */
#define PIN_TRIES         200
#define PIN_PAUSE_US      10000u

static const char usage[] =
    "weir backup DIR\n"
    "  Copies the store, the journal after it and the uploads that are needed to DIR, which must\n"
    "  be empty or absent, with a manifest. The server may run; it goes on meanwhile. Everything\n"
    "  acknowledged before the command began is in the copy. Settings and certificates are not.\n"
    "  weir restore DIR makes a data directory of it.\n";

struct backup {
    const struct settings *settings;
    const char *to;
    char journal_from[FILES_PATH_BYTES];
    char journal_to[FILES_PATH_BYTES];
    char uploads_from[FILES_PATH_BYTES];
    char uploads_to[FILES_PATH_BYTES];
    char store_to[FILES_PATH_BYTES];
    struct house *house; /* NULL: a server runs */
    int pin;             /* -1: there is no journal */
    struct store *copy;  /* the copied store, opened */
    struct manifest *manifest;
    struct manifest_head head;
    struct buffer uploads; /* ids that the copied frames name */
    uint64_t upload_count;
    uint64_t upload_missing;
    struct files_progress progress;
    bool has_made; /* the directory `to` */
    bool has_begun;
    struct err_detail detail;
};

static void begin_bar(struct backup *backup, const char *label)
{
    backup->progress = (struct files_progress){.all = 0};
    progress_begin(&backup->progress.bar, label);
}

static void on_progress(uint64_t done, uint64_t all, void *context)
{
    struct backup *backup = context;
    progress_show(&backup->progress.bar, done, all);
}

/* --- the server --------------------------------------------------------------------------------
 */

/* ERR_NOT_FOUND: no server listens. */
static enum err ask_durable(struct backup *backup, uint64_t *ret)
{
    char word[] = SOCKET_DURABLE;
    char *words[] = {word};
    struct buffer reply;
    int status = 1;
    buffer_init(&reply, 4096);
    enum err err = socket_ask(backup->settings->data_dir, 1, words, &reply, &status);
    if (err == ERR_OK && (status != 0 || !slice_to_u64(buffer_slice(&reply), ret))) {
        err = ERR_VERSION;
        err_detail_set(&backup->detail, "the running server is of another version: restart it");
    }
    buffer_finish(&reply);
    return err;
}

static enum err find_server(struct backup *backup)
{
    struct stat found;
    uint64_t durable = 0;
    if (sys_stat(backup->settings->data_dir, &found) != 0) {
        enum err err = err_from_errno(errno);
        err_detail_set(&backup->detail, "%s: %s", backup->settings->data_dir, err_text(err));
        return err;
    }
    enum err err = ask_durable(backup, &durable);
    return err != ERR_NOT_FOUND ? err
                                : house_open(&backup->house, backup->settings, &backup->detail);
}

/* The server takes the lock itself, for moments. */
static enum err take_pin(struct backup *backup)
{
    enum err err = ERR_BUSY;
    for (int i = 0; i < PIN_TRIES && err == ERR_BUSY; i++) {
        err = journal_pin(backup->journal_from, &backup->pin);
        if (err == ERR_BUSY) {
            (void)usleep(PIN_PAUSE_US);
        }
    }
    if (err == ERR_BUSY) {
        err_detail_set(&backup->detail, "another backup of %s runs", backup->settings->data_dir);
    }
    if (err == ERR_OK) {
        err = journal_identify(backup->journal_from, &backup->head.journal);
    }
    return err == ERR_NOT_FOUND ? ERR_OK : err; /* never served */
}

/* --- the store ---------------------------------------------------------------------------------
 */

static uint64_t file_bytes(const char *path)
{
    struct stat found;
    return sys_stat(path, &found) == 0 ? (uint64_t)found.st_size : 0;
}

/* A full disk would be found later too, but on the way there the server would be out of room. */
static enum err check_space(struct backup *backup, const char *store_path)
{
    struct stat from;
    struct stat to;
    uint64_t free_bytes = 0;
    uint64_t need = file_bytes(store_path);
    if (sys_stat(backup->settings->data_dir, &from) != 0 || sys_stat(backup->to, &to) != 0 ||
        sys_free_bytes(backup->to, &free_bytes) != 0) {
        return ERR_OK; /* not known: what comes will tell */
    }
    if (from.st_dev == to.st_dev) {
        need += backup->settings->disk_reserve_mb * MEBIBYTE;
    }
    if (free_bytes >= need) {
        return ERR_OK;
    }
    err_detail_set(&backup->detail, "%s: %llu MiB needed%s, %llu free", backup->to,
                   need / MEBIBYTE + 1, from.st_dev == to.st_dev ? " with DISK_RESERVE_MB" : "",
                   free_bytes / MEBIBYTE);
    return ERR_NO_SPACE;
}

static enum err copy_store(struct backup *backup)
{
    char url[HOUSE_PATH_BYTES];
    char copy_url[FILES_PATH_BYTES + 8];
    struct store_options options = {.url = url, .cache_mb = 2, .write_queue_max = 16};
    house_store_url(backup->settings, url);
    const char *path = strchr(url, ':');
    enum err err = check_space(backup, path == NULL ? url : path + 1);
    begin_bar(backup, "store");
    if (err == ERR_OK) {
        err = store_backup(&options, backup->store_to, on_progress, backup, &backup->detail);
    }
    progress_end(&backup->progress.bar);
    if (err != ERR_OK) {
        return err;
    }
    (void)snprintf(copy_url, sizeof(copy_url), "sqlite:%s", backup->store_to);
    options.url = copy_url;
    err = store_open(&backup->copy, &options, &backup->detail);
    if (err == ERR_OK) {
        err = apply_cursor_of(backup->copy, backup->head.journal, &backup->head.applied);
    }
    return err;
}

/* --- the journal -------------------------------------------------------------------------------
 */

static enum err on_upload(struct id upload, void *context)
{
    struct backup *backup = context;
    return buffer_append(&backup->uploads, upload.bytes, sizeof(upload.bytes));
}

static enum err copy_journal(struct backup *backup)
{
    struct journal_copied copied = {0};
    uint64_t until = UINT64_MAX;
    enum err err = backup->house == NULL ? ask_durable(backup, &until) : ERR_OK;
    if (err != ERR_OK) {
        err_detail_set(&backup->detail, "the server ended meanwhile: start the backup again");
        return err;
    }
    struct journal_copy copy = {
        .from = backup->journal_from,
        .to = backup->journal_to,
        .after = backup->head.applied,
        .until = until,
        .on_upload = on_upload,
        .on_progress = on_progress,
        .context = backup,
    };
    begin_bar(backup, "journal");
    err = journal_copy(&copy, &copied, &backup->detail);
    progress_end(&backup->progress.bar);
    backup->head.durable = until == UINT64_MAX ? copied.last_position : until;
    backup->head.missing = copied.missing;
    return err;
}

static enum err add_journal_file(const char *name, void *context)
{
    struct backup *backup = context;
    struct manifest_file file;
    char path[FILES_PATH_BYTES];
    (void)snprintf(file.name, sizeof(file.name), "journal/%s", name);
    files_join(path, backup->to, file.name);
    enum err err = files_copy(path, NULL, &backup->progress, &file.sum, &backup->detail);
    return err == ERR_OK ? manifest_add(backup->manifest, &file) : err;
}

/* --- uploads -----------------------------------------------------------------------------------
 */

static enum err copy_upload(struct backup *backup, struct id id, bool is_needed)
{
    struct manifest_file file;
    char from[FILES_PATH_BYTES];
    char to[FILES_PATH_BYTES];
    char name[JOURNAL_UPLOAD_NAME_BYTES];
    journal_upload_name(name, id);
    (void)snprintf(file.name, sizeof(file.name), "uploads/%s", name);
    files_join(from, backup->uploads_from, name);
    files_join(to, backup->uploads_to, name);
    enum err err = files_copy(from, to, &backup->progress, &file.sum, &backup->detail);
    if (err == ERR_NOT_FOUND) { /* deleted by its owner, or damaged: restore's apply will say so */
        backup->detail.text[0] = '\0';
        backup->upload_missing += is_needed;
        return ERR_OK;
    }
    if (err == ERR_OK) {
        backup->upload_count++;
        err = manifest_add(backup->manifest, &file);
    }
    return err;
}

struct uploads_job {
    struct store_job job;
    struct backup *backup;
};

static void on_done(struct store_job *job)
{
    (void)job;
}

/* In the copied store, which nobody else uses: a long transaction is in nobody's way. */
static enum err uploads_run(struct store_job *job, struct store_connection *connection)
{
    struct backup *backup = ((struct uploads_job *)job)->backup;
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(
        connection, "SELECT id, state FROM uploads WHERE state = 1 OR raw_deleted = 0", &statement);
    while (err == ERR_OK && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        struct id id;
        struct slice bytes = store_column_bytes(statement, 0);
        if (bytes.size == sizeof(id.bytes)) {
            memcpy(id.bytes, bytes.data, sizeof(id.bytes));
            err = copy_upload(backup, id, store_column_i64(statement, 1) == 1);
        }
    }
    return err;
}

static enum err copy_uploads(struct backup *backup)
{
    struct uploads_job job = {
        .job = {.priority = STORE_CONTROL, .run = uploads_run, .on_done = on_done},
        .backup = backup};
    begin_bar(backup, "uploads");
    enum err err = store_run_here(backup->copy, &job.job);
    for (size_t i = 0; i < backup->uploads.size && err == ERR_OK; i += sizeof(struct id)) {
        struct id id;
        memcpy(id.bytes, backup->uploads.data + i, sizeof(id.bytes));
        err = copy_upload(backup, id, true);
    }
    progress_end(&backup->progress.bar);
    return err;
}

/* --- the end -----------------------------------------------------------------------------------
 */

static enum err sum_up(struct backup *backup)
{
    struct manifest_file file = {.name = "weir.db"};
    begin_bar(backup, "sums");
    enum err err =
        files_copy(backup->store_to, NULL, &backup->progress, &file.sum, &backup->detail);
    if (err == ERR_OK) {
        int fd = sys_open(backup->store_to, O_RDWR | O_CLOEXEC, 0);
        err = fd >= 0 && sys_fsync(fd) == 0 ? ERR_OK : err_from_errno(errno);
        if (fd >= 0) {
            (void)sys_close(fd); /* synced, or reported */
        }
    }
    if (err == ERR_OK) {
        err = manifest_add(backup->manifest, &file);
    }
    if (err == ERR_OK && backup->pin >= 0) {
        err = files_each(backup->journal_to, add_journal_file, backup, &backup->detail);
    }
    progress_end(&backup->progress.bar);
    if (err == ERR_OK) {
        err = files_sync(backup->uploads_to, &backup->detail);
    }
    if (err == ERR_OK) {
        backup->head.made_ms = clock_wall_ms();
        err = manifest_finish(backup->manifest, &backup->head, &backup->detail);
        backup->manifest = NULL;
    }
    return err;
}

static enum err run(struct backup *backup)
{
    enum err err = find_server(backup);
    if (err == ERR_OK) {
        err = files_take_empty(backup->to, &backup->has_made, &backup->detail);
        backup->has_begun = err == ERR_OK;
    }
    if (err == ERR_OK) {
        err = take_pin(backup);
    }
    if (err == ERR_OK) {
        err = copy_store(backup);
    }
    if (err == ERR_OK && backup->pin >= 0) {
        err = copy_journal(backup);
    }
    if (err == ERR_OK) {
        err = files_make_directory(backup->uploads_to, &backup->detail);
    }
    if (err == ERR_OK) {
        err = manifest_create(&backup->manifest, backup->to, &backup->detail);
    }
    if (err == ERR_OK) {
        err = copy_uploads(backup);
    }
    store_close(backup->copy);
    backup->copy = NULL;
    return err == ERR_OK ? sum_up(backup) : err;
}

static void discard(struct backup *backup)
{
    manifest_discard(backup->manifest);
    if (backup->has_begun) {
        char path[FILES_PATH_BYTES];
        files_discard(backup->journal_to);
        files_discard(backup->uploads_to);
        for (int i = 0; i < 5; i++) {
            static const char *const names[] = {"weir.db", "weir.db-wal", "weir.db-shm",
                                                MANIFEST_NAME, MANIFEST_TEMPORARY};
            files_join(path, backup->to, names[i]);
            (void)sys_unlink(path); /* as far as it goes */
        }
        if (backup->has_made) {
            (void)rmdir(backup->to);
        }
    }
}

static int report(const struct backup *backup)
{
    (void)printf("%s: store at position %" PRIu64 ", journal to %" PRIu64 ", %" PRIu64 " uploads\n",
                 backup->to, backup->head.applied, backup->head.durable, backup->upload_count);
    if (backup->head.missing > 0 || backup->upload_missing > 0) {
        (void)command_fail("the source is damaged: %" PRIu64 " frames and %" PRIu64
                           " uploads that are not applied could not be read (weir journal check)",
                           backup->head.missing, backup->upload_missing);
    }
    return 0;
}

int command_backup(const struct settings *settings, int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        (void)fputs(usage, stdout);
        return 0;
    }
    if (argc != 2 || argv[1][0] == '-' || argv[1][0] == '\0') {
        (void)command_fail("usage: weir backup DIR (weir backup --help)");
        return 2;
    }
    if (settings->nats_url[0] != '\0') {
        return command_fail("backup: the journal is in NATS: back it up with `nats stream backup`, "
                            "and before it the store with the tools of its engine");
    }
    struct backup backup = {.settings = settings, .to = argv[1], .pin = -1};
    log_set_level(LOG_ERROR);
    thread_lower_priority();
    buffer_init(&backup.uploads, UPLOADS_BYTES_MAX);
    files_join(backup.journal_from, settings->data_dir, "journal");
    files_join(backup.uploads_from, settings->data_dir, "uploads");
    files_join(backup.journal_to, backup.to, "journal");
    files_join(backup.uploads_to, backup.to, "uploads");
    files_join(backup.store_to, backup.to, "weir.db");
    enum err err = hash_start();
    if (err == ERR_OK) {
        err = run(&backup);
    }
    int status = 0;
    if (err == ERR_OK) {
        status = report(&backup);
    } else {
        discard(&backup);
        status = command_fail("backup: %s",
                              backup.detail.text[0] != '\0' ? backup.detail.text : err_text(err));
    }
    journal_unpin(backup.pin);
    house_close(backup.house);
    buffer_finish(&backup.uploads);
    return status;
}
