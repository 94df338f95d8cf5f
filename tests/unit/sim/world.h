/* world.h - a small cluster and a trace written down by hand. */
#ifndef UNIT_SIM_WORLD_H
#define UNIT_SIM_WORLD_H

#include "test.h"

#include "base/prng.h"
#include "sim/sim.h"

enum { BLOCK = 100, REQUESTS_MAX = 512, BLOCKS_MAX = 8192 };

struct play {
    struct faulty faulty;
    struct sim_request requests[REQUESTS_MAX];
    uint32_t blocks[BLOCKS_MAX];
    struct sim_trace trace;
    uint64_t block_count;
    struct sim_options options;
    sim *sim;
    struct sim_result result;
};

/* Round numbers: a prefill takes 1 s and 1 ms a token, a step 10 ms, a link moves 1000 tokens a second, VRAM takes
 * 10,000 tokens a second; nothing else takes time. A node's DRAM holds 1000 tokens. */
static inline void play_init(struct play *p, const char *cluster)
{
    static const char assume[] =
        "prefill_fixed_s = 1\nprefill_token_s = 0.001\nprefill_pair_s = 0\n"
        "load_token_s = 0\nstep_fixed_s = 0.01\nstep_sequence_s = 0\n"
        "step_token_s = 0\nlink_latency_s = 0\nschedule_s = 0\nstore_tail_s = 0\n"
        "stream = 0\njoin_fixed_s = 0\njoin_load_share = 0\nsequences_max = 4\n"
        "dram_tokens = 1000\nvllm_prompt_tokens = 1\nvllm_chunk_tokens = 100\n"
        "pipeline_comm_s = 0\n";
    struct mc_error error = { 0 };

    memset(p, 0, sizeof(*p));
    faulty_init(&p->faulty, -1);
    p->options.alloc = &p->faulty.alloc;
    p->options.admission = MC_ADMIT_ALL;
    assume_defaults(&p->options.assume);
    if (assume_read(&p->options.assume, assume, sizeof(assume) - 1, &error) != MC_OK)
        fail_msg("%s", error.text);
    const double token = assume_node(&p->options.assume).kv_token_bytes;
    p->options.assume.gpu.net_bytes_per_s = 1000 * token;
    p->options.assume.vram_load_bytes_per_s = 10000 * token;
    p->options.assume.ssd_bytes_per_s = 1000 * token;
    assert_int_equal(sim_cluster_read(cluster, p->options.groups, &p->options.group_count, NULL),
                     MC_OK);
    p->trace.block_tokens = BLOCK;
    p->options.trace = &p->trace;
}

/** A request whose whole blocks are `shared` ones from `family` and then its own. */
static inline void play_add(struct play *p, double arrival_s, uint32_t input, uint32_t output,
                            uint32_t family, uint32_t shared)
{
    const uint32_t count = input / BLOCK;

    assert_true(p->trace.count < REQUESTS_MAX && p->block_count + count <= BLOCKS_MAX);
    p->requests[p->trace.count++] = (struct sim_request){ .arrival_ns = (uint64_t)(arrival_s * 1e9),
                                                          .first_block = p->block_count,
                                                          .block_count = count,
                                                          .input = input,
                                                          .output = output };
    for (uint32_t i = 0; i < count; i++, p->block_count++)
        p->blocks[p->block_count] = i < shared ? family * 64 + i : 1024 + (uint32_t)p->block_count;
    p->trace.requests = p->requests;
    p->trace.blocks = p->blocks;
    p->trace.block_ids = 1024 + BLOCKS_MAX;
}

static inline void play_open(struct play *p)
{
    struct mc_error error = { 0 };

    if (sim_open(&p->options, &p->sim, &error) != MC_OK)
        fail_msg("%s", error.text);
}

static inline const struct sim_record *play_run(struct play *p)
{
    struct mc_error error = { 0 };

    play_open(p);
    if (sim_run(p->sim, UINT32_MAX, &error) != MC_OK)
        fail_msg("%s", error.text);
    p->result = sim_result(p->sim);
    return p->result.records;
}

static inline void play_close(struct play *p)
{
    sim_close(p->sim);
    p->sim = NULL;
    assert_int_equal(p->faulty.held, 0);
}

/** Within a millisecond. */
static inline void assert_at(uint64_t ns, double seconds)
{
    const double off = (double)ns / 1e9 - seconds;

    if (off > 1e-3 || off < -1e-3)
        fail_msg("%.6f s, not %.6f", (double)ns / 1e9, seconds);
}

#endif /* UNIT_SIM_WORLD_H */
