/* Intake recent: a bounded set of ids that were accepted of late, for the duplicate hint.
 *
 * A table of buckets of sixteen marks, one cache line each. A mark goes to the front of its bucket
 * and pushes the others back; the last falls out. With twice as many places as ids, a bucket holds
 * eight of the last `ids` on average, and more than sixteen of them one time in 250: so nearly all
 * of the last `ids` are there, at 8 bytes an id. Pages are touched as ids come.
 *
 * Why no lock and no base/table: every event with a dedup_id of every loop asks here once, and the
 * answer is a hint. Each place is one relaxed atomic of 32 bits, so a reader sees a whole mark or
 * another whole mark; two adders at once may lose one, which loses a hint and nothing else. The
 * relaxed stores of add pair with the relaxed loads of has.
 *
 * The low bits of a mark choose the bucket, the high 32 stand in it. Another id that looks the same
 * would be a wrong hint: sixteen places of 32 bits, one new id in 270 million. */
#include "intake/recent.h"

#include <assert.h>
#include <stdatomic.h>

#include "base/mem.h"
#include "intake/intake.h"

#define INTAKE_RECENT_WAYS 16u

struct intake_recent_bucket {
    atomic_uint_least32_t places[INTAKE_RECENT_WAYS]; /* 0: empty */
};
static_assert(sizeof(struct intake_recent_bucket) == 64, "a bucket is a cache line");

struct intake_recent {
    struct intake_recent_bucket *buckets;
    uint64_t bucket_mask;
};

struct intake_recent *intake_recent_create(uint32_t ids)
{
    struct intake_recent *recent = mem_alloc(sizeof(*recent));
    uint64_t buckets = 1;
    while (buckets * INTAKE_RECENT_WAYS < (uint64_t)ids * 2) {
        buckets *= 2;
    }
    assert(buckets <= UINT32_MAX); /* its bits and those that stand in it are others */
    recent->bucket_mask = buckets - 1;
    recent->buckets = mem_map(buckets * sizeof(recent->buckets[0]));
    return recent;
}

void intake_recent_destroy(struct intake_recent *recent)
{
    if (recent == NULL) {
        return;
    }
    mem_unmap(recent->buckets, (recent->bucket_mask + 1) * sizeof(recent->buckets[0]));
    mem_free(recent);
}

uint64_t intake_recent_mark(struct id id)
{
    uint64_t high;
    uint64_t low;
    memcpy(&high, id.bytes, sizeof(high));
    memcpy(&low, id.bytes + sizeof(high), sizeof(low));
    /* Version and variant are in fixed places of the two halves; both are hash elsewhere. */
    uint64_t mark = high ^ (low << 32 | low >> 32);
    return mark == 0 ? 1 : mark;
}

static struct intake_recent_bucket *intake_recent_bucket(struct intake_recent *recent,
                                                         uint64_t mark)
{
    return &recent->buckets[mark & recent->bucket_mask];
}

static uint32_t intake_recent_place(uint64_t mark)
{
    uint32_t place = (uint32_t)(mark >> 32u);
    return place == 0 ? 1 : place;
}

bool intake_recent_has(struct intake_recent *recent, uint64_t mark)
{
    struct intake_recent_bucket *bucket = intake_recent_bucket(recent, mark);
    uint32_t place = intake_recent_place(mark);
    for (size_t i = 0; i < INTAKE_RECENT_WAYS; i++) {
        if (atomic_load_explicit(&bucket->places[i], memory_order_relaxed) == place) {
            return true;
        }
    }
    return false;
}

void intake_recent_call(struct intake_recent *recent, uint64_t mark)
{
    __builtin_prefetch(intake_recent_bucket(recent, mark));
}

void intake_recent_add(struct intake_recent *recent, uint64_t mark)
{
    struct intake_recent_bucket *bucket = intake_recent_bucket(recent, mark);
    uint32_t place = intake_recent_place(mark);
    uint32_t pushed = place;
    for (size_t i = 0; i < INTAKE_RECENT_WAYS; i++) {
        uint32_t here = atomic_load_explicit(&bucket->places[i], memory_order_relaxed);
        atomic_store_explicit(&bucket->places[i], pushed, memory_order_relaxed);
        if (here == place || here == 0) {
            break;
        }
        pushed = here;
    }
}
