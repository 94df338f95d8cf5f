/* request.c - what each event means in each phase of a request. */
#include "gateway/core/request.h"

#include <assert.h>
#include <string.h>

enum { TRIES_DEFAULT = 3 };
static const uint64_t PATIENCE_NS = 10000000000, WAIT_NS = 50000000, SETTLE_NS = 1000000000;

/* What numbers mean on the wire and in scheduler events. */
enum { CANCEL_CLIENT = 1, CANCEL_DEADLINE, CANCEL_LOST, CANCEL_DRAIN, CANCEL_STOP };
enum { FINISH_STOP = 1, FINISH_LENGTH, FINISH_FAILED, FINISH_CANCELLED };
enum { SCHED_FINISHED, SCHED_FAILED, SCHED_CLIENT, SCHED_DEADLINE };
enum { PROGRESS_PULLING = 2 };

static uint64_t first(uint64_t a, uint64_t b)
{
    return a ? a : b;
}

static uint64_t add(uint64_t now_ns, uint64_t duration_ns)
{
    return duration_ns < UINT64_MAX - now_ns ? now_ns + duration_ns : UINT64_MAX;
}

static struct wire_slice text(const char *words)
{
    return (struct wire_slice){ words, (uint32_t)strlen(words) };
}

void request_init(struct request *request, const struct request_options *options)
{
    assert(options->ids && options->sched.tokens > 0);
    *request = (struct request){ .options = options,
                                 .wait_until_ns = UINT64_MAX,
                                 .patience_until_ns = UINT64_MAX,
                                 .settle_until_ns = UINT64_MAX };
}

/* ----------------------------------------------------------------------------------------- outbox */

static struct request_out *put(struct request_outbox *outbox, enum request_out_kind kind,
                               uint64_t instance)
{
    assert(outbox->count < REQUEST_OUTBOX_MAX);
    struct request_out *out = &outbox->items[outbox->count++];

    memset(out, 0, sizeof(*out));
    out->kind = kind;
    out->instance = instance;
    return out;
}

static struct mc_sched_progress *put_progress(const struct request *r, uint32_t kind,
                                              uint64_t instance, struct request_outbox *outbox)
{
    struct mc_sched_event *event = &put(outbox, REQUEST_OUT_SCHED, 0)->sched;

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
    struct mc_sched_progress *p = put_progress(r, MC_EVENT_REQUEST_END, r->decode, outbox);

    p->tokens = r->output_tokens;
    p->status = status;
    r->in_sched = false;
}

static void put_cancel(const struct request *r, uint64_t instance, uint32_t reason,
                       struct request_outbox *outbox)
{
    struct wire_request_cancel *cancel = &put(outbox, REQUEST_OUT_CANCEL, instance)->cancel;

    cancel->request = r->attempt;
    cancel->reason = reason;
}

/* Give back what is held at both sides; where they are one, only one of the two is set. */
static void release(struct request *r, uint32_t reason, struct request_outbox *outbox)
{
    if (r->at_prefill)
        put_cancel(r, r->prefill, reason, outbox);
    if (r->at_decode)
        put_cancel(r, r->decode, reason, outbox);
    r->at_prefill = r->at_decode = false;
}

/* -------------------------------------------------------------------------------------------- end */

static struct request_out_end *end(struct request *r, uint64_t now_ns, mc_status status,
                                   struct request_outbox *outbox)
{
    struct request_out_end *out = &put(outbox, REQUEST_OUT_END, 0)->end;

    out->status = status;
    r->phase = REQUEST_ENDED;
    r->times.ended_ns = now_ns;
    return out;
}

/* Give back what is held, then end with an error. */
static struct request_out_end *give_up(struct request *r, uint64_t now_ns, mc_status status,
                                       uint32_t cancel, uint32_t sched,
                                       struct request_outbox *outbox)
{
    release(r, cancel, outbox);
    end_in_sched(r, sched, outbox);
    return end(r, now_ns, status, outbox);
}

/* Show what is there to the client, and end when all is there. Tokens wait for the prefill's end, which
 * brings the counters of the answer's head. */
static void show(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    if (!r->prefill_over)
        return;
    if (!r->begun && (r->finish != 0 || (r->options->stream && r->output_tokens > 0))) {
        put(outbox, REQUEST_OUT_BEGIN, 0);
        r->begun = true;
    }
    if (r->finish == 0)
        return;
    release(r, CANCEL_STOP, outbox);
    end_in_sched(r, SCHED_FINISHED, outbox);
    end(r, now_ns, MC_OK, outbox)->finish = r->finish;
}

static void prefill_is_over(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    r->prefill_over = true;
    r->phase = REQUEST_DECODING;
    show(r, now_ns, outbox);
}

/* Its end was not told, and nobody waits for it any longer. */
static void prefill_goes_unheard(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    if (r->in_sched)
        put_progress(r, MC_EVENT_PREFILL_END, r->prefill, outbox);
    prefill_is_over(r, now_ns, outbox);
}

/* ------------------------------------------------------------------------------------------ place */

static void ask(struct request *r, struct request_outbox *outbox)
{
    struct mc_sched_event *event = &put(outbox, REQUEST_OUT_SCHED, 0)->sched;

    r->attempt = ++*r->options->ids;
    r->phase = REQUEST_PLACING;
    r->prefill = r->decode = 0;
    r->pulled_bytes = r->reused_tokens = r->pushed_bytes = 0;
    r->queue_ns = r->pull_ns = r->compute_ns = r->hand_off_ns = 0;
    r->output_tokens = 0;
    r->finish = 0;
    r->prefill_begun = r->prefill_over = false;
    r->wait_until_ns = r->settle_until_ns = UINT64_MAX;
    r->times = (struct request_times){ .started_ns = r->times.started_ns };
    r->in_sched = true;

    event->kind = MC_EVENT_REQUEST;
    event->request = r->options->sched;
    event->request.id = r->attempt;
    event->request.barred = first(r->options->sched.barred, r->barred);
    event->request.barred_decode = first(r->options->sched.barred_decode, r->barred_decode);
}

/* Something went wrong that may go well later: the clock of patience runs from the first time. */
static void lose_patience(struct request *r, uint64_t now_ns)
{
    if (r->patience_until_ns == UINT64_MAX)
        r->patience_until_ns = add(now_ns, first(r->options->patience_ns, PATIENCE_NS));
}

/* Look for room again later; false: patience is at its end. */
static bool wait(struct request *r, uint64_t now_ns, uint64_t wait_ns)
{
    lose_patience(r, now_ns);
    if (now_ns >= r->patience_until_ns)
        return false;
    r->phase = REQUEST_WAITING;
    r->wait_until_ns = add(now_ns, wait_ns);
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
static void fail(struct request *r, uint64_t now_ns, const struct request_failure *failure,
                 uint64_t barred, uint64_t barred_decode, struct request_outbox *outbox)
{
    const uint64_t tries_max = first(r->options->tries_max, TRIES_DEFAULT);
    const bool no_room = is_want_of_room(failure->status);

    release(r, CANCEL_LOST, outbox);
    end_in_sched(r, SCHED_FAILED, outbox);
    if (!no_room)
        r->tries++;
    if (r->begun) {
        end(r, now_ns, MC_E_PEER, outbox)->text =
            text("the worker that decoded this answer was lost in the middle of it");
        return;
    }
    if (is_final(failure->status) || (!no_room && r->tries >= tries_max)) {
        end(r, now_ns, failure->status, outbox)->text = failure->text;
        return;
    }
    if (r->output_tokens != 0)
        put(outbox, REQUEST_OUT_RESTART, 0);
    r->barred = barred;
    r->barred_decode = barred_decode;
    lose_patience(r, now_ns);
    if (!no_room) {
        ask(r, outbox);
        return;
    }
    const uint64_t wait_ns = first(r->options->wait_ns, WAIT_NS);
    if (!wait(r, now_ns, failure->retry_ns > wait_ns ? failure->retry_ns : wait_ns)) {
        struct request_out_end *out = end(r, now_ns, failure->status, outbox);
        out->text = failure->text;
        out->retry_after_ns = failure->retry_ns;
    }
}

/* -------------------------------------------------------------------------------------- decisions */

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
    const bool has_failed = r->patience_until_ns != UINT64_MAX;
    const bool may_pass = (d->reason == MC_REASON_KV_MEMORY && d->retry_after_ns != 0) ||
                          (d->reason == MC_REASON_NO_INSTANCE && has_failed);

    r->in_sched = false;
    r->barred = r->barred_decode = 0; /* the one that failed may be all there is */
    if (may_pass && wait(r, now_ns, first(r->options->wait_ns, WAIT_NS)))
        return;
    struct request_out_end *out = end(r, now_ns, status_of_refusal(d->reason), outbox);
    out->reason = d->reason;
    out->retry_after_ns = d->retry_after_ns;
}

/* To the prefill worker. reserved: at another decode worker; NULL: it decodes here. */
static void put_prefill(struct request *r, const struct wire_reserved *reserved,
                        struct request_outbox *outbox)
{
    const struct request_options *o = r->options;
    struct wire_prefill *prefill = &put(outbox, REQUEST_OUT_PREFILL, r->prefill)->prefill;

    *prefill = (struct wire_prefill){ .request = r->attempt,
                                      .tokens = o->tokens,
                                      .sampling = o->sampling,
                                      .fingerprint = o->fingerprint,
                                      .salt = o->salt,
                                      .tenant = o->tenant,
                                      .cache = o->cache,
                                      .priority = o->sched.priority,
                                      .order = r->decision.order,
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
    struct wire_reserve *reserve = &put(outbox, REQUEST_OUT_RESERVE, r->decode)->reserve;

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
    const struct request_failure failure = { MC_E_PEER, text("a worker was lost"), 0 };

    if (!r->in_sched)
        return false;
    r->in_sched = false;
    if (r->phase == REQUEST_PLACING)
        fail(r, now_ns, &failure, 0, 0, outbox);
    return true;
}

static bool on_decided(struct request *r, uint64_t now_ns, const struct mc_decision *d,
                       struct request_outbox *outbox)
{
    if (d->kind == MC_DECIDE_ABORT)
        return on_abort(r, now_ns, outbox);
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
            put_prefill(r, NULL, outbox);
        else
            put_reserve(r, outbox);
    }
    return true; /* MC_DECIDE_WAIT: it will decide again */
}

static bool on_not_decided(struct request *r, uint64_t now_ns,
                           const struct request_failure *failure, struct request_outbox *outbox)
{
    if (r->phase != REQUEST_PLACING)
        return false;
    r->in_sched = false;
    end(r, now_ns, failure->status, outbox)->text = failure->text;
    return true;
}

/* -------------------------------------------------------------------------------- decode worker's */

static bool on_reserved(struct request *r, uint64_t now_ns, const struct wire_reserved *reserved,
                        struct request_outbox *outbox)
{
    if (r->phase != REQUEST_RESERVING)
        return false;
    r->times.reserved_ns = now_ns;
    put_prefill(r, reserved, outbox);
    return true;
}

static bool on_not_reserved(struct request *r, uint64_t now_ns,
                            const struct request_failure *failure, struct request_outbox *outbox)
{
    if (r->phase != REQUEST_RESERVING)
        return false;
    r->at_decode = failure->status == MC_E_TIMEOUT; /* it may have come there */
    fail(r, now_ns, failure, 0, r->decode, outbox);
    return true;
}

static void keep_tokens(struct request *r, uint64_t now_ns, const struct wire_tokens *tokens,
                        struct request_outbox *outbox)
{
    const uint64_t known = r->output_tokens - tokens->index;

    if (known >= tokens->samples.count)
        return;
    struct request_out_tokens *out = &put(outbox, REQUEST_OUT_TOKENS, 0)->tokens;
    out->message = tokens;
    out->skip = (uint32_t)known;
    out->count = tokens->samples.count - out->skip;
    if (r->output_tokens == 0) {
        r->times.first_ns = now_ns;
        r->settle_until_ns = add(now_ns, first(r->options->settle_ns, SETTLE_NS));
        put_progress(r, MC_EVENT_DECODE_BEGIN, r->decode, outbox);
    }
    r->output_tokens += out->count;
}

static bool on_tokens(struct request *r, uint64_t now_ns, const struct wire_tokens *tokens,
                      struct request_outbox *outbox)
{
    if ((r->phase != REQUEST_PREFILLING && r->phase != REQUEST_DECODING) || r->finish != 0)
        return false;
    if (tokens->index > r->output_tokens) {
        const struct request_failure gap = { MC_E_CORRUPT, text("tokens of the answer are missing"),
                                             0 };
        fail(r, now_ns, &gap, 0, r->decode, outbox);
        return true;
    }
    if (tokens->finish > FINISH_LENGTH) {
        const struct request_failure failure = { tokens->status == MC_OK ? MC_E_IO : tokens->status,
                                                 tokens->text, 0 };
        r->at_decode = false;
        if (r->prefill == r->decode)
            r->at_prefill = false;
        fail(r, now_ns, &failure, 0, r->decode, outbox);
        return true;
    }
    keep_tokens(r, now_ns, tokens, outbox);
    r->finish = tokens->finish;
    if (r->finish != 0) {
        r->at_decode = false;
        if (r->settle_until_ns == UINT64_MAX) /* an answer without a token */
            r->settle_until_ns = add(now_ns, first(r->options->settle_ns, SETTLE_NS));
        if (r->prefill == r->decode)
            r->at_prefill = false;
    }
    show(r, now_ns, outbox);
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
    fail(r, now_ns, failure, r->prefill, 0, outbox);
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
        put_progress(r, MC_EVENT_PREFILL_BEGIN, r->prefill, outbox);
    }
    return true;
}

/* What the scheduler learns from a prefill. */
static void report_prefill(const struct request *r, struct request_outbox *outbox)
{
    const uint64_t tokens = r->options->sched.tokens;
    struct mc_sched_progress *p = put_progress(r, MC_EVENT_PREFILL_END, r->prefill, outbox);

    p->reused = r->reused_tokens < tokens ? r->reused_tokens : tokens;
    p->tokens = tokens - p->reused;
    p->duration_ns = r->compute_ns;
    if (r->pulled_bytes == 0 || r->pull_ns == 0 || r->decision.holder == 0)
        return;
    struct mc_sched_event *event = &put(outbox, REQUEST_OUT_SCHED, 0)->sched;
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

        fail(r, now_ns, &failure, r->prefill, blames_decode(r, failure.status) ? r->decode : 0,
             outbox);
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
    if (r->prefill == r->decode && r->finish == 0)
        r->at_decode = true;
    report_prefill(r, outbox);
    prefill_is_over(r, now_ns, outbox);
    return true;
}

/* ----------------------------------------------------------------------------------- from anywhere */

static void lose_decode(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    const struct request_failure failure = { MC_E_PEER, text("the decode worker was lost"), 0 };

    r->at_decode = false;
    if (r->prefill == r->decode)
        r->at_prefill = false;
    if (r->finish == 0) /* else all of the answer has come */
        fail(r, now_ns, &failure, r->prefill == r->decode ? r->prefill : 0, r->decode, outbox);
}

static void lose_prefill(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    const struct request_failure failure = { MC_E_PEER, text("the prefill worker was lost"), 0 };

    r->at_prefill = false;
    if (r->phase == REQUEST_DECODING)
        return;
    if (is_handed_off(r))
        prefill_goes_unheard(r, now_ns, outbox);
    else
        fail(r, now_ns, &failure, r->prefill, 0, outbox);
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
    if (r->at_decode)
        put_cancel(r, r->decode, CANCEL_STOP, outbox);
    r->at_decode = false;
    show(r, now_ns, outbox);
    return true;
}

static bool on_time(struct request *r, uint64_t now_ns, struct request_outbox *outbox)
{
    const uint64_t deadline_ns = r->options->sched.deadline_ns;

    if (r->phase == REQUEST_NEW)
        return false;
    if (deadline_ns != 0 && now_ns >= deadline_ns)
        give_up(r, now_ns, MC_E_TIMEOUT, CANCEL_DEADLINE, SCHED_DEADLINE, outbox)->text =
            text("the request's deadline has passed");
    else if (r->phase == REQUEST_WAITING && now_ns >= r->wait_until_ns)
        ask(r, outbox);
    else if (r->phase == REQUEST_PREFILLING && now_ns >= r->settle_until_ns)
        prefill_goes_unheard(r, now_ns, outbox);
    return true;
}

uint64_t request_due_ns(const struct request *r)
{
    const uint64_t deadline_ns = first(r->options->sched.deadline_ns, UINT64_MAX);
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
        ask(r, outbox);
        return true;
    case REQUEST_DECIDED:
        return on_decided(r, now_ns, event->decision, outbox);
    case REQUEST_NOT_DECIDED:
        return on_not_decided(r, now_ns, &event->failure, outbox);
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
        give_up(r, now_ns, MC_E_CANCELLED, CANCEL_CLIENT, SCHED_CLIENT, outbox);
        return true;
    case REQUEST_STOP:
        return on_stop(r, now_ns, outbox);
    case REQUEST_GIVE_UP:
        give_up(r, now_ns, event->failure.status, CANCEL_DRAIN, SCHED_FAILED, outbox)->text =
            event->failure.text;
        return true;
    case REQUEST_TIME:
        return on_time(r, now_ns, outbox);
    }
    assert(false && "an event that there is not");
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
