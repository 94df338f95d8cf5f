/*
 * service.h - how long an instance works for a prompt, seen from when prompts end.
 *
 * A worker takes prompts into its engine together, so the time that one spends there is mostly spent waiting for
 * those before it. What it costs is the time since the one before it ended; prompts that end in the same step
 * are learnt as one row (their features add up, as the cost is linear in them).
 *
 * Values; one thread.
 */
#ifndef SCHED_SERVICE_H
#define SCHED_SERVICE_H

#include "sched/cost.h"

struct service {
    bool open;            /* a row is kept back: the next end may belong to it */
    double features[4];   /* of cost_prefill_features(), added up */
    uint64_t ns, last_ns; /* what they took; when the last of them ended */
    uint64_t prompts;
};

/** A prompt of n tokens, p of them reused, ended at `now_ns` and was in the engine for `inside_ns`. Returns what it
 * cost alone. */
uint64_t service_end(struct service *service, struct cost *cost, uint64_t now_ns, uint64_t n,
                     uint64_t p, uint64_t inside_ns);

/** Would service_settle() do nothing ever after, or all that it will? */
bool service_is_settled(const struct service *service, uint64_t now_ns);

/** Time has passed: learn what no other end can belong to. */
void service_settle(struct service *service, struct cost *cost, uint64_t now_ns);

#endif /* SCHED_SERVICE_H */
