/* engine_open.c - the model and the engine over it: one that computes, or one of numbers. */
#include "worker/fingerprint.h"
#include "worker/state.h"
#include "worker/timing_engine.h"

/* Whole prompts, one after the other: as the simulator's prefill instances. Prompts and answers in one step
 * otherwise. */
static mc_status open_timing(struct worker *w, const struct worker_options *o,
                             struct mc_error *error)
{
    const struct worker_timing *t = o->timing;
    const bool only_prompts = w->role == MC_ROLE_PREFILL;

    w->timing = true;
    w->model_of = t->model;
    w->info.context_max = t->model.context_max;
    const struct timing_engine_options engine = {
        .alloc = w->alloc,
        .model = &w->model_of,
        .layout = timing_layout(&t->model, t->layers, t->kv_scale),
        .role = (uint32_t)w->role,
        .tokens_max = w->limits.chunk_tokens + w->limits.sequences_max,
        .sequences_max = only_prompts ? 1 : w->limits.sequences_max,
        .context_max = w->info.context_max,
        .vocab_size = w->info.vocab_size,
        .never = w->info.eos,
        .never_count = w->info.eos_count,
    };
    w->kernel = "timing";
    return timing_engine_open(&engine, &w->engine, error);
}

static mc_status open_cpu(struct worker *w, const struct worker_options *o, struct mc_error *error)
{
    const bool decodes = w->role & MC_ROLE_DECODE;
    const struct mc_engine_options engine = {
        .threads = o->threads,
        .kernel = o->kernel,
        .kv_dtype = o->kv_dtype,
        .tokens_max = w->limits.chunk_tokens + (decodes ? w->limits.sequences_max : 0),
        .sequences_max = w->limits.sequences_max,
    };

    const mc_status status = mc_engine_open(w->model, &engine, &w->engine, error);
    if (status == MC_OK)
        w->kernel = mc_engine_kernel(w->engine);
    return status;
}

mc_status worker_open_engine(struct worker *w, const struct worker_options *o,
                             struct mc_error *error)
{
    const struct mc_model_options model = { .alloc = w->alloc, .no_weights = o->timing != NULL };

    mc_status status = mc_model_open(o->model, &model, &w->model, error);
    if (status != MC_OK)
        return status;
    mc_model_info(w->model, &w->info);
    status = o->timing ? open_timing(w, o, error) : open_cpu(w, o, error);
    if (status != MC_OK)
        return status;
    mc_engine_limits(w->engine, &w->engine_limits);
    w->page_bytes = mc_kv_page_bytes(&w->engine_limits.layout);
    return fingerprint_of(w->model, o->model, &w->engine_limits.layout, w->kernel, w->alloc,
                          &w->fingerprint, error);
}
