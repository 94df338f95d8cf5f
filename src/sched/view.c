/* view.c - build the view that a policy sees, and answer what it asks. */
#include "base/prng.h"
#include "sched/place.h"

enum cost_link sched_link(const struct instance *from, const struct instance *to)
{
    return from->info.host != 0 && from->info.host == to->info.host ? COST_LOCAL : COST_REMOTE;
}

struct instance *place_instance(const struct place *place, uint64_t row)
{
    return &place->sched->cluster.instances[place->sched->row_cells[row]];
}

uint64_t place_row(const struct place *place, uint64_t id)
{
    uint64_t low = 0, high = place->view.count;

    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;

        if (place->view.instances[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < place->view.count && place->view.instances[low].id == id ? low : UINT64_MAX;
}

/* -------------------------------------------------------------------------------- what it may be given */

static bool fits(const struct place *place, const struct instance *instance)
{
    const uint64_t most = instance->info.kv_tokens_max;
    return most == 0 || place->request->tokens < most; /* and one more */
}

static bool can_prefill(const struct place *place, const struct instance *instance)
{
    return (instance->info.role & MC_ROLE_PREFILL) != 0 && !instance->draining &&
           instance->info.id != place->request->barred && fits(place, instance);
}

bool place_can_decode(const struct place *place, uint64_t row)
{
    const struct instance *instance = place_instance(place, row);

    return (instance->info.role & MC_ROLE_DECODE) != 0 && !instance->draining &&
           instance->info.id != place->request->barred_decode && fits(place, instance);
}

bool place_has_memory(const struct place *place, uint64_t row)
{
    const uint64_t most = place_instance(place, row)->info.kv_tokens_max;
    const uint64_t need = most < place->to_hold ? most : place->to_hold;

    return most == 0 || place->view.instances[row].free_tokens >= need;
}

/* ------------------------------------------------------------------------------------------ costs */

static void learn_who_knows(struct place *place, const struct instance *instance)
{
    const struct cost *cost = &instance->cost;

    if (!place->prefill && cost_knows_prefill(cost))
        place->prefill = cost;
    if (!place->step && cost_knows_step(cost))
        place->step = cost;
    for (int link = COST_LOCAL; link <= COST_REMOTE; link++)
        if (!place->link[link] && cost_knows_link(cost, (enum cost_link)link))
            place->link[link] = cost;
}

const struct cost *place_prefill_cost(const struct place *place, uint64_t row)
{
    const struct cost *own = &place_instance(place, row)->cost;

    return cost_knows_prefill(own) ? own : place->prefill ? place->prefill : &cost_nominal;
}

const struct cost *place_step_cost(const struct place *place, uint64_t row)
{
    const struct cost *own = &place_instance(place, row)->cost;

    return cost_knows_step(own) ? own : place->step ? place->step : &cost_nominal;
}

static uint64_t view_prefill_ns(const struct mc_view *view, uint64_t index, uint64_t tokens,
                                uint64_t reused)
{
    const uint64_t most = tokens ? tokens - 1 : 0; /* the last token is always computed */

    const struct cost *cost = place_prefill_cost(view->context, index);

    return cost_ns(cost_prefill(cost, tokens, reused < most ? reused : most) *
                   cost_prefill_pace(cost, view->now_ns));
}

static uint64_t view_wait_ns(const struct mc_view *view, uint64_t index, uint64_t order)
{
    const struct place *place = view->context;

    return cluster_wait_ns(&place->sched->cluster, place->sched->row_cells[index], view->now_ns,
                           order);
}

static uint64_t view_tbt_ns(const struct mc_view *view, uint64_t index, uint64_t sequences,
                            uint64_t tokens)
{
    const struct mc_view_instance *i = &view->instances[index];

    const struct cost *cost = place_step_cost(view->context, index);

    return cost_ns(cost_step(cost, i->running + sequences, i->context_tokens + tokens) *
                   cost_step_pace(cost, view->now_ns));
}

/* The slower end decides. An end that says nothing is as fast as others like it. */
static uint64_t view_transfer_ns(const struct mc_view *view, uint64_t from, uint64_t to,
                                 uint64_t tokens)
{
    const struct place *place = view->context;
    const struct instance *sender = place_instance(place, from),
                          *receiver = place_instance(place, to);
    const enum cost_link link = sched_link(sender, receiver);
    const uint64_t bytes = tokens * receiver->info.kv_token_bytes;
    const bool receiver_knows = cost_knows_link(&receiver->cost, link);
    const bool sender_knows = sender->cost.given.bytes_per_s > 0; /* learnt is what comes in */
    double seconds = 0, other = 0;

    if (receiver_knows)
        seconds = cost_transfer(&receiver->cost, link, bytes);
    if (sender_knows)
        other = cost_transfer(&sender->cost, link, bytes);
    if (!receiver_knows && !sender_knows)
        seconds = cost_transfer(place->link[link] ? place->link[link] : &cost_nominal, link, bytes);

    const uint64_t send = view->instances[from].send_busy_ns;
    const uint64_t receive = view->instances[to].receive_busy_ns;
    return cost_ns(seconds > other ? seconds : other) + (send > receive ? send : receive);
}

/* ---------------------------------------------------------------------------------------- holders */

/* One instance that has all of it, the quickest; or the store node that has most of what the pool has of it. */
static uint64_t view_holder(const struct mc_view *view, uint64_t to, uint64_t tokens)
{
    const struct place *place = view->context;
    const mc_sched *sched = place->sched;
    uint64_t best = UINT64_MAX, best_ns = 0, most = UINT64_MAX;
    uint32_t most_held = 0;

    for (uint32_t i = 0; i < place->holder_count; i++) {
        const uint32_t row = sched->holders[i];
        const uint32_t held = sched->held[sched->row_cells[row]];

        if (row == to)
            continue;
        if (view->instances[row].matched_tokens >= tokens) {
            const uint64_t ns = view->transfer_ns(view, row, to, tokens);
            if (best == UINT64_MAX || ns < best_ns) {
                best = row;
                best_ns = ns;
            }
        }
        if (held > most_held) {
            most = row;
            most_held = held;
        }
    }
    if (best != UINT64_MAX)
        return best;
    return place->pool_tokens >= tokens ? most : UINT64_MAX;
}

static uint64_t view_chance(const struct mc_view *view, uint64_t counter)
{
    const struct place *place = view->context;

    return prng_at(place->sched->seed ^ prng_mix(place->request->id), counter);
}

/* ------------------------------------------------------------------------------------------- rows */

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static void fill_row(struct place *place, uint32_t cell, struct mc_view_instance *row)
{
    mc_sched *sched = place->sched;
    const struct instance *i = &sched->cluster.instances[cell];
    const bool is_store = i->info.role == MC_ROLE_STORE;
    uint32_t role = is_store ? MC_ROLE_STORE : i->info.role & MC_ROLE_DECODE;

    cluster_expire(&sched->cluster, cell, sched->now_ns);
    const struct cluster_figures f = cluster_figures(&sched->cluster, cell);
    if (!is_store && can_prefill(place, i))
        role |= MC_ROLE_PREFILL;
    *row = (struct mc_view_instance){
        .id = i->info.id,
        .host = i->info.host,
        .model = i->info.model,
        .role = role,
        .flags = (i->draining ? MC_VIEW_DRAINING : 0u) |
                 (i->ever_reported && !i->reported ? MC_VIEW_EXPIRED : 0u),
        .matched_tokens = sched->matched[cell] * sched->block_tokens,
        .coming_tokens = sched->coming ? sched->coming_matched[cell] * sched->block_tokens : 0,
        .queue_ns = cluster_queue_ns(&sched->cluster, cell, sched->now_ns),
        .queued = f.queued,
        .queued_tokens = f.queued_tokens,
        .running = f.running,
        .context_tokens = f.context_tokens,
        .free_tokens = f.free_tokens,
        .kv_tokens_max = i->info.kv_tokens_max,
        .sequences_max = i->info.sequences_max,
        .send_busy_ns = less(i->send_until_ns, sched->now_ns),
        .receive_busy_ns = less(i->receive_until_ns, sched->now_ns),
        .last_ns = i->last_ns,
    };
}

static void add_row(struct place *place, uint32_t cell)
{
    mc_sched *sched = place->sched;
    struct instance *instance = &sched->cluster.instances[cell];
    const uint32_t row = (uint32_t)place->view.count;

    service_settle(&instance->service, &instance->cost, sched->now_ns);
    if (cost_knows_prefill(&instance->cost))
        cluster_price(&sched->cluster, cell, &instance->cost);
    if (instance->info.role != MC_ROLE_STORE) {
        if (instance->info.model != place->request->model)
            return;
        learn_who_knows(place, instance);
    }
    fill_row(place, cell, &sched->rows[row]);
    sched->row_cells[row] = cell;
    if (sched->matched[cell] != 0 || sched->held[cell] != 0)
        sched->holders[place->holder_count++] = row;
    if (sched->rows[row].matched_tokens > place->view.best_matched_tokens)
        place->view.best_matched_tokens = sched->rows[row].matched_tokens;
    place->view.count++;
}

static uint64_t first(uint64_t a, uint64_t b)
{
    return a ? a : b;
}

void place_view(struct place *place, mc_sched *sched, const struct mc_sched_request *request)
{
    const uint64_t block = sched->block_tokens;
    const uint64_t reusable = (request->tokens - 1) / block; /* the last token is always computed */
    const uint64_t keys = request->key_count < reusable ? request->key_count : reusable;

    *place = (struct place){
        .sched = sched,
        .request = request,
        .to_hold = (request->tokens / block + 1) * block,
        .view = { .now_ns = sched->now_ns,
                  .instances = sched->rows,
                  .block_tokens = block,
                  .slo = { .ttft_ns = first(request->slo.ttft_ns, sched->slo.ttft_ns),
                           .tbt_ns = first(request->slo.tbt_ns, sched->slo.tbt_ns) },
                  .prefill_ns = view_prefill_ns,
                  .transfer_ns = view_transfer_ns,
                  .tbt_ns = view_tbt_ns,
                  .holder = view_holder,
                  .chance = view_chance,
                  .wait_ns = view_wait_ns,
                  .context = place },
    };
    place->pool_tokens = block * kv_index_match(sched->index, request->keys, keys, sched->pooled,
                                                sched->matched, sched->held);
    place->view.best_matched_tokens = place->pool_tokens;
    if (sched->coming)
        kv_index_match(sched->coming, request->keys, keys, NULL, sched->coming_matched, NULL);
    for (uint32_t i = 0; i < sched->cluster.count; i++)
        add_row(place, sched->cluster.order[i]);
    for (uint64_t i = 0; i < place->view.count; i++)
        if (sched->rows[i].role != MC_ROLE_STORE && sched->rows[i].running > 0)
            sched->rows[i].tbt_ns = view_tbt_ns(&place->view, i, 0, 0);
}
