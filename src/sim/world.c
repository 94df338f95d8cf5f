/* world.c - a simulation's life: the loop over its events, and the laws that must hold at its end. */
#include "sim/world.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

const char *const sim_outcome_names[SIM_OUTCOMES] = { "pending", "finished", "refused",
                                                      "refused late", "lost" };

/* ------------------------------------------------------------------------------------ small things */

void world_add(sim *s, uint64_t ns, enum event_kind kind, uint32_t whom, uint32_t turn)
{
    if (agenda_add(&s->agenda, ns, kind, whom, turn) != MC_OK)
        s->failed = true;
}

/* Some 290 years: where somebody assumes a thousand seconds for each token. */
static const uint64_t CLOCK_END_NS = UINT64_C(1) << 63;

uint64_t world_after(const sim *s, double seconds)
{
    const double ns = seconds > 0 ? ceil(seconds * 1e9) : 0;

    return s->now_ns < CLOCK_END_NS && ns < (double)(CLOCK_END_NS - s->now_ns)
               ? s->now_ns + (uint64_t)ns
               : CLOCK_END_NS;
}

void world_stage(sim *s, uint32_t request, enum stage stage)
{
    s->counts[s->lives[request].stage]--;
    s->lives[request].stage = (uint16_t)stage;
    s->counts[stage]++;
}

void list_add(sim *s, struct list *list, uint32_t request)
{
    struct life *life = &s->lives[request];

    life->before = list->count ? list->last : NOBODY;
    life->next = NOBODY;
    if (list->count)
        s->lives[list->last].next = request;
    else
        list->first = request;
    list->last = request;
    list->count++;
    life->listed = 1;
}

void list_remove(sim *s, struct list *list, uint32_t request)
{
    struct life *life = &s->lives[request];

    *(life->before != NOBODY ? &s->lives[life->before].next : &list->first) = life->next;
    *(life->next != NOBODY ? &s->lives[life->next].before : &list->last) = life->before;
    list->count--;
    life->listed = 0;
}

double sim_gap_upper_s(uint32_t bucket)
{
    return 1e-3 * pow(1.08, (double)bucket + 1);
}

uint32_t sim_gap_bucket(double seconds)
{
    const double at = seconds > 1e-3 ? floor(log(seconds / 1e-3) / log(1.08)) : 0;

    return at >= 127 ? 127 : (uint32_t)at;
}

/* -------------------------------------------------------------------------------------------- loop */

static void arrive(sim *s, uint32_t request)
{
    const struct sim_trace *trace = s->options.trace;

    s->records[request].arrival_ns = s->records[request].asked_ns = s->now_ns;
    s->records[request].input = trace->requests[request].input;
    s->records[request].output = output_of(s, request);
    s->arrived++;
    if (s->arrived < trace->count)
        world_add(s, (uint64_t)((double)trace->requests[s->arrived].arrival_ns / s->options.speed),
                  EVENT_ARRIVE, s->arrived, 0);
    const double receive_s = s->options.assume.receive_token_s;
    if (s->options.input_max && s->records[request].input > s->options.input_max) {
        world_stage(s, request, STAGE_DECIDING);
        s->records[request].reason = MC_REASON_TOO_LONG;
        request_over(s, request, SIM_REFUSED, 0);
    } else if (receive_s > 0) {
        world_stage(s, request, STAGE_DECIDING);
        world_add(s, world_after(s, receive_s * s->records[request].input), EVENT_ASK, request,
                  s->lives[request].turn);
    } else {
        decide_request(s, request);
    }
}

static bool all_over(const sim *s)
{
    return s->over == s->options.trace->count;
}

/* Events of a request or an instance: not if it has gone on since they were planned. */
static void request_event(sim *s, const struct agenda_event *e)
{
    if (s->lives[e->whom].turn != e->turn)
        return;
    switch (e->kind) {
    case EVENT_ASK:
        decide_request(s, e->whom);
        break;
    case EVENT_RETURN:
        s->records[e->whom].asked_ns = s->now_ns;
        decide_request(s, e->whom);
        break;
    case EVENT_QUEUE:
        prefill_queue(s, e->whom);
        break;
    case EVENT_PULL:
        move_pull(s, e->whom);
        break;
    case EVENT_PULL_LATE:
        move_pull_late(s, e->whom);
        break;
    case EVENT_READ:
        prefill_read(s, e->whom);
        break;
    case EVENT_PREFILL_END:
        prefill_end(s, e->whom);
        break;
    case EVENT_SEND:
        move_send(s, e->whom);
        break;
    default:
        decode_arrive(s, e->whom);
        break;
    }
}

static void instance_event(sim *s, const struct agenda_event *e)
{
    struct instance *i = &s->instances[e->whom];

    if (i->turn != e->turn)
        return;
    if (e->kind == EVENT_PREFILL_NEXT)
        prefill_next(s, e->whom);
    else if (i->role == MC_ROLE_BOTH)
        coupled_step(s, e->whom);
    else
        decode_turn(s, e->whom);
}

static void happen(sim *s, const struct agenda_event *e)
{
    switch (e->kind) {
    case EVENT_ARRIVE:
        arrive(s, e->whom);
        break;
    case EVENT_FLOW:
        move_flows(s, e->turn);
        break;
    case EVENT_CHANGE:
        change_happens(s, e->whom);
        break;
    case EVENT_SAMPLE:
        sample_take(s);
        if (!all_over(s) && s->agenda.count > 0) /* or nothing will ever happen again */
            world_add(s, s->now_ns + s->options.sample_ns, EVENT_SAMPLE, 0, 0);
        break;
    case EVENT_TICK:
        s->tick_ns = UINT64_MAX;
        decide_tick(s);
        break;
    case EVENT_PREFILL_NEXT:
    case EVENT_STEP:
        instance_event(s, e);
        break;
    default:
        request_event(s, e);
        break;
    }
}

static const char *broken_law_of(const struct instance *i)
{
    if (i->alive && (i->dram.pinned != 0 || i->ssd.pinned != 0))
        return "a block is held by nobody";
    if (i->vram_used != 0 || i->batch.count != 0 || i->batch.context != 0)
        return "a batch is not empty";
    if (i->queue.count != 0 || i->active.count != 0 || i->waiting.count != 0)
        return "somebody waits";
    return NULL;
}

/* What is true of every run that has ended. */
static const char *broken_law(const sim *s)
{
    struct mc_sched_stats stats;
    const char *broken = NULL;

    for (uint32_t i = 0; i < s->options.trace->count; i++)
        if (s->records[i].outcome == SIM_PENDING || s->lives[i].stage != STAGE_OUTSIDE)
            return "a request has no end";
    for (uint32_t i = 0; i < s->instances_max && !broken; i++)
        broken = broken_law_of(&s->instances[i]);
    for (uint32_t i = 0; i < s->links.count; i++)
        if (s->links.flows[i].kind != FLOW_REPLICA)
            return "bytes are under way for nobody";
    (void)mc_sched_stats(s->sched, &stats);
    return !broken && stats.requests != 0 ? "the scheduler has a request that is over" : broken;
}

static mc_status check_laws(const sim *s, struct mc_error *error)
{
    const char *broken = broken_law(s);

    if (!broken)
        return MC_OK;
    return error_set(error, MC_E_CORRUPT, "simulation: a law does not hold at its end: %s", broken);
}

mc_status sim_run(sim *s, uint32_t requests, struct mc_error *error)
{
    const uint32_t until = requests < UINT32_MAX - s->arrived ? s->arrived + requests : UINT32_MAX;
    struct agenda_event event;

    while (!all_over(s)) {
        if (s->arrived >= until && s->arrived < s->options.trace->count)
            return MC_PENDING;
        if (!agenda_next(&s->agenda, &event))
            break;
        if (event.ns >= CLOCK_END_NS || event.ns < s->now_ns)
            return error_set(error, MC_E_RANGE,
                             "simulation: it would take hundreds of years; look at --speed and at "
                             "what is assumed");
        s->now_ns = event.ns;
        s->events++;
        happen(s, &event);
        if (s->failed)
            return error_set(error, MC_E_NOMEM, "simulation: out of memory");
    }
    return check_laws(s, error);
}

struct sim_result sim_result(const sim *s)
{
    struct sim_result result = { .records = s->records,
                                 .samples = s->samples,
                                 .record_count = s->options.trace->count,
                                 .sample_count = s->sample_count,
                                 .end_ns = s->now_ns,
                                 .events = s->events,
                                 .moved_bytes = s->links.moved,
                                 .wasted_s = s->wasted_s,
                                 .copied_blocks = s->copied_blocks,
                                 .gaps_late = s->gap_count
                                                  ? (double)s->gaps_late / (double)s->gap_count
                                                  : 0 };

    memcpy(result.gaps, s->gap_buckets, sizeof(result.gaps));
    (void)mc_sched_stats(s->sched, &result.sched);
    return result;
}
