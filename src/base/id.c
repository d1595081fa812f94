/* Id: making, writing and reading UUIDs of versions 7 and 8 (RFC 9562).
 *
 *   byte 0..5   v7: milliseconds since 1970, big-endian         v8: hash
 *   byte 6      version in the high half, 4 random or hash bits in the low
 *   byte 7      random or hash
 *   byte 8      binary 10 in the high bits, 6 random or hash bits below
 *   byte 9..15  random or hash
 *
 * Random bits come from a pool of the thread, so that most ids cost no system call: one seed makes
 * the whole pool (ChaCha20), its first 32 bytes are the next pool's seed and are never given out.
 */
#include "base/id.h"

#include "base/blake2b.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/mem.h"

#include <assert.h>
#include <sodium.h>

#define ID_WALL_MS_MAX  ((int64_t)0xffffffffffff) /* 48 bits */
#define ID_RANDOM_BYTES 10u
#define ID_SEED_BYTES   randombytes_SEEDBYTES
#define ID_TEXT_ROOM    4096u /* of what a dedup id is made from, on the stack */
#define ID_POOL_BYTES   (ID_SEED_BYTES + 100u * ID_RANDOM_BYTES)

struct id_pool {
    uint8_t bytes[ID_POOL_BYTES];
    size_t used;
    bool is_seeded;
};

static _Thread_local struct id_pool id_pool;

static_assert(sizeof(struct id) == 16, "ids are stored as they are");

static const uint8_t *id_take_random(void)
{
    struct id_pool *pool = &id_pool;
    if (!pool->is_seeded || pool->used == ID_POOL_BYTES) {
        uint8_t seed[ID_SEED_BYTES];
        if (pool->is_seeded) {
            memcpy(seed, pool->bytes, sizeof(seed));
        } else {
            hash_random(seed, sizeof(seed));
        }
        randombytes_buf_deterministic(pool->bytes, sizeof(pool->bytes), seed);
        pool->is_seeded = true;
        pool->used = ID_SEED_BYTES;
    }
    const uint8_t *bytes = pool->bytes + pool->used;
    pool->used += ID_RANDOM_BYTES;
    return bytes;
}

static void id_stamp(struct id *id, uint8_t version)
{
    id->bytes[6] = (uint8_t)((id->bytes[6] & 0x0f) | version << 4);
    id->bytes[8] = (uint8_t)((id->bytes[8] & 0x3f) | 0x80);
}

struct id id_make_v7(int64_t wall_ms)
{
    struct id id;
    const uint8_t *random = id_take_random();
    uint16_t start;
    uint64_t low;
    wall_ms = wall_ms < 0 ? 0 : wall_ms;
    wall_ms = wall_ms > ID_WALL_MS_MAX ? ID_WALL_MS_MAX : wall_ms;
    memcpy(&start, random, sizeof(start));
    memcpy(&low, random + sizeof(start), sizeof(low));
    /* In whole words: bytes stored one by one and then read as words are waited for. */
    uint64_t high = (uint64_t)wall_ms << 16 | UINT64_C(7) << 12 | (start & 0x0fffu);
    low = (low & UINT64_MAX >> 2) | UINT64_C(1) << 63;
    high = __builtin_bswap64(high);
    low = __builtin_bswap64(low);
    memcpy(id.bytes, &high, sizeof(high));
    memcpy(id.bytes + sizeof(high), &low, sizeof(low));
    return id;
}

struct id id_make_element(struct id base, uint64_t index)
{
    const uint64_t mask = UINT64_MAX >> 2;
    uint64_t low;
    memcpy(&low, base.bytes + 8, sizeof(low));
    low = __builtin_bswap64(low);
    low = (low & ~mask) | ((low + index + 1) & mask);
    low = __builtin_bswap64(low);
    memcpy(base.bytes + 8, &low, sizeof(low));
    return base;
}

/* The state that an org's key leaves: most ids of a thread are of few orgs. */
struct id_org {
    uint8_t key[BLAKE2B_KEY_BYTES];
    struct blake2b_keyed keyed;
    bool is_set;
};

#define ID_ORGS_KEPT 16u

static _Thread_local struct id_org id_orgs[ID_ORGS_KEPT];

static const struct blake2b_keyed *id_keyed(const uint8_t key[BLAKE2B_KEY_BYTES])
{
    struct id_org *org = &id_orgs[key[0] % ID_ORGS_KEPT];
    if (!org->is_set || memcmp(org->key, key, sizeof(org->key)) != 0) {
        memcpy(org->key, key, sizeof(org->key));
        blake2b_key(&org->keyed, key);
        org->is_set = true;
    }
    return &org->keyed;
}

/* The length in front keeps ("ab", "c") and ("a", "bc") apart. */
static uint8_t *id_put_part(uint8_t *to, struct slice part)
{
    assert(part.size <= UINT32_MAX);
    uint32_t size = (uint32_t)part.size;
    memcpy(to, &size, sizeof(size));
    if (part.size > 0) {
        memcpy(to + sizeof(size), part.data, part.size);
    }
    return to + sizeof(size) + part.size;
}

struct id id_make_dedup(const uint8_t key[32], struct slice kind, struct slice source,
                        struct slice dedup_id)
{
    struct id id;
    uint8_t text[ID_TEXT_ROOM];
    size_t size = 3 * sizeof(uint32_t) + kind.size + source.size + dedup_id.size;
    uint8_t *to = size <= sizeof(text) ? text : mem_alloc(size);
    uint8_t *end = id_put_part(id_put_part(id_put_part(to, kind), source), dedup_id);
    assert((size_t)(end - to) == size);
    blake2b_hash(id_keyed(key), to, size, id.bytes);
    if (to != text) {
        mem_free(to);
    }
    id_stamp(&id, 8);
    return id;
}

bool id_four_add(struct id_four *four, const uint8_t key[32], struct slice kind,
                 struct slice source, struct slice dedup_id)
{
    size_t size = 3 * sizeof(uint32_t) + kind.size + source.size + dedup_id.size;
    if (size > BLAKE2B_BLOCK_BYTES) {
        return false;
    }
    assert(four->count < BLAKE2B_TOGETHER);
    struct blake2b_four *parts = &four->parts;
    uint8_t *to = parts->texts[four->count];
    memset(to, 0, BLAKE2B_BLOCK_BYTES);
    uint8_t *end = id_put_part(id_put_part(id_put_part(to, kind), source), dedup_id);
    assert((size_t)(end - to) == size);
    parts->keyed[four->count] = *id_keyed(key);
    parts->sizes[four->count] = (uint32_t)size;
    four->count++;
    return true;
}

void id_four_make(struct id_four *four)
{
    struct blake2b_four *parts = &four->parts;
    if (four->count == BLAKE2B_TOGETHER) {
        blake2b_hash_four(parts);
    } else {
        for (uint32_t i = 0; i < four->count; i++) {
            blake2b_hash(&parts->keyed[i], parts->texts[i], parts->sizes[i], parts->hashes[i]);
        }
    }
    for (uint32_t i = 0; i < four->count; i++) {
        memcpy(four->ids[i].bytes, parts->hashes[i], sizeof(four->ids[i].bytes));
        id_stamp(&four->ids[i], 8);
    }
    four->count = 0;
}

static bool id_hyphen_follows(size_t byte_index)
{
    return byte_index == 3 || byte_index == 5 || byte_index == 7 || byte_index == 9;
}

struct id id_from_bytes(struct slice bytes)
{
    struct id id = {{0}};
    if (bytes.size == sizeof(id.bytes)) {
        memcpy(id.bytes, bytes.data, sizeof(id.bytes));
    }
    return id;
}

void id_format(struct id id, char to[ID_TEXT_BYTES])
{
    char digits[2 * sizeof(id.bytes)];
    for (size_t i = 0; i < sizeof(id.bytes); i += sizeof(uint32_t)) {
        uint32_t part;
        memcpy(&part, id.bytes + i, sizeof(part));
        hex_put_u32(__builtin_bswap32(part), digits + 2 * i);
    }
    memcpy(to, digits, 8);
    memcpy(to + 9, digits + 8, 4);
    memcpy(to + 14, digits + 12, 4);
    memcpy(to + 19, digits + 16, 4);
    memcpy(to + 24, digits + 20, 12);
    to[8] = to[13] = to[18] = to[23] = '-';
}

static bool id_hex_value(uint8_t digit, uint8_t *ret_value)
{
    uint8_t lower = digit | 0x20;
    if (digit >= '0' && digit <= '9') {
        *ret_value = (uint8_t)(digit - '0');
        return true;
    }
    if (lower >= 'a' && lower <= 'f') {
        *ret_value = (uint8_t)(lower - 'a' + 10);
        return true;
    }
    return false;
}

bool id_parse(struct slice text, struct id *ret_id)
{
    struct id id;
    if (text.size != ID_TEXT_BYTES) {
        return false;
    }
    size_t at = 0;
    for (size_t i = 0; i < sizeof(id.bytes); i++) {
        uint8_t high;
        uint8_t low;
        if (!id_hex_value(text.data[at], &high) || !id_hex_value(text.data[at + 1], &low)) {
            return false;
        }
        id.bytes[i] = (uint8_t)(high << 4 | low);
        at += 2;
        if (id_hyphen_follows(i)) {
            if (text.data[at] != '-') {
                return false;
            }
            at++;
        }
    }
    *ret_id = id;
    return true;
}
