/*
 * sim_options.h - everything that `mooncake sim` can be told: one table, and the runs that its lists span.
 *
 * Threads: one. Memory: texts are borrowed from arguments and environment. Errors: texts name the flag.
 */
#ifndef CMD_SIM_OPTIONS_H
#define CMD_SIM_OPTIONS_H

#include "base/setting.h"
#include "cmd/policies.h"
#include "sim/sim.h"

/* clang-format off */
#define SIM_SETTINGS(X)                                                                             \
    X(trace, "trace", 't', TEXT, NULL, 0, 0, NULL, "FILE", "What comes",                            \
      "Requests, one JSON object a line; - is standard input.")                                     \
    X(speed, "speed", 's', TEXT, "1", 0, 0, NULL, "LIST", "What comes",                             \
      "Arrivals come so many times faster: 1,1.5,2.")                                               \
    X(replay, "replay", 0, TEXT, NULL, 0, 0, NULL, "FILE", "What comes",                            \
      "Instead of a trace: what mooncake gateway --record wrote. Its events are given to this "     \
      "scheduler, and its decisions compared, byte for byte.")                                      \
    X(duration, "duration", 0, DURATION, "0s", 0, 1e18, NULL, "TIME", "What comes",                 \
      "Only so much of the trace, by its own time; 0: all.")                                        \
    X(limit, "limit", 0, U64, "0", 0, 0, NULL, "N", "What comes",                                   \
      "Only so many requests; 0: all.")                                                             \
    X(input_max, "input-max", 0, U32, "0", 0, 1e9, NULL, "N", "What comes",                         \
      "Longer prompts are refused; 0: none, or, where instances do both, as assumed of vLLM.")      \
    X(output_max, "output-max", 0, U32, "0", 0, 1e9, NULL, "N", "What comes",                       \
      "Answers are cut to so many tokens; 0: not.")                                                 \
    X(come_back, "come-back", 0, FLOAT, "0", 0, 1, NULL, "SHARE", "What comes",                     \
      "Of refused clients: wait as long as they are told, and ask again, up to three times.")       \
    X(cluster, "cluster", 'c', TEXT, "8P+8D", 0, 0, NULL, "LIST", "Cluster",                        \
      "Instances: P prefill, D decode, C both; 2P4 is two pipelines of four nodes; 1S a pool of one " \
      "node that has all blocks, else each P has its own. 10P+6D,8P+8D,4P+4D+1S.")  \
    X(gpu, "gpu", 0, TEXT, "a800", 0, 0, NULL, "NAME", "Cluster", "Eight of them make a node.")     \
    X(llm, "llm", 0, TEXT, "llama3-70b", 0, 0, NULL, "NAME", "Cluster", "What is served.")          \
    X(assume, "assume", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Cluster",                               \
      "Assumptions of your own, as --print-assumptions writes them.")                               \
    X(dram, "dram", 0, U64, "0", 0, 0, NULL, "TOKENS", "Cluster",                                   \
      "KVCache in the DRAM of a prefill node; 0: as assumed.")                                      \
    X(ssd, "ssd", 0, U64, "0", 0, 0, NULL, "TOKENS", "Cluster",                                     \
      "KVCache on its SSDs, behind the DRAM; 0: none.")                                             \
    X(eviction, "eviction", 0, CHOICE, "lru", 0, 0, "lru|lfu|length-aware|s3-fifo", "POLICY",       \
      "Cluster", "Which blocks go first.")                                                          \
    X(gbps, "gbps", 0, FLOAT, "0", 0, 1e6, NULL, "X", "Cluster",                                    \
      "Line rate of a node; 0: as the GPU's nodes have.")                                           \
    X(change, "change", 0, LIST, NULL, 0, 0, NULL, "TIME:WHAT:N", "Cluster",                        \
      "600s:fail:3, 10m:drain:1 (instances count from 1, in order), 20m:join:1 (one more of "       \
      "group 1). May be repeated; in order of time.")                                               \
    X(retries, "retries", 0, U32, "1", 0, 100, NULL, "N", "Cluster",                                \
      "A request whose instance failed before its first token is placed again so often.")           \
    X(policy, "policy", 'p', TEXT, NULL, 0, 0, NULL, "LIST", "Scheduling",                          \
      POLICIES_HELP " Where instances do both: coupled-round-robin (the default), coupled-random, "   \
      "coupled-least-loaded.")                                                                      \
    X(parameters, "policy-parameters", 0, TEXT, NULL, 0, 0, NULL, "TEXT", "Scheduling",             \
      "Of every policy of the list: threshold=1.2; see docs/scheduler.md.")                                                \
    X(admission, "admission", 'a', TEXT, "all", 0, 0, NULL, "LIST", "Scheduling",                   \
      "all, stages, early, early-system, early-request, default.")                                  \
    X(admission_parameters, "admission-parameters", 0, TEXT, NULL, 0, 0, NULL, "TEXT",              \
      "Scheduling", "Of every admission of the list.")                                              \
    X(replication, "replication", 0, TEXT, "off", 0, 0, NULL, "TEXT", "Scheduling",                 \
      "Spread hot prefixes: on, off, or rate=1,gain=4,asked=8,window=60; see docs/scheduler.md.")   \
    X(check_decode, "check-decode", 0, BOOL, "false", 0, 0, NULL, NULL, "Scheduling",               \
      "The decode instance refuses what would break the TBT SLO when it gets there.")               \
    X(slo_ttft, "slo-ttft", 0, DURATION, "30s", 0, 1e18, NULL, "TIME", "Scheduling",                \
      "To the first token.")                                                                        \
    X(slo_tbt, "slo-tbt", 0, DURATION, "100ms", 0, 1e18, NULL, "TIME", "Scheduling",                \
      "Between tokens: the mean of a request's longest tenth of gaps.")                             \
    X(seed, "seed", 0, U64, "0", 0, 0, NULL, "N", "Scheduling", "Of whatever is drawn.")            \
    X(order, "order", 0, CHOICE, "fifo", 0, 0, "fifo|deadline|shortest", "ORDER", "Instances",      \
      "What a prefill instance takes next.")                                                        \
    X(chunk, "chunk", 0, U32, "0", 0, 1e6, NULL, "TOKENS", "Instances",                             \
      "Prefill in chunks of so many tokens; 0: whole prompts.")                                     \
    X(interleave, "interleave", 0, U32, "1", 1, 1000, NULL, "N", "Instances",                       \
      "Prompts whose chunks take turns.")                                                           \
    X(coupled, "coupled", 0, CHOICE, "plain", 0, 0, "plain|prefix|chunked", "KIND", "Instances",    \
      "How instances work that do both: whole prompts first; the same with a prefix cache; "        \
      "chunks beside the decoding.")                                                                \
    X(threads, "threads", 'j', U32, "0", 0, 1024, NULL, "N", "Running",                             \
      "Runs at the same time; 0: one on each processor.")                                           \
    X(memory, "memory", 0, SIZE, "4G", 1048576, 1e15, NULL, "SIZE", "Running",                      \
      "A trace that would take more than this with its runs is refused.")                           \
    X(sample, "sample", 0, DURATION, "10s", 1e6, 1e18, NULL, "TIME", "Output",                      \
      "Between two points of the time series.")                                                     \
    X(json, "json", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Output", "Write the figures here, too.")    \
    X(csv, "csv", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Output",                                      \
      "Write every request's decision and what became of it.")                                      \
    X(html, "html", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Output",                                    \
      "Write a page with tables and plots; it needs no other file.")                                \
    X(commit, "commit", 0, TEXT, NULL, 0, 0, NULL, "NAME", "Output",                                \
      "Of the tree that was built, for --json.")                                                    \
    X(print_assumptions, "print-assumptions", 0, ACTION, NULL, 0, 0, NULL, NULL, "Other",           \
      "Print what is assumed of GPUs, LLM and instances, and end.")                                 \
    X(print_config, "print-config", 0, ACTION, NULL, 0, 0, NULL, NULL, "Other",                     \
      "Print the settings in force, as a config file, and end.")                                    \
    X(help, "help", 'h', ACTION, NULL, 0, 0, NULL, NULL, "Other", "Print this and end.")
/* clang-format on */

struct sim_settings {
    SIM_SETTINGS(SETTING_FIELD)
};

enum { SIM_SWEEP_MAX = 32, SIM_CHANGES_MAX = 64 };

/** What was asked for. */
struct sim_request_options {
    struct sim_settings options;
    struct settings settings;
    struct setting_list operands;
    const struct mc_alloc *alloc; /* borrowed */
    struct sim_assume assume;
    struct sim_change changes[SIM_CHANGES_MAX];
    uint32_t change_count;
    char texts[4096]; /* of the lists, cut in pieces */
    const char *clusters[SIM_SWEEP_MAX], *policies[SIM_SWEEP_MAX], *admissions[SIM_SWEEP_MAX],
        *speeds[SIM_SWEEP_MAX];
    uint32_t cluster_count, policy_count, admission_count, speed_count;
};

/**
 * Read arguments [1, argc) and environment; read the file of --assume.
 *
 * Returns MC_OK; MC_E_ARG, MC_E_RANGE or MC_E_FORMAT: wrong usage; others: a file, or memory.
 * sim_options_fini() is due in every case.
 */
mc_status sim_options_read(struct sim_request_options *request, int argc, char **argv,
                           char *const *environment, const struct mc_alloc *alloc,
                           struct mc_error *error);
void sim_options_fini(struct sim_request_options *request);

/** How many runs the lists span, and what run i is: its options (but for the trace) and its name. */
uint32_t sim_options_runs(const struct sim_request_options *request);
mc_status sim_options_run(const struct sim_request_options *request, uint32_t index,
                          struct sim_options *options_p, char name[160], struct mc_error *error);

void sim_options_help(struct buf *out);

#endif /* CMD_SIM_OPTIONS_H */
