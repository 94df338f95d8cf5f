/* sampling.c - how tokens are chosen: read from a message, checked, kept, given to the engine. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "worker/state.h"

static mc_status copy_ids(const struct worker *w, const struct wire_array *ids, uint32_t max,
                          const char *what, uint32_t **copy_p, struct mc_error *error)
{
    if (ids->count == 0)
        return MC_OK;
    if (ids->count > max)
        return error_set(error, MC_E_RANGE, "sampling.%s: %u tokens; at most %u are accepted", what,
                         ids->count, max);
    uint32_t *copy = alloc_zeroed(w->alloc, ids->count, sizeof(*copy));
    if (!copy)
        return error_set(error, MC_E_NOMEM, "out of memory for sampling.%s", what);
    for (uint32_t i = 0; i < ids->count; i++) {
        copy[i] = wire_u32_at(ids, i);
        if (copy[i] >= w->info.vocab_size) {
            alloc_free(w->alloc, copy);
            return error_set(error, MC_E_RANGE, "sampling.%s: token %u; the model has %u", what,
                             wire_u32_at(ids, i), w->info.vocab_size);
        }
    }
    *copy_p = copy;
    return MC_OK;
}

/* What the engine would refuse in the middle of a step, for all who are in it. */
static mc_status check(const struct worker *w, const struct wire_sampling *m,
                       struct mc_error *error)
{
    const uint32_t end = m->stop_tokens.count + w->info.eos_count;

    if (!(m->temperature == 0 || (m->temperature >= 1e-4f && m->temperature <= 100)))
        return error_set(error, MC_E_RANGE,
                         "sampling.temperature: %g is neither 0 nor in 1e-4 to 100",
                         (double)m->temperature);
    if (!(m->top_p >= 0 && m->top_p <= 1))
        return error_set(error, MC_E_RANGE, "sampling.top_p: %g is not in 0 to 1",
                         (double)m->top_p);
    if (m->logprobs > MC_TOP_LOGPROBS_MAX)
        return error_set(error, MC_E_RANGE, "sampling.logprobs: %u is more than %d", m->logprobs,
                         MC_TOP_LOGPROBS_MAX);
    if (m->tokens_max != 0 && m->tokens_min > m->tokens_max)
        return error_set(error, MC_E_RANGE, "sampling: tokens_min is more than tokens_max");
    if ((uint64_t)m->banned.count + end >= w->info.vocab_size)
        return error_set(error, MC_E_RANGE, "sampling.banned: %u tokens leave none of %u",
                         m->banned.count, w->info.vocab_size);
    return MC_OK;
}

static uint32_t at_most(uint64_t value, uint32_t most)
{
    return value < most ? (uint32_t)value : most;
}

mc_status sampling_read(const struct worker *w, const struct wire_sampling *m,
                        struct sampling *sampling_p, struct mc_error *error)
{
    struct sampling s = {
        .values = { .temperature = m->temperature,
                    .top_p = m->top_p,
                    .top_k = m->top_k,
                    .seed = m->seed,
                    .logprobs = m->logprobs },
        .banned_count = m->banned.count,
        .stop_count = m->stop_tokens.count,
        .tokens_max = at_most(m->tokens_max, UINT32_MAX - 1),
        .tokens_min = at_most(m->tokens_min, UINT32_MAX - 1),
        .ignore_eos = m->ignore_eos,
    };
    mc_status status = check(w, m, error);

    if (status == MC_OK)
        status = copy_ids(w, &m->banned, REQUEST_BANNED_MAX, "banned", &s.banned, error);
    if (status == MC_OK)
        status = copy_ids(w, &m->stop_tokens, REQUEST_EOS_MAX - w->info.eos_count, "stop_tokens",
                          &s.stops, error);
    if (status != MC_OK) {
        sampling_fini(w, &s);
        return status;
    }
    *sampling_p = s;
    return MC_OK;
}

void sampling_fini(const struct worker *w, struct sampling *sampling)
{
    alloc_free(w->alloc, sampling->stops);
    alloc_free(w->alloc, sampling->banned);
    sampling->stops = sampling->banned = NULL;
}

mc_status sampling_request(const struct worker *w, const struct sampling *s, const uint32_t *tokens,
                           uint32_t count, bool only_first, struct job *job, struct mc_error *error)
{
    uint32_t ends[REQUEST_EOS_MAX];

    memcpy(ends, w->info.eos, w->info.eos_count * sizeof(*ends));
    if (s->stop_count)
        memcpy(ends + w->info.eos_count, s->stops, s->stop_count * sizeof(*ends));
    const struct request_options options = {
        .prompt = tokens,
        .prompt_count = count,
        .context_max = w->context_max,
        .max_tokens = only_first ? 1 : s->tokens_max,
        .min_tokens = only_first && s->tokens_min > 1 ? 1 : s->tokens_min,
        .eos = ends,
        .eos_count = w->info.eos_count + s->stop_count,
        .ignore_eos = s->ignore_eos,
        .banned = s->banned,
        .banned_count = s->banned_count,
        .sampling = s->values,
        .output = runner_output,
        .user = job,
        .alloc = w->alloc,
    };

    return request_open(&options, &job->request, error);
}
