/*
 * bench_serve_options.h - everything that `mooncake bench serve` can be told: one table.
 *
 * Threads: one. Memory: texts are borrowed from arguments and environment. Errors: texts name the flag.
 */
#ifndef CMD_BENCH_SERVE_OPTIONS_H
#define CMD_BENCH_SERVE_OPTIONS_H

#include "base/setting.h"

/* clang-format off */
#define BENCH_SERVE_SETTINGS(X)                                                                     \
    X(url, "url", 'u', TEXT, "http://127.0.0.1:8000", 0, 0, NULL, "URL", "Server",                  \
      "The server, without /v1.")                                                                   \
    X(model, "model", 'm', TEXT, NULL, 0, 0, NULL, "NAME", "Server",                                \
      "The model to ask; else the first that /v1/models lists.")                                    \
    X(api_key, "api-key", 0, TEXT, NULL, 0, 0, NULL, "KEY", "Server",                               \
      "Sent as a bearer token. Better in MC_API_KEY: flags are seen by others.")                    \
    X(endpoint, "endpoint", 'e', CHOICE, "completions", 0, 0, "completions|chat", "NAME", "Server", \
      "/v1/completions or /v1/chat/completions.")                                                   \
    X(context, "context", 0, U32, "0", 0, 1e9, NULL, "N", "Server",                                 \
      "Tokens of prompt and answer together; 0: as /v1/models says.")                               \
    X(timeout, "timeout", 0, DURATION, "10m", 1e6, 1e15, NULL, "TIME", "Server",                    \
      "A request that takes longer has failed.")                                                    \
    X(trace, "trace", 't', TEXT, NULL, 0, 0, NULL, "FILE", "Requests",                              \
      "Requests of this trace (JSON Lines: timestamp, input_length, output_length, hash_ids).")     \
    X(scale, "scale", 0, CHOICE, "block", 0, 0, "block|none", "HOW", "Requests",                    \
      "block: each 512 tokens of the trace become one page, answers shrink alike; none: as it is.") \
    X(page_tokens, "page-tokens", 0, U32, "16", 1, 512, NULL, "N", "Requests",                      \
      "Tokens of the server's pages: for --scale block, and for the replay.")                       \
    X(input_tokens, "input-tokens", 0, U32, "512", 1, 16777216, NULL, "N", "Requests",              \
      "Without a trace: tokens of each prompt.")                                                    \
    X(output_tokens, "output-tokens", 0, U32, "32", 1, 16777216, NULL, "N", "Requests",             \
      "Without a trace: tokens of each answer.")                                                    \
    X(shared_prefix, "shared-prefix", 0, U32, "0", 0, 16777216, NULL, "N", "Requests",              \
      "Without a trace: so many first tokens are the same in all prompts.")                         \
    X(prompt, "prompt", 0, CHOICE, "tokens", 0, 0, "tokens|text", "KIND", "Requests",               \
      "tokens: lists of token ids; text: words, one for each token, for servers that take no ids.") \
    X(token_ids, "token-ids", 0, TEXT, NULL, 0, 0, NULL, "LOW-HIGH", "Requests",                    \
      "Ids to make prompts of; else what the server is found to take.")                             \
    X(ignore_eos, "ignore-eos", 0, BOOL, "true", 0, 0, NULL, NULL, "Requests",                      \
      "Ask for answers of exactly the wanted length.")                                              \
    X(seed, "seed", 0, U64, "1", 0, 0, NULL, "N", "Requests",                                       \
      "The same seed makes the same prompts and the same times of --rate.")                         \
    X(speed, "speed", 'x', FLOAT, "1", 1e-6, 1e6, NULL, "X", "Load",                                \
      "Divide the trace's times by this.")                                                          \
    X(rate, "rate", 'r', FLOAT, "0", 0, 1e6, NULL, "R", "Load",                                     \
      "Poisson arrivals, so many a second, instead of the trace's times.")                          \
    X(concurrency, "concurrency", 'c', U32, "0", 0, 65536, NULL, "N", "Load",                       \
      "Closed loop: always so many requests at once; the next goes when one is answered.")          \
    X(duration, "duration", 'd', DURATION, "0s", 0, 1e15, NULL, "TIME", "Load",                     \
      "Send nothing later than this; 0s: to the trace's end, without a trace 30 s.")                \
    X(limit, "limit", 'n', U64, "0", 0, 0, NULL, "N", "Load",                                       \
      "Send no more requests than this; 0: no such limit.")                                         \
    X(in_flight, "in-flight", 0, U32, "0", 0, 1000000, NULL, "N", "Load",                           \
      "No more at once, whatever the times say: what waits here is late; 0: what descriptors allow.")  \
    X(retry, "retry", 0, U32, "0", 0, 1000, NULL, "N", "Load",                                      \
      "Try a refused request again so often, each time after what Retry-After said.")               \
    X(retry_share, "retry-share", 0, FLOAT, "1", 0, 1, NULL, "X", "Load",                           \
      "Only this share of the requests does so.")                                                   \
    X(slo_ttft, "slo-ttft", 0, DURATION, "0s", 0, 1e15, NULL, "TIME", "Objectives",                 \
      "Time to the first token that counts as goodput; 0s: any.")                                   \
    X(slo_tbt, "slo-tbt", 0, DURATION, "0s", 0, 1e15, NULL, "TIME", "Objectives",                   \
      "Time between tokens that counts as goodput; 0s: any.")                                       \
    X(slo_tbt_by, "slo-tbt-by", 0, CHOICE, "mean", 0, 0, "mean|longest|max", "WHICH", "Objectives", \
      "Held against a request's mean gap, the mean of its longest tenth of gaps, or its largest.")  \
    X(send_slo, "send-slo", 0, BOOL, "false", 0, 0, NULL, NULL, "Objectives",                       \
      "Tell the server both, as x-slo-ttft-ms and x-slo-tpot-ms.")                                  \
    X(json, "json", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Output", "Write the figures here, too.")    \
    X(csv, "csv", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Output", "Write a line for each request.")    \
    X(svg, "svg", 0, TEXT, NULL, 0, 0, NULL, "FILE", "Output", "Draw the figures, as one picture.") \
    X(name, "case", 0, TEXT, NULL, 0, 0, NULL, "TEXT", "Output",                                    \
      "What the figures are called in --json; else the load in words.")                             \
    X(commit, "commit", 0, TEXT, NULL, 0, 0, NULL, "NAME", "Output",                                \
      "Of the tree that was built, for --json.")                                                    \
    X(help, "help", 'h', ACTION, NULL, 0, 0, NULL, NULL, "Other", "Print this and end.")
/* clang-format on */

struct bench_serve_options {
    BENCH_SERVE_SETTINGS(SETTING_FIELD)
};

enum { BENCH_COMPLETIONS, BENCH_CHAT };        /* endpoint */
enum { BENCH_TOKENS, BENCH_TEXT };             /* prompt */
enum { BENCH_SCALE_BLOCK, BENCH_SCALE_AS_IS }; /* scale */

/** How requests come. */
enum bench_arrival { BENCH_BY_TRACE, BENCH_BY_RATE, BENCH_CLOSED };

/** What was asked for. `{ 0 }` is a valid start. */
struct bench_serve_request {
    struct bench_serve_options options;
    enum bench_arrival arrival;
    uint32_t token_low, token_high; /* both 0: to be found */
    struct settings settings;
    struct setting_list operands;
    const struct mc_alloc *alloc; /* borrowed */
};

/**
 * Read arguments [1, argc) and environment, and refuse what contradicts itself.
 *
 * Returns MC_OK; MC_E_ARG or MC_E_RANGE: wrong usage; MC_E_NOMEM. bench_serve_options_fini() is due in every
 * case.
 */
mc_status bench_serve_options_read(struct bench_serve_request *request, int argc, char **argv,
                                   char *const *environment, const struct mc_alloc *alloc,
                                   struct mc_error *error);
void bench_serve_options_fini(struct bench_serve_request *request);

/** `mooncake bench serve --help`. */
void bench_serve_options_help(struct buf *out);

#endif /* CMD_BENCH_SERVE_OPTIONS_H */
