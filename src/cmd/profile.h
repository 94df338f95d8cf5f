/*
 * profile.h - `--engine timing --profile NAME`: what an instance of numbers stands for.
 *
 * A name is GPU-LLM of the simulator's tables (a800-llama3-70b), else a file of assumptions as `mooncake sim
 * --assume` reads it: both then go by the same numbers.
 */
#ifndef CMD_PROFILE_H
#define CMD_PROFILE_H

#include "base/setting.h"
#include "worker/worker.h"

/* clang-format off */
#define PROFILE_SETTINGS(X)                                                                         \
    X(engine, "engine", 0, CHOICE, "cpu", 0, 0, "cpu|timing", "NAME", "Engine",                     \
      "What computes; timing: nothing does, a model of time says how long it would take. MODEL is then " \
      "needed for its text alone.")                                                                 \
    X(profile, "profile", 0, TEXT, "a800-llama3-70b", 0, 0, NULL, "NAME", "Engine",                 \
      "Of --engine timing: a GPU and an LLM of mooncake sim, or a file as its --assume reads.")     \
    X(kv_scale, "kv-scale", 0, FLOAT, "0.00005", 0, 1, NULL, "X", "Engine",                         \
      "Of --engine timing: bytes of KVCache that are kept and moved, for each that there would be.")
/* clang-format on */

enum { PROFILE_CPU, PROFILE_TIMING }; /* engine */

/** Returns MC_OK; MC_E_ARG (no such name or file), MC_E_FORMAT (the file: the line), MC_E_RANGE (the LLM does
 * not fit), MC_E_IO, MC_E_NOMEM. */
mc_status profile_read(const char *name, double kv_scale, const struct mc_alloc *alloc,
                       struct worker_timing *timing_p, struct mc_error *error);

#endif /* CMD_PROFILE_H */
