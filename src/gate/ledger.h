/* Ledger: what is counted in memory and written down later: failed checks and last uses of keys.
 *
 * Thread: failed, used: any. write, is_writing: one thread, the owner of reply_to.
 * Memory: everything is copied in. The ledger must outlive what it writes (is_writing).
 * Errors: none for who counts. What could not be written is kept and tried again. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

struct gate_ledger;
struct mailbox;
struct store;

/* Rows of failed checks are kept for 30 days. */
#define GATE_FAILURES_KEPT_MS (30ll * 86400000ll)

struct gate_ledger *gate_ledger_create(struct store *store, uint32_t keys_max);
void gate_ledger_destroy(struct gate_ledger *ledger);
/* `id` as it was sent: of any size; what cannot be a key's id counts as none. */
void gate_ledger_failed(struct gate_ledger *ledger, struct slice id, struct slice address,
                        int64_t wall_ms);
void gate_ledger_used(struct gate_ledger *ledger, uint64_t key, int64_t wall_ms);
/* Posts what there is to the store. Nothing when there is nothing, or a write is on its way. */
void gate_ledger_write(struct gate_ledger *ledger, struct mailbox *reply_to);
bool gate_ledger_is_writing(const struct gate_ledger *ledger);
