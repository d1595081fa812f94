/* Promise: a packed event says what it said before, an empty text is not an absent one, and what a
 * row has no room for is refused and not cut. */
#include "store/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t id[16] = "sixteen bytes id";

static void assert_same(struct slice got, struct slice expected)
{
    assert_int_equal(got.data == NULL, expected.data == NULL);
    assert_int_equal(got.size, expected.size);
    if (expected.size > 0) {
        assert_memory_equal(got.data, expected.data, expected.size);
    }
}

/* Through memory of exactly the size that is asked for. */
static void assert_survives(const struct store_event *event)
{
    struct store_packed packed;
    struct store_event got;
    uint8_t *bytes = malloc(store_packed_bytes(event));
    assert_int_equal(store_pack(&packed, event, bytes), ERR_OK);
    assert_int_equal(packed.state, STORE_EVENT_REFUSED);
    packed.sequence = 0x123456789abcdef0;
    packed.state = STORE_EVENT_CONFLICT;
    store_unpack(&packed, &got);
    assert_memory_equal(got.id, event->id, 16);
    assert_same(got.type, event->type);
    assert_same(got.payload, event->payload);
    assert_same(got.dedup_id, event->dedup_id);
    assert_same(got.subject, event->subject);
    assert_same(got.source, event->source);
    assert_same(got.app, event->app);
    assert_same(got.attributes, event->attributes);
    assert_int_equal(got.occurred_ms, event->occurred_ms);
    assert_int_equal(got.created_ms, event->created_ms);
    assert_int_equal(got.org, event->org);
    assert_int_equal(got.position, event->position);
    assert_int_equal(got.sequence, 0x123456789abcdef0);
    assert_int_equal(got.state, STORE_EVENT_CONFLICT);
    free(bytes);
}

static void test_every_member_survives(void **state)
{
    (void)state;
    struct store_event event = {.type = SLICE_LITERAL("order.paid"),
                                .payload = SLICE_LITERAL("{\"total\":12}"),
                                .dedup_id = SLICE_LITERAL("d-1"),
                                .subject = SLICE_LITERAL("person"),
                                .source = SLICE_LITERAL("/shop"),
                                .app = SLICE_LITERAL("web"),
                                .attributes = SLICE_LITERAL("{\"k\":1}"),
                                .id = id,
                                .occurred_ms = INT64_MIN,
                                .created_ms = INT64_MAX,
                                .org = UINT32_MAX,
                                .position = UINT64_MAX};
    assert_survives(&event);
    assert_int_equal(store_packed_bytes(&event), 16 + 10 + 12 + 3 + 6 + 5 + 3 + 7);
}

/* Each text in turn is empty, absent, or one byte. */
static void test_empty_is_not_absent(void **state)
{
    (void)state;
    const struct slice kinds[3] = {slice_make(NULL, 0), SLICE_LITERAL(""), SLICE_LITERAL("x")};
    for (uint32_t code = 0; code < 3 * 3 * 3 * 3 * 3 * 3 * 3; code++) {
        struct slice texts[7];
        for (uint32_t i = 0, rest = code; i < 7; i++, rest /= 3) {
            texts[i] = kinds[rest % 3];
        }
        struct store_event event = {.type = texts[0],
                                    .payload = texts[1],
                                    .dedup_id = texts[2],
                                    .subject = texts[3],
                                    .source = texts[4],
                                    .app = texts[5],
                                    .attributes = texts[6],
                                    .id = id};
        assert_survives(&event);
    }
}

static void test_what_has_no_room_is_refused(void **state)
{
    (void)state;
    static uint8_t big[UINT16_MAX + 1];
    static uint8_t bytes[sizeof(big) + 16];
    struct store_packed packed = {.position = 7};
    memset(big, 'x', sizeof(big));
    struct store_event event = {.id = id, .source = slice_make(big, UINT16_MAX)};
    assert_survives(&event);
    event.source = slice_make(big, sizeof(big));
    assert_int_equal(store_pack(&packed, &event, bytes), ERR_TOO_LARGE);
    event.source = slice_make(NULL, 0);
    event.payload = slice_make(big, sizeof(big)); /* a long one */
    event.attributes = SLICE_LITERAL("{}");
    assert_survives(&event);
    event.payload = slice_make(NULL, 0);
    event.org = 1ull << 32u;
    assert_int_equal(store_pack(&packed, &event, bytes), ERR_TOO_LARGE);
    assert_int_equal(packed.position, 7); /* left as it was */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_member_survives),
        cmocka_unit_test(test_empty_is_not_absent),
        cmocka_unit_test(test_what_has_no_room_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
