/* batcher.c - who computes what in the next step, and who must wait for pages. */
#include "infer/batcher.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "kv/layout.h"

enum { WAITING_DEFAULT = 256, WAITING_MAX = 65536, CHUNK_DEFAULT = 512 };

/* Requests by arrival, oldest first. */
struct line {
    struct request **items; /* owned */
    uint32_t count;
};

struct batcher {
    const struct mc_alloc *alloc;
    mc_engine *engine; /* borrowed */
    struct mc_engine_limits limits;
    uint32_t page_count, waiting_max, running_max, chunk_tokens;
    struct batcher_hooks hooks;

    struct pages *pages; /* borrowed when shared, else owned */
    bool shared;
    void *pool;          /* owned; the memory of pages that are not shared */
    struct line waiting; /* [waiting_max + running_max]: the preempted always fit */
    struct line running; /* [running_max] */
    uint64_t arrivals, steps, preemptions;

    /* The step in the making; [running_max] each. */
    struct request **planned;      /* owned */
    struct mc_sequence *sequences; /* owned */
    struct mc_sample *samples;     /* owned */
    uint32_t planned_count, planned_tokens;
};

/* ------------------------------------------------------------------------------------- lines */

static void line_add(struct line *line, struct request *r)
{
    uint32_t at = line->count++;

    for (; at > 0 && line->items[at - 1]->arrival > r->arrival; at--)
        line->items[at] = line->items[at - 1];
    line->items[at] = r;
}

static void line_remove(struct line *line, const struct request *r)
{
    uint32_t at = 0;

    while (line->items[at] != r)
        at++;
    line->count--;
    memmove(&line->items[at], &line->items[at + 1], (line->count - at) * sizeof(*line->items));
}

/* ------------------------------------------------------------------------------- open, close */

static mc_status settle(struct batcher *b, const struct batcher_options *o, struct mc_error *error)
{
    const struct mc_engine_limits *limits = &b->limits;
    const uint32_t chunk_max = limits->tokens_max / KV_PAGE_TOKENS * KV_PAGE_TOKENS;
    /* With one page's tokens kept for prompts, decodes never starve them. */
    const uint32_t most = limits->tokens_max - (KV_PAGE_TOKENS - 1);
    const uint32_t running = limits->sequences_max < most ? limits->sequences_max : most;

    assert(chunk_max >= KV_PAGE_TOKENS && limits->layout.page_tokens == KV_PAGE_TOKENS);
    if (o->chunk_tokens % KV_PAGE_TOKENS != 0)
        return error_set(error, MC_E_ARG, "chunk: %u is not a multiple of %d", o->chunk_tokens,
                         KV_PAGE_TOKENS);
    if (o->waiting_max > WAITING_MAX)
        return error_set(error, MC_E_RANGE, "waiting: %u is more than %d", o->waiting_max,
                         WAITING_MAX);
    b->chunk_tokens = o->chunk_tokens ? o->chunk_tokens : CHUNK_DEFAULT;
    if (b->chunk_tokens > chunk_max)
        b->chunk_tokens = chunk_max;
    b->waiting_max = o->waiting_max ? o->waiting_max : WAITING_DEFAULT;
    b->running_max = o->running_max && o->running_max < running ? o->running_max : running;
    b->page_count = o->shared  ? pages_count(o->shared)
                    : o->pages ? o->pages
                               : kv_pages(limits->context_max);
    return MC_OK;
}

static mc_status take_pages(struct batcher *b, struct mc_error *error)
{
    const size_t stride = pages_stride(mc_kv_page_bytes(&b->limits.layout));
    size_t bytes;

    if (size_mul(b->page_count, stride, &bytes) && size_add(bytes, PAGES_ALIGN, &bytes))
        b->pool = alloc_bytes(b->alloc, bytes); /* not touched: pages cost memory once used */
    if (!b->pool)
        return error_set(error, MC_E_NOMEM, "out of memory for %u KVCache pages of %zu bytes",
                         b->page_count, mc_kv_page_bytes(&b->limits.layout));
    const size_t off = (uintptr_t)b->pool % PAGES_ALIGN;
    return pages_open(b->alloc, (char *)b->pool + (off ? PAGES_ALIGN - off : 0), stride,
                      b->page_count, &b->pages, error);
}

static mc_status take_memory(struct batcher *b, struct mc_error *error)
{
    const struct mc_alloc *alloc = b->alloc;

    b->waiting.items =
        alloc_zeroed(alloc, (size_t)b->waiting_max + b->running_max, sizeof(*b->waiting.items));
    b->running.items = alloc_zeroed(alloc, b->running_max, sizeof(*b->running.items));
    b->planned = alloc_zeroed(alloc, b->running_max, sizeof(*b->planned));
    b->sequences = alloc_zeroed(alloc, b->running_max, sizeof(*b->sequences));
    b->samples = alloc_zeroed(alloc, b->running_max, sizeof(*b->samples));
    if (!b->waiting.items || !b->running.items || !b->planned || !b->sequences || !b->samples)
        return error_set(error, MC_E_NOMEM, "out of memory for %u requests in a batcher",
                         b->waiting_max + b->running_max);
    return MC_OK;
}

mc_status batcher_open(mc_engine *engine, const struct batcher_options *o, batcher **batcher_p,
                       struct mc_error *error)
{
    struct batcher *b = alloc_zeroed(o->alloc, 1, sizeof(*b));

    if (!b)
        return error_set(error, MC_E_NOMEM, "out of memory for a batcher");
    b->alloc = o->alloc;
    b->engine = engine;
    b->hooks = o->hooks;
    b->pages = o->shared;
    b->shared = o->shared != NULL;
    mc_engine_limits(engine, &b->limits);
    mc_status status = settle(b, o, error);
    if (status == MC_OK)
        status = take_memory(b, error);
    if (status == MC_OK && !b->shared)
        status = take_pages(b, error);
    if (status != MC_OK) {
        batcher_close(b);
        return status;
    }
    *batcher_p = b;
    return MC_OK;
}

/* --------------------------------------------------------------------------------- requests */

mc_status batcher_add(batcher *b, struct request *r, struct mc_error *error)
{
    assert(r->arrival == 0 && r->finish == REQUEST_RUNNING);
    assert(r->page_count == 0 || (b->shared && r->page_count <= kv_pages(r->token_max)));
    assert(r->computed < r->token_count && kv_pages(r->computed) <= r->page_count);
    assert(r->computed % KV_PAGE_TOKENS == 0 || r->computed + 1 == r->token_count);
    if (r->token_max > b->limits.context_max)
        return error_set(error, MC_E_RANGE,
                         "%u tokens, prompt and answer; the engine's context is %u", r->token_max,
                         b->limits.context_max);
    if (kv_pages(r->token_max - 1) > b->page_count) /* the last token is never computed */
        return error_set(error, MC_E_RANGE,
                         "%u tokens, prompt and answer, need %u KVCache pages; there are %u",
                         r->token_max, kv_pages(r->token_max - 1), b->page_count);
    for (uint32_t i = 0; i < r->token_count; i++)
        if (r->tokens[i] >= b->limits.vocab_size)
            return error_set(error, MC_E_RANGE, "token %u of the prompt is %u; the model has %u", i,
                             r->tokens[i], b->limits.vocab_size);
    if (b->waiting.count >= b->waiting_max)
        return error_set(error, MC_E_FULL, "%u requests are waiting already", b->waiting.count);
    r->arrival = ++b->arrivals;
    r->cancelled = false;
    line_add(&b->waiting, r);
    return MC_OK;
}

void batcher_cancel(batcher *b, struct request *r)
{
    (void)b;
    assert(r->arrival != 0);
    r->cancelled = true;
}

static void give_back(struct batcher *b, struct request *r)
{
    pages_drop(b->pages, r->pages, r->page_count);
    r->page_count = 0;
    r->computed = 0;
}

/* Take the request out, then tell: in its last event it is the caller's again. */
static void leave(struct batcher *b, struct line *line, struct request *r)
{
    line_remove(line, r);
    give_back(b, r);
    r->arrival = 0;
    request_emit(r);
}

static void sweep(struct batcher *b, struct line *line, bool all)
{
    for (uint32_t i = 0; i < line->count;) {
        struct request *r = line->items[i];
        if (all || r->cancelled) {
            request_end(r, REQUEST_CANCELLED, NULL);
            leave(b, line, r);
            i = 0; /* the event may have added to the line */
        } else
            i++;
    }
}

/* -------------------------------------------------------------------------------------- plan */

static uint32_t remaining(const struct request *r)
{
    return r->token_count - r->computed;
}

static void plan(struct batcher *b, struct request *r, uint32_t count)
{
    const uint32_t i = b->planned_count++;
    const bool last = count == remaining(r);

    assert(r->page_count >= kv_pages(r->computed + count));
    b->planned[i] = r;
    b->planned_tokens += count;
    b->sequences[i] = (struct mc_sequence){
        .tokens = r->tokens + r->computed,
        .token_count = count,
        .position = r->computed,
        .pages = r->pages,
        .sampling = last ? request_sampling(r) : NULL,
        .sample = &b->samples[i],
    };
}

static void preempt(struct batcher *b, struct request *r)
{
    line_remove(&b->running, r);
    give_back(b, r);
    line_add(&b->waiting, r);
    b->preemptions++;
}

/* The newest that may be thrown out. r itself is one: who is pinned has all of its pages. */
static struct request *newest(const struct batcher *b)
{
    uint32_t i = b->running.count;

    do
        i--;
    while (b->running.items[i]->pinned);
    return b->running.items[i];
}

/* Make sure that there is a page for r's next token, at the cost of newer requests; false if r was the
 * newest itself. */
static bool grow(struct batcher *b, struct request *r)
{
    while (r->page_count < kv_pages(r->token_count)) {
        assert(!r->pinned);
        while (!pages_take(b->pages, 1, 0, &r->pages[r->page_count])) {
            struct request *victim = newest(b);
            preempt(b, victim);
            if (victim == r)
                return false;
        }
        r->page_count++;
    }
    return true;
}

/* Oldest first, so that whoever is preempted is not planned yet. */
static void plan_decodes(struct batcher *b)
{
    for (uint32_t i = 0; i < b->running.count;) {
        struct request *r = b->running.items[i];
        if (remaining(r) == 1 && !grow(b, r))
            continue; /* thrown out: who was behind it has its place, with pages of its own */
        if (remaining(r) == 1)
            plan(b, r, 1);
        i++;
    }
}

/* How much of r's prompt fits this step: 0, a multiple of a page, or all that is left. */
static uint32_t chunk(const struct batcher *b, const struct request *r)
{
    const uint32_t room = b->limits.tokens_max - b->planned_tokens, left = remaining(r);
    const uint32_t most = room < b->chunk_tokens ? room : b->chunk_tokens;

    return left <= most ? left : most / KV_PAGE_TOKENS * KV_PAGE_TOKENS;
}

static void plan_prompts(struct batcher *b)
{
    for (uint32_t i = 0; i < b->running.count; i++) {
        struct request *r = b->running.items[i];
        const uint32_t count = remaining(r) > 1 ? chunk(b, r) : 0;
        if (count > 0)
            plan(b, r, count);
    }
}

static uint32_t missing(const struct request *r)
{
    const uint32_t wanted = kv_pages(r->token_count);

    return wanted > r->page_count ? wanted - r->page_count : 0;
}

/* A request comes in when all of its tokens have pages and each sequence that runs has one left to
 * grow into: fewer, and it would soon be thrown out again. */
static bool find_pages(struct batcher *b, struct request *r)
{
    const uint32_t count = missing(r);

    if (count > 0 && !pages_take(b->pages, count, b->running.count, r->pages + r->page_count))
        return false;
    r->page_count += count;
    return true;
}

/* Nobody who needs pages overtakes another one who does, so that a large request is not starved by small
 * ones. Who has its pages already comes in: it would only keep them from the others. */
static void admit(struct batcher *b, bool may_take)
{
    for (uint32_t i = 0; i < b->waiting.count && b->running.count < b->running_max;) {
        struct request *r = b->waiting.items[i];
        const uint32_t count = chunk(b, r);

        if (count == 0)
            return;
        if ((missing(r) > 0 && !may_take) || !find_pages(b, r)) {
            may_take = false;
            i++;
            continue;
        }
        line_remove(&b->waiting, r);
        line_add(&b->running, r);
        plan(b, r, count);
    }
}

/* Tell those who reserve shared pages what must be left for who is first in line. */
static void ask_pages(struct batcher *b)
{
    uint32_t wanted = 0;

    if (!b->shared)
        return;
    for (uint32_t i = 0; i < b->waiting.count && wanted == 0; i++)
        wanted = missing(b->waiting.items[i]);
    pages_want(b->pages, wanted ? wanted + b->running.count : 0);
}

/* -------------------------------------------------------------------------------------- step */

static void deliver(struct batcher *b, mc_status status, const char *why)
{
    for (uint32_t i = 0; i < b->planned_count; i++) {
        struct request *r = b->planned[i];
        if (status != MC_OK)
            request_end(r, REQUEST_ERROR, why);
        else {
            const uint32_t position = r->computed;
            r->computed += b->sequences[i].token_count;
            if (b->hooks.computed)
                b->hooks.computed(b->hooks.user, r, position, r->computed - position);
            if (!b->sequences[i].sampling)
                continue;
            request_take(r, &b->samples[i]);
        }
        if (r->finish != REQUEST_RUNNING)
            leave(b, &b->running, r);
        else
            request_emit(r);
    }
}

mc_status batcher_step(batcher *b, struct mc_error *error)
{
    struct mc_error cause = { 0 };
    const uint64_t preempted = b->preemptions;

    sweep(b, &b->running, false);
    sweep(b, &b->waiting, false);
    b->planned_count = 0;
    b->planned_tokens = 0;
    plan_decodes(b);
    plan_prompts(b);
    admit(b, b->preemptions == preempted);
    ask_pages(b);
    if (b->planned_count == 0) {
        assert(b->running.count == 0 && (b->shared || b->waiting.count == 0));
        return b->waiting.count > 0 ? MC_PENDING : MC_OK;
    }

    const struct mc_step step = { .sequences = b->sequences,
                                  .count = b->planned_count,
                                  .layer_done = b->hooks.layer_done,
                                  .user = b->hooks.user };
    if (b->hooks.begin)
        b->hooks.begin(b->hooks.user, b->planned, b->sequences, b->planned_count);
    const mc_status status = mc_engine_step(b->engine, &step, &cause);
    b->steps++;
    deliver(b, status, cause.text[0] ? cause.text : mc_status_text(status));
    if (status != MC_OK)
        return error_set(error, status, "%s", cause.text[0] ? cause.text : mc_status_text(status));
    return MC_OK;
}

bool batcher_busy(const batcher *b)
{
    return b->running.count > 0 || b->waiting.count > 0;
}

void batcher_state(const batcher *b, struct batcher_state *state_p)
{
    *state_p = (struct batcher_state){
        .waiting = b->waiting.count,
        .running = b->running.count,
        .pages = b->page_count,
        .pages_free = pages_free(b->pages),
        .steps = b->steps,
        .preemptions = b->preemptions,
    };
    for (uint32_t i = 0; i < b->running.count; i++)
        state_p->context_tokens += b->running.items[i]->computed;
}

void batcher_close(batcher *b)
{
    if (!b)
        return;
    if (b->running.items)
        sweep(b, &b->running, true);
    if (b->waiting.items)
        sweep(b, &b->waiting, true);
    if (b->shared)
        pages_want(b->pages, 0);
    else
        pages_close(b->pages);
    const struct mc_alloc *alloc = b->alloc;
    alloc_free(alloc, b->samples);
    alloc_free(alloc, b->sequences);
    alloc_free(alloc, b->planned);
    alloc_free(alloc, b->running.items);
    alloc_free(alloc, b->waiting.items);
    alloc_free(alloc, b->pool);
    alloc_free(alloc, b);
}
