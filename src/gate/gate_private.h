/* Gate's inside: what its files share.
 *
 * Thread: fields are set at open and only read later; what they point to has its own locks.
 * Memory: the gate owns all of it but the store.
 * Errors: none. */
#pragma once
#include "gate/cache.h"
#include "gate/gate.h"
#include "gate/key_text.h"
#include "gate/ledger.h"

struct gate_shared;
struct gate_verifier;
struct table;

struct gate {
    struct gate_options options; /* tag_key is NULL here */
    uint8_t tag_key[GATE_TAG_KEY_BYTES];
    struct gate_cache *cache;
    struct gate_ledger *ledger;
    struct table *windows;
    struct gate_shared *shared; /* NULL: limits count on this node alone */
    struct gate_verifier **verifiers;
};
