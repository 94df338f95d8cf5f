/*
 * test_joining.c - requests that bring pages: prefixes that were pulled, prompts that another batcher
 * computed. The fake engine's answers are made of what it finds in the pages alone.
 */
#include "test.h"

#include "base/alloc.h"
#include "base/prng.h"
#include "infer/batcher.h"
#include "kv/layout.h"

enum { VOCAB = 997, CONTEXT = 400, LAYERS = 3, PAGES = 64, PROMPT = 150, ANSWER = 60 };

static const struct mc_kv_layout layout = {
    .layers = LAYERS, .kv_heads = 1, .head_dim = 1, .page_tokens = 16, .dtype = MC_DTYPE_F32
};
static const size_t stride = LAYERS * 2 * 16 * 4;

struct fake {
    mc_engine base;
    uint32_t steps, computed; /* tokens */
};

static void fake_limits(const mc_engine *engine, struct mc_engine_limits *limits_p)
{
    (void)engine;
    *limits_p = (struct mc_engine_limits){ layout, 64, 8, CONTEXT, VOCAB };
}

static uint32_t *cell(const struct mc_sequence *s, uint32_t layer, uint32_t position)
{
    char *page = s->pages[position / 16];

    return (uint32_t *)(void *)(page + kv_offset(&layout, layer, KV_KEY, position % 16));
}

static mc_status fake_step(mc_engine *engine, const struct mc_step *step, struct mc_error *error)
{
    struct fake *fake = (struct fake *)engine;

    (void)error;
    fake->steps++;
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        for (uint32_t i = 0; i < step->count; i++) {
            const struct mc_sequence *s = &step->sequences[i];
            assert_true(s->position % 16 == 0 || s->token_count == 1);
            for (uint32_t k = 0; k < s->token_count; k++)
                *cell(s, layer, s->position + k) = s->tokens[k] * (layer + 1);
        }
        if (step->layer_done)
            step->layer_done(step->user, layer);
    }
    for (uint32_t i = 0; i < step->count; i++) {
        const struct mc_sequence *s = &step->sequences[i];
        uint64_t past = 0;
        for (uint32_t layer = 0; layer < LAYERS; layer++)
            for (uint32_t k = 0; k < s->position + s->token_count; k++)
                past = prng_mix(past ^ *cell(s, layer, k));
        fake->computed += s->token_count;
        if (s->sampling)
            s->sample->chosen.token =
                (uint32_t)(prng_at(past ^ s->sampling->seed, s->position + s->token_count) % VOCAB);
    }
    return MC_OK;
}

static void fake_close(mc_engine *engine)
{
    (void)engine;
}

static const struct mc_engine_ops fake_ops = { "fake", fake_limits, fake_step, fake_close };

/* A worker: an engine, its pages, its batcher. */
struct house {
    struct faulty faulty;
    struct fake fake;
    void *memory;
    struct pages *pages;
    batcher *batcher;
};

static void house_open(struct house *h, const struct batcher_hooks *hooks, uint32_t page_count)
{
    *h = (struct house){ .fake = { .base = { &fake_ops } },
                         .memory = aligned_alloc(64, page_count * stride) };
    faulty_init(&h->faulty, -1);
    assert_non_null(h->memory);
    assert_int_equal(pages_open(&h->faulty.alloc, h->memory, stride, page_count, &h->pages, NULL),
                     MC_OK);
    const struct batcher_options o = { .shared = h->pages,
                                       .chunk_tokens = 32,
                                       .hooks = hooks ? *hooks : (struct batcher_hooks){ 0 },
                                       .alloc = &h->faulty.alloc };
    assert_int_equal(batcher_open(&h->fake.base, &o, &h->batcher, NULL), MC_OK);
}

static void house_close(struct house *h)
{
    batcher_close(h->batcher);
    assert_int_equal(pages_free(h->pages), pages_count(h->pages));
    pages_close(h->pages);
    free(h->memory);
    assert_int_equal(h->faulty.held, 0);
}

struct answer {
    uint32_t tokens[CONTEXT], count;
    enum request_finish finish;
    struct request *request;
    struct mc_sample first;
};

static void hear(void *user, struct request *r, const struct request_event *event)
{
    struct answer *a = user;

    if (event->sample) {
        a->tokens[a->count++] = event->sample->chosen.token;
        a->first = *event->sample;
    }
    a->finish = event->finish;
    if (event->finish != REQUEST_RUNNING) {
        assert_int_equal(r->page_count, 0);
        request_close(r);
        a->request = NULL;
    }
}

static void prompt_of(uint64_t seed, uint32_t *tokens)
{
    for (uint32_t i = 0; i < PROMPT; i++)
        tokens[i] = (uint32_t)(prng_at(seed, i) % VOCAB);
}

static struct request *open_short(struct house *h, struct answer *a, uint64_t seed,
                                  uint32_t prompt_count, uint32_t max_tokens)
{
    uint32_t prompt[PROMPT];

    prompt_of(seed, prompt);
    const struct request_options o = { .prompt = prompt,
                                       .prompt_count = prompt_count,
                                       .context_max = CONTEXT,
                                       .max_tokens = max_tokens,
                                       .sampling.seed = seed,
                                       .output = hear,
                                       .user = a,
                                       .alloc = &h->faulty.alloc };
    *a = (struct answer){ 0 };
    assert_int_equal(request_open(&o, &a->request, NULL), MC_OK);
    return a->request;
}

static struct request *open_request(struct house *h, struct answer *a, uint64_t seed,
                                    uint32_t max_tokens)
{
    return open_short(h, a, seed, PROMPT, max_tokens);
}

static void run(struct house *h)
{
    for (uint32_t steps = 0; batcher_busy(h->batcher); steps++) {
        assert_true(steps < 10000);
        assert_int_equal(batcher_step(h->batcher, NULL), MC_OK);
    }
}

static void add(struct house *h, struct request *r)
{
    assert_int_equal(batcher_add(h->batcher, r, NULL), MC_OK);
}

/* What the whole answer is, computed in one place from the start. */
static void answer_alone(uint64_t seed, struct answer *a)
{
    struct house h;

    house_open(&h, NULL, PAGES);
    add(&h, open_request(&h, a, seed, ANSWER));
    run(&h);
    assert_int_equal(a->count, ANSWER);
    house_close(&h);
}

/* Prefill in a house of its own, with one more holder of the pages; the first token comes back. */
static uint32_t prefill(struct house *h, uint64_t seed, void **held, struct mc_sample *first_p)
{
    struct answer a;
    struct request *r = open_request(h, &a, seed, 1);
    const uint32_t count = kv_pages(PROMPT);

    assert_true(pages_take(h->pages, count, 0, held));
    pages_hold(h->pages, held, count);
    memcpy(r->pages, held, count * sizeof(*held));
    r->page_count = count;
    r->pinned = true;
    add(h, r);
    run(h);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.finish, REQUEST_LENGTH);
    assert_int_equal(pages_free(h->pages), PAGES - count); /* they are the caller's still */
    *first_p = a.first;
    return count;
}

/* Decode a prompt of `from` in `to`. */
static struct request *join(struct house *to, void *const *pages, uint32_t count, uint64_t seed,
                            const struct mc_sample *first, struct answer *a)
{
    struct request *r = open_request(to, a, seed, ANSWER);

    assert_true(pages_reserve(to->pages, kv_pages(PROMPT + 1), 0, r->pages));
    r->page_count = kv_pages(PROMPT + 1);
    for (uint32_t i = 0; i < count; i++)
        memcpy(r->pages[i], pages[i], stride);
    r->computed = PROMPT;
    request_take(r, first);
    request_emit(r);
    add(to, r);
    return r;
}

static void test_a_prompt_handed_over_with_its_pages_has_the_same_answer(void **state)
{
    (void)state;
    struct house p, d;
    struct answer alone, apart;
    struct mc_sample first;
    void *held[PAGES];

    for (uint64_t seed = 0; seed < 5; seed++) {
        answer_alone(seed, &alone);
        house_open(&p, NULL, PAGES);
        house_open(&d, NULL, PAGES);
        const uint32_t count = prefill(&p, seed, held, &first);
        join(&d, held, count, seed, &first, &apart);
        run(&d);
        assert_memory_equal(apart.tokens, alone.tokens, sizeof(alone.tokens));
        assert_int_equal(d.fake.computed, ANSWER - 1); /* nothing of the prompt */
        pages_drop(p.pages, held, count);
        house_close(&p);
        house_close(&d);
    }
}

static void test_a_pulled_prefix_is_not_computed_again(void **state)
{
    (void)state;
    struct house p, q;
    struct answer alone, pulled;
    struct mc_sample first;
    void *held[PAGES];

    answer_alone(7, &alone);
    house_open(&p, NULL, PAGES);
    const uint32_t count = prefill(&p, 7, held, &first);
    for (uint32_t reused = 0; reused <= PROMPT / 16; reused++) {
        house_open(&q, NULL, PAGES);
        struct request *r = open_request(&q, &pulled, 7, ANSWER);
        assert_true(pages_take(q.pages, reused, 0, r->pages));
        for (uint32_t i = 0; i < reused; i++)
            memcpy(r->pages[i], held[i], stride);
        r->page_count = reused;
        r->computed = reused * 16;
        add(&q, r);
        run(&q);
        assert_memory_equal(pulled.tokens, alone.tokens, sizeof(alone.tokens));
        assert_int_equal(q.fake.computed, PROMPT + ANSWER - 1 - reused * 16);
        house_close(&q);
    }
    pages_drop(p.pages, held, count);
    house_close(&p);
}

static void test_joined_requests_are_preempted_and_their_answers_unchanged(void **state)
{
    (void)state;
    enum { JOINED = 4 };
    struct house p, d;
    struct answer alone[JOINED], apart[JOINED];
    struct mc_sample first;
    struct batcher_state seen;
    void *held[PAGES];

    house_open(&p, NULL, PAGES);
    house_open(&d, NULL, 4 * kv_pages(PROMPT + 1) + 2); /* too few for all answers at once */
    for (uint64_t seed = 0; seed < JOINED; seed++) {
        answer_alone(seed, &alone[seed]);
        const uint32_t count = prefill(&p, seed, held, &first);
        join(&d, held, count, seed, &first, &apart[seed]);
        pages_drop(p.pages, held, count);
        assert_int_equal(batcher_step(d.batcher, NULL), MC_OK);
    }
    run(&d);
    batcher_state(d.batcher, &seen);
    assert_true(seen.preemptions > 0);
    for (uint32_t i = 0; i < JOINED; i++)
        assert_memory_equal(apart[i].tokens, alone[i].tokens, sizeof(alone[i].tokens));
    house_close(&p);
    house_close(&d);
}

/* One is thrown out for want of a page, and behind it is one that needs none: the last token of a prompt. */
static void test_who_is_behind_one_that_is_thrown_out_is_not_passed_over(void **state)
{
    (void)state;
    enum { SHORT = 33 }; /* a chunk and a token */
    struct house p, d;
    struct answer alone, apart, last;
    struct mc_sample first;
    void *held[PAGES], *spare;

    answer_alone(1, &alone);
    house_open(&p, NULL, PAGES);
    house_open(&d, NULL, kv_pages(PROMPT + ANSWER));
    const uint32_t count = prefill(&p, 1, held, &first);
    struct request *r = join(&d, held, count, 1, &first, &apart);
    while (r->token_count % 16 != 0) /* then its pages are full */
        assert_int_equal(batcher_step(d.batcher, NULL), MC_OK);
    struct request *pinned = open_short(&d, &last, 2, SHORT, 1);
    assert_true(pages_take(d.pages, kv_pages(SHORT), 0, pinned->pages));
    pinned->page_count = kv_pages(SHORT);
    pinned->pinned = true;
    add(&d, pinned);
    assert_true(pages_take(d.pages, 1, 0, &spare)); /* none is left */
    assert_int_equal(batcher_step(d.batcher, NULL), MC_OK);
    assert_int_equal(batcher_step(d.batcher, NULL), MC_OK);
    assert_int_equal(last.count, 1);
    pages_drop(d.pages, &spare, 1);
    run(&d);
    assert_memory_equal(apart.tokens, alone.tokens, sizeof(alone.tokens));
    pages_drop(p.pages, held, count);
    house_close(&p);
    house_close(&d);
}

static void test_reserved_pages_make_a_step_wait_and_who_brings_pages_overtakes(void **state)
{
    (void)state;
    struct house p, d;
    struct answer alone, apart, waits;
    struct mc_sample first;
    void *held[PAGES], *reserved[PAGES];

    house_open(&p, NULL, PAGES);
    house_open(&d, NULL, 30);
    answer_alone(1, &alone);
    const uint32_t count = prefill(&p, 1, held, &first);

    assert_true(pages_reserve(d.pages, 16, 0, reserved)); /* 14 left */
    join(&d, held, count, 1, &first, &apart);             /* 4 left */
    struct request *r = open_request(&d, &waits, 2, 5);
    add(&d, r);
    assert_int_equal(batcher_step(d.batcher, NULL), MC_OK);
    assert_int_equal(apart.count, 2);
    assert_int_equal(waits.count, 0);
    assert_false(pages_reserve(d.pages, 1, 0, reserved + 16)); /* they are wanted */

    for (uint32_t i = 0; i < 1000 && apart.finish == REQUEST_RUNNING; i++)
        assert_int_equal(batcher_step(d.batcher, NULL), MC_OK);
    assert_memory_equal(apart.tokens, alone.tokens, sizeof(alone.tokens));
    run(&d); /* pages enough for the one that waited */
    assert_int_equal(waits.count, 5);

    assert_true(pages_reserve(d.pages, 14, 0, reserved + 16)); /* none is left */
    add(&d, open_request(&d, &waits, 2, 5));
    assert_int_equal(batcher_step(d.batcher, NULL), MC_PENDING);
    assert_true(batcher_busy(d.batcher));
    batcher_cancel(d.batcher, waits.request);
    assert_int_equal(batcher_step(d.batcher, NULL), MC_OK);
    assert_int_equal(waits.finish, REQUEST_CANCELLED);
    assert_false(pages_reserve(d.pages, 1, 0, reserved + 30));
    pages_drop(d.pages, reserved, 30);
    assert_true(pages_reserve(d.pages, 30, 0, reserved)); /* nobody wants them any more */
    pages_drop(d.pages, reserved, 30);
    pages_drop(p.pages, held, count);
    house_close(&p);
    house_close(&d);
}

/* What the hooks told, held against each other. */
struct told {
    struct request *const *requests;
    const struct mc_sequence *sequences;
    uint32_t count, layers, begun, computed;
};

static void on_begin(void *user, struct request *const *requests,
                     const struct mc_sequence *sequences, uint32_t count)
{
    struct told *t = user;

    *t = (struct told){ requests, sequences, count, 0, t->begun + 1, t->computed };
}

static void on_layer(void *user, uint32_t layer)
{
    struct told *t = user;

    assert_int_equal(layer, t->layers++);
    for (uint32_t i = 0; i < t->count; i++) { /* this layer of these positions is in the pages */
        const struct mc_sequence *s = &t->sequences[i];
        for (uint32_t k = 0; k < s->token_count; k++)
            assert_int_equal(*cell(s, layer, s->position + k),
                             t->requests[i]->tokens[s->position + k] * (layer + 1));
    }
}

static void on_computed(void *user, struct request *r, uint32_t position, uint32_t count)
{
    struct told *t = user;

    assert_int_equal(t->layers, LAYERS);
    assert_int_equal(r->computed, position + count);
    assert_true(r->page_count >= kv_pages(r->computed));
    t->computed += count;
}

static void test_hooks_tell_what_is_in_a_step_each_layer_and_what_is_computed(void **state)
{
    (void)state;
    struct told told = { 0 };
    const struct batcher_hooks hooks = { on_begin, on_layer, on_computed, &told };
    struct house h;
    struct answer a, b;

    house_open(&h, &hooks, PAGES);
    add(&h, open_request(&h, &a, 1, 10));
    add(&h, open_request(&h, &b, 2, 10));
    run(&h);
    assert_int_equal(told.begun, h.fake.steps);
    assert_int_equal(told.computed, 2 * (PROMPT + 9));
    house_close(&h);
}

static void test_pages_of_a_cancelled_request_stay_with_who_still_reads_them(void **state)
{
    (void)state;
    struct house h;
    struct answer a;
    void *held[2];

    house_open(&h, NULL, PAGES);
    add(&h, open_request(&h, &a, 1, 10));
    assert_int_equal(batcher_step(h.batcher, NULL), MC_OK);
    memcpy(held, a.request->pages, sizeof(held));
    pages_hold(h.pages, held, 2);
    batcher_cancel(h.batcher, a.request);
    assert_int_equal(batcher_step(h.batcher, NULL), MC_OK);
    assert_int_equal(a.finish, REQUEST_CANCELLED);
    assert_int_equal(pages_free(h.pages), PAGES - 2);
    pages_drop(h.pages, held, 2);
    house_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_prompt_handed_over_with_its_pages_has_the_same_answer),
        cmocka_unit_test(test_a_pulled_prefix_is_not_computed_again),
        cmocka_unit_test(test_joined_requests_are_preempted_and_their_answers_unchanged),
        cmocka_unit_test(test_who_is_behind_one_that_is_thrown_out_is_not_passed_over),
        cmocka_unit_test(test_reserved_pages_make_a_step_wait_and_who_brings_pages_overtakes),
        cmocka_unit_test(test_hooks_tell_what_is_in_a_step_each_layer_and_what_is_computed),
        cmocka_unit_test(test_pages_of_a_cancelled_request_stay_with_who_still_reads_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
