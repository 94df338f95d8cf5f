/* index_state.h - the index's insides, shared by index.c (changes) and match.c (questions). One thread. */
#ifndef KV_INDEX_STATE_H
#define KV_INDEX_STATE_H

#include <stdbool.h>
#include <string.h>

#include "base/prng.h"
#include "kv/index.h"
#include "kv/sets.h"

enum { NONE = 0 };

struct block {
    struct mc_key key;
    uint32_t next; /* in its bucket; while free: the next free one */
    uint32_t set;  /* of holders; KV_SET_NONE only while free: a block that nobody has is freed */
    uint32_t older, newer; /* NONE at the ends */
};
static_assert(sizeof(struct block) == 32, "half a cache line");

struct links {
    uint32_t before, after; /* of the same set */
};

struct kv_index {
    const struct mc_alloc *alloc; /* borrowed */
    uint64_t seed;
    uint32_t *buckets;    /* owned; [bucket_mask + 1] */
    struct block *blocks; /* owned; [limit] */
    struct links *links;  /* owned; [limit] */
    uint32_t *counts;     /* owned; [holders_max]: blocks at each */
    struct kv_sets sets;
    uint32_t bucket_mask, holders_max;
    /* Blocks 1 .. used - 1 were used before and are in use or in the free list; the rest is untouched. */
    uint32_t free, used, limit; /* limit: one past the last */
    uint32_t oldest, newest;
    uint32_t count;
    uint64_t forgotten;
};

static inline uint32_t kv_index_bucket(const kv_index *index, const struct mc_key *key)
{
    uint64_t bits;

    memcpy(&bits, key->bytes, sizeof(bits));
    return (uint32_t)prng_mix(bits ^ index->seed) & index->bucket_mask;
}

static inline bool kv_index_is(const struct block *block, const struct mc_key *key)
{
    uint64_t a[2], b[2];

    memcpy(a, &block->key, sizeof(a));
    memcpy(b, key, sizeof(b));
    return ((a[0] ^ b[0]) | (a[1] ^ b[1])) == 0;
}

#endif /* KV_INDEX_STATE_H */
