/* test_unsupported.c - what this release does not have says so, and touches nothing. */
#include "test.h"

#include "unit/api/unsupported.h"

enum { POISON_BYTES = 8192 }; /* more than any struct that a public function takes */

static void
test_every_unsupported_function_says_so_and_leaves_its_arguments_as_they_were(void **state)
{
    (void)state;
    static unsigned char poison[POISON_BYTES], before[POISON_BYTES];

    memset(before, 0xa5, sizeof(before));
    for (size_t i = 0; i < unsupported_count; i++) {
        const struct unsupported_call *c = &unsupported_calls[i];
        struct mc_error error = { 0 };

        memcpy(poison, before, sizeof(poison));
        if (c->call(poison, &error) != MC_E_UNSUPPORTED)
            fail_msg("%s does not return MC_E_UNSUPPORTED", c->name);
        if (memcmp(poison, before, sizeof(poison)) != 0)
            fail_msg("%s wrote to an argument", c->name);
        if (c->says_why && (error.status != MC_E_UNSUPPORTED || !strstr(error.text, c->name)))
            fail_msg("%s: the error text is \"%s\"", c->name, error.text);
    }
}

static void test_an_error_may_be_null(void **state)
{
    (void)state;
    static unsigned char poison[POISON_BYTES];

    for (size_t i = 0; i < unsupported_count; i++)
        assert_int_equal(unsupported_calls[i].call(poison, NULL), MC_E_UNSUPPORTED);
    assert_true(unsupported_count > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_every_unsupported_function_says_so_and_leaves_its_arguments_as_they_were),
        cmocka_unit_test(test_an_error_may_be_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
