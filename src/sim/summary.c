/* summary.c - sums and sorted times of a run. */
#include "sim/summary.h"

#include <stdlib.h>

#include "base/alloc.h"

static int rising(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;

    return x < y ? -1 : x > y;
}

static int rising_u64(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

double summary_at(const float *values, uint32_t count, double share)
{
    const double rank = share * count;
    uint32_t at = rank > 1 ? (uint32_t)rank : 0;

    if (count == 0)
        return 0;
    if ((double)at == rank && at > 0)
        at--;
    return (double)values[at < count ? at : count - 1];
}

double summary_below(const float *values, uint32_t count, double value)
{
    uint32_t low = 0, high = count;

    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;

        if ((double)values[middle] <= value)
            low = middle + 1;
        else
            high = middle;
    }
    return count ? (double)low / count : 0;
}

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0;
}

static void add(struct summary *m, const struct sim_options *o, const struct sim_record *r)
{
    const double ttft = seconds(r->asked_ns, r->first_token_ns);

    m->came_back += r->returns > 0;
    m->got_in += r->returns > 0 && r->outcome == SIM_FINISHED;

    m->refused += r->outcome == SIM_REFUSED;
    m->late += r->outcome == SIM_REFUSED_LATE;
    m->lost += r->outcome == SIM_LOST;
    if (r->outcome != SIM_FINISHED)
        return;
    m->ttft[m->finished] = (float)ttft;
    m->regret[m->finished] = (float)(ttft - (double)r->alone_ns / 1e9);
    m->tbt[m->finished++] = r->tbt_worst;
    m->ttft_mean += ttft;
    m->tbt_mean += (double)r->tbt_worst;
    m->tbt_gap_mean += (double)r->tbt_mean;
    m->busy_mean += r->busy_s;
    m->hit += r->reused;
    m->regret_mean += ttft - (double)r->alone_ns / 1e9;
    m->queue_mean_s += seconds(r->asked_ns, r->prefill_begin_ns);
    m->move_mean_s += seconds(r->prefill_end_ns, r->first_token_ns);
    if ((o->slo_ttft_ns && ttft > (double)o->slo_ttft_ns / 1e9) ||
        (o->slo_tbt_ns && (double)r->tbt_worst > (double)o->slo_tbt_ns / 1e9))
        return;
    m->good++;
    m->good_tokens += r->input;
}

/* How many of each tenth of the prompts, by length and then by arrival, finished. */
static mc_status count_deciles(struct summary *m, const struct sim_result *result)
{
    const uint32_t count = result->record_count;
    uint64_t *order = alloc_zeroed(m->alloc, count, sizeof(*order));
    uint32_t all[SUMMARY_DECILES] = { 0 };

    if (!order)
        return MC_E_NOMEM;
    for (uint32_t i = 0; i < count; i++)
        order[i] = (uint64_t)result->records[i].input << 32 | i;
    qsort(order, count, sizeof(*order), rising_u64);
    for (uint32_t rank = 0; rank < count; rank++) {
        const uint32_t d = (uint32_t)((uint64_t)rank * SUMMARY_DECILES / count);
        all[d]++;
        m->accepted[d] += result->records[order[rank] & UINT32_MAX].outcome == SIM_FINISHED;
    }
    alloc_free(m->alloc, order);
    for (uint32_t d = 0; d < SUMMARY_DECILES; d++)
        m->accepted[d] /= all[d] ? all[d] : 1;
    return MC_OK;
}

static void divide(struct summary *m, double prompt_tokens)
{
    const double n = m->finished ? m->finished : 1;

    m->ttft_mean /= n;
    m->tbt_mean /= n;
    m->tbt_gap_mean /= n;
    m->busy_mean /= n;
    m->regret_mean /= n;
    m->queue_mean_s /= n;
    m->move_mean_s /= n;
    m->hit = prompt_tokens > 0 ? m->hit / prompt_tokens : 0;
    if (m->span_s > 0) {
        m->goodput = m->good / m->span_s;
        m->goodput_tokens = m->good_tokens / m->span_s;
    }
}

mc_status summary_make(const struct sim_options *options, const struct sim_result *result,
                       const struct mc_alloc *alloc, struct summary *summary_p)
{
    const uint32_t count = result->record_count;
    struct summary m = { .alloc = alloc,
                         .offered = count,
                         .wasted_s = result->wasted_s,
                         .moved_bytes = result->moved_bytes,
                         .gaps_late = result->gaps_late,
                         .copies = result->sched.replicated,
                         .copied_blocks = result->copied_blocks,
                         .refusals = result->sched.refused,
                         .would_have_met = result->sched.would_have_met };
    double prompt_tokens = 0;

    m.ttft = alloc_zeroed(alloc, count, sizeof(*m.ttft));
    m.tbt = alloc_zeroed(alloc, count, sizeof(*m.tbt));
    m.regret = alloc_zeroed(alloc, count, sizeof(*m.regret));
    if (!m.ttft || !m.tbt || !m.regret || count_deciles(&m, result) != MC_OK) {
        summary_fini(&m);
        return MC_E_NOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        add(&m, options, &result->records[i]);
        prompt_tokens += result->records[i].outcome == SIM_FINISHED ? result->records[i].input : 0;
    }
    if (count)
        m.span_s = seconds(result->records[0].arrival_ns, result->records[count - 1].arrival_ns);
    divide(&m, prompt_tokens);
    qsort(m.ttft, m.finished, sizeof(*m.ttft), rising);
    qsort(m.tbt, m.finished, sizeof(*m.tbt), rising);
    qsort(m.regret, m.finished, sizeof(*m.regret), rising);
    *summary_p = m;
    return MC_OK;
}

void summary_fini(struct summary *m)
{
    if (!m->alloc)
        return;
    alloc_free(m->alloc, m->ttft);
    alloc_free(m->alloc, m->tbt);
    alloc_free(m->alloc, m->regret);
    *m = (struct summary){ 0 };
}
