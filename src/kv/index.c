/*
 * index.c - a chained hash table of blocks, each with the set of its holders.
 *
 *     buckets[hash] -> block -> block -> ...      blocks in order of age: oldest <-> ... <-> newest
 *                        | set                    blocks of one set: first -> ... (for kv_index_reset)
 *                        v
 *                      holders (sets.h)
 *
 * All links are indices into arrays that never move, so nothing depends on addresses. Index 0 is nobody.
 * Questions are answered in match.c.
 */
#include "kv/index_state.h"

#include <assert.h>

#include "base/alloc.h"

enum { BLOCKS_LIMIT = 1 << 30, HOLDERS_LIMIT = 1 << 20 };

/* ------------------------------------------------------------------------------------------- life */

static bool take_memory(kv_index *index, uint32_t blocks, uint32_t holders)
{
    index->buckets =
        alloc_zeroed(index->alloc, (size_t)index->bucket_mask + 1, sizeof(*index->buckets));
    index->counts = alloc_zeroed(index->alloc, holders, sizeof(*index->counts));
    index->blocks = alloc_resize(index->alloc, NULL, (size_t)blocks + 1, sizeof(*index->blocks));
    index->links = alloc_resize(index->alloc, NULL, (size_t)blocks + 1, sizeof(*index->links));
    if (!index->buckets || !index->counts || !index->blocks || !index->links)
        return false;
    return kv_sets_init(&index->sets, index->alloc, holders, blocks + 2 * kv_sets_cells(holders)) ==
           MC_OK;
}

mc_status kv_index_open(const struct kv_index_options *options, kv_index **index_p)
{
    const struct mc_alloc *alloc = options->alloc;
    const uint32_t blocks = options->blocks_max, holders = options->holders_max;
    uint32_t buckets = 1;

    if (blocks < 1 || blocks > BLOCKS_LIMIT || holders < 1 || holders > HOLDERS_LIMIT)
        return MC_E_RANGE;
    while (buckets < blocks)
        buckets *= 2;

    kv_index *index = alloc_zeroed(alloc, 1, sizeof(*index));
    if (!index)
        return MC_E_NOMEM;
    *index = (kv_index){ .alloc = alloc,
                         .seed = options->seed,
                         .bucket_mask = buckets - 1,
                         .holders_max = holders,
                         .used = 1,
                         .limit = blocks + 1 };
    if (!take_memory(index, blocks, holders)) {
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
    kv_sets_fini(&index->sets);
    alloc_free(index->alloc, index->links);
    alloc_free(index->alloc, index->blocks);
    alloc_free(index->alloc, index->counts);
    alloc_free(index->alloc, index->buckets);
    alloc_free(index->alloc, index);
}

/* ------------------------------------------------------------------------------------------ links */

static uint32_t find(const kv_index *index, const struct mc_key *key)
{
    uint32_t at = index->buckets[kv_index_bucket(index, key)];

    while (at != NONE && !kv_index_is(&index->blocks[at], key))
        at = index->blocks[at].next;
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

static void set_link(kv_index *index, uint32_t at, uint32_t set)
{
    uint32_t *first = kv_sets_blocks(&index->sets, set);

    index->links[at] = (struct links){ .before = NONE, .after = *first };
    if (*first != NONE)
        index->links[*first].before = at;
    *first = at;
    index->blocks[at].set = set;
}

/* Out of its set's list. The set goes with its last block. */
static void set_unlink(kv_index *index, uint32_t at)
{
    const struct links l = index->links[at];
    const uint32_t set = index->blocks[at].set;
    uint32_t *first = kv_sets_blocks(&index->sets, set);

    *(l.before ? &index->links[l.before].after : first) = l.after;
    if (l.after != NONE)
        index->links[l.after].before = l.before;
    if (*first == NONE)
        kv_sets_drop(&index->sets, set);
    index->blocks[at].set = KV_SET_NONE;
}

/* ----------------------------------------------------------------------------------------- blocks */

/* Nobody has it any more. */
static void block_free(kv_index *index, uint32_t at)
{
    struct block *b = &index->blocks[at];
    uint32_t *link = &index->buckets[kv_index_bucket(index, &b->key)];

    assert(b->set == KV_SET_NONE);
    while (*link != at)
        link = &index->blocks[*link].next;
    *link = b->next;
    age_unlink(index, at);
    b->next = index->free;
    index->free = at;
    index->count--;
}

/* Those who have it do not any more. */
static void forget(kv_index *index, uint32_t at)
{
    struct kv_members m = kv_members(&index->sets, index->blocks[at].set);
    uint32_t holder;

    while (kv_members_next(&m, &holder))
        index->counts[holder]--;
    set_unlink(index, at);
    block_free(index, at);
}

static void forget_oldest(kv_index *index)
{
    assert(index->oldest != NONE);
    forget(index, index->oldest);
    index->forgotten++;
}

static uint32_t block_take(kv_index *index)
{
    if (index->free == NONE && index->used == index->limit)
        forget_oldest(index);
    if (index->free == NONE)
        return index->used++;
    const uint32_t at = index->free;
    index->free = index->blocks[at].next;
    return at;
}

static uint32_t block_add(kv_index *index, const struct mc_key *key)
{
    const uint32_t at = block_take(index);
    uint32_t *bucket = &index->buckets[kv_index_bucket(index, key)];

    index->blocks[at] = (struct block){ .key = *key, .next = *bucket };
    *bucket = at;
    age_link_newest(index, at);
    index->count++;
    return at;
}

/* Without `holder`, who has it; it is freed when this was the last one. May be one set over. */
static void drop_holder(kv_index *index, uint32_t at, uint32_t holder)
{
    const uint32_t left = kv_sets_without(&index->sets, index->blocks[at].set, holder);

    index->counts[holder]--;
    set_unlink(index, at);
    if (left != KV_SET_NONE)
        set_link(index, at, left);
    else
        block_free(index, at);
}

/* ---------------------------------------------------------------------------------------- changes */

void kv_index_insert(kv_index *index, const struct mc_key *key, uint32_t holder)
{
    assert(holder < index->holders_max);
    uint32_t at = find(index, key);

    if (at == NONE) {
        at = block_add(index, key);
    } else {
        if (index->newest != at) {
            age_unlink(index, at);
            age_link_newest(index, at);
        }
        if (kv_sets_with(&index->sets, index->blocks[at].set, holder) == index->blocks[at].set)
            return;
    }
    const uint32_t set = kv_sets_with(&index->sets, index->blocks[at].set, holder);
    if (index->blocks[at].set != KV_SET_NONE)
        set_unlink(index, at);
    set_link(index, at, set);
    index->counts[holder]++;
    /* The block is the newest, and others can make room: its set alone always fits. */
    while (kv_sets_over(&index->sets))
        forget_oldest(index);
}

void kv_index_remove(kv_index *index, const struct mc_key *key, uint32_t holder)
{
    assert(holder < index->holders_max);
    const uint32_t at = find(index, key);

    if (at != NONE && kv_sets_has(&index->sets, index->blocks[at].set, holder))
        drop_holder(index, at, holder);
    if (kv_sets_over(
            &index->sets)) { /* those who are left are a set of their own: it is given up */
        forget(index, at);
        index->forgotten++;
    }
}

void kv_index_reset(kv_index *index, uint32_t holder)
{
    assert(holder < index->holders_max);
    const uint32_t alone = holder + 1; /* the set {holder} */

    while (*kv_sets_blocks(&index->sets, alone) != NONE)
        drop_holder(index, *kv_sets_blocks(&index->sets, alone), holder);
    for (uint32_t set = KV_SET_NONE; index->counts[holder] != 0;) {
        set = kv_sets_next(&index->sets, set);
        assert(set != KV_SET_NONE);
        if (!kv_sets_has(&index->sets, set, holder))
            continue;
        /* The last one takes the set along. */
        for (uint32_t at = *kv_sets_blocks(&index->sets, set), after; at != NONE; at = after) {
            after = index->links[at].after;
            drop_holder(index, at, holder);
        }
    }
}

void kv_index_clear(kv_index *index)
{
    for (uint32_t i = 0; i <= index->bucket_mask; i++)
        index->buckets[i] = NONE;
    for (uint32_t i = 0; i < index->holders_max; i++)
        index->counts[i] = 0;
    kv_sets_clear(&index->sets);
    index->free = index->oldest = index->newest = NONE;
    index->used = 1;
    index->count = 0;
}

uint32_t kv_index_blocks(const kv_index *index)
{
    return index->count;
}

uint64_t kv_index_forgotten(const kv_index *index)
{
    return index->forgotten;
}
