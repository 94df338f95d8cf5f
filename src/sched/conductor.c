/*
 * conductor.c - our own policy: Algorithm 1, where prompts that begin alike meet and joins do not.
 *
 *     score = max(queue, pull) + prefill + half of the prefill + spread x objective x crowd²        the least is taken
 *
 * A prefix that waits to be computed somewhere counts as there already: what comes meanwhile is placed behind it,
 * instead of being computed again elsewhere. A pull goes on while the request waits, and is priced like that; it is taken
 * where it is done sooner with it, not by a ratio of lengths. Half of the own work counts once more: it is time that those
 * who come next have not got. Who has less time left goes first: the order is the time by which it should be there. With
 * one objective for all that is the order of arrival; so what was predicted for a request is not changed by those who come
 * later, and those who are refused are the ones who could not have been in time.
 *
 * Bursts of prompts are prefilled side by side, and would all join the decode instances at the same time: everybody there
 * stands still at every join, and gaps get long. So who has time is prefilled where it is done at another moment: crowd is how
 * many prompts of mean length, for each instance that decodes, join at about the time at which it would (calendar.h), and
 * one costs `spread` of the objective for TTFT. Without both objectives, or where it would be late, it does not count.
 *
 * Where it is decoded: joins.h. What TBT is held against: the longest gaps, learnt (forecast.c, gaps).
 *
 * docs/scheduler.md tells what each of these gives, and what was tried and left out.
 */
#include "sched/conductor.h"

#include <math.h>

#include "sched/policy.h"

struct conductor {
    double coming; /* 0: only what is there counts */
    double spread; /* of the objective for TTFT: what a crowd of one costs */
    struct joins_weights joins;
};

static const double HORIZON_S = 30; /* what is late, where no SLO says so */
static const double WORK = 0.5;     /* of the own work: how much of it counts once more */
static const double OWN = 0.05;     /* of what a crowd costs: how much depends on the own length */
static const double IN_TIME = 0.9;  /* of the objective: what takes longer may well be late */

const struct joins_weights *conductor_joins(const void *state)
{
    return &((const struct conductor *)state)->joins;
}

static mc_status init(void *state, const char *parameters, struct mc_error *error)
{
    struct conductor *c = state;
    const struct policy_parameter known[] = {
        { "coming", 0, 1, &c->coming },       { "spread", 0, 10, &c->spread },
        { "apart", 0, 100, &c->joins.apart }, { "alike", 0, 100, &c->joins.alike },
        { "stall", 0, 100, &c->joins.stall },
    };

    c->coming = 1;
    c->spread = 0.05;
    c->joins = (struct joins_weights){ .apart = 0.3, .alike = 0.3, .stall = 0.15 };
    return policy_read(parameters, known, sizeof(known) / sizeof(known[0]), error);
}

/* What one instance would do with it. */
struct option {
    uint64_t index; /* UINT64_MAX: none */
    uint64_t holder, reuse;
    bool late, spread; /* spread: there was one that is done sooner */
    double alone_s;    /* whoever else joins */
    double score_s;
};

/* What the request leaves to choose from. */
struct wish {
    uint64_t tokens;
    double left_ns; /* of its objective for TTFT; INFINITY: none */
    double crowd_s; /* what a crowd of one costs; 0: it does not count */
};

/* What it needs, whatever its queue: with what is there or on its way, and with the longest prefix there is. */
struct needs {
    uint32_t kind; /* 0: it holds for no other */
    uint64_t own, reuse, work_ns;
    uint64_t holder, pull_ns, rest_ns; /* holder UINT64_MAX: nothing to pull */
};

static uint64_t reusable(const struct conductor *c, const struct mc_view_instance *p)
{
    return c->coming >= 0.5 && p->coming_tokens > p->matched_tokens ? p->coming_tokens
                                                                    : p->matched_tokens;
}

static struct needs ask(const struct conductor *c, const struct mc_view *view, uint64_t index,
                        uint64_t tokens)
{
    const struct mc_view_instance *p = &view->instances[index];
    const uint64_t best = view->best_matched_tokens;
    struct needs n = { .kind = view->kinds ? view->kinds[index] : 0,
                       .own = p->matched_tokens,
                       .reuse = reusable(c, p),
                       .holder = UINT64_MAX };

    n.work_ns = view->prefill_ns(view, index, tokens, n.reuse);
    if (best > n.reuse)
        n.holder = view->holder(view, index, best);
    if (n.holder == UINT64_MAX)
        return n;
    n.pull_ns = view->transfer_ns(view, n.holder, index, best - n.own);
    n.rest_ns = view->prefill_ns(view, index, tokens, best);
    return n;
}

/* Most instances are alike, and what was said of the one before them holds. */
static bool holds_for(const struct needs *n, const struct conductor *c, const struct mc_view *view,
                      uint64_t index)
{
    const struct mc_view_instance *p = &view->instances[index];

    return n->kind != 0 && n->kind == view->kinds[index] && n->own == p->matched_tokens &&
           n->reuse == reusable(c, p);
}

/* With the longest prefix there is, if it is done sooner so. */
static struct option option_at(const struct mc_view *view, uint64_t index, const struct needs *n,
                               const struct wish *wish)
{
    const uint64_t wait = view->instances[index].queue_ns;
    const uint64_t begin = n->pull_ns > wait ? n->pull_ns : wait;
    const bool pulls = n->holder != UINT64_MAX && begin + n->rest_ns < wait + n->work_ns;
    const uint64_t from = pulls ? begin : wait, work = pulls ? n->rest_ns : n->work_ns;
    const bool late = (double)(from + work) > IN_TIME * wish->left_ns;
    const double crowd = wish->crowd_s > 0 && !late ? view->crowd(view, from + work) : 0;
    const double alone_s = ((double)(from + work) + WORK * (double)work) / 1e9;

    return (struct option){ .index = index,
                            .holder = pulls ? n->holder : UINT64_MAX,
                            .reuse = pulls ? view->best_matched_tokens : n->reuse,
                            .late = late,
                            .alone_s = alone_s,
                            .score_s = alone_s + wish->crowd_s * crowd * crowd };
}

/* Of equals, as in Algorithm 1, the one that has waited longest for a request. */
static bool is_better(const struct mc_view *view, const struct option *a, const struct option *b)
{
    if (b->index == UINT64_MAX || a->late != b->late)
        return b->index == UINT64_MAX || b->late;
    if (a->score_s != b->score_s)
        return a->score_s < b->score_s;
    return view->instances[a->index].last_ns < view->instances[b->index].last_ns;
}

static struct option choose(const struct conductor *c, const struct mc_view *view,
                            const struct wish *wish)
{
    struct option best = { .index = UINT64_MAX };
    double least_s = INFINITY;
    struct needs last[2] = { { .kind = 0 } }; /* of those with nothing of it, and with something */

    for (uint64_t i = 0; i < view->count; i++) {
        const struct mc_view_instance *p = &view->instances[i];
        struct needs *n = &last[reusable(c, p) != 0];

        if (!policy_can_prefill(p) ||
            (best.index != UINT64_MAX && (double)p->queue_ns / 1e9 > best.score_s))
            continue; /* or it cannot be better */
        if (!holds_for(n, c, view, i))
            *n = ask(c, view, i, wish->tokens);
        const struct option o = option_at(view, i, n, wish);
        if (!o.late && o.alone_s < least_s)
            least_s = o.alone_s;
        if (is_better(view, &o, &best))
            best = o;
    }
    best.spread = best.alone_s > least_s;
    return best;
}

/* By when it should be there. */
static uint64_t order_of(const struct mc_view *view, const struct mc_sched_request *request)
{
    const uint64_t at = request->arrived_ns, now = view->now_ns;
    const uint64_t most = view->slo.ttft_ns ? view->slo.ttft_ns : (uint64_t)(HORIZON_S * 1e9);

    return (at != 0 && at < now ? at : now) + most;
}

/* Of the objective for TTFT: what a crowd of one costs it. A long prompt's join stops others for longer than a short one's. */
static double crowd_share(const struct conductor *c, const struct mc_view *view, uint64_t tokens)
{
    const double length = (double)tokens / view->mean_tokens;

    return c->spread * (1 - OWN + OWN * (length < 2 ? length : 2));
}

static struct wish wish_of(const struct conductor *c, const struct mc_view *view,
                           const struct mc_sched_request *request)
{
    const uint64_t most = view->slo.ttft_ns, due_ns = order_of(view, request);
    const bool counts = view->crowd && most != 0 && view->slo.tbt_ns != 0;

    return (struct wish){
        .tokens = request->tokens,
        .left_ns = most == 0               ? INFINITY
                   : due_ns > view->now_ns ? (double)(due_ns - view->now_ns)
                                           : 0,
        .crowd_s = counts ? crowd_share(c, view, request->tokens) * (double)most / 1e9 : 0,
    };
}

static void place(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision)
{
    const struct wish wish = wish_of(state, view, request);
    const struct option o = choose(state, view, &wish);

    if (o.index == UINT64_MAX) {
        decision->kind = MC_DECIDE_REFUSE;
        decision->reason = MC_REASON_NO_INSTANCE;
        return;
    }
    const uint64_t own = view->instances[o.index].matched_tokens;
    policy_choose(view, o.index,
                  o.holder != UINT64_MAX                        ? MC_REASON_PULL_PREFIX
                  : o.reuse > own                               ? MC_REASON_BATCHED
                  : o.spread                                    ? MC_REASON_SPREAD
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
