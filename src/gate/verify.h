/* Verify: cold key checks, off the loops.
 *
 * Thread: post any; run the verifier's.
 * Memory: a posted waiter is the verifier's until it is answered.
 * Errors: post ERR_FULL, ERR_CLOSED; answers as gate.h says. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "gate/gate.h"
#include "gate/keys.h"

struct gate_verifier;

MUST_CHECK enum err gate_verify_create(struct gate_verifier **ret, struct gate *gate,
                                       uint32_t index);
void gate_verify_destroy(struct gate_verifier *verifier);
/* The waiter's digest chooses the verifier. */
MUST_CHECK enum err gate_verify_post(struct gate *gate, struct gate_waiter *waiter);
void gate_verify_stop(struct gate_verifier *verifier);

/* --- the decision -------------------------------------------------------------------------------
 */
enum gate_verify_next {
    GATE_VERIFY_ADMIT,
    GATE_VERIFY_REFUSE,
    GATE_VERIFY_CHECK,   /* the secret, by Argon2id */
    GATE_VERIFY_PUT_OFF, /* the store cannot say now */
};
/* What to do with a key whose row was asked for: `err` and, when that is ERR_OK, `found` are the
 * answer. proven_key: number of the key that this text was proven to be before; 0: none. */
enum gate_verify_next gate_verify_step(enum err err, const struct gate_key_found *found,
                                       uint64_t proven_key, int64_t wall_ms);
