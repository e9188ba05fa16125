/* The table behind OffsetMap (compact.pyx): 128-bit hashes of keys to offsets, open addressing.
 *
 * The hash is SipHash-2-4 with 128 bits of output, under a secret of the caller's. A key is not
 * kept, so two keys of one hash would be taken for one and a live record dropped; with a secret
 * that nobody can know, n keys have a chance of n * n / 2^129 for that, whoever chose them.
 */
#ifndef TRIOQ_KEY_TABLE_H
#define TRIOQ_KEY_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    uint64_t high, low;
    int64_t offset; /* -1: empty */
} trioq_key_slot;

typedef struct {
    trioq_key_slot *slots;
    uint64_t capacity;
    int64_t entries;
    uint64_t secret[2];
} trioq_key_table;

#define TRIOQ_ROTATE(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define TRIOQ_SIP_ROUND                                                                            \
    do {                                                                                           \
        v0 += v1; v1 = TRIOQ_ROTATE(v1, 13); v1 ^= v0; v0 = TRIOQ_ROTATE(v0, 32);                   \
        v2 += v3; v3 = TRIOQ_ROTATE(v3, 16); v3 ^= v2;                                              \
        v0 += v3; v3 = TRIOQ_ROTATE(v3, 21); v3 ^= v0;                                              \
        v2 += v1; v1 = TRIOQ_ROTATE(v1, 17); v1 ^= v2; v2 = TRIOQ_ROTATE(v2, 32);                   \
    } while (0)

static inline void trioq_siphash128(
    const uint64_t secret[2], const uint8_t *data, size_t length, uint64_t hash[2]) {
    uint64_t v0 = UINT64_C(0x736f6d6570736575) ^ secret[0];
    uint64_t v1 = UINT64_C(0x646f72616e646f6d) ^ secret[1] ^ 0xee;
    uint64_t v2 = UINT64_C(0x6c7967656e657261) ^ secret[0];
    uint64_t v3 = UINT64_C(0x7465646279746573) ^ secret[1];
    uint64_t word, last = (uint64_t)length << 56;
    const uint8_t *end = data + (length & ~(size_t)7);
    size_t left = length & 7;
    for (; data != end; data += 8) {
        memcpy(&word, data, 8); /* in the order of this machine: hashes are never stored */
        v3 ^= word;
        TRIOQ_SIP_ROUND;
        TRIOQ_SIP_ROUND;
        v0 ^= word;
    }
    for (size_t i = 0; i < left; i++) {
        last |= (uint64_t)data[i] << (8 * i);
    }
    v3 ^= last;
    TRIOQ_SIP_ROUND;
    TRIOQ_SIP_ROUND;
    v0 ^= last;
    v2 ^= 0xee;
    for (int i = 0; i < 4; i++) {
        TRIOQ_SIP_ROUND;
    }
    hash[0] = v0 ^ v1 ^ v2 ^ v3;
    v1 ^= 0xdd;
    for (int i = 0; i < 4; i++) {
        TRIOQ_SIP_ROUND;
    }
    hash[1] = v0 ^ v1 ^ v2 ^ v3;
}

/* The slot of a key: its own, or the empty one where it goes. One slot at least is empty. */
static inline trioq_key_slot *trioq_key_find(
    const trioq_key_table *table, const uint8_t *key, size_t length, uint64_t hash[2]) {
    trioq_siphash128(table->secret, key, length, hash);
    uint64_t at = (uint64_t)(((unsigned __int128)hash[0] * table->capacity) >> 64);
    for (;;) {
        trioq_key_slot *slot = table->slots + at;
        if (slot->offset < 0 || (slot->high == hash[0] && slot->low == hash[1])) {
            return slot;
        }
        at = at + 1 == table->capacity ? 0 : at + 1;
    }
}

/* Remember the greatest offset of a key. */
static inline void trioq_key_put(
    trioq_key_table *table, const uint8_t *key, size_t length, int64_t offset) {
    uint64_t hash[2];
    trioq_key_slot *slot = trioq_key_find(table, key, length, hash);
    if (slot->offset < 0) {
        slot->high = hash[0];
        slot->low = hash[1];
        table->entries++;
    } else if (slot->offset >= offset) {
        return;
    }
    slot->offset = offset;
}

/* The greatest offset remembered of a key; -1 for none. */
static inline int64_t trioq_key_get(
    const trioq_key_table *table, const uint8_t *key, size_t length) {
    uint64_t hash[2];
    return trioq_key_find(table, key, length, hash)->offset;
}

#endif
