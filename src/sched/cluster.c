/* cluster.c - instances: who there is, what they reported, and what that means now. */
#include "sched/cluster.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"

mc_status cluster_init(struct cluster *cluster, const struct mc_alloc *alloc,
                       uint32_t instances_max, uint32_t requests_max)
{
    uint32_t buckets = 1, ring = 1024;

    while (buckets < requests_max)
        buckets *= 2;
    while (ring < instances_max)
        ring *= 2;
    *cluster = (struct cluster){ .alloc = alloc,
                                 .instances_max = instances_max,
                                 .requests_max = requests_max,
                                 .bucket_mask = buckets - 1,
                                 .free_request = CLUSTER_NONE,
                                 .changed_mask = ring - 1,
                                 .settle_first = CLUSTER_NONE,
                                 .settle_last = CLUSTER_NONE };
    cluster->instances = alloc_zeroed(alloc, instances_max, sizeof(*cluster->instances));
    cluster->order = alloc_zeroed(alloc, instances_max, sizeof(*cluster->order));
    cluster->ids = alloc_zeroed(alloc, instances_max, sizeof(*cluster->ids));
    cluster->changed = alloc_zeroed(alloc, ring, sizeof(*cluster->changed));
    cluster->requests = alloc_resize(alloc, NULL, requests_max, sizeof(*cluster->requests));
    cluster->buckets = alloc_resize(alloc, NULL, buckets, sizeof(*cluster->buckets));
    if (!cluster->instances || !cluster->order || !cluster->ids || !cluster->changed ||
        !cluster->requests || !cluster->buckets) {
        cluster_fini(cluster);
        return MC_E_NOMEM;
    }
    memset(cluster->buckets, 0xff, buckets * sizeof(*cluster->buckets)); /* CLUSTER_NONE */
    return MC_OK;
}

void cluster_fini(struct cluster *cluster)
{
    if (!cluster->alloc)
        return;
    alloc_free(cluster->alloc, cluster->buckets);
    alloc_free(cluster->alloc, cluster->requests);
    alloc_free(cluster->alloc, cluster->changed);
    alloc_free(cluster->alloc, cluster->ids);
    alloc_free(cluster->alloc, cluster->order);
    alloc_free(cluster->alloc, cluster->instances);
    *cluster = (struct cluster){ 0 };
}

/* ---------------------------------------------------------------------------------- what changes */

void cluster_touch(struct cluster *cluster, uint32_t cell)
{
    cluster->changed[cluster->changes++ & cluster->changed_mask] = cell;
}

static void settle_unlink(struct cluster *cluster, uint32_t cell)
{
    struct instance *i = &cluster->instances[cell];

    if (!i->settles)
        return;
    if (i->settle_before == CLUSTER_NONE)
        cluster->settle_first = i->settle_after;
    else
        cluster->instances[i->settle_before].settle_after = i->settle_after;
    if (i->settle_after == CLUSTER_NONE)
        cluster->settle_last = i->settle_before;
    else
        cluster->instances[i->settle_after].settle_before = i->settle_before;
    i->settles = false;
}

void cluster_settle_later(struct cluster *cluster, uint32_t cell)
{
    struct instance *i = &cluster->instances[cell];

    settle_unlink(cluster, cell);
    i->settles = true;
    i->settle_before = cluster->settle_last;
    i->settle_after = CLUSTER_NONE;
    if (cluster->settle_last == CLUSTER_NONE)
        cluster->settle_first = cell;
    else
        cluster->instances[cluster->settle_last].settle_after = cell;
    cluster->settle_last = cell;
}

void cluster_settle(struct cluster *cluster, uint64_t now_ns)
{
    while (cluster->settle_first != CLUSTER_NONE) {
        const uint32_t cell = cluster->settle_first;
        struct instance *i = &cluster->instances[cell];

        if (!service_is_settled(&i->service, now_ns))
            return;
        service_settle(&i->service, &i->cost, now_ns);
        settle_unlink(cluster, cell);
        cluster_touch(cluster, cell);
    }
}

/* ---------------------------------------------------------------------------------- who there is */

/* Where in `order` the first id >= `id` is. */
static uint32_t lower_bound(const struct cluster *cluster, uint64_t id)
{
    uint32_t low = 0, high = cluster->count;

    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;

        if (cluster->ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t cluster_find(const struct cluster *cluster, uint64_t id)
{
    const uint32_t at = lower_bound(cluster, id);

    if (at == cluster->count || cluster->ids[at] != id)
        return CLUSTER_NONE;
    return cluster->order[at];
}

static bool is_role(uint32_t role)
{
    return role >= MC_ROLE_PREFILL && role <= MC_ROLE_STORE;
}

static uint32_t unused_cell(const struct cluster *cluster)
{
    uint32_t cell = 0;

    while (cluster->instances[cell].used)
        cell++;
    return cell;
}

static bool costs_differ(const struct mc_cost *a, const struct mc_cost *b)
{
    return memcmp(a, b, sizeof(*a)) != 0;
}

mc_status cluster_instance(struct cluster *cluster, const struct mc_sched_instance *info,
                           uint32_t *cell_p)
{
    if (info->id == 0 || !is_role(info->role) || !cost_is_sane(&info->cost))
        return MC_E_ARG;

    const uint32_t at = lower_bound(cluster, info->id);
    uint32_t cell = cluster_find(cluster, info->id);
    if (cell == CLUSTER_NONE) {
        if (cluster->count == cluster->instances_max)
            return MC_E_FULL;
        cell = unused_cell(cluster);
        memmove(&cluster->order[at + 1], &cluster->order[at],
                (cluster->count - at) * sizeof(*cluster->order));
        memmove(&cluster->ids[at + 1], &cluster->ids[at],
                (cluster->count - at) * sizeof(*cluster->ids));
        cluster->order[at] = cell;
        cluster->ids[at] = info->id;
        cluster->count++;
        cluster->instances[cell] = (struct instance){ .used = true,
                                                      .prefill_first = CLUSTER_NONE,
                                                      .prefill_last = CLUSTER_NONE,
                                                      .decode_first = CLUSTER_NONE,
                                                      .decode_last = CLUSTER_NONE };
        cost_init(&cluster->instances[cell].cost, &info->cost);
    } else if (costs_differ(&cluster->instances[cell].cost.given, &info->cost)) {
        cost_init(&cluster->instances[cell].cost, &info->cost);
    }
    cluster->decoders -= (cluster->instances[cell].info.role & MC_ROLE_DECODE) != 0;
    cluster->decoders += (info->role & MC_ROLE_DECODE) != 0;
    cluster->instances[cell].info = *info;
    cluster->instances[cell].draining = false;
    cluster->members++;
    cluster_touch(cluster, cell);
    *cell_p = cell;
    return MC_OK;
}

void cluster_instance_gone(struct cluster *cluster, uint32_t cell)
{
    struct instance *instance = &cluster->instances[cell];
    const uint32_t at = lower_bound(cluster, instance->info.id);

    assert(instance->prefill_first == CLUSTER_NONE && instance->decode_first == CLUSTER_NONE);
    settle_unlink(cluster, cell);
    cluster->decoders -= (instance->info.role & MC_ROLE_DECODE) != 0;
    cluster->members++;
    cluster->count--;
    memmove(&cluster->order[at], &cluster->order[at + 1],
            (cluster->count - at) * sizeof(*cluster->order));
    memmove(&cluster->ids[at], &cluster->ids[at + 1],
            (cluster->count - at) * sizeof(*cluster->ids));
    instance->used = false;
}

/* ---------------------------------------------------------------------------------- load reports */

/* Count the requests at `instance` anew: which of them does its load report know? */
static void recount(struct cluster *cluster, struct instance *instance)
{
    instance->prefill_known = instance->decode_extra = (struct work){ 0 };
    instance->reserved_tokens = 0;
    for (uint32_t at = instance->prefill_first; at != CLUSTER_NONE;) {
        struct request *r = &cluster->requests[at];

        r->prefill_known = instance->reported && r->id <= instance->load.latest;
        if (r->prefill_known) {
            instance->prefill_known.count++;
            instance->prefill_known.tokens += r->to_compute;
            instance->prefill_known.ns += r->prefill_ns;
        }
        at = r->at_prefill.after;
    }
    for (uint32_t at = instance->decode_first; at != CLUSTER_NONE;) {
        struct request *r = &cluster->requests[at];

        r->reserved_known = instance->reported && r->id <= instance->load.latest;
        r->running_known = instance->reported && r->stage == STAGE_DECODE;
        if (!r->reserved_known)
            instance->reserved_tokens += r->to_hold;
        if (!r->running_known) {
            instance->decode_extra.count++;
            instance->decode_extra.tokens += r->tokens;
        }
        at = r->at_decode.after;
    }
}

static uint64_t busy_until(const struct instance *instance, uint64_t now_ns, uint64_t bytes)
{
    const struct cost *cost =
        cost_knows_link(&instance->cost, COST_REMOTE) ? &instance->cost : &cost_nominal;

    return bytes ? now_ns + cost_ns(cost_transfer(cost, COST_REMOTE, bytes)) : now_ns;
}

void cluster_load(struct cluster *cluster, uint32_t cell, uint64_t now_ns,
                  const struct mc_sched_load *load)
{
    struct instance *instance = &cluster->instances[cell];
    /* Progress shows when a chunk is done: until then the first one's time goes on. */
    const bool goes_on = instance->reported && instance->prefill_first != CLUSTER_NONE &&
                         load->queued_tokens != 0 &&
                         load->queued_tokens >= instance->load.queued_tokens;

    instance->load = *load;
    if (load->latest == 0) /* it knows of all: of all that there are now */
        instance->load.latest = cluster->latest;
    instance->reported = instance->ever_reported = true;
    instance->load_ns = now_ns;
    instance->load_until_ns =
        load->lease_ns < UINT64_MAX - now_ns ? now_ns + load->lease_ns : UINT64_MAX;
    if (!goes_on)
        instance->working_since_ns = now_ns;
    instance->send_until_ns = busy_until(instance, now_ns, load->send_bytes);
    instance->receive_until_ns = busy_until(instance, now_ns, load->receive_bytes);
    recount(cluster, instance);
    cluster_touch(cluster, cell);
}

void cluster_expire(struct cluster *cluster, uint32_t cell, uint64_t now_ns)
{
    struct instance *instance = &cluster->instances[cell];

    if (instance->reported && now_ns >= instance->load_until_ns) {
        instance->reported = false;
        recount(cluster, instance);
        cluster_touch(cluster, cell);
    }
}

/* --------------------------------------------------------------------------------- what they mean */

/* What the report's queue takes: as predicted for the requests that we know of, scaled to what is left of
 * them; what it has beyond these is priced as prompts of its own average length. */
static uint64_t reported_queue_ns(const struct instance *instance)
{
    const struct work *known = &instance->prefill_known;
    const uint64_t tokens = instance->load.queued_tokens, queued = instance->load.queued;
    const struct cost *cost = cost_knows_prefill(&instance->cost) ? &instance->cost : &cost_nominal;

    if (tokens <= known->tokens)
        return known->tokens
                   ? cost_ns((double)known->ns / 1e9 * ((double)tokens / (double)known->tokens))
                   : 0;

    const uint64_t foreign_tokens = tokens - known->tokens;
    const uint64_t foreign = queued > known->count ? queued - known->count : 1;
    return known->ns + cost_ns((double)foreign * cost_prefill(cost, foreign_tokens / foreign, 0));
}

/* Now that its costs are known, price what was placed there before they were. */
static void price_blind(struct cluster *cluster, uint32_t cell)
{
    struct instance *instance = &cluster->instances[cell];
    const struct cost *cost = &instance->cost;

    if (instance->prefill_blind == 0 || !cost_knows_prefill(cost))
        return;
    for (uint32_t at = instance->prefill_first; at != CLUSTER_NONE;) {
        struct request *r = &cluster->requests[at];

        if (r->blind) {
            const uint64_t ns = cost_ns(cost_prefill(cost, r->tokens, r->tokens - r->to_compute));

            instance->prefill.ns += ns - r->prefill_ns;
            if (r->prefill_known)
                instance->prefill_known.ns += ns - r->prefill_ns;
            r->prefill_ns = ns;
            r->blind = false;
        }
        at = r->at_prefill.after;
    }
    instance->prefill_blind = 0;
    cluster_touch(cluster, cell);
}

void cluster_price(struct cluster *cluster)
{
    if (cluster->changes - cluster->priced > cluster->changed_mask)
        for (uint32_t i = 0; i < cluster->count; i++)
            price_blind(cluster, cluster->order[i]);
    else
        for (; cluster->priced < cluster->changes; cluster->priced++)
            price_blind(cluster, cluster->changed[cluster->priced & cluster->changed_mask]);
    cluster->priced = cluster->changes;
}

struct cluster_queue cluster_queue(const struct cluster *cluster, uint32_t cell)
{
    const struct instance *i = &cluster->instances[cell];
    struct cluster_queue queue = { i->prefill.ns, UINT64_MAX, i->working_since_ns };

    if (i->reported)
        queue.ns = queue.ns - i->prefill_known.ns + reported_queue_ns(i);
    if (i->prefill_first != CLUSTER_NONE)
        queue.first_ns = cluster->requests[i->prefill_first].prefill_ns;
    return queue;
}

uint64_t cluster_queue_ns(const struct cluster *cluster, uint32_t cell, uint64_t now_ns)
{
    const double pace = cost_prefill_pace(&cluster->instances[cell].cost, now_ns);
    const struct cluster_queue queue = cluster_queue(cluster, cell);
    const uint64_t ns = cost_ns((double)queue.ns / 1e9 * pace);

    /* Time goes by, but the first one's work cannot fall below nothing because it is late. */
    uint64_t done = now_ns - queue.since_ns;
    if (queue.first_ns != UINT64_MAX) {
        const uint64_t first = cost_ns((double)queue.first_ns / 1e9 * pace);
        done = done < first ? done : first;
    }
    return ns > done ? ns - done : 0;
}

/* Is it worked on after one of `order`? Those without an order keep to their turn, behind the others. */
static bool is_behind(const struct request *r, uint64_t order)
{
    return r->stage == STAGE_QUEUED && r->order - 1 > order - 1;
}

uint64_t cluster_behind_ns(const struct cluster *cluster, uint32_t cell, uint64_t order)
{
    uint64_t behind = 0;

    for (uint32_t at = cluster->instances[cell].prefill_first; at != CLUSTER_NONE;
         at = cluster->requests[at].at_prefill.after)
        if (is_behind(&cluster->requests[at], order))
            behind += cluster->requests[at].prefill_ns;
    return behind;
}

uint32_t cluster_before(const struct cluster *cluster, uint32_t cell, uint64_t order)
{
    uint32_t before = CLUSTER_NONE;

    for (uint32_t at = cluster->instances[cell].prefill_first; at != CLUSTER_NONE;
         at = cluster->requests[at].at_prefill.after) {
        const struct request *r = &cluster->requests[at];

        if (is_behind(r, order))
            continue;
        if (before == CLUSTER_NONE || cluster->requests[before].stage != STAGE_QUEUED ||
            r->order - 1 >= cluster->requests[before].order - 1)
            before = at;
    }
    return before;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

struct cluster_figures cluster_figures(const struct cluster *cluster, uint32_t cell)
{
    const struct instance *i = &cluster->instances[cell];

    if (!i->reported)
        return (struct cluster_figures){
            .queued = i->prefill.count,
            .queued_tokens = i->prefill.tokens,
            .running = i->decode_extra.count,
            .context_tokens = i->decode_extra.tokens,
            .free_tokens = less(i->info.kv_tokens_max, i->reserved_tokens),
        };
    return (struct cluster_figures){
        .queued = i->load.queued + i->prefill.count - i->prefill_known.count,
        .queued_tokens = i->load.queued_tokens + i->prefill.tokens - i->prefill_known.tokens,
        .running = i->load.running + i->decode_extra.count,
        .context_tokens = i->load.context_tokens + i->decode_extra.tokens,
        .free_tokens = less(i->load.free_tokens, i->reserved_tokens),
    };
}
