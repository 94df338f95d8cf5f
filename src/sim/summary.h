/*
 * summary.h - a run in figures: what a table, a plot or the comparison with the paper needs of it.
 *
 * Life:    summary_make -> ... -> summary_fini
 * Threads: one. Memory: three arrays of one number for each finished request.
 */
#ifndef SIM_SUMMARY_H
#define SIM_SUMMARY_H

#include "sim/sim.h"

enum { SUMMARY_DECILES = 10 };

struct summary {
    const struct mc_alloc *alloc; /* borrowed */
    float *ttft, *tbt; /* owned; [finished], rising, in seconds; tbt: mean of the longest tenth */
    float *regret;     /* owned; likewise: TTFT above alone_ns */
    uint32_t offered, finished, refused, late, lost;
    uint32_t good;      /* finished within both SLOs */
    double good_tokens; /* prompt tokens of these */
    double ttft_mean, tbt_mean,
        tbt_gap_mean; /* tbt_mean: of the longest tenths; gap: of all gaps */
    double busy_mean; /* seconds of a prefill instance, for each finished request */
    double hit;       /* reused of the prompt tokens of finished requests */
    double span_s, goodput, goodput_tokens; /* per second of the arrivals' span */
    double wasted_s, moved_bytes, gaps_late;
    double regret_mean; /* seconds of TTFT above a lone request's with the best prefix anywhere */
    double queue_mean_s, move_mean_s;  /* before the prefill; from its end to the first token */
    double accepted[SUMMARY_DECILES];  /* share that finished, by decile of prompt length */
    uint64_t refusals, would_have_met; /* decisions; and by shadow evaluation, of these */
    uint64_t copies, copied_blocks;    /* of hot prefixes: ordered; blocks that came */
    uint32_t came_back, got_in;        /* refused and asked again; of these: finished */
};

/** MC_OK or MC_E_NOMEM. */
mc_status summary_make(const struct sim_options *options, const struct sim_result *result,
                       const struct mc_alloc *alloc, struct summary *summary_p);

/** Safe on `{ 0 }`. */
void summary_fini(struct summary *summary);

/** Of [count] rising values: the one at a share of 0 to 1 (the smallest that so many do not exceed). 0: none. */
double summary_at(const float *values, uint32_t count, double share);

/** The share of values that are at most `value`; 0: none. */
double summary_below(const float *values, uint32_t count, double value);

#endif /* SIM_SUMMARY_H */
