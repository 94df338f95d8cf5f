/*
 * sglang.c - the cache_aware policy of SGLang's router.
 *
 *     if most requests - least requests > absolute and most > relative x least: the fewest requests
 *     else if the longest own prefix / prompt > threshold: who has that prefix
 *     else: who has the smallest tree
 *
 * A tree is what the router believes an instance to have in its cache: here the tokens that were placed there and
 * not found there, less what the instance says it has evicted.
 *
 * Source: sgl-router/src/policies/cache_aware.rs: threshold 0.3, absolute 64, relative 1.5.
 */
#include "sched/policy.h"
#include "sched/tally.h"

struct sglang {
    double threshold, absolute, relative, pull;
    struct tally tally;
    uint64_t trees[TALLY_MAX]; /* tokens */
    uint64_t block_tokens;     /* as the last view said */
};

static mc_status init(void *state, const char *parameters, struct mc_error *error)
{
    struct sglang *s = state;
    const struct policy_parameter known[] = {
        { "threshold", 0, 1, &s->threshold },
        { "absolute", 0, 1e9, &s->absolute },
        { "relative", 0, 1e9, &s->relative },
        { "pull", 0, 1, &s->pull },
    };

    s->threshold = 0.3;
    s->absolute = 64;
    s->relative = 1.5;
    s->pull = 1;
    tally_init(&s->tally);
    return policy_read(parameters, known, sizeof(known) / sizeof(known[0]), error);
}

static uint64_t tree_of(const struct sglang *s, uint64_t id)
{
    const uint32_t slot = tally_find(&s->tally, id);

    return slot == TALLY_NONE ? 0 : s->trees[slot];
}

/* One for each rule. UINT64_MAX: nobody. */
struct picks {
    uint64_t fewest, longest, smallest;
    uint64_t most_requests;
};

static struct picks look(const struct sglang *s, const struct mc_view *view)
{
    struct picks p = { UINT64_MAX, UINT64_MAX, UINT64_MAX, 0 };

    for (uint64_t i = 0; i < view->count; i++) {
        const struct mc_view_instance *a = &view->instances[i];

        if (!policy_can_prefill(a))
            continue;
        const uint64_t requests = policy_requests(a);
        if (requests > p.most_requests)
            p.most_requests = requests;
        if (p.fewest == UINT64_MAX || requests < policy_requests(&view->instances[p.fewest]))
            p.fewest = i;
        if (p.longest == UINT64_MAX ||
            a->matched_tokens > view->instances[p.longest].matched_tokens)
            p.longest = i;
        if (p.smallest == UINT64_MAX ||
            tree_of(s, a->id) < tree_of(s, view->instances[p.smallest].id))
            p.smallest = i;
    }
    return p;
}

/* What is placed there will be in its tree. */
static void grow(struct sglang *s, const struct mc_view_instance *at, uint64_t tokens)
{
    const uint32_t slot = tally_take(&s->tally, at->id);

    if (slot == TALLY_NONE)
        return;
    if (tokens > at->matched_tokens)
        s->trees[slot] += tokens - at->matched_tokens;
}

static void place(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision)
{
    struct sglang *s = state;
    const struct picks p = look(s, view);
    uint64_t pick = p.smallest;
    uint32_t reason = MC_REASON_POLICY;

    s->block_tokens = view->block_tokens;
    if (pick == UINT64_MAX) {
        policy_finish(view, pick, reason, s->pull, decision);
        return;
    }
    const double least = (double)policy_requests(&view->instances[p.fewest]);
    const double most = (double)p.most_requests;
    const double ratio =
        (double)view->instances[p.longest].matched_tokens / (double)request->tokens;
    if (most - least > s->absolute && most > s->relative * least) {
        pick = p.fewest;
        reason = MC_REASON_LEAST_LOAD;
    } else if (ratio > s->threshold) {
        pick = p.longest;
        reason = MC_REASON_LOCAL_PREFIX;
    }
    decision->score = reason == MC_REASON_LEAST_LOAD ? least
                      : reason == MC_REASON_LOCAL_PREFIX
                          ? ratio
                          : (double)tree_of(s, view->instances[pick].id);
    policy_finish(view, pick, reason, s->pull, decision);
    grow(s, &view->instances[pick], request->tokens);
}

static void observe(void *state, uint64_t now_ns, const struct mc_sched_event *event)
{
    struct sglang *s = state;
    uint32_t slot;

    (void)now_ns;
    if (event->kind == MC_EVENT_INSTANCE_GONE || event->kind == MC_EVENT_BLOCKS_RESET) {
        for (uint32_t i = 0; i < TALLY_MAX && event->id == 0; i++)
            s->trees[i] = 0; /* a reset of all */
        slot = tally_find(&s->tally, event->id);
        if (slot != TALLY_NONE)
            s->trees[slot] = 0;
        if (event->kind == MC_EVENT_INSTANCE_GONE)
            tally_drop(&s->tally, event->id);
    } else if (event->kind == MC_EVENT_EVICTED) {
        const uint64_t tokens = event->blocks.count * s->block_tokens;
        slot = tally_find(&s->tally, event->blocks.id);
        if (slot != TALLY_NONE)
            s->trees[slot] -= tokens < s->trees[slot] ? tokens : s->trees[slot];
    }
}

const struct mc_policy policy_sglang = {
    .name = "sglang",
    .summary = "own prefix while loads are even, else fewest requests (SGLang's cache_aware)",
    .state_bytes = sizeof(struct sglang),
    .init = init,
    .place = place,
    .observe = observe,
};
