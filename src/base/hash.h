/* Hash: checksums, hash-table hashes and random bytes.
 *
 * Thread: any, after hash_start.
 * Memory: none kept.
 * Errors: hash_start fails when the crypto library cannot start. */
#pragma once
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

/* Once, before any thread: starts libsodium. */
MUST_CHECK enum err hash_start(void);
/* XXH3-64 with a seed: checksums of files, and tables of keys that nobody can choose. */
uint64_t hash_xxh3(const void *data, size_t size, uint64_t seed);
/* The same value with seed 0 of bytes that come in parts. */
struct hash_stream;
struct hash_stream *hash_stream_create(void);
void hash_stream_add(struct hash_stream *stream, const void *data, size_t size);
uint64_t hash_stream_value(const struct hash_stream *stream);
/* NULL is fine. */
void hash_stream_destroy(struct hash_stream *stream);
/* SipHash-2-4 with a random key of this process: tables whose keys come from outside. */
uint64_t hash_table(const void *data, size_t size);
/* BLAKE2b keyed; `size` 16 to 64, key 16 to 64 bytes. */
void hash_keyed(struct slice key, struct slice data, uint8_t *ret, size_t size);
void hash_random(void *to, size_t size);
/* Same time whatever the bytes. */
bool hash_equal_constant_time(const void *a, const void *b, size_t size);
