/* Promise: what the writer writes is JSON that reads back as what was given, with every comma in
 * its place, doubles in the fewest digits, and a failure that is not forgotten. */
#include "unit/json/comma_locale.h"
#include "unit/json/reading.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#define S SLICE_LITERAL

static void check_text(const struct buffer *buffer, const char *expected)
{
    if (!slice_equal(buffer_slice(buffer), slice_from_text(expected))) {
        fail_msg("%.*s, expected %s", (int)buffer->size, (const char *)buffer->data, expected);
    }
}

static void test_commas(void **state)
{
    (void)state;
    struct buffer to;
    struct json_writer writer;
    buffer_init(&to, 1024);
    json_writer_init(&writer, &to);
    json_write_object_begin(&writer);
    json_write_member_text(&writer, "a", "x");
    json_write_member_i64(&writer, "b", -1);
    json_write_key(&writer, "c");
    json_write_array_begin(&writer);
    json_write_array_begin(&writer);
    json_write_array_end(&writer);
    json_write_object_begin(&writer);
    json_write_object_end(&writer);
    json_write_bool(&writer, true);
    json_write_null(&writer);
    json_write_raw(&writer, S("{\"raw\":1}"));
    json_write_raw(&writer, S("\"\\n\""));
    json_write_array_end(&writer);
    json_write_member_u64(&writer, "d", UINT64_MAX);
    json_write_member_bool(&writer, "e", false);
    json_write_member_string(&writer, "f", slice_make(NULL, 0));
    json_write_object_end(&writer);
    assert_int_equal(json_writer_err(&writer), ERR_OK);
    check_text(&to, "{\"a\":\"x\",\"b\":-1,\"c\":[[],{},true,null,{\"raw\":1},\"\\n\"],"
                    "\"d\":18446744073709551615,\"e\":false,\"f\":\"\"}");
    buffer_finish(&to);
}

/* RFC 9562 appendix A.6 and the time in it. */
static void test_ids_and_times(void **state)
{
    (void)state;
    static const struct id id = {{0x01, 0x7f, 0x22, 0xe2, 0x79, 0xb0, 0x7c, 0xc3, 0x98, 0xc4, 0xdc,
                                  0x0c, 0x0c, 0x07, 0x39, 0x8f}};
    struct buffer to;
    struct json_writer writer;
    buffer_init(&to, 1024);
    json_writer_init(&writer, &to);
    json_write_object_begin(&writer);
    json_write_member_id(&writer, "id", id);
    json_write_member_time(&writer, "time", INT64_C(1645557742000));
    json_write_object_end(&writer);
    assert_int_equal(json_writer_err(&writer), ERR_OK);
    check_text(&to, "{\"id\":\"017f22e2-79b0-7cc3-98c4-dc0c0c07398f\","
                    "\"time\":\"2022-02-22T19:22:22.000Z\"}");
    buffer_finish(&to);
}

static void test_integers(void **state)
{
    (void)state;
    struct buffer to;
    struct json_writer writer;
    buffer_init(&to, 1024);
    json_writer_init(&writer, &to);
    json_write_array_begin(&writer);
    json_write_i64(&writer, 0);
    json_write_i64(&writer, INT64_MAX);
    json_write_i64(&writer, INT64_MIN);
    json_write_u64(&writer, 0);
    json_write_u64(&writer, 10);
    json_write_array_end(&writer);
    assert_int_equal(json_writer_err(&writer), ERR_OK);
    check_text(&to, "[0,9223372036854775807,-9223372036854775808,0,10]");
    buffer_finish(&to);
}

static void test_escapes(void **state)
{
    (void)state;
    struct buffer to;
    struct json_writer writer;
    buffer_init(&to, 4096);
    json_writer_init(&writer, &to);
    json_write_string(&writer, S("\"\\/\b\f\n\r\t\x01\x1f\x7f\0 \xc3\xa9\xf0\x9f\x98\x80"));
    check_text(&to,
               "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\\u0000 \xc3\xa9\xf0\x9f\x98\x80\"");
    buffer_clear(&to);
    json_writer_init(&writer, &to);
    /* A lone continuation, a cut sequence, an overlong one, a surrogate: U+FFFD for each byte. */
    json_write_string(&writer, S("a\x80z\xe6\x97z\xc0\xafz\xed\xa0\x80\xc3"));
    check_text(&to, "\"a\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbdz"
                    "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    buffer_finish(&to);
}

/* Random bytes and random UTF-8 written, read and unescaped are the same again (bytes that are not
 * UTF-8 excepted: those must at least be JSON). */
static void test_strings_come_back(void **state)
{
    (void)state;
    static const struct json_options options = {.depth_max = 1, .string_bytes_max = 4096};
    static const char *const bits[] = {"a",
                                       "\"",
                                       "\\",
                                       "\n",
                                       "\x01",
                                       "\xc3\xa9",
                                       "\xe6\x97\xa5",
                                       "\xf0\x9f\x98\x80",
                                       "twenty plain letters",
                                       "/",
                                       "\x7f"};
    unsigned seed = (unsigned)getpid();
    print_message("seed %u\n", seed);
    struct json_reader *reader = json_reader_create(&options);
    struct buffer plain;
    struct buffer to;
    struct buffer back;
    buffer_init(&plain, 4096);
    buffer_init(&to, 65536);
    buffer_init(&back, 65536);
    for (int round = 0; round < 20000; round++) {
        bool wild = round % 4 == 0;
        buffer_clear(&plain);
        for (int i = rand_r(&seed) % 20; i > 0; i--) {
            const char *bit = bits[(size_t)rand_r(&seed) % 11];
            enum err err = wild ? buffer_append_byte(&plain, (uint8_t)rand_r(&seed))
                                : buffer_append_text(&plain, bit);
            assert_int_equal(err, ERR_OK);
        }
        struct json_writer writer;
        struct json_token tokens[2];
        size_t count = 0;
        buffer_clear(&to);
        buffer_clear(&back);
        json_writer_init(&writer, &to);
        json_write_string(&writer, buffer_slice(&plain));
        assert_int_equal(json_writer_err(&writer), ERR_OK);
        json_document_begin(reader, buffer_slice(&to));
        assert_int_equal(json_document_next(reader, tokens, 2, &count), ERR_OK);
        assert_int_equal(count, 1);
        assert_int_equal(json_unescape(json_token_slice(&tokens[0]), &back), ERR_OK);
        assert_true(wild || slice_equal(buffer_slice(&back), buffer_slice(&plain)));
        assert_int_equal(json_document_next(reader, tokens, 2, &count), ERR_OK);
        assert_int_equal(count, 0);
    }
    buffer_finish(&plain);
    buffer_finish(&to);
    buffer_finish(&back);
    json_reader_destroy(reader);
}

struct number {
    double value;
    const char *text;
};

/* Expected digits: CPython's repr(), the shortest that reads back and of these the nearest, laid
 * out by the rule of ECMA-262. */
static const struct number numbers[] = {
    {0.0, "0"},
    {-0.0, "-0"},
    {-1.5, "-1.5"},
    {0x0.0000000000001p-1022, "5e-324"},
    {0x1.0000000000000p-1022, "2.2250738585072014e-308"},
    {0x0.fffffffffffffp-1022, "2.225073858507201e-308"},
    {0x1.fffffffffffffp+1023, "1.7976931348623157e+308"},
    {0x1.0000000000000p-44, "5.684341886080802e-14"},
    {0x0.0000000000003p-1022, "1.5e-323"},
    {0x1.0000000000000p-1022, "2.2250738585072014e-308"},
    {0x1.0000000000000p+60, "1152921504606847000"},
    {0x1.0000000000000p+53, "9007199254740992"},
    {0x1.0000000000001p+53, "9007199254740994"},
    {0x1.0000000000000p+63, "9223372036854776000"},
    {0x1.0000000000000p+64, "18446744073709552000"},
    {0x1.0000000000000p+77, "1.5111572745182865e+23"},
    {0x1.0000000000000p-60, "8.673617379884035e-19"},
    {0x1.0000000000000p+100, "1.2676506002282294e+30"},
    {0x1.0000000000000p-100, "7.888609052210118e-31"},
    {0x1.5555555555555p-2, "0.3333333333333333"},
    {0x1.5555555555555p-1, "0.6666666666666666"},
    {0x1.999999999999ap-4, "0.1"},
    {0x1.999999999999ap-3, "0.2"},
    {0x1.3333333333334p-2, "0.30000000000000004"},
    {0x1.b1ae4d6e2ef50p+69, "1e+21"},
    {0x1.5af1d78b58c40p+66, "100000000000000000000"},
    {0x1.0f0cf064dd592p+73, "1e+22"},
    {0x1.52d02c7e14af6p+76, "1e+23"},
    {0x1.ac53a7e04bcdap+66, "123456789012345680000"},
    {0x1.4542ba12a337cp+70, "1.5e+21"},
    {0x1.0c6f7a0b5ed8dp-20, "0.000001"},
    {0x1.ad7f29abcaf48p-24, "1e-7"},
    {0x1.421f5f40d8376p-23, "1.5e-7"},
    {0x1.4a2cf4d5aa6c0p-20, "0.00000123"},
    {0x1.4b3fd5942cd96p-20, "0.000001234"},
    {0x1.0000000000000p+53, "9007199254740992"},
    {0x1.21745d1745d17p+6, "72.36363636363636"},
    {0x1.9000000000000p+6, "100"},
    {0x1.86a0000000000p+16, "100000"},
    {0x1.18b54f22aeb03p+50, "1234567890123456.8"},
    {0x1.1666666666666p+2, "4.35"},
    {0x1.4f8b588e368f1p-17, "0.00001"},
    {0x1.0000000000000p-20, "9.5367431640625e-7"},
    {0x1.fffffffffffffp-45, "5.684341886080801e-14"},
    {0x1.279dcc8b6f65ep-100, "9.109383701528e-31"},
    {0x1.fe185ca57c517p+78, "6.02214076e+23"},
    {0x1.7e43c8800759cp+996, "1e+300"},
    {0x1.56e1fc2f8f359p-997, "1e-300"},
    {0x1.c283cf0480ff9p-914, "1.2707295676014209e-275"},
    {0x1.aa0992cb6916dp+127, "2.831504171118718e+38"},
    {0x1.18783593942a4p+162, "6.404792689696425e+48"},
    {0x1.9bb0a9bf13331p-687, "2.5045137864403776e-207"},
    {0x1.1bc7656670b14p-721, "1.0048777914802364e-217"},
    {0x1.c52ed01088475p+863, "1.0887289489103051e+260"},
    {0x1.9406c2e416788p-367, "5.2500251270102994e-111"},
    {0x1.a1b0d5c906158p+412, "1.7257310712338156e+124"},
    {0x1.95ee82bb29976p-351, "3.456881602026477e-106"},
    {0x1.2fe61985fb4e7p+468, "9.047467446246626e+140"},
    {0x1.2d15364c7a500p+415, "9.95163107800082e+124"},
    {0x1.e40b458151a99p-606, "7.119795665462372e-183"},
    {0x1.a4eace693ae2dp-551, "2.2306380652565658e-166"},
    {0x1.4aef73eaabe17p+652, "2.4157967034712517e+196"},
    {0x1.783e7eb04b39bp-705, "8.731378473754744e-213"},
    {0x1.c836478068577p-701, "1.6939469528836717e-211"},
    {0x1.df25453fe2e85p-415, "2.211970484009872e-125"},
    {0x1.41641178854f2p-79, "2.0769399575671704e-24"},
    {0x1.719c2add9ca88p-163, "1.2348508027705942e-49"},
    {0x1.154d85ed8abccp-1013, "1.2340385328279594e-305"},
    {0x1.c8712e8e3574fp+415, "1.508668928029574e+125"},
    {0x1.90103855dbf55p+3, "12.501979987806104"},
    {0x1.49b80dcb0b82ep+634, "9.181660019734812e+190"},
    {0x1.04245a4ff91e3p+744, "9.403451492883203e+223"},
    {0x1.788d106762832p-133, "1.3508105785725966e-40"},
    {0x1.b1471320a88eap+482, "2.1134122357203955e+145"},
    {0x1.552a09ddbef12p-306, "1.022221074742718e-92"},
    {0x1.0cc1721e52f21p+54, "18911997409410180"},
    {0x1.0e6129ec04ecep-159, "1.4453218173752605e-48"},
    {0x1.89eddd6846325p-530, "4.3780474315312807e-160"},
    {0x1.acb115ee347ddp+565, "2.0223331524032907e+170"},
    {0x1.bf3225fac9cb6p+552, "2.5752265823831757e+166"},
    {0x1.89fe46f2c7a8cp+745, "2.8483647855618263e+224"},
    {0x1.0d55d9545f0f3p-364, "2.79985130097111e-110"},
    {0x1.27b0fe339d309p+858, "2.219908002539962e+258"},
    {0x1.2f1936e85df08p+64, "21840548239546286000"},
    {0x1.c86bd84e0164bp-943, "2.3979493078126676e-284"},
    {0x1.d3cd8381df22fp-623, "5.2497127628522525e-188"},
    {0x1.1c0c8b0cdf20ap+973, "8.858069337099461e+292"},
    {0x1.cb5793e7fb97bp+520, "6.1587706592391844e+156"},
    {0x1.34e7e77ca4499p-163, "1.0320409050058377e-49"},
    {0x1.6d82486ea0214p+912, "4.943266875296821e+274"},
    {0x1.e8913655c1d15p+952, "7.265077398730708e+286"},
    {0x1.d327f761e07cbp-547, "3.9610876075060595e-165"},
    {0x1.fa271dbc52933p-365, "2.6308328669149054e-110"},
    {0x1.2be1a7fed0bb9p-664, "1.5303562599846548e-200"},
    {0x1.e4f50bdbcda98p+460, "5.639770903230955e+138"},
    {0x1.a66f4cf25e346p+69, "974068256328536300000"},
    {0x1.b8db4b18fbdb1p-715, "9.991035366694654e-216"},
    {0x1.ed6cb6470ff1fp-541, "2.677646416213008e-163"},
    {0x1.485b6761978ddp+383, "2.5269387441166645e+115"},
    {0x1.59933fdf0a45fp+249, "1.221157032054056e+75"},
    {0x1.55162fd0b00eap+409, "1.761542009081611e+123"},
    {0x1.60a9618949a23p-283, "8.8639947502104e-86"},
    {0x1.9877af376bc25p+235, "8.809809986230727e+70"},
    {0x1.a853eec9a72f2p-239, "1.8762582742910582e-72"},
    {0x1.72b0a43c20f56p-992, "3.4595149636620625e-299"},
    {0x1.752cc93a9b8b6p+591, "1.1814081163861008e+178"},
    {0x1.74d0a5fd11a32p+935, "4.229600963477469e+281"},
    {0x1.3a32acf00377cp-68, "4.158375261341321e-21"},
    {0x1.0125f87e1fc29p+52, "4523801138297897"},
    {0x1.84e23c9938ccdp+7, "194.4418685800396"},
    {0x1.9e6f0a95e86abp+39, "889989712628.2084"},
    {0x1.3402c51414828p+3, "9.625338114947297"},
    {0x1.c354b805f844bp+13, "14442.589855136486"},
    {0x1.4eeb48f58acd4p+22, "5487314.239787299"},
    {0x1.9abe284477901p+51, "3612931894000768.5"},
    {0x1.bf9c75df80b42p+25, "58669291.74611522"},
    {0x1.6a18bf593f276p+6, "90.52416743705712"},
    {0x1.f245e80fae7d0p+42, "8560266198713.953"},
    {0x1.0aabad933c955p+23, "8738262.787571589"},
    {0x1.125abce8c83a4p+23, "8990046.454652615"},
    {0x1.90df0f4e3301cp+46, "110190671400128.44"},
    {0x1.a1633152c64c2p+49, "917844756106392.2"},
    {0x1.0917cc06e4542p+48, "291472788612180.1"},
    {0x1.c71e25b496faap+32, "7635609012.589762"},
    {0x1.e60b7e3919182p+28, "509655011.5686265"},
    {0x1.d252dfbe3c982p+34, "31294455544.946785"},
    {0x1.709de513ef35fp+36, "98949812542.95067"},
    {0x1.24d5a870dd631p+35, "39303594886.91834"},
    {0x1.0000000000000p-742, "4.322581767826614e-224"},
    {0x1.0000000000000p-606, "3.7654997892232564e-183"},
    {0x1.0000000000000p+876, "5.038209258419659e+263"},
    {0x1.0000000000000p+30, "1073741824"},
    {0x1.0000000000000p+208, "4.113761393303015e+62"},
    {0x1.0000000000000p-218, "2.3738919364399497e-66"},
    {0x1.0000000000000p+763, "4.8516190384397154e+229"},
    {0x1.0000000000000p-119, "1.504632769052528e-36"},
    {0x1.0000000000000p-301, "2.4545467326488633e-91"},
    {0x1.0000000000000p-13, "0.0001220703125"},
    {0x1.0000000000000p+657, "5.980082166329764e+197"},
    {0x1.0000000000000p-643, "2.739761686260504e-194"},
    {0x1.0000000000000p-124, "4.70197740328915e-38"},
    {0x1.0000000000000p-1015, "2.848094538889218e-306"},
    {0x1.0000000000000p-352, "1.0900377190420866e-106"},
    {0x1.0000000000000p-69, "1.6940658945086007e-21"},
    {0x1.0000000000000p+138, "3.48449143727041e+41"},
    {0x1.0000000000000p-157, "5.473822126268817e-48"},
    {0x1.0000000000000p+251, "3.618502788666131e+75"},
    {0x1.0000000000000p+60, "1152921504606847000"},
    {0x0.2601e3471439bp-1022, "3.30348495443674e-309"},
    {0x0.18850c099fd1ep-1022, "2.13117877761082e-309"},
    {0x0.17ec1da73686fp-1022, "2.079255683265767e-309"},
    {0x0.2465b0ebe57f3p-1022, "3.16353620714271e-309"},
    {0x0.08ebb07776744p-1022, "7.7535666095575e-310"},
    {0x0.0f4fe83a56ae2p-1022, "1.330884232388614e-309"},
    {0x0.39209c3248ef2p-1022, "4.965337786630453e-309"},
    {0x0.3de1e6e18006dp-1022, "5.37863185708186e-309"},
    {0x0.347bd83c4ae10p-1022, "4.561728934045276e-309"},
    {0x0.2a66a5ee4b339p-1022, "3.68536283575532e-309"},
};

static void check_double(struct buffer *to, double value, const char *expected)
{
    struct json_writer writer;
    buffer_clear(to);
    json_writer_init(&writer, to);
    json_write_double(&writer, value);
    assert_int_equal(json_writer_err(&writer), ERR_OK);
    check_text(to, expected);
}

static void test_doubles(void **state)
{
    (void)state;
    struct buffer to;
    buffer_init(&to, 64);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        check_double(&to, numbers[i].value, numbers[i].text);
    }
    check_double(&to, (double)NAN, "null");
    check_double(&to, (double)INFINITY, "null");
    check_double(&to, -(double)INFINITY, "null");
    buffer_finish(&to);
}

/* Significant digits of a number's text. */
static int digits_of(const char *text)
{
    int digits = 0;
    int zeros = 0;
    for (; *text != '\0' && *text != 'e'; text++) {
        if (*text < '0' || *text > '9' || (*text == '0' && digits == 0)) {
            continue;
        }
        digits++;
        zeros = *text == '0' ? zeros + 1 : 0;
    }
    return digits - zeros;
}

/* Random doubles read back, and one digit less never would (the nearest with one digit less does
 * not, and no other is nearer, powers of two excepted, which stand in the table). */
static void test_random_doubles(void **state)
{
    (void)state;
    unsigned seed = (unsigned)getpid();
    print_message("seed %u\n", seed);
    struct buffer to;
    buffer_init(&to, 64);
    for (int round = 0; round < 100000; round++) {
        uint64_t bits =
            (uint64_t)rand_r(&seed) << 40 ^ (uint64_t)rand_r(&seed) << 20 ^ (uint64_t)rand_r(&seed);
        double value;
        memcpy(&value, &bits, sizeof(value));
        if (round % 2 == 0) {
            value = (double)(rand_r(&seed) % 10000000) / (double)(1 + rand_r(&seed) % 100000);
        }
        if (!isfinite(value) || value == 0) {
            continue;
        }
        struct json_writer writer;
        buffer_clear(&to);
        json_writer_init(&writer, &to);
        json_write_double(&writer, value);
        assert_int_equal(buffer_append_byte(&to, 0), ERR_OK);
        const char *text = (const char *)to.data;
        double back = strtod(text, NULL);
        if (back != value) {
            fail_msg("%a written as %s", value, text);
        }
        int digits = digits_of(text);
        char less[64];
        (void)snprintf(less, sizeof(less), "%.*e", digits > 1 ? digits - 2 : 0, value);
        if (digits > 1 && strtod(less, NULL) == value) {
            fail_msg("%s could be %s", text, less);
        }
    }
    buffer_finish(&to);
}

static void test_doubles_in_another_locale(void **state)
{
    (void)state;
    struct buffer to;
    buffer_init(&to, 64);
    comma_locale_enter();
    check_double(&to, 0x1.2795ffac913d6p-1, "0.5773162744668479");
    check_double(&to, 1.7976931348623157e308, "1.7976931348623157e+308");
    check_double(&to, 1.5, "1.5");
    comma_locale_leave();
    buffer_finish(&to);
}

static void test_failure_is_remembered(void **state)
{
    (void)state;
    struct buffer to;
    struct json_writer writer;
    buffer_init(&to, 10);
    json_writer_init(&writer, &to);
    json_write_array_begin(&writer);
    json_write_text(&writer, "twelve bytes");
    assert_int_equal(json_writer_err(&writer), ERR_TOO_LARGE);
    json_write_i64(&writer, 1); /* would fit, but would be a lie */
    json_write_array_end(&writer);
    assert_int_equal(json_writer_err(&writer), ERR_TOO_LARGE);
    check_text(&to, "[");
    buffer_finish(&to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commas),
        cmocka_unit_test(test_ids_and_times),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_strings_come_back),
        cmocka_unit_test(test_doubles),
        cmocka_unit_test(test_random_doubles),
        cmocka_unit_test(test_doubles_in_another_locale),
        cmocka_unit_test(test_failure_is_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
