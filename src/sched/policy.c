/* policy.c - which policies there are, and how their parameters are read. */
#include "sched/policy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static const struct mc_policy *const built_in[] = {
    &policy_algorithm1, /* the default */
    &policy_conductor,  &policy_least_loaded, &policy_round_robin, &policy_random,
    &policy_local,      &policy_dynamo,       &policy_lmetric,     &policy_llm_d,
    &policy_sglang,     &policy_aibrix,       &policy_preble,
};
enum { BUILT_IN = sizeof(built_in) / sizeof(built_in[0]), NAMES_MAX = 480 };

static void add_name(char names[NAMES_MAX], const char *name)
{
    const size_t used = strlen(names), length = strlen(name);

    if (used + length + 3 > NAMES_MAX)
        return;
    if (used > 0)
        memcpy(names + used, ", ", 3);
    memcpy(names + strlen(names), name, length + 1);
}

const struct mc_policy *policy_find(const char *name, const struct mc_policy *own,
                                    uint64_t own_count, struct mc_error *error)
{
    char names[NAMES_MAX] = "";

    if (!name)
        return built_in[0];
    for (uint64_t i = 0; i < own_count; i++) {
        if (strcmp(own[i].name, name) == 0)
            return &own[i];
        add_name(names, own[i].name);
    }
    for (size_t i = 0; i < BUILT_IN; i++) {
        if (strcmp(built_in[i]->name, name) == 0)
            return built_in[i];
        add_name(names, built_in[i]->name);
    }
    error_set(error, MC_E_NOT_FOUND, "policy %.100s: there is none of that name; there are %s",
              name, names);
    return NULL;
}

static mc_status read_one(const char *text, size_t length,
                          const struct policy_parameter *parameters, size_t count,
                          struct mc_error *error)
{
    const char *equals = memchr(text, '=', length);
    const size_t name_length = equals ? (size_t)(equals - text) : length;

    for (size_t i = 0; i < count; i++) {
        const struct policy_parameter *p = &parameters[i];
        char *end;

        if (strlen(p->name) != name_length || memcmp(p->name, text, name_length) != 0)
            continue;
        if (!equals || name_length + 1 == length)
            return error_set(error, MC_E_ARG, "parameter %s needs a number", p->name);
        const double value = strtod(equals + 1, &end);
        if (end != text + length || !isfinite(value) || value < p->low || value > p->high)
            return error_set(error, MC_E_ARG, "parameter %.*s: %s is %g to %g", (int)length, text,
                             p->name, p->low, p->high);
        *p->value = value;
        return MC_OK;
    }
    char names[NAMES_MAX] = "";
    for (size_t i = 0; i < count; i++)
        add_name(names, parameters[i].name);
    return error_set(error, MC_E_ARG, "parameter %.*s: there is none of that name; there are %s",
                     (int)(name_length < 100 ? name_length : 100), text, count ? names : "none");
}

mc_status policy_read(const char *text, const struct policy_parameter *parameters, size_t count,
                      struct mc_error *error)
{
    while (text && *text) {
        const size_t length = strcspn(text, ",");
        const mc_status status = read_one(text, length, parameters, count, error);

        if (status != MC_OK)
            return status;
        text += length;
        text += *text == ',';
    }
    return MC_OK;
}

void policy_choose(const struct mc_view *view, uint64_t index, uint32_t reason,
                   struct mc_decision *decision)
{
    uint64_t could = 0;

    for (uint64_t i = 0; i < view->count && could < 2; i++)
        could += policy_can_prefill(&view->instances[i]);
    decision->kind = MC_DECIDE_PLACE;
    decision->prefill = view->instances[index].id;
    decision->reason = could == 1 ? MC_REASON_ONLY_ONE : reason;
}

void policy_finish(const struct mc_view *view, uint64_t index, uint32_t reason, double pull,
                   struct mc_decision *decision)
{
    if (index == UINT64_MAX) {
        decision->kind = MC_DECIDE_REFUSE;
        decision->reason = MC_REASON_NO_INSTANCE;
        return;
    }
    policy_choose(view, index, reason, decision);
    if (pull >= 0.5)
        policy_pull(view, index, decision);
}

void policy_pull(const struct mc_view *view, uint64_t index, struct mc_decision *decision)
{
    const uint64_t best = view->best_matched_tokens;

    if (best <= view->instances[index].matched_tokens)
        return;
    const uint64_t holder = view->holder(view, index, best);
    if (holder == UINT64_MAX)
        return;
    decision->holder = view->instances[holder].id;
    decision->pull_tokens = best;
}
