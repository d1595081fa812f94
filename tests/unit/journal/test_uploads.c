/* Promise: an upload whose end record is durable is read back byte for byte at any offset, with its
 * table, also after a restart; one that was aborted, failed or cut off leaves nothing.
 * link: journal_rig.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "journal/upload_file.h"
#include "support/journal_rig.h"
#include "support/journal_ticket.h"
#include "support/tree.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB ((size_t)1024 * 1024)

static void count_room(struct journal_upload *upload, void *context)
{
    (void)upload;
    (*(uint32_t *)context)++;
}

/* Compresses to about a half. */
static uint8_t *make_bytes(size_t size)
{
    uint8_t *bytes = mem_alloc(size);
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < size; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17; /* xorshift64 */
        bytes[i] = (uint8_t)(x & 15);
    }
    return bytes;
}

static uint32_t count_files(const struct rig *rig, const char *ending)
{
    uint32_t count = 0;
    DIR *handle = opendir(rig->uploads);
    assert_non_null(handle);
    struct dirent *entry;
    while ((entry = readdir(handle)) != NULL) {
        size_t size = strlen(entry->d_name);
        size_t end = strlen(ending);
        count += size > end && strcmp(entry->d_name + size - end, ending) == 0;
    }
    assert_int_equal(closedir(handle), 0);
    return count;
}

static enum err end_upload(struct journal_upload *upload, struct id id, struct ticket *ticket)
{
    struct record_upload_end end = {.upload = id, .form = RECORD_FORM_EVENT_LINES};
    struct record_frame record = {.form = RECORD_FORM_UPLOAD_END, .org = 1};
    uint8_t body[RECORD_UPLOAD_END_BYTES];
    struct buffer head;
    record_upload_end_encode(&end, body);
    buffer_init(&head, 4096);
    assert_int_equal(record_frame_encode_head(&record, &head), ERR_OK);
    struct journal_frame_parts parts = {.org = 1,
                                        .form = RECORD_FORM_UPLOAD_END,
                                        .head = buffer_slice(&head),
                                        .body = slice_make(body, sizeof(body))};
    *ticket = ticket_make();
    enum err err = journal_upload_end(upload, &parts, &ticket->ticket);
    buffer_finish(&head);
    return err;
}

/* Writes all, stepping whenever it is asked to pause. */
static void write_all(struct rig *rig, struct journal_upload *upload, const uint8_t *bytes,
                      size_t size)
{
    uint32_t rooms = 0;
    uint32_t pauses = 0;
    size_t step = 100000;
    journal_upload_on_room(upload, count_room, &rooms);
    for (size_t done = 0; done < size; done += step) {
        bool must_pause = false;
        step = size - done < step ? size - done : step;
        assert_int_equal(journal_upload_write(upload, slice_make(bytes + done, step), &must_pause),
                         ERR_OK);
        if (must_pause) {
            pauses++;
            rig_run(rig);
            assert_int_equal(rooms, pauses);
        }
    }
    /* More than a megabyte cannot be on the way unwritten. */
    assert_true(size < 2 * MIB || pauses > 0);
}

static void check_bytes(struct rig *rig, struct id id, const uint8_t *bytes, size_t size)
{
    struct journal_upload_reader *reader = NULL;
    uint8_t *found = mem_alloc(size + 1);
    size_t got = 0;
    assert_int_equal(journal_upload_open(&reader, rig->journal, id), ERR_OK);
    assert_int_equal(journal_upload_read(reader, 0, found, size + 1, &got), ERR_OK);
    assert_int_equal(got, size);
    assert_memory_equal(found, bytes, size);
    for (size_t i = 0; i < 50 && size > 0; i++) {
        size_t offset = (i * 7919 * 1031) % size;
        size_t want = 1 + (i * 4099) % 300000;
        size_t left = size - offset;
        assert_int_equal(journal_upload_read(reader, offset, found, want, &got), ERR_OK);
        assert_int_equal(got, want < left ? want : left);
        assert_memory_equal(found, bytes + offset, got);
    }
    assert_int_equal(journal_upload_read(reader, size, found, 1, &got), ERR_OK);
    assert_int_equal(got, 0);
    journal_upload_close(reader);
    mem_free(found);
}

static void check_table(struct rig *rig, struct id id, const uint8_t *table, size_t size)
{
    struct journal_upload_reader *reader = NULL;
    struct buffer found;
    buffer_init(&found, size + 10);
    assert_int_equal(buffer_append_text(&found, "before"), ERR_OK);
    assert_int_equal(journal_upload_open(&reader, rig->journal, id), ERR_OK);
    assert_int_equal(journal_upload_table(reader, &found), ERR_OK);
    assert_int_equal(found.size, size + 6);
    assert_true(size == 0 || memcmp(found.data + 6, table, size) == 0);
    buffer_finish(&found);
    buffer_init(&found, size == 0 ? 1 : size - 1);
    assert_int_equal(journal_upload_table(reader, &found), size == 0 ? ERR_OK : ERR_TOO_LARGE);
    buffer_finish(&found);
    journal_upload_close(reader);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 262144, 262145, 5000000};
    struct rig rig;
    struct id ids[5];
    uint8_t *bytes = make_bytes(5000000);
    rig_init(&rig);
    rig_open(&rig, 0);
    for (size_t i = 0; i < 5; i++) {
        struct journal_upload *upload = NULL;
        struct ticket ticket;
        struct journal_upload_reader *reader = NULL;
        ids[i] = id_make_v7((int64_t)i);
        assert_int_equal(journal_upload_begin(&upload, rig.producer, ids[i], 1), ERR_OK);
        write_all(&rig, upload, bytes, sizes[i]);
        for (size_t done = 0; done < sizes[i] / 30; done += 1000) { /* a table of several blocks */
            size_t left = sizes[i] / 30 - done;
            assert_int_equal(
                journal_upload_note(upload, slice_make(bytes + done, left < 1000 ? left : 1000)),
                ERR_OK);
        }
        assert_int_equal(journal_upload_open(&reader, rig.journal, ids[i]),
                         i == 4 ? ERR_CORRUPT : ERR_NOT_FOUND);
        assert_int_equal(end_upload(upload, ids[i], &ticket), ERR_OK);
        assert_false(ticket.is_answered);
        rig_run(&rig);
        assert_true(ticket.is_answered);
        assert_int_equal(ticket.err, ERR_OK);
        assert_int_equal(ticket.position, i + 1);
        check_bytes(&rig, ids[i], bytes, sizes[i]);
        check_table(&rig, ids[i], bytes, sizes[i] / 30);
    }
    assert_int_equal(count_files(&rig, ".up"), 5);
    rig_close(&rig, false);
    rig_open(&rig, 5);
    assert_int_equal(count_files(&rig, ".up"), 5);
    for (size_t i = 0; i < 5; i++) {
        check_bytes(&rig, ids[i], bytes, sizes[i]);
        check_table(&rig, ids[i], bytes, sizes[i] / 30);
        assert_int_equal(journal_upload_delete(rig.journal, ids[i]), ERR_OK);
        assert_int_equal(journal_upload_delete(rig.journal, ids[i]), ERR_NOT_FOUND);
    }
    assert_int_equal(count_files(&rig, ".up"), 0);
    mem_free(bytes);
    rig_finish(&rig);
}

/* More blocks than one index names: 4,100 of zeros, which cost little to store. */
static void test_several_indexes(void **state)
{
    (void)state;
    enum { BLOCKS = 4100 };
    struct rig rig;
    struct journal_upload *upload = NULL;
    struct journal_upload_reader *reader = NULL;
    struct ticket ticket;
    struct id id = id_make_v7(1);
    uint8_t *block = mem_alloc(LIMIT_UPLOAD_BLOCK_BYTES);
    bool must_pause = false;
    size_t got = 0;
    uint8_t found[4];
    rig_init_in_memory(&rig);
    rig_open(&rig, 0);
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id, 1), ERR_OK);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        buffer_put_u32(block, i);
        assert_int_equal(
            journal_upload_write(upload, slice_make(block, LIMIT_UPLOAD_BLOCK_BYTES), &must_pause),
            ERR_OK);
        if (must_pause) {
            rig_run(&rig);
        }
    }
    assert_int_equal(end_upload(upload, id, &ticket), ERR_OK);
    rig_run(&rig);
    assert_int_equal(ticket.err, ERR_OK);
    assert_int_equal(journal_upload_open(&reader, rig.journal, id), ERR_OK);
    static const uint32_t looked_at[] = {0, 4099, 4095, 4096, 17, 4098, 1};
    for (size_t i = 0; i < sizeof(looked_at) / sizeof(looked_at[0]); i++) {
        assert_int_equal(journal_upload_read(reader,
                                             (uint64_t)looked_at[i] * LIMIT_UPLOAD_BLOCK_BYTES,
                                             found, 4, &got),
                         ERR_OK);
        assert_int_equal(got, 4);
        assert_int_equal(buffer_get_u32(found), looked_at[i]);
    }
    journal_upload_close(reader);
    mem_free(block);
    rig_finish(&rig);
}

static void test_abort_and_cut_off(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_upload *upload = NULL;
    struct journal_backlog backlog;
    uint8_t *bytes = make_bytes(2 * MIB);
    rig_init(&rig);
    rig_open(&rig, 0);
    /* Blocks on the way when it is aborted. */
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id_make_v7(1), 1), ERR_OK);
    bool must_pause = false;
    assert_int_equal(journal_upload_write(upload, slice_make(bytes, MIB), &must_pause), ERR_OK);
    journal_backlog(rig.journal, &backlog);
    /* Four blocks, each charged as if it did not compress: head, bytes, what zstd may add. */
    assert_in_range(backlog.bytes, MIB, MIB + 4 * (JOURNAL_BLOCK_HEAD_BYTES + 2048));
    journal_upload_abort(upload);
    rig_run(&rig);
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.bytes, 0);
    assert_int_equal(count_files(&rig, ".part"), 0);
    /* Written, then aborted; then one that kill -9 cuts off: the file is there, no end record. */
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id_make_v7(2), 1), ERR_OK);
    write_all(&rig, upload, bytes, 2 * MIB);
    rig_run(&rig);
    assert_int_equal(count_files(&rig, ".part"), 1);
    char path[JOURNAL_PATH_BYTES];
    struct id left = id_make_v7(3);
    journal_upload_path(path, rig.journal, left, false);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    journal_upload_abort(upload);
    rig_run(&rig);
    assert_int_equal(count_files(&rig, ".part"), 1);
    rig_close(&rig, false);
    rig_open(&rig, 0);
    assert_int_equal(count_files(&rig, ".part"), 0);
    journal_upload_abort(NULL);
    mem_free(bytes);
    rig_finish(&rig);
}

/* The end record was durable, the change of name was not: the next start makes it. */
static void test_name_is_settled_at_start(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_upload *upload = NULL;
    struct ticket ticket;
    struct id id = id_make_v7(1);
    struct journal_backlog before;
    struct journal_backlog after;
    char part[JOURNAL_PATH_BYTES];
    char up[JOURNAL_PATH_BYTES];
    uint8_t *bytes = make_bytes(MIB);
    rig_init(&rig);
    rig_open(&rig, 0);
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id, 1), ERR_OK);
    write_all(&rig, upload, bytes, MIB);
    assert_int_equal(end_upload(upload, id, &ticket), ERR_OK);
    rig_run(&rig);
    journal_upload_path(part, rig.journal, id, false);
    journal_upload_path(up, rig.journal, id, true);
    journal_backlog(rig.journal, &before);
    rig_close(&rig, true);
    assert_int_equal(rename(up, part), 0);
    rig_open(&rig, 0);
    /* Its stored bytes count again, as the end record was made to say. */
    journal_backlog(rig.journal, &after);
    assert_int_equal(after.bytes, before.bytes);
    check_bytes(&rig, id, bytes, MIB);
    assert_int_equal(access(up, F_OK), 0);
    rig_close(&rig, true);
    /* Applied long ago, its segment gone: kept, whatever the journal says. */
    char path[JOURNAL_PATH_BYTES];
    while (rig_segment_count(&rig) > 0) {
        rig_segment_path(&rig, 0, path);
        assert_int_equal(unlink(path), 0);
    }
    rig_open(&rig, 100);
    check_bytes(&rig, id, bytes, MIB);
    mem_free(bytes);
    rig_finish(&rig);
}

static void test_refusals(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_upload *upload = NULL;
    struct ticket ticket;
    bool must_pause = false;
    enum err err = ERR_OK;
    uint8_t *bytes = make_bytes(MIB);
    rig_init(&rig);
    rig.options.backlog_bytes_max = 4 * MIB;
    rig_open(&rig, 0);
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id_make_v7(1), 1), ERR_OK);
    uint64_t written = 0;
    while (err == ERR_OK) {
        err = journal_upload_write(upload, slice_make(bytes, MIB), &must_pause);
        written += MIB;
        rig_run(&rig);
    }
    /* Half of the backlog, at a half to a third of the size: it will never have room. */
    assert_int_equal(err, ERR_TOO_LARGE);
    assert_in_range(written, 3 * MIB, 8 * MIB);
    assert_int_equal(journal_upload_write(upload, slice_make(bytes, 1), &must_pause),
                     ERR_TOO_LARGE);
    assert_int_equal(end_upload(upload, id_make_v7(1), &ticket), ERR_TOO_LARGE);
    rig_run(&rig);
    assert_int_equal(count_files(&rig, ".part"), 0);
    struct journal_backlog backlog;
    journal_backlog(rig.journal, &backlog);
    assert_int_equal(backlog.bytes, 0);
    /* A directory that is gone: the error comes with the next call, and wakes who pauses. */
    tree_remove(rig.uploads);
    uint32_t rooms = 0;
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id_make_v7(2), 1), ERR_OK);
    journal_upload_on_room(upload, count_room, &rooms);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(journal_upload_write(upload, slice_make(bytes, MIB), &must_pause), ERR_OK);
    }
    assert_true(must_pause);
    rig_run(&rig);
    assert_int_equal(rooms, 1);
    assert_int_equal(journal_upload_write(upload, slice_make(bytes, 1), &must_pause),
                     ERR_NOT_FOUND);
    journal_upload_abort(upload);
    rig_run(&rig);
    journal_stop(rig.journal);
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id_make_v7(3), 1), ERR_DRAINING);
    mem_free(bytes);
    rig_finish(&rig);
}

/* Another org holds the room: the upload pauses, nothing of it fails, and it goes on when there is
 * some, also behind its last byte. */
static void test_waits_for_room(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_upload *upload = NULL;
    struct journal_backlog backlog;
    struct ticket ticket;
    struct id id = id_make_v7(1);
    uint32_t rooms = 0;
    uint32_t number = 0;
    bool must_pause = false;
    uint8_t *bytes = make_bytes(MIB);
    rig_init(&rig);
    rig.options.backlog_bytes_max = 3 * MIB;
    rig_open(&rig, 0);
    for (int i = 0; i < 5; i++) { /* 2.5 MB, by two orgs */
        assert_int_equal(
            rig_try_append(&rig, 2 + (uint64_t)i % 2, slice_make(bytes, 500000), &number), ERR_OK);
        rig_run(&rig);
    }
    journal_backlog(rig.journal, &backlog);
    uint64_t frame_bytes = backlog.bytes / 5;
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id, 1), ERR_OK);
    journal_upload_on_room(upload, count_room, &rooms);
    assert_int_equal(journal_upload_write(upload, slice_make(bytes, MIB), &must_pause), ERR_OK);
    assert_true(must_pause);
    rig_run(&rig); /* what is on the way comes back, and gives back what it did not need */
    journal_upload_retry(upload);
    rig_run(&rig);
    journal_upload_retry(upload);
    assert_int_equal(rooms, 0);
    journal_credit(rig.journal, 2, frame_bytes, 1);
    assert_int_equal(rooms, 0);
    journal_upload_retry(upload);
    rig_run(&rig);
    assert_int_equal(rooms, 1);
    /* Whole, and there is no room again. */
    assert_int_equal(rig_try_append(&rig, 4, slice_make(bytes, 500000), &number), ERR_OK);
    must_pause = false;
    assert_int_equal(journal_upload_write(upload, slice_make(bytes, MIB / 4), &must_pause), ERR_OK);
    if (!must_pause) {
        assert_int_equal(journal_upload_flush(upload, &must_pause), ERR_OK);
    }
    assert_true(must_pause);
    journal_credit(rig.journal, 3, 2 * frame_bytes, 2);
    journal_upload_retry(upload);
    assert_int_equal(rooms, 2);
    assert_int_equal(end_upload(upload, id, &ticket), ERR_OK);
    rig_run(&rig);
    assert_true(ticket.is_answered);
    assert_int_equal(ticket.err, ERR_OK);
    struct journal_upload_reader *reader = NULL;
    uint8_t found[64];
    size_t got = 0;
    assert_int_equal(journal_upload_open(&reader, rig.journal, id), ERR_OK);
    assert_int_equal(journal_upload_read(reader, MIB, found, sizeof(found), &got), ERR_OK);
    assert_memory_equal(found, bytes, sizeof(found));
    journal_upload_close(reader);
    mem_free(bytes);
    rig_finish(&rig);
}

/* The number is bounded, and shared: an org gets one as long as it has fewer than are free. */
static void test_slots_are_shared(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_upload *uploads[SLOTS_ACTIVE_MAX];
    uint32_t counts[4] = {0};
    uint32_t count = 0;
    rig_init(&rig);
    rig_open(&rig, 0);
    for (uint64_t org = 0; org < 4; org++) {
        enum err err = ERR_OK;
        while (err == ERR_OK) {
            struct journal_upload *upload = NULL;
            assert_int_equal(journal_upload_room(rig.journal, org), ERR_OK);
            err = journal_upload_begin(&upload, rig.producer, id_make_v7(1), org);
            assert_int_equal(err, ERR_OK);
            uploads[count++] = upload;
            counts[org]++;
            err = journal_upload_room(rig.journal, org);
        }
        assert_int_equal(err, ERR_BUSY);
        struct journal_upload *none = NULL;
        assert_int_equal(journal_upload_begin(&none, rig.producer, id_make_v7(1), org), ERR_BUSY);
        assert_null(none);
    }
    /* Half of what is free at each time: 64, 32, 16, 8. */
    assert_true(counts[0] == 32 && counts[1] == 16 && counts[2] == 8 && counts[3] == 4);
    for (uint32_t i = 0; i < count; i++) {
        journal_upload_abort(uploads[i]);
    }
    rig_run(&rig);
    assert_int_equal(journal_upload_room(rig.journal, 0), ERR_OK);
    assert_int_equal(rig.journal->slots.active, 0);
    assert_int_equal(rig.journal->slots.open, 0);
    rig_finish(&rig);
}

/* Accepted and not applied ones are counted, also over a restart: half of all for one org. */
static void test_open_ones_are_counted(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_upload *upload = NULL;
    struct ticket ticket;
    struct id id = id_make_v7(1);
    rig_init(&rig);
    rig_open(&rig, 0);
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id, 1), ERR_OK);
    assert_int_equal(end_upload(upload, id, &ticket), ERR_OK);
    rig_run(&rig);
    assert_int_equal(ticket.err, ERR_OK);
    assert_int_equal(rig.journal->slots.active, 0);
    assert_int_equal(rig.journal->slots.open, 1);
    rig_close(&rig, false);
    rig_open(&rig, 0);
    assert_int_equal(rig.journal->slots.open, 1);
    for (uint32_t i = 1; i < SLOTS_OPEN_MAX / 2; i++) {
        assert_int_equal(journal_upload_room(rig.journal, 1), ERR_OK);
        journal_charge(rig.journal, 1, 0, 0);
    }
    assert_int_equal(journal_upload_room(rig.journal, 1), ERR_FULL);
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id, 1), ERR_FULL);
    assert_int_equal(journal_upload_room(rig.journal, 2), ERR_OK);
    journal_credit_upload(rig.journal, id_make_v7(1), 1, 0);
    assert_int_equal(journal_upload_room(rig.journal, 1), ERR_OK);
    rig_close(&rig, false);
    /* Applied: its row is the store's matter. */
    rig_open(&rig, 1);
    assert_int_equal(rig.journal->slots.open, 0);
    rig_finish(&rig);
}

/* Any byte of the file: what is read is right or refused. */
static void test_flipped_bytes(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_upload *upload = NULL;
    struct ticket ticket;
    struct id id = id_make_v7(1);
    char path[JOURNAL_PATH_BYTES];
    uint8_t found[600];
    uint8_t *bytes = make_bytes(600);
    rig_init_in_memory(&rig);
    rig_open(&rig, 0);
    assert_int_equal(journal_upload_begin(&upload, rig.producer, id, 1), ERR_OK);
    write_all(&rig, upload, bytes, 600);
    assert_int_equal(journal_upload_note(upload, slice_make(bytes, 50)), ERR_OK);
    assert_int_equal(end_upload(upload, id, &ticket), ERR_OK);
    rig_run(&rig);
    journal_upload_path(path, rig.journal, id, true);
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    for (uint64_t at = 0; at < (uint64_t)about.st_size; at++) {
        struct journal_upload_reader *reader = NULL;
        struct buffer table;
        size_t got = 0;
        buffer_init(&table, 1000);
        rig_flip(path, at, (uint8_t)(1u << at % 8));
        enum err err = journal_upload_open(&reader, rig.journal, id);
        enum err data_err = err;
        enum err table_err = err;
        if (err == ERR_OK) {
            data_err = journal_upload_read(reader, 0, found, sizeof(found), &got);
            table_err = journal_upload_table(reader, &table);
        }
        assert_true(data_err == ERR_CORRUPT || table_err == ERR_CORRUPT);
        assert_true(data_err == ERR_CORRUPT || memcmp(found, bytes, 600) == 0);
        assert_true(table_err == ERR_CORRUPT || memcmp(table.data, bytes, 50) == 0);
        journal_upload_close(reader);
        buffer_finish(&table);
        rig_flip(path, at, (uint8_t)(1u << at % 8));
    }
    mem_free(bytes);
    rig_finish(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_several_indexes),
        cmocka_unit_test(test_abort_and_cut_off),
        cmocka_unit_test(test_name_is_settled_at_start),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_flipped_bytes),
        cmocka_unit_test(test_waits_for_room),
        cmocka_unit_test(test_slots_are_shared),
        cmocka_unit_test(test_open_ones_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
