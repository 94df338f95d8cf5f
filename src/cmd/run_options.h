/*
 * run_options.h - everything that `mooncake run` can be told: one table.
 *
 * Threads: one. Memory: texts are borrowed from arguments and environment; the config file's text is
 * owned. Errors: texts name flag, variable or line.
 */
#ifndef CMD_RUN_OPTIONS_H
#define CMD_RUN_OPTIONS_H

#include "base/setting.h"

/* clang-format off */
#define RUN_SETTINGS(X)                                                                             \
    X(prompt, "prompt", 'p', TEXT, NULL, 0, 0, NULL, "TEXT", "Prompt",                              \
      "The prompt; - reads it from standard input.")                                                \
    X(file, "file", 'f', TEXT, NULL, 0, 0, NULL, "FILE", "Prompt",                                  \
      "The prompt is this file, to its last byte; - reads standard input.")                         \
    X(chat, "chat", 0, BOOL, "false", 0, 0, NULL, NULL, "Prompt",                                   \
      "Talk through the model's chat template: one turn with -p or -f, else a conversation; Ctrl-C " \
      "stops an answer, Ctrl-D ends.")                                                              \
    X(system, "system", 0, TEXT, NULL, 0, 0, NULL, "TEXT", "Prompt",                                \
      "The conversation's system message, with --chat.")                                            \
    X(raw, "raw", 0, BOOL, "false", 0, 0, NULL, NULL, "Prompt",                                     \
      "Add nothing to the prompt, not even BOS: it spells its own special tokens.")                 \
    X(max_tokens, "max-tokens", 'n', U32, "512", 0, 16777216, NULL, "N", "Answer",                  \
      "End after N tokens; 0: where the context is full.")                                          \
    X(min_tokens, "min-tokens", 0, U32, "0", 0, 16777216, NULL, "N", "Answer",                      \
      "Do not end before N tokens, by end-of-text or a stop string.")                               \
    X(temperature, "temperature", 't', FLOAT, "0", 0, 100, NULL, "X", "Answer",                     \
      "0 is greedy, the likeliest token each time, whatever generation_config.json says; 1 is the " \
      "model's own distribution.")                                                                  \
    X(top_k, "top-k", 0, U32, "0", 0, 16777216, NULL, "N", "Answer",                                \
      "Choose among the N likeliest tokens; 0: all.")                                               \
    X(top_p, "top-p", 0, FLOAT, "1", 0, 1, NULL, "X", "Answer",                                     \
      "Choose among the likeliest tokens that together have this probability; 0 and 1: all.")       \
    X(seed, "seed", 0, U64, "0", 0, 0, NULL, "N", "Answer",                                         \
      "Where chance begins: the same seed gives the same answer.")                                  \
    X(stop, "stop", 0, LIST, NULL, 0, 0, NULL, "TEXT", "Answer",                                    \
      "End where the answer says this, which is not shown; may be given up to 16 times.")           \
    X(ignore_eos, "ignore-eos", 0, BOOL, "false", 0, 0, NULL, NULL, "Answer",                       \
      "Never choose the model's end-of-text tokens.")                                               \
    X(special, "special", 0, BOOL, "false", 0, 0, NULL, NULL, "Answer",                             \
      "Show special tokens as their text.")                                                         \
    X(logprobs, "logprobs", 0, U32, "0", 0, 20, NULL, "N", "Answer",                                \
      "With --json: log-probabilities of each token and of the N likeliest in its place.")          \
    X(json, "json", 0, BOOL, "false", 0, 0, NULL, NULL, "Output",                                   \
      "Print one line of JSON at the end, in the shape of an OpenAI completion, instead of text.")  \
    X(timing, "timing", 0, BOOL, "false", 0, 0, NULL, NULL, "Output",                               \
      "Print times, tokens per second, GFLOP/s and GB/s to standard error, and their share of the "   \
      "machine's limits, measured first.")                                                          \
    X(context, "context", 0, U32, "0", 0, 16777216, NULL, "N", "Engine",                            \
      "Tokens of prompt and answer together, at most what the model was made for; 0: that.")        \
    X(threads, "threads", 0, U32, "0", 0, 1024, NULL, "N", "Engine",                                \
      "0: one for each processor. The answer does not depend on it.")                               \
    X(chunk, "chunk", 0, U32, "512", 16, 65536, NULL, "N", "Engine",                                \
      "Tokens of the prompt in one step, a multiple of 16. The answer does not depend on it.")      \
    X(kernel, "kernel", 0, CHOICE, "auto", 0, 0, "auto|ref|avx2|avx512|avx512-bf16", "NAME",        \
      "Engine", "The code that computes; auto: the best that this processor has.")                  \
    X(kv_dtype, "kv-dtype", 0, CHOICE, "auto", 0, 0, "auto|f32|bf16", "NAME", "Engine",             \
      "How keys and values are kept; auto: as the model's weights.")                                \
    X(config, "config", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Other",                                 \
      "Read settings from this file, too.")                                                         \
    X(print_config, "print-config", 0, ACTION, NULL, 0, 0, NULL, NULL, "Other",                     \
      "Print the settings in force, as a config file, and end.")                                    \
    X(help, "help", 'h', ACTION, NULL, 0, 0, NULL, NULL, "Other", "Print this and end.")
/* clang-format on */

struct run_options {
    RUN_SETTINGS(SETTING_FIELD)
};

/** What was asked for, and what must live as long as it does. `{ 0 }` is a valid start. */
struct run_request {
    struct run_options options;
    struct settings settings;
    struct setting_list operands; /* [0] is MODEL, unless help or print_config is set */
    char *config_text;            /* owned */
    const struct mc_alloc *alloc; /* borrowed */
};

/**
 * Read arguments [1, argc), environment and config file, and refuse what contradicts itself.
 *
 * Returns MC_OK; MC_E_ARG or MC_E_RANGE: wrong usage; others: the config file could not be read, or
 * memory is out. run_options_fini() is due in every case.
 */
mc_status run_options_read(struct run_request *run, int argc, char **argv, char *const *environment,
                           const struct mc_alloc *alloc, struct mc_error *error);

void run_options_fini(struct run_request *run);

/** `mooncake help run`. */
void run_options_help(struct buf *out);

/** The name that mc_engine_open() knows, NULL for auto. */
const char *run_options_kernel(const struct run_options *options);

#endif /* CMD_RUN_OPTIONS_H */
