/* test_measure.c - which worker is asked to time itself, when, and that none keeps the others from it. */
#include "house.h"

static int setup(void **state)
{
    setup_bare(state);
    struct gateway_options o = options();

    o.unmeasured = false;
    open_gateway(&o);
    return 0;
}

static void start(int i, const char *name)
{
    start_worker(i, name, MC_ROLE_BOTH);
    assert_int_equal(w[i].refused, MC_OK);
}

/* Both there, the first one asked. */
static void start_both(void)
{
    start(0, "first");
    start(1, "second");
    w[0].peer = &w[1];
    w[1].peer = &w[0];
    WAIT(w[0].measures == 1);
    assert_int_equal(w[1].measures, 0);
}

static uint64_t measured(void)
{
    return figure("mooncake_gateway_workers_measured_total ");
}

static void test_one_after_another(void **state)
{
    (void)state;
    start_both();
    fake_measured(&w[0], false);
    WAIT(w[1].measures == 1);
    fake_measured(&w[1], false);
    WAIT(measured() == 2);
    assert_int_equal(w[0].measures, 1);
}

/* A model of time says what it costs; its pages are no real model's. */
static void test_who_knows_its_costs_is_not_asked(void **state)
{
    const struct mc_cost cost = { .p0 = 0.07, .p1 = 1e-4, .d0 = 0.025, .bytes_per_s = 1e9 };

    (void)state;
    w[0].cost = &cost;
    w[0].context = 262144;
    start(0, "timing");
    start(1, "measured");
    WAIT(w[1].measures == 1);
    fake_measured(&w[1], false);
    WAIT(measured() == 1);
    assert_int_equal(w[0].measures, 0);
}

static void test_costs_that_are_no_numbers_are_refused_by_name(void **state)
{
    const struct mc_cost cost = { .p0 = -1 };

    (void)state;
    w[0].cost = &cost;
    w[0].loop = loop;
    w[0].model = model;
    w[0].name = "odd";
    w[0].role = MC_ROLE_BOTH;
    fake_open(&w[0], gateway_control_address(g));
    WAIT(w[0].refused != MC_OK);
    assert_int_equal(w[0].refused, MC_E_ARG);
    assert_non_null(strstr(w[0].refused_text, "costs"));
}

static void test_one_that_cannot_is_left_alone_and_a_busy_one_asked_a_few_times(void **state)
{
    (void)state;
    start_both();
    assert_int_equal(
        net_answer_outcome(w[0].conn, w[0].measure_id, MC_E_UNSUPPORTED, "not this one"), MC_OK);
    for (uint32_t i = 1; i <= 4; i++) {
        WAIT(w[1].measures == i);
        assert_int_equal(net_answer_outcome(w[1].conn, w[1].measure_id, MC_E_BUSY, "work"), MC_OK);
    }
    start(2, "third"); /* whoever came before would be asked before it */
    WAIT(w[2].measures == 1);
    assert_int_equal(w[0].measures, 1);
    assert_int_equal(w[1].measures, 4);
    assert_int_equal(measured(), 0);
}

static void test_a_request_ends_it_and_it_is_asked_again(void **state)
{
    struct talk t;

    (void)state;
    start_both();
    talk_open(&t, loop, gateway_address(g));
    talk_post(&t, "/v1/completions", "",
              "{\"model\":\"served\",\"prompt\":\"a b\",\"max_tokens\":5}");
    WAIT(w[0].measure_stops == 1);
    fake_measured(&w[0], true);
    talk_until(&t, "200 OK");
    talk_close(&t);
    WAIT(w[0].measures == 2); /* what it had was not all */
    assert_int_equal(measured(), 0);
    assert_int_equal(w[1].measures, 0);
}

/* It hangs while it measures, and its reports stay away. */
static void test_one_that_is_dropped_does_not_keep_the_others_from_it(void **state)
{
    (void)state;
    start_both();
    fake_report(&w[0], 1000000, false);
    WAIT(figure("mooncake_gateway_workers ") == 1);
    fake_close(&w[0]); /* and it does not come back */
    WAIT(w[1].measures == 1);
}

/* It dies while it measures. */
static void test_one_that_dies_does_not_keep_the_others_from_it(void **state)
{
    (void)state;
    start_both();
    fake_close(&w[0]);
    WAIT(w[1].measures == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_after_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_knows_its_costs_is_not_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_costs_that_are_no_numbers_are_refused_by_name, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_one_that_cannot_is_left_alone_and_a_busy_one_asked_a_few_times, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_request_ends_it_and_it_is_asked_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_one_that_is_dropped_does_not_keep_the_others_from_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_that_dies_does_not_keep_the_others_from_it, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
