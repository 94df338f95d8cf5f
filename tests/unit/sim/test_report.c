/* test_report.c - summaries by hand; table, CSV, page; the papers' experiments on a trace that was made. */
#include "world.h"

#include <math.h>

#include "sim/generate.h"
#include "sim/paper.h"
#include "sim/report.h"

static void test_quantiles_and_shares_of_a_few_values(void **state)
{
    (void)state;
    const float v[] = { 1, 2, 3, 4 };

    assert_true(fabs(summary_at(v, 4, 0.5) - 2) < 1e-9);
    assert_true(fabs(summary_at(v, 4, 0.51) - 3) < 1e-9);
    assert_true(fabs(summary_at(v, 4, 1) - 4) < 1e-9 && fabs(summary_at(v, 4, 0) - 1) < 1e-9);
    assert_true(fabs(summary_below(v, 4, 2.5) - 0.5) < 1e-9);
    assert_true(fabs(summary_below(v, 4, 2) - 0.5) < 1e-9);
    assert_true(summary_at(v, 0, 0.5) == 0 && summary_below(v, 0, 1) == 0);
}

static void run(struct play *p)
{
    play_init(p, "1P+1D");
    p->options.slo_ttft_ns = 2000000000;
    p->options.slo_tbt_ns = 100000000;
    play_add(p, 0, 500, 3, 1, 0); /* first token at 2.06: late */
    play_add(p, 5, 100, 3, 2, 0); /* at 6.22 - 5 */
    play_add(p, 10, 100, 1, 2, 0);
    (void)play_run(p);
}

static void test_a_summary_counts_what_met_its_slos(void **state)
{
    (void)state;
    static struct play p;
    struct summary m;

    run(&p);
    assert_int_equal(summary_make(&p.options, &p.result, &p.faulty.alloc, &m), MC_OK);
    assert_int_equal(m.offered, 3);
    assert_int_equal(m.finished, 3);
    assert_int_equal(m.good, 2);
    assert_true(fabs(m.good_tokens - 200) < 1e-9 && fabs(m.span_s - 10) < 1e-9);
    assert_true(fabs(m.goodput - 0.2) < 1e-9 && fabs(m.goodput_tokens - 20) < 1e-9);
    assert_true(fabs(m.ttft_mean - (2.06 + 1.22 + 1.22) / 3) < 1e-3);
    assert_true(fabs(m.busy_mean - (1.5 + 1.1 + 1.1) / 3) < 1e-6);
    assert_true(fabs(m.accepted[0] - 1) < 1e-9 && fabs(m.accepted[6] - 1) < 1e-9);
    summary_fini(&m);
    const long held = p.faulty.held;
    for (int k = 0; k < 4; k++) {
        p.faulty.calls = 0;
        p.faulty.fail_at = k;
        assert_int_equal(summary_make(&p.options, &p.result, &p.faulty.alloc, &m), MC_E_NOMEM);
        assert_int_equal(p.faulty.held, held);
    }
    p.faulty.fail_at = -1;
    play_close(&p);
}

static uint32_t count_of(const char *text, const char *part)
{
    uint32_t count = 0;

    for (const char *at = text; (at = strstr(at, part)); at++)
        count++;
    return count;
}

static void test_a_report_has_a_row_for_each_run_and_a_line_for_each_request(void **state)
{
    (void)state;
    static struct play p;
    struct report_run runs[2] = { { .name = "one <&> \"1,5\"" }, { .name = "never ran" } };

    run(&p);
    assert_int_equal(report_take(&runs[0], &p.options, &p.result, true), MC_OK);
    assert_int_equal(count_of(runs[0].csv.data, "\n"), 3);
    assert_non_null(
        strstr(runs[0].csv.data, "\"one <&> \"\"1,5\"\"\",0,0.000000,0.000000,finished,"));
    const uint32_t commas = count_of(report_csv_heading, ",");
    assert_int_equal(count_of(runs[0].csv.data, ","), 3 * (commas + 1)); /* one is in the name */

    struct buf table = BUF_INIT(&p.faulty.alloc), page = BUF_INIT(&p.faulty.alloc);
    report_table(runs, 2, &table);
    assert_int_equal(count_of(table.data, "\n"), 2);
    report_page(runs, 2, "a <title>", "x < y & z", &p.faulty.alloc, &page);
    assert_false(page.failed);
    assert_non_null(strstr(page.data, "a &lt;title&gt;"));
    assert_non_null(strstr(page.data, "x &lt; y &amp; z"));
    assert_null(strstr(page.data, "one <&>"));
    assert_null(strstr(page.data, "src="));
    assert_true(count_of(page.data, "<svg") >= 2);
    assert_int_equal(count_of(page.data, "<svg"), count_of(page.data, "</svg>"));
    buf_fini(&table);
    buf_fini(&page);
    report_fini(&runs[0]);
    report_fini(&runs[1]);
    play_close(&p);
}

static mc_status keep(void *user, const struct trace_request *request)
{
    return requests_add(user, request);
}

static void run_paper(struct paper *paper)
{
    struct mc_error error = { 0 };

    assert_int_equal(paper_plan(paper), MC_OK);
    for (uint32_t i = 0; i < paper->run_count; i++) {
        sim *s = NULL;

        const mc_status status = sim_open(paper_options(paper, i), &s, &error);
        if (status == MC_E_UNSUPPORTED) /* an admission */
            continue;
        if (status != MC_OK)
            fail_msg("%s: %s", paper->runs[i].name, error.text);
        if (sim_run(s, UINT32_MAX, &error) != MC_OK)
            fail_msg("%s: %s", paper->runs[i].name, error.text);
        const struct sim_result result = sim_result(s);
        assert_int_equal(paper_take(paper, i, &result), MC_OK);
        sim_close(s);
    }
    assert_int_equal(paper_report(paper), MC_OK);
}

static const struct paper_row *row_of(const struct paper *paper, const char *name,
                                      const char *metric)
{
    for (uint32_t i = 0; i < paper->row_count; i++)
        if (strcmp(paper->rows[i].name, name) == 0 && strcmp(paper->rows[i].metric, metric) == 0)
            return &paper->rows[i];
    fail_msg("no row %s %s", name, metric);
    return NULL;
}

static void test_the_papers_experiments_say_which_trace_is_missing(void **state)
{
    (void)state;
    struct sim_trace traces[PAPER_TRACES] = { 0 };
    struct requests made;
    struct trace_fit fit;
    struct paper paper;
    struct sim_assume assume;
    struct faulty f;

    faulty_init(&f, -1);
    requests_init(&made, TRACE_BLOCK_TOKENS, &f.alloc);
    trace_fit_plain(&fit, 3, 3000, 20, 0.5);
    assert_int_equal(trace_generate(&fit, 40, 1, &f.alloc, keep, &made), MC_OK);
    traces[PAPER_CONVERSATION] = requests_trace(&made);
    assume_defaults(&assume);
    assert_int_equal(paper_init(&paper, &assume, traces, &f.alloc), MC_OK);
    run_paper(&paper);

    const struct paper_row *row = row_of(&paper, "B1 128k prefix 0 %", "prefill");
    assert_false(row->absent);
    assert_true(fabs(row->simulated / row->published - 1) < 0.05);
    assert_true(row->bound == PAPER_PERCENT && paper_row_holds(row));
    struct paper_row off = *row;
    off.simulated = off.published * 1.051;
    assert_false(paper_row_holds(&off));
    off.absent = true; /* nothing is known */
    assert_true(paper_row_holds(&off));
    row = row_of(&paper, "B3 conversation 1e+06 tokens", "hit ratio");
    assert_true(row->bound == PAPER_BLOCKS && row->low <= row->simulated &&
                row->simulated < row->high);
    assert_true(row_of(&paper, "B2 vLLM synthetic", "prefill GPU time")->absent);
    assert_false(row_of(&paper, "B2 vLLM conversation", "prefill GPU time")->absent);
    assert_true(row_of(&paper, "B12 LRU 1k blocks", "hit ratio")->absent);
    row = row_of(&paper, "+525 % ratio", "rate ratio");
    assert_true(fabs(row->simulated / row->published - 1) <= 0.25);
    assert_true(fabs(row_of(&paper, "B16 h800", "break-even bandwidth")->simulated - 18.6) < 0.1);
    paper_fini(&paper);
    requests_fini(&made);
    assert_int_equal(f.held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles_and_shares_of_a_few_values),
        cmocka_unit_test(test_a_summary_counts_what_met_its_slos),
        cmocka_unit_test(test_a_report_has_a_row_for_each_run_and_a_line_for_each_request),
        cmocka_unit_test(test_the_papers_experiments_say_which_trace_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
