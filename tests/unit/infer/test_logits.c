/*
 * test_logits.c - the CPU engine against `transformers`, on the fixtures of
 * tools/make_logit_fixtures.py, and proof that the comparison would see a small mistake.
 */
#include "test.h"

#include <math.h>
#include <stdio.h>

#include <mooncake/infer.h>

#include "infer/model.h"
#include "os/file.h"
#include "os/sysalloc.h"

static const double BOUND = 1e-4;                                /* of the largest |logit| */
static const char *const levels[] = { "ref", "avx2", "avx512" }; /* slowest first */
enum { LEVELS = sizeof(levels) / sizeof(*levels) };

/* One bit for each fixture, so that a mutation can say where it applies. */
enum {
    LLAMA3 = 1,
    LLAMA_LINEAR = 2,
    LLAMA_BIAS = 4,
    QWEN2 = 8,
    QWEN3 = 16,
    LLAMA_BF16 = 32,
    ALL = 63,
};

static const struct fixture {
    const char *name;
    unsigned bit;
} fixtures[] = {
    { "llama3", LLAMA3 },         { "llama-linear", LLAMA_LINEAR },
    { "llama-bias", LLAMA_BIAS }, { "qwen2", QWEN2 },
    { "qwen3", QWEN3 },           { "llama-bf16", LLAMA_BF16 },
};
enum { FIXTURES = sizeof(fixtures) / sizeof(*fixtures) };

/* ---------------------------------------------------------------------------- what is expected */

/** expected.bin as the script draws it. Pointers into `file`. */
struct expected {
    char *file; /* owned: alloc_free of os_alloc() */
    uint32_t tokens, rows, vocab;
    const uint32_t *token, *best, *position;
    const float *best_logit, *logit;
};

static struct expected read_expected(const char *fixture)
{
    char name[128];
    struct expected e;
    size_t size;
    struct mc_error error = { 0 };

    snprintf(name, sizeof(name), "models/logits/%s/expected.bin", fixture);
    if (os_file_read(test_data(name), 1 << 20, os_alloc(), &e.file, &size, &error) != MC_OK)
        fail_msg("%s", error.text);
    const uint32_t *words = (const uint32_t *)(const void *)e.file;
    e.tokens = words[0];
    e.rows = words[1];
    e.vocab = words[2];
    assert_int_equal(size, 4 * (3 + 3 * e.tokens + e.rows + e.rows * e.vocab));
    e.token = words + 3;
    e.best = e.token + e.tokens;
    e.best_logit = (const float *)(e.best + e.tokens);
    e.position = (const uint32_t *)(e.best_logit + e.tokens);
    e.logit = (const float *)(e.position + e.rows);
    return e;
}

/* The largest difference, as a part of the largest expected |logit|. Not a number counts as 1. */
static double distance(const struct expected *e, const float *logits)
{
    double worst = 0, largest = 0;

    for (uint32_t i = 0; i < e->tokens; i++) {
        const double difference =
            fabs((double)logits[(size_t)i * e->vocab + e->best[i]] - (double)e->best_logit[i]);
        worst = isnan(difference) ? HUGE_VAL : fmax(worst, difference);
        largest = fmax(largest, fabs((double)e->best_logit[i]));
    }
    for (uint32_t row = 0; row < e->rows; row++)
        for (uint32_t i = 0; i < e->vocab; i++) {
            const double want = (double)e->logit[(size_t)row * e->vocab + i];
            const double difference =
                fabs((double)logits[(size_t)e->position[row] * e->vocab + i] - want);
            worst = isnan(difference) ? HUGE_VAL : fmax(worst, difference);
            largest = fmax(largest, fabs(want));
        }
    return worst / largest;
}

/* ------------------------------------------------------------------------------- what we compute */

static mc_model *open_model(const char *fixture)
{
    char name[128];
    mc_model *model = NULL;
    struct mc_error error = { 0 };

    snprintf(name, sizeof(name), "models/logits/%s", fixture);
    if (mc_model_open(test_data(name), NULL, &model, &error) != MC_OK)
        fail_msg("%s", error.text);
    return model;
}

/* Whole pages first, then token by token, as a prompt and its answer come. */
static void run_chunks(mc_engine *engine, const struct expected *e, void *const *pages,
                       float *logits)
{
    for (uint32_t position = 0; position < e->tokens;) {
        const uint32_t left = e->tokens - position;
        const uint32_t count = position == 0 && left >= 64 ? 64 : left >= 32 ? 32 : 1;
        struct mc_sequence sequence = { .tokens = e->token + position,
                                        .token_count = count,
                                        .position = position,
                                        .pages = pages,
                                        .logits = logits + (size_t)position * e->vocab };
        const struct mc_step step = { .sequences = &sequence, .count = 1 };
        struct mc_error error = { 0 };
        if (mc_engine_step(engine, &step, &error) != MC_OK)
            fail_msg("position %u: %s", position, error.text);
        position += count;
    }
}

/* The distance on one kernel level; false if this processor lacks it. */
static bool compute(const mc_model *model, const char *level, const struct expected *e,
                    double *distance_p)
{
    const struct mc_engine_options options = {
        .threads = 1, .kernel = level, .kv_dtype = MC_DTYPE_F32, .tokens_max = 64
    };
    mc_engine *engine = NULL;
    struct mc_error error = { 0 };
    const mc_status status = mc_engine_open(model, &options, &engine, &error);

    if (status == MC_E_UNSUPPORTED)
        return false;
    if (status != MC_OK)
        fail_msg("%s: %s", level, error.text);

    struct mc_engine_limits limits;
    mc_engine_limits(engine, &limits);
    assert_int_equal(limits.vocab_size, e->vocab);
    const size_t page_bytes = mc_kv_page_bytes(&limits.layout);
    const size_t page_count =
        (e->tokens + limits.layout.page_tokens - 1) / limits.layout.page_tokens;
    float *logits = calloc((size_t)e->tokens * e->vocab, sizeof(*logits));
    void **pages = calloc(page_count, sizeof(*pages));
    assert_true(logits && pages);
    for (size_t i = 0; i < page_count; i++) {
        pages[i] = aligned_alloc(64, (page_bytes + 63) / 64 * 64);
        assert_non_null(pages[i]);
    }
    run_chunks(engine, e, pages, logits);
    *distance_p = distance(e, logits);
    for (size_t i = 0; i < page_count; i++)
        free(pages[i]);
    free(pages);
    free(logits);
    mc_engine_close(engine);
    return true;
}

static void test_logits_are_those_of_transformers_on_every_kernel_level(void **state)
{
    (void)state;
    for (size_t i = 0; i < FIXTURES; i++) {
        const struct expected e = read_expected(fixtures[i].name);
        mc_model *model = open_model(fixtures[i].name);
        for (size_t level = 0; level < LEVELS; level++) {
            double found;
            if (!compute(model, levels[level], &e, &found)) {
                assert_int_not_equal(level, 0); /* ref is always there */
                continue;
            }
            if (!(found <= BOUND))
                fail_msg("%s, %s: differs by %g of the largest logit", fixtures[i].name,
                         levels[level], found);
        }
        mc_model_close(model);
        os_alloc()->free(NULL, e.file);
    }
}

/* ------------------------------------------------------------------------------------- mutations */

/** A small change of an open model. The list of tools/make_logit_fixtures.py, which shows that each
 * moves transformers' own logits by three times the bound. */
struct mutation {
    const char *what;
    enum { DOUBLE_FIELD, FLOAT_FIELD, FINAL_NORM, LAYER_VECTOR } kind;
    size_t offset;  /* in struct model_config; LAYER_VECTOR: in struct layer_weights */
    double by;      /* a factor of a field; a step of an element */
    uint32_t index; /* of the element; changed in layer 0, then, as a second mutation, in layer 1 */
    unsigned fixtures;
};

#define CONFIG(field) offsetof(struct model_config, field)
#define LAYER(field) offsetof(struct layer_weights, field)
#define BIASED (LLAMA_BIAS | QWEN2)

static const struct mutation mutations[] = {
    { "theta", DOUBLE_FIELD, CONFIG(rope_theta), 1.01, 0, ALL },
    { "eps", FLOAT_FIELD, CONFIG(norm_eps), 1.1, 0, ALL },
    { "factor", DOUBLE_FIELD, CONFIG(rope.factor), 1.02, 0, LLAMA3 | LLAMA_LINEAR | LLAMA_BF16 },
    { "low_freq", DOUBLE_FIELD, CONFIG(rope.low_freq), 1.05, 0, LLAMA3 | LLAMA_BF16 },
    { "high_freq", DOUBLE_FIELD, CONFIG(rope.high_freq), 1.05, 0, LLAMA3 | LLAMA_BF16 },
    { "original context", DOUBLE_FIELD, CONFIG(rope.original_context_max), 1.05, 0,
      LLAMA3 | LLAMA_BF16 },
    { "final norm", FINAL_NORM, 0, 0.01, 0, ALL },
    { "attention norm", LAYER_VECTOR, LAYER(attention_norm), 0.01, 1, ALL },
    { "MLP norm", LAYER_VECTOR, LAYER(mlp_norm), 0.01, 2, ALL },
    { "q bias", LAYER_VECTOR, LAYER(q_bias), 0.01, 0, BIASED },
    { "k bias", LAYER_VECTOR, LAYER(k_bias), 0.01, 0, BIASED },
    { "v bias", LAYER_VECTOR, LAYER(v_bias), 0.01, 0, BIASED },
    { "o bias", LAYER_VECTOR, LAYER(o_bias), 0.01, 0, LLAMA_BIAS },
    { "q norm", LAYER_VECTOR, LAYER(q_norm), 0.01, 3, QWEN3 },
    { "k norm", LAYER_VECTOR, LAYER(k_norm), 0.01, 3, QWEN3 },
};
enum { MUTATIONS = sizeof(mutations) / sizeof(*mutations) };

/* Vectors are the model's own memory (struct mc_model: vectors), so a test may write to them. */
static void bump(const float *vector, uint32_t index, double by)
{
    assert_non_null(vector);
    float *element = (float *)(uintptr_t)vector + index;
    *element += (float)by;
}

static void apply(mc_model *model, const struct mutation *m, uint32_t layer)
{
    char *config = (char *)&model->config;
    char *weights = (char *)&model->layers[layer];

    switch (m->kind) {
    case DOUBLE_FIELD:
        *(double *)(void *)(config + m->offset) *= m->by;
        break;
    case FLOAT_FIELD:
        *(float *)(void *)(config + m->offset) *= (float)m->by;
        break;
    case FINAL_NORM:
        bump(model->final_norm, m->index, m->by);
        break;
    case LAYER_VECTOR:
        bump(*(const float **)(void *)(weights + m->offset), m->index, m->by);
        break;
    }
}

static void assert_seen(const char *fixture, const struct mutation *m, uint32_t layer,
                        const struct expected *e)
{
    mc_model *model = open_model(fixture);
    double found;

    apply(model, m, layer);
    size_t level = LEVELS - 1; /* any would do; the fastest that there is saves seconds */
    while (!compute(model, levels[level], e, &found))
        level--;
    if (!(found > BOUND))
        fail_msg("%s: %s of layer %u changed, and the logits differ by %g only", fixture, m->what,
                 layer, found);
    mc_model_close(model);
}

static void test_a_small_change_of_any_parameter_is_seen(void **state)
{
    (void)state;
    for (size_t i = 0; i < FIXTURES; i++) {
        const struct expected e = read_expected(fixtures[i].name);
        for (size_t k = 0; k < MUTATIONS; k++) {
            const struct mutation *m = &mutations[k];
            for (uint32_t layer = 0; layer < (m->kind == LAYER_VECTOR ? 2 : 1); layer++)
                if (m->fixtures & fixtures[i].bit)
                    assert_seen(fixtures[i].name, m, layer, &e);
        }
        os_alloc()->free(NULL, e.file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_are_those_of_transformers_on_every_kernel_level),
        cmocka_unit_test(test_a_small_change_of_any_parameter_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
