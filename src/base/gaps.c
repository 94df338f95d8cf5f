/* gaps.c - gaps by class, and the longest of them. */
#include "base/gaps.h"

static const uint64_t FIRST_US = 256;

/* Class of a length: the octave, then the next two bits. */
static uint32_t class_of(uint64_t us)
{
    uint64_t units = us / (FIRST_US / GAPS_STEPS);
    uint32_t octave = 0;

    while (units >= 2 * GAPS_STEPS && octave < GAPS_OCTAVES) {
        units /= 2;
        octave++;
    }
    if (units < GAPS_STEPS)
        return 0;
    const uint32_t at = octave * GAPS_STEPS + (uint32_t)(units - GAPS_STEPS);
    return at < GAPS_CLASSES ? at : GAPS_CLASSES - 1;
}

static void add(struct gaps *g, uint64_t us, uint32_t count)
{
    const uint32_t at = class_of(us);

    g->count += count;
    g->classes[at].count += count;
    g->classes[at].sum_us += (float)us * (float)count;
    if ((float)us > g->classes[at].most_us)
        g->classes[at].most_us = (float)us;
}

void gaps_add(struct gaps *g, uint64_t gap_ns, uint32_t together)
{
    if (together == 0)
        return;
    const uint64_t us = gap_ns / 1000;
    add(g, us < UINT32_MAX ? us : UINT32_MAX, 1);
    if (together > 1)
        add(g, 0, together - 1);
}

/* Mean of the `wanted` longest of a class, spread evenly about its mean. */
static double longest_of(const struct gaps *g, uint32_t at, uint32_t wanted)
{
    const double count = g->classes[at].count, mean = (double)g->classes[at].sum_us / count;
    const double above = (double)g->classes[at].most_us - mean;

    return mean + (above > 0 ? above * (1 - wanted / count) : 0);
}

uint64_t gaps_longest(const struct gaps *g)
{
    const uint32_t tenth = g->count / 10 + (g->count % 10 != 0);
    uint32_t left = tenth;
    double sum = 0;

    for (uint32_t at = GAPS_CLASSES; at-- > 0 && left > 0;) {
        const uint32_t count = g->classes[at].count < left ? g->classes[at].count : left;
        if (count == 0)
            continue;
        sum += longest_of(g, at, count) * count;
        left -= count;
    }
    return tenth ? (uint64_t)(sum / tenth * 1e3) : 0;
}
