/*
 * index.h - who holds which block: block key -> the holders, and the longest prefix at each of them.
 *
 * A holder is a slot, a small number that the owner of the index gives out. The index is a hint: it is fed
 * by events, and what does not fit any more is forgotten, oldest first (by when a holder last said that it
 * has the block).
 *
 * Life:    kv_index_open -> kv_index_insert | _remove | _reset | _match -> kv_index_close
 * Threads: one.
 * Memory:  all of it is taken at open, about 85 bytes for each of blocks_max (untouched until used, where
 *          the allocator gives fresh pages); nothing is allocated afterwards.
 * Errors:  open only. Answers depend on what was inserted and removed and in which order, never on
 *          addresses or the seed.
 */
#ifndef KV_INDEX_H
#define KV_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

typedef struct kv_index kv_index; /* opaque */

struct kv_index_options {
    const struct mc_alloc *alloc; /* borrowed until close; required */
    uint32_t blocks_max;  /* different keys; 1 .. 2^30. Twice as many (block, holder) pairs */
    uint32_t holders_max; /* slots are below it; 1 .. 2^20 */
    uint64_t seed;        /* of the hash table: who chooses keys shall not choose its chains */
};

/** Returns MC_OK, MC_E_RANGE (a limit) or MC_E_NOMEM. */
MC_MUST_USE mc_status kv_index_open(const struct kv_index_options *options, kv_index **index_p);

/** NULL is allowed. */
void kv_index_close(kv_index *index);

/** The block can be read at `holder`, in `medium` (which it may have changed). It is the newest now. */
void kv_index_insert(kv_index *index, const struct mc_key *key, uint32_t holder,
                     enum mc_medium medium);

/** It cannot any more. Not there: nothing happens. */
void kv_index_remove(kv_index *index, const struct mc_key *key, uint32_t holder);

/** Forget all that `holder` has. */
void kv_index_reset(kv_index *index, uint32_t holder);

/**
 * The longest prefix of a chain of keys at every holder, in one pass.
 *
 * pooled    [holders_max]: nonzero for slots that serve as one pool, from which a prefix can be read though
 *           its blocks lie at several of them. NULL: there is no pool.
 * blocks_p  [holders_max]: the prefix at each slot alone, in blocks.
 * held_p    [holders_max]: how many blocks of the pool's prefix each pooled slot has. NULL when pooled is.
 *
 * Returns the pool's prefix, in blocks. It ends at UINT32_MAX keys.
 */
uint32_t kv_index_match(const kv_index *index, const struct mc_key *keys, size_t count,
                        const uint8_t *pooled, uint32_t *blocks_p, uint32_t *held_p);

/** Different keys now; and forgotten for want of room since open. */
uint32_t kv_index_blocks(const kv_index *index);
uint64_t kv_index_forgotten(const kv_index *index);

#endif /* KV_INDEX_H */
