/* open.c - a simulation's options, its memory, its instances. */
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/prng.h"
#include "sim/world.h"

static const double GBPS_LEAST = 1e-3; /* slower, and the clock would run over */
static const uint64_t SAMPLE_DEFAULT_NS = 10000000000;
static const uint32_t INSTANCES_LIMIT = 4096, COME_BACK_MAX_DEFAULT = 3;
static const uint64_t BLOCKS_INDEX_LIMIT = 1 << 26;

/* ------------------------------------------------------------------------------------------ options */

/* What prefills at one instance must decode there: policies that know it. */
static mc_status check_coupled(struct sim_options *o, struct mc_error *error)
{
    uint32_t coupled = 0;

    for (uint32_t i = 0; i < o->group_count; i++)
        coupled += o->groups[i].role == MC_ROLE_BOTH;
    if (coupled == 0)
        return MC_OK;
    if (coupled < o->group_count)
        return error_set(error, MC_E_ARG,
                         "simulation: instances that do both and others do not mix");
    if (!o->policy)
        o->policy = "coupled-round-robin";
    if (strncmp(o->policy, "coupled-", 8) != 0)
        return error_set(error, MC_E_ARG,
                         "simulation: instances that do both want a policy called coupled-..., not "
                         "%.60s",
                         o->policy);
    return MC_OK;
}

static uint32_t context_tokens(const struct sim_assume *a)
{
    return a->vllm_context_tokens < UINT32_MAX ? (uint32_t)a->vllm_context_tokens : UINT32_MAX;
}

/* Whoever comes needs both. */
static mc_status check_roles(const struct sim_options *o, struct mc_error *error)
{
    uint32_t roles = 0;

    for (uint32_t i = 0; i < o->group_count; i++)
        roles |= o->groups[i].role == MC_ROLE_STORE ? 0 : o->groups[i].role;
    if ((roles & MC_ROLE_BOTH) == MC_ROLE_BOTH)
        return MC_OK;
    return error_set(error, MC_E_ARG, "simulation: nobody %s: a cluster has P and D, or C",
                     roles & MC_ROLE_PREFILL ? "decodes" : "prefills");
}

static mc_status check_options(struct sim_options *o, struct mc_error *error)
{
    uint64_t instances = 0, pools = 0;

    if (!o->alloc || !o->trace || o->trace->block_tokens == 0)
        return error_set(error, MC_E_ARG, "simulation: alloc and trace are required");
    if (o->speed == 0)
        o->speed = 1;
    if (!(o->speed >= 1e-6 && o->speed <= 1e6))
        return error_set(error, MC_E_RANGE, "simulation: speed is %g, not 1e-6 to 1e6", o->speed);
    if (o->group_count == 0 || o->group_count > SIM_GROUPS_MAX)
        return error_set(error, MC_E_ARG, "simulation: a cluster has 1 to %d groups",
                         SIM_GROUPS_MAX);
    for (uint32_t i = 0; i < o->group_count; i++) {
        struct sim_group *g = &o->groups[i];
        g->stages = g->stages ? g->stages : 1;
        instances += g->count;
        const bool pool = g->role == MC_ROLE_STORE;
        pools += pool ? g->count : 0;
        if (g->role < MC_ROLE_PREFILL || g->role > MC_ROLE_STORE || (g->stages > 64 && !pool))
            return error_set(error, MC_E_ARG, "simulation: group %u has no such role or stages", i);
        if (g->role != MC_ROLE_PREFILL && !pool && g->stages != 1)
            return error_set(error, MC_E_ARG, "simulation: only prefill instances are pipelines");
        if (pools > 1)
            return error_set(error, MC_E_ARG,
                             "simulation: there is one pool; 4S is one of 4 nodes");
    }
    for (uint32_t i = 0; i < o->change_count; i++) {
        const struct sim_change *c = &o->changes[i];
        instances += c->kind == SIM_JOIN;
        if (c->kind == SIM_JOIN ? c->instance >= o->group_count : c->instance >= instances)
            return error_set(error, MC_E_RANGE, "simulation: change %u: no such instance", i);
        if (c->kind == SIM_JOIN && o->groups[c->instance].role == MC_ROLE_STORE)
            return error_set(error, MC_E_ARG, "simulation: change %u: a pool does not join", i);
    }
    if (instances == 0 || instances > INSTANCES_LIMIT)
        return error_set(error, MC_E_RANGE, "simulation: %llu instances, not 1 to %u",
                         (unsigned long long)instances, INSTANCES_LIMIT);
    mc_status status = check_roles(o, error);
    if (status == MC_OK)
        status = check_coupled(o, error);
    if (status != MC_OK)
        return status;
    if (o->net_gbps != 0 && !(o->net_gbps >= GBPS_LEAST && o->net_gbps <= 1e6))
        return error_set(error, MC_E_RANGE, "simulation: a line rate is %g to 1e6 Gbps, not %g",
                         GBPS_LEAST, o->net_gbps);
    if (o->input_max == 0 && o->groups[0].role == MC_ROLE_BOTH)
        o->input_max = context_tokens(&o->assume);
    o->interleave = o->interleave ? o->interleave : 1;
    o->come_back_max = o->come_back_max ? o->come_back_max : COME_BACK_MAX_DEFAULT;
    if (!(o->come_back >= 0 && o->come_back <= 1) || o->come_back_max > 1000)
        return error_set(error, MC_E_RANGE, "simulation: come_back is a share, at most 1000 times");
    o->sample_ns = o->sample_ns ? o->sample_ns : SAMPLE_DEFAULT_NS;
    if (o->dram_tokens == 0)
        o->dram_tokens = (uint64_t)o->assume.dram_tokens;
    return MC_OK;
}

static mc_status check_trace(const struct sim_trace *trace, struct mc_error *error)
{
    uint64_t last_ns = 0;

    for (uint32_t i = 0; i < trace->count; i++) {
        const struct sim_request *r = &trace->requests[i];

        if (r->input == 0 || r->output == 0 || r->arrival_ns < last_ns ||
            (uint64_t)r->block_count * trace->block_tokens > r->input)
            return error_set(error, MC_E_ARG, "simulation: request %u contradicts itself", i);
        last_ns = r->arrival_ns;
    }
    return MC_OK;
}

/* -------------------------------------------------------------------------------------------- open */

static mc_status open_sched(sim *s, struct mc_error *error)
{
    struct sim_options *o = &s->options;
    uint64_t blocks = o->trace->block_ids + 1;

    const struct mc_sched_options options = {
        .alloc = s->alloc,
        .policy = o->policy,
        .policy_parameters = o->policy_parameters,
        .policies = sim_policies,
        .policy_count = sim_policy_count,
        .admission = o->admission,
        .admission_parameters = o->admission_parameters,
        .replication = o->replication,
        .slo = { o->slo_ttft_ns, o->slo_tbt_ns },
        .seed = o->seed,
        .block_tokens = o->trace->block_tokens,
        .instances_max = s->instances_max,
        .requests_max = s->attempts_max < 65536 ? s->attempts_max : 65536,
        .blocks_max = blocks < BLOCKS_INDEX_LIMIT ? blocks : BLOCKS_INDEX_LIMIT,
    };
    return mc_sched_open(&options, &s->sched, error);
}

static bool has_pool(const sim *s)
{
    for (uint32_t i = 0; i < s->options.group_count; i++)
        if (s->options.groups[i].role == MC_ROLE_STORE)
            return true;
    return false;
}

static void open_instance(sim *s, struct instance *i, const struct sim_group *group)
{
    *i = (struct instance){ .role = group->role,
                            .stages = group->stages,
                            .node = (uint32_t)(i - s->instances),
                            .cost = s->node.cost,
                            .vram_max = s->node.kv_tokens,
                            .has_blocks = group->role == MC_ROLE_STORE ||
                                          (!has_pool(s) && (group->role & MC_ROLE_PREFILL) != 0),
                            .keeps = group->role == MC_ROLE_DECODE &&
                                     s->options.assume.decode_keeps >= 0.5 };
    if (group->role == MC_ROLE_STORE)
        i->cost.bytes_per_s *= group->stages;
    if (group->role == MC_ROLE_BOTH) {
        i->cost.p3 = 0; /* what it reuses is in VRAM */
        i->has_blocks = s->options.coupled == SIM_PREFIX;
        if (i->has_blocks) /* it touches each block of each sequence before each step */
            i->cost.d2 += s->options.assume.vllm_cached_token_s;
    }
}

static mc_status open_memory(sim *s)
{
    const struct sim_trace *trace = s->options.trace;
    const struct mc_alloc *a = s->alloc;

    for (uint32_t i = 0; i < trace->count; i++)
        if (trace->requests[i].block_count > s->block_max)
            s->block_max = trace->requests[i].block_count;
    s->scratch_max = 2 * s->block_max + 1; /* a block stored may push out one from each tier */
    s->attempts_max =
        (uint64_t)trace->count *
        (1 + s->options.retries + (s->options.come_back > 0 ? s->options.come_back_max : 0));
    s->samples_max = 512;
    s->gaps_max = 1024;
    s->decisions_max = 64;
    s->decisions = alloc_zeroed(a, s->decisions_max, sizeof(*s->decisions));
    s->instances = alloc_zeroed(a, s->instances_max, sizeof(*s->instances));
    s->lives = alloc_zeroed(a, trace->count, sizeof(*s->lives));
    s->records = alloc_zeroed(a, trace->count, sizeof(*s->records));
    s->attempts = alloc_zeroed(a, s->attempts_max, sizeof(*s->attempts));
    s->keys = alloc_zeroed(a, trace->block_ids, sizeof(*s->keys));
    s->replicas = alloc_zeroed(a, trace->block_ids, sizeof(*s->replicas));
    s->scratch = alloc_zeroed(a, s->scratch_max, sizeof(*s->scratch));
    s->gaps = alloc_zeroed(a, s->gaps_max, sizeof(*s->gaps));
    s->samples = alloc_zeroed(a, s->samples_max, sizeof(*s->samples));
    if (!s->instances || !s->lives || !s->records || !s->attempts || !s->keys || !s->replicas ||
        !s->scratch || !s->gaps || !s->samples || !s->decisions)
        return MC_E_NOMEM;
    for (uint32_t i = 0; i < trace->block_ids; i++) {
        const uint64_t words[2] = { prng_mix(i), i };
        memcpy(s->keys[i].bytes, words, sizeof(words));
    }
    for (uint32_t i = 0; i < trace->count; i++)
        s->records[i].prefill = s->records[i].decode = s->records[i].holder = NOBODY;
    s->counts[STAGE_OUTSIDE] = trace->count;
    return agenda_init(&s->agenda, a);
}

/* A pool sends from all its nodes. */
static void pool_rates(const sim *s, double *rates)
{
    const struct sim_options *o = &s->options;
    uint32_t at = 0;

    for (uint32_t g = 0; g < o->group_count; g++)
        for (uint32_t n = 0; n < o->groups[g].count; n++, at++)
            if (o->groups[g].role == MC_ROLE_STORE)
                rates[at] *= o->groups[g].stages;
}

static mc_status open_links(sim *s)
{
    const double rate = s->options.net_gbps > 0
                            ? s->options.net_gbps / 8 * 1e9 * s->options.assume.link_share
                            : s->node.net_bytes_per_s;
    double *rates = alloc_zeroed(s->alloc, s->instances_max, sizeof(*rates));

    if (!rates)
        return MC_E_NOMEM;
    s->node.cost.bytes_per_s = s->node.net_bytes_per_s = rate;
    for (uint32_t i = 0; i < s->instances_max; i++)
        rates[i] = rate;
    pool_rates(s, rates);
    const mc_status status = links_init(&s->links, s->alloc, rates, s->instances_max);
    alloc_free(s->alloc, rates);
    return status;
}

/* The memory of one instance, and the scheduler hears of it. */
static mc_status start_instance(sim *s, uint32_t index)
{
    struct instance *i = &s->instances[index];
    mc_status status = blocks_open(s, i);

    if (status == MC_OK && (i->role & MC_ROLE_DECODE))
        status =
            batch_init(&i->batch, s->alloc, &i->cost, (uint32_t)s->options.assume.sequences_max);
    if (status == MC_OK && i->stages > 1) {
        i->stage_free_ns = alloc_zeroed(s->alloc, i->stages, sizeof(*i->stage_free_ns));
        if (!i->stage_free_ns)
            status = MC_E_NOMEM;
    }
    return status;
}

/* All instances that will ever be there have their memory from the start; joining only tells of them. */
static mc_status open_instances(sim *s)
{
    const struct sim_options *o = &s->options;
    uint32_t at = 0;

    s->pool = NOBODY;
    for (uint32_t g = 0; g < o->group_count; g++)
        for (uint32_t n = 0; n < o->groups[g].count; n++) {
            s->pool = o->groups[g].role == MC_ROLE_STORE ? at : s->pool;
            open_instance(s, &s->instances[at++], &o->groups[g]);
        }
    s->instance_count = at;
    for (uint32_t c = 0; c < o->change_count; c++)
        if (o->changes[c].kind == SIM_JOIN)
            open_instance(s, &s->instances[at++], &o->groups[o->changes[c].instance]);
    for (uint32_t i = 0; i < s->instances_max; i++) {
        const mc_status status = start_instance(s, i);
        if (status != MC_OK)
            return status;
    }
    for (uint32_t i = 0; i < s->instance_count; i++)
        decide_instance(s, i);
    return MC_OK;
}

static void first_events(sim *s)
{
    const struct sim_options *o = &s->options;

    for (uint32_t i = 0; i < o->change_count; i++)
        world_add(s, o->changes[i].at_ns, EVENT_CHANGE, i, 0);
    world_add(s, 0, EVENT_SAMPLE, 0, 0);
    if (o->trace->count)
        world_add(s, (uint64_t)((double)o->trace->requests[0].arrival_ns / o->speed), EVENT_ARRIVE,
                  0, 0);
}

mc_status sim_open(const struct sim_options *options, sim **sim_p, struct mc_error *error)
{
    struct sim_options o = *options;
    mc_status status = check_options(&o, error);

    if (status == MC_OK)
        status = check_trace(o.trace, error);
    if (status != MC_OK)
        return status;
    sim *s = alloc_zeroed(o.alloc, 1, sizeof(*s));
    if (!s)
        return error_set(error, MC_E_NOMEM, "simulation: out of memory");
    s->options = o;
    s->alloc = o.alloc;
    s->node = assume_node(&s->options.assume);
    s->tick_ns = UINT64_MAX;
    for (uint32_t i = 0; i < o.group_count; i++)
        s->instances_max += o.groups[i].count;
    for (uint32_t i = 0; i < o.change_count; i++)
        s->instances_max += o.changes[i].kind == SIM_JOIN;

    status = s->node.kv_tokens ? open_memory(s) : MC_E_RANGE;
    if (status == MC_E_RANGE)
        error_set(error, status, "simulation: the LLM's weights do not fit into a node");
    else if (status == MC_OK && (status = open_links(s)) == MC_OK &&
             (status = open_sched(s, error)) == MC_OK)
        status = open_instances(s);
    if (status == MC_OK)
        first_events(s);
    if (status == MC_OK && s->failed)
        status = MC_E_NOMEM;
    if (status != MC_OK) {
        if (status == MC_E_NOMEM)
            error_set(error, status, "simulation: out of memory");
        sim_close(s);
        return status;
    }
    *sim_p = s;
    return MC_OK;
}

void sim_close(sim *s)
{
    if (!s)
        return;
    const struct mc_alloc *a = s->alloc;

    for (uint32_t i = 0; s->instances && i < s->instances_max; i++) {
        blocks_close(&s->instances[i]);
        batch_fini(&s->instances[i].batch);
        alloc_free(a, s->instances[i].stage_free_ns);
    }
    mc_sched_close(s->sched);
    links_fini(&s->links);
    agenda_fini(&s->agenda);
    alloc_free(a, s->samples);
    alloc_free(a, s->gaps);
    alloc_free(a, s->copies);
    alloc_free(a, s->decisions);
    alloc_free(a, s->scratch);
    alloc_free(a, s->keys);
    alloc_free(a, s->replicas);
    alloc_free(a, s->attempts);
    alloc_free(a, s->records);
    alloc_free(a, s->lives);
    alloc_free(a, s->instances);
    alloc_free(a, s);
}
