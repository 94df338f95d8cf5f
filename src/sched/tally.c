/* tally.c - a sorted list of ids; a permutation of slots beside it. */
#include "sched/tally.h"

#include <string.h>

void tally_init(struct tally *t)
{
    t->count = 0;
    for (uint32_t i = 0; i < TALLY_MAX; i++)
        t->slots[i] = (uint16_t)i;
}

/* Where it is, or would be. */
static uint32_t place_of(const struct tally *t, uint64_t id)
{
    uint32_t low = 0, high = t->count;

    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;

        if (t->ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t tally_find(const struct tally *t, uint64_t id)
{
    const uint32_t at = place_of(t, id);

    return at < t->count && t->ids[at] == id ? t->slots[at] : TALLY_NONE;
}

uint32_t tally_take(struct tally *t, uint64_t id)
{
    const uint32_t at = place_of(t, id);

    if (at < t->count && t->ids[at] == id)
        return t->slots[at];
    if (t->count == TALLY_MAX)
        return TALLY_NONE;
    const uint16_t slot = t->slots[t->count];
    memmove(&t->ids[at + 1], &t->ids[at], (t->count - at) * sizeof(t->ids[0]));
    memmove(&t->slots[at + 1], &t->slots[at], (t->count - at) * sizeof(t->slots[0]));
    t->ids[at] = id;
    t->slots[at] = slot;
    t->count++;
    return slot;
}

void tally_drop(struct tally *t, uint64_t id)
{
    const uint32_t at = place_of(t, id);

    if (at == t->count || t->ids[at] != id)
        return;
    const uint16_t slot = t->slots[at];
    t->count--;
    memmove(&t->ids[at], &t->ids[at + 1], (t->count - at) * sizeof(t->ids[0]));
    memmove(&t->slots[at], &t->slots[at + 1], (t->count - at) * sizeof(t->slots[0]));
    t->slots[t->count] = slot;
}
