/* test_reason.c - every reason has a name of its own and words; others are refusals. */
#include "test.h"

#include <mooncake/sched.h>

#include "gateway/reason.h"

static void test_every_reason_has_a_name_that_fits_and_words(void **state)
{
    static const uint32_t all[] = {
#define NUMBER(name, number, words) number,
        MC_REASON_MAP(NUMBER)
#undef NUMBER
    };
    enum { COUNT = sizeof(all) / sizeof(all[0]) };
    char names[COUNT][REASON_NAME];

    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        gateway_reason_name(all[i], names[i]);
        assert_true(names[i][0] != '\0' && strlen(names[i]) < REASON_NAME - 1); /* not cut */
        assert_int_equal(strspn(names[i], "abcdefghijklmnopqrstuvwxyz_"), strlen(names[i]));
        assert_true(gateway_reason_words(all[i])[0] != '\0');
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(names[i], names[k]);
    }
    assert_string_equal(gateway_reason_words(MC_REASON_TTFT_SLO), "the first token would be late");
}

static void test_a_number_that_nobody_knows_is_a_refusal(void **state)
{
    char name[REASON_NAME];

    (void)state;
    gateway_reason_name(UINT32_MAX, name);
    assert_string_equal(name, "refused");
    assert_string_equal(gateway_reason_words(UINT32_MAX), "refused");
    gateway_reason_name(MC_REASON_TTFT_SLO, name);
    assert_string_equal(name, "ttft_slo");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_reason_has_a_name_that_fits_and_words),
        cmocka_unit_test(test_a_number_that_nobody_knows_is_a_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
