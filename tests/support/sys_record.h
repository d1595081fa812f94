/* Record: replaces base/sys.c by linking; remembers every change that is made below one directory,
 * and builds from it the trees that a power cut at any instant may leave behind.
 *
 *     sys_record_start("some/dir");         what is there now counts as safely on disk
 *     ... the story: each fact that must survive is marked when it was promised:
 *     sys_record_mark(acknowledged);
 *     sys_record_stop();
 *     for (i = 0; i < images; i++) {
 *         uint64_t cut = random % (sys_record_count() + 1);
 *         sys_record_image(cut, seed + i, "other/dir");
 *         ... open what is in other/dir: all up to sys_record_marked(cut) must be there
 *     }
 *     sys_record_free();
 *
 * A legal tree, for a cut after `cut` operations: of each file every block (512 bytes or 4 KiB, one
 * size an image) holds what it held at the last sync of the file, or after any number of the writes
 * since then, each block by itself, so writes are dropped, torn and reordered; its size is any of
 * those that it had since. Of each directory a prefix of the changes (create, rename, unlink,
 * mkdir) since its last sync holds. Some images drop or keep all of it.
 *
 * Syncs only count, recording or not: nothing is sent to the disk, so stories and images run fast.
 *
 * Thread: the calls of base/sys from any thread; the rest from the test's. Order is that of a lock.
 * Memory: all that was written, until sys_record_free.
 * Errors: what a test cannot do without ends the program with a line. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* `root` is a directory; only paths that begin with exactly this text are recorded. */
void sys_record_start(const char *root);
void sys_record_stop(void);
void sys_record_free(void);
/* Promised so far; only grows. */
void sys_record_mark(uint64_t value);
/* Operations so far; marks count as one. */
uint64_t sys_record_count(void);
/* The mark that holds after the first `cut` operations; 0 before the first. */
uint64_t sys_record_marked(uint64_t cut);
/* Makes `target` (absent, or emptied first) and writes one legal tree into it. */
void sys_record_image(uint64_t cut, uint64_t seed, const char *target);
