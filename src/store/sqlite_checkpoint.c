/* Checkpoints of SQLite in small steps.
 *
 * The engine's checkpoint writes every page and then syncs them at once: megabytes in the disk's
 * queue, behind which the journal's sync waits. Here the pages that the checkpointer's connection
 * writes are synced a part at a time, with a pause after each, so the queue is never longer than
 * one part. Its file is the engine's own with one method replaced; the copy of its methods lies in
 * the connection, by which it is found again.
 *
 * The WAL is handed to the disk the same way: the writer starts the writing of each part as it
 * grows, so a sync of the WAL, by a durable commit or a checkpoint, finds little left.
 *
 * Happy path: checkpoint -> pages -> part synced, pause … -> done, or the writer has gone on
 * meanwhile, which its own checkpoint finishes.
 * Failure modes: a part cannot be synced: the checkpoint fails, so its pages count as not moved.
 * Those of an earlier checkpoint that did not end count as moved and were not synced: a sync that
 * fails may drop them, too, so then nothing counts as moved any more, and the next one copies all
 * of the WAL. To start the writing of the WAL early is only a hint: its failure is met by the sync.
 */
#include "store/sqlite.h"

#include "base/sys.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>

#define PART_BYTES       (256u << 10u)
#define LOG_HEADER_BYTES 32u
#define LOG_FRAME_BYTES  (SQLITE_PAGE_BYTES + 24u)
/* Of the WAL's index, as the engine documents its format. */
#define INDEX_BYTES           32768
#define INDEX_AT_MOVED        96 /* u32: frames that checkpoints have moved */
#define INDEX_LOCK_CHECKPOINT 1

static_assert(offsetof(struct sqlite_steps, methods) == 0, "found by its methods");

static int write_in_parts(sqlite3_file *file, const void *from, int size, sqlite3_int64 offset)
{
    struct sqlite_steps *steps = ((const struct sqlite_steps *)(const void *)file->pMethods)->self;
    int code = steps->real->xWrite(file, from, size, offset);
    steps->bytes += (uint32_t)size;
    if (code == SQLITE_OK && steps->bytes >= PART_BYTES) {
        steps->bytes = 0;
        code = steps->real->xSync(file, SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY);
        steps->pause(steps->owner);
    }
    return code;
}

/* The connection's database file goes through write_in_parts from now on. */
static enum err take_file(struct sqlite_connection *c)
{
    sqlite3_file *file = NULL;
    int code = sqlite3_file_control(c->db, "main", SQLITE_FCNTL_FILE_POINTER, (void *)&file);
    if (code == SQLITE_OK && file->pMethods != &c->steps.methods) {
        c->steps.self = &c->steps;
        c->steps.real = file->pMethods;
        c->steps.methods = *file->pMethods;
        c->steps.methods.xWrite = write_in_parts;
        file->pMethods = &c->steps.methods;
    }
    return store_sqlite_err(c, code);
}

enum err store_sqlite_checkpoint_beside(struct store_connection *connection,
                                        void (*pause)(void *owner), void *owner)
{
    struct sqlite_connection *c = sqlite_from(connection);
    enum err err = take_file(c);
    if (err != ERR_OK) {
        return err;
    }
    c->steps.pause = pause;
    c->steps.owner = owner;
    c->steps.bytes = 0;
    int pages = 0;
    int moved = 0;
    int code = sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &moved);
    return code == SQLITE_OK && moved < pages ? ERR_BUSY : store_sqlite_err(c, code);
}

/* Where the index of the WAL says how many of its frames were moved. NULL: there is none. */
static enum err find_moved(const struct sqlite_connection *c, sqlite3_file **ret_file,
                           volatile uint32_t **ret)
{
    void volatile *index = NULL;
    int code = sqlite3_file_control(c->db, "main", SQLITE_FCNTL_FILE_POINTER, (void *)ret_file);
    if (code == SQLITE_OK) {
        code = (*ret_file)->pMethods->xShmMap(*ret_file, 0, INDEX_BYTES, 0, &index);
    }
    *ret = index == NULL
               ? NULL
               : (volatile uint32_t *)(volatile void *)((volatile char *)index + INDEX_AT_MOVED);
    return store_sqlite_err(c, code);
}

uint32_t store_sqlite_moved_pages(const struct sqlite_connection *c)
{
    sqlite3_file *file = NULL;
    volatile uint32_t *moved = NULL;
    enum err err = find_moved(c, &file, &moved);
    return err != ERR_OK || moved == NULL ? 0 : *moved;
}

enum err store_sqlite_move_all_again(struct sqlite_connection *c)
{
    sqlite3_file *file = NULL;
    volatile uint32_t *moved = NULL;
    enum err err = find_moved(c, &file, &moved);
    if (err != ERR_OK || moved == NULL) {
        return err; /* no index: the next one is made of the whole WAL */
    }
    const sqlite3_io_methods *methods = file->pMethods;
    int code =
        methods->xShmLock(file, INDEX_LOCK_CHECKPOINT, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
    if (code != SQLITE_OK) {
        return store_sqlite_err(c, code);
    }
    *moved = 0;
    methods->xShmBarrier(file);
    code =
        methods->xShmLock(file, INDEX_LOCK_CHECKPOINT, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
    return store_sqlite_err(c, code);
}

void store_sqlite_push_log(struct sqlite_connection *c)
{
    char path[4096];
    uint64_t size = LOG_HEADER_BYTES + (uint64_t)c->wal_pages * LOG_FRAME_BYTES;
    if (c->is_full || size < c->log_pushed) {
        c->log_pushed = c->is_full ? size : 0; /* it was synced, or began anew */
    }
    if (size - c->log_pushed < PART_BYTES) {
        return;
    }
    if (c->log_fd < 0) {
        (void)snprintf(path, sizeof(path), "%s-wal", c->path);
        c->log_fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    }
    if (c->log_fd >= 0) {
        (void)sys_write_back(c->log_fd, (off_t)c->log_pushed, (off_t)(size - c->log_pushed));
    }
    c->log_pushed = size;
}
