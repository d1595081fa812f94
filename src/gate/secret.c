/* Secret: a key's secret against its hash, by Argon2id (RFC 9106) as libsodium makes it.
 *
 * The hash is text in the form that the argon2 tools share:
 *
 *   $argon2id$v=19$m=19456,t=2,p=1$<salt, 16 bytes in base64>$<hash, 32 bytes in base64>
 *
 * Its parameters are those of the day on which the key was made, so they may differ from today's
 * settings.
 *
 * Happy path: read the text, compute, compare in constant time.
 * Failure modes: a text that is none of ours matches no secret; memory that the system does not
 * give is told from a secret that differs. */
#include "gate/secret.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdbool.h>
#include <string.h>

#include "base/hash.h"

static_assert(crypto_pwhash_argon2id_STRBYTES <= GATE_HASH_BYTES_MAX, "a hash fits");

enum err gate_secret_hash(struct slice secret, uint32_t passes, uint32_t memory_kib,
                          char ret[GATE_HASH_BYTES_MAX])
{
    char hash[crypto_pwhash_argon2id_STRBYTES];
    if (crypto_pwhash_argon2id_str(hash, (const char *)secret.data, secret.size, passes,
                                   (size_t)memory_kib * 1024u) != 0) {
        return ERR_NO_MEMORY;
    }
    memcpy(ret, hash, sizeof(hash));
    return ERR_OK;
}

/* What stands in "$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>". */
struct hash_parts {
    uint64_t memory_kib;
    uint64_t passes;
    uint8_t salt[crypto_pwhash_argon2id_SALTBYTES];
    uint8_t bytes[32];
};

static bool base64_read(struct slice text, uint8_t *to, size_t size)
{
    size_t read = 0;
    return sodium_base642bin(to, size, (const char *)text.data, text.size, NULL, &read, NULL,
                             sodium_base64_VARIANT_ORIGINAL_NO_PADDING) == 0 &&
           read == size;
}

/* The number that follows `name`. */
static bool parameter_read(struct slice text, struct slice name, uint64_t *ret)
{
    return slice_starts_with(text, name) &&
           slice_to_u64(slice_part(text, name.size, text.size), ret);
}

static bool hash_read(const char *hash, struct hash_parts *ret)
{
    const struct slice head = SLICE_LITERAL("$argon2id$v=19$");
    struct slice rest = slice_from_text(hash);
    if (!slice_starts_with(rest, head)) {
        return false;
    }
    rest = slice_part(rest, head.size, rest.size);
    struct slice parameters = slice_cut(rest, '$', &rest);
    struct slice salt = slice_cut(rest, '$', &rest);
    struct slice memory = slice_cut(parameters, ',', &parameters);
    struct slice passes = slice_cut(parameters, ',', &parameters);
    return slice_equal(parameters, SLICE_LITERAL("p=1")) &&
           parameter_read(memory, SLICE_LITERAL("m="), &ret->memory_kib) &&
           parameter_read(passes, SLICE_LITERAL("t="), &ret->passes) &&
           ret->memory_kib <= crypto_pwhash_argon2id_MEMLIMIT_MAX / 1024u &&
           base64_read(salt, ret->salt, sizeof(ret->salt)) &&
           base64_read(rest, ret->bytes, sizeof(ret->bytes));
}

/* Not by libsodium's verify for such a text: that one calls an allocation that failed a mismatch.
 */
enum err gate_secret_check(const char *hash, struct slice secret)
{
    struct hash_parts parts;
    uint8_t bytes[sizeof(parts.bytes)];
    if (!hash_read(hash, &parts)) {
        return ERR_UNAUTHORIZED;
    }
    errno = 0;
    if (crypto_pwhash_argon2id(bytes, sizeof(bytes), (const char *)secret.data, secret.size,
                               parts.salt, parts.passes, parts.memory_kib * 1024u,
                               crypto_pwhash_ALG_ARGON2ID13) != 0) {
        return errno == ENOMEM ? ERR_NO_MEMORY : ERR_UNAUTHORIZED;
    }
    return hash_equal_constant_time(bytes, parts.bytes, sizeof(bytes)) ? ERR_OK : ERR_UNAUTHORIZED;
}
