/* Query fixture: answers are looked at as text (an id stands after {"id":" and nowhere else), so
 * that the reader of the test is none of ours. */
#include "support/query_fixture.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

void query_fixture_init(struct query_fixture *fixture)
{
    memset(fixture, 0, sizeof(*fixture));
    store_fixture_init(&fixture->store);
    store_fixture_open(&fixture->store, false);
    store_fixture_add_org(&fixture->store, 1);
    store_fixture_add_org(&fixture->store, 7);
    buffer_init(&fixture->answer, 16u * 1024u * 1024u);
}

void query_fixture_finish(struct query_fixture *fixture)
{
    buffer_finish(&fixture->answer);
    store_fixture_finish(&fixture->store);
}

static enum err run_insert(struct store_connection *connection, void *context)
{
    return store_insert_events(connection, context, 1, true);
}

static struct slice text_or_none(const char *text)
{
    return text[0] == 0 ? (struct slice){NULL, 0} : slice_from_text(text);
}

struct query_known *query_fixture_add(struct query_fixture *fixture, uint64_t org, const char *type,
                                      const char *subject, const char *app, int64_t created_ms,
                                      const char *payload)
{
    char made[32];
    assert_true(fixture->count < QUERY_EVENTS_MAX);
    struct query_known *known = &fixture->known[fixture->count++];
    (void)snprintf(made, sizeof(made), "{\"n\":%u}", fixture->count);
    (void)snprintf(known->type, sizeof(known->type), "%s", type);
    (void)snprintf(known->subject, sizeof(known->subject), "%s", subject);
    (void)snprintf(known->app, sizeof(known->app), "%s", app);
    known->org = org;
    known->created_ms = created_ms;
    known->id = id_make_v7(clock_wall_ms());
    struct store_event event = {.type = slice_from_text(type),
                                .payload = slice_from_text(payload != NULL ? payload : made),
                                .subject = text_or_none(subject),
                                .app = text_or_none(app),
                                .id = known->id.bytes,
                                .occurred_ms = created_ms - 1,
                                .created_ms = created_ms,
                                .org = org,
                                .position = fixture->count};
    assert_int_equal(store_fixture_run(&fixture->store, run_insert, &event), ERR_OK);
    assert_int_equal(event.state, STORE_EVENT_INSERTED);
    known->sequence = event.sequence;
    return known;
}

struct acknowledge {
    uint64_t org;
    const struct id *ids;
    uint32_t count;
    uint32_t acknowledged;
};

static enum err run_acknowledge(struct store_connection *connection, void *context)
{
    struct acknowledge *one = context;
    return query_acknowledge(connection, one->org, one->ids, one->count, &one->acknowledged);
}

uint32_t query_fixture_acknowledge(struct query_fixture *fixture, uint64_t org,
                                   const struct id *ids, uint32_t count)
{
    struct acknowledge one = {.org = org, .ids = ids, .count = count};
    assert_int_equal(store_fixture_run(&fixture->store, run_acknowledge, &one), ERR_OK);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t n = 0; n < fixture->count; n++) {
            if (fixture->known[n].org == org && id_equal(fixture->known[n].id, ids[i])) {
                fixture->known[n].acknowledged = true;
            }
        }
    }
    return one.acknowledged;
}

struct list {
    const struct query_events *query;
    struct buffer *to;
};

static enum err run_list(struct store_connection *connection, void *context)
{
    const struct list *list = context;
    return query_events_list(connection, list->query, list->to);
}

enum err query_fixture_list(struct query_fixture *fixture, const struct query_events *query)
{
    struct list list = {.query = query, .to = &fixture->answer};
    buffer_clear(&fixture->answer);
    enum err err = store_fixture_run(&fixture->store, run_list, &list);
    if (err == ERR_OK) {
        assert_int_equal(buffer_append_byte(&fixture->answer, 0), ERR_OK);
    }
    return err;
}

uint32_t query_fixture_ids(const struct query_fixture *fixture, struct id *ret, uint32_t max)
{
    static const char mark[] = "{\"id\":\"";
    uint32_t count = 0;
    const char *at = (const char *)fixture->answer.data;
    while ((at = strstr(at, mark)) != NULL) {
        at += sizeof(mark) - 1;
        assert_true(count < max);
        assert_true(id_parse(slice_make(at, ID_TEXT_BYTES), &ret[count]));
        count++;
    }
    return count;
}

uint64_t query_fixture_cursor(const struct query_fixture *fixture, enum query_list list,
                              uint64_t org)
{
    static const char mark[] = "\"next_cursor\":\"";
    const char *at = strstr((const char *)fixture->answer.data, mark);
    uint64_t place = 0;
    if (at == NULL) {
        assert_non_null(strstr((const char *)fixture->answer.data, "\"next_cursor\":null}"));
        return 0;
    }
    at += sizeof(mark) - 1;
    assert_true(query_cursor_parse(list, org, slice_make(at, QUERY_CURSOR_TEXT_BYTES), &place));
    return place;
}
