/* attempt.c - begin, fail, repeat and end attempts; what is held is given back here and nowhere else. */
#include "gateway/core/attempt.h"

#include <assert.h>

enum { TRIES_DEFAULT = 3 };
static const uint64_t PATIENCE_NS = 10000000000, WAIT_NS = 50000000;

/* ----------------------------------------------------------------------------------------- outbox */

struct request_out *attempt_put(struct request_outbox *outbox, enum request_out_kind kind,
                                uint64_t instance)
{
    assert(outbox->count < REQUEST_OUTBOX_MAX);
    struct request_out *out = &outbox->items[outbox->count++];

    memset(out, 0, sizeof(*out));
    out->kind = kind;
    out->instance = instance;
    return out;
}

struct mc_sched_progress *attempt_tell(const struct request *r, uint32_t kind, uint64_t instance,
                                       struct request_outbox *outbox)
{
    struct mc_sched_event *event = &attempt_put(outbox, REQUEST_OUT_SCHED, 0)->sched;

    event->kind = kind;
    event->progress.request = r->attempt;
    event->progress.id = instance;
    return &event->progress;
}

/* Tell the scheduler that this attempt is over, if it knows it. */
static void end_in_sched(struct request *r, uint32_t status, struct request_outbox *outbox)
{
    if (!r->in_sched)
        return;
    struct mc_sched_progress *p = attempt_tell(r, MC_EVENT_REQUEST_END, r->decode, outbox);

    p->tokens = r->output_tokens;
    p->status = status;
    p->gap_ns = gaps_longest(&r->gaps);
    r->in_sched = false;
}

void attempt_cancel(const struct request *r, uint64_t instance, uint32_t reason,
                    struct request_outbox *outbox)
{
    struct wire_request_cancel *cancel = &attempt_put(outbox, REQUEST_OUT_CANCEL, instance)->cancel;

    cancel->request = r->attempt;
    cancel->reason = reason;
}

/* Give back what is held at both sides; where they are one, only one of the two is set. */
static void release(struct request *r, uint32_t reason, struct request_outbox *outbox)
{
    if (r->at_prefill)
        attempt_cancel(r, r->prefill, reason, outbox);
    if (r->at_decode)
        attempt_cancel(r, r->decode, reason, outbox);
    r->at_prefill = r->at_decode = false;
}

/* -------------------------------------------------------------------------------------------- end */

struct request_out_end *attempt_end(struct request *r, uint64_t now_ns, mc_status status,
                                    struct request_outbox *outbox)
{
    struct request_out_end *out = &attempt_put(outbox, REQUEST_OUT_END, 0)->end;

    out->status = status;
    r->phase = REQUEST_ENDED;
    r->times.ended_ns = now_ns;
    return out;
}

/* Give back what is held, then end with an error. */
struct request_out_end *attempt_give_up(struct request *r, uint64_t now_ns, mc_status status,
                                        uint32_t cancel, uint32_t sched,
                                        struct request_outbox *outbox)
{
    release(r, cancel, outbox);
    end_in_sched(r, sched, outbox);
    return attempt_end(r, now_ns, status, outbox);
}

/* Show what is there to the client, and end when all is there. Tokens wait for the prefill's end, which
 * brings the counters of the answer's head. */
void attempt_show(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    if (!r->prefill_over || attempt_is_staged(r))
        return;
    if (!r->begun && (r->finish != 0 || (r->options->stream && r->output_tokens > 0))) {
        attempt_put(outbox, REQUEST_OUT_BEGIN, 0);
        r->begun = true;
    }
    if (r->finish == 0)
        return;
    release(r, CANCEL_STOP, outbox);
    end_in_sched(r, SCHED_FINISHED, outbox);
    attempt_end(r, now_ns, MC_OK, outbox)->finish = r->finish;
}

void attempt_prefill_over(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    r->prefill_over = true;
    r->may_decode = !r->in_sched; /* nobody would say so */
    r->phase = REQUEST_DECODING;
    attempt_show(r, now_ns, outbox);
}

/* Its end was not told, and nobody waits for it any longer. */
void attempt_prefill_unheard(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    if (r->in_sched)
        attempt_tell(r, MC_EVENT_PREFILL_END, r->prefill, outbox);
    attempt_prefill_over(r, now_ns, outbox);
}

/* ------------------------------------------------------------------------------------------ place */

void attempt_ask(struct request *r, struct request_outbox *outbox)
{
    struct mc_sched_event *event = &attempt_put(outbox, REQUEST_OUT_SCHED, 0)->sched;

    r->attempt = ++*r->options->ids;
    r->phase = REQUEST_PLACING;
    r->prefill = r->decode = 0;
    r->pulled_bytes = r->reused_tokens = r->pushed_bytes = 0;
    r->queue_ns = r->pull_ns = r->compute_ns = r->hand_off_ns = 0;
    r->output_tokens = 0;
    r->gaps = (struct gaps){ .count = 0 };
    r->finish = 0;
    r->stopped = false;
    r->prefill_begun = r->prefill_over = r->may_decode = false;
    r->wait_until_ns = r->settle_until_ns = UINT64_MAX;
    r->times = (struct request_times){ .started_ns = r->times.started_ns };
    r->in_sched = true;

    event->kind = MC_EVENT_REQUEST;
    event->request = r->options->sched;
    event->request.id = r->attempt;
    if (r->tries > 0) /* it was let in, and its worker was lost */
        event->request.flags |= MC_REQUEST_TAKEN;
    event->request.barred = attempt_first(r->options->sched.barred, r->barred);
    event->request.barred_decode = attempt_first(r->options->sched.barred_decode, r->barred_decode);
}

/* Something went wrong that may go well later: the clock of patience runs from the first time. */
static void lose_patience(struct request *r, uint64_t now_ns)
{
    if (r->patience_until_ns == UINT64_MAX)
        r->patience_until_ns =
            attempt_add(now_ns, attempt_first(r->options->patience_ns, PATIENCE_NS));
}

/* Look for room again later; false: patience is at its end. */
bool attempt_wait(struct request *r, uint64_t now_ns, uint64_t retry_ns)
{
    const uint64_t least_ns = attempt_first(r->options->wait_ns, WAIT_NS);

    lose_patience(r, now_ns);
    if (now_ns >= r->patience_until_ns)
        return false;
    r->phase = REQUEST_WAITING;
    r->wait_until_ns = attempt_add(now_ns, retry_ns > least_ns ? retry_ns : least_ns);
    if (r->wait_until_ns > r->patience_until_ns)
        r->wait_until_ns = r->patience_until_ns;
    r->waits++;
    return true;
}

/* No room at a worker, or not now: nobody's fault. */
static bool is_want_of_room(mc_status status)
{
    return status == MC_E_FULL || status == MC_E_BUSY;
}

/* The request itself cannot be served: another worker would say the same. */
static bool is_final(mc_status status)
{
    return status == MC_E_ARG || status == MC_E_RANGE || status == MC_E_FORMAT ||
           status == MC_E_UNSUPPORTED || status == MC_E_DENIED;
}

/* The attempt has failed: give back what is held, then try again, wait for room, or end. */
void attempt_fail(struct request *r, uint64_t now_ns, const struct request_failure *failure,
                  uint64_t barred, uint64_t barred_decode, struct request_outbox *outbox)
{
    const uint64_t tries_max = attempt_first(r->options->tries_max, TRIES_DEFAULT);
    const bool no_room = is_want_of_room(failure->status);

    release(r, CANCEL_LOST, outbox);
    end_in_sched(r, SCHED_FAILED, outbox);
    if (!no_room)
        r->tries++;
    if (r->begun) {
        attempt_end(r, now_ns, MC_E_PEER, outbox)->text =
            attempt_text("the worker that decoded this answer was lost in the middle of it");
        return;
    }
    if (is_final(failure->status) || (!no_room && r->tries >= tries_max)) {
        attempt_end(r, now_ns, failure->status, outbox)->text = failure->text;
        return;
    }
    if (r->output_tokens != 0)
        attempt_put(outbox, REQUEST_OUT_RESTART, 0);
    r->barred = barred;
    r->barred_decode = barred_decode;
    r->no_room = no_room;
    lose_patience(r, now_ns);
    if (!no_room) {
        attempt_ask(r, outbox);
        return;
    }
    if (!attempt_wait(r, now_ns, failure->retry_ns)) {
        struct request_out_end *out = attempt_end(r, now_ns, failure->status, outbox);
        out->text = failure->text;
        out->retry_after_ns = failure->retry_ns;
    }
}
