/* Handlers: what the table of routes names, one function per operation.
 *
 * Thread: the request's loop; the request is authenticated, within its limits, and open.
 * Memory: the request's.
 * Errors: each answers exactly once, now or when a job or intake comes back. */
#pragma once
#include "api/context.h"

/* events.c */
void api_events_post(struct api_request *request);
/* clients.c */
void api_segment_batch(struct api_request *request);
void api_segment_track(struct api_request *request);
void api_segment_identify(struct api_request *request);
void api_segment_page(struct api_request *request);
void api_posthog_batch(struct api_request *request);
/* inbox.c */
void api_inbox_get(struct api_request *request);
void api_events_get(struct api_request *request);
void api_event_get(struct api_request *request);
void api_ack_one(struct api_request *request);
void api_ack_many(struct api_request *request);
/* stream.c */
void api_stream_get(struct api_request *request);
/* export.c */
void api_export_events(struct api_request *request);
/* uploads.c */
void api_uploads_get(struct api_request *request);
void api_upload_get(struct api_request *request);
void api_upload_raw(struct api_request *request);
void api_upload_delete(struct api_request *request);
/* uploads.c: of which areas the key may see uploads and dead letters, as a set of enum query_area;
 * and delete or retry them. */
uint32_t api_areas(const struct api_request *request);
uint32_t api_areas_to_write(const struct api_request *request);
/* dead_letters.c */
void api_dead_letters_get(struct api_request *request);
void api_dead_letter_retry(struct api_request *request);
/* readings.c */
void api_readings_post(struct api_request *request);
void api_readings_get(struct api_request *request);
void api_export_readings(struct api_request *request);
/* telemetry.c */
void api_packets_devices(struct api_request *request);
void api_packets_site(struct api_request *request);
void api_ingest_health(struct api_request *request);
void api_version_publish(struct api_request *request);
void api_versions_get(struct api_request *request);
void api_version_get(struct api_request *request);
void api_version_diff(struct api_request *request);
/* import.c */
void api_registry_import(struct api_request *request);
void api_registry_export(struct api_request *request);
/* registry.c */
void api_registry_list(struct api_request *request);
void api_registry_create(struct api_request *request);
void api_registry_get(struct api_request *request);
void api_registry_update(struct api_request *request);
void api_registry_delete(struct api_request *request);
/* keys.c */
void api_keys_get(struct api_request *request);
void api_keys_post(struct api_request *request);
void api_keys_rotate(struct api_request *request);
void api_key_delete(struct api_request *request);
/* signup.c */
void api_keys_generate(struct api_request *request);
/* audit.c */
void api_audit_get(struct api_request *request);
/* erase.c */
void api_erase(struct api_request *request);
/* settings.c */
void api_settings_get(struct api_request *request);
void api_settings_put(struct api_request *request);
/* limits.c */
void api_limits_get(struct api_request *request);
/* health.c */
void api_health_get(struct api_request *request);
void api_live_get(struct api_request *request);
void api_ready_get(struct api_request *request);
void api_intake_get(struct api_request *request);
void api_status_get(struct api_request *request);
/* pages.c */
void api_metrics_get(struct api_request *request);
void api_openapi_get(struct api_request *request);
void api_root_get(struct api_request *request);
