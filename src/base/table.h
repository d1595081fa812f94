/* Table: a striped hash table of fixed-size values, bounded, least recently used out first.
 *
 * Thread: any; one short lock per stripe, never two. Callbacks run under the stripe's lock: they
 *         copy or add numbers, and call nothing that locks.
 * Memory: keys (at most 64 bytes) and values are copied in. Value memory is stable only inside a
 *         callback.
 * Errors: none: a full stripe drops its least recently used entry. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

#define TABLE_KEY_BYTES_MAX 64

struct table;

typedef void (*table_visit)(void *value, void *context);

/* `entries_max` in all, spread over stripes; value_bytes per entry. */
struct table *table_create(uint32_t entries_max, uint32_t value_bytes);
void table_destroy(struct table *table);
/* Runs `visit` on the value if the key is there and marks it used; false when absent. */
bool table_find(struct table *table, struct slice key, table_visit visit, void *context);
/* As table_find, but an absent key is first added with a zeroed value. */
void table_upsert(struct table *table, struct slice key, table_visit visit, void *context);
/* Copies the value out; false when absent. */
bool table_copy(struct table *table, struct slice key, void *ret_value);
void table_put(struct table *table, struct slice key, const void *value);
/* True when it was there. */
bool table_erase(struct table *table, struct slice key);
/* Erases every entry for which `matches` gives true; one stripe at a time. */
void table_erase_if(struct table *table, bool (*matches)(const void *value, void *context),
                    void *context);
uint32_t table_count(struct table *table);
