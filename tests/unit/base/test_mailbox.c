/* Promise: each mail arrives once, in its poster's order, and the owner is woken exactly when the
 * mailbox stops being empty. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mailbox.h"
#include "base/thread.h"

#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#define POSTERS 4u
#define MAILS   20000u

struct letter {
    struct mail mail; /* first: a mail's address is its letter's */
    uint32_t poster;
    uint32_t number;
};

static uint32_t arrived[POSTERS]; /* the next number expected of each */

static void expect_in_order(struct mail *mail)
{
    struct letter *letter = (struct letter *)(void *)mail;
    assert_int_equal(letter->number, arrived[letter->poster]);
    arrived[letter->poster]++;
}

static bool is_readable(struct mailbox *mailbox)
{
    struct pollfd readable = {.fd = mailbox_fd(mailbox), .events = POLLIN};
    return poll(&readable, 1, 0) == 1;
}

static void test_order_and_wakes(void **state)
{
    (void)state;
    struct mailbox *mailbox = NULL;
    struct letter letters[3];
    uint64_t wakes = 0;
    assert_int_equal(mailbox_create(&mailbox, 10), ERR_OK);
    assert_false(is_readable(mailbox));
    arrived[0] = 0;
    for (uint32_t i = 0; i < 3; i++) {
        letters[i] = (struct letter){.mail = {.on_arrive = expect_in_order}, .number = i};
    }
    assert_int_equal(mailbox_post(mailbox, &letters[0].mail), ERR_OK);
    mailbox_answer(mailbox, &letters[1].mail);
    assert_int_equal(mailbox_post(mailbox, &letters[2].mail), ERR_OK);
    mailbox_wait(mailbox, -1);
    /* One wake for three mails. */
    assert_int_equal(read(mailbox_fd(mailbox), &wakes, sizeof(wakes)), sizeof(wakes));
    assert_int_equal(wakes, 1);
    assert_int_equal(write(mailbox_fd(mailbox), &wakes, sizeof(wakes)), sizeof(wakes));
    assert_int_equal(mailbox_run_all(mailbox), 3);
    assert_int_equal(arrived[0], 3);
    assert_false(is_readable(mailbox));
    assert_null(mailbox_take_all(mailbox));
    /* Empty again: the next one wakes again. */
    assert_int_equal(mailbox_post(mailbox, &letters[0].mail), ERR_OK);
    assert_true(is_readable(mailbox));
    assert_ptr_equal(mailbox_take_all(mailbox), &letters[0].mail);
    mailbox_destroy(mailbox);
}

static void test_full_and_closed(void **state)
{
    (void)state;
    struct mailbox *mailbox = NULL;
    struct mail mails[4];
    assert_int_equal(mailbox_create(&mailbox, 2), ERR_OK);
    for (size_t i = 0; i < 4; i++) {
        mails[i] = (struct mail){.on_arrive = expect_in_order};
    }
    assert_int_equal(mailbox_post(mailbox, &mails[0]), ERR_OK);
    /* Answers are not counted. */
    mailbox_answer(mailbox, &mails[1]);
    assert_int_equal(mailbox_post(mailbox, &mails[2]), ERR_OK);
    assert_int_equal(mailbox_post(mailbox, &mails[3]), ERR_FULL);
    assert_non_null(mailbox_take_all(mailbox));
    assert_false(mailbox_is_closed(mailbox));
    mailbox_close(mailbox);
    assert_true(mailbox_is_closed(mailbox));
    assert_true(is_readable(mailbox));
    assert_int_equal(mailbox_post(mailbox, &mails[3]), ERR_CLOSED);
    mailbox_answer(mailbox, &mails[3]);
    assert_ptr_equal(mailbox_take_all(mailbox), &mails[3]);
    assert_null(mails[3].next);
    /* An owner who looks once more before it sleeps is woken all the same. */
    assert_true(is_readable(mailbox));
    assert_null(mailbox_take_all(mailbox));
    assert_true(is_readable(mailbox));
    mailbox_destroy(mailbox);
    mailbox_destroy(NULL);
}

static void test_wake_without_mail_and_timeout(void **state)
{
    (void)state;
    struct mailbox *mailbox = NULL;
    assert_int_equal(mailbox_create(&mailbox, 1), ERR_OK);
    mailbox_wait(mailbox, 0);
    mailbox_wake(mailbox);
    mailbox_wake(mailbox);
    mailbox_wait(mailbox, -1);
    assert_null(mailbox_take_all(mailbox));
    assert_false(is_readable(mailbox));
    mailbox_destroy(mailbox);
}

static struct mailbox *again_mailbox;
static uint32_t again_runs;

static void post_again(struct mail *mail)
{
    again_runs++;
    if (again_runs < 3) {
        assert_int_equal(mailbox_post(again_mailbox, mail), ERR_OK);
    }
}

static void test_mail_may_be_posted_again_while_it_runs(void **state)
{
    (void)state;
    struct mail mail = {.on_arrive = post_again};
    assert_int_equal(mailbox_create(&again_mailbox, 1), ERR_OK);
    assert_int_equal(mailbox_post(again_mailbox, &mail), ERR_OK);
    assert_int_equal(mailbox_run_all(again_mailbox), 1);
    assert_int_equal(mailbox_run_all(again_mailbox), 1);
    assert_int_equal(mailbox_run_all(again_mailbox), 1);
    assert_int_equal(mailbox_run_all(again_mailbox), 0);
    assert_int_equal(again_runs, 3);
    mailbox_destroy(again_mailbox);
}

struct poster {
    struct mailbox *mailbox;
    struct letter *letters;
    uint32_t number;
};

static void post_many(void *argument)
{
    struct poster *poster = argument;
    for (uint32_t i = 0; i < MAILS; i++) {
        struct letter *letter = &poster->letters[i];
        *letter = (struct letter){
            .mail = {.on_arrive = expect_in_order}, .poster = poster->number, .number = i};
        enum err err = mailbox_post(poster->mailbox, &letter->mail);
        while (err == ERR_FULL) {
            (void)sched_yield();
            err = mailbox_post(poster->mailbox, &letter->mail);
        }
        assert_int_equal(err, ERR_OK);
    }
}

/* A lost wake would leave the owner asleep for ever: the test would not end. */
static void test_many_posters(void **state)
{
    (void)state;
    struct mailbox *mailbox = NULL;
    struct poster posters[POSTERS];
    struct thread *threads[POSTERS];
    assert_int_equal(mailbox_create(&mailbox, 64), ERR_OK);
    for (uint32_t i = 0; i < POSTERS; i++) {
        arrived[i] = 0;
        posters[i] = (struct poster){
            .mailbox = mailbox, .letters = calloc(MAILS, sizeof(struct letter)), .number = i};
        assert_non_null(posters[i].letters);
        assert_int_equal(thread_start(&threads[i], "poster", post_many, &posters[i]), ERR_OK);
    }
    for (uint32_t got = 0; got < POSTERS * MAILS;) {
        mailbox_wait(mailbox, -1);
        got += mailbox_run_all(mailbox);
    }
    for (uint32_t i = 0; i < POSTERS; i++) {
        thread_join(threads[i]);
        assert_int_equal(arrived[i], MAILS);
        free(posters[i].letters);
    }
    assert_null(mailbox_take_all(mailbox));
    mailbox_destroy(mailbox);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_wakes),
        cmocka_unit_test(test_full_and_closed),
        cmocka_unit_test(test_wake_without_mail_and_timeout),
        cmocka_unit_test(test_mail_may_be_posted_again_while_it_runs),
        cmocka_unit_test(test_many_posters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
