/* test_timing.c - seconds of a step and tokens of numbers, against what timing.h says. */
#include "test.h"

#include <math.h>

#include "worker/core/timing.h"

static const struct timing_model model = {
    .cost = { .p0 = 1,
              .p1 = 1e-3,
              .p2 = 1e-6,
              .p3 = 1e-4,
              .d0 = 0.5,
              .d1 = 1e-2,
              .d2 = 1e-5,
              .t0 = 0.25,
              .bytes_per_s = 1000 },
    .kv_token_bytes = 10,
    .load_bytes_per_s = 100,
    .join_fixed_s = 0.125,
    .join_load_share = 0.5,
    .kv_tokens = 1 << 20,
    .context_max = 1 << 18,
};

struct bench {
    struct timing_seen seen[16];
    struct timing_tracker tracker;
};

static void bench_init(struct bench *b, uint32_t role)
{
    memset(b, 0, sizeof(*b));
    b->tracker = (struct timing_tracker){ .seen = b->seen, .seen_max = 16, .role = role };
}

static struct mc_sequence part(void *const *pages, uint32_t position, uint32_t count)
{
    return (struct mc_sequence){ .pages = pages, .position = position, .token_count = count };
}

static double seconds(struct bench *b, struct mc_sequence *sequences, uint32_t count)
{
    const struct mc_step step = { .sequences = sequences, .count = count };
    return timing_step_s(&model, &b->tracker, &step);
}

static void expect(double is, double should_be)
{
    if (fabs(is - should_be) > 1e-9)
        fail_msg("%.9f s, not %.9f s", is, should_be);
}

static double prefill(double n, double p)
{
    return model.cost.p0 + model.cost.p1 * (n - p) + model.cost.p2 * (n * n - p * p) +
           model.cost.p3 * p;
}

static void *page_a[1] = { &page_a }, *page_b[1] = { &page_b }, *page_c[1] = { &page_c };

static void test_a_prompt_cut_into_chunks_takes_as_long_as_a_whole_one(void **state)
{
    struct bench b;
    double sum = 0;

    (void)state;
    bench_init(&b, MC_ROLE_PREFILL);
    for (uint32_t at = 64; at < 512; at += 64) {
        struct mc_sequence s = part(page_a, at, 64);
        sum += seconds(&b, &s, 1);
    }
    expect(sum, prefill(512, 64));
    struct mc_sequence again = part(page_a, 0, 512); /* another prompt in the same pages */
    expect(seconds(&b, &again, 1), prefill(512, 0));
}

static void test_the_last_token_alone_is_a_prompt_where_nothing_is_decoded(void **state)
{
    struct bench b;
    struct mc_sequence s = part(page_a, 511, 1);

    (void)state;
    bench_init(&b, MC_ROLE_PREFILL);
    expect(seconds(&b, &s, 1), prefill(512, 511));
}

static void test_a_batch_stands_still_while_another_one_joins(void **state)
{
    struct bench b;
    struct mc_sequence s[3] = { part(page_a, 100, 1), part(page_b, 200, 1) };

    (void)state;
    bench_init(&b, MC_ROLE_DECODE);
    expect(seconds(&b, s, 1), 0.5 + 1e-2 + 100e-5); /* the first one holds up nobody */
    s[0].position++;
    expect(seconds(&b, s, 2), 0.5 + 2e-2 + 301e-5 + 0.125 + 0.5 * 200 * 10 / 100);
    s[0].position++;
    s[1].position++;
    expect(seconds(&b, s, 2), 0.5 + 2e-2 + 303e-5);
    s[0] = s[1]; /* one leaves, and the other's place changes */
    s[0].position++;
    expect(seconds(&b, s, 1), 0.5 + 1e-2 + 202e-5);
    s[0].position++;
    s[1] = part(page_a, 50, 1); /* pages that another one had */
    s[2] = part(page_c, 70, 1);
    expect(seconds(&b, s, 3), 0.5 + 3e-2 + 323e-5 + 2 * 0.125 + 0.5 * (50 + 70) * 10 / 100);
}

static void test_prompts_and_answers_in_one_step_add_up(void **state)
{
    struct bench b;
    struct mc_sequence s[2] = { part(page_a, 0, 32), part(page_b, 0, 64) };

    (void)state;
    bench_init(&b, MC_ROLE_BOTH);
    (void)seconds(&b, s, 1);
    s[0] = part(page_a, 32, 1); /* prefilled here: it joins without a load */
    expect(seconds(&b, s, 2), 1 + 64e-3 + 64 * 64e-6 + 1e-2 + 32e-5);
}

/* More than the tracker has places for come and go: whoever is in two steps in a row goes on. */
static void test_who_was_in_the_last_step_is_known_in_the_next(void **state)
{
    static void *pages[64][1];
    struct bench b;
    struct mc_sequence s[8];

    (void)state;
    bench_init(&b, MC_ROLE_DECODE);
    for (uint32_t round = 0; round < 56; round++) {
        for (uint32_t i = 0; i < 8; i++) {
            pages[round + i][0] = &pages[round + i];
            s[7 - i] = part(pages[round + i], 10 + round, 1);
        }
        double joins = 0; /* one new one in each round but the first, which has nobody to hold up */
        if (round > 0)
            joins = 0.125 + 0.5 * (10 + round) * 10 / 100;
        expect(seconds(&b, s, 8), 0.5 + 8e-2 + 8 * (10 + round) * 1e-5 + joins);
    }
}

static void test_pulls_and_loads_take_what_their_bytes_take(void **state)
{
    struct timing_model none = { 0 };

    (void)state;
    expect(timing_pull_s(&model, 200), 0.25 + 2);
    expect(timing_load_s(&model, 200), 20);
    expect(timing_pull_s(&none, 200), 0);
    expect(timing_load_s(&none, 200), 0);
}

static void test_pages_are_as_large_as_the_scale_says_and_never_too_small(void **state)
{
    const struct timing_model large = { .kv_token_bytes = 327680 };
    const struct {
        double scale;
        uint32_t layers, dim;
    } cases[] = { { 1, 80, 1024 }, { 2, 80, 1024 }, { 0.01, 80, 10 },
                  { 5e-5, 2, 2 },  { 0, 1, 2 },     { 1e-3, 40, 2 } };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct mc_kv_layout l = timing_layout(&large, 80, cases[i].scale);
        assert_int_equal(l.layers, cases[i].layers);
        assert_int_equal(l.kv_heads * l.head_dim, cases[i].dim);
        assert_int_equal(l.page_tokens, 16);
        assert_int_equal(l.dtype, MC_DTYPE_BF16);
    }
}

static void test_a_token_is_never_one_that_is_banned(void **state)
{
    const uint32_t some[] = { 0, 1, 2, 5 }, others[] = { 3 };
    const struct timing_bans bans[2] = { { some, 4 }, { others, 1 } };
    const struct timing_bans none[2] = { { NULL, 0 }, { NULL, 0 } };
    uint32_t seen = 0;

    (void)state;
    for (uint32_t state_now = 0; state_now < 1000; state_now++) {
        const uint32_t token = timing_token(state_now, 7, bans);
        assert_true(token == 4 || token == 6);
        seen |= 1u << timing_token(state_now, 7, none);
    }
    assert_int_equal(seen, 0x7f); /* and all are said */
}

static void test_a_state_depends_on_all_that_came_before_it(void **state)
{
    const uint32_t a = timing_state(0, 5, 0);

    (void)state;
    assert_int_not_equal(a, timing_state(0, 6, 0));
    assert_int_not_equal(a, timing_state(1, 5, 0));
    assert_int_not_equal(a, timing_state(0, 5, 1));
    assert_int_equal(a, timing_state(0, 5, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_prompt_cut_into_chunks_takes_as_long_as_a_whole_one),
        cmocka_unit_test(test_the_last_token_alone_is_a_prompt_where_nothing_is_decoded),
        cmocka_unit_test(test_a_batch_stands_still_while_another_one_joins),
        cmocka_unit_test(test_prompts_and_answers_in_one_step_add_up),
        cmocka_unit_test(test_who_was_in_the_last_step_is_known_in_the_next),
        cmocka_unit_test(test_pulls_and_loads_take_what_their_bytes_take),
        cmocka_unit_test(test_pages_are_as_large_as_the_scale_says_and_never_too_small),
        cmocka_unit_test(test_a_token_is_never_one_that_is_banned),
        cmocka_unit_test(test_a_state_depends_on_all_that_came_before_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
