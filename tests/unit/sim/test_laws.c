/* test_laws.c - what holds for every cluster, trace and setting: ends, bounds, determinism, memory. */
#include "world.h"

static const char *const clusters[] = { "3P+2D", "1P+1D",    "2P2+2D",  "3C",
                                        "1C+1C", "2P+2D+2S", "1P+1S+2D" };
enum { CLUSTERS = sizeof(clusters) / sizeof(clusters[0]) };
static const char *const policies[] = { "algorithm1",          "local",
                                        "least-loaded",        "random",
                                        "round-robin",         "coupled-random",
                                        "coupled-least-loaded" };

static void fill(struct play *p, struct prng *prng, uint32_t count)
{
    double at = 0;

    for (uint32_t i = 0; i < count; i++) {
        at += prng_below(prng, 4) ? 0 : prng_below(prng, 3000) / 1000.0;
        const uint32_t input = 1 + prng_below(prng, 1500);
        play_add(p, at, input, 1 + prng_below(prng, 60), prng_below(prng, 10),
                 prng_below(prng, 12));
    }
}

static void choose(struct play *p, struct prng *prng, struct sim_change changes[3])
{
    play_init(p, clusters[prng_below(prng, CLUSTERS)]);
    struct sim_options *o = &p->options;

    o->policy =
        policies[o->groups[0].role == MC_ROLE_BOTH ? 5 + prng_below(prng, 2) : prng_below(prng, 5)];
    o->seed = prng_next(prng);
    o->admission = (enum mc_admission)(MC_ADMIT_ALL + prng_below(prng, 5));
    o->order = (enum sim_order)prng_below(prng, 3);
    o->chunk_tokens = prng_below(prng, 2) ? 0 : 1 + prng_below(prng, 700);
    o->interleave = 1 + prng_below(prng, 3);
    o->coupled = (enum sim_coupled)prng_below(prng, 3);
    o->eviction = (enum tier_policy)prng_below(prng, 4);
    o->ssd_tokens = prng_below(prng, 2) ? 3000 : 0;
    o->assume.stream = prng_below(prng, 2);
    o->assume.decode_keeps = prng_below(prng, 2);
    o->assume.first_step = prng_below(prng, 2);
    o->assume.receive_token_s = prng_below(prng, 2) ? 0 : 1e-4;
    o->assume.step_sequence_s = 0.0003; /* two in a batch are too slow */
    o->check_decode = prng_below(prng, 2);
    o->replication = prng_below(prng, 2) ? "rate=1000,gain=0.1,asked=1" : "off";
    o->slo_ttft_ns = 5000000000;
    o->slo_tbt_ns = 10500000;
    o->retries = prng_below(prng, 3);
    o->come_back = prng_below(prng, 3) / 2.0;
    o->speed = 0.5 + prng_below(prng, 4);
    for (uint32_t i = 0; i < 3; i++)
        changes[i] = (struct sim_change){ .at_ns = (3 + i * 4) * UINT64_C(1000000000),
                                          .kind = (enum sim_change_kind)prng_below(prng, 3),
                                          .instance = prng_below(prng, 2) };
    for (uint32_t i = 0; i < 3; i++)
        if (changes[i].kind == SIM_JOIN && (changes[i].instance >= o->group_count ||
                                            o->groups[changes[i].instance].role == MC_ROLE_STORE))
            changes[i].instance = 0;
    o->changes = changes;
    o->change_count = prng_below(prng, 4);
}

static void check_records(const struct play *p)
{
    uint32_t counts[SIM_OUTCOMES] = { 0 };

    for (uint32_t i = 0; i < p->result.record_count; i++) {
        const struct sim_record *r = &p->result.records[i];

        assert_in_range(r->outcome, SIM_FINISHED, SIM_LOST);
        counts[r->outcome]++;
        assert_true(r->end_ns >= r->arrival_ns && r->end_ns <= p->result.end_ns);
        assert_true(r->reused < r->input && r->pulled <= r->input);
        if (r->outcome != SIM_FINISHED)
            continue;
        assert_true(r->arrival_ns <= r->asked_ns && r->asked_ns <= r->prefill_begin_ns);
        assert_true(r->returns > 0 || r->asked_ns == r->arrival_ns);
        assert_true(r->prefill_begin_ns < r->prefill_end_ns);
        assert_true(r->prefill_end_ns <= r->moved_ns && r->moved_ns <= r->join_ns);
        assert_true(r->join_ns <= r->first_token_ns && r->first_token_ns <= r->end_ns);
        assert_true(r->busy_s > 0);
        assert_true(r->tbt_worst >= r->tbt_mean * 0.9999f && r->tbt_most >= r->tbt_worst * 0.9999f);
        assert_true(r->output == 1 || r->tbt_mean > 0);
    }
    uint32_t sum = 0;
    for (int i = SIM_FINISHED; i < SIM_OUTCOMES; i++)
        sum += counts[i];
    assert_int_equal(sum, p->trace.count); /* everybody ends, once */
}

/* sim_run() itself checks at the end that nothing is held, waits, or is in memory. */
static void test_every_request_of_random_worlds_ends_once(void **state)
{
    (void)state;
    static struct play p;
    uint32_t outcomes[SIM_OUTCOMES] = { 0 };

    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct prng prng = { .seed = seed };
        struct sim_change changes[3];

        choose(&p, &prng, changes);
        fill(&p, &prng, 20 + prng_below(&prng, 60));
        (void)play_run(&p);
        check_records(&p);
        for (uint32_t i = 0; i < p.trace.count; i++)
            outcomes[p.result.records[i].outcome]++;
        play_close(&p);
    }
    assert_true(outcomes[SIM_FINISHED] > 1000 && outcomes[SIM_REFUSED] > 100);
    assert_true(outcomes[SIM_LOST] > 0 && outcomes[SIM_REFUSED_LATE] > 0);
}

static void test_the_same_seed_gives_the_same_bytes(void **state)
{
    (void)state;
    static struct play a, b;

    for (uint64_t seed = 200; seed < 220; seed++) {
        struct prng prng = { .seed = seed }, again = { .seed = seed };
        struct sim_change changes[3], changes_again[3];

        choose(&a, &prng, changes);
        fill(&a, &prng, 60);
        choose(&b, &again, changes_again);
        fill(&b, &again, 60);
        (void)play_run(&a);
        play_open(&b); /* and it does not matter in how many pieces it runs */
        while (sim_run(b.sim, 7, NULL) == MC_PENDING)
            ;
        b.result = sim_result(b.sim);
        assert_memory_equal(a.result.records, b.result.records,
                            a.trace.count * sizeof(*a.result.records));
        assert_int_equal(a.result.sample_count, b.result.sample_count);
        assert_memory_equal(a.result.samples, b.result.samples,
                            a.result.sample_count * sizeof(*a.result.samples));
        assert_memory_equal(a.result.gaps, b.result.gaps, sizeof(a.result.gaps));
        play_close(&a);
        play_close(&b);
    }
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    static struct play p;
    struct prng prng = { .seed = 4 };
    struct mc_error error;
    long k = 0;

    play_init(&p, "1P+1D");
    p.options.ssd_tokens = 2000;
    fill(&p, &prng, 40);
    for (;; k++) {
        faulty_init(&p.faulty, k);
        error = (struct mc_error){ 0 };
        p.sim = NULL;
        mc_status status = sim_open(&p.options, &p.sim, &error);
        if (status != MC_OK)
            assert_null(p.sim);
        else
            status = sim_run(p.sim, UINT32_MAX, &error);
        sim_close(p.sim);
        assert_int_equal(p.faulty.held, 0);
        if (status == MC_OK)
            break;
        assert_int_equal(status, MC_E_NOMEM);
        assert_true(error.text[0] != '\0');
    }
    assert_true(k > 30);
}

static void test_options_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static struct play p;
    struct mc_error error = { 0 };
    const struct sim_change change = { .kind = SIM_FAIL, .instance = 9 };

    play_init(&p, "1P+1D");
    play_add(&p, 1, 100, 1, 1, 0);
    struct sim_options o = p.options;
    o.speed = -1;
    assert_int_equal(sim_open(&o, &p.sim, &error), MC_E_RANGE);
    o = p.options;
    o.group_count = 0;
    assert_int_equal(sim_open(&o, &p.sim, &error), MC_E_ARG);
    o = p.options;
    o.changes = &change;
    o.change_count = 1;
    assert_int_equal(sim_open(&o, &p.sim, &error), MC_E_RANGE);
    o = p.options;
    o.policy = "nonsense";
    assert_int_equal(sim_open(&o, &p.sim, &error), MC_E_NOT_FOUND);
    o = p.options;
    o.assume.llm.parameters = 1e12;
    assert_int_equal(sim_open(&o, &p.sim, &error), MC_E_RANGE);
    p.requests[0].block_count = 2; /* of 100 tokens */
    assert_int_equal(sim_open(&p.options, &p.sim, &error), MC_E_ARG);
    assert_int_equal(p.faulty.held, 0);
}

static void test_a_request_whose_instance_fails_is_placed_again(void **state)
{
    (void)state;
    static struct play p;
    const struct sim_change fails = { .at_ns = 500000000, .kind = SIM_FAIL, .instance = 0 };

    for (uint32_t retries = 0; retries < 2; retries++) {
        play_init(&p, "2P+1D");
        p.options.changes = &fails;
        p.options.change_count = 1;
        p.options.retries = retries;
        play_add(&p, 0, 500, 2, 1, 0);
        const struct sim_record *r = play_run(&p);
        assert_int_equal(r->outcome, retries ? SIM_FINISHED : SIM_LOST);
        assert_int_equal(r->attempts, 1 + retries);
        if (retries) {
            assert_int_equal(r->prefill, 1);
            assert_at(r->prefill_begin_ns, 0.5);
        } else {
            assert_int_equal(r->reason, MC_REASON_INSTANCE_LOST);
        }
        assert_true(p.result.wasted_s > 0.49 && p.result.wasted_s < 0.51);
        play_close(&p);
    }
}

/* The second would begin after the first: it is told when to come back, and is let in then. */
static void test_a_client_that_comes_back_when_it_is_told_is_let_in(void **state)
{
    (void)state;
    static struct play p;

    for (int back = 0; back < 2; back++) {
        play_init(&p, "1P+1D");
        p.options.admission = MC_ADMIT_EARLY;
        p.options.slo_ttft_ns = 2000000000;
        p.options.come_back = back;
        play_add(&p, 0, 800, 1, 1, 0);
        play_add(&p, 0.1, 500, 1, 2, 0);
        const struct sim_record *r = play_run(&p);
        assert_int_equal(r[0].outcome, SIM_FINISHED);
        assert_int_equal(r[1].outcome, back ? SIM_FINISHED : SIM_REFUSED);
        assert_int_equal(r[1].returns, back);
        assert_int_equal(r[1].attempts, 1 + back);
        assert_at(r[1].arrival_ns, 0.1);
        if (back)
            assert_true(r[1].asked_ns > r[1].arrival_ns &&
                        r[1].prefill_end_ns - r[1].asked_ns <= 2000000000);
        else
            assert_int_equal(r[1].reason, MC_REASON_TTFT_SLO);
        play_close(&p);
    }
}

static void test_an_instance_that_joins_takes_work_and_one_that_drains_does_not(void **state)
{
    (void)state;
    static struct play p;
    const struct sim_change changes[] = {
        { .at_ns = 1000000000, .kind = SIM_JOIN, .instance = 0 },
        { .at_ns = 2000000000, .kind = SIM_DRAIN, .instance = 0 },
    };

    play_init(&p, "1P+1D");
    p.options.changes = changes;
    p.options.change_count = 2;
    play_add(&p, 0, 100, 1, 1, 0);
    play_add(&p, 3, 100, 1, 2, 0);
    const struct sim_record *r = play_run(&p);
    assert_int_equal(r[0].prefill, 0);
    assert_int_equal(r[1].prefill, 2); /* after the decode instance */
    play_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_request_of_random_worlds_ends_once),
        cmocka_unit_test(test_the_same_seed_gives_the_same_bytes),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
        cmocka_unit_test(test_options_that_make_no_sense_are_refused),
        cmocka_unit_test(test_a_request_whose_instance_fails_is_placed_again),
        cmocka_unit_test(test_a_client_that_comes_back_when_it_is_told_is_let_in),
        cmocka_unit_test(test_an_instance_that_joins_takes_work_and_one_that_drains_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
