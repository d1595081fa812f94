/* SQLite over base/sys: a VFS for tests, so that a recording or a fault of base/sys meets the
 * database too.
 *
 * Locks and the shared index of the WAL stay with the engine's own VFS (they are not durable);
 * contents, sizes, syncs, creation and deletion go through base/sys, with the same syncs of
 * directories.
 *
 * Thread: register: the test's, before any connection; the files: their connection's.
 * Memory: register is for ever.
 * Errors: a failed call of base/sys becomes the engine's I/O error. */
#pragma once

/* Becomes the default VFS. */
void sqlite_sys_register(void);
