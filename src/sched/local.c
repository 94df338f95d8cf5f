/*
 * local.c - the papers' "cache-aware" or "local" placement: least queue and prefill, each instance with its own
 * prefix only. Nothing is ever pulled.
 *
 *     time(p) = queue(p) + prefill(p, tokens, own prefix)
 *
 * Source: both Mooncake papers' baseline (FAST'25 figure 5, report figure 8): Algorithm 1 without its remote
 * branch. It has no parameters.
 */
#include "sched/policy.h"

static void place(void *state, const struct mc_view *view, const struct mc_sched_request *request,
                  struct mc_decision *decision)
{
    uint64_t pick = UINT64_MAX, least_ns = 0;

    (void)state;
    for (uint64_t i = 0; i < view->count; i++) {
        const struct mc_view_instance *p = &view->instances[i];

        if (!policy_can_prefill(p))
            continue;
        const uint64_t ns =
            p->queue_ns + view->prefill_ns(view, i, request->tokens, p->matched_tokens);
        if (pick == UINT64_MAX || ns < least_ns) {
            pick = i;
            least_ns = ns;
        }
    }
    policy_finish(view, pick, MC_REASON_LEAST_TTFT, 0, decision);
    if (pick != UINT64_MAX)
        decision->score = (double)least_ns / 1e9;
}

const struct mc_policy policy_local = {
    .name = "local",
    .summary = "least predicted time to the first token with each instance's own prefix; no pulls",
    .place = place,
};
