/*
 * assume.h - every number that the simulator takes for granted, in one table.
 *
 * What an instance costs follows from three things: a GPU, an LLM and the constants below, which were fitted
 * once to the paper's own measurements (8 x A800, LLaMA3-70B) and are carried to other GPUs and LLMs by
 * arithmetic, bytes and bandwidth. No experiment has constants of its own.
 *
 * Life:    assume_defaults -> (assume_read)* -> assume_node
 * Threads: values only.
 * Memory:  none. Names that assume_read() sets are copied.
 * Errors:  texts name the line and the key.
 */
#ifndef SIM_ASSUME_H
#define SIM_ASSUME_H

#include <mooncake/sched.h>

#include "base/buf.h"

/* name, default, unit, where it comes from. F1 .. F15 and A-F1 .. are figures of the two papers. */
/* clang-format off */
#define SIM_ASSUME_MAP(X) \
    X(prefill_fixed_s, 0.068, "s", "a prefill call of 80 layers, whatever its length (fit of F14)") \
    X(prefill_token_s, 1.096e-4, "s", "computing one token, without attention (fit of F14)") \
    X(prefill_pair_s, 7.43e-10, "s", "n^2 term of attention (fit of F14)") \
    X(load_token_s, 2.575e-6, "s", "bringing one reused token from DRAM to where it is used (fit of F14)") \
    X(step_fixed_s, 0.02535, "s", "a decode step, whatever is in it (fit of F14 and A-F2)") \
    X(step_sequence_s, 2.11e-4, "s", "each sequence of a decode step (fit of A-F2)") \
    X(step_token_s, 3.48e-8, "s", "each token of context that a step reads (fit of F14)") \
    X(vram_share, 0.9, "", "of the GPUs' memory that weights and KVCache may fill") \
    X(dram_tokens, 3e6, "tokens", "KVCache in the DRAM of a node (F9: about 1 TB)") \
    X(ssd_bytes_per_s, 1.2e10, "B/s", "reading a node's SSDs (4 drives of 3 GB/s; not in the papers)") \
    X(link_latency_s, 0.010, "s", "before the first byte of a transfer between nodes (fit of F12, F14)") \
    X(link_share, 1.0, "", "of a line rate given in Gbps that transfers reach up to 400 Gbps (F13)") \
    X(vram_load_bytes_per_s, 1.02e11, "B/s", "DRAM to VRAM at the decode node (F14)") \
    X(receive_token_s, 0, "s", "receiving and reading one token of a prompt, before it is decided (not in the papers)") \
    X(schedule_s, 0.050, "s", "tokenise, hash, decide, tell (F14)") \
    X(store_tail_s, 0, "s", "storing the KVCache of the last layers after a prefill (F14 has none; A-F7: 0.1)") \
    X(stream, 0, "", "0: KVCache goes to the decode node after it is computed (F13, F14: all of it is in TTFT); 1: meanwhile") \
    X(decode_keeps, 1, "", "1: it stays in the decode node's DRAM, and what is there is not sent again (F13); 0: it goes") \
    X(first_step, 1, "", "1: the decode node's first step makes the first token (F14: 128 steps)") \
    X(join_fixed_s, 0.030, "s", "the batch stands still while one joins: fixed part (calibrated on F15)") \
    X(join_load_share, 1.0, "", "and this share of its load into VRAM (calibrated on F15)") \
    X(vllm_chunk_tokens, 2048, "tokens", "budget of a step with chunked prefill (F8: +0.07 s for each chunk)") \
    X(vllm_context_tokens, 131072, "tokens", "longest prompt of a coupled instance; 0: any (F14 ends there)") \
    X(vllm_prompt_tokens, 16384, "tokens", "prompts that one prefill step of a coupled instance may batch") \
    X(vllm_hash_pair_s, 4.5e-10, "s", "prefix caching: n^2 term of a prompt on the host (vLLM 0.5.1, timed)") \
    X(vllm_cached_token_s, 1.05e-8, "s", "prefix caching: each token of context in a step, on the host (the same)") \
    X(sequences_max, 256, "", "sequences in one batch") \
    X(pipeline_comm_s, 1.7e-4, "s", "handing a chunk to the next stage (16 MiB at 100 GB/s)") \
    X(gpus, 8, "", "of a node")
/* clang-format on */

struct sim_gpu {
    const char *name;
    double flops;           /* dense BF16, per second */
    double bytes;           /* of its memory */
    double bytes_per_s;     /* of its memory */
    double net_bytes_per_s; /* a node of them, each direction, as transfers reach it */
};

struct sim_llm {
    const char *name;
    double layers, hidden, heads, kv_heads, head_size, inner, parameters;
};

struct sim_assume {
#define SIM_ASSUME_FIELD(name, value, unit, source) double name;
    SIM_ASSUME_MAP(SIM_ASSUME_FIELD)
#undef SIM_ASSUME_FIELD
    struct sim_gpu gpu;
    struct sim_llm llm;
};

/** One node of GPUs with one LLM. */
struct sim_node {
    struct mc_cost cost;     /* prefill, step, link */
    double kv_token_bytes;   /* of one token, all layers */
    uint64_t kv_tokens;      /* that fit in VRAM beside the weights */
    double net_bytes_per_s;  /* each direction */
    double vram_bytes_per_s; /* DRAM to VRAM */
    double ssd_bytes_per_s;
};

/** 8 x A800, LLaMA3-70B. */
void assume_defaults(struct sim_assume *assume);

/** "a800", "h800", "h100", "h200"; "llama3-70b", "qwen3-8b", ... false: not in the table. */
bool assume_gpu(struct sim_assume *assume, const char *name);
bool assume_llm(struct sim_assume *assume, const char *name);

/** The names there are, with commas. */
void assume_names(struct buf *out);

/**
 * Read `name = number` lines (# begins a comment): any row of the table, `gpu = NAME`, `llm = NAME`,
 * gpu.flops, gpu.bytes, gpu.bytes_per_s, gpu.net_bytes_per_s, llm.layers, llm.hidden, llm.heads,
 * llm.kv_heads, llm.head_size, llm.inner, llm.parameters.
 *
 * Returns MC_OK, or MC_E_FORMAT with the line.
 */
mc_status assume_read(struct sim_assume *assume, const char *text, size_t size,
                      struct mc_error *error);

/** What that makes of a node. */
struct sim_node assume_node(const struct sim_assume *assume);

/** The table as assume_read() reads it, each with its source. */
void assume_print(const struct sim_assume *assume, struct buf *out);

#endif /* SIM_ASSUME_H */
