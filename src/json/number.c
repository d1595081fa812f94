/* Number: the grammar of RFC 8259 section 6 as a table.
 *
 *   START --> MINUS --> ZERO ------------> POINT --> FRACTION --> E --> E_SIGN --> EXPONENT
 *                   \-> INTEGER (loops) -/           (loops)                       (loops)
 *
 * START may go to ZERO or INTEGER, ZERO and INTEGER to E, E to EXPONENT at once.
 *
 * Happy path: each byte leads to the next state, until one leads nowhere.
 * Failure modes: the state in which it stopped is not one in which a number may end. */
#include "json/number.h"

enum number_class { OTHER, DIGIT_ZERO, DIGIT, SIGN_MINUS, SIGN_PLUS, DOT, LETTER_E, CLASSES };

static const uint8_t number_class[256] = {
    ['0'] = DIGIT_ZERO, ['1'] = DIGIT,     ['2'] = DIGIT, ['3'] = DIGIT,    ['4'] = DIGIT,
    ['5'] = DIGIT,      ['6'] = DIGIT,     ['7'] = DIGIT, ['8'] = DIGIT,    ['9'] = DIGIT,
    ['-'] = SIGN_MINUS, ['+'] = SIGN_PLUS, ['.'] = DOT,   ['e'] = LETTER_E, ['E'] = LETTER_E,
};

/* The next state; 0, which is START and is never returned to, means that the byte does not fit. */
static const uint8_t number_next[][CLASSES] = {
    [JSON_NUMBER_START] = {[DIGIT_ZERO] = JSON_NUMBER_ZERO,
                           [DIGIT] = JSON_NUMBER_INTEGER,
                           [SIGN_MINUS] = JSON_NUMBER_MINUS},
    [JSON_NUMBER_MINUS] = {[DIGIT_ZERO] = JSON_NUMBER_ZERO, [DIGIT] = JSON_NUMBER_INTEGER},
    [JSON_NUMBER_ZERO] = {[DOT] = JSON_NUMBER_POINT, [LETTER_E] = JSON_NUMBER_E},
    [JSON_NUMBER_INTEGER] = {[DIGIT_ZERO] = JSON_NUMBER_INTEGER,
                             [DIGIT] = JSON_NUMBER_INTEGER,
                             [DOT] = JSON_NUMBER_POINT,
                             [LETTER_E] = JSON_NUMBER_E},
    [JSON_NUMBER_POINT] = {[DIGIT_ZERO] = JSON_NUMBER_FRACTION, [DIGIT] = JSON_NUMBER_FRACTION},
    [JSON_NUMBER_FRACTION] = {[DIGIT_ZERO] = JSON_NUMBER_FRACTION,
                              [DIGIT] = JSON_NUMBER_FRACTION,
                              [LETTER_E] = JSON_NUMBER_E},
    [JSON_NUMBER_E] = {[DIGIT_ZERO] = JSON_NUMBER_EXPONENT,
                       [DIGIT] = JSON_NUMBER_EXPONENT,
                       [SIGN_MINUS] = JSON_NUMBER_E_SIGN,
                       [SIGN_PLUS] = JSON_NUMBER_E_SIGN},
    [JSON_NUMBER_E_SIGN] = {[DIGIT_ZERO] = JSON_NUMBER_EXPONENT, [DIGIT] = JSON_NUMBER_EXPONENT},
    [JSON_NUMBER_EXPONENT] = {[DIGIT_ZERO] = JSON_NUMBER_EXPONENT, [DIGIT] = JSON_NUMBER_EXPONENT},
};

struct json_number json_number_scan(uint8_t state, const uint8_t *at, const uint8_t *end)
{
    while (at < end) {
        uint8_t next = number_next[state][number_class[*at]];
        if (next == JSON_NUMBER_START) {
            break;
        }
        state = next;
        at++;
    }
    return (struct json_number){at, state};
}
