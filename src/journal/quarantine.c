/* Quarantine: copies of bytes that did not verify, in quarantine/ beside the segments, for whoever
 * wants to look. The program never deletes one, so that each tells all later runs that frames were
 * lost here: what nothing names may then be what a lost frame named.
 *
 * Whoever passes over bad bytes calls here: recovery, and the reader, since bytes may go bad after
 * the start, and a later start looks at no segment that is applied.
 *
 * Happy path: a file of its own for each place, durable with its name; the same place gives the
 * same name, so it is kept, and counted, once.
 * Failure modes: no copy can be made, or not be made durable: this run knows of the damage, a later
 * one may not; the log says so. Nothing else depends on what is in a copy. */
#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"
#include "journal/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#define QUARANTINE_BYTES_MAX  (UINT64_C(8) * 1024u * 1024u) /* of one place */
#define QUARANTINE_CHUNK      (64u * UINT64_C(1024))
#define QUARANTINE_NAME_BYTES 64u

static void quarantine_directory(const struct journal *journal, char to[JOURNAL_PATH_BYTES])
{
    (void)snprintf(to, JOURNAL_PATH_BYTES, "%s/quarantine", journal->directory);
}

bool journal_quarantine_has_copy(const struct journal *journal)
{
    char path[JOURNAL_PATH_BYTES];
    bool has_file = false;
    quarantine_directory(journal, path);
    DIR *handle = sys_opendir(path);
    if (handle == NULL) {
        return errno != ENOENT; /* not known: assumed */
    }
    errno = 0;
    for (struct dirent *entry = sys_readdir(handle); entry != NULL && !has_file;
         entry = sys_readdir(handle)) {
        has_file = entry->d_name[0] != '.';
    }
    has_file = has_file || errno != 0;
    (void)sys_closedir(handle); /* only read */
    return has_file;
}

/* A file that is new; -1 when it is there from before, or cannot be made. */
static int quarantine_create(struct journal *journal, const char *name)
{
    char directory[JOURNAL_PATH_BYTES];
    char path[JOURNAL_PATH_BYTES + QUARANTINE_NAME_BYTES];
    struct err_detail detail = {""};
    int fd = -1;
    atomic_store_explicit(&journal->has_damage, true, memory_order_relaxed);
    quarantine_directory(journal, directory);
    if (journal_directory_make(directory, &detail) != ERR_OK) {
        log_write(LOG_ERROR, "journal", "damage cannot be noted: %s", detail.text);
        return -1;
    }
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    fd = sys_open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno != EEXIST) {
        log_write(LOG_ERROR, "journal", "damage cannot be noted: make %s: %s", path,
                  err_text(err_from_errno(errno)));
    }
    return fd;
}

static void quarantine_close(const struct journal *journal, int fd, const char *name)
{
    char directory[JOURNAL_PATH_BYTES];
    quarantine_directory(journal, directory);
    bool is_durable = sys_fsync(fd) == 0;
    (void)sys_close(fd); /* synced, or given up */
    is_durable = sys_sync_directory(directory) == 0 && is_durable;
    log_write(LOG_ERROR, "journal", "damaged bytes kept as %s/%s%s", directory, name,
              is_durable ? "" : ", which could not be synced");
}

static void quarantine_copy(int from, uint64_t offset, uint64_t size, int to)
{
    uint8_t *chunk = mem_alloc(QUARANTINE_CHUNK);
    uint64_t done = 0;
    while (done < size) {
        size_t step = size - done < QUARANTINE_CHUNK ? (size_t)(size - done) : QUARANTINE_CHUNK;
        ssize_t got = sys_pread(from, chunk, step, (off_t)(offset + done));
        if (got <= 0 || sys_pwrite(to, chunk, (size_t)got, (off_t)done) != got) {
            break;
        }
        done += (uint64_t)got;
    }
    mem_free(chunk);
}

bool journal_quarantine_segment(struct journal *journal, const struct journal_file *segment, int fd,
                                uint64_t offset, uint64_t size)
{
    char name[QUARANTINE_NAME_BYTES];
    (void)snprintf(name, sizeof(name), "%016" PRIx64 "-%016" PRIx64 "-%" PRIx64 ".bad",
                   segment->first_position, segment->number, offset);
    int to = quarantine_create(journal, name);
    if (to < 0) {
        return false;
    }
    quarantine_copy(fd, offset, size < QUARANTINE_BYTES_MAX ? size : QUARANTINE_BYTES_MAX, to);
    quarantine_close(journal, to, name);
    return true;
}

void journal_quarantine_message(struct journal *journal, uint64_t sequence, struct slice bytes)
{
    char name[QUARANTINE_NAME_BYTES];
    (void)snprintf(name, sizeof(name), "message-%" PRIu64 ".bad", sequence);
    int to = quarantine_create(journal, name);
    if (to >= 0) {
        /* What is short is a copy for whoever wants to look all the same. */
        (void)!sys_pwrite(to, bytes.data, bytes.size, 0);
        quarantine_close(journal, to, name);
    }
}
