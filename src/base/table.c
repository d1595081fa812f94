/* Table: stripes, each a hash table with chains and a list of its entries by last use.
 *
 * All memory is mapped when the table is made and costs nothing until touched: entries are given
 * out in order, so a table that holds few keys holds few pages. Entries name each other by number
 * (1 is the first, 0 is none), which makes fresh zero pages a valid empty table.
 *
 *   hash, high bits -> stripe -> lock
 *   hash, low bits  -> bucket -> entry -> entry -> 0   (chain)
 *   newest <-> ... <-> oldest                          (use)
 *
 * Happy path: one hash, one lock, a chain of about one entry, the entry moves to the newest end.
 * Failure modes: a full stripe drops its oldest entry. Small tables have few stripes, so that an
 * uneven spread of keys does not drop entries long before entries_max is reached. */
#include "base/table.h"

#include "base/hash.h"
#include "base/mem.h"

#include <assert.h>
#include <pthread.h>
#include <stdalign.h>
#include <stddef.h>

#define TABLE_STRIPES_MAX        64u
#define TABLE_STRIPE_ENTRIES_MIN 256u
#define TABLE_NONE               0u
#define TABLE_CACHE_LINE_BYTES   64

struct table_entry {
    uint32_t chained; /* next of the bucket, or of the free entries */
    uint32_t newer;
    uint32_t older;
    uint32_t tag; /* high half of the hash: compared before the key */
    uint8_t key_size;
    uint8_t key[TABLE_KEY_BYTES_MAX];
    /* The value follows, at TABLE_VALUE_OFFSET. */
};

#define TABLE_VALUE_OFFSET                                                                         \
    ((sizeof(struct table_entry) + alignof(max_align_t) - 1) / alignof(max_align_t) *              \
     alignof(max_align_t))

struct table_stripe {
    alignas(TABLE_CACHE_LINE_BYTES) pthread_mutex_t lock; /* guards everything of the stripe */
    uint32_t *buckets;
    uint8_t *entries;
    uint32_t newest;
    uint32_t oldest;
    uint32_t free;  /* erased entries */
    uint32_t fresh; /* entries never given out start after this number */
    uint32_t count;
};

struct table {
    struct table_stripe *stripes;
    uint32_t stripe_count;
    uint32_t stripe_entries;
    uint32_t bucket_mask;
    uint32_t value_bytes;
    size_t entry_bytes;
    size_t mapped_bytes;
};

static struct table_entry *table_entry(const struct table *table, const struct table_stripe *stripe,
                                       uint32_t number)
{
    assert(number != TABLE_NONE && number <= table->stripe_entries);
    return (struct table_entry *)(void *)(stripe->entries + (number - 1) * table->entry_bytes);
}

static void *table_value(struct table_entry *entry)
{
    return (uint8_t *)entry + TABLE_VALUE_OFFSET;
}

struct table *table_create(uint32_t entries_max, uint32_t value_bytes)
{
    assert(entries_max > 0);
    struct table *table = mem_alloc(sizeof(*table));
    table->stripe_count = 1;
    while (table->stripe_count < TABLE_STRIPES_MAX &&
           entries_max / (table->stripe_count * 2) >= TABLE_STRIPE_ENTRIES_MIN) {
        table->stripe_count *= 2;
    }
    table->stripe_entries = (entries_max - 1) / table->stripe_count + 1;
    size_t bucket_count = 1;
    while (bucket_count < table->stripe_entries) {
        bucket_count *= 2;
    }
    table->bucket_mask = (uint32_t)(bucket_count - 1);
    table->value_bytes = value_bytes;
    size_t alignment = alignof(max_align_t);
    table->entry_bytes = (TABLE_VALUE_OFFSET + value_bytes + alignment - 1) / alignment * alignment;

    /* One mapping: stripes, then all entries, then all buckets. */
    size_t stripes_bytes = table->stripe_count * sizeof(struct table_stripe);
    size_t entries_bytes = table->stripe_entries * table->entry_bytes;
    size_t buckets_bytes = bucket_count * sizeof(uint32_t);
    table->mapped_bytes = stripes_bytes + table->stripe_count * (entries_bytes + buckets_bytes);
    uint8_t *memory = mem_map(table->mapped_bytes);
    table->stripes = (struct table_stripe *)(void *)memory;
    uint8_t *entries = memory + stripes_bytes;
    uint8_t *buckets = entries + table->stripe_count * entries_bytes;
    for (uint32_t i = 0; i < table->stripe_count; i++) {
        struct table_stripe *stripe = &table->stripes[i];
        int result = pthread_mutex_init(&stripe->lock, NULL);
        assert(result == 0);
        stripe->entries = entries + i * entries_bytes;
        stripe->buckets = (uint32_t *)(void *)(buckets + i * buckets_bytes);
    }
    return table;
}

void table_destroy(struct table *table)
{
    if (table == NULL) {
        return;
    }
    for (uint32_t i = 0; i < table->stripe_count; i++) {
        int result = pthread_mutex_destroy(&table->stripes[i].lock);
        assert(result == 0);
    }
    mem_unmap(table->stripes, table->mapped_bytes);
    mem_free(table);
}

static struct table_stripe *table_enter(struct table *table, uint64_t hash)
{
    struct table_stripe *stripe = &table->stripes[(hash >> 32) & (table->stripe_count - 1)];
    int result = pthread_mutex_lock(&stripe->lock);
    assert(result == 0);
    return stripe;
}

static void table_leave(struct table_stripe *stripe)
{
    int result = pthread_mutex_unlock(&stripe->lock);
    assert(result == 0);
}

static void table_use_remove(const struct table *table, struct table_stripe *stripe,
                             uint32_t number)
{
    struct table_entry *entry = table_entry(table, stripe, number);
    if (entry->newer == TABLE_NONE) {
        stripe->newest = entry->older;
    } else {
        table_entry(table, stripe, entry->newer)->older = entry->older;
    }
    if (entry->older == TABLE_NONE) {
        stripe->oldest = entry->newer;
    } else {
        table_entry(table, stripe, entry->older)->newer = entry->newer;
    }
}

static void table_use_add(const struct table *table, struct table_stripe *stripe, uint32_t number)
{
    struct table_entry *entry = table_entry(table, stripe, number);
    entry->newer = TABLE_NONE;
    entry->older = stripe->newest;
    if (stripe->newest == TABLE_NONE) {
        stripe->oldest = number;
    } else {
        table_entry(table, stripe, stripe->newest)->newer = number;
    }
    stripe->newest = number;
}

static uint32_t table_bucket(const struct table *table, uint64_t hash)
{
    return (uint32_t)hash & table->bucket_mask;
}

/* The link that holds the key's number, or the bucket's last link, which holds 0. */
static uint32_t *table_link(const struct table *table, const struct table_stripe *stripe,
                            uint64_t hash, struct slice key)
{
    uint32_t *link = &stripe->buckets[table_bucket(table, hash)];
    while (*link != TABLE_NONE) {
        struct table_entry *entry = table_entry(table, stripe, *link);
        if (entry->tag == (uint32_t)(hash >> 32) &&
            slice_equal(slice_make(entry->key, entry->key_size), key)) {
            break;
        }
        link = &entry->chained;
    }
    return link;
}

/* Takes the entry that `link` names out of its chain and the order of use. */
static void table_unlink(const struct table *table, struct table_stripe *stripe, uint32_t *link)
{
    uint32_t number = *link;
    struct table_entry *entry = table_entry(table, stripe, number);
    *link = entry->chained;
    table_use_remove(table, stripe, number);
    entry->chained = stripe->free;
    stripe->free = number;
    stripe->count--;
}

static void table_unlink_number(const struct table *table, struct table_stripe *stripe,
                                uint32_t number)
{
    const struct table_entry *entry = table_entry(table, stripe, number);
    struct slice key = slice_make(entry->key, entry->key_size);
    uint32_t *link = table_link(table, stripe, hash_table(key.data, key.size), key);
    assert(*link == number);
    table_unlink(table, stripe, link);
}

/* A zeroed entry for a key that is not there, the newest of its stripe. */
static uint32_t table_add(const struct table *table, struct table_stripe *stripe, uint64_t hash,
                          struct slice key)
{
    uint32_t number = TABLE_NONE;
    if (stripe->free == TABLE_NONE && stripe->fresh < table->stripe_entries) {
        number = ++stripe->fresh;
    } else {
        if (stripe->free == TABLE_NONE) {
            table_unlink_number(table, stripe, stripe->oldest);
        }
        number = stripe->free;
        stripe->free = table_entry(table, stripe, number)->chained;
    }
    struct table_entry *entry = table_entry(table, stripe, number);
    uint32_t *bucket = &stripe->buckets[table_bucket(table, hash)];
    entry->chained = *bucket;
    *bucket = number;
    entry->tag = (uint32_t)(hash >> 32);
    entry->key_size = (uint8_t)key.size;
    if (key.size > 0) {
        memcpy(entry->key, key.data, key.size);
    }
    memset(table_value(entry), 0, table->value_bytes);
    table_use_add(table, stripe, number);
    stripe->count++;
    return number;
}

static bool table_visit_key(struct table *table, struct slice key, bool must_add, table_visit visit,
                            void *context)
{
    assert(key.size <= TABLE_KEY_BYTES_MAX);
    uint64_t hash = hash_table(key.data, key.size);
    struct table_stripe *stripe = table_enter(table, hash);
    uint32_t number = *table_link(table, stripe, hash, key);
    if (number != TABLE_NONE && number != stripe->newest) {
        table_use_remove(table, stripe, number);
        table_use_add(table, stripe, number);
    } else if (number == TABLE_NONE && must_add) {
        number = table_add(table, stripe, hash, key);
    }
    if (number != TABLE_NONE) {
        visit(table_value(table_entry(table, stripe, number)), context);
    }
    table_leave(stripe);
    return number != TABLE_NONE;
}

bool table_find(struct table *table, struct slice key, table_visit visit, void *context)
{
    return table_visit_key(table, key, false, visit, context);
}

void table_upsert(struct table *table, struct slice key, table_visit visit, void *context)
{
    bool is_there = table_visit_key(table, key, true, visit, context);
    assert(is_there);
}

struct table_reading {
    void *to;
    size_t size;
};

static void table_visit_read(void *value, void *context)
{
    const struct table_reading *reading = context;
    memcpy(reading->to, value, reading->size);
}

bool table_copy(struct table *table, struct slice key, void *ret_value)
{
    struct table_reading reading = {ret_value, table->value_bytes};
    return table_find(table, key, table_visit_read, &reading);
}

struct table_writing {
    const void *from;
    size_t size;
};

static void table_visit_write(void *value, void *context)
{
    const struct table_writing *writing = context;
    memcpy(value, writing->from, writing->size);
}

void table_put(struct table *table, struct slice key, const void *value)
{
    struct table_writing writing = {value, table->value_bytes};
    table_upsert(table, key, table_visit_write, &writing);
}

bool table_erase(struct table *table, struct slice key)
{
    assert(key.size <= TABLE_KEY_BYTES_MAX);
    uint64_t hash = hash_table(key.data, key.size);
    struct table_stripe *stripe = table_enter(table, hash);
    uint32_t *link = table_link(table, stripe, hash, key);
    bool is_there = *link != TABLE_NONE;
    if (is_there) {
        table_unlink(table, stripe, link);
    }
    table_leave(stripe);
    return is_there;
}

void table_erase_if(struct table *table, bool (*matches)(const void *value, void *context),
                    void *context)
{
    for (uint32_t i = 0; i < table->stripe_count; i++) {
        struct table_stripe *stripe = table_enter(table, (uint64_t)i << 32);
        uint32_t number = stripe->oldest;
        while (number != TABLE_NONE) {
            struct table_entry *entry = table_entry(table, stripe, number);
            uint32_t newer = entry->newer;
            if (matches(table_value(entry), context)) {
                table_unlink_number(table, stripe, number);
            }
            number = newer;
        }
        table_leave(stripe);
    }
}

uint32_t table_count(struct table *table)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < table->stripe_count; i++) {
        struct table_stripe *stripe = table_enter(table, (uint64_t)i << 32);
        count += stripe->count;
        table_leave(stripe);
    }
    return count;
}
