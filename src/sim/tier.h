/*
 * tier.h - memory of one kind at one node that holds blocks: what is in it, and what goes first.
 *
 * Blocks are numbers below 2^32 - 1. A pinned block is not evicted. Policies:
 *
 *     lru           what was not used for longest
 *     lfu           what was used least often since it came in; among equals what was not used for longest
 *     length-aware  as lfu, but of what was last used together the block furthest down its prompt (A-T1)
 *     s3-fifo       a small queue, a main queue, and a memory of what the small one dropped: what is used
 *                   again within reach goes to the main queue (Yang et al. 2023)
 *
 * Life:    tier_init -> ... -> tier_fini
 * Threads: one. Memory: all at init, about 56 bytes for each block of the capacity.
 */
#ifndef SIM_TIER_H
#define SIM_TIER_H

#include <stdbool.h>
#include <stdint.h>

#include <mooncake/status.h>

enum tier_policy { TIER_LRU, TIER_LFU, TIER_LENGTH, TIER_S3FIFO };

extern const char *const tier_policy_names[]; /* NULL ends them */

#define TIER_NONE UINT32_MAX

struct tier_cell {
    uint32_t block;        /* TIER_NONE: free */
    uint32_t next;         /* of the same hash, or the next free cell */
    uint32_t older, newer; /* in its queue */
    uint32_t heap;         /* its place there (lfu, length-aware) */
    uint32_t depth;        /* in its prompt */
    uint32_t uses, pins;
    uint32_t queue; /* enum in tier.c */
    uint32_t unused;
    uint64_t last; /* the use: a number that the caller counts up */
};

struct tier_queue {
    uint32_t oldest, newest, count;
};

struct tier {
    const struct mc_alloc *alloc; /* borrowed */
    enum tier_policy policy;
    struct tier_cell
        *cells;        /* owned; [cells_max]: those that are held, then remembered ones (s3-fifo) */
    uint32_t *buckets; /* owned; [mask + 1] */
    uint32_t *heap;    /* owned; [capacity]: cells (lfu, length-aware) */
    uint32_t mask, cells_max, free;
    uint32_t capacity, count, pinned; /* blocks */
    uint32_t limit;                   /* <= capacity: what it may hold now */
    struct tier_queue queues[3];
};

/** capacity > 0. MC_OK or MC_E_NOMEM. */
mc_status tier_init(struct tier *tier, const struct mc_alloc *alloc, uint32_t capacity,
                    enum tier_policy policy);
void tier_fini(struct tier *tier);

bool tier_has(const struct tier *tier, uint32_t block);

/** It was used. false: it is not there. */
bool tier_touch(struct tier *tier, uint32_t block, uint32_t depth, uint64_t use);

/**
 * Take it in, at the cost of others if it is full.
 *
 * evicted_p  set to the block that had to go, or TIER_NONE.
 *
 * false: it is there already (and was touched), or everything is pinned.
 */
bool tier_add(struct tier *tier, uint32_t block, uint32_t depth, uint64_t use, uint32_t *evicted_p);

/** The same, of a block that is known not to be there. */
bool tier_add_absent(struct tier *tier, uint32_t block, uint32_t depth, uint64_t use,
                     uint32_t *evicted_p);

/** Out with it; false: it is not there. It may be pinned: its node is gone. */
bool tier_remove(struct tier *tier, uint32_t block);

/** Held as often as it is pinned. The block is there. */
void tier_pin(struct tier *tier, uint32_t block);
void tier_unpin(struct tier *tier, uint32_t block);

/** Hold at most so much from now on. Evict with tier_shrink() until it says TIER_NONE. */
void tier_limit(struct tier *tier, uint32_t limit);
uint32_t tier_shrink(struct tier *tier);

/** Any block that is there, the oldest of its queue first; TIER_NONE: it is empty. */
uint32_t tier_any(const struct tier *tier);

#endif /* SIM_TIER_H */
