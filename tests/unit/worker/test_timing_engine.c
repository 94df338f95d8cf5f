/* test_timing_engine.c - the engine of numbers keeps the promises that engines make: what it computes for a
 * sequence depends on that sequence alone, and what cannot be is refused before anything is done. */
#include "test.h"

#include "kv/layout.h"
#include "worker/timing_engine.h"

enum { TOKENS = 100, PAGES = 8, PAGE = 512, VOCAB = 97 };

/* No time passes: these tests are about the rest. */
static const struct timing_model model = { .kv_token_bytes = 16, .context_max = 128 };

struct desk {
    struct faulty faulty;
    mc_engine *engine;
    _Alignas(64) uint8_t memory[PAGES][PAGE];
    void *pages[PAGES];
    uint32_t tokens[TOKENS];
};

static mc_status desk_open(struct desk *d, long fail_at)
{
    static const uint32_t never[] = { 3, 4 };
    struct timing_engine_options o = { .model = &model,
                                       .role = MC_ROLE_BOTH,
                                       .layout = timing_layout(&model, 2, 1),
                                       .tokens_max = 128,
                                       .sequences_max = 4,
                                       .context_max = 128,
                                       .vocab_size = VOCAB,
                                       .never = never,
                                       .never_count = 2 };
    struct mc_error error = { 0 };

    memset(d, 0, sizeof(*d));
    faulty_init(&d->faulty, fail_at);
    o.alloc = &d->faulty.alloc;
    assert_int_equal(mc_kv_page_bytes(&o.layout), 256);
    for (uint32_t i = 0; i < PAGES; i++)
        d->pages[i] = d->memory[i];
    for (uint32_t i = 0; i < TOKENS; i++)
        d->tokens[i] = i * 7 % VOCAB;
    return timing_engine_open(&o, &d->engine, &error);
}

static void desk_close(struct desk *d)
{
    mc_engine_close(d->engine);
    assert_int_equal(d->faulty.held, 0);
}

static struct mc_sample step(struct desk *d, uint32_t from, uint32_t count)
{
    static const struct mc_sampling greedy = { 0 };
    struct mc_sample sample;
    struct mc_sequence s = { .tokens = d->tokens + from,
                             .token_count = count,
                             .position = from,
                             .pages = d->pages,
                             .sampling = &greedy,
                             .sample = &sample };
    const struct mc_step all = { .sequences = &s, .count = 1 };
    struct mc_error error = { 0 };

    if (mc_engine_step(d->engine, &all, &error) != MC_OK)
        fail_msg("%s", error.text);
    return sample;
}

static void test_the_same_prompt_gives_the_same_however_it_is_cut(void **state)
{
    struct desk d;
    uint8_t whole[PAGES][PAGE];

    (void)state;
    assert_int_equal(desk_open(&d, -1), MC_OK);
    const uint32_t token = step(&d, 0, TOKENS).chosen.token;
    memcpy(whole, d.memory, sizeof(whole));
    memset(d.memory, 0xee, sizeof(d.memory));
    for (uint32_t at = 0; at < 96; at += 32)
        (void)step(&d, at, 32);
    assert_int_equal(step(&d, 96, 4).chosen.token, token);
    for (uint32_t i = 0; i < TOKENS / 16; i++)
        assert_memory_equal(d.memory[i], whole[i], 256);
    assert_int_equal(step(&d, TOKENS - 1, 1).chosen.token, token); /* a full hit */
    desk_close(&d);
}

static void test_a_byte_that_came_wrong_changes_the_answer(void **state)
{
    struct desk d;

    (void)state;
    assert_int_equal(desk_open(&d, -1), MC_OK);
    (void)step(&d, 0, 64);
    const uint32_t right = step(&d, 64, 36).chosen.token;
    d.memory[3][kv_offset(&(struct mc_kv_layout){ 2, 1, 2, 16, MC_DTYPE_BF16 }, 0, KV_KEY, 15)] ^=
        1;
    assert_int_not_equal(step(&d, 64, 36).chosen.token, right);
    desk_close(&d);
}

static void test_what_ends_a_text_is_never_said(void **state)
{
    struct desk d;
    uint32_t banned[VOCAB - 3], count = 0;

    (void)state;
    assert_int_equal(desk_open(&d, -1), MC_OK);
    for (uint32_t i = 0; i < VOCAB; i++)
        if (i != 3 && i != 4 && i != 50)
            banned[count++] = i;
    const struct mc_sampling sampling = { .banned = banned, .banned_count = count, .logprobs = 3 };
    struct mc_sample sample;
    struct mc_sequence s = { .tokens = d.tokens,
                             .token_count = 5,
                             .pages = d.pages,
                             .sampling = &sampling,
                             .sample = &sample };
    const struct mc_step all = { .sequences = &s, .count = 1 };
    assert_int_equal(mc_engine_step(d.engine, &all, NULL), MC_OK);
    assert_int_equal(sample.chosen.token, 50);
    assert_int_equal(sample.top_count, 3);
    assert_int_equal(sample.top[0].token, 50);
    desk_close(&d);
}

static void test_what_cannot_be_is_refused_by_name(void **state)
{
    static const struct mc_sampling greedy = { 0 }, many = { .logprobs = 21 };
    struct desk d;
    struct mc_sample sample;
    uint32_t wrong[1] = { VOCAB };

    (void)state;
    assert_int_equal(desk_open(&d, -1), MC_OK);
    const struct {
        struct mc_sequence s;
        mc_status status;
    } cases[] = {
        { { .tokens = d.tokens, .token_count = 0 }, MC_E_RANGE },
        { { .tokens = d.tokens, .token_count = 100, .position = 32 }, MC_E_RANGE },
        { { .tokens = d.tokens, .token_count = 2, .position = 8 }, MC_E_ARG },
        { { .tokens = wrong, .token_count = 1 }, MC_E_RANGE },
        { { .tokens = d.tokens, .token_count = 1, .sampling = &greedy }, MC_E_ARG },
        { { .tokens = d.tokens, .token_count = 1, .sampling = &many, .sample = &sample },
          MC_E_RANGE },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct mc_sequence s = cases[i].s;
        struct mc_error error = { 0 };
        const struct mc_step all = { .sequences = &s, .count = 1 };
        s.pages = d.pages;
        assert_int_equal(mc_engine_step(d.engine, &all, &error), cases[i].status);
        assert_true(error.text[0] != '\0');
    }
    const struct mc_step nobody = { .count = 0 };
    assert_int_equal(mc_engine_step(d.engine, &nobody, NULL), MC_E_RANGE);
    desk_close(&d);
}

static void count_layer(void *user, uint32_t layer)
{
    uint32_t *next = user;

    assert_int_equal(layer, *next);
    ++*next;
}

static void test_every_layer_is_told_in_order(void **state)
{
    struct desk d;
    uint32_t next = 0;

    (void)state;
    assert_int_equal(desk_open(&d, -1), MC_OK);
    struct mc_sequence s = { .tokens = d.tokens, .token_count = 16, .pages = d.pages };
    struct mc_step all = { .sequences = &s, .count = 1, .layer_done = count_layer, .user = &next };
    assert_int_equal(mc_engine_step(d.engine, &all, NULL), MC_OK);
    assert_int_equal(next, 2);
    s.token_count = 1;
    s.position = 16;
    next = 0;
    assert_int_equal(mc_engine_step(d.engine, &all, NULL), MC_OK);
    assert_int_equal(next, 2);
    desk_close(&d);
}

/* A step of an hour, in an engine that is being closed. */
static void test_a_stopped_engine_does_not_wait(void **state)
{
    const struct timing_model slow = { .cost = { .p0 = 3600 }, .kv_token_bytes = 16 };
    struct desk d;
    struct mc_error error = { 0 };

    (void)state;
    assert_int_equal(desk_open(&d, -1), MC_OK);
    mc_engine_close(d.engine);
    const struct timing_engine_options o = { .alloc = &d.faulty.alloc,
                                             .model = &slow,
                                             .role = MC_ROLE_PREFILL,
                                             .layout = timing_layout(&slow, 2, 1),
                                             .tokens_max = 128,
                                             .sequences_max = 1,
                                             .context_max = 128,
                                             .vocab_size = VOCAB };
    assert_int_equal(timing_engine_open(&o, &d.engine, &error), MC_OK);
    timing_engine_stop(d.engine);
    (void)step(&d, 0, 16);
    desk_close(&d);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (long k = 0;; k++) {
        struct desk d;
        const mc_status status = desk_open(&d, k);

        if (status == MC_OK) {
            desk_close(&d);
            assert_int_equal(k, 3);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_int_equal(d.faulty.held, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_prompt_gives_the_same_however_it_is_cut),
        cmocka_unit_test(test_a_byte_that_came_wrong_changes_the_answer),
        cmocka_unit_test(test_what_ends_a_text_is_never_said),
        cmocka_unit_test(test_what_cannot_be_is_refused_by_name),
        cmocka_unit_test(test_every_layer_is_told_in_order),
        cmocka_unit_test(test_a_stopped_engine_does_not_wait),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
