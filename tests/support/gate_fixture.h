/* Gate fixture: a gate on a store fixture, keys made for it, and checks waited for.
 *
 * Thread: the test's.
 * Memory: open allocates, close frees.
 * Errors: a failing step fails the test. */
#pragma once
#include "gate/gate.h"
#include "support/store_fixture.h"

struct gate_fixture {
    struct store_fixture store;
    struct gate *gate;
    struct mailbox *mailbox; /* of the one loop, which is the test */
    struct thread *verifiers[4];
    uint32_t verifier_count;
};

/* What came of a check. */
struct gate_asked {
    struct gate_waiter waiter;
    struct gate_identity identity;
    enum err err; /* ERR_OK; ERR_UNAUTHORIZED denied; ERR_BUSY; or what on_checked gave */
    bool is_answered;
    bool has_waited;
};

/* Cheap Argon2id, one verifier, a queue of 64. */
struct gate_options gate_fixture_options(const struct gate_fixture *fixture);
/* Store with its threads, orgs 1 and 2. */
void gate_fixture_init(struct gate_fixture *fixture);
void gate_fixture_finish(struct gate_fixture *fixture);
/* options NULL: gate_fixture_options. The store is always the fixture's. */
void gate_fixture_open(struct gate_fixture *fixture, const struct gate_options *options);
/* As cmocka's setup and teardown; the state is a struct gate_fixture. */
int gate_fixture_setup(void **state);
int gate_fixture_teardown(void **state);
void gate_fixture_start(struct gate_fixture *fixture);
/* Stops and joins the verifiers, closes the store and the gate; open opens the store again. */
void gate_fixture_close(struct gate_fixture *fixture);

/* A key of org `org` with all scopes; gives its number. options NULL: no more than that. */
uint64_t gate_fixture_key(struct gate_fixture *fixture, uint64_t org, struct gate_new_key *ret,
                          const struct gate_key_options *options);
uint64_t gate_fixture_insert(struct gate_fixture *fixture, const struct gate_new_key *key,
                             const struct gate_key_options *options);
/* Asks; the answer may come later. */
void gate_fixture_post(struct gate_fixture *fixture, const char *key, struct gate_asked *ret);
void gate_fixture_wait(struct gate_fixture *fixture, const struct gate_asked *asked);
/* Both. */
enum err gate_fixture_ask(struct gate_fixture *fixture, const char *key, struct gate_asked *ret);
/* Asks until the cache's entry, whose TTL is 0, is past it: until the answer had to be waited for.
 */
enum err gate_fixture_ask_stale(struct gate_fixture *fixture, const char *key,
                                struct gate_asked *ret);
