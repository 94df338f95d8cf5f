/*
 * conductor.h - what the scheduler does besides for the policy `conductor`.
 */
#ifndef SCHED_CONDUCTOR_H
#define SCHED_CONDUCTOR_H

/** Of its state: how much joins are kept apart (joins.h); 0: not. */
double conductor_apart(const void *state);

#endif /* SCHED_CONDUCTOR_H */
