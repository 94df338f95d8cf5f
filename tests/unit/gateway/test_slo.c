/* test_slo.c - objectives that cannot be met are refused with figures and a time to come back. */
#include "house.h"

#define ASK "{\"prompt\":\"twenty bytes of text\",\"max_tokens\":5}"

/* One worker, whose costs are known. */
static int setup(void **state)
{
    setup_bare(state);
    struct gateway_options o = options();

    o.unmeasured = false;
    open_gateway(&o);
    start_worker(0, "W", MC_ROLE_BOTH);
    WAIT(w[0].measures == 1);
    fake_measured(&w[0], false);
    WAIT(figure("mooncake_gateway_workers_measured_total ") == 1);
    return 0;
}

static void ask(struct talk *t, const char *headers)
{
    talk_open(t, loop, gateway_address(g));
    talk_post(t, COMPLETION, headers, ASK);
}

static void test_who_would_be_late_is_refused_with_figures(void **state)
{
    struct talk t;

    (void)state;
    ask(&t, "x-slo-ttft-ms: 0.001\r\n");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 429);
    assert_true(has(&t, "X-Mooncake-Refused: ttft_slo\r\n") && has(&t, "Retry-After: ") &&
                has(&t, "retry-after-ms: "));
    assert_true(has(&t, "the first token would be late: expected after ") &&
                has(&t, "the objective is 0.001 ms. Come back in "));
    assert_true(has(&t, "\"refusal\":{\"reason\":\"ttft_slo\",\"predicted\":{") &&
                has(&t, "\"slo\":{\"ttft_ms\":0.001,\"tbt_ms\":0}"));
    assert_int_equal(figure("mooncake_gateway_refused_total{reason=\"ttft_slo\"} "), 1);
    talk_close(&t);
    assert_idle();
}

static void test_who_will_not_be_is_told_what_is_expected(void **state)
{
    struct talk t;

    (void)state;
    ask(&t, "x-slo-ttft-ms: 60000\r\nx-slo-tpot-ms: 60000\r\n");
    talk_answer(&t);
    assert_int_equal(talk_status(&t), 200);
    assert_true(has(&t, "X-Mooncake-Predicted-TTFT-Ms: "));
    assert_false(has(&t, "X-Mooncake-Would-Refuse"));
    assert_int_equal(figure("mooncake_gateway_goodput_requests_total "), 1);
    talk_close(&t);
    ask(&t, "x-slo-tpot-ms: soon\r\n");
    talk_answer(&t);
    assert_true(talk_status(&t) == 400 && has(&t, "\"param\":\"x-slo-tpot-ms\""));
    talk_close(&t);
    assert_idle();
}

/* Refused, or cut off where there was no memory to say so; teardown counts what stays. */
static void test_every_failed_allocation_of_a_refusal_leaves_nothing_behind(void **state)
{
    uint32_t cut = 0;

    (void)state;
    for (long k = 0; k < 1000; k++) {
        struct talk t;
        talk_open(&t, loop, gateway_address(g));
        talk_turn(loop);
        const long from = f.calls;
        f.fail_at = from + k;
        talk_post(&t, COMPLETION, "x-slo-ttft-ms: 0.001\r\n", ASK);
        for (const uint64_t until = os_now_ns() + UINT64_C(60000000000);
             !t.closed && !has(&t, "\r\n\r\n");) {
            assert_true(os_now_ns() < until);
            talk_turn(loop);
            talk_read(&t);
        }
        const bool failed = f.calls > from + k;
        f.fail_at = -1;
        assert_true(t.closed || talk_status(&t) == 429 || talk_status(&t) == 503);
        cut += t.closed;
        if (!failed)
            assert_true(has(&t, "X-Mooncake-Refused: ttft_slo\r\n"));
        talk_close(&t);
        assert_idle();
        WAIT(w[0].instance != 0);
        if (!failed) {
            assert_true(k > 20 && cut > 2);
            return;
        }
    }
    fail_msg("it allocates without end");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_who_would_be_late_is_refused_with_figures),
        TEST(test_who_will_not_be_is_told_what_is_expected),
        TEST(test_every_failed_allocation_of_a_refusal_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
