/*
 * replay.h - what a pool without bounds would have had of each prompt: the best hit ratio there is.
 *
 * Prompts are given in the order of arrival; each finds the pages that earlier ones left, in whole pages from
 * its first token on, and leaves its own. The last token of a prompt is always computed, so a prompt that is
 * there as a whole reuses all pages but the one that holds it. Requests take no time here: one that arrives
 * while another with the same prefix still computes finds it nevertheless.
 *
 * Pages are known by 64 bits of a chained hash of what they hold and of all before them: among 10^8 pages two
 * are mistaken for each other with a probability of 3 in 10,000.
 *
 * Life:    replay_init -> replay_add* -> replay_ratio -> replay_fini. Threads: one. Pure.
 * Memory:  8 bytes for each different page, and room to grow: it has no bound, as the pool has none.
 */
#ifndef SIM_REPLAY_H
#define SIM_REPLAY_H

#include <stdint.h>

#include <mooncake/status.h>

#include "sim/scale.h"

struct replay {
    const struct mc_alloc *alloc; /* borrowed */
    uint32_t page_tokens;
    uint64_t *keys; /* owned; [capacity], a power of two; 0: free */
    uint64_t capacity, pages;
    uint64_t prompt_tokens, reused_tokens; /* sums */
};

/** page_tokens > 0. */
void replay_init(struct replay *replay, uint32_t page_tokens, const struct mc_alloc *alloc);
void replay_fini(struct replay *replay);

/** One prompt. reused_p (may be NULL): how many of its tokens were there. MC_OK or MC_E_NOMEM, after which the
 * prompt does not count, though some of its pages may be there. */
mc_status replay_add(struct replay *replay, const struct scale_run *runs, uint32_t run_count,
                     uint32_t *reused_p);

/** Reused of all prompt tokens; 0 when there are none. */
double replay_ratio(const struct replay *replay);

#endif /* SIM_REPLAY_H */
