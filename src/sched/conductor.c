/*
 * conductor.c - our own policy: whoever costs least for what he brings goes first, and waits for his prefix.
 *
 * Every request has a price: the prefill seconds that it needs at least, by what it is worth (itself, its tokens, and
 * those of its session that will find their prefix because of it). The dearer, the more patience: so long it lets others
 * go before it, at most until it would be late. Its order in the queue is the time at which its patience ends.
 *
 *     order = arrival + patience       patience = (share of all work that is cheaper) x (SLO - own work)
 *
 * So nobody starves, what is dear is served where there is time for it, and under overload it is what is dear that is
 * refused: the wait that is predicted for it counts those who are there and go first, and those who will still come and
 * will go first (demand.h). Where nobody waits nothing differs from least TTFT.
 *
 * The place is where it would be done first, a prefix that is on its way to a queue counted as there already: prompts
 * that begin alike meet at one instance instead of being computed at several. Pulls go on while a request waits.
 *
 * docs/scheduler.md tells what each of these gives.
 */
#include "sched/conductor.h"

#include "sched/demand.h"
#include "sched/policy.h"
#include "sched/sessions.h"

struct conductor {
    double order, coming, future, tokens_share, apart; /* parameters */
    struct demand demand;
    struct sessions sessions;
    double mean_tokens; /* of prompts */
};

static const double HORIZON_S = 30; /* what is late, where no SLO says so */
static const double MEAN_STEP = 0.01;
/* A second of work that this one puts before others counts so much: it is they who wait. */
static const double BEHIND = 1;
/* And a second of its own work so much besides: there is less time for those who come. */
static const double WORK = 0.5;

double conductor_apart(const void *state)
{
    return ((const struct conductor *)state)->apart;
}

static mc_status init(void *state, const char *parameters, struct mc_error *error)
{
    struct conductor *c = state;
    const struct policy_parameter known[] = {
        { "order", 0, 1, &c->order },         { "coming", 0, 1, &c->coming },
        { "future", 0, 10, &c->future },      { "apart", 0, 100, &c->apart },
        { "tokens", 0, 1, &c->tokens_share },
    };

    c->order = c->coming = c->future = 1;
    c->apart = 0.3;
    c->tokens_share = 0.5;
    return policy_read(parameters, known, sizeof(known) / sizeof(known[0]), error);
}

/* ------------------------------------------------------------------------------------------ options */

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
                               uint64_t index, uint64_t tokens, uint64_t order)
{
    const uint64_t queue = view->instances[index].queue_ns;
    struct option o = { .index = index };

    o.wait_ns = order != 0 && view->wait_ns ? view->wait_ns(view, index, order) : queue;
    const uint64_t behind = queue > o.wait_ns ? queue - o.wait_ns : 0;
    choose_prefix(c, view, tokens, &o);
    o.score_s =
        ((double)(o.wait_ns + o.work_ns) + BEHIND * (double)behind + WORK * (double)o.work_ns) /
        1e9;
    return o;
}

static struct option choose(const struct conductor *c, const struct mc_view *view, uint64_t tokens,
                            uint64_t order)
{
    struct option best = { .index = UINT64_MAX };

    for (uint64_t i = 0; i < view->count; i++) {
        if (!policy_can_prefill(&view->instances[i]))
            continue;
        const struct option o = option_at(c, view, i, tokens, order);
        if (best.index == UINT64_MAX || o.score_s < best.score_s)
            best = o;
    }
    return best;
}

/* -------------------------------------------------------------------------------------------- prices */

struct stake {
    double work_s, price, patience_s, most_s; /* most: of anybody's patience */
    uint64_t instances;
};

/* The least work that it can be anywhere, and how many could do it. */
static bool look_for_work(const struct mc_view *view, uint64_t tokens, struct stake *s)
{
    uint64_t least = UINT64_MAX;

    for (uint64_t i = 0; i < view->count; i++) {
        if (!policy_can_prefill(&view->instances[i]))
            continue;
        const uint64_t ns = view->prefill_ns(view, i, tokens, view->best_matched_tokens);
        least = ns < least ? ns : least;
        s->instances++;
    }
    s->work_s = (double)least / 1e9;
    return s->instances != 0;
}

static double worth(struct conductor *c, const struct mc_sched_request *request)
{
    const double tokens = (double)request->tokens;
    const uint32_t turn = sessions_turn(&c->sessions, request);

    c->mean_tokens += c->mean_tokens > 0 ? MEAN_STEP * (tokens - c->mean_tokens) : tokens;
    return (1 - c->tokens_share + c->tokens_share * tokens / c->mean_tokens) *
           (1 + c->future * sessions_to_come(&c->sessions, turn));
}

static void set_price(struct conductor *c, const struct mc_view *view,
                      const struct mc_sched_request *request, struct stake *s)
{
    s->most_s = view->slo.ttft_ns ? (double)view->slo.ttft_ns / 1e9 : HORIZON_S;
    s->price = s->work_s / worth(c, request);
    demand_add(&c->demand, view->now_ns, s->price, s->work_s);
    const double spare_s = s->most_s > s->work_s ? s->most_s - s->work_s : 0;
    s->patience_s = demand_cheaper(&c->demand, s->price) * spare_s;
}

static uint64_t order_of(const struct mc_view *view, const struct mc_sched_request *request,
                         double patience_s)
{
    const uint64_t at = request->arrived_ns, now = view->now_ns;

    return (at != 0 && at < now ? at : now) + (uint64_t)(patience_s * 1e9) + 1;
}

/* --------------------------------------------------------------------------------------------- place */

static void expect_overtaking(const struct conductor *c, const struct stake *s, uint64_t wait_ns,
                              struct mc_decision *d)
{
    if (wait_ns != 0)
        d->predicted.queue_ns =
            (uint64_t)(demand_wait(&c->demand, (double)wait_ns / 1e9, s->patience_s, s->most_s,
                                   (double)s->instances) *
                       1e9);
}

static void place(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision)
{
    struct conductor *c = state;
    struct stake stake = { .instances = 0 };

    if (!look_for_work(view, request->tokens, &stake)) {
        decision->kind = MC_DECIDE_REFUSE;
        decision->reason = MC_REASON_NO_INSTANCE;
        return;
    }
    set_price(c, view, request, &stake);
    const uint64_t order = c->order >= 0.5 ? order_of(view, request, stake.patience_s) : 0;
    const struct option o = choose(c, view, request->tokens, order);
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
    decision->order = order;
    decision->score = stake.price;
    if (order != 0 && view->wait_ns)
        expect_overtaking(c, &stake, view->wait_ns(view, o.index, order), decision);
}

const struct mc_policy policy_conductor = {
    .name = "conductor",
    .summary = "our own: least TTFT, the cheapest for what they bring first, joins apart",
    .state_bytes = sizeof(struct conductor),
    .init = init,
    .place = place,
};
