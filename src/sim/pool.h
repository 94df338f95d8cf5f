/*
 * pool.h - what one pool of a given size and eviction would have had of a trace: order of arrival only, no time.
 *
 * The paper's F9 and A-T1. Each prompt finds the longest prefix of whole blocks that is there, then all its
 * blocks are used or come in, front to back.
 *
 * What is not known of a prompt is the part behind its last whole block. It takes no room, or, with `tails`, that of a
 * whole block which nobody ever finds: with smaller blocks the truth is between the two.
 */
#ifndef SIM_POOL_H
#define SIM_POOL_H

#include "sim/sim.h"

struct pool_hits {
    uint64_t tokens, hit_tokens; /* of prompts; of these, in blocks that were there */
    uint64_t blocks, hit_blocks;
};

/** A capacity below one block holds nothing. MC_OK or MC_E_NOMEM. */
mc_status pool_replay(const struct sim_trace *trace, uint64_t capacity_tokens,
                      enum tier_policy policy, bool tails, const struct mc_alloc *alloc,
                      struct pool_hits *hits_p);

#endif /* SIM_POOL_H */
