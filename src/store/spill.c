/* Texts of packed events in a file. A batch under a backlog is as large as its memory allows; with
 * the texts of its rows in a file it is twice as large, and random ids then cost half of the pages.
 *
 * The file has no name: it goes with its descriptor, holds nothing that the journal does not hold,
 * and is never synced. It is cut before the kernel comes to write it, so it costs copies in memory,
 * which are not this process's. It is not mapped: an I/O error would be a signal.
 *
 *     bytes of an event (packed.c) | bytes of the next | … | the tail, in memory, not written yet
 *
 * Happy path: add … add, then unpack in about the order in which they were added: a read for each
 * SPILL_PART_BYTES.
 * Failure modes: no file, or the disk is full: the event is the caller's to keep. It cannot be read
 * again: the job fails and is tried again. */
#include "store/batch.h"

#include "base/mem.h"
#include "base/sys.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>

#define SPILL_PART_BYTES (64u << 10u)

struct store_spill {
    int fd;
    uint64_t written;   /* bytes in the file */
    uint32_t tail_size; /* and so many behind them, in the tail */
    uint32_t window_size;
    uint64_t window_from;
    uint64_t next; /* where the bytes that were read last end */
    uint8_t tail[SPILL_PART_BYTES];
    uint8_t window[SPILL_PART_BYTES];
};

enum err store_spill_create(struct store_spill **ret, const char *path)
{
    int fd = sys_open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    struct store_spill *spill = mem_try_alloc(sizeof(*spill));
    if (spill == NULL || sys_unlink(path) != 0) {
        enum err err = spill == NULL ? ERR_NO_MEMORY : err_from_errno(errno);
        (void)sys_close(fd); /* nothing was written */
        mem_free(spill);
        return err;
    }
    spill->fd = fd;
    store_spill_clear(spill);
    *ret = spill;
    return ERR_OK;
}

void store_spill_destroy(struct store_spill *spill)
{
    if (spill != NULL) {
        (void)sys_close(spill->fd); /* what was written goes with it */
        mem_free(spill);
    }
}

void store_spill_clear(struct store_spill *spill)
{
    if (spill->written > 0) {
        (void)sys_ftruncate(spill->fd, 0); /* what stays is written over */
    }
    spill->written = 0;
    spill->tail_size = 0;
    spill->window_size = 0;
    spill->window_from = 0;
    spill->next = 0;
}

uint64_t store_spill_bytes(const struct store_spill *spill)
{
    return spill->written + spill->tail_size;
}

/* A write that was cut short is made again whole. */
static enum err write_tail(struct store_spill *spill)
{
    ssize_t done = sys_pwrite(spill->fd, spill->tail, spill->tail_size, (off_t)spill->written);
    if (done != (ssize_t)spill->tail_size) {
        return done < 0 ? err_from_errno(errno) : ERR_NO_SPACE;
    }
    spill->written += spill->tail_size;
    spill->tail_size = 0;
    return ERR_OK;
}

enum err store_spill_add(struct store_spill *spill, const struct store_event *event,
                         struct store_packed *ret)
{
    size_t size = store_packed_bytes(event);
    struct store_packed packed;
    if (size > SPILL_PART_BYTES) {
        return ERR_TOO_LARGE;
    }
    enum err err = size > SPILL_PART_BYTES - spill->tail_size ? write_tail(spill) : ERR_OK;
    if (err == ERR_OK) {
        err = store_pack(&packed, event, spill->tail + spill->tail_size);
    }
    if (err == ERR_OK) {
        packed.place = spill->written + spill->tail_size;
        packed.absent |= STORE_PACKED_SPILLED;
        spill->tail_size += (uint32_t)size;
        *ret = packed;
    }
    return err;
}

/* Rows that are read one after the other share a read; of others each has its own. */
static enum err read_window(struct store_spill *spill, uint64_t place, uint32_t size)
{
    uint64_t rest = spill->written - place;
    uint32_t want = place == spill->next ? SPILL_PART_BYTES : size;
    want = rest < want ? (uint32_t)rest : want;
    spill->window_size = 0;
    ssize_t got = sys_pread(spill->fd, spill->window, want, (off_t)place);
    if (got < (ssize_t)size) {
        return got < 0 ? err_from_errno(errno) : ERR_IO;
    }
    spill->window_from = place;
    spill->window_size = (uint32_t)got;
    return ERR_OK;
}

enum err store_spill_unpack(struct store_spill *spill, const struct store_packed *packed,
                            struct store_event *ret)
{
    if (!store_is_spilled(packed)) {
        store_unpack(packed, ret);
        return ERR_OK;
    }
    uint64_t place = packed->place;
    uint32_t size = (uint32_t)store_packed_size(packed);
    struct store_packed here = *packed;
    assert(place + size <= store_spill_bytes(spill));
    if (place >= spill->written) {
        here.bytes = spill->tail + (place - spill->written);
    } else {
        bool is_there =
            place >= spill->window_from && place + size <= spill->window_from + spill->window_size;
        enum err err = is_there ? ERR_OK : read_window(spill, place, size);
        if (err != ERR_OK) {
            return err;
        }
        here.bytes = spill->window + (place - spill->window_from);
    }
    spill->next = place + size;
    here.absent &= (uint8_t)~STORE_PACKED_SPILLED;
    store_unpack(&here, ret);
    return ERR_OK;
}
