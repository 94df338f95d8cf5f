/* open.c - the scheduler's options and memory. */
#include <mooncake/sched.h>

#include "base/alloc.h"
#include "base/error.h"
#include "sched/policy.h"
#include "sched/state.h"

static const uint64_t INSTANCES_DEFAULT = 1024, INSTANCES_LIMIT = 1 << 16;
static const uint64_t REQUESTS_DEFAULT = 65536, REQUESTS_LIMIT = 1 << 24;
static const uint64_t BLOCKS_DEFAULT = 1 << 20, BLOCKS_LIMIT = 1 << 28;
static const uint64_t BLOCK_TOKENS_DEFAULT = 16, BLOCK_TOKENS_LIMIT = 1 << 16;

/* ------------------------------------------------------------------------------------------- life */

static mc_status limit(uint64_t *value, uint64_t fallback, uint64_t most, const char *name,
                       struct mc_error *error)
{
    if (*value == 0)
        *value = fallback;
    if (*value > most)
        return error_set(error, MC_E_RANGE, "scheduler: %s is %llu, at most %llu", name,
                         (unsigned long long)*value, (unsigned long long)most);
    return MC_OK;
}

/* Fill in the defaults, and refuse what is not there. */
static mc_status check_options(struct mc_sched_options *o, struct mc_error *error)
{
    mc_status status;

    if (!o->alloc)
        return error_set(error, MC_E_ARG, "scheduler: options.alloc is required");
    if (o->flags != 0 || !sched_all_zero(o->reserved, sizeof(o->reserved) / sizeof(o->reserved[0])))
        return error_set(error, MC_E_UNSUPPORTED,
                         "scheduler: an option that this release (%s) does not know", mc_version());
    if (o->admission > MC_ADMIT_EARLY_REQUEST)
        return error_set(error, MC_E_UNSUPPORTED,
                         "scheduler: admission: %d is not in this release (%s)", (int)o->admission,
                         mc_version());
    if (o->predictor && !o->predictor->predict)
        return error_set(error, MC_E_ARG, "scheduler: a length predictor that predicts nothing");
    if ((status = limit(&o->instances_max, INSTANCES_DEFAULT, INSTANCES_LIMIT, "instances_max",
                        error)) != MC_OK ||
        (status = limit(&o->requests_max, REQUESTS_DEFAULT, REQUESTS_LIMIT, "requests_max",
                        error)) != MC_OK ||
        (status = limit(&o->blocks_max, BLOCKS_DEFAULT, BLOCKS_LIMIT, "blocks_max", error)) !=
            MC_OK)
        return status;
    return limit(&o->block_tokens, BLOCK_TOKENS_DEFAULT, BLOCK_TOKENS_LIMIT, "block_tokens", error);
}

static bool take_match(struct kv_match *match, const struct mc_alloc *alloc, uint32_t instances)
{
    match->blocks = alloc_zeroed(alloc, instances, sizeof(*match->blocks));
    match->held = alloc_zeroed(alloc, instances, sizeof(*match->held));
    match->holders = alloc_zeroed(alloc, instances, sizeof(*match->holders));
    return match->blocks && match->held && match->holders;
}

static void free_match(struct kv_match *match, const struct mc_alloc *alloc)
{
    alloc_free(alloc, match->holders);
    alloc_free(alloc, match->held);
    alloc_free(alloc, match->blocks);
}

static mc_status take_memory(mc_sched *sched, const struct mc_sched_options *o)
{
    const uint32_t instances = (uint32_t)o->instances_max;
    const struct kv_index_options index = { .alloc = o->alloc,
                                            .blocks_max = (uint32_t)o->blocks_max,
                                            .holders_max = instances,
                                            .seed = o->seed };
    const mc_status status =
        cluster_init(&sched->cluster, o->alloc, instances, (uint32_t)o->requests_max);

    if (status != MC_OK)
        return status;
    sched->pooled = alloc_zeroed(o->alloc, instances, sizeof(*sched->pooled));
    sched->policy_state = alloc_zeroed(o->alloc, 1, sched->policy->state_bytes);
    sched->admit.predictor_state =
        alloc_zeroed(o->alloc, 1, sched->admit.predictor->state_bytes + 1);
    if (admit_take_memory(&sched->admit, o->alloc) != MC_OK || !sched->admit.predictor_state)
        return MC_E_NOMEM;
    if (!sched->pooled || !take_match(&sched->match, o->alloc, instances) || !sched->policy_state ||
        fastest_init(&sched->fastest, o->alloc, instances) != MC_OK ||
        panes_init(&sched->panes, o->alloc, instances) != MC_OK)
        return MC_E_NOMEM;
    if (sched->policy == &policy_conductor) {
        sched->calendar = alloc_zeroed(o->alloc, 1, sizeof(*sched->calendar));
        if (!sched->calendar || !take_match(&sched->coming_match, o->alloc, instances) ||
            kv_index_open(&index, &sched->coming) != MC_OK)
            return MC_E_NOMEM;
    }
    return kv_index_open(&index, &sched->index);
}

mc_status mc_sched_open(const struct mc_sched_options *options, mc_sched **sched_p,
                        struct mc_error *error)
{
    struct mc_sched_options o = options ? *options : (struct mc_sched_options){ 0 };
    mc_status status = check_options(&o, error);

    if (status != MC_OK)
        return status;
    const struct mc_policy *policy = policy_find(o.policy, o.policies, o.policy_count, error);
    if (!policy)
        return MC_E_NOT_FOUND;

    mc_sched *sched = alloc_zeroed(o.alloc, 1, sizeof(*sched));
    if (!sched)
        return error_set(error, MC_E_NOMEM, "scheduler: out of memory");
    *sched = (mc_sched){ .alloc = o.alloc,
                         .policy = policy,
                         .slo = o.slo,
                         .seed = o.seed,
                         .block_tokens = o.block_tokens,
                         .aborted = CLUSTER_NONE,
                         .aborted_last = CLUSTER_NONE };
    status = admit_init(&sched->admit, &o, policy == &policy_conductor, error);
    if (status != MC_OK) {
        mc_sched_close(sched);
        return error_prefix(error, status, "scheduler: admission_parameters");
    }
    status = replicate_init(&sched->replicate, o.replication, o.alloc, error);
    if (status != MC_OK) {
        mc_sched_close(sched);
        return status;
    }
    status = take_memory(sched, &o);
    if (status != MC_OK)
        error_set(error, status, "scheduler: out of memory for %llu blocks and %llu requests",
                  (unsigned long long)o.blocks_max, (unsigned long long)o.requests_max);
    else if (policy->init)
        status = policy->init(sched->policy_state, o.policy_parameters, error);
    else if (o.policy_parameters && o.policy_parameters[0] != '\0')
        status = error_set(error, MC_E_ARG, "policy %.100s: it has no parameters", policy->name);
    if (status != MC_OK) {
        mc_sched_close(sched);
        return status;
    }
    *sched_p = sched;
    return MC_OK;
}

void mc_sched_close(mc_sched *sched)
{
    if (!sched)
        return;
    const struct mc_alloc *alloc = sched->alloc;

    kv_index_close(sched->index);
    kv_index_close(sched->coming);
    free_match(&sched->coming_match, alloc);
    alloc_free(alloc, sched->calendar);
    alloc_free(alloc, sched->admit.predictor_state);
    admit_fini(&sched->admit);
    replicate_fini(&sched->replicate);
    alloc_free(alloc, sched->policy_state);
    panes_fini(&sched->panes);
    fastest_fini(&sched->fastest);
    free_match(&sched->match, alloc);
    alloc_free(alloc, sched->pooled);
    cluster_fini(&sched->cluster);
    alloc_free(alloc, sched);
}
