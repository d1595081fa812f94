/* Postgres readings: writing many readings by sets, and the months that they lie in.
 *
 * Thread: the owner of the connection, inside a transaction.
 * Memory: everything lives for one call.
 * Errors: as store_write_readings. */
#pragma once
#include "store/postgres.h"
#include "store/readings_batch.h"

/* store_backend.write_readings */
enum err store_postgres_write_readings(struct store_readings *batch);
/* store_backend.reading_room: the month of the time, which is made when there is none. */
enum err store_postgres_reading_room(struct store_connection *connection, int64_t time_ms,
                                     int64_t *ret_from_ms, int64_t *ret_to_ms);
/* store_backend.keep_months */
enum err store_postgres_keep_months(struct store_connection *connection, int64_t now_ms);
