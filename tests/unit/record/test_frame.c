/* Promise: what is encoded is decoded to the same values, byte by byte as documented, and bytes
 * that no writer made are refused without reading past them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "record/record.h"

static struct record_frame sample(void)
{
    struct record_frame frame = {
        .form = RECORD_FORM_EVENT,
        .lane = 7,
        .flags = RECORD_FLAG_ATOMIC,
        .org = 0x0102030405060708u,
        .key = 9,
        .received_ms = -5,
        .waiter = 11,
        .run = 12,
        .record_count = 3,
        .attribute_count = 2,
    };
    for (uint8_t i = 0; i < 16; i++) {
        frame.id.bytes[i] = (uint8_t)(0xa0 + i);
    }
    frame.attributes[0].name = SLICE_LITERAL("ce-id");
    frame.attributes[0].value = SLICE_LITERAL("x1");
    frame.attributes[1].name = SLICE_LITERAL("traceparent");
    frame.attributes[1].value = SLICE_LITERAL("");
    return frame;
}

static void encode(struct buffer *to, const struct record_frame *frame, const char *body)
{
    buffer_init(to, 1 << 20);
    assert_int_equal(record_frame_encode_head(frame, to), ERR_OK);
    assert_int_equal(buffer_append_text(to, body), ERR_OK);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct record_frame frame = sample();
    struct record_frame back;
    struct buffer bytes;
    encode(&bytes, &frame, "{\"a\":1}");
    assert_int_equal(record_frame_decode(buffer_slice(&bytes), &back), ERR_OK);
    assert_int_equal(back.form, frame.form);
    assert_int_equal(back.lane, 7);
    assert_int_equal(back.flags, RECORD_FLAG_ATOMIC);
    assert_true(back.org == frame.org && back.key == 9 && back.received_ms == -5);
    assert_true(back.waiter == 11 && back.run == 12 && back.record_count == 3);
    assert_true(id_equal(back.id, frame.id));
    assert_int_equal(back.attribute_count, 2);
    assert_true(slice_equal(record_frame_attribute(&back, "ce-id"), SLICE_LITERAL("x1")));
    assert_int_equal(record_frame_attribute(&back, "traceparent").size, 0);
    assert_non_null(record_frame_attribute(&back, "traceparent").data);
    assert_null(record_frame_attribute(&back, "absent").data);
    assert_true(slice_equal(back.body, SLICE_LITERAL("{\"a\":1}")));
    buffer_finish(&bytes);
}

/* The table at the head of the format, as numbers. */
static void test_bytes_are_as_documented(void **state)
{
    (void)state;
    struct record_frame frame = sample();
    struct buffer bytes;
    encode(&bytes, &frame, "B");
    static const uint8_t start[] = {1, 1, 7, 0, 1, 0, 2, 0, 8, 7, 6, 5, 4, 3, 2, 1, 9, 0};
    assert_memory_equal(bytes.data, start, sizeof(start));
    assert_int_equal(bytes.data[24], 0xfb); /* -5 */
    assert_int_equal(bytes.data[31], 0xff);
    assert_int_equal(bytes.data[32], 0xa0);
    assert_int_equal(bytes.data[48], 11);
    assert_int_equal(bytes.data[56], 12);
    assert_int_equal(bytes.data[64], 3);
    /* 72 + (4 + 5 + 2) + (4 + 11) */
    assert_int_equal(bytes.data[68], 98);
    assert_memory_equal(bytes.data + 72,
                        "\x05\x00\x02\x00"
                        "ce-idx1\x0b\x00\x00\x00traceparent",
                        26);
    assert_int_equal(bytes.size, 99);
    assert_int_equal(bytes.data[98], 'B');
    buffer_finish(&bytes);
}

static void test_cut_head_is_refused(void **state)
{
    (void)state;
    struct record_frame frame = sample();
    struct record_frame back;
    struct buffer bytes;
    encode(&bytes, &frame, "");
    for (size_t size = 0; size < bytes.size; size++) {
        assert_int_equal(record_frame_decode(slice_make(bytes.data, size), &back), ERR_CORRUPT);
    }
    assert_int_equal(record_frame_decode(buffer_slice(&bytes), &back), ERR_OK);
    assert_int_equal(back.body.size, 0);
    buffer_finish(&bytes);
}

static void test_wrong_bytes_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
        enum err expected;
    } rows[] = {
        {0, 2, ERR_VERSION},   /* version */
        {2, 64, ERR_CORRUPT},  /* lane */
        {6, 1, ERR_CORRUPT},   /* attributes end before the head does */
        {6, 3, ERR_CORRUPT},   /* and after */
        {6, 65, ERR_CORRUPT},  /* more than there may be */
        {68, 71, ERR_CORRUPT}, /* head shorter than its fixed part */
        {71, 1, ERR_CORRUPT},  /* head longer than the frame */
        {73, 1, ERR_CORRUPT},  /* name longer than the head */
    };
    struct record_frame frame = sample();
    struct record_frame back;
    struct buffer bytes;
    encode(&bytes, &frame, "body");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint8_t good = bytes.data[rows[i].at];
        bytes.data[rows[i].at] = rows[i].value;
        assert_int_equal(record_frame_decode(buffer_slice(&bytes), &back), rows[i].expected);
        bytes.data[rows[i].at] = good;
    }
    assert_int_equal(record_frame_decode(buffer_slice(&bytes), &back), ERR_OK);
    buffer_finish(&bytes);
}

static void test_too_many_attributes(void **state)
{
    (void)state;
    struct record_frame frame = sample();
    struct buffer bytes;
    buffer_init(&bytes, 1 << 20);
    for (uint32_t i = 0; i < RECORD_ATTRIBUTES_MAX; i++) {
        frame.attributes[i].name = SLICE_LITERAL("n");
        frame.attributes[i].value = SLICE_LITERAL("v");
    }
    frame.attribute_count = RECORD_ATTRIBUTES_MAX;
    assert_int_equal(record_frame_encode_head(&frame, &bytes), ERR_OK);
    size_t before = bytes.size;
    frame.attribute_count = RECORD_ATTRIBUTES_MAX + 1;
    assert_int_equal(record_frame_encode_head(&frame, &bytes), ERR_TOO_LARGE);
    frame.attribute_count = 1;
    frame.attributes[0].value.size = UINT16_MAX + 1u;
    assert_int_equal(record_frame_encode_head(&frame, &bytes), ERR_TOO_LARGE);
    assert_int_equal(bytes.size, before);
    buffer_finish(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),          cmocka_unit_test(test_bytes_are_as_documented),
        cmocka_unit_test(test_cut_head_is_refused), cmocka_unit_test(test_wrong_bytes_are_refused),
        cmocka_unit_test(test_too_many_attributes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
