/*
 * sim.h - a cluster in virtual time: a trace in, what became of every request out.
 *
 * The scheduler is the one that decides live (mooncake/sched.h), called through its events; only instances,
 * links and memory are models. A run is a function of its options: the same ones give the same bytes, on any
 * machine, in any thread.
 *
 * Blocks for reuse are at the prefill instances, each its own, or in a pool of nodes that only hold them, from
 * which every one is pulled: what `mooncake serve` has.
 *
 *     arrives -> decided -> (pull of the prefix) -> prefill -> KVCache to the decode node -> its VRAM
 *             -> joins the batch -> first token -> ... -> last token
 *
 * Life:    sim_open -> sim_run* -> sim_result -> sim_close
 * Threads: a simulation belongs to one thread; several may run at once over one trace.
 * Memory:  from the allocator given; the trace and the texts of the options are borrowed until close.
 * Errors:  open says what of the options is wrong; a run fails only for want of memory.
 */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include "sim/assume.h"
#include "sim/batch.h"
#include "sim/tier.h"

/* ------------------------------------------------------------------------------------------ trace */

struct sim_request {
    uint64_t arrival_ns;
    uint64_t first_block;   /* of trace.blocks */
    uint32_t block_count;   /* its whole blocks: block_count <= input / block_tokens */
    uint32_t input, output; /* tokens, >= 1 */
};

/** Requests by arrival. Blocks are numbers below block_ids; an equal number is an equal whole prefix. */
struct sim_trace {
    const struct sim_request *requests; /* [count] */
    const uint32_t *blocks;
    uint32_t count, block_ids, block_tokens;
};

/* ---------------------------------------------------------------------------------------- options */

/** How an instance that does both works: the baselines of the papers. */
enum sim_coupled { SIM_PLAIN, SIM_PREFIX, SIM_CHUNKED };

/** What a prefill instance takes next. */
enum sim_order { SIM_FIFO, SIM_DEADLINE, SIM_SHORTEST };

enum sim_change_kind { SIM_FAIL, SIM_DRAIN, SIM_JOIN };

struct sim_group {
    uint32_t count;
    uint32_t role;   /* enum mc_role; STORE: a pool, of which there is one at most */
    uint32_t stages; /* nodes of one pipeline, or of the pool; 0 means 1 */
};

struct sim_change {
    uint64_t at_ns;
    enum sim_change_kind kind;
    uint32_t instance; /* FAIL, DRAIN: from 0, in order of the groups; JOIN: the group it is like */
};

enum { SIM_GROUPS_MAX = 8, SIM_WATCHED_MAX = 4, SIM_SAMPLES_MAX = 1 << 15 };

/** What a run takes for each request and for each different block, about; and its summary. */
enum { SIM_REQUEST_BYTES = 512, SIM_BLOCK_BYTES = 128 };

/** What is 0 has its default, but for alloc, trace and groups. */
struct sim_options {
    const struct mc_alloc *alloc;
    const struct sim_trace *trace;
    struct sim_assume assume; /* assume_defaults() */
    struct sim_group groups[SIM_GROUPS_MAX];
    uint32_t group_count;
    const struct sim_change *changes; /* [change_count], by time */
    uint32_t change_count;

    const char *policy,
        *policy_parameters; /* as in struct mc_sched_options; besides: sim_policies */
    enum mc_admission admission;
    const char *admission_parameters;
    const char *replication; /* as in struct mc_sched_options */
    bool check_decode; /* the decode node refuses what would break the TBT SLO when it gets there */
    uint64_t slo_ttft_ns, slo_tbt_ns;
    double speed; /* arrivals come so many times faster; default 1 */
    uint64_t seed;

    enum sim_order order;
    uint32_t chunk_tokens; /* of a prefill that is chunked; 0: whole prompts */
    uint32_t interleave;   /* requests whose chunks take turns; default 1 */
    enum sim_coupled coupled;

    uint64_t dram_tokens; /* of a node; default: assume.dram_tokens */
    uint64_t ssd_tokens;  /* of a node; default: none */
    enum tier_policy eviction;
    double net_gbps; /* line rate of a node; default: as the GPU's row says */
    uint32_t
        input_max; /* longer prompts are refused; 0: none are, or, where instances do both, those
                            above assume.vllm_context_tokens */
    uint32_t output_max; /* answers are cut to it; 0: not */
    uint32_t retries;    /* a request that lost its instance is placed again so often */
    double come_back; /* share of clients that wait as told when they are refused, and ask again */
    uint32_t come_back_max; /* so often at most; default 3 */
    uint64_t
        sample_ns; /* time series; default 10 s; twice as long when there are SIM_SAMPLES_MAX */
    uint32_t watched[SIM_WATCHED_MAX]; /* blocks whose replicas are counted in the series */
    uint32_t watched_count;
};

/* ---------------------------------------------------------------------------------------- results */

enum sim_outcome {
    SIM_PENDING,
    SIM_FINISHED,
    SIM_REFUSED,      /* at arrival, by the scheduler */
    SIM_REFUSED_LATE, /* after its prefill: that was in vain */
    SIM_LOST,         /* its instance died, and so did its further attempts */
    SIM_OUTCOMES
};

extern const char *const sim_outcome_names[SIM_OUTCOMES];

/** What became of one request. Times are absolute; 0: it did not come to that. */
struct sim_record {
    uint64_t arrival_ns, asked_ns; /* asked: the last time; TTFT counts from then */
    uint64_t prefill_begin_ns, prefill_end_ns, moved_ns, join_ns, first_token_ns, end_ns;
    uint64_t predicted_ns,
        predicted_tbt_ns; /* time to the first token and between tokens, at the decision */
    uint64_t
        alone_ns; /* TTFT with the longest prefix there was anywhere, no queue and no transfer */
    double score, busy_s;                /* busy: of the prefill instance, all its nodes */
    float tbt_mean, tbt_worst, tbt_most; /* seconds; worst: mean of its longest tenth of gaps */
    uint32_t input, output, reused, pulled;
    uint32_t prefill, decode, holder;            /* instances from 0; UINT32_MAX: none */
    uint16_t outcome, reason, attempts, returns; /* returns: it was refused and came back */
};

/** The cluster at a moment. */
struct sim_sample {
    uint64_t ns;
    uint32_t waiting, prefilling, moving, decoding; /* requests */
    uint32_t finished, refused;                     /* so far */
    double queue_s; /* mean over prefill instances: until a new request could begin */
    double step_s;  /* mean over decode instances: of the next step, with one more */
    double prefill_load, decode_load;   /* the same against the SLOs; 0 without */
    uint64_t hit_tokens, prompt_tokens; /* so far */
    uint32_t replicas[SIM_WATCHED_MAX];
};

struct sim_result {
    const struct sim_record *records; /* [record_count], in order of the trace */
    const struct sim_sample *samples; /* [sample_count] */
    uint32_t record_count, sample_count;
    uint64_t end_ns;        /* the last event */
    uint64_t events;        /* of the simulator */
    double moved_bytes;     /* between nodes */
    double wasted_s;        /* prefill of requests that did not finish */
    double gaps_late;       /* share of all gaps between tokens that are over the TBT SLO */
    uint64_t gaps[128];     /* of all gaps: count by sim_gap_bucket() */
    uint64_t copied_blocks; /* by replication */
    struct mc_sched_stats sched;
};

/** Gaps are counted in 128 buckets, each 8 % wider than the one before, from 1 ms. The upper end of one: */
double sim_gap_upper_s(uint32_t bucket);
uint32_t sim_gap_bucket(double seconds);

typedef struct sim sim; /* opaque */

/** MC_OK; MC_E_ARG, MC_E_RANGE, MC_E_NOT_FOUND, MC_E_UNSUPPORTED: the options; MC_E_NOMEM. */
MC_MUST_USE mc_status sim_open(const struct sim_options *options, sim **sim_p,
                               struct mc_error *error);

/** Run until `requests` more of the trace have arrived, or to the end. MC_PENDING: there is more; MC_OK: the
 * end; MC_E_NOMEM; MC_E_CORRUPT: a law of conservation does not hold, which is a bug (the text says which). */
MC_MUST_USE mc_status sim_run(sim *sim, uint32_t requests, struct mc_error *error);

/** Valid until close; complete after the end. */
struct sim_result sim_result(const sim *sim);

/** NULL is allowed. */
void sim_close(sim *sim);

/** "10P+6D", "16C", "2P4+8D" (pipelines of 4 nodes), "4P+4D+2S" (a pool of two nodes that has the blocks,
 * and prefill instances none): MC_OK, or MC_E_FORMAT and what is wrong. */
mc_status sim_cluster_read(const char *text, struct sim_group *groups, uint32_t *count_p,
                           struct mc_error *error);

/** Placement policies of the papers that are no scheduler's: "coupled-...", for instances that do both. */
extern const struct mc_policy sim_policies[];
extern const uint32_t sim_policy_count;

#endif /* SIM_SIM_H */
