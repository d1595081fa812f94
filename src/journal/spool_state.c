/* Spool state: the file `state` beside the spool's segments, 128 bytes.
 *
 *   offset size  what
 *        0    8  checksum (XXH3) of what follows
 *        8    8  "WEIRSPL1"
 *       16   64  name of the stream, zeros behind it
 *       80    8  when it was made, as JetStream says
 *       88   16  id of the journal of the segments
 *      104    8  frames of it up to this position are in the stream
 *      112    4  bits of a position below the number of a message
 *      116   12  zero
 *
 * Numbers are little-endian. It is written in place: it lies within one sector.
 *
 * Happy path: open reads it, write replaces it.
 * Failure modes: it is lost, or half written: what the segments still hold is forwarded again, and
 * meets itself in the store by its ids; a start needs the stream once. */
#include "journal/spool.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum {
    STATE_AT_MAGIC = 8,
    STATE_AT_STREAM = 16,
    STATE_AT_CREATED = STATE_AT_STREAM + NATS_NAME_BYTES,
    STATE_AT_SEGMENTS = STATE_AT_CREATED + 8,
    STATE_AT_FORWARDED = STATE_AT_SEGMENTS + 16,
    STATE_AT_RUN_BITS = STATE_AT_FORWARDED + 8,
    STATE_BYTES = 128,
};
static_assert(STATE_AT_RUN_BITS + 4 <= STATE_BYTES, "all of it has room");

#define STATE_MAGIC UINT64_C(0x314c505352494557)

static uint64_t state_checksum(const uint8_t bytes[STATE_BYTES])
{
    return hash_xxh3(bytes + STATE_AT_MAGIC, STATE_BYTES - STATE_AT_MAGIC, 0);
}

static bool state_decode(const uint8_t bytes[STATE_BYTES], struct spool_state *ret)
{
    if (buffer_get_u64(bytes) != state_checksum(bytes) ||
        buffer_get_u64(bytes + STATE_AT_MAGIC) != STATE_MAGIC ||
        bytes[STATE_AT_STREAM + NATS_NAME_BYTES - 1] != 0 ||
        buffer_get_u32(bytes + STATE_AT_RUN_BITS) > NATS_RUN_BITS) {
        return false;
    }
    memcpy(ret->stream, bytes + STATE_AT_STREAM, sizeof(ret->stream));
    ret->created = (int64_t)buffer_get_u64(bytes + STATE_AT_CREATED);
    memcpy(ret->segments.bytes, bytes + STATE_AT_SEGMENTS, sizeof(ret->segments.bytes));
    ret->forwarded = buffer_get_u64(bytes + STATE_AT_FORWARDED);
    ret->run_bits = buffer_get_u32(bytes + STATE_AT_RUN_BITS);
    return true;
}

enum err journal_spool_state_open(const char *directory, int *ret_fd, struct spool_state *ret)
{
    char path[SPOOL_PATH_BYTES];
    uint8_t bytes[STATE_BYTES];
    struct spool_state state = {.created = 0};
    (void)snprintf(path, sizeof(path), "%s/state", directory);
    int fd = sys_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    ssize_t size = sys_pread(fd, bytes, sizeof(bytes), 0);
    if (size < 0 || (size == 0 && sys_sync_directory(directory) != 0)) {
        enum err err = err_from_errno(errno);
        (void)sys_close(fd); /* nothing was written */
        return err;
    }
    if (size != 0 && (size != STATE_BYTES || !state_decode(bytes, &state))) {
        log_write(LOG_WARN, "journal",
                  "%s is damaged: what the spool's segments hold is forwarded again", path);
    }
    *ret_fd = fd;
    *ret = state;
    return ERR_OK;
}

enum err journal_spool_state_write(int fd, const struct spool_state *state, bool is_durable)
{
    uint8_t bytes[STATE_BYTES] = {0};
    buffer_put_u64(bytes + STATE_AT_MAGIC, STATE_MAGIC);
    memcpy(bytes + STATE_AT_STREAM, state->stream, strlen(state->stream));
    buffer_put_u64(bytes + STATE_AT_CREATED, (uint64_t)state->created);
    memcpy(bytes + STATE_AT_SEGMENTS, state->segments.bytes, sizeof(state->segments.bytes));
    buffer_put_u64(bytes + STATE_AT_FORWARDED, state->forwarded);
    buffer_put_u32(bytes + STATE_AT_RUN_BITS, state->run_bits);
    buffer_put_u64(bytes, state_checksum(bytes));
    ssize_t size = sys_pwrite(fd, bytes, sizeof(bytes), 0);
    if (size != STATE_BYTES) {
        return size < 0 ? err_from_errno(errno) : ERR_NO_SPACE;
    }
    return is_durable && sys_fdatasync(fd) != 0 ? err_from_errno(errno) : ERR_OK;
}
