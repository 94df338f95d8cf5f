/* test_sched.c - the scheduler's life and events: who is placed where, refused why, and told what. */
#include "fixture.h"

#include "base/prng.h"

static void test_one_of_each_role_gets_everything_with_predictions(void **state)
{
    (void)state;
    struct play p;

    play_open(&p, NULL);
    play_join(&p, 1, MC_ROLE_PREFILL);
    play_join(&p, 2, MC_ROLE_DECODE);
    const struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 1000 });
    assert_int_equal(d.kind, MC_DECIDE_PLACE);
    assert_int_equal(d.reason, MC_REASON_ONLY_ONE);
    assert_int_equal(d.prefill, 1);
    assert_int_equal(d.decode, 2);
    assert_int_equal(d.holder, 0);
    assert_int_equal(d.considered, 1);
    assert_int_equal(d.predicted.queue_ns, 0);
    assert_int_equal(d.predicted.prefill_ns, 2 * MS);
    assert_int_equal(d.predicted.ttft_ns, 2 * MS);
    assert_int_equal(d.predicted.tbt_ns, 11 * MS);

    const struct mc_decision next = play_ask(&p, (struct mc_sched_request){ .tokens = 1000 });
    assert_int_equal(next.predicted.queue_ns, 2 * MS); /* behind the first */
    assert_int_equal(next.predicted.ttft_ns, 4 * MS);
    assert_int_equal(next.predicted.tbt_ns, 12 * MS);
    play_close(&p);
}

static void test_a_burst_spreads_before_any_load_report(void **state)
{
    (void)state;
    struct play p;
    uint32_t at[5] = { 0 };

    play_open(&p, NULL);
    for (uint64_t id = 1; id <= 4; id++)
        play_join(&p, id, MC_ROLE_BOTH);
    for (int i = 0; i < 12; i++) {
        const struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 500 });
        at[d.prefill]++;
        assert_int_equal(d.prefill, d.decode); /* equal load: no hand-off is better than one */
    }
    for (int i = 1; i <= 4; i++)
        assert_int_equal(at[i], 3);
    play_close(&p);
}

static void test_load_reports_count_until_their_lease_ends(void **state)
{
    (void)state;
    struct play p;

    play_open(&p, NULL);
    play_join(&p, 1, MC_ROLE_PREFILL);
    play_join(&p, 2, MC_ROLE_PREFILL);
    play_join(&p, 3, MC_ROLE_DECODE);
    const struct mc_sched_event load = {
        .kind = MC_EVENT_LOAD,
        .load = { .id = 1, .lease_ns = 100 * MS, .queued = 1, .queued_tokens = 50000 }
    };
    assert_int_equal(play_step(&p, load), MC_OK);
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 100 }).prefill, 2);
    assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, p.last_request, 2), MC_OK);
    p.now_ns = 20 * MS; /* 31 ms are left of the 51 */
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 100 }).prefill, 2);
    assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, p.last_request, 2), MC_OK);
    p.now_ns = 100 * MS; /* the report has expired, and said nothing since */
    assert_int_equal(play_stats(&p).instances_expired, 0);
    const struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 100 });
    assert_int_equal(d.prefill, 1);
    assert_int_equal(d.predicted.queue_ns, 0);
    assert_int_equal(play_stats(&p).instances_expired, 1);
    play_close(&p);
}

static void test_what_was_placed_after_a_report_is_added_to_it(void **state)
{
    (void)state;
    struct play p;
    const struct mc_sched_request r = { .tokens = 9000 };

    play_open(&p, NULL);
    play_join(&p, 1, MC_ROLE_BOTH);
    assert_int_equal(play_ask(&p, r).kind, MC_DECIDE_PLACE); /* request 1: 10 ms */
    struct mc_sched_event load = { .kind = MC_EVENT_LOAD,
                                   .load = { .id = 1,
                                             .lease_ns = 1000 * MS,
                                             .queued = 1,
                                             .queued_tokens = 4500, /* it is half done */
                                             .free_tokens = 900,
                                             .latest = 1 } };
    assert_int_equal(play_step(&p, load), MC_OK);
    assert_int_equal(play_ask(&p, r).reason, MC_REASON_KV_MEMORY);
    load.load.free_tokens = 9500;
    assert_int_equal(play_step(&p, load), MC_OK);
    const struct mc_decision d = play_ask(&p, r); /* request 3; 2 was refused */
    assert_int_equal(d.kind, MC_DECIDE_PLACE);
    assert_int_equal(d.predicted.queue_ns, 5 * MS);
    load.load.latest = 1; /* a report from before 3 came there */
    assert_int_equal(play_step(&p, load), MC_OK);
    const struct mc_decision again = play_ask(&p, (struct mc_sched_request){ .tokens = 100 });
    assert_int_equal(again.predicted.queue_ns, 15 * MS);

    /* What ends is taken out of the report too. */
    assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_END, 1, 1), MC_OK);
    const struct mc_decision last = play_ask(&p, (struct mc_sched_request){ .tokens = 100 });
    assert_int_equal(last.predicted.queue_ns, 10 * MS + 1100000); /* requests 3 and 4 */
    play_close(&p);
}

static void test_refusals_say_why(void **state)
{
    (void)state;
    struct play p;
    struct mc_decision d;

    play_open(&p, NULL);
    d = play_ask(&p, (struct mc_sched_request){ .tokens = 10 });
    assert_int_equal(d.kind, MC_DECIDE_REFUSE);
    assert_int_equal(d.reason, MC_REASON_NO_INSTANCE);
    assert_int_not_equal(d.retry_after_ns, 0);
    play_join(&p, 1, MC_ROLE_PREFILL);
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 10 }).reason,
                     MC_REASON_NO_INSTANCE); /* nobody decodes */
    play_join(&p, 2, MC_ROLE_DECODE);
    d = play_ask(&p, (struct mc_sched_request){ .tokens = 10000 });
    assert_int_equal(d.reason, MC_REASON_TOO_LONG);
    assert_int_equal(d.retry_after_ns, 0);
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 9999 }).kind,
                     MC_DECIDE_PLACE);
    d = play_ask(&p, (struct mc_sched_request){ .tokens = 10 });
    assert_int_equal(d.reason, MC_REASON_KV_MEMORY);
    assert_int_not_equal(d.retry_after_ns, 0);
    assert_int_equal(d.prefill | d.decode | d.holder, 0);
    assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, 4, 2), MC_OK);
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 10 }).kind, MC_DECIDE_PLACE);
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 10, .model = 7 }).reason,
                     MC_REASON_NO_INSTANCE);
    p.now_ns = 5;
    assert_int_equal(
        play_ask(&p, (struct mc_sched_request){ .tokens = 10, .deadline_ns = 5 }).reason,
        MC_REASON_DEADLINE);

    const struct mc_sched_stats stats = play_stats(&p);
    assert_int_equal(stats.placed, 2);
    assert_int_equal(stats.refused, 6);
    assert_int_equal(stats.refused_by[MC_REASON_NO_INSTANCE], 3);
    assert_int_equal(stats.refused_by[MC_REASON_TOO_LONG], 1);
    assert_int_equal(stats.requests, 1);
    play_close(&p);
}

static void test_barred_and_draining_instances_get_nothing(void **state)
{
    (void)state;
    struct play p;

    play_open(&p, NULL);
    for (uint64_t id = 1; id <= 2; id++)
        play_join(&p, id, MC_ROLE_BOTH);
    struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 10, .barred = 1 });
    assert_int_equal(d.prefill, 2);
    assert_int_equal(d.decode, 2); /* as good as 1, and there is nothing to hand off */
    d = play_ask(&p, (struct mc_sched_request){ .tokens = 10, .barred = 2, .barred_decode = 1 });
    assert_int_equal(d.prefill, 1);
    assert_int_equal(d.decode, 2);
    assert_int_equal(play_id(&p, MC_EVENT_INSTANCE_DRAIN, 1), MC_OK);
    for (int i = 0; i < 3; i++) {
        d = play_ask(&p, (struct mc_sched_request){ .tokens = 10 });
        assert_int_equal(d.prefill, 2);
        assert_int_equal(d.decode, 2);
    }
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 10, .barred = 2 }).reason,
                     MC_REASON_NO_INSTANCE);
    play_join(&p, 1, MC_ROLE_BOTH); /* takes work again */
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 10, .barred = 2 }).prefill,
                     1);
    play_close(&p);
}

static void test_requests_of_a_lost_instance_are_aborted_once(void **state)
{
    (void)state;
    struct play p;
    struct mc_decision d[8];
    size_t count;

    play_open(&p, NULL);
    play_join(&p, 1, MC_ROLE_PREFILL);
    play_join(&p, 2, MC_ROLE_DECODE);
    play_join(&p, 3, MC_ROLE_DECODE);
    for (int i = 0; i < 4; i++)
        assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 10 }).prefill, 1);
    const struct mc_sched_event end = {
        .kind = MC_EVENT_PREFILL_END,
        .progress = { .request = 1, .id = 1, .tokens = 10, .duration_ns = 3 * MS }
    };
    assert_int_equal(play_step(&p, end), MC_OK);
    assert_int_equal(play_id(&p, MC_EVENT_INSTANCE_GONE, 1), MC_OK);
    assert_int_equal(mc_sched_take(p.sched, d, 2, &count), MC_OK);
    assert_int_equal(count, 2);
    assert_int_equal(d[0].kind, MC_DECIDE_ABORT);
    assert_int_equal(d[0].reason, MC_REASON_INSTANCE_LOST);
    assert_int_equal(d[0].request, 2);
    assert_int_equal(d[0].prefill, 1);
    assert_int_equal(mc_sched_take(p.sched, d, 8, &count), MC_OK);
    assert_int_equal(count, 1);
    assert_int_equal(d[0].request, 4);
    assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, 4, 1), MC_E_NOT_FOUND);

    /* The first one is past its prefill; it ends with its decode instance, having wasted it. */
    assert_int_equal(play_stats(&p).requests, 1);
    assert_int_equal(play_id(&p, MC_EVENT_INSTANCE_GONE, 2), MC_OK);
    assert_int_equal(play_id(&p, MC_EVENT_INSTANCE_GONE, 3), MC_OK); /* nobody took it: lost */
    const struct mc_sched_stats stats = play_stats(&p);
    assert_int_equal(stats.aborted, 4);
    assert_int_equal(stats.requests, 0);
    assert_int_equal(stats.instances, 0);
    assert_int_equal(stats.decisions_lost, 1);
    assert_int_equal(stats.wasted_prefill_ns, 3 * MS);
    play_close(&p);
}

static void test_a_prefix_in_the_pool_is_pulled_from_all_its_nodes(void **state)
{
    (void)state;
    struct play p;
    struct mc_key keys[8];

    play_open(&p, NULL);
    play_join(&p, 1, MC_ROLE_BOTH);
    play_join(&p, 8, MC_ROLE_STORE);
    play_join(&p, 9, MC_ROLE_STORE);
    play_keys(keys, 8, 1);
    play_stored(&p, 8, keys, 3);
    play_stored(&p, 9, keys + 3, 5);
    const struct mc_sched_request r = { .tokens = 130, .keys = keys, .key_count = 8 };
    struct mc_decision d = play_ask(&p, r);
    assert_int_equal(d.holder, 9); /* it has most of it */
    assert_int_equal(d.pull_tokens, 128);
    assert_int_equal(d.reuse_tokens, 128);
    assert_int_equal(d.predicted.prefill_ns, MS + 2000);
    assert_int_equal(d.predicted.transfer_ns, 12800);
    assert_true(d.pull_ns >= 128000);

    /* The last token is computed even if all is there. */
    d = play_ask(&p, (struct mc_sched_request){ .tokens = 128, .keys = keys, .key_count = 8 });
    assert_int_equal(d.pull_tokens, 112);
    assert_int_equal(d.predicted.transfer_ns, 12800 + 11200); /* behind the first pull */

    const struct mc_sched_event evicted = { .kind = MC_EVENT_EVICTED,
                                            .blocks = { .id = 8, .keys = keys + 1, .count = 1 } };
    assert_int_equal(play_step(&p, evicted), MC_OK);
    d = play_ask(&p, r);
    assert_int_equal(d.pull_tokens, 16);
    assert_int_equal(d.holder, 8);
    assert_int_equal(play_id(&p, MC_EVENT_BLOCKS_RESET, 0), MC_OK);
    d = play_ask(&p, r);
    assert_int_equal(d.pull_tokens, 0);
    assert_int_equal(d.holder, 0);
    play_stored(&p, 8, keys, 8);
    assert_int_equal(play_id(&p, MC_EVENT_INSTANCE_GONE, 8), MC_OK);
    assert_int_equal(play_ask(&p, r).pull_tokens, 0);
    assert_int_equal(play_stats(&p).blocks, 0);
    play_close(&p);
}

static void test_two_that_pull_from_one_wait_for_each_other(void **state)
{
    (void)state;
    struct play p;
    struct mc_key keys[4];

    play_open(&p, NULL);
    play_join(&p, 1, MC_ROLE_BOTH);
    play_join(&p, 2, MC_ROLE_BOTH);
    play_join(&p, 9, MC_ROLE_STORE);
    play_keys(keys, 4, 1);
    play_stored(&p, 9, keys, 4);
    struct mc_sched_request r = { .tokens = 100, .keys = keys, .key_count = 4, .barred = 2 };
    assert_int_equal(play_ask(&p, r).predicted.transfer_ns, 6400);
    r.barred = 1;
    assert_int_equal(play_ask(&p, r).predicted.transfer_ns, 12800);
    p.now_ns = 12800; /* both are done */
    assert_int_equal(play_ask(&p, r).predicted.transfer_ns, 6400);
    play_close(&p);
}

static void test_unknown_costs_place_by_load_and_are_learnt(void **state)
{
    (void)state;
    struct play p;
    struct mc_decision d;

    play_open(&p, NULL);
    play_join_unknown(&p, 1, MC_ROLE_BOTH);
    play_join_unknown(&p, 2, MC_ROLE_BOTH);
    for (uint64_t i = 0; i < 8; i++) {
        d = play_ask(&p, (struct mc_sched_request){ .tokens = 100 + 50 * i });
        assert_int_equal(d.kind, MC_DECIDE_PLACE);
        assert_int_equal(d.reason, MC_REASON_UNKNOWN_COST);
        assert_int_equal(d.predicted.ttft_ns, 0);
        assert_int_equal(d.predicted.tbt_ns, 0);
    }
    for (uint64_t i = 1; i <= 8; i++) { /* 1 ms and 10 us a token, all at instance 1 */
        const uint64_t tokens = 50 + 50 * i;
        p.now_ns += MS + 10000 * tokens;
        const struct mc_sched_event end = { .kind = MC_EVENT_PREFILL_END,
                                            .progress = { .request = i,
                                                          .id = 1,
                                                          .tokens = tokens,
                                                          .duration_ns = MS + 10000 * tokens } };
        const struct mc_sched_event step = {
            .kind = MC_EVENT_DECODE_STEP,
            .progress = { .id = 1, .sequences = i, .tokens = 100 * i, .duration_ns = (10 + i) * MS }
        };
        assert_int_equal(play_step(&p, end), MC_OK);
        assert_int_equal(play_step(&p, step), MC_OK);
        assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, i, 1), MC_OK);
    }
    /* Instance 2 borrows what instance 1 has shown. */
    d = play_ask(&p, (struct mc_sched_request){ .tokens = 1000, .barred = 1, .barred_decode = 1 });
    assert_int_equal(d.reason, MC_REASON_ONLY_ONE);
    assert_true(d.predicted.ttft_ns > 9 * MS && d.predicted.ttft_ns < 14 * MS);
    assert_true(d.predicted.ttft_low_ns <= d.predicted.ttft_ns);
    assert_true(d.predicted.ttft_high_ns >= d.predicted.ttft_ns);
    assert_true(d.predicted.tbt_ns > 9 * MS && d.predicted.tbt_ns < 40 * MS);
    play_close(&p);
}

static void test_events_that_contradict_the_state_change_nothing(void **state)
{
    (void)state;
    struct play p;
    struct mc_key key = { { 0 } };

    play_open(&p, &(struct mc_sched_options){ .instances_max = 1, .requests_max = 1 });
    play_join(&p, 1, MC_ROLE_BOTH);
    const uint32_t before = (uint32_t)play_stats(&p).events_skipped;
    static const uint32_t of_requests[] = { MC_EVENT_PREFILL_BEGIN, MC_EVENT_PREFILL_END,
                                            MC_EVENT_DECODE_BEGIN, MC_EVENT_REQUEST_END };
    uint32_t skipped = 0;
    for (size_t i = 0; i < 4; i++, skipped++)
        assert_int_equal(play_progress(&p, of_requests[i], 99, 1), MC_E_NOT_FOUND);
    static const uint32_t of_instances[] = { MC_EVENT_INSTANCE_GONE, MC_EVENT_INSTANCE_DRAIN,
                                             MC_EVENT_BLOCKS_RESET };
    for (size_t i = 0; i < 3; i++, skipped++)
        assert_int_equal(play_id(&p, of_instances[i], 99), MC_E_NOT_FOUND);

    const struct {
        struct mc_sched_event event;
        mc_status status;
    } wrong[] = {
        { { .kind = 0 }, MC_E_UNSUPPORTED },
        { { .kind = 19 }, MC_E_UNSUPPORTED },
        { { .kind = MC_EVENT_TICK, .reserved = 1 }, MC_E_UNSUPPORTED },
        { { .kind = MC_EVENT_LOAD, .load = { .id = 99 } }, MC_E_NOT_FOUND },
        { { .kind = MC_EVENT_STORED, .blocks = { .id = 99 } }, MC_E_NOT_FOUND },
        { { .kind = MC_EVENT_STORED, .blocks = { .id = 1, .count = 1 } }, MC_E_ARG },
        { { .kind = MC_EVENT_DECODE_STEP, .progress = { .id = 99 } }, MC_E_NOT_FOUND },
        { { .kind = MC_EVENT_TRANSFER_END, .transfer = { .from = 1, .to = 99 } }, MC_E_NOT_FOUND },
        { { .kind = MC_EVENT_INSTANCE, .instance = { .id = 2, .role = 1 } }, MC_E_FULL },
        { { .kind = MC_EVENT_INSTANCE, .instance = { .id = 1, .role = 5 } }, MC_E_ARG },
        { { .kind = MC_EVENT_INSTANCE, .instance = { .id = 0, .role = 1 } }, MC_E_ARG },
        { { .kind = MC_EVENT_INSTANCE, .instance = { .id = 1, .role = 1, .cost.p1 = -1 } },
          MC_E_ARG },
        { { .kind = MC_EVENT_INSTANCE, .instance = { .id = 1, .role = 1, .reserved = { 1 } } },
          MC_E_UNSUPPORTED },
        { { .kind = MC_EVENT_REQUEST, .request = { .id = 0, .tokens = 1 } }, MC_E_ARG },
        { { .kind = MC_EVENT_REQUEST, .request = { .id = 1, .tokens = 0 } }, MC_E_ARG },
        { { .kind = MC_EVENT_REQUEST,
            .request = { .id = 1, .tokens = 15, .keys = &key, .key_count = 1 } },
          MC_E_ARG },
        { { .kind = MC_EVENT_REQUEST, .request = { .id = 1, .tokens = 16, .key_count = 1 } },
          MC_E_ARG },
        { { .kind = MC_EVENT_REQUEST, .request = { .id = 1, .tokens = 1, .flags = 2 } },
          MC_E_UNSUPPORTED },
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++, skipped++)
        if (play_step(&p, wrong[i].event) != wrong[i].status)
            fail_msg("event %d of the table", (int)i);

    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 1 }).kind, MC_DECIDE_PLACE);
    const struct mc_sched_event again = { .kind = MC_EVENT_REQUEST,
                                          .request = { .id = 1, .tokens = 1 } };
    const struct mc_sched_event more = { .kind = MC_EVENT_REQUEST,
                                         .request = { .id = 2, .tokens = 1 } };
    assert_int_equal(play_step(&p, again), MC_E_EXISTS);
    assert_int_equal(play_step(&p, more), MC_E_FULL);
    assert_int_equal(play_stats(&p).events_skipped - before, skipped + 2);
    assert_int_equal(play_stats(&p).requests, 1);
    uint64_t due;
    assert_int_equal(mc_sched_due(p.sched, &due), MC_OK);
    assert_true(due == UINT64_MAX);
    play_close(&p);
}

static void test_options_that_cannot_be_kept_are_refused(void **state)
{
    (void)state;
    struct faulty f;
    static const struct mc_length_predictor predictor = { .name = "x" };
    const struct {
        struct mc_sched_options options;
        mc_status status;
        const char *says;
    } wrong[] = {
        { { .policy = "none such" }, MC_E_NOT_FOUND, "algorithm1, conductor, least-loaded" },
        { { .policy_parameters = "threshold=0.5" }, MC_E_ARG, "threshold" },
        { { .policy_parameters = "threshold" }, MC_E_ARG, "threshold needs" },
        { { .policy_parameters = "speed=1" }, MC_E_ARG, "speed" },
        { { .policy_parameters = "threshold=2x" }, MC_E_ARG, "2x" },
        { { .admission = MC_ADMIT_EARLY_REQUEST + 1 }, MC_E_UNSUPPORTED, "admission" },
        { { .admission_parameters = "a=1" }, MC_E_ARG, "admission_parameters: parameter a" },
        { { .predictor = &predictor }, MC_E_ARG, "predictor" },
        { { .flags = 1 }, MC_E_UNSUPPORTED, "option" },
        { { .reserved = { 1 } }, MC_E_UNSUPPORTED, "option" },
        { { .instances_max = 1 << 20 }, MC_E_RANGE, "instances_max" },
        { { .requests_max = UINT64_MAX }, MC_E_RANGE, "requests_max" },
        { { .blocks_max = UINT64_MAX }, MC_E_RANGE, "blocks_max" },
        { { .block_tokens = UINT64_MAX }, MC_E_RANGE, "block_tokens" },
    };

    faulty_init(&f, -1);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct mc_sched_options o = wrong[i].options;
        struct mc_error error = { 0 };
        mc_sched *sched = NULL;

        o.alloc = &f.alloc;
        if (o.blocks_max == 0)
            o.blocks_max = 16;
        assert_int_equal(mc_sched_open(&o, &sched, &error), wrong[i].status);
        assert_null(sched);
        assert_non_null(strstr(error.text, wrong[i].says));
        assert_int_equal(f.held, 0);
    }
    mc_sched *sched = NULL;
    assert_int_equal(mc_sched_open(NULL, &sched, NULL), MC_E_ARG);
    mc_sched_close(NULL);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct faulty f;
        struct mc_error error = { 0 };
        mc_sched *sched = NULL;

        faulty_init(&f, k);
        const struct mc_sched_options o = { .alloc = &f.alloc,
                                            .policy = "sglang",
                                            .replication = "on",
                                            .instances_max = 2,
                                            .requests_max = 2,
                                            .blocks_max = 2 };
        const mc_status status = mc_sched_open(&o, &sched, &error);
        if (status == MC_OK) {
            mc_sched_close(sched);
            assert_int_equal(f.held, 0);
            assert_int_equal(k, f.calls);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_int_equal(error.status, MC_E_NOMEM);
        assert_null(sched);
        assert_int_equal(f.held, 0);
    }
}

/* A random cluster and its load, as events: the same for the same seed. */
static struct mc_sched_event random_event(struct prng *prng, uint64_t *request, struct mc_key *keys)
{
    const uint64_t instance = 1 + prng_below(prng, 6), some = 1 + prng_below(prng, 60);
    struct mc_sched_event e = { .kind = 1 + prng_below(prng, 24) };

    if (e.kind > MC_EVENT_SLO)
        e.kind = MC_EVENT_REQUEST;
    switch (e.kind) {
    case MC_EVENT_INSTANCE:
        e.instance = (struct mc_sched_instance){ .id = instance,
                                                 .role = instance > 4 ? MC_ROLE_STORE
                                                                      : 1 + prng_below(prng, 3),
                                                 .host = prng_below(prng, 3),
                                                 .kv_tokens_max = 4000,
                                                 .kv_token_bytes = 64 };
        break;
    case MC_EVENT_LOAD:
        e.load = (struct mc_sched_load){ .id = instance,
                                         .lease_ns = prng_below(prng, 100) * MS,
                                         .queued = prng_below(prng, 3),
                                         .queued_tokens = prng_below(prng, 3000),
                                         .running = prng_below(prng, 9),
                                         .context_tokens = prng_below(prng, 3000),
                                         .free_tokens = prng_below(prng, 4000),
                                         .send_bytes = prng_below(prng, 1 << 20),
                                         .latest = *request > some ? *request - some : 0 };
        break;
    case MC_EVENT_STORED:
    case MC_EVENT_EVICTED:
        e.blocks = (struct mc_sched_blocks){ .id = instance, .keys = keys, .count = some % 9 };
        break;
    case MC_EVENT_REQUEST:
        e.request = (struct mc_sched_request){ .id = ++*request,
                                               .tokens = 16 + prng_below(prng, 300),
                                               .keys = keys,
                                               .key_count = prng_below(prng, 2),
                                               .barred = prng_below(prng, 6) };
        break;
    case MC_EVENT_TRANSFER_BEGIN:
    case MC_EVENT_TRANSFER_END:
        e.transfer = (struct mc_sched_transfer){ .from = instance,
                                                 .to = 1 + prng_below(prng, 6),
                                                 .bytes = prng_below(prng, 1 << 24),
                                                 .duration_ns = prng_below(prng, 50 * MS) };
        break;
    case MC_EVENT_SLO:
        e.slo.tbt_ns = prng_below(prng, 100 * MS);
        break;
    case MC_EVENT_INSTANCE_GONE:
    case MC_EVENT_INSTANCE_DRAIN:
    case MC_EVENT_BLOCKS_RESET:
        e.id = prng_below(prng, 4) ? 0 : instance;
        break;
    case MC_EVENT_TICK:
        break;
    default:
        e.progress = (struct mc_sched_progress){ .request = *request > some ? *request - some : 1,
                                                 .id = instance,
                                                 .tokens = prng_below(prng, 500),
                                                 .reused = prng_below(prng, 100),
                                                 .sequences = prng_below(prng, 8),
                                                 .duration_ns = prng_below(prng, 50 * MS) };
    }
    return e;
}

/* Plays 600 events; all decisions into `out`. Nothing may be allocated on the way. */
static size_t play_random(uint64_t seed, const char *policy, struct mc_decision *out,
                          size_t capacity)
{
    struct play p;
    struct prng prng = { .seed = seed };
    struct mc_key keys[8];
    uint64_t request = 0;
    size_t total = 0;

    play_open(&p, &(struct mc_sched_options){
                      .policy = policy, .seed = 7, .requests_max = 32, .blocks_max = 8 });
    play_keys(keys, 8, 3);
    const long calls = p.faulty.calls;
    for (int i = 0; i < 600; i++) {
        const struct mc_sched_event event = random_event(&prng, &request, keys);
        size_t count = 0;

        p.now_ns += prng_below(&prng, 20 * MS);
        (void)!mc_sched_step(p.sched, p.now_ns, &event);
        while (mc_sched_take(p.sched, out + total, capacity - total, &count) == MC_OK)
            total += count;
    }
    assert_int_equal(p.faulty.calls, calls);
    assert_true(total < capacity);
    const struct mc_sched_stats stats = play_stats(&p);
    assert_int_equal(stats.decisions_lost, 0);
    assert_true(stats.placed >= stats.aborted + stats.requests);
    play_close(&p);
    return total;
}

static void test_the_same_events_give_the_same_decisions_byte_for_byte(void **state)
{
    (void)state;
    enum { MANY = 4000 };
    static const char *const policies[] = { "algorithm1", "least-loaded", "round-robin", "random" };
    struct mc_decision *a = calloc(MANY, sizeof(*a)), *b = calloc(MANY, sizeof(*b));

    assert_non_null(a);
    assert_non_null(b);
    for (uint64_t seed = 0; seed < 40; seed++) {
        const char *policy = policies[seed % 4];
        const size_t count = play_random(seed, policy, a, MANY);

        assert_int_equal(play_random(seed, policy, b, MANY), count);
        assert_memory_equal(a, b, count * sizeof(*a));
    }
    free(a);
    free(b);
}

static mc_status no_parameters(void *state, const char *parameters, struct mc_error *error)
{
    (void)state, (void)parameters, (void)error;
    return MC_OK;
}

static void place_nonsense(void *state, const struct mc_view *view,
                           const struct mc_sched_request *request, struct mc_decision *d)
{
    (void)state, (void)view;
    static const uint32_t kinds[] = { 0, MC_DECIDE_PLACE, MC_DECIDE_WAIT, MC_DECIDE_PLACE, 77 };

    *d = (struct mc_decision){ .kind = kinds[request->id % 5],
                               .prefill = request->id % 5 == 3 ? 1 : 42,
                               .holder = 43,
                               .pull_tokens = 1 << 20,
                               .decode = 44 };
}

static void test_a_policy_that_talks_nonsense_is_held_to_the_view(void **state)
{
    (void)state;
    struct play p;
    const struct mc_policy nonsense = { .name = "nonsense",
                                        .init = no_parameters,
                                        .place = place_nonsense };
    const uint32_t reasons[] = { MC_REASON_POLICY, MC_REASON_QUEUE_FULL, 0, MC_REASON_POLICY,
                                 MC_REASON_POLICY };

    play_open(&p, &(struct mc_sched_options){
                      .policies = &nonsense, .policy_count = 1, .policy = "nonsense" });
    play_join(&p, 1, MC_ROLE_BOTH);
    for (size_t i = 0; i < 5; i++) {
        const struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 100 });
        assert_int_equal(d.kind, i == 2 ? MC_DECIDE_PLACE : MC_DECIDE_REFUSE);
        if (i != 2)
            assert_int_equal(d.reason, reasons[i]);
        assert_int_equal(d.holder | d.pull_tokens | d.reuse_tokens, 0);
        assert_int_equal(d.decode, i == 2 ? 1 : 0);
    }
    play_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_of_each_role_gets_everything_with_predictions),
        cmocka_unit_test(test_a_burst_spreads_before_any_load_report),
        cmocka_unit_test(test_load_reports_count_until_their_lease_ends),
        cmocka_unit_test(test_what_was_placed_after_a_report_is_added_to_it),
        cmocka_unit_test(test_refusals_say_why),
        cmocka_unit_test(test_barred_and_draining_instances_get_nothing),
        cmocka_unit_test(test_requests_of_a_lost_instance_are_aborted_once),
        cmocka_unit_test(test_a_prefix_in_the_pool_is_pulled_from_all_its_nodes),
        cmocka_unit_test(test_two_that_pull_from_one_wait_for_each_other),
        cmocka_unit_test(test_unknown_costs_place_by_load_and_are_learnt),
        cmocka_unit_test(test_events_that_contradict_the_state_change_nothing),
        cmocka_unit_test(test_options_that_cannot_be_kept_are_refused),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
        cmocka_unit_test(test_the_same_events_give_the_same_decisions_byte_for_byte),
        cmocka_unit_test(test_a_policy_that_talks_nonsense_is_held_to_the_view),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
