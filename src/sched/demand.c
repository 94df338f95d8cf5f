/* demand.c - faded sums by class of price; four classes to a factor of four. */
#include "sched/demand.h"

#include <math.h>

static const double FADE_S = 60; /* half of what was seen counts after so long */
static const double PRICE_LEAST = 1e-3, CLASSES_TO_TWICE = 2;
enum { ROUNDS = 12 };

static uint32_t class_of(double price)
{
    const double at = price > PRICE_LEAST ? CLASSES_TO_TWICE * log2(price / PRICE_LEAST) : 0;

    return at < DEMAND_CLASSES - 1 ? (uint32_t)at : DEMAND_CLASSES - 1;
}

static void fade(struct demand *d, uint64_t now_ns)
{
    const double age_s = now_ns > d->last_ns ? (double)(now_ns - d->last_ns) / 1e9 : 0;
    const double left = exp2(-age_s / FADE_S);

    if (d->last_ns != 0) {
        for (uint32_t i = 0; i < DEMAND_CLASSES; i++)
            d->work_s[i] *= left;
        d->seen_s = d->seen_s * left + FADE_S / 0.6931471805599453 * (1 - left);
    }
    d->last_ns = now_ns;
}

void demand_add(struct demand *d, uint64_t now_ns, double price, double seconds)
{
    fade(d, now_ns);
    d->work_s[class_of(price)] += seconds;
}

static double sum_of(const struct demand *d)
{
    double sum = 0;

    for (uint32_t i = 0; i < DEMAND_CLASSES; i++)
        sum += d->work_s[i];
    return sum;
}

double demand_cheaper(const struct demand *d, double price)
{
    const uint32_t own = class_of(price);
    const double sum = sum_of(d);
    double below = 0;

    for (uint32_t i = 0; i < own; i++)
        below += d->work_s[i];
    return sum > 0 ? (below + d->work_s[own] / 2) / sum : 0;
}

/* A class whose patience is p overtakes for as long as p is less than what is left of his. */
static double overtaking(const struct demand *d, double wait_s, double patience_s, double most_s)
{
    const double sum = sum_of(d);
    double below = 0, work = 0;

    for (uint32_t i = 0; i < DEMAND_CLASSES; i++) {
        const double theirs = (below + d->work_s[i] / 2) / sum * most_s;
        const double window = patience_s - theirs < wait_s ? patience_s - theirs : wait_s;

        below += d->work_s[i];
        if (window > 0)
            work += d->work_s[i] * window;
    }
    return work;
}

double demand_wait(const struct demand *d, double ahead_s, double patience_s, double most_s,
                   double instances)
{
    double wait = ahead_s;

    if (d->seen_s <= 0 || sum_of(d) <= 0)
        return wait;
    for (int i = 0; i < ROUNDS; i++)
        wait = ahead_s + overtaking(d, wait, patience_s, most_s) / (d->seen_s * instances);
    return wait;
}
