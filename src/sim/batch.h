/*
 * batch.h - the running batch of one instance: continuous batching without looking at every step.
 *
 * Between two changes of who is in it, a batch's steps only grow by the context that each of them adds:
 *
 *     step i of a stretch = d0 + d1 b + d2 (K + i b)          b sequences, K tokens when it began
 *
 * so a stretch of n steps has a closed form, and the simulator jumps from change to change. Changes happen
 * between steps. What a sequence saw is kept as a log of stretches, from which the gaps between its tokens
 * are read when it ends.
 *
 * Life:    batch_init -> batch_join | batch_begin | batch_cut | batch_end | batch_leave -> batch_fini
 * Threads: one.
 * Memory:  of members at init; the log grows by doubling.
 */
#ifndef SIM_BATCH_H
#define SIM_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include <mooncake/sched.h>

struct batch_member {
    uint32_t whom;
    uint32_t waits;     /* 1: its first token comes with the next step */
    uint64_t last_step; /* it leaves when so many steps of the batch are done */
    uint32_t log_first; /* of the stretches whose steps are gaps of its own */
    float skip_s;       /* of the first of them: it was over when this one came */
    uint64_t context; /* its tokens when it joined, less the steps that were done then (may wrap) */
};

struct batch_stretch {
    uint32_t steps;
    float step_s; /* each, on average */
};

struct batch {
    const struct mc_alloc *alloc; /* borrowed */
    double d0, d1, d2;
    struct batch_member *members; /* owned; [members_max] */
    uint32_t count, members_max;
    uint64_t context; /* tokens of all, now */
    uint64_t steps;   /* done */

    bool runs;         /* a stretch is under way */
    uint64_t begin_ns; /* its */
    uint64_t stretch;  /* steps of it */
    double stall_s;    /* its first step takes longer by so much */
    double
        late_s; /* and so much had gone by since the step before: it is in the gap, not in the step */

    struct batch_stretch *log; /* owned; [log_capacity] */
    uint32_t log_count, log_capacity;
};

/** What one sequence saw between its tokens, in seconds. */
struct batch_gaps {
    double mean, worst_tenth, most; /* 0 with one token */
};

mc_status batch_init(struct batch *batch, const struct mc_alloc *alloc, const struct mc_cost *cost,
                     uint32_t members_max);
void batch_fini(struct batch *batch);

/** Between stretches: one more, of `context` tokens, for `steps` >= 1. first: its first step makes its
 * first token, and is no gap. skip_s: so much of the next step's stall was over before. There is room. */
void batch_join(struct batch *batch, uint32_t whom, uint64_t context, uint64_t steps, bool first,
                double skip_s);

/** How many of the members have had no token yet. */
uint32_t batch_waiting(const struct batch *batch);

/** Run until the next one leaves. stall_s: before the first step. late_s: has gone by since the last step
 * already. Not empty. Returns when that is, and in *first_p when the first step will be done. */
uint64_t batch_begin(struct batch *batch, uint64_t now_ns, double stall_s, double late_s,
                     uint64_t *first_p);

/** Somebody waits: end the stretch with the step that is under way. Returns when that is. */
uint64_t batch_cut(struct batch *batch, uint64_t now_ns);

/** The stretch is over. MC_OK or MC_E_NOMEM (of the log). */
mc_status batch_end(struct batch *batch);

/** Take out one who has had all its steps; false: nobody. */
bool batch_leave(struct batch *batch, struct batch_member *member_p);

/** Take out a member, whatever it has had; between stretches. */
void batch_drop(struct batch *batch, uint32_t index);

/** One step of other length (a chunk of a prompt was in it): all members go on by one. */
mc_status batch_step(struct batch *batch, double seconds);

/** The gaps of one who left now. scratch: [log_count]. */
struct batch_gaps batch_gaps(const struct batch *batch, const struct batch_member *member,
                             struct batch_stretch *scratch);

/** What the next step would take with `sequences` and `tokens` more. */
double batch_step_s(const struct batch *batch, uint64_t sequences, uint64_t tokens);

#endif /* SIM_BATCH_H */
