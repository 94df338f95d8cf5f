/*
 * bench_serve_report.h - what a load showed, as text, as figures for --json, and as a picture.
 *
 * Pure but for the file of the JSON's machine and date. Threads: one.
 */
#ifndef CMD_BENCH_SERVE_REPORT_H
#define CMD_BENCH_SERVE_REPORT_H

#include "cmd/bench_serve_load.h"
#include "cmd/figures.h"

/** What the tally does not know. */
struct bench_run {
    const struct bench_load *load;
    const char *name; /* of the case */
    double cpu_s;     /* of this process, while the load ran */
    uint64_t context; /* tokens; 0: not known */
};

/** The report for people. Look at out->failed. */
void bench_serve_text(const struct bench_run *run, struct buf *out);

/** Rows for --json. */
void bench_serve_figures(const struct bench_run *run, struct bench *bench);

/** One picture: how requests came and went, spreads of TTFT and TBT, the hit ratio over time. */
void bench_serve_picture(const struct bench_run *run, struct buf *out);

#endif /* CMD_BENCH_SERVE_REPORT_H */
