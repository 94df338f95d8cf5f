/* sched.c - the scheduler's events; what is decided is in place.c. */
#include <mooncake/sched.h>

#include <math.h>

#include "sched/joins.h"
#include "sched/stages.h"
#include "sched/state.h"

static const uint64_t TOKENS_LIMIT = (uint64_t)1 << 40; /* of a prompt: sums of many do not wrap */
static const double MEAN_STEP = 0.05;

/* -------------------------------------------------------------------------------------- instances */

static void set_pooled(mc_sched *sched, uint32_t cell, bool pooled)
{
    sched->pool_size += pooled;
    sched->pool_size -= sched->pooled[cell];
    sched->pooled[cell] = pooled;
}

static mc_status on_instance(mc_sched *sched, const struct mc_sched_instance *info)
{
    uint32_t cell;

    if (!sched_all_zero(info->reserved, 4))
        return MC_E_UNSUPPORTED;
    for (size_t i = 0; i < sizeof(info->cost.reserved) / sizeof(info->cost.reserved[0]); i++)
        if (info->cost.reserved[i] != 0)
            return MC_E_UNSUPPORTED;
    const mc_status status = cluster_instance(&sched->cluster, info, &cell);
    if (status != MC_OK)
        return status;
    set_pooled(sched, cell, info->role == MC_ROLE_STORE);
    if (sched->cluster.instances[cell].joined_ns == 0)
        sched->cluster.instances[cell].joined_ns = sched->now_ns;
    return MC_OK;
}

/* End it; it is told of at the next mc_sched_take(). */
static void abort_request(mc_sched *sched, uint32_t cell)
{
    struct request *r = &sched->cluster.requests[cell];

    shadow_release(&sched->admit.shadows, &sched->cluster, sched->now_ns, cell, false);
    joins_ended(sched, r);
    cluster_end(&sched->cluster, cell, sched->now_ns);
    sched->stats.aborted++;
    sched->stats.wasted_prefill_ns += r->spent_ns;
    r->next = CLUSTER_NONE;
    if (sched->aborted == CLUSTER_NONE)
        sched->aborted = cell;
    else
        sched->cluster.requests[sched->aborted_last].next = cell;
    sched->aborted_last = cell;
}

static mc_status on_gone(mc_sched *sched, uint64_t id)
{
    const uint32_t cell = cluster_find(&sched->cluster, id);

    if (cell == CLUSTER_NONE)
        return MC_E_NOT_FOUND;
    struct instance *instance = &sched->cluster.instances[cell];
    while (instance->prefill_first != CLUSTER_NONE)
        abort_request(sched, instance->prefill_first);
    while (instance->decode_first != CLUSTER_NONE)
        abort_request(sched, instance->decode_first);
    kv_index_reset(sched->index, cell);
    if (sched->coming)
        kv_index_reset(sched->coming, cell);
    set_pooled(sched, cell, false);
    cluster_instance_gone(&sched->cluster, cell);
    return MC_OK;
}

static mc_status on_drain(mc_sched *sched, uint64_t id)
{
    const uint32_t cell = cluster_find(&sched->cluster, id);

    if (cell == CLUSTER_NONE)
        return MC_E_NOT_FOUND;
    sched->cluster.instances[cell].draining = true;
    cluster_touch(&sched->cluster, cell);
    return MC_OK;
}

static mc_status on_load(mc_sched *sched, const struct mc_sched_load *load)
{
    const uint32_t cell = cluster_find(&sched->cluster, load->id);

    if (cell == CLUSTER_NONE)
        return MC_E_NOT_FOUND;
    if (!sched_all_zero(load->reserved, 3))
        return MC_E_UNSUPPORTED;
    cluster_load(&sched->cluster, cell, sched->now_ns, load);
    return MC_OK;
}

/* ----------------------------------------------------------------------------------------- blocks */

static mc_status on_blocks(mc_sched *sched, const struct mc_sched_blocks *blocks, bool stored)
{
    const uint32_t cell = cluster_find(&sched->cluster, blocks->id);

    if (cell == CLUSTER_NONE)
        return MC_E_NOT_FOUND;
    if (blocks->count != 0 && !blocks->keys)
        return MC_E_ARG;
    for (uint64_t i = 0; i < blocks->count; i++) {
        if (stored) { /* what came stays in `coming`, too: the rest of a chain is found behind it */
            kv_index_insert(sched->index, &blocks->keys[i], cell);
            continue;
        }
        kv_index_remove(sched->index, &blocks->keys[i], cell);
        if (sched->coming)
            kv_index_remove(sched->coming, &blocks->keys[i], cell);
    }
    return MC_OK;
}

static mc_status on_reset(mc_sched *sched, uint64_t id)
{
    if (id == 0) {
        kv_index_clear(sched->index);
        return MC_OK;
    }
    const uint32_t cell = cluster_find(&sched->cluster, id);
    if (cell == CLUSTER_NONE)
        return MC_E_NOT_FOUND;
    kv_index_reset(sched->index, cell);
    return MC_OK;
}

/* --------------------------------------------------------------------------------------- requests */

static mc_status on_request(mc_sched *sched, const struct mc_sched_request *request)
{
    if ((request->flags & ~(uint32_t)MC_REQUEST_TAKEN) != 0 ||
        !sched_all_zero(request->reserved, 1))
        return MC_E_UNSUPPORTED;
    if (request->id == 0 || request->tokens == 0 || request->tokens > TOKENS_LIMIT ||
        request->key_count > request->tokens / sched->block_tokens ||
        (request->key_count != 0 && !request->keys))
        return MC_E_ARG;
    if (request->id <= sched->cluster.latest)
        return MC_E_EXISTS;
    if (!cluster_has_room(&sched->cluster))
        return MC_E_FULL;
    sched->cluster.latest = request->id;
    sched_decide(sched, request);
    return MC_OK;
}

static void mean(double *mean_p, double predicted, double observed)
{
    if (observed > 0)
        *mean_p += MEAN_STEP * (fabs(predicted - observed) / observed - *mean_p);
}

static void on_prefill_end(mc_sched *sched, uint32_t cell, const struct mc_sched_progress *p)
{
    const uint32_t at = cluster_find(&sched->cluster, p->id);
    const bool again = sched->cluster.requests[cell].prefill == CLUSTER_NONE; /* it ended before */

    sched->cluster.requests[cell].spent_ns = p->duration_ns;
    if (at != CLUSTER_NONE) {
        struct instance *instance = &sched->cluster.instances[at];
        sched->cluster.requests[cell].spent_ns =
            service_end(&instance->service, &instance->cost, sched->now_ns, p->tokens + p->reused,
                        p->reused, p->duration_ns);
        cluster_settle_later(&sched->cluster, at);
        cluster_touch(&sched->cluster, at);
    }
    cluster_prefill_end(&sched->cluster, cell, sched->now_ns);
    if (sched->coming && at != CLUSTER_NONE &&
        sched->cluster.instances[at].prefill_first == CLUSTER_NONE)
        kv_index_reset(sched->coming, at); /* nothing is on its way there */
    shadow_release(&sched->admit.shadows, &sched->cluster, sched->now_ns, cell, true);
    if (again || sched->admit.mode != MC_ADMIT_STAGES)
        return;
    stages_prefill_end(sched, cell);
}

/* What an instance timed of itself. */
static mc_status on_measured(mc_sched *sched, const struct mc_sched_progress *p)
{
    const uint32_t at = cluster_find(&sched->cluster, p->id);

    if (!sched_all_zero(p->reserved, 1))
        return MC_E_UNSUPPORTED;
    if (p->tokens > TOKENS_LIMIT || p->reused > TOKENS_LIMIT || p->request != 0)
        return MC_E_ARG;
    if (at == CLUSTER_NONE)
        return MC_E_NOT_FOUND;
    struct cost *cost = &sched->cluster.instances[at].cost;
    if (p->sequences != 0)
        cost_learn_step(cost, p->sequences, p->tokens, p->duration_ns);
    else
        cost_learn_prefill(cost, p->tokens + p->reused, p->reused, p->duration_ns);
    cluster_touch(&sched->cluster, at);
    return MC_OK;
}

static void on_decode_begin(mc_sched *sched, uint32_t cell)
{
    struct request *r = &sched->cluster.requests[cell];

    if (r->stage != STAGE_DECODE) {
        if (r->predicted)
            mean(&sched->stats.ttft_error, (double)r->ttft_ns,
                 (double)(sched->now_ns - r->arrived_ns));
        admit_first_token(sched, r);
        joins_begun(sched, r);
    }
    cluster_decode_begin(&sched->cluster, cell);
}

static void on_request_end(mc_sched *sched, uint32_t cell, const struct mc_sched_progress *p)
{
    if (p->status == 0)
        admit_finished(sched, &sched->cluster.requests[cell], p);
    shadow_release(&sched->admit.shadows, &sched->cluster, sched->now_ns, cell, true);
    joins_ended(sched, &sched->cluster.requests[cell]);
    cluster_end(&sched->cluster, cell, sched->now_ns);
    if (p->status != 0)
        sched->stats.wasted_prefill_ns += sched->cluster.requests[cell].spent_ns;
    cluster_request_free(&sched->cluster, cell);
}

static mc_status on_progress(mc_sched *sched, uint32_t kind, const struct mc_sched_progress *p)
{
    const uint32_t cell = cluster_request(&sched->cluster, p->request);

    if (!sched_all_zero(p->reserved, 1))
        return MC_E_UNSUPPORTED;
    if (p->tokens > TOKENS_LIMIT || p->reused > TOKENS_LIMIT)
        return MC_E_ARG;
    if (cell == CLUSTER_NONE)
        return MC_E_NOT_FOUND;
    switch (kind) {
    case MC_EVENT_PREFILL_BEGIN:
        cluster_prefill_begin(&sched->cluster, cell, sched->now_ns);
        break;
    case MC_EVENT_PREFILL_END:
        on_prefill_end(sched, cell, p);
        break;
    case MC_EVENT_DECODE_BEGIN:
        on_decode_begin(sched, cell);
        break;
    default:
        on_request_end(sched, cell, p);
        break;
    }
    return MC_OK;
}

static mc_status on_decode_step(mc_sched *sched, const struct mc_sched_progress *p)
{
    const uint32_t cell = cluster_find(&sched->cluster, p->id);

    if (!sched_all_zero(p->reserved, 1))
        return MC_E_UNSUPPORTED;
    if (cell == CLUSTER_NONE)
        return MC_E_NOT_FOUND;
    struct cost *cost = &sched->cluster.instances[cell].cost;
    if (cost_knows_step(cost))
        mean(&sched->stats.tbt_error, cost_step(cost, p->sequences, p->tokens) * 1e9,
             (double)p->duration_ns);
    if (p->sequences != 0)
        cost_pace_step(cost, sched->now_ns, p->sequences, p->tokens, (double)p->duration_ns / 1e9);
    cost_learn_step(cost, p->sequences, p->tokens, p->duration_ns);
    cluster_touch(&sched->cluster, cell);
    return MC_OK;
}

static mc_status on_transfer(mc_sched *sched, uint32_t kind, const struct mc_sched_transfer *t)
{
    const uint32_t from = cluster_find(&sched->cluster, t->from);
    const uint32_t to = cluster_find(&sched->cluster, t->to);

    if (from == CLUSTER_NONE || to == CLUSTER_NONE)
        return MC_E_NOT_FOUND;
    if (kind == MC_EVENT_TRANSFER_END && t->status == 0) {
        struct instance *receiver = &sched->cluster.instances[to];
        cost_learn_transfer(&receiver->cost, sched_link(&sched->cluster.instances[from], receiver),
                            t->bytes, t->duration_ns);
        cluster_touch(&sched->cluster, to);
    }
    return MC_OK;
}

/* ------------------------------------------------------------------------------------------- step */

static mc_status take_in(mc_sched *sched, const struct mc_sched_event *event)
{
    if (event->reserved != 0)
        return MC_E_UNSUPPORTED;
    switch (event->kind) {
    case MC_EVENT_TICK:
        return MC_OK;
    case MC_EVENT_INSTANCE:
        return on_instance(sched, &event->instance);
    case MC_EVENT_INSTANCE_GONE:
        return on_gone(sched, event->id);
    case MC_EVENT_INSTANCE_DRAIN:
        return on_drain(sched, event->id);
    case MC_EVENT_LOAD:
        return on_load(sched, &event->load);
    case MC_EVENT_STORED:
        return on_blocks(sched, &event->blocks, true);
    case MC_EVENT_EVICTED:
        return on_blocks(sched, &event->blocks, false);
    case MC_EVENT_BLOCKS_RESET:
        return on_reset(sched, event->id);
    case MC_EVENT_REQUEST:
        return on_request(sched, &event->request);
    case MC_EVENT_PREFILL_BEGIN:
    case MC_EVENT_PREFILL_END:
    case MC_EVENT_DECODE_BEGIN:
    case MC_EVENT_REQUEST_END:
        return on_progress(sched, event->kind, &event->progress);
    case MC_EVENT_TRANSFER_BEGIN:
    case MC_EVENT_TRANSFER_END:
        return on_transfer(sched, event->kind, &event->transfer);
    case MC_EVENT_DECODE_STEP:
        return on_decode_step(sched, &event->progress);
    case MC_EVENT_MEASURED:
        return on_measured(sched, &event->progress);
    case MC_EVENT_SLO:
        sched->slo = event->slo;
        return MC_OK;
    default:
        return MC_E_UNSUPPORTED;
    }
}

static uint32_t next_aborted(mc_sched *sched)
{
    const uint32_t cell = sched->aborted;

    sched->aborted = sched->cluster.requests[cell].next;
    return cell;
}

/* Decisions that were not taken. */
static void lose_decisions(mc_sched *sched)
{
    sched->stats.decisions_lost += sched->has_decision;
    sched->stats.decisions_lost += sched->replicate.has_decision;
    sched->has_decision = sched->replicate.has_decision = false;
    while (sched->aborted != CLUSTER_NONE) {
        cluster_request_free(&sched->cluster, next_aborted(sched));
        sched->stats.decisions_lost++;
    }
}

mc_status mc_sched_step(mc_sched *sched, uint64_t now_ns, const struct mc_sched_event *event)
{
    if (now_ns > sched->now_ns)
        sched->now_ns = now_ns;
    lose_decisions(sched);
    sched->stats.events++;

    const mc_status status = take_in(sched, event);
    if (status != MC_OK)
        sched->stats.events_skipped++;
    else if (sched->policy->observe)
        sched->policy->observe(sched->policy_state, sched->now_ns, event);
    return status;
}

mc_status mc_sched_take(mc_sched *sched, struct mc_decision *decisions_p, size_t capacity,
                        size_t *count_p)
{
    size_t count = 0;

    if (sched->has_decision && count < capacity) {
        decisions_p[count++] = sched->decision;
        sched->has_decision = false;
    }
    if (sched->replicate.has_decision && count < capacity) {
        decisions_p[count++] = sched->replicate.decision;
        sched->replicate.has_decision = false;
    }
    while (sched->aborted != CLUSTER_NONE && count < capacity) {
        const uint32_t cell = next_aborted(sched);
        const struct request *r = &sched->cluster.requests[cell];

        decisions_p[count++] = (struct mc_decision){ .kind = MC_DECIDE_ABORT,
                                                     .reason = MC_REASON_INSTANCE_LOST,
                                                     .request = r->id,
                                                     .prefill = r->prefill_id,
                                                     .decode = r->decode_id };
        cluster_request_free(&sched->cluster, cell);
    }
    if (count == 0)
        return MC_E_NOT_FOUND;
    *count_p = count;
    return MC_OK;
}

mc_status mc_sched_due(const mc_sched *sched, uint64_t *due_ns_p)
{
    (void)
        sched; /* nothing is kept waiting in this release, and leases are looked at when they matter */
    *due_ns_p = UINT64_MAX;
    return MC_OK;
}

mc_status mc_sched_stats(const mc_sched *sched, struct mc_sched_stats *stats_p)
{
    const struct cluster *cluster = &sched->cluster;
    struct mc_sched_stats stats = sched->stats;

    stats.instances = cluster->count;
    for (uint32_t i = 0; i < cluster->count; i++) {
        const struct instance *instance = &cluster->instances[cluster->order[i]];
        stats.instances_expired +=
            instance->ever_reported && sched->now_ns >= instance->load_until_ns;
    }
    stats.requests = cluster->request_count;
    stats.would_have_met = sched->admit.shadows.met;
    stats.shadowed = sched->admit.shadows.judged;
    stats.ttft_error_p50 = quantiles_at(&sched->admit.ttft_error, 0.5);
    stats.ttft_error_p90 = quantiles_at(&sched->admit.ttft_error, 0.9);
    stats.blocks = kv_index_blocks(sched->index);
    *stats_p = stats;
    return MC_OK;
}
