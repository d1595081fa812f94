/* Journal rig: a journal in a directory of its own, driven step by step in the test's thread.
 *
 * Thread: the test's.
 * Memory: the rig owns everything; tickets live until rig_finish.
 * Errors: what a test does not expect fails the test, but for the calls that return an error. */
#pragma once
#include "journal/internal.h"

#define RIG_FRAMES_MAX 4096u

struct rig_ticket {
    struct journal_ticket ticket;
    struct rig *rig;
    bool is_answered;
    enum err err;
    uint64_t position;
};

struct rig {
    char root[64];
    char directory[96];
    char uploads[96];
    struct journal_options options;
    struct journal *journal;
    struct mailbox *mailbox;
    struct journal_producer *producer;
    struct rig_ticket *tickets; /* of frame i */
    uint32_t ticket_count;
    uint32_t answered_count;
};

/* Small: segments of 1 MiB, a backlog of 64 MiB, no replay window, no disk reserve. */
void rig_init(struct rig *rig);
/* As rig_init, where no disk is waited for: for tests that make thousands of them. */
void rig_init_in_memory(struct rig *rig);
/* Closes what is open and removes the directory. */
void rig_finish(struct rig *rig);
enum err rig_try_open(struct rig *rig, uint64_t applied);
void rig_open(struct rig *rig, uint64_t applied);
/* As a clean stop, or as kill -9. */
void rig_close(struct rig *rig, bool is_clean);
/* Appends a frame of this body, org and size; the ticket's number. */
enum err rig_try_append(struct rig *rig, uint64_t org, struct slice body, uint32_t *ret_ticket);
/* A body that says its number, of `size` bytes at least. */
uint32_t rig_append(struct rig *rig, uint32_t number, size_t size);
/* Submits and steps committer, uploader and loop until nothing happens. */
void rig_run(struct rig *rig);
/* As rig_run, and the preparer too. */
void rig_run_all(struct rig *rig);
/* Number in a body made by rig_append; UINT32_MAX when it is none, or not whole. */
uint32_t rig_number(const struct journal_frame *frame);
/* Reads all that is durable after `after`; numbers go to ret, at most `max`. */
uint32_t rig_read(struct rig *rig, uint64_t after, uint32_t *ret_numbers, uint64_t *ret_positions,
                  uint32_t max);
/* Path of the segment number `i` in the order of the journal. */
void rig_segment_path(struct rig *rig, uint32_t i, char to[JOURNAL_PATH_BYTES]);
uint32_t rig_segment_count(struct rig *rig);
void rig_flip(const char *path, uint64_t offset, uint8_t mask);
