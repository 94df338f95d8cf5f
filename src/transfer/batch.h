/*
 * batch.h - a batch from inside: its entries, and how they end.
 *
 * Threads: one owner; what drivers of segments and the loop touch is atomic or under `lock`. An entry
 *          belongs to the batch until it is pushed to its segment, then to whoever holds that segment's
 *          lock, and to the batch again when it is finished.
 */
#ifndef TRANSFER_BATCH_H
#define TRANSFER_BATCH_H

#include "transfer/control.h"
#include "transfer/engine.h"
#include "transfer/plan.h"

struct map;
struct path;
struct segment;

/** One transfer. */
struct entry {
    struct entry *next; /* of the list it is in */
    struct mc_batch *batch;
    struct segment *segment; /* the batch's ref */
    struct mc_xfer xfer;
    struct mc_window window; /* copied; key 0, 0: none */
    uint64_t end;            /* of what it touches there */
    struct plan_cursor cursor;
    struct map *map;           /* used; or NULL */
    struct path *path;         /* that it is on; or NULL */
    uint64_t total, moved_now; /* bytes; moved_now: in this attempt */
    uint32_t flying;           /* slices cut and not completed */
    uint32_t tried;            /* bit of each carrier that failed it */
    uint32_t round;            /* of the segment's description when it began to wait */
    bool whole;                /* all slices are cut */
    mc_status error;           /* of this attempt, MC_OK so far */
    uint64_t submitted_ns;
    /* Read by the owner at any time; relaxed but for status: release, then acquire. */
    _Atomic int status; /* mc_status; MC_PENDING until it is finished */
    _Atomic uint32_t attempts;
    _Atomic uint64_t bytes, posted_ns, finished_ns;
    _Atomic(const char *) transport;
};

/** A notice to be sent. */
struct batch_notice {
    struct batch_notice *next;
    struct mc_batch *batch;
    struct segment *segment; /* a ref */
    bool sent, answered;     /* the loop's */
    struct peer_ask ask;     /* the loop's */
    char name[MC_NAME_MAX + 1];
    size_t size;
    uint8_t message[]; /* [size] */
};

struct mc_batch {
    mc_transfer *engine;
    mc_batch *next, **prev_p;            /* under engine->batches_lock */
    uint64_t capacity, added, submitted; /* the owner's */
    uint32_t priority;
    enum mc_checksum checksum;
    struct entry *entries;     /* owned; [capacity] */
    struct segment **segments; /* owned; [segments_max], each a ref; atomic count publishes them */
    uint32_t segments_max;
    _Atomic uint32_t segment_count;
    mc_status final;              /* the owner's: what it was told for good; MC_PENDING before */
    bool started;                 /* the owner's: submitted once */
    struct batch_notice *notices; /* owned; the owner's until the first submit */
    _Atomic uint64_t deadline_ns; /* UINT64_MAX: none */
    _Atomic int stop;             /* MC_OK, or MC_E_CANCELLED, MC_E_TIMEOUT */
    _Atomic uint64_t unfinished;  /* entries, and one for the notices and one for a submit */
    int event;                    /* of fd and sleep; -1: none yet */
    pthread_mutex_t lock;         /* leaf */
    /* Under lock: */
    bool wanted; /* raise the event when it is complete */
    mc_status error;
    struct mc_error text;
    bool fd_given;       /* mc_batch_fd() was asked: the event stays raised once it is complete */
    bool noticing;       /* the loop has the notices */
    struct os_post post; /* the loop's: notices_run() */
};

/** An entry is finished: count it, note the first error. The batch may be gone afterwards. */
void batch_entry_done(struct entry *entry, mc_status status, const struct mc_error *error);

/** Set why it is to stop, once, and have its segments see to it: at once by this thread if `drive`, which
 * then holds no lock; else by the loop. Any thread. */
void batch_stop(struct mc_batch *batch, mc_status reason, bool drive);

/** Move it along once: MC_PENDING, or what it is for good. *moved_p becomes true if anything moved. The
 * owner. */
mc_status batch_look(struct mc_batch *batch, bool *moved_p);

/** The loop: stop those whose time is over; returns when the next one's is. */
uint64_t batches_expire(mc_transfer *engine, uint64_t now_ns);

/** One of those that `unfinished` counts is done. The batch may be gone afterwards. */
void batch_part_done(struct mc_batch *batch);

/** Note why it failed, if nothing was noted before. */
void batch_fail(struct mc_batch *batch, mc_status status, const struct mc_error *error);

/** Why an entry's batch stops, or MC_OK. */
static inline mc_status batch_stopped(const struct mc_batch *batch)
{
    return (mc_status)atomic_load_explicit(&batch->stop, memory_order_acquire);
}

/* ---- wait.c */

/** Sleep until the batch may be complete or until then. */
void batch_sleep(struct mc_batch *batch, uint64_t until_ns);

/* ---- notify.c */

/** The loop: all transfers moved, send the notices. `user`: the batch. The last answer calls
 * batch_part_done(). */
void notices_run(void *user);
/** The loop: forget what is not answered. */
void notices_stop(struct mc_batch *batch);

#endif /* TRANSFER_BATCH_H */
