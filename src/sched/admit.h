/*
 * admit.h - who is let in: what is predicted for a request held against its SLO, at arrival.
 *
 * A placement that the policy chose is refused when the upper end of its predicted TTFT is over the SLO, or when
 * tokens would come too slowly with those who will be decoding there when its prefill ends (the load now says
 * little: it is one prefill old by then, and a door that looks at it swings). Without an SLO nobody is refused.
 *
 * Soft: a learnt cost refuses nobody until enough was observed; what it would have refused is said and counted.
 * And nothing latches: an instance that has been idle for a while gets a request although it would be refused, if
 * an error of the model could be the reason (PROBE_...), and what is learnt of errors fades (learn.h).
 *
 * Who is refused gets a time (booking.h), and others leave room for those who are due.
 */
#ifndef SCHED_ADMIT_H
#define SCHED_ADMIT_H

#include "sched/booking.h"
#include "sched/cluster.h"
#include "sched/learn.h"
#include "sched/shadow.h"

struct place;

struct admit {
    enum mc_admission mode; /* settled: no default */
    double threshold, observations, quantile, retry_s, with_bookings, pool;
    /* > 0: TBT is the mean of the longest tenth of gaps, where that is told, and this the share of
     * those before that kept what is held against the objective. */
    double gaps;
    const struct mc_length_predictor *predictor; /* borrowed */
    void *predictor_state;                       /* owned by the scheduler */

    struct bands ttft, tbt;      /* observed over predicted */
    struct quantiles ttft_error; /* |predicted - observed| / observed */
    struct usual other;          /* of TTFT besides queue, pull, prefill and what follows it */
    struct usual_line handover;  /* from the prefill's end to the first token */
    double stay_s, output;       /* means of requests that finished: time in decode, tokens */
    struct bookings bookings;
    struct shadows shadows;
};

/** Read "name=number,..."; ours: the defaults for `conductor`, which predicts more closely. MC_OK or MC_E_ARG. */
mc_status admit_init(struct admit *admit, const struct mc_sched_options *options, bool ours,
                     struct mc_error *error);

/** The tables. MC_OK or MC_E_NOMEM. */
mc_status admit_take_memory(struct admit *admit, const struct mc_alloc *alloc);
void admit_fini(struct admit *admit); /* safe on zeroes */

/** A request comes: has it come back as it was told to? Sets that in the decision. */
void admit_arrive(struct place *place, struct mc_decision *decision);

/** Is anybody refused for an objective at all, and does this request have one? */
bool admit_is_on(const struct place *place);

/** Is it let in? False: the decision is a refusal now. decode as above. */
bool admit_lets_in(struct place *place, uint64_t prefill, uint64_t decode,
                   struct mc_decision *decision);

/** It is refused, for whatever reason. */
void admit_turned_away(struct place *place, const struct mc_decision *decision);

/** What becomes of a placed one, for the record of its cell. */
void admit_placed(const struct place *place, const struct mc_decision *decision,
                  struct request *request);

/** Its first token came; it ended, whole if so. Before the cluster takes that in. */
void admit_first_token(struct mc_sched *sched, struct request *request);
void admit_finished(struct mc_sched *sched, struct request *request,
                    const struct mc_sched_progress *end);

#endif /* SCHED_ADMIT_H */
