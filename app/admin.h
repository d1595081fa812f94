/* Admin: the commands that need the store: orgs and keys. The same code runs inside the server
 * (asked over the command socket) and in a process of its own (when no server has the data
 * directory).
 *
 * Thread: the one that calls; jobs go to the store by `run`.
 * Memory: the reply's text grows in its buffer.
 * Errors: in the reply: status 1 and one line that says what to do. */
#pragma once
#include "base/buffer.h"
#include "base/err.h"

struct gate;
struct mailbox;
struct store;
struct store_job;

struct admin {
    struct store *store;
    struct gate *gate;
    struct mailbox *mailbox; /* NULL: no writer runs; jobs run here */
    int status;              /* 0: done; 1: failed; 2: used wrongly */
    struct buffer *reply;    /* text for stdout, or the error's line */
};

/* Runs one store job and waits for it. */
MUST_CHECK enum err admin_run_job(struct admin *admin, struct store_job *job);
/* Whether `command` ("org", "key") is one of these. */
bool admin_knows(const char *command);
/* argv[0] is "org" or "key". */
void admin_command(struct admin *admin, int argc, char **argv);
/* The first start: an org named "main" (tier unlimited) with a key, if there is no org at all.
 * `ret_key` (at least 96 bytes) is empty when there was one. */
MUST_CHECK enum err admin_first_org(struct admin *admin, char *ret_key);
