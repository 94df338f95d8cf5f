/*
 * policy.h - the built-in placement policies, and what they share.
 *
 * Pure functions of the view; the state of a policy is its own.
 */
#ifndef SCHED_POLICY_H
#define SCHED_POLICY_H

#include <stdbool.h>

#include <mooncake/sched.h>

extern const struct mc_policy policy_algorithm1, policy_conductor, policy_random,
    policy_round_robin, policy_least_loaded, policy_local;

/** The formulas of other routers. They only choose where; what the chosen one lacks of the prefix it pulls, as
 * after any placement here, unless their parameter says pull=0: that is how they ship. */
extern const struct mc_policy policy_dynamo, policy_lmetric, policy_llm_d, policy_sglang,
    policy_aibrix, policy_preble;

/** By name among `own` and the built-in ones; NULL: the default. NULL result: none; the error lists what
 * there is. */
const struct mc_policy *policy_find(const char *name, const struct mc_policy *own,
                                    uint64_t own_count, struct mc_error *error);

struct policy_parameter {
    const char *name;
    double low, high;
    double *value;
};

/** Read "name=number,name=number" (NULL and "" say nothing). MC_OK, or MC_E_ARG with the reason. */
mc_status policy_read(const char *text, const struct policy_parameter *parameters, size_t count,
                      struct mc_error *error);

static inline bool policy_can_prefill(const struct mc_view_instance *instance)
{
    return instance->role != MC_ROLE_STORE && (instance->role & MC_ROLE_PREFILL) != 0;
}

/** Requests that it has, waiting or decoded. */
static inline uint64_t policy_requests(const struct mc_view_instance *instance)
{
    return instance->queued + instance->running;
}

/** Place there, for `reason`; where only one could, that is the reason. */
void policy_choose(const struct mc_view *view, uint64_t index, uint32_t reason,
                   struct mc_decision *decision);

/** UINT64_MAX: there is nobody, which refuses. Else as policy_choose(), and with `pull` as policy_pull(). */
void policy_finish(const struct mc_view *view, uint64_t index, uint32_t reason, double pull,
                   struct mc_decision *decision);

/** Let it pull the longest prefix there is, if that is longer than its own. */
void policy_pull(const struct mc_view *view, uint64_t index, struct mc_decision *decision);

#endif /* SCHED_POLICY_H */
