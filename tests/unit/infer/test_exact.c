/* test_exact.c - the elementary functions against the C library in higher precision. */
#include "test.h"

#include <math.h>
#include <stdio.h>

#include "base/prng.h"
#include "infer/exact.h"

/* How far `found` is from `exact`, in units of the last place of a float (or double) near `exact`. */
static double float_ulps(float found, double exact)
{
    const double place = ldexp(1.0, ilogb(exact) - 23);

    return fabs((double)found - exact) / place;
}

static long double double_ulps(double found, long double exact)
{
    return fabsl((long double)found - exact) / ldexpl(1.0L, ilogbl(exact) - 52);
}

static void test_exp_is_within_2_units_in_the_last_place(void **state)
{
    double worst = 0;

    (void)state;
    for (int i = -87000; i <= 88000; i++) {
        const float x = (float)i / 1000.0f;
        worst = fmax(worst, float_ulps(exact_exp(x), exp((double)x)));
    }
    /* Every scale of small arguments, and both sides of each change of the power of two. */
    for (float x = 0x1p-40f; x < 87.0f; x *= 1.01f) {
        worst = fmax(worst, float_ulps(exact_exp(x), exp((double)x)));
        worst = fmax(worst, float_ulps(exact_exp(-x), exp((double)-x)));
    }
    for (int n = -125; n <= 126; n++) {
        float x = ((float)n + 0.5f) * 0.69314718056f;
        for (int step = 0; step < 9; step++, x = nextafterf(x, 100.0f))
            worst = fmax(worst, float_ulps(exact_exp(x), exp((double)x)));
    }
    if (!(worst < 2))
        fail_msg("%g units", worst);
}

static void test_exp_has_the_limits_that_its_header_names(void **state)
{
    (void)state;
    assert_true(exact_exp(0.0f) == 1.0f);
    assert_true(exact_exp(-0.0f) == 1.0f);
    assert_true(exact_exp(NAN) == 0.0f);
    assert_true(exact_exp(-INFINITY) == 0.0f);
    assert_true(exact_exp(nextafterf(-87.0f, -100.0f)) == 0.0f);
    assert_true(exact_exp(-87.0f) > 0x1p-126f); /* never subnormal */
    assert_false(signbit(exact_exp(-100.0f)));
    assert_true(exact_exp(INFINITY) == exact_exp(88.0f));
    assert_true(exact_exp(1000.0f) == exact_exp(88.0f));
    assert_true(isfinite(exact_exp(88.0f)));
}

/* A likelier token never weighs less: softmax and sampling order tokens by exp. */
static void test_exp_never_falls(void **state)
{
    (void)state;
    float last = 0;
    for (int i = -90000; i <= 90000; i++) {
        const float y = exact_exp((float)i / 1000.0f);
        assert_true(y >= last);
        last = y;
    }
    /* Neighbours, where the reduction changes its power of two. */
    for (int n = -125; n <= 126; n++) {
        float x = ((float)n + 0.5f) * 0.69314718056f;
        for (int i = 0; i < 32; i++)
            x = nextafterf(x, -100.0f);
        last = exact_exp(x);
        for (int i = 0; i < 64; i++) {
            x = nextafterf(x, 100.0f);
            const float y = exact_exp(x);
            assert_true(y >= last);
            last = y;
        }
    }
}

static void test_log_is_within_4_units_in_the_last_place_of_a_double(void **state)
{
    struct prng prng = { .seed = 1 };
    long double worst = 0;

    (void)state;
    for (int i = 0; i < 40000; i++) {
        const double m = 1 + prng_unit(prng_next(&prng));
        const double x = i % 2 ? ldexp(m, (int)prng_below(&prng, 2000) - 1000) : m * 100;
        worst = fmaxl(worst, double_ulps(exact_log(x), logl((long double)x)));
    }
    /* Near 1, where the result is small. */
    for (double by = 0x1p-52; by < 0.5; by *= 1.1) {
        const double above = 1 + by, below = 1 - by; /* rounded: neither is 1 */
        worst = fmaxl(worst, double_ulps(exact_log(above), logl((long double)above)));
        worst = fmaxl(worst, double_ulps(exact_log(below), logl((long double)below)));
    }
    assert_true(exact_log(1.0) == 0.0);
    assert_true(isfinite(exact_log(0x1p-1074)));
    if (!(worst < 4))
        fail_msg("%Lg units", worst);
}

/* As forward_frequencies() uses it: the bound keeps a float's rounding the right one but for ties. */
static void test_pow_is_within_1e_14_of_the_power(void **state)
{
    struct prng prng = { .seed = 2 };
    long double worst = 0;

    (void)state;
    for (int i = 0; i < 40000; i++) {
        const double base = i % 2 ? 2 + 1e7 * prng_unit(prng_next(&prng)) : 10000.0;
        const double exponent = (i % 3 ? 1.0 : -1.0) * prng_unit(prng_next(&prng));
        const long double exact = powl((long double)base, (long double)exponent);
        worst = fmaxl(worst, fabsl(((long double)exact_pow(base, exponent) - exact) / exact));
    }
    assert_true(exact_pow(10000.0, 0.0) == 1.0);
    if (!(worst < 1e-14L))
        fail_msg("%Lg", worst);
}

static long double angle_error(double x)
{
    double sine, cosine;

    exact_sincos(x, &sine, &cosine);
    return fmaxl(fabsl((long double)sine - sinl((long double)x)),
                 fabsl((long double)cosine - cosl((long double)x)));
}

static void test_sine_and_cosine_are_within_4e_16_up_to_the_longest_contexts(void **state)
{
    struct prng prng = { .seed = 3 };
    long double worst = 0;

    (void)state;
    for (int i = 0; i < 40000; i++)
        worst = fmaxl(worst, angle_error((prng_unit(prng_next(&prng)) - 0.5) * 0x1p8));
    for (int i = 0; i < 40000; i++)
        worst = fmaxl(worst, angle_error(prng_unit(prng_next(&prng)) * 0x1p20));
    for (uint32_t position = 0; position < 1u << 20; position += 37)
        worst = fmaxl(worst, angle_error((double)position));
    /* Floats nearest to multiples of pi / 2: the reduction cancels the most. */
    for (uint32_t n = 0; n < 1u << 20; n += 61) {
        const float near = (float)(n * 1.57079632679489661923);
        worst = fmaxl(worst, angle_error((double)near));
        worst = fmaxl(worst, angle_error((double)-near));
    }
    if (!(worst < 4e-16L))
        fail_msg("%Lg", worst);
}

static void test_sine_and_cosine_stay_close_to_the_bound_of_their_header(void **state)
{
    struct prng prng = { .seed = 4 };
    long double worst = 0;

    (void)state;
    for (int i = 0; i < 40000; i++)
        worst = fmaxl(worst, angle_error((prng_unit(prng_next(&prng)) * 2 - 1) * 0x1p30));
    if (!(worst < 2e-15L))
        fail_msg("%Lg", worst);
}

static void test_a_rotation_as_a_float_is_the_nearest_one(void **state)
{
    struct prng prng = { .seed = 5 };
    uint32_t off = 0;

    (void)state;
    for (int i = 0; i < 50000; i++) {
        const float angle = (float)(prng_unit(prng_next(&prng)) * 0x1p20);
        double sine, cosine;
        exact_sincos((double)angle, &sine, &cosine);
        off += (float)sine != (float)sinl((long double)angle);
        off += (float)cosine != (float)cosl((long double)angle);
    }
    assert_int_equal(off, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_is_within_2_units_in_the_last_place),
        cmocka_unit_test(test_exp_has_the_limits_that_its_header_names),
        cmocka_unit_test(test_exp_never_falls),
        cmocka_unit_test(test_log_is_within_4_units_in_the_last_place_of_a_double),
        cmocka_unit_test(test_pow_is_within_1e_14_of_the_power),
        cmocka_unit_test(test_sine_and_cosine_are_within_4e_16_up_to_the_longest_contexts),
        cmocka_unit_test(test_sine_and_cosine_stay_close_to_the_bound_of_their_header),
        cmocka_unit_test(test_a_rotation_as_a_float_is_the_nearest_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
