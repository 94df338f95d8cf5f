/* test_status.c - every status has its name, its words and a sign that says what it is. */
#include "test.h"

#include <stdio.h>

static const struct {
    mc_status status;
    const char *name;
    int number;
} all[] = {
#define ROW(name, number, words) { MC_##name, "MC_" #name, number },
    MC_STATUS_MAP(ROW)
#undef ROW
};

enum { COUNT = sizeof(all) / sizeof(all[0]) };

static void test_every_status_has_its_name_and_words_of_its_own(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        assert_string_equal(mc_status_name(all[i].status), all[i].name);
        assert_string_not_equal(mc_status_text(all[i].status), "unknown status");
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(all[i].number, all[j].number);
            assert_string_not_equal(mc_status_text(all[i].status), mc_status_text(all[j].status));
        }
    }
}

static void test_a_failure_is_negative_and_named_so(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT; i++)
        assert_true((all[i].number < 0) == (strncmp(all[i].name, "MC_E_", 5) == 0));
    assert_int_equal(MC_OK, 0);
}

static void test_numbers_that_users_may_have_stored_have_not_moved(void **state)
{
    (void)state;
    assert_int_equal(MC_E_NOMEM, -1);
    assert_int_equal(MC_E_NOT_FOUND, -5);
    assert_int_equal(MC_E_FORMAT, -7);
    assert_int_equal(MC_E_CORRUPT, -15);
}

static void test_a_number_outside_the_list_has_a_name_too(void **state)
{
    (void)state;
    assert_string_equal(mc_status_name((mc_status)-1000), "MC_E_?");
    assert_string_equal(mc_status_text((mc_status)1000), "unknown status");
}

static void test_the_version_has_three_numbers(void **state)
{
    (void)state;
    unsigned major, minor, patch;
    char rest;

    assert_int_equal(sscanf(mc_version(), "%u.%u.%u%c", &major, &minor, &patch, &rest), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_status_has_its_name_and_words_of_its_own),
        cmocka_unit_test(test_a_failure_is_negative_and_named_so),
        cmocka_unit_test(test_numbers_that_users_may_have_stored_have_not_moved),
        cmocka_unit_test(test_a_number_outside_the_list_has_a_name_too),
        cmocka_unit_test(test_the_version_has_three_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
