/* Locks: what has one server at a time. A lock goes with the process, however that ends.
 *
 * Thread: main.  Memory: none; the descriptor that is given holds the lock until it is closed.
 * Errors: ERR_LOCKED: another process has it; each with a line for the operator. */
#pragma once
#include "base/err.h"

/* The directory is there. */
MUST_CHECK enum err house_lock_data(const char *data_dir, int *ret_fd, struct err_detail *detail);
/* A database in a file, wherever it lies; another engine's needs none. -1: there is no lock, since
 * none is needed, or since one cannot be made there, and then opening the database says why. */
MUST_CHECK enum err house_lock_store(const char *url, int *ret_fd, struct err_detail *detail);
