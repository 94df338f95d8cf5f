/*
 * algorithm1.c - the paper's Algorithm 1: place where queue, transfer and prefill add up to the least.
 *
 * For each instance that can prefill, the longest prefix anywhere is worth pulling if it is more than
 * `threshold` times as long as the instance's own; otherwise its own prefix is used. Where it has none at
 * all, anything is worth pulling. Of equals the one that has waited longest for a request is taken: else the
 * same few would have everything while there is little to do, and no prefix would spread.
 */
#include "sched/policy.h"

struct algorithm1 {
    double threshold; /* 0: not set */
    double overlap;   /* 1: a pull goes on while the request waits in the queue */
};

static const double THRESHOLD = 1.2;

static mc_status init(void *state, const char *parameters, struct mc_error *error)
{
    struct algorithm1 *a = state;
    const struct policy_parameter known[] = {
        { "threshold", 1, 1e9, &a->threshold },
        { "overlap", 0, 1, &a->overlap },
    };

    a->threshold = THRESHOLD;
    return policy_read(parameters, known, 2, error);
}

struct option {
    uint64_t ns;
    uint64_t holder; /* UINT64_MAX: nothing to pull */
};

/* What an instance would pull and compute, whatever its queue. */
struct cost_of {
    uint64_t own;
    uint32_t kind; /* 0: it holds for no other */
    uint64_t holder, transfer_ns, prefill_ns;
};

static struct cost_of ask(const struct algorithm1 *a, const struct mc_view *view, uint64_t index,
                          uint64_t tokens)
{
    const struct mc_view_instance *p = &view->instances[index];
    const uint64_t best = view->best_matched_tokens, own = p->matched_tokens;
    struct cost_of c = { .own = own,
                         .kind = view->kinds ? view->kinds[index] : 0,
                         .holder = UINT64_MAX };

    if (best > own && (own == 0 || (double)best / (double)own > a->threshold))
        c.holder = view->holder(view, index, best);
    if (c.holder != UINT64_MAX)
        c.transfer_ns = view->transfer_ns(view, c.holder, index, best - own);
    c.prefill_ns = view->prefill_ns(view, index, tokens, c.holder == UINT64_MAX ? own : best);
    return c;
}

/* Most instances are alike: they have nothing of it, or the same part, and what was said of the one before
 * them holds. */
static bool holds_for(const struct cost_of *c, const struct mc_view *view, uint64_t index)
{
    const struct mc_view_instance *p = &view->instances[index];

    return c->kind != 0 && c->kind == view->kinds[index] && c->own == p->matched_tokens;
}

static bool is_better(const struct mc_view *view, uint64_t a, struct option of_a, uint64_t b,
                      struct option of_b)
{
    if (b == UINT64_MAX || of_a.ns != of_b.ns)
        return b == UINT64_MAX || of_a.ns < of_b.ns;
    return view->instances[a].last_ns < view->instances[b].last_ns;
}

static void place(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision)
{
    const struct algorithm1 *a = state;
    const struct mc_view_instance *instances = view->instances;
    const uint64_t count = view->count;
    const bool overlaps = a->overlap >= 0.5;
    struct option least = { UINT64_MAX, UINT64_MAX };
    struct cost_of last[2] = { { .kind = 0 } };
    uint64_t pick = UINT64_MAX;

    for (uint64_t i = 0; i < count; i++) {
        const struct mc_view_instance *p = &instances[i];
        struct cost_of *c = &last[p->matched_tokens != 0];

        if (!policy_can_prefill(p))
            continue;
        if (!holds_for(c, view, i)) {
            if (pick != UINT64_MAX && p->queue_ns > least.ns)
                continue; /* it cannot be better */
            *c = ask(a, view, i, request->tokens);
        }
        const uint64_t in_turn = c->transfer_ns + p->queue_ns;
        const uint64_t at_once = c->transfer_ns < p->queue_ns ? p->queue_ns : c->transfer_ns;
        const struct option option = { (overlaps ? at_once : in_turn) + c->prefill_ns, c->holder };
        if (is_better(view, i, option, pick, least)) {
            least = option;
            pick = i;
        }
    }
    if (pick == UINT64_MAX) {
        decision->kind = MC_DECIDE_REFUSE;
        decision->reason = MC_REASON_NO_INSTANCE;
        return;
    }
    const uint64_t own = view->instances[pick].matched_tokens;
    policy_choose(view, pick,
                  least.holder != UINT64_MAX                    ? MC_REASON_PULL_PREFIX
                  : own > 0 && own == view->best_matched_tokens ? MC_REASON_LOCAL_PREFIX
                                                                : MC_REASON_LEAST_TTFT,
                  decision);
    if (least.holder != UINT64_MAX) {
        decision->holder = view->instances[least.holder].id;
        decision->pull_tokens = view->best_matched_tokens;
    }
    decision->score = (double)least.ns / 1e9;
}

const struct mc_policy policy_algorithm1 = {
    .name = "algorithm1",
    .summary =
        "least predicted time to the first token: queue, pull and prefill (paper, Algorithm 1)",
    .state_bytes = sizeof(struct algorithm1),
    .init = init,
    .place = place,
};
