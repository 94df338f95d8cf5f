/*
 * demand.h - what work is asked for, by how dear it is: the lately offered prefill seconds, in classes of cost.
 *
 * Two questions are answered from it. Which share of all that is asked for is cheaper than this? And: somebody
 * who would be overtaken by all that is cheaper, how long would he wait?
 *
 * Values; one thread; the same calls in the same order give the same bits.
 */
#ifndef SCHED_DEMAND_H
#define SCHED_DEMAND_H

#include <stdint.h>

enum { DEMAND_CLASSES = 32 };

struct demand {
    double work_s[DEMAND_CLASSES]; /* faded sums */
    double seen_s;                 /* time that they are of, faded likewise */
    uint64_t last_ns;
};

/** Work of `seconds`, of a price: any measure of how dear it is, > 0. */
void demand_add(struct demand *demand, uint64_t now_ns, double price, double seconds);

/** The share of what was asked for that is cheaper: 0 to 1. */
double demand_cheaper(const struct demand *demand, double price);

/**
 * How long somebody waits who has `ahead_s` before him, and whom those may overtake who come later and whose
 * own patience is over before his.
 *
 * patience_s  what he lets others go first by, counted from when he came; others have theirs in proportion
 *             to demand_cheaper(), `most_s` at most.
 * instances   that share the work.
 */
double demand_wait(const struct demand *demand, double ahead_s, double patience_s, double most_s,
                   double instances);

#endif /* SCHED_DEMAND_H */
