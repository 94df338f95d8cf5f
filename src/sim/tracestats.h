/*
 * tracestats.h - what a trace is like: lengths, arrivals, and how its blocks are used again.
 *
 * Life:    tracestats_make -> tracestats_text. Threads: one. Memory: while it is made, about 24 bytes for each
 * request and block.
 */
#ifndef SIM_TRACESTATS_H
#define SIM_TRACESTATS_H

#include "base/buf.h"
#include "sim/sim.h"

struct trace_spread {
    double mean, sd;
    double p10, p50, p90, p95, p99, least, most;
};

struct tracestats {
    uint32_t requests;
    double span_s, rate;
    struct trace_spread input, output, blocks, burst; /* burst: requests of one time stamp */
    uint64_t input_tokens, output_tokens;
    double ratio_of_means, mean_of_ratios; /* input / output */
    uint32_t stamps;
    double gap_mean_s, gap_p50_s;
    uint32_t minute_least, minute_most;
    double minute_mean;
    double long_tokens, long_requests;         /* share that is of inputs above 32k */
    uint64_t accesses, unique;                 /* of whole blocks */
    double used_once, used_2, used_5, used_10; /* share of blocks used at most so often */
    uint32_t rank[4];                          /* uses of the block ranked 1, 100, 1000, 10000 */
    double covered[4];      /* share of accesses that the first 1, 100, 1000, 10000 take */
    uint32_t rank_block[4]; /* the blocks ranked 10, 100, 1000, 10000 */
    uint32_t first_blocks;  /* different ones */
    double reusing;         /* requests that match >= 2 blocks of earlier ones */
    double hit_blocks, hit_tokens,
        hit_mean;         /* pool without bounds: of blocks, of tokens, mean over requests */
    uint32_t two_parents; /* blocks that follow different ones: 0 if ids are chained */
    double compute_s;     /* of one node without any cache, by the cost given */
};

/** cost: of compute_s. MC_OK or MC_E_NOMEM. */
mc_status tracestats_make(const struct sim_trace *trace, const struct mc_cost *cost,
                          const struct mc_alloc *alloc, struct tracestats *stats_p);

void tracestats_text(const struct tracestats *stats, struct buf *out);
void tracestats_json(const struct tracestats *stats, struct buf *out);

#endif /* SIM_TRACESTATS_H */
