/* test_host.c - the boot id is there, and the same twice. */
#include "test.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_boot_id_does_not_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
