/* conductor.c - our own policy. */
#include "sched/demand.h"
#include "sched/sessions.h"
#include "sched/policy.h"

#include <math.h>

struct conductor {
    double work, order, overtake, pricing, least, coming; 
    struct demand demand;
    struct sessions sessions;
    double future;
    double tokens; /* of a prompt, mean */
};

static mc_status init(void *state, const char *parameters, struct mc_error *error)
{
    struct conductor *c = state;
    const struct policy_parameter known[] = {
        { "work", 0, 100, &c->work },
        { "order", 0, 1, &c->order },
        { "overtake", 0, 10, &c->overtake },
        { "pricing", 0, 1, &c->pricing },
        { "least", 0, 1, &c->least },
        { "coming", 0, 1, &c->coming },
        { "future", 0, 10, &c->future },
    };
    c->work = 0;
    c->coming = 1;
    c->future = 1;
    c->least = 1;
    c->order = 1;
    c->overtake = 1;
    c->pricing = 0.5;
    return policy_read(parameters, known, 7, error);
}

/* ------------------------------------------------------------------------------------------ prices */

struct option {
    uint64_t holder; /* UINT64_MAX: nothing to pull */
    uint64_t reuse;
    uint64_t work_ns, transfer_ns;
};

/* Own prefix or the longest there is: whichever computes sooner when its turn comes in `wait_ns`. */
static struct option choose_prefix(const struct conductor *c, const struct mc_view *view, uint64_t index, uint64_t tokens,
                                   uint64_t wait_ns)
{
    const struct mc_view_instance *p = &view->instances[index];
    const uint64_t own = p->matched_tokens, best = view->best_matched_tokens;
    const uint64_t coming = c->coming > 0.5 && p->coming_tokens > own ? p->coming_tokens : own;
    struct option keep = { .holder = UINT64_MAX, .reuse = coming,
                           .work_ns = view->prefill_ns(view, index, tokens, coming) };

    if (best <= coming)
        return keep;
    const uint64_t holder = view->holder(view, index, best);
    if (holder == UINT64_MAX)
        return keep;
    const struct option pull = { .holder = holder, .reuse = best,
                                 .work_ns = view->prefill_ns(view, index, tokens, best),
                                 .transfer_ns =
                                     view->transfer_ns(view, holder, index, best - own) };
    const uint64_t late = pull.transfer_ns > wait_ns ? pull.transfer_ns - wait_ns : 0;
    return late + pull.work_ns < keep.work_ns ? pull : keep;
}

/* The least work that it can be anywhere. */
static uint64_t least_work(const struct mc_view *view, uint64_t tokens)
{
    uint64_t least = UINT64_MAX;

    for (uint64_t i = 0; i < view->count; i++) {
        if (!policy_can_prefill(&view->instances[i]))
            continue;
        const uint64_t ns = view->prefill_ns(view, i, tokens, view->best_matched_tokens);
        least = ns < least ? ns : least;
    }
    return least;
}

/* -------------------------------------------------------------------------------------------- place */

static const uint64_t HORIZON_NS = 30000000000;

static void place(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision)
{
    struct conductor *c = state;
    uint64_t pick = UINT64_MAX;
    struct option best = { .holder = UINT64_MAX };
    double least = 0, instances = 0;
    uint64_t best_wait = 0;

    const uint64_t arrived = request->arrived_ns && request->arrived_ns < view->now_ns
                                 ? request->arrived_ns
                                 : view->now_ns;
    const uint64_t work = least_work(view, request->tokens);
    if (work == UINT64_MAX) {
        decision->kind = MC_DECIDE_REFUSE;
        decision->reason = MC_REASON_NO_INSTANCE;
        return;
    }
    const double slo_s = (double)(view->slo.ttft_ns ? view->slo.ttft_ns : HORIZON_NS) / 1e9;
    const double work_s = (double)work / 1e9;
    c->tokens += c->tokens > 0 ? 0.01 * ((double)request->tokens - c->tokens) : (double)request->tokens;
    const double value = 1 - c->pricing + c->pricing * (double)request->tokens / c->tokens;
    const uint32_t turn = sessions_turn(&c->sessions, request);
    const double price = work_s / value / (1 + c->future * sessions_to_come(&c->sessions, turn));
    demand_add(&c->demand, view->now_ns, price, work_s);
    const double most_s = slo_s - work_s > 0 ? slo_s - work_s : 0;
    const double patience = demand_cheaper(&c->demand, price) * most_s;
    const uint64_t order = c->order >= 0.5 ? arrived + (uint64_t)(patience * 1e9) + 1 : 0;

    for (uint64_t i = 0; i < view->count; i++)
        instances += policy_can_prefill(&view->instances[i]);
    for (uint64_t i = 0; i < view->count; i++) {
        if (!policy_can_prefill(&view->instances[i]))
            continue;
        const uint64_t wait = order && view->wait_ns ? view->wait_ns(view, i, order)
                                                     : view->instances[i].queue_ns;
        const struct option option = choose_prefix(c, view, i, request->tokens, wait);
        const uint64_t ready = wait > option.transfer_ns ? wait : option.transfer_ns;
        const double behind = (double)(view->instances[i].queue_ns - wait) / 1e9;
        const double score = (double)(ready + option.work_ns) / 1e9 + c->least * behind +
                             c->work * (double)option.work_ns / 1e9;
        if (pick == UINT64_MAX || score < least) {
            least = score;
            best = option;
            best_wait = wait;
            pick = i;
        }
    }
    const uint64_t own = view->instances[pick].matched_tokens;
    policy_choose(view, pick,
                  best.holder != UINT64_MAX                     ? MC_REASON_PULL_PREFIX
                  : own > 0 && own == view->best_matched_tokens ? MC_REASON_LOCAL_PREFIX
                                                                : MC_REASON_LEAST_TTFT,
                  decision);
    if (best.holder != UINT64_MAX) {
        decision->holder = view->instances[best.holder].id;
        decision->pull_tokens = view->best_matched_tokens;
    }
    decision->reuse_tokens = best.reuse;
    decision->order = order;
    decision->score = least;
    if (order && best_wait && c->overtake > 0) {
        const double expected =
            demand_wait(&c->demand, (double)best_wait / 1e9, patience, slo_s, instances);
        const double extra = expected - (double)best_wait / 1e9;
        decision->predicted.queue_ns = best_wait + (uint64_t)(c->overtake * extra * 1e9);
    }
}

const struct mc_policy policy_conductor = {
    .name = "conductor",
    .summary = "our own: cheapest first by the work it takes, without being late",
    .state_bytes = sizeof(struct conductor),
    .init = init,
    .place = place,
};
