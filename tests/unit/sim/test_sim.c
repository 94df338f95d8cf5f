/* test_sim.c - the way of a request, by hand; and laws that hold for any. */
#include "world.h"

#include <math.h>

/* Nobody pulls: what one instance has, the others compute, until it is copied to them. */
static void test_a_hot_prefix_is_copied_to_who_lacks_it(void **state)
{
    (void)state;
    for (int on = 0; on < 2; on++) {
        struct play p;
        uint32_t reused = 0;

        play_init(&p, "3P+1D");
        p.options.policy = "round-robin";
        p.options.policy_parameters = "pull=0";
        p.options.replication = on ? "asked=1,gain=0.1,rate=1000" : "off";
        for (int i = 0; i < 9; i++)
            play_add(&p, i * 10, 450, 1, 1, 4);
        const struct sim_record *r = play_run(&p);
        for (int i = 0; i < 9; i++)
            reused += r[i].reused != 0;
        /* Of nine requests in turn, the first three find nothing. The second has 400 tokens to compute that the
         * first one's instance has: that tips it, and the copy is at the third instance before the third comes. */
        assert_int_equal(reused, on ? 7 : 6);
        assert_int_equal(p.result.copied_blocks, on ? 4 : 0);
        assert_int_equal(p.result.sched.replicated, on ? 1 : 0);
        play_close(&p);
    }
}

/* Prefill 0 .. 1.5, sent until 2.0, loaded until 2.05, first token with the first step at 2.06, two more. */
static void test_one_request_goes_its_way(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "1P+1D");
    play_add(&p, 0, 500, 3, 1, 0);
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r->outcome, SIM_FINISHED);
    assert_int_equal(r->prefill, 0);
    assert_int_equal(r->decode, 1);
    assert_at(r->prefill_begin_ns, 0);
    assert_at(r->prefill_end_ns, 1.5);
    assert_at(r->moved_ns, 2.0);
    assert_at(r->join_ns, 2.05);
    assert_at(r->first_token_ns, 2.06);
    assert_at(r->end_ns, 2.08);
    assert_true(fabs((double)r->tbt_mean - 0.01) < 1e-6 &&
                fabs((double)r->tbt_worst - 0.01) < 1e-6);
    assert_true(fabs(r->busy_s - 1.5) < 1e-6);
    assert_at(r->alone_ns, 1.5);
    assert_int_equal(r->predicted_ns, r->alone_ns);
    assert_true(fabs(p.result.moved_bytes / assume_node(&p.options.assume).kv_token_bytes - 500) <
                0.01);
    play_close(&p);
}

static void test_with_streaming_the_kvcache_is_there_when_the_prefill_ends(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "1P+1D");
    p.options.assume.stream = 1;
    play_add(&p, 0, 500, 1, 1, 0);   /* 0.5 s to send, 1.5 s to compute */
    play_add(&p, 10, 3000, 1, 1, 0); /* 3 s to send, 4 s to compute */
    const struct sim_record *r = play_run(&p);
    assert_at(r[0].moved_ns, 1.5);
    assert_at(r[0].first_token_ns, 1.56);
    assert_at(r[1].moved_ns, 14);
    play_close(&p);
}

static double tokens_moved(const struct play *p)
{
    return p->result.moved_bytes / assume_node(&p->options.assume).kv_token_bytes;
}

/* 300 of the second prompt's 450 tokens are in the decode node's DRAM; the last is always sent. */
static void test_what_the_decode_node_has_is_not_sent_again(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "1P+1D");
    play_add(&p, 0, 450, 1, 1, 3);
    play_add(&p, 5, 450, 1, 1, 3);
    play_add(&p, 10, 300, 1, 1, 3); /* all of it is there: its last block is sent again */
    const struct sim_record *r = play_run(&p);
    assert_at(r[0].moved_ns, 1.45 + 0.45);
    assert_at(r[1].moved_ns, 5 + 1.15 + 0.15);
    assert_at(r[1].join_ns, 5 + 1.15 + 0.15 + 0.045); /* but all of it goes into VRAM */
    assert_at(r[2].moved_ns, 10 + 1.1 + 0.1);
    assert_true(fabs(tokens_moved(&p) - 700) < 0.01);
    play_close(&p);

    play_init(&p, "1P+1D");
    p.options.assume.decode_keeps = 0;
    play_add(&p, 0, 450, 1, 1, 3);
    play_add(&p, 5, 450, 1, 1, 3);
    (void)play_run(&p);
    assert_true(fabs(tokens_moved(&p) - 900) < 0.01);
    play_close(&p);
}

static void test_a_decode_nodes_dram_is_bounded(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "1P+1D"); /* 1000 tokens */
    play_add(&p, 0, 550, 1, 1, 5);
    play_add(&p, 10, 850, 1, 2, 8); /* pushes the first out */
    play_add(&p, 20, 550, 1, 1, 5);
    (void)play_run(&p);
    assert_true(tokens_moved(&p) > 550 + 850 + 50);
    play_close(&p);
}

static void test_what_a_node_has_is_not_computed_again(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "1P+1D");
    play_add(&p, 0, 450, 1, 1, 3);
    play_add(&p, 5, 450, 1, 1, 3);
    play_add(&p, 10, 300, 1, 1,
             3); /* all of it is there: the last block is computed all the same */
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r[0].reused, 0);
    assert_int_equal(r[1].reused, 300);
    assert_at(r[1].prefill_end_ns, 5 + 1 + 0.15);
    assert_int_equal(r[2].reused, 200);
    play_close(&p);
}

static void test_who_waits_sees_what_was_computed_meanwhile(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "1P+1D");
    play_add(&p, 0, 350, 1, 1, 3);
    play_add(&p, 0.1, 350, 1, 1, 3); /* decided before the first was computed */
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r[1].reused, 300);
    assert_at(r[1].prefill_begin_ns, 1.35);
    play_close(&p);
}

/* A second request with the prefix finds its node busy: it pulls 800 tokens in 0.8 s to the other one. */
static void test_a_prefix_is_pulled_where_that_is_quicker(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "2P+1D");
    p.options.policy = "algorithm1";
    play_add(&p, 0, 850, 1, 1, 8);
    play_add(&p, 10, 5000, 1, 2, 0);
    play_add(&p, 10.5, 5000, 1, 3, 0); /* both are busy, node 1 for 0.5 s more */
    play_add(&p, 20, 850, 1, 1, 8);
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r[0].prefill, 0);
    play_close(&p);

    play_init(&p, "2P+1D");
    play_add(&p, 0, 850, 1, 1, 8);
    play_add(&p, 10, 850, 1, 1, 8);
    play_add(&p, 10, 850, 1, 1, 8); /* own node: 1.05 s of queue; the other: 0.8 s of pull */
    r = play_run(&p);
    assert_int_equal(r[1].prefill, 0);
    assert_int_equal(r[2].prefill, 1);
    assert_int_equal(r[2].holder, 0);
    assert_int_equal(r[2].pulled, 800);
    assert_at(r[2].prefill_begin_ns, 10.8);
    assert_at(r[2].prefill_end_ns, 10.8 + 1.05);
    play_close(&p);
}

/* Another one's KVCache takes half of the line: the pull would take longer than computing, and is given up. */
static void test_a_pull_that_takes_too_long_is_given_up(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "2P+1D");
    play_add(&p, 0, 850, 1, 1, 8);
    play_add(&p, 8.25, 800, 1, 2, 0); /* sent from 10.05 to 11.65 */
    play_add(&p, 10, 850, 1, 1, 8);
    play_add(&p, 10, 850, 1, 1, 8);
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r[1].prefill, 0);
    assert_int_equal(r[2].prefill, 0);
    assert_int_equal(r[3].prefill, 1);
    assert_int_equal(r[3].holder, 0);
    assert_int_equal(r[3].pulled, 0);
    assert_int_equal(r[3].reused, 0);
    assert_at(r[3].prefill_begin_ns, 10.8);
    assert_at(r[3].prefill_end_ns, 10.8 + 1.85);
    play_close(&p);
}

static void test_ssd_keeps_what_dram_has_no_room_for(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "1P+1D");
    p.options.ssd_tokens = 5000;
    play_add(&p, 0, 650, 1, 1, 6);
    play_add(&p, 5, 950, 1, 2, 9); /* pushes it out of 1000 tokens of DRAM */
    play_add(&p, 10, 650, 1, 1, 6);
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r[2].reused, 600);
    assert_at(r[2].prefill_begin_ns, 10 + 0.5); /* five of six were on SSD */
    play_close(&p);

    play_init(&p, "1P+1D");
    play_add(&p, 0, 650, 1, 1, 6);
    play_add(&p, 5, 950, 1, 2, 9);
    play_add(&p, 10, 650, 1, 1, 6);
    r = play_run(&p);
    assert_int_equal(r[2].reused, 0); /* the first block is gone */
    play_close(&p);
}

static void test_a_batch_takes_who_comes_between_two_steps(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "2P+1D");
    p.options.policy = "least-loaded";
    p.options.assume.join_fixed_s = 0.1;
    play_add(&p, 0, 100, 1000, 1, 0);   /* there at 1.1 + 0.1 + 0.01 = 1.21 */
    play_add(&p, 0.995, 100, 11, 1, 0); /* there at 2.205: in the 100th step, until 2.21 */
    const struct sim_record *r = play_run(&p);
    assert_at(r[0].first_token_ns, 1.22);
    assert_at(r[1].join_ns, 2.21);
    assert_at(r[1].first_token_ns, 2.32); /* all stand still for 0.1 s */
    assert_true(fabs((double)r[0].tbt_most - 0.11) < 1e-6);
    assert_true(fabs((double)r[1].tbt_most - 0.01) < 1e-6);
    assert_at(r[0].end_ns, 1.22 + 0.01 * 999 + 0.1);
    play_close(&p);
}

static void test_who_has_no_room_in_vram_waits(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "1P+1D");
    p.options.assume.sequences_max = 1;
    play_add(&p, 0, 100, 500, 1, 0);
    play_add(&p, 0, 100, 10, 2, 0);
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r[1].join_ns, r[0].end_ns);
    play_close(&p);
}

static void test_queues_are_in_order_of_arrival_or_of_length(void **state)
{
    (void)state;
    for (int order = SIM_FIFO; order <= SIM_SHORTEST; order++) {
        struct play p;

        play_init(&p, "1P+1D");
        p.options.order = (enum sim_order)order;
        play_add(&p, 0, 100, 1, 1, 0);
        play_add(&p, 0.1, 5000, 1, 2, 0);
        play_add(&p, 0.2, 200, 1, 3, 0);
        const struct sim_record *r = play_run(&p);
        assert_int_equal(r[2].prefill_begin_ns < r[1].prefill_begin_ns, order == SIM_SHORTEST);
        play_close(&p);
    }
}

/* Chunks of 1000 take 2 s each: the long one is in its second when the short one comes, which is next. */
static void test_chunks_take_turns(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "1P+1D");
    p.options.chunk_tokens = 1000;
    p.options.interleave = 2;
    play_add(&p, 0, 3000, 1, 1, 0);
    play_add(&p, 2.5, 500, 1, 2, 0);
    const struct sim_record *r = play_run(&p);
    assert_at(r[1].prefill_end_ns, 4 + 1.5);
    assert_at(r[0].prefill_end_ns, 5.5 + 2);
    assert_true(fabs(r[0].busy_s - 6) < 1e-6);
    play_close(&p);
}

/* Two stages, two chunks of 1000 (2 s, of which each stage does half): 1 + 1, and one more for the second. */
static void test_a_pipeline_works_on_two_chunks_at_once(void **state)
{
    (void)state;
    struct play p;

    play_init(&p, "1P2+1D");
    p.options.chunk_tokens = 1000;
    play_add(&p, 0, 2000, 1, 1, 0);
    play_add(&p, 0, 1000, 1, 2, 0); /* its chunk follows as soon as the first stage is free, at 2 */
    const struct sim_record *r = play_run(&p);
    assert_at(r[0].prefill_end_ns, 3);
    assert_at(r[1].prefill_begin_ns, 2);
    assert_at(r[1].prefill_end_ns, 4);
    assert_true(fabs(r[0].busy_s - 4) < 1e-6); /* node seconds */
    play_close(&p);
}

/* A request a year later, looked at each second: the series is as long as it may be, and even. */
static void test_a_time_series_is_bounded(void **state)
{
    (void)state;
    static const double YEAR = 365 * 86400.0;
    struct play p;

    play_init(&p, "1P+1D");
    p.options.sample_ns = 1000000000;
    play_add(&p, 0, 450, 3, 1, 0);
    play_add(&p, YEAR, 450, 3, 2, 0);
    (void)play_run(&p);
    assert_in_range(p.result.sample_count, SIM_SAMPLES_MAX / 2, SIM_SAMPLES_MAX);
    const struct sim_sample *s = p.result.samples;
    const uint64_t step = s[1].ns - s[0].ns;
    for (uint32_t i = 0; i < p.result.sample_count; i++)
        assert_true(s[i].ns == i * step);
    assert_true((double)s[p.result.sample_count - 1].ns > (YEAR - 5000) * 1e9);
    play_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hot_prefix_is_copied_to_who_lacks_it),
        cmocka_unit_test(test_one_request_goes_its_way),
        cmocka_unit_test(test_with_streaming_the_kvcache_is_there_when_the_prefill_ends),
        cmocka_unit_test(test_what_the_decode_node_has_is_not_sent_again),
        cmocka_unit_test(test_a_decode_nodes_dram_is_bounded),
        cmocka_unit_test(test_what_a_node_has_is_not_computed_again),
        cmocka_unit_test(test_who_waits_sees_what_was_computed_meanwhile),
        cmocka_unit_test(test_a_prefix_is_pulled_where_that_is_quicker),
        cmocka_unit_test(test_a_pull_that_takes_too_long_is_given_up),
        cmocka_unit_test(test_ssd_keeps_what_dram_has_no_room_for),
        cmocka_unit_test(test_a_batch_takes_who_comes_between_two_steps),
        cmocka_unit_test(test_who_has_no_room_in_vram_waits),
        cmocka_unit_test(test_queues_are_in_order_of_arrival_or_of_length),
        cmocka_unit_test(test_chunks_take_turns),
        cmocka_unit_test(test_a_pipeline_works_on_two_chunks_at_once),
        cmocka_unit_test(test_a_time_series_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
