/* space.c - extents of lent ranges: good fit by size class, neighbours joined. */
#include "store/core/space.h"

#include <assert.h>

#include "base/alloc.h"

enum { SEARCH_MAX = 16 }; /* extents of its own class that a request looks at */

static_assert(sizeof(struct extent) == 56, "what a replica costs the master");

mc_status space_open(struct space *space, const struct mc_alloc *alloc, uint32_t extents_max,
                     uint32_t lents_max)
{
    *space = (struct space){ .extents_max = extents_max, .lents_max = lents_max };
    space->extents = alloc_zeroed(alloc, (size_t)extents_max + 1, sizeof(*space->extents));
    space->lents = alloc_zeroed(alloc, lents_max, sizeof(*space->lents));
    if (!space->extents || !space->lents) {
        space_close(space, alloc);
        return MC_E_NOMEM;
    }
    for (uint32_t i = extents_max; i > 0; i--) {
        space->extents[i].link = space->spare;
        space->spare = i;
    }
    space->spares = extents_max;
    return MC_OK;
}

void space_close(struct space *space, const struct mc_alloc *alloc)
{
    alloc_free(alloc, space->lents);
    alloc_free(alloc, space->extents);
    *space = (struct space){ 0 };
}

static uint32_t record_take(struct space *space)
{
    const uint32_t id = space->spare;

    if (id != 0) {
        space->spare = space->extents[id].link;
        space->spares--;
        space->extents[id] = (struct extent){ .state = EXTENT_FREE };
    }
    return id;
}

static void record_give(struct space *space, uint32_t id)
{
    space->extents[id] = (struct extent){ .link = space->spare };
    space->spare = id;
    space->spares++;
}

/** Four classes to each power of two. */
static uint32_t class_of(uint64_t size)
{
    if (size < 4)
        return (uint32_t)size;
    uint32_t log = 0;
    for (uint64_t rest = size; rest > 7; rest >>= 1)
        log++;
    return 4 * log + (uint32_t)(size >> log); /* size >> log is 4 .. 7 */
}

static void list_add(struct space *space, uint32_t id)
{
    struct extent *e = &space->extents[id];
    struct lent *lent = &space->lents[e->lent];
    const uint32_t class = class_of(e->size);

    e->state = EXTENT_FREE;
    e->smaller = 0;
    e->larger = lent->lists[class];
    if (e->larger != 0)
        space->extents[e->larger].smaller = id;
    lent->lists[class] = id;
    lent->classes[class / 64] |= UINT64_C(1) << class % 64;
}

static void list_remove(struct space *space, uint32_t id)
{
    struct extent *e = &space->extents[id];
    struct lent *lent = &space->lents[e->lent];
    const uint32_t class = class_of(e->size);

    if (e->larger != 0)
        space->extents[e->larger].smaller = e->smaller;
    if (e->smaller != 0)
        space->extents[e->smaller].larger = e->larger;
    else
        lent->lists[class] = e->larger;
    if (lent->lists[class] == 0)
        lent->classes[class / 64] &= ~(UINT64_C(1) << class % 64);
}

bool space_lend(struct space *space, uint16_t node, uint32_t region, uint64_t region_generation,
                uint64_t size, uint32_t medium, uint64_t align, uint16_t *lent_p)
{
    uint32_t lent = 0;

    while (lent < space->lents_max && space->lents[lent].used)
        lent++;
    if (lent == space->lents_max)
        return false;
    const uint32_t id = record_take(space);
    if (id == 0)
        return false;

    size -= size % align;
    space->lents[lent] = (struct lent){
        .size = size,
        .align = align,
        .free_bytes = size,
        .region = region,
        .region_generation = region_generation,
        .medium = medium,
        .node = node,
        .first = id,
        .last = id,
        .used = true,
    };
    space->extents[id].size = size;
    space->extents[id].lent = (uint16_t)lent;
    space->extents[id].node = node;
    list_add(space, id);
    *lent_p = (uint16_t)lent;
    return true;
}

void space_withdraw(struct space *space, uint16_t lent)
{
    uint32_t id = space->lents[lent].first;

    while (id != 0) {
        const uint32_t after = space->extents[id].after;
        record_give(space, id);
        id = after;
    }
    space->taken -= space->lents[lent].taken;
    space->lents[lent] = (struct lent){ 0 };
}

static uint32_t first_class(const struct lent *lent, uint32_t class)
{
    for (uint32_t word = class / 64; word < SPACE_CLASSES / 64; word++) {
        uint64_t bits = lent->classes[word];
        if (word == class / 64)
            bits &= ~UINT64_C(0) << class % 64;
        for (uint32_t i = 0; bits != 0; i++, bits >>= 1)
            if (bits & 1)
                return 64 * word + i;
    }
    return SPACE_CLASSES;
}

static uint32_t find(const struct space *space, const struct lent *lent, uint64_t size)
{
    const uint32_t class = class_of(size);
    uint32_t id = lent->lists[class];

    for (int i = 0; id != 0 && i < SEARCH_MAX; i++, id = space->extents[id].larger)
        if (space->extents[id].size >= size)
            return id;
    if (class + 1 >= SPACE_CLASSES)
        return 0;
    const uint32_t above = first_class(lent, class + 1);
    return above < SPACE_CLASSES ? lent->lists[above] : 0;
}

/** Cut `id`, in no list, at `size`: what is behind becomes a free extent. False: no record left. */
static bool cut(struct space *space, uint32_t id, uint64_t size)
{
    struct extent *e = &space->extents[id];

    if (e->size == size)
        return true;
    const uint32_t rest = record_take(space);
    if (rest == 0)
        return false;
    struct extent *r = &space->extents[rest];
    struct lent *lent = &space->lents[e->lent];
    r->offset = e->offset + size;
    r->size = e->size - size;
    r->lent = e->lent;
    r->node = e->node;
    r->before = id;
    r->after = e->after;
    if (r->after != 0)
        space->extents[r->after].before = rest;
    else
        lent->last = rest;
    e->after = rest;
    e->size = size;
    list_add(space, rest);
    return true;
}

uint32_t space_take(struct space *space, uint16_t lent_id, uint64_t size)
{
    struct lent *lent = &space->lents[lent_id];

    if (size == 0 || size > lent->size)
        return 0;
    size += (lent->align - size % lent->align) % lent->align;
    const uint32_t id = find(space, lent, size);
    if (id == 0)
        return 0;
    list_remove(space, id);
    if (!cut(space, id, size)) {
        list_add(space, id);
        return 0;
    }
    lent->free_bytes -= size;
    lent->taken++;
    space->taken++;
    space->extents[id].smaller = space->extents[id].larger = 0;
    return id;
}

uint32_t space_take_at(struct space *space, uint16_t lent_id, uint64_t offset, uint64_t size)
{
    struct lent *lent = &space->lents[lent_id];
    uint32_t id = lent->last;

    if (size == 0 || size > lent->size || offset % lent->align != 0)
        return 0;
    size += (lent->align - size % lent->align) % lent->align;
    if (space->extents[id].state != EXTENT_FREE || offset < space->extents[id].offset ||
        offset > lent->size || size > lent->size - offset || space->spares < 2)
        return 0;
    list_remove(space, id);
    if (offset != space->extents[id].offset) {
        const bool front = cut(space, id, offset - space->extents[id].offset);
        assert(front); /* two spare records were there */
        (void)front;
        const uint32_t behind = space->extents[id].after;
        list_add(space, id);
        id = behind;
        list_remove(space, id);
    }
    const bool back = cut(space, id, size);
    assert(back);
    (void)back;
    lent->free_bytes -= size;
    lent->taken++;
    space->taken++;
    space->extents[id].smaller = space->extents[id].larger = 0;
    return id;
}

/** `id` swallows the free extent behind it. */
static void join(struct space *space, uint32_t id)
{
    struct extent *e = &space->extents[id];
    const uint32_t behind = e->after;

    list_remove(space, behind);
    e->size += space->extents[behind].size;
    e->after = space->extents[behind].after;
    if (e->after != 0)
        space->extents[e->after].before = id;
    else
        space->lents[e->lent].last = id;
    record_give(space, behind);
}

void space_give(struct space *space, uint32_t id)
{
    struct extent *e = &space->extents[id];

    assert(e->state != EXTENT_FREE && e->state != EXTENT_UNUSED);
    space->lents[e->lent].free_bytes += e->size;
    space->lents[e->lent].taken--;
    space->taken--;
    e->generation = 0;
    e->link = e->window = 0;
    e->flags = 0;
    e->state = EXTENT_FREE;
    if (e->after != 0 && space->extents[e->after].state == EXTENT_FREE)
        join(space, id);
    if (e->before != 0 && space->extents[e->before].state == EXTENT_FREE) {
        const uint32_t before = e->before;
        list_remove(space, before);
        list_add(space, id); /* so that join() finds it in a list */
        join(space, before);
        id = before;
    }
    list_add(space, id);
}
