/* conductor.h - what the scheduler asks of the policy `conductor` besides a place to prefill. */
#ifndef SCHED_CONDUCTOR_H
#define SCHED_CONDUCTOR_H

#include "sched/joins.h"

/** How it chooses where to decode; `state` is the policy's. */
const struct joins_weights *conductor_joins(const void *state);

#endif /* SCHED_CONDUCTOR_H */
