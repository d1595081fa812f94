/* A compressed body comes out as it went in, however it is cut; one that is cut, damaged or
 * followed by other bytes is seen; and no step writes more than its room.
 *
 * Encoded bytes are made by the libraries' own one-shot functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <brotli/encode.h>
#define ZLIB_CONST /* next_in is a pointer to const */
#include <zlib.h>
#include <zstd.h>

#include "base/mem.h"
#include "http/decode.h"

#define ENCODED_MAX (1u << 20)

static size_t encode_gzip(struct slice plain, uint8_t *to)
{
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = plain.data;
    stream.avail_in = (uInt)plain.size;
    stream.next_out = to;
    stream.avail_out = ENCODED_MAX;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    size_t size = stream.total_out;
    assert_int_equal(deflateEnd(&stream), Z_OK);
    return size;
}

static size_t encode(enum http_coding coding, struct slice plain, uint8_t *to)
{
    size_t size = ENCODED_MAX;
    if (coding == HTTP_GZIP) {
        return encode_gzip(plain, to);
    }
    if (coding == HTTP_BROTLI) {
        assert_true(
            BrotliEncoderCompress(5, 22, BROTLI_MODE_GENERIC, plain.size, plain.data, &size, to));
        return size;
    }
    size = ZSTD_compress(to, ENCODED_MAX, plain.data, plain.size, 3);
    assert_false(ZSTD_isError(size));
    return size;
}

struct result {
    enum err err;
    bool is_whole;
    size_t size;
    size_t largest_step;
};

/* Feeds two parts; decoded bytes beyond `to_size` are counted and dropped. */
static struct result decode(enum http_coding coding, struct slice bytes, size_t cut, size_t room,
                            uint8_t *to, size_t to_size)
{
    struct http_decoder *decoder = NULL;
    struct result result = {.err = ERR_OK};
    uint8_t *piece = mem_alloc(room);
    assert_int_equal(http_decoder_create(&decoder, coding), ERR_OK);
    for (size_t part = 0; part < 2 && result.err == ERR_OK; part++) {
        struct slice rest =
            part == 0 ? slice_part(bytes, 0, cut) : slice_part(bytes, cut, bytes.size);
        size_t size = room;
        while (result.err == ERR_OK && (rest.size > 0 || size == room)) {
            size = 0;
            result.err = http_decoder_step(decoder, &rest, piece, room, &size);
            assert_true(size <= room);
            if (result.err == ERR_OK) {
                size_t keep = result.size < to_size ? to_size - result.size : 0;
                memcpy(to + result.size, piece, size < keep ? size : keep);
                result.size += size;
                result.largest_step = size > result.largest_step ? size : result.largest_step;
            }
        }
    }
    result.is_whole = http_decoder_is_whole(decoder);
    http_decoder_destroy(decoder);
    mem_free(piece);
    return result;
}

static const enum http_coding codings[] = {HTTP_GZIP, HTTP_BROTLI, HTTP_ZSTD};
#define CODING_COUNT 3u

static void fill_text(uint8_t *to, size_t size)
{
    static const char text[] = "{\"type\":\"user.login\",\"n\":";
    for (size_t i = 0; i < size; i++) {
        to[i] =
            (uint8_t)(i % 97 == 0 ? '0' + (i / 97) % 10 : (uint8_t)text[i % (sizeof(text) - 1)]);
    }
}

static void test_every_cut(void **state)
{
    uint8_t plain[1500];
    uint8_t decoded[1500];
    uint8_t *encoded = mem_alloc(ENCODED_MAX);
    (void)state;
    fill_text(plain, sizeof(plain));
    for (size_t i = 0; i < CODING_COUNT; i++) {
        size_t size = encode(codings[i], slice_make(plain, sizeof(plain)), encoded);
        for (size_t cut = 0; cut <= size; cut++) {
            struct result result =
                decode(codings[i], slice_make(encoded, size), cut, 100, decoded, sizeof(decoded));
            assert_int_equal(result.err, ERR_OK);
            assert_true(result.is_whole);
            assert_int_equal(result.size, sizeof(plain));
            assert_memory_equal(decoded, plain, sizeof(plain));
        }
    }
    mem_free(encoded);
}

static void test_cut_streams_are_not_whole(void **state)
{
    uint8_t plain[1500];
    uint8_t decoded[1500];
    uint8_t *encoded = mem_alloc(ENCODED_MAX);
    (void)state;
    fill_text(plain, sizeof(plain));
    for (size_t i = 0; i < CODING_COUNT; i++) {
        size_t size = encode(codings[i], slice_make(plain, sizeof(plain)), encoded);
        for (size_t end = 1; end < size; end++) {
            struct result result = decode(codings[i], slice_make(encoded, end), end / 2, 4096,
                                          decoded, sizeof(decoded));
            assert_int_equal(result.err, ERR_OK);
            assert_false(result.is_whole);
        }
    }
    mem_free(encoded);
}

static void test_no_bytes_are_an_empty_body(void **state)
{
    uint8_t decoded[1];
    (void)state;
    for (size_t i = 0; i < CODING_COUNT; i++) {
        struct result result =
            decode(codings[i], slice_make(decoded, 0), 0, 16, decoded, sizeof(decoded));
        assert_int_equal(result.err, ERR_OK);
        assert_true(result.is_whole && result.size == 0);
    }
}

static void test_several_members(void **state)
{
    static const char text[] = "hello";
    uint8_t decoded[16];
    uint8_t *encoded = mem_alloc(2 * (size_t)ENCODED_MAX);
    (void)state;
    for (size_t i = 0; i < CODING_COUNT; i++) {
        size_t one = encode(codings[i], slice_from_text(text), encoded);
        size_t two = one + encode(codings[i], slice_from_text(text), encoded + one);
        for (size_t cut = 0; cut <= two; cut++) {
            struct result result =
                decode(codings[i], slice_make(encoded, two), cut, 4, decoded, sizeof(decoded));
            if (codings[i] == HTTP_BROTLI) {
                assert_int_equal(result.err, ERR_SYNTAX); /* the twin: br is one stream */
            } else {
                assert_int_equal(result.err, ERR_OK);
                assert_true(result.is_whole);
                assert_int_equal(result.size, 10);
                assert_memory_equal(decoded, "hellohello", 10);
            }
        }
    }
    mem_free(encoded);
}

static void test_garbage(void **state)
{
    static const char text[] = "this is not compressed at all, and long enough to be sure of it";
    uint8_t decoded[256];
    uint8_t *encoded = mem_alloc(ENCODED_MAX);
    (void)state;
    for (size_t i = 0; i < CODING_COUNT; i++) {
        struct result result =
            decode(codings[i], slice_from_text(text), 3, 64, decoded, sizeof(decoded));
        assert_int_equal(result.err, ERR_SYNTAX);
        size_t size = encode(codings[i], slice_from_text(text), encoded);
        memset(encoded + size, 'g', 8);
        result = decode(codings[i], slice_make(encoded, size + 8), 3, 64, decoded, sizeof(decoded));
        assert_int_equal(result.err, ERR_SYNTAX);
    }
    mem_free(encoded);
}

static void test_bombs_come_in_small_pieces(void **state)
{
    size_t plain_size = (size_t)16 << 20;
    uint8_t decoded[1];
    uint8_t *plain = mem_alloc(plain_size);
    uint8_t *encoded = mem_alloc(ENCODED_MAX);
    (void)state;
    for (size_t i = 0; i < CODING_COUNT; i++) {
        size_t size = encode(codings[i], slice_make(plain, plain_size), encoded);
        struct result result = decode(codings[i], slice_make(encoded, size), size / 2, 65536,
                                      decoded, sizeof(decoded));
        assert_int_equal(result.err, ERR_OK);
        assert_int_equal(result.size, plain_size);
        assert_true(result.largest_step <= 65536);
    }
    mem_free(plain);
    mem_free(encoded);
}

/* RFC 9659: a zstd frame that wants a window above 8 MiB is not accepted. */
static void test_large_windows_are_refused(void **state)
{
    uint8_t decoded[64];
    uint8_t encoded[64];
    (void)state;
    for (int log = 23; log <= 24; log++) {
        /* Frame header: magic, descriptor without flags, window descriptor (log - 10) << 3; then a
         * last raw block of one byte. */
        const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, (uint8_t)((log - 10) << 3),
                                 0x09, 0x00, 0x00, 'x'};
        memcpy(encoded, frame, sizeof(frame));
        struct result result =
            decode(HTTP_ZSTD, slice_make(encoded, sizeof(frame)), 4, 64, decoded, sizeof(decoded));
        assert_int_equal(result.err, log == 23 ? ERR_OK : ERR_SYNTAX);
        assert_int_equal(result.size, log == 23 ? 1 : 0);
    }
}

static void test_names(void **state)
{
    enum http_coding coding = HTTP_IDENTITY;
    (void)state;
    assert_true(http_coding_from_name(SLICE_LITERAL("GZip"), &coding) && coding == HTTP_GZIP);
    assert_true(http_coding_from_name(SLICE_LITERAL("x-gzip"), &coding) && coding == HTTP_GZIP);
    assert_true(http_coding_from_name(SLICE_LITERAL("br"), &coding) && coding == HTTP_BROTLI);
    assert_true(http_coding_from_name(SLICE_LITERAL("zstd"), &coding) && coding == HTTP_ZSTD);
    assert_false(http_coding_from_name(SLICE_LITERAL("deflate"), &coding));
    assert_false(http_coding_from_name(SLICE_LITERAL("gzip, br"), &coding));
    assert_false(http_coding_from_name(SLICE_LITERAL(""), &coding));
    assert_int_equal(coding, HTTP_ZSTD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_cut_streams_are_not_whole),
        cmocka_unit_test(test_no_bytes_are_an_empty_body),
        cmocka_unit_test(test_several_members),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_bombs_come_in_small_pieces),
        cmocka_unit_test(test_large_windows_are_refused),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
