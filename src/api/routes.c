/* Routes: the one table of what the server answers. http routes by it, the common way of a request
 * reads what a route needs from it, and a test compares it with docs/openapi.yaml. */
#include "api/routes.h"

#include "api/handlers.h"

#include <assert.h>

#define NO_STORE     "no-store"
#define NO_CACHE     "private, no-cache"
#define EXPORT_CACHE "private, max-age=300"

#define RE (GATE_READ | GATE_READ_EVENTS)
#define WE (GATE_WRITE | GATE_WRITE_EVENTS)
#define RT (GATE_READ | GATE_READ_TELEMETRY)
#define WT (GATE_WRITE | GATE_WRITE_TELEMETRY)
#define A  GATE_ADMIN
/* What every area's readers may see. */
#define RANY (API_SCOPE_ANY & ~(uint32_t)GATE_WRITES)
#define OPEN API_SCOPE_OPEN
#define ANY  API_SCOPE_ANY

/* method, pattern, operationId, scope, body, Cache-Control, handler */
#define API_ROUTES(X)                                                                              \
    X(POST, "/api/events", postEvent, WE, RECORDS, NO_STORE, api_events_post)                      \
    X(POST, "/api/v1/events", postEventV1, WE, RECORDS, NO_STORE, api_events_post)                 \
    X(POST, "/api/events/batch", postEvents, WE, RECORDS, NO_STORE, api_events_post)               \
    X(POST, "/api/v1/events/batch", postEventsV1, WE, RECORDS, NO_STORE, api_events_post)          \
    X(POST, "/v1/batch", segmentBatch, WE, KEYED, NO_STORE, api_segment_batch)                     \
    X(POST, "/v1/track", segmentTrack, WE, KEYED, NO_STORE, api_segment_track)                     \
    X(POST, "/v1/identify", segmentIdentify, WE, KEYED, NO_STORE, api_segment_identify)            \
    X(POST, "/v1/page", segmentPage, WE, KEYED, NO_STORE, api_segment_page)                        \
    X(POST, "/batch/", posthogBatch, WE, KEYED, NO_STORE, api_posthog_batch)                       \
    X(POST, "/batch", posthogBatchBare, WE, KEYED, NO_STORE, api_posthog_batch)                    \
    X(GET, "/api/inbox", getInbox, RE, NONE, NO_CACHE, api_inbox_get)                              \
    X(GET, "/api/v1/events", listEvents, RE, NONE, NO_CACHE, api_events_get)                       \
    X(GET, "/api/v1/events/stream", streamEvents, RE, NONE, NO_CACHE, api_stream_get)              \
    X(GET, "/api/v1/events/{id}", getEvent, RE, NONE, NO_CACHE, api_event_get)                     \
    X(GET, "/api/v1/export/events", exportEvents, RE, NONE, EXPORT_CACHE, api_export_events)       \
    X(POST, "/api/ack/{id}", acknowledgeEvent, WE, NONE, NO_STORE, api_ack_one)                    \
    X(POST, "/api/inbox/ack", acknowledgeEvents, WE, JSON, NO_STORE, api_ack_many)                 \
    X(GET, "/api/v1/uploads", listUploads, RE | RT, NONE, NO_CACHE, api_uploads_get)               \
    X(GET, "/api/v1/uploads/{id}", getUpload, RE | WE | RT | WT, NONE, NO_CACHE, api_upload_get)   \
    X(GET, "/api/v1/uploads/{id}/raw", getUploadRaw, RE | RT, NONE, NO_CACHE, api_upload_raw)      \
    X(DELETE, "/api/v1/uploads/{id}", deleteUpload, WE | WT, NONE, NO_STORE, api_upload_delete)    \
    X(GET, "/api/v1/dead-letters", listDeadLetters, RE | RT, NONE, NO_CACHE, api_dead_letters_get) \
    X(POST, "/api/v1/dead-letters/{id}/retry", retryDeadLetter, WE | WT, NONE, NO_STORE,           \
      api_dead_letter_retry)                                                                       \
    X(POST, "/v1/ingest", ingest, WT, RECORDS, NO_STORE, api_readings_post)                        \
    X(POST, "/api/v1/readings", postReadings, WT, RECORDS, NO_STORE, api_readings_post)            \
    X(GET, "/api/v1/readings", getReadings, RT, NONE, NO_CACHE, api_readings_get)                  \
    X(GET, "/api/v1/projects", listProjects, RT, NONE, NO_CACHE, api_registry_list)                \
    X(POST, "/api/v1/projects", createProject, WT, JSON, NO_STORE, api_registry_create)            \
    X(GET, "/api/v1/projects/{id}", getProject, RT, NONE, NO_CACHE, api_registry_get)              \
    X(PATCH, "/api/v1/projects/{id}", changeProject, WT, JSON, NO_STORE, api_registry_update)      \
    X(PUT, "/api/v1/projects/{id}", putProject, WT, JSON, NO_STORE, api_registry_update)           \
    X(DELETE, "/api/v1/projects/{id}", deleteProject, WT, NONE, NO_STORE, api_registry_delete)     \
    X(GET, "/api/v1/sites", listSites, RT, NONE, NO_CACHE, api_registry_list)                      \
    X(POST, "/api/v1/sites", createSite, WT, JSON, NO_STORE, api_registry_create)                  \
    X(GET, "/api/v1/sites/{id}", getSite, RT, NONE, NO_CACHE, api_registry_get)                    \
    X(PATCH, "/api/v1/sites/{id}", changeSite, WT, JSON, NO_STORE, api_registry_update)            \
    X(PUT, "/api/v1/sites/{id}", putSite, WT, JSON, NO_STORE, api_registry_update)                 \
    X(DELETE, "/api/v1/sites/{id}", deleteSite, WT, NONE, NO_STORE, api_registry_delete)           \
    X(GET, "/api/v1/devices", listDevices, RT, NONE, NO_CACHE, api_registry_list)                  \
    X(POST, "/api/v1/devices", createDevice, WT, JSON, NO_STORE, api_registry_create)              \
    X(GET, "/api/v1/devices/{id}", getDevice, RT, NONE, NO_CACHE, api_registry_get)                \
    X(PATCH, "/api/v1/devices/{id}", changeDevice, WT, JSON, NO_STORE, api_registry_update)        \
    X(PUT, "/api/v1/devices/{id}", putDevice, WT, JSON, NO_STORE, api_registry_update)             \
    X(DELETE, "/api/v1/devices/{id}", deleteDevice, WT, NONE, NO_STORE, api_registry_delete)       \
    X(GET, "/api/v1/parameters", listParameters, RT, NONE, NO_CACHE, api_registry_list)            \
    X(POST, "/api/v1/parameters", createParameter, WT, JSON, NO_STORE, api_registry_create)        \
    X(GET, "/api/v1/parameters/{id}", getParameter, RT, NONE, NO_CACHE, api_registry_get)          \
    X(PATCH, "/api/v1/parameters/{id}", changeParameter, WT, JSON, NO_STORE, api_registry_update)  \
    X(PUT, "/api/v1/parameters/{id}", putParameter, WT, JSON, NO_STORE, api_registry_update)       \
    X(DELETE, "/api/v1/parameters/{id}", deleteParameter, WT, NONE, NO_STORE, api_registry_delete) \
    X(POST, "/api/v1/registry/import", importRegistry, WT, RECORDS, NO_STORE, api_registry_import) \
    X(GET, "/api/v1/registry/export", exportRegistry, RT, NONE, NO_CACHE, api_registry_export)     \
    X(POST, "/api/v1/parameters/import", importParameters, WT, RECORDS, NO_STORE,                  \
      api_registry_import)                                                                         \
    X(GET, "/api/v1/parameters/export", exportParameters, RT, NONE, NO_CACHE, api_registry_export) \
    X(POST, "/api/v1/projects/{id}/versions/publish", publishVersion, WT, NONE, NO_STORE,          \
      api_version_publish)                                                                         \
    X(GET, "/api/v1/projects/{id}/versions", listVersions, RT, NONE, NO_CACHE, api_versions_get)   \
    X(GET, "/api/v1/projects/{id}/versions/{version}", getVersion, RT, NONE, NO_CACHE,             \
      api_version_get)                                                                             \
    X(GET, "/api/v1/projects/{id}/versions/{version}/diff/{other}", diffVersions, RT, NONE,        \
      NO_CACHE, api_version_diff)                                                                  \
    X(GET, "/api/v1/devices/health", getDevicesHealth, RT, NONE, NO_CACHE, api_packets_devices)    \
    X(GET, "/api/v1/sites/{id}/health", getSiteHealth, RT, NONE, NO_CACHE, api_packets_site)       \
    X(GET, "/v1/health", getIngestHealth, OPEN, NONE, NO_STORE, api_ingest_health)                 \
    X(GET, "/api/v1/export/readings", exportReadings, RT, NONE, EXPORT_CACHE, api_export_readings) \
    X(POST, "/api/keys/generate", generateKey, OPEN, JSON, NO_STORE, api_keys_generate)            \
    X(POST, "/api/keys/rotate", rotateKey, ANY, NONE, NO_STORE, api_keys_rotate)                   \
    X(GET, "/api/keys", listKeys, A, NONE, NO_CACHE, api_keys_get)                                 \
    X(POST, "/api/keys", createKey, A, JSON, NO_STORE, api_keys_post)                              \
    X(DELETE, "/api/keys/{id}", revokeKey, A, NONE, NO_STORE, api_key_delete)                      \
    X(GET, "/api/v1/audit", listAudit, A, NONE, NO_CACHE, api_audit_get)                           \
    X(POST, "/api/v1/erase", erase, A, JSON, NO_STORE, api_erase)                                  \
    X(GET, "/api/v1/settings", getSettings, RANY, NONE, NO_CACHE, api_settings_get)                \
    X(PUT, "/api/v1/settings", putSettings, A, JSON, NO_STORE, api_settings_put)                   \
    X(GET, "/api/v1/limits", getLimits, ANY, NONE, NO_CACHE, api_limits_get)                       \
    X(GET, "/health", getHealth, OPEN, NONE, NO_STORE, api_health_get)                             \
    X(GET, "/health/live", getLive, OPEN, NONE, NO_STORE, api_live_get)                            \
    X(GET, "/livez", getLivez, OPEN, NONE, NO_STORE, api_live_get)                                 \
    X(GET, "/health/ready", getReady, OPEN, NONE, NO_STORE, api_ready_get)                         \
    X(GET, "/health/intake", getIntake, OPEN, NONE, NO_STORE, api_intake_get)                      \
    X(GET, "/readyz", getReadyz, OPEN, NONE, NO_STORE, api_ready_get)                              \
    X(GET, "/api/v1/status", getStatus, OPEN, NONE, NO_STORE, api_status_get)                      \
    X(GET, "/metrics", getMetrics, OPEN, NONE, NO_STORE, api_metrics_get)                          \
    X(GET, "/api/openapi.yaml", getOpenapi, OPEN, NONE, NO_CACHE, api_openapi_get)                 \
    X(GET, "/", getRoot, OPEN, NONE, NO_CACHE, api_root_get)

enum {
#define X(method, pattern, operation, scope, body, cache, handler) API_ROUTE_##operation,
    API_ROUTES(X)
#undef X
        API_ROUTE_COUNT
};

const uint32_t api_route_count = API_ROUTE_COUNT;
const struct api_route api_route_table[API_ROUTE_COUNT] = {
#define X(method, pattern, operation, scope, body, cache, handler)                                 \
    {HTTP_##method, pattern, #operation, scope, API_BODY_##body, cache, handler},
    API_ROUTES(X)
#undef X
};

const struct http_route *api_routes(uint32_t *ret_count)
{
    static const struct http_route routes[API_ROUTE_COUNT] = {
#define X(method, pattern, operation, scope, body, cache, handler)                                 \
    {HTTP_##method, pattern, &api_route_table[API_ROUTE_##operation]},
        API_ROUTES(X)
#undef X
    };
    *ret_count = API_ROUTE_COUNT;
    return routes;
}

enum err api_print_routes(struct buffer *to)
{
    static const char *const methods[] = {"GET",   "HEAD",   "POST",   "PUT",
                                          "PATCH", "DELETE", "OPTIONS"};
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < api_route_count && err == ERR_OK; i++) {
        const struct api_route *route = &api_route_table[i];
        err = buffer_printf(to, "%s %s %s\n", methods[route->method], route->pattern,
                            route->operation);
    }
    return err;
}
