/* scale.c - a trace's numbers become a server's. */
#include "sim/scale.h"

#include "base/alloc.h"

void scaler_init(struct scaler *s, const struct scale_options *options)
{
    *s = (struct scaler){ .o = *options };
    if (s->o.block_tokens == 0)
        s->o.block_tokens = TRACE_BLOCK_TOKENS;
    if (s->o.page_tokens == 0)
        s->o.page_tokens = SCALE_PAGE_TOKENS;
    if (s->o.speed <= 0)
        s->o.speed = 1;
}

void scaler_fini(struct scaler *s)
{
    if (s->o.alloc)
        alloc_free(s->o.alloc, s->runs);
    *s = (struct scaler){ 0 };
}

/* A share of a page for a share of a block: rounded down, so that what was partial stays partial. */
static uint32_t part(const struct scaler *s, uint32_t tokens)
{
    if (s->o.kind == SCALE_NONE || tokens == 0)
        return tokens;
    const uint32_t share = (uint32_t)((uint64_t)tokens * s->o.page_tokens / s->o.block_tokens);
    return share ? share : 1;
}

/* Rounded to the nearest. */
static uint32_t answer(const struct scaler *s, uint32_t tokens)
{
    uint64_t scaled = tokens;

    if (s->o.kind == SCALE_BLOCK)
        scaled = ((uint64_t)tokens * s->o.page_tokens + s->o.block_tokens / 2) / s->o.block_tokens;
    return scaled ? (uint32_t)scaled : 1;
}

static mc_status fill_runs(struct scaler *s, const struct trace_request *q, struct scaled *out)
{
    const uint32_t full = q->input_tokens / s->o.block_tokens;
    const uint32_t rest = part(s, q->input_tokens % s->o.block_tokens);
    const uint32_t each = s->o.kind == SCALE_BLOCK ? s->o.page_tokens : s->o.block_tokens;

    if (q->hash_count > s->capacity) {
        struct scale_run *runs = alloc_resize(s->o.alloc, s->runs, q->hash_count, sizeof(*runs));
        if (!runs)
            return MC_E_NOMEM;
        s->runs = runs;
        s->capacity = q->hash_count;
    }
    for (uint32_t i = 0; i < q->hash_count; i++)
        s->runs[i] = (struct scale_run){ q->hash_ids[i], i < full ? each : rest };
    out->runs = s->runs;
    out->run_count = q->hash_count;
    out->input_tokens = full * each + rest;
    return MC_OK;
}

void scale_cut(struct scaled *q, struct scale_run *runs, uint32_t context_tokens)
{
    if (q->output_tokens >= context_tokens) {
        q->output_tokens = context_tokens - 1;
        q->cut = true;
    }
    const uint32_t most = context_tokens - q->output_tokens;
    if (q->input_tokens <= most)
        return;
    uint32_t left = most, count = 0;
    for (; left > 0; count++) {
        runs[count].tokens = runs[count].tokens < left ? runs[count].tokens : left;
        left -= runs[count].tokens;
    }
    q->input_tokens = most;
    q->run_count = count;
    q->cut = true;
}

mc_status scaler_next(struct scaler *s, const struct trace_request *q, struct scaled *scaled_p)
{
    struct scaled out = { .output_tokens = answer(s, q->output_tokens), .line = q->line };
    const mc_status status = fill_runs(s, q, &out);

    if (status != MC_OK)
        return status;
    if (!s->begun)
        s->first_ns = q->arrival_ns;
    s->begun = true;
    if (q->arrival_ns > s->first_ns)
        out.at_ns = (uint64_t)((double)(q->arrival_ns - s->first_ns) / s->o.speed);
    if (s->o.context_tokens)
        scale_cut(&out, s->runs, s->o.context_tokens);
    *scaled_p = out;
    return MC_OK;
}
