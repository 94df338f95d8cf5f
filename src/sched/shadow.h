/*
 * shadow.h - what would have become of requests that were refused: were they refused wrongly?
 *
 * A refused request is remembered with where it would have gone and behind which placed request. When that one's
 * prefill has ended, its own would have begun: that time, and its own prefill by what prefills cost then, make the
 * TTFT that it would have had. It is judged against its SLO, and so are the tokens it would have got. Where a queue
 * has an order, those who came later and go before it push it back, as they would have done.
 *
 * Life:    shadows_init -> ... -> shadows_fini
 * Threads: one.
 * Memory:  all at init. When the table is full, a refusal is not judged.
 */
#ifndef SCHED_SHADOW_H
#define SCHED_SHADOW_H

#include <stdbool.h>

#include <mooncake/sched.h>

struct cluster;

struct shadow {
    uint32_t next;            /* behind the same request; while free: the next free one */
    uint32_t prefill, decode; /* instances: cells; they may be others' by now, hence the ids */
    uint64_t prefill_id, decode_id;
    uint64_t arrived_ns, tokens, reused;
    uint64_t other_ns;  /* of TTFT: all but queue and prefill */
    uint64_t order;     /* its place in the queue; 0: behind those who were there */
    double step_factor; /* of a step's cost, to what TBT is held against */
    struct mc_sched_slo slo;
};

struct shadows {
    const struct mc_alloc *alloc; /* borrowed */
    struct shadow *items;         /* owned; [max] */
    uint32_t free, used, max;
    uint64_t judged, met;
};

/** MC_OK or MC_E_NOMEM. */
mc_status shadows_init(struct shadows *shadows, const struct mc_alloc *alloc, uint32_t max);
void shadows_fini(struct shadows *shadows); /* safe on zeroes */

/** Remember; `behind`: cell of the request before it, CLUSTER_NONE: its prefill would begin at once. */
void shadow_add(struct shadows *shadows, struct cluster *cluster, uint64_t now_ns, uint32_t behind,
                const struct shadow *shadow);

/** The request in `cell` is prefilled no more: judge who is behind it. Without `judge`, only forget them. */
void shadow_release(struct shadows *shadows, struct cluster *cluster, uint64_t now_ns,
                    uint32_t cell, bool judge);

#endif /* SCHED_SHADOW_H */
