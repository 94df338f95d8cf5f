/* decode.c - decode instances: who waits joins between two steps, if there is room. */
#include <assert.h>

#include "base/alloc.h"
#include "sim/world.h"

uint64_t decode_need(const sim *s, uint32_t request)
{
    return (uint64_t)request_of(s, request)->input + output_of(s, request);
}

/* Alone it may be larger than memory: it is run, as nothing else could be done with it. */
bool decode_has_room(const sim *s, const struct instance *i, uint32_t request)
{
    return i->batch.count < i->batch.members_max &&
           (i->batch.count == 0 || i->vram_used + decode_need(s, request) <= i->vram_max);
}

/* ---------------------------------------------------------------------------------------------- gaps */

/* All gaps of the cluster, by length. For those who waited, the first step was none. */
void decode_count_gaps(sim *s, const struct batch *batch, uint32_t log_first, uint32_t members,
                       uint32_t waited)
{
    const double slo = (double)s->options.slo_tbt_ns / 1e9;

    for (uint32_t i = log_first; i < batch->log_count; i++) {
        const struct batch_stretch *st = &batch->log[i];
        const uint64_t gaps = (uint64_t)st->steps * (i == log_first ? members - waited : members);

        s->gap_buckets[sim_gap_bucket((double)st->step_s)] += gaps;
        s->gap_count += gaps;
        s->gaps_late += slo > 0 && (double)st->step_s > slo ? gaps : 0;
    }
}

static bool gaps_room(sim *s, uint32_t count)
{
    if (count <= s->gaps_max)
        return true;
    struct batch_stretch *gaps = alloc_resize(s->alloc, s->gaps, (size_t)count * 2, sizeof(*gaps));
    if (!gaps) {
        s->failed = true;
        return false;
    }
    s->gaps = gaps;
    s->gaps_max = count * 2;
    return true;
}

/* ---------------------------------------------------------------------------------------------- leave */

static void finish(sim *s, uint32_t instance, const struct batch_member *member)
{
    struct instance *i = &s->instances[instance];
    struct sim_record *r = &s->records[member->whom];

    if (!gaps_room(s, i->batch.log_count - member->log_first))
        return;
    const struct batch_gaps gaps = batch_gaps(&i->batch, member, s->gaps);
    r->tbt_mean = (float)gaps.mean;
    r->tbt_worst = (float)gaps.worst_tenth;
    r->tbt_most = (float)gaps.most;
    i->vram_used -= decode_need(s, member->whom);
    request_over(s, member->whom, SIM_FINISHED, 0);
}

void decode_leave(sim *s, uint32_t instance)
{
    struct batch_member member;

    while (batch_leave(&s->instances[instance].batch, &member))
        finish(s, instance, &member);
}

/* ----------------------------------------------------------------------------------------------- join */

static void join(sim *s, uint32_t instance, uint32_t request)
{
    struct instance *i = &s->instances[instance];
    const struct sim_assume *a = &s->options.assume;
    const uint32_t input = request_of(s, request)->input, output = output_of(s, request);
    const double load_s = kv_bytes(s, input) / s->node.vram_bytes_per_s;

    list_remove(s, &i->waiting, request);
    world_stage(s, request, STAGE_DECODE);
    s->records[request].join_ns = s->now_ns;
    i->vram_used += decode_need(s, request);
    if (a->first_step < 0.5)
        s->records[request].first_token_ns = s->now_ns;
    const bool first = a->first_step >= 0.5;
    if (!first && output == 1) { /* its only token is there */
        i->vram_used -= decode_need(s, request);
        decide_progress(s, MC_EVENT_DECODE_BEGIN, request, instance,
                        (struct mc_sched_progress){ 0 });
        request_over(s, request, SIM_FINISHED, 0);
        return;
    }
    if (i->batch.count)
        i->stall_s += a->join_fixed_s + a->join_load_share * load_s;
    batch_join(&i->batch, request, input, first ? output : output - 1, first, 0);
    decide_progress(s, MC_EVENT_DECODE_BEGIN, request, instance, (struct mc_sched_progress){ 0 });
}

/* Run on until somebody leaves; the first tokens of those who joined come with the first step. */
void decode_run(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];
    uint64_t first_ns;

    if (i->batch.count == 0) {
        i->stall_s = i->late_s = 0;
        return;
    }
    const uint64_t end_ns = batch_begin(&i->batch, s->now_ns, i->stall_s, i->late_s, &first_ns);
    i->stall_s = i->late_s = 0;
    for (uint32_t m = 0; m < i->batch.count; m++)
        if (i->batch.members[m].waits)
            s->records[i->batch.members[m].whom].first_token_ns = first_ns;
    world_add(s, end_ns, EVENT_STEP, instance, ++i->turn);
}

static void next_stretch(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];

    while (i->waiting.count && decode_has_room(s, i, i->waiting.first))
        join(s, instance, i->waiting.first);
    decode_run(s, instance);
}

void decode_turn(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];
    const uint32_t members = i->batch.count, log_first = i->batch.log_count;
    const uint32_t waited = batch_waiting(&i->batch);

    if (batch_end(&i->batch) != MC_OK)
        s->failed = true;
    decode_count_gaps(s, &i->batch, log_first, members, waited);
    decode_leave(s, instance);
    next_stretch(s, instance);
}

/* ------------------------------------------------------------------------------------------------ arrive */

/* Its KVCache is there. It may be too late for it. */
static bool is_too_slow(const sim *s, const struct instance *i, uint32_t request)
{
    const double slo = (double)s->options.slo_tbt_ns / 1e9;
    uint64_t tokens = request_of(s, request)->input;

    for (uint32_t at = i->waiting.count ? i->waiting.first : NOBODY; at != NOBODY;
         at = s->lives[at].next)
        tokens += request_of(s, at)->input;
    return s->options.check_decode && slo > 0 &&
           batch_step_s(&i->batch, i->waiting.count + 1u, tokens) > slo;
}

void decode_arrive(sim *s, uint32_t request)
{
    const uint32_t instance = s->records[request].decode;
    struct instance *i = &s->instances[instance];

    blocks_release_kept(s, request);
    if (is_too_slow(s, i, request)) {
        s->records[request].reason = MC_REASON_TBT_SLO;
        request_over(s, request, SIM_REFUSED_LATE, 1);
        return;
    }
    world_stage(s, request, STAGE_WAIT);
    list_add(s, &i->waiting, request);
    if (!i->batch.runs) {
        next_stretch(s, instance);
    } else if (decode_has_room(s, i, i->waiting.first)) {
        const uint64_t end_ns = batch_cut(&i->batch, s->now_ns);

        world_add(s, end_ns, EVENT_STEP, instance, ++i->turn);
    }
}
