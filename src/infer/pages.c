/* pages.c - a stack of free pages and a count of holders for each, under one lock. */
#include "infer/pages.h"

#include <assert.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/lock.h"

struct pages {
    const struct mc_alloc *alloc;
    char *base; /* borrowed */
    size_t stride;
    uint32_t count;
    struct os_lock lock; /* a leaf; guards all below */
    uint32_t free_count, wanted;
    uint32_t *free;    /* [count], indices; the first free_count are free */
    uint32_t *holders; /* [count]; 0: free */
};

mc_status pages_open(const struct mc_alloc *alloc, void *base, size_t stride, uint32_t count,
                     struct pages **pages_p, struct mc_error *error)
{
    size_t tables = 0, bytes = 0;

    assert((uintptr_t)base % PAGES_ALIGN == 0 && stride % PAGES_ALIGN == 0 && count > 0);
    struct pages *p = NULL;
    if (size_mul(count, 2 * sizeof(uint32_t), &tables) && size_add(tables, sizeof(*p), &bytes))
        p = alloc_zeroed(alloc, 1, bytes);
    if (!p)
        return error_set(error, MC_E_NOMEM, "out of memory for a list of %u pages", count);
    *p = (struct pages){ .alloc = alloc,
                         .base = base,
                         .stride = stride,
                         .count = count,
                         .free_count = count,
                         .free = (uint32_t *)(void *)(p + 1) };
    p->holders = p->free + count;
    for (uint32_t i = 0; i < count; i++) /* the last is taken first: keep low pages on top */
        p->free[count - 1 - i] = i;
    os_lock_init(&p->lock);
    *pages_p = p;
    return MC_OK;
}

void pages_close(struct pages *p)
{
    if (!p)
        return;
    assert(p->free_count == p->count);
    os_lock_fini(&p->lock);
    alloc_free(p->alloc, p);
}

uint32_t pages_count(const struct pages *p)
{
    return p->count;
}

uint32_t pages_free(struct pages *p)
{
    os_lock(&p->lock);
    const uint32_t count = p->free_count;
    os_unlock(&p->lock);
    return count;
}

static bool take(struct pages *p, uint32_t count, uint64_t spare, void **taken_p)
{
    if (count + spare > p->free_count)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t page = p->free[--p->free_count];
        assert(p->holders[page] == 0);
        p->holders[page] = 1;
        taken_p[i] = p->base + page * p->stride;
    }
    return true;
}

bool pages_take(struct pages *p, uint32_t count, uint32_t spare, void **taken_p)
{
    os_lock(&p->lock);
    const bool taken = take(p, count, spare, taken_p);
    os_unlock(&p->lock);
    return taken;
}

bool pages_reserve(struct pages *p, uint32_t count, uint32_t spare, void **taken_p)
{
    os_lock(&p->lock);
    const bool taken = take(p, count, (uint64_t)spare + p->wanted, taken_p);
    os_unlock(&p->lock);
    return taken;
}

void pages_want(struct pages *p, uint32_t count)
{
    os_lock(&p->lock);
    p->wanted = count;
    os_unlock(&p->lock);
}

uint64_t pages_offset(const struct pages *p, const void *page)
{
    const size_t offset = (size_t)((const char *)page - p->base);

    assert((const char *)page >= p->base && offset < p->count * p->stride &&
           offset % p->stride == 0);
    return offset;
}

static uint32_t *holders_of(struct pages *p, const void *page)
{
    return &p->holders[pages_offset(p, page) / p->stride];
}

void pages_hold(struct pages *p, void *const *held, uint32_t count)
{
    os_lock(&p->lock);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t *holders = holders_of(p, held[i]);
        assert(*holders > 0);
        (*holders)++;
    }
    os_unlock(&p->lock);
}

void pages_drop(struct pages *p, void *const *held, uint32_t count)
{
    os_lock(&p->lock);
    for (uint32_t i = count; i > 0; i--) { /* backwards: taken again in the order they were */
        uint32_t *holders = holders_of(p, held[i - 1]);
        assert(*holders > 0);
        if (--*holders == 0)
            p->free[p->free_count++] = (uint32_t)(holders - p->holders);
    }
    os_unlock(&p->lock);
}
