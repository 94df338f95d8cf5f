/* sets.c - a hash table of sorted lists in cells of one size. */
#include "kv/sets.h"

#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"

enum { NONE = 0, IN_FIRST = 3, IN_MORE = 6 };

/* ------------------------------------------------------------------------------------------- life */

mc_status kv_sets_init(struct kv_sets *sets, const struct mc_alloc *alloc, uint32_t holders,
                       uint32_t cells_max)
{
    uint32_t buckets = 64;

    while (buckets < cells_max / 8) /* most sets are shared by many blocks */
        buckets *= 2;
    *sets = (struct kv_sets){ .alloc = alloc,
                              .holders = holders,
                              .bucket_mask = buckets - 1,
                              .used = 1,
                              .limit = cells_max + kv_sets_cells(holders) + 1,
                              .cells_max = cells_max };
    sets->cells = alloc_resize(alloc, NULL, sets->limit, sizeof(*sets->cells));
    sets->buckets = alloc_zeroed(alloc, buckets, sizeof(*sets->buckets));
    sets->blocks = alloc_zeroed(alloc, holders, sizeof(*sets->blocks));
    sets->scratch = alloc_zeroed(alloc, (size_t)holders + 1, sizeof(*sets->scratch));
    return sets->cells && sets->buckets && sets->blocks && sets->scratch ? MC_OK : MC_E_NOMEM;
}

void kv_sets_fini(struct kv_sets *sets)
{
    if (sets->alloc) {
        alloc_free(sets->alloc, sets->scratch);
        alloc_free(sets->alloc, sets->blocks);
        alloc_free(sets->alloc, sets->buckets);
        alloc_free(sets->alloc, sets->cells);
    }
    *sets = (struct kv_sets){ 0 };
}

void kv_sets_clear(struct kv_sets *sets)
{
    memset(sets->buckets, 0, ((size_t)sets->bucket_mask + 1) * sizeof(*sets->buckets));
    memset(sets->blocks, 0, sets->holders * sizeof(*sets->blocks));
    sets->free = NONE;
    sets->in_use = 0;
    sets->used = 1;
    sets->added.from = sets->removed.from = KV_SET_NONE;
}

/* ------------------------------------------------------------------------------------------ cells */

static struct kv_set_cell *cell_of(const struct kv_sets *sets, uint32_t set)
{
    return &sets->cells[set - sets->holders];
}

static uint32_t cell_take(struct kv_sets *sets)
{
    sets->in_use++;
    if (sets->free == NONE) {
        assert(sets->used < sets->limit);
        return sets->used++;
    }
    const uint32_t at = sets->free;
    sets->free = sets->cells[at].next;
    return at;
}

static void cell_free(struct kv_sets *sets, uint32_t at)
{
    sets->in_use--;
    sets->cells[at].size = 0;
    sets->cells[at].next = sets->free;
    sets->free = at;
}

/* The same for members in any order. */
static uint32_t hash_members(const uint32_t *members, uint32_t count)
{
    uint32_t hash = 0;

    for (uint32_t i = 0; i < count; i++)
        hash += (uint32_t)prng_mix(members[i]);
    return hash;
}

/* ----------------------------------------------------------------------------------------- one of many */

static bool is_of(const struct kv_sets *sets, uint32_t set, const uint32_t *members, uint32_t count)
{
    struct kv_members m = kv_members(sets, set);
    uint32_t holder, i = 0;

    if (m.left != count)
        return false;
    while (kv_members_next(&m, &holder))
        if (holder != members[i++])
            return false;
    return true;
}

static uint32_t make(struct kv_sets *sets, const uint32_t *members, uint32_t count, uint32_t hash)
{
    const uint32_t first = cell_take(sets);
    const uint32_t some = count < IN_FIRST ? count : IN_FIRST;
    uint32_t *bucket = &sets->buckets[hash & sets->bucket_mask];
    uint32_t last = first;

    sets->cells[first] =
        (struct kv_set_cell){ .size = count, .first = { .bucket_next = *bucket, .hash = hash } };
    memcpy(sets->cells[first].first.members, members, some * sizeof(*members));
    for (uint32_t done = some; done < count;) {
        const uint32_t part = count - done < IN_MORE ? count - done : IN_MORE;
        const uint32_t at = cell_take(sets);

        sets->cells[at] = (struct kv_set_cell){ .size = 0 };
        memcpy(sets->cells[at].more, members + done, part * sizeof(*members));
        sets->cells[last].next = at;
        last = at;
        done += part;
    }
    *bucket = first + sets->holders;
    return first + sets->holders;
}

/* The set of what is in `scratch`. */
static uint32_t intern(struct kv_sets *sets, uint32_t count)
{
    const uint32_t *members = sets->scratch;

    if (count == 0)
        return KV_SET_NONE;
    if (count == 1)
        return members[0] + 1;
    const uint32_t hash = hash_members(members, count);
    for (uint32_t set = sets->buckets[hash & sets->bucket_mask]; set != KV_SET_NONE;
         set = cell_of(sets, set)->first.bucket_next)
        if (cell_of(sets, set)->first.hash == hash && is_of(sets, set, members, count))
            return set;
    return make(sets, members, count, hash);
}

/* A set is no more: its id may become another's. */
static void forget(struct kv_set_change *change, uint32_t set)
{
    if (change->from == set || change->to == set)
        change->from = KV_SET_NONE;
}

void kv_sets_drop(struct kv_sets *sets, uint32_t set)
{
    if (set <= sets->holders)
        return;
    uint32_t *link = &sets->buckets[cell_of(sets, set)->first.hash & sets->bucket_mask];
    while (*link != set)
        link = &cell_of(sets, *link)->first.bucket_next;
    *link = cell_of(sets, set)->first.bucket_next;
    for (uint32_t at = set - sets->holders; at != NONE;) {
        const uint32_t next = sets->cells[at].next;

        cell_free(sets, at);
        at = next;
    }
    forget(&sets->added, set);
    forget(&sets->removed, set);
}

/* ---------------------------------------------------------------------------------------- changes */

static uint32_t with(struct kv_sets *sets, uint32_t set, uint32_t added)
{
    struct kv_members m = kv_members(sets, set);
    uint32_t holder, count = 0;
    bool in = false;

    while (kv_members_next(&m, &holder)) {
        if (holder == added)
            return set;
        if (holder > added && !in) {
            sets->scratch[count++] = added;
            in = true;
        }
        sets->scratch[count++] = holder;
    }
    if (!in)
        sets->scratch[count++] = added;
    return intern(sets, count);
}

static uint32_t without(struct kv_sets *sets, uint32_t set, uint32_t removed)
{
    struct kv_members m = kv_members(sets, set);
    uint32_t holder, count = 0;

    while (kv_members_next(&m, &holder))
        if (holder != removed)
            sets->scratch[count++] = holder;
    return count == kv_sets_size(sets, set) ? set : intern(sets, count);
}

uint32_t kv_sets_with(struct kv_sets *sets, uint32_t set, uint32_t holder)
{
    assert(holder < sets->holders);
    if (set == KV_SET_NONE)
        return holder + 1;
    if (sets->added.from != set || sets->added.holder != holder)
        sets->added = (struct kv_set_change){ set, holder, with(sets, set, holder) };
    return sets->added.to;
}

uint32_t kv_sets_without(struct kv_sets *sets, uint32_t set, uint32_t holder)
{
    if (set == KV_SET_NONE)
        return set;
    if (sets->removed.from != set || sets->removed.holder != holder)
        sets->removed = (struct kv_set_change){ set, holder, without(sets, set, holder) };
    return sets->removed.to;
}

/* -------------------------------------------------------------------------------------- questions */

uint32_t kv_sets_size(const struct kv_sets *sets, uint32_t set)
{
    return set <= sets->holders ? set != KV_SET_NONE : cell_of(sets, set)->size;
}

bool kv_sets_has(const struct kv_sets *sets, uint32_t set, uint32_t holder)
{
    struct kv_members m = kv_members(sets, set);
    uint32_t other;

    while (kv_members_next(&m, &other))
        if (other >= holder)
            return other == holder;
    return false;
}

uint32_t kv_sets_next(const struct kv_sets *sets, uint32_t set)
{
    for (uint32_t at = set == KV_SET_NONE ? 1 : set - sets->holders + 1; at < sets->used; at++)
        if (sets->cells[at].size != 0)
            return at + sets->holders;
    return KV_SET_NONE;
}
