/*
 * aibrix.c - the prefix-cache policy of AIBrix's gateway.
 *
 *     if most requests - least requests > threshold: the fewest requests
 *     else of those with requests <= mean + deviations x standard deviation: the longest own prefix, of equals
 *          the fewest requests
 *     where nobody among them has any of it: the fewest requests
 *
 * Source: pkg/plugins/gateway/algorithms (prefix_cache.go and its README): threshold 16 as documented (a comment
 * in the code says 8), deviations 2.
 */
#include "sched/policy.h"

#include <math.h>

struct aibrix {
    double threshold, deviations, pull;
};

static mc_status init(void *state, const char *parameters, struct mc_error *error)
{
    struct aibrix *s = state;
    const struct policy_parameter known[] = {
        { "threshold", 0, 1e9, &s->threshold },
        { "deviations", 0, 1e3, &s->deviations },
        { "pull", 0, 1, &s->pull },
    };

    *s = (struct aibrix){ .threshold = 16, .deviations = 2, .pull = 1 };
    return policy_read(parameters, known, sizeof(known) / sizeof(known[0]), error);
}

struct loads {
    uint64_t fewest; /* index; UINT64_MAX: nobody */
    double least, most, mean, deviation;
};

static struct loads loads_of(const struct mc_view *view)
{
    struct loads l = { UINT64_MAX, 0, 0, 0, 0 };
    double sum = 0, squares = 0, count = 0;

    for (uint64_t i = 0; i < view->count; i++) {
        if (!policy_can_prefill(&view->instances[i]))
            continue;
        const double requests = (double)policy_requests(&view->instances[i]);
        sum += requests;
        squares += requests * requests;
        count++;
        l.most = requests > l.most ? requests : l.most;
        if (l.fewest == UINT64_MAX || requests < l.least) {
            l.fewest = i;
            l.least = requests;
        }
    }
    if (count > 0) {
        const double variance = squares / count - sum / count * (sum / count);
        l.mean = sum / count;
        l.deviation = sqrt(variance > 0 ? variance : 0);
    }
    return l;
}

static bool better(const struct mc_view_instance *a, const struct mc_view_instance *b)
{
    return a->matched_tokens != b->matched_tokens ? a->matched_tokens > b->matched_tokens
                                                  : policy_requests(a) < policy_requests(b);
}

/* UINT64_MAX: none of those who are not loaded too much has any of it. */
static uint64_t longest(const struct aibrix *s, const struct mc_view *view, const struct loads *l)
{
    uint64_t pick = UINT64_MAX;

    for (uint64_t i = 0; i < view->count; i++) {
        const struct mc_view_instance *a = &view->instances[i];

        if (policy_can_prefill(a) && a->matched_tokens != 0 &&
            (double)policy_requests(a) <= l->mean + s->deviations * l->deviation &&
            (pick == UINT64_MAX || better(a, &view->instances[pick])))
            pick = i;
    }
    return pick;
}

static void place(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision)
{
    const struct aibrix *s = state;
    const struct loads l = loads_of(view);
    const bool even = l.most - l.least <= s->threshold;
    const uint64_t holder = even ? longest(s, view, &l) : UINT64_MAX;

    (void)request;
    policy_finish(view, holder != UINT64_MAX ? holder : l.fewest,
                  holder != UINT64_MAX ? MC_REASON_LOCAL_PREFIX : MC_REASON_LEAST_LOAD, s->pull,
                  decision);
    decision->score =
        holder != UINT64_MAX ? (double)view->instances[holder].matched_tokens : l.least;
}

const struct mc_policy policy_aibrix = {
    .name = "aibrix",
    .summary = "longest own prefix among those not overloaded (AIBrix's prefix-cache)",
    .state_bytes = sizeof(struct aibrix),
    .init = init,
    .place = place,
};
