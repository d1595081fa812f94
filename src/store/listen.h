/* Listen: what other nodes change and apply, for stores that several share; a part of store.h,
 * which includes it.
 *
 * Thread: callbacks: the listener's. announce: any. The rest as in store.h.
 * Memory: as in store.h.
 * Errors: none: whoever is not heard is asked again until it answers. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct store;

enum store_change {
    STORE_CHANGED_KEY, /* the key of this number */
    STORE_CHANGED_ORG, /* tier or limits of the org of this number */
    STORE_NEW_KEYS,    /* there are keys that were not there before */
    STORE_CHANGED_ANY, /* nobody knows what: messages were missed */
};

struct store_listen_options {
    uint64_t node; /* random number of this process */
    void *owner;
    void (*on_change)(void *owner, enum store_change change, uint64_t number);
    /* Of every change up to `mono_ms` on_change was told. */
    void (*on_current)(void *owner, uint64_t mono_ms);
    /* Another node has applied its journal up to `position`; the orgs whose data changed, NULL: it
     * may be any. */
    void (*on_applied)(void *owner, uint64_t position, const uint64_t *orgs, uint32_t count);
    /* Another node: each of these lanes (bits) of the journal is applied up to `position`. */
    void (*on_passed)(void *owner, uint64_t lanes, uint64_t position);
    /* Another node has given lanes up. */
    void (*on_free)(void *owner);
};

/* Argument: the store. Returns after store_stop; at once where one process has the database for
 * itself. */
void store_listener_run(void *store);
/* This node has applied up to `position`: the others are told soon. */
void store_announce(struct store *store, uint64_t position, const uint64_t *orgs, uint32_t count);
/* The same of its spool, whose positions are others. */
void store_announce_spool(struct store *store, uint64_t position);
/* The same of lanes of a journal that nodes share: how far they are; that some were given up. */
void store_announce_passed(struct store *store, uint64_t lanes, uint64_t position);
void store_announce_free(struct store *store);
