/*
 * preble.c - Preble's E2: exploit a cached prefix where that is most of the prompt, else explore.
 *
 *     exploit  if the longest own prefix >= the rest of the prompt: of those who have it, the least cost
 *     explore  else: of all, the least cost
 *
 *     cost(i) = load(i) + eviction(i) + prefill(i, tokens, own prefix)
 *     load(i) = seconds of prefill placed there within the window + running x answer x step
 *     eviction(i) = prefill(i, tokens that would have to go) x share of its prompts' tokens that were reused
 *
 * Rebalanced: who exploits an instance whose load is over `balance` times the least, and whose first token would
 * come after more than twice its own prefill, explores instead.
 *
 * Source: Preble (ICLR'25; multi_node/global_scheduler_with_time.py): window 3 minutes, balance 1.4. What would
 * have to go is what does not fit into free_tokens; the length of answers is a mean of those that ended. Its
 * copying of a hot prefix's whole subtree is replication's (replicate.h), for every policy alike.
 */
#include <string.h>

#include "sched/policy.h"
#include "sched/tally.h"

enum { PARTS = 12 }; /* of the window */
static const double MEAN_STEP = 0.05;

struct part {
    uint32_t number; /* since the clock's start; another one's: nothing */
    float seconds, missed, reused;
};

struct preble {
    double window_s, balance, pull;
    double answer; /* tokens, moving mean */
    struct tally tally;
    struct part history[TALLY_MAX][PARTS];
};

static mc_status init(void *state, const char *parameters, struct mc_error *error)
{
    struct preble *s = state;
    const struct policy_parameter known[] = {
        { "window", 1, 86400, &s->window_s },
        { "balance", 1, 1e6, &s->balance },
        { "pull", 0, 1, &s->pull },
    };

    s->window_s = 180;
    s->balance = 1.4;
    s->pull = 1;
    tally_init(&s->tally);
    return policy_read(parameters, known, sizeof(known) / sizeof(known[0]), error);
}

/* ------------------------------------------------------------------------------------------ history */

/* Parts are counted from 1, so that zeroed ones are nobody's. */
static uint32_t part_number(const struct preble *s, uint64_t now_ns)
{
    return (uint32_t)((double)now_ns / 1e9 / (s->window_s / PARTS)) + 1;
}

struct past {
    double seconds, missed, reused;
};

static struct past past_of(const struct preble *s, uint64_t id, uint64_t now_ns)
{
    const uint32_t slot = tally_find(&s->tally, id), now = part_number(s, now_ns);
    struct past past = { 0, 0, 0 };

    for (uint32_t i = 0; i < PARTS && slot != TALLY_NONE; i++) {
        const struct part *p = &s->history[slot][i];

        if (p->number == 0 || now - p->number >= PARTS)
            continue;
        past.seconds += (double)p->seconds;
        past.missed += (double)p->missed;
        past.reused += (double)p->reused;
    }
    return past;
}

static void remember(struct preble *s, const struct mc_view *view, uint64_t index, uint64_t tokens,
                     uint64_t reused)
{
    const uint32_t slot = tally_take(&s->tally, view->instances[index].id);
    const uint32_t now = part_number(s, view->now_ns);

    if (slot == TALLY_NONE)
        return;
    struct part *p = &s->history[slot][now % PARTS];
    if (p->number != now)
        *p = (struct part){ .number = now };
    p->seconds += (float)view->prefill_ns(view, index, tokens, reused) / 1e9f;
    p->missed += (float)(tokens - reused);
    p->reused += (float)reused;
}

/* -------------------------------------------------------------------------------------------- costs */

static double load_s(const struct preble *s, const struct mc_view *view, uint64_t index,
                     const struct past *past)
{
    const struct mc_view_instance *i = &view->instances[index];

    return past->seconds + (double)i->running * s->answer * (double)i->tbt_ns / 1e9;
}

static double eviction_s(const struct mc_view *view, uint64_t index, uint64_t tokens,
                         const struct past *past)
{
    const struct mc_view_instance *i = &view->instances[index];
    const uint64_t more = tokens > i->matched_tokens ? tokens - i->matched_tokens : 0;
    const double seen = past->missed + past->reused;

    if (i->kv_tokens_max == 0 || more <= i->free_tokens || seen <= 0)
        return 0;
    return (double)view->prefill_ns(view, index, more - i->free_tokens, 0) / 1e9 * past->reused /
           seen;
}

static uint64_t own_ns(const struct mc_view *view, uint64_t index, uint64_t tokens)
{
    return view->prefill_ns(view, index, tokens, view->instances[index].matched_tokens);
}

struct choice {
    uint64_t index; /* UINT64_MAX: nobody */
    double cost_s, load_s;
};

/* The least cost among those with so much of the prefix. */
static struct choice cheapest(const struct preble *s, const struct mc_view *view, uint64_t tokens,
                              uint64_t matched)
{
    struct choice best = { UINT64_MAX, 0, 0 };

    for (uint64_t i = 0; i < view->count; i++) {
        if (!policy_can_prefill(&view->instances[i]) || view->instances[i].matched_tokens < matched)
            continue;
        const struct past past = past_of(s, view->instances[i].id, view->now_ns);
        const double load = load_s(s, view, i, &past);
        const double cost =
            load + eviction_s(view, i, tokens, &past) + (double)own_ns(view, i, tokens) / 1e9;
        if (best.index == UINT64_MAX || cost < best.cost_s)
            best = (struct choice){ i, cost, load };
    }
    return best;
}

static double least_load_s(const struct preble *s, const struct mc_view *view)
{
    double least = -1;

    for (uint64_t i = 0; i < view->count; i++) {
        if (!policy_can_prefill(&view->instances[i]))
            continue;
        const struct past past = past_of(s, view->instances[i].id, view->now_ns);
        const double load = load_s(s, view, i, &past);
        least = least < 0 || load < least ? load : least;
    }
    return least;
}

static bool overloaded(const struct preble *s, const struct mc_view *view,
                       const struct choice *choice, uint64_t tokens)
{
    return view->instances[choice->index].queue_ns > own_ns(view, choice->index, tokens) &&
           choice->load_s > s->balance * least_load_s(s, view);
}

/* -------------------------------------------------------------------------------------------- place */

static uint64_t longest_own(const struct mc_view *view)
{
    uint64_t longest = 0;

    for (uint64_t i = 0; i < view->count; i++)
        if (policy_can_prefill(&view->instances[i]) && view->instances[i].matched_tokens > longest)
            longest = view->instances[i].matched_tokens;
    return longest;
}

static void place(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision)
{
    struct preble *s = state;
    const uint64_t longest = longest_own(view), tokens = request->tokens;
    const bool exploits = longest != 0 && longest >= tokens - longest;
    struct choice choice = cheapest(s, view, tokens, exploits ? longest : 0);
    uint32_t reason = exploits ? MC_REASON_LOCAL_PREFIX : MC_REASON_POLICY;

    if (exploits && overloaded(s, view, &choice, tokens)) {
        choice = cheapest(s, view, tokens, 0);
        reason = MC_REASON_POLICY;
    }
    policy_finish(view, choice.index, reason, s->pull, decision);
    if (choice.index == UINT64_MAX)
        return;
    decision->score = choice.cost_s;
    const uint64_t own = view->instances[choice.index].matched_tokens;
    remember(s, view, choice.index, tokens,
             decision->pull_tokens > own ? decision->pull_tokens : own);
}

static void observe(void *state, uint64_t now_ns, const struct mc_sched_event *event)
{
    struct preble *s = state;

    (void)now_ns;
    if (event->kind == MC_EVENT_INSTANCE_GONE) {
        const uint32_t slot = tally_find(&s->tally, event->id);
        if (slot != TALLY_NONE)
            memset(s->history[slot], 0, sizeof(s->history[slot]));
        tally_drop(&s->tally, event->id);
    } else if (event->kind == MC_EVENT_REQUEST_END && event->progress.status == 0 &&
               event->progress.tokens != 0) {
        s->answer += (s->answer > 0 ? MEAN_STEP : 1) * ((double)event->progress.tokens - s->answer);
    }
}

const struct mc_policy policy_preble = {
    .name = "preble",
    .summary = "exploit a prefix that is most of the prompt, else the least load (Preble's E2)",
    .state_bytes = sizeof(struct preble),
    .init = init,
    .place = place,
    .observe = observe,
};
