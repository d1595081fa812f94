/* Query fixture: a store of events that the test made, and a model of them to compare answers with.
 *
 * Thread: the test's.
 * Memory: init allocates, finish frees.
 * Errors: a failing step fails the test. */
#pragma once
#include "query/query.h"
#include "support/store_fixture.h"

#define QUERY_EVENTS_MAX 4000u

/* What the test knows of an event. */
struct query_known {
    struct id id;
    uint64_t org;
    uint64_t sequence;
    char type[24];
    char subject[24]; /* empty: none */
    char app[24];
    int64_t created_ms;
    bool acknowledged;
};

struct query_fixture {
    struct store_fixture store;
    struct query_known known[QUERY_EVENTS_MAX];
    uint32_t count;
    struct buffer answer;
};

/* Orgs 1 and 7. */
void query_fixture_init(struct query_fixture *fixture);
void query_fixture_finish(struct query_fixture *fixture);
/* Adds an event after those there are; `payload` NULL: {"n":<its number>}. */
struct query_known *query_fixture_add(struct query_fixture *fixture, uint64_t org, const char *type,
                                      const char *subject, const char *app, int64_t created_ms,
                                      const char *payload);
uint32_t query_fixture_acknowledge(struct query_fixture *fixture, uint64_t org,
                                   const struct id *ids, uint32_t count);
/* Runs a list; the answer stands in fixture->answer, NUL-terminated. */
enum err query_fixture_list(struct query_fixture *fixture, const struct query_events *query);
/* Ids of an answer in their order, and its cursor (0: none). */
uint32_t query_fixture_ids(const struct query_fixture *fixture, struct id *ret, uint32_t max);
uint64_t query_fixture_cursor(const struct query_fixture *fixture, enum query_list list,
                              uint64_t org);
