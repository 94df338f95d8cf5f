/* test_stages.c - MC_ADMIT_STAGES: what is looked at at arrival, and what when a prefill has ended. */
#include "fixture.h"

static void open_stages(struct play *p, uint64_t tbt_ns)
{
    play_open(
        p, &(struct mc_sched_options){ .admission = MC_ADMIT_STAGES, .slo = { 50 * MS, tbt_ns } });
    play_join(p, 1, MC_ROLE_PREFILL);
    play_join(p, 2, MC_ROLE_DECODE);
}

/* Ask, and play until its prefill has ended: what is decided then. */
static struct mc_decision prefill(struct play *p, uint64_t request)
{
    struct mc_decision d = { 0 };
    size_t count = 0;
    const struct mc_sched_event end = {
        .kind = MC_EVENT_PREFILL_END,
        .progress = { .request = request, .id = 1, .tokens = 1000, .duration_ns = 2 * MS }
    };

    assert_int_equal(play_progress(p, MC_EVENT_PREFILL_BEGIN, request, 1), MC_OK);
    p->now_ns += 2 * MS;
    assert_int_equal(play_step(p, end), MC_OK);
    assert_int_equal(mc_sched_take(p->sched, &d, 1, &count), MC_OK);
    assert_int_equal(d.request, request);
    return d;
}

static struct mc_decision arrive(struct play *p)
{
    const struct mc_decision d = play_ask(p, (struct mc_sched_request){ .tokens = 1000 });

    assert_int_equal(d.kind, MC_DECIDE_PLACE);
    assert_true(d.flags & MC_DECISION_STAGED);
    return d;
}

static void test_decoding_is_looked_at_when_the_prefill_has_ended(void **state)
{
    (void)state;
    struct play p;

    /* A step is 10 ms and 1 ms a sequence: three fit. */
    open_stages(&p, 13 * MS + MS / 2);
    for (uint64_t id = 1; id <= 3; id++) {
        arrive(&p);
        const struct mc_decision d = prefill(&p, id);
        assert_int_equal(d.kind, MC_DECIDE_DECODE);
        assert_int_equal(d.reason, MC_REASON_WITHIN_SLO);
        assert_int_equal(d.decode, 2);
        assert_int_equal(d.predicted.tbt_ns, (10 + id) * MS);
        assert_int_equal(play_progress(&p, MC_EVENT_DECODE_BEGIN, id, 2), MC_OK);
    }
    arrive(&p); /* the door looks at the prefill alone */
    const struct mc_decision d = prefill(&p, 4);
    assert_int_equal(d.kind, MC_DECIDE_REFUSE);
    assert_int_equal(d.reason, MC_REASON_TBT_SLO);
    assert_int_equal(d.retry_after_ns % 1000000000, 0);
    assert_true(d.retry_after_ns >= 1000000000);
    assert_true(d.predicted.decode_load > 1);
    assert_int_equal(d.prefill | d.decode, 0);
    assert_int_equal(play_stats(&p).refused, 1);
    assert_int_equal(play_stats(&p).refused_by[MC_REASON_TBT_SLO], 1);
    assert_int_equal(play_stats(&p).wasted_prefill_ns, 2 * MS);
    assert_int_equal(play_stats(&p).requests, 3);
    /* It is forgotten: its end is nobody's. */
    assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, 4, 2), MC_E_NOT_FOUND);

    assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, 1, 2), MC_OK);
    arrive(&p); /* one has left: there is room for one */
    assert_int_equal(prefill(&p, 5).kind, MC_DECIDE_DECODE);
    play_close(&p);
}

static void test_who_is_still_being_prefilled_is_in_nobodys_way(void **state)
{
    (void)state;
    struct play p;

    open_stages(&p, 11 * MS + MS / 2); /* one fits */
    arrive(&p);
    arrive(&p);
    arrive(&p);
    assert_int_equal(prefill(&p, 1).kind, MC_DECIDE_DECODE);
    assert_int_equal(prefill(&p, 2).kind, MC_DECIDE_REFUSE); /* its KVCache is on its way there */
    assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, 1, 2), MC_OK);
    assert_int_equal(prefill(&p, 3).kind, MC_DECIDE_DECODE);
    play_close(&p);
}

static void test_a_report_tells_of_those_who_are_not_ours(void **state)
{
    (void)state;
    struct play p;

    open_stages(&p, 13 * MS + MS / 2);
    const struct mc_sched_event load = { .kind = MC_EVENT_LOAD,
                                         .load = { .id = 2,
                                                   .lease_ns = 1000 * MS,
                                                   .running = 3,
                                                   .context_tokens = 300,
                                                   .free_tokens = 9000 } };
    assert_int_equal(play_step(&p, load), MC_OK);
    arrive(&p);
    assert_int_equal(prefill(&p, 1).kind, MC_DECIDE_REFUSE);
    p.now_ns += 2000 * (uint64_t)MS; /* the report is believed no longer */
    arrive(&p);
    assert_int_equal(prefill(&p, 2).kind, MC_DECIDE_DECODE);
    play_close(&p);
}

static void test_without_an_objective_or_after_a_loss_all_go_on(void **state)
{
    (void)state;
    struct play p;

    open_stages(&p, 0);
    arrive(&p);
    assert_int_equal(prefill(&p, 1).kind, MC_DECIDE_DECODE);
    play_close(&p);

    open_stages(&p, 1 * MS); /* nobody could keep that */
    const struct mc_decision placed =
        play_ask(&p, (struct mc_sched_request){ .tokens = 1000, .flags = MC_REQUEST_TAKEN });
    assert_int_equal(placed.kind, MC_DECIDE_PLACE);
    assert_int_equal(prefill(&p, 1).kind, MC_DECIDE_DECODE);
    arrive(&p);
    assert_int_equal(prefill(&p, 2).kind, MC_DECIDE_REFUSE);
    play_close(&p);
}

static void test_the_prefill_stage_refuses_at_arrival(void **state)
{
    (void)state;
    struct play p;
    struct mc_decision d;

    open_stages(&p, 0);
    play_join(&p, 3, MC_ROLE_DECODE);
    do /* 9.1 ms each, one after the other: the sixth would be late */
        d = play_ask(&p, (struct mc_sched_request){ .tokens = 8100 });
    while (d.kind == MC_DECIDE_PLACE && p.last_request < 20);
    /* Where decoding is what is short, that is no SLO's matter yet. */
    assert_true(d.reason == MC_REASON_TTFT_SLO || d.reason == MC_REASON_KV_MEMORY);
    play_close(&p);
}

static void test_a_learnt_step_refuses_nobody_at_first(void **state)
{
    (void)state;
    struct play p;

    play_open(&p, &(struct mc_sched_options){ .admission = MC_ADMIT_STAGES, .slo = { 0, 5 * MS } });
    play_join_unknown(&p, 1, MC_ROLE_PREFILL);
    play_join_unknown(&p, 2, MC_ROLE_DECODE);
    arrive(&p);
    assert_int_equal(prefill(&p, 1).reason, MC_REASON_UNKNOWN_COST);
    for (int i = 0; i < 30; i++) {
        const struct mc_sched_event step = { .kind = MC_EVENT_DECODE_STEP,
                                             .progress = { .id = 2,
                                                           .tokens = (uint64_t)(100 + i * 37 % 50),
                                                           .sequences = (uint64_t)(1 + i % 4),
                                                           .duration_ns =
                                                               (uint64_t)(10 + i % 4) * MS } };
        assert_int_equal(play_step(&p, step), MC_OK);
        if (i == 8) {
            arrive(&p);
            const struct mc_decision d = prefill(&p, 2);
            assert_int_equal(d.kind, MC_DECIDE_DECODE);
            assert_int_equal(d.soft, MC_REASON_TBT_SLO);
        }
    }
    arrive(&p);
    assert_int_equal(prefill(&p, 3).kind, MC_DECIDE_REFUSE);
    play_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoding_is_looked_at_when_the_prefill_has_ended),
        cmocka_unit_test(test_who_is_still_being_prefilled_is_in_nobodys_way),
        cmocka_unit_test(test_a_report_tells_of_those_who_are_not_ours),
        cmocka_unit_test(test_without_an_objective_or_after_a_loss_all_go_on),
        cmocka_unit_test(test_the_prefill_stage_refuses_at_arrival),
        cmocka_unit_test(test_a_learnt_step_refuses_nobody_at_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
