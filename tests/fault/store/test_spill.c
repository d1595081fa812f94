/* Promise (R3): whichever call of a spill fails, an event that it took can be read as it was, or
 * the failure is told; one that it did not take is still the caller's.
 *
 * link: sys_fault.c */
#include "support/sys_fault.h"

#include "store/packed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { EVENTS = 300, PAYLOAD = 2000 };

static char path[64];
static struct store_packed packed[EVENTS];
static bool is_taken[EVENTS];

static struct store_event event_of(uint32_t number, char payload[PAYLOAD + 1])
{
    static const uint8_t id[16] = "sixteen bytes id";
    (void)snprintf(payload, PAYLOAD + 1, "%0*u", PAYLOAD, number);
    return (struct store_event){
        .id = id, .payload = slice_make(payload, PAYLOAD), .occurred_ms = number, .org = 1};
}

static uint32_t add_all(struct store_spill *spill)
{
    char payload[PAYLOAD + 1];
    uint32_t taken = 0;
    for (uint32_t i = 0; i < EVENTS; i++) {
        struct store_event event = event_of(i, payload);
        is_taken[i] = store_spill_add(spill, &event, &packed[i]) == ERR_OK;
        taken += is_taken[i];
    }
    return taken;
}

/* Each second one, then the others: some share a read, some do not. */
static uint32_t read_all(struct store_spill *spill)
{
    char payload[PAYLOAD + 1];
    uint32_t failed = 0;
    for (uint32_t i = 0; i < 2 * EVENTS; i++) {
        uint32_t number = i < EVENTS ? i : i * 2 % EVENTS + (i * 2 / EVENTS) % 2;
        struct store_event event = event_of(number, payload);
        struct store_event got;
        if (is_taken[number] && store_spill_unpack(spill, &packed[number], &got) != ERR_OK) {
            failed++;
        } else if (is_taken[number]) {
            assert_true(slice_equal(got.payload, event.payload));
            assert_int_equal(got.occurred_ms, number);
        }
    }
    return failed;
}

static void run(void)
{
    uint32_t runs = 0;
    FAULT_LOOP {
        struct store_spill *spill = NULL;
        enum err err = store_spill_create(&spill, path);
        uint32_t taken = err == ERR_OK ? add_all(spill) : 0;
        uint32_t failed = err == ERR_OK ? read_all(spill) : 0;
        if (err == ERR_OK) {
            store_spill_clear(spill);
            assert_int_equal(store_spill_bytes(spill), 0);
        }
        fault_pause();
        bool is_whole = err == ERR_OK && taken == EVENTS && failed == 0;
        assert_true(is_whole || fault_was_met());
        if (err == ERR_OK) { /* after a failure it takes what comes next */
            assert_int_equal(add_all(spill), EVENTS);
            assert_int_equal(read_all(spill), 0);
        }
        store_spill_destroy(spill);
        (void)unlink(path);
        runs++;
    }
    print_message("%u runs\n", runs);
    assert_true(runs > 10);
}

static void test_every_call_fails(void **state)
{
    (void)state;
    fault_set_errno(EIO);
    run();
}

static void test_the_disk_fills_up(void **state)
{
    (void)state;
    fault_set_errno(ENOSPC);
    fault_set_only(FAULT_PWRITE);
    fault_set_short_writes(true);
    run();
    fault_set_short_writes(false);
    fault_set_only(FAULT_CALL_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_call_fails),
        cmocka_unit_test(test_the_disk_fills_up),
    };
    (void)snprintf(path, sizeof(path), "spill_test_%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
