/* House: the stages of one process, opened in the order in which data flows and closed in the
 * reverse. `weir serve` opens all of it; a command opens the store and the gate alone.
 *
 * Thread: main.
 * Memory: the house owns every stage.
 * Errors: with the detail of the stage that failed; what was opened is closed again. */
#pragma once
#include "admin.h"
#include "base/err.h"
#include "settings.h"

struct house;

/* Locks DATA_DIR (made when absent). ERR_LOCKED: another process has it. */
MUST_CHECK enum err house_open(struct house **ret, const struct settings *settings,
                               struct err_detail *detail);
/* Store and gate, no threads: for commands. Jobs run in the caller. */
MUST_CHECK enum err house_open_store(struct house *house, struct err_detail *detail);
/* Everything, with its threads: ready to serve. */
MUST_CHECK enum err house_start(struct house *house, struct err_detail *detail);
/* Drains and stops the threads in the order of the data. */
void house_stop(struct house *house);
void house_close(struct house *house);

uint16_t house_port(const struct house *house);
/* For commands: jobs go to the writer when its thread runs, else they run in the caller. */
void house_admin(struct house *house, struct admin *ret, struct buffer *reply);
