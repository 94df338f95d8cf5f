/*
 * index.h - who holds which block: block key -> the holders, and the longest prefix at each of them.
 *
 * A holder is a slot, a small number that the owner of the index gives out. The index is a hint: it is fed
 * by events, and what does not fit any more is forgotten, oldest first (by when a holder last said that it
 * has the block). A block that is at a thousand holders costs little more than others: blocks of a prompt have
 * one set of holders together.
 *
 * Life:    kv_index_open -> kv_index_insert | _remove | _reset | _clear | _match -> kv_index_close
 * Threads: one.
 * Memory:  all of it is taken at open, about 80 bytes for each of blocks_max (untouched until used, where
 *          the allocator gives fresh pages); nothing is allocated afterwards. Used are 40 bytes for each block,
 *          4 to 8 of its hash table, and 32 or more for each different set of holders (sets.h).
 * Cost:    a block of a chain that was stored in one go lies behind the one before it: following it reads 32
 *          bytes in order. Elsewhere it is three cache misses, 32 of which are under way at a time. Holders are looked
 *          at once for each stretch of blocks that are at the same ones.
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
    uint32_t
        blocks_max; /* different keys; 1 .. 2^30. As many cells of sets of holders, and two sets more */
    uint32_t holders_max; /* slots are below it; 1 .. 2^20 */
    uint64_t seed;        /* of the hash table: who chooses keys shall not choose its chains */
};

/** Returns MC_OK, MC_E_RANGE (a limit) or MC_E_NOMEM. */
MC_MUST_USE mc_status kv_index_open(const struct kv_index_options *options, kv_index **index_p);

/** NULL is allowed. */
void kv_index_close(kv_index *index);

/** The block can be read at `holder`. It is the newest now. */
void kv_index_insert(kv_index *index, const struct mc_key *key, uint32_t holder);

/** It cannot any more. Not there: nothing happens. */
void kv_index_remove(kv_index *index, const struct mc_key *key, uint32_t holder);

/** Forget all that `holder` has; all that anybody has. */
void kv_index_reset(kv_index *index, uint32_t holder);
void kv_index_clear(kv_index *index);

/**
 * What there is of a chain of keys. The arrays are the caller's, zeroed before the first match; the next match
 * undoes what the last one wrote and no more.
 */
struct kv_match {
    uint32_t *blocks; /* [holders_max]: the prefix at each slot alone, in blocks */
    uint32_t *held;   /* [holders_max]: how many blocks of the pool's prefix a pooled slot has */
    uint32_t
        *holders; /* [holders_max]: the first `count`, in no order, are those with one of the two */
    uint32_t count;
    uint32_t pool; /* the pool's prefix, in blocks */
};

/**
 * The longest prefix of a chain of keys at every holder, in one pass.
 *
 * pooled  [holders_max]: nonzero for slots that serve as one pool, from which a prefix can be read though
 *         its blocks lie at several of them. NULL: there is no pool.
 *
 * It ends at UINT32_MAX keys.
 */
void kv_index_match(const kv_index *index, const struct mc_key *keys, size_t count,
                    const uint8_t *pooled, struct kv_match *match);

/** Different keys now; and forgotten for want of room since open. */
uint32_t kv_index_blocks(const kv_index *index);
uint64_t kv_index_forgotten(const kv_index *index);

#endif /* KV_INDEX_H */
