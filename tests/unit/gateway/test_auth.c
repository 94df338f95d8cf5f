/* test_auth.c - whose key opens, whose does not, and what a file of keys may hold. */
#include "test.h"

#include <string.h>

#include "gateway/auth.h"
#include "os/sysalloc.h"

static void test_without_keys_everybody_is_admitted(void **state)
{
    struct auth a;

    (void)state;
    auth_init(&a, os_alloc());
    assert_true(auth_admits(&a, NULL));
    assert_true(auth_admits(&a, "Bearer nonsense"));
    auth_fini(&a);
}

static void test_a_key_opens_and_nothing_else_does(void **state)
{
    static const char *const right[] = { "Bearer sk-one", "bearer sk-two", "BEARER   sk-one" };
    static const char *const wrong[] = { "Bearer sk-on",    "Bearer sk-one2", "Bearer",
                                         "Bearer ",         "sk-one",         "Basic sk-one",
                                         "Bearer  sk-one ", "Bearersk-one",   "" };
    struct auth a;

    (void)state;
    auth_init(&a, os_alloc());
    assert_int_equal(auth_add(&a, "sk-one", 6, NULL), MC_OK);
    assert_int_equal(auth_add(&a, "sk-two", 6, NULL), MC_OK);
    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++)
        assert_true(auth_admits(&a, right[i]));
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_false(auth_admits(&a, wrong[i]));
    assert_false(auth_admits(&a, NULL));
    auth_fini(&a);
}

static void test_a_file_has_a_key_in_each_line(void **state)
{
    static const char text[] = "# ours\n\n  sk-one \r\n\tsk-two\n#sk-three\nsk-four";
    struct auth a;

    (void)state;
    auth_init(&a, os_alloc());
    assert_int_equal(auth_add_lines(&a, text, sizeof(text) - 1, "keys", NULL), MC_OK);
    assert_int_equal(a.count, 3);
    assert_true(auth_admits(&a, "Bearer sk-one"));
    assert_true(auth_admits(&a, "Bearer sk-two"));
    assert_false(auth_admits(&a, "Bearer sk-three"));
    assert_true(auth_admits(&a, "Bearer sk-four"));
    auth_fini(&a);
}

static void test_what_is_no_key_is_refused_and_not_told_back(void **state)
{
    struct mc_error error = { 0 };
    struct auth a;

    (void)state;
    auth_init(&a, os_alloc());
    assert_int_equal(auth_add(&a, "secret word", 11, &error), MC_E_ARG);
    assert_null(strstr(error.text, "secret"));
    assert_int_equal(auth_add(&a, "", 0, &error), MC_E_ARG);
    assert_int_equal(auth_add(&a, "k\xc3\xa4se", 5, &error), MC_E_ARG);
    assert_int_equal(auth_add_lines(&a, "good\nbad one\n", 13, "keys", &error), MC_E_ARG);
    assert_non_null(strstr(error.text, "keys:2"));
    auth_fini(&a);
    auth_init(&a, os_alloc());
    assert_int_equal(auth_add_lines(&a, "# none\n", 7, "keys", &error), MC_E_RANGE);
    assert_int_equal(a.count, 0);
    for (int i = 0; i < AUTH_KEYS_MAX; i++)
        assert_int_equal(auth_add(&a, "key", 3, NULL), MC_OK);
    assert_int_equal(auth_add(&a, "key", 3, &error), MC_E_FULL);
    auth_fini(&a);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct faulty f;
        struct auth a;
        faulty_init(&f, k);
        auth_init(&a, &f.alloc);
        const mc_status status = auth_add_lines(&a, "a\nb\nc\n", 6, "keys", NULL);
        assert_true(status == MC_OK || status == MC_E_NOMEM);
        auth_fini(&a);
        assert_int_equal(f.held, 0);
        if (status == MC_OK) {
            assert_int_equal(k, 3);
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_keys_everybody_is_admitted),
        cmocka_unit_test(test_a_key_opens_and_nothing_else_does),
        cmocka_unit_test(test_a_file_has_a_key_in_each_line),
        cmocka_unit_test(test_what_is_no_key_is_refused_and_not_told_back),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
