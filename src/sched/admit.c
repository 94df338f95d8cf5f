/* admit.c - predict, compare, refuse or let in. */
#include "sched/admit.h"

#include <math.h>

#include "base/error.h"
#include "sched/length.h"
#include "sched/place.h"
#include "sched/policy.h"

enum { BOOKINGS_MAX = 4096, SHADOWS_MAX = 1024 };
static const uint64_t SECOND_NS = 1000000000;
static const uint64_t HOPELESS_NS =
    60000000000; /* waiting does not help: the model, or the SLO, must change */
static const uint64_t PROBE_NS = 5000000000; /* idle for so long: let one in to see */
static const double HALF_WIDTH_MOST = 0.5;   /* of what no prediction was held against yet */
static const double PROBE_OFF = 4;           /* if the model may be wrong by that */

/* ---------------------------------------------------------------------------------------- settings */

mc_status admit_init(struct admit *a, const struct mc_sched_options *o, bool ours,
                     struct mc_error *error)
{
    const struct policy_parameter known[] = {
        { "threshold", 0.01, 100, &a->threshold },
        { "observations", 0, 1e6, &a->observations },
        { "quantile", 0.5, 1, &a->quantile },
        { "retry", 1, 300, &a->retry_s },
        { "bookings", 0, 1, &a->with_bookings },
        { "gaps", 0, 1, &a->gaps },
        { "pool", 0, 1, &a->pool },
    };

    *a = (struct admit){ .mode = o->admission == MC_ADMIT_DEFAULT ? MC_ADMIT_EARLY_SYSTEM
                                                                  : o->admission,
                         .threshold = 1,
                         .observations = 20,
                         .quantile = ours ? 0.8 : 0.95,
                         .retry_s = 300,
                         .with_bookings = 1,
                         .gaps = ours ? 0.4 : 0,
                         .predictor = o->predictor ? o->predictor : &length_history };
    usual_line_init(&a->handover);
    return policy_read(o->admission_parameters, known, sizeof(known) / sizeof(known[0]), error);
}

mc_status admit_take_memory(struct admit *a, const struct mc_alloc *alloc)
{
    const uint32_t bookings = a->with_bookings >= 0.5 ? BOOKINGS_MAX : 0;

    if (bookings_init(&a->bookings, alloc, bookings) != MC_OK)
        return MC_E_NOMEM;
    return shadows_init(&a->shadows, alloc, SHADOWS_MAX);
}

void admit_fini(struct admit *a)
{
    shadows_fini(&a->shadows);
    bookings_fini(&a->bookings);
}

/* ------------------------------------------------------------------------------------------ predict */

static uint64_t scale(uint64_t ns, double by)
{
    return by > 0 ? cost_ns((double)ns / 1e9 * by) : 0;
}

static bool is_on(const struct place *place)
{
    return place->sched->admit.mode != MC_ADMIT_ALL &&
           (place->view.slo.ttft_ns != 0 || place->view.slo.tbt_ns != 0 ||
            place->request->deadline_ns != 0);
}

/* So long ago its client sent it. */
static uint64_t elapsed_ns(const struct place *place)
{
    const uint64_t at = place->request->arrived_ns, now = place->view.now_ns;

    return at != 0 && at < now ? now - at : 0;
}

static uint64_t expected_tokens(const struct place *place)
{
    const struct admit *a = &place->sched->admit;

    return a->mode == MC_ADMIT_EARLY_REQUEST
               ? a->predictor->predict(a->predictor_state, place->request)
               : place->request->output_hint;
}

/* How long a request is decoded; UINT64_MAX: nobody knows. */
static uint64_t stay_ns(const struct admit *a, const struct request *r)
{
    if (a->mode == MC_ADMIT_EARLY_REQUEST && r->output_tokens != 0 && r->raw_tbt_ns != 0)
        return r->output_tokens * (r->raw_tbt_ns < UINT32_MAX ? r->raw_tbt_ns : UINT32_MAX);
    return a->stay_s > 0 ? cost_ns(a->stay_s) : UINT64_MAX;
}

struct ahead {
    uint64_t sequences, tokens;
};

/* Who decodes at an instance at `then_ns`: of those there now who will not have left, and of those placed
 * there whose prefill will have ended. Others' requests, of which only their number is known, stay. */
static struct ahead look_ahead(const struct place *place, uint64_t row, uint64_t then_ns)
{
    const struct mc_sched *sched = place->sched;
    const struct cluster *cluster = &sched->cluster;
    const struct mc_view_instance *view = &place->view.instances[row];
    const uint64_t grown = (uint64_t)(sched->admit.output / 2);
    struct ahead ahead = { 0 };
    uint64_t own = 0;

    for (uint32_t at = place_instance(place, row)->decode_first; at != CLUSTER_NONE;
         at = cluster->requests[at].at_decode.after) {
        const struct request *r = &cluster->requests[at];
        uint64_t begins = r->stage == STAGE_DECODE ? r->begun_ns : r->due_ns;

        own++;
        if (r->stage != STAGE_DECODE && begins < sched->now_ns)
            begins = sched->now_ns; /* late */
        if (begins > then_ns || then_ns - begins >= stay_ns(&sched->admit, r))
            continue;
        ahead.sequences++;
        ahead.tokens += r->tokens + grown;
    }
    if (view->running > own) {
        ahead.sequences += view->running - own;
        ahead.tokens += (view->running - own) * (view->context_tokens / view->running);
    }
    return ahead;
}

static uint64_t step_ns(const struct place *place, uint64_t row, const struct ahead *ahead,
                        double more)
{
    const double each = ahead->sequences ? (double)ahead->tokens / (double)ahead->sequences
                                         : (double)place->request->tokens;
    const double sequences = (double)ahead->sequences + 1 + more;
    const double tokens = (double)ahead->tokens + (double)place->request->tokens + each * more;

    const struct cost *cost = place_step_cost(place, row);

    return cost_ns(cost_step(cost, (uint64_t)(sequences + 0.5), (uint64_t)(tokens + 0.5)) *
                   cost_step_pace(cost, place->view.now_ns) * (1 + place->stall));
}

static struct ahead load_now(const struct place *place, uint64_t row)
{
    const struct mc_view_instance *view = &place->view.instances[row];

    return (struct ahead){ view->running, view->context_tokens };
}

/* Who is past the prefill, now. */
static struct ahead those_there(const struct place *place, uint64_t row)
{
    const struct cluster *cluster = &place->sched->cluster;
    struct ahead there = { 0 };

    for (uint32_t at = place_instance(place, row)->decode_first; at != CLUSTER_NONE;
         at = cluster->requests[at].at_decode.after)
        if (cluster->requests[at].stage >= STAGE_PREFILLED) {
            there.sequences++;
            there.tokens += cluster->requests[at].tokens;
        }
    return there;
}

/* As the papers write it: the mean of the pool; and by the load now, those who have come that far. */
static struct ahead pool_then(const struct place *place, uint64_t then_ns)
{
    const bool is_now = place->sched->admit.mode == MC_ADMIT_EARLY;
    struct ahead all = { 0 };
    uint64_t count = 0;

    for (uint64_t i = 0; i < place->view.count; i++) {
        if (!place_can_decode(place, i))
            continue;
        const struct ahead one = is_now ? those_there(place, i) : look_ahead(place, i, then_ns);
        all.sequences += one.sequences;
        all.tokens += one.tokens;
        count++;
    }
    return count ? (struct ahead){ all.sequences / count, all.tokens / count } : all;
}

static struct ahead load_then(const struct place *place, uint64_t row, const struct mc_decision *d)
{
    const uint64_t after =
        d->predicted.ttft_ns > elapsed_ns(place) ? d->predicted.ttft_ns - elapsed_ns(place) : 0;

    if (place->sched->admit.pool >= 0.5)
        return pool_then(place, place->view.now_ns + after);
    return place->sched->admit.mode == MC_ADMIT_EARLY
               ? load_now(place, row)
               : look_ahead(place, row, place->view.now_ns + after);
}

static struct margin ttft_margin(const struct place *place, uint64_t prefill, uint64_t raw_ns)
{
    const struct admit *a = &place->sched->admit;
    double half = cost_prefill_band(place_prefill_cost(place, prefill));

    half = half < HALF_WIDTH_MOST ? half : HALF_WIDTH_MOST;
    return bands_margin(&a->ttft, place->view.now_ns, raw_ns, a->quantile, half);
}

static uint64_t other_ns(const struct admit *a, uint64_t now_ns, uint64_t tokens)
{
    return cost_ns(usual_value(&a->other, now_ns) + usual_line_value(&a->handover, now_ns, tokens));
}

static void predict_ttft(const struct place *place, uint64_t prefill, struct mc_decision *d)
{
    const struct admit *a = &place->sched->admit;
    struct mc_prediction *p = &d->predicted;

    p->other_ns = other_ns(a, place->view.now_ns, place->request->tokens);
    const uint64_t raw = p->queue_ns + p->transfer_ns + p->prefill_ns + p->other_ns;
    const uint64_t elapsed = elapsed_ns(place);
    const struct margin m = ttft_margin(place, prefill, raw);

    p->ttft_ns = elapsed + scale(raw, m.mid);
    p->ttft_low_ns = elapsed + scale(raw, m.low);
    p->ttft_high_ns = elapsed + scale(raw, m.high);
}

/* What a request's longest gaps are is as much chance as load, and refusing for chance refuses those who would have
 * been served well. So of gaps it is not an upper end that is held against the objective (`high`). */
static struct margin tbt_margin(const struct place *place, const struct cost *cost, uint64_t raw_ns)
{
    const struct admit *a = &place->sched->admit;
    const double share = a->gaps > 0 ? a->gaps : a->quantile;
    struct margin m =
        bands_margin(&a->tbt, place->view.now_ns, raw_ns, share, cost_step_band(cost));

    m.low = m.low < m.mid ? m.low : m.mid;
    return m;
}

static void predict_tbt(const struct place *place, uint64_t row, struct mc_decision *d)
{
    const struct cost *cost = place_step_cost(place, row);
    struct mc_prediction *p = &d->predicted;

    p->output_tokens = expected_tokens(place);
    if (cost == &cost_nominal)
        return;
    const struct ahead ahead =
        place->view.slo.tbt_ns && is_on(place) ? load_then(place, row, d) : load_now(place, row);
    const uint64_t raw = step_ns(place, row, &ahead, 0);
    const struct margin m = tbt_margin(place, cost, raw);

    p->tbt_ns = scale(raw, m.mid);
    p->tbt_high_ns = scale(raw, m.high > m.mid ? m.high : m.mid);
    if (place->view.slo.tbt_ns != 0)
        p->decode_load = (double)p->tbt_ns / (double)place->view.slo.tbt_ns;
}

void admit_predict(const struct place *place, uint64_t prefill, uint64_t decode,
                   struct mc_decision *d)
{
    if (d->reason != MC_REASON_UNKNOWN_COST)
        predict_ttft(place, prefill, d);
    if (decode != UINT64_MAX)
        predict_tbt(place, decode, d);
}

/* -------------------------------------------------------------------------------------- hold it up */

/* Why not, and what would have to change. */
struct verdict {
    uint32_t reason;  /* MC_REASON_NONE: nothing is against it */
    bool trusted;     /* enough was observed to say so */
    bool hopeless;    /* an empty cluster would be too slow */
    uint64_t wait_ns; /* until it would fit, if nobody else came */
    uint64_t idle_ns; /* the instance that is too slow has had nothing for so long */
    double off;       /* even the low end is over the SLO by this factor */
};

static uint64_t prefills(const struct place *place)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < place->view.count; i++)
        count += policy_can_prefill(&place->view.instances[i]);
    return count ? count : 1;
}

static uint64_t idle_ns(const struct place *place, uint64_t row)
{
    const struct instance *i = place_instance(place, row);

    if (i->prefill_first != CLUSTER_NONE || i->decode_first != CLUSTER_NONE)
        return 0;
    return place->view.now_ns - (i->last_ns ? i->last_ns : i->joined_ns);
}

/* Room that this one must leave in the queue: none when it comes back itself, or finds no queue. */
static uint64_t left_room(const struct place *place, const struct mc_decision *d, uint64_t limit_ns)
{
    if ((d->flags & MC_DECISION_BACK) || d->predicted.queue_ns == 0)
        return 0;
    const struct booked_room room =
        bookings_room(&place->sched->admit.bookings, place->view.now_ns, 2 * limit_ns);
    const uint64_t each = room.work_ns / prefills(place);

    return each < limit_ns / 2 ? each : limit_ns / 2;
}

static void hold_to_ttft(const struct place *place, uint64_t prefill, const struct mc_decision *d,
                         struct verdict *v)
{
    const struct mc_prediction *p = &d->predicted;
    const struct admit *a = &place->sched->admit;
    const uint64_t slo = place->view.slo.ttft_ns;

    if (slo == 0 || p->prefill_ns == 0)
        return;
    const uint64_t limit = scale(slo, a->threshold), elapsed = elapsed_ns(place);
    const uint64_t raw = p->queue_ns + p->transfer_ns + p->prefill_ns + p->other_ns;
    const struct margin m = ttft_margin(place, prefill, raw);
    /* Who comes back was promised room: half of the margin is enough. */
    const double factor = d->flags & MC_DECISION_BACK ? (m.mid + m.high) / 2 : m.high;
    /* The room is a bound already: what this one's prediction may be off by does not widen it. */
    const uint64_t high = elapsed + scale(raw, factor) + left_room(place, d, limit);

    if (high <= limit)
        return;
    /* An idle instance is there to be used: it refuses only what would most likely be late. */
    if (p->queue_ns == 0 && p->ttft_ns <= limit)
        return;
    *v = (struct verdict){ .reason = MC_REASON_TTFT_SLO,
                           .trusted = cost_trusts_prefill(place_prefill_cost(place, prefill),
                                                          (uint64_t)a->observations),
                           .hopeless = scale(p->transfer_ns + p->prefill_ns, m.low) > limit,
                           .wait_ns = scale(high - limit, 1 / (m.high > 0.1 ? m.high : 0.1)),
                           .idle_ns = idle_ns(place, prefill),
                           /* What was learnt besides costs is error as a whole. */
                           .off =
                               (double)(elapsed + scale(raw - p->other_ns, m.low)) / (double)slo };
}

/* Seconds until one sequence leaves, on average. */
static uint64_t leaves_ns(const struct admit *a, uint64_t sequences)
{
    const uint64_t stay = a->stay_s > 0 ? cost_ns(a->stay_s) : SECOND_NS;

    return stay / (sequences ? sequences : 1);
}

static bool too_many(const struct place *place, uint64_t row, const struct ahead *ahead,
                     double more)
{
    const uint64_t most = place->view.instances[row].sequences_max;

    return most != 0 && (double)ahead->sequences + 1 + more > (double)most;
}

/* How many sequences would have to leave, for it to fit. */
static uint64_t surplus(const struct place *place, uint64_t row, struct ahead ahead, double more,
                        double factor, uint64_t limit_ns)
{
    const uint64_t before = ahead.sequences;

    while (ahead.sequences > 0 && (too_many(place, row, &ahead, more) ||
                                   scale(step_ns(place, row, &ahead, more), factor) > limit_ns)) {
        ahead.tokens -= ahead.tokens / ahead.sequences;
        ahead.sequences--;
    }
    return before - ahead.sequences;
}

/* A place in the batch, or a part of one, for those who are due. */
static double booked_sequence(const struct place *place)
{
    const struct bookings *b = &place->sched->admit.bookings;
    const uint64_t ttft = place->view.slo.ttft_ns;
    const double due = bookings_room(b, place->view.now_ns, ttft ? ttft : SECOND_NS).requests;

    return due < 1 ? due : 1;
}

static void hold_to_tbt(const struct place *place, uint64_t row, const struct mc_decision *d,
                        struct verdict *v)
{
    const struct admit *a = &place->sched->admit;
    const struct cost *cost = place_step_cost(place, row);
    const uint64_t slo = place->view.slo.tbt_ns;

    if (slo == 0 || v->reason != MC_REASON_NONE || cost == &cost_nominal ||
        a->mode == MC_ADMIT_STAGES) /* stages.c looks at it when its turn comes */
        return;
    const uint64_t limit = scale(slo, a->threshold);
    const struct ahead then = load_then(place, row, d), now = load_now(place, row);
    const struct margin m = tbt_margin(place, cost, step_ns(place, row, &then, 0));
    const bool back = d->flags & MC_DECISION_BACK;
    const double factor = back ? (m.mid + m.high) / 2 : m.high;
    const double more = back || then.sequences == 0 ? 0 : booked_sequence(place);
    const struct ahead none = { 0 };
    const double own = then.sequences == 0 ? m.mid : factor; /* as for an idle instance above */
    if (!too_many(place, row, &then, more) && scale(step_ns(place, row, &then, more), own) <= limit)
        return;
    const bool slow_now =
        too_many(place, row, &now, 0) || scale(step_ns(place, row, &now, 0), factor) > limit;
    *v = (struct verdict){
        .reason = slow_now ? MC_REASON_TBT_SLO : MC_REASON_DECODE_LOAD,
        .trusted = cost_trusts_step(cost, (uint64_t)a->observations),
        .hopeless = scale(step_ns(place, row, &none, 0), m.mid) > limit,
        .wait_ns = leaves_ns(a, then.sequences) * surplus(place, row, then, more, factor, limit),
        .idle_ns = idle_ns(place, row),
        .off = (double)scale(step_ns(place, row, &then, 0), m.low) / (double)slo
    };
}

static void hold_to_deadline(const struct place *place, uint64_t prefill,
                             const struct mc_decision *d, struct verdict *v)
{
    const struct admit *a = &place->sched->admit;
    const uint64_t deadline = place->request->deadline_ns, now = place->view.now_ns;
    const uint64_t elapsed = elapsed_ns(place);

    if (deadline == 0 || v->reason != MC_REASON_NONE || d->predicted.ttft_low_ns <= elapsed ||
        d->predicted.ttft_low_ns - elapsed <= deadline - now)
        return;
    *v = (struct verdict){ .reason = MC_REASON_DEADLINE,
                           .trusted = cost_trusts_prefill(place_prefill_cost(place, prefill),
                                                          (uint64_t)a->observations),
                           .wait_ns = d->predicted.ttft_low_ns - elapsed - (deadline - now) };
}

/* ------------------------------------------------------------------------------------------- refuse */

/* Of the cluster's time, in its prefill instances together. Where decoding is what is short, the time that
 * a place in a batch is taken. */
static uint64_t work_of(const struct place *place, uint64_t decode, const struct mc_decision *d,
                        const struct verdict *v)
{
    const struct admit *a = &place->sched->admit;
    uint64_t work = d->predicted.prefill_ns;

    if (v->reason == MC_REASON_TTFT_SLO || v->reason == MC_REASON_DEADLINE || decode == UINT64_MAX)
        return work;
    const uint64_t leaves = leaves_ns(a, load_then(place, decode, d).sequences);
    return leaves > work ? leaves : work;
}

/* When to come back. */
static void promise(struct place *place, uint64_t decode, const struct verdict *v,
                    struct mc_decision *d)
{
    struct admit *a = &place->sched->admit;
    const uint64_t now = place->view.now_ns, most = cost_ns(a->retry_s);
    const uint64_t due = bookings_due(&a->bookings, place->request->identity);
    bool booked = false;

    if (due > now) { /* it was told already, and did not wait */
        d->retry_after_ns = (due - now + SECOND_NS - 1) / SECOND_NS * SECOND_NS;
        d->flags |= MC_DECISION_BOOKED;
        return;
    }
    if (v->hopeless) {
        d->retry_after_ns = HOPELESS_NS < most ? HOPELESS_NS : most;
        return;
    }
    d->retry_after_ns =
        bookings_make(&a->bookings, now, a->with_bookings >= 0.5 ? place->request->identity : 0,
                      v->wait_ns, work_of(place, decode, d, v) / prefills(place), most, &booked);
    if (booked) {
        d->flags |= MC_DECISION_BOOKED;
        place->sched->stats.booked++;
    }
}

/* What gaps are to steps. */
static double gaps_factor(const struct place *place, uint64_t row, const struct mc_decision *d)
{
    const struct admit *a = &place->sched->admit;
    const struct ahead then = load_then(place, row, d);

    if (a->gaps == 0)
        return 1;
    return bands_margin(&a->tbt, place->view.now_ns, step_ns(place, row, &then, 0), 0.5,
                        cost_step_band(place_step_cost(place, row)))
               .mid *
           (1 + place->stall);
}

static void remember(struct place *place, uint64_t prefill, uint64_t decode,
                     const struct mc_decision *d)
{
    mc_sched *sched = place->sched;
    const struct instance *at = place_instance(place, prefill);
    const uint64_t arrived = place->view.now_ns - elapsed_ns(place);
    const uint64_t last = decode == UINT64_MAX ? prefill : decode;
    const struct shadow shadow = {
        .prefill = sched->row_cells[prefill],
        .decode = sched->row_cells[last],
        .prefill_id = place->view.instances[prefill].id,
        .decode_id = place->view.instances[last].id,
        .arrived_ns = arrived,
        .tokens = place->request->tokens,
        .reused = d->reuse_tokens,
        .other_ns = d->predicted.transfer_ns + d->predicted.other_ns,
        .order = d->order,
        .step_factor = gaps_factor(place, last, d),
        .slo = place->view.slo,
    };
    const uint32_t behind =
        d->order ? cluster_before(&sched->cluster, shadow.prefill, d->order) : at->prefill_last;

    shadow_add(&sched->admit.shadows, &sched->cluster, place->view.now_ns, behind, &shadow);
}

void admit_arrive(struct place *place, struct mc_decision *d)
{
    struct bookings *b = &place->sched->admit.bookings;

    if (!is_on(place))
        return;
    bookings_expire(b, place->view.now_ns);
    if (bookings_come(b, place->view.now_ns, place->request->identity)) {
        d->flags |= MC_DECISION_BACK;
        place->sched->stats.back++;
    }
}

void admit_turned_away(struct place *place, const struct mc_decision *d)
{
    mc_sched *sched = place->sched;

    /* It may be asked again soon, by who waits for room on its behalf: it does not lose its place. */
    if ((d->flags & MC_DECISION_BACK) && d->reason == MC_REASON_KV_MEMORY)
        bookings_keep(&sched->admit.bookings, sched->now_ns, place->request->identity,
                      d->predicted.prefill_ns / prefills(place));
    sched->stats.back -= (d->flags & MC_DECISION_BACK) && d->reason == MC_REASON_KV_MEMORY;
}

bool admit_lets_in(struct place *place, uint64_t prefill, uint64_t decode, struct mc_decision *d)
{
    struct verdict v = { .reason = MC_REASON_NONE };

    if (!is_on(place) || (place->request->flags & MC_REQUEST_TAKEN))
        return true;
    hold_to_ttft(place, prefill, d, &v);
    if (decode != UINT64_MAX)
        hold_to_tbt(place, decode, d, &v);
    if (d->predicted.prefill_ns != 0)
        hold_to_deadline(place, prefill, d, &v);
    if (v.reason == MC_REASON_NONE)
        return true;
    const bool probe = v.idle_ns >= PROBE_NS && v.off <= PROBE_OFF;
    if (!v.trusted || probe) {
        d->soft = v.reason;
        return true;
    }
    remember(place, prefill, decode, d);
    promise(place, decode, &v, d);
    place_refuse(d, v.reason, d->retry_after_ns);
    return false;
}

/* -------------------------------------------------------------------------------------------- learn */

void admit_placed(const struct place *place, const struct mc_decision *d, struct request *r)
{
    const struct mc_prediction *p = &d->predicted;
    const struct admit *a = &place->sched->admit;
    const uint64_t elapsed = elapsed_ns(place);
    /* As it was before any margin. */
    const uint64_t raw = p->queue_ns + p->transfer_ns + p->prefill_ns + p->other_ns;

    r->arrived_ns = place->view.now_ns - elapsed;
    r->raw_ttft_ns = p->prefill_ns ? raw : 0;
    r->other_ns = p->other_ns;
    r->waited = p->queue_ns != 0;
    r->due_ns = place->view.now_ns + (p->ttft_ns > elapsed ? p->ttft_ns - elapsed : 0);
    r->output_max = place->request->output_max;
    r->output_hint = place->request->output_hint;
    r->output_tokens = p->output_tokens;
    r->shadow = CLUSTER_NONE;
    r->raw_tbt_ns = 0;
    const uint64_t row = place_row(place, d->decode);
    if (row == UINT64_MAX || place_step_cost(place, row) == &cost_nominal)
        return;
    const struct ahead ahead = place->view.slo.tbt_ns && a->mode != MC_ADMIT_ALL
                                   ? load_then(place, row, d)
                                   : load_now(place, row);
    r->raw_tbt_ns = step_ns(place, row, &ahead, 0);
}

static void mean(double *mean_p, double value, double step)
{
    *mean_p += *mean_p > 0 ? step * (value - *mean_p) : value;
}

void admit_first_token(struct mc_sched *sched, struct request *r)
{
    struct admit *a = &sched->admit;
    const uint64_t took = sched->now_ns - r->placed_ns, whole = sched->now_ns - r->arrived_ns;
    const uint64_t after = r->prefilled_ns ? sched->now_ns - r->prefilled_ns : 0;

    r->begun_ns = sched->now_ns;
    if (after != 0)
        usual_line_learn(&a->handover, sched->now_ns, r->tokens, (double)after / 1e9);
    if (r->raw_ttft_ns == 0 || took == 0)
        return;
    /* What was not known when it came is no error of those who come now. */
    const uint64_t unknown = r->other_ns == 0 ? other_ns(a, sched->now_ns, r->tokens) : 0;
    bands_learn(&a->ttft, sched->now_ns, r->raw_ttft_ns + unknown, took);
    if (whole > 0)
        quantiles_add(&a->ttft_error, fabs((double)r->ttft_ns - (double)whole) / (double)whole);
    if (r->waited)
        return;
    /* Nobody was before it: what was not its own prefill is the way there and back. */
    const uint64_t own = r->raw_ttft_ns - r->other_ns + after;
    usual_learn(&a->other, sched->now_ns, took > own ? (double)(took - own) / 1e9 : 0);
}

void admit_finished(struct mc_sched *sched, struct request *r, const struct mc_sched_progress *end)
{
    struct admit *a = &sched->admit;
    const struct mc_sched_request asked = {
        .id = r->id, .tokens = r->tokens, .output_max = r->output_max, .output_hint = r->output_hint
    };
    const uint64_t took = sched->now_ns - r->begun_ns, output_tokens = end->tokens;

    if (r->stage != STAGE_DECODE || output_tokens == 0)
        return;
    if (a->predictor->observe)
        a->predictor->observe(a->predictor_state, &asked, output_tokens);
    mean(&a->output, (double)output_tokens, 0.05);
    if (took == 0)
        return;
    mean(&a->stay_s, (double)took / 1e9, 0.05);
    if (r->raw_tbt_ns != 0 && output_tokens > 3)
        bands_learn(&a->tbt, sched->now_ns, r->raw_tbt_ns,
                    a->gaps > 0 && end->gap_ns != 0 ? end->gap_ns : took / (output_tokens - 1));
}
