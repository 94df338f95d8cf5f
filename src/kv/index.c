/*
 * index.c - a chained hash table of blocks, each with a list of its holdings.
 *
 *     buckets[hash] -> block -> block -> ...      blocks in order of age: oldest <-> ... <-> newest
 *                        | holdings
 *                        v
 *                      holding -> holding -> ...  one for each holder; also in a list of that holder
 *
 * All links are indices into arrays that never move, so nothing depends on addresses. Index 0 is nobody.
 */
#include "kv/index.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"

enum { BLOCKS_LIMIT = 1 << 30, HOLDERS_LIMIT = 1 << 20, NONE = 0 };

struct block {
    struct mc_key key;
    uint32_t next;         /* in its bucket; while free: the next free one */
    uint32_t older, newer; /* NONE at the ends */
    uint32_t holdings;     /* NONE only while free: a block that nobody has is freed */
};
static_assert(sizeof(struct block) == 32, "half a cache line");

struct holding {
    uint32_t holder;
    uint32_t medium; /* enum mc_medium */
    uint32_t block;
    uint32_t next;          /* of the same block; while free: the next free one */
    uint32_t before, after; /* of the same holder */
};

/* Cells 1 .. used - 1 were used before and are in use or in the free list; the rest is untouched. */
struct cells {
    uint32_t free, used, limit; /* limit: one past the last */
};

struct kv_index {
    const struct mc_alloc *alloc; /* borrowed */
    uint64_t seed;
    uint32_t *buckets;        /* owned; [bucket_mask + 1] */
    struct block *blocks;     /* owned; [block_cells.limit] */
    struct holding *holdings; /* owned; [holding_cells.limit] */
    uint32_t *first;          /* owned; [holders_max]: a holder's holdings */
    uint32_t bucket_mask, holders_max;
    struct cells block_cells, holding_cells;
    uint32_t oldest, newest;
    uint32_t count;
    uint64_t forgotten;
};

/* ------------------------------------------------------------------------------------------- life */

mc_status kv_index_open(const struct kv_index_options *options, kv_index **index_p)
{
    const struct mc_alloc *alloc = options->alloc;
    const uint32_t blocks = options->blocks_max, holders = options->holders_max;

    if (blocks < 1 || blocks > BLOCKS_LIMIT || holders < 1 || holders > HOLDERS_LIMIT)
        return MC_E_RANGE;

    /* One block may be at every holder: then forgetting the others always makes room. */
    const uint32_t pairs = 2 * blocks > holders ? 2 * blocks : holders;
    uint32_t buckets = 1;
    while (buckets < blocks)
        buckets *= 2;

    kv_index *index = alloc_zeroed(alloc, 1, sizeof(*index));
    if (!index)
        return MC_E_NOMEM;
    *index = (kv_index){ .alloc = alloc,
                         .seed = options->seed,
                         .bucket_mask = buckets - 1,
                         .holders_max = holders,
                         .block_cells = { .used = 1, .limit = blocks + 1 },
                         .holding_cells = { .used = 1, .limit = pairs + 1 } };
    index->buckets = alloc_zeroed(alloc, buckets, sizeof(*index->buckets));
    index->first = alloc_zeroed(alloc, holders, sizeof(*index->first));
    index->blocks = alloc_resize(alloc, NULL, (size_t)blocks + 1, sizeof(*index->blocks));
    index->holdings = alloc_resize(alloc, NULL, (size_t)pairs + 1, sizeof(*index->holdings));
    if (!index->buckets || !index->first || !index->blocks || !index->holdings) {
        kv_index_close(index);
        return MC_E_NOMEM;
    }
    *index_p = index;
    return MC_OK;
}

void kv_index_close(kv_index *index)
{
    if (!index)
        return;
    alloc_free(index->alloc, index->holdings);
    alloc_free(index->alloc, index->blocks);
    alloc_free(index->alloc, index->first);
    alloc_free(index->alloc, index->buckets);
    alloc_free(index->alloc, index);
}

/* ------------------------------------------------------------------------------------------ links */

static uint32_t *bucket_of(const kv_index *index, const struct mc_key *key)
{
    uint64_t bits;

    memcpy(&bits, key->bytes, sizeof(bits));
    return &index->buckets[prng_mix(bits ^ index->seed) & index->bucket_mask];
}

static uint32_t find(const kv_index *index, const struct mc_key *key)
{
    uint32_t at = *bucket_of(index, key);

    while (at != NONE && memcmp(&index->blocks[at].key, key, sizeof(*key)) != 0)
        at = index->blocks[at].next;
    return at;
}

static uint32_t find_holding(const kv_index *index, uint32_t block, uint32_t holder)
{
    uint32_t at = index->blocks[block].holdings;

    while (at != NONE && index->holdings[at].holder != holder)
        at = index->holdings[at].next;
    return at;
}

static void age_unlink(kv_index *index, uint32_t at)
{
    const struct block *b = &index->blocks[at];

    *(b->older ? &index->blocks[b->older].newer : &index->oldest) = b->newer;
    *(b->newer ? &index->blocks[b->newer].older : &index->newest) = b->older;
}

static void age_link_newest(kv_index *index, uint32_t at)
{
    struct block *b = &index->blocks[at];

    b->older = index->newest;
    b->newer = NONE;
    *(b->older ? &index->blocks[b->older].newer : &index->oldest) = at;
    index->newest = at;
}

static void block_free(kv_index *index, uint32_t at)
{
    struct block *b = &index->blocks[at];
    uint32_t *link = bucket_of(index, &b->key);

    while (*link != at)
        link = &index->blocks[*link].next;
    *link = b->next;
    age_unlink(index, at);
    b->next = index->block_cells.free;
    index->block_cells.free = at;
    index->count--;
}

/* Take a holding out of its holder's list and free it; its block's list is the caller's business. */
static void holding_free(kv_index *index, uint32_t at)
{
    struct holding *h = &index->holdings[at];

    *(h->before ? &index->holdings[h->before].after : &index->first[h->holder]) = h->after;
    if (h->after)
        index->holdings[h->after].before = h->before;
    h->next = index->holding_cells.free;
    index->holding_cells.free = at;
}

/* Take it out of its block too, which is freed when this was the last one who had it. */
static void holding_drop(kv_index *index, uint32_t at)
{
    const uint32_t block = index->holdings[at].block;
    uint32_t *link = &index->blocks[block].holdings;

    while (*link != at)
        link = &index->holdings[*link].next;
    *link = index->holdings[at].next;
    holding_free(index, at);
    if (index->blocks[block].holdings == NONE)
        block_free(index, block);
}

static void forget_oldest(kv_index *index)
{
    const uint32_t at = index->oldest;

    assert(at != NONE);
    for (uint32_t h = index->blocks[at].holdings; h != NONE;) {
        const uint32_t next = index->holdings[h].next;
        holding_free(index, h);
        h = next;
    }
    block_free(index, at);
    index->forgotten++;
}

/* ---------------------------------------------------------------------------------------- changes */

static uint32_t block_take(kv_index *index)
{
    struct cells *cells = &index->block_cells;

    if (cells->free == NONE && cells->used == cells->limit)
        forget_oldest(index);
    if (cells->free == NONE)
        return cells->used++;
    const uint32_t at = cells->free;
    cells->free = index->blocks[at].next;
    return at;
}

static uint32_t holding_take(kv_index *index)
{
    struct cells *cells = &index->holding_cells;

    while (cells->free == NONE && cells->used == cells->limit)
        forget_oldest(index);
    if (cells->free == NONE)
        return cells->used++;
    const uint32_t at = cells->free;
    cells->free = index->holdings[at].next;
    return at;
}

static uint32_t block_add(kv_index *index, const struct mc_key *key)
{
    const uint32_t at = block_take(index);
    uint32_t *bucket = bucket_of(index, key);

    index->blocks[at] = (struct block){ .key = *key, .next = *bucket };
    *bucket = at;
    age_link_newest(index, at);
    index->count++;
    return at;
}

void kv_index_insert(kv_index *index, const struct mc_key *key, uint32_t holder,
                     enum mc_medium medium)
{
    assert(holder < index->holders_max);
    uint32_t block = find(index, key);

    if (block == NONE) {
        block = block_add(index, key);
    } else {
        age_unlink(index, block);
        age_link_newest(index, block);
        const uint32_t known = find_holding(index, block, holder);
        if (known != NONE) {
            index->holdings[known].medium = medium;
            return;
        }
    }
    /* The block is the newest, and others can make room: it alone cannot fill all the holdings. */
    const uint32_t at = holding_take(index);
    index->holdings[at] = (struct holding){ .holder = holder,
                                            .medium = medium,
                                            .block = block,
                                            .next = index->blocks[block].holdings,
                                            .after = index->first[holder] };
    index->blocks[block].holdings = at;
    if (index->first[holder])
        index->holdings[index->first[holder]].before = at;
    index->first[holder] = at;
}

void kv_index_remove(kv_index *index, const struct mc_key *key, uint32_t holder)
{
    assert(holder < index->holders_max);
    const uint32_t block = find(index, key);
    const uint32_t at = block == NONE ? NONE : find_holding(index, block, holder);

    if (at != NONE)
        holding_drop(index, at);
}

void kv_index_reset(kv_index *index, uint32_t holder)
{
    assert(holder < index->holders_max);
    while (index->first[holder] != NONE)
        holding_drop(index, index->first[holder]);
}

/* -------------------------------------------------------------------------------------- questions */

uint32_t kv_index_match(const kv_index *index, const struct mc_key *keys, size_t count,
                        const uint8_t *pooled, uint32_t *blocks_p, uint32_t *held_p)
{
    uint32_t pool = 0;

    if (count > UINT32_MAX)
        count = UINT32_MAX;
    memset(blocks_p, 0, index->holders_max * sizeof(*blocks_p));
    if (pooled)
        memset(held_p, 0, index->holders_max * sizeof(*held_p));
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t block = find(index, &keys[i]);
        bool goes_on = false;

        if (block == NONE)
            break;
        const bool in_pool = pool == i; /* all before it are in the pool */
        for (uint32_t at = index->blocks[block].holdings; at; at = index->holdings[at].next) {
            const uint32_t holder = index->holdings[at].holder;

            if (blocks_p[holder] == i) {
                blocks_p[holder] = i + 1;
                goes_on = true;
            }
            if (pooled && pooled[holder] && in_pool) {
                held_p[holder]++;
                pool = i + 1;
                goes_on = true;
            }
        }
        if (!goes_on)
            break;
    }
    return pool;
}

uint32_t kv_index_blocks(const kv_index *index)
{
    return index->count;
}

uint64_t kv_index_forgotten(const kv_index *index)
{
    return index->forgotten;
}
