/*
 * timing_engine.h - an engine without weights: a step takes as long as core/timing.h says, and computes tokens
 * and KVCache of numbers, which follow from the sequence alone.
 *
 * What the machine adds to a step (waking up, others that run) is made good by the next one while the engine is
 * busy, so times do not drift.
 *
 * Life:    timing_engine_open -> mc_engine_step* -> mc_engine_close
 * Threads: as every engine; timing_engine_stop() from any thread.
 * Memory:  taken at open.
 */
#ifndef WORKER_TIMING_ENGINE_H
#define WORKER_TIMING_ENGINE_H

#include "worker/core/timing.h"

/** All copied. */
struct timing_engine_options {
    const struct mc_alloc *alloc; /* borrowed until close */
    const struct timing_model *model;
    struct mc_kv_layout layout;                                  /* timing_layout() */
    uint32_t role;                                               /* enum mc_role */
    uint32_t tokens_max, sequences_max, context_max, vocab_size; /* all > 0 */
    const uint32_t *never; /* [never_count]: tokens that it does not say (the end of a text) */
    uint32_t never_count;
};

/** Returns MC_OK, MC_E_RANGE (a limit of 0) or MC_E_NOMEM. */
mc_status timing_engine_open(const struct timing_engine_options *options, mc_engine **engine_p,
                             struct mc_error *error);

/** From now on steps take no time: whoever closes does not wait. */
void timing_engine_stop(mc_engine *engine);

#endif /* WORKER_TIMING_ENGINE_H */
