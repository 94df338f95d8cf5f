/* test_pool_node.c - a pool of nodes that hold all blocks: who prefills pulls, whoever computed them. */
#include "world.h"

static void test_what_one_computed_is_pulled_by_another(void **state)
{
    struct play p;

    (void)state;
    play_init(&p, "2P+1D+1S");
    p.options.policy = "round-robin";
    play_add(&p, 0, 950, 1, 1, 9);
    play_add(&p, 10, 950, 1, 1, 9);
    play_add(&p, 20, 950, 1, 1, 9);
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r[0].reused, 0);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(r[i].reused, 900);
        assert_int_equal(r[i].pulled, 900); /* also who computed it has no copy of its own */
        assert_int_equal(r[i].holder, 3);
        assert_int_equal(r[i].outcome, SIM_FINISHED);
        /* 0.9 s on the line, then 1 s and 50 tokens. */
        assert_true(r[i].prefill_begin_ns - r[i].arrival_ns >= 899000000);
        assert_true(r[i].prefill_end_ns - r[i].prefill_begin_ns <= 1051000000);
    }
    play_close(&p);
}

static void test_two_nodes_hold_and_send_twice_as_much(void **state)
{
    (void)state;
    for (uint32_t nodes = 1; nodes <= 2; nodes++) {
        struct play p;
        char cluster[32] = "1P+1D+1S";

        cluster[6] = (char)('0' + nodes);
        play_init(&p, cluster);
        play_add(&p, 0, 950, 1, 1, 9);
        play_add(&p, 10, 950, 1, 2, 9); /* one node has room for 1000 tokens */
        play_add(&p, 20, 950, 1, 1, 9);
        p.options.net_gbps = 0;
        assert_int_equal(p.options.group_count, 3);
        assert_int_equal(play_run(&p)[2].reused, nodes == 1 ? 0 : 900);
        play_close(&p);
    }
}

static void test_a_pool_that_fails_is_computed_around(void **state)
{
    const struct sim_change change = { .at_ns = 15000000000, .kind = SIM_FAIL, .instance = 2 };
    struct play p;

    (void)state;
    play_init(&p, "1P+1D+1S");
    p.options.changes = &change;
    p.options.change_count = 1;
    play_add(&p, 0, 950, 1, 1, 9);
    play_add(&p, 10, 950, 1, 1, 9);
    play_add(&p, 20, 950, 1, 1, 9);
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r[1].reused, 900);
    assert_int_equal(r[2].reused, 0);
    assert_int_equal(r[2].outcome, SIM_FINISHED);
    play_close(&p);
}

/* Three at one moment: the shortest is read first. */
static void test_a_prompt_is_decided_when_all_of_it_is_there(void **state)
{
    struct play p;

    (void)state;
    play_init(&p, "1P+1D+1S");
    p.options.assume.receive_token_s = 1e-3;
    play_add(&p, 1, 900, 1, 1, 0);
    play_add(&p, 1, 300, 1, 2, 0);
    play_add(&p, 1, 600, 1, 3, 0);
    const struct sim_record *r = play_run(&p);
    assert_at(r[1].prefill_begin_ns, 1.3);
    assert_true(r[1].prefill_end_ns <= r[2].prefill_begin_ns);
    assert_true(r[2].prefill_end_ns <= r[0].prefill_begin_ns);
    assert_int_equal(r[0].asked_ns, 1000000000);
    play_close(&p);
}

static void test_what_no_pool_can_be_is_refused(void **state)
{
    const struct sim_change change = { .at_ns = 1, .kind = SIM_JOIN, .instance = 2 };
    struct mc_error error = { 0 };
    struct play p;

    (void)state;
    play_init(&p, "1P+1D+1S+1S");
    assert_int_equal(sim_open(&p.options, &p.sim, &error), MC_E_ARG);
    play_init(&p, "1C+1S");
    assert_int_equal(sim_open(&p.options, &p.sim, &error), MC_E_ARG);
    play_init(&p, "1P+1D+1S");
    p.options.changes = &change;
    p.options.change_count = 1;
    assert_int_equal(sim_open(&p.options, &p.sim, &error), MC_E_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_one_computed_is_pulled_by_another),
        cmocka_unit_test(test_two_nodes_hold_and_send_twice_as_much),
        cmocka_unit_test(test_a_pool_that_fails_is_computed_around),
        cmocka_unit_test(test_a_prompt_is_decided_when_all_of_it_is_there),
        cmocka_unit_test(test_what_no_pool_can_be_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
