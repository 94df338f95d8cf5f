/*
 * test_bitwise.c - the engine's promise: what a request gets does not depend on its company, on how
 * it was cut into chunks, on threads or on pages; and proof that these comparisons can fail.
 */
#include "talks.h"

#include <stdio.h>

#include "infer/batcher.h"
#include "infer/forward.h"
#include "kernel_tables.h"
#include "naive_kernels.h"
#include "os/sysalloc.h"

enum { TOKENS_MAX = 1024, COMPANY = 31 };

/* Every family, tied and not, biases and head norms, both types of weights. */
static const char *const fixtures[] = { "llama3", "llama-linear", "llama-bias",
                                        "qwen2",  "qwen3",        "llama-bf16" };
enum { FIXTURES = sizeof(fixtures) / sizeof(*fixtures) };

static mc_model *open_directory(const char *directory)
{
    mc_model *model = NULL;
    struct mc_error error = { 0 };

    if (mc_model_open(directory, NULL, &model, &error) != MC_OK)
        fail_msg("%s", error.text);
    return model;
}

static mc_model *open_fixture(const char *name)
{
    char path[64];

    snprintf(path, sizeof(path), "models/logits/%s", name);
    return open_directory(test_data(path));
}

/* ---------------------------------------------------------------------------- an engine on a table */

/* An engine with any table plugged in: mc_engine_open() knows only those of this processor. */
struct bench {
    mc_engine *engine;
    struct mc_engine_limits limits;
    uint16_t *rounded; /* owned; what open takes for tables that round rows */
};

static const struct kernels *not_rounding(void)
{
    const struct kernels *const *k = kernels_usable();

    while ((*k)->rounds_rows)
        k++;
    return *k;
}

static struct bench bench_open(const mc_model *model, const struct kernels *kernels,
                               uint32_t threads, enum mc_dtype kv_dtype)
{
    const bool usable = kernels_find(kernels->name) == kernels;
    const struct mc_engine_options options = { .threads = threads,
                                               .kernel = (usable ? kernels : not_rounding())->name,
                                               .kv_dtype = kv_dtype,
                                               .tokens_max = TOKENS_MAX };
    struct bench b = { 0 };
    struct mc_error error = { 0 };

    if (mc_engine_open(model, &options, &b.engine, &error) != MC_OK)
        fail_msg("%s", error.text);
    mc_engine_limits(b.engine, &b.limits);
    if (usable)
        return b;
    struct cpu_engine *e = (struct cpu_engine *)b.engine;
    assert_true(kernels->gemm_scratch() <= e->scratch_bytes);
    e->kernels = kernels;
    if (kernels->rounds_rows) {
        size_t widest = e->hidden_stride > e->q_stride ? e->hidden_stride : e->q_stride;
        widest = widest > e->mlp_stride ? widest : e->mlp_stride;
        b.rounded = calloc(TOKENS_MAX * widest, sizeof(*b.rounded));
        assert_non_null(b.rounded);
        e->rounded = b.rounded;
    }
    return b;
}

static void bench_close(struct bench *b)
{
    mc_engine_close(b->engine);
    free(b->rounded);
}

/* ------------------------------------------------------------------------------------------- talks */

/* Talk 0 is the long one; the others follow from the seed. */
static void invite(struct talk *talks, uint32_t count, uint64_t seed, uint32_t longest,
                   uint32_t others, uint32_t vocab_size)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t prompt = i == 0 ? longest : 1 + (uint32_t)(prng_at(seed, i) % others);
        const uint32_t answer = i == 0 ? 8 : 1 + (uint32_t)(prng_at(seed, 1000 + i) % 8);
        talk_init(&talks[i], seed + i, prompt, answer, vocab_size);
    }
}

static void dismiss(struct talk *talks, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        talk_fini(&talks[i]);
}

static void assert_same(const struct talk *alone, const struct talk *beside, uint32_t count,
                        const struct bench *b, const char *where)
{
    for (uint32_t i = 0; i < count; i++) {
        const char *difference = talk_difference(&alone[i], &beside[i], &b->limits);
        if (difference)
            fail_msg("%s, %s: request %u of %u: other %s than alone", where,
                     ((const struct cpu_engine *)b->engine)->kernels->name, i, count, difference);
    }
}

/* The first `count` of the same talks, each alone, in one chunk as far as that goes. */
static void run_alone(const struct bench *b, struct talk *talks, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        talks_run(b->engine, &talks[i], 1, &(struct mix){ .chunk = 512 });
}

/* --------------------------------------------------------------------------------------- the issue */

/* A prompt of `longest` tokens alone and beside 31 others, in chunks of 16, 64 and 512, with 1 and 2
 * threads. */
static void check_chunks_and_threads(const mc_model *model, const struct kernels *kernels,
                                     uint32_t longest, enum mc_dtype kv_dtype, const char *name)
{
    static const uint32_t chunks[] = { 16, 64, 512 };
    struct talk alone[1], mixed[1 + COMPANY];
    struct bench first = bench_open(model, kernels, 1, kv_dtype);
    const uint32_t vocab = first.limits.vocab_size;
    uint64_t seed = 1;

    invite(alone, 1, 7, longest, 20, vocab);
    run_alone(&first, alone, 1);
    for (uint32_t threads = 1; threads <= 2; threads++) {
        struct bench b = bench_open(model, kernels, threads, kv_dtype);
        for (size_t c = 0; c < sizeof(chunks) / sizeof(*chunks); c++)
            for (uint32_t company = 0; company <= COMPANY; company += COMPANY) {
                const struct mix mix = { seed++, chunks[c], company > 0 };
                invite(mixed, 1 + company, 7, longest, 20, vocab);
                talks_run(b.engine, mixed, 1 + company, &mix);
                assert_same(alone, mixed, 1, &b, name);
                dismiss(mixed, 1 + company);
            }
        bench_close(&b);
    }
    dismiss(alone, 1);
    bench_close(&first);
}

static void test_a_request_is_the_same_beside_31_others_in_any_chunks_and_threads(void **state)
{
    const struct kernels *tables[KERNEL_TABLES_MAX];
    const size_t count = kernel_tables(tables);
    mc_model *bf16 = open_fixture("llama-bf16"), *f32 = open_fixture("qwen3");

    (void)state;
    /* The longest on the fastest level: sanitizers make the others slow. */
    check_chunks_and_threads(f32, tables[0], 500, MC_DTYPE_F32, "qwen3");
    for (size_t i = 0; i < count; i++)
        check_chunks_and_threads(bf16, tables[i], tables[i] == &kernels_ref ? 70 : 150,
                                 MC_DTYPE_DEFAULT, "llama-bf16");
    mc_model_close(bf16);
    mc_model_close(f32);
}

/* Wide enough for products in several pieces, which the fixtures are not. */
static void test_the_default_model_gives_the_same_beside_31_others(void **state)
{
    const struct kernels *tables[KERNEL_TABLES_MAX];
    const size_t count = kernel_tables(tables);
    mc_model *model = open_directory(MC_DEFAULT_MODEL);

    (void)state;
    for (size_t i = 0; i < count; i++) {
        struct talk alone[1], mixed[1 + COMPANY];
        struct bench one = bench_open(model, tables[i], 1, MC_DTYPE_DEFAULT);
        struct bench two = bench_open(model, tables[i], 2, MC_DTYPE_DEFAULT);
        const bool slow = tables[i] == &kernels_ref;
        const uint32_t company = slow ? 3 : COMPANY, longest = slow ? 21 : 150;
        invite(alone, 1, 11, longest, 12, one.limits.vocab_size);
        invite(mixed, 1 + company, 11, longest, 12, one.limits.vocab_size);
        run_alone(&one, alone, 1);
        talks_run(two.engine, mixed, 1 + company, &(struct mix){ 3, 0, true });
        assert_same(alone, mixed, 1, &two, "default model");
        dismiss(alone, 1);
        dismiss(mixed, 1 + company);
        bench_close(&one);
        bench_close(&two);
    }
    mc_model_close(model);
}

/* ------------------------------------------------------------------------------------ random mixes */

enum { MIXED = 10 };

static void check_mixes(const mc_model *model, const struct kernels *kernels,
                        enum mc_dtype kv_dtype, const char *name, uint64_t seed)
{
    struct talk alone[MIXED], mixed[MIXED];
    const uint32_t count = 2 + (uint32_t)(prng_at(seed, 0) % (MIXED - 1));
    const uint32_t longest = 20 + (uint32_t)(prng_at(seed, 1) % 90);
    const uint32_t threads = 1 + (uint32_t)(prng_at(seed, 2) % 3);
    struct bench one = bench_open(model, kernels, 1, kv_dtype);
    struct bench some = bench_open(model, kernels, threads, kv_dtype);

    invite(alone, count, seed, longest, 50, one.limits.vocab_size);
    invite(mixed, count, seed, longest, 50, one.limits.vocab_size);
    run_alone(&one, alone, count);
    talks_run(some.engine, mixed, count, &(struct mix){ seed, seed % 20 ? 0 : 16, true });
    assert_same(alone, mixed, count, &one, name);
    dismiss(mixed, count);
    dismiss(alone, count);
    bench_close(&one);
    bench_close(&some);
}

static void test_every_request_of_a_random_mix_is_as_if_it_were_alone(void **state)
{
    const struct kernels *tables[KERNEL_TABLES_MAX];
    const size_t count = kernel_tables(tables);
    uint64_t seed = 100;

    (void)state;
    for (size_t f = 0; f < FIXTURES; f++) {
        mc_model *model = open_fixture(fixtures[f]);
        for (size_t i = 0; i < count; i++)
            for (int dtype = MC_DTYPE_F32; dtype <= MC_DTYPE_BF16; dtype++)
                /* Each level sees each family; the slow one with one type of pages each. */
                if (tables[i] != &kernels_ref || dtype % 2 == (int)(f % 2))
                    check_mixes(model, tables[i], (enum mc_dtype)dtype, fixtures[f], seed += 10);
        mc_model_close(model);
    }
}

static void test_ref_avx2_and_avx512_give_the_same_bits(void **state)
{
    (void)state;
    for (size_t f = 0; f < FIXTURES; f++) {
        mc_model *model = open_fixture(fixtures[f]);
        for (int dtype = MC_DTYPE_F32; dtype <= MC_DTYPE_BF16; dtype++) {
            struct talk reference[1], other[1];
            struct bench b = bench_open(model, &kernels_ref, 1, (enum mc_dtype)dtype);
            invite(reference, 1, 50 + f, 70, 1, b.limits.vocab_size);
            run_alone(&b, reference, 1);
            bench_close(&b);
            for (const struct kernels *const *k = kernels_usable(); *k != &kernels_ref; k++) {
                if ((*k)->rounds_rows)
                    continue;
                b = bench_open(model, *k, 2, (enum mc_dtype)dtype);
                invite(other, 1, 50 + f, 70, 1, b.limits.vocab_size);
                run_alone(&b, other, 1);
                assert_same(reference, other, 1, &b, fixtures[f]);
                dismiss(other, 1);
                bench_close(&b);
            }
            dismiss(reference, 1);
        }
        mc_model_close(model);
    }
}

/* ------------------------------------------------------------------------------------- the batcher */

struct listener {
    struct request *request; /* NULL once finished */
    struct mc_sample samples[ANSWER_MAX];
    uint32_t count;
};

static void hear(void *user, struct request *request, const struct request_event *event)
{
    struct listener *l = user;

    assert_null(event->why);
    if (event->sample)
        l->samples[l->count++] = *event->sample;
    if (event->finish != REQUEST_RUNNING) {
        request_close(request);
        l->request = NULL;
    }
}

static void ask(batcher *server, struct listener *l, const struct talk *talk)
{
    const struct request_options options = { .prompt = talk->tokens,
                                             .prompt_count = talk->prompt_count,
                                             .context_max = 512,
                                             .max_tokens = talk->answer_count,
                                             .sampling = talk->sampling,
                                             .output = hear,
                                             .user = l,
                                             .alloc = os_alloc() };
    struct mc_error error = { 0 };

    if (request_open(&options, &l->request, &error) != MC_OK ||
        batcher_add(server, l->request, &error) != MC_OK)
        fail_msg("%s", error.text);
}

/* All talks in so few pages that requests are thrown out and computed again; returns how often. */
static uint64_t check_batcher(const struct bench *b, struct talk *alone, uint32_t count,
                              uint32_t pages, uint32_t chunk)
{
    const struct batcher_options options = { .pages = pages,
                                             .chunk_tokens = chunk,
                                             .alloc = os_alloc() };
    struct listener listeners[MIXED] = { 0 };
    struct batcher_state seen;
    struct mc_error error = { 0 };
    batcher *server = NULL;

    assert_int_equal(batcher_open(b->engine, &options, &server, &error), MC_OK);
    for (uint32_t i = 0; i < count; i++)
        ask(server, &listeners[i], &alone[i]);
    while (batcher_busy(server))
        assert_int_equal(batcher_step(server, &error), MC_OK);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(listeners[i].count, alone[i].answer_count);
        for (uint32_t k = 0; k < listeners[i].count; k++)
            if (!same_sample(&listeners[i].samples[k], &alone[i].samples[k]))
                fail_msg("request %u: token %u is another than alone", i, k);
    }
    batcher_state(server, &seen);
    batcher_close(server);
    return seen.preemptions;
}

static void test_a_preempted_request_gets_the_answer_it_would_have_got(void **state)
{
    const struct kernels *tables[KERNEL_TABLES_MAX];
    const size_t count = kernel_tables(tables);
    mc_model *model = open_fixture("llama-bf16");

    (void)state;
    for (size_t i = 0; i < count; i++) {
        struct talk alone[MIXED];
        struct bench one = bench_open(model, tables[i], 1, MC_DTYPE_DEFAULT);
        struct bench b = bench_open(model, tables[i], 2, MC_DTYPE_DEFAULT);
        /* Prompts that nearly fill their page, so that answers ask for another one. */
        for (uint32_t k = 0; k < MIXED; k++)
            talk_init(&alone[k], 900 + k, 9 + 16 * (k % 4) + k % 7, ANSWER_MAX,
                      b.limits.vocab_size);
        run_alone(&one, alone, MIXED);
        assert_true(check_batcher(&b, alone, MIXED, 9, 16) > 0);
        assert_true(check_batcher(&b, alone, MIXED, 6, 64) > 0);
        assert_int_equal(check_batcher(&b, alone, MIXED, 100, 512), 0);
        dismiss(alone, MIXED);
        bench_close(&one);
        bench_close(&b);
    }
    mc_model_close(model);
}

/* ------------------------------------------------------------------------ kernels that break it */

/* Two halves of K where there is more than one row. */
static void halved_gemm(const struct gemm *g, uint32_t begin, uint32_t end, void *scratch)
{
    const uint32_t depth = g->w->cols;

    if (g->rows == 1) {
        not_rounding()->gemm(g, begin, end, scratch);
        return;
    }
    for (uint32_t r = 0; r < g->rows; r++)
        for (uint32_t n = begin; n < end; n++) {
            float half[2] = { 0, 0 };
            for (uint32_t k = 0; k < depth; k++)
                half[k >= depth / 2] =
                    fmaf(g->x[r * g->x_stride + k], naive_weight(g->w, n, k), half[k >= depth / 2]);
            g->y[r * g->y_stride + n] = half[0] + half[1] + (g->bias ? g->bias[n] : 0);
        }
}

typedef void attend_row(const struct attend *a, uint32_t row, const float *q,
                        struct naive_query *state);

static void attend_by(const struct attend *a, attend_row *walk)
{
    for (uint32_t row = a->row_begin; row < a->row_end; row++)
        for (uint32_t h = a->head_begin; h < a->head_begin + a->head_count; h++) {
            const size_t at = row * a->stride + (size_t)h * a->dim;
            struct naive_query s = { .largest = -INFINITY };
            walk(a, row, a->q + at, &s);
            const float total = naive_tree(s.sums);
            for (uint32_t d = 0; d < a->dim; d++)
                a->out[at + d] = s.sum_v[d] / total;
        }
}

static uint32_t seen_in(uint32_t page, uint32_t position)
{
    return position - page < 16 ? position - page + 1 : 16;
}

/* Begins with the page of the chunk just computed, then the earlier ones. */
static void walk_from_the_chunk(const struct attend *a, uint32_t row, const float *q,
                                struct naive_query *s)
{
    const uint32_t position = a->position + row, first = a->position / 16 * 16;

    for (uint32_t page = first; page <= position; page += 16)
        naive_attend_page(a, q, page, seen_in(page, position), s);
    for (uint32_t page = 0; page < first; page += 16)
        naive_attend_page(a, q, page, 16, s);
}

static void attend_from_the_chunk(const struct attend *a, void *scratch)
{
    (void)scratch;
    attend_by(a, walk_from_the_chunk);
}

/* Whole pages in the order of their addresses. */
static void walk_by_address(const struct attend *a, uint32_t row, const float *q,
                            struct naive_query *s)
{
    const uint32_t position = a->position + row, count = position / 16 + 1;
    uintptr_t last = 0;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t next = count;
        for (uint32_t k = 0; k < count; k++)
            if ((uintptr_t)a->pages[k] > last &&
                (next == count || (uintptr_t)a->pages[k] < (uintptr_t)a->pages[next]))
                next = k;
        last = (uintptr_t)a->pages[next];
        naive_attend_page(a, q, next * 16, seen_in(next * 16, position), s);
    }
}

static void attend_by_address(const struct attend *a, void *scratch)
{
    (void)scratch;
    attend_by(a, walk_by_address);
}

/* Sees one token more than its own where the page has one: the next of the chunk, or what lay there. */
static void walk_one_too_far(const struct attend *a, uint32_t row, const float *q,
                             struct naive_query *s)
{
    const uint32_t position = a->position + row;

    for (uint32_t page = 0; page <= position; page += 16)
        naive_attend_page(a, q, page, seen_in(page, position + 1), s);
}

static void attend_one_too_far(const struct attend *a, void *scratch)
{
    (void)scratch;
    attend_by(a, walk_one_too_far);
}

/* Takes the first row's page for all rows of the call: another token's where a chunk has several. */
static void walk_one_page_back(const struct attend *a, uint32_t row, const float *q,
                               struct naive_query *s)
{
    struct attend other = *a;
    void *pages[64];
    const uint32_t count = (a->position + row) / 16 + 1;

    for (uint32_t i = 0; i < count; i++)
        pages[i] = a->pages[i];
    if (row >= 16)
        pages[count - 1] = pages[count - 2];
    other.pages = pages;
    for (uint32_t page = 0; page <= a->position + row; page += 16)
        naive_attend_page(&other, q, page, seen_in(page, a->position + row), s);
}

static void attend_one_page_back(const struct attend *a, void *scratch)
{
    (void)scratch;
    attend_by(a, walk_one_page_back);
}

/* Remembers the last row of this thread. */
static void sticky_norm(float *y, const float *x, const float *weight, uint32_t count, float eps)
{
    static _Thread_local float last;
    const float now = x[0];

    not_rounding()->norm(y, x, weight, count, eps);
    y[0] += last * 0x1p-20f;
    last = now;
}

struct fault {
    const char *what;
    struct kernels kernels;
};

static const struct fault *faults(size_t *count_p)
{
    static struct fault list[6];
    const struct kernels honest = *not_rounding();
    size_t n = 0;

    for (size_t i = 0; i < sizeof(list) / sizeof(*list); i++) {
        list[i].kernels = honest;
        list[i].kernels.name = "faulty";
    }
    list[n].what = "K in two halves";
    list[n++].kernels.gemm = halved_gemm;
    list[n].what = "the chunk's own pages first";
    list[n++].kernels.attend = attend_from_the_chunk;
    list[n].what = "pages by address";
    list[n++].kernels.attend = attend_by_address;
    list[n].what = "a token too far";
    list[n++].kernels.attend = attend_one_too_far;
    list[n].what = "another page's token";
    list[n++].kernels.attend = attend_one_page_back;
    list[n].what = "state between rows";
    list[n++].kernels.norm = sticky_norm;
    *count_p = n;
    return list;
}

/* How many of the requests differ from themselves alone, in a mix like those above. */
static uint32_t count_differences(const mc_model *model, const struct kernels *kernels)
{
    struct talk alone[MIXED], mixed[MIXED];
    struct bench b = bench_open(model, kernels, 1, MC_DTYPE_F32);
    uint32_t differences = 0;

    invite(alone, MIXED, 77, 100, 50, b.limits.vocab_size);
    invite(mixed, MIXED, 77, 100, 50, b.limits.vocab_size);
    run_alone(&b, alone, MIXED);
    talks_run(b.engine, mixed, MIXED, &(struct mix){ 5, 16, true });
    for (uint32_t i = 0; i < MIXED; i++)
        differences += talk_difference(&alone[i], &mixed[i], &b.limits) != NULL;
    dismiss(alone, MIXED);
    dismiss(mixed, MIXED);
    bench_close(&b);
    return differences;
}

static void test_kernels_that_break_the_promise_are_caught(void **state)
{
    mc_model *model = open_fixture("qwen3");
    size_t count;
    const struct fault *list = faults(&count);

    (void)state;
    assert_int_equal(count_differences(model, not_rounding()), 0);
    for (size_t i = 0; i < count; i++)
        if (count_differences(model, &list[i].kernels) == 0)
            fail_msg("%s: not seen", list[i].what);
    mc_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_is_the_same_beside_31_others_in_any_chunks_and_threads),
        cmocka_unit_test(test_the_default_model_gives_the_same_beside_31_others),
        cmocka_unit_test(test_every_request_of_a_random_mix_is_as_if_it_were_alone),
        cmocka_unit_test(test_ref_avx2_and_avx512_give_the_same_bits),
        cmocka_unit_test(test_a_preempted_request_gets_the_answer_it_would_have_got),
        cmocka_unit_test(test_kernels_that_break_the_promise_are_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
