/*
 * test_sample.c - choosing a token: against a reference that sorts everything, against the
 * distribution itself, and on rows that no healthy model makes.
 */
#include "test.h"

#include <math.h>

#include "base/prng.h"
#include "infer/exact.h"
#include "infer/sample.h"

enum { VOCAB_MAX = 600 };

/* Exactly as large as the vocabulary, so that a sanitizer sees a step beyond. */
struct room {
    struct sample_space space;
    float *logits;
    uint32_t vocab;
};

static struct room room_open(uint32_t vocab)
{
    struct room r = { .vocab = vocab };

    r.logits = malloc(vocab * sizeof(*r.logits));
    r.space.weights = malloc(vocab * sizeof(*r.space.weights));
    r.space.candidates = malloc(vocab * sizeof(*r.space.candidates));
    assert_true(r.logits && r.space.weights && r.space.candidates);
    return r;
}

static void room_close(struct room *r)
{
    free(r->logits);
    free(r->space.weights);
    free(r->space.candidates);
}

static struct mc_sample choose(const struct room *r, const struct mc_sampling *s, uint64_t position)
{
    struct mc_sample sample;

    memset(&sample, 0xee, sizeof(sample));
    sample_token(kernels_find(NULL), r->logits, r->vocab, s, position, &r->space, &sample);
    assert_in_range(sample.chosen.token, 0, r->vocab - 1);
    return sample;
}

/* Roughly as a model's: most tokens unlikely. `levels` > 0: only so many different values, so ties. */
static void fill(struct room *r, struct prng *prng, uint32_t levels)
{
    for (uint32_t i = 0; i < r->vocab; i++) {
        double u = prng_unit(prng_next(prng));
        if (levels > 0)
            u = floor(u * levels) / levels;
        r->logits[i] = (float)(12 * u * u * u - 4);
    }
}

static bool is_banned(const struct mc_sampling *s, uint32_t token)
{
    for (uint32_t i = 0; i < s->banned_count; i++)
        if (s->banned[i] == token)
            return true;
    return false;
}

/* --------------------------------------------------------------------------------------- reference */

static uint32_t naive_greedy(const struct room *r, const struct mc_sampling *s)
{
    uint32_t best = UINT32_MAX;

    for (uint32_t i = 0; i < r->vocab; i++)
        if (!is_banned(s, i) && (best == UINT32_MAX || r->logits[i] > r->logits[best]))
            best = i;
    return best;
}

/* Sort by weight, equals by id. */
static void sort_all(struct candidate *c, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        for (uint32_t k = i; k > 0; k--) {
            const bool swap = c[k].weight > c[k - 1].weight ||
                              (c[k].weight == c[k - 1].weight && c[k].token < c[k - 1].token);
            if (!swap)
                break;
            const struct candidate t = c[k];
            c[k] = c[k - 1];
            c[k - 1] = t;
        }
}

static double sum_all(const struct candidate *c, uint32_t count)
{
    double sum = 0;

    for (uint32_t i = 0; i < count; i++)
        sum += (double)c[i].weight;
    return sum;
}

/* The definition: temperature, then top_k, then top_p of what is left; the draw goes through the
 * candidates in the order they are then in. A total of unlimited candidates is taken by id. */
static uint32_t naive_draw(const struct room *r, const struct mc_sampling *s, uint64_t position)
{
    static struct candidate c[VOCAB_MAX];
    const float largest = r->logits[naive_greedy(r, s)];
    const bool nucleus = s->top_p > 0 && s->top_p < 1;
    uint32_t count = 0;

    for (uint32_t i = 0; i < r->vocab; i++) {
        const float weight = exact_exp((r->logits[i] - largest) * (1.0f / s->temperature));
        if (weight > 0 && !is_banned(s, i))
            c[count++] = (struct candidate){ weight, i };
    }
    double total = sum_all(c, count);
    if (s->top_k > 0 || nucleus)
        sort_all(c, count);
    if (s->top_k > 0) {
        count = count < s->top_k ? count : s->top_k;
        total = sum_all(c, count);
    }
    if (nucleus) {
        double mass = 0;
        uint32_t kept = 0;
        while (kept < count && mass < total * (double)s->top_p)
            mass += (double)c[kept++].weight;
        count = kept;
    }
    const double target = prng_unit(prng_at(s->seed, position)) * sum_all(c, count);
    double mass = 0;
    for (uint32_t i = 0; i < count; i++)
        if (target < (mass += (double)c[i].weight))
            return c[i].token;
    return c[count - 1].token;
}

static void test_limits_and_draw_are_those_of_sorting_everything(void **state)
{
    static const float shares[] = { 0, 1e-9f, 0.1f, 0.5f, 0.9f, 0.999f, 0.9999999f, 1 };
    struct prng prng = { .seed = 1 };

    (void)state;
    for (uint32_t turn = 0; turn < 1500; turn++) {
        const uint32_t vocab = 1 + prng_below(&prng, turn % 10 ? 60 : VOCAB_MAX);
        uint32_t banned[3];
        struct room r = room_open(vocab);
        fill(&r, &prng, turn % 3 ? 0 : 1 + prng_below(&prng, 6));
        for (uint32_t i = 0; i < 3; i++)
            banned[i] = prng_below(&prng, vocab);
        const struct mc_sampling s = {
            .temperature = (float)(0.05 + 3 * prng_unit(prng_next(&prng))),
            .top_k = turn % 2 ? 0 : prng_below(&prng, vocab + 3),
            .top_p = shares[prng_below(&prng, sizeof(shares) / sizeof(*shares))],
            .seed = prng_next(&prng),
            .banned = banned,
            .banned_count = vocab > 3 ? prng_below(&prng, 4) : 0,
        };
        for (uint64_t position = 0; position < 4; position++)
            assert_int_equal(choose(&r, &s, position).chosen.token, naive_draw(&r, &s, position));
        room_close(&r);
    }
}

static void test_greedy_takes_the_lowest_id_among_equals_and_none_that_is_banned(void **state)
{
    struct prng prng = { .seed = 2 };
    struct room r = room_open(40);

    (void)state;
    for (uint32_t turn = 0; turn < 300; turn++) {
        uint32_t banned[39];
        const uint32_t banned_count = prng_below(&prng, 40);
        for (uint32_t i = 0; i < banned_count; i++)
            banned[i] = (i + turn) % 40;
        fill(&r, &prng, 3);
        const struct mc_sampling s = { .banned = banned, .banned_count = banned_count };
        const uint32_t token = choose(&r, &s, turn).chosen.token;
        assert_int_equal(token, naive_greedy(&r, &s));
        assert_false(is_banned(&s, token));
        for (uint32_t i = 0; i < token; i++)
            assert_true(is_banned(&s, i) || r.logits[i] < r.logits[token]);
    }
    room_close(&r);
}

static void test_banned_tokens_are_never_drawn_though_they_are_the_likeliest(void **state)
{
    const uint32_t banned[] = { 3, 0 };
    struct room r = room_open(5);

    (void)state;
    memcpy(r.logits, (float[]){ 60, 1, 1, 300, 1 }, 5 * sizeof(float));
    for (uint64_t seed = 0; seed < 200; seed++) {
        const struct mc_sampling s = { .temperature = 1,
                                       .seed = seed,
                                       .top_k = seed % 3 ? 0 : 2,
                                       .top_p = seed % 2 ? 0.5f : 0,
                                       .banned = banned,
                                       .banned_count = 2 };
        assert_false(is_banned(&s, choose(&r, &s, 9).chosen.token));
    }
    room_close(&r);
}

/* ------------------------------------------------------------------------------------ distribution */

/* Sum of (seen - expected)^2 / expected for draws over seeds, tokens with probability `p`. */
static double chi_square(const struct room *r, struct mc_sampling s, const double *p,
                         uint32_t draws)
{
    uint32_t seen[16] = { 0 };
    double sum = 0;

    assert_in_range(r->vocab, 1, 16);
    for (uint32_t i = 0; i < draws; i++) {
        s.seed = i / 100;
        seen[choose(r, &s, i % 100).chosen.token]++;
    }
    for (uint32_t i = 0; i < r->vocab; i++) {
        if (p[i] == 0)
            assert_int_equal(seen[i], 0);
        else
            sum += pow(seen[i] - draws * p[i], 2) / (draws * p[i]);
    }
    return sum;
}

/* The draws are fixed by their seeds, so this either always passes or never does. The bound is the
 * 99.9 % quantile for 9 degrees of freedom. */
static void test_draws_follow_the_distribution(void **state)
{
    enum { TOKENS = 10, DRAWS = 20000 };
    struct room r = room_open(TOKENS);
    double p[TOKENS], total = 0;

    (void)state;
    for (uint32_t i = 0; i < TOKENS; i++)
        r.logits[i] = (float)(i * 7 % TOKENS) * 0.4f;
    for (uint32_t i = 0; i < TOKENS; i++)
        total += p[i] = exp((double)r.logits[i] / 1.5);
    for (uint32_t i = 0; i < TOKENS; i++)
        p[i] /= total;
    assert_true(chi_square(&r, (struct mc_sampling){ .temperature = 1.5f }, p, DRAWS) < 27.88);

    /* top_k leaves the three likeliest, in the same proportions; 13.82 for 2 degrees. */
    total = 0;
    for (uint32_t i = 0; i < TOKENS; i++)
        total += i * 7 % TOKENS >= 7 ? p[i] : (p[i] = 0);
    for (uint32_t i = 0; i < TOKENS; i++)
        p[i] /= total;
    assert_true(chi_square(&r, (struct mc_sampling){ .temperature = 1.5f, .top_k = 3 }, p, DRAWS) <
                13.82);
    /* The bound means something: the same draws are no sample of a slightly other distribution. */
    for (uint32_t i = 0; i < TOKENS; i++)
        p[i] = p[i] == 0 ? 0 : 1.0 / 3;
    assert_true(chi_square(&r, (struct mc_sampling){ .temperature = 1.5f, .top_k = 3 }, p, DRAWS) >
                50);
    room_close(&r);
}

static void test_a_draw_is_a_function_of_seed_and_position_alone(void **state)
{
    struct prng prng = { .seed = 3 };
    struct room r = room_open(50), other = room_open(50);
    uint32_t changed_seed = 0, changed_position = 0;

    (void)state;
    fill(&r, &prng, 0);
    memcpy(other.logits, r.logits, 50 * sizeof(float));
    for (uint32_t i = 0; i < 200; i++) {
        const struct mc_sampling s = { .temperature = 3, .seed = i, .logprobs = i % 5 };
        const struct mc_sampling next = { .temperature = 3, .seed = i + 1 };
        const uint32_t token = choose(&r, &s, 1000 - i).chosen.token;
        choose(&other, &next, i); /* other draws in between change nothing */
        memset(r.space.weights, 0xff, 50 * sizeof(float));
        assert_int_equal(choose(&other, &s, 1000 - i).chosen.token, token);
        assert_int_equal(choose(&r, &s, 1000 - i).chosen.token, token);
        changed_seed += choose(&r, &next, 1000 - i).chosen.token != token;
        changed_position += choose(&r, &s, 999 - i).chosen.token != token;
    }
    assert_in_range(changed_seed, 100, 200);
    assert_in_range(changed_position, 100, 200);
    room_close(&r);
    room_close(&other);
}

/* --------------------------------------------------------------------------------- log probabilities */

static void test_log_probabilities_sum_to_one(void **state)
{
    struct prng prng = { .seed = 4 };

    (void)state;
    for (uint32_t vocab = 1; vocab <= MC_TOP_LOGPROBS_MAX; vocab++) {
        struct room r = room_open(vocab);
        const struct mc_sampling s = { .logprobs = MC_TOP_LOGPROBS_MAX };
        double sum = 0;
        fill(&r, &prng, 0);
        const struct mc_sample sample = choose(&r, &s, 0);
        assert_int_equal(sample.top_count, vocab);
        for (uint32_t i = 0; i < vocab; i++)
            sum += exp((double)sample.top[i].logprob);
        assert_true(fabs(sum - 1) < 1e-5);
        room_close(&r);
    }
}

static void test_the_top_list_falls_and_names_equals_by_id(void **state)
{
    struct prng prng = { .seed = 5 };

    (void)state;
    for (uint32_t turn = 0; turn < 300; turn++) {
        const uint32_t vocab = 1 + prng_below(&prng, 80);
        struct candidate all[80];
        struct room r = room_open(vocab);
        const struct mc_sampling s = { .logprobs = turn % (MC_TOP_LOGPROBS_MAX + 1),
                                       .temperature = turn % 2 ? 0.8f : 0,
                                       .seed = turn };
        fill(&r, &prng, turn % 4 ? 0 : 3);
        const struct mc_sample sample = choose(&r, &s, turn);
        for (uint32_t i = 0; i < vocab; i++)
            all[i] = (struct candidate){ r.logits[i], i };
        sort_all(all, vocab);
        assert_int_equal(sample.top_count, s.logprobs < vocab ? s.logprobs : vocab);
        for (uint32_t i = 0; i < sample.top_count; i++) {
            assert_int_equal(sample.top[i].token, all[i].token);
            /* What is said of a token does not depend on whether it was chosen. */
            if (sample.top[i].token == sample.chosen.token)
                assert_memory_equal(&sample.top[i], &sample.chosen, sizeof(sample.chosen));
        }
        room_close(&r);
    }
}

static void test_log_probabilities_are_of_the_model_before_temperature_and_limits(void **state)
{
    struct prng prng = { .seed = 6 };
    struct room r = room_open(33);
    const uint32_t banned[] = { 1, 2, 3 };

    (void)state;
    for (uint32_t turn = 0; turn < 100; turn++) {
        const struct mc_sampling s = { .temperature = 2,
                                       .top_k = 4,
                                       .top_p = 0.7f,
                                       .seed = turn,
                                       .banned = banned,
                                       .banned_count = 3 };
        double sum = 0;
        fill(&r, &prng, 0);
        const struct mc_sample sample = choose(&r, &s, turn);
        for (uint32_t i = 0; i < r.vocab; i++)
            sum += exp((double)r.logits[i]);
        const double expected = (double)r.logits[sample.chosen.token] - log(sum);
        assert_true(fabs((double)sample.chosen.logprob - expected) < 1e-5);
    }
    room_close(&r);
}

/* ------------------------------------------------------------------------------------------ bad rows */

static void test_rows_that_are_not_numbers_still_give_a_token(void **state)
{
    const float odd[] = { NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 0 };
    const uint32_t banned[] = { 0, 1 };
    struct prng prng = { .seed = 7 };
    struct room r = room_open(37);

    (void)state;
    for (uint32_t turn = 0; turn < 600; turn++) {
        const struct mc_sampling s = { .temperature = turn % 3 ? 1e-4f * (float)(turn % 7 + 1) : 0,
                                       .top_k = turn % 5,
                                       .top_p = turn % 2 ? 0.3f : 0,
                                       .seed = turn,
                                       .logprobs = turn % 21,
                                       .banned = banned,
                                       .banned_count = turn % 3 };
        for (uint32_t i = 0; i < r.vocab; i++)
            r.logits[i] = turn < 60 ? odd[turn % 6] : odd[prng_below(&prng, 6)];
        const struct mc_sample sample = choose(&r, &s, turn);
        assert_false(is_banned(&s, sample.chosen.token));
        assert_int_equal(sample.top_count, s.logprobs);
    }
    room_close(&r);
}

static void test_the_lowest_temperature_is_greedy_where_there_is_no_tie(void **state)
{
    struct prng prng = { .seed = 8 };
    struct room r = room_open(50);

    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        fill(&r, &prng, 0);
        const struct mc_sampling cold = { .temperature = 1e-4f, .seed = seed }, greedy = { 0 };
        assert_int_equal(choose(&r, &cold, 3).chosen.token, choose(&r, &greedy, 3).chosen.token);
    }
    room_close(&r);
}

/* ------------------------------------------------------------------------------------------ settings */

static void test_settings_out_of_bounds_are_refused_by_name(void **state)
{
    static const uint32_t all[] = { 0, 1, 2 }, outside[] = { 1, 3 };
    static const struct {
        struct mc_sampling sampling;
        const char *fault; /* NULL: none */
    } rows[] = {
        { { 0 }, NULL },
        { { .temperature = 1e-4f, .top_p = 1, .top_k = UINT32_MAX, .logprobs = 20 }, NULL },
        { { .temperature = 100, .banned = all, .banned_count = 2 }, NULL },
        { { .temperature = 100.1f }, "temperature" },
        { { .temperature = -1 }, "temperature" },
        { { .temperature = 9e-5f }, "temperature" },
        { { .temperature = NAN }, "temperature" },
        { { .temperature = INFINITY }, "temperature" },
        { { .top_p = -0.1f }, "top_p" },
        { { .top_p = 1.1f }, "top_p" },
        { { .top_p = NAN }, "top_p" },
        { { .logprobs = 21 }, "logprobs" },
        { { .banned = outside, .banned_count = 2 }, "banned token is not" },
        { { .banned = all, .banned_count = 3 }, "every token is banned" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        const char *fault = sampling_fault(&rows[i].sampling, 3);
        if (!rows[i].fault)
            assert_null(fault);
        else if (!fault || !strstr(fault, rows[i].fault))
            fail_msg("row %zu: %s", i, fault ? fault : "accepted");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits_and_draw_are_those_of_sorting_everything),
        cmocka_unit_test(test_greedy_takes_the_lowest_id_among_equals_and_none_that_is_banned),
        cmocka_unit_test(test_banned_tokens_are_never_drawn_though_they_are_the_likeliest),
        cmocka_unit_test(test_draws_follow_the_distribution),
        cmocka_unit_test(test_a_draw_is_a_function_of_seed_and_position_alone),
        cmocka_unit_test(test_log_probabilities_sum_to_one),
        cmocka_unit_test(test_the_top_list_falls_and_names_equals_by_id),
        cmocka_unit_test(test_log_probabilities_are_of_the_model_before_temperature_and_limits),
        cmocka_unit_test(test_rows_that_are_not_numbers_still_give_a_token),
        cmocka_unit_test(test_the_lowest_temperature_is_greedy_where_there_is_no_tie),
        cmocka_unit_test(test_settings_out_of_bounds_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
