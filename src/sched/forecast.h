/*
 * forecast.h - what a request that is placed somewhere would find there: its TTFT, and its TBT.
 *
 * Rows are of the view, times in nanoseconds. "Raw" is before any margin: what the cost model says. A margin is what
 * predictions of about that size were off by lately, as factors of them (learn.h).
 */
#ifndef SCHED_FORECAST_H
#define SCHED_FORECAST_H

#include "sched/admit.h"
#include "sched/place.h"

/** Who decodes somewhere. */
struct ahead {
    uint64_t sequences, tokens;
};

/** `ns` times `by`; 0 where that is negative. */
uint64_t forecast_scale(uint64_t ns, double by);

/** So long ago its client sent it. */
uint64_t forecast_elapsed_ns(const struct place *place);

/** Who decodes at `row` now, and when the placed request would begin to (as the mode of admission has it). */
struct ahead forecast_load_now(const struct place *place, uint64_t row);
struct ahead forecast_load_then(const struct place *place, uint64_t row,
                                const struct mc_decision *decision);

/** A step at `row` for those, this one and `more` like them, joins that are near counted (place->stall). */
uint64_t forecast_step_ns(const struct place *place, uint64_t row, const struct ahead *ahead,
                          double more);

/** Of the raw TTFT, and of the raw TBT: its `high` is what is held against the objective. */
struct margin forecast_ttft_margin(const struct place *place, uint64_t prefill, uint64_t raw_ns);
struct margin forecast_tbt_margin(const struct place *place, const struct cost *cost,
                                  uint64_t raw_ns);

/** Of TTFT what is neither queue, pull nor prefill, for a prompt of `tokens`. */
uint64_t forecast_other_ns(const struct admit *admit, uint64_t now_ns, uint64_t tokens);

/** Fill in what is expected of the placement; decode UINT64_MAX: nobody has memory. */
void forecast_predict(const struct place *place, uint64_t prefill, uint64_t decode,
                      struct mc_decision *decision);

#endif /* SCHED_FORECAST_H */
