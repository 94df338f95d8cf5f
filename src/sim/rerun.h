/*
 * rerun.h - a recorded run of a scheduler, run again: does this object code decide the same?
 *
 * The recording (sched/record.h) holds the options, every event with its time, and what was decided. They are
 * given to a new scheduler; its decisions, as bytes, are held against the recorded ones. Nothing else of the
 * live cluster is needed, so whatever was decided live can be looked into offline, as often as one likes.
 *
 * Life:    rerun_open -> rerun_step* -> (look at the fields) -> rerun_close
 * Threads: one. Memory: from the allocator; the bytes are borrowed until close. Pure.
 * Errors:  texts say at which byte. A difference is a result, not an error.
 */
#ifndef SIM_RERUN_H
#define SIM_RERUN_H

#include "sched/record.h"

/** What was found to differ first. */
enum rerun_difference {
    RERUN_SAME,
    RERUN_STATUS,   /* what the step returned */
    RERUN_MISSING,  /* it was decided then, and is not now */
    RERUN_EXTRA,    /* it is decided now, and was not then */
    RERUN_DECISION, /* decided otherwise */
};

/** The two sides of the first difference. */
struct rerun_sides {
    enum rerun_difference kind;
    uint64_t event; /* its number, from 1 */
    uint64_t now_ns;
    uint32_t event_kind;
    mc_status then_status, now_status;
    struct mc_decision then, now; /* by kind: one or both are set */
};

struct rerun {
    const struct mc_alloc *alloc;
    const uint8_t *bytes; /* borrowed; [size] */
    size_t size, at;
    struct record_options options;
    mc_sched *sched;         /* owned */
    struct mc_key *keys;     /* owned; [body_max / their size], of one event */
    uint8_t *decision;       /* owned; [body_max], one as bytes */
    size_t body_max;         /* grows with the largest record */
    struct mc_decision *now; /* owned; what the last event's step decided, [now_count] */
    uint32_t now_count, now_taken, now_max;

    /* What has been played so far. */
    uint64_t events, decisions, skipped; /* skipped: the step's status was not MC_OK */
    uint64_t begin_ns, end_ns;           /* of the first event and the last */
    uint64_t placed, refused, others;
    uint64_t refused_by[64]; /* by enum mc_reason; the last: those beyond */
    uint32_t event_kind;     /* of the last event */
    bool ended;              /* there was an END: `last` */
    bool cut;                /* the file ends in the middle of a record */
    struct record_last last;
    struct rerun_sides first; /* difference */
};

/**
 * Read the options and open the scheduler.
 *
 * alloc  must outlive the rerun.
 *
 * Returns MC_OK, MC_E_FORMAT or MC_E_CORRUPT (no recording, or not of this release), MC_E_NOMEM, or what
 * mc_sched_open() returns.
 */
MC_MUST_USE mc_status rerun_open(struct rerun *rerun, const void *bytes, size_t size,
                                 const struct mc_alloc *alloc, struct mc_error *error);

/** Play at most `records` more. MC_PENDING: there are more; MC_OK: that was all; MC_E_FORMAT or
 * MC_E_CORRUPT: what follows is damaged; MC_E_NOMEM. */
MC_MUST_USE mc_status rerun_step(struct rerun *rerun, uint64_t records, struct mc_error *error);

/** `{ 0 }` is allowed. */
void rerun_close(struct rerun *rerun);

/** The first difference in words, or that there is none. */
void rerun_print(const struct rerun *rerun, struct buf *out);

#endif /* SIM_RERUN_H */
