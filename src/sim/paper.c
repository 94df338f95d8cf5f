/* paper.c - plan runs, take their results, make rows (what is compared: paper_cases.c). */
#include "sim/paper.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "sim/tracestats.h"

const char *const paper_files[PAPER_TRACES] = { "conversation_trace.jsonl", "synthetic_trace.jsonl",
                                                "toolagent_trace.jsonl", "mooncake_trace.jsonl",
                                                NULL };

/* ----------------------------------------------------------------------------------- the long prompts */

enum { LONG_REQUESTS = 400, LONG_INPUT = 16384, LONG_OUTPUT = 512, LONG_DOCUMENTS = 8 };

/* Poisson at 1 a second; the first half of each prompt is one of a few documents (A-T2: 50 % cached). */
static mc_status make_long(struct requests *made, const struct mc_alloc *alloc)
{
    enum { BLOCKS = LONG_INPUT / TRACE_BLOCK_TOKENS };
    uint64_t ids[BLOCKS];
    double at_s = 0;
    mc_status status = MC_OK;

    requests_init(made, TRACE_BLOCK_TOKENS, alloc);
    for (uint32_t i = 0; i < LONG_REQUESTS && status == MC_OK; i++) {
        const uint64_t document = prng_at(525, 2 * i) % LONG_DOCUMENTS;

        for (uint32_t b = 0; b < BLOCKS; b++)
            ids[b] = b < BLOCKS / 2 ? document * BLOCKS + b
                                    : ((uint64_t)i + LONG_DOCUMENTS) * BLOCKS + b;
        at_s -= log(1 - prng_unit(prng_at(525, 2 * i + 1)));
        const struct trace_request r = { .arrival_ns = (uint64_t)(at_s * 1e9),
                                         .input_tokens = LONG_INPUT,
                                         .output_tokens = LONG_OUTPUT,
                                         .hash_ids = ids,
                                         .hash_count = BLOCKS };
        status = requests_add(made, &r);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ life */

static mc_status rank_blocks(struct paper *p)
{
    const struct sim_node node = assume_node(&p->assume);
    struct tracestats stats;

    for (int t = 0; t < PAPER_TRACES; t++) {
        if (p->traces[t].count == 0)
            continue;
        const mc_status status = tracestats_make(&p->traces[t], &node.cost, p->alloc, &stats);
        if (status != MC_OK)
            return status;
        memcpy(p->ranked[t], stats.rank_block, sizeof(p->ranked[t]));
    }
    return MC_OK;
}

mc_status paper_init(struct paper *p, const struct sim_assume *assume,
                     const struct sim_trace *traces, const struct mc_alloc *alloc)
{
    *p = (struct paper){ .alloc = alloc, .assume = *assume };
    memcpy(p->traces, traces, sizeof(p->traces));
    p->runs = alloc_zeroed(alloc, PAPER_RUNS_MAX, sizeof(*p->runs));
    p->rows = alloc_zeroed(alloc, PAPER_ROWS_MAX, sizeof(*p->rows));
    mc_status status = p->runs && p->rows ? make_long(&p->made, alloc) : MC_E_NOMEM;
    p->traces[PAPER_LONG] = requests_trace(&p->made);
    if (status == MC_OK)
        status = rank_blocks(p);
    if (status != MC_OK)
        paper_fini(p);
    return status;
}

void paper_fini(struct paper *p)
{
    if (!p->alloc)
        return;
    for (uint32_t i = 0; p->runs && i < p->run_count; i++)
        summary_fini(&p->runs[i].summary);
    requests_fini(&p->made);
    alloc_free(p->alloc, p->rows);
    alloc_free(p->alloc, p->runs);
    *p = (struct paper){ 0 };
}

mc_status paper_plan(struct paper *p)
{
    p->reports = false;
    p->run_count = p->row_count = p->next = 0;
    paper_cases(p);
    return p->failed ? MC_E_NOMEM : MC_OK;
}

const struct sim_options *paper_options(const struct paper *p, uint32_t run)
{
    return &p->runs[run].options;
}

static void loads(struct paper_run *run, const struct sim_result *result)
{
    double n = 0, x = 0, y = 0, xx = 0, yy = 0, xy = 0;

    for (uint32_t i = 0; i < result->sample_count; i++) {
        const double a = result->samples[i].prefill_load, b = result->samples[i].decode_load;

        n++;
        x += a;
        y += b;
        xx += a * a;
        yy += b * b;
        xy += a * b;
    }
    if (n < 2)
        return;
    const double vx = xx / n - x / n * (x / n), vy = yy / n - y / n * (y / n);
    run->prefill_load[0] = x / n;
    run->decode_load[0] = y / n;
    run->prefill_load[1] = vx > 0 ? sqrt(vx) : 0;
    run->decode_load[1] = vy > 0 ? sqrt(vy) : 0;
    if (vx > 0 && vy > 0)
        run->correlation = (xy / n - x / n * (y / n)) / sqrt(vx * vy);
}

static void replicas(struct paper_run *run, const struct sim_result *result)
{
    for (uint32_t i = 0; i < result->sample_count; i++)
        for (uint32_t k = 0; k < SIM_WATCHED_MAX; k++) {
            const struct sim_sample *s = &result->samples[i];

            if (s->replicas[k] > run->replicas_most[k]) {
                run->replicas_most[k] = s->replicas[k];
                run->replicas_when_s[k] = (double)s->ns / 1e9;
            }
            run->replicas_end[k] = s->replicas[k];
        }
}

mc_status paper_take(struct paper *p, uint32_t index, const struct sim_result *result)
{
    struct paper_run *run = &p->runs[index];

    replicas(run, result);
    loads(run, result);
    const mc_status status = summary_make(&run->options, result, p->alloc, &run->summary);
    run->done = status == MC_OK;
    return status;
}

mc_status paper_report(struct paper *p)
{
    p->reports = true;
    p->row_count = p->next = 0;
    paper_cases(p);
    return p->failed ? MC_E_NOMEM : MC_OK;
}

/* ------------------------------------------------------------------------------------------- for cases */

const struct paper_run *paper_wants(struct paper *p, const char *name, enum paper_trace trace,
                                    struct sim_options options, const char *cluster)
{
    if (p->traces[trace].count == 0)
        return NULL;
    if (p->reports) {
        const uint32_t at = p->next++;
        return at < p->run_count && p->runs[at].done ? &p->runs[at] : NULL;
    }
    if (p->run_count == PAPER_RUNS_MAX) {
        p->failed = true;
        return NULL;
    }
    struct paper_run *run = &p->runs[p->run_count++];
    *run = (struct paper_run){ .trace = trace, .options = options };
    snprintf(run->name, sizeof(run->name), "%s", name);
    run->options.alloc = p->alloc;
    run->options.trace = &p->traces[trace];
    if (run->options.admission ==
        MC_ADMIT_DEFAULT) /* nobody is refused but where an experiment says so */
        run->options.admission = MC_ADMIT_ALL;
    if (run->options.assume.gpus < 1)
        run->options.assume = p->assume;
    memcpy(run->options.watched, p->ranked[trace], sizeof(run->options.watched));
    run->options.watched_count = SIM_WATCHED_MAX;
    if (sim_cluster_read(cluster, run->options.groups, &run->options.group_count, NULL) != MC_OK)
        p->failed = true;
    return NULL;
}

void paper_row(struct paper *p, const char *name, const char *metric, const char *unit,
               double published, bool there, double simulated)
{
    if (!p->reports || p->row_count == PAPER_ROWS_MAX)
        return;
    struct paper_row *row = &p->rows[p->row_count++];
    *row = (struct paper_row){ .metric = metric,
                               .unit = unit,
                               .published = published,
                               .simulated = there ? simulated : 0,
                               .absent = !there };
    row->low = row->high = row->simulated;
    snprintf(row->name, sizeof(row->name), "%s", name);
}

void paper_within(struct paper *p, enum paper_bound bound, double limit)
{
    if (!p->reports || p->row_count == 0)
        return;
    p->rows[p->row_count - 1].bound = bound;
    p->rows[p->row_count - 1].limit = limit;
}

void paper_between(struct paper *p, double low, double high)
{
    paper_within(p, PAPER_BLOCKS, 0);
    if (!p->reports || p->row_count == 0)
        return;
    p->rows[p->row_count - 1].low = low;
    p->rows[p->row_count - 1].high = high;
}

void paper_order(struct paper *p, const char *name, const char *metric, bool there, bool holds)
{
    paper_row(p, name, metric, "yes", 1, there, holds);
    paper_within(p, PAPER_ORDER, 0);
}

bool paper_row_holds(const struct paper_row *row)
{
    const double off = fabs(row->simulated - row->published);

    switch (row->absent ? PAPER_FREE : row->bound) {
    case PAPER_PERCENT:
        return off <= fabs(row->published) * row->limit / 100;
    case PAPER_POINTS:
        return off <= row->limit;
    case PAPER_BLOCKS:
        return row->low <= row->published && row->published <= row->high;
    case PAPER_ORDER:
        return row->simulated >= 0.5;
    default:
        return true;
    }
}
