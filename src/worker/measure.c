/* measure.c - a plan of prompts and batches, run one after another, timed from the loop's thread. */
#include "worker/measure.h"

#include <inttypes.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"

enum {
    ROWS_MAX = 128,
    ROUNDS = 8,       /* of the prompts, at most */
    PROMPTS = 24,     /* enough of them */
    LONG_SHARE = 12,  /* a prompt that takes one part in so many of the time is the longest */
    STEP_TOKENS = 6,  /* of each sequence of a batch */
    STEP_FROM = 2,    /* of these, timed from here: all are in the batch by then */
    SHORTEST = 16,    /* prompt; each is twice as long as the one before */
    LONGEST = 2048,   /* where there is time, memory and context for it */
    MEMORY_SHARE = 2, /* takes at most one part in so many of the pages */
};
#define BUDGET_NS UINT64_C(1500000000)
#define BUDGET_MOST_NS UINT64_C(60000000000)

/** One thing to time. */
struct item {
    uint32_t sequences; /* 0: a prompt */
    uint32_t tokens;    /* of the prompt, or of the context of each */
    uint32_t reused;
};

/** A sequence in the engine. */
struct probe {
    struct measure *measure;
    struct job job;
    bool inside;
    uint32_t made;
};

struct measure {
    struct worker *worker;
    struct gateway_link *gateway; /* NULL: gone */
    uint64_t ask, begun_ns, budget_ns;
    uint32_t round, next; /* in the plan */
    uint32_t longest;     /* prompt */
    struct item item;
    uint64_t mark_ns; /* when what is being timed began */
    struct probe probes[MEASURE_JOBS_MAX];
    uint32_t inside;
    bool stopping;
    struct wire_measure_row rows[ROWS_MAX];
    uint32_t row_count;
};

/* ------------------------------------------------------------------------------------------ the plan */

static const struct item batches[] = {
    { 1, 32, 0 },  { 2, 32, 0 },  { 4, 32, 0 },  { 8, 32, 0 },  { 16, 32, 0 },
    { 1, 256, 0 }, { 2, 256, 0 }, { 4, 256, 0 }, { 8, 256, 0 }, { 16, 256, 0 },
};
enum { BATCHES = sizeof(batches) / sizeof(batches[0]) };

/* Whether this worker could do it without leaving too little for others. */
static bool fits(const struct worker *w, const struct item *item)
{
    const uint32_t each = kv_pages(item->tokens + STEP_TOKENS + 1);
    const uint32_t count = item->sequences ? item->sequences : 1;

    return item->tokens + STEP_TOKENS + 1 < w->context_max && count <= w->limits.sequences_max &&
           (uint64_t)each * count <= pages_count(w->pages) / MEMORY_SHARE;
}

/* Prompt number `i`: each length cold, then with its first half reused. */
static struct item prompt(uint32_t i)
{
    const uint32_t tokens = (uint32_t)SHORTEST << (i / 2);

    return (struct item){ 0, tokens, i % 2 ? tokens / 2 / KV_PAGE_TOKENS * KV_PAGE_TOKENS : 0 };
}

/* The next that fits; false: that was all. */
static bool next_item(struct measure *m)
{
    struct worker *w = m->worker;

    for (; m->round < ROUNDS && m->row_count < PROMPTS && (w->role & MC_ROLE_PREFILL);
         m->round++, m->next = 0)
        while (prompt(m->next).tokens <= m->longest) {
            m->item = prompt(m->next++);
            if (fits(w, &m->item))
                return true;
        }
    if (m->round < ROUNDS) {
        m->round = ROUNDS;
        m->next = 0;
    }
    while ((w->role & MC_ROLE_DECODE) && m->next < BATCHES) {
        m->item = batches[m->next++];
        if (fits(w, &m->item))
            return true;
    }
    return false;
}

/* ------------------------------------------------------------------------------------------- the end */

static void answer(struct measure *m)
{
    const struct gateway_link *gateway = m->gateway;
    const struct wire_measured message = { .rows = { .items = m->rows, .count = m->row_count },
                                           .stopped = m->stopping };

    worker_log(m->worker, MC_LOG_INFO, "event=measured rows=%u stopped=%d took_ms=%" PRIu64,
               m->row_count, m->stopping, (os_now_ns() - m->begun_ns) / 1000000);
    if (gateway && net_answer(gateway->conn, m->ask, WIRE_MEASURED, &message) != MC_OK)
        worker_log(m->worker, MC_LOG_WARN, "event=measured_not_sent");
}

static void end(struct measure *m)
{
    struct worker *w = m->worker;

    answer(m);
    w->measure = NULL;
    alloc_free(w->alloc, m);
    worker_look_soon(w); /* its pages are free */
}

/* ----------------------------------------------------------------------------------------- in the engine */

static void add_row(struct measure *m, uint64_t tokens, uint64_t duration_ns)
{
    if (m->row_count < ROWS_MAX && duration_ns > 0)
        m->rows[m->row_count++] = (struct wire_measure_row){ .tokens = tokens,
                                                             .reused = m->item.reused,
                                                             .sequences = m->item.sequences,
                                                             .duration_ns = duration_ns };
}

static void go_on(struct measure *m);

static void on_token(struct probe *p)
{
    struct measure *m = p->measure;
    const uint64_t now_ns = os_now_ns();

    p->made++;
    if (m->stopping)
        return;
    if (m->item.sequences == 0 && now_ns - m->mark_ns > m->budget_ns / LONG_SHARE)
        m->longest = m->item.tokens;
    if (m->item.sequences == 0)
        add_row(m, m->item.tokens - m->item.reused, now_ns - m->mark_ns);
    else if (p == &m->probes[m->item.sequences - 1]) { /* the last to join sees whole steps */
        if (p->made > STEP_FROM && p->made < STEP_TOKENS)
            add_row(m, (uint64_t)m->item.sequences * m->item.tokens, now_ns - m->mark_ns);
        m->mark_ns = now_ns;
    }
}

static void on_news(void *owner, const struct runner_news *news)
{
    struct probe *p = owner;
    struct measure *m = p->measure;

    if (news->kind == RUNNER_TOKEN)
        on_token(p);
    if (news->kind != RUNNER_OUT)
        return;
    if (news->finish == REQUEST_ERROR) {
        worker_log(m->worker, MC_LOG_WARN, "event=measure_failed text=\"%s\"", p->job.request->why);
        m->stopping = true;
    }
    request_close(p->job.request);
    p->inside = false;
    if (--m->inside == 0)
        go_on(m);
}

static mc_status open_request(struct probe *p, uint32_t seed, struct mc_error *error)
{
    struct measure *m = p->measure;
    struct worker *w = m->worker;
    const uint32_t count = m->item.tokens;
    const struct sampling sampling = { .tokens_max = m->item.sequences ? STEP_TOKENS : 1,
                                       .ignore_eos = true };
    uint32_t *tokens = alloc_zeroed(w->alloc, count, sizeof(*tokens));

    if (!tokens)
        return error_set(error, MC_E_NOMEM, "out of memory for %u tokens", count);
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = (i * 31 + seed * 17 + 7) % w->info.vocab_size;
    p->job = (struct job){ .tell = on_news, .owner = p, .first_block = UINT32_MAX };
    const mc_status status =
        sampling_request(w, &sampling, tokens, count, m->item.sequences == 0, &p->job, error);
    alloc_free(w->alloc, tokens);
    return status;
}

/* With pages for its prompt; what they hold is of no matter. False: no room now. */
static bool add_probe(struct measure *m, uint32_t index)
{
    struct worker *w = m->worker;
    struct probe *p = &m->probes[index];
    struct mc_error error = { 0 };
    const uint32_t pages = kv_pages(m->item.tokens);

    *p = (struct probe){ .measure = m };
    if (open_request(p, index, &error) != MC_OK) {
        worker_log(w, MC_LOG_WARN, "event=measure_failed text=\"%s\"", error.text);
        return false;
    }
    struct request *r = p->job.request;
    if (!pages_reserve(w->pages, pages, pages_count(w->pages) / MEMORY_SHARE, r->pages)) {
        request_close(r);
        return false;
    }
    r->page_count = pages;
    r->computed = m->item.sequences ? m->item.tokens - 1 : m->item.reused;
    p->inside = true;
    m->inside++;
    runner_add(w->runner, &p->job);
    return true;
}

/* The engine is empty: on with the plan, or the end. */
static void go_on(struct measure *m)
{
    const uint64_t now_ns = os_now_ns();

    while (!m->stopping && !m->worker->closing && now_ns - m->begun_ns < m->budget_ns &&
           m->inside == 0 && next_item(m)) {
        const uint32_t count = m->item.sequences ? m->item.sequences : 1;

        m->mark_ns = os_now_ns();
        for (uint32_t i = 0; i < count && add_probe(m, i); i++)
            m->probes[i].made = 0;
        if (m->inside != 0 && m->inside != count) { /* not what was to be timed */
            m->stopping = true;
            for (uint32_t i = 0; i < MEASURE_JOBS_MAX; i++)
                if (m->probes[i].inside)
                    runner_cancel(m->worker->runner, &m->probes[i].job);
        }
    }
    if (m->inside == 0)
        end(m);
}

/* ---------------------------------------------------------------------------------------- three doors */

void measure_yield(struct worker *w)
{
    struct measure *m = w->measure;

    if (!m || m->stopping)
        return;
    m->stopping = true; /* its probes' ends end it */
    for (uint32_t i = 0; i < MEASURE_JOBS_MAX; i++)
        if (m->probes[i].inside)
            runner_cancel(w->runner, &m->probes[i].job);
}

void measure_forget(struct worker *w, const struct gateway_link *gateway)
{
    if (!w->measure || w->measure->gateway != gateway)
        return;
    w->measure->gateway = NULL;
    measure_yield(w);
}

void measure_ask(struct gateway_link *gateway, uint64_t id, const struct wire_measure *message)
{
    struct worker *w = gateway->worker;

    if (message->stop) {
        measure_yield(w);
        worker_answer(gateway->conn, id, MC_OK, NULL);
        return;
    }
    if (w->measure || w->draining || w->closing || !worker_is_empty(w)) {
        worker_answer(gateway->conn, id, MC_E_BUSY, "there is work");
        return;
    }
    struct measure *m = alloc_zeroed(w->alloc, 1, sizeof(*m));
    if (!m) {
        worker_answer(gateway->conn, id, MC_E_NOMEM, "out of memory for measuring");
        return;
    }
    m->worker = w;
    m->gateway = gateway;
    m->ask = id;
    m->begun_ns = os_now_ns();
    m->budget_ns = message->budget_ns == 0               ? BUDGET_NS
                   : message->budget_ns > BUDGET_MOST_NS ? BUDGET_MOST_NS
                                                         : message->budget_ns;
    m->longest = LONGEST;
    w->measure = m;
    go_on(m);
}
