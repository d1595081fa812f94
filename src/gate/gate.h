/* Gate: who may come in, and how much. Keys `weir_<id>_<secret>`: the id finds the row, the
 * secret's last 8 characters are a keyed tag that is checked first (a made-up key costs no Argon2id
 * and no SQL), Argon2id checks the secret. Checked keys live in a cache; limits are sliding
 * windows.
 *
 * Thread: open, close: main, open before the store's threads run. verifier_run: a verifier's
 *         thread. check, limit: a loop's thread. key_prepare: any but a loop's. What takes a
 *         connection: inside a store job. forget: any thread.
 * Memory: identities are values, copied out. A waiter is the caller's and stays put until called.
 * Errors: ERR_UNAUTHORIZED no such key, wrong secret, revoked, expired; ERR_BUSY the verifiers'
 *         queue is full (503 auth_busy); ERR_AWAY the store cannot say; ERR_DRAINING gate_stop was
 *         called; ERR_FULL a limit is reached (429). */
#pragma once
#include <stdbool.h>

#include "base/buffer.h"
#include "base/err.h"
#include "base/id.h"
#include "base/mailbox.h"
#include "base/slice.h"

struct gate;
struct store;
struct store_connection;

/* What a key may do: name, bit, word. The narrowed ones permit one area alone; read and write all
 * of them. Bits stand in the store: they are never given to another word. */
#define GATE_SCOPES(X)                                                                             \
    X(READ, 0, "read")                                                                             \
    X(WRITE, 1, "write")                                                                           \
    X(ADMIN, 2, "admin")                                                                           \
    X(READ_EVENTS, 3, "read:events")                                                               \
    X(WRITE_EVENTS, 4, "write:events")                                                             \
    X(READ_HEALTH, 5, "read:health")                                                               \
    X(WRITE_HEALTH, 6, "write:health")                                                             \
    X(READ_TELEMETRY, 7, "read:telemetry")                                                         \
    X(WRITE_TELEMETRY, 8, "write:telemetry")                                                       \
    X(READ_WEBHOOKS, 9, "read:webhooks")                                                           \
    X(WRITE_WEBHOOKS, 10, "write:webhooks")                                                        \
    X(READ_RECOMMENDATIONS, 11, "read:recommendations")                                            \
    X(WRITE_RECOMMENDATIONS, 12, "write:recommendations")
enum gate_scope {
#define X(name, bit, text) GATE_##name = 1 << (bit),
    GATE_SCOPES(X)
#undef X
        GATE_ALL = GATE_READ | GATE_WRITE | GATE_ADMIN,
    GATE_WRITES = GATE_WRITE | GATE_WRITE_EVENTS | GATE_WRITE_HEALTH | GATE_WRITE_TELEMETRY |
                  GATE_WRITE_WEBHOOKS | GATE_WRITE_RECOMMENDATIONS,
    GATE_SCOPES_KNOWN = 0
#define X(name, bit, text) | GATE_##name
    GATE_SCOPES(X)
#undef X
};
/* 0: no such word. */
uint32_t gate_scope_from_text(struct slice text);
/* The word of one of the scopes, which is taken off the set; NULL when none is left. */
const char *gate_scope_take(uint32_t *scopes);

/* Requests a minute; tiers of an org. */
#define GATE_TIERS(X)                                                                              \
    X(FREE, "free", 100)                                                                           \
    X(PRO, "pro", 1000)                                                                            \
    X(BUSINESS, "business", 10000)                                                                 \
    X(ENTERPRISE, "enterprise", 100000)                                                            \
    X(UNLIMITED, "unlimited", 0)
enum gate_tier {
#define X(name, text, requests) GATE_TIER_##name,
    GATE_TIERS(X)
#undef X
        GATE_TIER_COUNT
};
bool gate_tier_from_text(struct slice text, enum gate_tier *ret);

struct gate_options {
    struct store *store;
    uint32_t argon2_memory_kib; /* OWASP: 19456 */
    uint32_t argon2_passes;     /* OWASP: 2 */
    uint32_t cache_ttl_s;       /* counts from last use */
    uint32_t cache_entries;
    uint32_t verifier_count;
    uint32_t verify_queue_max;
    uint32_t mb_per_hour;   /* default bytes limit of an org; 0: off */
    const uint8_t *tag_key; /* 32 bytes, kept by the store (gate_open makes it when absent): NULL */
};

/* With tag_key NULL the tag key is read, or made, in the store: no writer may run yet. */
MUST_CHECK enum err gate_open(struct gate **ret, const struct gate_options *options,
                              struct err_detail *detail);
/* Argument: gate_verifier(gate, i). */
void gate_verifier_run(void *argument);
void *gate_verifier(struct gate *gate, uint32_t index);
/* Any thread: whoever waits is answered (ERR_DRAINING), what was counted is written, the verifiers
 * return. The store's threads must still run. */
void gate_stop(struct gate *gate);
/* After the verifiers and the store's threads were joined: one that has answered a verifier may
 * still be waking it. NULL is fine. */
void gate_close(struct gate *gate);

/* Limits that many nodes count together, in Redis. Before the loops run; not called: this node
 * counts alone. ERR_CONFIG, ERR_PERMISSION: the URL, the password; the detail has one line without
 * either. A Redis that is away is no error: each node limits alone until it is back. */
MUST_CHECK enum err gate_share(struct gate *gate, struct slice redis_url,
                               struct err_detail *detail);
/* A thread's, after gate_share; gate_stop ends it. */
void gate_share_run(void *gate);
bool gate_is_shared(const struct gate *gate);
/* ERR_OK, or what keeps this node from sharing. */
enum err gate_share_health(const struct gate *gate);

/* Who asks. */
struct gate_identity {
    uint64_t org;
    uint64_t key;
    struct id org_id;
    uint8_t id_key[32];               /* of the org: DESIGN I8 */
    uint32_t scopes;                  /* enum gate_scope, a set */
    uint32_t requests_per_minute;     /* of the org; 0: no limit */
    uint32_t key_requests_per_minute; /* of the key alone; 0: no limit */
    uint32_t mb_per_hour;             /* body bytes of the org, in MiB; 0: no limit */
    uint32_t key_mb_per_hour;         /* of the key alone; 0: no limit */
    int64_t expires_ms;               /* wall; 0: never */
    bool has_device;                  /* it may write readings of this device, and nothing else */
    struct id device;
};

/* As the store and the log write addresses, without a NUL. */
#define GATE_ADDRESS_BYTES_MAX 46
#define GATE_KEY_TEXT_MAX      96

struct gate_waiter {
    struct mail mail;         /* the gate's while waiting */
    struct mailbox *reply_to; /* the loop's */
    void (*on_checked)(struct gate_waiter *waiter, enum err err,
                       const struct gate_identity *identity);

    /* The gate's while waiting; nobody sets or reads these. */
    struct gate *gate;
    uint64_t started_ns;
    uint8_t digest[16];
    uint8_t address_size;
    uint8_t key[GATE_KEY_TEXT_MAX]; /* wiped before on_checked */
    uint8_t address[GATE_ADDRESS_BYTES_MAX];
    enum err err;
    struct gate_identity identity;
};

enum gate_check { GATE_CHECK_OK, GATE_CHECK_DENIED, GATE_CHECK_BUSY, GATE_CHECK_WAIT };
/* OK: *ret is filled. WAIT: waiter->on_checked runs later on the thread that owns reply_to.
 * `address` is for the audit of failures. */
enum gate_check gate_check(struct gate *gate, struct slice key, struct slice address,
                           struct gate_waiter *waiter, struct gate_identity *ret);

/* Moments of one check. */
struct gate_now {
    uint64_t mono_ms; /* TTLs */
    int64_t wall_ms;  /* expiry */
};

/* A thread's own front of the gate: it knows the keys that it let in within the last second. The
 * caller destroys it before gate_close; NULL is fine. */
struct gate_desk;
struct gate_desk *gate_desk_create(struct gate *gate);
void gate_desk_destroy(struct gate_desk *desk);

struct gate_question {
    struct slice key;
    struct slice address;
    struct gate_now now; /* may be some milliseconds old */
};
/* As gate_check, on the thread that made the desk. */
enum gate_check gate_desk_check(struct gate_desk *desk, const struct gate_question *question,
                                struct gate_waiter *waiter, struct gate_identity *ret);

/* State of a window, for the RateLimit headers. */
struct gate_window {
    const char *name; /* "org", "key", "org-bytes", "key-bytes" */
    uint64_t quota;   /* requests or bytes; 0: no limit, the rest is then 0 */
    uint64_t remaining;
    uint32_t window_s;
    uint32_t reset_s; /* until more is there, or what was refused fits; then at least 1 */
};
/* Counts one request, O(1). ERR_FULL: refused (and not counted); *ret is the window that is
 * tightest (or refused). Monotonic clock. */
enum err gate_limit_request(struct gate *gate, const struct gate_identity *identity,
                            struct gate_window *ret);
/* Counts body bytes an hour, in the same way. */
enum err gate_limit_bytes(struct gate *gate, const struct gate_identity *identity, uint64_t bytes,
                          struct gate_window *ret);
/* Nothing was taken of the body in which so many were counted, the first at since_ms (monotonic):
 * they count nowhere, unless they were counted before the turn of a window's bucket. */
void gate_limit_bytes_back(struct gate *gate, const struct gate_identity *identity, uint64_t bytes,
                           uint64_t since_ms);
/* Instant death of a key in every loop: erased from the caches; a running check of it is refused.
 */
void gate_forget_key(struct gate *gate, uint64_t key);
void gate_forget_org(struct gate *gate, uint64_t org);
/* Other nodes change keys too, and which is not known: every key is asked of the store again. */
void gate_forget_all(struct gate *gate);
/* There are new keys: what was refused may be one of them. */
void gate_forget_refused(struct gate *gate);
/* What other nodes changed up to `mono_ms` was forgotten. From the first call on, a key whose row
 * is older than that by five seconds is asked of the store; with that away too it is served. */
void gate_current(struct gate *gate, uint64_t mono_ms);

/* --- keys, inside store jobs (durable) -------------------------------------------------------- */
struct gate_key_options {
    uint64_t org;
    uint32_t scopes;              /* at least one */
    struct slice name;            /* at most 100 bytes, printable; may be empty */
    int64_t expires_ms;           /* 0: never */
    uint32_t requests_per_minute; /* 0: the org's alone */
    uint32_t mb_per_hour;
    bool has_device; /* for this device alone; the caller knows that it exists */
    struct id device;
};
/* The key's text as it is shown once; Argon2id runs here, so never on a loop: the hash is made by
 * gate_key_prepare on any thread but a loop's, then stored inside the job. */
struct gate_new_key {
    char text[GATE_KEY_TEXT_MAX]; /* weir_<id>_<secret>, NUL-terminated */
    char id[40];
    char hash[160];
};
MUST_CHECK enum err gate_key_prepare(struct gate *gate, struct gate_new_key *ret);
/* ERR_INVALID scopes or name, ERR_NOT_FOUND no such org. */
MUST_CHECK enum err gate_key_insert(struct store_connection *connection,
                                    const struct gate_new_key *key,
                                    const struct gate_key_options *options, uint64_t *ret_number);
/* ERR_NOT_FOUND also for a key of another org and one revoked before (org 0: any, for the
 * operator's command line). */
MUST_CHECK enum err gate_key_revoke(struct store_connection *connection, uint64_t org,
                                    struct slice key_id, uint64_t *ret_number);
/* New row with the scopes, name, expiry and limits of the old one, which is revoked at once. */
MUST_CHECK enum err gate_key_replace(struct store_connection *connection, uint64_t org,
                                     struct slice old_key_id, const struct gate_new_key *key,
                                     uint64_t *ret_old_number, uint64_t *ret_number);
/* A part of a list: rows behind `after` in its order. */
struct gate_page {
    uint64_t org;
    uint64_t after; /* number of the last row that was given; 0: from the start */
    uint32_t limit;
    bool oldest_first;
};
struct gate_key_row {
    uint64_t number;
    struct slice id;
    struct slice name;
    struct slice device; /* 16 bytes, or data NULL */
    uint32_t scopes;
    int64_t created_ms;
    int64_t expires_ms;
    int64_t revoked_ms;   /* 0: live */
    int64_t last_used_ms; /* 0: never; to the minute */
    uint32_t requests_per_minute;
    uint32_t mb_per_hour;
};
/* Revoked ones too. */
MUST_CHECK enum err gate_key_list(struct store_connection *connection, const struct gate_page *page,
                                  void (*on_row)(const struct gate_key_row *row, void *context),
                                  void *context);

/* --- audit ------------------------------------------------------------------------------------ */
struct gate_audit {
    uint64_t org;       /* 0: none */
    uint64_t key;       /* number; 0: the operator, or nobody */
    const char *action; /* "key.create", "key.revoke", "org.create", "auth.failed" … */
    struct slice target;
    struct slice address;
};
/* Inside a store job: one row, now. */
MUST_CHECK enum err gate_audit_insert(struct store_connection *connection,
                                      const struct gate_audit *entry);
struct gate_audit_row {
    int64_t time_ms;
    struct slice action, target, address, key_id;
    uint64_t count;
    uint64_t number; /* for the cursor */
};
MUST_CHECK enum err gate_audit_list(struct store_connection *connection,
                                    const struct gate_page *page,
                                    void (*on_row)(const struct gate_audit_row *row, void *context),
                                    void *context);
