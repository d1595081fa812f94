/* Plan: what the house makes of its settings.
 *
 * Thread: any.  Memory: the texts are constant.  Errors: none. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "settings.h"

/* Several nodes have their store and their journal in common. */
bool house_is_shared(const struct settings *settings);
/* 0: one without leases. */
uint32_t house_appliers(const struct settings *settings);
/* Connections that read. */
uint32_t house_readers(const struct settings *settings);
/* What an acknowledgement covers. */
const char *house_durability(const struct settings *settings);
/* API_ROLE_… */
uint32_t house_roles(const struct settings *settings);
