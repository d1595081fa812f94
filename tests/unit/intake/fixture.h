/* What the tests of intake share: a journal in a directory of its own with its threads, one loop's
 * mailbox, producer and intake, and the answers that came. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "intake/intake.h"
#include "journal/journal.h"
#include "support/tree.h"

#define FIXTURE_ORG       7u
#define FIXTURE_KEY       70u
#define FIXTURE_RUN       0x1234u
#define FIXTURE_ITEMS_MAX 2000u

static const uint8_t fixture_id_key[32] = {9, 8, 7};

struct fixture_options {
    uint64_t backlog_bytes;
    uint64_t pool_bytes;
    uint32_t waiters;
};

struct fixture {
    char directory[64];
    struct journal *journal;
    struct journal_producer *producer;
    struct mailbox *mailbox;
    struct intake_recent *recent;
    struct intake *intake;
    struct thread *threads[3];
    uint64_t read_after;
};

struct answered {
    uint32_t count; /* of answers: exactly one */
    uint32_t rooms; /* of on_room */
    struct intake_answer answer;
    struct intake_item items[FIXTURE_ITEMS_MAX];
};

static inline void fixture_on_answer(struct intake_request *request,
                                     const struct intake_answer *answer, void *context)
{
    struct answered *answered = context;
    (void)request;
    answered->count++;
    answered->answer = *answer;
    assert_true(answer->item_count <= FIXTURE_ITEMS_MAX);
    if (answer->item_count != 0) {
        memcpy(answered->items, answer->items, answer->item_count * sizeof(answer->items[0]));
    }
    answered->answer.items = answered->items;
}

static inline void fixture_on_room(struct intake_request *request, void *context)
{
    (void)request;
    ((struct answered *)context)->rooms++;
}

static inline struct fixture *fixture_open(const struct fixture_options *wanted)
{
    assert_int_equal(hash_start(), ERR_OK);
    struct fixture *fixture = test_calloc(1, sizeof(*fixture));
    char journal_path[96];
    char uploads_path[96];
    (void)snprintf(fixture->directory, sizeof(fixture->directory), "intake_test_XXXXXX");
    assert_non_null(mkdtemp(fixture->directory));
    (void)snprintf(journal_path, sizeof(journal_path), "%s/journal", fixture->directory);
    (void)snprintf(uploads_path, sizeof(uploads_path), "%s/uploads", fixture->directory);
    struct journal_options options = {
        .directory = journal_path,
        .uploads_directory = uploads_path,
        .segment_bytes = 8u << 20,
        .backlog_bytes_max = wanted->backlog_bytes == 0 ? 256u << 20 : wanted->backlog_bytes,
        .replay_window_s = 0,
        .producer_count = 1,
    };
    struct err_detail detail = {{0}};
    enum err err = journal_open(&fixture->journal, &options,
                                (struct journal_from[]){journal_from_all(0)}, &detail);
    if (err == ERR_OK) {
        err = journal_start(fixture->journal, 0, &detail);
    }
    if (err != ERR_OK) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(mailbox_create(&fixture->mailbox, 1024), ERR_OK);
    assert_int_equal(
        journal_producer_create(&fixture->producer, fixture->journal, 0, fixture->mailbox), ERR_OK);
    fixture->recent = intake_recent_create(4096);
    struct intake_options intake = {
        .journal = fixture->journal,
        .producer = fixture->producer,
        .mailbox = fixture->mailbox,
        .loop_index = 3,
        .run = FIXTURE_RUN,
        .pool_bytes = wanted->pool_bytes == 0 ? 8u << 20 : wanted->pool_bytes,
        .waiters_max = wanted->waiters == 0 ? 8 : wanted->waiters,
        .recent = fixture->recent,
    };
    assert_int_equal(intake_create(&fixture->intake, &intake), ERR_OK);
    assert_int_equal(
        thread_start(&fixture->threads[0], "commit", journal_committer_run, fixture->journal),
        ERR_OK);
    assert_int_equal(
        thread_start(&fixture->threads[1], "prepare", journal_preparer_run, fixture->journal),
        ERR_OK);
    assert_int_equal(
        thread_start(&fixture->threads[2], "upload", journal_uploader_run, fixture->journal),
        ERR_OK);
    return fixture;
}

static inline void fixture_close(struct fixture *fixture)
{
    journal_stop(fixture->journal);
    for (size_t i = 0; i < 3; i++) {
        thread_join(fixture->threads[i]);
    }
    while (mailbox_run_all(fixture->mailbox) > 0) {
    }
    intake_destroy(fixture->intake);
    while (mailbox_run_all(fixture->mailbox) > 0) {
    }
    journal_producer_destroy(fixture->producer);
    mailbox_destroy(fixture->mailbox);
    journal_close(fixture->journal);
    intake_recent_destroy(fixture->recent);
    tree_remove(fixture->directory);
    test_free(fixture);
}

static inline struct intake_begin fixture_begin(enum record_form form, struct answered *answered)
{
    memset(answered, 0, sizeof(*answered));
    return (struct intake_begin){
        .org = FIXTURE_ORG,
        .key = FIXTURE_KEY,
        .id_key = fixture_id_key,
        .form = form,
        .wait = INTAKE_WAIT_JOURNAL,
        .on_answer = fixture_on_answer,
        .on_room = fixture_on_room,
        .context = answered,
    };
}

/* Gives the body in chunks; false when it was answered before its end. */
static inline bool fixture_give(struct fixture *fixture, const struct intake_begin *begin,
                                struct slice body, size_t chunk_bytes)
{
    struct answered *answered = begin->context;
    struct intake_request *request = NULL;
    assert_int_equal(intake_open(fixture->intake, begin, &request), ERR_OK);
    for (size_t at = 0; at < body.size && answered->count == 0; at += chunk_bytes) {
        bool pause = false;
        uint32_t rooms = answered->rooms;
        struct slice part = slice_part(body, at, at + chunk_bytes);
        uint8_t *copy = malloc(part.size);
        assert_non_null(copy);
        memcpy(copy, part.data, part.size);
        intake_data(request, slice_make(copy, part.size), &pause);
        memset(copy, 0xee, part.size);
        free(copy);
        while (answered->count == 0 && pause && answered->rooms == rooms) {
            mailbox_wait(fixture->mailbox, -1);
            (void)mailbox_run_all(fixture->mailbox);
        }
    }
    if (answered->count != 0) {
        return false;
    }
    intake_end(request);
    return true;
}

static inline void fixture_wait(struct fixture *fixture, const struct answered *answered)
{
    intake_round_end(fixture->intake);
    while (answered->count == 0) {
        mailbox_wait(fixture->mailbox, -1);
        (void)mailbox_run_all(fixture->mailbox);
        intake_round_end(fixture->intake);
    }
    assert_int_equal(answered->count, 1);
}

/* Body in chunks, then the answer. */
static inline void fixture_send(struct fixture *fixture, const struct intake_begin *begin,
                                struct slice body, size_t chunk_bytes)
{
    (void)fixture_give(fixture, begin, body, chunk_bytes);
    fixture_wait(fixture, begin->context);
}

/* The next frame of the journal, given to `see`; false when there is none. */
static inline bool fixture_read(struct fixture *fixture,
                                void (*see)(const struct journal_frame *frame,
                                            const struct record_frame *record, void *context),
                                void *context)
{
    struct journal_reader *reader = NULL;
    struct journal_frame frame;
    struct record_frame record;
    bool has = false;
    assert_int_equal(
        journal_reader_open(&reader, fixture->journal,
                            (struct journal_from[]){journal_from_all(fixture->read_after)}),
        ERR_OK);
    assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
    if (has) {
        fixture->read_after = frame.position;
        assert_int_equal(record_frame_decode(frame.bytes_slice, &record), ERR_OK);
        if (see != NULL) {
            see(&frame, &record, context);
        }
    }
    journal_reader_close(reader);
    return has;
}
