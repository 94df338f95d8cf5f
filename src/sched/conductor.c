/*
 * conductor.c - our own policy: Algorithm 1, where prompts that begin alike meet and joins do not.
 *
 *     score = max(queue, pull) + prefill + half of the prefill        the least is taken
 *
 * A prefix that waits to be computed somewhere counts as there already: what comes meanwhile is placed behind it,
 * instead of being computed again elsewhere. A pull goes on while the request waits, and is priced like that; it is taken
 * where it is done sooner with it, not by a ratio of lengths. Half of the own work counts once more: it is time that those
 * who come next have not got. Who has less time left goes first: the order is the time by which it should be there. With
 * one objective for all that is the order of arrival; so what was predicted for a request is not changed by those who come
 * later, and those who are refused are the ones who could not have been in time.
 *
 * Where it is decoded: joins.h. What TBT is held against: the longest gaps, learnt (admit.c, gaps=1).
 *
 * docs/scheduler.md tells what each of these gives, and what was tried and left out.
 */
#include "sched/conductor.h"

#include "sched/policy.h"

struct conductor {
    double coming; /* 0: only what is there counts */
    struct joins_weights joins;
};

static const double HORIZON_S = 30; /* what is late, where no SLO says so */
static const double WORK = 0.5;

const struct joins_weights *conductor_joins(const void *state)
{
    return &((const struct conductor *)state)->joins;
}

static mc_status init(void *state, const char *parameters, struct mc_error *error)
{
    struct conductor *c = state;
    const struct policy_parameter known[] = {
        { "coming", 0, 1, &c->coming },
        { "apart", 0, 100, &c->joins.apart },
        { "alike", 0, 100, &c->joins.alike },
    };

    c->coming = 1;
    c->joins = (struct joins_weights){ .apart = 0.3, .alike = 0.3 };
    return policy_read(parameters, known, sizeof(known) / sizeof(known[0]), error);
}

/* What one instance would do with it. */
struct option {
    uint64_t index; /* UINT64_MAX: none */
    uint64_t holder, reuse;
    uint64_t wait_ns, work_ns; /* until it could begin; its prefill */
    double score_s;
};

/* Its own prefix, one that is on its way there, or the longest there is: with which it is done first. */
static void choose_prefix(const struct conductor *c, const struct mc_view *view, uint64_t tokens,
                          struct option *o)
{
    const struct mc_view_instance *p = &view->instances[o->index];
    const uint64_t best = view->best_matched_tokens;

    o->holder = UINT64_MAX;
    o->reuse = c->coming >= 0.5 && p->coming_tokens > p->matched_tokens ? p->coming_tokens
                                                                        : p->matched_tokens;
    o->work_ns = view->prefill_ns(view, o->index, tokens, o->reuse);
    if (best <= o->reuse)
        return;
    const uint64_t holder = view->holder(view, o->index, best);
    if (holder == UINT64_MAX)
        return;
    const uint64_t pull = view->transfer_ns(view, holder, o->index, best - p->matched_tokens);
    const uint64_t begin = pull > o->wait_ns ? pull : o->wait_ns;
    const uint64_t work = view->prefill_ns(view, o->index, tokens, best);
    if (begin + work >= o->wait_ns + o->work_ns)
        return;
    o->holder = holder;
    o->reuse = best;
    o->wait_ns = begin;
    o->work_ns = work;
}

static struct option option_at(const struct conductor *c, const struct mc_view *view,
                               uint64_t index, uint64_t tokens)
{
    struct option o = { .index = index, .wait_ns = view->instances[index].queue_ns };

    choose_prefix(c, view, tokens, &o);
    o.score_s = ((double)(o.wait_ns + o.work_ns) + WORK * (double)o.work_ns) / 1e9;
    return o;
}

/* Of equals, as in Algorithm 1, the one that has waited longest for a request. */
static bool is_better(const struct mc_view *view, const struct option *a, const struct option *b)
{
    if (b->index == UINT64_MAX || a->score_s != b->score_s)
        return b->index == UINT64_MAX || a->score_s < b->score_s;
    return view->instances[a->index].last_ns < view->instances[b->index].last_ns;
}

static struct option choose(const struct conductor *c, const struct mc_view *view, uint64_t tokens)
{
    struct option best = { .index = UINT64_MAX };

    for (uint64_t i = 0; i < view->count; i++) {
        if (!policy_can_prefill(&view->instances[i]))
            continue;
        const struct option o = option_at(c, view, i, tokens);
        if (is_better(view, &o, &best))
            best = o;
    }
    return best;
}

/* By when it should be there. */
static uint64_t order_of(const struct mc_view *view, const struct mc_sched_request *request)
{
    const uint64_t at = request->arrived_ns, now = view->now_ns;
    const uint64_t most = view->slo.ttft_ns ? view->slo.ttft_ns : (uint64_t)(HORIZON_S * 1e9);

    return (at != 0 && at < now ? at : now) + most;
}

static void place(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision)
{
    const struct option o = choose(state, view, request->tokens);

    if (o.index == UINT64_MAX) {
        decision->kind = MC_DECIDE_REFUSE;
        decision->reason = MC_REASON_NO_INSTANCE;
        return;
    }
    const uint64_t own = view->instances[o.index].matched_tokens;
    policy_choose(view, o.index,
                  o.holder != UINT64_MAX                        ? MC_REASON_PULL_PREFIX
                  : o.reuse > own                               ? MC_REASON_BATCHED
                  : own > 0 && own == view->best_matched_tokens ? MC_REASON_LOCAL_PREFIX
                                                                : MC_REASON_LEAST_TTFT,
                  decision);
    if (o.holder != UINT64_MAX) {
        decision->holder = view->instances[o.holder].id;
        decision->pull_tokens = o.reuse;
    }
    decision->reuse_tokens = o.reuse;
    decision->order = order_of(view, request);
    decision->score = o.score_s;
}

const struct mc_policy policy_conductor = {
    .name = "conductor",
    .summary = "our own: least TTFT; prompts that begin alike meet, joins are kept apart",
    .state_bytes = sizeof(struct conductor),
    .init = init,
    .place = place,
};
