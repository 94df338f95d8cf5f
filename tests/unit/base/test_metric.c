/* test_metric.c - a role's table, counted and shown. */
#include "test.h"

#include "base/alloc.h"
#include "base/metric.h"

static const char *const reasons[] = { "ttft_slo", "queue_full" };
static const struct metric_label by_reason = { "reason", reasons, 2 };
static const uint64_t few[] = { 1000000, 1500000000 };
static const struct metric_bounds few_bounds = { few, 2 };

#define DEMO_METRICS(X) \
    X(requests, "requests", COUNTER, NONE, NULL, NULL, "Requests taken in.") \
    X(refused, "refused", COUNTER, NONE, NULL, &by_reason, "Requests refused, by reason.") \
    X(used, "used", GAUGE, BYTES, NULL, NULL, "Bytes in use.") \
    X(skew, "skew", GAUGE, SECONDS, NULL, NULL, "A peer's clock against ours.") \
    X(hits, "hits", GAUGE, RATIO, NULL, NULL, "Share of prompt tokens that were reused.") \
    X(ttft, "ttft", HISTOGRAM, SECONDS, &few_bounds, NULL, "Time to the first token.") \
    X(pull, "pull", HISTOGRAM, BYTES, &metric_sizes, &by_reason, "Bytes pulled.")

enum { DEMO_METRICS(METRIC_ENUM) DEMO_COUNT };
static const struct metric rows[] = { DEMO_METRICS(METRIC_ROW) };

static void open_demo(struct metrics *metrics, struct faulty *f)
{
    faulty_init(f, -1);
    assert_int_equal(metrics_init(metrics, rows, DEMO_COUNT, "mooncake_demo", &f->alloc), MC_OK);
}

static void test_the_text_is_what_prometheus_reads(void **state)
{
    (void)state;
    struct faulty f;
    struct metrics metrics;

    open_demo(&metrics, &f);
    metrics.count = METRIC_pull; /* the last one has its own test */
    metric_add(&metrics, METRIC_requests, 0, 3);
    metric_add(&metrics, METRIC_requests, 0, 2);
    metric_add(&metrics, METRIC_refused, 1, 7);
    metric_set(&metrics, METRIC_used, 0, 4096);
    metric_set(&metrics, METRIC_skew, 0, -1250000000);
    metric_set(&metrics, METRIC_hits, 0, 37360);
    metric_observe(&metrics, METRIC_ttft, 0, 1000000); /* a bound is in its bucket */
    metric_observe(&metrics, METRIC_ttft, 0, 1000001);
    metric_observe(&metrics, METRIC_ttft, 0, 60000000000);

    struct buf out = BUF_INIT(&f.alloc);
    metrics_text(&metrics, &out);
    assert_false(out.failed);
    assert_string_equal(out.data,
                        "# HELP mooncake_demo_requests_total Requests taken in.\n"
                        "# TYPE mooncake_demo_requests_total counter\n"
                        "mooncake_demo_requests_total 5\n"
                        "# HELP mooncake_demo_refused_total Requests refused, by reason.\n"
                        "# TYPE mooncake_demo_refused_total counter\n"
                        "mooncake_demo_refused_total{reason=\"ttft_slo\"} 0\n"
                        "mooncake_demo_refused_total{reason=\"queue_full\"} 7\n"
                        "# HELP mooncake_demo_used_bytes Bytes in use.\n"
                        "# TYPE mooncake_demo_used_bytes gauge\n"
                        "mooncake_demo_used_bytes 4096\n"
                        "# HELP mooncake_demo_skew_seconds A peer's clock against ours.\n"
                        "# TYPE mooncake_demo_skew_seconds gauge\n"
                        "mooncake_demo_skew_seconds -1.25\n"
                        "# HELP mooncake_demo_hits_ratio Share of prompt tokens that were reused.\n"
                        "# TYPE mooncake_demo_hits_ratio gauge\n"
                        "mooncake_demo_hits_ratio 0.03736\n"
                        "# HELP mooncake_demo_ttft_seconds Time to the first token.\n"
                        "# TYPE mooncake_demo_ttft_seconds histogram\n"
                        "mooncake_demo_ttft_seconds_bucket{le=\"0.001\"} 1\n"
                        "mooncake_demo_ttft_seconds_bucket{le=\"1.5\"} 2\n"
                        "mooncake_demo_ttft_seconds_bucket{le=\"+Inf\"} 3\n"
                        "mooncake_demo_ttft_seconds_sum 60.002000001\n"
                        "mooncake_demo_ttft_seconds_count 3\n");
    buf_fini(&out);
    metrics_fini(&metrics);
    assert_int_equal(f.held, 0);
}

static void test_series_of_a_labelled_histogram_are_apart(void **state)
{
    (void)state;
    struct faulty f;
    struct metrics metrics;

    open_demo(&metrics, &f);
    for (int i = 0; i < 5; i++)
        metric_observe(&metrics, METRIC_pull, 1, UINT64_C(1) << 40);
    metric_observe(&metrics, METRIC_pull, 0, 0);
    assert_int_equal(metric_value(&metrics, METRIC_pull, 0), 1);
    assert_int_equal(metric_value(&metrics, METRIC_pull, 1), 5);

    struct buf out = BUF_INIT(&f.alloc);
    metrics_text(&metrics, &out);
    assert_non_null(
        strstr(out.data, "pull_bytes_bucket{reason=\"queue_full\",le=\"1073741824\"} 0\n"));
    assert_non_null(strstr(out.data, "pull_bytes_bucket{reason=\"queue_full\",le=\"+Inf\"} 5\n"));
    assert_non_null(strstr(out.data, "pull_bytes_sum{reason=\"queue_full\"} 5497558138880\n"));
    assert_non_null(strstr(out.data, "pull_bytes_bucket{reason=\"ttft_slo\",le=\"64\"} 1\n"));
    assert_non_null(strstr(out.data, "pull_bytes_count{reason=\"ttft_slo\"} 1\n"));
    buf_fini(&out);
    metrics_fini(&metrics);
}

static void test_no_row_touches_another(void **state)
{
    (void)state;
    struct faulty f;
    struct metrics metrics;

    open_demo(&metrics, &f);
    for (uint32_t row = 0; row < DEMO_COUNT; row++) {
        const uint32_t series = rows[row].label ? 1 : 0;
        for (uint32_t other = 0; other < DEMO_COUNT; other++)
            assert_int_equal(metric_value(&metrics, other, 0) != 0,
                             other < row && !rows[other].label);
        if (rows[row].kind == METRIC_COUNTER)
            metric_add(&metrics, row, series, 1);
        else if (rows[row].kind == METRIC_GAUGE)
            metric_set(&metrics, row, series, 1);
        else
            metric_observe(&metrics, row, series, UINT64_MAX);
        assert_int_equal(metric_value(&metrics, row, series), 1);
    }
    metrics_fini(&metrics);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct faulty f;
        struct metrics metrics;

        faulty_init(&f, k);
        const mc_status status =
            metrics_init(&metrics, rows, DEMO_COUNT, "mooncake_demo", &f.alloc);
        if (status == MC_OK) {
            metrics_fini(&metrics);
            assert_int_equal(f.held, 0);
            assert_int_equal(k, 2);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_int_equal(f.held, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_text_is_what_prometheus_reads),
        cmocka_unit_test(test_series_of_a_labelled_histogram_are_apart),
        cmocka_unit_test(test_no_row_touches_another),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
