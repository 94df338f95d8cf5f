/* report.c - keep a run's figures, and write them as a table and as CSV. */
#include "sim/report.h"

#include <string.h>

#include "base/alloc.h"

const char report_csv_heading[] =
    "run,request,arrival_s,asked_s,outcome,reason,attempts,returns,prefill,decode,holder,input,"
    "output,reused,"
    "pulled,"
    "predicted_ttft_s,ttft_s,predicted_tbt_ms,tbt_mean_ms,tbt_worst_tenth_ms,queue_s,prefill_s,"
    "prefill_gpu_s,to_first_token_s,alone_s,score\n";

static const char *reason_name(uint32_t reason)
{
    switch (reason) {
#define REASON_CASE(name, number, words) \
    case number: \
        return #name;
        MC_REASON_MAP(REASON_CASE)
#undef REASON_CASE
    default:
        return "?";
    }
}

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0;
}

/* Instances are numbered from 1, as the scheduler's ids; 0: none. */
static uint32_t number(uint32_t instance)
{
    return instance + 1;
}

static void add_line(struct buf *out, const char *run, uint32_t i, const struct sim_record *r)
{
    buf_addf(out, "%s,%u,%.6f,%.6f,%s,%s,%u,%u,%u,%u,%u,%u,%u,%u,%u,", run, i,
             (double)r->arrival_ns / 1e9, (double)r->asked_ns / 1e9, sim_outcome_names[r->outcome],
             reason_name(r->reason), r->attempts, r->returns, number(r->prefill), number(r->decode),
             number(r->holder), r->input, r->output, r->reused, r->pulled);
    buf_addf(out, "%.6f,%.6f,%.3f,%.3f,%.3f,%.6f,%.6f,%.6f,%.6f,%.6f,%.6g\n",
             (double)r->predicted_ns / 1e9, seconds(r->asked_ns, r->first_token_ns),
             (double)r->predicted_tbt_ns / 1e6, (double)r->tbt_mean * 1e3,
             (double)r->tbt_worst * 1e3, seconds(r->asked_ns, r->prefill_begin_ns),
             seconds(r->prefill_begin_ns, r->prefill_end_ns), r->busy_s,
             seconds(r->prefill_end_ns, r->first_token_ns), (double)r->alone_ns / 1e9, r->score);
}

/* A name with a comma or a quote is quoted. */
static void csv_name(const char *name, char *quoted, size_t size)
{
    size_t at = 0;

    quoted[at++] = '"';
    for (; *name && at + 3 < size; name++) {
        if (*name == '"')
            quoted[at++] = '"';
        quoted[at++] = *name;
    }
    quoted[at++] = '"';
    quoted[at] = '\0';
}

mc_status report_take(struct report_run *run, const struct sim_options *options,
                      const struct sim_result *result, bool csv)
{
    char name[330];

    run->alloc = options->alloc;
    run->speed = options->speed > 0 ? options->speed : 1;
    run->watched_count = options->watched_count;
    run->csv = BUF_INIT(run->alloc);
    mc_status status = summary_make(options, result, run->alloc, &run->summary);
    if (status != MC_OK)
        return status;
    run->samples = alloc_zeroed(run->alloc, result->sample_count, sizeof(*run->samples));
    if (!run->samples)
        return MC_E_NOMEM;
    memcpy(run->samples, result->samples, result->sample_count * sizeof(*run->samples));
    run->sample_count = result->sample_count;
    csv_name(run->name, name, sizeof(name));
    for (uint32_t i = 0; csv && i < result->record_count; i++)
        add_line(&run->csv, name, i, &result->records[i]);
    run->done = !run->csv.failed;
    return run->done ? MC_OK : MC_E_NOMEM;
}

void report_fini(struct report_run *run)
{
    if (!run->alloc)
        return;
    summary_fini(&run->summary);
    alloc_free(run->alloc, run->samples);
    buf_fini(&run->csv);
    *run = (struct report_run){ 0 };
}

static double share(uint32_t part, uint32_t whole)
{
    return whole ? 100.0 * part / whole : 0;
}

void report_table(const struct report_run *runs, uint32_t count, struct buf *out)
{
    size_t width = 4;

    for (uint32_t i = 0; i < count; i++)
        width = strlen(runs[i].name) > width ? strlen(runs[i].name) : width;
    buf_addf(out, "%-*s %6s %6s %6s %8s %7s %7s %7s %7s %7s %7s %6s %7s %8s\n", (int)width, "run",
             "done%", "refus%", "good%", "good/s", "ttft", "p50", "p90", "p99", "tbt", "tbt90",
             "hit%", "gpu s", "wasted s");
    for (uint32_t i = 0; i < count; i++) {
        const struct summary *m = &runs[i].summary;

        if (!runs[i].done)
            continue;
        buf_addf(
            out,
            "%-*s %6.2f %6.2f %6.2f %8.3f %7.2f %7.2f %7.2f %7.2f %7.1f %7.1f %6.2f %7.3f %8.1f\n",
            (int)width, runs[i].name, share(m->finished, m->offered),
            share(m->refused + m->late, m->offered), share(m->good, m->offered), m->goodput,
            m->ttft_mean, summary_at(m->ttft, m->finished, .5),
            summary_at(m->ttft, m->finished, .9), summary_at(m->ttft, m->finished, .99),
            m->tbt_mean * 1e3, summary_at(m->tbt, m->finished, .9) * 1e3, 100 * m->hit,
            m->busy_mean, m->wasted_s);
    }
}
