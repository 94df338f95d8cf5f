/* test_percentile.c - percentiles from buckets, beside the sorted values. */
#include "test.h"

#include "base/prng.h"
#include "sim/percentile.h"

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void test_nothing_is_all_zeros(void **state)
{
    (void)state;
    struct faulty f;
    struct percentile p;

    faulty_init(&f, -1);
    assert_int_equal(percentile_init(&p, &f.alloc), MC_OK);
    assert_int_equal(percentile_at(&p, 0.5), 0);
    assert_true(percentile_mean(&p) == 0);
    assert_true(percentile_below(&p, 100) == 0);
    percentile_fini(&p);
    percentile_fini(&p);
    assert_int_equal(f.held, 0);
    faulty_init(&f, 0);
    assert_int_equal(percentile_init(&p, &f.alloc), MC_E_NOMEM);
}

static void test_small_values_are_exact(void **state)
{
    (void)state;
    struct faulty f;
    struct percentile p;

    faulty_init(&f, -1);
    assert_int_equal(percentile_init(&p, &f.alloc), MC_OK);
    for (uint64_t i = 1; i <= 100; i++)
        percentile_add(&p, i);
    assert_int_equal(percentile_at(&p, 0), 1);
    assert_int_equal(percentile_at(&p, 0.5), 50);
    assert_int_equal(percentile_at(&p, 0.99), 99);
    assert_int_equal(percentile_at(&p, 1), 100);
    assert_int_equal(p.least, 1);
    assert_int_equal(p.most, 100);
    assert_true(percentile_mean(&p) == 50.5);
    assert_true(percentile_below(&p, 25) == 0.25);
    percentile_fini(&p);
}

static void test_any_value_has_its_bucket(void **state)
{
    (void)state;
    const uint64_t values[] = { 0, 255, 256, 257, 511, 512, UINT64_MAX / 2, UINT64_MAX };
    struct faulty f;

    faulty_init(&f, -1);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct percentile p;
        assert_int_equal(percentile_init(&p, &f.alloc), MC_OK);
        percentile_add(&p, values[i]);
        assert_true(percentile_at(&p, 0.5) == values[i]); /* never more than the most */
        percentile_fini(&p);
    }
}

static void test_percentiles_are_near_those_of_the_sorted_values(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    static uint64_t values[COUNT];
    static const double shares[] = { 0.01, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999 };
    struct prng prng = { .seed = 5 };
    struct faulty f;
    struct percentile p;

    faulty_init(&f, -1);
    assert_int_equal(percentile_init(&p, &f.alloc), MC_OK);
    for (int i = 0; i < COUNT; i++) { /* over nine orders of magnitude */
        values[i] = prng_next(&prng) >> (34 + prng_below(&prng, 30));
        percentile_add(&p, values[i]);
    }
    qsort(values, COUNT, sizeof(values[0]), by_value);
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        const uint64_t exact = values[(int)(shares[i] * COUNT + 0.999999) - 1];
        const uint64_t found = percentile_at(&p, shares[i]);
        assert_true(found >= exact && (double)found <= (double)exact * 1.004 + 1);
    }
    percentile_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_all_zeros),
        cmocka_unit_test(test_small_values_are_exact),
        cmocka_unit_test(test_any_value_has_its_bucket),
        cmocka_unit_test(test_percentiles_are_near_those_of_the_sorted_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
