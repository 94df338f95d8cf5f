/* timing_engine.c - check a step as the others do, make its numbers, and sleep. */
#include "worker/timing_engine.h"

#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "kv/layout.h"
#include "os/clock.h"
#include "os/thread.h"

/* A step that is asked for so soon after the last one returned is the next of a busy engine: by the model it
 * begins where that one ended, however late this machine woke us then. */
static const uint64_t BUSY_NS = 20000000;
/* But nobody catches up with more than this: a machine that stood still is not the model's to make good. */
static const uint64_t BEHIND_NS = 2000000000;

struct timing_engine {
    mc_engine head; /* first */
    const struct mc_alloc *alloc;
    struct timing_model model;
    struct mc_engine_limits limits;
    struct timing_tracker tracker;
    uint32_t *never; /* owned; [never_count] */
    uint32_t never_count;
    uint64_t end_ns;          /* when the last step was over, by the model */
    uint64_t returned_ns;     /* and when it returned */
    _Atomic uint32_t stopped; /* set once; a sleep looks at it */
};

static struct timing_engine *of(mc_engine *engine)
{
    return (struct timing_engine *)engine;
}

/* ------------------------------------------------------------------------------------------ checks */

static mc_status check_sampling(const struct mc_sequence *s, uint32_t number,
                                struct mc_error *error)
{
    if (s->sampling && !s->sample)
        return error_set(error, MC_E_ARG, "sequence %u: sampling without a place for the sample",
                         number);
    if (s->sampling && s->sampling->logprobs > MC_TOP_LOGPROBS_MAX)
        return error_set(error, MC_E_RANGE, "sequence %u: %u logprobs; at most %d", number,
                         s->sampling->logprobs, MC_TOP_LOGPROBS_MAX);
    return MC_OK;
}

static mc_status check_sequence(const struct mc_engine_limits *l, const struct mc_sequence *s,
                                uint32_t number, struct mc_error *error)
{
    if (s->token_count == 0 || s->position >= l->context_max ||
        s->token_count > l->context_max - s->position)
        return error_set(error, MC_E_RANGE, "sequence %u: %u tokens from %u; the context is %u",
                         number, s->token_count, s->position, l->context_max);
    if (s->token_count > 1 && s->position % KV_PAGE_TOKENS != 0)
        return error_set(error, MC_E_ARG,
                         "sequence %u: a chunk begins at %u, not on a page boundary", number,
                         s->position);
    for (uint32_t i = 0; i < s->token_count; i++)
        if (s->tokens[i] >= l->vocab_size)
            return error_set(error, MC_E_RANGE,
                             "sequence %u: token %u is not in the vocabulary of %u", number,
                             s->tokens[i], l->vocab_size);
    return check_sampling(s, number, error);
}

static mc_status check(const struct timing_engine *e, const struct mc_step *step,
                       struct mc_error *error)
{
    uint64_t tokens = 0;

    if (step->count == 0 || step->count > e->limits.sequences_max)
        return error_set(error, MC_E_RANGE, "%u sequences; a step takes 1 to %u", step->count,
                         e->limits.sequences_max);
    for (uint32_t i = 0; i < step->count; i++) {
        const mc_status status = check_sequence(&e->limits, &step->sequences[i], i, error);
        if (status != MC_OK)
            return status;
        tokens += step->sequences[i].token_count;
    }
    if (tokens > e->limits.tokens_max)
        return error_set(error, MC_E_RANGE, "%llu tokens; a step takes at most %u",
                         (unsigned long long)tokens, e->limits.tokens_max);
    return MC_OK;
}

/* ----------------------------------------------------------------------------------------- numbers */

/* A token's keys and values, all layers: its state, again and again. */
static void fill_token(const struct mc_kv_layout *l, char *page, uint32_t token, uint32_t state)
{
    const size_t bytes = kv_token_bytes(l);

    for (uint32_t layer = 0; layer < l->layers; layer++)
        for (int part = KV_KEY; part <= KV_VALUE; part++) {
            char *at = page + kv_offset(l, layer, (enum kv_part)part, token);
            for (size_t done = 0; done + sizeof(state) <= bytes; done += sizeof(state))
                memcpy(at + done, &state, sizeof(state));
        }
}

/* What the pages say of the position before: whatever has come into them counts. */
static uint32_t state_before(const struct mc_kv_layout *l, const struct mc_sequence *s)
{
    uint32_t state = 0;

    if (s->position > 0) {
        const uint32_t last = s->position - 1;
        const char *page = s->pages[last / KV_PAGE_TOKENS];
        memcpy(&state, page + kv_offset(l, 0, KV_KEY, last % KV_PAGE_TOKENS), sizeof(state));
    }
    return state;
}

static void sample(const struct timing_engine *e, const struct mc_sequence *s, uint32_t state)
{
    const struct timing_bans bans[2] = { { s->sampling->banned, s->sampling->banned_count },
                                         { e->never, e->never_count } };
    struct mc_sample *out = s->sample;
    const uint32_t vocab = e->limits.vocab_size, token = timing_token(state, vocab, bans);

    memset(out, 0, sizeof(*out));
    out->chosen.token = token; /* it is certain: a logprob of 0 */
    out->top_count = s->sampling->logprobs < vocab ? s->sampling->logprobs : vocab;
    for (uint32_t i = 0; i < out->top_count; i++)
        out->top[i] = (struct mc_token_logprob){ (token + i) % vocab, i ? -100.0F : 0.0F };
}

static void compute(const struct timing_engine *e, const struct mc_sequence *s)
{
    const struct mc_kv_layout *l = &e->limits.layout;
    const uint32_t vocab = e->limits.vocab_size;
    const struct timing_bans none[2] = { { NULL, 0 }, { NULL, 0 } };
    uint32_t state = state_before(l, s);

    for (uint32_t i = 0; i < s->token_count; i++) {
        const uint32_t position = s->position + i;
        state = timing_state(state, s->tokens[i], position);
        fill_token(l, s->pages[position / KV_PAGE_TOKENS], position % KV_PAGE_TOKENS, state);
        if (s->logits) {
            float *row = s->logits + (size_t)i * vocab;
            memset(row, 0, vocab * sizeof(*row));
            row[timing_token(state, vocab, none)] = 1;
        }
    }
    if (s->sampling)
        sample(e, s, state);
}

/* -------------------------------------------------------------------------------------------- time */

static void sleep_until(struct timing_engine *e, uint64_t until_ns)
{
    while (atomic_load_explicit(&e->stopped, memory_order_acquire) == 0 && os_now_ns() < until_ns)
        os_wait_change(&e->stopped, 0, until_ns);
}

static bool has_prompt(const struct mc_step *step)
{
    for (uint32_t i = 0; i < step->count; i++)
        if (step->sequences[i].token_count > 1)
            return true;
    return false;
}

/* Layers end one after another; a batch of answers has nobody who waits for them. */
static void pass(struct timing_engine *e, const struct mc_step *step, uint64_t begin_ns,
                 uint64_t took_ns)
{
    const uint32_t layers = e->limits.layout.layers;
    const bool by_layers = step->layer_done && has_prompt(step);

    if (!by_layers)
        sleep_until(e, begin_ns + took_ns);
    for (uint32_t layer = 0; layer < layers && step->layer_done; layer++) {
        if (by_layers)
            sleep_until(e, begin_ns + took_ns / layers * (layer + 1));
        step->layer_done(step->user, layer);
    }
    if (by_layers)
        sleep_until(e, begin_ns + took_ns);
}

static mc_status timing_step(mc_engine *engine, const struct mc_step *step, struct mc_error *error)
{
    struct timing_engine *e = of(engine);
    const mc_status status = check(e, step, error);

    if (status != MC_OK)
        return status;
    const uint64_t now_ns = os_now_ns();
    const bool busy = now_ns - e->returned_ns < BUSY_NS && now_ns - e->end_ns < BEHIND_NS;
    const uint64_t begin_ns = busy ? e->end_ns : now_ns;
    const double seconds = timing_step_s(&e->model, &e->tracker, step);
    const uint64_t took_ns = (uint64_t)(seconds * 1e9);

    for (uint32_t i = 0; i < step->count; i++)
        compute(e, &step->sequences[i]);
    pass(e, step, begin_ns, took_ns);
    e->end_ns = begin_ns + took_ns;
    e->returned_ns = os_now_ns();
    return MC_OK;
}

/* -------------------------------------------------------------------------------------------- life */

static void timing_limits(const mc_engine *engine, struct mc_engine_limits *limits_p)
{
    *limits_p = ((const struct timing_engine *)engine)->limits;
}

static void timing_close(mc_engine *engine)
{
    struct timing_engine *e = of(engine);
    const struct mc_alloc *alloc = e->alloc;

    alloc_free(alloc, e->tracker.seen);
    alloc_free(alloc, e->never);
    alloc_free(alloc, e);
}

static const struct mc_engine_ops timing_ops = {
    .name = "timing", .limits = timing_limits, .step = timing_step, .close = timing_close
};

void timing_engine_stop(mc_engine *engine)
{
    struct timing_engine *e = of(engine);

    atomic_store_explicit(&e->stopped, 1, memory_order_release);
    os_wake_all(&e->stopped);
}

mc_status timing_engine_open(const struct timing_engine_options *o, mc_engine **engine_p,
                             struct mc_error *error)
{
    if (o->tokens_max < KV_PAGE_TOKENS || o->sequences_max == 0 || o->context_max == 0 ||
        o->vocab_size == 0 || o->layout.layers == 0 || kv_token_bytes(&o->layout) < 4)
        return error_set(error, MC_E_RANGE, "a timing engine with a limit of 0");
    struct timing_engine *e = alloc_zeroed(o->alloc, 1, sizeof(*e));
    if (!e)
        return error_set(error, MC_E_NOMEM, "out of memory for an engine");
    *e = (struct timing_engine){ .head = { &timing_ops },
                                 .alloc = o->alloc,
                                 .model = *o->model,
                                 .limits = { .layout = o->layout,
                                             .tokens_max = o->tokens_max,
                                             .sequences_max = o->sequences_max,
                                             .context_max = o->context_max,
                                             .vocab_size = o->vocab_size },
                                 .tracker = { .seen_max = 2 * o->sequences_max, .role = o->role },
                                 .never_count = o->never_count };
    e->tracker.seen = alloc_zeroed(o->alloc, e->tracker.seen_max, sizeof(*e->tracker.seen));
    if (o->never_count > 0)
        e->never = alloc_zeroed(o->alloc, o->never_count, sizeof(*e->never));
    if (!e->tracker.seen || (o->never_count > 0 && !e->never)) {
        timing_close(&e->head);
        return error_set(error, MC_E_NOMEM, "out of memory for an engine");
    }
    if (o->never_count > 0)
        memcpy(e->never, o->never, o->never_count * sizeof(*e->never));
    *engine_p = &e->head;
    return MC_OK;
}
