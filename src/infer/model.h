/*
 * model.h - a model directory, opened: configuration, weights by role, tokenizer, chat template.
 *
 * What mooncake/infer.h calls mc_model. Read-only once open, so the engine reads its fields.
 */
#ifndef INFER_MODEL_H
#define INFER_MODEL_H

#include "infer/chat.h"
#include "infer/config.h"
#include "infer/safetensors.h"
#include "infer/tensor.h"
#include "infer/tokenizer.h"

struct layer_weights {
    struct tensor q, k, v, o;     /* (heads x dim, hidden), (kv_heads x dim, hidden) x 2,
                                     (hidden, heads x dim) */
    struct tensor gate, up, down; /* (intermediate, hidden) x 2, (hidden, intermediate) */
    /* Vectors are converted to F32 when the model is opened; NULL where the family has none. */
    const float *attention_norm, *mlp_norm;         /* (hidden) */
    const float *q_bias, *k_bias, *v_bias, *o_bias; /* (rows of the matrix) */
    const float *q_norm, *k_norm;                   /* (head_dim) */
};

struct mc_model {
    const struct mc_alloc *alloc;
    struct model_config config;
    char *name;                 /* owned */
    struct safetensors *shards; /* owned; [shard_count] */
    size_t shard_count;
    struct layer_weights *layers; /* owned; [config.layers] */
    struct tensor embedding;      /* (vocab_size, hidden) */
    struct tensor head;           /* (vocab_size, hidden); the embedding where tied */
    const float *final_norm;      /* (hidden) */
    float *vectors;               /* owned; all F32 vectors, one after another */
    void *copies;                 /* owned; matrices whose place in the file was not aligned */
    uint64_t parameters, weight_bytes;
    enum mc_dtype dtype;  /* of the matrices; all the same */
    tokenizer *tokenizer; /* owned; NULL if there is no tokenizer.json */
    struct chat chat;
};

#endif /* INFER_MODEL_H */
