/* admit.c - compare what is predicted, refuse or let in. */
#include "sched/admit.h"

#include "base/error.h"
#include "sched/forecast.h"
#include "sched/length.h"
#include "sched/policy.h"

enum { BOOKINGS_MAX = 4096, SHADOWS_MAX = 1024 };
static const uint64_t SECOND_NS = 1000000000;
static const uint64_t HOPELESS_NS =
    60000000000; /* waiting does not help: the model, or the SLO, must change */
static const uint64_t PROBE_NS = 5000000000; /* idle for so long: let one in to see */
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
                         .quantile = ours ? 0.6 : 0.95,
                         .retry_s = 300,
                         .with_bookings = 1,
                         .gaps = ours ? 0.5 : 0,
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

bool admit_is_on(const struct place *place)
{
    return place->sched->admit.mode != MC_ADMIT_ALL &&
           (place->view.slo.ttft_ns != 0 || place->view.slo.tbt_ns != 0 ||
            place->request->deadline_ns != 0);
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
    const uint64_t limit = forecast_scale(slo, a->threshold), elapsed = forecast_elapsed_ns(place);
    const uint64_t raw = p->queue_ns + p->transfer_ns + p->prefill_ns + p->other_ns;
    const struct margin m = forecast_ttft_margin(place, prefill, raw);
    /* Who comes back was promised room: half of the margin is enough. */
    const double factor = d->flags & MC_DECISION_BACK ? (m.mid + m.high) / 2 : m.high;
    /* The room is a bound already: what this one's prediction may be off by does not widen it. */
    const uint64_t high = elapsed + forecast_scale(raw, factor) + left_room(place, d, limit);

    if (high <= limit)
        return;
    /* An idle instance is there to be used: it refuses only what would most likely be late. */
    if (p->queue_ns == 0 && p->ttft_ns <= limit)
        return;
    *v = (struct verdict){
        .reason = MC_REASON_TTFT_SLO,
        .trusted =
            cost_trusts_prefill(place_prefill_cost(place, prefill), (uint64_t)a->observations),
        .hopeless = forecast_scale(p->transfer_ns + p->prefill_ns, m.low) > limit,
        .wait_ns = forecast_scale(high - limit, 1 / (m.high > 0.1 ? m.high : 0.1)),
        .idle_ns = idle_ns(place, prefill),
        /* What was learnt besides costs is error as a whole. */
        .off = (double)(elapsed + forecast_scale(raw - p->other_ns, m.low)) / (double)slo
    };
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

    while (ahead.sequences > 0 &&
           (too_many(place, row, &ahead, more) ||
            forecast_scale(forecast_step_ns(place, row, &ahead, more), factor) > limit_ns)) {
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
    const uint64_t limit = forecast_scale(slo, a->threshold);
    const struct ahead then = forecast_load_then(place, row, d),
                       now = forecast_load_now(place, row);
    const struct margin m =
        forecast_tbt_margin(place, cost, forecast_step_ns(place, row, &then, 0));
    const bool back = d->flags & MC_DECISION_BACK;
    const double factor = back ? (m.mid + m.high) / 2 : m.high;
    const double more = back || then.sequences == 0 ? 0 : booked_sequence(place);
    const struct ahead none = { 0 };
    const double own = then.sequences == 0 ? m.mid : factor; /* as for an idle instance above */
    if (!too_many(place, row, &then, more) &&
        forecast_scale(forecast_step_ns(place, row, &then, more), own) <= limit)
        return;
    const bool slow_now = too_many(place, row, &now, 0) ||
                          forecast_scale(forecast_step_ns(place, row, &now, 0), factor) > limit;
    *v = (struct verdict){
        .reason = slow_now ? MC_REASON_TBT_SLO : MC_REASON_DECODE_LOAD,
        .trusted = cost_trusts_step(cost, (uint64_t)a->observations),
        .hopeless = forecast_scale(forecast_step_ns(place, row, &none, 0), m.mid) > limit,
        .wait_ns = leaves_ns(a, then.sequences) * surplus(place, row, then, more, factor, limit),
        .idle_ns = idle_ns(place, row),
        .off = (double)forecast_scale(forecast_step_ns(place, row, &then, 0), m.low) / (double)slo
    };
}

static void hold_to_deadline(const struct place *place, uint64_t prefill,
                             const struct mc_decision *d, struct verdict *v)
{
    const struct admit *a = &place->sched->admit;
    const uint64_t deadline = place->request->deadline_ns, now = place->view.now_ns;
    const uint64_t elapsed = forecast_elapsed_ns(place);

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
    const uint64_t leaves = leaves_ns(a, forecast_load_then(place, decode, d).sequences);
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
    const struct ahead then = forecast_load_then(place, row, d);

    if (a->gaps == 0)
        return 1;
    return bands_margin(&a->tbt, place->view.now_ns, forecast_step_ns(place, row, &then, 0), 0.5,
                        cost_step_band(place_step_cost(place, row)))
               .mid *
           (1 + place->stall);
}

static void remember(struct place *place, uint64_t prefill, uint64_t decode,
                     const struct mc_decision *d)
{
    mc_sched *sched = place->sched;
    const struct instance *at = place_instance(place, prefill);
    const uint64_t arrived = place->view.now_ns - forecast_elapsed_ns(place);
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

    if (!admit_is_on(place))
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

    if (!admit_is_on(place) || (place->request->flags & MC_REQUEST_TAKEN))
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
