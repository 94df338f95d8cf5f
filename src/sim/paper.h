/*
 * paper.h - the papers' experiments again: published | simulated | ratio.
 *
 * Every experiment is a function that asks for runs and makes rows of their summaries. It is called twice: to
 * plan, when runs are only collected, and to report, when they are there. So what is simulated and what is
 * compared stand in one place, and runs can go on in parallel between the two.
 *
 *     paper_init -> paper_plan -> paper_options, sim_*, paper_take for each run, in any order -> paper_report
 *                -> paper_fini
 *
 * One cost model and one table of assumptions (assume.h) serve all; what an experiment sets is what its paper
 * says, or, where it does not, what the row's note names.
 *
 * Threads: paper_take() of different runs may be called by different threads; else one.
 * Memory:  the summaries of all runs.
 */
#ifndef SIM_PAPER_H
#define SIM_PAPER_H

#include "sim/requests.h"
#include "sim/summary.h"

enum paper_trace {
    PAPER_CONVERSATION,
    PAPER_SYNTHETIC,
    PAPER_TOOLAGENT,
    PAPER_ARXIV,
    PAPER_LONG, /* made here: 16k prompts, Poisson */
    PAPER_TRACES
};

/** The files' names, as published; NULL for what is made here. */
extern const char *const paper_files[PAPER_TRACES];

enum { PAPER_RUNS_MAX = 256, PAPER_ROWS_MAX = 512 };

/** How near to `published` a row is to be. */
enum paper_bound {
    PAPER_FREE,    /* nobody has said */
    PAPER_PERCENT, /* of it */
    PAPER_POINTS,  /* of a share in percent */
    PAPER_BLOCKS,  /* between low and high: what the size of blocks leaves open */
    PAPER_ORDER,   /* 1: the rows above come in the order that is the metric */
};

struct paper_row {
    char name[64]; /* "B6 local/global" */
    const char *metric, *unit;
    double published, simulated; /* published NaN: nothing was */
    double low,
        high;    /* bounds of `simulated`, where what is not known leaves some; else both as it */
    bool absent; /* the trace is not at hand: there is nothing but `published` */
    enum paper_bound bound;
    double limit; /* of PERCENT and POINTS */
};

/** What a run leaves besides its summary. */
struct paper_run {
    char name[64];
    enum paper_trace trace;
    struct sim_options options;
    struct summary summary;
    uint32_t replicas_most[SIM_WATCHED_MAX], replicas_end[SIM_WATCHED_MAX];
    double replicas_when_s[SIM_WATCHED_MAX]; /* most was reached first */
    double prefill_load[2], decode_load[2],
        correlation; /* mean and deviation over the samples; of both */
    bool done;
};

struct paper_note {
    const char *experiment, *text;
};

struct paper {
    const struct mc_alloc *alloc; /* borrowed */
    struct sim_assume assume;
    struct sim_trace traces[PAPER_TRACES];          /* count 0: not at hand */
    struct requests made;                           /* owned */
    uint32_t ranked[PAPER_TRACES][SIM_WATCHED_MAX]; /* blocks ranked 10, 100, 1000, 10000 by use */
    struct paper_run *runs;                         /* owned; [PAPER_RUNS_MAX] */
    uint32_t run_count, next;
    struct paper_row *rows; /* owned; [PAPER_ROWS_MAX] */
    uint32_t row_count;
    bool reports; /* the second pass */
    bool failed;
};

/** traces: [PAPER_TRACES], count 0 where absent; borrowed until fini. MC_OK or MC_E_NOMEM. */
mc_status paper_init(struct paper *paper, const struct sim_assume *assume,
                     const struct sim_trace *traces, const struct mc_alloc *alloc);
void paper_fini(struct paper *paper);

/** Collect the runs. MC_OK or MC_E_NOMEM. */
mc_status paper_plan(struct paper *paper);

/** What run i of run_count is. */
const struct sim_options *paper_options(const struct paper *paper, uint32_t run);

/** Run i is over. MC_OK or MC_E_NOMEM. */
mc_status paper_take(struct paper *paper, uint32_t run, const struct sim_result *result);

/** Fill rows. All runs are over. MC_OK or MC_E_NOMEM. */
mc_status paper_report(struct paper *paper);

/** Is it within its bound? True where there is none. */
bool paper_row_holds(const struct paper_row *row);

/** What the papers leave open and was chosen here; `experiment` NULL ends them. */
extern const struct paper_note paper_notes[];

/* --------------------------------------------------------------------------- for the files of experiments */

/** `{ ... }` of what differs from 8 x A800, LLaMA3-70B, 1 x. NULL: the trace is not at hand, or this is the first
 * pass. */
const struct paper_run *paper_wants(struct paper *paper, const char *name, enum paper_trace trace,
                                    struct sim_options options, const char *cluster);
/** A row of the second pass; `there` false: absent. */
void paper_row(struct paper *paper, const char *name, const char *metric, const char *unit,
               double published, bool there, double simulated);
/** The row made last is to be so near. */
void paper_within(struct paper *paper, enum paper_bound bound, double limit);
/** Likewise: `published` is to be between the two. */
void paper_between(struct paper *paper, double low, double high);
/** One that says whether others come in the published order: `metric`. */
void paper_order(struct paper *paper, const char *name, const char *metric, bool there, bool holds);
/** A name for each trace, and the options of a baseline. */
extern const char *const paper_trace_names[PAPER_TRACES];
struct sim_options paper_coupled(const struct paper *paper, enum sim_coupled kind);

/** All experiments, and those of paper_clusters.c among them. */
void paper_cases(struct paper *paper);
void paper_cluster_cases(struct paper *paper);

#endif /* SIM_PAPER_H */
