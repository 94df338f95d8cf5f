/* service.c - from ends of prompts to rows of the cost model. */
#include "sched/service.h"

static const double TOGETHER =
    0.3;                    /* of what it should have cost: less, and it was in the step before */
enum { TOGETHER_PART = 8 }; /* the same, of the time it was inside, while costs are not known */
static const uint64_t SETTLE_NS = 50000000;

static void learn(struct service *s, struct cost *cost)
{
    if (s->open) {
        cost_pace_prefill(cost, s->last_ns, s->features, (double)s->ns / 1e9);
        cost_learn_prefill_row(cost, s->features, s->ns);
    }
    s->open = false;
}

/* Did it end in the step of the one before? Hand-offs come between, so their ends do not reach us at once. */
static bool ended_with_last(const struct service *s, const struct cost *cost, uint64_t now_ns,
                            const double features[4], uint64_t ns, uint64_t inside_ns)
{
    if (!s->open || ns >= inside_ns)
        return false;
    if (!cost_knows_prefill(cost))
        return ns <= inside_ns / TOGETHER_PART;
    return (double)ns / 1e9 <
           TOGETHER * cost_prefill_pace(cost, now_ns) * cost_prefill_of(cost, features);
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
    if (ended_with_last(s, cost, now_ns, features, ns, inside_ns)) {
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

bool service_is_settled(const struct service *s, uint64_t now_ns)
{
    return !s->open || now_ns - s->last_ns > SETTLE_NS;
}

void service_settle(struct service *s, struct cost *cost, uint64_t now_ns)
{
    if (service_is_settled(s, now_ns))
        learn(s, cost); /* nothing, if it keeps none back */
}
