/*
 * forward.h - the CPU engine's state, and one pass of a step's rows through the layers.
 *
 * A step is a list of rows: one for every token of every sequence, in the order of the sequences.
 * Matrix products see all rows at once (that is continuous batching); attention sees one sequence's
 * rows and pages. Memory is taken when the engine is opened; a step allocates nothing.
 *
 * Threads: the thread in mc_engine_step, and the crew it drives.
 */
#ifndef INFER_FORWARD_H
#define INFER_FORWARD_H

#include "infer/kernels.h"
#include "infer/model.h"
#include "infer/sample.h"
#include "os/crew.h"

/** One row of the running step. */
struct row {
    uint32_t token, position, sequence;
};

/** Rows [begin, end) of one sequence, at most ATTEND_ROWS: a piece of attention. */
struct row_block {
    uint32_t sequence, begin, end;
};

struct cpu_engine {
    struct mc_engine head; /* first: a mc_engine * is a cpu_engine * */
    const struct mc_alloc *alloc;
    const mc_model *model; /* borrowed */
    const struct kernels *kernels;
    os_crew *crew; /* owned */
    struct mc_engine_limits limits;
    float *inverse_frequency; /* (head_dim / 2): RoPE, scaling applied */
    void *memory;             /* owned; everything below lies in it */

    /* One line per row; strides are padded so that rows do not share cache sets. */
    struct row *rows;         /* [tokens_max] */
    struct row_block *blocks; /* [tokens_max] */
    float *x;                 /* (tokens_max, hidden): the residual stream */
    float *normed;            /* (tokens_max, hidden) */
    float *q, *attention;     /* (tokens_max, heads x head_dim) */
    float *k, *v;             /* (tokens_max, kv_heads x head_dim) */
    float *gate, *up;         /* (tokens_max, intermediate) */
    uint16_t *rounded; /* (tokens_max, widest): input of a matrix in BF16, if kernels want it */
    float *rotation;   /* (tokens_max, head_dim): cosines, then sines */
    float *logits;     /* (logit_rows, vocab_size) */
    uint32_t logit_rows;
    size_t hidden_stride, q_stride, kv_stride, mlp_stride, logit_stride;

    char *scratch; /* [threads][scratch_bytes]: for kernels and for sampling */
    size_t scratch_bytes;
};

/** Run a validated step. */
void forward_step(struct cpu_engine *engine, const struct mc_step *step);

/** Fill inverse_frequency for the model's RoPE: plain, linear or llama3. */
void forward_frequencies(const struct model_config *config, float *inverse_frequency);

#endif /* INFER_FORWARD_H */
