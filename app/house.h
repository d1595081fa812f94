/* House: the stages of one process, opened in the order in which data flows and closed in the
 * reverse. `weir serve` opens all of it; a command opens the store and the gate alone.
 *
 * Thread: main.
 * Memory: the house owns every stage.
 * Errors: with the detail of the stage that failed; what was opened is closed again. */
#pragma once
#include "admin.h"
#include "base/err.h"
#include "base/id.h"
#include "settings.h"

struct house;

#define HOUSE_PATH_BYTES 4096u
/* In DATA_DIR while a restore runs, and after one that did not finish. */
#define HOUSE_RESTORING "weir.restoring"

/* The store's URL: DATABASE_URL, or the one in DATA_DIR. */
void house_store_url(const struct settings *settings, char to[HOUSE_PATH_BYTES]);
/* Whether there is a journal in DATA_DIR, and which one. */
bool house_find_journal(const struct settings *settings, struct id *ret);
/* Locks DATA_DIR (made when absent). ERR_LOCKED: another process has it. ERR_CORRUPT: it holds half
 * a restore. */
MUST_CHECK enum err house_open(struct house **ret, const struct settings *settings,
                               struct err_detail *detail);
/* Store and gate, no threads: for commands. Jobs run in the caller. */
MUST_CHECK enum err house_open_store(struct house *house, struct err_detail *detail);
/* Everything, with its threads: ready to serve. */
MUST_CHECK enum err house_start(struct house *house, struct err_detail *detail);
/* Applies all that the journal holds beyond the store, with no server; then nothing is open but the
 * lock. on_progress sees bytes. */
MUST_CHECK enum err house_catch_up(struct house *house,
                                   void (*on_progress)(uint64_t done, uint64_t all, void *context),
                                   void *context, struct err_detail *detail);
/* A stop will follow: /health/ready says so, everything else goes on. */
void house_leave(struct house *house);
/* Drains and stops the threads in the order of the data. */
void house_stop(struct house *house);
void house_close(struct house *house);

uint16_t house_port(const struct house *house);
/* Highest durable position. */
uint64_t house_durable(const struct house *house);
/* For commands: jobs go to the writer when its thread runs, else they run in the caller. */
void house_admin(struct house *house, struct admin *ret, struct buffer *reply);
