/*
 * scale.h - a trace's requests made to fit a small server: lengths, times, and the tokens of the prompts.
 *
 * Traces are of models with contexts of 128 k tokens. `block` makes of each block of the trace (512 tokens) one
 * page (16), so that what was shared stays shared, page by page, and everything else shrinks alike: full blocks
 * become full pages; a partial last block its share of a page, 1 to 15 tokens; an answer its share, at least
 * one token. Times are divided by `speed`, from the first request on. What does not fit the context is cut.
 *
 * A prompt is runs of tokens: token i of a run is a function of seed, run and i (scale_token), so that the same
 * trace and seed give the same prompts, whoever asks and in whatever order.
 *
 * Life:    scaler_init -> scaler_next* -> scaler_fini. Threads: one. Pure.
 * Memory:  the runs of one request, owned by the scaler.
 */
#ifndef SIM_SCALE_H
#define SIM_SCALE_H

#include <stdbool.h>
#include <stdint.h>

#include <mooncake/status.h>

#include "base/prng.h"
#include "sim/trace.h"

enum { SCALE_PAGE_TOKENS = 16 };

enum scale_kind {
    SCALE_NONE,  /* tokens as they are */
    SCALE_BLOCK, /* one block of the trace becomes one page */
};

/** Successive tokens that are shared whole or not at all. */
struct scale_run {
    uint64_t id;
    uint32_t tokens; /* of the run's, from its first; >= 1 */
};

/** A request as it is to be sent. */
struct scaled {
    uint64_t at_ns;                       /* from the first request, speed applied */
    uint32_t input_tokens, output_tokens; /* both >= 1 */
    const struct scale_run *runs;         /* [run_count], of the maker: until its next request */
    uint32_t run_count;
    bool cut;      /* it did not fit the context */
    uint64_t line; /* of the trace */
};

/** `{ 0 }` and then: alloc. */
struct scale_options {
    const struct mc_alloc *alloc; /* borrowed */
    enum scale_kind kind;
    uint32_t block_tokens;   /* of the trace; 0: TRACE_BLOCK_TOKENS */
    uint32_t page_tokens;    /* what a block becomes; 0: SCALE_PAGE_TOKENS */
    uint32_t context_tokens; /* prompt and answer together; 0: no bound, else >= 2 */
    double speed;            /* > 0; 0: 1 */
};

struct scaler {
    struct scale_options o;
    struct scale_run *runs; /* owned; [capacity] */
    uint32_t capacity;
    bool begun;
    uint64_t first_ns;
};

void scaler_init(struct scaler *scaler, const struct scale_options *options);
void scaler_fini(struct scaler *scaler);

/** Requests of a trace in its order; times before the first one's count as its own. MC_OK or MC_E_NOMEM. */
mc_status scaler_next(struct scaler *scaler, const struct trace_request *request,
                      struct scaled *scaled_p);

/** Cut prompt and answer to `context_tokens` (>= 2): the answer gives way only where it leaves no place for a
 * prompt. `runs` are shortened in place. */
void scale_cut(struct scaled *scaled, struct scale_run *runs, uint32_t context_tokens);

/** 64 bits that stand for token `index` of a run; whoever sends it maps them to a token or word. */
static inline uint64_t scale_token(uint64_t seed, uint64_t run, uint32_t index)
{
    return prng_at(seed ^ prng_mix(run), index);
}

#endif /* SIM_SCALE_H */
