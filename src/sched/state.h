/* state.h - the scheduler's insides, shared by sched.c (events) and place.c (decisions). One thread. */
#ifndef SCHED_STATE_H
#define SCHED_STATE_H

#include "kv/index.h"
#include "sched/admit.h"
#include "sched/calendar.h"
#include "sched/cluster.h"
#include "sched/fastest.h"
#include "sched/pane.h"
#include "sched/replicate.h"

struct mc_sched {
    const struct mc_alloc *alloc; /* borrowed */
    struct cluster cluster;
    kv_index *index;       /* owned; its holders are the cluster's cells */
    uint8_t *pooled;       /* owned; [instances_max]: by cell, 1 for store nodes */
    uint32_t pool_size;    /* how many these are */
    struct kv_match match; /* its arrays owned; [instances_max], by cell */
    struct panes panes;
    struct fastest fastest;
    uint32_t *row_cells; /* the last view's: its pane's */
    kv_index *coming;    /* owned; of prompts that are not computed yet; NULL: not asked for */
    struct kv_match coming_match; /* likewise */
    struct pane *coming_pane;     /* whose rows say so; NULL: none */

    const struct mc_policy *policy; /* borrowed */
    void *policy_state;             /* owned */
    struct admit admit;
    struct replicate replicate;
    struct mc_sched_slo slo;
    uint64_t seed, block_tokens;

    double mean_tokens;        /* of the prompts that came, moving */
    struct calendar *calendar; /* owned; of all joins; NULL: not asked for */

    uint64_t now_ns;
    bool has_decision;
    struct mc_decision decision;    /* of this step, if has_decision */
    uint32_t aborted, aborted_last; /* requests to tell of: cells, through `next` */
    struct mc_sched_stats stats;
};

/** Decide on a request: fills sched->decision, and takes a placement into the cluster. There is room. */
void sched_decide(mc_sched *sched, const struct mc_sched_request *request);

/** Reserved fields are: what a later release means by them is not known here. */
static inline bool sched_all_zero(const uint64_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (numbers[i] != 0)
            return false;
    return true;
}

/** How bytes come from one instance to another. */
enum cost_link sched_link(const struct instance *from, const struct instance *to);

#endif /* SCHED_STATE_H */
