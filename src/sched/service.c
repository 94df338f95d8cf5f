/* service.c - from ends of prompts to rows of the cost model. */
#include "sched/service.h"

static const uint64_t TOGETHER_NS = 2000000; /* ends of one step reach us within */
enum { TOGETHER_PART = 8 }; /* and within such a part of the time that they were inside */

static void learn(struct service *s, struct cost *cost)
{
    if (s->open) {
        cost_pace_prefill(cost, s->last_ns, s->features, (double)s->ns / 1e9);
        cost_learn_prefill_row(cost, s->features, s->ns);
    }
    s->open = false;
}

uint64_t service_end(struct service *s, struct cost *cost, uint64_t now_ns, uint64_t n, uint64_t p,
                     uint64_t inside_ns)
{
    const uint64_t gap_ns = s->prompts ? now_ns - s->last_ns : UINT64_MAX;
    const uint64_t ns = inside_ns < gap_ns ? inside_ns : gap_ns;
    double features[4];

    if (n <= p || inside_ns == 0)
        return 0;
    cost_prefill_features(n, p, features);
    if (s->open && ns < inside_ns && ns <= TOGETHER_NS && ns <= inside_ns / TOGETHER_PART) {
        for (int i = 0; i < 4; i++)
            s->features[i] += features[i];
        s->ns += ns;
    } else {
        learn(s, cost);
        for (int i = 0; i < 4; i++)
            s->features[i] = features[i];
        s->ns = ns;
        s->open = true;
    }
    s->last_ns = now_ns;
    s->prompts++;
    return ns;
}

void service_settle(struct service *s, struct cost *cost, uint64_t now_ns)
{
    if (s->open && now_ns - s->last_ns > TOGETHER_NS)
        learn(s, cost);
}
