/* calendar.c - a ring of bins; adding goes to all that are near, so that asking looks at one. */
#include "sched/calendar.h"

#include <string.h>

enum { HALF = 5, REACH = 8 * HALF, BEFORE = REACH + 1 }; /* bins; BEFORE: kept of what has been */
static const uint64_t BIN_NS = 100000000;
static const double ONE = 65536;
/* ONE, halved in so many steps; then by shifts. */
static const uint64_t SHARES[HALF] = { 65536, 57052, 49667, 43238, 37641 };

static uint64_t share(uint64_t distance)
{
    return SHARES[distance % HALF] >> distance / HALF;
}

static void advance(struct calendar *c, uint64_t now_ns)
{
    const uint64_t now = now_ns / BIN_NS, first = now > BEFORE ? now - BEFORE : 0;

    if (first >= c->first + CALENDAR_BINS)
        memset(c->near, 0, sizeof(c->near));
    else
        for (uint64_t i = c->first; i < first; i++)
            c->near[i % CALENDAR_BINS] = 0;
    if (first > c->first)
        c->first = first;
}

/* In those that are still there, of all that are near. Unsigned: what is taken away is added, too. */
static void put(struct calendar *c, uint64_t bin, uint64_t amount)
{
    uint64_t i = bin > REACH ? bin - REACH : 0;

    for (i = i > c->first ? i : c->first; i <= bin + REACH; i++)
        c->near[i % CALENDAR_BINS] += amount * share(i > bin ? i - bin : bin - i);
}

uint64_t calendar_add(struct calendar *c, uint64_t now_ns, uint64_t at_ns, uint64_t tokens)
{
    const uint64_t bin = at_ns / BIN_NS;

    advance(c, now_ns);
    if (bin + REACH >= c->first + CALENDAR_BINS)
        return 0;
    put(c, bin, tokens);
    return bin + 1;
}

void calendar_remove(struct calendar *c, uint64_t now_ns, uint64_t mark, uint64_t tokens)
{
    advance(c, now_ns);
    if (mark != 0)
        put(c, mark - 1, 0 - tokens);
}

double calendar_near(const struct calendar *c, uint64_t at_ns)
{
    const uint64_t bin = at_ns / BIN_NS;

    return bin >= c->first && bin < c->first + CALENDAR_BINS
               ? (double)c->near[bin % CALENDAR_BINS] / ONE
               : 0;
}
