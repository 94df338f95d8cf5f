/* due.c - a binary heap that knows where each id stands in it. */
#include "store/core/due.h"

#include <assert.h>

#include "base/alloc.h"

mc_status due_open(struct due *due, const struct mc_alloc *alloc, uint32_t ids)
{
    *due = (struct due){ .ids = ids };
    due->at = alloc_zeroed(alloc, ids, sizeof(*due->at));
    due->heap = alloc_zeroed(alloc, ids, sizeof(*due->heap));
    due->place = alloc_zeroed(alloc, ids, sizeof(*due->place));
    if (due->at && due->heap && due->place)
        return MC_OK;
    due_close(due, alloc);
    return MC_E_NOMEM;
}

void due_close(struct due *due, const struct mc_alloc *alloc)
{
    alloc_free(alloc, due->place);
    alloc_free(alloc, due->heap);
    alloc_free(alloc, due->at);
    *due = (struct due){ 0 };
}

static void put(struct due *due, uint32_t index, uint32_t id)
{
    due->heap[index] = id;
    due->place[id] = index + 1;
}

/** Move `id` from `index` to where its time belongs. */
static void settle(struct due *due, uint32_t index, uint32_t id)
{
    const uint64_t at = due->at[id];

    while (index > 0 && due->at[due->heap[(index - 1) / 2]] > at) {
        put(due, index, due->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= due->count)
            break;
        if (child + 1 < due->count && due->at[due->heap[child + 1]] < due->at[due->heap[child]])
            child++;
        if (due->at[due->heap[child]] >= at)
            break;
        put(due, index, due->heap[child]);
        index = child;
    }
    put(due, index, id);
}

void due_set(struct due *due, uint32_t id, uint64_t at_ns)
{
    assert(id < due->ids);
    due->at[id] = at_ns;
    if (due->place[id] == 0)
        due->place[id] = ++due->count;
    settle(due, due->place[id] - 1, id);
}

void due_stop(struct due *due, uint32_t id)
{
    assert(id < due->ids);
    if (due->place[id] == 0)
        return;
    const uint32_t index = due->place[id] - 1;
    const uint32_t last = due->heap[--due->count];
    due->place[id] = 0;
    if (last != id)
        settle(due, index, last);
}

uint64_t due_first(const struct due *due, uint32_t *id_p)
{
    if (due->count == 0)
        return UINT64_MAX;
    *id_p = due->heap[0];
    return due->at[due->heap[0]];
}
