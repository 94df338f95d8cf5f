/* test_coupled.c - instances that prefill and decode: whole prompts, prefix cache, chunks. */
#include "world.h"

#include <math.h>

static void open_coupled(struct play *p, enum sim_coupled kind)
{
    play_init(p, "1C");
    p->options.coupled = kind;
    p->options.policy = "coupled-round-robin";
}

/* A prompt that comes at 2.0 s holds up the one that decodes: one gap of 1.5 s more. */
static void test_a_whole_prompt_holds_up_who_decodes(void **state)
{
    (void)state;
    struct play p;

    open_coupled(&p, SIM_PLAIN);
    play_add(&p, 0, 100, 201, 1, 0); /* first token at 1.1 */
    play_add(&p, 2.0049, 500, 11, 2, 0);
    const struct sim_record *r = play_run(&p);
    assert_at(r[0].first_token_ns, 1.1);
    assert_at(r[1].prefill_begin_ns, 2.01);
    assert_at(r[1].first_token_ns, 3.51);
    assert_true(fabs((double)r[0].tbt_most - 1.51) < 1e-4);
    assert_at(r[0].end_ns, 1.1 + 2.0 + 1.5); /* the stall passes once */
    assert_true(fabs((double)r[1].tbt_most - 0.01) < 1e-4);
    assert_at(r[1].end_ns, 3.61);
    play_close(&p);
}

static void test_what_is_longer_than_its_context_is_refused(void **state)
{
    (void)state;
    struct play p;

    open_coupled(&p, SIM_PLAIN);
    p.options.assume.vllm_context_tokens = 300;
    play_add(&p, 0, 301, 2, 1, 0);
    play_add(&p, 0, 300, 2, 2, 0);
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r[0].outcome, SIM_REFUSED);
    assert_int_equal(r[0].reason, MC_REASON_TOO_LONG);
    assert_int_equal(r[1].outcome, SIM_FINISHED);
    play_close(&p);

    play_init(&p, "1P+1D"); /* others have no such limit but the one that is asked for */
    p.options.assume.vllm_context_tokens = 300;
    play_add(&p, 0, 301, 2, 1, 0);
    assert_int_equal(play_run(&p)[0].outcome, SIM_FINISHED);
    play_close(&p);
    play_init(&p, "1P+1D");
    p.options.input_max = 300;
    play_add(&p, 0, 301, 2, 1, 0);
    assert_int_equal(play_run(&p)[0].outcome, SIM_REFUSED);
    play_close(&p);
}

static void test_a_prefix_cache_shares_vram_with_the_batch(void **state)
{
    (void)state;
    struct play p;

    open_coupled(&p, SIM_PREFIX);
    play_add(&p, 0, 450, 2, 1, 4);
    play_add(&p, 5, 450, 2, 1, 4);
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r[1].reused, 400);
    assert_at(r[1].first_token_ns, 5 + 1.05);
    play_close(&p);

    open_coupled(&p, SIM_PLAIN);
    play_add(&p, 0, 450, 2, 1, 4);
    play_add(&p, 5, 450, 2, 1, 4);
    r = play_run(&p);
    assert_int_equal(r[1].reused, 0);
    play_close(&p);
}

/* Its host keeps account of the blocks of a prompt, and of all in the batch before each step; the GPUs wait for it. */
static void test_account_of_a_prefix_cache_takes_time(void **state)
{
    struct play p;
    uint64_t first_ns[2], end_ns[2];

    (void)state;
    for (int cached = 0; cached < 2; cached++) {
        open_coupled(&p, cached ? SIM_PREFIX : SIM_PLAIN);
        p.options.assume.vllm_hash_pair_s = 1e-6;
        p.options.assume.vllm_cached_token_s = 1e-4;
        play_add(&p, 0, 400, 11, 1, 4);
        const struct sim_record *r = play_run(&p);
        first_ns[cached] = r[0].first_token_ns;
        end_ns[cached] = r[0].end_ns;
        play_close(&p);
    }
    assert_at(first_ns[1] - first_ns[0], 0.16);
    assert_at(end_ns[1] - end_ns[0],
              0.16 + 10 * 0.04 + 45 * 1e-4); /* ten steps, each of a token more */
}

/* 100 tokens a step: 3 steps of 1.1 s for 298 tokens, as one of each budget is taken by who decodes. */
static void test_chunks_go_beside_the_decoding(void **state)
{
    (void)state;
    struct play p;

    open_coupled(&p, SIM_CHUNKED);
    play_add(&p, 0, 100, 400, 1, 0);
    play_add(&p, 2.0049, 297, 2, 2, 0);
    const struct sim_record *r = play_run(&p);
    assert_at(r[0].first_token_ns, 1.1);
    assert_at(r[1].prefill_begin_ns, 2.01);
    assert_at(r[1].first_token_ns, 2.01 + 3 + 0.297);
    assert_true(fabs((double)r[0].tbt_most - 1.099) < 1e-4);
    play_close(&p);
}

static void test_prompts_wait_for_memory(void **state)
{
    (void)state;
    struct play p;

    open_coupled(&p, SIM_PLAIN);
    p.options.assume.sequences_max = 1;
    play_add(&p, 0, 100, 100, 1, 0);
    play_add(&p, 0, 100, 1, 2, 0);
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r[1].prefill_begin_ns, r[0].end_ns);
    assert_int_equal(r[1].outcome, SIM_FINISHED);
    play_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_prompt_holds_up_who_decodes),
        cmocka_unit_test(test_what_is_longer_than_its_context_is_refused),
        cmocka_unit_test(test_a_prefix_cache_shares_vram_with_the_batch),
        cmocka_unit_test(test_account_of_a_prefix_cache_takes_time),
        cmocka_unit_test(test_chunks_go_beside_the_decoding),
        cmocka_unit_test(test_prompts_wait_for_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
