/* Intake request: takes a body in and decides which way it goes.
 *
 * Happy path: the body of a small request comes whole in one chunk, and its frame is appended from
 * that chunk; nothing is copied but into the journal's open batch. A body in several chunks is
 * collected in a block of the pool. One that grows above 256 KiB becomes an upload, if it is a
 * batch; a single event of that size is refused. The ticket of the frame comes back when it is
 * durable; who waits for the store is answered when the result is there too, in whichever order the
 * two come.
 *
 * Failure modes: no block left: a body that has begun is paused until a large block is free, which
 * it then gets, so that whoever reads on can end; one whose first bytes find no block is refused.
 * No room for an upload: refused at its head, paused later on; looked for at the ends of rounds.
 * Paused for 30 s: refused. A frame that was not made durable: answered with the journal's error,
 * and nothing was kept. */
#include "intake/request.h"

#include <assert.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"

#define INTAKE_TRY_BYTES  ((uint64_t)16 * 1024)
#define INTAKE_ROOM_BYTES ((uint64_t)4 * 1024 * 1024)
#define INTAKE_ITEMS_MAX  ((size_t)2 * LIMIT_BATCH_ITEMS_ANSWERED)

enum err intake_create(struct intake **ret, const struct intake_options *options)
{
    struct intake *intake = mem_alloc(sizeof(*intake));
    intake->options = *options;
    intake_pool_init(&intake->pool, options->pool_bytes);
    intake_waiters_init(&intake->waiters, options->waiters_max, options->loop_index);
    intake->reader = format_reader_create();
    intake->items = mem_map(INTAKE_ITEMS_MAX * sizeof(intake->items[0]));
    buffer_init(&intake->head, LIMIT_FRAME_BYTES);
    list_init(&intake->requests);
    list_init(&intake->paused);
    list_init(&intake->unused);
    *ret = intake;
    return ERR_OK;
}

void intake_destroy(struct intake *intake)
{
    if (intake == NULL) {
        return;
    }
    struct list_link *link;
    while ((link = list_first(&intake->requests)) != NULL) {
        intake_release(LIST_CONTAINER(link, struct intake_request, live));
    }
    while ((link = list_take_first(&intake->unused)) != NULL) {
        mem_free(LIST_CONTAINER(link, struct intake_request, live));
    }
    intake_uploads_finish(intake);
    format_reader_destroy(intake->reader);
    intake_waiters_finish(&intake->waiters);
    intake_pool_finish(&intake->pool);
    mem_unmap(intake->items, INTAKE_ITEMS_MAX * sizeof(intake->items[0]));
    buffer_finish(&intake->head);
    mem_free(intake);
}

static struct intake_request *intake_request_of(struct journal_ticket *ticket)
{
    return (struct intake_request *)(void *)((char *)ticket -
                                             offsetof(struct intake_request, ticket));
}

static void intake_on_durable(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    struct intake_request *request = intake_request_of(ticket);
    assert(request->state == INTAKE_SYNC);
    if (err != ERR_OK) {
        intake_refuse(request, err, NULL);
        return;
    }
    request->position = position;
    metrics_add(METRIC_EVENTS_INGESTED, request->tally.accepted + request->tally.duplicates);
    if (request->is_single) {
        intake_tally_single(request);
    }
    intake_remember(request);
    if (request->waiter != RECORD_WAITER_NONE && request->result == NULL) {
        request->state = INTAKE_STORE;
        /* Of one in the spool nobody knows when it is applied. */
        if (!request->waits_for_store ||
            journal_is_spooled(request->intake->options.journal, position)) {
            intake_stop_waiting(request);
        }
        return;
    }
    intake_answer(request);
}

/* --- begin --------------------------------------------------------------------------------- */

static size_t intake_attribute_bytes(const struct intake_begin *begin)
{
    size_t bytes = begin->idempotency_key.size;
    for (uint32_t i = 0; i < begin->attribute_count; i++) {
        bytes += begin->attributes[i].name.size + begin->attributes[i].value.size;
    }
    return bytes;
}

static struct slice intake_copy(uint8_t **at, struct slice text)
{
    uint8_t *to = *at;
    if (text.size != 0) {
        memcpy(to, text.data, text.size);
    }
    *at += text.size;
    return slice_make(to, text.size);
}

/* Copies what the head of the frame will hold. */
static enum err intake_take_attributes(struct intake_request *request,
                                       const struct intake_begin *begin)
{
    static const struct slice idempotency = {(const uint8_t *)"idempotency-key", 15};
    uint32_t count = begin->attribute_count + (begin->idempotency_key.data != NULL ? 1 : 0);
    size_t bytes = intake_attribute_bytes(begin);
    size_t rows_bytes = count * sizeof(request->attributes[0]);
    uint8_t *texts = request->texts_inline;
    request->attributes = request->attributes_inline;
    if (count > RECORD_ATTRIBUTES_MAX ||
        bytes > LIMIT_FRAME_BYTES - LIMIT_SMALL_BODY_BYTES - 4096) {
        return ERR_TOO_LARGE;
    }
    if (count > INTAKE_ATTRIBUTES_INLINE || bytes > INTAKE_TEXTS_INLINE) {
        size_t room;
        if (rows_bytes + bytes > INTAKE_BLOCK_LARGE_BYTES) {
            return ERR_TOO_LARGE;
        }
        uint8_t *block = intake_pool_take(&request->intake->pool, rows_bytes + bytes, &room);
        if (block == NULL) {
            return ERR_FULL;
        }
        request->attribute_block = block;
        request->attributes = (struct record_attribute *)(void *)block;
        texts = block + rows_bytes;
    }
    for (uint32_t i = 0; i < begin->attribute_count; i++) {
        request->attributes[i].name = intake_copy(&texts, begin->attributes[i].name);
        request->attributes[i].value = intake_copy(&texts, begin->attributes[i].value);
    }
    if (begin->idempotency_key.data != NULL) {
        request->attributes[begin->attribute_count].name = idempotency;
        request->attributes[begin->attribute_count].value =
            intake_copy(&texts, begin->idempotency_key);
    }
    request->attribute_count = count;
    return ERR_OK;
}

static struct intake_request *intake_request_take(struct intake *intake)
{
    struct list_link *link = list_take_first(&intake->unused);
    struct intake_request *request = link == NULL
                                         ? mem_alloc(sizeof(*request))
                                         : LIST_CONTAINER(link, struct intake_request, live);
    /* The inline texts need no clearing; all that stands before them does. */
    memset(request, 0, offsetof(struct intake_request, attributes_inline));
    request->intake = intake;
    list_push_back(&intake->requests, &request->live);
    return request;
}

void intake_release(struct intake_request *request)
{
    struct intake *intake = request->intake;
    struct intake_pool *pool = &intake->pool;
    intake_upload_drop(request);
    if (request->waiter != RECORD_WAITER_NONE) {
        intake_waiters_give(&intake->waiters, request->waiter);
    }
    intake_pool_give(pool, request->attribute_block);
    intake_pool_give(pool, request->body);
    intake_pool_give(pool, request->held);
    intake_chain_clear(pool, &request->tally.notes);
    intake_chain_clear(pool, &request->tally.rejects);
    intake_chain_clear(pool, &request->tally.marks);
    list_remove(&request->pause);
    list_remove(&request->live);
    list_push_front(&intake->unused, &request->live); /* still in the cache */
    intake_wake_paused(intake);
}

/* What is not read costs nothing; a body that is as small as its answer is simply tried. Of a large
 * one the size on disk is not known, since uploads are compressed: it needs room for a beginning.
 */
static enum err intake_look_for_room(struct intake *intake, const struct intake_begin *begin)
{
    uint64_t bytes = begin->body_bytes;
    if (bytes != 0 && bytes <= INTAKE_TRY_BYTES) {
        return ERR_OK;
    }
    enum err err = journal_room(intake->options.journal, begin->org,
                                bytes < INTAKE_ROOM_BYTES ? bytes : INTAKE_ROOM_BYTES);
    if (err == ERR_OK && bytes > LIMIT_SMALL_BODY_BYTES) {
        err = journal_upload_room(intake->options.journal, begin->org);
    }
    return err == ERR_BUSY ? ERR_OK : err; /* that passes soon */
}

enum err intake_open(struct intake *intake, const struct intake_begin *begin,
                     struct intake_request **ret)
{
    enum err err = intake_look_for_room(intake, begin);
    if (err != ERR_OK) {
        return err;
    }
    struct intake_request *request = intake_request_take(intake);
    request->state = INTAKE_BODY;
    request->form = begin->form;
    request->may_be_array = begin->may_be_array;
    request->is_single = !format_form_is_batch(begin->form);
    request->atomic = begin->atomic;
    request->waits_for_store = begin->wait == INTAKE_WAIT_STORED;
    request->org = begin->org;
    request->key = begin->key;
    request->body_bytes_known = begin->body_bytes;
    memcpy(request->id_key, begin->id_key, sizeof(request->id_key));
    request->received_ms = begin->received_ms != 0 ? begin->received_ms : clock_wall_ms();
    request->frame_id = id_make_v7(request->received_ms);
    request->on_answer = begin->on_answer;
    request->on_room = begin->on_room;
    request->context = begin->context;
    request->tally.lane = INTAKE_LANE_NONE;
    request->ticket.on_durable = intake_on_durable;
    err = intake_take_attributes(request, begin);
    if (err != ERR_OK) {
        intake_release(request);
        return err;
    }
    if (begin->body_bytes > LIMIT_SMALL_BODY_BYTES &&
        journal_upload_room(intake->options.journal, begin->org) == ERR_BUSY) {
        intake_wait_for_slot(request); /* what is not read costs nothing */
    }
    *ret = request;
    return ERR_OK;
}

/* --- the body ------------------------------------------------------------------------------ */

/* JSON of no declared shape is an array when its first byte says so. */
static void intake_look(struct intake_request *request, struct slice bytes)
{
    for (size_t i = 0; request->may_be_array && i < bytes.size; i++) {
        uint8_t byte = bytes.data[i];
        if (byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r') {
            continue;
        }
        request->may_be_array = false;
        if (byte == '[' && request->form == RECORD_FORM_EVENT) {
            request->form = RECORD_FORM_EVENT_ARRAY;
            request->is_single = false;
        } else if (byte == '[' && request->form == RECORD_FORM_READING) {
            request->form = RECORD_FORM_READING_ARRAY;
            request->is_single = false;
        }
    }
}

static void intake_body_whole(struct intake_request *request, struct slice body)
{
    if (request->is_single) {
        intake_single(request, body);
    } else {
        intake_batch(request, body);
    }
}

/* To a block of at least `size` bytes. */
static bool intake_body_move(struct intake_request *request, size_t size)
{
    struct intake_pool *pool = &request->intake->pool;
    size_t room;
    uint8_t *block = intake_pool_take(pool, size, &room);
    if (block == NULL) {
        return false;
    }
    if (request->body != NULL) {
        memcpy(block, request->body, request->body_size);
    }
    intake_pool_give(pool, request->body);
    request->body = block;
    request->body_room = room;
    return true;
}

static bool intake_body_reserve(struct intake_request *request, size_t size)
{
    if (request->body != NULL && size <= request->body_room) {
        return true;
    }
    if (request->body_bytes_known > size && request->body_bytes_known <= LIMIT_SMALL_BODY_BYTES) {
        size = (size_t)request->body_bytes_known;
    }
    return intake_body_move(request, size);
}

/* Whether the rest of the body may find no block. */
static bool intake_body_is_short(const struct intake_request *request)
{
    return request->body_room < INTAKE_BLOCK_LARGE_BYTES &&
           (request->body_bytes_known == 0 || request->body_bytes_known > request->body_room) &&
           !intake_pool_has_large(&request->intake->pool);
}

static void intake_body_grow(struct intake_request *request, struct slice chunk, bool *ret_pause)
{
    uint64_t size = request->body_size + chunk.size;
    if (size > LIMIT_SMALL_BODY_BYTES || request->body_bytes_known > LIMIT_SMALL_BODY_BYTES) {
        if (request->is_single) {
            struct format_fault fault = {.code = err_code(ERR_TOO_LARGE),
                                         .message = "the event is larger than 262144 bytes",
                                         .offset = LIMIT_EVENT_BYTES};
            intake_refuse(request, ERR_TOO_LARGE, &fault);
            return;
        }
        intake_upload_begin(request, chunk, ret_pause);
        return;
    }
    if (!intake_body_reserve(request, (size_t)size)) {
        intake_refuse(request, ERR_FULL, NULL);
        return;
    }
    memcpy(request->body + request->body_size, chunk.data, chunk.size);
    request->body_size += chunk.size;
    if (intake_body_is_short(request)) {
        intake_pause(request);
        *ret_pause = true;
    }
}

void intake_data(struct intake_request *request, struct slice chunk, bool *ret_pause)
{
    *ret_pause = false;
    if (chunk.size == 0) {
        return;
    }
    if (request->state == INTAKE_UPLOAD) {
        intake_upload_data(request, chunk, ret_pause);
        return;
    }
    assert(request->state == INTAKE_BODY);
    intake_look(request, chunk);
    if (request->body_size == 0 && chunk.size == request->body_bytes_known &&
        chunk.size <= LIMIT_SMALL_BODY_BYTES) {
        intake_body_whole(request, chunk);
        return;
    }
    intake_body_grow(request, chunk, ret_pause);
}

void intake_end(struct intake_request *request)
{
    switch (request->state) {
    case INTAKE_BODY:
        intake_body_whole(request, slice_make(request->body, request->body_size));
        break;
    case INTAKE_UPLOAD:
        intake_upload_end(request);
        break;
    case INTAKE_SYNC:
    case INTAKE_STORE:
        break; /* the body came whole in its first chunk */
    }
}

bool intake_cancel(struct intake_request *request)
{
    if (request->state == INTAKE_BODY || request->state == INTAKE_UPLOAD) {
        intake_release(request);
        return true;
    }
    intake_stop_waiting(request);
    return false;
}

void intake_turn_upload(struct intake_request *request)
{
    assert(request->state == INTAKE_BODY && request->upload != NULL);
    request->state = INTAKE_UPLOAD;
    intake_pool_give(&request->intake->pool, request->body);
    request->body = NULL;
    request->body_size = 0;
}

/* --- pauses -------------------------------------------------------------------------------- */

void intake_pause(struct intake_request *request)
{
    if (request->pause.next == NULL) {
        request->paused_ms = clock_mono_ms();
        list_push_back(&request->intake->paused, &request->pause);
    }
}

void intake_resume(struct intake_request *request)
{
    list_remove(&request->pause);
    request->on_room(request, request->context);
}

void intake_wait_for_slot(struct intake_request *request)
{
    request->waits_for_slot = true;
    intake_pause(request);
}

bool intake_is_paused(const struct intake_request *request)
{
    return request->pause.next != NULL;
}

static struct intake_request *intake_first_short(struct intake *intake)
{
    struct list_link *link = list_first(&intake->paused);
    while (link != NULL) {
        struct intake_request *request = LIST_CONTAINER(link, struct intake_request, pause);
        if (request->state == INTAKE_BODY && !request->waits_for_slot) {
            return request;
        }
        link = list_after(&intake->paused, link);
    }
    return NULL;
}

void intake_wake_paused(struct intake *intake)
{
    /* Resuming one may end it and so come here again: the outer call goes on. */
    if (intake->is_waking || list_is_empty(&intake->paused)) {
        return;
    }
    intake->is_waking = true;
    struct intake_request *request;
    while (intake_pool_has_large(&intake->pool) && (request = intake_first_short(intake)) != NULL) {
        bool has_room = intake_body_move(request, INTAKE_BLOCK_LARGE_BYTES);
        assert(has_room);
        intake_resume(request);
    }
    intake->is_waking = false;
}

/* Each of them once, in the order in which they came; what is done for one may change the list. */
static void intake_look_at_paused(struct intake *intake, uint64_t now_ms)
{
    struct list now;
    struct list_link *link;
    list_init(&now);
    while ((link = list_take_first(&intake->paused)) != NULL) {
        list_push_back(&now, link);
    }
    while ((link = list_take_first(&now)) != NULL) {
        struct intake_request *request = LIST_CONTAINER(link, struct intake_request, pause);
        list_push_back(&intake->paused, link);
        if (now_ms - request->paused_ms >= INTAKE_PAUSE_MS_MAX) {
            intake_refuse(request, ERR_TIMEOUT, NULL);
        } else {
            intake_upload_retry(request);
        }
    }
    intake_wake_paused(intake);
}

void intake_round_end(struct intake *intake)
{
    if (!list_is_empty(&intake->paused)) {
        uint64_t now_ms = clock_mono_ms();
        if (now_ms - intake->looked_ms >= INTAKE_LOOK_MS) {
            intake->looked_ms = now_ms;
            intake_look_at_paused(intake, now_ms);
        }
    }
    journal_submit(intake->options.producer);
}

/* --- the frame ----------------------------------------------------------------------------- */

void intake_context(const struct intake_request *request, struct format_context *ret)
{
    *ret = (struct format_context){
        .id_key = request->id_key,
        .frame_id = request->frame_id,
        .received_ms = request->received_ms,
    };
    for (uint32_t i = 0; i < request->attribute_count; i++) {
        struct slice name = request->attributes[i].name;
        struct slice value = request->attributes[i].value;
        if (slice_equal(name, SLICE_LITERAL("idempotency-key"))) {
            ret->idempotency_key = value;
        } else if (slice_equal(name, SLICE_LITERAL("traceparent"))) {
            ret->traceparent = value;
        } else if (slice_equal(name, SLICE_LITERAL("call"))) {
            ret->call = value;
        } else if (slice_equal(name, SLICE_LITERAL("device"))) {
            ret->device = value;
        }
    }
}

struct record_frame *intake_frame(struct intake_request *request, enum record_form form)
{
    struct record_frame *frame = &request->intake->frame;
    frame->form = (uint8_t)form;
    frame->lane = RECORD_LANE_MIXED;
    frame->flags = request->atomic ? RECORD_FLAG_ATOMIC : 0;
    frame->org = request->org;
    frame->key = request->key;
    frame->received_ms = request->received_ms;
    frame->id = request->frame_id;
    frame->waiter = RECORD_WAITER_NONE;
    frame->run = request->intake->options.run;
    frame->record_count = 1;
    frame->attribute_count = request->attribute_count;
    memcpy(frame->attributes, request->attributes,
           request->attribute_count * sizeof(frame->attributes[0]));
    frame->body = slice_make(NULL, 0);
    return frame;
}

enum err intake_encode(struct intake_request *request, struct record_frame *frame)
{
    struct intake *intake = request->intake;
    if (request->waits_for_store) {
        request->waiter = intake_waiters_take(&intake->waiters, intake, request);
        frame->waiter = request->waiter;
    }
    buffer_clear(&intake->head);
    return record_frame_encode_head(frame, &intake->head);
}

struct journal_frame_parts intake_parts(const struct intake_request *request,
                                        const struct record_frame *frame)
{
    return (struct journal_frame_parts){
        .org = frame->org,
        .lane = frame->lane,
        .form = frame->form,
        .record_count = frame->record_count,
        .head = buffer_slice(&request->intake->head),
        .body = frame->body,
    };
}

void intake_appended(struct intake_request *request)
{
    request->state = INTAKE_SYNC;
    intake_pool_give(&request->intake->pool, request->body);
    request->body = NULL;
    intake_wake_paused(request->intake);
}

void intake_append(struct intake_request *request, struct record_frame *frame)
{
    enum err err = intake_encode(request, frame);
    if (err == ERR_OK) {
        struct journal_frame_parts parts = intake_parts(request, frame);
        err = journal_append(request->intake->options.producer, &parts, &request->ticket);
    }
    if (err != ERR_OK) {
        intake_refuse(request, err, NULL);
        return;
    }
    intake_appended(request);
}

/* --- results ------------------------------------------------------------------------------- */

static void intake_on_result_mail(struct mail *mail)
{
    struct intake_slot *slot = (struct intake_slot *)(void *)mail;
    struct intake_request *request = slot->request;
    if (request == NULL) {
        intake_waiters_free(&slot->intake->waiters, slot);
        return;
    }
    request->result = &slot->result;
    if (request->state == INTAKE_STORE) {
        intake_answer(request);
    }
}

bool intake_wants_result(const struct intake_request *request, uint64_t *ret_position)
{
    if (request->state != INTAKE_STORE || request->is_upload) {
        return false;
    }
    *ret_position = request->position;
    return true;
}

void intake_stop_waiting(struct intake_request *request)
{
    request->waits_for_store = false;
    if (request->state != INTAKE_STORE) {
        return; /* until it is durable the slot is its own */
    }
    intake_waiters_abandon(&request->intake->waiters, request->waiter);
    request->waiter = RECORD_WAITER_NONE;
    intake_answer(request);
}

void intake_on_result(struct intake *intake, uint64_t waiter, const struct record_result *result)
{
    struct intake_slot *slot = intake_waiters_claim(&intake->waiters, waiter);
    if (slot == NULL) {
        return; /* nobody waits any more */
    }
    slot->result = *result;
    slot->mail.on_arrive = intake_on_result_mail;
    mailbox_answer(intake->options.mailbox, &slot->mail);
}
