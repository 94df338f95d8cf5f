/*
 * joins.h - decode placement that keeps joins apart.
 *
 * When a sequence joins a batch, all in it stand still while its KVCache comes into place: the longer its prompt, the
 * longer. Who has just joined is hurt most: few tokens so far, so one long gap is a large part of what it saw; who has
 * been there for long hardly feels it. So of the instances with memory the one is taken where the predicted step is
 * short, nobody else joins at about the time at which this one will, and those who joined lately were like it: long
 * prompts hurt each other then, and short ones nobody.
 */
#ifndef SCHED_JOINS_H
#define SCHED_JOINS_H

#include "sched/place.h"

/** How much longer a step is taken to be, as a factor; 0: it does not count. */
struct joins_weights {
    double apart; /* for each join by a prompt of mean length at the same moment */
    double alike; /* if all who joined lately were unlike it */
    double stall; /* as `apart`, in the TBT that is predicted, where it was chosen */
};

/** A row that decodes, for a request whose parts are predicted in `decision`; of equals the one that prefills; UINT64_MAX:
 * none has memory. */
uint64_t joins_choose(const struct place *place, uint64_t prefill,
                      const struct mc_decision *decision, const struct joins_weights *weights);

/** The share by which who joins there at about the same time makes its steps longer. */
double joins_stall(const struct place *place, uint64_t row, const struct mc_decision *decision,
                   const struct joins_weights *weights);

/** It was placed there. */
void joins_placed(const struct place *place, uint64_t row);

/** How many prompts of mean length, for each instance that decodes, join within about half a second of `at_ns`. */
double joins_crowd(const struct mc_sched *sched, uint64_t at_ns);

/** It joins now; and: it ends, joined or not. To be said before the request changes. */
void joins_begun(struct mc_sched *sched, struct request *request);
void joins_ended(struct mc_sched *sched, struct request *request);

#endif /* SCHED_JOINS_H */
