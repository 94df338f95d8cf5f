/*
 * recorder.h - every event that the scheduler is given, and what it decides, into a file (sched/record.h).
 *
 * The loop's thread puts records into a ring in memory; a thread of its own writes them out, so a slow disk
 * never holds up serving. When the ring is full, or the disk says no, recording stops for good: the file
 * keeps all whole records until then and, where it can be written, an end that says why; one line of the
 * log says so, and serving goes on.
 *
 * Life:    recorder_open -> recorder_take* -> recorder_close
 * Threads: the owner's; besides it the one that writes. One lock, a leaf, over the ring's numbers.
 * Memory:  the ring, at open.
 * Errors:  open: the file. Later: events, told to the log.
 */
#ifndef GATEWAY_RECORDER_H
#define GATEWAY_RECORDER_H

#include <mooncake/sched.h>
#include <mooncake/transfer.h>

typedef struct recorder recorder; /* opaque */

struct recorder_options {
    const struct mc_alloc *alloc; /* borrowed until close */
    struct mc_log log;
    const char *path;                     /* copied; where it exists, ".1" and so on is appended */
    const struct mc_sched_options *sched; /* recorded first; borrowed during open */
    size_t ring_bytes;                    /* default 16 MiB */
};

/** Returns MC_OK, MC_E_ARG (a line break in an option), MC_E_IO, MC_E_EXISTS (a hundred),
 * MC_E_NOMEM. */
mc_status recorder_open(const struct recorder_options *options, recorder **recorder_p,
                        struct mc_error *error);

/** One step of the scheduler: what it was given, what it said, what it decided. NULL: nothing is recorded. */
void recorder_take(recorder *recorder, uint64_t now_ns, const struct mc_sched_event *event,
                   mc_status status);
/** One decision of that step. */
void recorder_take_decision(recorder *recorder, const struct mc_decision *decision);

struct recorder_counts {
    uint64_t events, decisions, bytes; /* recorded */
    bool runs;                         /* it has not stopped */
};
struct recorder_counts recorder_counts(const recorder *recorder); /* NULL: zeros */

/** The file's name, as it was opened. */
const char *recorder_path(const recorder *recorder);

/** Write what is left, and the end. NULL is allowed. */
void recorder_close(recorder *recorder);

#endif /* GATEWAY_RECORDER_H */
