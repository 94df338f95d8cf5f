/*
 * test_order.c - for every policy: decisions depend on the events alone, not on where in memory instances lie; nothing
 * is allocated once it is open; and what was said of an instance expires by itself.
 */
#include "fixture.h"

#include "base/prng.h"

enum { INSTANCES = 9, CHAINS = 6, BLOCKS = 24, BLOCK = 16, EVENTS = 3000 };

static const char *const policies[] = { "algorithm1",  "conductor", "local",  "least-loaded",
                                        "round-robin", "random",    "dynamo", "lmetric",
                                        "llm-d",       "sglang",    "aibrix", "preble" };
enum { POLICIES = sizeof(policies) / sizeof(policies[0]) };

static struct mc_sched_event instance_of(uint64_t id)
{
    return (struct mc_sched_event){ .kind = MC_EVENT_INSTANCE,
                                    .instance = {
                                        .id = id,
                                        .role = id % 4 == 0   ? MC_ROLE_STORE
                                                : id % 4 == 1 ? MC_ROLE_DECODE
                                                              : MC_ROLE_BOTH,
                                        .host = id % 2 + 1,
                                        .kv_tokens_max = 20000,
                                        .sequences_max = 16,
                                        .kv_token_bytes = 100,
                                        .cost = { .p0 = 1e-3,
                                                  .p1 = 1e-5,
                                                  .d0 = 5e-3,
                                                  .d1 = 1e-3,
                                                  .bytes_per_s = (double)(id % 3 + 1) * 1e6 } } };
}

/* Where instance n of `order` lies: cells are given in the order of joining. */
static void join_all(struct play *p, const uint64_t *order)
{
    for (int i = 0; i < INSTANCES; i++)
        assert_int_equal(play_step(p, instance_of(order[i])), MC_OK);
}

/* Something that may happen, from `prng` alone. */
static struct mc_sched_event draw(struct prng *prng, struct mc_key keys[CHAINS][BLOCKS],
                                  uint64_t *last_request)
{
    const uint64_t id = 1 + prng_below(prng, INSTANCES);
    const uint64_t chain = prng_below(prng, CHAINS), some = 1 + prng_below(prng, BLOCKS);
    const uint64_t request = *last_request - prng_below(prng, *last_request < 20 ? 1 : 20);

    switch (prng_below(prng, 10)) {
    case 0:
        return (struct mc_sched_event){ .kind = MC_EVENT_LOAD,
                                        .load = { .id = id,
                                                  .lease_ns = prng_below(prng, 2000) * (uint64_t)MS,
                                                  .queued = prng_below(prng, 90),
                                                  .queued_tokens = prng_below(prng, 9000),
                                                  .running = prng_below(prng, 10),
                                                  .context_tokens = prng_below(prng, 4000),
                                                  .free_tokens = 2000 + prng_below(prng, 18000),
                                                  .latest = *last_request } };
    case 1:
    case 2:
        return (struct mc_sched_event){
            .kind = prng_below(prng, 3) ? MC_EVENT_STORED : MC_EVENT_EVICTED,
            .blocks = { .id = id, .keys = keys[chain], .count = some, .medium = MC_MEDIUM_DRAM }
        };
    case 3:
    case 4:
        return (struct mc_sched_event){
            .kind =
                (uint32_t[]){ MC_EVENT_PREFILL_BEGIN, MC_EVENT_PREFILL_END, MC_EVENT_DECODE_BEGIN,
                              MC_EVENT_REQUEST_END }[prng_below(prng, 4)],
            .progress = { .request = request, .id = id, .tokens = 30, .duration_ns = 2 * MS }
        };
    case 5:
        if (prng_below(prng, 40) == 0)
            return (struct mc_sched_event){ .kind = MC_EVENT_INSTANCE_DRAIN, .id = id };
        return instance_of(id); /* back, or the same again */
    default:
        return (struct mc_sched_event){ .kind = MC_EVENT_REQUEST,
                                        .request = { .id = ++*last_request,
                                                     .tokens = some * BLOCK + 7,
                                                     .keys = keys[chain],
                                                     .key_count = some,
                                                     .output_max = 50,
                                                     .identity = 1 + prng_below(prng, 200) } };
    }
}

static void key_chains(struct mc_key keys[CHAINS][BLOCKS])
{
    for (uint8_t c = 0; c < CHAINS; c++) {
        play_keys(keys[c], BLOCKS, (uint8_t)(c + 1));
        memcpy(keys[c], keys[0], 5 * sizeof(keys[0][0])); /* a beginning in common */
    }
}

static struct mc_sched_options options_of(size_t policy)
{
    return (struct mc_sched_options){ .policy = policies[policy],
                                      .admission = (enum mc_admission)(policy % 6),
                                      .slo = { 60 * MS, 18 * MS },
                                      .seed = 7,
                                      .requests_max = 4096,
                                      .replication = "rate=100,gain=0.5,asked=3" };
}

/* As bytes, but for where keys lie. */
static size_t take(struct play *p, struct mc_decision *decisions)
{
    size_t count = 0;

    if (mc_sched_take(p->sched, decisions, INSTANCES * 64, &count) != MC_OK)
        return 0;
    for (size_t i = 0; i < count; i++)
        decisions[i].keys = NULL;
    return count;
}

static void test_no_decision_depends_on_where_instances_lie(void **state)
{
    (void)state;
    static const uint64_t orders[2][INSTANCES] = { { 1, 2, 3, 4, 5, 6, 7, 8, 9 },
                                                   { 7, 3, 9, 1, 8, 4, 2, 6, 5 } };
    static struct mc_decision taken[2][INSTANCES * 64];
    struct mc_key keys[CHAINS][BLOCKS];
    uint32_t kinds[8] = { 0 };

    key_chains(keys);
    for (size_t policy = 0; policy < POLICIES; policy++) {
        const struct mc_sched_options options = options_of(policy);
        struct prng prng = { .seed = policy + 1 };
        struct play plays[2];
        uint64_t last = 0;

        for (int i = 0; i < 2; i++) {
            play_open(&plays[i], &options);
            join_all(&plays[i], orders[i]);
        }
        for (int e = 0; e < EVENTS; e++) {
            const struct mc_sched_event event = draw(&prng, keys, &last);
            const uint64_t later = prng_below(&prng, 12) * (uint64_t)MS;
            mc_status statuses[2];
            size_t counts[2];

            for (int i = 0; i < 2; i++) {
                plays[i].now_ns += later;
                statuses[i] = play_step(&plays[i], event);
                counts[i] = take(&plays[i], taken[i]);
            }
            assert_int_equal(statuses[0], statuses[1]);
            assert_int_equal(counts[0], counts[1]);
            if (memcmp(taken[0], taken[1], counts[0] * sizeof(taken[0][0])) != 0)
                fail_msg("%s: event %d is decided otherwise", policies[policy], e);
            for (size_t i = 0; i < counts[0]; i++)
                kinds[taken[0][i].kind]++;
        }
        for (int i = 0; i < 2; i++)
            play_close(&plays[i]);
    }
    /* Every kind was there often. */
    if (kinds[MC_DECIDE_PLACE] < 2000 || kinds[MC_DECIDE_REFUSE] < 2000 ||
        kinds[MC_DECIDE_REPLICATE] < 50 || kinds[MC_DECIDE_DECODE] < 10)
        fail_msg("%d placed, %d refused, %d copied, %d go on", (int)kinds[MC_DECIDE_PLACE],
                 (int)kinds[MC_DECIDE_REFUSE], (int)kinds[MC_DECIDE_REPLICATE],
                 (int)kinds[MC_DECIDE_DECODE]);
}

static void test_nothing_is_allocated_after_open(void **state)
{
    (void)state;
    struct mc_key keys[CHAINS][BLOCKS];
    static const uint64_t order[INSTANCES] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    static struct mc_decision taken[INSTANCES * 64];

    key_chains(keys);
    for (size_t policy = 0; policy < POLICIES; policy++) {
        const struct mc_sched_options options = options_of(policy);
        struct prng prng = { .seed = policy };
        struct play p;
        uint64_t last = 0;

        play_open(&p, &options);
        const long calls = p.faulty.calls;
        join_all(&p, order);
        for (int e = 0; e < EVENTS; e++) {
            const struct mc_sched_event event = draw(&prng, keys, &last);

            p.now_ns += MS;
            (void)!play_step(&p, event);
            (void)take(&p, taken);
        }
        assert_int_equal(p.faulty.calls, calls);
        play_close(&p);
    }
}

static void test_what_was_said_of_an_instance_expires(void **state)
{
    (void)state;
    for (size_t policy = 0; policy < POLICIES; policy++) {
        struct play p;
        uint32_t at[3] = { 0 };

        play_open(&p, &(struct mc_sched_options){ .policy = policies[policy], .requests_max = 64 });
        play_join(&p, 1, MC_ROLE_BOTH);
        play_join(&p, 2, MC_ROLE_BOTH);
        const struct mc_sched_event load = { /* overloaded, and then silent for ever */
                                             .kind = MC_EVENT_LOAD,
                                             .load = { .id = 1,
                                                       .lease_ns = 1000 * MS,
                                                       .queued = 900,
                                                       .queued_tokens = 900000,
                                                       .running = 8,
                                                       .context_tokens = 9000,
                                                       .free_tokens = 9000 }
        };
        assert_int_equal(play_step(&p, load), MC_OK);
        p.now_ns = 5000 * (uint64_t)MS;
        for (int i = 0; i < 40; i++) {
            const struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 500 });
            assert_int_equal(d.kind, MC_DECIDE_PLACE);
            at[d.prefill]++;
            if (i % 3 == 2) /* so that who looks at requests sees some at both */
                assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, d.request - 1, 1), MC_OK);
            p.now_ns += 200 * (uint64_t)MS;
        }
        if (at[1] == 0 || at[2] == 0)
            fail_msg("%s: %d at the silent one, %d at the other", policies[policy], (int)at[1],
                     (int)at[2]);
        play_close(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_decision_depends_on_where_instances_lie),
        cmocka_unit_test(test_nothing_is_allocated_after_open),
        cmocka_unit_test(test_what_was_said_of_an_instance_expires),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
