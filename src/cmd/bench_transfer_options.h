/*
 * bench_transfer_options.h - everything that `mooncake bench transfer` can be told: one table, and the
 * sweep that its lists span.
 *
 * Threads: one. Memory: texts are borrowed from arguments and environment. Errors: texts name the flag.
 */
#ifndef CMD_BENCH_TRANSFER_OPTIONS_H
#define CMD_BENCH_TRANSFER_OPTIONS_H

#include "base/setting.h"

/* clang-format off */
#define BENCH_TRANSFER_SETTINGS(X)                                                                  \
    X(transport, "transport", 't', TEXT, "shm", 0, 0, NULL, "LIST", "Cases",                        \
      "self, shm, tcp, or any of them with commas: one case for each.")                             \
    X(op, "op", 0, TEXT, "write", 0, 0, NULL, "LIST", "Cases", "write, read.")                      \
    X(block, "block", 'b', TEXT, "1M", 0, 0, NULL, "LIST", "Cases",                                 \
      "Bytes of one transfer: 64, 4K,64K,1M. With --batch 1 the latency is told too.")              \
    X(batch, "batch", 'n', TEXT, "16", 0, 0, NULL, "LIST", "Cases",                                 \
      "Transfers that are submitted together and waited for together.")                             \
    X(threads, "threads", 0, TEXT, "1", 0, 0, NULL, "LIST", "Cases",                                \
      "Threads that submit, each its own batches.")                                                 \
    X(memory, "memory", 'm', CHOICE, "engine", 0, 0, "engine|attach", "KIND", "Cases",              \
      "The peer's memory: from the engine, which others map; or its own, reached through the "      \
      "kernel (shm).")                                                                              \
    X(checksum, "checksum", 0, BOOL, "false", 0, 0, NULL, NULL, "Cases",                            \
      "Let the engines sum each 64 KiB.")                                                           \
    X(against, "against", 0, CHOICE, "none", 0, 0, "none|raw", "WHAT", "Measuring",                 \
      "raw: the same bytes between the same buffers without the engine, in turns: memcpy, "         \
      "process_vm_*, or as many sockets.")                                                          \
    X(seconds, "seconds", 's', FLOAT, "3", 0.01, 3600, NULL, "X", "Measuring",                      \
      "Time for each side of each case, over all rounds.")                                          \
    X(rounds, "rounds", 'r', U32, "5", 1, 101, NULL, "N", "Measuring",                              \
      "Turns; the figure is their median.")                                                         \
    X(working_set, "working-set", 0, SIZE, "1G", 65536, 1e15, NULL, "SIZE", "Measuring",               \
      "Bytes that are used in turn, both sides together; larger than the caches, or they are "      \
      "measured.")                                                                                  \
    X(streams, "streams", 0, U32, "4", 1, 64, NULL, "N", "Measuring",                               \
      "Sockets of tcp, and of its raw side.")                                                       \
    X(congestion, "congestion", 0, TEXT, "cubic", 0, 0, NULL, "NAME", "Measuring",                  \
      "Congestion control of tcp, and of its raw side.")                                            \
    X(spin, "spin", 0, BOOL, "false", 0, 0, NULL, NULL, "Measuring",                                \
      "Raw sockets are asked again and again instead of slept on, at both ends.")                   \
    X(pin, "pin", 0, BOOL, "true", 0, 0, NULL, NULL, "Measuring",                                   \
      "One thread: this process stays on the first processor, its peer on the next; --no-pin: both "    \
      "where the system puts them.")                                                                \
    X(json, "json", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Output", "Write the figures here, too.")    \
    X(commit, "commit", 0, TEXT, NULL, 0, 0, NULL, "NAME", "Output",                                \
      "Of the tree that was built, for --json.")                                                    \
    X(print_config, "print-config", 0, ACTION, NULL, 0, 0, NULL, NULL, "Other",                     \
      "Print the settings in force, as a config file, and end.")                                    \
    X(help, "help", 'h', ACTION, NULL, 0, 0, NULL, NULL, "Other", "Print this and end.")
/* clang-format on */

struct bench_transfer_options {
    BENCH_TRANSFER_SETTINGS(SETTING_FIELD)
};

enum { SWEEP_MAX = 16 }; /* elements of one list */

enum bench_transport { BENCH_SELF, BENCH_SHM, BENCH_TCP };
enum bench_op { BENCH_WRITE, BENCH_READ };

/** The lists, read. */
struct bench_sweep {
    uint64_t transports[SWEEP_MAX], ops[SWEEP_MAX], blocks[SWEEP_MAX], batches[SWEEP_MAX],
        threads[SWEEP_MAX];
    uint32_t transport_count, op_count, block_count, batch_count, thread_count;
};

/** One point of the sweep. */
struct bench_case {
    enum bench_transport transport;
    enum bench_op op;
    uint64_t block_bytes;
    uint32_t batch, threads;
    bool attach, checksum;
};

/** What was asked for. `{ 0 }` is a valid start. */
struct bench_transfer_request {
    struct bench_transfer_options options;
    struct bench_sweep sweep;
    struct settings settings;
    struct setting_list operands;
    const struct mc_alloc *alloc; /* borrowed */
};

/**
 * Read arguments [1, argc) and environment, and refuse what contradicts itself.
 *
 * Returns MC_OK; MC_E_ARG or MC_E_RANGE: wrong usage; MC_E_NOMEM. bench_transfer_options_fini() is due in
 * every case.
 */
mc_status bench_transfer_options_read(struct bench_transfer_request *request, int argc, char **argv,
                                      char *const *environment, const struct mc_alloc *alloc,
                                      struct mc_error *error);
void bench_transfer_options_fini(struct bench_transfer_request *request);

/** `mooncake help bench`. */
void bench_transfer_options_help(struct buf *out);

/** "shm", "tcp", "self"; "write", "read". */
const char *bench_transport_name(enum bench_transport transport);
const char *bench_op_name(enum bench_op op);

/** "shm write 1M x16", and behind it what else is not the default. */
void bench_case_name(const struct bench_case *c, char name[96]);

#endif /* CMD_BENCH_TRANSFER_OPTIONS_H */
