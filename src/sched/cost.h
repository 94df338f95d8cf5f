/*
 * cost.h - what work costs an instance: as it was given (struct mc_cost), or learnt from what it did.
 *
 * Prefill, step and links are each given if any of their coefficients is, else learnt. What is not known
 * yet is borrowed from another instance by whoever asks (view.h), and if nobody knows, priced by
 * cost_nominal: every token the same, so that "least time" becomes "least load".
 *
 * Values; one thread. Times are seconds.
 */
#ifndef SCHED_COST_H
#define SCHED_COST_H

#include <stdbool.h>

#include <mooncake/sched.h>

#include "sched/fit.h"

/** Links of one machine and between machines have nothing in common. */
enum cost_link { COST_LOCAL, COST_REMOTE };

/** How much slower than its fit an instance is just now: a fit is slow to learn of a neighbour on its cores. */
struct pace {
    double ratio;     /* moving mean of observed / fit; 0: 1 */
    uint64_t last_ns; /* it fades from then on */
};

struct cost {
    struct mc_cost given;
    struct fit prefill; /* p1, p2, p3, p0 */
    struct fit step;    /* d0, d1, d2 */
    struct pace prefill_pace, step_pace;
    struct fit link[2]; /* 1 / bytes_per_s, t0; by enum cost_link, of what comes in */
};

extern const struct cost cost_nominal;

/** False: a coefficient is negative or not a finite number. */
bool cost_is_sane(const struct mc_cost *given);

/** Forget what was learnt. */
void cost_init(struct cost *cost, const struct mc_cost *given);

bool cost_knows_prefill(const struct cost *cost);
bool cost_knows_step(const struct cost *cost);
bool cost_knows_link(const struct cost *cost, enum cost_link link);

/** What a cost is made of, for who evaluates it often: with the features of cost_prefill_features() it is
 *     (((p[0] + p[1] f[0]) + p[2] f[1]) + p[3] f[2]) + p[4]    and    (s[0] + s[1] sequences) + s[2] context
 * to the last bit. */
void cost_prefill_terms(const struct cost *cost, double terms_p[5]);
void cost_step_terms(const struct cost *cost, double terms_p[3]);

/** n tokens, the first p <= n of them reused. */
double cost_prefill(const struct cost *cost, uint64_t n, uint64_t p);
double cost_step(const struct cost *cost, uint64_t sequences, uint64_t context);
double cost_transfer(const struct cost *cost, enum cost_link link, uint64_t bytes);

/** A row that is to be learnt says how it is now. `seconds` it took. Before it is learnt. */
void cost_pace_prefill(struct cost *cost, uint64_t now_ns, const double features[4],
                       double seconds);
void cost_pace_step(struct cost *cost, uint64_t now_ns, uint64_t sequences, uint64_t context,
                    double seconds);

/** Factors of cost_prefill() and cost_step() now; of any pace. */
double cost_pace(const struct pace *pace, uint64_t now_ns);

/** For who has many of them: a pace is 1 + its share x what is left of all shares now, to the last bit. A share stays
 * as it is while the pace does and the epoch does, some eighteen minutes. */
uint64_t cost_pace_epoch(uint64_t now_ns);
double cost_pace_share(const struct pace *pace, uint64_t epoch);
double cost_pace_left(uint64_t now_ns);

double cost_prefill_pace(const struct cost *cost, uint64_t now_ns);
double cost_step_pace(const struct cost *cost, uint64_t now_ns);

/** What a prefill costs is linear in these four. */
static inline void cost_prefill_features(uint64_t n, uint64_t p, double f[4])
{
    const double length = (double)n, reused = (double)p;

    f[0] = length - reused;
    f[1] = length * length - reused * reused;
    f[2] = reused;
    f[3] = 1;
}
double cost_prefill_of(const struct cost *cost, const double features[4]);

/** Learn; a duration of 0 says nothing. What is given is not learnt. */
void cost_learn_prefill_row(struct cost *cost, const double features[4], uint64_t duration_ns);
void cost_learn_prefill(struct cost *cost, uint64_t n, uint64_t p, uint64_t duration_ns);
void cost_learn_step(struct cost *cost, uint64_t sequences, uint64_t context, uint64_t duration_ns);
void cost_learn_transfer(struct cost *cost, enum cost_link link, uint64_t bytes,
                         uint64_t duration_ns);

/** Relative half width of what may be wrong with a prefill or a step. */
double cost_prefill_band(const struct cost *cost);
double cost_step_band(const struct cost *cost);

/** Has enough been seen of it, or was it given, to refuse by? */
bool cost_trusts_prefill(const struct cost *cost, uint64_t rows);
bool cost_trusts_step(const struct cost *cost, uint64_t rows);

/** Nanoseconds, rounded, at most UINT64_MAX / 4: sums of a few do not wrap. */
static inline uint64_t cost_ns(double seconds)
{
    const double ns = seconds * 1e9 + 0.5, most = (double)(UINT64_MAX / 4);

    if (ns >= most)
        return UINT64_MAX / 4;
    return ns > 0 ? (uint64_t)(int64_t)ns : 0; /* signed: one instruction */
}

#endif /* SCHED_COST_H */
