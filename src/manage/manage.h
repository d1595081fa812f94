/* Manage: what people set up: orgs now; registry, endpoints, types and settings later.
 *
 * Thread: inside store jobs.
 * Memory: row slices live inside the callback; those that create gives are the caller's own.
 * Errors: ERR_EXISTS a name that is taken, ERR_INVALID a name that is not permitted, ERR_NOT_FOUND.
 */
#pragma once
#include "base/err.h"
#include "base/id.h"
#include "base/slice.h"

struct store_connection;

#define MANAGE_ORG_NAME_BYTES_MAX 100u
#define MANAGE_ORG_TIER_BYTES_MAX 20u
#define MANAGE_ORG_TEXT_BYTES     (MANAGE_ORG_NAME_BYTES_MAX + MANAGE_ORG_TIER_BYTES_MAX)

struct manage_org {
    uint64_t number;
    struct id id;
    struct slice name; /* 1 to 100 bytes, printable UTF-8 */
    struct slice tier; /* word of gate's tiers */
    int64_t created_ms;
    uint64_t key_count;               /* live ones */
    char text[MANAGE_ORG_TEXT_BYTES]; /* what name and tier of a found org point into */
};
/* Makes its 32-byte id key (DESIGN I8) too. The tier is taken as one of gate's words, checked by
 * the caller. */
MUST_CHECK enum err manage_org_create(struct store_connection *connection, struct slice name,
                                      struct slice tier, struct manage_org *ret);
/* A name that looks like an id is looked for as an id first. The struct owns the text that its
 * slices point into, so it must not be moved or copied while they are used. */
MUST_CHECK enum err manage_org_find(struct store_connection *connection, struct slice name_or_id,
                                    struct manage_org *ret);
/* In the order of their making. */
MUST_CHECK enum err manage_org_list(struct store_connection *connection,
                                    void (*on_row)(const struct manage_org *org, void *context),
                                    void *context);
