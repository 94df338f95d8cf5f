/*
 * request.h - the life of one request at the gateway, as a state machine: events in, an outbox out.
 *
 *      NEW ──start──▶ PLACING ──placed──▶ RESERVING ──reserved──▶ PREFILLING ──handed off──▶ DECODING
 *                      ▲   ▲  └──────── prefill and decode at one worker ───▶┘                  │
 *        a worker lost │   │ room again                                          last token     ▼
 *        or refused ───┘  WAITING ◀── no worker, no memory now          anything final ──▶ ENDED
 *
 * Life:    request_init -> request_step* until phase is REQUEST_ENDED -> forget it. Nothing to free.
 * Threads: one. Pure: no input or output, no clock, no memory; `now_ns` (CLOCK_MONOTONIC) is given.
 * Memory:  what request_options points to is borrowed until ENDED. What an event points to is borrowed
 *          during the step, and the outbox may point into it: carry the outbox out before going on.
 * Errors:  whatever comes late, twice or from the wrong worker is dropped and counted (`dropped`).
 *
 * An attempt is one placement of the request. Each has an id of its own, the `request` of every message and
 * scheduler event: what a lost attempt still says can never be taken for the next one's words.
 *
 * Tried again: until REQUEST_OUT_BEGIN nothing was shown to the client, so a lost or failing worker costs
 * time only: what is held elsewhere is cancelled, and the scheduler asked again with the culprit barred, at
 * most `tries_max` times in all. A worker without room, and no worker left after a loss (it may be
 * restarting), are waited for: `patience_ns` in all. After REQUEST_OUT_BEGIN a loss ends the answer with
 * MC_E_PEER.
 *
 * Held at workers: a reservation at `decode`, work at `prefill`. Each is given back exactly once: by its
 * own end, by its worker's loss, or by a REQUEST_CANCEL. (Over one connection, messages stay in order: a
 * cancel may follow a RESERVE that is not answered yet. A worker that loses the gateway ends its requests.)
 *
 * What whoever carries the outbox must do:
 *  - REQUEST_OUT_SCHED: give `.sched` to the scheduler; decisions come back as REQUEST_DECIDED, a refused
 *    MC_EVENT_REQUEST as REQUEST_NOT_DECIDED. A new attempt's id is in its MC_EVENT_REQUEST.
 *  - REQUEST_OUT_RESERVE, _PREFILL: ask instance `.instance`, with a deadline of their own; fill in first
 *    what only the registry knows: reserve.holder (incarnation of request.prefill's engine),
 *    prefill.decode_address, and the pool's number of prefill.holder (the scheduler's id here). What cannot be sent at all is answered by a REQUEST_NOT_... event, after
 *    the outbox was carried out, never inside.
 *  - A decision that is MC_DECISION_STAGED: the worker decodes from the hand-off on, but what it says is kept until
 *    the scheduler has answered MC_EVENT_PREFILL_END; refused then, the answer is cancelled unseen.
 *  - When an instance is gone: first give MC_EVENT_INSTANCE_GONE to the scheduler and hand its decisions
 *    on, then step every request with REQUEST_LOST (which decides: MC_DECIDE_ABORT alone says too little).
 *  - Call with REQUEST_TIME at request_due_ns().
 * The scheduler's MC_EVENT_DECODE_STEP comes from load reports, not from here.
 */
#ifndef GATEWAY_CORE_REQUEST_H
#define GATEWAY_CORE_REQUEST_H

#include <mooncake/sched.h>

#include "base/gaps.h"
#include "wire/msg.h"

enum request_phase {
    REQUEST_NEW,
    REQUEST_PLACING,    /* the scheduler was asked */
    REQUEST_WAITING,    /* no room or no worker: the scheduler is asked again at wait_until_ns */
    REQUEST_RESERVING,  /* pages at `decode` */
    REQUEST_PREFILLING, /* at `prefill`; tokens may come already */
    REQUEST_DECODING,   /* at `decode` */
    REQUEST_ENDED,
};
enum { REQUEST_PHASES = REQUEST_ENDED + 1 };

/** What is 0 has its default, but for sched.tokens, ids, tokens and fingerprint. Borrowed until ENDED. */
struct request_options {
    /** As the scheduler is asked; id is set for each attempt, keys are borrowed. `barred` always holds;
     * a deadline ends the request with MC_E_TIMEOUT. */
    struct mc_sched_request sched;
    uint64_t *ids;            /* the gateway's: the last id given out; raised for each attempt */
    struct wire_array tokens; /* the prompt */
    struct wire_sampling sampling;
    struct mc_identity fingerprint; /* of the model */
    struct wire_slice salt, tenant; /* of the cache keys */
    uint32_t cache;                 /* as in prefill.cache */
    bool stream;                    /* tokens go to the client as they come */
    uint32_t tries_max;             /* attempts that may fail; default 3 */
    uint64_t patience_ns;           /* waited for room or a worker, in all; default 10 s */
    uint64_t wait_ns;               /* between looks for room; default 50 ms */
    uint64_t settle_ns; /* tokens wait so long for prefill_end and its counters; default 1 s */
    uint64_t lease_ns;  /* of the reservation; 0: the worker's default */
};

/* ---------------------------------------------------------------------------------------- events */

enum request_event_kind {
    REQUEST_START,
    REQUEST_DECIDED,      /* the scheduler's: .decision */
    REQUEST_NOT_DECIDED,  /* mc_sched_step() refused the question: .failure */
    REQUEST_RESERVED,     /* answer to reserve: .reserved */
    REQUEST_NOT_RESERVED, /* it was refused, timed out (MC_E_TIMEOUT), could not be sent: .failure */
    REQUEST_TAKEN,        /* answer to prefill: MC_OK */
    REQUEST_NOT_TAKEN,    /* as above: .failure */
    REQUEST_PROGRESS,     /* .progress */
    REQUEST_PREFILLED,    /* prefill_end, whatever its status: .prefilled */
    REQUEST_TOKENS,       /* .tokens */
    REQUEST_LOST,         /* instance `from` is gone; any attempt */
    REQUEST_CLIENT_GONE,  /* hung up; any attempt */
    REQUEST_STOP, /* the answer is whole as it is (a stop text): ends it well; any attempt */
    REQUEST_GIVE_UP, /* the gateway cannot go on (client too slow, shutting down): .failure; any attempt */
    REQUEST_TIME, /* request_due_ns() has come; any attempt; early ones do nothing */
};
enum { REQUEST_EVENTS = REQUEST_TIME + 1 };

struct request_failure {
    mc_status status;
    struct wire_slice text; /* may be empty */
    uint64_t retry_ns;      /* as in outcome; 0: not said */
};

struct request_event {
    enum request_event_kind kind;
    uint64_t
        attempt; /* the `request` of message or decision; not read where it says "any attempt" */
    uint64_t
        from; /* the instance that says so, or is lost; 0 for the scheduler's and the client's */
    union {   /* borrowed during the step */
        const struct mc_decision *decision;
        const struct wire_reserved *reserved;
        const struct wire_prefill_progress *progress;
        const struct wire_prefill_end *prefilled;
        const struct wire_tokens *tokens;
        struct request_failure failure;
    };
};

/* ---------------------------------------------------------------------------------------- outbox */

enum request_out_kind {
    REQUEST_OUT_SCHED,   /* .sched */
    REQUEST_OUT_RESERVE, /* ask `instance`: .reserve */
    REQUEST_OUT_PREFILL, /* ask `instance`: .prefill */
    REQUEST_OUT_CANCEL,  /* ask `instance`, nobody waits for the answer: .cancel */
    REQUEST_OUT_TOKENS,  /* keep for the client, in order: .tokens */
    REQUEST_OUT_RESTART, /* forget the tokens kept: the answer starts anew (never after BEGIN) */
    REQUEST_OUT_BEGIN, /* from now on the client may see the tokens kept; counters in struct request are final */
    REQUEST_OUT_END, /* the last entry of a request, once: .end */
};

/** Samples [skip, skip + count) of a tokens message. */
struct request_out_tokens {
    const struct wire_tokens *message;
    uint32_t skip, count;
};

/** How the client's answer ends. Without a BEGIN before it, nothing was shown: an HTTP status is free. */
struct request_out_end {
    mc_status status;        /* MC_OK: whole; MC_E_CANCELLED: the client left, nobody listens */
    uint32_t finish;         /* 1 stop, 2 length, as in tokens.finish; 0 with an error */
    uint32_t reason;         /* enum mc_reason of a refusal; 0: no refusal */
    uint64_t retry_after_ns; /* of a refusal; 0: not said */
    struct wire_slice text;  /* for people; may be empty */
};

struct request_out {
    enum request_out_kind kind;
    uint64_t instance;
    union {
        struct mc_sched_event sched;
        struct wire_reserve reserve;
        struct wire_prefill prefill;
        struct wire_request_cancel cancel;
        struct request_out_tokens tokens;
        struct request_out_end end;
    };
};

enum { REQUEST_OUTBOX_MAX = 12 }; /* more than any step writes (a test counts) */

struct request_outbox {
    uint32_t count; /* set to 0 by the one who empties it; a step appends */
    struct request_out items[REQUEST_OUTBOX_MAX];
};

/* --------------------------------------------------------------------------------------- request */

/** When what happened, for the log line; 0: not yet, or not in this attempt. */
struct request_times {
    uint64_t started_ns, placed_ns, reserved_ns, taken_ns, prefilled_ns, first_ns, last_ns,
        ended_ns;
};

/** Open for reading; written by request_step() alone. */
struct request {
    const struct request_options *options; /* borrowed until ENDED */
    enum request_phase phase;

    uint64_t attempt;            /* id of the current one */
    uint64_t prefill, decode;    /* instances of it; 0: not placed */
    struct mc_decision decision; /* the scheduler's last one for it (keys is NULL) */
    uint32_t tries;              /* attempts that failed */
    uint32_t waits;              /* looks for room that found none */

    uint64_t pulled_bytes, reused_tokens,
        pushed_bytes; /* of the current attempt, from prefill_end */
    uint64_t queue_ns, pull_ns, compute_ns, hand_off_ns; /* the same */
    uint64_t output_tokens; /* of the current attempt: index of the next sample */
    struct gaps gaps;       /* of the current attempt: between its tokens, as they came here */
    uint64_t dropped;       /* events that came late, twice or from elsewhere */
    struct request_times times;

    /* The rest is request.c's. */
    bool at_prefill, at_decode; /* something of this attempt is held there */
    bool in_sched;              /* the scheduler knows this attempt */
    bool prefill_begun, prefill_over, begun;
    bool may_decode; /* the scheduler said so, of a decision that is MC_DECISION_STAGED */
    uint32_t finish; /* of the last tokens; 0: they go on */
    bool stopped;    /* by us: the worker would go on */
    uint64_t barred, barred_decode;
    bool no_room;                                               /* why they are barred */
    uint64_t wait_until_ns, patience_until_ns, settle_until_ns; /* UINT64_MAX: not set */
};

/** NEW. */
void request_init(struct request *request, const struct request_options *options);

/**
 * Take in one event. Afterwards carry `outbox` out, in order.
 *
 * outbox  count is 0 on entry.
 */
void request_step(struct request *request, uint64_t now_ns, const struct request_event *event,
                  struct request_outbox *outbox);

/** When REQUEST_TIME is due; UINT64_MAX: never. */
uint64_t request_due_ns(const struct request *request);

#endif /* GATEWAY_CORE_REQUEST_H */
