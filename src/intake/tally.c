/* Intake tally: what the elements of a batch come to: counts, the answered items, the lane.
 *
 * Of the first LIMIT_BATCH_ITEMS_ANSWERED elements the id is kept for the answer; of later ones
 * only a mark, for the duplicate hint, and of an upload no more marks than INTAKE_MARKS_MAX: what
 * is kept does not grow with a body.
 *
 * Whether an id is known is a look at a random line of a table that no cache holds: a tenth of all
 * that a batch costs, were it waited for. So the line is called for when the id comes, and looked
 * at when the next element does; that of a single event, when it is durable and remembered. */
#include <assert.h>

#include "base/metrics.h"
#include "intake/request.h"

void intake_call_known(const struct intake_request *request, struct id id)
{
    if (intake_id_can_repeat(id)) {
        intake_recent_call(request->intake->options.recent, intake_recent_mark(id));
    }
}

static bool intake_is_known(struct intake_request *request, struct id id)
{
    struct intake_recent *recent = request->intake->options.recent;
    if (!intake_id_can_repeat(id)) {
        return false;
    }
    bool is_known = intake_recent_has(recent, intake_recent_mark(id));
    metrics_add(is_known ? METRIC_CACHE_DEDUP_HIT : METRIC_CACHE_DEDUP_MISS, 1);
    return is_known;
}

void intake_tally_single(struct intake_request *request)
{
    if (intake_is_known(request, request->event_id)) {
        request->tally.accepted = 0;
        request->tally.duplicates = 1;
    }
}

static enum err intake_tally_note(struct intake_request *request, struct id id,
                                  enum intake_status status)
{
    struct intake_tally *tally = &request->tally;
    struct intake_pool *pool = &request->intake->pool;
    if (tally->notes.count < LIMIT_BATCH_ITEMS_ANSWERED) {
        struct intake_note *note = intake_chain_add(pool, &tally->notes, sizeof(*note));
        if (note == NULL) {
            return ERR_FULL;
        }
        note->id = id;
        note->status = status;
        return ERR_OK;
    }
    if (status == INTAKE_ACCEPTED && intake_id_can_repeat(id) &&
        tally->marks.count < INTAKE_MARKS_MAX) {
        uint64_t *mark = intake_chain_add(pool, &tally->marks, sizeof(*mark));
        if (mark != NULL) {
            *mark = intake_recent_mark(id);
        }
    }
    return ERR_OK;
}

static enum err intake_tally_reject(struct intake_request *request, const struct format_item *item)
{
    struct intake_tally *tally = &request->tally;
    tally->rejected++;
    metrics_add(
        item->err == ERR_TOO_LARGE ? METRIC_VALIDATION_TOO_LARGE : METRIC_VALIDATION_INVALID, 1);
    if (tally->rejects.count < LIMIT_BATCH_ITEMS_ANSWERED) {
        struct intake_reject *reject =
            intake_chain_add(&request->intake->pool, &tally->rejects, sizeof(*reject));
        if (reject == NULL) {
            return ERR_FULL;
        }
        reject->index = item->index;
        reject->offset = item->offset;
        reject->code = item->fault.code;
        reject->message = item->fault.message;
        static_assert(sizeof(reject->pointer) == sizeof(item->fault.pointer), "copied whole");
        memcpy(reject->pointer, item->fault.pointer, sizeof(reject->pointer));
    }
    struct id none = {{0}};
    return intake_tally_note(request, none, INTAKE_REJECTED);
}

static void intake_tally_lane(struct intake_request *request, const struct record_event *event)
{
    struct intake_tally *tally = &request->tally;
    if (tally->lane == RECORD_LANE_MIXED) {
        return;
    }
    uint8_t lane = record_event_lane(request->org, event);
    bool is_same = tally->lane == INTAKE_LANE_NONE || tally->lane == lane;
    tally->lane = is_same ? lane : RECORD_LANE_MIXED;
}

enum err intake_tally_end(struct intake_request *request)
{
    struct intake_tally *tally = &request->tally;
    if (!tally->has_asked) {
        return ERR_OK;
    }
    tally->has_asked = false;
    bool is_known = intake_is_known(request, tally->asked);
    if (is_known) {
        tally->duplicates++;
    } else {
        tally->accepted++;
    }
    return intake_tally_note(request, tally->asked, is_known ? INTAKE_DUPLICATE : INTAKE_ACCEPTED);
}

enum err intake_tally_add(struct intake_request *request, const struct format_item *item)
{
    struct intake_tally *tally = &request->tally;
    enum err err = intake_tally_end(request); /* the one before: notes stand in order */
    if (err != ERR_OK) {
        return err;
    }
    if (item->err != ERR_OK) {
        return intake_tally_reject(request, item);
    }
    intake_tally_lane(request, &item->event);
    tally->asked = item->event.id;
    tally->has_asked = true;
    intake_call_known(request, tally->asked);
    return ERR_OK;
}

void intake_remember(struct intake_request *request)
{
    struct intake_recent *recent = request->intake->options.recent;
    if (request->is_single) {
        if (intake_id_can_repeat(request->event_id)) {
            intake_recent_add(recent, intake_recent_mark(request->event_id));
        }
        return;
    }
    struct intake_chain_walk walk = intake_chain_begin(&request->tally.notes);
    const struct intake_note *note;
    while ((note = intake_chain_next(&walk, sizeof(*note))) != NULL) {
        if (note->status != INTAKE_REJECTED && intake_id_can_repeat(note->id)) {
            intake_recent_add(recent, intake_recent_mark(note->id));
        }
    }
    walk = intake_chain_begin(&request->tally.marks);
    const uint64_t *mark;
    while ((mark = intake_chain_next(&walk, sizeof(*mark))) != NULL) {
        intake_recent_add(recent, *mark);
    }
}
