/*
 * timing.h - how long a generation took, and how near that is to what the machine can do.
 *
 * Prefill is arithmetic: its limit is the processors' peak of fused multiply-adds. Decode reads every
 * weight for every token: its limit is the bandwidth of memory. Pure: clocks and limits come in.
 */
#ifndef CMD_TIMING_H
#define CMD_TIMING_H

#include <mooncake/infer.h>

#include "base/buf.h"

struct timing {
    uint32_t prompt_tokens;
    uint32_t decode_tokens; /* answer tokens after the first, which prefill makes */
    uint64_t prefill_ns;    /* start to first token */
    uint64_t decode_ns;     /* first token to last */
    double prefill_flop;    /* arithmetic of the whole prefill */
    double decode_bytes;    /* weights and KVCache read by the whole decode */
    double peak_flops;      /* of the machine, per second; 0: not measured */
    double read_bandwidth;  /* bytes per second; 0: not measured */
    const char *kernel;
    uint32_t threads;
};

/** What a model costs, from its shape. */
struct work {
    double matrix_parameters; /* weights that every token is multiplied with, the head excepted */
    double head_parameters;   /* vocabulary x hidden, once for each sampled token */
    double weight_bytes_read; /* by one decode step */
    double attention_flop;    /* per pair of (query, key) position, all layers */
    double kv_bytes;          /* per position, all layers */
};

/** embedding_is_head: one matrix serves both, as config.json's tie_word_embeddings says. */
struct work work_of(const struct mc_model_info *info, bool embedding_is_head,
                    const struct mc_kv_layout *layout);

/** Fill prefill_flop and decode_bytes from the token counts. */
void timing_count(struct timing *timing, const struct work *work);

/** Two lines for people. */
void timing_text(const struct timing *timing, struct buf *out);

/** An object. Shares are left out where the limit was not measured. */
void timing_json(const struct timing *timing, struct buf *out);

#endif /* CMD_TIMING_H */
