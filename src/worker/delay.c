/*
 * delay.c - what a timing worker holds back: bytes are here long before those that they stand for would be.
 *
 * A pull is over when the line would have brought all of it, one pull after the other; a prompt from another
 * worker joins when its last layers would be stored and its KVCache loaded, one prompt after the other. With
 * an engine that computes nothing is held back.
 */
#include "worker/state.h"

static const double NS = 1e9;

/* The way is taken for so long, after whoever has it now. */
static uint64_t book(uint64_t *free_ns, uint64_t from_ns, double seconds)
{
    *free_ns = (*free_ns > from_ns ? *free_ns : from_ns) + (uint64_t)(seconds * NS);
    return *free_ns;
}

static bool later(struct worker *w, struct os_timer *timer, uint64_t due_ns)
{
    if (w->closing || due_ns <= os_loop_now(w->loop))
        return false;
    if (os_loop_timer(w->loop, timer, due_ns) == MC_OK)
        return true;
    worker_log(w, MC_LOG_ERROR, "event=no_timer text=\"out of memory\"");
    return false;
}

uint64_t worker_stands_for(const struct worker *w, uint64_t bytes)
{
    return w->timing ? (uint64_t)((double)bytes * w->model_of.kv_token_bytes * KV_PAGE_TOKENS /
                                  (double)w->page_bytes)
                     : bytes;
}

/* ------------------------------------------------------------------------------------------- pulls */

static void end_pull(struct task *task)
{
    const uint32_t blocks = task->pulled_blocks;
    struct worker *w = task->worker;

    os_loop_timer_stop(w->loop, &task->pull_timer);
    task->held_back = false;
    task->pulled_bytes = blocks * w->page_bytes;
    worker_count(w, METRIC_reused_tokens, (uint64_t)blocks * KV_PAGE_TOKENS);
    task_happen(
        task, (struct prefill_event){ .kind = PREFILL_PULLED, .tokens = blocks * KV_PAGE_TOKENS });
}

static void pull_due(void *user, uint64_t now_ns)
{
    (void)now_ns;
    end_pull(user);
}

void delay_pull_begin(struct task *task)
{
    task->pull_begin_ns = os_loop_now(task->worker->loop);
}

void delay_pulled(struct task *task, uint32_t blocks)
{
    struct worker *w = task->worker;

    task->pulled_blocks = blocks;
    if (w->timing && blocks > 0) {
        const double latency_s = timing_pull_s(&w->model_of, 0);
        const double line_s =
            timing_pull_s(&w->model_of, (uint64_t)blocks * KV_PAGE_TOKENS) - latency_s;
        const uint64_t latest_ns = task->pull_begin_ns + task->pull_ns;
        uint64_t due_ns =
            book(&w->pull_free_ns, task->pull_begin_ns, line_s) + (uint64_t)(latency_s * NS);
        if (due_ns > latest_ns) { /* computing it would be over by then */
            due_ns = latest_ns;
            task->pulled_blocks = 0;
        }
        task->pull_timer = (struct os_timer){ .due = pull_due, .user = task };
        task->held_back = later(w, &task->pull_timer, due_ns);
    }
    if (!task->held_back)
        end_pull(task);
}

void delay_pull_stop(struct task *task)
{
    if (task->held_back)
        end_pull(task);
}

/* ----------------------------------------------------------------------------------------- prompts */

static void end_verify(struct seat *seat)
{
    os_loop_timer_stop(seat->worker->loop, &seat->verify_timer);
    seat->held_back = false;
    seat_happen(seat, (struct decode_event){ .kind = DECODE_VERIFIED, .status = seat->verified });
}

static void verify_due(void *user, uint64_t now_ns)
{
    (void)now_ns;
    end_verify(user);
}

void delay_verified(struct seat *seat, mc_status status)
{
    struct worker *w = seat->worker;

    seat->verified = status;
    if (w->timing && status == MC_OK) {
        const uint64_t stored_ns = os_loop_now(w->loop) + (uint64_t)(w->model_of.tail_s * NS);
        const uint64_t due_ns =
            book(&w->load_free_ns, stored_ns, timing_load_s(&w->model_of, seat->prompt_tokens));
        seat->verify_timer = (struct os_timer){ .due = verify_due, .user = seat };
        seat->held_back = later(w, &seat->verify_timer, due_ns);
    }
    if (!seat->held_back)
        end_verify(seat);
}

void delay_verify_stop(struct seat *seat)
{
    if (seat->held_back)
        end_verify(seat);
}
