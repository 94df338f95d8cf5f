/* test_conductor.c - what the policy `conductor` promises: who goes first, who waits for whom, who decodes where. */
#include "fixture.h"

enum { SECOND = 1000 * MS };

/* A prefill takes 1 ms a token: prompts of seconds fit into small memories. */
static void join(struct play *p, uint64_t id, uint32_t role)
{
    const struct mc_sched_event event = {
        .kind = MC_EVENT_INSTANCE,
        .instance = { .id = id,
                      .role = role,
                      .kv_tokens_max = 1 << 20,
                      .sequences_max = 64,
                      .kv_token_bytes = 100,
                      .cost = { .p1 = 1e-3, .d0 = 10e-3, .d1 = 1e-3, .bytes_per_s = 1e9 } }
    };
    assert_int_equal(play_step(p, event), MC_OK);
}

static void open_with(struct play *p, uint64_t prefills, uint64_t decodes, uint64_t ttft_ns)
{
    const struct mc_sched_options options = { .policy = "conductor",
                                              .admission =
                                                  ttft_ns ? MC_ADMIT_EARLY_SYSTEM : MC_ADMIT_ALL,
                                              .blocks_max = 4096,
                                              .slo = { .ttft_ns = ttft_ns } };
    play_open(p, &options);
    p->now_ns = SECOND;
    for (uint64_t i = 1; i <= prefills; i++)
        join(p, i, MC_ROLE_PREFILL);
    for (uint64_t i = 1; i <= decodes; i++)
        join(p, 100 + i, MC_ROLE_DECODE);
}

/* With one objective for all nobody is overtaken: what was predicted holds. */
static void who_came_first_goes_first(void **state)
{
    struct play p;

    (void)state;
    open_with(&p, 1, 1, 30 * (uint64_t)SECOND);
    const struct mc_decision dear = play_ask(&p, (struct mc_sched_request){ .tokens = 3000 });
    p.now_ns += 500 * MS;
    const struct mc_decision cheap = play_ask(&p, (struct mc_sched_request){ .tokens = 100 });
    assert_true(dear.order < cheap.order);
    assert_in_range(cheap.predicted.queue_ns, 2400 * (uint64_t)MS, 2600 * (uint64_t)MS);
    play_close(&p);
}

/* Who has less time goes first, and what is predicted for him is that. */
static void who_has_less_time_goes_first(void **state)
{
    struct play p;

    (void)state;
    open_with(&p, 1, 1, 30 * (uint64_t)SECOND);
    p.now_ns = 60 * (uint64_t)SECOND;
    const struct mc_decision running = play_ask(&p, (struct mc_sched_request){ .tokens = 1000 });
    assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_BEGIN, p.last_request, running.prefill),
                     MC_OK);
    const struct mc_decision has_time = play_ask(&p, (struct mc_sched_request){ .tokens = 3000 });
    const struct mc_decision has_not = play_ask(
        &p, (struct mc_sched_request){ .tokens = 100, .slo = { .ttft_ns = 3 * (uint64_t)SECOND } });

    assert_int_equal(has_not.kind, MC_DECIDE_PLACE);
    assert_true(has_not.order < has_time.order);
    assert_in_range(has_not.predicted.queue_ns, 900 * MS, 1100 * MS);
    /* Asked again after a while, its time is counted from when it came. */
    const struct mc_decision waited =
        play_ask(&p, (struct mc_sched_request){ .tokens = 100,
                                                .arrived_ns = p.now_ns - 29 * (uint64_t)SECOND });
    assert_true(waited.order < has_not.order);
    play_close(&p);
}

/* Refused is who could not have been in time: one who asks for less still can. */
static void a_full_queue_takes_what_fits(void **state)
{
    struct play p;
    uint64_t placed = 0;

    (void)state;
    open_with(&p, 1, 1, 10 * (uint64_t)SECOND);
    while (play_ask(&p, (struct mc_sched_request){ .tokens = 1500 }).kind == MC_DECIDE_PLACE)
        placed++;
    assert_in_range(placed, 5, 6); /* 9 s are full */
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 100 }).kind,
                     MC_DECIDE_PLACE);
    play_close(&p);
}

static void a_prefix_on_its_way_is_waited_for(void **state)
{
    struct mc_key keys[128];
    struct play p;

    (void)state;
    open_with(&p, 4, 1, 0);
    play_keys(keys, 128, 1);
    const struct mc_sched_request first = { .tokens = 2000, .keys = keys, .key_count = 120 };
    const struct mc_decision a = play_ask(&p, first);
    const struct mc_decision b =
        play_ask(&p, (struct mc_sched_request){ .tokens = 2040, .keys = keys, .key_count = 124 });

    assert_int_equal(b.prefill, a.prefill);
    assert_int_equal(b.reason, MC_REASON_BATCHED);
    assert_int_equal(b.reuse_tokens, 120 * 16);
    assert_in_range(b.predicted.prefill_ns, 110 * MS, 130 * MS);

    /* The queue is done, and nothing was said to be stored: nothing is on its way any more. */
    for (uint64_t r = 1; r <= 2; r++) {
        assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_BEGIN, r, a.prefill), MC_OK);
        assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_END, r, a.prefill), MC_OK);
    }
    const struct mc_decision c = play_ask(&p, first);
    assert_int_equal(c.reuse_tokens, 0);
    play_close(&p);
}

/* The beginning of it was stored meanwhile, by another prompt; the rest is still on its way behind that. */
static void what_is_stored_does_not_hide_what_comes(void **state)
{
    struct mc_key keys[128];
    struct play p;

    (void)state;
    open_with(&p, 4, 1, 0);
    play_keys(keys, 128, 1);
    const struct mc_decision a =
        play_ask(&p, (struct mc_sched_request){ .tokens = 2000, .keys = keys, .key_count = 120 });
    const struct mc_sched_request longer = { .tokens = 2040, .keys = keys, .key_count = 124 };
    play_stored(&p, a.prefill, keys, 10);
    const struct mc_decision b = play_ask(&p, longer);
    assert_int_equal(b.prefill, a.prefill);
    assert_int_equal(b.reuse_tokens, 120 * 16);

    /* What is dropped has to be computed again before what is behind it is there. */
    assert_int_equal(play_step(&p,
                               (struct mc_sched_event){
                                   .kind = MC_EVENT_EVICTED,
                                   .blocks = { .id = a.prefill, .keys = keys, .count = 10 } }),
                     MC_OK);
    assert_int_equal(play_ask(&p, longer).reuse_tokens, 0);
    play_close(&p);
}

/* Where computing it again elsewhere is sooner, it is computed again. */
static void a_prefix_that_comes_too_late_is_not(void **state)
{
    struct mc_key keys[8];
    struct play p;

    (void)state;
    open_with(&p, 2, 1, 0);
    play_keys(keys, 8, 1);
    play_ask(&p, (struct mc_sched_request){ .tokens = 3000, .keys = keys, .key_count = 8 });
    const struct mc_decision b =
        play_ask(&p, (struct mc_sched_request){ .tokens = 200, .keys = keys, .key_count = 8 });
    assert_int_equal(b.prefill, 2);
    assert_int_equal(b.reuse_tokens, 0);
    play_close(&p);
}

static void a_pull_hides_behind_the_queue(void **state)
{
    struct mc_key keys[100];
    struct play p;

    (void)state;
    open_with(&p, 1, 1, 0);
    join(&p, 50, MC_ROLE_STORE);
    play_keys(keys, 100, 1);
    play_stored(&p, 50, keys, 100);
    play_ask(&p, (struct mc_sched_request){ .tokens = 2000 });
    assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_BEGIN, p.last_request, 1), MC_OK);
    const struct mc_decision d =
        play_ask(&p, (struct mc_sched_request){ .tokens = 1700, .keys = keys, .key_count = 100 });
    assert_int_equal(d.holder, 50);
    assert_true(d.predicted.queue_ns >= 1900 * (uint64_t)MS);
    assert_int_equal(d.predicted.transfer_ns, 0);
    play_close(&p);
}

static void joins_are_kept_apart(void **state)
{
    struct play p;

    (void)state;
    open_with(&p, 2, 2, 0);
    /* A short prompt is at the first; with the second one in mind, 101 has the shorter step for a while. */
    const struct mc_decision a = play_ask(&p, (struct mc_sched_request){ .tokens = 5000 });
    const struct mc_decision b = play_ask(&p, (struct mc_sched_request){ .tokens = 5000 });
    assert_true(a.decode != b.decode); /* they will join at the same time */
    /* One that joins much later does not care: it is the step that counts. */
    const struct mc_decision c = play_ask(&p, (struct mc_sched_request){ .tokens = 9000 });
    assert_true(c.decode == a.decode || c.decode == b.decode);
    play_close(&p);
}

/* Two that prefill and one that decodes; nobody is refused. */
static void open_two(struct play *p, const char *parameters, uint64_t ttft_ns, uint64_t tbt_ns)
{
    play_open(p, &(struct mc_sched_options){ .policy = "conductor",
                                             .policy_parameters = parameters,
                                             .admission = MC_ADMIT_ALL,
                                             .slo = { ttft_ns, tbt_ns } });
    p->now_ns = SECOND;
    join(p, 1, MC_ROLE_PREFILL);
    join(p, 2, MC_ROLE_PREFILL);
    join(p, 101, MC_ROLE_DECODE);
}

/* Two prompts of a second come at once; what is said of the second one. `ended`: the first one's end comes between. */
static struct mc_decision second_of_two(const char *parameters, uint64_t ttft_ns, uint64_t tbt_ns,
                                        bool ended)
{
    struct play p;

    open_two(&p, parameters, ttft_ns, tbt_ns);
    const struct mc_decision a = play_ask(&p, (struct mc_sched_request){ .tokens = 1000 });
    assert_int_equal(a.reason, MC_REASON_LEAST_TTFT);
    if (ended) /* nobody waits for it any more */
        assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, p.last_request, 101), MC_OK);
    const struct mc_decision b = play_ask(&p, (struct mc_sched_request){ .tokens = 1000 });
    assert_int_equal(b.predicted.queue_ns, a.prefill == b.prefill && !ended ? SECOND : 0);
    play_close(&p);
    return b;
}

/* The other one is free, but both would join the batch at the same time: it waits behind the first, if it has that time. */
static void who_has_time_does_not_join_with_others(void **state)
{
    const uint64_t s = SECOND, tbt = 100 * MS;

    (void)state;
    assert_int_equal(second_of_two(NULL, 30 * s, tbt, false).reason, MC_REASON_SPREAD);
    assert_int_equal(second_of_two(NULL, 30 * s, tbt, true).reason, MC_REASON_LEAST_TTFT);
    assert_int_equal(second_of_two("spread=0", 30 * s, tbt, false).reason, MC_REASON_LEAST_TTFT);
    assert_int_equal(second_of_two("spread=10", 2 * s, tbt, false).reason, MC_REASON_LEAST_TTFT);
    assert_int_equal(second_of_two(NULL, 0, tbt, false).reason, MC_REASON_LEAST_TTFT);
    assert_int_equal(second_of_two(NULL, 30 * s, 0, false).reason, MC_REASON_LEAST_TTFT);
}

/* It was expected in a second, and is there at once: who comes now keeps away from now. */
static void a_join_counts_when_it_was(void **state)
{
    const struct mc_sched_event busy = {
        .kind = MC_EVENT_LOAD,
        .load = { .id = 2, .lease_ns = SECOND, .queued = 1, .queued_tokens = 800, .free_tokens = 1 }
    };
    struct play p;

    (void)state;
    open_two(&p, NULL, 30 * (uint64_t)SECOND, 100 * MS);
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 1000 }).prefill, 1);
    assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_BEGIN, p.last_request, 1), MC_OK);
    assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_END, p.last_request, 1), MC_OK);
    assert_int_equal(play_progress(&p, MC_EVENT_DECODE_BEGIN, p.last_request, 101), MC_OK);
    assert_int_equal(play_step(&p, busy), MC_OK);
    const struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 10 });
    assert_int_equal(d.prefill, 2);
    assert_int_equal(d.reason, MC_REASON_SPREAD);
    play_close(&p);
}

/* Then it is not for others that it is made later still. */
static void of_those_that_would_be_late_it_takes_the_least(void **state)
{
    struct play p;

    (void)state;
    open_two(&p, NULL, 2 * (uint64_t)SECOND, 100 * MS);
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 1600 }).prefill, 1);
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 1500 }).prefill, 2);
    const struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 1000 });
    assert_int_equal(d.prefill, 2);
    assert_int_equal(d.reason, MC_REASON_LEAST_TTFT);
    play_close(&p);
}

/* Who just lost it is not asked again, though it is idle. */
static void who_is_barred_does_not_decode_it(void **state)
{
    struct play p;

    (void)state;
    open_with(&p, 1, 2, 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(
            play_ask(&p, (struct mc_sched_request){ .tokens = 100, .barred_decode = 101 }).decode,
            102);
    play_close(&p);
}

/* Where one does both, nothing is handed over. */
static void of_equals_the_one_that_prefills_decodes(void **state)
{
    struct play p;

    (void)state;
    open_with(&p, 0, 0, 0);
    for (uint64_t id = 1; id <= 3; id++)
        join(&p, id, MC_ROLE_BOTH);
    for (int i = 0; i < 3; i++) {
        const struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 1000 });
        assert_int_equal(d.decode, d.prefill);
    }
    play_close(&p);
}

/* A long prompt stops those who joined before it for long; it is not refused for that. */
static void what_it_does_to_others_counts_as_a_mean_prompts(void **state)
{
    struct mc_key keys[300];
    struct play p;

    (void)state;
    open_with(&p, 2, 1, 0);
    play_keys(keys, 300, 1);
    play_stored(&p, 2, keys, 300);
    const struct mc_decision first = play_ask(&p, (struct mc_sched_request){ .tokens = 500 });
    assert_int_equal(first.predicted.tbt_ns, 11 * MS); /* alone */
    const struct mc_decision d =
        play_ask(&p, (struct mc_sched_request){ .tokens = 5310, .keys = keys, .key_count = 300 });
    assert_int_equal(d.prefill, 2); /* 10 ms later than the first one's prefill it ends */
    assert_int_equal(d.predicted.prefill_ns, 510 * MS);
    assert_in_range(d.predicted.tbt_ns, 11 * MS + 1, 15 * MS);
    play_close(&p);
}

/* Nor is a short one let in for being short: all stand still for it, too. */
static void a_short_prompts_join_counts(void **state)
{
    struct play p;

    (void)state;
    open_with(&p, 1, 1, 0);
    play_ask(&p, (struct mc_sched_request){ .tokens = 500 });
    const struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 10 });
    assert_int_equal(d.predicted.queue_ns, 500 * MS); /* it joins 10 ms after the first */
    assert_in_range(d.predicted.tbt_ns, 12 * MS + 200000, 13 * MS);
    play_close(&p);
}

/* From a prefill's end to the first token it takes 5 ms and a tenth of a millisecond for each token. */
static void what_follows_a_prefill_is_learnt_by_its_length(void **state)
{
    struct play p;

    (void)state;
    open_with(&p, 1, 1, 30 * (uint64_t)SECOND);
    for (uint64_t i = 0; i < 40; i++) {
        const uint64_t tokens = i % 2 ? 100 : 1000;
        const struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = tokens });
        const uint64_t r = d.request;

        assert_int_equal(d.predicted.other_ns == 0, i < 5); /* too little was seen */
        assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_BEGIN, r, 1), MC_OK);
        p.now_ns += tokens * MS;
        assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_END, r, 1), MC_OK);
        p.now_ns += 5 * MS + tokens * MS / 10;
        assert_int_equal(play_progress(&p, MC_EVENT_DECODE_BEGIN, r, 101), MC_OK);
        assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, r, 101), MC_OK);
    }
    struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 2000 });
    assert_in_range(d.predicted.other_ns, 195 * MS, 215 * MS);
    /* What the first ones had besides, and nobody knew of then, is no error of those who come now. */
    assert_in_range(d.predicted.ttft_high_ns, 2195 * (uint64_t)MS, 2230 * (uint64_t)MS);
    assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, d.request, 101), MC_OK);
    p.now_ns += 30 * (uint64_t)SECOND; /* no news: half of it is left */
    d = play_ask(&p, (struct mc_sched_request){ .tokens = 100 });
    assert_in_range(d.predicted.other_ns, 7 * MS, 9 * MS);
    play_close(&p);
}

/* Sixty requests come and go; of twenty of them `many` have longest gaps of 44 ms, the others of 220 ms. Then two come at
 * once: what is said to the second one, who alone has an objective, 100 ms. */
static struct mc_decision after_gaps(const char *policy, const char *parameters, int many)
{
    const struct mc_sched_options options = { .policy = policy,
                                              .admission_parameters = parameters };
    struct play p;

    play_open(&p, &options);
    p.now_ns = SECOND;
    join(&p, 1, MC_ROLE_PREFILL);
    join(&p, 101, MC_ROLE_DECODE);
    for (int i = 0; i < 60; i++) {
        play_ask(&p, (struct mc_sched_request){ .tokens = 100 });
        const uint64_t r = p.last_request;
        p.now_ns += 100 * MS;
        assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_BEGIN, r, 1), MC_OK);
        assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_END, r, 1), MC_OK);
        assert_int_equal(play_progress(&p, MC_EVENT_DECODE_BEGIN, r, 101), MC_OK);
        p.now_ns += 10 * 11 * MS;
        const struct mc_sched_progress end = {
            .request = r, .id = 101, .tokens = 11, .gap_ns = i * 7 % 20 < many ? 44 * MS : 220 * MS
        };
        assert_int_equal(
            play_step(&p, (struct mc_sched_event){ .kind = MC_EVENT_REQUEST_END, .progress = end }),
            MC_OK);
    }
    play_ask(&p, (struct mc_sched_request){ .tokens = 100 });
    const struct mc_decision d =
        play_ask(&p, (struct mc_sched_request){ .tokens = 100, .slo = { .tbt_ns = 100 * MS } });
    play_close(&p);
    return d;
}

/* Of a request that was decoded, its longest gaps are what the TBT is; the other policies take the mean. */
static void the_longest_gaps_are_learnt(void **state)
{
    (void)state;
    const uint64_t step = 12 * MS, gaps = 4 * step; /* a step of two; gaps were four steps */

    assert_in_range(after_gaps("algorithm1", NULL, 20).predicted.tbt_ns, step - MS, step + MS);
    assert_in_range(after_gaps("algorithm1", "gaps=0.5", 20).predicted.tbt_ns, gaps - MS,
                    gaps + MS);
    /* and they join 0.1 s apart */
    assert_in_range(after_gaps("conductor", NULL, 20).predicted.tbt_ns, gaps + 4 * MS,
                    gaps + 10 * MS);
}

/* They are half chance: who is let in has them kept as often as `gaps` says. */
static void a_share_has_to_keep_its_gaps(void **state)
{
    (void)state;
    assert_int_equal(after_gaps("conductor", NULL, 12).kind, MC_DECIDE_PLACE);
    assert_int_equal(after_gaps("conductor", NULL, 8).kind, MC_DECIDE_REFUSE);
    assert_int_equal(after_gaps("conductor", "gaps=0.3", 8).kind, MC_DECIDE_PLACE);
    const struct mc_decision most = after_gaps("conductor", "gaps=0.6", 9);
    assert_int_equal(most.kind, MC_DECIDE_REFUSE);
    assert_true(most.predicted.tbt_ns > 100 * MS);
    assert_true(most.predicted.tbt_high_ns >= most.predicted.tbt_ns);
}

/* Long prompts decode where long ones do, short ones where short ones do. */
static void who_is_alike_decodes_together(void **state)
{
    uint64_t at[2][2] = { { 0 } }; /* by length and place */
    struct play p;

    (void)state;
    open_with(&p, 4, 2, 0);
    for (int i = 0; i < 80; i++) {
        const bool is_long = i % 2 == 0;
        const struct mc_decision d =
            play_ask(&p, (struct mc_sched_request){ .tokens = is_long ? 900 : 100 });

        assert_in_range(d.decode, 101, 102);
        if (i >= 20) /* at first nobody is like anybody */
            at[is_long][d.decode - 101]++;
        assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_BEGIN, p.last_request, d.prefill),
                         MC_OK);
        p.now_ns += 2 * (uint64_t)SECOND;
        assert_int_equal(play_progress(&p, MC_EVENT_PREFILL_END, p.last_request, d.prefill), MC_OK);
        assert_int_equal(play_progress(&p, MC_EVENT_DECODE_BEGIN, p.last_request, d.decode), MC_OK);
        p.now_ns += SECOND;
        assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, p.last_request, d.decode), MC_OK);
    }
    const int home = at[1][0] > at[1][1] ? 0 : 1;
    assert_true(at[1][home] >= 27);
    assert_true(at[0][!home] >= 27);
    play_close(&p);
}

/* Opening it fails cleanly, wherever memory runs out. */
static void it_opens_or_leaves_nothing(void **state)
{
    (void)state;
    for (int allocations = 0; allocations < 1000; allocations++) {
        struct faulty faulty;
        struct mc_sched_options options = {
            .policy = "conductor", .instances_max = 8, .requests_max = 8, .blocks_max = 32
        };
        mc_sched *sched = NULL;

        faulty_init(&faulty, allocations);
        options.alloc = &faulty.alloc;
        const mc_status status = mc_sched_open(&options, &sched, NULL);
        if (status == MC_OK) {
            mc_sched_close(sched);
            assert_int_equal(faulty.held, 0);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_int_equal(faulty.held, 0);
    }
    fail_msg("it never opened");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_came_first_goes_first),
        cmocka_unit_test(who_has_less_time_goes_first),
        cmocka_unit_test(a_full_queue_takes_what_fits),
        cmocka_unit_test(a_prefix_on_its_way_is_waited_for),
        cmocka_unit_test(what_is_stored_does_not_hide_what_comes),
        cmocka_unit_test(a_prefix_that_comes_too_late_is_not),
        cmocka_unit_test(a_pull_hides_behind_the_queue),
        cmocka_unit_test(joins_are_kept_apart),
        cmocka_unit_test(who_has_time_does_not_join_with_others),
        cmocka_unit_test(a_join_counts_when_it_was),
        cmocka_unit_test(of_those_that_would_be_late_it_takes_the_least),
        cmocka_unit_test(who_is_barred_does_not_decode_it),
        cmocka_unit_test(of_equals_the_one_that_prefills_decodes),
        cmocka_unit_test(what_it_does_to_others_counts_as_a_mean_prompts),
        cmocka_unit_test(a_short_prompts_join_counts),
        cmocka_unit_test(what_follows_a_prefill_is_learnt_by_its_length),
        cmocka_unit_test(the_longest_gaps_are_learnt),
        cmocka_unit_test(a_share_has_to_keep_its_gaps),
        cmocka_unit_test(who_is_alike_decodes_together),
        cmocka_unit_test(it_opens_or_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
