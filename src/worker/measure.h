/*
 * measure.h - a worker times itself when a gateway asks: prompts of a few lengths, with and without a reused prefix,
 * and decode steps of a few sizes.
 *
 * Its work goes through the engine's thread like any other, with tokens that nobody asked for and pages that are
 * given back; the pool is not touched. It begins only when nothing else is here, and whatever comes ends it within
 * one step: what was timed until then is the answer.
 *
 * Threads: one, the loop's.
 */
#ifndef WORKER_MEASURE_H
#define WORKER_MEASURE_H

#include "worker/state.h"

enum { MEASURE_JOBS_MAX = 16 }; /* sequences at a time */

/** Answered by measured, later; or by outcome: MC_E_BUSY (there is work). */
void measure_ask(struct gateway_link *gateway, uint64_t id, const struct wire_measure *message);

/** There is work, or the worker closes: stop. */
void measure_yield(struct worker *w);

/** Nobody can be answered there any more. */
void measure_forget(struct worker *w, const struct gateway_link *gateway);

#endif /* WORKER_MEASURE_H */
