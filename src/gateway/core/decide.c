/* decide.c - what the scheduler's decisions mean: reserve, prefill, wait or refuse. */
#include "gateway/core/attempt.h"

static mc_status status_of_refusal(uint32_t reason)
{
    switch (reason) {
    case MC_REASON_NO_INSTANCE:
        return MC_E_PEER;
    case MC_REASON_TOO_LONG:
        return MC_E_RANGE;
    case MC_REASON_DEADLINE:
        return MC_E_TIMEOUT;
    default:
        return MC_E_FULL;
    }
}

static void on_refused(struct request *r, uint64_t now_ns, const struct mc_decision *d,
                       struct request_outbox *outbox)
{
    /* No instance: one was there when the gateway took the request in, or is starting again. */
    const bool may_pass = (d->reason == MC_REASON_KV_MEMORY && d->retry_after_ns != 0) ||
                          d->reason == MC_REASON_NO_INSTANCE;

    const bool was_full = d->reason == MC_REASON_NO_INSTANCE && r->no_room;

    r->in_sched = false;
    r->barred = r->barred_decode = 0; /* the one that failed may be all there is */
    r->no_room = false;
    if (may_pass && attempt_wait(r, now_ns, 0))
        return;
    struct request_out_end *out =
        attempt_end(r, now_ns, was_full ? MC_E_FULL : status_of_refusal(d->reason), outbox);
    if (was_full) { /* the instance is there: it was left out because it had no room */
        out->text = attempt_text("no worker has room for it");
        return;
    }
    out->reason = d->reason;
    out->retry_after_ns = d->retry_after_ns;
}

/* To the prefill worker. reserved: at another decode worker; NULL: it decodes here. */
void attempt_prefill(struct request *r, const struct wire_reserved *reserved,
                     struct request_outbox *outbox)
{
    const struct request_options *o = r->options;
    struct wire_prefill *prefill = &attempt_put(outbox, REQUEST_OUT_PREFILL, r->prefill)->prefill;

    *prefill = (struct wire_prefill){ .request = r->attempt,
                                      .tokens = o->tokens,
                                      .sampling = o->sampling,
                                      .fingerprint = o->fingerprint,
                                      .salt = o->salt,
                                      .tenant = o->tenant,
                                      .cache = o->cache,
                                      .priority = o->sched.priority,
                                      /* As decided: reservations are granted in any order, and the
                                       * scheduler's predictions count on its own. */
                                      .order = r->decision.order ? r->decision.order : r->attempt,
                                      .pull_tokens = r->decision.pull_tokens,
                                      .pull_ns = r->decision.pull_ns,
                                      .holder = r->decision.holder };
    if (reserved) {
        prefill->reservation = reserved->reservation;
        prefill->decode_segment = reserved->segment;
        prefill->decode_incarnation = reserved->incarnation;
        prefill->window = reserved->window;
    }
    r->at_prefill = true;
    r->phase = REQUEST_PREFILLING;
}

static void put_reserve(struct request *r, struct request_outbox *outbox)
{
    const struct request_options *o = r->options;
    struct wire_reserve *reserve = &attempt_put(outbox, REQUEST_OUT_RESERVE, r->decode)->reserve;

    *reserve = (struct wire_reserve){ .request = r->attempt,
                                      .prompt_tokens = o->sched.tokens,
                                      .output_tokens = o->sched.output_hint,
                                      .sampling = o->sampling,
                                      .lease_ns = o->lease_ns,
                                      .fingerprint = o->fingerprint };
    r->at_decode = true;
    r->phase = REQUEST_RESERVING;
}

/* The scheduler has let it go. If a worker was lost, REQUEST_LOST says which, and what that means here. */
static bool on_abort(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    const struct request_failure failure = { MC_E_PEER, attempt_text("a worker was lost"), 0 };

    if (!r->in_sched)
        return false;
    r->in_sched = false;
    if (r->phase == REQUEST_PLACING)
        attempt_fail(r, now_ns, &failure, 0, 0, outbox);
    return true;
}

/* After its prefill, where each stage is decided when its turn comes. */
static bool on_stage(struct request *r, uint64_t now_ns, const struct mc_decision *d,
                     struct request_outbox *outbox)
{
    if (d->kind == MC_DECIDE_DECODE) {
        r->may_decode = true;
        attempt_show(r, now_ns, outbox);
        return true;
    }
    if (d->kind != MC_DECIDE_REFUSE)
        return false;
    const struct mc_prediction was = r->decision.predicted;
    r->in_sched = false;
    r->decision = *d;
    r->decision.predicted = was;
    r->decision.predicted.tbt_ns = d->predicted.tbt_ns;
    r->decision.predicted.tbt_high_ns = d->predicted.tbt_high_ns;
    r->decision.predicted.decode_load = d->predicted.decode_load;
    struct request_out_end *out =
        attempt_give_up(r, now_ns, status_of_refusal(d->reason), CANCEL_REFUSED, 0, outbox);
    out->reason = d->reason;
    out->retry_after_ns = d->retry_after_ns;
    return true;
}

bool attempt_decided(struct request *r, uint64_t now_ns, const struct mc_decision *d,
                     struct request_outbox *outbox)
{
    if (d->kind == MC_DECIDE_ABORT)
        return on_abort(r, now_ns, outbox);
    if (r->phase == REQUEST_DECODING && attempt_is_staged(r))
        return on_stage(r, now_ns, d, outbox);
    if (r->phase != REQUEST_PLACING)
        return false;
    r->decision = *d;
    r->decision.keys = NULL;
    r->decision.key_count = 0;
    if (d->kind == MC_DECIDE_REFUSE) {
        on_refused(r, now_ns, d, outbox);
    } else if (d->kind == MC_DECIDE_PLACE) {
        r->prefill = d->prefill;
        r->decode = d->decode;
        r->times.placed_ns = now_ns;
        if (r->prefill == r->decode)
            attempt_prefill(r, NULL, outbox);
        else
            put_reserve(r, outbox);
    }
    return true; /* MC_DECIDE_WAIT: it will decide again */
}

bool attempt_not_decided(struct request *r, uint64_t now_ns, const struct request_failure *failure,
                         struct request_outbox *outbox)
{
    if (r->phase != REQUEST_PLACING)
        return false;
    r->in_sched = false;
    attempt_end(r, now_ns, failure->status, outbox)->text = failure->text;
    return true;
}
