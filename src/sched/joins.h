/*
 * joins.h - decode placement that keeps joins apart.
 *
 * When a sequence joins a batch, all in it stand still while its KVCache comes into place: the longer its prompt, the
 * longer. Who has just joined is hurt most: few tokens so far, so one long gap is a large part of what it saw; who has
 * been there for long hardly feels it. So of the instances with memory the one is taken where the predicted step is
 * short and nobody else joins at about the time at which this one will.
 */
#ifndef SCHED_JOINS_H
#define SCHED_JOINS_H

#include "sched/place.h"

/**
 * A row that decodes, for a request whose parts are predicted in `decision`; UINT64_MAX: none has memory.
 *
 * weight  of a join by a prompt of mean length at the same moment: so much longer is the step taken to be.
 */
uint64_t joins_choose(const struct place *place, const struct mc_decision *decision, double weight);

#endif /* SCHED_JOINS_H */
