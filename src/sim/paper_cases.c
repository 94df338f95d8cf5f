/* paper_cases.c - experiments about costs and caches: what is run, what was published; and the notes of all. Figures are named as in paper.h's papers:
 * F1 .. F15 of the FAST'25 paper, A-F1 .. and A-T1 .. of the earlier report. */
#include <math.h>
#include <stdio.h>

#include "sim/paper.h"
#include "sim/pool.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

const char *const paper_trace_names[PAPER_TRACES] = { "conversation", "synthetic", "tool&agent",
                                                      "arxiv", "16k" };

const struct paper_note paper_notes[] = {
    { "all", "blocks of 512 tokens (the traces have no smaller ones); the store had 256" },
    { "all", "replay at the trace's own speed; the papers name none. F15 fits it exactly" },
    { "B2", "one prefill step batches prompts up to 16384 tokens; a chunked step has 2048 tokens "
            "of prompt" },
    { "B2", "requests go to the vLLM instances in turn; no router is named" },
    { "B2, B9",
      "prompts above 131072 tokens (vllm_context_tokens), of which the synthetic trace has ten, "
      "are "
      "left out for all four systems: F14 ends there, and vLLM's own column in F8 fits without "
      "them "
      "(1.9 % off; 7.4 % with them; conversation, which has none, 1 %). The other experiments have "
      "all prompts" },
    { "B3", "bounds: simulated are whole 512-token blocks; of each prompt up to 511 tokens more "
            "take room "
            "and are not found, or take none and are" },
    { "B4", "the threshold of Algorithm 1 is 1.2, here and wherever its value is not published" },
    { "B5",
      "which local router was used is not said: one that minimises TTFT, the same with 3 M tokens "
      "for all ten nodes together, and one that draws. The published hits are those of the first "
      "with 0.35 to 0.45 M tokens a node" },
    { "B6", "6 prefill and 10 decode nodes: the split of F5 is not published; 8 + 8 beside it" },
    { "B9",
      "8 prefill and 8 decode nodes (F11 shows 8); 16 vLLM instances. Speed 1 for synthetic; "
      "1.53 for conversation, which is not published: of 1 to 2 it brings F1's shares nearest "
      "(largest difference 14 points; 1.35: 25, 1.6: 19)" },
    { "B9",
      "order: plain and prefix are 1 and 0.3 points apart as published. It is what prefix caching "
      "costs the host of vLLM 0.5.1 that puts plain first: vllm_hash_pair_s and "
      "vllm_cached_token_s, "
      "timed in its own scheduler (bench/bench_vllm_account.py)" },
    { "B10",
      "8 prefill and 8 decode nodes; transfers reach the line rate up to 400 Gbps, and a Gbps is "
      "2^30 bits (F13's theoretical times say so). What the decode node has is not sent again, "
      "which no paper says: without (decode_keeps = 0) 24 and 40 Gbps take 3 and 1.5 times as "
      "long, "
      "and the last 150 s of the trace offer more bytes than eight lines of 24 Gbps take" },
    { "B11",
      "ranks are by use over the whole trace; at speed 1, and at 1.35 as in B6: a block that "
      "is one of thousands spreads when its holder happens to be busy" },
    { "+525 %",
      "16k prompts, half of each one of 8 documents; vLLM runs one request at a time (its TBT in "
      "A-F12 shows no batching); limit: P90 of TTFT at most 10 x a lone request's" },
    { "B13",
      "conversation trace, as A-T3's is not at hand; predictions without margin, no room kept for "
      "who comes back (quantile=0.5, bookings=0). 8 + 8 at 2 x is not overloaded here, decoding "
      "least of all; 10 + 3 at 3 x is, in both stages: early rejection refuses less than the "
      "baseline and swings (A-F9), prediction refuses more" },
    { "B13",
      "the published order comes out as the report words it: the load is the mean of the pool, for "
      "early rejection of those who decode now (pool=1), and TBT is what its objective speaks of, "
      "gaps and not steps (gaps=0.5). The objective is 72 ms instead of 100: gaps here are 0.7 to "
      "0.8 of theirs where decoding is short (B8, 10P and 11P), and the speed 3, so that both "
      "stages are at their limit. bench/bench_rejections.py has the other settings" },
    { NULL, NULL },
};

/* ------------------------------------------------------------------------------------ B1: cost model */

static double prefill_s(const struct mc_cost *c, double n, double p)
{
    return c->p0 + c->p1 * (n - p) + c->p2 * (n * n - p * p) + c->p3 * p;
}

static void b1(struct paper *p)
{
    static const double cold[] = { 1.000, 2.053, 4.478, 10.585, 27.512 };
    static const double warm[] = { .135, .227, .406, .882, 2.328 };
    const struct sim_node node = assume_node(&p->assume);
    char name[64];

    for (uint32_t i = 0; i < COUNT(cold); i++) {
        const double n = 8192 << i;

        snprintf(name, sizeof(name), "B1 %uk prefix 0 %%", 8u << i);
        paper_row(p, name, "prefill", "s", cold[i], true, prefill_s(&node.cost, n, 0));
        paper_within(p, PAPER_PERCENT, 5);
        snprintf(name, sizeof(name), "B1 %uk prefix 95 %%", 8u << i);
        paper_row(p, name, "prefill", "s", warm[i], true, prefill_s(&node.cost, n, .95 * n));
        paper_within(p, PAPER_PERCENT, 5);
    }
}

/* ---------------------------------------------------------------------------- B2: prefill GPU seconds */

struct sim_options paper_coupled(const struct paper *p, enum sim_coupled kind)
{
    return (struct sim_options){ .assume = p->assume,
                                 .policy = "coupled-round-robin",
                                 .coupled = kind };
}

/* Of all systems, what vLLM takes; `all`: also what it does not. */
static void b2_row(struct paper *p, const char *system, int coupled, enum paper_trace trace,
                   bool all, double published)
{
    struct sim_options o = { .assume = p->assume };
    char name[64];

    if (coupled >= 0)
        o = paper_coupled(p, (enum sim_coupled)coupled);
    if (all)
        o.assume.vllm_context_tokens = 0;
    else
        o.input_max = (uint32_t)p->assume.vllm_context_tokens;
    snprintf(name, sizeof(name), "B2 %s %s%s", system, paper_trace_names[trace],
             all ? ", all prompts" : "");
    const struct paper_run *r = paper_wants(p, name, trace, o, coupled < 0 ? "8P+8D" : "16C");
    paper_row(p, name, "prefill GPU time", "s", published, r != NULL, r ? r->summary.busy_mean : 0);
    if (!all)
        paper_within(p, PAPER_PERCENT, 10);
}

static void b2(struct paper *p)
{
    static const struct {
        const char *name;
        int coupled; /* -1: Mooncake */
        double published[3];
    } systems[] = { { "mooncake", -1, { 1.062, .733, .527 } },
                    { "vLLM", SIM_PLAIN, { 1.661, 2.022, 1.117 } },
                    { "vLLM prefix", SIM_PREFIX, { 1.523, 1.896, .740 } },
                    { "vLLM chunked", SIM_CHUNKED, { 2.021, 2.436, 1.415 } } };

    for (uint32_t i = 0; i < COUNT(systems); i++)
        for (int t = PAPER_CONVERSATION; t <= PAPER_TOOLAGENT; t++) {
            b2_row(p, systems[i].name, systems[i].coupled, (enum paper_trace)t, false,
                   systems[i].published[t]);
            if (t == PAPER_SYNTHETIC) /* the one with prompts of more than 128k tokens */
                b2_row(p, systems[i].name, systems[i].coupled, (enum paper_trace)t, true,
                       systems[i].published[t]);
        }
}

/* ---------------------------------------------------------------------------------- B3: LRU, one pool */

struct paper_hits {
    double ratio, low, high;
};

/* Whole blocks of 512. What they leave open of smaller ones: the rest of each prompt takes up to 511 tokens of room
 * and none of it is found, or it takes none and all of it is. */
static struct paper_hits hits_of(struct paper *p, const struct sim_trace *trace, uint64_t capacity)
{
    struct pool_hits whole = { 0 }, tails = { 0 };

    if (pool_replay(trace, capacity, TIER_LRU, false, p->alloc, &whole) != MC_OK ||
        pool_replay(trace, capacity, TIER_LRU, true, p->alloc, &tails) != MC_OK)
        p->failed = true;
    const double tokens = whole.tokens ? (double)whole.tokens : 1;
    const double ratio = (double)whole.hit_tokens / tokens, low = (double)tails.hit_tokens / tokens;

    return (struct paper_hits){ .ratio = ratio,
                                .low = low < ratio ? low : ratio,
                                .high = ratio +
                                        (double)trace->count * (trace->block_tokens - 1) / tokens };
}

static void b3(struct paper *p)
{
    static const double capacity[] = { 1e4, 1e5, 1e6, 2e6, 4e6, 5e6, 8e6, 1e7, 5e7, 1e9 };
    static const double published[3][10] = {
        { .0449, .0731, .0866, .1202, .2149, .2471, .2997, .3263, .3983, .4006 },
        { .0004, .0117, .1461, .2345, .3805, .4352, .5447, .5886, .6582, .6582 },
        { .1734, .3627, .3865, .4136, .4839, .5054, .5444, .5608, .5948, .5950 },
    };
    char name[64];

    for (int t = PAPER_CONVERSATION; t <= PAPER_TOOLAGENT && p->reports; t++)
        for (uint32_t i = 0; i < COUNT(capacity); i++) {
            struct paper_hits h = { 0 };

            if (p->traces[t].count)
                h = hits_of(p, &p->traces[t], (uint64_t)capacity[i]);
            snprintf(name, sizeof(name), "B3 %s %g tokens", paper_trace_names[t], capacity[i]);
            paper_row(p, name, "hit ratio", "", published[t][i], p->traces[t].count != 0, h.ratio);
            paper_between(p, h.low, h.high);
        }
}

/* ------------------------------------------------------------------------- B4, B5: global and local cache */

static void hit_and_time(struct paper *p, const char *case_name, const struct paper_run *r,
                         double hit, double busy, enum paper_bound bound)
{
    paper_row(p, case_name, "hit ratio", "", hit, r != NULL, r ? r->summary.hit : 0);
    paper_within(p, bound, 10);
    paper_row(p, case_name, "prefill GPU time", "s", busy, r != NULL, r ? r->summary.busy_mean : 0);
    paper_within(p, bound, 10);
}

static void b4_b5(struct paper *p)
{
    static const double global[3][2] = { { .375, 1.050 }, { .622, .783 }, { .581, .521 } };
    static const double local[3][2] = { { .169, 1.379 }, { .264, 1.497 }, { .420, .703 } };
    char name[64];

    for (int t = PAPER_CONVERSATION; t <= PAPER_TOOLAGENT; t++) {
        struct sim_options o = { .output_max = 1 };
        const enum paper_trace trace = (enum paper_trace)t;

        snprintf(name, sizeof(name), "B4 global %s", paper_trace_names[t]);
        hit_and_time(p, name, paper_wants(p, name, trace, o, "10P+6D"), global[t][0], global[t][1],
                     PAPER_PERCENT);
        o.policy = "local";
        snprintf(name, sizeof(name), "B5 local %s", paper_trace_names[t]);
        hit_and_time(p, name, paper_wants(p, name, trace, o, "10P+6D"), local[t][0], local[t][1],
                     PAPER_FREE);
        o.dram_tokens = (uint64_t)(p->assume.dram_tokens / 10);
        snprintf(name, sizeof(name), "B5 local, 3 M together %s", paper_trace_names[t]);
        hit_and_time(p, name, paper_wants(p, name, trace, o, "10P+6D"), local[t][0], local[t][1],
                     PAPER_FREE);
        o = (struct sim_options){ .output_max = 1,
                                  .policy = "random",
                                  .policy_parameters = "pull=0" };
        snprintf(name, sizeof(name), "B5 local, drawn %s", paper_trace_names[t]);
        hit_and_time(p, name, paper_wants(p, name, trace, o, "10P+6D"), local[t][0], local[t][1],
                     PAPER_FREE);
    }
}

/* ---------------------------------------------------------------------------- B12 .. B16: what else there is */

static void b12(struct paper *p)
{
    static const double blocks[] = { 1e3, 1e4, 3e4, 5e4, 1e5 };
    static const struct {
        const char *name;
        enum tier_policy policy;
        double hit[5];
    } policies[] = { { "LRU", TIER_LRU, { .30, .40, .48, .50, .51 } },
                     { "LFU", TIER_LFU, { .30, .35, .43, .49, .51 } },
                     { "length-aware", TIER_LENGTH, { .30, .35, .42, .48, .50 } } };
    const struct sim_trace *trace = &p->traces[PAPER_ARXIV];
    struct pool_hits hits = { 0 };
    char name[64];

    for (uint32_t i = 0; i < COUNT(policies) && p->reports; i++)
        for (uint32_t k = 0; k < COUNT(blocks); k++) {
            snprintf(name, sizeof(name), "B12 %s %.0fk blocks", policies[i].name, blocks[k] / 1e3);
            if (trace->count && pool_replay(trace, (uint64_t)blocks[k] * trace->block_tokens,
                                            policies[i].policy, false, p->alloc, &hits) != MC_OK)
                p->failed = true;
            paper_row(p, name, "hit ratio", "", policies[i].hit[k], trace->count != 0,
                      hits.blocks ? (double)hits.hit_blocks / (double)hits.blocks : 0);
        }
}

static void b14(struct paper *p)
{
    static const double latency[] = { .034, .158, .373, .653, 1 };
    static const double tokens[] = { 8192, 32768, 65536, 98304, 131072 };
    struct sim_assume assume = p->assume;
    char name[64];

    (void)assume_llm(&assume, "llama2-70b");
    const struct sim_node node = assume_node(&assume);
    for (uint32_t i = 0; i < COUNT(latency); i++) {
        snprintf(name, sizeof(name), "B14 A-F2 %.0fk", tokens[i] / 1024);
        paper_row(p, name, "prefill of 128k's", "", latency[i], true,
                  prefill_s(&node.cost, tokens[i], 0) / prefill_s(&node.cost, tokens[4], 0));
    }
}

/* The bandwidth from which fetching a prefix of 8192 beats computing it: by the paper's own equation 2. */
static void b16(struct paper *p)
{
    static const struct {
        const char *gpu;
        double published;
    } gpus[] = { { "a800", 6 }, { "h800", 19 } };
    const double d = 8192, prefix = 8192;

    for (uint32_t i = 0; i < COUNT(gpus); i++) {
        struct sim_assume assume = p->assume;
        char name[64];

        (void)assume_gpu(&assume, gpus[i].gpu);
        const double flops = assume.gpus * assume.gpu.flops;
        const double bandwidth = flops * 2 * d * 2 / (8 * (4 * prefix * d + 22 * d * d)) / 1e9;
        snprintf(name, sizeof(name), "B16 %s", gpus[i].gpu);
        paper_row(p, name, "break-even bandwidth", "GB/s", gpus[i].published, true, bandwidth);
    }
}

void paper_cases(struct paper *p)
{
    b1(p);
    b2(p);
    b3(p);
    b4_b5(p);
    paper_cluster_cases(p);
    b12(p);
    b14(p);
    b16(p);
}
