/* Promise: a batch above 256 KiB becomes an upload that holds its bytes as they came, whose slices
 * give each element once with the id that was answered; a broken, refused or abandoned one is gone.
 */
#include "unit/intake/fixture.h"

#include "intake/request.h"

#include <dirent.h>

#define LINE_COUNT 40000u
/* Of the small backlog: two that hold this leave less than a block needs. */
#define SMALL_BACKLOG_BYTES ((uint64_t)2048 * 1024)
#define OTHERS_BYTES        ((SMALL_BACKLOG_BYTES - 250000) / 2)

static int open_default(void **state)
{
    *state = fixture_open(&(struct fixture_options){0});
    return 0;
}

static int close_it(void **state)
{
    fixture_close(*state);
    return 0;
}

static const char *head(enum record_form form)
{
    return form == RECORD_FORM_EVENT_LINES   ? ""
           : form == RECORD_FORM_EVENT_ARRAY ? " ["
                                             : "{\"writeKey\":\"k\",\"batch\":[";
}

static const char *tail(enum record_form form)
{
    return form == RECORD_FORM_EVENT_LINES   ? ""
           : form == RECORD_FORM_EVENT_ARRAY ? "]\n"
                                             : "],\"sentAt\":\"x\"}";
}

/* `count` elements, number `wrong` of them without a type (none: UINT32_MAX). */
static char *make_body(enum record_form form, uint32_t count, uint32_t wrong, size_t *ret_size)
{
    char *body = malloc(count * 120 + 100);
    assert_non_null(body);
    size_t at = (size_t)sprintf(body, "%s", head(form));
    const char *between = form == RECORD_FORM_EVENT_LINES ? "\n" : ",\r\n";
    for (uint32_t i = 0; i < count; i++) {
        at += (size_t)sprintf(body + at,
                              i == wrong ? "%s{\"payload\":%u}"
                              : form == RECORD_FORM_SEGMENT_BATCH
                                  ? "%s{\"type\":\"track\",\"event\":\"e\","
                                    "\"messageId\":\"m%u\",\"properties\":{\"a\":1}}"
                                  : "%s{\"type\":\"a.b\",\"payload\":{\"some\":\"text\"},"
                                    "\"dedup_id\":\"d%u\"}",
                              i == 0 ? "" : between, i);
    }
    at += (size_t)sprintf(body + at, "%s", tail(form));
    *ret_size = at;
    return body;
}

struct ended {
    struct record_upload_end end;
    struct id frame_id;
    uint32_t record_count;
};

static void see_end(const struct journal_frame *frame, const struct record_frame *record,
                    void *context)
{
    struct ended *ended = context;
    assert_int_equal(frame->form, RECORD_FORM_UPLOAD_END);
    assert_int_equal(record->lane,
                     record_lane(record->org, slice_make(record->id.bytes, sizeof(record->id))));
    ended->frame_id = record->id;
    ended->record_count = record->record_count;
    assert_int_equal(record_upload_end_decode(record->body, &ended->end), ERR_OK);
}

static void read_all(struct journal_upload_reader *reader, uint8_t *to, uint64_t size)
{
    uint64_t at = 0;
    size_t got = 1;
    while (got != 0) {
        assert_int_equal(journal_upload_read(reader, at, to + at, size + 1 - at, &got), ERR_OK);
        at += got;
    }
    assert_int_equal(at, size);
}

/* Reads every slice as the applier does; gives how many elements were right. */
static uint64_t apply_slices(const struct ended *ended, const uint8_t *bytes,
                             const struct buffer *table, const struct answered *answered)
{
    struct format_reader *reader = format_reader_create();
    struct format_context context = {
        .id_key = fixture_id_key, .frame_id = ended->frame_id, .received_ms = 1};
    struct record_slice slice;
    struct record_slice next;
    uint64_t taken = 0;
    uint64_t expected_index = 0;
    for (uint32_t i = 0; i < ended->end.slice_count; i++) {
        record_slice_decode(table->data + (size_t)i * RECORD_SLICE_BYTES, &slice);
        next.offset = ended->end.decoded_bytes;
        if (i + 1 < ended->end.slice_count) {
            record_slice_decode(table->data + (size_t)(i + 1) * RECORD_SLICE_BYTES, &next);
        }
        assert_int_equal(slice.index, expected_index);
        assert_in_range(slice.count, 1, 8192);
        assert_in_range(next.offset - slice.offset, 1, (1u << 20) + 300000);
        struct format_item item;
        bool has = true;
        format_batch_begin_at(reader, (enum record_form)ended->end.form, &context, slice.index,
                              slice.count);
        format_batch_feed(reader, slice_make(bytes + slice.offset, next.offset - slice.offset));
        for (bool at_end = false; !at_end;) {
            assert_int_equal(format_batch_next(reader, &item, &has), ERR_OK);
            if (!has) {
                assert_int_equal(format_batch_end(reader, &item, &has), ERR_OK);
                at_end = true;
            }
            if (has) {
                assert_int_equal(item.index, expected_index);
                expected_index++;
                taken += item.err == ERR_OK;
            }
            if (has && item.err == ERR_OK && item.index < 1000) {
                assert_true(id_equal(item.event.id, answered->items[item.index].id));
            }
        }
    }
    assert_int_equal(expected_index, ended->end.element_count);
    format_reader_destroy(reader);
    return taken;
}

static void uploads_hold_what_came(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static const enum record_form forms[] = {RECORD_FORM_EVENT_LINES, RECORD_FORM_EVENT_ARRAY,
                                             RECORD_FORM_SEGMENT_BATCH};
    static const size_t chunks[] = {65536, 200000, 1000};
    for (size_t f = 0; f < 3; f++) {
        size_t size;
        char *body = make_body(forms[f], LINE_COUNT, 20000, &size);
        assert_true(size > 2 * 1024 * 1024);
        struct intake_begin begin = fixture_begin(forms[f], &answered);
        begin.body_bytes = f == 1 ? size : 0;
        fixture_send(fixture, &begin, slice_make(body, size), chunks[f]);
        assert_int_equal(answered.answer.err, ERR_OK);
        assert_true(answered.answer.is_upload);
        assert_int_equal(answered.answer.accepted + answered.answer.duplicates, LINE_COUNT - 1);
        assert_int_equal(answered.answer.rejected, 1);
        assert_int_equal(answered.answer.item_count, 1001);
        assert_int_equal(answered.items[1000].index, 20000);
        assert_int_equal(answered.items[1000].status, INTAKE_REJECTED);

        struct ended ended;
        assert_true(fixture_read(fixture, see_end, &ended));
        assert_int_equal(ended.record_count, LINE_COUNT - 1);
        assert_true(id_equal(ended.end.upload, answered.answer.id));
        assert_true(id_equal(ended.frame_id, answered.answer.id));
        assert_int_equal(ended.end.form, forms[f]);
        assert_int_equal(ended.end.decoded_bytes, size);
        assert_int_equal(ended.end.element_count, LINE_COUNT);
        assert_int_equal(ended.end.accepted_count, LINE_COUNT - 1);
        assert_int_equal(ended.end.rejected_count, 1);
        assert_true(ended.end.slice_count >= LINE_COUNT / 8192);

        struct journal_upload_reader *reader = NULL;
        struct buffer table;
        buffer_init(&table, 1 << 20);
        assert_int_equal(journal_upload_open(&reader, fixture->journal, ended.end.upload), ERR_OK);
        uint8_t *bytes = malloc(size + 1);
        assert_non_null(bytes);
        read_all(reader, bytes, size);
        assert_memory_equal(bytes, body, size);
        assert_int_equal(journal_upload_table(reader, &table), ERR_OK);
        assert_int_equal(table.size,
                         ended.end.slice_count * RECORD_SLICE_BYTES + RECORD_REJECT_BYTES);
        assert_int_equal(apply_slices(&ended, bytes, &table, &answered), LINE_COUNT - 1);
        struct record_reject reject;
        record_reject_decode(table.data + ended.end.slice_count * RECORD_SLICE_BYTES, &reject);
        assert_int_equal(reject.index, 20000);
        assert_true(slice_equal(reject.code, SLICE_LITERAL("missing_field")));
        assert_memory_equal(body + reject.offset, "{\"payload\":20000}", 17);
        journal_upload_close(reader);
        buffer_finish(&table);
        free(bytes);
        free(body);
    }
}

/* Names in the uploads folder. */
static uint32_t count_files(const struct fixture *fixture)
{
    char path[96];
    uint32_t count = 0;
    (void)snprintf(path, sizeof(path), "%s/uploads", fixture->directory);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        count += entry->d_name[0] != '.';
    }
    (void)closedir(directory);
    return count;
}

/* A file goes on the uploader's thread: the next upload's answer says that it has come by. */
static void assert_only_this_upload_is_left(struct fixture *fixture)
{
    static struct answered answered;
    size_t size;
    char *body = make_body(RECORD_FORM_EVENT_LINES, 8000, UINT32_MAX, &size);
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered);
    fixture_send(fixture, &begin, slice_make(body, size), 60000);
    assert_int_equal(answered.answer.err, ERR_OK);
    free(body);
    assert_int_equal(count_files(fixture), 1);
    assert_true(fixture_read(fixture, see_end, &(struct ended){0}));
    assert_false(fixture_read(fixture, NULL, NULL));
}

static void a_malformed_one_is_refused_as_a_whole(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    size_t size;
    char *body = make_body(RECORD_FORM_EVENT_LINES, LINE_COUNT, 5, &size);
    char *place = strstr(body, "\"d25000\"");
    assert_non_null(place);
    place[0] = 'x';
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered);
    assert_false(fixture_give(fixture, &begin, slice_make(body, size), 100000));
    assert_int_equal(answered.answer.err, ERR_SYNTAX);
    assert_int_equal(answered.answer.fault.offset, (uint64_t)(place - body));
    assert_int_equal(answered.answer.rejected, 0);
    /* One that breaks off: known at its end. */
    begin = fixture_begin(RECORD_FORM_EVENT_ARRAY, &answered);
    free(body);
    body = make_body(RECORD_FORM_EVENT_ARRAY, LINE_COUNT, UINT32_MAX, &size);
    assert_true(fixture_give(fixture, &begin, slice_make(body, size - 10), 100000));
    assert_int_equal(answered.answer.err, ERR_SYNTAX);
    free(body);
    assert_only_this_upload_is_left(fixture);
}

static void an_atomic_one_with_a_wrong_element_is_refused(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    size_t size;
    char *body = make_body(RECORD_FORM_EVENT_LINES, LINE_COUNT, 12000, &size);
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered);
    begin.atomic = true;
    assert_true(fixture_give(fixture, &begin, slice_make(body, size), 100000));
    assert_int_equal(answered.answer.err, ERR_INVALID);
    assert_int_equal(answered.answer.rejected, 1);
    assert_int_equal(answered.answer.item_count, 1);
    assert_int_equal(answered.items[0].index, 12000);
    free(body);
    assert_only_this_upload_is_left(fixture);
}

static void one_of_wrong_elements_only_is_refused(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    size_t size = 400000;
    char *body = malloc(size);
    assert_non_null(body);
    for (size_t i = 0; i < size; i += 4) {
        memcpy(body + i, "{ }\n", 4);
    }
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered);
    assert_true(fixture_give(fixture, &begin, slice_make(body, size), 100000));
    assert_int_equal(answered.answer.err, ERR_INVALID);
    assert_int_equal(answered.answer.rejected, size / 4);
    assert_int_equal(answered.answer.item_count, 1000);
    free(body);
    assert_only_this_upload_is_left(fixture);
}

static void an_abandoned_one_is_gone(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    size_t size;
    char *body = make_body(RECORD_FORM_EVENT_LINES, LINE_COUNT, UINT32_MAX, &size);
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered);
    struct intake_request *request = NULL;
    bool pause = false;
    assert_int_equal(intake_open(fixture->intake, &begin, &request), ERR_OK);
    for (size_t at = 0; at < 700000; at += 100000) {
        intake_data(request, slice_make(body + at, 100000), &pause);
    }
    assert_true(intake_cancel(request));
    assert_int_equal(answered.count, 0);
    free(body);
    assert_only_this_upload_is_left(fixture);
}

/* Incompressible, so that the blocks on the way reach their bound and reading is paused. */
static void a_fast_sender_is_paused(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered);
    struct intake_request *request = NULL;
    static char line[100001];
    uint32_t pauses = 0;
    assert_int_equal(intake_open(fixture->intake, &begin, &request), ERR_OK);
    for (uint32_t i = 0; i < 200; i++) {
        int at = sprintf(line, "{\"type\":\"a\",\"payload\":\"");
        hash_random(line + at, sizeof(line) - 4 - (size_t)at);
        for (size_t k = (size_t)at; k < sizeof(line) - 4; k++) {
            line[k] = (char)('A' + (line[k] & 31));
            line[k] = line[k] == '\\' ? 'x' : line[k];
        }
        memcpy(line + sizeof(line) - 4, "\"}\n", 3);
        bool pause = false;
        uint32_t rooms = answered.rooms;
        intake_data(request, slice_make(line, sizeof(line) - 1), &pause);
        pauses += pause;
        while (pause && answered.rooms == rooms) {
            mailbox_wait(fixture->mailbox, -1);
            (void)mailbox_run_all(fixture->mailbox);
            intake_round_end(fixture->intake);
        }
        assert_int_equal(answered.count, 0);
    }
    intake_end(request);
    fixture_wait(fixture, &answered);
    assert_int_equal(answered.answer.err, ERR_OK);
    assert_int_equal(answered.answer.accepted, 200);
    assert_int_equal(answered.rooms, pauses);
}

/* 30 s without room: refused, and not as one who has too much waiting. */
static void a_long_pause_ends_it(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered);
    struct intake_request *request = NULL;
    static char line[100001];
    bool pause = false;
    assert_int_equal(intake_open(fixture->intake, &begin, &request), ERR_OK);
    while (!pause) { /* the answers of the uploader are not taken, so there is no room */
        int at = sprintf(line, "{\"type\":\"a\",\"payload\":\"");
        memset(line + at, 'x', sizeof(line) - 4 - (size_t)at);
        memcpy(line + sizeof(line) - 4, "\"}\n", 3);
        intake_data(request, slice_make(line, sizeof(line) - 1), &pause);
    }
    intake_round_end(fixture->intake);
    assert_int_equal(answered.count, 0);
    request->paused_ms -= INTAKE_PAUSE_MS_MAX;
    fixture->intake->looked_ms = 0;
    intake_round_end(fixture->intake);
    assert_int_equal(answered.count, 1);
    assert_int_equal(answered.answer.err, ERR_TIMEOUT);
    assert_only_this_upload_is_left(fixture);
}

/* One org's slow uploads: it gets half of the slots, its next one waits unread, and another org's
 * is taken at once. */
static void one_orgs_slow_uploads_stop_no_other(void **state)
{
    enum { HALF = 32 };
    struct fixture *fixture = *state;
    static struct answered answered[HALF + 2];
    static struct answered other;
    struct intake_request *requests[HALF + 2];
    size_t size;
    char *body = make_body(RECORD_FORM_EVENT_LINES, 8000, UINT32_MAX, &size);
    bool pause = false;
    for (int i = 0; i < HALF + 1; i++) {
        struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered[i]);
        assert_int_equal(intake_open(fixture->intake, &begin, &requests[i]), ERR_OK);
        intake_data(requests[i], slice_make(body, 200000), &pause);
        assert_false(pause);
        intake_data(requests[i], slice_make(body + 200000, 100000), &pause);
        assert_int_equal(pause, i == HALF);
    }
    /* One whose size is known waits before its first byte. */
    struct intake_begin known = fixture_begin(RECORD_FORM_EVENT_LINES, &answered[HALF + 1]);
    known.body_bytes = size;
    assert_int_equal(intake_open(fixture->intake, &known, &requests[HALF + 1]), ERR_OK);
    assert_true(intake_is_paused(requests[HALF + 1]));
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &other);
    begin.org = FIXTURE_ORG + 1;
    fixture_send(fixture, &begin, slice_make(body, size), 60000);
    assert_int_equal(other.answer.err, ERR_OK);
    assert_true(other.answer.is_upload);
    /* Room for one, in the order in which they came; then the other. */
    for (int i = 0; i < 2; i++) {
        struct answered *waiter = &answered[HALF + i];
        struct intake_request *request = requests[HALF + i];
        assert_int_equal(waiter->count, 0);
        /* A round may have looked since the first one ended, which made room as well. */
        assert_true(i > 0 || waiter->rooms == 0);
        assert_true(intake_cancel(requests[i]));
        fixture->intake->looked_ms = 0;
        intake_round_end(fixture->intake);
        assert_int_equal(waiter->rooms, 1);
        assert_true(i > 0 || answered[HALF + 1].rooms == 0);
        assert_false(intake_is_paused(request));
        size_t at = i == 0 ? 300000 : 0;
        intake_data(request, slice_make(body + at, size - at), &pause);
        while (intake_is_paused(request)) {
            mailbox_wait(fixture->mailbox, -1);
            (void)mailbox_run_all(fixture->mailbox);
        }
        intake_end(request);
        fixture_wait(fixture, waiter);
        assert_int_equal(waiter->answer.err, ERR_OK);
        assert_int_equal(waiter->answer.accepted + waiter->answer.duplicates, 8000);
    }
    for (int i = 2; i < HALF; i++) {
        assert_true(intake_cancel(requests[i]));
    }
    free(body);
}

static int open_small_backlog(void **state)
{
    *state = fixture_open(&(struct fixture_options){.backlog_bytes = SMALL_BACKLOG_BYTES});
    return 0;
}

/* A line of 100,000 bytes that compresses to about a half. */
static void make_line(char line[100001])
{
    int at = sprintf(line, "{\"type\":\"a\",\"payload\":\"");
    hash_random(line + at, 100000 - 3 - (size_t)at);
    for (size_t k = (size_t)at; k < 100000 - 3; k++) {
        line[k] = (char)('a' + (line[k] & 15));
    }
    memcpy(line + 100000 - 3, "\"}\n", 4);
}

static void one_that_never_has_room_is_refused(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static char line[100001];
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered);
    struct intake_request *request = NULL;
    bool pause = false;
    assert_int_equal(intake_open(fixture->intake, &begin, &request), ERR_OK);
    for (uint32_t i = 0; i < 60 && answered.count == 0; i++) {
        make_line(line);
        intake_data(request, slice_make(line, 100000), &pause);
        while (answered.count == 0 && intake_is_paused(request)) {
            mailbox_wait(fixture->mailbox, -1);
            (void)mailbox_run_all(fixture->mailbox);
        }
    }
    assert_int_equal(answered.count, 1);
    assert_int_equal(answered.answer.err, ERR_TOO_LARGE);
    assert_non_null(answered.answer.fault.message);
    assert_false(fixture_read(fixture, NULL, NULL));
}

/* Begins before the backlog fills, and goes on sending until it is paused for that. */
static struct intake_request *send_until_paused(struct fixture *fixture, struct answered *answered,
                                                uint32_t *ret_lines)
{
    static char line[100001];
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, answered);
    struct intake_request *request = NULL;
    bool pause = false;
    uint32_t lines = 0;
    assert_int_equal(intake_open(fixture->intake, &begin, &request), ERR_OK);
    for (; lines < 5; lines++) {
        make_line(line);
        intake_data(request, slice_make(line, 100000), &pause);
    }
    journal_charge(fixture->journal, 100, OTHERS_BYTES, 1);
    journal_charge(fixture->journal, 101, OTHERS_BYTES, 1);
    while (!pause) {
        make_line(line);
        intake_data(request, slice_make(line, 100000), &pause);
        lines++;
    }
    *ret_lines = lines;
    return request;
}

static void look_for_room(struct fixture *fixture)
{
    fixture->intake->looked_ms = 0;
    intake_round_end(fixture->intake);
    (void)mailbox_run_all(fixture->mailbox);
}

static void a_full_backlog_pauses_it(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    static struct answered refused;
    uint32_t lines = 0;
    struct intake_request *request = send_until_paused(fixture, &answered, &lines);
    for (int i = 0; i < 10; i++) {
        look_for_room(fixture);
    }
    assert_int_equal(answered.count, 0);
    assert_true(intake_is_paused(request));
    /* One that only begins is told at once. */
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &refused);
    struct intake_request *none = NULL;
    begin.body_bytes = 1000000;
    assert_int_equal(intake_open(fixture->intake, &begin, &none), ERR_FULL);
    assert_null(none);
    uint32_t rooms = answered.rooms;
    journal_credit_upload(fixture->journal, id_make_v7(1), 100, OTHERS_BYTES);
    while (intake_is_paused(request)) {
        look_for_room(fixture);
    }
    assert_int_equal(answered.rooms, rooms + 1);
    intake_end(request);
    while (answered.count == 0) {
        look_for_room(fixture);
    }
    assert_int_equal(answered.answer.err, ERR_OK);
    assert_int_equal(answered.answer.accepted, lines);
    assert_true(fixture_read(fixture, see_end, &(struct ended){0}));
}

/* 30 s without room: told so, and nothing is left of it. */
static void a_backlog_that_stays_full_ends_it(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    uint32_t lines = 0;
    struct intake_request *request = send_until_paused(fixture, &answered, &lines);
    for (int i = 0; i < 10; i++) {
        look_for_room(fixture);
    }
    assert_int_equal(answered.count, 0);
    request->paused_ms -= INTAKE_PAUSE_MS_MAX - 1000;
    look_for_room(fixture);
    assert_int_equal(answered.count, 0);
    request->paused_ms -= 1000;
    look_for_room(fixture);
    assert_int_equal(answered.count, 1);
    assert_int_equal(answered.answer.err, ERR_TIMEOUT);
    journal_credit_upload(fixture->journal, id_make_v7(1), 100, OTHERS_BYTES);
    assert_only_this_upload_is_left(fixture);
}

/* Behind its last byte: it is answered when there was room, and not before. */
static void one_that_is_whole_waits_for_room(void **state)
{
    struct fixture *fixture = *state;
    static struct answered answered;
    uint32_t lines = 0;
    struct intake_request *request = send_until_paused(fixture, &answered, &lines);
    intake_end(request);
    for (int i = 0; i < 10; i++) {
        look_for_room(fixture);
    }
    assert_int_equal(answered.count, 0);
    assert_true(intake_is_paused(request));
    journal_credit_upload(fixture->journal, id_make_v7(1), 100, OTHERS_BYTES);
    while (answered.count == 0) {
        look_for_room(fixture);
    }
    assert_int_equal(answered.answer.err, ERR_OK);
    assert_int_equal(answered.answer.accepted, lines);
}

/* It waited for room and is refused in the same turn: what comes then is only read, and nobody
 * would end a pause. */
static void a_refused_one_waits_for_no_room(void **state)
{
    static const char wrong[] = "{\"type\":5,\"payload\":1}\n";
    static char lines[3 * 100000 + sizeof(wrong)];
    struct fixture *fixture = *state;
    static struct answered answered;
    struct intake_begin begin = fixture_begin(RECORD_FORM_EVENT_LINES, &answered);
    struct intake_request *request = NULL;
    bool pause = false;
    uint64_t room = LIMIT_UPLOAD_BLOCK_BYTES + 100; /* no block needs so little */
    for (size_t i = 0; i < 3; i++) {
        char line[100001];
        make_line(line);
        memcpy(lines + i * 100000, line, 100000);
    }
    memcpy(lines + 300000, wrong, sizeof(wrong));
    begin.atomic = true;
    assert_int_equal(intake_open(fixture->intake, &begin, &request), ERR_OK);
    intake_data(request, slice_make(lines, LIMIT_UPLOAD_BLOCK_BYTES), &pause);
    assert_false(pause);
    journal_charge(fixture->journal, 100, SMALL_BACKLOG_BYTES / 2, 1);
    journal_charge(fixture->journal, 101, SMALL_BACKLOG_BYTES / 2 - room, 1);
    intake_data(
        request,
        slice_make(lines + LIMIT_UPLOAD_BLOCK_BYTES, sizeof(lines) - 1 - LIMIT_UPLOAD_BLOCK_BYTES),
        &pause);
    assert_false(pause);
    assert_false(intake_is_paused(request));
    intake_end(request);
    assert_int_equal(answered.count, 1);
    assert_int_equal(answered.answer.err, ERR_INVALID);
}

int main(void)
{
    metrics_open_row();
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_default, close_it)
    const struct CMUnitTest tests[] = {
        TEST(uploads_hold_what_came),
        TEST(a_malformed_one_is_refused_as_a_whole),
        TEST(an_atomic_one_with_a_wrong_element_is_refused),
        TEST(one_of_wrong_elements_only_is_refused),
        TEST(an_abandoned_one_is_gone),
        TEST(a_fast_sender_is_paused),
        TEST(a_long_pause_ends_it),
        TEST(one_orgs_slow_uploads_stop_no_other),
#define SMALL(name) cmocka_unit_test_setup_teardown(name, open_small_backlog, close_it)
        SMALL(one_that_never_has_room_is_refused),
        SMALL(a_full_backlog_pauses_it),
        SMALL(a_backlog_that_stays_full_ends_it),
        SMALL(one_that_is_whole_waits_for_room),
        SMALL(a_refused_one_waits_for_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
