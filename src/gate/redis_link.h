/* Redis link: one connection to one Redis, with a deadline on everything.
 *
 * Thread: one owner. It sleeps until the socket is ready or the deadline has come, so never a
 *         loop's.
 * Memory: replies are the caller's, freed with freeReplyObject.
 * Errors: after any error the link is only good for closing. ERR_TIMEOUT, ERR_CLOSED, ERR_AWAY; an
 *         answer that is not Redis' protocol: ERR_CORRUPT. ERR_PERMISSION, ERR_CONFIG from open:
 *         Redis, or its certificate, says no. */
#pragma once
#include <hiredis/hiredis.h>

#include "base/slice.h"
#include "gate/redis_url.h"

struct gate_redis_link;
struct ssl_ctx_st;

struct gate_redis_link_options {
    const struct gate_redis_address *address;
    struct ssl_ctx_st *tls; /* NULL: none */
    const char *user;       /* empty: the default user */
    const char *password;   /* empty: no AUTH */
    uint32_t database;      /* 0: no SELECT */
    uint64_t deadline_ms;   /* monotonic, of all that open does */
};

/* Connects, shakes hands, AUTH, SELECT, PING. */
MUST_CHECK enum err gate_redis_link_open(struct gate_redis_link **ret,
                                         const struct gate_redis_link_options *options,
                                         struct err_detail *detail);
/* Puts the address in front of what is there. */
void gate_redis_link_prefix(struct err_detail *detail, const struct gate_redis_address *address);
/* NULL is fine. */
void gate_redis_link_close(struct gate_redis_link *link);

/* Adds a command to what the next flush sends. */
MUST_CHECK enum err gate_redis_link_append(struct gate_redis_link *link, uint32_t count,
                                           const struct slice *words);
MUST_CHECK enum err gate_redis_link_flush(struct gate_redis_link *link, uint64_t deadline_ms);
/* The next answer, in the order of the commands; one of REDIS_REPLY_ERROR is ERR_OK. */
MUST_CHECK enum err gate_redis_link_read(struct gate_redis_link *link, uint64_t deadline_ms,
                                         redisReply **ret);
/* append, flush and read of one command, when nothing else is under way. */
MUST_CHECK enum err gate_redis_link_call(struct gate_redis_link *link, uint32_t count,
                                         const struct slice *words, uint64_t deadline_ms,
                                         redisReply **ret);
/* When it last brought something, monotonic. */
uint64_t gate_redis_link_used_ms(const struct gate_redis_link *link);
