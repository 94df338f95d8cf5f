/* test_engine.c - an engine's life, what it refuses, and what a step may touch. */
#include "talks.h"

#include "infer/forward.h"

enum { PROMPT = 50, PROMPT_PAGES = 4 };

static mc_model *open_model(const struct mc_alloc *alloc)
{
    const struct mc_model_options options = { .alloc = alloc };
    mc_model *model = NULL;
    struct mc_error error = { 0 };

    if (mc_model_open(test_data("models/logits/llama-bf16"), &options, &model, &error) != MC_OK)
        fail_msg("%s", error.text);
    return model;
}

static mc_engine *open_engine(const mc_model *model, struct mc_engine_options options)
{
    mc_engine *engine = NULL;
    struct mc_error error = { 0 };

    if (options.threads == 0)
        options.threads = 1;
    if (mc_engine_open(model, &options, &engine, &error) != MC_OK)
        fail_msg("%s", error.text);
    return engine;
}

/* A model and an engine over it, and some tokens to give it. */
struct scene {
    mc_model *model;
    mc_engine *engine;
    struct mc_engine_limits limits;
    uint32_t tokens[600];
    void *pages[40];
    struct prng prng;
};

static void begin(struct scene *s, struct mc_engine_options options)
{
    *s = (struct scene){ .model = open_model(NULL), .prng = { .seed = 1 } };
    s->engine = open_engine(s->model, options);
    mc_engine_limits(s->engine, &s->limits);
    for (size_t i = 0; i < sizeof(s->tokens) / sizeof(*s->tokens); i++)
        s->tokens[i] = (uint32_t)(prng_at(5, i) % s->limits.vocab_size);
    for (size_t i = 0; i < sizeof(s->pages) / sizeof(*s->pages); i++)
        s->pages[i] = page_open(&s->limits.layout, &s->prng);
}

static void end(struct scene *s)
{
    for (size_t i = 0; i < sizeof(s->pages) / sizeof(*s->pages); i++)
        free(s->pages[i]);
    mc_engine_close(s->engine);
    mc_model_close(s->model);
}

static struct mc_sequence chunk(struct scene *s, uint32_t position, uint32_t count)
{
    return (struct mc_sequence){ .tokens = s->tokens + position,
                                 .token_count = count,
                                 .position = position,
                                 .pages = s->pages };
}

static void step(struct scene *s, struct mc_sequence *sequences, uint32_t count)
{
    const struct mc_step one = { .sequences = sequences, .count = count };
    struct mc_error error = { 0 };

    if (mc_engine_step(s->engine, &one, &error) != MC_OK)
        fail_msg("%s", error.text);
}

/* -------------------------------------------------------------------------------------------- open */

static void test_options_out_of_bounds_are_refused_by_name(void **state)
{
    static const struct {
        struct mc_engine_options options;
        mc_status status;
        const char *text;
    } rows[] = {
        { { .tokens_max = 65537 }, MC_E_RANGE, "tokens_max 65537: at most 65536" },
        { { .sequences_max = 4097 }, MC_E_RANGE, "sequences_max 4097: at most 4096" },
        { { .kv_dtype = (enum mc_dtype)3 }, MC_E_RANGE, "kv_dtype 3" },
        { { .threads = 1025 }, MC_E_RANGE, "1025" },
        { { .kernel = "avx3" }, MC_E_UNSUPPORTED, "kernel \"avx3\": this processor has" },
        { { .kernel = "avx512-bf16-emulated" }, MC_E_UNSUPPORTED, "ref" },
        { { .kernel = "" }, MC_E_UNSUPPORTED, "ref" },
    };
    mc_model *model = open_model(NULL);

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        mc_engine *engine = NULL;
        struct mc_error error = { 0 };
        assert_int_equal(mc_engine_open(model, &rows[i].options, &engine, &error), rows[i].status);
        assert_int_equal(error.status, rows[i].status);
        if (!strstr(error.text, rows[i].text))
            fail_msg("\"%s\" lacks \"%s\"", error.text, rows[i].text);
        assert_null(engine);
        assert_int_equal(mc_engine_open(model, &rows[i].options, &engine, NULL), rows[i].status);
    }
    mc_model_close(model);
}

static void test_limits_are_the_models_and_the_options(void **state)
{
    static const uint32_t tokens[][2] = {
        { 0, 512 }, { 1, 16 }, { 16, 16 }, { 17, 32 }, { 600, 608 }
    };
    mc_model *model = open_model(NULL);
    struct mc_model_info info;
    struct mc_engine_limits limits;

    (void)state;
    mc_model_info(model, &info);
    for (size_t i = 0; i < sizeof(tokens) / sizeof(*tokens); i++) {
        mc_engine *engine =
            open_engine(model, (struct mc_engine_options){ .tokens_max = tokens[i][0] });
        mc_engine_limits(engine, &limits);
        assert_int_equal(limits.tokens_max, tokens[i][1]);
        assert_int_equal(limits.sequences_max, 64);
        assert_int_equal(limits.context_max, info.context_max);
        assert_int_equal(limits.vocab_size, info.vocab_size);
        assert_int_equal(limits.layout.layers, info.layers);
        assert_int_equal(limits.layout.kv_heads, info.kv_heads);
        assert_int_equal(limits.layout.head_dim, info.head_dim);
        assert_int_equal(limits.layout.page_tokens, 16);
        assert_int_equal(limits.layout.dtype, MC_DTYPE_BF16);
        assert_string_equal(engine->ops->name, "cpu");
        mc_engine_close(engine);
    }
    mc_engine *engine = open_engine(
        model, (struct mc_engine_options){ .kv_dtype = MC_DTYPE_F32, .sequences_max = 4096 });
    mc_engine_limits(engine, &limits);
    assert_int_equal(limits.layout.dtype, MC_DTYPE_F32);
    assert_int_equal(limits.sequences_max, 4096);
    mc_engine_close(engine);
    mc_engine_close(NULL);
    mc_model_close(model);
}

static void test_the_kernel_is_the_one_asked_for_or_the_best(void **state)
{
    mc_model *model = open_model(NULL);
    mc_engine *engine = open_engine(model, (struct mc_engine_options){ 0 });

    (void)state;
    assert_string_equal(mc_engine_kernel(engine), kernels_usable()[0]->name);
    mc_engine_close(engine);
    for (const struct kernels *const *k = kernels_usable(); *k; k++) {
        engine = open_engine(model, (struct mc_engine_options){ .kernel = (*k)->name });
        assert_string_equal(mc_engine_kernel(engine), (*k)->name);
        mc_engine_close(engine);
    }
    mc_model_close(model);
}

static void test_every_failed_allocation_leaves_nothing_behind(void **state)
{
    const struct mc_engine_options options = { .threads = 2, .tokens_max = 16 };
    struct faulty faulty;
    long k = 0;

    (void)state;
    faulty_init(&faulty, -1);
    mc_model *model = open_model(&faulty.alloc);
    const long held = faulty.held;
    for (;; k++) {
        mc_engine *engine = NULL;
        struct mc_error error = { 0 };
        faulty.calls = 0;
        faulty.fail_at = k;
        const mc_status status = mc_engine_open(model, &options, &engine, &error);
        if (status == MC_OK) {
            mc_engine_close(engine);
            break;
        }
        assert_int_equal(status, MC_E_NOMEM);
        assert_non_null(strstr(error.text, "out of memory"));
        assert_null(engine);
        assert_int_equal(faulty.held, held);
    }
    assert_int_equal(faulty.held, held);
    assert_int_equal(k, faulty.calls); /* the sweep passed every allocation */
    assert_in_range(k, 3, 10);         /* engine, crew and its members, the one block */
    mc_model_close(model);
    assert_int_equal(faulty.held, 0);
}

static void test_a_step_allocates_nothing(void **state)
{
    struct faulty faulty;
    struct scene s;

    (void)state;
    begin(&s, (struct mc_engine_options){ 0 });
    faulty_init(&faulty, -1);
    mc_model *model = open_model(&faulty.alloc);
    mc_engine *engine = open_engine(model, (struct mc_engine_options){ .threads = 2 });
    struct mc_sample sample;
    const struct mc_sampling sampling = { .temperature = 1, .top_k = 5, .logprobs = 20 };
    struct mc_sequence sequence = chunk(&s, 0, 40);
    sequence.sampling = &sampling;
    sequence.sample = &sample;
    faulty.calls = 0;
    faulty.fail_at = 0;
    faulty.fail_after = true;
    assert_int_equal(mc_engine_step(engine, &(struct mc_step){ &sequence, 1, NULL, NULL }, NULL),
                     MC_OK);
    assert_int_equal(faulty.calls, 0);
    mc_engine_close(engine);
    mc_model_close(model);
    end(&s);
}

/* -------------------------------------------------------------------------------------- what is refused */

/* That the step is refused with this text, before anything was computed. */
static void assert_refused(struct scene *s, struct mc_sequence *sequences, uint32_t count,
                           mc_status status, const char *text)
{
    const struct mc_step one = { .sequences = sequences, .count = count };
    const size_t bytes = mc_kv_page_bytes(&s->limits.layout);
    char *before = malloc(bytes);
    struct mc_error error = { 0 };

    assert_non_null(before);
    memcpy(before, s->pages[0], bytes);
    assert_int_equal(mc_engine_step(s->engine, &one, &error), status);
    assert_int_equal(error.status, status);
    if (!strstr(error.text, text))
        fail_msg("\"%s\" lacks \"%s\"", error.text, text);
    assert_memory_equal(s->pages[0], before, bytes);
    assert_int_equal(mc_engine_step(s->engine, &one, NULL), status);
    free(before);
}

static void test_chunks_out_of_bounds_are_refused_with_their_numbers(void **state)
{
    struct scene s;

    (void)state;
    begin(&s, (struct mc_engine_options){ .tokens_max = 64, .sequences_max = 3 });
    static const struct {
        uint32_t position, count;
        mc_status status;
        const char *text;
    } rows[] = {
        { 0, 0, MC_E_RANGE, "sequence 1: 0 tokens; a step takes 1 to 64" },
        { 0, 65, MC_E_RANGE, "sequence 1: 65 tokens; a step takes 1 to 64" },
        { 0, UINT32_MAX, MC_E_RANGE, "4294967295 tokens" },
        { 512, 1, MC_E_RANGE, "positions 512 + 1 exceed the context of 512" },
        { 480, 33, MC_E_RANGE, "positions 480 + 33 exceed the context of 512" },
        { 513, 1, MC_E_RANGE, "513" },
        { UINT32_MAX, 1, MC_E_RANGE, "4294967295" },
        { 8, 2, MC_E_ARG, "a chunk at position 8 is not on a page boundary" },
        { 17, 16, MC_E_ARG, "a chunk at position 17 is not on a page boundary" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct mc_sequence two[2] = { chunk(&s, 0, 1), chunk(&s, 0, rows[i].count) };
        two[1].position = rows[i].position;
        assert_refused(&s, two, 2, rows[i].status, rows[i].text);
    }
    struct mc_sequence many[4] = { chunk(&s, 0, 32), chunk(&s, 0, 32), chunk(&s, 0, 1),
                                   chunk(&s, 0, 1) };
    assert_refused(&s, many, 0, MC_E_RANGE, "0 sequences; a step takes 1 to 3");
    assert_refused(&s, many, 4, MC_E_RANGE, "4 sequences; a step takes 1 to 3");
    assert_refused(&s, many, 3, MC_E_RANGE, "65 tokens; a step takes at most 64");
    end(&s);
}

static void test_tokens_and_sampling_out_of_bounds_are_refused_with_their_sequence(void **state)
{
    const uint32_t banned[] = { 97 };
    const struct mc_sampling hot = { .temperature = 101 },
                             outside = { .banned = banned, .banned_count = 1 };
    struct mc_sample sample;
    struct scene s;

    (void)state;
    begin(&s, (struct mc_engine_options){ .tokens_max = 64 });
    struct mc_sequence one = chunk(&s, 0, 20);
    s.tokens[19] = s.limits.vocab_size;
    assert_refused(&s, &one, 1, MC_E_RANGE, "sequence 0: token 97 is not in the vocabulary of 97");
    s.tokens[19] = UINT32_MAX;
    assert_refused(&s, &one, 1, MC_E_RANGE, "token 4294967295");
    s.tokens[19] = 0;
    one.sampling = &hot;
    one.sample = &sample;
    assert_refused(&s, &one, 1, MC_E_RANGE, "sequence 0: temperature");
    one.sampling = &outside;
    assert_refused(&s, &one, 1, MC_E_RANGE, "sequence 0: a banned token");
    one.sampling = &(struct mc_sampling){ 0 };
    one.sample = NULL;
    assert_refused(&s, &one, 1, MC_E_ARG, "sequence 0: sampling without a place for the sample");
    one.sample = &sample;
    step(&s, &one, 1); /* with the faults mended it runs */
    end(&s);
}

static void test_the_largest_step_and_the_last_position_are_accepted(void **state)
{
    struct scene s;

    (void)state;
    begin(&s, (struct mc_engine_options){ .tokens_max = 512 });
    struct mc_sequence all = chunk(&s, 0, 512);
    step(&s, &all, 1);
    struct mc_sequence last = chunk(&s, 511, 1);
    step(&s, &last, 1);
    end(&s);
}

/* ---------------------------------------------------------------------------------- what a step touches */

/* What pages must be after each layer: all keys and values of a run that is over. */
struct watch {
    const struct scene *scene;
    void **pages, **expected, **before;
    uint32_t from, to; /* positions of the step */
    uint32_t calls;
};

/* In every page: this position's part of a layer is as in `a`. */
static bool part_is(const struct watch *w, uint32_t position, uint32_t layer, void *const *a)
{
    const struct mc_kv_layout *layout = &w->scene->limits.layout;

    for (int part = KV_KEY; part <= KV_VALUE; part++) {
        const size_t at = kv_offset(layout, layer, (enum kv_part)part, position % 16);
        if (memcmp((const char *)w->pages[position / 16] + at, (const char *)a[position / 16] + at,
                   kv_token_bytes(layout)) != 0)
            return false;
    }
    return true;
}

static void look(void *user, uint32_t layer)
{
    struct watch *w = user;
    const uint32_t layers = w->scene->limits.layout.layers;

    assert_int_equal(layer, w->calls++);
    for (uint32_t position = 0; position < PROMPT_PAGES * 16; position++)
        for (uint32_t l = 0; l < layers; l++) {
            const bool computed = position >= w->from && position < w->to && l <= layer;
            if (!part_is(w, position, l, computed ? w->expected : w->before))
                fail_msg("after layer %u: position %u of layer %u", layer, position, l);
        }
}

static void copy_pages(const struct scene *s, void **to, void *const *from)
{
    for (uint32_t i = 0; i < PROMPT_PAGES; i++)
        memcpy(to[i], from[i], mc_kv_page_bytes(&s->limits.layout));
}

/* Run [from, to) over pages whose earlier positions are there, watched. */
static void watch_chunk(struct scene *s, void **expected, uint32_t from, uint32_t to)
{
    void **pages = s->pages + PROMPT_PAGES, **before = s->pages + 2 * PROMPT_PAGES;
    struct watch w = { s, pages, expected, before, from, to, 0 };
    struct mc_sequence sequence = chunk(s, from, to - from);
    const struct mc_step one = {
        .sequences = &sequence, .count = 1, .layer_done = look, .user = &w
    };

    sequence.pages = pages;
    copy_pages(s, before, pages);
    assert_int_equal(mc_engine_step(s->engine, &one, NULL), MC_OK);
    assert_int_equal(w.calls, s->limits.layout.layers);
    /* When all is done too nothing else has changed. */
    for (uint32_t position = 0; position < PROMPT_PAGES * 16; position++)
        for (uint32_t l = 0; l < s->limits.layout.layers; l++)
            assert_true(
                part_is(&w, position, l, position >= from && position < to ? expected : before));
}

static void test_a_layer_is_done_when_its_kv_is_in_the_pages_and_no_later_one_is(void **state)
{
    (void)state;
    for (uint32_t threads = 1; threads <= 4; threads++)
        for (int dtype = MC_DTYPE_F32; dtype <= MC_DTYPE_BF16; dtype++) {
            struct scene s;
            begin(&s, (struct mc_engine_options){ .threads = threads,
                                                  .kv_dtype = (enum mc_dtype)dtype });
            struct mc_sequence whole = chunk(&s, 0, PROMPT);
            step(&s, &whole, 1);
            watch_chunk(&s, s.pages, 0, 32);
            watch_chunk(&s, s.pages, 32, 48);
            watch_chunk(&s, s.pages, 48, 49);
            watch_chunk(&s, s.pages, 49, 50);
            end(&s);
        }
}

/* Pages of the step's other sequences, and pages of no sequence, beside one that is computed. */
static void test_a_step_writes_its_own_tokens_and_nothing_else(void **state)
{
    enum { SEQUENCES = 5, COUNT = 21 };
    struct scene s, alone;

    (void)state;
    begin(&s, (struct mc_engine_options){ .threads = 2 });
    begin(&alone, (struct mc_engine_options){ .threads = 1 });
    const size_t bytes = mc_kv_page_bytes(&s.limits.layout);
    /* The page behind each sequence's two is given to it as well, and must stay as it is. */
    struct mc_sequence sequences[SEQUENCES];
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        sequences[i] = chunk(&s, 0, COUNT);
        sequences[i].tokens += 7 * i;
        sequences[i].pages = s.pages + 3 * i;
    }
    step(&s, sequences, SEQUENCES);
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        struct mc_sequence one = sequences[i];
        one.pages = alone.pages + 3 * i;
        step(&alone, &one, 1);
    }
    /* Both began with the same bytes, so whole pages are equal, slack and all. */
    for (size_t i = 0; i < sizeof(s.pages) / sizeof(*s.pages); i++)
        assert_memory_equal(s.pages[i], alone.pages[i], bytes);
    struct prng prng = { .seed = 1 };
    for (size_t i = 0; i < sizeof(s.pages) / sizeof(*s.pages); i++) {
        void *fresh = page_open(&s.limits.layout, &prng);
        const bool written = i < 3 * SEQUENCES && i % 3 != 2;
        assert_int_equal(memcmp(fresh, s.pages[i], bytes) != 0, written);
        free(fresh);
    }
    end(&s);
    end(&alone);
}

static void test_samples_and_logits_are_written_where_asked_and_nowhere_else(void **state)
{
    const struct mc_sampling greedy = { .logprobs = 3 };
    struct mc_sample samples[3], untouched;
    struct scene s;

    (void)state;
    begin(&s, (struct mc_engine_options){ 0 });
    const uint32_t vocab = s.limits.vocab_size;
    float *logits = malloc(20 * vocab * sizeof(*logits));
    assert_non_null(logits);
    memset(samples, 0xee, sizeof(samples));
    memset(&untouched, 0xee, sizeof(untouched));
    struct mc_sequence three[3] = { chunk(&s, 0, 20), chunk(&s, 0, 20), chunk(&s, 0, 20) };
    for (uint32_t i = 0; i < 3; i++) {
        three[i].pages = s.pages + 2 * i;
        three[i].sample = &samples[i];
        three[i].sampling = i == 1 ? NULL : &greedy;
    }
    three[2].logits = logits;
    step(&s, three, 3);
    assert_memory_equal(&samples[1], &untouched, sizeof(untouched));
    assert_true(same_sample(&samples[0], &samples[2]));
    const float *last = logits + 19 * vocab;
    uint32_t best = 0;
    for (uint32_t i = 0; i < vocab; i++)
        best = last[i] > last[best] ? i : best;
    assert_int_equal(samples[0].chosen.token, best);
    assert_int_equal(samples[0].top_count, 3);
    free(logits);
    end(&s);
}

/* ------------------------------------------------------------------------------------------- many */

/* More samples than logits fit at a time: they come in groups, every one from its own row. */
static void test_sequences_max_sequences_each_get_their_own_sample(void **state)
{
    enum { MANY = 150 };
    const struct mc_sampling sampling = { .temperature = 2, .seed = 4, .logprobs = 4 };
    struct mc_sequence sequences[MANY];
    struct mc_sample samples[MANY], alone;
    void *pages[MANY];
    struct scene s;

    (void)state;
    begin(&s, (struct mc_engine_options){ .threads = 2, .sequences_max = MANY });
    for (uint32_t i = 0; i < MANY; i++) {
        pages[i] = page_open(&s.limits.layout, &s.prng);
        sequences[i] = chunk(&s, 0, 1 + i % 3);
        sequences[i].tokens += i;
        sequences[i].pages = &pages[i];
        sequences[i].sampling = i % 5 == 4 ? NULL : &sampling;
        sequences[i].sample = &samples[i];
    }
    step(&s, sequences, MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        if (!sequences[i].sampling)
            continue;
        struct mc_sequence one = sequences[i];
        one.sample = &alone;
        step(&s, &one, 1);
        assert_true(same_sample(&alone, &samples[i]));
    }
    for (uint32_t i = 0; i < MANY; i++)
        free(pages[i]);
    end(&s);
}

static void test_one_to_four_threads_give_the_same_bits(void **state)
{
    struct talk talks[4];
    struct mc_engine_limits limits;
    mc_model *model = open_model(NULL);

    (void)state;
    for (uint32_t threads = 1; threads <= 4; threads++) {
        mc_engine *engine = open_engine(model, (struct mc_engine_options){ .threads = threads });
        mc_engine_limits(engine, &limits);
        talk_init(&talks[threads - 1], 3, 90, 4, limits.vocab_size);
        talks_run(engine, &talks[threads - 1], 1, &(struct mix){ threads, 64, false });
        assert_null(talk_difference(&talks[0], &talks[threads - 1], &limits));
        mc_engine_close(engine);
    }
    for (uint32_t i = 0; i < 4; i++)
        talk_fini(&talks[i]);
    mc_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_out_of_bounds_are_refused_by_name),
        cmocka_unit_test(test_limits_are_the_models_and_the_options),
        cmocka_unit_test(test_the_kernel_is_the_one_asked_for_or_the_best),
        cmocka_unit_test(test_every_failed_allocation_leaves_nothing_behind),
        cmocka_unit_test(test_a_step_allocates_nothing),
        cmocka_unit_test(test_chunks_out_of_bounds_are_refused_with_their_numbers),
        cmocka_unit_test(test_tokens_and_sampling_out_of_bounds_are_refused_with_their_sequence),
        cmocka_unit_test(test_the_largest_step_and_the_last_position_are_accepted),
        cmocka_unit_test(test_a_layer_is_done_when_its_kv_is_in_the_pages_and_no_later_one_is),
        cmocka_unit_test(test_a_step_writes_its_own_tokens_and_nothing_else),
        cmocka_unit_test(test_samples_and_logits_are_written_where_asked_and_nowhere_else),
        cmocka_unit_test(test_sequences_max_sequences_each_get_their_own_sample),
        cmocka_unit_test(test_one_to_four_threads_give_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
