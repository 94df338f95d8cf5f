/* agenda.c - a four-way heap by (time, order of arrival). */
#include "sim/agenda.h"

#include "base/alloc.h"

enum { CAPACITY_FIRST = 256, WAYS = 4 };

mc_status agenda_init(struct agenda *agenda, const struct mc_alloc *alloc)
{
    *agenda = (struct agenda){ .alloc = alloc, .capacity = CAPACITY_FIRST };
    agenda->heap = alloc_zeroed(alloc, CAPACITY_FIRST, sizeof(*agenda->heap));
    return agenda->heap ? MC_OK : MC_E_NOMEM;
}

void agenda_fini(struct agenda *agenda)
{
    if (agenda->alloc)
        alloc_free(agenda->alloc, agenda->heap);
    *agenda = (struct agenda){ 0 };
}

static bool before(const struct agenda_event *a, const struct agenda_event *b)
{
    return a->ns != b->ns ? a->ns < b->ns : a->sequence < b->sequence;
}

mc_status agenda_add(struct agenda *agenda, uint64_t ns, uint32_t kind, uint32_t whom,
                     uint32_t turn)
{
    const struct agenda_event event = {
        .ns = ns, .sequence = agenda->sequence++, .kind = kind, .whom = whom, .turn = turn
    };

    if (agenda->count == agenda->capacity) {
        struct agenda_event *heap =
            alloc_resize(agenda->alloc, agenda->heap, (size_t)agenda->capacity * 2, sizeof(*heap));
        if (!heap)
            return MC_E_NOMEM;
        agenda->heap = heap;
        agenda->capacity *= 2;
    }
    uint32_t at = agenda->count++;
    while (at > 0 && before(&event, &agenda->heap[(at - 1) / WAYS])) {
        agenda->heap[at] = agenda->heap[(at - 1) / WAYS];
        at = (at - 1) / WAYS;
    }
    agenda->heap[at] = event;
    return MC_OK;
}

bool agenda_next(struct agenda *agenda, struct agenda_event *event_p)
{
    if (agenda->count == 0)
        return false;
    *event_p = agenda->heap[0];

    const struct agenda_event last = agenda->heap[--agenda->count];
    uint32_t at = 0;
    for (;;) {
        const uint32_t first = at * WAYS + 1;
        uint32_t least = first;

        if (first >= agenda->count)
            break;
        for (uint32_t i = first + 1; i < first + WAYS && i < agenda->count; i++)
            if (before(&agenda->heap[i], &agenda->heap[least]))
                least = i;
        if (!before(&agenda->heap[least], &last))
            break;
        agenda->heap[at] = agenda->heap[least];
        at = least;
    }
    agenda->heap[at] = last;
    return true;
}
