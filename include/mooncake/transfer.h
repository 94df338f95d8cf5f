/*
 * mooncake/transfer.h - one-sided reads and writes of another process's memory, in batches.
 *
 * In this release: no resolver can be given (MC_E_UNSUPPORTED), peers are asked at "host:port". The
 * declarations are final: later releases put code behind it.
 *
 * Life:    mc_transfer_open -> mc_region_register -> mc_segment_open -> mc_batch_open ->
 *          (mc_batch_add* -> mc_batch_submit -> mc_batch_wait)* -> mc_batch_close -> ... ->
 *          mc_transfer_close
 * Threads: a mc_transfer may be used by any number of threads at once, also to register memory
 *          while transfers run. A batch belongs to one thread at a time; only mc_batch_cancel() may
 *          be called from another one.
 * Memory:  payload is never copied to be tidy. From mc_batch_submit() until a call on that batch
 *          returns something other than MC_PENDING, the local memory named in it belongs to the
 *          engine; after that nothing can touch it, also after a deadline or a cancel.
 * Errors:  every function that can fail returns a mc_status; outputs end in _p and are written only
 *          on MC_OK. What a peer or a socket says is an event, never a crash. Nothing here prints.
 * Time:    deadlines are absolute nanoseconds of CLOCK_MONOTONIC; MC_FOREVER (0) is none, MC_AT_ONCE
 *          (or any time gone by) does not wait. Leases travel to other machines: they are durations.
 * Growth:  every field left 0 means its default, so `{ 0 }` and NULL are valid options. `reserved`
 *          must be 0: a later release gives it a name where 0 is what is done today, so sizes never
 *          change; a library too old for a field finds reserved != 0 and says MC_E_UNSUPPORTED.
 *
 * The words: an *engine* (mc_transfer) is one process's end. Its registered *regions* together are
 * its *segment*, which peers open by the engine's name. A *window* is a key to a part of one region,
 * lent for a while. A *batch* is transfers that complete together.
 *
 * What is promised about memory, and what every transport must keep:
 *   1. Never late: once a batch is final, nothing touches the local memory named in it; once
 *      mc_window_revoke() or mc_region_unregister() returned MC_OK, nothing touches the memory behind
 *      the window or region for a peer. (A cancelled write may still land at the peer until then.)
 *   2. Never forged: an access names region and generation, or a window's key and generation, and
 *      stays inside it and its permissions; anything else is refused with MC_E_DENIED or MC_E_STALE
 *      and has touched nothing.
 *   3. Never mistaken: a peer that restarted has another incarnation. Its name and segment id go on; a
 *      region or window of the life before is MC_E_STALE, even on the same address and port.
 */
#ifndef MC_TRANSFER_H
#define MC_TRANSFER_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

MC_C_BEGIN

typedef struct mc_transfer mc_transfer;     /* opaque: transports, regions, peers */
typedef struct mc_batch mc_batch;           /* opaque: transfers that complete together */
typedef struct mc_resolution mc_resolution; /* opaque: a question to a resolver */

enum {
    MC_FOREVER = 0, /* deadlines */
    MC_AT_ONCE = 1,
};

enum {
    MC_NAME_MAX = 255,           /* bytes of a name (engine, segment, location, notice) */
    MC_NOTICE_MAX = 64 * 1024,   /* bytes of a notice's message */
    MC_DESCRIPTOR_MAX = 4 << 20, /* bytes of a segment's published descriptor */
};

/* -------------------------------------------------------------------------------------- logs */

enum mc_log_level { MC_LOG_ERROR, MC_LOG_WARN, MC_LOG_INFO, MC_LOG_DEBUG };

/** Where log lines go: one fact a line, logfmt, lower case, without a newline. `{ 0 }`: nowhere. */
struct mc_log {
    /** May be called from any thread of the object it was given to, also from several at once. */
    void (*write)(void *context, enum mc_log_level level, const char *line, size_t size);
    void *context;
    enum mc_log_level level_max; /* lines above it are not made; 0: errors only */
};

/* -------------------------------------------------------------------------------- where peers are */

/**
 * How engines find each other: a table given at open, so that etcd, Redis, HTTP or the store's
 * master can stand behind it without this library knowing. A descriptor is bytes that only another
 * engine reads (wire message segment_description); it changes when regions come and go.
 *
 * The functions must not block: each but cancel starts its work and calls mc_resolution_done()
 * exactly once, from any thread, also before it returns.
 */
struct mc_resolver {
    const char *name; /* "etcd": for logs and errors */
    /** Make `descriptor` ([size], borrowed until done) known under `name` for `lease_ns`; the engine
     * renews in time. Done with MC_OK or an error. */
    void (*publish)(void *context, const char *name, const void *descriptor, size_t size,
                    uint64_t lease_ns, mc_resolution *resolution);
    /** Forget `name`. Done with MC_OK, also if it was not there. */
    void (*withdraw)(void *context, const char *name, mc_resolution *resolution);
    /** Done with MC_OK and the descriptor, or MC_E_NOT_FOUND. */
    void (*resolve)(void *context, const char *name, mc_resolution *resolution);
    /** Optional, may be NULL (mc_p2p_list() is then not supported): done with MC_OK and the names
     * that begin with `prefix`, sorted, each with its NUL, as the "descriptor". */
    void (*list)(void *context, const char *prefix, mc_resolution *resolution);
    /** Nobody waits any more; after this returns, mc_resolution_done() must not be called. */
    void (*cancel)(void *context, mc_resolution *resolution);
    void *context;
    uint64_t reserved[2];
};

/**
 * Answer a resolver's question.
 *
 * descriptor  [size] bytes, copied; only after resolve() with MC_OK, else NULL and 0.
 * error       may be NULL; copied.
 *
 * Returns MC_OK, MC_E_RANGE (size > MC_DESCRIPTOR_MAX) or MC_E_NOMEM; the question is answered in
 * every case.
 */
MC_API mc_status mc_resolution_done(mc_resolution *resolution, mc_status status,
                                    const void *descriptor, size_t size,
                                    const struct mc_error *error);

/* ------------------------------------------------------------------------------------ the engine */

enum mc_transfer_flags {
    MC_TRANSFER_INSECURE = 1, /* listen beyond loopback with neither secret nor TLS */
    MC_TRANSFER_DRIVEN = 2,   /* no own thread: the caller watches mc_transfer_fd() */
};

/** `{ 0 }` and NULL mean the defaults. Strings and bytes are copied; tables are borrowed to close. */
struct mc_transfer_options {
    const char *name;   /* what peers open; default: the address that is listened on, "host:port" */
    const char *listen; /* "host:port", "[v6]:port"; port 0: any; default "127.0.0.1:0" */
    const char *transports; /* by preference: "shm,tcp", "hook:tcp"; default: all that are here */
    const char *settings;   /* of transports: "tcp.nodelay=0,hook.fail=0.01"; default: their own */
    const char *topology;   /* JSON, upstream's form; default: discovered */
    const struct mc_resolver *resolver; /* default: names are "host:port" and peers are asked */
    const struct mc_alloc *alloc;       /* default: malloc */
    struct mc_log log;
    const void *secret;    /* [secret_size], shared by all engines that may talk; default: none */
    size_t secret_size;    /* 16 .. 1024 when set */
    uint64_t memory_max;   /* bytes that mc_memory_alloc() may take; default: no limit */
    uint64_t lease_ns;     /* of the published descriptor; default 10 s */
    uint64_t quiesce_ns;   /* how long close waits for a peer to let go; default 5 s */
    uint32_t sessions_max; /* peers connected at a time; default 1024 */
    uint32_t regions_max;  /* default 4096 */
    uint32_t windows_max;  /* default 65536 */
    uint32_t notices_max; /* received and not yet taken; default 1024; then the sender is refused */
    uint32_t streams;     /* sockets for each peer; default 4 */
    uint32_t flags;       /* enum mc_transfer_flags */
    uint64_t reserved[7];
};

/**
 * Open an engine: probe transports, listen, publish an empty segment.
 *
 * Returns MC_OK, MC_E_ARG (an address or list that cannot be read), MC_E_RANGE, MC_E_DENIED (a wide
 * address without secret and MC_TRANSFER_INSECURE), MC_E_UNSUPPORTED (a transport this machine lacks:
 * the text says what is missing), MC_E_EXISTS (the address is taken), MC_E_IO or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_transfer_open(const struct mc_transfer_options *options,
                                              mc_transfer **transfer_p, struct mc_error *error);

/** Strings live as long as the engine. */
struct mc_transfer_info {
    const char *name;
    const char *address;  /* "host:port" that is listened on, with the real port */
    uint64_t incarnation; /* random, never 0: this life of this engine */
    uint32_t transports;  /* how many are open: mc_transfer_stats() tells each */
    uint32_t reserved[3];
};

/** What this engine is. Returns MC_OK. */
MC_API mc_status mc_transfer_info(const mc_transfer *transfer, struct mc_transfer_info *info_p);

/**
 * With MC_TRANSFER_DRIVEN: a descriptor that polls readable when mc_transfer_progress() has work.
 * Owned by the engine. Returns MC_OK or MC_E_ARG (the engine has its own thread).
 */
MC_API mc_status mc_transfer_fd(mc_transfer *transfer, int *fd_p);

/**
 * Serve peers and move transfers along, never block. A thread in mc_batch_wait() does the same for
 * the connections it waits for, so progress never depends on this being called soon.
 *
 * next_ns_p  when to call again at the latest (CLOCK_MONOTONIC), 0: not before the descriptor says.
 */
MC_API mc_status mc_transfer_progress(mc_transfer *transfer, uint64_t *next_ns_p);

/**
 * Withdraw the segment, revoke every window, cancel what is in flight, wait until quiet, free. Regions
 * and batches must be closed before. NULL is allowed.
 *
 * A peer that holds memory and does not answer for quiesce_ns is cut off first; engine-allocated
 * memory that a stopped process still maps stays allocated (leaked, logged) rather than reused.
 */
MC_API void mc_transfer_close(mc_transfer *transfer);

/* ----------------------------------------------------------------------------------------- memory */

/** A piece of local memory. */
struct mc_range {
    void *address; /* host or device */
    uint64_t size; /* bytes */
};

/** What peers may do, given with a region and narrowed by windows. Local use is always allowed. */
enum mc_permissions {
    MC_REMOTE_READ = 1,
    MC_REMOTE_WRITE = 2,
};

enum mc_region_flags {
    MC_REGION_PRIVATE = 1,  /* not in the segment's descriptor: peers reach it by windows only */
    MC_REGION_READONLY = 2, /* the memory is mapped read-only: this engine never writes it either */
};

struct mc_region_options {
    void *address;        /* [size]; borrowed until unregistered; host or device memory */
    uint64_t size;        /* bytes, > 0 */
    const char *location; /* "cpu:0", "cuda:1"; default: found from the address */
    const char *tag;      /* for people and stats, at most 63 bytes; copied; default "" */
    uint32_t permissions; /* enum mc_permissions */
    uint32_t flags;       /* enum mc_region_flags */
    uint64_t reserved[4];
};

/**
 * One life of one registered range. `id` is a slot and is used again; `generation` grows with each
 * register of that slot, from a random start in each incarnation: the pair never comes back.
 */
struct mc_region {
    uint32_t id;         /* 0: none */
    uint32_t reserved;   /* 0 */
    uint64_t generation; /* >= 1 */
};

/**
 * Memory that peers on the same host map, so that a transfer is one copy at memory speed. Populated
 * before it returns (a first touch costs as much as a copy), zeroed, aligned to 4096.
 *
 * location  as in mc_region_options; NULL: anywhere.
 *
 * Returns MC_OK, MC_E_RANGE (size 0), MC_E_FULL (memory_max) or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_memory_alloc(mc_transfer *transfer, size_t size,
                                             const char *location, void **memory_p,
                                             struct mc_error *error);

/** After its regions are unregistered. NULL is allowed. */
MC_API void mc_memory_free(mc_transfer *transfer, void *memory);

/**
 * Register `count` ranges, all or none, and publish them once. Ranges may overlap. Large ranges are
 * pinned in parallel where a transport pins.
 *
 * regions_p  [count], written on MC_OK.
 *
 * Returns MC_OK, MC_E_ARG (size 0, wrap-around, an unknown location or flag), MC_E_FULL (regions_max,
 * or a descriptor over MC_DESCRIPTOR_MAX), MC_E_DENIED (the memory cannot be pinned: the text says
 * which limit), MC_E_NOMEM or MC_E_IO.
 */
MC_API MC_MUST_USE mc_status mc_region_register(mc_transfer *transfer,
                                                const struct mc_region_options *options,
                                                size_t count, struct mc_region *regions_p,
                                                struct mc_error *error);

/**
 * Refuse new access at once, revoke the regions' windows, and wait until nobody can touch the memory.
 *
 * MC_OK: quiet, the memory is the caller's again. MC_E_TIMEOUT: a peer holds a pin and neither answers
 * nor dies; the memory is in *quarantine*: leave it mapped, and call again with the same regions, until
 * all of them are quiet. MC_E_STALE: not registered (any more). MC_E_ARG: a region twice.
 */
MC_API MC_MUST_USE mc_status mc_region_unregister(mc_transfer *transfer,
                                                  const struct mc_region *regions, size_t count,
                                                  uint64_t deadline_ns, struct mc_error *error);

/* ---------------------------------------------------------------------------------------- windows */

/**
 * A key to `count` pieces of one region. The pieces in their order are the window's own address
 * space: piece i is [i * piece_bytes, (i + 1) * piece_bytes) of the window, wherever it lies in the
 * region. So pages of a KVCache, scattered in memory, are one range to whoever fills them.
 */
struct mc_window_options {
    struct mc_region region;
    const uint64_t
        *offsets;         /* [count], bytes from the region's start; copied; NULL: side by side */
    uint64_t count;       /* pieces, >= 1 */
    uint64_t piece_bytes; /* > 0; pieces may not overlap */
    uint64_t lease_ns;    /* until it expires unless renewed; default 10 s, at most 1 h */
    uint64_t holder;      /* incarnation of the one engine that may use it; 0: who has the key */
    uint32_t permissions; /* enum mc_permissions, within the region's; not 0 */
    uint32_t flags;       /* 0 */
    uint64_t reserved[4];
};

/**
 * What the holder needs, plain values to be sent by any way that keeps secrets (wire type window).
 *
 *      0     16            24     32       36            40           48         56            64
 *     | key | incarnation | size | region | permissions | generation | lease_ns | piece_bytes |
 */
struct mc_window {
    uint64_t key[2];      /* 128 random bits; 0, 0: no window */
    uint64_t incarnation; /* of the engine that granted it */
    uint64_t size;        /* bytes of its address space: count * piece_bytes */
    uint32_t region;      /* slot at the granting engine */
    uint32_t permissions; /* enum mc_permissions */
    uint64_t generation;  /* of the window; a revoked key never works again */
    uint64_t lease_ns;    /* as granted or last renewed */
    uint64_t piece_bytes; /* an access that crosses a multiple of it is cut there */
};
static_assert(sizeof(struct mc_window) == 64, "a window is one cache line");
static_assert(offsetof(struct mc_window, generation) == 40, "as drawn");

/**
 * Grant a window.
 *
 * Returns MC_OK, MC_E_ARG (pieces overlap, no permission asked), MC_E_RANGE (outside the region, lease
 * too long), MC_E_DENIED (more than the region permits), MC_E_STALE (region), MC_E_FULL (windows_max)
 * or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_window_grant(mc_transfer *transfer,
                                             const struct mc_window_options *options,
                                             struct mc_window *window_p, struct mc_error *error);

/** Let it live `lease_ns` from now. MC_OK, MC_E_RANGE or MC_E_STALE (expired, revoked, never ours). */
MC_API MC_MUST_USE mc_status mc_window_renew(mc_transfer *transfer, const struct mc_window *window,
                                             uint64_t lease_ns);

/**
 * Refuse new access at once and wait until quiet. An expired window must be revoked too before its
 * memory is used again: expiry refuses, only this waits.
 *
 * MC_OK: quiet (also if it was revoked before). MC_E_TIMEOUT: in quarantine, call again. MC_E_STALE:
 * not a window of this engine.
 */
MC_API MC_MUST_USE mc_status mc_window_revoke(mc_transfer *transfer, const struct mc_window *window,
                                              uint64_t deadline_ns, struct mc_error *error);

/* --------------------------------------------------------------------------------------- segments */

/**
 * Open a peer's segment by its engine's name. Returns at once; resolving and connecting go on behind
 * it, within the deadline of the first batch that needs them, and again after a loss. Opening a name
 * again gives the same id, to be closed as often; the own name is the own memory.
 *
 * segment_p  an id of this engine, never 0, until its last mc_segment_close().
 *
 * Returns MC_OK, MC_E_ARG (not a name), MC_E_FULL (sessions_max) or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_segment_open(mc_transfer *transfer, const char *name,
                                             uint32_t *segment_p, struct mc_error *error);

/** Strings live until the segment is closed. */
struct mc_segment_info {
    const char *name;
    const char *transport; /* that a transfer would use now: "shm"; "" while not connected */
    uint64_t incarnation;  /* of the peer */
    uint64_t age_ns;       /* since the descriptor was read */
    uint32_t regions;      /* published ones */
    uint32_t same_host;    /* 1: proved by the peer's answer on a local socket */
    uint64_t reserved[4];
};

/**
 * What is known of a segment. refresh: ask again first, when the peer may have restarted or
 * registered more. Waits until `deadline_ns`.
 *
 * Returns MC_OK, MC_E_NOT_FOUND (no such name), MC_E_TIMEOUT, MC_E_PEER or MC_E_DENIED (the secret).
 */
MC_API MC_MUST_USE mc_status mc_segment_info(mc_transfer *transfer, uint32_t segment, bool refresh,
                                             uint64_t deadline_ns, struct mc_segment_info *info_p,
                                             struct mc_error *error);

/** A published region, as its owner sees it. */
struct mc_segment_region {
    struct mc_region region;
    uint64_t address;     /* in the owner's address space */
    uint64_t size;        /* bytes */
    uint32_t permissions; /* enum mc_permissions */
    char tag[64];
    char location[64];
    uint32_t reserved[3];
};

/** Region `index` of [0, info.regions). MC_OK, MC_E_NOT_FOUND or MC_E_STALE. */
MC_API MC_MUST_USE mc_status mc_segment_region(mc_transfer *transfer, uint32_t segment,
                                               uint32_t index, struct mc_segment_region *region_p);

/**
 * The published region that holds [address, address + size) of the owner's address space: for callers
 * that exchanged pointers. Hot: no system call, no allocation.
 *
 * Returns MC_OK, MC_E_NOT_FOUND (no one region holds it all) or MC_PENDING (not resolved yet).
 */
MC_API mc_status mc_segment_find(mc_transfer *transfer, uint32_t segment, uint64_t address,
                                 uint64_t size, struct mc_region *region_p, uint64_t *offset_p);

/** The last close of an id ends it; its transfers in flight end with MC_E_CANCELLED. 0 is allowed. */
MC_API void mc_segment_close(mc_transfer *transfer, uint32_t segment);

/* ---------------------------------------------------------------------------------------- batches */

enum mc_op { MC_READ, MC_WRITE };

/**
 * `count` pieces of `length` bytes between this process and a peer. Piece i lies
 *
 *     here   at  local_table ? (char *)local_table[i] + local_offset : (char *)local + i * local_stride
 *     there  at  offset + (remote_table ? remote_table[i] : i * remote_stride)
 *
 * counted from the window's start if `window` is set, else from the region's. One descriptor is thus
 * one layer of many pages, however they are scattered. Local memory must lie in registered regions.
 * Pieces have no order among themselves, nor transfers in a batch: where targets overlap, the result
 * is any mixture.
 */
struct mc_xfer {
    enum mc_op op;                  /* MC_READ fills local memory; MC_WRITE empties it */
    uint32_t segment;               /* from mc_segment_open() */
    struct mc_region region;        /* there; not read if window is set */
    const struct mc_window *window; /* there; copied by mc_batch_add(); NULL: none */
    uint64_t offset;                /* bytes, there */
    uint64_t length;                /* bytes of one piece; 0 is allowed and moves nothing */
    uint64_t count;                 /* pieces; 0 means 1 */
    void *local;                    /* here; not read if local_table is set */
    uint64_t local_stride;          /* bytes from one piece to the next */
    uint64_t remote_stride;
    void *const *local_table;     /* [count]; borrowed until the batch is final; or NULL */
    uint64_t local_offset;        /* bytes, added to each address in local_table */
    const uint64_t *remote_table; /* [count]; borrowed until the batch is final; or NULL */
    uint64_t reserved[2];
};

enum mc_checksum {
    MC_CHECKSUM_DEFAULT, /* what the transport does by itself */
    MC_CHECKSUM_NONE,    /* the payload carries its own (objects of mooncake/store.h do) */
    MC_CHECKSUM_CRC32C,  /* each 64 KiB, made and verified by the engines; else MC_E_CORRUPT */
};

struct mc_batch_options {
    uint64_t capacity;    /* transfers; default 64, at most 2^20 */
    uint64_t deadline_ns; /* default: none. Passed: cancelled by itself, MC_E_TIMEOUT once quiet */
    enum mc_checksum checksum;
    uint32_t priority; /* 0: serving; 1: may wait for priority 0; 2: background */
    uint64_t reserved[4];
};

/** MC_OK, MC_E_RANGE (capacity, priority) or MC_E_NOMEM. */
MC_API MC_MUST_USE mc_status mc_batch_open(mc_transfer *transfer,
                                           const struct mc_batch_options *options,
                                           mc_batch **batch_p);

/**
 * Add transfers, copied; allowed before submit and between submits. All or none. Hot: no allocation.
 *
 * Returns MC_OK, MC_E_FULL (capacity), MC_E_ARG (no such segment or op), MC_E_RANGE (a size that
 * overflows) or MC_E_DENIED (local memory that is not registered).
 */
MC_API MC_MUST_USE mc_status mc_batch_add(mc_batch *batch, const struct mc_xfer *xfers,
                                          size_t count);

/**
 * Post what was added since the last submit. A full queue is never an error: the rest follows when
 * there is room. A batch that waits, drives.
 *
 * Returns MC_OK, or the status for good of a batch that is final already.
 */
MC_API MC_MUST_USE mc_status mc_batch_submit(mc_batch *batch);

/** Make progress, never block: MC_PENDING, then for good MC_OK (all moved) or the first error. */
MC_API mc_status mc_batch_poll(mc_batch *batch);

/** As poll, but wait until `deadline_ns`: MC_PENDING then means only that this call gave up. */
MC_API MC_MUST_USE mc_status mc_batch_wait(mc_batch *batch, uint64_t deadline_ns);

/**
 * A descriptor that polls readable when mc_batch_poll() has news, for an event loop. Owned by the
 * batch. Returns MC_OK or MC_E_IO.
 */
MC_API mc_status mc_batch_fd(mc_batch *batch, int *fd_p);

/**
 * Stop as soon as possible: the batch becomes MC_E_CANCELLED *when it is quiet*, MC_PENDING until
 * then; or MC_OK if everything had moved. Any thread. Returns MC_OK.
 */
MC_API mc_status mc_batch_cancel(mc_batch *batch);

/** What became of one transfer. Valid at any time; final when status is not MC_PENDING. */
struct mc_xfer_result {
    mc_status status;
    uint32_t attempts;     /* paths tried */
    uint64_t bytes;        /* known to have moved; all of them on MC_OK */
    uint64_t submitted_ns; /* CLOCK_MONOTONIC */
    uint64_t posted_ns;    /* first piece given to a transport, 0: not yet */
    uint64_t finished_ns;  /* 0: not yet */
    const char *transport; /* of the last attempt; static; "" before */
    uint64_t reserved[2];
};

/** Transfer `index` in the order of adding. Returns MC_OK or MC_E_RANGE. */
MC_API mc_status mc_batch_result(const mc_batch *batch, uint64_t index,
                                 struct mc_xfer_result *result_p);

/** Why a final batch failed: peer, transport, place, system's reason. Returns the batch's status. */
MC_API mc_status mc_batch_error(const mc_batch *batch, struct mc_error *error);

/** Empty a final (or never submitted) batch for new use; options stay, the deadline is new. Returns
 * MC_OK or MC_E_BUSY (not final). */
MC_API MC_MUST_USE mc_status mc_batch_reset(mc_batch *batch, uint64_t deadline_ns);

/** Cancel what is in flight, wait until quiet, free. NULL is allowed. */
MC_API void mc_batch_close(mc_batch *batch);

/* ---------------------------------------------------------------------------------------- notices */

/**
 * Add a short message to the engine behind a segment. It is sent when all transfers of the batch have
 * moved and only then (at submit, if there are none): whoever takes the notice sees all their bytes.
 *
 * batch    not yet submitted. Its status includes that the notices were accepted: MC_E_FULL is the
 *          receiver's notices_max.
 * name     at most MC_NAME_MAX bytes; copied.
 * message  [size], size <= MC_NOTICE_MAX; copied.
 *
 * Returns MC_OK, MC_E_ARG (no such segment), MC_E_RANGE or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_batch_notify(mc_batch *batch, uint32_t segment, const char *name,
                                             const void *message, size_t size);

struct mc_notice {
    char from[MC_NAME_MAX + 1];
    char name[MC_NAME_MAX + 1];
    uint64_t incarnation; /* of the sender */
    uint64_t size;        /* of the message */
};

/**
 * Take the oldest notice; waits until `deadline_ns`.
 *
 * message_p  [capacity], gets notice_p->size bytes. MC_NOTICE_MAX is always enough.
 *
 * Returns MC_OK, MC_E_NOT_FOUND (none) or MC_E_RANGE (larger than capacity; it stays the oldest).
 */
MC_API MC_MUST_USE mc_status mc_notice_take(mc_transfer *transfer, uint64_t deadline_ns,
                                            struct mc_notice *notice_p, void *message_p,
                                            size_t capacity);

/* ------------------------------------------------------------------------------------------ stats */

/** Counters since open, of one transport or (index = UINT32_MAX) of all. */
struct mc_transfer_stats {
    const char *transport;                          /* static; "" for all */
    uint64_t read_bytes, write_bytes;               /* moved by this engine's batches */
    uint64_t served_read_bytes, served_write_bytes; /* moved by peers' */
    uint64_t transfers_ok, transfers_failed, transfers_cancelled, transfers_timed_out;
    uint64_t retries; /* pieces tried again on another path */
    uint64_t refused; /* peers' accesses turned away: key, generation, permission, range */
    uint64_t corrupt; /* checksums that did not match */
    uint64_t notices_sent, notices_received, notices_refused;
    uint64_t sessions, regions, windows; /* now */
    uint64_t registered_bytes;           /* now */
    uint64_t quarantined_bytes; /* now: revoked, and still pinned by a peer that does not answer */
    uint64_t reserved[8];
};

/** Transport `index` of [0, info.transports). MC_OK or MC_E_RANGE. */
MC_API mc_status mc_transfer_stats(const mc_transfer *transfer, uint32_t index,
                                   struct mc_transfer_stats *stats_p);

MC_C_END

#endif /* MC_TRANSFER_H */
