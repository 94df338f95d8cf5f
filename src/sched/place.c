/* place.c - one request's decision: refuse what cannot run, let the policy choose, then predict. */
#include "sched/place.h"

#include <math.h>

#include "sched/conductor.h"
#include "sched/forecast.h"
#include "sched/policy.h"

static const uint64_t RETRY_INSTANCE_NS = 1000000000, RETRY_MEMORY_NS = 100000000;
/* A pull may always take so long: below it, what a clock and a busy machine add would decide. */
static const uint64_t PULL_NS_LEAST = 200000000;

/* ---------------------------------------------------------------------------------------- refusals */

void place_refuse(struct mc_decision *d, uint32_t reason, uint64_t retry_after_ns)
{
    d->kind = MC_DECIDE_REFUSE;
    d->reason = reason;
    d->retry_after_ns = retry_after_ns;
    d->prefill = d->decode = d->holder = 0;
    d->pull_tokens = d->reuse_tokens = d->order = d->pull_ns = 0;
}

/* Is every instance of this role too small for it? */
static bool too_long_for_all(const struct place *place, uint32_t role)
{
    bool any = false;

    for (uint64_t i = 0; i < place->view.count; i++) {
        const uint64_t most = place->view.instances[i].kv_tokens_max;

        if ((place_instance(place, i)->info.role & role) == 0)
            continue;
        if (most == 0 || place->request->tokens < most)
            return false;
        any = true;
    }
    return any;
}

/* What cannot run at all, whatever the policy. */
static bool cannot_run(const struct place *place, struct mc_decision *d)
{
    bool could_decode = false;

    for (uint64_t i = 0; i < place->view.count && !could_decode; i++)
        could_decode = place_can_decode(place, i);
    d->considered = place->pane->prefills;
    if (place->request->deadline_ns != 0 && place->request->deadline_ns <= place->view.now_ns)
        place_refuse(d, MC_REASON_DEADLINE, 0);
    else if (too_long_for_all(place, MC_ROLE_PREFILL) || too_long_for_all(place, MC_ROLE_DECODE))
        place_refuse(d, MC_REASON_TOO_LONG, 0);
    else if (place->pane->prefills == 0 || !could_decode)
        place_refuse(d, MC_REASON_NO_INSTANCE, RETRY_INSTANCE_NS);
    else
        return false;
    return true;
}

/* ------------------------------------------------------------------------------------------ decode */

/* The least TBT among some of the instances; of equals the lower id. */
struct least {
    double seconds;
    uint64_t ns, row; /* UINT64_MAX: none yet */
};

static void take_if_less(struct least *least, double seconds, uint64_t row)
{
    const uint64_t ns = cost_ns(seconds);

    if (ns < least->ns)
        *least = (struct least){ seconds, ns, row };
}

/* By whether there is a free slot. This is the hot path: it goes through the berths alone. */
static void least_of_berths(const struct place *place, const struct place_room *room,
                            uint64_t barred_row, struct least least[2])
{
    const struct berth *berths = place->pane->berths;
    const double *paces = place->pane->step_paces;
    const uint8_t *slots = place->pane->slots;
    const double tokens = room->tokens, to_hold = room->to_hold;
    double best_s = INFINITY; /* of those with a slot */

    for (uint64_t row = 0, count = place->pane->count; row < count; row++) {
        const struct berth *b = &berths[row];
        const double seconds = (b->seconds + b->each * (b->context + tokens)) * paces[row];

        if (!(seconds < best_s)) /* nearly all end here */
            continue;
        if (b->free_tokens < to_hold || row == barred_row)
            continue;
        take_if_less(&least[slots[row]], seconds, row);
        best_s = least[1].seconds;
    }
}

/* The same where the request is larger than some instance's whole memory. */
static void least_of_rows(const struct place *place, const struct place_room *room,
                          struct least least[2])
{
    for (uint64_t row = 0; row < place->pane->count; row++)
        if (place_fits(place, room, row))
            take_if_less(&least[place->pane->slots[row]], place_step_s(place, room, row), row);
}

/* A free slot, then the least TBT, then no hand-off, then the lower id. */
uint64_t place_best_decoder(const struct place *place, uint64_t prefill)
{
    const uint64_t barred = place->request->barred_decode;
    const struct place_room room = place_room(place);
    const uint64_t barred_row = barred ? place_row(place, barred) : UINT64_MAX;
    struct least least[2] = { { INFINITY, UINT64_MAX, UINT64_MAX },
                              { INFINITY, UINT64_MAX, UINT64_MAX } };

    if (room.is_small)
        least_of_berths(place, &room, barred_row, least);
    else
        least_of_rows(place, &room, least);
    const bool has_slot = least[1].row != UINT64_MAX;
    if (place->pane->slots[prefill] == has_slot && prefill != barred_row &&
        place_fits(place, &room, prefill) &&
        cost_ns(place_step_s(place, &room, prefill)) == least[has_slot].ns)
        return prefill;
    return least[has_slot].row;
}

/* The policy's choice if it is one; else the best with memory; UINT64_MAX: none has memory. */
static uint64_t choose_decode(const struct place *place, uint64_t prefill, uint64_t wish)
{
    const uint64_t wished = wish ? place_row(place, wish) : UINT64_MAX;

    if (wished != UINT64_MAX && place_can_decode(place, wished) && place_has_memory(place, wished))
        return wished;
    return place_best_decoder(place, prefill);
}

/* ----------------------------------------------------------------------------------------- predict */

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* What the chosen instance reuses, and what of it comes from elsewhere. */
static uint64_t pulled_tokens(const struct place *place, uint64_t row, const struct mc_decision *d)
{
    const uint64_t own = place->view.instances[row].matched_tokens;

    return d->holder != 0 && d->pull_tokens > own ? d->pull_tokens - own : 0;
}

/* The parts. What they add up to, and the rest, is forecast.c's. */
static void predict_prefill(const struct place *place, uint64_t row, struct mc_decision *d)
{
    const struct mc_view *view = &place->view;
    const uint64_t tokens = place->request->tokens, pulled = pulled_tokens(place, row, d);
    const struct cost *cost = place_prefill_cost(place, row);
    struct mc_prediction *p = &d->predicted;
    const uint64_t own_ns =
        view->prefill_ns(view, row, tokens, view->instances[row].matched_tokens);

    if (cost == &cost_nominal) {
        d->reason = MC_REASON_UNKNOWN_COST;
        d->score = 0;
        return;
    }
    if (p->queue_ns == 0)
        p->queue_ns = d->order ? view->wait_ns(view, row, d->order) : view->instances[row].queue_ns;
    p->prefill_ns = view->prefill_ns(view, row, tokens, d->reuse_tokens);
    if (pulled != 0) {
        p->transfer_ns = view->transfer_ns(view, place_row(place, d->holder), row, pulled);
        if (d->order !=
            0) /* who is in the queue by an order is passed over until its prefix is there */
            p->transfer_ns = less(p->transfer_ns, p->queue_ns);
        d->pull_ns = own_ns > p->prefill_ns ? own_ns - p->prefill_ns : 0;
        if (d->pull_ns < PULL_NS_LEAST)
            d->pull_ns = PULL_NS_LEAST;
    }
}

/* ------------------------------------------------------------------------------------------ decide */

/* A policy may say more than is so: hold it to the view. */
static void check_pull(const struct place *place, uint64_t row, struct mc_decision *d)
{
    const uint64_t own = place->view.instances[row].matched_tokens;
    const uint64_t holder = d->holder ? place_row(place, d->holder) : UINT64_MAX;

    if (d->pull_tokens > place->view.best_matched_tokens)
        d->pull_tokens = place->view.best_matched_tokens;
    if (holder == UINT64_MAX || holder == row || d->pull_tokens <= own)
        d->holder = d->pull_tokens = 0;
    const uint64_t coming = place->view.instances[row].coming_tokens;
    uint64_t reuse = d->reuse_tokens < coming ? d->reuse_tokens : coming;
    reuse = reuse > own ? reuse : own;
    d->reuse_tokens = d->pull_tokens > reuse ? d->pull_tokens : reuse;
}

static void book(uint64_t *until_ns, uint64_t now_ns, uint64_t duration_ns)
{
    *until_ns = (*until_ns > now_ns ? *until_ns : now_ns) + duration_ns;
}

/* In the queue it counts without the pace: that is as it is when the queue is looked at. */
static uint64_t unpaced_ns(const struct place *place, uint64_t row, uint64_t reused)
{
    const uint64_t tokens = place->request->tokens;

    return cost_ns(cost_prefill(place_prefill_cost(place, row), tokens,
                                reused < tokens ? reused : tokens - 1));
}

/* Take it in: the next request finds this one there. */
static void commit(struct place *place, uint64_t prefill, uint64_t decode,
                   const struct mc_decision *d)
{
    mc_sched *sched = place->sched;
    const uint64_t pulled = pulled_tokens(place, prefill, d), tokens = place->request->tokens;
    const struct mc_view *view = &place->view;
    struct request request = {
        .id = place->request->id,
        .prefill = sched->row_cells[prefill],
        .decode = sched->row_cells[decode],
        .predicted = d->predicted.ttft_ns != 0,
        .order = d->order,
        .tokens = tokens,
        .to_compute = tokens - d->reuse_tokens,
        .to_hold = place->to_hold,
        .prefill_ns = unpaced_ns(place, prefill, d->reuse_tokens),
        .blind = place_prefill_cost(place, prefill) == &cost_nominal,
        .ttft_ns = d->predicted.ttft_ns,
        .prefill_id = d->prefill,
        .decode_id = d->decode,
    };

    if (sched->admit.mode == MC_ADMIT_STAGES && !(place->request->flags & MC_REQUEST_TAKEN))
        request.tbt_slo_ns = view->slo.tbt_ns;

    if (pulled != 0) {
        const uint64_t holder = place_row(place, d->holder);
        const uint64_t busy =
            view->instances[holder].send_busy_ns > view->instances[prefill].receive_busy_ns
                ? view->instances[holder].send_busy_ns
                : view->instances[prefill].receive_busy_ns;
        const uint64_t ns = view->transfer_ns(view, holder, prefill, pulled) - busy;

        book(&place_instance(place, holder)->send_until_ns, sched->now_ns, ns);
        book(&place_instance(place, prefill)->receive_until_ns, sched->now_ns, ns);
        cluster_touch(&sched->cluster, place->pane->cells[holder]);
    }
    for (uint64_t i = 0; sched->coming && i < place->request->key_count; i++)
        kv_index_insert(sched->coming, &place->request->keys[i], request.prefill);
    admit_placed(place, d, &request);
    if (sched->calendar)
        request.join = calendar_add(sched->calendar, sched->now_ns, request.due_ns, tokens);
    cluster_place(&sched->cluster, sched->now_ns, &request);
}

static void decide(struct place *place, struct mc_decision *d)
{
    mc_sched *sched = place->sched;

    if (cannot_run(place, d))
        return;
    sched->policy->place(sched->policy_state, &place->view, place->request, d);
    d->request = place->request->id;
    if (d->kind == MC_DECIDE_WAIT) /* nothing is kept waiting in this release */
        place_refuse(d, MC_REASON_QUEUE_FULL, d->retry_after_ns);
    if (d->kind == MC_DECIDE_REFUSE)
        return;

    const uint64_t prefill = place_row(place, d->prefill);
    if (d->kind != MC_DECIDE_PLACE || prefill == UINT64_MAX ||
        !policy_can_prefill(&place->view.instances[prefill])) {
        place_refuse(d, MC_REASON_POLICY, RETRY_INSTANCE_NS);
        return;
    }
    check_pull(place, prefill, d);
    predict_prefill(place, prefill, d);
    const bool ours = sched->policy == &policy_conductor;
    const uint64_t decode =
        ours ? joins_choose(place, prefill, d, conductor_joins(sched->policy_state))
             : choose_decode(place, prefill, d->decode);
    if (ours && decode != UINT64_MAX)
        place->stall = joins_stall(place, decode, d, conductor_joins(sched->policy_state));
    forecast_predict(place, prefill, decode, d);
    if (!admit_lets_in(place, prefill, decode, d))
        return;
    if (decode == UINT64_MAX) {
        place_refuse(d, MC_REASON_KV_MEMORY, RETRY_MEMORY_NS);
        return;
    }
    d->decode = place->view.instances[decode].id;
    if (sched->admit.mode == MC_ADMIT_STAGES)
        d->flags |= MC_DECISION_STAGED;
    commit(place, prefill, decode, d);
    if (ours)
        joins_placed(place, decode);
}

void sched_decide(mc_sched *sched, const struct mc_sched_request *request)
{
    struct mc_decision *d = &sched->decision;
    struct place place;

    const double tokens = (double)request->tokens;
    sched->mean_tokens += sched->mean_tokens > 0 ? 0.01 * (tokens - sched->mean_tokens) : tokens;
    place_view(&place, sched, request);
    *d = (struct mc_decision){ .request = request->id };
    admit_arrive(&place, d);
    decide(&place, d);
    sched->has_decision = true;
    if (d->kind == MC_DECIDE_PLACE) {
        sched->stats.placed++;
        sched->stats.soft_refused += d->soft != 0;
        sched->stats.back_placed += (d->flags & MC_DECISION_BACK) != 0;
        replicate_placed(&place, place_row(&place, d->prefill), d);
    } else {
        admit_turned_away(&place, d);
        sched->stats.refused++;
        if (d->reason < sizeof(sched->stats.refused_by) / sizeof(sched->stats.refused_by[0]))
            sched->stats.refused_by[d->reason]++;
    }
}
