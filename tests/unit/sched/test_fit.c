/* test_fit.c - costs are learnt from what was seen, and stay sane where little or nonsense was seen. */
#include "test.h"

#include <math.h>

#include "base/prng.h"
#include "sched/cost.h"

static bool near(double a, double b, double relative)
{
    return fabs(a - b) <= relative * fabs(b);
}

static void test_prefill_is_learnt_within_noise(void **state)
{
    (void)state;
    const struct cost truth = { .given = { .p0 = 2e-3, .p1 = 20e-6, .p2 = 3e-9, .p3 = 1e-6 } };
    struct prng prng = { .seed = 1 };
    struct cost cost;

    cost_init(&cost, &(struct mc_cost){ 0 });
    assert_false(cost_knows_prefill(&cost));
    for (int i = 0; i < 300; i++) {
        const uint64_t n = 16 + prng_below(&prng, 4000);
        const uint64_t p = prng_below(&prng, 2) ? prng_below(&prng, (uint32_t)n) : 0;
        const double noise = 0.95 + 0.1 * prng_unit(prng_next(&prng));
        cost_learn_prefill(&cost, n, p, cost_ns(cost_prefill(&truth, n, p) * noise));
    }
    assert_true(cost_knows_prefill(&cost));
    for (uint64_t n = 100; n <= 4000; n += 300)
        for (uint64_t p = 0; p < n; p += 99)
            assert_true(near(cost_prefill(&cost, n, p), cost_prefill(&truth, n, p), 0.15));
    assert_true(cost_prefill_band(&cost) > 0.01 && cost_prefill_band(&cost) < 0.3);
}

static void test_one_length_alone_scales_with_tokens(void **state)
{
    (void)state;
    struct cost cost;

    cost_init(&cost, &(struct mc_cost){ 0 });
    for (int i = 0; i < 20; i++)
        cost_learn_prefill(&cost, 100, 0, 10000000);
    assert_true(near(cost_prefill(&cost, 100, 0), 0.01, 0.01));
    assert_true(near(cost_prefill(&cost, 1000, 0), 0.1, 0.01));
    assert_true(near(cost_prefill(&cost, 1000, 900), 0.01, 0.01));
}

static void test_a_few_outliers_change_little(void **state)
{
    (void)state;
    struct cost cost;
    struct prng prng = { .seed = 2 };

    cost_init(&cost, &(struct mc_cost){ 0 });
    for (int i = 0; i < 200; i++) {
        const uint64_t n = 50 + prng_below(&prng, 1000);
        cost_learn_prefill(&cost, n, 0, n * 10000 * (i % 20 == 13 ? 50 : 1));
    }
    assert_true(near(cost_prefill(&cost, 500, 0), 500 * 10e-6, 0.35));
}

static void test_a_machine_that_became_slower_is_followed(void **state)
{
    (void)state;
    struct cost cost;
    struct prng prng = { .seed = 3 };

    cost_init(&cost, &(struct mc_cost){ 0 });
    for (int i = 0; i < 600; i++) {
        const uint64_t n = 50 + prng_below(&prng, 1000);
        cost_learn_prefill(&cost, n, 0, n * (i < 300 ? 10000u : 30000u));
    }
    assert_true(near(cost_prefill(&cost, 500, 0), 500 * 30e-6, 0.1));
}

/* Long prompts, then a thousand short ones that say nothing of the square, each a millisecond late now and then. */
static void test_short_prompts_do_not_make_it_forget_long_ones(void **state)
{
    (void)state;
    struct cost cost;
    struct prng prng = { .seed = 8 };

    cost_init(&cost, &(struct mc_cost){ 0 });
    for (int i = 0; i < 40; i++) {
        const uint64_t n = 16u << (i % 9);
        cost_learn_prefill(&cost, n, 0, 1000000 + n * 10000 + n * n * 50);
    }
    for (int i = 0; i < 1000; i++) {
        const uint64_t n = 20 + prng_below(&prng, 200);
        const uint64_t late = prng_below(&prng, 10) ? 0 : 1000000;
        cost_learn_prefill(&cost, n, 0, 1000000 + n * 10000 + n * n * 50 + late);
    }
    assert_true(near(cost_prefill(&cost, 4000, 0), 1e-3 + 4000 * 10e-6 + 16e6 * 50e-9, 0.15));
}

static void test_steps_and_links_are_learnt(void **state)
{
    (void)state;
    struct cost cost;
    struct prng prng = { .seed = 4 };

    cost_init(&cost, &(struct mc_cost){ 0 });
    for (int i = 0; i < 200; i++) {
        const uint64_t b = 1 + prng_below(&prng, 16), k = b * (100 + prng_below(&prng, 500));
        const uint64_t bytes = 1000 + prng_below(&prng, 1 << 24);
        cost_learn_step(&cost, b, k, 8000000 + 500000 * b + 200 * k);
        cost_learn_transfer(&cost, COST_REMOTE, bytes, 2000000 + bytes * 8);
    }
    assert_true(cost_knows_step(&cost));
    assert_true(cost_knows_link(&cost, COST_REMOTE));
    assert_false(cost_knows_link(&cost, COST_LOCAL));
    assert_true(near(cost_step(&cost, 10, 3000), 13.6e-3, 0.1));
    assert_true(near(cost_transfer(&cost, COST_REMOTE, 1 << 23), 2e-3 + 8e-9 * (1 << 23), 0.1));
}

static void test_given_costs_are_not_changed_by_what_is_seen(void **state)
{
    (void)state;
    struct cost cost;

    cost_init(
        &cost,
        &(struct mc_cost){
            .p1 = 1e-3, .d0 = 1e-3, .bytes_per_s = 1e6, .load_bytes_per_s = 1e6, .band = 0.5 });
    for (int i = 0; i < 9; i++) {
        cost_learn_prefill(&cost, 100, 0, 1);
        cost_learn_step(&cost, 1, 1, 1);
        cost_learn_transfer(&cost, COST_LOCAL, 1, 1);
    }
    assert_true(near(cost_prefill(&cost, 100, 40), 0.06, 1e-9));
    assert_true(near(cost_step(&cost, 5, 5), 1e-3, 1e-9));
    assert_true(near(cost_transfer(&cost, COST_LOCAL, 1000000), 2, 1e-9));
    assert_true(near(cost_prefill_band(&cost), 0.5, 1e-9));
}

static void test_nonsense_never_gives_a_number_that_is_none(void **state)
{
    (void)state;
    struct prng prng = { .seed = 5 };
    struct cost cost;

    cost_init(&cost, &(struct mc_cost){ 0 });
    for (int i = 0; i < 2000; i++) {
        const uint64_t n = prng_next(&prng) >> (24 + prng_below(&prng, 40));
        const uint64_t p = prng_below(&prng, 4) ? 0 : n / 2;
        cost_learn_prefill(&cost, n, p, prng_next(&prng) >> prng_below(&prng, 64));
        const double s = cost_prefill(&cost, n, p);
        assert_true(isfinite(s) && s >= 0);
    }
    for (int i = 0; i < 24000; i++) /* what is not seen any more fades to nothing */
        cost_learn_prefill(&cost, 64, 0, 1000000);
    assert_true(near(cost_prefill(&cost, 64, 0), 1e-3, 0.01));
    assert_true(isfinite(cost_prefill(&cost, 640, 320)));
}

static void test_seconds_become_nanoseconds_without_wrapping(void **state)
{
    (void)state;
    assert_int_equal(cost_ns(0), 0);
    assert_int_equal(cost_ns(-1), 0);
    assert_int_equal(cost_ns(1.5e-9), 2);
    assert_int_equal(cost_ns(2), 2000000000);
    assert_true(cost_ns(1e300) == UINT64_MAX / 4);
    assert_true(cost_ns((double)INFINITY) == UINT64_MAX / 4);
    assert_int_equal(cost_ns((double)NAN), 0);
}

static void test_costs_that_are_none_are_not_sane(void **state)
{
    (void)state;
    const struct mc_cost wrong[] = { { .p0 = -1 },
                                     { .p3 = (double)NAN },
                                     { .band = (double)INFINITY } };

    assert_true(cost_is_sane(&(struct mc_cost){ 0 }));
    for (size_t i = 0; i < 3; i++)
        assert_false(cost_is_sane(&wrong[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefill_is_learnt_within_noise),
        cmocka_unit_test(test_one_length_alone_scales_with_tokens),
        cmocka_unit_test(test_a_few_outliers_change_little),
        cmocka_unit_test(test_a_machine_that_became_slower_is_followed),
        cmocka_unit_test(test_short_prompts_do_not_make_it_forget_long_ones),
        cmocka_unit_test(test_steps_and_links_are_learnt),
        cmocka_unit_test(test_given_costs_are_not_changed_by_what_is_seen),
        cmocka_unit_test(test_nonsense_never_gives_a_number_that_is_none),
        cmocka_unit_test(test_seconds_become_nanoseconds_without_wrapping),
        cmocka_unit_test(test_costs_that_are_none_are_not_sane),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
