/* test_host.c - the boot id is there, and the same twice; descriptors. */
#include "test.h"

#include <sys/resource.h>

#include "os/host.h"

static void test_the_boot_id_does_not_change(void **state)
{
    (void)state;
    char a[37], b[37];

    if (!os_boot_id(a)) {
        assert_string_equal(a, "");
        skip();
    }
    assert_true(os_boot_id(b));
    assert_int_equal(strlen(a), 36);
    assert_int_equal(a[8], '-');
    assert_string_equal(a, b);
}

static void test_descriptors_are_raised_to_the_hard_limit_and_stay(void **state)
{
    (void)state;
    struct rlimit limit;

    const uint64_t granted = os_descriptors_raise();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(limit.rlim_cur, limit.rlim_max);
    assert_int_equal(granted, limit.rlim_cur);
    assert_int_equal(os_descriptors_raise(), granted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_boot_id_does_not_change),
        cmocka_unit_test(test_descriptors_are_raised_to_the_hard_limit_and_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
