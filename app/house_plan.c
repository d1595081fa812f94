/* Plan: what the house makes of its settings. Pure. */
#include "house_plan.h"

#include <string.h>

#include "api/api.h"
#include "base/thread.h"
#include "store/store.h"

bool house_is_shared(const struct settings *settings)
{
    return settings->nats_url[0] != '\0' && store_url_is_postgres(settings->database_url);
}

/* 0: one without leases. One connection writes, one listens, at least one reads. Where others apply
 * one follows them. */
uint32_t house_appliers(const struct settings *settings)
{
    bool applies = settings_has_role(settings, "apply");
    uint32_t wanted = applies ? (uint32_t)settings->worker_pool_size : 1;
    uint32_t permitted = (uint32_t)settings->max_connections - 3;
    if (!store_url_is_postgres(settings->database_url)) {
        return 0;
    }
    return wanted > permitted ? permitted : wanted;
}

/* A connection that waits for a server costs no processor: as many as are permitted, less those
 * that write and the one that listens. */
uint32_t house_readers(const struct settings *settings)
{
    uint32_t count = (uint32_t)settings->store_readers;
    if (store_url_is_postgres(settings->database_url)) {
        uint32_t permitted = (uint32_t)settings->max_connections - 2 - house_appliers(settings);
        return count == 0 || count > permitted ? permitted : count;
    }
    return count == 0 ? thread_cpu_count() : count;
}

const char *house_durability(const struct settings *settings)
{
    if (settings->nats_url[0] == '\0') {
        return "fsync";
    }
    return strcmp(settings->nats_sync, "always") == 0 ? "jetstream_fsync" : "jetstream";
}

uint32_t house_roles(const struct settings *settings)
{
    return (settings_has_role(settings, "intake") ? API_ROLE_INTAKE : 0u) |
           (settings_has_role(settings, "apply") ? API_ROLE_APPLY : 0u) |
           (settings_has_role(settings, "query") ? API_ROLE_QUERY : 0u);
}
