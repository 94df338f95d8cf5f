/*
 * bench_serve_source.h - which requests are sent, one after another, and when: a trace's, or made ones.
 *
 * Life:    bench_source_open -> bench_source_next* -> bench_source_close
 * Threads: one. Memory: a piece of the file and one request. Errors: texts name the file and its line.
 */
#ifndef CMD_BENCH_SERVE_SOURCE_H
#define CMD_BENCH_SERVE_SOURCE_H

#include <stdio.h>

#include "cmd/bench_serve_options.h"
#include "sim/scale.h"

struct bench_source {
    const struct bench_serve_request *request; /* borrowed */
    uint32_t context_tokens;                   /* 0: no bound */
    FILE *file;                                /* of the trace, or NULL */
    trace_reader *reader;
    struct scaler scaler;
    struct scale_run made[2]; /* of a made prompt */
    struct prng times;        /* for --rate */
    double at_s;              /* when the next is due, of --rate */
    uint64_t count;           /* requests so far */
    char *piece;              /* owned; what was read of the file */
};

/** context_tokens: what the server takes; 0: not known. MC_OK, MC_E_NOT_FOUND, MC_E_IO or MC_E_NOMEM. */
mc_status bench_source_open(struct bench_source *source, const struct bench_serve_request *request,
                            uint32_t context_tokens, struct mc_error *error);

/** Safe on `{ 0 }`. */
void bench_source_close(struct bench_source *source);

/** The next request; its runs are valid until the one after it. MC_OK, MC_E_NOT_FOUND (no more: the trace, or
 * --limit, or --duration is over) or an error of the file. */
mc_status bench_source_next(struct bench_source *source, struct scaled *scaled_p,
                            struct mc_error *error);

#endif /* CMD_BENCH_SERVE_SOURCE_H */
