/* Journal rig: the journal without threads. The steps that its threads make are made here, so a
 * test decides what happens when. */
#include "support/journal_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"
#include "support/journal_place.h"
#include "support/tree.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void rig_init_at(struct rig *rig, const char *parent)
{
    *rig = (struct rig){.producer = NULL};
    assert_int_equal(hash_start(), ERR_OK);
    journal_place_make(parent, rig->root, rig->directory, rig->uploads, &rig->options);
    rig->tickets = mem_alloc_array(RIG_FRAMES_MAX, sizeof(*rig->tickets));
    assert_int_equal(mailbox_create(&rig->mailbox, 1024), ERR_OK);
}

void rig_init(struct rig *rig)
{
    rig_init_at(rig, ".");
}

void rig_init_in_memory(struct rig *rig)
{
    rig_init_at(rig, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ".");
}

void rig_finish(struct rig *rig)
{
    rig_close(rig, false);
    mailbox_destroy(rig->mailbox);
    mem_free(rig->tickets);
    tree_remove(rig->root);
}

enum err rig_try_open(struct rig *rig, uint64_t applied)
{
    struct err_detail detail = {""};
    enum err err = journal_open(&rig->journal, &rig->options,
                                (struct journal_from[]){journal_from_all(applied)}, &detail);
    if (err != ERR_OK) {
        assert_true(detail.text[0] != '\0' || err == ERR_NO_MEMORY);
        return err;
    }
    err = journal_start(rig->journal, 0, &detail);
    if (err == ERR_OK) {
        err = journal_producer_create(&rig->producer, rig->journal, 0, rig->mailbox);
    }
    if (err != ERR_OK) {
        journal_close(rig->journal);
        rig->journal = NULL;
    }
    return err;
}

void rig_open(struct rig *rig, uint64_t applied)
{
    assert_int_equal(rig_try_open(rig, applied), ERR_OK);
}

void rig_close(struct rig *rig, bool is_clean)
{
    if (rig->journal == NULL) {
        return;
    }
    if (is_clean) {
        journal_stop(rig->journal);
        while (journal_committer_step(rig->journal)) {
        }
        journal_committer_finish(rig->journal);
    }
    while (journal_committer_step(rig->journal) || journal_uploader_step(rig->journal) ||
           mailbox_run_all(rig->mailbox) > 0) {
    }
    journal_producer_destroy(rig->producer);
    journal_close(rig->journal);
    rig->producer = NULL;
    rig->journal = NULL;
}

static void rig_on_durable(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    struct rig_ticket *mine = LIST_CONTAINER(ticket, struct rig_ticket, ticket);
    assert_false(mine->is_answered);
    mine->is_answered = true;
    mine->err = err;
    mine->position = position;
    mine->rig->answered_count++;
}

enum err rig_try_append(struct rig *rig, uint64_t org, struct slice body, uint32_t *ret_ticket)
{
    struct record_frame record = {
        .form = RECORD_FORM_EVENT, .org = org, .received_ms = 1000, .record_count = 1};
    /* Memory of its own: the journal's may be refused by a fault test. */
    uint8_t head_bytes[256];
    struct buffer head = {head_bytes, 0, sizeof(head_bytes), sizeof(head_bytes)};
    assert_int_equal(record_frame_encode_head(&record, &head), ERR_OK);
    struct journal_frame_parts parts = {.org = org,
                                        .lane = 3,
                                        .form = RECORD_FORM_EVENT,
                                        .record_count = 1,
                                        .head = buffer_slice(&head),
                                        .body = body};
    assert_true(rig->ticket_count < RIG_FRAMES_MAX);
    struct rig_ticket *ticket = &rig->tickets[rig->ticket_count];
    *ticket = (struct rig_ticket){.rig = rig, .ticket.on_durable = rig_on_durable};
    enum err err = journal_append(rig->producer, &parts, &ticket->ticket);
    if (err == ERR_OK) {
        *ret_ticket = rig->ticket_count++;
    }
    return err;
}

uint32_t rig_append(struct rig *rig, uint32_t number, size_t size)
{
    uint32_t ticket = UINT32_MAX;
    size = size < 8 ? 8 : size;
    uint8_t *body = mem_alloc(size);
    buffer_put_u32(body, number);
    buffer_put_u32(body + 4, (uint32_t)size);
    for (size_t i = 8; i < size; i++) {
        body[i] = (uint8_t)(number + i);
    }
    assert_int_equal(rig_try_append(rig, 1, slice_make(body, size), &ticket), ERR_OK);
    mem_free(body);
    return ticket;
}

void rig_run(struct rig *rig)
{
    journal_submit(rig->producer);
    while (journal_committer_step(rig->journal) || journal_uploader_step(rig->journal) ||
           mailbox_run_all(rig->mailbox) > 0) {
    }
}

void rig_run_all(struct rig *rig)
{
    do {
        rig_run(rig);
    } while (journal_preparer_step(rig->journal));
}

uint32_t rig_number(const struct journal_frame *frame)
{
    struct record_frame record;
    if (record_frame_decode(frame->bytes_slice, &record) != ERR_OK || record.body.size < 8) {
        return UINT32_MAX;
    }
    uint32_t number = buffer_get_u32(record.body.data);
    if (record.body.size != buffer_get_u32(record.body.data + 4)) {
        return UINT32_MAX;
    }
    for (size_t i = 8; i < record.body.size; i++) {
        if (record.body.data[i] != (uint8_t)(number + i)) {
            return UINT32_MAX;
        }
    }
    return number;
}

uint32_t rig_read(struct rig *rig, uint64_t after, uint32_t *ret_numbers, uint64_t *ret_positions,
                  uint32_t max)
{
    struct journal_reader *reader = NULL;
    struct journal_frame frame;
    uint32_t count = 0;
    uint64_t last = after;
    bool has = true;
    assert_int_equal(journal_reader_open(&reader, rig->journal,
                                         (struct journal_from[]){journal_from_all(after)}),
                     ERR_OK);
    while (has) {
        assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
        if (has) {
            assert_true(count < max);
            assert_true(frame.position > last);
            last = frame.position;
            ret_numbers[count] = rig_number(&frame);
            if (ret_positions != NULL) {
                ret_positions[count] = frame.position;
            }
            count++;
        }
    }
    journal_reader_close(reader);
    return count;
}

void rig_segment_path(struct rig *rig, uint32_t i, char to[JOURNAL_PATH_BYTES])
{
    struct journal_files files;
    assert_int_equal(journal_files_list(&files, rig->directory), ERR_OK);
    assert_true(i < files.segment_count);
    journal_file_path(to, rig->directory, &files.rows[i]);
    journal_files_finish(&files);
}

uint32_t rig_segment_count(struct rig *rig)
{
    struct journal_files files;
    assert_int_equal(journal_files_list(&files, rig->directory), ERR_OK);
    uint32_t count = files.segment_count;
    journal_files_finish(&files);
    return count;
}

void rig_flip(const char *path, uint64_t offset, uint8_t mask)
{
    uint8_t byte = 0;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= mask;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    assert_int_equal(close(fd), 0);
}
