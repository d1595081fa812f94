/* Secret: Argon2id of a key's secret.
 *
 * Thread: any but a loop's: it takes tens of milliseconds.
 * Memory: nothing is kept.
 * Errors: ERR_NO_MEMORY says nothing about the secret. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

#define GATE_HASH_BYTES_MAX 160u

/* Text with parameters, a random salt and the hash, NUL-terminated. ERR_NO_MEMORY. */
MUST_CHECK enum err gate_secret_hash(struct slice secret, uint32_t passes, uint32_t memory_kib,
                                     char ret[GATE_HASH_BYTES_MAX]);
/* ERR_UNAUTHORIZED: another secret, or `hash` is none. ERR_NO_MEMORY. */
MUST_CHECK enum err gate_secret_check(const char *hash, struct slice secret);
