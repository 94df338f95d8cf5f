/* test_forward.c - the rotary frequencies of each kind of scaling, against their definitions. */
#include "test.h"

#include <math.h>

#include "infer/forward.h"

static const long double PI = 3.14159265358979323846264338327950288L;

static struct model_config rotary(uint32_t head_dim, double theta, enum rope_kind kind)
{
    return (struct model_config){ .head_dim = head_dim,
                                  .rope_theta = theta,
                                  .rope = { .kind = kind,
                                            .factor = 8,
                                            .low_freq = 1,
                                            .high_freq = 4,
                                            .original_context_max = 8192 } };
}

static long double plain(const struct model_config *c, uint32_t i)
{
    return powl((long double)c->rope_theta, -2.0L * i / c->head_dim);
}

/* Llama 3: wavelengths under original / high_freq are kept, those over original / low_freq stretched,
 * between them blended linearly in original / wavelength. */
static long double llama3(const struct model_config *c, uint32_t i)
{
    const struct rope_scaling *r = &c->rope;
    const long double frequency = plain(c, i), wavelength = 2 * PI / frequency;
    const long double original = (long double)r->original_context_max;
    const long double low = (long double)r->low_freq, high = (long double)r->high_freq;

    if (wavelength < original / high)
        return frequency;
    if (wavelength > original / low)
        return frequency / (long double)r->factor;
    const long double smooth = (original / wavelength - low) / (high - low);
    return (1 - smooth) * frequency / (long double)r->factor + smooth * frequency;
}

static long double scaled(const struct model_config *c, uint32_t i)
{
    if (c->rope.kind == ROPE_LLAMA3)
        return llama3(c, i);
    return plain(c, i) / (c->rope.kind == ROPE_LINEAR ? (long double)c->rope.factor : 1);
}

static void test_frequencies_are_the_floats_nearest_to_their_definition(void **state)
{
    static const double thetas[] = { 10000, 500000, 1e6, 20 };
    static const uint32_t dims[] = { 2, 8, 64, 80, 96, 128, HEAD_DIM_MAX };

    (void)state;
    for (size_t t = 0; t < sizeof(thetas) / sizeof(*thetas); t++)
        for (size_t d = 0; d < sizeof(dims) / sizeof(*dims); d++)
            for (int kind = ROPE_PLAIN; kind <= ROPE_LLAMA3; kind++) {
                const struct model_config c = rotary(dims[d], thetas[t], (enum rope_kind)kind);
                float *found = malloc(dims[d] / 2 * sizeof(*found));
                assert_non_null(found);
                forward_frequencies(&c, found);
                assert_true(found[0] == (float)scaled(&c, 0));
                for (uint32_t i = 0; i < dims[d] / 2; i++)
                    if (found[i] != (float)scaled(&c, i))
                        fail_msg("theta %g, dim %u, kind %d: frequency %u is %a, not %a", thetas[t],
                                 dims[d], kind, i, (double)found[i], (double)(float)scaled(&c, i));
                free(found);
            }
}

/* Else the test above would compare a scaling that is never blended, or never there. */
static void test_llama3_keeps_blends_and_stretches(void **state)
{
    const struct model_config c = rotary(128, 500000, ROPE_LLAMA3);
    uint32_t kept = 0, stretched = 0, blended = 0;
    float found[64];

    (void)state;
    forward_frequencies(&c, found);
    for (uint32_t i = 0; i < 64; i++) {
        kept += found[i] == (float)plain(&c, i);
        stretched += found[i] == (float)(plain(&c, i) / 8);
        blended += found[i] < (float)plain(&c, i) && found[i] > (float)(plain(&c, i) / 8);
    }
    assert_in_range(kept, 20, 62);
    assert_in_range(blended, 1, 62);
    assert_in_range(stretched, 20, 62);
    assert_int_equal(kept + blended + stretched, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frequencies_are_the_floats_nearest_to_their_definition),
        cmocka_unit_test(test_llama3_keeps_blends_and_stretches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
