/*
 * test_algorithm1.c - the default policy against the paper's pseudocode, written down once more without
 * any of the scheduler's structures, on random clusters.
 */
#include "fixture.h"

#include <stdio.h>

#include "base/prng.h"

enum { P_MAX = 6, CHAIN = 12, BLOCK = 16 };

struct naive_instance {
    uint64_t id;
    bool prefills, holds[CHAIN];
    double queue_s; /* what is queued there, in seconds */
    double p1, p2, bytes_per_s;
};

struct naive_cluster {
    struct naive_instance at[P_MAX]; /* by rising id */
    size_t count;
    double threshold;
};

static size_t prefix(const struct naive_instance *i, size_t keys)
{
    size_t blocks = 0;

    while (blocks < keys && i->holds[blocks])
        blocks++;
    return blocks;
}

static double prefill_s(const struct naive_instance *i, double n, double p)
{
    return i->p1 * (n - p) + i->p2 * (n * n - p * p);
}

struct naive_choice {
    const struct naive_instance *pick, *holder;
    double seconds, margin; /* margin: to the second best */
};

/* Algorithm 1 of the paper, word for word. */
static struct naive_choice brute_force(const struct naive_cluster *c, size_t tokens, size_t keys)
{
    struct naive_choice best = { NULL, NULL, 1e300, 1e300 };
    size_t most = 0;

    for (size_t i = 0; i < c->count; i++)
        if (prefix(&c->at[i], keys) > most)
            most = prefix(&c->at[i], keys);
    for (size_t i = 0; i < c->count; i++) {
        const struct naive_instance *p = &c->at[i], *holder = NULL;
        const size_t own = prefix(p, keys);
        double transfer = 1e300;

        if (!p->prefills)
            continue;
        if (most > own && (own == 0 || (double)most / (double)own > c->threshold))
            for (size_t h = 0; h < c->count; h++) { /* the quickest of those that have all of it */
                const double slower =
                    c->at[h].bytes_per_s < p->bytes_per_s ? c->at[h].bytes_per_s : p->bytes_per_s;
                const double s = (double)((most - own) * BLOCK * 100) / slower;
                if (h != i && prefix(&c->at[h], keys) == most && s < transfer) {
                    transfer = s;
                    holder = &c->at[h];
                }
            }
        const double seconds =
            (holder ? transfer : 0) + p->queue_s +
            prefill_s(p, (double)tokens, (double)((holder ? most : own) * BLOCK));
        if (seconds < best.seconds) {
            best.margin = best.seconds - seconds;
            best.pick = p;
            best.holder = holder;
            best.seconds = seconds;
        } else if (seconds - best.seconds < best.margin) {
            best.margin = seconds - best.seconds;
        }
    }
    return best;
}

static void draw(struct naive_cluster *c, struct prng *prng)
{
    c->count = 1 + prng_below(prng, P_MAX);
    c->threshold = 1 + prng_below(prng, 30) / 10.0;
    for (size_t i = 0; i < c->count; i++) {
        struct naive_instance *n = &c->at[i];

        *n = (struct naive_instance){ .id = 10 + 3 * i,
                                      .prefills = i == 0 || prng_below(prng, 4) != 0,
                                      .p1 = (1 + prng_below(prng, 50)) * 1e-6,
                                      .p2 = prng_below(prng, 50) * 1e-9,
                                      .bytes_per_s = (1 + prng_below(prng, 99)) * 1e6 };
        for (size_t k = 0, most = prng_below(prng, CHAIN + 1); k < most; k++)
            n->holds[k] = prng_below(prng, 12) != 0;
    }
}

static void build(struct play *p, struct naive_cluster *c, const struct mc_key *keys,
                  struct prng *prng)
{
    for (size_t i = 0; i < c->count; i++) {
        struct naive_instance *n = &c->at[i];
        const struct mc_sched_event join = {
            .kind = MC_EVENT_INSTANCE,
            .instance = { .id = n->id,
                          .role = n->prefills ? MC_ROLE_BOTH : MC_ROLE_DECODE,
                          .kv_token_bytes = 100,
                          .cost = { .p1 = n->p1, .p2 = n->p2, .bytes_per_s = n->bytes_per_s } }
        };
        const uint64_t queued = prng_below(prng, 3) * prng_below(prng, 400);
        const struct mc_sched_event load = {
            .kind = MC_EVENT_LOAD,
            .load = { .id = n->id, .lease_ns = UINT64_MAX, .queued = 1, .queued_tokens = queued }
        };

        assert_int_equal(play_step(p, join), MC_OK);
        assert_int_equal(play_step(p, load), MC_OK);
        n->queue_s = prefill_s(n, (double)queued, 0);
        for (size_t k = 0; k < CHAIN; k++)
            if (n->holds[k])
                play_stored(p, n->id, &keys[k], 1);
    }
}

static void test_it_chooses_as_the_papers_pseudocode_does(void **state)
{
    (void)state;
    struct mc_key keys[CHAIN];
    uint32_t pulled = 0, local = 0, compared = 0;

    play_keys(keys, CHAIN, 5);
    for (uint64_t seed = 0; seed < 1500; seed++) {
        struct prng prng = { .seed = seed };
        struct naive_cluster c;
        struct play p;
        char parameters[32];

        draw(&c, &prng);
        snprintf(parameters, sizeof(parameters), "threshold=%g", c.threshold);
        play_open(&p, &(struct mc_sched_options){ .policy_parameters = parameters });
        build(&p, &c, keys, &prng);

        const size_t tokens = 20 + prng_below(&prng, CHAIN * BLOCK);
        const size_t named = tokens / BLOCK < CHAIN ? tokens / BLOCK : CHAIN;
        const size_t reusable = (tokens - 1) / BLOCK < named ? (tokens - 1) / BLOCK : named;
        const struct naive_choice right = brute_force(&c, tokens, reusable);
        const struct mc_decision d = play_ask(
            &p, (struct mc_sched_request){ .tokens = tokens, .keys = keys, .key_count = named });

        if (right.margin > 1e-7) { /* not closer than what rounding to nanoseconds can turn */
            compared++;
            if (d.prefill != right.pick->id || d.holder != (right.holder ? right.holder->id : 0))
                fail_msg("seed %d: %d from %d, not %d from %d", (int)seed, (int)d.prefill,
                         (int)d.holder, (int)right.pick->id,
                         right.holder ? (int)right.holder->id : 0);
            assert_true(d.score > right.seconds - 1e-7 && d.score < right.seconds + 1e-7);
            pulled += d.holder != 0;
            local += d.reason == MC_REASON_LOCAL_PREFIX;
        }
        play_close(&p);
    }
    assert_true(compared > 1000 && pulled > 100 && local > 50);
}

static void test_what_is_equal_goes_to_who_has_waited_longest(void **state)
{
    (void)state;
    struct play p;

    play_open(&p, NULL);
    for (uint64_t id = 9; id >= 3; id -= 3)
        play_join(&p, id, MC_ROLE_BOTH);
    for (uint64_t i = 0; i < 7; i++) { /* nobody was asked yet: the lower id */
        p.now_ns += MS;
        const struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 64 });
        assert_int_equal(d.prefill, 3 + i % 3 * 3);
        assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, d.request, d.prefill), MC_OK);
    }
    struct mc_key keys[3];
    play_keys(keys, 3, 1);
    for (uint64_t id = 3; id <= 9; id += 3)
        play_stored(&p, id, keys, 3);
    for (uint64_t i = 7; i < 14; i++) { /* likewise, where all have the prefix */
        p.now_ns += MS;
        const struct mc_decision d =
            play_ask(&p, (struct mc_sched_request){ .tokens = 64, .keys = keys, .key_count = 3 });
        assert_int_equal(d.prefill, 3 + i % 3 * 3);
        assert_int_equal(play_progress(&p, MC_EVENT_REQUEST_END, d.request, d.prefill), MC_OK);
    }
    play_close(&p);
}

static void test_a_pull_may_overlap_the_queue(void **state)
{
    (void)state;
    for (int overlap = 0; overlap <= 1; overlap++) {
        struct play p;
        struct mc_key keys[2];

        play_open(&p, &(struct mc_sched_options){
                          .policy_parameters = overlap ? "overlap=1,threshold=1" : "overlap=0" });
        play_join(&p, 1, MC_ROLE_BOTH);
        play_join(&p, 2, MC_ROLE_STORE);
        play_keys(keys, 2, 1);
        play_stored(&p, 2, keys, 2);
        assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 999 }).kind,
                         MC_DECIDE_PLACE);
        const struct mc_decision d =
            play_ask(&p, (struct mc_sched_request){ .tokens = 100, .keys = keys, .key_count = 2 });
        /* 1.999 ms of queue, 3.2 us of transfer, 1.068 ms of prefill */
        const double expected = overlap ? 3.067e-3 : 3.0702e-3;
        assert_true(d.score > expected - 1e-8 && d.score < expected + 1e-8);
        play_close(&p);
    }
}

static void test_simple_policies_do_what_their_names_say(void **state)
{
    (void)state;
    struct play p;
    uint32_t at[4] = { 0 };

    play_open(&p, &(struct mc_sched_options){ .policy = "round-robin" });
    for (uint64_t id = 1; id <= 3; id++)
        play_join(&p, id, MC_ROLE_BOTH);
    for (uint64_t i = 0; i < 7; i++) {
        const struct mc_decision d = play_ask(&p, (struct mc_sched_request){ .tokens = 10 });
        assert_int_equal(d.prefill, 1 + i % 3);
        assert_int_equal(d.reason, MC_REASON_TURN);
    }
    play_close(&p);

    play_open(&p, &(struct mc_sched_options){ .policy = "random", .seed = 5 });
    for (uint64_t id = 1; id <= 3; id++)
        play_join(&p, id, MC_ROLE_BOTH);
    for (int i = 0; i < 60; i++)
        at[play_ask(&p, (struct mc_sched_request){ .tokens = 10 }).prefill]++;
    for (int i = 1; i <= 3; i++)
        assert_in_range(at[i], 8, 35);
    play_close(&p);

    play_open(&p, &(struct mc_sched_options){ .policy = "least-loaded" });
    play_join(&p, 1, MC_ROLE_BOTH);
    play_join(&p, 2, MC_ROLE_BOTH);
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 1000 }).prefill, 1);
    for (int i = 0; i < 1; i++)
        assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 10 }).prefill, 2);
    assert_int_equal(play_ask(&p, (struct mc_sched_request){ .tokens = 10 }).prefill, 2);
    play_close(&p);
}

static void test_simple_policies_pull_unless_told_not_to(void **state)
{
    (void)state;
    static const char *const policies[] = { "random", "round-robin", "least-loaded" };
    struct mc_key keys[4];

    play_keys(keys, 4, 1);
    for (size_t i = 0; i < 6; i++) {
        struct play p;

        play_open(&p, &(struct mc_sched_options){ .policy = policies[i / 2],
                                                  .policy_parameters = i % 2 ? "pull=0" : "" });
        play_join(&p, 1, MC_ROLE_BOTH);
        play_join(&p, 2, MC_ROLE_STORE);
        play_stored(&p, 2, keys, 4);
        const struct mc_decision d =
            play_ask(&p, (struct mc_sched_request){ .tokens = 100, .keys = keys, .key_count = 4 });
        assert_int_equal(d.pull_tokens, i % 2 ? 0 : 64);
        assert_int_equal(d.holder, i % 2 ? 0 : 2);
        play_close(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_chooses_as_the_papers_pseudocode_does),
        cmocka_unit_test(test_what_is_equal_goes_to_who_has_waited_longest),
        cmocka_unit_test(test_a_pull_may_overlap_the_queue),
        cmocka_unit_test(test_simple_policies_do_what_their_names_say),
        cmocka_unit_test(test_simple_policies_pull_unless_told_not_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
