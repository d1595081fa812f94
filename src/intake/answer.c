/* Intake answer: what the client is told.
 *
 * Items: the first LIMIT_BATCH_ITEMS_ANSWERED elements, and of later ones those rejected, as long
 * as they are among the first LIMIT_BATCH_ITEMS_ANSWERED rejected of all. With the store's result
 * the counts and the first items are exact; without it a duplicate is a hint. */
#include <assert.h>

#include "base/metrics.h"
#include "intake/request.h"

static void intake_give_answer(struct intake_request *request, struct intake_answer *answer)
{
    answer->is_single = request->is_single;
    answer->is_upload = request->is_upload;
    answer->position = request->position;
    answer->id = request->is_single ? request->event_id : request->frame_id;
    request->on_answer(request, answer, request->context);
    intake_release(request);
}

static void intake_item_reject(struct intake_item *item, const struct intake_reject *reject)
{
    item->index = reject->index;
    item->status = INTAKE_REJECTED;
    item->code = reject->code;
    item->message = reject->message;
    memcpy(item->pointer, reject->pointer, sizeof(item->pointer));
}

/* What the store says of a taken element. */
static void intake_item_store(struct intake_item *item, enum record_item_state state)
{
    switch (state) {
    case RECORD_ITEM_REJECTED:
        break;
    case RECORD_ITEM_INSERTED:
        item->status = INTAKE_ACCEPTED;
        break;
    case RECORD_ITEM_DUPLICATE:
        item->status = INTAKE_DUPLICATE;
        break;
    case RECORD_ITEM_CONFLICT:
        item->status = INTAKE_DUPLICATE;
        item->code = "dedup_conflict";
        item->message = "the dedup_id is known with another payload; the first stays";
        break;
    case RECORD_ITEM_REFUSED:
        item->status = INTAKE_REJECTED;
        item->code = err_code(ERR_REFUSED);
        item->message = err_text(ERR_REFUSED);
        break;
    }
}

/* Notes and rejects are both in order of index, and each rejected note has its reject. */
static uint32_t intake_items(struct intake_request *request, bool only_rejected)
{
    struct intake_item *items = request->intake->items;
    const struct record_result *result = request->result;
    struct intake_chain_walk notes = intake_chain_begin(&request->tally.notes);
    struct intake_chain_walk rejects = intake_chain_begin(&request->tally.rejects);
    const struct intake_reject *reject = intake_chain_next(&rejects, sizeof(*reject));
    const struct intake_note *note;
    uint32_t count = 0;
    uint64_t index = 0;
    for (; (note = intake_chain_next(&notes, sizeof(*note))) != NULL; index++) {
        struct intake_item *item = &items[count];
        if (note->status == INTAKE_REJECTED) {
            assert(reject != NULL && reject->index == index);
            *item = (struct intake_item){.index = index};
            intake_item_reject(item, reject);
            reject = intake_chain_next(&rejects, sizeof(*reject));
            count++;
        } else if (!only_rejected) {
            *item = (struct intake_item){
                .index = index, .id = note->id, .status = (uint8_t)note->status};
            if (result != NULL && index < result->item_count) {
                intake_item_store(item, (enum record_item_state)result->items[index]);
            }
            count++;
        }
    }
    for (; reject != NULL; reject = intake_chain_next(&rejects, sizeof(*reject))) {
        items[count] = (struct intake_item){.index = reject->index};
        intake_item_reject(&items[count++], reject);
    }
    return count;
}

static void intake_count_refusal(enum err err)
{
    if (err == ERR_SYNTAX || err == ERR_DEPTH) {
        metrics_add(METRIC_VALIDATION_MALFORMED, 1);
    } else if (err == ERR_TOO_LARGE) {
        metrics_add(METRIC_VALIDATION_TOO_LARGE, 1);
    } else if (err == ERR_INVALID) {
        metrics_add(METRIC_VALIDATION_INVALID, 1);
    }
}

void intake_refuse(struct intake_request *request, enum err err, const struct format_fault *fault)
{
    assert(err != ERR_OK);
    struct intake_answer answer = {.err = err, .rejected = request->tally.rejected};
    if (fault != NULL && err_class(err) == ERR_CLASS_REJECT) {
        answer.fault = *fault;
    }
    if (request->tally.rejected > 0 && !request->is_single) {
        answer.item_count = intake_items(request, true);
        answer.items = request->intake->items;
    } else {
        intake_count_refusal(err);
    }
    intake_give_answer(request, &answer);
}

static void intake_answer_single(const struct record_result *result, struct intake_answer *answer)
{
    answer->conflict = result->conflicts > 0;
    if (result->refused > 0) {
        answer->err = ERR_REFUSED;
        answer->fault.code = err_code(ERR_REFUSED);
        answer->fault.message = err_text(ERR_REFUSED);
    }
}

void intake_answer(struct intake_request *request)
{
    const struct intake_tally *tally = &request->tally;
    const struct record_result *result = request->result;
    struct intake_answer answer = {
        .err = ERR_OK,
        .accepted = tally->accepted,
        .duplicates = tally->duplicates,
        .rejected = tally->rejected,
    };
    if (result != NULL && result->err != ERR_OK) {
        request->result = NULL; /* durable all the same */
        result = NULL;
    }
    if (result != NULL) {
        answer.is_stored = true;
        answer.accepted = result->inserted;
        answer.duplicates = result->duplicates;
        answer.rejected += result->refused;
    }
    if (request->is_single) {
        if (result != NULL) {
            intake_answer_single(result, &answer);
        }
    } else {
        answer.item_count = intake_items(request, false);
        answer.items = request->intake->items;
    }
    intake_give_answer(request, &answer);
}

bool intake_takes_any(struct intake_request *request)
{
    const struct intake_tally *tally = &request->tally;
    bool has_any = tally->accepted + tally->duplicates > 0;
    if (tally->rejected > 0 && (!has_any || request->atomic)) {
        intake_refuse(request, ERR_INVALID, NULL);
        return false;
    }
    if (!has_any) {
        intake_answer(request);
    }
    return has_any;
}
