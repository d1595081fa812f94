/* Intake tally: what the elements of a batch come to: counts, the answered items, the lane.
 *
 * Of the first LIMIT_BATCH_ITEMS_ANSWERED elements the id is kept for the answer; of later ones
 * only a mark, for the duplicate hint, and of an upload no more marks than INTAKE_MARKS_MAX: what
 * is kept does not grow with a body.
 *
 * Whether an id is known is a look at a random line of a table that no cache holds: a tenth of all
 * that a batch costs, were it waited for. So the line is called for when the id comes, and looked
 * at a few elements later; that of a single event, when it is durable and remembered.
 *
 * Ids of dedup_ids are made four at a time. So elements go through two short rows: `due`, until
 * there are four whose ids can be made, then `asked`, until the next four are. Notes stand in the
 * order of the elements, so one that is rejected ends both first. */
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

static void intake_tally_lane(const struct intake_request *request, struct intake_tally *tally,
                              const struct record_event *event)
{
    if (tally->lane != RECORD_LANE_MIXED) {
        uint8_t lane = record_event_lane(request->org, event);
        bool is_same = tally->lane == INTAKE_LANE_NONE || tally->lane == lane;
        tally->lane = is_same ? lane : RECORD_LANE_MIXED;
    }
}

/* Those whose lines were called for are counted. */
static enum err intake_tally_count(struct intake_request *request)
{
    struct intake_tally *tally = &request->tally;
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < tally->asked_count && err == ERR_OK; i++) {
        bool is_known = intake_is_known(request, tally->asked[i]);
        if (is_known) {
            tally->duplicates++;
        } else {
            tally->accepted++;
        }
        err = intake_tally_note(request, tally->asked[i],
                                is_known ? INTAKE_DUPLICATE : INTAKE_ACCEPTED);
    }
    tally->asked_count = 0;
    return err;
}

/* Those that wait for their ids get them, and their lines are called for. */
static void intake_tally_ask(struct intake_request *request)
{
    struct intake_tally *tally = &request->tally;
    struct id_four *ids = &request->intake->ids;
    uint32_t made = 0;
    assert(tally->asked_count == 0);
    id_four_make(ids);
    for (uint32_t i = 0; i < tally->due_count; i++) {
        const struct intake_due *due = &tally->due[i];
        struct id id = due->is_due ? ids->ids[made++] : due->id;
        if (!due->has_subject) {
            struct record_event event = {.id = id};
            intake_tally_lane(request, tally, &event);
        }
        tally->asked[i] = id;
        intake_call_known(request, id);
    }
    tally->asked_count = tally->due_count;
    tally->due_count = 0;
}

struct id_four *intake_tally_ids(struct intake_request *request)
{
    request->intake->ids.count = 0;
    return &request->intake->ids;
}

enum err intake_tally_end(struct intake_request *request)
{
    enum err err = intake_tally_count(request);
    if (err == ERR_OK) {
        intake_tally_ask(request);
        err = intake_tally_count(request);
    }
    return err;
}

enum err intake_tally_add(struct intake_request *request, const struct format_reader *reader,
                          const struct format_item *item)
{
    struct intake_tally *tally = &request->tally;
    if (item->err != ERR_OK) {
        enum err err = intake_tally_end(request); /* the ones before: notes stand in order */
        return err == ERR_OK ? intake_tally_reject(request, item) : err;
    }
    struct intake_due *due = &tally->due[tally->due_count++];
    due->id = item->event.id;
    due->is_due = format_id_is_due(reader);
    due->has_subject = item->event.subject.data != NULL;
    if (due->has_subject) { /* else its id says the lane */
        intake_tally_lane(request, tally, &item->event);
    }
    if (tally->due_count < BLAKE2B_TOGETHER) {
        return ERR_OK;
    }
    enum err err = intake_tally_count(request);
    if (err == ERR_OK) {
        intake_tally_ask(request);
    }
    return err;
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
