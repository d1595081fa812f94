/* Redis URL: where the keeper of shared limits is, and how to be let in. Pure.
 *
 * Thread: values.
 * Memory: values; the password stays inside.
 * Errors: ERR_CONFIG with what would be right in the detail, which never holds user or password. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

#define GATE_REDIS_ADDRESSES_MAX 16u
#define GATE_REDIS_HOST_BYTES    256u

enum gate_redis_kind { GATE_REDIS_SINGLE, GATE_REDIS_SENTINEL, GATE_REDIS_CLUSTER };

struct gate_redis_address {
    char host[GATE_REDIS_HOST_BYTES];
    uint16_t port; /* 0: host is the path of a Unix socket */
};

struct gate_redis_url {
    enum gate_redis_kind kind;
    bool is_tls;
    char user[128]; /* empty: the default user */
    char password[512];
    char master[128]; /* the name that the sentinels know */
    uint32_t database;
    uint32_t address_count; /* at least 1 */
    struct gate_redis_address addresses[GATE_REDIS_ADDRESSES_MAX];
};

MUST_CHECK enum err gate_redis_url_parse(struct slice text, struct gate_redis_url *ret,
                                         struct err_detail *detail);
/* "host", "host:port" or "[v6]:port". */
MUST_CHECK bool gate_redis_address_parse(struct slice text, uint16_t port_default,
                                         struct gate_redis_address *ret);
