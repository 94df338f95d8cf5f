/*
 * config.h - config.json and generation_config.json, checked.
 *
 * Every number is bounded before it is used: products of the fields below fit 64 bits, and a model
 * that passes here can be laid out without further checks.
 *
 * Threads: values only. Memory: fixed. Errors: texts name the file and the field.
 */
#ifndef INFER_CONFIG_H
#define INFER_CONFIG_H

#include <stdbool.h>

#include <mooncake/infer.h>

enum architecture { ARCH_LLAMA, ARCH_QWEN2, ARCH_QWEN3 };
enum rope_kind { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };
enum { EOS_MAX = 16, LAYERS_MAX = 1024, HEAD_DIM_MAX = 512 };

struct rope_scaling {
    enum rope_kind kind;
    double factor;               /* linear, llama3 */
    double low_freq, high_freq;  /* llama3: factors of the original context */
    double original_context_max; /* llama3: tokens */
};

struct model_config {
    enum architecture architecture;
    uint32_t hidden, layers, heads, kv_heads, head_dim, intermediate, vocab_size, context_max;
    float norm_eps;
    double rope_theta;
    struct rope_scaling rope;
    bool tied;     /* lm_head is the embedding; model_open also sets it where there is none */
    bool untied;   /* the file says so in words: a lm_head must be there */
    bool qkv_bias; /* Qwen2, or Llama or Qwen3 with attention_bias */
    bool o_bias;   /* Llama or Qwen3 with attention_bias */
    bool qk_norm;  /* Qwen3: RMS norm of every head's q and k */
    uint32_t eos[EOS_MAX], eos_count;
    uint32_t bos;      /* UINT32_MAX: none */
    float temperature; /* 0 .. 100; 1 if no file says */
    float top_p;       /* 0 .. 1; 1 if no file says */
    uint32_t top_k;    /* 0: no limit */
};

/**
 * Parse config.json's `size` bytes. `name` goes before every error text.
 * Returns MC_OK, MC_E_FORMAT, MC_E_RANGE, MC_E_UNSUPPORTED or MC_E_NOMEM.
 */
mc_status config_parse(const char *json, size_t size, const char *name,
                       struct model_config *config_p, struct mc_error *error);

/** Lay generation_config.json's eos ids and sampling defaults over `config`. Same statuses. */
mc_status config_parse_generation(const char *json, size_t size, const char *name,
                                  struct model_config *config, struct mc_error *error);

/** "LlamaForCausalLM" and so on. */
const char *config_architecture_name(enum architecture architecture);

#endif /* INFER_CONFIG_H */
