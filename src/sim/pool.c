/* pool.c - replay a trace on one tier. */
#include "sim/pool.h"

mc_status pool_replay(const struct sim_trace *trace, uint64_t capacity_tokens,
                      enum tier_policy policy, bool tails, const struct mc_alloc *alloc,
                      struct pool_hits *hits_p)
{
    const uint64_t blocks = capacity_tokens / trace->block_tokens;
    const uint32_t most = trace->block_ids + (tails ? trace->count : 0) + 1;
    const uint32_t capacity = blocks < most ? (uint32_t)blocks : most;
    struct pool_hits hits = { 0 };
    struct tier tier = { 0 };

    if (capacity != 0) {
        const mc_status status = tier_init(&tier, alloc, capacity, policy);
        if (status != MC_OK)
            return status;
    }
    for (uint32_t i = 0; i < trace->count; i++) {
        const struct sim_request *r = &trace->requests[i];
        const uint32_t *ids = &trace->blocks[r->first_block];
        uint32_t matched = 0, evicted;

        while (capacity && matched < r->block_count && tier_has(&tier, ids[matched]))
            matched++;
        for (uint32_t n = 0; capacity && n < r->block_count; n++)
            (void)tier_add(&tier, ids[n], n, i + 1, &evicted);
        if (capacity && tails && r->input % trace->block_tokens)
            (void)tier_add(&tier, trace->block_ids + i, r->block_count, i + 1, &evicted);
        hits.tokens += r->input;
        hits.blocks += r->block_count;
        hits.hit_blocks += matched;
        hits.hit_tokens += (uint64_t)matched * trace->block_tokens;
    }
    tier_fini(&tier);
    *hits_p = hits;
    return MC_OK;
}
