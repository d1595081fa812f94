/* What is encoded, whole or page by page, is what the libraries' own decoders give back; each page
 * can be decoded as soon as it was written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <brotli/decode.h>
#define ZLIB_CONST /* next_in is a pointer to const */
#include <zlib.h>
#include <zstd.h>

#include "base/mem.h"
#include "http/encode.h"

#define PLAIN_BYTES 200000u

static const enum http_coding codings[] = {HTTP_GZIP, HTTP_BROTLI, HTTP_ZSTD};
#define CODING_COUNT 3u

/* Decodes a stream that may not have ended; gives the bytes. */
static size_t decode(enum http_coding coding, struct slice bytes, uint8_t *to, size_t room,
                     bool *ret_ended)
{
    size_t size = 0;
    if (coding == HTTP_GZIP) {
        z_stream stream = {.next_in = bytes.data,
                           .avail_in = (uInt)bytes.size,
                           .next_out = to,
                           .avail_out = (uInt)room};
        assert_int_equal(inflateInit2(&stream, 15 + 16), Z_OK);
        int result = inflate(&stream, Z_SYNC_FLUSH);
        assert_true(result == Z_OK || result == Z_STREAM_END);
        *ret_ended = result == Z_STREAM_END;
        size = room - stream.avail_out;
        assert_int_equal(inflateEnd(&stream), Z_OK);
    } else if (coding == HTTP_BROTLI) {
        BrotliDecoderState *state = BrotliDecoderCreateInstance(NULL, NULL, NULL);
        size_t left = room;
        BrotliDecoderResult result =
            BrotliDecoderDecompressStream(state, &bytes.size, &bytes.data, &left, &to, NULL);
        assert_true(result != BROTLI_DECODER_RESULT_ERROR);
        *ret_ended = result == BROTLI_DECODER_RESULT_SUCCESS;
        size = room - left;
        BrotliDecoderDestroyInstance(state);
    } else {
        ZSTD_DStream *stream = ZSTD_createDStream();
        ZSTD_inBuffer in = {bytes.data, bytes.size, 0};
        ZSTD_outBuffer out = {to, room, 0};
        size_t result = 1;
        while (in.pos < in.size) {
            result = ZSTD_decompressStream(stream, &out, &in);
            assert_false(ZSTD_isError(result));
        }
        *ret_ended = result == 0;
        size = out.pos;
        (void)ZSTD_freeDStream(stream);
    }
    return size;
}

static uint8_t *make_plain(void)
{
    uint8_t *plain = mem_alloc(PLAIN_BYTES);
    for (uint32_t i = 0; i < PLAIN_BYTES; i++) {
        plain[i] = (uint8_t)('a' + (i * i / 7 + i / 1000) % 26);
    }
    return plain;
}

static void test_whole_bodies(void **state)
{
    uint8_t *plain = make_plain();
    uint8_t *decoded = mem_alloc(PLAIN_BYTES + 1);
    struct buffer encoded;
    (void)state;
    buffer_init(&encoded, (size_t)1 << 20);
    for (size_t i = 0; i < CODING_COUNT; i++) {
        for (size_t size = 0; size <= PLAIN_BYTES; size = size * 7 + 1) {
            bool ended = false;
            buffer_clear(&encoded);
            assert_int_equal(http_encode(codings[i], slice_make(plain, size), &encoded), ERR_OK);
            assert_int_equal(
                decode(codings[i], buffer_slice(&encoded), decoded, PLAIN_BYTES + 1, &ended), size);
            assert_true(ended);
            assert_memory_equal(decoded, plain, size);
        }
    }
    buffer_finish(&encoded);
    mem_free(plain);
    mem_free(decoded);
}

static void test_pages_travel_whole(void **state)
{
    uint8_t *plain = make_plain();
    uint8_t *decoded = mem_alloc(PLAIN_BYTES + 1);
    struct buffer encoded;
    (void)state;
    buffer_init(&encoded, (size_t)1 << 20);
    for (size_t i = 0; i < CODING_COUNT; i++) {
        struct http_encoder *encoder = NULL;
        size_t given = 0;
        bool ended = false;
        buffer_clear(&encoded);
        assert_int_equal(http_encoder_create(&encoder, codings[i]), ERR_OK);
        while (given < PLAIN_BYTES) {
            size_t page = PLAIN_BYTES - given < 30000 ? PLAIN_BYTES - given : 30000;
            assert_int_equal(
                http_encoder_write(encoder, slice_make(plain + given, page), false, &encoded),
                ERR_OK);
            given += page;
            assert_int_equal(
                decode(codings[i], buffer_slice(&encoded), decoded, PLAIN_BYTES + 1, &ended),
                given);
            assert_false(ended);
        }
        assert_int_equal(http_encoder_write(encoder, slice_make(plain, 0), true, &encoded), ERR_OK);
        assert_int_equal(
            decode(codings[i], buffer_slice(&encoded), decoded, PLAIN_BYTES + 1, &ended), given);
        assert_true(ended);
        assert_memory_equal(decoded, plain, PLAIN_BYTES);
        http_encoder_destroy(encoder);
    }
    buffer_finish(&encoded);
    mem_free(plain);
    mem_free(decoded);
}

static void test_encoder_is_reused(void **state)
{
    uint8_t *plain = make_plain();
    uint8_t *decoded = mem_alloc(PLAIN_BYTES);
    struct buffer encoded;
    (void)state;
    buffer_init(&encoded, (size_t)1 << 20);
    for (size_t i = 0; i < CODING_COUNT; i++) {
        struct http_encoder *encoder = NULL;
        for (size_t round = 1; round <= 3; round++) {
            bool ended = false;
            buffer_clear(&encoded);
            assert_int_equal(http_encode_reusing(&encoder, codings[i],
                                                 slice_make(plain, round * 1000), &encoded),
                             ERR_OK);
            assert_int_equal(
                decode(codings[i], buffer_slice(&encoded), decoded, PLAIN_BYTES, &ended),
                round * 1000);
            assert_true(ended);
        }
        http_encoder_destroy(encoder);
    }
    buffer_finish(&encoded);
    mem_free(plain);
    mem_free(decoded);
}

static void test_full_target(void **state)
{
    uint8_t *plain = make_plain();
    (void)state;
    for (size_t i = 0; i < CODING_COUNT; i++) {
        struct buffer encoded;
        buffer_init(&encoded, 4096);
        assert_int_equal(http_encode(codings[i], slice_make(plain, PLAIN_BYTES), &encoded),
                         ERR_TOO_LARGE);
        assert_true(encoded.size <= 4096);
        buffer_finish(&encoded);
    }
    mem_free(plain);
}

static void test_identity(void **state)
{
    struct buffer encoded;
    (void)state;
    buffer_init(&encoded, 16);
    assert_int_equal(http_encode(HTTP_IDENTITY, SLICE_LITERAL("hello"), &encoded), ERR_OK);
    assert_true(slice_equal(buffer_slice(&encoded), SLICE_LITERAL("hello")));
    assert_int_equal(http_encode(HTTP_IDENTITY, SLICE_LITERAL("0123456789ab"), &encoded),
                     ERR_TOO_LARGE);
    buffer_finish(&encoded);
    assert_string_equal(http_coding_name(HTTP_IDENTITY), "identity");
    assert_string_equal(http_coding_name(HTTP_GZIP), "gzip");
    assert_string_equal(http_coding_name(HTTP_BROTLI), "br");
    assert_string_equal(http_coding_name(HTTP_ZSTD), "zstd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_bodies),      cmocka_unit_test(test_pages_travel_whole),
        cmocka_unit_test(test_encoder_is_reused), cmocka_unit_test(test_full_target),
        cmocka_unit_test(test_identity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
