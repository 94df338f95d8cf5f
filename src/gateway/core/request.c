/* request.c - what each event means in each phase of a request. */
#include "gateway/core/request.h"

#include <assert.h>

#include "gateway/core/attempt.h"

enum { PROGRESS_PULLING = 2 };
static const uint64_t SETTLE_NS = 1000000000;

void request_init(struct request *request, const struct request_options *options)
{
    assert(options->ids && options->sched.tokens > 0);
    *request = (struct request){ .options = options,
                                 .wait_until_ns = UINT64_MAX,
                                 .patience_until_ns = UINT64_MAX,
                                 .settle_until_ns = UINT64_MAX };
}
/* -------------------------------------------------------------------------------- decode worker's */

static bool on_reserved(struct request *r, uint64_t now_ns, const struct wire_reserved *reserved,
                        struct request_outbox *outbox)
{
    if (r->phase != REQUEST_RESERVING)
        return false;
    r->times.reserved_ns = now_ns;
    attempt_prefill(r, reserved, outbox);
    return true;
}

static bool on_not_reserved(struct request *r, uint64_t now_ns,
                            const struct request_failure *failure, struct request_outbox *outbox)
{
    if (r->phase != REQUEST_RESERVING)
        return false;
    r->at_decode = failure->status == MC_E_TIMEOUT; /* it may have come there */
    attempt_fail(r, now_ns, failure, 0, r->decode, outbox);
    return true;
}

static void keep_tokens(struct request *r, uint64_t now_ns, const struct wire_tokens *tokens,
                        struct request_outbox *outbox)
{
    const uint64_t known = r->output_tokens - tokens->index;

    if (known >= tokens->samples.count)
        return;
    struct request_out_tokens *out = &attempt_put(outbox, REQUEST_OUT_TOKENS, 0)->tokens;
    out->message = tokens;
    out->skip = (uint32_t)known;
    out->count = tokens->samples.count - out->skip;
    if (r->output_tokens == 0) {
        r->times.first_ns = now_ns;
        r->settle_until_ns = attempt_add(now_ns, attempt_first(r->options->settle_ns, SETTLE_NS));
        attempt_tell(r, MC_EVENT_DECODE_BEGIN, r->decode, outbox);
        gaps_add(&r->gaps, 0, out->count - 1);
    } else
        gaps_add(&r->gaps, now_ns - r->times.last_ns, out->count);
    r->times.last_ns = now_ns;
    r->output_tokens += out->count;
}

static bool on_tokens(struct request *r, uint64_t now_ns, const struct wire_tokens *tokens,
                      struct request_outbox *outbox)
{
    if ((r->phase != REQUEST_PREFILLING && r->phase != REQUEST_DECODING) || r->finish != 0)
        return false;
    if (tokens->index > r->output_tokens) {
        const struct request_failure gap = { MC_E_CORRUPT,
                                             attempt_text("tokens of the answer are missing"), 0 };
        attempt_fail(r, now_ns, &gap, 0, r->decode, outbox);
        return true;
    }
    if (tokens->finish > FINISH_LENGTH) {
        const struct request_failure failure = { tokens->status == MC_OK ? MC_E_IO : tokens->status,
                                                 tokens->text, 0 };
        r->at_decode = false;
        if (r->prefill == r->decode)
            r->at_prefill = false;
        attempt_fail(r, now_ns, &failure, 0, r->decode, outbox);
        return true;
    }
    keep_tokens(r, now_ns, tokens, outbox);
    r->finish = tokens->finish;
    if (r->finish != 0) {
        r->at_decode = false;
        if (r->settle_until_ns == UINT64_MAX) /* an answer without a token */
            r->settle_until_ns =
                attempt_add(now_ns, attempt_first(r->options->settle_ns, SETTLE_NS));
        if (r->prefill == r->decode)
            r->at_prefill = false;
    }
    attempt_show(r, now_ns, outbox);
    return true;
}

/* ------------------------------------------------------------------------------- prefill worker's */

/* The decode worker has spoken, or all has come: whatever becomes of the prefill worker, nothing is missing. */
static bool is_handed_off(const struct request *r)
{
    return r->finish != 0 || (r->prefill != r->decode && r->output_tokens != 0);
}

static bool on_taken(struct request *r, uint64_t now_ns)
{
    if (r->phase != REQUEST_PREFILLING || r->times.taken_ns != 0)
        return false;
    r->times.taken_ns = now_ns;
    return true;
}

static bool on_not_taken(struct request *r, uint64_t now_ns, const struct request_failure *failure,
                         struct request_outbox *outbox)
{
    if (r->phase != REQUEST_PREFILLING || r->times.taken_ns != 0 || is_handed_off(r))
        return false;
    r->at_prefill = failure->status == MC_E_TIMEOUT; /* it may have come there */
    attempt_fail(r, now_ns, failure, r->prefill, 0, outbox);
    return true;
}

static bool on_progress(struct request *r, const struct wire_prefill_progress *progress,
                        struct request_outbox *outbox)
{
    if (r->phase != REQUEST_PREFILLING)
        return false;
    r->pulled_bytes = progress->pulled_bytes;
    r->pushed_bytes = progress->pushed_bytes;
    if (progress->phase >= PROGRESS_PULLING && !r->prefill_begun) {
        r->prefill_begun = true;
        attempt_tell(r, MC_EVENT_PREFILL_BEGIN, r->prefill, outbox);
    }
    return true;
}

/* What the scheduler learns from a prefill. */
static void report_prefill(const struct request *r, struct request_outbox *outbox)
{
    const uint64_t tokens = r->options->sched.tokens;
    struct mc_sched_progress *p = attempt_tell(r, MC_EVENT_PREFILL_END, r->prefill, outbox);

    p->reused = r->reused_tokens < tokens ? r->reused_tokens : tokens;
    p->tokens = tokens - p->reused;
    p->duration_ns = r->compute_ns;
    if (r->pulled_bytes == 0 || r->pull_ns == 0 || r->decision.holder == 0)
        return;
    struct mc_sched_event *event = &attempt_put(outbox, REQUEST_OUT_SCHED, 0)->sched;
    event->kind = MC_EVENT_TRANSFER_END;
    event->transfer.request = r->attempt;
    event->transfer.from = r->decision.holder;
    event->transfer.to = r->prefill;
    event->transfer.bytes = r->pulled_bytes;
    event->transfer.duration_ns = r->pull_ns;
}

/* Whose fault was it? What the prefill worker says of its peer may be true of either. */
static bool blames_decode(const struct request *r, mc_status status)
{
    return r->prefill != r->decode && (status == MC_E_PEER || status == MC_E_STALE ||
                                       status == MC_E_TIMEOUT || status == MC_E_CORRUPT);
}

static bool on_prefilled(struct request *r, uint64_t now_ns,
                         const struct wire_prefill_end *prefilled, struct request_outbox *outbox)
{
    if (r->phase == REQUEST_DECODING && r->at_prefill) { /* later than tokens would wait for it */
        r->at_prefill = false;
        r->at_decode |= r->prefill == r->decode;
        return true;
    }
    if (r->phase != REQUEST_PREFILLING)
        return false;
    r->at_prefill = false;
    if (prefilled->status != MC_OK && !is_handed_off(r)) {
        const struct request_failure failure = { prefilled->status, prefilled->text, 0 };

        attempt_fail(r, now_ns, &failure, r->prefill,
                     blames_decode(r, failure.status) ? r->decode : 0, outbox);
        return true;
    }
    r->reused_tokens = prefilled->reused_tokens;
    r->pulled_bytes = prefilled->pulled_bytes;
    r->pushed_bytes = prefilled->pushed_bytes;
    r->queue_ns = prefilled->queue_ns;
    r->pull_ns = prefilled->pull_ns;
    r->compute_ns = prefilled->compute_ns;
    r->hand_off_ns = prefilled->hand_off_ns;
    r->times.prefilled_ns = now_ns;
    if (r->prefill == r->decode &&
        (r->finish == 0 || (r->stopped && prefilled->status == MC_OK))) /* it decodes */
        r->at_decode = true;
    report_prefill(r, outbox);
    attempt_prefill_over(r, now_ns, outbox);
    return true;
}

/* ----------------------------------------------------------------------------------- from anywhere */

static void lose_decode(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    const struct request_failure failure = { MC_E_PEER, attempt_text("the decode worker was lost"),
                                             0 };

    r->at_decode = false;
    if (r->prefill == r->decode)
        r->at_prefill = false;
    if (r->finish == 0) /* else all of the answer has come */
        attempt_fail(r, now_ns, &failure, r->prefill == r->decode ? r->prefill : 0, r->decode,
                     outbox);
}

static void lose_prefill(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    const struct request_failure failure = { MC_E_PEER, attempt_text("the prefill worker was lost"),
                                             0 };

    r->at_prefill = false;
    if (r->phase == REQUEST_DECODING)
        return;
    if (is_handed_off(r))
        attempt_prefill_unheard(r, now_ns, outbox);
    else
        attempt_fail(r, now_ns, &failure, r->prefill, 0, outbox);
}

static bool on_lost(struct request *r, uint64_t now_ns, uint64_t instance,
                    struct request_outbox *outbox)
{
    if (r->phase != REQUEST_RESERVING && r->phase != REQUEST_PREFILLING &&
        r->phase != REQUEST_DECODING)
        return true; /* it is nowhere */
    if (instance == r->decode)
        lose_decode(r, now_ns, outbox);
    else if (instance == r->prefill)
        lose_prefill(r, now_ns, outbox);
    return true;
}

/* The answer is whole though the decode worker would go on. */
static bool on_stop(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    if ((r->phase != REQUEST_PREFILLING && r->phase != REQUEST_DECODING) || r->finish != 0 ||
        r->output_tokens == 0)
        return false;
    r->finish = FINISH_STOP;
    r->stopped = true;
    if (r->at_decode)
        attempt_cancel(r, r->decode, CANCEL_STOP, outbox);
    r->at_decode = false;
    attempt_show(r, now_ns, outbox);
    return true;
}

static bool on_time(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    const uint64_t deadline_ns = r->options->sched.deadline_ns;

    if (r->phase == REQUEST_NEW)
        return false;
    if (deadline_ns != 0 && now_ns >= deadline_ns)
        attempt_give_up(r, now_ns, MC_E_TIMEOUT, CANCEL_DEADLINE, SCHED_DEADLINE, outbox)->text =
            attempt_text("the request's deadline has passed");
    else if (r->phase == REQUEST_WAITING && now_ns >= r->wait_until_ns)
        attempt_ask(r, outbox);
    else if (r->phase == REQUEST_PREFILLING && now_ns >= r->settle_until_ns)
        attempt_prefill_unheard(r, now_ns, outbox);
    return true;
}

uint64_t request_due_ns(const struct request *r)
{
    const uint64_t deadline_ns = attempt_first(r->options->sched.deadline_ns, UINT64_MAX);
    uint64_t due_ns = UINT64_MAX;

    if (r->phase == REQUEST_NEW || r->phase == REQUEST_ENDED)
        return UINT64_MAX;
    if (r->phase == REQUEST_WAITING)
        due_ns = r->wait_until_ns;
    if (r->phase == REQUEST_PREFILLING)
        due_ns = r->settle_until_ns;
    return due_ns < deadline_ns ? due_ns : deadline_ns;
}

/* ------------------------------------------------------------------------------------------- step */

/* Events that speak of one attempt must speak of this one, and come from whom it is placed at. */
static bool is_for_this_attempt(const struct request *r, const struct request_event *event)
{
    switch (event->kind) {
    case REQUEST_DECIDED:
    case REQUEST_NOT_DECIDED:
        return event->attempt == r->attempt;
    case REQUEST_RESERVED:
    case REQUEST_NOT_RESERVED:
    case REQUEST_TOKENS:
        return event->attempt == r->attempt && event->from == r->decode;
    case REQUEST_TAKEN:
    case REQUEST_NOT_TAKEN:
    case REQUEST_PROGRESS:
    case REQUEST_PREFILLED:
        return event->attempt == r->attempt && event->from == r->prefill;
    default:
        return true;
    }
}

/* False: it means nothing now. */
static bool handle(struct request *r, uint64_t now_ns, const struct request_event *event,
                   struct request_outbox *outbox)
{
    switch (event->kind) {
    case REQUEST_START:
        if (r->phase != REQUEST_NEW)
            return false;
        r->times.started_ns = now_ns;
        attempt_ask(r, outbox);
        return true;
    case REQUEST_DECIDED:
        return attempt_decided(r, now_ns, event->decision, outbox);
    case REQUEST_NOT_DECIDED:
        return attempt_not_decided(r, now_ns, &event->failure, outbox);
    case REQUEST_RESERVED:
        return on_reserved(r, now_ns, event->reserved, outbox);
    case REQUEST_NOT_RESERVED:
        return on_not_reserved(r, now_ns, &event->failure, outbox);
    case REQUEST_TAKEN:
        return on_taken(r, now_ns);
    case REQUEST_NOT_TAKEN:
        return on_not_taken(r, now_ns, &event->failure, outbox);
    case REQUEST_PROGRESS:
        return on_progress(r, event->progress, outbox);
    case REQUEST_PREFILLED:
        return on_prefilled(r, now_ns, event->prefilled, outbox);
    case REQUEST_TOKENS:
        return on_tokens(r, now_ns, event->tokens, outbox);
    case REQUEST_LOST:
        return on_lost(r, now_ns, event->from, outbox);
    case REQUEST_CLIENT_GONE:
        attempt_give_up(r, now_ns, MC_E_CANCELLED, CANCEL_CLIENT, SCHED_CLIENT, outbox);
        return true;
    case REQUEST_STOP:
        return on_stop(r, now_ns, outbox);
    case REQUEST_GIVE_UP:
        attempt_give_up(r, now_ns, event->failure.status, CANCEL_DRAIN, SCHED_FAILED, outbox)
            ->text = event->failure.text;
        return true;
    case REQUEST_TIME:
        return on_time(r, now_ns, outbox);
    }
    assert(false); /* an event that there is not */
    return false;
}

void request_step(struct request *request, uint64_t now_ns, const struct request_event *event,
                  struct request_outbox *outbox)
{
    assert(outbox->count == 0);
    if (request->phase == REQUEST_ENDED || !is_for_this_attempt(request, event) ||
        !handle(request, now_ns, event, outbox))
        request->dropped++;
}
