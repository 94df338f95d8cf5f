/* test_policies.c - what --help says of policies is what the scheduler has. */
#include "test.h"

#include <stdio.h>

#include <mooncake/sched.h>

#include "cmd/policies.h"

/* The error for a name that there is not lists those that there are: "...; there are a, b, c". */
static void test_help_names_every_policy(void **state)
{
    (void)state;
    struct faulty faulty;
    struct mc_error error = { 0 };
    mc_sched *sched = NULL;

    faulty_init(&faulty, -1);
    const struct mc_sched_options options = { .alloc = &faulty.alloc, .policy = "none such" };
    assert_int_equal(mc_sched_open(&options, &sched, &error), MC_E_NOT_FOUND);
    const char *names = strstr(error.text, "there are ");
    assert_non_null(names);
    char text[sizeof(error.text)];
    snprintf(text, sizeof(text), "%s", names + strlen("there are "));
    int count = 0;
    for (char *name = strtok(text, ", "); name; name = strtok(NULL, ", "), count++)
        if (!strstr(POLICIES_HELP, name))
            fail_msg("--help does not name %s", name);
    assert_true(count >= 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_help_names_every_policy) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
