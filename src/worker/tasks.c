/* tasks.c - the prefill side of requests: carries out what core/prefill.h decides. */
#include <assert.h>
#include <string.h>

#include "base/crc.h"
#include "worker/state.h"

#define LOOK_AGAIN_NS UINT64_C(10000000)
enum { AHEAD_CHUNKS = 4, COPY_PUTS_MAX = WORKER_INBOX_MAX / 2 };

void task_due(void *user, uint64_t now_ns)
{
    (void)now_ns;
    task_happen(user, (struct prefill_event){ .kind = PREFILL_TIME });
}

struct task *task_find(const struct worker *w, const struct gateway_link *gateway, uint64_t request)
{
    for (uint32_t i = 0; i < w->task_count; i++)
        if (w->tasks[i]->answer.gateway == gateway && w->tasks[i]->answer.request == request)
            return w->tasks[i];
    return NULL;
}

static void remove_task(struct task *task)
{
    struct worker *w = task->worker;
    struct task *last = w->tasks[--w->task_count];

    last->index = task->index;
    w->tasks[task->index] = last;
    if (task->cancel_ask && task->answer.gateway)
        worker_answer(task->answer.gateway->conn, task->cancel_ask, MC_OK, NULL);
    task_free(task);
    worker_look_soon(w);
}

void task_cancel(struct task *task, uint64_t ask)
{
    if (ask)
        task->cancel_ask = ask;
    task_happen(task, (struct prefill_event){ .kind = PREFILL_CANCEL });
}

/* ------------------------------------------------------------------------------------------- pool */

static void on_put_final(void *owner)
{
    task_happen(owner, (struct prefill_event){ .kind = PREFILL_PUT_FINAL });
}

static void put_blocks(struct task *task, uint32_t first, uint32_t count)
{
    struct worker *w = task->worker;

    if (task->machine.phase == PREFILL_ENDING) {
        pages_drop(w->pages, task->block_pages + first, count);
        return;
    }
    blocks_name(&task->blocks, task->job.request->tokens, first + count);
    while (count > 0) {
        const uint32_t some = count < PUT_BLOCKS_MAX ? count : PUT_BLOCKS_MAX;
        if (pool_put(&w->pool, task->blocks.identities + first, task->block_pages + first, some,
                     on_put_final, task))
            task_happen(task, (struct prefill_event){ .kind = PREFILL_PUT });
        first += some;
        count -= some;
    }
    pool_go_on(&w->pool);
}

/* The gateway has found them hot: they are here, and so is their name. As many as the inbox takes the puts of. */
static void copy_blocks(struct task *task, uint32_t pulled)
{
    struct worker *w = task->worker;
    uint32_t count = pulled < task->copy_blocks ? pulled : task->copy_blocks;

    if (count > COPY_PUTS_MAX * PUT_BLOCKS_MAX)
        count = COPY_PUTS_MAX * PUT_BLOCKS_MAX;
    if (task->machine.phase == PREFILL_ENDING)
        return;
    for (uint32_t first = 0; first < count; first += PUT_BLOCKS_MAX) {
        const uint32_t left = count - first, some = left < PUT_BLOCKS_MAX ? left : PUT_BLOCKS_MAX;

        pages_hold(w->pages, task->pages + first, some);
        if (pool_copy(&w->pool, task->blocks.identities + first, task->pages + first, some,
                      task->copy_node, on_put_final, task))
            task_happen(task, (struct prefill_event){ .kind = PREFILL_PUT });
    }
    pool_go_on(&w->pool);
}

static void on_pulled(void *owner, uint32_t blocks)
{
    copy_blocks(owner, blocks);
    delay_pulled(owner, blocks);
}

static void pull(struct task *task, uint32_t tokens)
{
    struct worker *w = task->worker;
    const uint32_t count = tokens / KV_PAGE_TOKENS;

    blocks_name(&task->blocks, task->tokens, count);
    delay_pull_begin(task);
    pull_begin(&w->pool, task->blocks.identities, task->pages, count,
               task->pull_known / KV_PAGE_TOKENS, os_loop_now(w->loop) + task->pull_ns, on_pulled,
               task);
}

/* What the gateway knew of the pool is old when a request has waited: those before it, and the turn of the
 * conversation that it goes on from, may have been computed meanwhile. So the pool is asked for all of it;
 * the time that computing would take grows alike. Not beyond what is allowed where nobody knows: pull_ns has a
 * least value, of which a pool that hangs must not make minutes. */
static void look_again(struct task *task)
{
    const struct prefill *p = &task->machine;
    const uint64_t waited_ns = os_loop_now(task->worker->loop) - p->times.queued_ns;

    if (waited_ns < LOOK_AGAIN_NS || task->pull_most <= task->pull_known)
        return;
    if (task->pull_known > 0 && task->pull_ns < TASK_PULL_NS) {
        const uint64_t grown_ns = task->pull_ns * task->pull_most / task->pull_known;
        task->pull_ns = grown_ns < TASK_PULL_NS ? grown_ns : TASK_PULL_NS;
    }
    prefill_pull_set(&task->machine, task->pull_most);
}

/* ----------------------------------------------------------------------------------------- engine */

/* To be decoded elsewhere: both hold the prompt's pages, the engine and the pushes. Decoded here: the engine
 * alone, so that what it throws out is free. */
static void compute(struct task *task, uint32_t tokens)
{
    struct worker *w = task->worker;
    struct request *r = task->job.request;

    memcpy(r->pages, task->pages, task->page_count * sizeof(*r->pages));
    r->page_count = task->page_count;
    r->computed = tokens;
    if (task->machine.options.remote) {
        pages_hold(w->pages, task->pages, task->page_count);
        r->pinned = true;
        task->job.layers = true;
    } else
        task->page_count = 0;
    task->job.first_block =
        w->store && !(task->cache & CACHE_UNWRITTEN) ? tokens / KV_PAGE_TOKENS : UINT32_MAX;
    task->job.block_pages = task->block_pages;
    worker_count(w, METRIC_prompt_tokens, task->token_count - tokens);
    runner_add(w->runner, &task->job);
}

/* As pages are done, not at the end: then only the last chunk's are left to sum. */
static void sum_pages(struct task *task, uint32_t tokens)
{
    const uint32_t pages = kv_pages(tokens);

    for (; task->checked < pages; task->checked++)
        task->checksums[task->checked] =
            crc32c(0, task->pages[task->checked], task->worker->page_bytes);
}

static void on_token(struct task *task, const struct runner_news *news)
{
    struct runner_state engine;

    if (task->machine.phase == PREFILL_COMPUTING) {
        task->first = news->sample;
        task_happen(task, (struct prefill_event){ .kind = PREFILL_SAMPLED });
    }
    if (task->machine.options.remote || task->machine.phase != PREFILL_DECODING)
        return;
    runner_state(task->worker->runner, &engine);
    if (!answer_token(&task->answer, &news->sample, news->finish, engine.step_ns))
        task_cancel(task, 0);
}

static void on_out(struct task *task, const struct runner_news *news)
{
    const struct request *r = task->job.request;
    mc_status status = MC_OK;

    if (news->finish == REQUEST_ERROR) {
        status = MC_E_IO;
        worker_log(task->worker, MC_LOG_ERROR, "event=engine_failed request=%llu text=\"%s\"",
                   (unsigned long long)task->answer.request, r->why);
        if (task->machine.phase == PREFILL_DECODING)
            answer_failed(&task->answer, status, r->why);
    } else if (news->finish == REQUEST_CANCELLED)
        status = MC_E_CANCELLED;
    task_happen(task, (struct prefill_event){ .kind = PREFILL_OUT, .status = status });
}

void task_news(void *owner, const struct runner_news *news)
{
    struct task *task = owner;

    switch (news->kind) {
    case RUNNER_PROGRESS:
        task_happen(task, (struct prefill_event){ .kind = PREFILL_PROGRESS, .ready = news->ready });
        if (news->ready.chunk_layers == 0) /* a chunk is through: there is room for another task */
            worker_look_soon(task->worker);
        if (task->machine.options.remote && task->machine.phase == PREFILL_COMPUTING)
            sum_pages(task, news->ready.done); /* while they are pushed */
        break;
    case RUNNER_BLOCKS:
        put_blocks(task, news->first, news->count);
        break;
    case RUNNER_TOKEN:
        on_token(task, news);
        break;
    case RUNNER_OUT:
        on_out(task, news);
        break;
    }
}

/* ---------------------------------------------------------------------------- the decode worker */

static void on_pushed(void *owner, mc_status status, uint64_t bytes)
{
    struct task *task = owner;

    if (status == MC_OK) {
        task->pushed_bytes += bytes;
        worker_count(task->worker, METRIC_pushed, bytes);
    }
    task_happen(task, (struct prefill_event){ .kind = PREFILL_PUSHED, .status = status });
}

static void push(struct task *task, const struct push_span *span)
{
    const struct push_piece piece = push_piece_of(&task->machine.options.layout, span);
    const struct mc_xfer xfer = {
        .op = MC_WRITE,
        .segment = task->segment,
        .window = &task->window,
        .offset = piece.remote_offset,
        .length = piece.length,
        .count = piece.page_count,
        .remote_stride = piece.remote_stride,
        .local_table = task->pages + piece.first_page,
        .local_offset = piece.local_offset,
    };

    push_begin(&task->worker->pushes, &xfer, on_pushed, task);
}

static void on_hand_off_answer(void *user, mc_status status, const struct wire_frame *frame)
{
    struct task *task = user;
    struct mc_error error = { 0 };
    struct wire_outcome outcome;

    task->hand_off_ask = 0;
    if (status == MC_OK)
        status = net_take(frame, WIRE_OUTCOME, &outcome, &error);
    else
        status = MC_E_PEER; /* no answer: it may have been heard */
    if (status != MC_OK)
        worker_log(task->worker, MC_LOG_WARN,
                   "event=hand_off_failed request=%llu status=%s text=\"%s\"",
                   (unsigned long long)task->answer.request, mc_status_name(status), error.text);
    task_happen(task, (struct prefill_event){ .kind = PREFILL_ANSWERED, .status = status });
}

static void hand_off(struct task *task)
{
    struct worker *w = task->worker;
    struct wire_token_logprob top[MC_TOP_LOGPROBS_MAX];

    sum_pages(task, task->token_count);
    const struct wire_hand_off message = {
        .request = task->answer.request,
        .reservation = task->reservation,
        .position = task->token_count,
        .first = answer_sample(&task->first, top),
        .tokens = { task->tokens, task->token_count },
        .fingerprint = w->fingerprint,
        .checksums = { task->checksums, task->page_count },
        .salt = task->salt,
        .tenant = task->tenant,
        .cache = task->cache,
    };
    const uint64_t deadline = task->machine.give_up_ns;

    if (net_ask(task->peer->conn, WIRE_HAND_OFF, &message, deadline, on_hand_off_answer, task,
                &task->hand_off_ask) != MC_OK) {
        task->hand_off_ask = 0;
        task_happen(task, (struct prefill_event){ .kind = PREFILL_ANSWERED, .status = MC_E_PEER });
    }
}

static void on_renewed(void *user, mc_status status, const struct wire_frame *frame)
{
    struct task *task = user;
    struct mc_error error = { 0 };
    struct wire_outcome outcome;

    task->renew_ask = 0;
    if (status != MC_OK)
        return; /* tried again in time; the window's lease decides */
    status = net_take(frame, WIRE_OUTCOME, &outcome, &error);
    if (status == MC_E_STALE)
        task_happen(task, (struct prefill_event){ .kind = PREFILL_PEER_GONE, .status = status });
}

static void renew(struct task *task, uint32_t tokens, bool queued)
{
    const struct wire_reservation_renew message = { .reservation = task->reservation,
                                                    .tokens = tokens,
                                                    .queued = queued };
    const uint64_t deadline = os_loop_now(task->worker->loop) + task->window.lease_ns;

    if (task->renew_ask)
        return; /* one at a time */
    if (net_ask(task->peer->conn, WIRE_RESERVATION_RENEW, &message, deadline, on_renewed, task,
                &task->renew_ask) != MC_OK)
        task->renew_ask = 0;
}

/* ------------------------------------------------------------------------------------ the gateway */

/* Values of prefill_progress.phase. */
static uint32_t phase_number(enum prefill_phase phase)
{
    return phase == PREFILL_QUEUED      ? 1
           : phase == PREFILL_PULLING   ? 2
           : phase == PREFILL_COMPUTING ? 3
                                        : 4;
}

static void tell(struct task *task)
{
    const struct wire_prefill_progress message = {
        .request = task->answer.request,
        .tokens = task->machine.ready.done,
        .pulled_bytes = worker_stands_for(task->worker, task->pulled_bytes),
        .pushed_bytes = worker_stands_for(task->worker, task->pushed_bytes),
        .phase = phase_number(task->machine.phase),
    };

    if (task->answer.gateway) /* a report that does not go out is followed by others */
        (void)net_send(task->answer.gateway->conn, WIRE_PREFILL_PROGRESS, &message);
}

static uint64_t between(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns && to_ns > from_ns ? to_ns - from_ns : 0;
}

static void tell_end(struct task *task, mc_status status)
{
    const struct prefill_times *t = &task->machine.times;
    const struct wire_prefill_end message = {
        .request = task->answer.request,
        .status = status,
        .text = wire_text(status == MC_OK ? "" : mc_status_text(status)),
        .reused_tokens = task->machine.reused,
        .pulled_bytes = worker_stands_for(task->worker, task->pulled_bytes),
        .pushed_bytes = worker_stands_for(task->worker, task->pushed_bytes),
        .queue_ns = between(t->queued_ns, t->started_ns),
        .pull_ns = between(t->started_ns, t->pulled_ns),
        .compute_ns = between(t->pulled_ns, t->computed_ns),
        .hand_off_ns = between(t->computed_ns, t->ended_ns),
    };

    if (status != MC_OK)
        worker_count(task->worker, METRIC_failed, 1);
    else if (task->machine.options.remote)
        worker_count(task->worker, METRIC_handed_off, 1);
    if (task->answer.gateway &&
        net_send(task->answer.gateway->conn, WIRE_PREFILL_END, &message) != MC_OK)
        worker_log(task->worker, MC_LOG_WARN, "event=end_not_told request=%llu status=%s",
                   (unsigned long long)task->answer.request, mc_status_name(status));
}

/* ------------------------------------------------------------------------------------------ steps */

static void drop_pages(struct task *task)
{
    pages_drop(task->worker->pages, task->pages, task->page_count);
    task->page_count = 0;
    worker_look_soon(task->worker);
}

static void forget_hand_off(struct task *task)
{
    net_ask_forget(task->peer->conn, task->hand_off_ask);
    task->hand_off_ask = 0;
}

static void carry_out(struct task *task, const struct prefill_out *out)
{
    struct worker *w = task->worker;

    switch (out->kind) {
    case PREFILL_OUT_PULL:
        pull(task, out->tokens);
        break;
    case PREFILL_OUT_COMPUTE:
        compute(task, out->tokens);
        break;
    case PREFILL_OUT_PUSH:
        push(task, &out->span);
        break;
    case PREFILL_OUT_HAND_OFF:
        hand_off(task);
        break;
    case PREFILL_OUT_RENEW:
        renew(task, out->tokens, out->queued);
        break;
    case PREFILL_OUT_TELL:
        tell(task);
        break;
    case PREFILL_OUT_STOP_PULL:
        pull_stop(&w->pool, task);
        delay_pull_stop(task);
        break;
    case PREFILL_OUT_STOP_ENGINE:
        runner_cancel(w->runner, &task->job);
        break;
    case PREFILL_OUT_STOP_PUSHES:
        pushes_stop(&w->pushes, task);
        break;
    case PREFILL_OUT_STOP_PUTS:
        pool_stop_puts(&w->pool, task);
        break;
    case PREFILL_OUT_STOP_ASK:
        forget_hand_off(task);
        break;
    case PREFILL_OUT_END:
        tell_end(task, out->status);
        break;
    case PREFILL_OUT_DROP:
        drop_pages(task);
        break;
    case PREFILL_OUT_FREE:
        break; /* when the outbox is empty */
    }
}

static void set_timer(struct task *task)
{
    os_loop *loop = task->worker->loop;
    const uint64_t due = prefill_due_ns(&task->machine);

    if (due == UINT64_MAX)
        os_loop_timer_stop(loop, &task->timer);
    else if (due != task->timer.at_ns || !task->timer.place)
        if (os_loop_timer(loop, &task->timer, due) != MC_OK)
            worker_log(task->worker, MC_LOG_ERROR, "event=no_timer text=\"out of memory\"");
}

/* Stopping a long request's puts ends any number of them at once: one event for all. */
static bool joins_last(struct task *task, const struct prefill_event *event)
{
    struct prefill_event *last =
        &task->inbox[(task->inbox_first + task->inbox_count + WORKER_INBOX_MAX - 1) %
                     WORKER_INBOX_MAX];

    if (task->inbox_count == 0 || event->kind != PREFILL_PUT_FINAL || last->kind != event->kind)
        return false;
    last->more += event->more + 1;
    return true;
}

/* Events that an outbox makes wait until it is carried out. */
void task_happen(struct task *task, struct prefill_event event)
{
    if (joins_last(task, &event))
        return;
    assert(task->inbox_count < WORKER_INBOX_MAX);
    task->inbox[(task->inbox_first + task->inbox_count++) % WORKER_INBOX_MAX] = event;
    if (task->stepping)
        return;
    task->stepping = true;
    while (task->inbox_count > 0) {
        struct prefill_outbox outbox = { 0 };
        const struct prefill_event next = task->inbox[task->inbox_first];
        task->inbox_first = (task->inbox_first + 1) % WORKER_INBOX_MAX;
        task->inbox_count--;
        prefill_step(&task->machine, os_loop_now(task->worker->loop), &next, &outbox);
        for (uint32_t i = 0; i < outbox.count; i++)
            carry_out(task, &outbox.items[i]);
    }
    task->stepping = false;
    if (task->machine.phase == PREFILL_DONE)
        remove_task(task);
    else
        set_timer(task);
}

/* ------------------------------------------------------------------------------------------- line */

/* What was started and is not computed yet. */
struct started {
    uint32_t tasks;
    uint64_t tokens; /* to compute, as far as is known */
};

static struct task *first_in_line(const struct worker *w, struct started *started_p)
{
    struct task *first = NULL;

    *started_p = (struct started){ 0 };
    for (uint32_t i = 0; i < w->task_count; i++) {
        struct task *task = w->tasks[i];
        const enum prefill_phase phase = task->machine.phase;
        if (phase == PREFILL_PULLING || phase == PREFILL_COMPUTING) {
            const uint32_t done =
                phase == PREFILL_PULLING ? task->pull_known : task->machine.ready.done;
            started_p->tasks++;
            started_p->tokens += task->token_count - done;
        }
        if (phase == PREFILL_QUEUED && (!first || prefill_before(&task->place, &first->place)))
            first = task;
    }
    return first;
}

/* Enough for the engine to be busy while the next are pulled, and no more: who starts early holds pages, and
 * pulls less than who starts when those before it are in the pool. */
static bool is_enough(const struct worker *w, const struct started *started)
{
    return started->tasks >= w->limits.sequences_max ||
           started->tokens >= (uint64_t)AHEAD_CHUNKS * w->limits.chunk_tokens;
}

/* Nobody overtakes: who is first and finds no pages keeps the others waiting, or it would wait for ever. */
void tasks_start(struct worker *w)
{
    for (;;) {
        struct started started;
        struct task *task = first_in_line(w, &started);

        if (!task || is_enough(w, &started))
            return;
        const uint32_t count = kv_pages(task->token_count);
        if (!pages_reserve(w->pages, count, 0, task->pages))
            return;
        task->page_count = count;
        look_again(task);
        task_happen(task, (struct prefill_event){ .kind = PREFILL_START });
    }
}
