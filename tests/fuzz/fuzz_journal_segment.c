/* Fuzz: a segment file of any bytes, and a frame, an upload's end and a table row of any bytes.
 *
 * The input is laid over a small journal that verifies: byte 0 and 1 say where, the rest is written
 * there, and the checksums of what was hit are made right again when byte 2 is odd, so that what
 * lies behind them is reached too. It must open, serve positions that rise, and name no more bytes
 * than the file has. */
#include "base/hash.h"
#include "base/mem.h"
#include "journal/format.h"
#include "journal/scan.h"
#include "record/record.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILE_BYTES = 5 * JOURNAL_PAGE_BYTES, FRAMES = 6, SALT = 77 };

static void put_commit(uint8_t *file, uint64_t offset, uint64_t first)
{
    static const uint8_t body[500] = {1, 2, 3};
    struct journal_commit_head head = {.frame_count = FRAMES, .first_position = first};
    uint64_t at = offset + JOURNAL_COMMIT_HEAD_BYTES;
    for (uint64_t i = 0; i < FRAMES; i++) {
        struct journal_frame_parts parts = {.org = i, .body = slice_make(body, 80 * i + 1)};
        journal_frame_encode(&parts, file + at);
        journal_frame_seal(file + at, first + i, SALT);
        at += journal_frame_size(parts.body.size);
    }
    head.bytes = (uint32_t)(at - offset - JOURNAL_COMMIT_HEAD_BYTES);
    journal_commit_head_encode(&head, SALT, offset, file + offset);
}

/* Whatever looks like a frame or a commit head gets the checksum that its bytes should have. */
static void repair(uint8_t *file)
{
    for (uint64_t at = JOURNAL_PAGE_BYTES; at + JOURNAL_COMMIT_HEAD_BYTES <= FILE_BYTES; at += 8) {
        uint64_t claimed = journal_frame_claimed_size(file + at);
        if (claimed != 0 && claimed <= FILE_BYTES - at) {
            buffer_put_u64(file + at, hash_xxh3(file + at + 8, claimed - 8, SALT));
        } else if (journal_is_commit(file + at)) {
            uint64_t sum = hash_xxh3(file + at + 8, JOURNAL_COMMIT_HEAD_BYTES - 8, SALT + at);
            buffer_put_u64(file + at, sum);
        }
    }
}

/* Any result will do, as long as there is one. */
static void try_result(enum err err)
{
    assert(err == ERR_OK || err == ERR_CORRUPT || err == ERR_VERSION);
}

static void walk(int fd, const struct journal_segment_head *head, uint64_t limit)
{
    struct journal_scan scan;
    struct journal_scan_item item;
    uint64_t last = 0;
    uint64_t bytes = 0;
    journal_scan_init(&scan, fd, head, 1000);
    do {
        enum err err = journal_scan_next(&scan, limit, &item);
        assert(err == ERR_OK);
        bytes += item.size;
        if (item.kind == JOURNAL_SCAN_FRAME) {
            struct record_frame record;
            assert(item.frame.position > last && item.frame.position < 1000);
            assert(item.frame.bytes == item.size);
            last = item.frame.position;
            try_result(record_frame_decode(item.frame.bytes_slice, &record));
        }
    } while (item.kind != JOURNAL_SCAN_END);
    assert(bytes <= limit);
    journal_scan_finish(&scan);
}

static void try_records(const uint8_t *data, size_t size)
{
    struct record_frame record;
    struct record_upload_end end;
    struct journal_segment_head head;
    uint32_t bad_bytes;
    uint8_t page[JOURNAL_SEGMENT_HEAD_BYTES] = {0};
    memcpy(page, data, size < sizeof(page) ? size : sizeof(page));
    if (record_frame_decode(slice_make(data, size), &record) == ERR_OK) {
        try_result(record_upload_end_decode(record.body, &end));
        (void)record_frame_attribute(&record, "ce-id");
    }
    try_result(record_upload_end_decode(slice_make(data, size), &end));
    try_result(journal_segment_head_decode(page, &head, &bad_bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    uint8_t *file = mem_alloc(FILE_BYTES);
    struct journal_segment_head head = {.salt = SALT, .first_position = 1};
    try_records(data, size);
    put_commit(file, JOURNAL_PAGE_BYTES, 1);
    put_commit(file, UINT64_C(2) * JOURNAL_PAGE_BYTES, 1 + FRAMES);
    put_commit(file, UINT64_C(3) * JOURNAL_PAGE_BYTES, 1 + 2 * FRAMES);
    if (size > 3) {
        size_t at = JOURNAL_PAGE_BYTES + buffer_get_u16(data) % (FILE_BYTES - JOURNAL_PAGE_BYTES);
        size_t room = FILE_BYTES - at;
        memcpy(file + at, data + 3, size - 3 < room ? size - 3 : room);
        if (data[2] % 2 == 1) {
            repair(file);
        }
    }
    if (fd < 0) {
        fd = memfd_create("segment", MFD_CLOEXEC);
    }
    ssize_t written = pwrite(fd, file, FILE_BYTES, 0);
    assert(written == FILE_BYTES);
    walk(fd, &head, FILE_BYTES);
    /* Cut somewhere: as a reader that may look so far. */
    walk(fd, &head, size > 2 ? FILE_BYTES - data[2] * 16u : FILE_BYTES);
    mem_free(file);
    return 0;
}
