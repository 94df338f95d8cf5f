/* test_batcher.c - many requests over a fake engine that reads its past from the pages alone. */
#include "test.h"

#include "base/alloc.h"
#include "base/prng.h"
#include "infer/batcher.h"
#include "kv/layout.h"

enum { VOCAB = 97, EOS = 1, CONTEXT = 400, TOKENS_MAX = 64, SEQUENCES_MAX = 8, REQUESTS_MAX = 40 };

/*
 * The fake engine stores each token's id where its key belongs, and makes the next token from all ids
 * that it finds in the pages: a page that was lost, shared or given away changes the answer. It
 * checks the rules of struct mc_sequence on the way.
 */
struct fake {
    mc_engine base;
    uint32_t tokens_max, sequences_max;
    uint64_t steps, tokens;
    uint32_t most_sequences;
    uint64_t fail_at; /* the step that fails; UINT64_MAX: none */
    uint32_t longest; /* chunk seen */
};

static const struct mc_kv_layout layout = {
    .layers = 1, .kv_heads = 1, .head_dim = 1, .page_tokens = 16, .dtype = MC_DTYPE_F32
};

static void fake_limits(const mc_engine *engine, struct mc_engine_limits *limits_p)
{
    const struct fake *fake = (const struct fake *)engine;

    *limits_p =
        (struct mc_engine_limits){ layout, fake->tokens_max, fake->sequences_max, CONTEXT, VOCAB };
}

static uint32_t choose(uint64_t past, const struct mc_sampling *s, uint32_t position)
{
    uint32_t token = (uint32_t)(prng_at(past ^ s->seed, position) % VOCAB);

    for (uint32_t i = 0; i < s->banned_count; i++)
        if (s->banned[i] == token)
            token = (token + 1) % VOCAB;
    return token;
}

static uint32_t *cell(const struct mc_sequence *sequence, uint32_t position)
{
    char *page = sequence->pages[position / 16];

    return (uint32_t *)(void *)(page + kv_offset(&layout, 0, KV_KEY, position % 16));
}

static void compute(const struct mc_sequence *sequence)
{
    const uint32_t end = sequence->position + sequence->token_count;
    uint64_t past = 0;

    for (uint32_t i = 0; i < sequence->token_count; i++)
        *cell(sequence, sequence->position + i) = sequence->tokens[i];
    for (uint32_t i = 0; i < end; i++)
        past = prng_mix(past ^ *cell(sequence, i));
    if (sequence->sampling)
        sequence->sample->chosen.token = choose(past, sequence->sampling, end);
}

static mc_status fake_step(mc_engine *engine, const struct mc_step *step, struct mc_error *error)
{
    struct fake *fake = (struct fake *)engine;
    uint32_t tokens = 0;

    (void)error;
    assert_in_range(step->count, 1, fake->sequences_max);
    if (fake->steps++ == fake->fail_at)
        return MC_E_RANGE;
    for (uint32_t i = 0; i < step->count; i++) {
        const struct mc_sequence *s = &step->sequences[i];
        assert_true(s->token_count >= 1);
        assert_true(s->position % 16 == 0 || s->token_count == 1);
        assert_true((s->position + s->token_count) % 16 == 0 || s->sampling);
        for (uint32_t k = 0; k < kv_pages(s->position + s->token_count); k++)
            assert_int_equal((uintptr_t)s->pages[k] % 64, 0);
        tokens += s->token_count;
        if (s->token_count > fake->longest)
            fake->longest = s->token_count;
        compute(s);
    }
    assert_in_range(tokens, 1, fake->tokens_max);
    fake->tokens += tokens;
    if (step->count > fake->most_sequences)
        fake->most_sequences = step->count;
    return MC_OK;
}

static void fake_close(mc_engine *engine)
{
    (void)engine;
}

static const struct mc_engine_ops fake_ops = { "fake", fake_limits, fake_step, fake_close };

/* One request of a test, and what came of it. */
struct client {
    uint32_t prompt[CONTEXT], prompt_count, max_tokens, min_tokens;
    uint64_t seed;
    struct request *request; /* NULL once finished */
    uint32_t answer[CONTEXT], answer_count;
    enum request_finish finish;
    char why[200];
    struct world *world;
    uint32_t cancel_at, adds; /* in the event of this token: cancel all others; add a client */
};

struct world {
    struct faulty faulty;
    struct fake fake;
    batcher *batcher;
    struct client clients[REQUESTS_MAX];
    uint32_t count;
    struct mc_error error;
};

static struct world *world_open(const struct batcher_options *options, uint32_t tokens_max)
{
    struct world *w = calloc(1, sizeof(*w));
    struct batcher_options o = *options;

    assert_non_null(w);
    faulty_init(&w->faulty, -1);
    w->fake = (struct fake){ .base = { &fake_ops },
                             .tokens_max = tokens_max,
                             .sequences_max = SEQUENCES_MAX,
                             .fail_at = UINT64_MAX };
    o.alloc = &w->faulty.alloc;
    assert_int_equal(batcher_open(&w->fake.base, &o, &w->batcher, &w->error), MC_OK);
    return w;
}

static void world_close(struct world *w)
{
    struct batcher_state state;

    batcher_state(w->batcher, &state);
    assert_int_equal(state.pages_free, state.pages);
    batcher_close(w->batcher);
    assert_int_equal(w->faulty.held, 0);
    free(w);
}

static void add(struct world *w, uint32_t prompt_count, uint32_t max_tokens, uint64_t seed);

static void hear(void *user, struct request *r, const struct request_event *event)
{
    struct client *c = user;
    struct world *w = c->world;

    assert_ptr_equal(c->request, r);
    if (event->sample)
        c->answer[c->answer_count++] = event->sample->chosen.token;
    if (c->cancel_at && c->answer_count == c->cancel_at)
        for (uint32_t i = 0; i < w->count; i++)
            if (&w->clients[i] != c && w->clients[i].request)
                batcher_cancel(w->batcher, w->clients[i].request);
    for (; c->adds > 0; c->adds--)
        add(w, 20, 5, 1000 + c->adds);
    c->finish = event->finish;
    if (event->why)
        strcpy(c->why, event->why);
    if (event->finish != REQUEST_RUNNING) {
        request_close(r);
        c->request = NULL;
    }
}

static mc_status try_add(struct world *w, struct client *c)
{
    static const uint32_t eos[] = { EOS };
    const struct request_options o = {
        .prompt = c->prompt,
        .prompt_count = c->prompt_count,
        .context_max = CONTEXT,
        .max_tokens = c->max_tokens,
        .min_tokens = c->min_tokens,
        .eos = eos,
        .eos_count = 1,
        .sampling.seed = c->seed,
        .output = hear,
        .user = c,
        .alloc = &w->faulty.alloc,
    };

    c->world = w;
    assert_int_equal(request_open(&o, &c->request, &w->error), MC_OK);
    const mc_status status = batcher_add(w->batcher, c->request, &w->error);
    if (status != MC_OK) {
        request_close(c->request);
        c->request = NULL;
    }
    return status;
}

/* The next client, whose prompt follows from `seed`. */
static struct client *next_client(struct world *w, uint32_t prompt_count, uint32_t max_tokens,
                                  uint64_t seed)
{
    struct client *c = &w->clients[w->count++];

    assert_true(w->count <= REQUESTS_MAX);
    c->prompt_count = prompt_count;
    c->max_tokens = max_tokens;
    c->seed = seed;
    for (uint32_t i = 0; i < prompt_count; i++)
        c->prompt[i] = (uint32_t)(prng_at(seed, i) % VOCAB);
    return c;
}

static void add(struct world *w, uint32_t prompt_count, uint32_t max_tokens, uint64_t seed)
{
    assert_int_equal(try_add(w, next_client(w, prompt_count, max_tokens, seed)), MC_OK);
}

static void run(struct world *w)
{
    for (uint32_t steps = 0; batcher_busy(w->batcher); steps++) {
        assert_true(steps < 100000);
        assert_int_equal(batcher_step(w->batcher, &w->error), MC_OK);
    }
}

/* The answer that the client must get, made without any batcher. */
static void assert_own_answer(const struct client *c, bool whole)
{
    uint32_t tokens[CONTEXT], count = c->prompt_count;
    const uint32_t eos[] = { EOS };

    memcpy(tokens, c->prompt, sizeof(tokens[0]) * count);
    for (uint32_t made = 0; made < c->answer_count; made++) {
        const struct mc_sampling s = { .seed = c->seed,
                                       .banned = eos,
                                       .banned_count = made < c->min_tokens };
        uint64_t past = 0;
        for (uint32_t i = 0; i < count; i++)
            past = prng_mix(past ^ tokens[i]);
        tokens[count] = choose(past, &s, count);
        assert_int_equal(c->answer[made], tokens[count]);
        count++;
    }
    if (!whole)
        return;
    if (tokens[count - 1] == EOS)
        assert_int_equal(c->finish, REQUEST_STOP);
    else {
        assert_int_equal(c->finish, REQUEST_LENGTH);
        assert_int_equal(c->answer_count, c->max_tokens);
    }
}

static void test_every_request_gets_its_own_answer_in_any_company(void **state)
{
    (void)state;
    static const uint32_t pages[] = { 30, 60, 400 };

    for (uint64_t seed = 0; seed < 30; seed++) {
        struct prng prng = { .seed = seed };
        const struct batcher_options o = { .pages = pages[seed % 3],
                                           .chunk_tokens = 16 * (1 + prng_below(&prng, 5)) };
        struct world *w = world_open(&o, 16 * (1 + prng_below(&prng, 6)));
        struct batcher_state seen;

        while (w->count < 32) {
            const uint32_t prompt = 1 + prng_below(&prng, 200);
            struct client *c = next_client(w, prompt, 1 + prng_below(&prng, 150), seed + w->count);
            c->min_tokens = prng_below(&prng, 2) ? c->max_tokens / 2 : 0;
            assert_int_equal(try_add(w, c), MC_OK);
            for (uint32_t i = prng_below(&prng, 20); i > 0; i--)
                assert_int_equal(batcher_step(w->batcher, &w->error), MC_OK);
        }
        run(w);
        batcher_state(w->batcher, &seen);
        if (pages[seed % 3] == 400)
            assert_int_equal(seen.preemptions, 0);
        for (uint32_t i = 0; i < w->count; i++)
            assert_own_answer(&w->clients[i], true);
        world_close(w);
    }
}

static void test_the_newest_is_preempted_and_its_answer_unchanged(void **state)
{
    (void)state;
    const struct batcher_options o = { .pages = 8 };
    struct world *w = world_open(&o, TOKENS_MAX);
    struct batcher_state seen;

    for (uint64_t seed = 0; seed < 3; seed++) {
        struct client *c = next_client(w, 16, 64, seed);
        c->min_tokens = 64;
        assert_int_equal(try_add(w, c), MC_OK);
    }
    uint32_t order[3], ended = 0;
    while (batcher_busy(w->batcher)) {
        assert_int_equal(batcher_step(w->batcher, &w->error), MC_OK);
        for (uint32_t i = 0; i < 3; i++)
            if (!w->clients[i].request && w->clients[i].answer_count && w->clients[i].adds == 0) {
                order[ended++] = i;
                w->clients[i].adds = 1; /* noted */
            }
    }
    batcher_state(w->batcher, &seen);
    assert_true(seen.preemptions > 0);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(order[i], i); /* all are alike, so the oldest ends first */
        assert_own_answer(&w->clients[i], true);
    }
    world_close(w);
}

static void test_a_request_is_cancelled_at_every_phase_and_no_other_notices(void **state)
{
    (void)state;
    uint32_t waiting = 0, silent = 0, speaking = 0, over = 0;

    for (uint32_t phase = 0; phase < 120; phase++) {
        const struct batcher_options o = { .pages = 24, .chunk_tokens = 16, .running_max = 2 };
        struct world *w = world_open(&o, 32);
        for (uint64_t seed = 0; seed < 5; seed++)
            add(w, 100, 40, seed);
        for (uint32_t i = 0; i < phase; i++)
            assert_int_equal(batcher_step(w->batcher, &w->error), MC_OK);
        struct client *c = &w->clients[2];
        if (c->request) {
            const uint32_t pages = c->request->page_count;
            waiting += pages == 0;
            silent += pages > 0 && c->answer_count == 0;
            speaking += c->answer_count > 0;
            batcher_cancel(w->batcher, c->request);
            assert_int_equal(batcher_step(w->batcher, &w->error), MC_OK);
            assert_int_equal(c->finish, REQUEST_CANCELLED);
            assert_null(c->request);
            assert_own_answer(c, false);
        } else
            over++;
        run(w);
        for (uint32_t i = 0; i < 5; i++)
            if (i != 2)
                assert_own_answer(&w->clients[i], true);
        world_close(w);
    }
    assert_true(waiting > 0 && silent > 0 && speaking > 0 && over > 0); /* every phase was hit */
}

static void test_events_may_cancel_and_add(void **state)
{
    (void)state;
    const struct batcher_options o = { .pages = 40 };
    struct world *w = world_open(&o, TOKENS_MAX);

    for (uint64_t seed = 0; seed < 4; seed++)
        next_client(w, 30, 50, seed)->min_tokens = 50;
    w->clients[1].cancel_at = 10;
    w->clients[0].adds = 3;
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(try_add(w, &w->clients[i]), MC_OK);
    run(w);
    assert_int_equal(w->count, 7);
    assert_own_answer(&w->clients[1], true);
    assert_int_equal(w->clients[0].finish, REQUEST_CANCELLED);
    assert_int_equal(w->clients[3].finish, REQUEST_CANCELLED);
    world_close(w);
}

static void test_what_can_never_run_is_refused_and_a_full_queue_says_so(void **state)
{
    (void)state;
    const struct batcher_options o = { .pages = 4, .waiting_max = 2 };
    struct world *w = world_open(&o, TOKENS_MAX);

    assert_int_equal(try_add(w, next_client(w, 60, 6, 1)), MC_E_RANGE);
    assert_string_equal(w->error.text,
                        "66 tokens, prompt and answer, need 5 KVCache pages; there are 4");
    struct client *odd = next_client(w, 3, 3, 1);
    odd->prompt[1] = VOCAB;
    assert_int_equal(try_add(w, odd), MC_E_RANGE);
    assert_string_equal(w->error.text, "token 1 of the prompt is 97; the model has 97");
    add(w, 60, 5, 1); /* 65 tokens fit: the last is never computed */
    add(w, 1, 1, 2);
    assert_int_equal(try_add(w, next_client(w, 1, 1, 3)), MC_E_FULL);
    assert_string_equal(w->error.text, "2 requests are waiting already");
    run(w);
    assert_own_answer(&w->clients[2], true);
    world_close(w);
}

static void test_nobody_overtakes_a_large_request(void **state)
{
    (void)state;
    const struct batcher_options o = { .pages = 20 };
    struct world *w = world_open(&o, TOKENS_MAX);

    next_client(w, 200, 100, 1)->min_tokens = 100; /* 19 pages in the end */
    next_client(w, 200, 10, 2);
    next_client(w, 1, 1, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(try_add(w, &w->clients[i]), MC_OK);
    while (w->clients[1].answer_count == 0) {
        assert_int_equal(w->clients[2].answer_count, 0);
        assert_int_equal(batcher_step(w->batcher, &w->error), MC_OK);
    }
    assert_null(w->clients[0].request); /* they never had room together */
    run(w);
    for (uint32_t i = 0; i < 3; i++)
        assert_own_answer(&w->clients[i], true);
    world_close(w);
}

static void test_a_prompt_goes_on_while_others_decode(void **state)
{
    (void)state;
    const struct batcher_options o = { .pages = 200 };
    struct world *w = world_open(&o, 16); /* room for one decode beside a page of a prompt */

    next_client(w, 1, 300, 1)->min_tokens = 300;
    next_client(w, 160, 1, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(try_add(w, &w->clients[i]), MC_OK);
    run(w);
    assert_int_equal(w->fake.most_sequences, 1); /* 16 - 15: what the tokens of a step allow */
    world_close(w);

    w = world_open(&o, 32);
    next_client(w, 1, 300, 1)->min_tokens = 300;
    next_client(w, 160, 1, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(try_add(w, &w->clients[i]), MC_OK);
    for (uint32_t i = 0; i < 12; i++)
        assert_int_equal(batcher_step(w->batcher, &w->error), MC_OK);
    assert_null(w->clients[1].request);
    assert_int_equal(w->clients[0].answer_count, 12); /* and not one step was lost */
    run(w);
    world_close(w);
}

static void test_chunks_are_cut_to_what_was_asked_and_what_the_engine_takes(void **state)
{
    (void)state;
    static const struct {
        uint32_t chunk, tokens_max, longest;
    } cases[] = { { 32, 64, 32 }, { 0, 64, 64 }, { 512, 48, 48 }, { 0, 1024, 300 } };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct batcher_options o = { .pages = 40, .chunk_tokens = cases[i].chunk };
        struct world *w = world_open(&o, cases[i].tokens_max);
        add(w, 300, 3, 1);
        run(w);
        assert_int_equal(w->fake.longest, cases[i].longest);
        world_close(w);
    }
}

static void test_an_engine_error_ends_the_requests_of_that_step_alone(void **state)
{
    (void)state;
    const struct batcher_options o = { .pages = 40, .running_max = 2 };
    struct world *w = world_open(&o, TOKENS_MAX);

    for (uint64_t seed = 0; seed < 3; seed++)
        next_client(w, 20, 30, seed)->min_tokens = 30;
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(try_add(w, &w->clients[i]), MC_OK);
    w->fake.fail_at = 5;
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(batcher_step(w->batcher, &w->error), MC_OK);
    assert_int_equal(batcher_step(w->batcher, &w->error), MC_E_RANGE);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(w->clients[i].finish, REQUEST_ERROR);
        assert_string_equal(w->clients[i].why, "value out of range");
    }
    run(w);
    assert_own_answer(&w->clients[2], true);
    world_close(w);
}

static void test_close_cancels_what_is_inside(void **state)
{
    (void)state;
    const struct batcher_options o = { .pages = 40, .running_max = 1 };
    struct world *w = world_open(&o, TOKENS_MAX);

    add(w, 20, 30, 1);
    add(w, 20, 30, 2);
    assert_int_equal(batcher_step(w->batcher, &w->error), MC_OK);
    batcher_close(w->batcher);
    assert_int_equal(w->clients[0].finish, REQUEST_CANCELLED);
    assert_int_equal(w->clients[1].finish, REQUEST_CANCELLED);
    assert_int_equal(w->faulty.held, 0);
    free(w);
}

static void test_wrong_options_are_refused(void **state)
{
    (void)state;
    struct fake fake = { .base = { &fake_ops }, .tokens_max = 64, .sequences_max = 4 };
    struct faulty f;
    struct mc_error error = { 0 };
    batcher *b = NULL;
    faulty_init(&f, -1);
    struct batcher_options o = { .chunk_tokens = 17, .alloc = &f.alloc };

    assert_int_equal(batcher_open(&fake.base, &o, &b, &error), MC_E_ARG);
    assert_string_equal(error.text, "chunk: 17 is not a multiple of 16");
    o = (struct batcher_options){ .waiting_max = 65537, .alloc = &f.alloc };
    assert_int_equal(batcher_open(&fake.base, &o, &b, &error), MC_E_RANGE);
    assert_string_equal(error.text, "waiting: 65537 is more than 65536");
    assert_null(b);
    assert_int_equal(f.held, 0);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    struct fake fake = { .base = { &fake_ops }, .tokens_max = 64, .sequences_max = 4 };

    for (long k = 0;; k++) {
        struct faulty f;
        struct mc_error error = { 0 };
        batcher *b = NULL;
        faulty_init(&f, k);
        const struct batcher_options o = { .pages = 3, .alloc = &f.alloc };
        const mc_status status = batcher_open(&fake.base, &o, &b, &error);

        if (status == MC_OK) {
            batcher_close(b);
            assert_int_equal(f.held, 0);
            assert_int_equal(k, 8);
            return;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_non_null(strstr(error.text, "out of memory for"));
        assert_null(b);
        assert_int_equal(f.held, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_request_gets_its_own_answer_in_any_company),
        cmocka_unit_test(test_the_newest_is_preempted_and_its_answer_unchanged),
        cmocka_unit_test(test_a_request_is_cancelled_at_every_phase_and_no_other_notices),
        cmocka_unit_test(test_events_may_cancel_and_add),
        cmocka_unit_test(test_what_can_never_run_is_refused_and_a_full_queue_says_so),
        cmocka_unit_test(test_nobody_overtakes_a_large_request),
        cmocka_unit_test(test_a_prompt_goes_on_while_others_decode),
        cmocka_unit_test(test_chunks_are_cut_to_what_was_asked_and_what_the_engine_takes),
        cmocka_unit_test(test_an_engine_error_ends_the_requests_of_that_step_alone),
        cmocka_unit_test(test_close_cancels_what_is_inside),
        cmocka_unit_test(test_wrong_options_are_refused),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
