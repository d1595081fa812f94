/* NATS carry: the bodies of the spool's uploads, out of their files into the stream of large
 * bodies, each before its end record.
 *
 *   IDLE -- an end record is next of its lane --> UNDER WAY -- whole in the stream --> IDLE
 *                                                  |    ^
 *                                                  +----+ away, full: a second later, from there
 *
 * One body at a time, on the uploader's thread, a block at each turn: so blocks that come from
 * requests meanwhile wait for one block and not for a body. Blocks are copied as they are stored;
 * the indexes, which name places, are made anew, and so is the end block.
 *
 * Happy path: the committer asks for a body; blocks are read, verified and published; the committer
 * is told, and sends the end record. The file goes when the stream has that, so whatever ends
 * between the two is done again.
 *
 * What an earlier run has left of it in the stream: a whole body stays, and gets its end block once
 * more, since one without an end record is taken for lost when it is an hour old; a part of one
 * goes, and the body is sent anew, under other ids.
 *
 * Failure modes: no file: its body went before it was noted that its end record did, or never was
 * here; the end record is sent. Damaged: what is in front of the damage is in the stream, the end
 * record is sent, the upload fails where it is applied, and the file stays. */
#include "journal/spool.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"

#include <assert.h>
#include <errno.h>

#define CARRY_BLOCK_BYTES (1u << 20u) /* more than any block */

/* --- the uploader's thread -------------------------------------------------------------------- */

static void carry_close(struct nats_carry *carry)
{
    if (carry->source.fd >= 0) {
        (void)sys_close(carry->source.fd); /* only read */
        carry->source.fd = -1;
    }
    journal_upload_file_free(carry->file);
    carry->file = NULL;
    mem_free(carry->block);
    carry->block = NULL;
}

/* What is in the stream of it goes. */
static void carry_undo(struct nats_carry *carry)
{
    if (carry->file != NULL) {
        journal_nats_upload_remove(carry->file);
    }
    carry_close(carry);
}

static enum err carry_damaged(struct nats_carry *carry, bool *ret_is_over)
{
    char text[ID_TEXT_BYTES];
    id_format(carry->id, text);
    log_write(LOG_ERROR, "journal", "spool: the body of upload %.*s is damaged: its file stays",
              ID_TEXT_BYTES, text);
    carry->is_damaged = true;
    carry_close(carry);
    *ret_is_over = true;
    return ERR_OK;
}

static enum err carry_begin(struct nats_carry *carry, bool *ret_is_over)
{
    struct journal *journal = carry->spool->journal;
    bool is_whole = false;
    enum err err = journal_file_upload_find(&carry->source, carry->spool->segments, carry->id);
    if (err == ERR_NOT_FOUND) {
        *ret_is_over = true;
        return ERR_OK;
    }
    if (err == ERR_CORRUPT) {
        return carry_damaged(carry, ret_is_over);
    }
    if (err != ERR_OK) {
        return err;
    }
    err = journal_nats_upload_renew(journal, carry->id, &is_whole);
    if (err != ERR_OK || is_whole) {
        carry_close(carry);
        *ret_is_over = err == ERR_OK;
        return err;
    }
    carry->offset = 0;
    carry->block = mem_alloc(CARRY_BLOCK_BYTES);
    carry->file = mem_alloc(sizeof(*carry->file));
    *carry->file = (struct journal_upload_file){.journal = journal, .id = carry->id, .fd = -1};
    carry->file->tail.last_index = JOURNAL_BLOCK_NONE;
    carry->file->tail.last_table = JOURNAL_BLOCK_NONE;
    hash_random(&carry->file->carried, sizeof(carry->file->carried));
    carry->file->carried |= 1u;
    return ERR_OK;
}

/* The block at the offset. ERR_CORRUPT: there is none that verifies. */
static enum err carry_read(struct nats_carry *carry, struct journal_block_head *ret)
{
    int fd = carry->source.fd;
    ssize_t got = sys_pread(fd, carry->block, JOURNAL_BLOCK_HEAD_BYTES, (off_t)carry->offset);
    if (got < 0) {
        return err_from_errno(errno);
    }
    if (got != JOURNAL_BLOCK_HEAD_BYTES || !journal_block_peek(carry->block, ret) ||
        JOURNAL_BLOCK_HEAD_BYTES + ret->stored_bytes > CARRY_BLOCK_BYTES) {
        return ERR_CORRUPT;
    }
    got = sys_pread(fd, carry->block + JOURNAL_BLOCK_HEAD_BYTES, ret->stored_bytes,
                    (off_t)(carry->offset + JOURNAL_BLOCK_HEAD_BYTES));
    if (got < 0) {
        return err_from_errno(errno);
    }
    bool is_good = got == (ssize_t)ret->stored_bytes &&
                   journal_block_check(carry->block, carry->id, carry->offset, ret);
    return is_good ? ERR_OK : ERR_CORRUPT;
}

static enum err carry_step(struct nats_carry *carry, bool *ret_is_over)
{
    struct journal_block_head head = {.type = 0};
    enum err err = carry_read(carry, &head);
    if (err == ERR_CORRUPT) {
        return carry_damaged(carry, ret_is_over);
    }
    if (err != ERR_OK) {
        return err;
    }
    uint64_t size = JOURNAL_BLOCK_HEAD_BYTES + (uint64_t)head.stored_bytes;
    if (head.type == JOURNAL_BLOCK_END) {
        err = journal_upload_finish(carry->file);
        *ret_is_over = err == ERR_OK;
    } else if (head.type != JOURNAL_BLOCK_INDEX) {
        err = journal_upload_put(carry->file, carry->block, &head);
    }
    if (err == ERR_OK) {
        carry->offset += size;
    }
    if (*ret_is_over) {
        carry_close(carry);
    }
    return err;
}

/* What may be gone on with is kept: the stream is away or full, or the program ends. */
static bool is_to_be_kept(enum err err)
{
    return err == ERR_OK || err == ERR_AWAY || err == ERR_NO_SPACE || err == ERR_DRAINING;
}

static void carry_on_turn(struct mail *mail)
{
    struct nats_carry *carry = LIST_CONTAINER(mail, struct nats_carry, mail);
    struct journal *journal = carry->spool->journal;
    bool is_over = false;
    enum err err = ERR_DRAINING;
    if (!atomic_load_explicit(&journal->is_draining, memory_order_relaxed)) {
        err = carry->file == NULL ? carry_begin(carry, &is_over) : carry_step(carry, &is_over);
    }
    if (err == ERR_OK && !is_over) {
        mailbox_answer(journal->uploader_mailbox, &carry->mail);
        return;
    }
    if (!is_to_be_kept(err)) {
        carry_undo(carry);
    }
    carry->err = err;
    carry->mail.on_arrive = journal_nats_forward_on_carried;
    mailbox_answer(journal->committer_mailbox, &carry->mail);
}

/* --- the committer's thread ------------------------------------------------------------------- */

void journal_nats_carry_post(struct nats_spool *spool, struct id id)
{
    struct nats_carry *carry = &spool->carry;
    assert(!carry->is_under_way);
    carry->is_under_way = true;
    carry->has_some = true;
    carry->is_damaged = false;
    carry->id = id;
    carry->mail.on_arrive = carry_on_turn;
    mailbox_answer(spool->journal->uploader_mailbox, &carry->mail);
}

void journal_nats_carry_open(struct nats_spool *spool)
{
    spool->carry = (struct nats_carry){.spool = spool, .source.fd = -1};
}

/* The threads have ended. */
void journal_nats_carry_close(struct nats_spool *spool)
{
    carry_close(&spool->carry);
}
