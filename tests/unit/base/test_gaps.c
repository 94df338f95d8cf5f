/* test_gaps.c - the longest tenth of gaps, held against sorting all of them. */
#include "test.h"

#include <math.h>
#include <stdlib.h>

#include "base/gaps.h"
#include "base/prng.h"

enum { GAPS_MOST = 5000 };
static const uint64_t US = 1000, MS = 1000000;

/* All of them, as the simulator does it. */
struct all {
    uint64_t ns[GAPS_MOST];
    uint32_t count;
    struct gaps gaps;
};

static void add(struct all *a, uint64_t gap_ns)
{
    assert_true(a->count < GAPS_MOST);
    a->ns[a->count++] = gap_ns;
    gaps_add(&a->gaps, gap_ns, 1);
}

static int longest_first(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

static uint64_t exact(struct all *a)
{
    const uint32_t tenth = (a->count + 9) / 10;
    uint64_t sum = 0;

    qsort(a->ns, a->count, sizeof(a->ns[0]), longest_first);
    for (uint32_t i = 0; i < tenth; i++)
        sum += a->ns[i];
    return tenth ? sum / tenth : 0;
}

/* |kept - exact| / exact */
static double off(struct all *a)
{
    const double true_ns = (double)exact(a);

    return fabs((double)gaps_longest(&a->gaps) - true_ns) / true_ns;
}

static void test_no_gaps_have_no_longest(void **state)
{
    (void)state;
    const struct gaps none = { 0 };

    assert_int_equal(gaps_longest(&none), 0);
}

static void test_one_gap_is_the_longest_tenth_of_itself(void **state)
{
    (void)state;
    struct gaps g = { 0 };

    gaps_add(&g, 37 * MS, 1);
    assert_int_equal(gaps_longest(&g), 37 * MS);
}

static void test_equal_gaps_are_exact(void **state)
{
    (void)state;
    struct all a = { .count = 0 };

    for (int i = 0; i < 999; i++)
        add(&a, 50 * MS);
    assert_int_equal(gaps_longest(&a.gaps), 50 * MS);
    add(&a, 1000 * MS); /* and one stumble among them */
    assert_true(off(&a) < 1e-4);
}

static void test_tokens_that_come_together_have_no_gaps_but_the_first(void **state)
{
    (void)state;
    struct gaps g = { 0 };

    gaps_add(&g, 80 * MS, 10); /* a tenth of ten is the first */
    assert_int_equal(g.count, 10);
    assert_int_equal(gaps_longest(&g), 80 * MS);
    gaps_add(&g, 0, 0);
    assert_int_equal(g.count, 10);
    for (int i = 0; i < 10; i++)
        gaps_add(&g, 0, 1);
    assert_int_equal(gaps_longest(&g), 40 * MS);
}

static void test_what_is_shorter_or_longer_than_any_class_counts_as_it_is(void **state)
{
    (void)state;
    struct gaps g = { 0 };

    gaps_add(&g, 3 * US, 1);
    assert_int_equal(gaps_longest(&g), 3 * US);
    for (int i = 0; i < 9; i++)
        gaps_add(&g, 5 * US, 1);
    gaps_add(&g, 100000 * MS, 1);
    gaps_add(&g, 300000 * MS, 1);
    assert_int_equal(gaps_longest(&g), 200000 * MS);
    gaps_add(&g, UINT64_MAX, 1);
    assert_true(gaps_longest(&g) > 3600000 * MS / 2);
}

/* Steps of a decode instance: a slow drift, and joins that stop all. */
static void test_drifting_steps_with_stumbles_are_right_within_a_few_hundredths(void **state)
{
    (void)state;
    struct prng prng = { .seed = 7 };
    double worst = 0, sum = 0;

    for (int run = 0; run < 200; run++) {
        static struct all a;
        a = (struct all){ .count = 0 };
        const uint32_t count = 4 + prng_below(&prng, GAPS_MOST - 4);
        uint64_t step = (5 + prng_below(&prng, 100)) * MS;
        for (uint32_t i = 0; i < count; i++) {
            step += prng_below(&prng, 200) * US;
            step -= step > 100 * US ? prng_below(&prng, 200) * US / 2 : 0;
            const bool joined = prng_below(&prng, 12) == 0;
            add(&a, step + (joined ? prng_below(&prng, 60) * MS : 0));
        }
        worst = off(&a) > worst ? off(&a) : worst;
        sum += off(&a);
    }
    assert_true(worst < 0.06);
    assert_true(sum / 200 < 0.015);
}

static void test_any_spread_is_right_within_a_tenth(void **state)
{
    (void)state;
    struct prng prng = { .seed = 11 };

    for (int run = 0; run < 200; run++) {
        static struct all a;
        a = (struct all){ .count = 0 };
        const uint32_t count = 1 + prng_below(&prng, GAPS_MOST - 1), kind = prng_below(&prng, 3);
        for (uint32_t i = 0; i < count; i++) {
            const double u = prng_unit(prng_next(&prng));
            const double ms = kind == 0   ? 1000 * u
                              : kind == 1 ? 30 * -log(1 - u)
                                          : 0.2 * pow(1 - u, -1.5);
            add(&a, (uint64_t)((ms < 60000 ? ms : 60000) * 1e6) + US);
        }
        assert_true(off(&a) < 0.1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_gaps_have_no_longest),
        cmocka_unit_test(test_one_gap_is_the_longest_tenth_of_itself),
        cmocka_unit_test(test_equal_gaps_are_exact),
        cmocka_unit_test(test_tokens_that_come_together_have_no_gaps_but_the_first),
        cmocka_unit_test(test_what_is_shorter_or_longer_than_any_class_counts_as_it_is),
        cmocka_unit_test(test_drifting_steps_with_stumbles_are_right_within_a_few_hundredths),
        cmocka_unit_test(test_any_spread_is_right_within_a_tenth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
