/* paper_clusters.c - experiments about placement, splits, latency and overload. Figures are named as in paper_cases.c. */
#include <math.h>
#include <stdio.h>

#include "sim/paper.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ------------------------------------------------------------------------------- B6: placement policies */

static void b6_at(struct paper *p, const char *cluster, double speed, const char *suffix)
{
    static const struct {
        const char *name, *policy, *parameters;
        double mean, q1, median, q3;
    } policies[] = {
        { "global", "algorithm1", NULL, 3.07, .39, 1.72, 4.14 },
        { "local", "local", NULL, 3.58, .56, 2.16, 5.14 },
        { "load", "least-loaded", "pull=0", 5.27, 1.05, 3.56, 7.41 },
        { "random", "random", "pull=0", 19.65, 3.54, 13.72, 0 },
    };
    double means[COUNT(policies)] = { 0 };
    bool all = true;
    char name[64];

    for (uint32_t i = 0; i < COUNT(policies); i++) {
        const struct sim_options o = { .policy = policies[i].policy,
                                       .policy_parameters = policies[i].parameters,
                                       .speed = speed };
        const struct paper_run *r =
            paper_wants(p, policies[i].name, PAPER_CONVERSATION, o, cluster);
        const struct summary *m = r ? &r->summary : NULL;

        snprintf(name, sizeof(name), "B6 %s%s", policies[i].name, suffix);
        paper_row(p, name, "mean TTFT", "s", policies[i].mean, m != NULL, m ? m->ttft_mean : 0);
        paper_row(p, name, "median TTFT", "s", policies[i].median, m != NULL,
                  m ? summary_at(m->ttft, m->finished, .5) : 0);
        means[i] = m ? m->ttft_mean : 0;
        all = all && m && m->ttft_mean > 0;
        if (i == 0)
            continue;
        snprintf(name, sizeof(name), "B6 %s/global%s", policies[i].name, suffix);
        paper_row(p, name, "mean TTFT ratio", "", policies[i].mean / policies[0].mean, all,
                  all ? means[i] / means[0] : 0);
        if (i < 3) /* random is beyond saturation in F5 */
            paper_within(p, PAPER_PERCENT, 20);
    }
    snprintf(name, sizeof(name), "B6 order%s", suffix);
    paper_order(p, name, "global<local<load<rand.", all,
                means[0] < means[1] && means[1] < means[2] && means[2] < means[3]);
}

static void b6(struct paper *p)
{
    b6_at(p, "6P+10D", 1, "");
    b6_at(p, "8P+8D", 1.35, " (8P+8D 1.35x)");
}

/* -------------------------------------------------------------------------- B7, B8: prefill against decode */

static void b7_b8(struct paper *p)
{
    static const double ttft[] = { 5.74, 1.71, 1.30, 1.19, 1.12, 1.11, 1.14 };
    static const double tbt[] = { 31.5, 31.8, 32.9, 35.0, 38.2, 44.2, 58.3 };
    static const double effective[] = { 77.7, 97.2, 99.1, 99.0, 99.2, 98.4, 86.1 };
    const struct sim_options o = { .slo_ttft_ns = 10000000000, .slo_tbt_ns = 100000000 };
    char name[64], cluster[32];

    for (unsigned n = 5; n <= 11; n++) {
        snprintf(cluster, sizeof(cluster), "%uP+%uD", n, 16 - n);
        snprintf(name, sizeof(name), "B7 %s", cluster);
        const struct paper_run *r = paper_wants(p, name, PAPER_SYNTHETIC, o, cluster);
        const struct summary *m = r ? &r->summary : NULL;

        paper_row(p, name, "mean TTFT", "s", ttft[n - 5], m != NULL, m ? m->ttft_mean : 0);
        paper_within(p, n >= 7 ? PAPER_PERCENT : PAPER_FREE, 10);
        snprintf(name, sizeof(name), "B8 %s", cluster);
        paper_row(p, name, "effective", "%", effective[n - 5], m != NULL,
                  m ? 100.0 * m->good / m->offered : 0);
        const bool held = n >= 6 && n <= 10; /* the others are beyond saturation */
        paper_within(p, held ? PAPER_POINTS : PAPER_FREE, 5);
        paper_row(p, name, "mean TBT", "ms", tbt[n - 5], m != NULL, m ? m->tbt_mean * 1e3 : 0);
        paper_within(p, held ? PAPER_PERCENT : PAPER_FREE, 20);
    }
}

/* -------------------------------------------------------------------------------------- B9: TBT of systems */

static void b9(struct paper *p)
{
    static const struct {
        const char *name;
        int coupled;
        double share[3][3]; /* conversation, synthetic, tool&agent: below 100, 200, 300 ms */
    } systems[] = {
        { "mooncake", -1, { { 96.6, 100, 100 }, { 99.6, 100, 100 }, { 93.2, 99.8, 100 } } },
        { "vLLM", SIM_PLAIN, { { 16.1, 38.8, 62.8 }, { 61.3, 71.0, 78.1 }, { 43.1, 45.3, 49.8 } } },
        { "vLLM prefix",
          SIM_PREFIX,
          { { 15.1, 34.3, 56.0 }, { 61.0, 70.8, 77.2 }, { 56.5, 70.0, 81.3 } } },
        { "vLLM chunked",
          SIM_CHUNKED,
          { { 9.4, 28.8, 55.4 }, { 46.6, 57.3, 69.5 }, { 18.6, 21.3, 40.4 } } },
    };
    static const double limits[] = { .1, .2, .3 };
    double fast[3][COUNT(systems)] = { 0 }; /* shares below the first limit */
    char name[64];

    for (uint32_t i = 0; i < COUNT(systems); i++)
        for (int t = PAPER_CONVERSATION; t <= PAPER_TOOLAGENT; t++) {
            struct sim_options o = systems[i].coupled < 0
                                       ? (struct sim_options){ .assume = p->assume }
                                       : paper_coupled(p, (enum sim_coupled)systems[i].coupled);
            o.speed = t == PAPER_CONVERSATION ? 1.53 : 1;
            o.input_max = (uint32_t)p->assume.vllm_context_tokens;
            const struct paper_run *r = paper_wants(p, systems[i].name, (enum paper_trace)t, o,
                                                    systems[i].coupled < 0 ? "8P+8D" : "16C");
            for (uint32_t k = 0; k < COUNT(limits); k++) {
                const double share =
                    r ? 100 * summary_below(r->summary.tbt, r->summary.finished, limits[k]) : 0;

                fast[t][i] = k == 0 ? share : fast[t][i];
                snprintf(name, sizeof(name), "B9 %s %s < %.0f ms", systems[i].name,
                         paper_trace_names[t], limits[k] * 1e3);
                paper_row(p, name, "requests", "%", systems[i].share[t][k], r != NULL, share);
                paper_within(p, PAPER_POINTS, 15);
            }
        }
    for (int t = PAPER_CONVERSATION; t <= PAPER_SYNTHETIC; t++) {
        const double *f = fast[t];

        snprintf(name, sizeof(name), "B9 order %s", paper_trace_names[t]);
        paper_order(p, name, "ours>plain>prefix>ch.", p->traces[t].count != 0,
                    f[0] > f[1] && f[1] > f[2] && f[2] > f[3]);
    }
}

/* ---------------------------------------------------------------------------------------- B10: bandwidth */

/* A Gbps of F13 is 2^30 bits: its theoretical transfer times are those of a mean prompt's 5.02 GB then, at all
 * rates. */
static const double F13_GBPS = 1.073741824;

static void b10(struct paper *p)
{
    static const double gbps[] = { 24, 40, 80, 100, 160, 320, 400 };
    static const double ttft[] = { 5.10, 2.40, 1.73, 1.60, 1.41, 1.25, 1.25 };
    char name[64];

    for (uint32_t i = 0; i < COUNT(gbps); i++) {
        snprintf(name, sizeof(name), "B10 %.0f Gbps", gbps[i]);
        const struct sim_options o = { .net_gbps = gbps[i] * F13_GBPS };
        const struct paper_run *r = paper_wants(p, name, PAPER_SYNTHETIC, o, "8P+8D");
        paper_row(p, name, "mean TTFT", "s", ttft[i], r != NULL, r ? r->summary.ttft_mean : 0);
    }
}

/* ----------------------------------------------------------------------------------------- B11: replicas */

static void b11_at(struct paper *p, enum paper_trace trace, double speed, const double most[4],
                   double when_s)
{
    const struct sim_options o = { .speed = speed };
    const struct paper_run *r = paper_wants(p, "replicas", trace, o, "8P+8D");
    char suffix[16] = "", name[64];

    if (speed != 1)
        snprintf(suffix, sizeof(suffix), " %gx", speed);
    for (uint32_t k = 0, rank = 10; k < SIM_WATCHED_MAX; k++, rank *= 10) {
        snprintf(name, sizeof(name), "B11 %s%s rank %u", paper_trace_names[trace], suffix, rank);
        paper_row(p, name, "replicas at most", "", most[k], r != NULL, r ? r->replicas_most[k] : 0);
    }
    if (isnan(when_s))
        return;
    snprintf(name, sizeof(name), "B11 %s%s rank 10", paper_trace_names[trace], suffix);
    paper_row(p, name, "when", "s", when_s, r != NULL, r ? r->replicas_when_s[0] : 0);
}

static void b11(struct paper *p)
{
    static const double conversation[] = { 8, 7, 6, 3 }, synthetic[] = { 5, 4, 5, 2 };
    static const double speeds[] = { 1, 1.35 }; /* as in B6 */

    for (uint32_t i = 0; i < COUNT(speeds); i++) {
        b11_at(p, PAPER_CONVERSATION, speeds[i], conversation, 1100);
        b11_at(p, PAPER_SYNTHETIC, speeds[i], synthetic, NAN);
    }
}

/* ------------------------------------------------------------------------------------ +525 %: long prompts */

/* The highest rate of a rising list whose P90 of TTFT is at most ten times that of the lowest rate's fastest. */
static double passing_rate(struct paper *p, struct sim_options o, const char *cluster,
                           const double *rates, uint32_t count)
{
    double best = 0;
    bool passes = true;

    for (uint32_t i = 0; i < count; i++) {
        o.speed = rates[i];
        const struct paper_run *r = paper_wants(p, cluster, PAPER_LONG, o, cluster);
        if (!r)
            continue;
        const struct summary *m = &r->summary;
        const double alone = summary_at(m->ttft, m->finished, .05);

        passes = passes && summary_at(m->ttft, m->finished, .9) <= 10 * alone;
        if (passes)
            best = rates[i];
    }
    return best;
}

static void b525(struct paper *p)
{
    static const double fast[] = { .25, .5, .75, 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3, 3.5 };
    static const double slow[] = { .02, .1, .125, .15, .175, .2, .225, .25, .275, .3, .35 };
    struct sim_options vllm = paper_coupled(p, SIM_PLAIN), ours = { 0 };

    ours.assume = p->assume;
    (void)assume_llm(&ours.assume, "llama2-70b");
    vllm.assume = ours.assume;
    vllm.assume.sequences_max = 1;
    const double a = passing_rate(p, ours, "3P+1D", fast, COUNT(fast));
    const double b = passing_rate(p, vllm, "4C", slow, COUNT(slow));

    paper_row(p, "+525 % mooncake 3P+1D", "rate within TTFT", "1/s", 1.25, a > 0, a);
    paper_row(p, "+525 % vLLM 4", "rate within TTFT", "1/s", 0.2, b > 0, b);
    paper_row(p, "+525 % ratio", "rate ratio", "", 6.25, a > 0 && b > 0, b > 0 ? a / b : 0);
    paper_within(p, PAPER_PERCENT, 25);
}

/* ------------------------------------------------------------------------------------ B13: rejections */

/* What A-T3 leaves open. */
struct overload {
    const char *cluster;
    double speed;
    uint64_t slo_tbt_ms;
    const char *parameters, *words; /* of the admission */
    bool held;                      /* the published order is to come out */
};

static void b13_at(struct paper *p, const struct overload *at)
{
    static const struct {
        const char *name;
        enum mc_admission admission;
        double published;
    } admissions[] = { { "baseline", MC_ADMIT_STAGES, 18.2 },
                       { "early", MC_ADMIT_EARLY, 16.4 },
                       { "predicted", MC_ADMIT_EARLY_SYSTEM, 15.6 } };
    double refused[COUNT(admissions)] = { 0 };
    char name[64], where[40];
    bool all = true;

    snprintf(where, sizeof(where), "(%s %gx%s)", at->cluster, at->speed, at->words);
    for (uint32_t i = 0; i < COUNT(admissions); i++) {
        const struct sim_options o = { .admission = admissions[i].admission,
                                       .admission_parameters = at->parameters,
                                       .slo_ttft_ns = 30000000000,
                                       .slo_tbt_ns = at->slo_tbt_ms * 1000000,
                                       .speed = at->speed };
        snprintf(name, sizeof(name), "B13 %s %s", admissions[i].name, where);
        const struct paper_run *r = paper_wants(p, name, PAPER_CONVERSATION, o, at->cluster);
        const struct summary *m = r ? &r->summary : NULL;

        all = all && m;
        refused[i] = m ? 100.0 * (m->refused + m->late) / m->offered : 0;
        paper_row(p, name, "rejected", "%", admissions[i].published, m != NULL, refused[i]);
        if (m) {
            paper_row(p, name, "prefill in vain", "s", NAN, true, m->wasted_s);
            paper_row(p, name, "prefill, decode load", "correlation",
                      admissions[i].admission == MC_ADMIT_EARLY ? -0.52 : NAN, true,
                      r->correlation);
        }
    }
    for (uint32_t i = 1; i < COUNT(admissions) && at->held; i++) {
        snprintf(name, sizeof(name), "B13 %s/baseline %s", admissions[i].name, where);
        paper_row(p, name, "rejected, ratio", "", admissions[i].published / admissions[0].published,
                  all && refused[0] > 0, refused[0] > 0 ? refused[i] / refused[0] : 0);
    }
    snprintf(name, sizeof(name), "B13 order %s", where);
    paper_order(p, name, "baseline>early>predict.", all,
                refused[0] > refused[1] && refused[1] > refused[2]);
    if (!at->held)
        paper_within(p, PAPER_FREE, 0);
}

static void b13(struct paper *p)
{
    /* Predictions without a margin and no room for who comes back: the papers have neither. */
    static const struct overload settings[] = {
        { "8P+8D", 2, 100, "quantile=0.5,bookings=0", "", false },
        { "10P+3D", 3, 100, "quantile=0.5,bookings=0", "", false },
        { "8P+8D", 3, 72, "quantile=0.5,bookings=0,pool=1,gaps=0.5", ", pool, gaps", true },
    };

    for (uint32_t i = 0; i < COUNT(settings); i++)
        b13_at(p, &settings[i]);
}

void paper_cluster_cases(struct paper *p)
{
    b6(p);
    b7_b8(p);
    b9(p);
    b10(p);
    b11(p);
    b525(p);
    b13(p);
}
