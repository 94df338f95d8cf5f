/* percentile.c - bucket of a value, end of a bucket, and walks over the counts. */
#include "sim/percentile.h"

#include "base/alloc.h"

enum { BITS = 8, PER_DOUBLING = 1 << BITS };

/* 0 .. 255: the value itself. Then 256 buckets for [2^8, 2^9), 256 for [2^9, 2^10), ... */
static uint32_t bucket_of(uint64_t value)
{
    if (value < PER_DOUBLING)
        return (uint32_t)value;
    const uint32_t doubling = 63 - BITS - (uint32_t)__builtin_clzll(value);
    return (doubling + 1) * PER_DOUBLING + (uint32_t)((value >> doubling) - PER_DOUBLING);
}

/* The largest value of a bucket. */
static uint64_t bucket_end(uint32_t bucket)
{
    if (bucket < PER_DOUBLING)
        return bucket;
    const uint32_t doubling = bucket / PER_DOUBLING - 1;
    const uint64_t first = (uint64_t)(bucket % PER_DOUBLING + PER_DOUBLING) << doubling;
    return first + ((UINT64_C(1) << doubling) - 1);
}

mc_status percentile_init(struct percentile *p, const struct mc_alloc *alloc)
{
    *p = (struct percentile){ .alloc = alloc };
    p->buckets = alloc_zeroed(alloc, PERCENTILE_BUCKETS, sizeof(*p->buckets));
    return p->buckets ? MC_OK : MC_E_NOMEM;
}

void percentile_fini(struct percentile *p)
{
    if (p->alloc)
        alloc_free(p->alloc, p->buckets);
    *p = (struct percentile){ 0 };
}

void percentile_add(struct percentile *p, uint64_t value)
{
    p->buckets[bucket_of(value)]++;
    p->least = p->count == 0 || value < p->least ? value : p->least;
    p->most = value > p->most ? value : p->most;
    p->count++;
    p->sum += (double)value;
}

uint64_t percentile_at(const struct percentile *p, double share)
{
    /* The rank: at least one value, at most all. */
    const double wanted = share * (double)p->count;
    uint64_t seen = 0;

    for (uint32_t i = 0; i < PERCENTILE_BUCKETS && seen < p->count; i++) {
        seen += p->buckets[i];
        if (seen > 0 && (double)seen >= wanted) {
            const uint64_t end = bucket_end(i);
            return end < p->most ? end : p->most;
        }
    }
    return p->most;
}

double percentile_below(const struct percentile *p, uint64_t value)
{
    const uint32_t last = bucket_of(value);
    uint64_t seen = 0;

    for (uint32_t i = 0; i <= last; i++)
        seen += p->buckets[i];
    return p->count ? (double)seen / (double)p->count : 0;
}

double percentile_mean(const struct percentile *p)
{
    return p->count ? p->sum / (double)p->count : 0;
}
