/* net_asks.c - a table indexed by an id's low bits: ids are given out so that they never collide. */
#include "net/net_asks.h"

#include <assert.h>

#include "base/alloc.h"

enum { CAPACITY_FIRST = 16 };

static struct ask **slot_of(const struct asks *asks, uint64_t id)
{
    return &asks->slots[id & (asks->capacity - 1)];
}

void asks_begin(struct asks *asks, uint64_t first_id)
{
    assert(asks->count == 0);
    asks->next_id = first_id;
}

uint64_t asks_draw_id(struct asks *asks)
{
    while (asks->next_id == 0 || (asks->capacity && *slot_of(asks, asks->next_id)))
        asks->next_id++;
    return asks->next_id++;
}

/** At least one slot stays free, so that drawing an id ends. */
static bool make_room(struct asks *asks, const struct mc_alloc *alloc)
{
    if (asks->capacity && asks->count < asks->capacity - 1)
        return true;
    const uint32_t capacity = asks->capacity ? asks->capacity * 2 : CAPACITY_FIRST;
    struct ask **slots = alloc_zeroed(alloc, capacity, sizeof(*slots));
    if (!slots)
        return false;
    for (struct ask *ask = asks->first; ask; ask = ask->after)
        slots[ask->id & (capacity - 1)] = ask; /* ids apart in fewer bits are apart in more */
    alloc_free(alloc, asks->slots);
    asks->slots = slots;
    asks->capacity = capacity;
    return true;
}

mc_status asks_add(struct asks *asks, struct ask *ask, uint32_t max, const struct mc_alloc *alloc)
{
    if (asks->count >= max)
        return MC_E_FULL;
    if (!make_room(asks, alloc))
        return MC_E_NOMEM;
    ask->id = asks_draw_id(asks);
    ask->before = asks->last;
    ask->after = NULL;
    *(asks->last ? &asks->last->after : &asks->first) = ask;
    asks->last = ask;
    *slot_of(asks, ask->id) = ask;
    asks->count++;
    return MC_OK;
}

struct ask *asks_take(struct asks *asks, uint64_t id)
{
    struct ask *ask = asks->capacity ? *slot_of(asks, id) : NULL;

    if (!ask || ask->id != id)
        return NULL;
    *slot_of(asks, id) = NULL;
    *(ask->before ? &ask->before->after : &asks->first) = ask->after;
    *(ask->after ? &ask->after->before : &asks->last) = ask->before;
    asks->count--;
    return ask;
}

void asks_fini(struct asks *asks, const struct mc_alloc *alloc)
{
    assert(asks->count == 0);
    alloc_free(alloc, asks->slots);
    *asks = (struct asks){ 0 };
}
