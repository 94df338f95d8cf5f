/*
 * percentile.h - how values are spread, in a fixed memory however many there are.
 *
 * Buckets grow with the value: 256 to each doubling, so a percentile is at most 0.4 % above the value that it
 * stands for; below 256 each value has its own. Count, sum, least and most are exact.
 *
 * Life:    percentile_init -> percentile_add* -> percentile_at ... -> percentile_fini
 * Threads: one. Pure. Memory: 114 KiB from the allocator given, taken at init; adding allocates nothing.
 */
#ifndef SIM_PERCENTILE_H
#define SIM_PERCENTILE_H

#include <stdint.h>

#include <mooncake/status.h>

struct percentile {
    const struct mc_alloc *alloc; /* borrowed */
    uint64_t *buckets;            /* owned; [PERCENTILE_BUCKETS] */
    uint64_t count, least, most;  /* least and most: 0 while count is */
    double sum;
};

enum { PERCENTILE_BUCKETS = 57 * 256 };

/** Returns MC_OK or MC_E_NOMEM. */
mc_status percentile_init(struct percentile *p, const struct mc_alloc *alloc);

/** Safe on `{ 0 }`. */
void percentile_fini(struct percentile *p);

void percentile_add(struct percentile *p, uint64_t value);

/** The smallest value that at least `share` (0 to 1) of all values do not exceed, up to a bucket's width;
 * never more than `most`. 0 when there are none. */
uint64_t percentile_at(const struct percentile *p, double share);

/** The share of values that are at most `value`, by buckets: a value in the bucket of `value` counts. */
double percentile_below(const struct percentile *p, uint64_t value);

/** sum / count; 0 when there are none. */
double percentile_mean(const struct percentile *p);

#endif /* SIM_PERCENTILE_H */
