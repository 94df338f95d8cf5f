/*
 * prefill.h - one request at the worker that prefills it, as a state machine: events in, outbox out.
 *
 *   QUEUED ──▶ PULLING ──▶ COMPUTING ──▶ HANDING_OFF ──▶ LEAVING ──▶ DONE
 *      └── nothing to pull ──▶ │  └─ decode here ──▶ DECODING ──▶ │      ▲
 *      └─────────── cancelled, failed, at any phase ──▶ ENDING ──────────┘
 *
 * While it computes, each layer of each chunk is pushed into the decode worker's window (push_plan.h),
 * `pushes_max` spans in flight. When all is pushed and quiet the decode worker is asked to take it. What
 * it holds is let go only when nothing reads or writes it any more: pages when pull, engine and pushes are
 * over; the request itself when its puts to the pool are final too.
 *
 * The window at the decode worker is leased: it is renewed here by progress, or because the request waits
 * its turn.
 *
 * Life:    prefill_init -> prefill_step* until PREFILL_DONE -> forget it. Nothing to free.
 * Threads: one. Pure: no input or output, no memory, no clock but `now_ns` (CLOCK_MONOTONIC).
 * Errors:  an event that does not fit the phase (late, twice) changes nothing but counters of what is in
 *          flight.
 *
 * What whoever carries the outbox must do: every PULL, COMPUTE, PUSH, HAND_OFF is answered exactly once
 * by its event, after the outbox was carried out, never inside; a _STOP only makes that answer come soon.
 * Call with PREFILL_TIME at prefill_due_ns().
 */
#ifndef WORKER_CORE_PREFILL_H
#define WORKER_CORE_PREFILL_H

#include <mooncake/status.h>

#include "worker/core/push_plan.h"

enum prefill_phase {
    PREFILL_QUEUED,      /* waits for its turn and its pages */
    PREFILL_PULLING,     /* its prefix is on the way from the pool */
    PREFILL_COMPUTING,   /* in the engine */
    PREFILL_HANDING_OFF, /* computed: the last pushes, then the decode worker is asked */
    PREFILL_DECODING,    /* the answer is made here, in the same pages */
    PREFILL_LEAVING,     /* over for the gateway; puts to the pool go on */
    PREFILL_ENDING,      /* nobody wants it; what is in flight is being stopped */
    PREFILL_DONE,
};
enum { PREFILL_PHASES = PREFILL_DONE + 1 };

struct prefill_options {
    struct push_layout layout;
    uint32_t prompt_tokens; /* >= 1 */
    uint32_t pull_tokens;   /* to try; whole pages, < prompt_tokens; 0: none */
    bool remote;            /* pushed to a decode worker; else decoded here */
    uint32_t pushes_max;    /* in flight; 1 .. PREFILL_PUSHES_MAX */
    uint32_t push_pages;    /* of a span of whole pages at most */
    uint64_t lease_ns;      /* of the window; renewed each third of it; remote only */
    uint64_t hand_off_ns;   /* to get the decode worker's answer, connecting again included */
};
enum { PREFILL_PUSHES_MAX = 16 };

enum prefill_event_kind {
    PREFILL_START,     /* its turn, and it has pages for its prompt */
    PREFILL_PULLED,    /* the pull is final: the first .tokens positions are there, maybe 0 */
    PREFILL_PROGRESS,  /* the engine is at .ready */
    PREFILL_SAMPLED,   /* the prompt is computed and the first token chosen */
    PREFILL_OUT,       /* the engine let go of it: .status MC_OK, or why it failed or was stopped */
    PREFILL_PUSHED,    /* one push is quiet: .status */
    PREFILL_ANSWERED,  /* the decode worker's answer to the hand-off; MC_E_PEER: none came */
    PREFILL_PEER_UP,   /* the decode worker can be asked (again) */
    PREFILL_PEER_GONE, /* it restarted, or knows nothing of the reservation: .status */
    PREFILL_PUT,       /* a put of its blocks to the pool begins */
    PREFILL_PUT_FINAL, /* and is over, whatever became of it */
    PREFILL_CANCEL,    /* nobody wants it: the gateway says so, or is gone */
    PREFILL_TIME,
};
enum { PREFILL_EVENTS = PREFILL_TIME + 1 };

struct prefill_event {
    enum prefill_event_kind kind;
    mc_status status;
    uint32_t tokens;
    uint32_t more; /* of PUT_FINAL: so many others are over, too */
    struct push_ready ready;
};

enum prefill_out_kind {
    PREFILL_OUT_PULL,    /* the first .tokens positions from the pool; answered by PULLED */
    PREFILL_OUT_COMPUTE, /* give it to the engine, .tokens are there; answered by OUT. To be decoded
                            * here: with its pages, which are the engine's to let go from then on */
    PREFILL_OUT_PUSH,    /* .span; answered by PUSHED */
    PREFILL_OUT_HAND_OFF,  /* ask the decode worker to take it; answered by ANSWERED */
    PREFILL_OUT_RENEW,     /* tell the decode worker of .tokens (a measure of progress), .queued */
    PREFILL_OUT_TELL,      /* tell the gateway of phase and progress */
    PREFILL_OUT_STOP_PULL, /* as soon as can be; the same for the next three */
    PREFILL_OUT_STOP_ENGINE,
    PREFILL_OUT_STOP_PUSHES,
    PREFILL_OUT_STOP_PUTS,
    PREFILL_OUT_STOP_ASK, /* forget the hand-off: it is not answered any more */
    PREFILL_OUT_END, /* tell the gateway that it is over: .status; at most once, never after a cancel */
    PREFILL_OUT_DROP, /* let go of the prompt's pages: nothing here touches them any more */
    PREFILL_OUT_FREE, /* the last: nothing is held, whoever cancelled it is answered */
};

struct prefill_out {
    enum prefill_out_kind kind;
    mc_status status;
    uint32_t tokens;
    bool queued;
    struct push_span span;
};

enum { PREFILL_OUTBOX_MAX = PREFILL_PUSHES_MAX + 12 };

struct prefill_outbox {
    uint32_t count; /* set to 0 by the one who empties it; a step appends */
    struct prefill_out items[PREFILL_OUTBOX_MAX];
};

/** When what happened; 0: not yet. */
struct prefill_times {
    uint64_t queued_ns, started_ns, pulled_ns, computed_ns, ended_ns;
};

/** Open for reading; written by prefill_step() alone. */
struct prefill {
    struct prefill_options options; /* copied */
    enum prefill_phase phase;
    mc_status status; /* why it ended */
    uint32_t reused;  /* positions that were pulled */
    struct push_ready ready;
    struct push_cursor cursor;
    uint32_t pushes, puts;                         /* in flight */
    bool held, pulling, in_engine, asked, sampled; /* pages; and what is in flight */
    bool told;                                     /* PREFILL_OUT_END went out */
    uint32_t progress;                             /* grows with all that gets done */
    uint64_t renew_ns, give_up_ns, ask_ns;         /* UINT64_MAX: not set */
    struct prefill_times times;
};

void prefill_init(struct prefill *prefill, const struct prefill_options *options, uint64_t now_ns);

/** While it is queued: pull so many instead. Whole pages, < prompt_tokens. */
void prefill_pull_set(struct prefill *prefill, uint32_t tokens);

/** Take in one event; then carry `outbox` out, in order. outbox->count is 0 on entry. */
void prefill_step(struct prefill *prefill, uint64_t now_ns, const struct prefill_event *event,
                  struct prefill_outbox *outbox);

/** When PREFILL_TIME is due; UINT64_MAX: never. */
uint64_t prefill_due_ns(const struct prefill *prefill);

/** In which order requests wait. */
struct prefill_place {
    uint32_t priority; /* lower first */
    uint64_t order;    /* within a priority: lower first, and those with 0 behind the others */
    uint64_t arrival;  /* then as they came */
};

/** Whether a is served before b. A strict order when arrivals differ. */
bool prefill_before(const struct prefill_place *a, const struct prefill_place *b);

#endif /* WORKER_CORE_PREFILL_H */
