/* prefill.c - phases of a prefill, what is in flight in each, and when it can be let go. */
#include "worker/core/prefill.h"

#include <assert.h>

void prefill_init(struct prefill *p, const struct prefill_options *options, uint64_t now_ns)
{
    assert(options->prompt_tokens > 0 && options->pull_tokens < options->prompt_tokens);
    assert(options->pull_tokens % options->layout.page_tokens == 0);
    assert(!options->remote || (options->pushes_max > 0 && options->push_pages > 0 &&
                                options->pushes_max <= PREFILL_PUSHES_MAX));
    *p =
        (struct prefill){ .options = *options,
                          .phase = PREFILL_QUEUED,
                          .renew_ns = options->remote ? now_ns + options->lease_ns / 3 : UINT64_MAX,
                          .give_up_ns = UINT64_MAX,
                          .ask_ns = UINT64_MAX,
                          .times.queued_ns = now_ns };
}

void prefill_pull_set(struct prefill *p, uint32_t tokens)
{
    assert(p->phase == PREFILL_QUEUED && tokens < p->options.prompt_tokens);
    assert(tokens % p->options.layout.page_tokens == 0);
    p->options.pull_tokens = tokens;
}

/* ------------------------------------------------------------------------------------- outbox */

static struct prefill_out *put(struct prefill_outbox *outbox, enum prefill_out_kind kind)
{
    struct prefill_out *out = &outbox->items[outbox->count++];

    assert(outbox->count <= PREFILL_OUTBOX_MAX);
    *out = (struct prefill_out){ .kind = kind };
    return out;
}

static void tell_end(struct prefill *p, mc_status status, struct prefill_outbox *outbox)
{
    if (p->told)
        return;
    p->told = true;
    put(outbox, PREFILL_OUT_END)->status = status;
}

/* ------------------------------------------------------------------------------------- phases */

static bool is_over(const struct prefill *p)
{
    return p->phase >= PREFILL_LEAVING;
}

static void compute(struct prefill *p, uint32_t tokens, uint64_t now_ns,
                    struct prefill_outbox *outbox)
{
    p->phase = PREFILL_COMPUTING;
    p->reused = tokens;
    p->progress += tokens;
    p->ready = (struct push_ready){ tokens, tokens, 0 };
    p->times.pulled_ns = now_ns;
    p->in_engine = true;
    p->held = p->options.remote;
    put(outbox, PREFILL_OUT_COMPUTE)->tokens = tokens;
    put(outbox, PREFILL_OUT_TELL);
}

static void start(struct prefill *p, uint64_t now_ns, struct prefill_outbox *outbox)
{
    p->held = true;
    p->times.started_ns = now_ns;
    if (p->options.pull_tokens == 0) {
        compute(p, 0, now_ns, outbox);
        return;
    }
    p->phase = PREFILL_PULLING;
    p->pulling = true;
    put(outbox, PREFILL_OUT_PULL)->tokens = p->options.pull_tokens;
    put(outbox, PREFILL_OUT_TELL);
}

/* Everything in flight is stopped; ENDING lasts until it is quiet. */
static void stop(struct prefill *p, mc_status status, uint64_t now_ns,
                 struct prefill_outbox *outbox)
{
    p->phase = PREFILL_ENDING;
    p->status = status;
    p->times.ended_ns = now_ns;
    p->renew_ns = p->give_up_ns = p->ask_ns = UINT64_MAX;
    if (p->pulling)
        put(outbox, PREFILL_OUT_STOP_PULL);
    if (p->in_engine)
        put(outbox, PREFILL_OUT_STOP_ENGINE);
    if (p->pushes > 0)
        put(outbox, PREFILL_OUT_STOP_PUSHES);
    if (p->puts > 0)
        put(outbox, PREFILL_OUT_STOP_PUTS);
    if (p->asked)
        put(outbox, PREFILL_OUT_STOP_ASK);
    p->asked = false;
}

static void fail(struct prefill *p, mc_status status, uint64_t now_ns,
                 struct prefill_outbox *outbox)
{
    if (is_over(p))
        return;
    stop(p, status, now_ns, outbox);
    tell_end(p, status, outbox); /* at once: it is tried elsewhere while memory comes back here */
}

static void finish(struct prefill *p, uint64_t now_ns, struct prefill_outbox *outbox)
{
    p->phase = PREFILL_LEAVING;
    p->status = MC_OK;
    p->times.ended_ns = now_ns;
    p->renew_ns = p->give_up_ns = p->ask_ns = UINT64_MAX;
    tell_end(p, MC_OK, outbox);
}

static void on_sampled(struct prefill *p, uint64_t now_ns, struct prefill_outbox *outbox)
{
    const uint32_t tokens = p->options.prompt_tokens;

    p->sampled = true;
    p->progress += tokens;
    p->ready = (struct push_ready){ tokens, tokens, 0 };
    p->times.computed_ns = now_ns;
    if (p->options.remote) {
        p->phase = PREFILL_HANDING_OFF;
        put(outbox, PREFILL_OUT_TELL);
        return;
    }
    p->phase = PREFILL_DECODING;
    tell_end(p, MC_OK, outbox);
}

/* The engine has no more of it. */
static void on_out(struct prefill *p, mc_status status, uint64_t now_ns,
                   struct prefill_outbox *outbox)
{
    if (!p->in_engine)
        return;
    p->in_engine = false;
    if (p->phase == PREFILL_DECODING)
        finish(p, now_ns, outbox);
    else if (status != MC_OK || !p->sampled)
        fail(p, status != MC_OK ? status : MC_E_CANCELLED, now_ns, outbox);
}

static void on_answer(struct prefill *p, mc_status status, uint64_t now_ns,
                      struct prefill_outbox *outbox)
{
    if (!p->asked)
        return;
    p->asked = false;
    if (p->phase != PREFILL_HANDING_OFF)
        return;
    if (status == MC_OK)
        finish(p, now_ns, outbox);
    else if (status != MC_E_PEER)
        fail(p, status, now_ns, outbox);
    else /* it may have been heard: asked again, soon or when the peer is up */
        p->ask_ns = now_ns + p->options.hand_off_ns / 20;
}

/* ------------------------------------------------------------------------- what follows a step */

static void push(struct prefill *p, struct prefill_outbox *outbox)
{
    struct push_span span;

    if (!p->options.remote || (p->phase != PREFILL_COMPUTING && p->phase != PREFILL_HANDING_OFF))
        return;
    while (p->pushes < p->options.pushes_max &&
           push_next(&p->cursor, &p->ready, &p->options.layout, p->options.push_pages, &span)) {
        p->pushes++;
        put(outbox, PREFILL_OUT_PUSH)->span = span;
    }
}

static void ask(struct prefill *p, uint64_t now_ns, bool again, struct prefill_outbox *outbox)
{
    if (p->phase != PREFILL_HANDING_OFF || p->asked || p->pushes > 0 || p->in_engine ||
        !push_complete(&p->cursor, p->options.prompt_tokens))
        return;
    if (p->give_up_ns == UINT64_MAX)
        p->give_up_ns = now_ns + p->options.hand_off_ns;
    else if (!again && now_ns < p->ask_ns)
        return;
    p->ask_ns = UINT64_MAX;
    p->asked = true;
    put(outbox, PREFILL_OUT_HAND_OFF);
}

static void let_go(struct prefill *p, struct prefill_outbox *outbox)
{
    if (!is_over(p) || p->phase == PREFILL_DONE)
        return;
    const bool touched = p->pulling || p->in_engine || p->pushes > 0;
    if (p->held && !touched) {
        p->held = false;
        put(outbox, PREFILL_OUT_DROP);
    }
    if (!touched && !p->asked && p->puts == 0) {
        p->phase = PREFILL_DONE;
        put(outbox, PREFILL_OUT_FREE);
    }
}

static bool is_queued(const struct prefill *p)
{
    return p->phase == PREFILL_QUEUED || p->phase == PREFILL_PULLING ||
           (p->phase == PREFILL_COMPUTING && p->ready.done == p->reused &&
            p->ready.chunk_end == p->ready.done);
}

static void on_time(struct prefill *p, uint64_t now_ns, struct prefill_outbox *outbox)
{
    if (now_ns >= p->give_up_ns) {
        fail(p, MC_E_PEER, now_ns, outbox);
        return;
    }
    if (now_ns < p->renew_ns)
        return;
    p->renew_ns = now_ns + p->options.lease_ns / 3;
    struct prefill_out *out = put(outbox, PREFILL_OUT_RENEW);
    out->tokens = p->progress;
    out->queued = is_queued(p);
}

/* --------------------------------------------------------------------------------------- step */

static void on_progress(struct prefill *p, const struct push_ready *ready,
                        struct prefill_outbox *outbox)
{
    if (p->phase != PREFILL_COMPUTING || ready->done < p->ready.done)
        return;
    const bool chunk_done = ready->done > p->ready.done;
    p->progress += ready->done - p->ready.done + 1;
    p->ready = *ready;
    if (chunk_done)
        put(outbox, PREFILL_OUT_TELL);
}

static void on_pulled(struct prefill *p, uint32_t tokens, uint64_t now_ns,
                      struct prefill_outbox *outbox)
{
    if (!p->pulling)
        return;
    p->pulling = false;
    if (p->phase == PREFILL_PULLING) {
        assert(tokens <= p->options.pull_tokens && tokens % p->options.layout.page_tokens == 0);
        compute(p, tokens, now_ns, outbox);
    }
}

static void on_pushed(struct prefill *p, mc_status status, uint64_t now_ns,
                      struct prefill_outbox *outbox)
{
    if (p->pushes == 0)
        return;
    p->pushes--;
    p->progress++;
    if (status != MC_OK)
        fail(p, status, now_ns, outbox);
}

static void on_cancel(struct prefill *p, uint64_t now_ns, struct prefill_outbox *outbox)
{
    p->told = true; /* who cancels knows */
    if (p->phase == PREFILL_LEAVING && p->puts > 0)
        put(outbox, PREFILL_OUT_STOP_PUTS);
    if (!is_over(p))
        stop(p, MC_E_CANCELLED, now_ns, outbox);
}

void prefill_step(struct prefill *p, uint64_t now_ns, const struct prefill_event *event,
                  struct prefill_outbox *outbox)
{
    switch (event->kind) {
    case PREFILL_START:
        if (p->phase == PREFILL_QUEUED)
            start(p, now_ns, outbox);
        break;
    case PREFILL_PULLED:
        on_pulled(p, event->tokens, now_ns, outbox);
        break;
    case PREFILL_PROGRESS:
        on_progress(p, &event->ready, outbox);
        break;
    case PREFILL_SAMPLED:
        if (p->phase == PREFILL_COMPUTING)
            on_sampled(p, now_ns, outbox);
        break;
    case PREFILL_OUT:
        on_out(p, event->status, now_ns, outbox);
        break;
    case PREFILL_PUSHED:
        on_pushed(p, event->status, now_ns, outbox);
        break;
    case PREFILL_ANSWERED:
        on_answer(p, event->status, now_ns, outbox);
        break;
    case PREFILL_PEER_UP:
        break; /* what waited for it is asked below */
    case PREFILL_PEER_GONE:
        if (p->options.remote)
            fail(p, event->status, now_ns, outbox);
        break;
    case PREFILL_PUT:
        if (p->phase != PREFILL_DONE)
            p->puts++;
        break;
    case PREFILL_PUT_FINAL:
        p->puts -= event->more < p->puts ? event->more + 1 : p->puts;
        break;
    case PREFILL_CANCEL:
        on_cancel(p, now_ns, outbox);
        break;
    case PREFILL_TIME:
        on_time(p, now_ns, outbox);
        break;
    }
    push(p, outbox);
    ask(p, now_ns, event->kind == PREFILL_PEER_UP, outbox);
    let_go(p, outbox);
}

uint64_t prefill_due_ns(const struct prefill *p)
{
    const uint64_t due = p->renew_ns < p->give_up_ns ? p->renew_ns : p->give_up_ns;

    return due < p->ask_ns ? due : p->ask_ns;
}

bool prefill_before(const struct prefill_place *a, const struct prefill_place *b)
{
    if (a->priority != b->priority)
        return a->priority < b->priority;
    if (a->order != b->order)
        return a->order - 1 < b->order - 1; /* 0 is the last */
    return a->arrival < b->arrival;
}
