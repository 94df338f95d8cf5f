/* test_random.c - what is drawn is drawn whole and not twice. */
#include "test.h"

#include "os/random.h"

static void test_every_byte_is_drawn(void **state)
{
    (void)state;
    uint8_t bytes[1000] = { 0 }, seen[1000] = { 0 };

    for (int round = 0; round < 20; round++) { /* a byte that stays 0: once in 256^20 */
        os_random(bytes, sizeof(bytes));
        for (size_t i = 0; i < sizeof(bytes); i++)
            seen[i] |= bytes[i];
    }
    for (size_t i = 0; i < sizeof(seen); i++)
        assert_int_not_equal(seen[i], 0);
    os_random(bytes, 0);
}

static void test_numbers_are_neither_0_nor_equal(void **state)
{
    (void)state;
    const uint64_t a = os_random_u64(), b = os_random_u64();

    assert_true(a != 0 && b != 0 && a != b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte_is_drawn),
        cmocka_unit_test(test_numbers_are_neither_0_nor_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
