/* decode.c - phases of a reservation; what must be quiet before its pages are another's. */
#include "worker/core/decode.h"

#include <assert.h>

void decode_init(struct decode *d, uint64_t lease_ns, uint64_t now_ns)
{
    *d = (struct decode){ .phase = DECODE_RESERVED,
                          .lease_ns = lease_ns,
                          .until_ns = now_ns + lease_ns,
                          .window = true,
                          .held = true };
}

static struct decode_out *put(struct decode_outbox *outbox, enum decode_out_kind kind)
{
    struct decode_out *out = &outbox->items[outbox->count++];

    assert(outbox->count <= DECODE_OUTBOX_MAX);
    *out = (struct decode_out){ .kind = kind };
    return out;
}

static bool is_over(const struct decode *d)
{
    return d->phase >= DECODE_LEAVING;
}

static void answer_hand_off(struct decode *d, mc_status status, struct decode_outbox *outbox)
{
    if (d->waiting)
        put(outbox, DECODE_OUT_ANSWER_HAND_OFF)->status = status;
    d->waiting = false;
}

/* ------------------------------------------------------------------------------------- phases */

static void end(struct decode *d, mc_status status, struct decode_outbox *outbox)
{
    if (d->phase == DECODE_RESERVED)
        put(outbox, DECODE_OUT_REVOKE); /* in CLOSING it is under way, later it is quiet */
    if (d->in_engine)
        put(outbox, DECODE_OUT_STOP_ENGINE);
    if (d->puts > 0)
        put(outbox, DECODE_OUT_STOP_PUTS);
    d->phase = DECODE_ENDING;
    d->status = status;
    d->until_ns = UINT64_MAX;
    answer_hand_off(d, status, outbox);
}

static void on_hand_off(struct decode *d, mc_status status, struct decode_outbox *outbox)
{
    d->waiting = true;
    switch (d->phase) {
    case DECODE_RESERVED:
        if (status != MC_OK) {
            answer_hand_off(d, status, outbox); /* not ours: the right one may still come */
            return;
        }
        d->phase = DECODE_CLOSING;
        d->until_ns = UINT64_MAX;
        put(outbox, DECODE_OUT_REVOKE);
        return;
    case DECODE_CLOSING:
    case DECODE_FULL:
        return; /* asked again: one answer for both */
    case DECODE_DECODING:
    case DECODE_LEAVING:
        answer_hand_off(d, status, outbox);
        return;
    case DECODE_ENDING:
    case DECODE_DONE:
        answer_hand_off(d, d->status == MC_OK ? MC_E_STALE : d->status, outbox);
        return;
    }
}

static void on_renew(struct decode *d, const struct decode_event *event, uint64_t now_ns,
                     struct decode_outbox *outbox)
{
    const bool alive = !is_over(d);

    if (d->phase == DECODE_RESERVED && (event->queued || event->tokens > d->progress)) {
        if (event->lease_ns)
            d->lease_ns = event->lease_ns;
        d->progress = event->tokens;
        d->until_ns = now_ns + d->lease_ns;
        put(outbox, DECODE_OUT_RENEW)->lease_ns = d->lease_ns;
    }
    put(outbox, DECODE_OUT_ANSWER_RENEW)->status = alive ? MC_OK : MC_E_STALE;
}

static void on_quiet(struct decode *d, struct decode_outbox *outbox)
{
    d->window = false;
    if (d->phase != DECODE_CLOSING)
        return;
    d->phase = DECODE_FULL;
    d->verifying = true;
    put(outbox, DECODE_OUT_VERIFY);
}

static void on_verified(struct decode *d, mc_status status, struct decode_outbox *outbox)
{
    if (!d->verifying)
        return;
    d->verifying = false;
    if (d->phase != DECODE_FULL)
        return;
    if (status != MC_OK) {
        end(d, status, outbox); /* the prefill worker hears it and tells the gateway */
        return;
    }
    d->phase = DECODE_DECODING;
    d->held = false;
    d->in_engine = true;
    put(outbox, DECODE_OUT_JOIN);
    answer_hand_off(d, MC_OK, outbox);
}

static void on_out(struct decode *d)
{
    d->in_engine = false;
    if (d->phase == DECODE_DECODING)
        d->phase = DECODE_LEAVING;
}

static void on_cancel(struct decode *d, struct decode_outbox *outbox)
{
    if (d->phase == DECODE_LEAVING && d->puts > 0)
        put(outbox, DECODE_OUT_STOP_PUTS);
    if (!is_over(d))
        end(d, MC_E_CANCELLED, outbox);
}

static void on_time(struct decode *d, uint64_t now_ns, struct decode_outbox *outbox)
{
    if (now_ns < d->until_ns || d->phase != DECODE_RESERVED)
        return;
    end(d, MC_E_TIMEOUT, outbox);
    put(outbox, DECODE_OUT_TELL)->status = MC_E_TIMEOUT;
}

static void let_go(struct decode *d, struct decode_outbox *outbox)
{
    if (!is_over(d) || d->phase == DECODE_DONE || d->window || d->verifying)
        return;
    if (d->held)
        put(outbox, DECODE_OUT_DROP);
    d->held = false;
    if (d->in_engine || d->puts > 0)
        return;
    d->phase = DECODE_DONE;
    put(outbox, DECODE_OUT_FREE);
}

void decode_step(struct decode *d, uint64_t now_ns, const struct decode_event *event,
                 struct decode_outbox *outbox)
{
    switch (event->kind) {
    case DECODE_HAND_OFF:
        on_hand_off(d, event->status, outbox);
        break;
    case DECODE_RENEW:
        on_renew(d, event, now_ns, outbox);
        break;
    case DECODE_QUIET:
        on_quiet(d, outbox);
        break;
    case DECODE_VERIFIED:
        on_verified(d, event->status, outbox);
        break;
    case DECODE_OUT:
        on_out(d);
        break;
    case DECODE_PUT:
        if (d->phase != DECODE_DONE)
            d->puts++;
        break;
    case DECODE_PUT_FINAL:
        d->puts -= event->more < d->puts ? event->more + 1 : d->puts;
        break;
    case DECODE_CANCEL:
        on_cancel(d, outbox);
        break;
    case DECODE_TIME:
        on_time(d, now_ns, outbox);
        break;
    }
    let_go(d, outbox);
}

uint64_t decode_due_ns(const struct decode *d)
{
    return d->until_ns;
}
