/* Faults: replaces base/sys.c by linking, and makes one call after the other fail.
 *
 * A test names the file in its head ("link: sys_fault.c") and runs its story in the loop:
 *
 *     FAULT_LOOP {
 *         struct journal *j = NULL;
 *         enum err err = journal_open(&j, ...);
 *         ...
 *         fault_pause();               from here on nothing fails: look at what is left behind
 *         assert_int_equal(err == ERR_OK, !fault_was_met());
 *     }
 *
 * The first run fails call 0, the next call 1, and so on until a run met no fault; then all again
 * with every call failing from that one on. Each run begins unpaused, its counts at zero. The story
 * must make the same calls in every run up to the fault; with threads the order may differ.
 *
 * Thread: begin, next, pause and the settings belong to the test's thread; ticks to any.
 * Memory: none.
 * Errors: a loop that does not end within FAULT_RUNS_MAX runs ends the program. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define FAULT_RUNS_MAX 20000u

/* One per function of base/sys.h, then the memory that may be refused (mem_fault.c). */
enum fault_call {
    FAULT_OPEN,
    FAULT_CLOSE,
    FAULT_PREAD,
    FAULT_PWRITE,
    FAULT_PWRITEV,
    FAULT_FDATASYNC,
    FAULT_FSYNC,
    FAULT_FTRUNCATE,
    FAULT_FALLOCATE,
    FAULT_FSTAT,
    FAULT_STAT,
    FAULT_RENAME,
    FAULT_UNLINK,
    FAULT_MKDIR,
    FAULT_SYNC_DIRECTORY,
    FAULT_OPENDIR,
    FAULT_READDIR,
    FAULT_CLOSEDIR,
    FAULT_LOCK,
    FAULT_FREE_BYTES,
    FAULT_WRITE_BACK,
    FAULT_MEMORY,
    FAULT_CALL_COUNT
};

enum fault_mode {
    FAULT_ONCE,     /* one call fails */
    FAULT_FROM_THEN /* it and every later one */
};

#define FAULT_LOOP for (fault_begin(); fault_next();)

void fault_begin(void);
bool fault_next(void);
/* Has a call failed in this run? */
bool fault_was_met(void);
/* This run's mode, and the number of the call that fails first. */
enum fault_mode fault_run_mode(void);
uint32_t fault_run_number(void);
/* Calls neither fail nor count while paused. */
void fault_pause(void);
void fault_resume(void);
/* Calls of a kind in this run, failed ones included. */
uint32_t fault_call_count(enum fault_call call);

/* Without the loop: call number `number` from now fails, in this mode. */
void fault_arm(enum fault_mode mode, uint32_t number);
void fault_disarm(void);
/* These stay until set again. EIO at first; memory fails with NULL whatever it is. */
void fault_set_errno(int error_number);
/* A write that is to fail writes half of its bytes and says so, like a disk that fills up; in mode
 * FAULT_FROM_THEN the next one fails. */
void fault_set_short_writes(bool is_on);
/* Only calls of this kind count and fail; FAULT_CALL_COUNT: all (the start). */
void fault_set_only(enum fault_call call);

/* For the replacements: counts the call; true, with errno set, when it must fail. */
bool fault_tick(enum fault_call call);
