/* test_assume.c - costs from tables: as measured where they were measured, and by arithmetic elsewhere. */
#include "test.h"

#include <math.h>

#include "sim/assume.h"

static bool near(double a, double b, double share)
{
    return fabs(a - b) <= share * fabs(b);
}

static double prefill(const struct mc_cost *c, double n, double p)
{
    return c->p0 + c->p1 * (n - p) + c->p2 * (n * n - p * p) + c->p3 * p;
}

static void test_the_fitted_node_is_as_the_paper_measured_it(void **state)
{
    (void)state;
    struct sim_assume assume;

    assume_defaults(&assume);
    const struct sim_node node = assume_node(&assume);
    assert_true(near(prefill(&node.cost, 131072, 0), 27.512, 0.05));
    assert_true(near(prefill(&node.cost, 131072, 0.95 * 131072), 2.328, 0.05));
    assert_true(near(prefill(&node.cost, 8192, 0), 1.0, 0.05));
    assert_true(near(node.cost.d0 + node.cost.d1 + node.cost.d2 * 131072, 0.0308, 0.03));
    assert_true(near(node.kv_token_bytes, 327680, 1e-9));
    assert_in_range(node.kv_tokens, 1250000, 1400000);
    assert_true(near(node.net_bytes_per_s, 87e9, 1e-9));
}

static void test_other_gpus_and_llms_scale(void **state)
{
    (void)state;
    struct sim_assume assume;

    assume_defaults(&assume);
    const struct sim_node a800 = assume_node(&assume);
    assert_true(assume_gpu(&assume, "h800"));
    const struct sim_node h800 = assume_node(&assume);
    assert_true(near(a800.cost.p1 / h800.cost.p1, 989.0 / 312, 1e-9));
    assert_true(near(a800.cost.d0 / h800.cost.d0, 3.35 / 2.039, 1e-9));
    assert_true(assume_llm(&assume, "qwen3-8b"));
    const struct sim_node small = assume_node(&assume);
    assert_true(small.cost.p1 < h800.cost.p1 / 7 && small.cost.p1 > h800.cost.p1 / 12);
    assert_true(near(small.kv_token_bytes, 2 * 36 * 8 * 128 * 2, 1e-9));
    assert_true(small.kv_tokens > h800.kv_tokens);
    assert_false(assume_gpu(&assume, "b17"));
    assert_false(assume_llm(&assume, "nonsense"));
    assume.gpus = 4;
    assert_true(near(assume_node(&assume).cost.p1, 2 * small.cost.p1, 1e-9));
}

static mc_status read(struct sim_assume *assume, const char *text, struct mc_error *error)
{
    return assume_read(assume, text, strlen(text), error);
}

static void test_what_is_printed_can_be_read(void **state)
{
    (void)state;
    struct faulty f;
    struct sim_assume assume, again;
    struct mc_error error = { 0 };

    faulty_init(&f, -1);
    struct buf out = BUF_INIT(&f.alloc);
    assume_defaults(&assume);
    assume.join_fixed_s = 0.125;
    assert_true(assume_llm(&assume, "qwen3-32b"));
    assume.llm.layers = 60;
    assume_print(&assume, &out);
    assume_defaults(&again);
    assert_int_equal(assume_read(&again, out.data, out.size, &error), MC_OK);
    assert_memory_equal(&assume, &again, sizeof(assume));
    buf_fini(&out);
    assert_int_equal(f.held, 0);
}

static void test_a_bad_line_is_named_and_changes_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        { "stream 1", "line 1: no '='" },
        { "stream = 1\nnonsense = 2", "line 2: unknown name \"nonsense\"" },
        { "gpu = b17", "line 1: no gpu is called \"b17\"" },
        { "llm = ", "line 1: no llm is called \"\"" },
        { "stream = one", "line 1: stream is not a number" },
        { "stream = -1", "line 1: stream is not a number" },
        { "stream = 1 2", "line 1: stream is not a number" },
        { "stream = nan", "line 1: stream is not a number" },
        { "stream = 1e30", "line 1: stream is not a number" },
        { "llm.layers = 0", "without size or speed" },
        { "ssd_bytes_per_s = 0", "bytes a second" },
        { "gpus = 44444444444444444", "gpus is 1 to 10000" },
        { "schedule_s = 1e7", "schedule_s is above 1e6 seconds" },
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct sim_assume assume, before;
        struct mc_error error = { 0 };

        assume_defaults(&assume);
        assume_defaults(&before);
        assert_int_equal(read(&assume, bad[i].text, &error), MC_E_FORMAT);
        if (!strstr(error.text, bad[i].says))
            fail_msg("\"%s\" says \"%s\"", bad[i].text, error.text);
        assert_memory_equal(&assume, &before, sizeof(assume));
    }
    struct sim_assume assume;
    struct mc_error error = { 0 };
    assume_defaults(&assume);
    assert_int_equal(assume_read(&assume, "stream = 1\0stream = 0", 21, &error), MC_E_FORMAT);
    assert_int_equal(read(&assume, "# all\n\n  stream=0 # why\r\ngpus =  4\t\n", &error), MC_OK);
    assert_true(assume.stream < 0.5 && near(assume.gpus, 4, 1e-9));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_fitted_node_is_as_the_paper_measured_it),
        cmocka_unit_test(test_other_gpus_and_llms_scale),
        cmocka_unit_test(test_what_is_printed_can_be_read),
        cmocka_unit_test(test_a_bad_line_is_named_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
