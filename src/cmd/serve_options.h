/* serve_options.h - what `mooncake serve` can be told: one table; most of it is handed on to the roles. */
#ifndef CMD_SERVE_OPTIONS_H
#define CMD_SERVE_OPTIONS_H

#include "cmd/door.h"
#include "cmd/limits.h"
#include "cmd/keys.h"
#include "cmd/profile.h"
#include "cmd/role.h"

/* clang-format off */
#define SERVE_SETTINGS(X)                                                                           \
    X(listen, "listen", 0, TEXT, "127.0.0.1:8000", 0, 0, NULL, "HOST:PORT", "Cluster",              \
      "Where the gateway answers HTTP; port 0: any.")                                               \
    X(prefill, "prefill", 0, U32, "1", 0, 64, NULL, "N", "Cluster",                                 \
      "Workers that compute prompts.")                                                              \
    X(decode, "decode", 0, U32, "1", 0, 64, NULL, "N", "Cluster",                                   \
      "Workers that compute answers.")                                                              \
    X(both, "both", 0, U32, "0", 0, 64, NULL, "N", "Cluster", "Workers that do both.")              \
    X(nodes, "nodes", 0, U32, "1", 0, 64, NULL, "N", "Cluster",                                     \
      "Processes that lend memory to the pool; 0: no pool.")                                        \
    X(pool_memory, "pool-memory", 0, SIZE, "512M", 1048576, 1e15, NULL, "SIZE", "Cluster",             \
      "Memory that each node lends.")                                                               \
    X(kv_memory, "kv-memory", 0, SIZE, "256M", 0, 0, NULL, "SIZE", "Cluster",                       \
      "Working memory for the KVCache of each worker; of timing ones, what the profile says.")     \
    X(transports, "transports", 0, TEXT, NULL, 0, 0, NULL, "LIST", "Cluster",                       \
      "How KVCache moves, by preference: shm,tcp; default: all that work here.")                    \
    X(model_name, "model-name", 0, TEXT, NULL, 0, 0, NULL, "NAME", "Cluster",                       \
      "What clients call the model; default: the last part of its path.")                           \
    X(record, "record", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Cluster",                                 \
      "Write every event of the scheduler and what it decides here: for mooncake sim --replay.")    \
    X(debug_headers, "debug-headers", 0, BOOL, "false", 0, 0, NULL, NULL, "Cluster",                \
      "Obey X-Mooncake-Bar, by which a client bars a worker from its request.")                     \
    X(threads, "threads", 0, U32, "0", 0, 1024, NULL, "N", "Engine",                                \
      "Of each worker; 0: one for each processor.")                                                 \
    X(sequences, "sequences", 0, U32, "256", 1, 4096, NULL, "N", "Engine",                          \
      "Requests computed at a time by each worker.")                                                \
    X(queue, "queue", 0, U32, "1024", 1, 65536, NULL, "N", "Engine",                                \
      "Requests that each worker takes to prefill, queued ones included.")                          \
    X(chunk, "chunk", 0, U32, "512", 16, 65536, NULL, "N", "Engine",                                \
      "Tokens of a prompt in one step, a multiple of 16.")                                          \
    X(context, "context", 0, U32, "0", 0, 16777216, NULL, "N", "Engine",                            \
      "Tokens of prompt and answer together; 0: what the model was made for.")                      \
    X(kernel, "kernel", 0, CHOICE, "auto", 0, 0, "auto|ref|avx2|avx512|avx512-bf16", "NAME",        \
      "Engine", "The code that computes; auto: the best that this processor has.")                  \
    X(kv_dtype, "kv-dtype", 0, CHOICE, "auto", 0, 0, "auto|f32|bf16", "NAME", "Engine",             \
      "How keys and values are kept; auto: as the model's weights.")                                \
    X(stall, "stall", 0, DURATION, "2s", 0, 0, NULL, "TIME", "Supervision",                         \
      "A role that a signal has stopped for so long is killed and started again; 0: never.")        \
    X(grace, "grace", 0, DURATION, "10s", 0, 0, NULL, "TIME", "Supervision",                        \
      "How long roles may take to finish what runs when asked to end.")
/* clang-format on */

struct serve_options {
    ROLE_SETTINGS(SETTING_FIELD)
    SERVE_SETTINGS(SETTING_FIELD)
    PROFILE_SETTINGS(SETTING_FIELD)
    LIMITS_SETTINGS(SETTING_FIELD)
    DOOR_SETTINGS(SETTING_FIELD)
    KEYS_SETTINGS(SETTING_FIELD)
};

/** The command line of `mooncake serve`. */
extern const struct role_table serve_table;

#endif /* CMD_SERVE_OPTIONS_H */
