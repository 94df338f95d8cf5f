/*
 * policies.c - placements of the papers' baselines: one instance for prefill and decode, in turn, at random, or
 * where the least work waits.
 */
#include "sim/sim.h"

static bool can(const struct mc_view_instance *i)
{
    return i->role != MC_ROLE_STORE && (i->role & MC_ROLE_PREFILL) != 0;
}

static void choose(const struct mc_view *view, uint64_t index, uint32_t reason,
                   struct mc_decision *d)
{
    if (index == UINT64_MAX) {
        d->kind = MC_DECIDE_REFUSE;
        d->reason = MC_REASON_NO_INSTANCE;
        return;
    }
    d->kind = MC_DECIDE_PLACE;
    d->reason = reason;
    d->prefill = view->instances[index].id;
    if (view->instances[index].role & MC_ROLE_DECODE)
        d->decode = d->prefill;
}

static void place_in_turn(void *state, const struct mc_view *view,
                          const struct mc_sched_request *request, struct mc_decision *d)
{
    uint64_t *last = state, first = UINT64_MAX, next = UINT64_MAX;

    (void)request;
    for (uint64_t i = 0; i < view->count; i++) {
        if (!can(&view->instances[i]))
            continue;
        if (first == UINT64_MAX)
            first = i;
        if (next == UINT64_MAX && view->instances[i].id > *last)
            next = i;
    }
    next = next != UINT64_MAX ? next : first;
    choose(view, next, MC_REASON_TURN, d);
    if (next != UINT64_MAX)
        *last = view->instances[next].id;
}

static void place_at_random(void *state, const struct mc_view *view,
                            const struct mc_sched_request *request, struct mc_decision *d)
{
    uint64_t could = 0, pick = UINT64_MAX;

    (void)state;
    (void)request;
    for (uint64_t i = 0; i < view->count; i++)
        if (can(&view->instances[i])) {
            could++; /* each as likely: the k-th replaces with one chance in k */
            if (view->chance(view, could) % could == 0)
                pick = i;
        }
    choose(view, pick, MC_REASON_CHANCE, d);
}

static void place_least(void *state, const struct mc_view *view,
                        const struct mc_sched_request *request, struct mc_decision *d)
{
    uint64_t best = UINT64_MAX;

    (void)state;
    (void)request;
    for (uint64_t i = 0; i < view->count; i++) {
        const struct mc_view_instance *a = &view->instances[i];
        const struct mc_view_instance *b = best == UINT64_MAX ? NULL : &view->instances[best];

        if (can(a) && (!b || a->running < b->running ||
                       (a->running == b->running && a->queued_tokens < b->queued_tokens)))
            best = i;
    }
    choose(view, best, MC_REASON_LEAST_LOAD, d);
}

const struct mc_policy sim_policies[] = {
    { .name = "coupled-round-robin",
      .summary = "both at one instance, in turn",
      .state_bytes = sizeof(uint64_t),
      .place = place_in_turn },
    { .name = "coupled-random", .summary = "both at one instance, any", .place = place_at_random },
    { .name = "coupled-least-loaded",
      .summary = "both at one instance, the one with the fewest requests",
      .place = place_least },
};
const uint32_t sim_policy_count = sizeof(sim_policies) / sizeof(sim_policies[0]);
