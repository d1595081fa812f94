/* The gate fixture: see its header. */
#include "support/gate_fixture.h"

#include "base/metrics.h"
#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct gate_options gate_fixture_options(const struct gate_fixture *fixture)
{
    return (struct gate_options){.store = fixture->store.store,
                                 .argon2_memory_kib = 8,
                                 .argon2_passes = 1,
                                 .cache_ttl_s = 300,
                                 .cache_entries = 1000,
                                 .verifier_count = 1,
                                 .verify_queue_max = 64};
}

void gate_fixture_init(struct gate_fixture *fixture)
{
    *fixture = (struct gate_fixture){.gate = NULL};
    metrics_open_row();
    store_fixture_init(&fixture->store);
    store_fixture_open(&fixture->store, true);
    store_fixture_add_org(&fixture->store, 1);
    store_fixture_add_org(&fixture->store, 2);
    assert_int_equal(mailbox_create(&fixture->mailbox, 1000), ERR_OK);
}

void gate_fixture_finish(struct gate_fixture *fixture)
{
    gate_fixture_close(fixture);
    store_fixture_finish(&fixture->store);
    mailbox_destroy(fixture->mailbox);
}

void gate_fixture_open(struct gate_fixture *fixture, const struct gate_options *options)
{
    struct err_detail detail = {""};
    if (fixture->store.store == NULL) {
        store_fixture_open(&fixture->store, true);
    }
    struct gate_options used = options == NULL ? gate_fixture_options(fixture) : *options;
    used.store = fixture->store.store;
    if (gate_open(&fixture->gate, &used, &detail) != ERR_OK) {
        fail_msg("gate_open: %s", detail.text);
    }
    fixture->verifier_count = used.verifier_count;
}

void gate_fixture_start(struct gate_fixture *fixture)
{
    for (uint32_t i = 0; i < fixture->verifier_count; i++) {
        assert_int_equal(thread_start(&fixture->verifiers[i], "verify", gate_verifier_run,
                                      gate_verifier(fixture->gate, i)),
                         ERR_OK);
    }
}

void gate_fixture_close(struct gate_fixture *fixture)
{
    if (fixture->gate != NULL) {
        gate_stop(fixture->gate);
    }
    for (uint32_t i = 0; i < fixture->verifier_count; i++) {
        thread_join(fixture->verifiers[i]);
        fixture->verifiers[i] = NULL;
    }
    fixture->verifier_count = 0;
    store_fixture_close(&fixture->store);
    gate_close(fixture->gate);
    fixture->gate = NULL;
}

struct key_insert {
    const struct gate_new_key *key;
    const struct gate_key_options *options;
    uint64_t number;
};

static enum err run_insert(struct store_connection *connection, void *context)
{
    struct key_insert *insert = context;
    return gate_key_insert(connection, insert->key, insert->options, &insert->number);
}

uint64_t gate_fixture_insert(struct gate_fixture *fixture, const struct gate_new_key *key,
                             const struct gate_key_options *options)
{
    struct key_insert insert = {.key = key, .options = options};
    assert_int_equal(store_fixture_run(&fixture->store, run_insert, &insert), ERR_OK);
    return insert.number;
}

uint64_t gate_fixture_key(struct gate_fixture *fixture, uint64_t org, struct gate_new_key *ret,
                          const struct gate_key_options *options)
{
    const struct gate_key_options plain = {.org = org, .scopes = GATE_ALL};
    assert_int_equal(gate_key_prepare(fixture->gate, ret), ERR_OK);
    return gate_fixture_insert(fixture, ret, options == NULL ? &plain : options);
}

static void on_checked(struct gate_waiter *waiter, enum err err,
                       const struct gate_identity *identity)
{
    struct gate_asked *asked =
        (struct gate_asked *)(void *)((char *)waiter - offsetof(struct gate_asked, waiter));
    asked->is_answered = true;
    asked->err = err;
    asked->identity = *identity;
}

void gate_fixture_post(struct gate_fixture *fixture, const char *key, struct gate_asked *ret)
{
    *ret = (struct gate_asked){
        .waiter = {.reply_to = fixture->mailbox, .on_checked = on_checked},
    };
    switch (gate_check(fixture->gate, slice_from_text(key), SLICE_LITERAL("192.0.2.7"),
                       &ret->waiter, &ret->identity)) {
    case GATE_CHECK_OK:
        ret->err = ERR_OK;
        ret->is_answered = true;
        break;
    case GATE_CHECK_DENIED:
        ret->err = ERR_UNAUTHORIZED;
        ret->is_answered = true;
        break;
    case GATE_CHECK_BUSY:
        ret->err = ERR_BUSY;
        ret->is_answered = true;
        break;
    case GATE_CHECK_WAIT:
        ret->has_waited = true;
        break;
    }
}

void gate_fixture_wait(struct gate_fixture *fixture, const struct gate_asked *asked)
{
    while (!asked->is_answered) {
        mailbox_wait(fixture->mailbox, -1);
        (void)mailbox_run_all(fixture->mailbox);
    }
}

enum err gate_fixture_ask(struct gate_fixture *fixture, const char *key, struct gate_asked *ret)
{
    gate_fixture_post(fixture, key, ret);
    gate_fixture_wait(fixture, ret);
    return ret->err;
}

enum err gate_fixture_ask_stale(struct gate_fixture *fixture, const char *key,
                                struct gate_asked *ret)
{
    do {
        (void)gate_fixture_ask(fixture, key, ret);
    } while (!ret->has_waited && ret->err == ERR_OK);
    return ret->err;
}

int gate_fixture_setup(void **state)
{
    gate_fixture_init(*state);
    gate_fixture_open(*state, NULL);
    return 0;
}

int gate_fixture_teardown(void **state)
{
    gate_fixture_finish(*state);
    return 0;
}
