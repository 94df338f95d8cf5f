/* engine.c - the CPU engine's life: options checked, memory laid out once, steps validated. */
#include <mooncake/infer.h>

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "infer/forward.h"
#include "kv/layout.h"
#include "os/sysalloc.h"

enum {
    TOKENS_DEFAULT = 512,
    TOKENS_LIMIT = 65536,
    SEQUENCES_DEFAULT = 64,
    SEQUENCES_LIMIT = 4096,
    LOGIT_ROWS_MAX = 64,
    LINE = 64 /* bytes of a cache line; every buffer starts on one */
};

/* Rows are a whole number of lines and never a multiple of 4 KiB, where lines would share a set. */
static size_t row_stride(uint32_t count)
{
    return ((size_t)count + 15) / 16 * 16 + 16;
}

static size_t lines(size_t bytes)
{
    return (bytes + LINE - 1) / LINE * LINE;
}

/* Hands out pieces of one allocation; with base NULL it only adds up what they need. */
struct layer_cake {
    char *base;
    size_t used;
    bool overflow;
};

static void *slice(struct layer_cake *cake, size_t count, size_t size)
{
    size_t bytes = 0;
    char *p = cake->base ? cake->base + cake->used : NULL;

    if (!size_mul(count, size, &bytes) || bytes > SIZE_MAX / 4 - cake->used)
        cake->overflow = true;
    else
        cake->used += lines(bytes);
    return p;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void lay_out(struct cpu_engine *e, struct layer_cake *cake)
{
    const struct model_config *c = &e->model->config;
    const struct mc_engine_limits *l = &e->limits;
    const size_t rows = l->tokens_max;
    const uint32_t group = c->heads / c->kv_heads;

    e->hidden_stride = row_stride(c->hidden);
    e->q_stride = row_stride(c->heads * c->head_dim);
    e->kv_stride = row_stride(c->kv_heads * c->head_dim);
    e->mlp_stride = row_stride(c->intermediate);
    e->logit_stride = row_stride(c->vocab_size);
    e->logit_rows = l->sequences_max < LOGIT_ROWS_MAX ? l->sequences_max : LOGIT_ROWS_MAX;
    e->scratch_bytes =
        lines(larger(larger(e->kernels->gemm_scratch(),
                            e->kernels->attend_scratch(c->head_dim, group < 8 ? group : 8)),
                     (size_t)c->vocab_size * (sizeof(float) + sizeof(struct candidate))));

    e->inverse_frequency = slice(cake, c->head_dim / 2, sizeof(float));
    e->rows = slice(cake, rows, sizeof(*e->rows));
    e->blocks = slice(cake, rows, sizeof(*e->blocks));
    e->x = slice(cake, rows, e->hidden_stride * sizeof(float));
    e->normed = slice(cake, rows, e->hidden_stride * sizeof(float));
    e->q = slice(cake, rows, e->q_stride * sizeof(float));
    e->attention = slice(cake, rows, e->q_stride * sizeof(float));
    e->k = slice(cake, rows, e->kv_stride * sizeof(float));
    e->v = slice(cake, rows, e->kv_stride * sizeof(float));
    e->gate = slice(cake, rows, e->mlp_stride * sizeof(float));
    e->up = slice(cake, rows, e->mlp_stride * sizeof(float));
    if (e->kernels->rounds_rows)
        e->rounded =
            slice(cake, rows,
                  larger(larger(e->hidden_stride, e->q_stride), e->mlp_stride) * sizeof(uint16_t));
    e->rotation = slice(cake, rows, c->head_dim * sizeof(float));
    e->logits = slice(cake, e->logit_rows, e->logit_stride * sizeof(float));
    e->scratch = slice(cake, os_crew_size(e->crew), e->scratch_bytes);
}

static mc_status take_memory(struct cpu_engine *e, struct mc_error *error)
{
    struct layer_cake cake = { 0 };

    lay_out(e, &cake);
    if (!cake.overflow)
        e->memory = alloc_bytes(e->alloc, cake.used + LINE);
    if (!e->memory)
        return error_set(error, MC_E_NOMEM,
                         "out of memory: the engine needs %zu MiB for %u tokens a step",
                         cake.used >> 20, e->limits.tokens_max);
    os_advise_huge(e->memory, cake.used + LINE);
    cake = (struct layer_cake){ .base = (char *)e->memory + (LINE - (uintptr_t)e->memory % LINE) };
    lay_out(e, &cake);
    return MC_OK;
}

/* ------------------------------------------------------------------------------------------ step */

static mc_status check_sequence(const struct cpu_engine *e, const struct mc_sequence *s,
                                uint32_t number, struct mc_error *error)
{
    const struct mc_engine_limits *l = &e->limits;

    if (s->token_count == 0 || s->token_count > l->tokens_max)
        return error_set(error, MC_E_RANGE, "sequence %u: %u tokens; a step takes 1 to %u", number,
                         s->token_count, l->tokens_max);
    if (s->position > l->context_max || s->token_count > l->context_max - s->position)
        return error_set(error, MC_E_RANGE,
                         "sequence %u: positions %u + %u exceed the context of %u", number,
                         s->position, s->token_count, l->context_max);
    if (s->position % KV_PAGE_TOKENS != 0 && s->token_count > 1)
        return error_set(error, MC_E_ARG,
                         "sequence %u: a chunk at position %u is not on a page boundary", number,
                         s->position);
    for (uint32_t i = 0; i < s->token_count; i++)
        if (s->tokens[i] >= l->vocab_size)
            return error_set(error, MC_E_RANGE,
                             "sequence %u: token %u is not in the vocabulary of %u", number,
                             s->tokens[i], l->vocab_size);
    const char *fault = s->sampling ? sampling_fault(s->sampling, l->vocab_size) : NULL;
    if (fault)
        return error_set(error, MC_E_RANGE, "sequence %u: %s", number, fault);
    if (s->sampling && !s->sample)
        return error_set(error, MC_E_ARG, "sequence %u: sampling without a place for the sample",
                         number);
    return MC_OK;
}

static mc_status cpu_step(mc_engine *engine, const struct mc_step *step, struct mc_error *error)
{
    struct cpu_engine *e = (struct cpu_engine *)engine;
    uint64_t tokens = 0;

    if (step->count == 0 || step->count > e->limits.sequences_max)
        return error_set(error, MC_E_RANGE, "%u sequences; a step takes 1 to %u", step->count,
                         e->limits.sequences_max);
    for (uint32_t i = 0; i < step->count; i++) {
        const mc_status status = check_sequence(e, &step->sequences[i], i, error);
        if (status != MC_OK)
            return status;
        tokens += step->sequences[i].token_count;
    }
    if (tokens > e->limits.tokens_max)
        return error_set(error, MC_E_RANGE, "%llu tokens; a step takes at most %u",
                         (unsigned long long)tokens, e->limits.tokens_max);
    forward_step(e, step);
    return MC_OK;
}

static void cpu_limits(const mc_engine *engine, struct mc_engine_limits *limits_p)
{
    *limits_p = ((const struct cpu_engine *)engine)->limits;
}

static void cpu_close(mc_engine *engine)
{
    struct cpu_engine *e = (struct cpu_engine *)engine;
    const struct mc_alloc *alloc = e->alloc;

    os_crew_close(e->crew);
    alloc_free(alloc, e->memory);
    alloc_free(alloc, e);
}

static const struct mc_engine_ops cpu_ops = {
    .name = "cpu",
    .limits = cpu_limits,
    .step = cpu_step,
    .close = cpu_close,
};

/* ------------------------------------------------------------------------------------------ open */

static mc_status choose_kernels(const char *name, const struct kernels **kernels_p,
                                struct mc_error *error)
{
    char names[128] = "";
    const struct kernels *found = kernels_find(name);

    if (found) {
        *kernels_p = found;
        return MC_OK;
    }
    for (const struct kernels *const *k = kernels_usable(); *k; k++) {
        strncat(names, names[0] ? ", " : "", sizeof(names) - strlen(names) - 1);
        strncat(names, (*k)->name, sizeof(names) - strlen(names) - 1);
    }
    return error_set(error, MC_E_UNSUPPORTED, "kernel \"%s\": this processor has %s", name, names);
}

static mc_status check_options(const struct mc_engine_options *o, struct mc_error *error)
{
    if (o->tokens_max > TOKENS_LIMIT)
        return error_set(error, MC_E_RANGE, "tokens_max %u: at most %u", o->tokens_max,
                         TOKENS_LIMIT);
    if (o->sequences_max > SEQUENCES_LIMIT)
        return error_set(error, MC_E_RANGE, "sequences_max %u: at most %u", o->sequences_max,
                         SEQUENCES_LIMIT);
    if (o->kv_dtype > MC_DTYPE_BF16)
        return error_set(error, MC_E_RANGE, "kv_dtype %d: not a type", (int)o->kv_dtype);
    return MC_OK;
}

static struct mc_engine_limits limits_of(const mc_model *model, const struct mc_engine_options *o)
{
    const struct model_config *c = &model->config;
    const uint32_t tokens = o->tokens_max ? o->tokens_max : TOKENS_DEFAULT;

    return (struct mc_engine_limits){
        .layout = { .layers = c->layers,
                    .kv_heads = c->kv_heads,
                    .head_dim = c->head_dim,
                    .page_tokens = KV_PAGE_TOKENS,
                    .dtype = o->kv_dtype ? o->kv_dtype : model->dtype },
        .tokens_max = kv_pages(tokens) * KV_PAGE_TOKENS,
        .sequences_max = o->sequences_max ? o->sequences_max : SEQUENCES_DEFAULT,
        .context_max = c->context_max,
        .vocab_size = c->vocab_size,
    };
}

mc_status mc_engine_open(const mc_model *model, const struct mc_engine_options *options,
                         mc_engine **engine_p, struct mc_error *error)
{
    const struct mc_engine_options o = options ? *options : (struct mc_engine_options){ 0 };
    const struct kernels *kernels = NULL;
    mc_status status = check_options(&o, error);

    if (status == MC_OK && !model->layers)
        status = error_set(error, MC_E_ARG, "%s was opened without its weights", model->name);
    if (status == MC_OK)
        status = choose_kernels(o.kernel, &kernels, error);
    if (status != MC_OK)
        return status;

    struct cpu_engine *e = alloc_zeroed(model->alloc, 1, sizeof(*e));
    if (!e)
        return error_set(error, MC_E_NOMEM, "out of memory for an engine");
    *e = (struct cpu_engine){ .head = { &cpu_ops },
                              .alloc = model->alloc,
                              .model = model,
                              .kernels = kernels,
                              .limits = limits_of(model, &o) };
    status = os_crew_open(o.threads, e->alloc, &e->crew, error);
    if (status == MC_OK)
        status = take_memory(e, error);
    if (status != MC_OK) {
        cpu_close(&e->head);
        return status;
    }
    forward_frequencies(&model->config, e->inverse_frequency);
    *engine_p = &e->head;
    return MC_OK;
}

const char *mc_engine_kernel(const mc_engine *engine)
{
    assert(engine->ops == &cpu_ops);
    return ((const struct cpu_engine *)engine)->kernels->name;
}
