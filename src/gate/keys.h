/* Keys: the rows behind the keys, as a check needs them.
 *
 * Thread: inside a store job.
 * Memory: everything is copied out.
 * Errors: ERR_NOT_FOUND no such id; the store's. */
#pragma once
#include "base/err.h"
#include "gate/gate.h"
#include "gate/secret.h"

struct store_statement;

/* What a check needs of a key's row and its org's. */
struct gate_key_found {
    struct gate_identity identity;
    int64_t revoked_ms;             /* 0: live */
    char hash[GATE_HASH_BYTES_MAX]; /* Argon2id, NUL-terminated */
};

/* A list in the page's order: of two texts that have $1 org, $2 the row behind which to go on,
 * $3 limit. */
MUST_CHECK enum err gate_page_prepare(struct store_connection *connection,
                                      const struct gate_page *page, const char *oldest_first,
                                      const char *newest_first, struct store_statement **ret);
/* mb_per_hour is for an org whose row has none of its own. */
MUST_CHECK enum err gate_key_load(struct store_connection *connection, struct slice id,
                                  uint32_t mb_per_hour, struct gate_key_found *ret);
