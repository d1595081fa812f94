/* Store fixture: a store in a directory of its own, its threads, and jobs run to their end. With
 * WEIR_TEST_POSTGRES=postgresql://… in the environment the store is a schema of its own in that
 * database.
 *
 * Thread: the test's.
 * Memory: setup allocates, teardown frees and removes the directory.
 * Errors: a failing step fails the test. */
#pragma once
#include "store/store.h"

#include <stdbool.h>

struct store_fixture {
    char directory[64];
    char path[96];
    char url[512];
    char schema[32];
    bool is_postgres;
    struct store *store;
    struct thread *writer;
    struct thread *checkpointer;
    struct thread *readers[4];
    uint32_t reader_count;
    uint32_t query_timeout_ms; /* 0: so long that nothing comes to it; counts from the next open */
    uint32_t appliers;         /* PostgreSQL: connections of their own; counts from the next open */
    struct thread *applier_threads[8];
};

struct store_options store_fixture_options(const struct store_fixture *fixture);
/* Makes the directory. */
void store_fixture_init(struct store_fixture *fixture);
/* Opens the store; the threads only when asked for. */
void store_fixture_open(struct store_fixture *fixture, bool with_threads);
void store_fixture_close(struct store_fixture *fixture);
/* Closes, removes the directory. */
void store_fixture_finish(struct store_fixture *fixture);

/* SQL outside of the store, on a connection of its own: fails the test when it fails. */
void store_fixture_outside(const struct store_fixture *fixture, const char *sql);
/* Runs SQL as a durable control job and gives its error. It is written for SQLite; what PostgreSQL
 * says otherwise (see the table in store_fixture.c) is replaced. */
enum err store_fixture_sql(struct store_fixture *fixture, const char *sql);
/* One number of a SELECT, read by the writer. Fails the test when there is no row. */
int64_t store_fixture_number(struct store_fixture *fixture, const char *sql);
/* From now on the engine refuses events of which `condition` (of NEW) is true; NULL: none any more.
 */
void store_fixture_refuse(struct store_fixture *fixture, const char *condition);
/* An org with 32 id key bytes of `number`. */
void store_fixture_add_org(struct store_fixture *fixture, uint64_t number);
/* Runs `run` with `context` as a write and gives its error. */
enum err store_fixture_run(struct store_fixture *fixture,
                           enum err (*run)(struct store_connection *connection, void *context),
                           void *context);
