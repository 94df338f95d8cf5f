/* tier.c - a hash table of cells that are in queues (lru, s3-fifo) and in a heap (lfu, length-aware). */
#include "sim/tier.h"

#include <assert.h>

#include "base/alloc.h"
#include "base/prng.h"

const char *const tier_policy_names[] = { "lru", "lfu", "length-aware", "s3-fifo", NULL };

enum { QUEUE_MAIN, QUEUE_SMALL, QUEUE_GHOST };
enum { SMALL_SHARE = 10, USES_MAX = 3 }; /* s3-fifo: a tenth; a count of two bits */

static bool is_heap(const struct tier *tier)
{
    return tier->policy == TIER_LFU || tier->policy == TIER_LENGTH;
}

mc_status tier_init(struct tier *tier, const struct mc_alloc *alloc, uint32_t capacity,
                    enum tier_policy policy)
{
    const uint32_t cells = policy == TIER_S3FIFO ? capacity * 2 : capacity;
    uint32_t buckets = 16;

    assert(capacity > 0 && capacity <= UINT32_MAX / 4);
    while (buckets < cells)
        buckets *= 2;
    *tier = (struct tier){ .alloc = alloc,
                           .policy = policy,
                           .mask = buckets - 1,
                           .cells_max = cells,
                           .capacity = capacity,
                           .limit = capacity };
    for (int q = 0; q < 3; q++)
        tier->queues[q] = (struct tier_queue){ TIER_NONE, TIER_NONE, 0 };
    tier->cells = alloc_zeroed(alloc, cells, sizeof(*tier->cells));
    tier->buckets = alloc_zeroed(alloc, buckets, sizeof(*tier->buckets));
    tier->heap = is_heap(tier) ? alloc_zeroed(alloc, capacity, sizeof(*tier->heap)) : NULL;
    if (!tier->cells || !tier->buckets || (is_heap(tier) && !tier->heap)) {
        tier_fini(tier);
        return MC_E_NOMEM;
    }
    memset(tier->buckets, 0xff, buckets * sizeof(*tier->buckets)); /* TIER_NONE */
    for (uint32_t i = 0; i < cells; i++) {
        tier->cells[i].block = TIER_NONE;
        tier->cells[i].next = i + 1 < cells ? i + 1 : TIER_NONE;
    }
    return MC_OK;
}

void tier_fini(struct tier *tier)
{
    if (!tier->alloc)
        return;
    alloc_free(tier->alloc, tier->heap);
    alloc_free(tier->alloc, tier->buckets);
    alloc_free(tier->alloc, tier->cells);
    *tier = (struct tier){ 0 };
}

/* ------------------------------------------------------------------------------------------ hash */

static uint32_t *bucket_of(const struct tier *tier, uint32_t block)
{
    return &tier->buckets[prng_mix(block) & tier->mask];
}

static uint32_t find(const struct tier *tier, uint32_t block)
{
    uint32_t at = *bucket_of(tier, block);

    while (at != TIER_NONE && tier->cells[at].block != block)
        at = tier->cells[at].next;
    return at;
}

static uint32_t find_held(const struct tier *tier, uint32_t block)
{
    const uint32_t at = find(tier, block);

    return at != TIER_NONE && tier->cells[at].queue != QUEUE_GHOST ? at : TIER_NONE;
}

/* ---------------------------------------------------------------------------------------- queues */

static void queue_remove(struct tier *tier, uint32_t at)
{
    const struct tier_cell *c = &tier->cells[at];
    struct tier_queue *q = &tier->queues[c->queue];

    *(c->older != TIER_NONE ? &tier->cells[c->older].newer : &q->oldest) = c->newer;
    *(c->newer != TIER_NONE ? &tier->cells[c->newer].older : &q->newest) = c->older;
    q->count--;
}

static void queue_add(struct tier *tier, uint32_t at, uint32_t queue)
{
    struct tier_cell *c = &tier->cells[at];
    struct tier_queue *q = &tier->queues[queue];

    c->queue = queue;
    c->older = q->newest;
    c->newer = TIER_NONE;
    *(c->older != TIER_NONE ? &tier->cells[c->older].newer : &q->oldest) = at;
    q->newest = at;
    q->count++;
}

/* ------------------------------------------------------------------------------------------ heap */

static bool goes_before(const struct tier *tier, uint32_t a, uint32_t b)
{
    const struct tier_cell *x = &tier->cells[a], *y = &tier->cells[b];

    if (x->uses != y->uses)
        return x->uses < y->uses;
    if (x->last != y->last)
        return x->last < y->last;
    if (tier->policy == TIER_LENGTH && x->depth != y->depth)
        return x->depth > y->depth;
    return x->block < y->block;
}

static void heap_put(struct tier *tier, uint32_t place, uint32_t at)
{
    tier->heap[place] = at;
    tier->cells[at].heap = place;
}

static void heap_up(struct tier *tier, uint32_t place)
{
    const uint32_t at = tier->heap[place];

    while (place > 0 && goes_before(tier, at, tier->heap[(place - 1) / 2])) {
        heap_put(tier, place, tier->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    heap_put(tier, place, at);
}

static void heap_down(struct tier *tier, uint32_t place, uint32_t count)
{
    const uint32_t at = tier->heap[place];

    for (;;) {
        uint32_t child = place * 2 + 1;

        if (child + 1 < count && goes_before(tier, tier->heap[child + 1], tier->heap[child]))
            child++;
        if (child >= count || !goes_before(tier, tier->heap[child], at))
            break;
        heap_put(tier, place, tier->heap[child]);
        place = child;
    }
    heap_put(tier, place, at);
}

static void heap_remove(struct tier *tier, uint32_t at, uint32_t count)
{
    const uint32_t place = tier->cells[at].heap, last = tier->heap[count - 1];

    if (last == at)
        return;
    heap_put(tier, place, last);
    heap_up(tier, place);
    heap_down(tier, tier->cells[last].heap, count - 1);
}

/* ----------------------------------------------------------------------------------------- cells */

static uint32_t cell_take(struct tier *tier, uint32_t block)
{
    const uint32_t at = tier->free;
    uint32_t *bucket = bucket_of(tier, block);

    assert(at != TIER_NONE);
    tier->free = tier->cells[at].next;
    tier->cells[at] = (struct tier_cell){ .block = block, .next = *bucket };
    *bucket = at;
    return at;
}

static void cell_free(struct tier *tier, uint32_t at)
{
    uint32_t *link = bucket_of(tier, tier->cells[at].block);

    while (*link != at)
        link = &tier->cells[*link].next;
    *link = tier->cells[at].next;
    tier->cells[at].block = TIER_NONE;
    tier->cells[at].next = tier->free;
    tier->free = at;
}

/* Out of queue, heap and count; the cell stays. */
static void drop(struct tier *tier, uint32_t at)
{
    queue_remove(tier, at);
    if (is_heap(tier))
        heap_remove(tier, at, tier->count);
    tier->count--;
    tier->pinned -= tier->cells[at].pins != 0;
}

bool tier_has(const struct tier *tier, uint32_t block)
{
    return find_held(tier, block) != TIER_NONE;
}

static void use(struct tier *tier, uint32_t at, uint32_t depth, uint64_t number)
{
    struct tier_cell *c = &tier->cells[at];

    c->last = number;
    c->depth = depth;
    if (tier->policy != TIER_S3FIFO || c->uses < USES_MAX)
        c->uses++;
    if (is_heap(tier)) {
        heap_down(tier, c->heap, tier->count);
    } else if (tier->policy == TIER_LRU) {
        queue_remove(tier, at);
        queue_add(tier, at, QUEUE_MAIN);
    }
}

bool tier_touch(struct tier *tier, uint32_t block, uint32_t depth, uint64_t number)
{
    const uint32_t at = find_held(tier, block);

    if (at == TIER_NONE)
        return false;
    use(tier, at, depth, number);
    return true;
}

/* -------------------------------------------------------------------------------------- eviction */

static uint32_t first_unpinned(const struct tier *tier, uint32_t queue)
{
    uint32_t at = tier->queues[queue].oldest;

    while (at != TIER_NONE && tier->cells[at].pins != 0)
        at = tier->cells[at].newer;
    return at;
}

/* The heap's first is mostly free; where it is pinned, look at all. */
static uint32_t heap_victim(const struct tier *tier)
{
    uint32_t best = TIER_NONE;

    if (tier->count != 0 && tier->cells[tier->heap[0]].pins == 0)
        return tier->heap[0];
    for (uint32_t i = 0; i < tier->count; i++) {
        const uint32_t at = tier->heap[i];
        if (tier->cells[at].pins == 0 && (best == TIER_NONE || goes_before(tier, at, best)))
            best = at;
    }
    return best;
}

/* Remember the name of what the small queue dropped. */
static void remember(struct tier *tier, uint32_t at)
{
    if (tier->queues[QUEUE_GHOST].count == tier->capacity) {
        const uint32_t oldest = tier->queues[QUEUE_GHOST].oldest;
        queue_remove(tier, oldest);
        cell_free(tier, oldest);
    }
    queue_add(tier, at, QUEUE_GHOST);
}

/* s3-fifo: used again in the small queue goes to main; used again in main goes round once more. */
static uint32_t s3_evict(struct tier *tier)
{
    for (;;) {
        const bool small = tier->queues[QUEUE_SMALL].count * SMALL_SHARE >= tier->limit;
        uint32_t at = first_unpinned(tier, small ? QUEUE_SMALL : QUEUE_MAIN);

        if (at == TIER_NONE)
            at = first_unpinned(tier, small ? QUEUE_MAIN : QUEUE_SMALL);
        if (at == TIER_NONE)
            return TIER_NONE;
        struct tier_cell *c = &tier->cells[at];
        const bool was_small = c->queue == QUEUE_SMALL;
        if (was_small ? c->uses > 1 : c->uses > 0) {
            queue_remove(tier, at);
            c->uses = was_small ? 0 : c->uses - 1;
            queue_add(tier, at, QUEUE_MAIN);
            continue;
        }
        const uint32_t block = c->block;
        drop(tier, at);
        if (was_small)
            remember(tier, at);
        else
            cell_free(tier, at);
        return block;
    }
}

static uint32_t evict(struct tier *tier)
{
    if (tier->policy == TIER_S3FIFO)
        return s3_evict(tier);
    const uint32_t at = is_heap(tier) ? heap_victim(tier) : first_unpinned(tier, QUEUE_MAIN);
    if (at == TIER_NONE)
        return TIER_NONE;
    const uint32_t block = tier->cells[at].block;
    drop(tier, at);
    cell_free(tier, at);
    return block;
}

/* at: a cell that remembers it, or TIER_NONE. */
static bool add(struct tier *tier, uint32_t at, uint32_t block, uint32_t depth, uint64_t number,
                uint32_t *evicted_p)
{
    *evicted_p = TIER_NONE;
    if (tier->count >= tier->limit) {
        if (tier->pinned == tier->count)
            return false;
        *evicted_p = evict(tier);
        if (at != TIER_NONE)
            at = find(tier, block); /* the eviction may have ended that it is remembered */
    }
    const bool known = at != TIER_NONE;
    if (known)
        queue_remove(tier, at);
    else
        at = cell_take(tier, block);
    tier->cells[at].uses = tier->policy == TIER_S3FIFO && known ? 0 : 1;
    tier->cells[at].last = number;
    tier->cells[at].depth = depth;
    queue_add(tier, at, tier->policy == TIER_S3FIFO && !known ? QUEUE_SMALL : QUEUE_MAIN);
    tier->count++;
    if (is_heap(tier)) {
        heap_put(tier, tier->count - 1, at);
        heap_up(tier, tier->count - 1);
    }
    return true;
}

bool tier_add(struct tier *tier, uint32_t block, uint32_t depth, uint64_t number,
              uint32_t *evicted_p)
{
    const uint32_t at = find(tier, block);

    if (at != TIER_NONE && tier->cells[at].queue != QUEUE_GHOST) {
        *evicted_p = TIER_NONE;
        use(tier, at, depth, number);
        return false;
    }
    return add(tier, at, block, depth, number, evicted_p);
}

bool tier_add_absent(struct tier *tier, uint32_t block, uint32_t depth, uint64_t number,
                     uint32_t *evicted_p)
{
    const uint32_t at = tier->policy == TIER_S3FIFO ? find(tier, block) : TIER_NONE;

    return add(tier, at, block, depth, number, evicted_p);
}

bool tier_remove(struct tier *tier, uint32_t block)
{
    const uint32_t at = find_held(tier, block);

    if (at == TIER_NONE)
        return false;
    drop(tier, at);
    cell_free(tier, at);
    return true;
}

void tier_pin(struct tier *tier, uint32_t block)
{
    const uint32_t at = find_held(tier, block);

    assert(at != TIER_NONE);
    tier->pinned += tier->cells[at].pins++ == 0;
}

void tier_unpin(struct tier *tier, uint32_t block)
{
    const uint32_t at = find_held(tier, block);

    assert(at != TIER_NONE && tier->cells[at].pins > 0);
    tier->pinned -= --tier->cells[at].pins == 0;
}

void tier_limit(struct tier *tier, uint32_t limit)
{
    tier->limit = limit < tier->capacity ? limit : tier->capacity;
}

uint32_t tier_shrink(struct tier *tier)
{
    return tier->count > tier->limit && tier->pinned < tier->count ? evict(tier) : TIER_NONE;
}

uint32_t tier_any(const struct tier *tier)
{
    const uint32_t main = tier->queues[QUEUE_MAIN].oldest, small = tier->queues[QUEUE_SMALL].oldest;
    const uint32_t at = main != TIER_NONE ? main : small;

    return at == TIER_NONE ? TIER_NONE : tier->cells[at].block;
}
