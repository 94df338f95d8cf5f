/* view.c - build the view that a policy sees, and answer what it asks. */
#include "base/prng.h"
#include "sched/joins.h"

enum cost_link sched_link(const struct instance *from, const struct instance *to)
{
    return from->info.host != 0 && from->info.host == to->info.host ? COST_LOCAL : COST_REMOTE;
}

struct instance *place_instance(const struct place *place, uint64_t row)
{
    return &place->sched->cluster.instances[place->pane->cells[row]];
}

uint64_t place_row(const struct place *place, uint64_t id)
{
    const uint32_t cell = cluster_find(&place->sched->cluster, id);
    const uint32_t row = cell == CLUSTER_NONE ? CLUSTER_NONE : place->pane->row_of[cell];

    return row == CLUSTER_NONE ? UINT64_MAX : row;
}

/* ------------------------------------------------------------------------------------------ costs */

const struct cost *place_prefill_cost(const struct place *place, uint64_t row)
{
    return place->pane->prices[row].cost;
}

const struct cost *place_step_cost(const struct place *place, uint64_t row)
{
    return place->pane->steps[row].cost;
}

static uint64_t view_prefill_ns(const struct mc_view *view, uint64_t index, uint64_t tokens,
                                uint64_t reused)
{
    struct place *place = view->context;
    const uint32_t kind = place->pane->kinds[index].prefill;
    struct place_answer *last = &place->prefill;
    const uint64_t most = tokens ? tokens - 1 : 0; /* the last token is always computed */
    double f[4];

    /* Instances are asked for one after the other, and most are of one kind. */
    if (kind != 0 && last->kind == kind && last->tokens == tokens && last->reused == reused)
        return last->ns;
    const double *t = place->pane->prices[index].terms;
    cost_prefill_features(tokens, reused < most ? reused : most, f);
    *last = (struct place_answer){ kind, tokens, reused,
                                   cost_ns((t[0] + t[1] * f[0] + t[2] * f[1] + t[3] * f[2] + t[4]) *
                                           place->pane->prefill_paces[index]) };
    return last->ns;
}

static uint64_t view_wait_ns(const struct mc_view *view, uint64_t index, uint64_t order)
{
    const struct place *place = view->context;
    const struct pane *pane = place->pane;
    const uint64_t queue = view->instances[index].queue_ns;

    if (queue == 0)
        return 0;
    const uint64_t behind = cluster_behind_ns(&place->sched->cluster, pane->cells[index], order);
    /* What is queued goes by its own costs: see row_set_shares(). */
    const double pace = pane->knows[index] & KNOWS_PREFILL ? pane->prefill_paces[index] : 1;
    const uint64_t ns = behind ? cost_ns((double)behind / 1e9 * pace) : 0;
    return queue > ns ? queue - ns : 0;
}

static uint64_t view_tbt_ns(const struct mc_view *view, uint64_t index, uint64_t sequences,
                            uint64_t tokens)
{
    const struct place *place = view->context;
    const struct mc_view_instance *i = &view->instances[index];
    const double *t = place->pane->steps[index].terms;

    return cost_ns((t[0] + t[1] * (double)(i->running + sequences) +
                    t[2] * (double)(i->context_tokens + tokens)) *
                   place->pane->step_paces[index]);
}

static uint64_t view_transfer_ns(const struct mc_view *view, uint64_t from, uint64_t to,
                                 uint64_t tokens)
{
    const struct place *place = view->context;

    return fastest_transfer_ns(&place->sched->fastest, place->pane, &place->sched->cluster, from,
                               to, tokens);
}

static const struct mc_view_work *view_work(const struct mc_view *view)
{
    struct place *place = view->context;
    struct pane *pane = place->pane;
    struct fastest *fastest = &place->sched->fastest;
    const uint64_t tokens = place->request->tokens, best = view->best_matched_tokens;

    if (place->work.rest_ns)
        return &place->work;
    pane_price(pane, tokens, best, pane->rest);
    fastest_floors(fastest, pane, &place->sched->cluster, best);
    place->work = (struct mc_view_work){ .rest_ns = pane->rest, .pull_ns = fastest->floors };
    return &place->work;
}

static double view_crowd(const struct mc_view *view, uint64_t after_ns)
{
    const struct place *place = view->context;

    return joins_crowd(place->sched, view->now_ns + after_ns + place->other_ns);
}

/* ---------------------------------------------------------------------------------------- holders */

/* The store node that has most of what the pool has of it. */
static uint64_t most_of_pool(const struct place *place, uint64_t to)
{
    const struct pane *pane = place->pane;
    const uint32_t *held = place->sched->match.held;
    uint64_t most = UINT64_MAX;

    for (uint32_t i = 0; i < pane->holder_count; i++) {
        const uint32_t row = pane->holders[i];

        if (row != to &&
            held[pane->cells[row]] > (most == UINT64_MAX ? 0 : held[pane->cells[most]]))
            most = row;
    }
    return most;
}

/* One instance that has all of it, the quickest; or a store node. */
static uint64_t view_holder(const struct mc_view *view, uint64_t to, uint64_t tokens)
{
    struct place *place = view->context;
    mc_sched *sched = place->sched;
    const uint64_t best = fastest_holder(&sched->fastest, place->pane, &sched->cluster, to, tokens);

    if (best != UINT64_MAX || place->pool_tokens < tokens)
        return best;
    if (place->pool_most == UINT64_MAX || place->pool_most == to)
        return most_of_pool(place, to);
    return place->pool_most;
}

static uint64_t view_chance(const struct mc_view *view, uint64_t counter)
{
    const struct place *place = view->context;

    return prng_at(place->sched->seed ^ prng_mix(place->request->id), counter);
}

/* ----------------------------------------------------------------------------------------- the view */

static uint64_t first(uint64_t a, uint64_t b)
{
    return a ? a : b;
}

/* What will be there when prompts that were placed are computed: into the rows, and what the last request had out. */
static void match_coming(struct place *place, uint64_t keys)
{
    mc_sched *sched = place->sched;
    struct kv_match *match = &sched->coming_match;

    for (uint32_t i = 0; sched->coming_pane && i < match->count; i++) {
        const uint32_t row = sched->coming_pane->row_of[match->holders[i]];
        if (row != CLUSTER_NONE)
            sched->coming_pane->rows[row].coming_tokens = 0;
    }
    kv_index_match(sched->coming, place->request->keys, keys, NULL, match);
    sched->coming_pane = place->pane;
    for (uint32_t i = 0; i < match->count; i++) {
        const uint32_t cell = match->holders[i], row = place->pane->row_of[cell];
        if (row != CLUSTER_NONE)
            place->pane->rows[row].coming_tokens = match->blocks[cell] * sched->block_tokens;
    }
}

/* Look the request's keys up, and take what there is into the rows. */
static void match(struct place *place)
{
    mc_sched *sched = place->sched;
    const struct mc_sched_request *request = place->request;
    const uint64_t block = sched->block_tokens;
    const uint64_t reusable = (request->tokens - 1) / block; /* the last token is always computed */
    const uint64_t keys = request->key_count < reusable ? request->key_count : reusable;
    const struct pane *pane = place->pane;

    kv_index_match(sched->index, request->keys, keys, sched->pool_size ? sched->pooled : NULL,
                   &sched->match);
    const uint64_t most = pane_match(place->pane, &sched->match, block);
    place->columns.matched_count = pane->holder_count;
    if (sched->coming)
        match_coming(place, keys);
    fastest_forget(&sched->fastest);
    place->pool_tokens = place->view.best_matched_tokens = block * sched->match.pool;
    if (most > place->view.best_matched_tokens)
        place->view.best_matched_tokens = most;
    place->pool_most = place->pool_tokens != 0 ? most_of_pool(place, UINT64_MAX) : UINT64_MAX;
}

void place_view(struct place *place, mc_sched *sched, const struct mc_sched_request *request)
{
    const uint64_t block = sched->block_tokens;
    struct pane *pane = pane_open(&sched->panes, &sched->cluster, request->model, sched->now_ns);

    *place = (struct place){
        .sched = sched,
        .request = request,
        .pane = pane,
        .to_hold = (request->tokens / block + 1) * block,
        .columns = { .queue_ns = pane->queues, .last_ns = pane->lasts, .matched = pane->holders },
        .view = { .now_ns = sched->now_ns,
                  .instances = pane->rows,
                  .count = pane->count,
                  .block_tokens = block,
                  .slo = { .ttft_ns = first(request->slo.ttft_ns, sched->slo.ttft_ns),
                           .tbt_ns = first(request->slo.tbt_ns, sched->slo.tbt_ns) },
                  .prefill_ns = view_prefill_ns,
                  .transfer_ns = view_transfer_ns,
                  .tbt_ns = view_tbt_ns,
                  .holder = view_holder,
                  .chance = view_chance,
                  .wait_ns = view_wait_ns,
                  .columns = &place->columns,
                  .work = view_work,
                  .context = place,
                  .kinds = pane->alike },
    };
    if (sched->calendar) {
        place->view.crowd = view_crowd;
        place->view.mean_tokens = sched->mean_tokens;
        place->other_ns = cost_ns(usual_value(&sched->admit.other, sched->now_ns));
    }
    sched->row_cells = pane->cells;
    match(place);
    pane_bend(pane, request->tokens, request->barred);
}
