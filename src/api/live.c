/* Live: how loops learn that something was applied, without the applier knowing who listens.
 *
 * The applier commits many times a second, mostly with nobody waiting. So what is wanted stands in
 * two small shared tables: one row per loop, and one row per (loop, org) with a live tail. After a
 * commit the applier looks up the rows, marks those of changed orgs, and posts one mail to each
 * loop that has somebody who cares and has no such mail on its way already. A full table drops
 * rows, which would lose a waiter for good; so the rows of loops have a table of their own, which
 * has room for all of them.
 *
 * Happy path of a wait: the request is linked, the loop's row says so, then the position is looked
 * at once more (the commit may have come between), and the request sleeps. The mail arrives; the
 * row is cleared first and the position read after, so a commit that comes meanwhile posts again.
 * Failure modes: the position is not reached in time: 504. A row pushed out of the table of orgs
 * (tens of thousands of orgs tailed at once): its streams look again with their next heartbeat. */
#include "api/reply.h"

#include "apply/apply.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "journal/journal.h"

#include <assert.h>

/* A row of the table of loops. */
struct api_watch {
    bool wants_position; /* requests wait for any commit */
    bool is_posted;      /* its mail is under way */
    bool has_any_news;   /* of whatever org */
    int32_t count;       /* of API_LOOP_STREAMS: live tails open now */
};
/* A row of the table of (loop, org). */
struct api_watch_org {
    bool has_news;
};

#define API_WATCH_ENTRIES   65536u /* costs memory only when used */
#define API_JOURNALS_MAX    4096u
#define API_WAIT_LOOK_MS    100u
#define API_LOOP_KEY_BYTES  4u
#define API_WATCH_KEY_BYTES 12u
#define API_LOOP_STREAMS    UINT32_MAX /* in the place of a loop's number */

static struct slice api_loop_key(uint32_t loop, uint8_t to[API_LOOP_KEY_BYTES])
{
    buffer_put_u32(to, loop);
    return slice_make(to, API_LOOP_KEY_BYTES);
}

static struct slice api_watch_key(uint32_t loop, uint64_t org, uint8_t to[API_WATCH_KEY_BYTES])
{
    buffer_put_u32(to, loop);
    buffer_put_u64(to + 4, org);
    return slice_make(to, API_WATCH_KEY_BYTES);
}

/* What a visit is to do, and what it found. Runs under the table's short lock. */
struct api_watch_visit {
    bool wanted;    /* in: streams of a changed org; out: nothing */
    bool is_any;    /* in: any org may have changed */
    bool must_post; /* out */
    bool had_news;  /* out */
};

static void api_watch_want(void *value, void *context)
{
    (void)context;
    ((struct api_watch *)value)->wants_position = true;
}

static void api_watch_quiet(void *value, void *context)
{
    (void)context;
    ((struct api_watch *)value)->wants_position = false;
}

static void api_watch_mark(void *value, void *context)
{
    struct api_watch_visit *visit = context;
    ((struct api_watch_org *)value)->has_news = true;
    visit->wanted = true;
}

static void api_watch_offer(void *value, void *context)
{
    struct api_watch_visit *visit = context;
    struct api_watch *watch = value;
    watch->has_any_news = watch->has_any_news || visit->is_any;
    visit->must_post =
        (visit->wanted || visit->is_any || watch->wants_position) && !watch->is_posted;
    watch->is_posted = watch->is_posted || visit->must_post;
}

static void api_watch_arrived(void *value, void *context)
{
    struct api_watch_visit *visit = context;
    struct api_watch *watch = value;
    visit->is_any = watch->has_any_news;
    watch->has_any_news = false;
    watch->is_posted = false;
}

static void api_watch_take(void *value, void *context)
{
    struct api_watch_visit *visit = context;
    struct api_watch_org *watch = value;
    visit->had_news = watch->has_news;
    watch->has_news = false;
}

static void api_watch_nothing(void *value, void *context)
{
    (void)value;
    (void)context;
}

static void api_tell_loops(struct api *api, const uint64_t *orgs, uint32_t org_count)
{
    uint8_t key[API_WATCH_KEY_BYTES];
    uint8_t loop_key[API_LOOP_KEY_BYTES];
    assert(orgs != NULL || org_count == 0);
    for (uint32_t i = 0; i < api->loop_count; i++) {
        struct api_watch_visit visit = {.is_any = orgs == NULL};
        for (uint32_t n = 0; n < org_count; n++) {
            (void)table_find(api->watch, api_watch_key(i, orgs[n], key), api_watch_mark, &visit);
        }
        (void)table_find(api->loop_watch, api_loop_key(i, loop_key), api_watch_offer, &visit);
        if (visit.must_post) {
            mailbox_answer(api->loops[i].mailbox, &api->loops[i].news);
        }
    }
}

void api_on_applied(void *owner, uint64_t position, const uint64_t *orgs, uint32_t org_count)
{
    static const uint64_t none = 0;
    (void)position; /* read from apply when the mail arrives: it may have risen by then */
    api_tell_loops(owner, orgs == NULL ? &none : orgs, org_count);
}

static void api_elsewhere_raise(void *value, void *context)
{
    uint64_t *known = value;
    const uint64_t *position = context;
    *known = *known > *position ? *known : *position;
}

void api_on_applied_elsewhere(void *owner, uint64_t position, const uint64_t *orgs,
                              uint32_t org_count)
{
    struct api *api = owner;
    uint64_t range = position >> LIMIT_RANGE_SHIFT;
    table_upsert(api->elsewhere, slice_make(&range, sizeof(range)), api_elsewhere_raise, &position);
    api_tell_loops(api, orgs, org_count);
}

/* The position of a journal that other nodes apply is
 * applied when one of them, or the store, has said so; where nobody says anything there is one
 * journal at a time, and positions rise. */
bool api_is_applied(const struct api_loop *loop, uint64_t position)
{
    position = journal_place(loop->api->options.journal, position);
    uint64_t range = position >> LIMIT_RANGE_SHIFT;
    uint64_t elsewhere = 0;
    uint64_t own = loop->apply == NULL ? 0 : apply_position(loop->apply);
    bool is_known = table_copy(loop->api->elsewhere, slice_make(&range, sizeof(range)), &elsewhere);
    bool is_own = range == own >> LIMIT_RANGE_SHIFT || !is_known;
    return (is_own && position <= own) || (is_known && position <= elsewhere);
}

static void api_release_waiters(struct api_loop *loop)
{
    uint8_t key[API_LOOP_KEY_BYTES];
    struct list_link *link = list_first(&loop->waiters);
    while (link != NULL) {
        struct list_link *after = list_after(&loop->waiters, link);
        struct api_request *request = LIST_CONTAINER(link, struct api_request, wait);
        if (api_is_applied(loop, request->wait_position)) {
            list_remove(link);
            http_request_set_timer(request->http, 0);
            request->on_timer = NULL;
            request->on_applied(request);
        }
        link = after;
    }
    if (list_is_empty(&loop->waiters)) {
        table_upsert(loop->api->loop_watch, api_loop_key(loop->index, key), api_watch_quiet, NULL);
    }
}

/* The live tails of one org on one loop. */
struct api_topic {
    struct list_link link; /* loop->topics */
    struct list streams;   /* requests, by their `wait` */
    uint64_t org;
};

static void api_tell_topic(struct api_topic *topic)
{
    struct list_link *link = list_first(&topic->streams);
    while (link != NULL) {
        struct list_link *after = list_after(&topic->streams, link);
        struct api_request *request = LIST_CONTAINER(link, struct api_request, wait);
        request->on_applied(request);
        link = after;
    }
}

static void api_tell_topics(struct api_loop *loop, bool are_all)
{
    uint8_t key[API_WATCH_KEY_BYTES];
    struct list_link *link = list_first(&loop->topics);
    while (link != NULL) {
        struct list_link *after = list_after(&loop->topics, link);
        struct api_topic *topic = LIST_CONTAINER(link, struct api_topic, link);
        struct api_watch_visit visit = {0};
        (void)table_find(loop->api->watch, api_watch_key(loop->index, topic->org, key),
                         api_watch_take, &visit);
        if (visit.had_news || are_all) {
            api_tell_topic(topic);
        }
        link = after;
    }
}

static void api_on_news(struct mail *mail)
{
    struct api_loop *loop = LIST_CONTAINER(mail, struct api_loop, news);
    uint8_t key[API_LOOP_KEY_BYTES];
    struct api_watch_visit visit = {0};
    table_upsert(loop->api->loop_watch, api_loop_key(loop->index, key), api_watch_arrived, &visit);
    api_release_waiters(loop);
    api_tell_topics(loop, visit.is_any);
}

void api_live_open(struct api *api)
{
    api->loop_watch = table_create(api->loop_count + 1, sizeof(struct api_watch));
    api->watch = table_create(API_WATCH_ENTRIES, sizeof(struct api_watch_org));
    api->elsewhere = table_create(API_JOURNALS_MAX, sizeof(uint64_t));
}

void api_live_close(struct api *api)
{
    table_destroy(api->loop_watch);
    table_destroy(api->watch);
    table_destroy(api->elsewhere);
}

void api_live_start(struct api_loop *loop)
{
    list_init(&loop->waiters);
    list_init(&loop->topics);
    loop->news.on_arrive = api_on_news;
}

void api_live_begin(struct api_loop *loop)
{
    uint8_t key[API_LOOP_KEY_BYTES];
    table_upsert(loop->api->loop_watch, api_loop_key(loop->index, key), api_watch_nothing, NULL);
}

void api_live_stop(struct api_loop *loop)
{
    struct list_link *link = NULL;
    while ((link = list_take_first(&loop->topics)) != NULL) {
        mem_free(LIST_CONTAINER(link, struct api_topic, link));
    }
}

static void api_wait_ended(struct api_request *request)
{
    struct http_problem problem = {.status = 504,
                                   .code = "timeout",
                                   .detail = "The position was not applied within 10 seconds.",
                                   .offset = -1};
    list_remove(&request->wait);
    request->on_timer = NULL;
    api_reply_problem(request, &problem, 0);
}

/* Nobody says when what was in the spool has a place in the stream: it is looked at. */
static void api_wait_look(struct api_request *request)
{
    if (api_is_applied(request->loop, request->wait_position)) {
        list_remove(&request->wait);
        http_request_set_timer(request->http, 0);
        request->on_timer = NULL;
        request->on_applied(request);
    } else if (clock_mono_ms() >= request->wait_end_ms) {
        api_wait_ended(request);
    } else {
        http_request_set_timer(request->http, API_WAIT_LOOK_MS);
    }
}

void api_wait_for(struct api_request *request, uint64_t position,
                  void (*on_applied)(struct api_request *request))
{
    struct api_loop *loop = request->loop;
    uint8_t key[API_LOOP_KEY_BYTES];
    if (api_is_applied(loop, position)) {
        on_applied(request);
        return;
    }
    request->wait_position = position;
    request->on_applied = on_applied;
    bool is_spooled = journal_is_spooled(loop->api->options.journal, position);
    request->on_timer = is_spooled ? api_wait_look : api_wait_ended;
    request->wait_end_ms = clock_mono_ms() + LIMIT_WAIT_FOR_MS;
    list_push_back(&loop->waiters, &request->wait);
    http_request_set_timer(request->http, is_spooled ? API_WAIT_LOOK_MS : LIMIT_WAIT_FOR_MS);
    table_upsert(loop->api->loop_watch, api_loop_key(loop->index, key), api_watch_want, NULL);
    api_release_waiters(loop);
}

static struct api_topic *api_topic_find(struct api_loop *loop, uint64_t org)
{
    struct list_link *link = list_first(&loop->topics);
    while (link != NULL) {
        struct api_topic *topic = LIST_CONTAINER(link, struct api_topic, link);
        if (topic->org == org) {
            return topic;
        }
        link = list_after(&loop->topics, link);
    }
    return NULL;
}

void api_live_add(struct api_request *request)
{
    struct api_loop *loop = request->loop;
    uint8_t key[API_WATCH_KEY_BYTES];
    struct api_topic *topic = api_topic_find(loop, request->identity.org);
    if (topic == NULL) {
        topic = mem_alloc(sizeof(*topic));
        topic->org = request->identity.org;
        list_init(&topic->streams);
        list_push_back(&loop->topics, &topic->link);
    }
    list_push_back(&topic->streams, &request->wait);
    table_upsert(loop->api->watch, api_watch_key(loop->index, topic->org, key), api_watch_nothing,
                 NULL);
}

void api_live_remove(struct api_request *request)
{
    struct api_loop *loop = request->loop;
    uint8_t key[API_WATCH_KEY_BYTES];
    struct api_topic *topic = api_topic_find(loop, request->identity.org);
    list_remove(&request->wait);
    if (topic != NULL && list_is_empty(&topic->streams)) {
        (void)table_erase(loop->api->watch, api_watch_key(loop->index, topic->org, key));
        list_remove(&topic->link);
        mem_free(topic);
    }
}

static void api_watch_add(void *value, void *context)
{
    int32_t *change = context;
    struct api_watch *watch = value;
    watch->count += *change;
    *change = watch->count;
}

void api_live_count(struct api *api, int32_t change)
{
    uint8_t key[API_LOOP_KEY_BYTES];
    table_upsert(api->loop_watch, api_loop_key(API_LOOP_STREAMS, key), api_watch_add, &change);
    metrics_set(METRIC_STREAM_OPEN, (double)change);
}

void api_live_end(struct api_loop *loop)
{
    for (struct list_link *link = list_first(&loop->topics); link != NULL;
         link = list_after(&loop->topics, link)) {
        struct api_topic *topic = LIST_CONTAINER(link, struct api_topic, link);
        for (struct list_link *one = list_first(&topic->streams); one != NULL;
             one = list_after(&topic->streams, one)) {
            http_stream_end(LIST_CONTAINER(one, struct api_request, wait)->http);
        }
    }
}
