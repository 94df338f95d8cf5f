/*
 * sample.h - from one row of logits to one token with its log probabilities.
 *
 * A pure function of the row, the settings and the position: the draw comes from a counter-based
 * generator (base/prng.h), so the same request gives the same tokens wherever and beside whatever it
 * runs. Any thread; `space` belongs to one call at a time.
 */
#ifndef INFER_SAMPLE_H
#define INFER_SAMPLE_H

#include <mooncake/infer.h>

#include "infer/kernels.h"

/** One token that may be chosen. */
struct candidate {
    float weight; /* proportional to its probability after temperature */
    uint32_t token;
};

/** Room that sample_token needs: [vocab_size] of each. */
struct sample_space {
    float *weights;
    struct candidate *candidates;
};

/** NULL if the settings can be used, else what is wrong with them. */
const char *sampling_fault(const struct mc_sampling *sampling, uint32_t vocab_size);

/**
 * logits    (vocab_size)
 * position  of the token that is being chosen
 *
 * Order of the limits: temperature, then top_k, then top_p of what is left.
 */
void sample_token(const struct kernels *kernels, const float *logits, uint32_t vocab_size,
                  const struct mc_sampling *sampling, uint64_t position,
                  const struct sample_space *space, struct mc_sample *sample_p);

#endif /* INFER_SAMPLE_H */
