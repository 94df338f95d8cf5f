/*
 * hook.h - a transport around another one ("hook:tcp"), which makes it fail, wait, lose and corrupt on
 * purpose, the same way each time for one seed.
 *
 * Slices are numbered from 1 as they are posted, over all queues of the transport; what happens to a slice
 * is a function of seed and number. Everything that transport.h promises is kept: a slice that is to fail
 * never moves, one that is dropped completes when it is cancelled, a byte is flipped while the slice's
 * memory is still the transport's.
 *
 * Settings of the inner transport are given with its name: "fail=0.01,tcp.buffer=64K".
 *
 * Threads: as the inner transport; numbers and counts are atomics.
 */
#ifndef TRANSPORT_HOOK_H
#define TRANSPORT_HOOK_H

#include <stdatomic.h>

#include "base/setting.h"
#include "transfer/transport.h"

/* "hook.<name>=<value>" in mc_transfer_options.settings. Names end in _at: that slice, 0 is none. */
#define HOOK_SETTINGS(X) \
    X(seed, "seed", 0, U64, "1", 0, 0, NULL, "N", "Hook", "Other faults, as often.") \
    X(fail, "fail", 0, FLOAT, "0", 0, 1, NULL, "P", "Hook", \
      "This share of slices fails without moving.") \
    X(fail_at, "fail_at", 0, U64, "0", 0, 0, NULL, "N", "Hook", "Slice N fails without moving.") \
    X(status, "status", 0, CHOICE, "io", 0, 0, "io|peer|stale|denied|range|corrupt|timeout", \
      "WORD", "Hook", "What a slice fails with.") \
    X(corrupt, "corrupt", 0, FLOAT, "0", 0, 1, NULL, "P", "Hook", \
      "This share of slices has a byte flipped where it went.") \
    X(corrupt_at, "corrupt_at", 0, U64, "0", 0, 0, NULL, "N", "Hook", \
      "Slice N has a byte flipped where it went.") \
    X(past, "past", 0, BOOL, "no", 0, 0, NULL, NULL, "Hook", \
      "Bytes are flipped after the transfer's own checksum was found right.") \
    X(drop, "drop", 0, FLOAT, "0", 0, 1, NULL, "P", "Hook", \
      "This share of slices is lost: it ends when it is cancelled.") \
    X(drop_at, "drop_at", 0, U64, "0", 0, 0, NULL, "N", "Hook", "Slice N is lost.") \
    X(end_at, "end_at", 0, U64, "0", 0, 0, NULL, "N", "Hook", \
      "At slice N its queue ends as if the peer were gone.") \
    X(delay_ns, "delay_ns", 0, U64, "0", 0, 3600e9, NULL, "N", "Hook", \
      "Completions are held back for so many nanoseconds.")

struct hook_options {
    HOOK_SETTINGS(SETTING_FIELD)
};

/** What happened so far. */
struct hook_counts {
    uint64_t slices, failed, corrupted, dropped, ended;
};

/** Memory with a given alignment from an allocator that promises 16. */
struct hook_memory {
    void *raw; /* owned */
    void *p;   /* aligned to 64, zeroed; NULL: none */
};

/** The transport's private bytes. */
struct hook {
    const struct transport_env *env; /* borrowed */
    const struct transport_ops *inner;
    struct transport_env inner_env;
    struct hook_memory transport; /* the inner one's private bytes */
    bool opened;                  /* the inner transport is */
    struct hook_options options;
    struct settings settings;
    char *text, *inner_text; /* owned; the two parts of env->settings */
    int fd;                  /* never readable, for an inner transport that serves nothing; or -1 */
    /* Relaxed: each slice needs a number of its own, and counts are for people. */
    atomic_uint_fast64_t slices, failed, corrupted, dropped, ended;
};

bool hook_memory_take(struct hook_memory *memory, const struct mc_alloc *alloc, size_t size);
void hook_memory_free(struct hook_memory *memory, const struct mc_alloc *alloc);

/** For tests and logs. Any thread. */
struct hook_counts hook_counts(const void *transport);

/** The inner transport's private bytes of a region. */
const void *hook_region_inner(const void *region);

/* The queue entries of the table (hook_queue.c), and what they keep: checked there. */
enum { HOOK_QUEUE_BYTES = 1024 };
mc_status hook_queue_open(void *transport, const struct transport_peer *peer, void *queue,
                          struct mc_error *error);
mc_status hook_queue_post(void *queue, struct transport_slice *const *slices, uint32_t count,
                          uint32_t *posted_p);
mc_status hook_queue_poll(void *queue, uint64_t now_ns, struct transport_completion *completions,
                          uint32_t max, uint32_t *count_p);
mc_status hook_queue_arm(void *queue, int *fd_p);
void hook_queue_cancel(void *queue, mc_status reason);
mc_status hook_queue_close(void *queue);
void hook_queue_error(void *queue, struct mc_error *error);

extern const struct transport_ops transport_hook;

#endif /* TRANSPORT_HOOK_H */
