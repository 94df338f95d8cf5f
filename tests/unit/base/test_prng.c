/* test_prng.c - the generator is the published one, counts without state, and is even. */
#include "test.h"

#include "base/prng.h"

static void test_mixing_gives_splitmix64s_published_numbers(void **state)
{
    (void)state;
    /* The first outputs of SplitMix64 from seed 0: the n-th mixes n steps of the golden ratio. */
    const uint64_t golden = 0x9e3779b97f4a7c15u;

    assert_true(prng_mix(0) == 0xe220a8397b1dcdafu);
    assert_true(prng_mix(golden) == 0x6e789e6aa1b965f4u);
    assert_true(prng_mix(2 * golden) == 0x06c45d188009454fu);
    assert_true(prng_mix(3 * golden) == 0xf88bb8a8724c81ecu);
}

static void test_a_draw_is_a_function_of_seed_and_position_alone(void **state)
{
    (void)state;
    struct prng prng = { .seed = 42 };
    uint64_t forward[64];

    for (int i = 0; i < 64; i++)
        forward[i] = prng_next(&prng);
    for (int i = 63; i >= 0; i--)
        assert_true(prng_at(42, (uint64_t)i) == forward[i]);
    /* Recorded, so that a change of the generator, which would change every sampled text, is seen. */
    assert_true(prng_at(0, 0) == 0x9a80e645e28eaa64u);
    assert_true(prng_at(42, 7) == 0x1f9bbdaac1906dbcu);
}

static void test_neighbouring_seeds_and_positions_share_no_bits(void **state)
{
    (void)state;
    unsigned flipped = 0;

    for (uint64_t i = 0; i < 256; i++) {
        flipped += (unsigned)__builtin_popcountll(prng_at(i, 0) ^ prng_at(i + 1, 0));
        flipped += (unsigned)__builtin_popcountll(prng_at(0, i) ^ prng_at(0, i + 1));
        assert_true(prng_at(i, 9) != prng_at(9, i) || i == 9);
    }
    /* 512 pairs of 64 bits: half of 32768, and six standard deviations are 6 x 90.5. */
    assert_in_range(flipped, 16384 - 543, 16384 + 543);
}

static void test_below_reaches_every_value_evenly_and_none_beyond(void **state)
{
    (void)state;
    struct prng prng = { .seed = 1 };
    unsigned seen[10] = { 0 };

    for (int i = 0; i < 10000; i++) {
        const uint32_t value = prng_below(&prng, 10);
        assert_true(value < 10);
        seen[value]++;
    }
    for (int i = 0; i < 10; i++)
        assert_in_range(seen[i], 1000 - 180, 1000 + 180); /* six standard deviations of 30 */
    assert_int_equal(prng_below(&prng, 1), 0);
}

static void test_a_unit_draw_is_below_one_and_can_be_zero(void **state)
{
    (void)state;
    assert_true(prng_unit(UINT64_MAX) < 1.0);
    assert_true(prng_unit(0) == 0.0);
    assert_true(prng_unit((uint64_t)1 << 63) == 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixing_gives_splitmix64s_published_numbers),
        cmocka_unit_test(test_a_draw_is_a_function_of_seed_and_position_alone),
        cmocka_unit_test(test_neighbouring_seeds_and_positions_share_no_bits),
        cmocka_unit_test(test_below_reaches_every_value_evenly_and_none_beyond),
        cmocka_unit_test(test_a_unit_draw_is_below_one_and_can_be_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
