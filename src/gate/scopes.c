/* Scopes: their words. A word is one bit, so a key's scopes are a set, and what a route needs is a
 * set of which one suffices. */
#include "gate/gate.h"

static const struct {
    uint32_t scope;
    const char *text;
} scope_rows[] = {
#define X(name, bit, text) {GATE_##name, text},
    GATE_SCOPES(X)
#undef X
};

#define SCOPE_COUNT (sizeof(scope_rows) / sizeof(scope_rows[0]))

uint32_t gate_scope_from_text(struct slice text)
{
    for (size_t i = 0; i < SCOPE_COUNT; i++) {
        if (slice_equal(text, slice_from_text(scope_rows[i].text))) {
            return scope_rows[i].scope;
        }
    }
    return 0;
}

const char *gate_scope_take(uint32_t *scopes)
{
    for (size_t i = 0; i < SCOPE_COUNT; i++) {
        if ((*scopes & scope_rows[i].scope) != 0) {
            *scopes &= ~scope_rows[i].scope;
            return scope_rows[i].text;
        }
    }
    return NULL;
}
