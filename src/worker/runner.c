/* runner.c - two rings, one lock, and a thread that steps as long as there is something to step. */
#include "worker/runner.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "kv/layout.h"
#include "os/clock.h"
#include "os/lock.h"
#include "os/thread.h"

enum { NEWS_DEFAULT = 4096 };

enum order_kind { ORDER_ADD, ORDER_CANCEL };

struct order {
    enum order_kind kind;
    uint64_t number;
    struct job *job; /* of ADD alone: another one may be gone by now */
};

struct runner {
    const struct mc_alloc *alloc;
    os_loop *loop;
    struct pages *pages;
    uint32_t jobs_max, news_max;
    struct os_watch watch; /* of the event that news are there */
    struct os_thread thread;
    bool threaded; /* started */

    /* The loop's thread. */
    uint64_t numbers;
    uint32_t inside; /* jobs that were added and not told OUT */

    struct os_lock lock;               /* a leaf; guards what follows up to `engine` */
    struct os_condition ordered, room; /* for the engine's thread: orders, room for news */
    struct os_condition spoke;         /* for the loop's while it closes: news, or the end */
    struct order *orders;              /* owned; [4 jobs_max], a ring */
    uint32_t order_first, order_count;
    struct runner_news *news; /* owned; [news_max], a ring */
    uint32_t news_first, news_count;
    bool closing, ended, woken;
    struct runner_state state;

    /* The engine's thread; the loop's before it starts and after it ended. */
    batcher *batcher;
    struct job **active; /* owned; [jobs_max] */
    uint32_t active_count;
    struct request *const *step_requests; /* of the step under way */
    const struct mc_sequence *step_sequences;
    uint32_t step_count, step_decodes;
    bool direct; /* the thread has ended: news are told at once */
};

/* ----------------------------------------------------------------------------------------- news */

static void tell_news(struct runner *r, const struct runner_news *news)
{
    if (news->kind == RUNNER_OUT)
        r->inside--;
    news->of->tell(news->of->owner, news);
}

/* From the engine's thread. Waits for room: the loop takes news whatever else it does, also while it
 * closes. */
static void send(struct runner *r, const struct runner_news *news)
{
    if (r->direct) {
        tell_news(r, news);
        return;
    }
    os_lock(&r->lock);
    while (r->news_count == r->news_max)
        os_condition_wait(&r->room, &r->lock);
    r->news[(r->news_first + r->news_count) % r->news_max] = *news;
    const bool first = r->news_count++ == 0;
    if (r->closing)
        os_condition_wake_all(&r->spoke);
    os_unlock(&r->lock);
    if (first)
        os_event_raise(r->watch.fd);
}

static bool take_news(struct runner *r, struct runner_news *news_p)
{
    os_lock(&r->lock);
    const bool there = r->news_count > 0;
    if (there) {
        *news_p = r->news[r->news_first];
        r->news_first = (r->news_first + 1) % r->news_max;
        if (r->news_count-- == r->news_max)
            os_condition_wake_all(&r->room);
    }
    os_unlock(&r->lock);
    return there;
}

static void hear_news(void *user, uint32_t events)
{
    struct runner *r = user;
    struct runner_news news;

    (void)events;
    os_event_lower(r->watch.fd);
    while (take_news(r, &news))
        tell_news(r, &news);
}

/* ---------------------------------------------------------------- what the batcher tells, in its thread */

static struct job *job_of(const struct request *request)
{
    return request->user;
}

static struct runner_news news_of(struct job *job, enum runner_news_kind kind)
{
    return (struct runner_news){ .kind = kind, .job = job->number, .of = job };
}

static void on_begin(void *user, struct request *const *requests,
                     const struct mc_sequence *sequences, uint32_t count)
{
    struct runner *r = user;

    r->step_requests = requests;
    r->step_sequences = sequences;
    r->step_count = count;
    r->step_decodes = 0;
    for (uint32_t i = 0; i < count; i++)
        r->step_decodes += sequences[i].position >= requests[i]->prompt_count;
}

static void on_layer(void *user, uint32_t layer)
{
    struct runner *r = user;

    for (uint32_t i = 0; i < r->step_count; i++) {
        struct job *job = job_of(r->step_requests[i]);
        const struct mc_sequence *s = &r->step_sequences[i];
        if (!job->layers || s->position >= job->request->prompt_count)
            continue;
        struct runner_news news = news_of(job, RUNNER_PROGRESS);
        news.ready = (struct push_ready){ s->position, s->position + s->token_count, layer + 1 };
        send(r, &news);
    }
}

/* Blocks that became full in positions [position, position + count). Those that were told before a
 * preemption are not told again. */
static void tell_blocks(struct runner *r, struct job *job, uint32_t end)
{
    const uint32_t full = end / KV_PAGE_TOKENS;

    if (full <= job->first_block)
        return;
    struct runner_news news = news_of(job, RUNNER_BLOCKS);
    news.first = job->first_block;
    news.count = full - job->first_block;
    void **pages = job->request->pages + news.first;
    pages_hold(r->pages, pages, news.count);
    memcpy(job->block_pages + news.first, pages, news.count * sizeof(*pages));
    job->first_block = full;
    send(r, &news);
}

static void on_computed(void *user, struct request *request, uint32_t position, uint32_t count)
{
    struct runner *r = user;
    struct job *job = job_of(request);
    const uint32_t end = position + count;

    if (position < request->prompt_count) {
        struct runner_news news = news_of(job, RUNNER_PROGRESS);
        news.ready = (struct push_ready){ end, end, 0 };
        send(r, &news);
    }
    tell_blocks(r, job, end);
}

static void forget(struct runner *r, const struct job *job)
{
    struct job *last = r->active[--r->active_count];

    last->place = job->place;
    r->active[job->place] = last;
}

void runner_output(void *user, struct request *request, const struct request_event *event)
{
    struct job *job = user;
    struct runner *r = job->runner;

    (void)request;
    if (event->sample) {
        struct runner_news news = news_of(job, RUNNER_TOKEN);
        news.sample = *event->sample;
        news.finish = event->finish;
        send(r, &news);
    }
    if (event->finish == REQUEST_RUNNING)
        return;
    struct runner_news news = news_of(job, RUNNER_OUT);
    news.finish = event->finish;
    forget(r, job);
    send(r, &news);
}

/* ------------------------------------------------------------------------------ the engine's thread */

/* A job that cannot be taken ends like any other. */
static void refuse(struct runner *r, struct job *job, const char *why)
{
    struct request *request = job->request;

    pages_drop(r->pages, request->pages, request->page_count);
    request->page_count = 0;
    request->computed = 0;
    request_end(request, REQUEST_ERROR, why);
    request_emit(request);
}

static void obey(struct runner *r, const struct order *order)
{
    struct mc_error error = { 0 };

    if (order->kind == ORDER_ADD) {
        struct job *job = order->job;
        job->place = r->active_count;
        r->active[r->active_count++] = job;
        if (batcher_add(r->batcher, job->request, &error) != MC_OK)
            refuse(r, job, error.text);
        return;
    }
    for (uint32_t i = 0; i < r->active_count; i++)
        if (r->active[i]->number == order->number)
            batcher_cancel(r->batcher, r->active[i]->request);
}

/* Take one order; wait for it if nothing can be stepped. False: go on without. */
static bool take_order(struct runner *r, bool wait, struct order *order_p)
{
    os_lock(&r->lock);
    while (wait && r->order_count == 0 && !r->closing && !r->woken)
        os_condition_wait(&r->ordered, &r->lock);
    r->woken = false;
    const bool there = r->order_count > 0;
    if (there) {
        *order_p = r->orders[r->order_first];
        r->order_first = (r->order_first + 1) % (4 * r->jobs_max);
        r->order_count--;
    }
    os_unlock(&r->lock);
    return there;
}

static bool is_closing(struct runner *r)
{
    os_lock(&r->lock);
    const bool closing = r->closing;
    os_unlock(&r->lock);
    return closing;
}

/* One step, timed. False: all that are here wait for pages. */
static bool step(struct runner *r)
{
    struct batcher_state state;
    const uint64_t begin_ns = os_now_ns();

    r->step_decodes = 0;
    /* An engine's error is told to the requests of the step, each by its own end. */
    const mc_status status = batcher_step(r->batcher, NULL);
    const uint64_t step_ns = os_now_ns() - begin_ns;
    batcher_state(r->batcher, &state);
    os_lock(&r->lock);
    r->state.batcher = state;
    if (r->step_decodes > 0)
        r->state.step_ns = step_ns;
    r->state.decoding = r->step_decodes;
    os_unlock(&r->lock);
    return status != MC_PENDING;
}

static void run(void *argument)
{
    struct runner *r = argument;
    bool starved = false;

    while (!is_closing(r)) {
        struct order order;
        while (take_order(r, starved || !batcher_busy(r->batcher), &order)) {
            obey(r, &order);
            starved = false;
        }
        if (!is_closing(r) && batcher_busy(r->batcher))
            starved = !step(r);
    }
    os_lock(&r->lock);
    r->ended = true;
    os_condition_wake_all(&r->spoke);
    os_unlock(&r->lock);
}

/* --------------------------------------------------------------------------------- the loop's thread */

void runner_state(struct runner *r, struct runner_state *state_p)
{
    os_lock(&r->lock);
    *state_p = r->state;
    os_unlock(&r->lock);
}

static void give_order(struct runner *r, struct order order)
{
    os_lock(&r->lock);
    /* While one step runs: a CANCEL of each job inside, and ADD and CANCEL of each that
     * takes the place of one told OUT. */
    assert(r->order_count < 4 * r->jobs_max && !r->closing);
    r->orders[(r->order_first + r->order_count++) % (4 * r->jobs_max)] = order;
    os_condition_wake_all(&r->ordered);
    os_unlock(&r->lock);
}

void runner_add(struct runner *r, struct job *job)
{
    assert(job->request->user == job && r->inside < r->jobs_max);
    assert(job->first_block == UINT32_MAX || job->block_pages);
    job->runner = r;
    job->number = ++r->numbers;
    r->inside++;
    give_order(r, (struct order){ .kind = ORDER_ADD, .number = job->number, .job = job });
}

void runner_cancel(struct runner *r, const struct job *job)
{
    give_order(r, (struct order){ .kind = ORDER_CANCEL, .number = job->number });
}

void runner_wake(struct runner *r)
{
    os_lock(&r->lock);
    r->woken = true;
    os_condition_wake_all(&r->ordered);
    os_unlock(&r->lock);
}

static mc_status take_memory(struct runner *r, const struct runner_options *o,
                             struct mc_error *error)
{
    const struct batcher_options options = {
        .shared = o->pages,
        .waiting_max = o->jobs_max,
        .running_max = o->running_max,
        .chunk_tokens = o->chunk_tokens,
        .hooks = { on_begin, on_layer, on_computed, r },
        .alloc = o->alloc,
    };

    r->orders = alloc_zeroed(o->alloc, 4 * (size_t)r->jobs_max, sizeof(*r->orders));
    r->news = alloc_zeroed(o->alloc, r->news_max, sizeof(*r->news));
    r->active = alloc_zeroed(o->alloc, r->jobs_max, sizeof(struct job *));
    if (!r->orders || !r->news || !r->active)
        return error_set(error, MC_E_NOMEM, "out of memory for %u requests in the engine",
                         r->jobs_max);
    return batcher_open(o->engine, &options, &r->batcher, error);
}

static mc_status begin(struct runner *r, struct mc_error *error)
{
    mc_status status = os_event_open(&r->watch.fd);

    if (status != MC_OK) {
        r->watch.fd = -1;
        return error_set(error, status, "no descriptor for the engine's news");
    }
    status = os_loop_watch(r->loop, &r->watch, OS_READABLE);
    if (status != MC_OK)
        return error_set(error, status, "the engine's news cannot be watched");
    status = os_thread_start(&r->thread, run, r, error);
    r->threaded = status == MC_OK;
    return status;
}

mc_status runner_open(const struct runner_options *o, runner **runner_p, struct mc_error *error)
{
    struct runner *r = alloc_zeroed(o->alloc, 1, sizeof(*r));

    if (!r)
        return error_set(error, MC_E_NOMEM, "out of memory for the engine's thread");
    *r = (struct runner){ .alloc = o->alloc,
                          .loop = o->loop,
                          .pages = o->pages,
                          .jobs_max = o->jobs_max,
                          .news_max = o->news_max ? o->news_max : NEWS_DEFAULT,
                          .watch = { .fd = -1, .ready = hear_news, .user = r } };
    os_lock_init(&r->lock);
    os_condition_init(&r->ordered);
    os_condition_init(&r->room);
    os_condition_init(&r->spoke);
    mc_status status = take_memory(r, o, error);
    if (status == MC_OK)
        status = begin(r, error);
    if (status != MC_OK) {
        runner_close(r);
        return status;
    }
    *runner_p = r;
    return MC_OK;
}

/* Take news until the thread has ended: it may wait for room. */
static void end_thread(struct runner *r)
{
    struct runner_news news;
    bool ended = !r->threaded;

    os_lock(&r->lock);
    r->closing = true;
    os_condition_wake_all(&r->ordered);
    os_unlock(&r->lock);
    while (!ended) {
        while (take_news(r, &news))
            tell_news(r, &news);
        os_lock(&r->lock);
        while (r->news_count == 0 && !r->ended)
            os_condition_wait(&r->spoke, &r->lock);
        ended = r->ended && r->news_count == 0;
        os_unlock(&r->lock);
    }
    if (r->threaded)
        os_thread_join(&r->thread);
}

void runner_close(struct runner *r)
{
    struct order order;

    if (!r)
        return;
    end_thread(r);
    r->direct = true;
    while (r->batcher && take_order(r, false, &order))
        obey(r, &order); /* whoever came last is told too */
    batcher_close(r->batcher);
    assert(r->inside == 0);
    os_loop_unwatch(r->loop, &r->watch);
    if (r->watch.fd >= 0)
        os_event_close(r->watch.fd);
    os_condition_fini(&r->spoke);
    os_condition_fini(&r->room);
    os_condition_fini(&r->ordered);
    os_lock_fini(&r->lock);
    alloc_free(r->alloc, r->active);
    alloc_free(r->alloc, r->news);
    alloc_free(r->alloc, r->orders);
    alloc_free(r->alloc, r);
}
