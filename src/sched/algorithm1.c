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

/* The best so far. */
struct choice {
    uint64_t index; /* UINT64_MAX: none yet */
    struct option option;
};

static bool is_better(const struct mc_view *view, uint64_t a, struct option of_a,
                      const struct choice *b)
{
    if (b->index == UINT64_MAX || of_a.ns != b->option.ns)
        return b->index == UINT64_MAX || of_a.ns < b->option.ns;
    const uint64_t last_a = view->instances[a].last_ns, last_b = view->instances[b->index].last_ns;
    return last_a != last_b ? last_a < last_b : a < b->index;
}

/* What was said of the last ones who had nothing of it, and something. */
struct memory {
    struct cost_of of[2];
};

static void consider(const struct algorithm1 *a, const struct mc_view *view, uint64_t index,
                     uint64_t tokens, struct memory *memory, struct choice *best)
{
    const struct mc_view_instance *p = &view->instances[index];
    struct cost_of *c = &memory->of[p->matched_tokens != 0];

    if (!policy_can_prefill(p))
        return;
    if (!holds_for(c, view, index))
        *c = ask(a, view, index, tokens);
    const uint64_t in_turn = c->transfer_ns + p->queue_ns;
    const uint64_t at_once = c->transfer_ns < p->queue_ns ? p->queue_ns : c->transfer_ns;
    const struct option option = { (a->overlap >= 0.5 ? at_once : in_turn) + c->prefill_ns,
                                   c->holder };
    if (is_better(view, index, option, best))
        *best = (struct choice){ index, option };
}

/* What an instance with nothing of the prompt needs from when its queue is done: what was said of one of its kind. */
struct by_kind {
    uint64_t ns[UINT8_MAX + 1]; /* at least; 0: nothing was said */
    const struct mc_view_work *work;
    uint32_t asked;
};

enum { ASKED_ONE_BY_ONE = 8 };

/* For who is of no kind: one by one while they are few. */
static uint64_t bound(const struct algorithm1 *a, const struct mc_view *view, uint64_t index,
                      struct by_kind *by)
{
    if (by->asked < ASKED_ONE_BY_ONE) {
        by->asked++;
        return 0;
    }
    if (!by->work)
        by->work = view->work(view);
    return by->work->rest_ns[index] +
           (view->best_matched_tokens == 0 || a->overlap >= 0.5 ? 0 : by->work->pull_ns[index]);
}

/* From when its queue is done, or more. */
static uint64_t after_queue(const struct algorithm1 *a, const struct cost_of *c)
{
    return c->prefill_ns + (a->overlap >= 0.5 ? 0 : c->transfer_ns);
}

/* Those who have something of it. What was said of the last of them may show that the next one is no better. */
static void consider_matched(const struct algorithm1 *a, const struct mc_view *view,
                             uint64_t tokens, struct memory *memory, struct choice *best)
{
    const struct cost_of *last = &memory->of[1];

    for (uint64_t at = 0; at < view->columns->matched_count; at++) {
        const uint64_t i = view->columns->matched[at], queue = view->columns->queue_ns[i];

        if (queue > best->option.ns ||
            (holds_for(last, view, i) && queue + after_queue(a, last) > best->option.ns))
            continue;
        consider(a, view, i, tokens, memory, best);
    }
}

/* All that could be the best: of the others, columns tell that they are not. */
static struct choice choose(const struct algorithm1 *a, const struct mc_view *view, uint64_t tokens)
{
    const uint64_t *queues = view->columns->queue_ns, *lasts = view->columns->last_ns;
    const uint8_t *kinds = view->kinds;
    const uint64_t count = view->count;
    struct choice best = { .index = UINT64_MAX, .option.ns = MC_VIEW_NEVER };
    struct memory memory = { { { .kind = 0 } } };
    struct by_kind by = { .asked = 0 };

    consider_matched(a, view, tokens, &memory, &best);
    uint64_t least_ns = best.option.ns;
    uint64_t last_ns = best.index == UINT64_MAX ? UINT64_MAX : lasts[best.index];
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t worse_ns = least_ns + (lasts[i] <= last_ns), kind = kinds[i];

        if (queues[i] + by.ns[kind] >= worse_ns)
            continue; /* nearly all end here */
        if (kind == 0 && queues[i] + bound(a, view, i, &by) >= worse_ns)
            continue;
        consider(a, view, i, tokens, &memory, &best);
        if (best.index == UINT64_MAX)
            continue;
        least_ns = best.option.ns;
        last_ns = lasts[best.index];
        if (kind != 0 && memory.of[0].kind == kind)
            by.ns[kind] = after_queue(a, &memory.of[0]);
    }
    return best;
}

static struct choice choose_among_all(const struct algorithm1 *a, const struct mc_view *view,
                                      uint64_t tokens)
{
    struct choice best = { .index = UINT64_MAX };
    struct memory memory = { { { .kind = 0 } } };

    for (uint64_t i = 0; i < view->count; i++)
        consider(a, view, i, tokens, &memory, &best);
    return best;
}

static void place(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision)
{
    const struct choice best = view->columns && view->kinds
                                   ? choose(state, view, request->tokens)
                                   : choose_among_all(state, view, request->tokens);
    const uint64_t pick = best.index;
    const struct option least = best.option;

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
