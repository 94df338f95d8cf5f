/*
 * timing.h - how long an instance would take: numbers instead of weights.
 *
 * A step with the tokens of prompts and of answers takes
 *
 *     prompts   sum of p1 (b - a) + p2 (b^2 - a^2)           tokens [a, b) of each prompt in the step
 *               + p3 a                                        once: what it reuses is brought to where it is used
 *               + p0                                          where nothing but prompts is computed: once for each
 *                                                             prompt, however it is cut; else in each such step
 *     answers   d0 + d1 n + d2 k                              n sequences, k tokens of context
 *               + join_fixed_s + a / load_bytes_per_s         once for each that joins others: the batch stands
 *                                                             still (join_load_share of its load)
 *     both      the sum, less d0: one pass over the weights
 *
 * which is what the simulator does with the same numbers. Tokens follow from the sequence alone: each
 * position's KVCache holds a state, made of the state before it and its token; the next token is made of the
 * last state. So an answer shows whether all that was pulled and pushed has come whole.
 *
 * Threads: values only. Memory: a tracker's, given. Pure.
 */
#ifndef WORKER_CORE_TIMING_H
#define WORKER_CORE_TIMING_H

#include <mooncake/infer.h>
#include <mooncake/sched.h>

/** What it stands for. All of it finite and not negative. */
struct timing_model {
    struct mc_cost cost;
    double kv_token_bytes;   /* of the LLM */
    double load_bytes_per_s; /* at a decode instance: from DRAM to where it is used; 0: at once */
    double join_fixed_s, join_load_share;
    double tail_s; /* from the end of a prefill until the decode instance has all of it */
    uint64_t kv_tokens;
    uint32_t context_max;
};

/** Bytes of KVCache that are moved for each that the model has: layers and head size that come close to it.
 * scale is 1 at most; the least that a token keeps is 8 bytes. */
struct mc_kv_layout timing_layout(const struct timing_model *model, uint32_t layers, double scale);

/* ------------------------------------------------------------------------------------------- steps */

/** Who was in earlier steps, by its first page, and where it went on from. */
struct timing_seen {
    const void *page;
    uint32_t next; /* position */
    uint64_t step; /* the last one it was in; 0: nobody yet */
};

struct timing_tracker {
    struct timing_seen *seen; /* given; [seen_max] >= sequences of a step */
    uint32_t seen_max;
    uint32_t role; /* enum mc_role: who only prefills has no batch of answers */
    uint64_t steps;
};

/** Seconds of a step; the tracker takes in who is in it. */
double timing_step_s(const struct timing_model *model, struct timing_tracker *tracker,
                     const struct mc_step *step);

/** Seconds until `tokens` are here from another instance, the line being free. */
double timing_pull_s(const struct timing_model *model, uint64_t tokens);

/** Seconds for which they occupy the way into the decode instance's memory. */
double timing_load_s(const struct timing_model *model, uint64_t tokens);

/* ------------------------------------------------------------------------------------------ tokens */

/** The state behind `token` at `position`, after `before` (0 at the beginning). */
uint32_t timing_state(uint32_t before, uint32_t token, uint32_t position);

/** Tokens that are not to be chosen. */
struct timing_bans {
    const uint32_t *tokens; /* [count] */
    uint32_t count;
};

/** The token that follows, none of either list, as long as there is one. */
uint32_t timing_token(uint32_t state, uint32_t vocab_size, const struct timing_bans bans[2]);

#endif /* WORKER_CORE_TIMING_H */
