/* test_live_minute.c - sums by the second, and percentiles that are near enough. */
#include "test.h"

#include "base/prng.h"
#include "gateway/live_minute.h"

static const uint64_t SECOND = 1000000000, MS = 1000000;
static struct live_minute m;

static int setup(void **state)
{
    (void)state;
    live_minute_init(&m, 5 * SECOND);
    return 0;
}

static void test_what_happens_is_kept_by_the_second_for_a_minute(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 200; i++)
        live_minute_now(&m, 5 * SECOND + i * SECOND / 2)->arrived++;
    assert_int_equal(m.last, 99);
    for (uint64_t i = 0; i < 40; i++)
        assert_null(live_minute_at(&m, i));
    for (uint64_t i = 40; i < 100; i++)
        assert_int_equal(live_minute_at(&m, i)->arrived, 2);
    assert_null(live_minute_at(&m, 100));
}

static void test_seconds_without_events_are_empty(void **state)
{
    (void)state;
    live_minute_now(&m, 5 * SECOND)->arrived = 7;
    live_minute_now(&m, 8 * SECOND)->arrived = 9;
    assert_int_equal(live_minute_at(&m, 0)->arrived, 7);
    assert_int_equal(live_minute_at(&m, 1)->arrived, 0);
    assert_int_equal(live_minute_at(&m, 2)->arrived, 0);
    assert_int_equal(live_minute_at(&m, 3)->arrived, 9);
    live_minute_now(&m, 100000 * SECOND);
    for (uint64_t i = m.last - LIVE_SECONDS + 1; i <= m.last; i++)
        assert_int_equal(live_minute_at(&m, i)->arrived, 0);
    assert_null(live_minute_at(&m, 3));
}

static void test_time_that_goes_back_counts_as_the_latest(void **state)
{
    (void)state;
    live_minute_now(&m, 9 * SECOND)->arrived = 1;
    live_minute_now(&m, 0)->arrived++;
    assert_int_equal(live_minute_at(&m, 4)->arrived, 2);
}

static int by_size(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void test_percentiles_are_a_tenth_too_large_at_most(void **state)
{
    static const uint32_t percents[] = { 1, 50, 95, 99, 100 };
    uint64_t values[1000];

    (void)state;
    for (uint64_t round = 0; round < 50; round++) {
        struct live_times t = { .count = 0 };
        for (uint64_t i = 0; i < 1000; i++) {
            const uint64_t r = prng_mix(round * 1000 + i);
            values[i] = (1 + (r >> 8) % (UINT64_C(1) << r % 28)) * 1000;
            live_times_add(&t, values[i], 1);
        }
        qsort(values, 1000, sizeof(values[0]), by_size);
        for (int i = 0; i < 5; i++) {
            const uint64_t truth = values[(1000 * percents[i] + 99) / 100 - 1] / 1000;
            const uint64_t said = live_times_percentile(&t, percents[i]);
            assert_true(said >= truth && said <= truth + truth / 8 + 1);
        }
    }
}

static void test_times_of_the_minute_are_those_of_its_seconds(void **state)
{
    struct live_times sum;

    (void)state;
    live_minute_ttft(&m, &sum);
    assert_int_equal(live_times_percentile(&sum, 50), 0);
    for (uint64_t i = 0; i < 120; i++) { /* 60 fall out of the minute */
        struct live_second *second = live_minute_now(&m, (5 + i) * SECOND);
        live_times_add(&second->ttft, i < 60 ? 1000 * MS : 10 * MS, 1);
        live_times_add(&second->tbt, i < 90 ? 1 * MS : 2 * MS, 10);
    }
    live_minute_ttft(&m, &sum);
    assert_int_equal(sum.count, 60);
    assert_in_range(live_times_percentile(&sum, 100), 10000, 11250);
    live_minute_tbt(&m, &sum);
    assert_int_equal(sum.count, 600);
    assert_in_range(live_times_percentile(&sum, 50), 1000, 1125);
    assert_in_range(live_times_percentile(&sum, 51), 2000, 2250);
}

static void test_the_shortest_and_the_longest_times_have_a_class(void **state)
{
    struct live_times t = { .count = 0 };

    (void)state;
    live_times_add(&t, 0, 1);
    assert_int_equal(live_times_percentile(&t, 100), 1);
    live_times_add(&t, UINT64_MAX, 1);
    assert_true(live_times_percentile(&t, 100) > 200 * UINT64_C(1000000));
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_happens_is_kept_by_the_second_for_a_minute),
        TEST(test_seconds_without_events_are_empty),
        TEST(test_time_that_goes_back_counts_as_the_latest),
        TEST(test_percentiles_are_a_tenth_too_large_at_most),
        TEST(test_times_of_the_minute_are_those_of_its_seconds),
        TEST(test_the_shortest_and_the_longest_times_have_a_class),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
