/*
 * decode.h - one reservation at the worker that decodes it, as a state machine: events in, outbox out.
 *
 *   RESERVED ──hand-off──▶ CLOSING ──quiet──▶ FULL ──verified──▶ DECODING ──▶ LEAVING ──▶ DONE
 *      └── lease over, cancelled, gateway lost, wrong bytes: at any phase ──▶ ENDING ──────┘
 *
 * Its pages are reserved before the prefill begins and a window over them is granted, leased. The
 * lease is renewed by the prefill's progress, or because the prefill waits its turn; without either it
 * ends. Whatever ends it, the window is revoked first, and pages are let go only when it is quiet: until
 * then they are in quarantine. A hand-off closes the window too, before the checksums are compared: no
 * late write can change what was verified.
 *
 * Life:    decode_init -> decode_step* until DECODE_DONE -> forget it. Nothing to free.
 * Threads: one. Pure: no input or output, no memory, no clock but `now_ns` (CLOCK_MONOTONIC).
 * Errors:  an event that does not fit the phase (late, twice) changes nothing; a hand-off or renewal is
 *          always answered.
 *
 * What whoever carries the outbox must do: REVOKE, VERIFY, JOIN are answered exactly once by QUIET,
 * VERIFIED, OUT, after the outbox was carried out, never inside. Call with DECODE_TIME at decode_due_ns().
 */
#ifndef WORKER_CORE_DECODE_H
#define WORKER_CORE_DECODE_H

#include <stdbool.h>
#include <stdint.h>

#include <mooncake/status.h>

enum decode_phase {
    DECODE_RESERVED, /* the window is open */
    DECODE_CLOSING,  /* the pages are said to be full: the window is being revoked */
    DECODE_FULL,     /* quiet: checksums are compared */
    DECODE_DECODING, /* in the engine */
    DECODE_LEAVING,  /* the answer is over; puts to the pool go on */
    DECODE_ENDING,   /* nobody wants it; what is in flight is being stopped */
    DECODE_DONE,
};
enum { DECODE_PHASES = DECODE_DONE + 1 };

enum decode_event_kind {
    DECODE_HAND_OFF,  /* .status: MC_OK, or why it does not fit the reservation */
    DECODE_RENEW,     /* .tokens, .queued, .lease_ns (0: as before) */
    DECODE_QUIET,     /* the window is revoked and quiet */
    DECODE_VERIFIED,  /* .status: MC_OK, MC_E_CORRUPT */
    DECODE_OUT,       /* the engine let go of it, or could not take it */
    DECODE_PUT,       /* a put of its blocks to the pool begins */
    DECODE_PUT_FINAL, /* and is over, whatever became of it */
    DECODE_CANCEL,    /* nobody wants it: the gateway says so, or is gone */
    DECODE_TIME,
};
enum { DECODE_EVENTS = DECODE_TIME + 1 };

struct decode_event {
    enum decode_event_kind kind;
    mc_status status;
    uint64_t tokens;
    bool queued;
    uint32_t more; /* of PUT_FINAL: so many others are over, too */
    uint64_t lease_ns;
};

enum decode_out_kind {
    DECODE_OUT_RENEW,  /* the window's lease: .lease_ns from now */
    DECODE_OUT_REVOKE, /* the window; answered by QUIET, however long it takes */
    DECODE_OUT_VERIFY, /* the pages against the hand-off's checksums; answered by VERIFIED */
    DECODE_OUT_JOIN, /* give it to the engine with its pages, which are the engine's to let go from
                        * then on; answered by OUT */
    DECODE_OUT_STOP_ENGINE,
    DECODE_OUT_STOP_PUTS,
    DECODE_OUT_ANSWER_RENEW,    /* .status */
    DECODE_OUT_ANSWER_HAND_OFF, /* .status; whoever asked last */
    DECODE_OUT_TELL, /* tell the gateway that it failed: .status; at most once, never after a cancel */
    DECODE_OUT_DROP, /* let go of the reserved pages: nobody can touch them */
    DECODE_OUT_FREE, /* the last: nothing is held, whoever cancelled it is answered */
};

struct decode_out {
    enum decode_out_kind kind;
    mc_status status;
    uint64_t lease_ns;
};

enum { DECODE_OUTBOX_MAX = 8 };

struct decode_outbox {
    uint32_t count; /* set to 0 by the one who empties it; a step appends */
    struct decode_out items[DECODE_OUTBOX_MAX];
};

/** Open for reading; written by decode_step() alone. */
struct decode {
    enum decode_phase phase;
    mc_status status;                   /* why it ended */
    uint64_t lease_ns;                  /* of the window */
    uint64_t until_ns;                  /* when it ends; UINT64_MAX: not any more */
    uint64_t progress;                  /* the last that was told */
    bool window;                        /* open, or not known to be quiet */
    bool held;                          /* the pages are the reservation's */
    bool in_engine, verifying, waiting; /* waiting: a hand-off is not answered */
    uint32_t puts;
};

/** RESERVED: pages are held and the window is granted for `lease_ns`. */
void decode_init(struct decode *decode, uint64_t lease_ns, uint64_t now_ns);

/** Take in one event; then carry `outbox` out, in order. outbox->count is 0 on entry. */
void decode_step(struct decode *decode, uint64_t now_ns, const struct decode_event *event,
                 struct decode_outbox *outbox);

/** When DECODE_TIME is due; UINT64_MAX: never. */
uint64_t decode_due_ns(const struct decode *decode);

#endif /* WORKER_CORE_DECODE_H */
