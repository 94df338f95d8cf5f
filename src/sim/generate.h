/*
 * generate.h - make traces: either fitted to a given one or from a few numbers.
 *
 * What is learnt of a trace is how its requests come (gaps between time stamps, requests on one stamp), how long
 * prompts and answers are, and how prompts begin: anew, with the prefix of a family (the first block, Zipf), or as
 * a session that goes on: a request of a certain age, blocks of whose prompt come again. Each is kept as a
 * table of quantiles, from which is drawn; what is made is a function of fit and seed.
 *
 * Threads: one. Memory: fitting, about 40 bytes for each request and block; making, 24 for each request and 8
 * for each block.
 */
#ifndef SIM_GENERATE_H
#define SIM_GENERATE_H

#include "base/buf.h"
#include "sim/sim.h"
#include "sim/trace.h"

enum {
    FIT_POINTS = 65,
    FIT_SESSION_BLOCKS = 2 /* of a prompt that come again; fewer are a family's */
};

/** Values at shares 0, 1/64, ... 1; between them, linear. */
struct quantiles {
    double at[FIT_POINTS];
};

struct trace_fit {
    struct quantiles gap_s, burst; /* between two time stamps; requests on one */
    struct quantiles start_tokens; /* prompts that begin anew or with a family */
    struct quantiles grown_tokens; /* what a session adds to what it had */
    struct quantiles kept, age_s; /* blocks of an earlier prompt that come again, 0: all; its age */
    struct quantiles start_output, session_output;
    double sessions,
        families; /* share of requests that go on; of the others: with a known first block */
    uint32_t family_count; /* first blocks that were used twice or more */
    double zipf;           /* their popularity: rank ^ -zipf */
};

/** Learn. trace: more than one request. MC_OK, MC_E_ARG or MC_E_NOMEM. */
mc_status trace_fit_make(const struct sim_trace *trace, const struct mc_alloc *alloc,
                         struct trace_fit *fit_p);

/** From a few numbers: a chat service of `rate` requests a second, Poisson. */
void trace_fit_plain(struct trace_fit *fit, double rate, double input_mean, double output_mean,
                     double sessions);

/** One request of a generated trace. MC_OK goes on; anything else ends it and is returned. */
typedef mc_status trace_take(void *user, const struct trace_request *request);

/** Make `count` requests. MC_OK, MC_E_NOMEM, or what `take` returned. */
mc_status trace_generate(const struct trace_fit *fit, uint32_t count, uint64_t seed,
                         const struct mc_alloc *alloc, trace_take *take, void *user);

/** A request as a line of a trace file. */
void trace_line(const struct trace_request *request, struct buf *out);

#endif /* SIM_GENERATE_H */
