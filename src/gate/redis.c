/* Redis.
 *
 * A window is one hash, {s: start of the bucket, c: count in it, p: count in the one before}, by
 * Redis' clock, and goes two lengths after its last use (PEXPIRE). One script charges and leases up
 * to four windows of an org in one round trip; its names share a tag, so in a cluster they share a
 * slot. The thread takes all fetches that have come, sends them in one write to each Redis, and
 * reads the answers.
 *
 *   mail --> batch --> EVALSHA to its node, pipelined --> answers --> on_done
 *                        NOSCRIPT --> EVAL          (a Redis that was started anew)
 *                        MOVED, ASK --> once more, at the node that was named
 *                        READONLY --> failed, the connection is dropped, who is master is asked
 *
 * Happy path: one write and one read for all that came while the last answer was under way.
 * Failure modes: no connection: every fetch fails at once, and tending tries to connect at growing
 * intervals, at most 5 s; a fetch that came meanwhile waits no longer than one try. No answer in
 * ANSWER_MS: the connection is dropped, all that waited for it fails. Whether a charge without an
 * answer was made is not known; it is made again. */
#include "gate/redis.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "gate/redis_route.h"

#define ANSWER_MS        500u
#define CONNECT_MS       500u
#define FIRST_CONNECT_MS 2000u
#define REFUSED_MS       5000u /* a refusal is taken to last so long, unless a script runs */
#define BATCH_MAX        256u
#define HOPS_MAX         4u
#define NUMBER_BYTES     24u

#define SCRIPT_NAME_BYTES 40u
#define ARGUMENTS         6u /* quota, length, charge, ask, give back, bucket */
#define ANSWERS           5u /* granted, age, current, previous, bucket */
#define WORDS_MAX         (3u + GATE_REDIS_WINDOWS_MAX * (1u + ARGUMENTS))

/* The steps of gate/window.c: roll, take out what is given back of this bucket, charge, see what is
 * free, lease a part of it. A lease is at most a quarter of the rest, so that near the limit every
 * node still gets some. */
static const char script[] =
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local out = {}\n"
    "for i = 1, #KEYS do\n"
    "  local a = 6 * (i - 1)\n"
    "  local quota, length = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])\n"
    "  local charge, ask = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])\n"
    "  local back, bucket = tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6])\n"
    "  local w = redis.call('HMGET', KEYS[i], 's', 'c', 'p')\n"
    "  local start = tonumber(w[1] or now)\n"
    "  local current, previous = tonumber(w[2] or 0), tonumber(w[3] or 0)\n"
    "  if now - start >= length then\n"
    "    previous = now - start < 2 * length and current or 0\n"
    "    current = 0\n"
    "    start = start + length\n"
    "  end\n"
    "  if (current == 0 and previous == 0) or start > now then start = now end\n"
    "  if start == bucket then current = math.max(current - back, 0) end\n"
    "  current = current + charge\n"
    "  local used = current + math.ceil(previous * (length - (now - start)) / length)\n"
    "  local rest = math.max(quota - used, 0)\n"
    "  local granted = math.min(ask, math.ceil(rest / 4))\n"
    "  current = current + granted\n"
    "  if current > 0 or previous > 0 or back > 0 then\n"
    "    redis.call('HSET', KEYS[i], 's', string.format('%.0f', start),\n"
    "      'c', string.format('%.0f', current), 'p', string.format('%.0f', previous))\n"
    "    redis.call('PEXPIRE', KEYS[i], 2 * length)\n"
    "  end\n"
    "  out[#out + 1] = granted\n"
    "  out[#out + 1] = now - start\n"
    "  out[#out + 1] = current\n"
    "  out[#out + 1] = previous\n"
    "  out[#out + 1] = start\n"
    "end\n"
    "return out\n";

struct gate_redis {
    struct gate_redis_route *route;
    struct mailbox *mailbox;
    struct gate_redis_fetch *first; /* taken from the mailbox, not yet asked */
    struct gate_redis_fetch **last;
    bool was_up;
    bool has_warned;
    uint64_t refused_until_ms; /* Redis is there and did not run the script; 0: it did */
    char sha[SCRIPT_NAME_BYTES];
    atomic_int health; /* relaxed on both sides: a value for people */
};

enum err gate_redis_health(const struct gate_redis *redis)
{
    return (enum err)atomic_load_explicit(&redis->health, memory_order_relaxed);
}

/* --- state ---------------------------------------------------------------------------------- */

static void health_set(struct gate_redis *redis, enum err err, const struct err_detail *detail)
{
    bool is_up = err == ERR_OK;
    atomic_store_explicit(&redis->health, (int)err, memory_order_relaxed);
    metrics_set(METRIC_REDIS_UP, is_up ? 1 : 0);
    if (is_up != redis->was_up) {
        if (is_up) {
            log_write(LOG_INFO, "gate", "shared limits: Redis is there");
        } else {
            log_write(LOG_WARN, "gate",
                      "shared limits: %s; each node limits alone until Redis is back",
                      detail->text[0] != '\0' ? detail->text : err_text(err));
        }
    }
    redis->was_up = is_up;
    if (is_up && gate_redis_route_may_evict(redis->route) && !redis->has_warned) {
        redis->has_warned = true;
        log_write(LOG_WARN, "gate",
                  "shared limits: Redis may evict windows when its memory is full; set "
                  "maxmemory-policy noeviction");
    }
}

static void tend(struct gate_redis *redis, uint32_t timeout_ms)
{
    struct err_detail detail = {""};
    enum err err = gate_redis_route_tend(redis->route, timeout_ms, &detail);
    if (err != ERR_OK || clock_mono_ms() >= redis->refused_until_ms) {
        health_set(redis, err, &detail);
    }
}

enum err gate_redis_connect(struct gate_redis *redis, struct err_detail *detail)
{
    enum err err = gate_redis_route_tend(redis->route, FIRST_CONNECT_MS, detail);
    if (err != ERR_CONFIG && err != ERR_PERMISSION) {
        redis->was_up = err != ERR_OK; /* so that the first state is said in any case */
        health_set(redis, err, detail);
    }
    return err;
}

/* --- one fetch ------------------------------------------------------------------------------ */

static struct slice fetch_name(const struct gate_redis_fetch *fetch)
{
    return slice_from_text(fetch->windows[0].name);
}

/* EVALSHA sha count names… numbers…, or EVAL with the script in place of its sha. */
static enum err fetch_append(const struct gate_redis *redis, const struct gate_redis_fetch *fetch,
                             bool is_whole, struct gate_redis_link *link)
{
    struct slice words[WORDS_MAX];
    char numbers[GATE_REDIS_WINDOWS_MAX * ARGUMENTS][NUMBER_BYTES];
    char count[NUMBER_BYTES];
    uint32_t used = 0;
    (void)snprintf(count, sizeof(count), "%u", fetch->count);
    words[used++] = is_whole ? SLICE_LITERAL("EVAL") : SLICE_LITERAL("EVALSHA");
    words[used++] = is_whole ? SLICE_LITERAL(script) : slice_make(redis->sha, sizeof(redis->sha));
    words[used++] = slice_from_text(count);
    for (uint32_t i = 0; i < fetch->count; i++) {
        words[used++] = slice_from_text(fetch->windows[i].name);
    }
    for (uint32_t i = 0; i < fetch->count; i++) {
        const struct gate_redis_window *window = &fetch->windows[i];
        const uint64_t values[ARGUMENTS] = {window->rule.quota, window->rule.length_ms,
                                            window->charge,     window->ask,
                                            window->give_back,  window->bucket};
        for (uint32_t j = 0; j < ARGUMENTS; j++) {
            char *number = numbers[i * ARGUMENTS + j];
            (void)snprintf(number, NUMBER_BYTES, "%llu", (unsigned long long)values[j]);
            words[used++] = slice_from_text(number);
        }
    }
    return gate_redis_link_append(link, used, words);
}

/* Whether the numbers came; the fetch holds them then. */
static bool fetch_take(struct gate_redis_fetch *fetch, const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != (size_t)fetch->count * ANSWERS) {
        return false;
    }
    for (uint32_t i = 0; i < fetch->count; i++) {
        uint64_t values[ANSWERS];
        for (uint32_t j = 0; j < ANSWERS; j++) {
            const redisReply *one = reply->element[i * ANSWERS + j];
            if (one->type != REDIS_REPLY_INTEGER || one->integer < 0) {
                return false;
            }
            values[j] = (uint64_t)one->integer;
        }
        fetch->windows[i].answer = (struct gate_lease_answer){.granted = values[0],
                                                              .age_ms = values[1],
                                                              .current = values[2],
                                                              .previous = values[3],
                                                              .bucket = values[4]};
    }
    return true;
}

static void fetch_finish(struct gate_redis_fetch *fetch, enum err err)
{
    struct gate_redis *redis = fetch->redis;
    if (err == ERR_OK && redis->refused_until_ms != 0) {
        redis->refused_until_ms = 0;
        health_set(redis, ERR_OK, NULL);
    }
    metrics_add(err == ERR_OK ? METRIC_REDIS_LEASES : METRIC_REDIS_FAILURES, 1);
    fetch->on_done(fetch, err);
}

/* --- answers that are errors ---------------------------------------------------------------- */

enum answer { ANSWER_TAKEN, ANSWER_SCRIPT, ANSWER_MOVED, ANSWER_ASK, ANSWER_REPLICA, ANSWER_NO };

static enum answer answer_of(struct gate_redis_fetch *fetch, const redisReply *reply)
{
    static const struct {
        struct slice prefix;
        enum answer answer;
    } rows[] = {
        {{(const uint8_t *)"NOSCRIPT", 8}, ANSWER_SCRIPT},
        {{(const uint8_t *)"MOVED ", 6}, ANSWER_MOVED},
        {{(const uint8_t *)"ASK ", 4}, ANSWER_ASK},
        {{(const uint8_t *)"READONLY", 8}, ANSWER_REPLICA},
        {{(const uint8_t *)"MASTERDOWN", 10}, ANSWER_REPLICA},
    };
    if (fetch_take(fetch, reply)) {
        return ANSWER_TAKEN;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        struct slice text = slice_make(reply->str, (size_t)reply->len);
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            if (slice_starts_with(text, rows[i].prefix)) {
                return rows[i].answer;
            }
        }
    }
    return ANSWER_NO;
}

static void say_refusal(struct gate_redis *redis, const redisReply *reply)
{
    struct err_detail detail;
    bool has_text = reply->type == REDIS_REPLY_ERROR;
    err_detail_set(&detail, "Redis refuses the script: %.200s",
                   has_text ? reply->str : "an answer of another shape");
    redis->refused_until_ms = clock_mono_ms() + REFUSED_MS;
    health_set(redis, ERR_AWAY, &detail);
}

/* Asks once more, at `link`, after the answer that `why` says. */
static enum err ask_again(struct gate_redis *redis, struct gate_redis_fetch *fetch, enum answer why,
                          struct gate_redis_link *link, redisReply **ret)
{
    const struct slice asking = SLICE_LITERAL("ASKING");
    uint64_t deadline_ms = clock_mono_ms() + ANSWER_MS;
    enum err err = ERR_OK;
    if (why == ANSWER_ASK) {
        redisReply *ignored = NULL;
        err = gate_redis_link_call(link, 1, &asking, deadline_ms, &ignored);
        if (err == ERR_OK) {
            freeReplyObject(ignored);
        }
    }
    if (err == ERR_OK) {
        err = fetch_append(redis, fetch, true, link);
    }
    if (err == ERR_OK) {
        err = gate_redis_link_flush(link, deadline_ms);
    }
    if (err == ERR_OK) {
        err = gate_redis_link_read(link, deadline_ms, ret);
    }
    if (err != ERR_OK) {
        gate_redis_route_drop(redis->route, link);
    }
    return err;
}

/* Frees the reply. */
static enum err fetch_settle(struct gate_redis *redis, struct gate_redis_fetch *fetch,
                             struct gate_redis_link *link, redisReply *reply)
{
    enum err err = ERR_AWAY;
    for (uint32_t hop = 0; hop < HOPS_MAX; hop++) {
        enum answer answer = answer_of(fetch, reply);
        if (answer == ANSWER_TAKEN) {
            err = ERR_OK;
            break;
        }
        if (answer == ANSWER_NO) {
            say_refusal(redis, reply);
            break;
        }
        if (answer == ANSWER_REPLICA) {
            gate_redis_route_drop(redis->route, link);
            break;
        }
        if (answer != ANSWER_SCRIPT) {
            link = gate_redis_route_follow(redis->route, slice_make(reply->str, (size_t)reply->len),
                                           clock_mono_ms() + CONNECT_MS);
        }
        freeReplyObject(reply);
        reply = NULL;
        if (link == NULL || ask_again(redis, fetch, answer, link, &reply) != ERR_OK) {
            break;
        }
    }
    if (reply != NULL) {
        freeReplyObject(reply);
    }
    return err;
}

/* --- the batch ------------------------------------------------------------------------------ */

struct asked {
    struct gate_redis_fetch *fetch;
    struct gate_redis_link *link; /* NULL: not sent */
    redisReply *reply;            /* NULL: none came */
};

/* After a failure of a link: whatever else was sent there has no answer. */
static void batch_lose(struct gate_redis *redis, struct asked *asked, uint32_t count,
                       struct gate_redis_link *link)
{
    for (uint32_t i = 0; i < count; i++) {
        if (asked[i].link == link) {
            asked[i].link = NULL;
        }
    }
    gate_redis_route_drop(redis->route, link);
}

static void batch_send(struct gate_redis *redis, struct asked *asked, uint32_t count,
                       uint64_t deadline_ms)
{
    for (uint32_t i = 0; i < count; i++) {
        asked[i].link = gate_redis_route_find(redis->route, fetch_name(asked[i].fetch));
        if (asked[i].link != NULL &&
            fetch_append(redis, asked[i].fetch, false, asked[i].link) != ERR_OK) {
            batch_lose(redis, asked, i + 1, asked[i].link);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (asked[i].link != NULL && gate_redis_link_flush(asked[i].link, deadline_ms) != ERR_OK) {
            batch_lose(redis, asked, count, asked[i].link);
        }
    }
}

/* All answers are read before any is acted upon, since acting uses the links anew. */
static void batch_receive(struct gate_redis *redis, struct asked *asked, uint32_t count,
                          uint64_t deadline_ms)
{
    for (uint32_t i = 0; i < count; i++) {
        if (asked[i].link != NULL &&
            gate_redis_link_read(asked[i].link, deadline_ms, &asked[i].reply) != ERR_OK) {
            batch_lose(redis, asked, count, asked[i].link);
        }
    }
}

static void batch_run(struct gate_redis *redis, struct asked *asked, uint32_t count)
{
    uint64_t started_ns = clock_mono_ns();
    uint64_t deadline_ms = started_ns / 1000000u + ANSWER_MS;
    batch_send(redis, asked, count, deadline_ms);
    batch_receive(redis, asked, count, deadline_ms);
    metrics_observe(METRIC_REDIS_SECONDS, clock_mono_ns() - started_ns);
    for (uint32_t i = 0; i < count; i++) {
        enum err err = ERR_AWAY;
        if (asked[i].reply != NULL) {
            /* Its link may have gone since; where it is now is looked up. */
            struct gate_redis_link *link =
                gate_redis_route_find(redis->route, fetch_name(asked[i].fetch));
            err = fetch_settle(redis, asked[i].fetch, link, asked[i].reply);
        }
        fetch_finish(asked[i].fetch, err);
    }
}

static void batches_run(struct gate_redis *redis)
{
    struct asked asked[BATCH_MAX];
    while (redis->first != NULL) {
        uint32_t count = 0;
        while (redis->first != NULL && count < BATCH_MAX) {
            asked[count++] = (struct asked){.fetch = redis->first};
            redis->first = redis->first->next;
        }
        batch_run(redis, asked, count);
    }
    redis->last = &redis->first;
}

/* --- the thread ----------------------------------------------------------------------------- */

static void fetch_on_arrive(struct mail *mail)
{
    struct gate_redis_fetch *fetch = (struct gate_redis_fetch *)(void *)mail;
    fetch->next = NULL;
    *fetch->redis->last = fetch;
    fetch->redis->last = &fetch->next;
}

static_assert(offsetof(struct gate_redis_fetch, mail) == 0, "a mail is its first member");

enum err gate_redis_post(struct gate_redis *redis, struct gate_redis_fetch *fetch)
{
    assert(fetch->count > 0 && fetch->count <= GATE_REDIS_WINDOWS_MAX);
    fetch->redis = redis;
    fetch->mail = (struct mail){.on_arrive = fetch_on_arrive};
    return mailbox_post(redis->mailbox, &fetch->mail);
}

void gate_redis_run(struct gate_redis *redis)
{
    while (!mailbox_is_closed(redis->mailbox)) {
        uint64_t now_ms = clock_mono_ms();
        uint64_t due_ms = gate_redis_route_due_ms(redis->route);
        mailbox_wait(redis->mailbox, due_ms > now_ms ? (int)(due_ms - now_ms) : 0);
        (void)mailbox_run_all(redis->mailbox);
        batches_run(redis);
        if (clock_mono_ms() >= gate_redis_route_due_ms(redis->route)) {
            tend(redis, CONNECT_MS);
        }
    }
    (void)mailbox_run_all(redis->mailbox);
    while (redis->first != NULL) {
        struct gate_redis_fetch *fetch = redis->first;
        redis->first = fetch->next;
        fetch_finish(fetch, ERR_DRAINING);
    }
}

void gate_redis_stop(struct gate_redis *redis)
{
    mailbox_close(redis->mailbox);
}

/* SHA-1 in hex, as Redis names scripts. Should it fail, no script has this name: each fetch then
 * takes the way of NOSCRIPT. */
static void script_name(char to[SCRIPT_NAME_BYTES])
{
    uint8_t digest[EVP_MAX_MD_SIZE] = {0};
    (void)EVP_Digest(script, sizeof(script) - 1, digest, NULL, EVP_sha1(), NULL);
    for (size_t i = 0; i < SCRIPT_NAME_BYTES; i++) {
        uint32_t half = i % 2 == 0 ? digest[i / 2] >> 4u : digest[i / 2] & 15u;
        to[i] = "0123456789abcdef"[half];
    }
}

enum err gate_redis_create(struct gate_redis **ret, struct slice url_text,
                           struct err_detail *detail)
{
    struct gate_redis_url url;
    struct gate_redis *redis = mem_alloc(sizeof(*redis));
    redis->last = &redis->first;
    atomic_init(&redis->health, ERR_AWAY);
    enum err err = gate_redis_url_parse(url_text, &url, detail);
    if (err == ERR_OK) {
        err = gate_redis_route_create(&redis->route, &url, detail);
    }
    OPENSSL_cleanse(&url, sizeof(url));
    if (err == ERR_OK) {
        err = mailbox_create(&redis->mailbox, LIMIT_LEASES_ASKED);
    }
    if (err == ERR_OK) {
        script_name(redis->sha);
        *ret = redis;
        redis = NULL;
    }
    gate_redis_destroy(redis);
    return err;
}

void gate_redis_destroy(struct gate_redis *redis)
{
    if (redis == NULL) {
        return;
    }
    gate_redis_route_destroy(redis->route);
    mailbox_destroy(redis->mailbox);
    mem_free(redis);
}
