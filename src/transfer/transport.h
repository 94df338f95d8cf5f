/*
 * transport.h - the table that every transport implements: self, tcp, shm, file, rdma, cuda, hook.
 *
 * Life:    probe -> open -> ... -> close; between them, in any number and order,
 *          region_open -> ... -> region_close -> region_poll until quiet
 *          window_open -> ... -> window_close -> window_poll until quiet, within a region's life
 *          queue_open -> post*, poll* -> queue_close
 * Threads: region_* and window_* may be called by any thread; serve by one at a time; a queue by one at
 *          a time. A transport starts no threads.
 * Memory:  the engine sets aside the private bytes that the table asks for (zeroed, aligned to 64)
 *          and passes them back; a transport allocates only in open and *_open, from
 *          env->alloc. post, poll and arm allocate nothing, lock nothing that another queue holds,
 *          and make no system call for each slice.
 * Errors:  a failed slice is a completion with a status and, where `error` is given, a text that
 *          names peer and place. What a peer sends is an event. Broken use by the engine is a bug:
 *          assert.
 *
 * What every transport keeps (the conformance suite asks each one):
 *   1. Quiet: once a slice's completion is polled, or queue_close has returned MC_OK, nothing touches
 *      the local memory of the slice; once region_poll or window_poll has returned MC_OK, nothing here,
 *      in a device or at a peer touches the memory behind it. Until then it is in quarantine.
 *   2. The key decides: every access to local memory by a peer names region or window and its
 *      generation, and is checked where the bytes move, against what region_open and window_open
 *      said last. Where the target's processor is not on the path, the initiator checks a page that
 *      the target maps too, under a pin (self, shm), or the device checks a key that is made anew with
 *      each generation (rdma). Leases are the engine's: it closes a window whose time is over.
 *   3. All completions come: each posted slice completes exactly once, also after cancel and when the
 *      peer is dead. A queue that has failed completes the rest with that status.
 *   4. Short pins: what env->pin gave is held while bytes move, never while a peer is waited for; the
 *      rest is pinned again, and refused if the window is gone by then. So only a pin in shared memory,
 *      whose owner stopped in the middle of a copy, can outlast a revoke.
 *   5. No order: slices may complete in any order.
 */
#ifndef TRANSFER_TRANSPORT_H
#define TRANSFER_TRANSPORT_H

#include <mooncake/transfer.h>

enum {
    TRANSPORT_ABI = 1,       /* a table of another number is not used. A plug-in is a shared library
                              * that exports its table as `mooncake_transport` */
    TRANSPORT_KEY_MAX = 128, /* bytes of a region's key or a peer's address, as published */
};

/** What a peer's access says of itself. */
struct transport_access {
    enum mc_op op;           /* the peer's: MC_READ reads local memory */
    uint32_t region;         /* slot; not read if key is set */
    uint64_t key[2];         /* of a window; 0, 0: none */
    uint64_t generation;     /* of region or window */
    uint64_t offset, length; /* in region or window */
    uint64_t region_offset; /* the same in the region, for one-sided transports: the engine asks the
                              * peer for a window's map; UINT64_MAX: not known */
    uint64_t peer;          /* incarnation of who asks */
};

struct transport_ops;

/** What the engine gives to a transport. Borrowed until close. */
struct transport_env {
    const struct mc_alloc *alloc;
    struct mc_log log;
    const char *listen;   /* "host:port" of the engine; the port is resolved */
    const char *topology; /* JSON, or NULL */
    const char *settings; /* "key=value,…" of this transport, or NULL */
    uint64_t incarnation; /* of this engine */
    const void *secret;   /* [secret_size], or NULL */
    size_t secret_size;
    uint32_t sessions_max, streams;
    const struct transport_ops *inner; /* the table that a hook wraps; NULL elsewhere */
    /** A peer asks for local memory: the one place that knows regions, windows, leases. Any thread.
     * MC_OK: *address_p is [size] bytes, pinned until unpin; MC_E_DENIED, MC_E_STALE, MC_E_RANGE. */
    mc_status (*pin)(void *engine, const struct transport_access *access, void **address_p,
                     uint64_t *pin_p);
    void (*unpin)(void *engine, uint64_t pin);
    /** Optional, may be NULL: so many bytes of a peer's access moved, under whatever number of pins. */
    void (*moved)(void *engine, enum mc_op op, uint64_t bytes);
    void *engine; /* passed back to these */
};

enum transport_flags {
    TRANSPORT_SAME_HOST = 1,     /* reaches only peers on this machine */
    TRANSPORT_DEVICE = 2,        /* takes device memory */
    TRANSPORT_ONE_SIDED = 4,     /* the target's processor is not on the path */
    TRANSPORT_CHECKSUM = 8,      /* can make and verify CRC32C on the way */
    TRANSPORT_NEEDS_REGION = 16, /* local memory must be known before a post */
};

/** What probe found. */
struct transport_caps {
    uint32_t flags;       /* enum transport_flags */
    uint32_t queue_depth; /* slices posted and not completed, of one queue */
    uint64_t slice_max;   /* bytes of one slice */
    uint64_t slice_best;  /* bytes to cut to when a transfer is large */
    uint64_t bytes_per_s; /* of one path, first guess; 0: not known */
    uint32_t paths;       /* rails that a transfer may be spread over, >= 1 */
    uint32_t reserved;
    char found[128]; /* for people: "mlx5_0, mlx5_1"; or, when absent, what is missing */
};

/** A registered range, as given to a transport. */
struct transport_region {
    void *address;
    uint64_t size;
    uint64_t generation; /* the key is good for this one only */
    uint32_t id;
    uint32_t permissions; /* enum mc_permissions */
    int fd;               /* memfd of engine-allocated memory, or -1; borrowed until quiet */
    uint32_t reserved;
    uint64_t fd_offset;
    const char *location; /* "cpu:0" */
};

/** Pieces of a region that a key opens; for transports that keep their own keys. */
struct transport_window {
    struct mc_window window;
    const uint64_t *offsets; /* [count] */
    uint64_t count, piece_bytes;
};

/** Who a queue leads to. */
struct transport_peer {
    const char *name;       /* for errors */
    uint64_t incarnation;   /* expected; another one is MC_E_STALE */
    const uint8_t *address; /* [address_size], from the peer's describe() */
    size_t address_size;
    uint32_t path;      /* rail, < caps.paths */
    uint32_t same_host; /* proved */
};

/** A part of a transfer, cut by the engine to at most slice_max, within one region and one piece of a
 * window at each end. */
struct transport_slice {
    enum mc_op op;
    uint32_t flags; /* 1: make or verify CRC32C */
    void *local;    /* [length] */
    uint64_t length;
    struct transport_access remote; /* .length == length, .op == op */
    const uint8_t
        *remote_key; /* [remote_key_size], the peer's: window_open's for an access by window,
                                * else region_open's; NULL: it gave none */
    size_t remote_key_size;
    const void *local_region; /* private region bytes, or NULL */
    uint64_t deadline_ns;     /* CLOCK_MONOTONIC, to tell the peer; 0: none. The engine cancels */
    void *user;               /* the engine's */
    /* region_bytes .. slice_bytes of private state lie behind, where the table asks for them */
};

struct transport_completion {
    struct transport_slice *slice;
    mc_status status; /* MC_OK, MC_E_DENIED, MC_E_STALE, MC_E_RANGE, MC_E_CORRUPT, MC_E_PEER,
                       * MC_E_TIMEOUT, MC_E_CANCELLED, MC_E_IO */
    uint64_t bytes;   /* known to have moved */
};

/**
 * The table. Entries marked optional may be NULL; what the engine then does is said. Private state:
 * `transport` has transport_bytes, `region` region_bytes, `queue` queue_bytes, and slice_bytes lie
 * behind each struct transport_slice.
 */
struct transport_ops {
    uint32_t abi;     /* TRANSPORT_ABI */
    const char *name; /* "tcp": also its prefix in settings and metrics */
    size_t transport_bytes, region_bytes, queue_bytes, slice_bytes;

    /**
     * Whether it works here: loads its library, looks for devices; leaves nothing behind.
     * MC_OK; MC_E_UNSUPPORTED with caps_p->found saying what is missing. Never an error of the run.
     */
    mc_status (*probe)(const struct transport_env *env, struct transport_caps *caps_p);
    mc_status (*open)(void *transport, const struct transport_env *env, struct mc_error *error);
    /** After all queues and regions. Accepts a transport whose open failed half-way. */
    void (*close)(void *transport);

    /** How peers reach this end, at most TRANSPORT_KEY_MAX bytes; published with the segment. */
    mc_status (*describe)(void *transport, uint8_t address[TRANSPORT_KEY_MAX], size_t *size_p);

    /** Optional (NULL: any memory will do and the key is empty). Pin, map or key a range;
     * key: at most TRANSPORT_KEY_MAX bytes that peers get for it; empty: they do not reach it
     * this way. */
    mc_status (*region_open)(void *transport, const struct transport_region *range, void *region,
                             uint8_t key[TRANSPORT_KEY_MAX], size_t *key_size_p,
                             struct mc_error *error);
    /** Optional, with region_open. Refuse new access; returns at once. */
    void (*region_close)(void *transport, void *region);
    /** Optional, with region_open. After region_close: MC_PENDING while a pin or a device may still
     * touch it, then MC_OK; blocker_p names the peer that holds it, or 0. */
    mc_status (*region_poll)(void *transport, void *region, uint64_t *blocker_p);

    /** Optional (NULL: env->pin checks each access). For a transport that checks windows itself; key
     * as in region_open, sent to a peer that asks for the window's map. */
    mc_status (*window_open)(void *transport, void *region, const struct transport_window *window,
                             uint8_t key[TRANSPORT_KEY_MAX], size_t *key_size_p);
    /** Optional, with window_open: the same two steps as for a region, which lives on. Other windows
     * over it may be busy all the while. */
    void (*window_close)(void *transport, void *region, const struct mc_window *window);
    mc_status (*window_poll)(void *transport, void *region, const struct mc_window *window,
                             uint64_t *blocker_p);

    /** Optional (NULL: nothing to serve). Accept and move along what peers asked for; never blocks. */
    void (*serve)(void *transport, uint64_t now_ns, uint64_t *next_ns_p);
    /** Optional, with serve: a descriptor that polls readable when serve has work. */
    mc_status (*serve_fd)(void *transport, int *fd_p);

    /** Begin to connect; returns at once. Slices posted before it stands wait in the queue. */
    mc_status (*queue_open)(void *transport, const struct transport_peer *peer, void *queue,
                            struct mc_error *error);
    /** Take up to `count` slices, borrowed until completed: *posted_p of them, in order; fewer when
     * the queue is full, which is no error. Else the status for good of a queue that has failed, and
     * nothing was taken. */
    mc_status (*post)(void *queue, struct transport_slice *const *slices, uint32_t count,
                      uint32_t *posted_p);
    /** Make progress and hand out completions; never blocks. MC_OK with *count_p >= 0, or the status
     * for good once every completion of a failed queue is out. */
    mc_status (*poll)(void *queue, uint64_t now_ns, struct transport_completion *completions,
                      uint32_t max, uint32_t *count_p);
    /** Optional (NULL: the engine polls with a pause). Make the descriptor readable at the next
     * completion. MC_OK; MC_PENDING: there is news already, poll first. */
    mc_status (*arm)(void *queue, int *fd_p);
    /** Complete what is posted as soon as it is quiet, with `reason` where it did not move. Returns at
     * once; completions come from poll. What cannot be called back (a device's read) is waited for. */
    void (*cancel)(void *queue, mc_status reason);
    /** Cancel, then MC_OK once quiet, the queue gone and its bytes free; or MC_E_BUSY while a slice is
     * not: poll and call again. */
    mc_status (*queue_close)(void *queue);
    /** Optional (NULL: no text). Why the queue failed. */
    void (*queue_error)(void *queue, struct mc_error *error);
};

#endif /* TRANSFER_TRANSPORT_H */
