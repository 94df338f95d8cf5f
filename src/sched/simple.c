/*
 * simple.c - policies that do not look at the cache when they place: at random, in turn, least loaded.
 *
 * What to compare the others with. They pull the longest prefix there is to wherever they place, unless
 * their parameter says pull=0: then only an instance's own prefix is reused.
 */
#include "sched/policy.h"

struct simple {
    double pull;
    uint64_t last; /* round-robin: the instance that was placed at */
};

static mc_status init(void *state, const char *parameters, struct mc_error *error)
{
    struct simple *s = state;
    const struct policy_parameter known[] = { { "pull", 0, 1, &s->pull } };

    s->pull = 1;
    return policy_read(parameters, known, 1, error);
}

/* The number-th instance that can prefill, or UINT64_MAX. */
static uint64_t nth(const struct mc_view *view, uint64_t number)
{
    for (uint64_t i = 0; i < view->count; i++)
        if (policy_can_prefill(&view->instances[i]) && number-- == 0)
            return i;
    return UINT64_MAX;
}

static void place_at_random(void *state, const struct mc_view *view,
                            const struct mc_sched_request *request, struct mc_decision *decision)
{
    (void)request;
    const struct simple *s = state;
    uint64_t could = 0;

    for (uint64_t i = 0; i < view->count; i++)
        could += policy_can_prefill(&view->instances[i]);
    policy_finish(view, could ? nth(view, view->chance(view, 0) % could) : UINT64_MAX,
                  MC_REASON_CHANCE, s->pull, decision);
}

static void place_in_turn(void *state, const struct mc_view *view,
                          const struct mc_sched_request *request, struct mc_decision *decision)
{
    (void)request;
    struct simple *s = state;
    uint64_t pick = nth(view, 0);

    for (uint64_t i = 0; i < view->count; i++)
        if (policy_can_prefill(&view->instances[i]) && view->instances[i].id > s->last) {
            pick = i;
            break;
        }
    policy_finish(view, pick, MC_REASON_TURN, s->pull, decision);
    if (pick != UINT64_MAX)
        s->last = view->instances[pick].id;
}

static void place_at_least_load(void *state, const struct mc_view *view,
                                const struct mc_sched_request *request,
                                struct mc_decision *decision)
{
    (void)request;
    const struct simple *s = state;
    uint64_t pick = UINT64_MAX;

    for (uint64_t i = 0; i < view->count; i++) {
        const struct mc_view_instance *a = &view->instances[i];
        if (!policy_can_prefill(a))
            continue;
        const struct mc_view_instance *b = pick == UINT64_MAX ? NULL : &view->instances[pick];
        if (!b || a->queue_ns < b->queue_ns ||
            (a->queue_ns == b->queue_ns && a->queued < b->queued))
            pick = i;
    }
    policy_finish(view, pick, MC_REASON_LEAST_LOAD, s->pull, decision);
}

const struct mc_policy policy_random = {
    .name = "random",
    .summary = "any instance, each as likely",
    .state_bytes = sizeof(struct simple),
    .init = init,
    .place = place_at_random,
};

const struct mc_policy policy_round_robin = {
    .name = "round-robin",
    .summary = "one instance after the other",
    .state_bytes = sizeof(struct simple),
    .init = init,
    .place = place_in_turn,
};

const struct mc_policy policy_least_loaded = {
    .name = "least-loaded",
    .summary = "the instance with the shortest queue",
    .state_bytes = sizeof(struct simple),
    .init = init,
    .place = place_at_least_load,
};
