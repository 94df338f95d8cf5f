/*
 * mooncake/store.h - the pool: objects (KVCache pages) kept in the memory of many machines.
 *
 * In this release: objects are kept in DRAM alone. Placement on SSD or in a group, and a node's ssd_path and
 * lease_ns, are MC_E_UNSUPPORTED. The declarations are final: later releases put code behind them.
 *
 * Life:    mc_store_open -> (mc_store_get_begin, … -> mc_store_request_wait ->
 *          mc_store_request_close)* -> mc_store_close
 * Threads: a mc_store may be used by any number of threads at once; a request by one at a time, only
 *          mc_store_request_cancel() from any.
 * Memory:  payload moves between registered memory (mooncake/transfer.h) and the pool, without a copy
 *          between. From _begin until the request is final, the items and the memory they name belong
 *          to the store; after that nothing can touch them, also after a deadline or a cancel.
 * Errors:  a request that is final with MC_OK has an outcome in each item's `status`; another status
 *          means that the request as a whole failed (master gone, deadline) and unfinished items say
 *          the same. What a node sends is verified before it counts: identity, generation, checksums.
 * Time and growth: as in mooncake/transfer.h.
 *
 * An object's life: begin (space and a write token) -> its bytes are written -> commit (now others
 * see it, at once and whole) -> evicted or removed. It is never changed: the same identity means the
 * same bytes, so a second put of it is no error but MC_E_EXISTS, and cheap.
 */
#ifndef MC_STORE_H
#define MC_STORE_H

#include <mooncake/transfer.h>

MC_C_BEGIN

typedef struct mc_store mc_store;                 /* opaque: a client of the pool */
typedef struct mc_store_request mc_store_request; /* opaque: one batch of operations under way */
typedef struct mc_store_node mc_store_node;       /* opaque: memory lent to the pool */
typedef struct mc_store_events mc_store_events;   /* opaque: a subscription */

/* ------------------------------------------------------------------------------- names and bytes */

/** What an object is: a SHA-256 chain over all that its bytes depend on. Its first 16 bytes are the
 * struct mc_key that it is looked up by; the whole is verified on read. */
struct mc_identity {
    uint8_t bytes[32];
};

/**
 * The bytes of an object in the pool, in a node's memory, in a file and on the way. Little-endian.
 *
 *      0       4         6              8        16         48           56            60
 *     | magic | version | header_bytes | length | identity | generation | piece_bytes | header_crc |
 *     | payload: length bytes ...                                                                  |
 *     | trailer: for each piece of the payload its CRC32C, xor header_crc (4 bytes)                |
 *
 * A piece is piece_bytes of the payload, the last one shorter; header_crc is the CRC32C of bytes
 * 0 .. 59. So a get is one read, and a node can tell what it holds from the bytes alone. The xor binds
 * payload to header: a writer that dies early leaves its header over the payload and trailer of whoever
 * had the place before, and those verify by themselves.
 */
struct mc_object_header {
    uint32_t magic;        /* MC_OBJECT_MAGIC */
    uint16_t version;      /* MC_OBJECT_VERSION */
    uint16_t header_bytes; /* 64 */
    uint64_t length;       /* of the payload */
    struct mc_identity identity;
    uint64_t generation;  /* of the place: another one each time the pool gives these bytes away */
    uint32_t piece_bytes; /* MC_OBJECT_PIECE */
    uint32_t header_crc;
};
static_assert(sizeof(struct mc_object_header) == 64, "one cache line");
static_assert(offsetof(struct mc_object_header, length) == 8, "as drawn");
static_assert(offsetof(struct mc_object_header, identity) == 16, "as drawn");
static_assert(offsetof(struct mc_object_header, generation) == 48, "as drawn");
static_assert(offsetof(struct mc_object_header, header_crc) == 60, "as drawn");

#define MC_OBJECT_MAGIC 0x424f434du /* "MCOB" as bytes */
#define MC_OBJECT_VERSION 1
#define MC_OBJECT_PIECE 65536u
#define MC_OBJECT_LENGTH_MAX (UINT64_C(1) << 40)

/** Pieces, and so checksums, of a payload of `length` bytes; 0 for an empty one. */
static inline uint64_t mc_object_pieces(uint64_t length)
{
    return length / MC_OBJECT_PIECE + (length % MC_OBJECT_PIECE != 0);
}

/** All bytes of an object with `length` (<= MC_OBJECT_LENGTH_MAX) bytes of payload. */
static inline uint64_t mc_object_bytes(uint64_t length)
{
    return 64 + length + 4 * mc_object_pieces(length);
}

/**
 * The identity of an object that is known by a name (any bytes): SHA-256 of tenant, 0, name. That equal
 * identity means equal bytes is then the promise of whoever puts under that name: to change what a name
 * stands for, remove and put again; a reader of the old place sees another generation.
 */
MC_API MC_MUST_USE mc_status mc_identity_of_name(const char *tenant, const void *name, size_t size,
                                                 struct mc_identity *identity_p);

/* ---------------------------------------------------------------------------------------- client */

struct mc_store_options {
    const char *master;           /* "host:port", more than one separated by ';'; required */
    mc_transfer *transfer;        /* borrowed until close; required */
    const char *tenant;           /* at most MC_NAME_MAX bytes; default "default" */
    const struct mc_alloc *alloc; /* default: malloc */
    struct mc_log log;
    const void *secret; /* [secret_size]; default: the transfer engine's */
    size_t secret_size;
    uint64_t timeout_ns;   /* of a request without its own deadline; default 5 s */
    uint32_t requests_max; /* under way at a time; default 1024; then MC_E_FULL */
    uint32_t items_max;    /* in one request; default 4096, at most 65536 (sent 4096 at a time) */
    uint64_t reserved[8];
};

/**
 * Open a client. Connects behind the back and again after each loss: a master that is away makes
 * requests wait for their deadline, it does not make this fail.
 *
 * Returns MC_OK, MC_E_ARG (an address that cannot be read, no transfer), MC_E_RANGE or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_store_open(const struct mc_store_options *options,
                                           mc_store **store_p, struct mc_error *error);

/** Cancels requests, revokes uncommitted puts, waits until quiet, frees. Requests, subscriptions and
 * nodes over it must be closed before. NULL is allowed. */
MC_API void mc_store_close(mc_store *store);

/* -------------------------------------------------------------------------------------- requests */

/** Make progress, never block: MC_PENDING, then the outcome for good. */
MC_API mc_status mc_store_request_poll(mc_store_request *request);

/** As poll, but wait until `deadline_ns`; MC_PENDING means that only this call gave up. */
MC_API MC_MUST_USE mc_status mc_store_request_wait(mc_store_request *request, uint64_t deadline_ns);

/** For an event loop: readable when mc_store_request_poll() has news. Owned by the request. */
MC_API mc_status mc_store_request_fd(mc_store_request *request, int *fd_p);

/** As mc_batch_cancel(): MC_E_CANCELLED once it is quiet. Any thread. Returns MC_OK. */
MC_API mc_status mc_store_request_cancel(mc_store_request *request);

/** Why a final request failed as a whole. Returns the request's status. */
MC_API mc_status mc_store_request_error(const mc_store_request *request, struct mc_error *error);

/** Cancel if not final, wait until quiet, free. NULL is allowed. */
MC_API void mc_store_request_close(mc_store_request *request);

/* ----------------------------------------------------------------------------------- whole objects */

enum { MC_REPLICAS_MAX = 8 };

enum mc_placement_flags {
    MC_PLACE_ANOTHER =
        1, /* of objects that are there a further copy: MC_E_EXISTS then means that `node`
                           * has one, or that there is no room on nodes that have none */
};

/** How many copies, and where. `{ 0 }`: one, in DRAM, near the writer. */
struct mc_placement {
    uint32_t replicas;     /* default 1, at most MC_REPLICAS_MAX, each on its own node */
    enum mc_medium medium; /* default DRAM */
    uint64_t node;         /* preferred first; 0: the writer's host */
    uint64_t group;        /* objects of one group are evicted together; 0: none */
    uint64_t pin_ns;       /* not evicted before; 0: as the pool likes; UINT64_MAX: never */
    uint32_t flags;        /* enum mc_placement_flags */
    uint32_t reserved32;
    uint64_t reserved[1];
};

/** One object to put: `count` ranges one after another are its payload. */
struct mc_put {
    struct mc_identity identity;
    const struct mc_range *ranges; /* [count]; registered memory; borrowed until final */
    uint64_t count;
    /** out: MC_OK; MC_E_EXISTS (it is there, nothing was sent); MC_E_FULL; MC_E_BUSY (another writer
     * is at it); MC_E_PEER; MC_E_DENIED (tenant, quota) */
    mc_status status;
    uint32_t reserved32;
    uint64_t reserved[2];
};

/** Begin, write every replica, commit; what cannot be finished is revoked. The header and the
 * checksums are made on the way. Returns MC_OK, MC_E_FULL, MC_E_RANGE (count), MC_E_DENIED (memory that is
 * not registered) or MC_E_NOMEM. */
MC_API MC_MUST_USE mc_status mc_store_put_begin(mc_store *store, struct mc_put *puts, size_t count,
                                                const struct mc_placement *placement,
                                                uint64_t deadline_ns, mc_store_request **request_p);

/** One object to get: its payload fills the ranges, which may be longer. */
struct mc_get {
    struct mc_identity identity;
    const struct mc_range *ranges; /* [count]; registered memory; borrowed until final */
    uint64_t count;
    uint64_t length; /* out, on MC_OK: bytes of payload */
    /** out: MC_OK (verified); MC_E_NOT_FOUND; MC_E_RANGE (ranges too short); MC_E_CORRUPT, MC_E_PEER,
     * MC_E_STALE (and no other replica was good) */
    mc_status status;
    enum mc_medium medium; /* out: where it came from */
    uint64_t node;         /* out: who held it */
    uint64_t reserved[2];
};

/** Look up, read, verify; a replica that fails is reported and the next one tried. Returns as put. */
MC_API MC_MUST_USE mc_status mc_store_get_begin(mc_store *store, struct mc_get *gets, size_t count,
                                                uint64_t deadline_ns, mc_store_request **request_p);

struct mc_exist {
    struct mc_key key;
    mc_status status;      /* out: MC_OK, MC_E_NOT_FOUND */
    enum mc_medium medium; /* out: the fastest that holds it */
    uint64_t length;       /* out: bytes of payload */
};

/** What is there, with neither lease nor effect on eviction. Returns as put. */
MC_API MC_MUST_USE mc_status mc_store_exist_begin(mc_store *store, struct mc_exist *exists,
                                                  size_t count, uint64_t deadline_ns,
                                                  mc_store_request **request_p);

struct mc_remove {
    struct mc_key key;
    uint32_t force;   /* 1: also if leased: readers find MC_E_STALE */
    mc_status status; /* out: MC_OK, MC_E_NOT_FOUND, MC_E_BUSY (leased, or being written) */
};

/** Remove objects, every replica; their places are free again once leases and pins are gone. Returns as
 * put. */
MC_API MC_MUST_USE mc_status mc_store_remove_begin(mc_store *store, struct mc_remove *removes,
                                                   size_t count, uint64_t deadline_ns,
                                                   mc_store_request **request_p);

/* ------------------------------------------------------------- places, for who moves bytes itself */

/**
 * Where one replica lies: mc_object_bytes() of the object, header first, in `window` of `segment`, or,
 * when the window's key is 0, at `offset` of `region`. A worker writes a layer at a time there with its
 * own batches, or reads part of a page. Whoever reads compares identity and generation in the header,
 * then the checksums: a place that was given away in between is seen, and counts as MC_E_STALE.
 */
struct mc_replica {
    uint64_t node;    /* id given by the master; never used again */
    uint32_t segment; /* of the store's transfer engine; 0: not readable from here */
    enum mc_medium medium;
    uint64_t generation;     /* of the place; equal to the header's */
    struct mc_window window; /* always set for a put: a late writer is refused */
    struct mc_region region; /* else; of that life of the node alone (mooncake/transfer.h) */
    uint64_t offset;         /* in region, bytes */
};

/** A right to read places until `until_ns` here (measured from before the request was sent). */
struct mc_lease {
    uint64_t id;       /* 0: none */
    uint64_t epoch;    /* of the master: after its restart old leases are MC_E_STALE */
    uint64_t until_ns; /* CLOCK_MONOTONIC */
};

struct mc_lookup {
    struct mc_key key;
    struct mc_replica
        *replicas;         /* [replicas_max], the caller's; out, the best to read from here first */
    uint32_t replicas_max; /* 0: length and lease alone */
    uint32_t replica_count; /* out: how many there are, also beyond replicas_max */
    uint64_t length;        /* out: bytes of payload */
    struct mc_lease lease;  /* out: one id stands for many objects of a request */
    mc_status status;       /* out: MC_OK, MC_E_NOT_FOUND */
    uint32_t reserved32;
    uint64_t reserved[2];
};

enum mc_lookup_flags {
    MC_LOOKUP_PREFIX = 1, /* the items are a chain: stop at the first that is not there; the rest is
                           * MC_E_NOT_FOUND and takes no lease */
};

/** Look up many keys and lease what is found for `lease_ns` (0: the master's default): it is not
 * evicted before. A lease costs until it is released. Returns as put. */
MC_API MC_MUST_USE mc_status mc_store_lookup_begin(mc_store *store, struct mc_lookup *lookups,
                                                   size_t count, uint64_t lease_ns, uint32_t flags,
                                                   uint64_t deadline_ns,
                                                   mc_store_request **request_p);

/** Keep leases for `lease_ns` from now. An item's until_ns is written when renewed, 0 when gone. */
MC_API MC_MUST_USE mc_status mc_store_lease_renew_begin(mc_store *store, struct mc_lease *leases,
                                                        size_t count, uint64_t lease_ns,
                                                        uint64_t deadline_ns,
                                                        mc_store_request **request_p);

/** Give leases back, copied, when convenient. Never blocks. Returns MC_OK; lost ones expire. */
MC_API mc_status mc_store_lease_release(mc_store *store, const struct mc_lease *leases,
                                        size_t count);

/** The right to write one object's places and then to commit it, once. */
struct mc_token {
    uint64_t id[2];    /* random; 0, 0: none */
    uint64_t epoch;    /* of the master: after its restart old tokens are MC_E_STALE */
    uint64_t until_ns; /* CLOCK_MONOTONIC; then the master revokes it, unless it was renewed */
};

struct mc_allot {
    struct mc_identity identity;
    uint64_t length;             /* bytes of payload */
    struct mc_replica *replicas; /* [replicas_max], the caller's; out: to be written, all of them */
    uint32_t replicas_max;       /* >= the placement's replicas, else MC_E_RANGE */
    uint32_t replica_count;      /* out */
    struct mc_token token;       /* out */
    mc_status status;            /* out: as mc_put.status */
    uint32_t reserved32;
    uint64_t reserved[2];
};

/** Space and a token for each object. The caller writes header, payload and trailer into every
 * replica, then commits. Returns as put. */
MC_API MC_MUST_USE mc_status mc_store_allot_begin(mc_store *store, struct mc_allot *allots,
                                                  size_t count,
                                                  const struct mc_placement *placement,
                                                  uint64_t deadline_ns,
                                                  mc_store_request **request_p);

/** One put to finish. */
struct mc_commit {
    struct mc_key key;
    struct mc_token token;
    uint32_t replicas; /* bit i: replica i was written; the others are dropped. 0: all */
    mc_status status;  /* out: MC_OK, also if it was committed before; MC_E_STALE (token expired or
                        * revoked); MC_E_ARG (no replica) */
};

/** Make whole objects visible; each is all there or not at all. Returns as put. */
MC_API MC_MUST_USE mc_status mc_store_commit_begin(mc_store *store, struct mc_commit *commits,
                                                   size_t count, uint64_t deadline_ns,
                                                   mc_store_request **request_p);

/** Give the space back; the windows end with it, so a late write is refused. Final with MC_OK or
 * MC_E_STALE in each status. Returns as put. */
MC_API MC_MUST_USE mc_status mc_store_revoke_begin(mc_store *store, struct mc_commit *revokes,
                                                   size_t count, uint64_t deadline_ns,
                                                   mc_store_request **request_p);

/** Keep tokens for `lease_ns` from now: a slow writer says that it lives. */
MC_API MC_MUST_USE mc_status mc_store_allot_renew_begin(mc_store *store, struct mc_token *tokens,
                                                        size_t count, uint64_t lease_ns,
                                                        uint64_t deadline_ns,
                                                        mc_store_request **request_p);

/* ---------------------------------------------------------------------------------------- events */

enum mc_store_event_kind {
    MC_STORE_STORED = 1,       /* a replica of key can be read */
    MC_STORE_EVICTED = 2,      /* a replica is gone, for room */
    MC_STORE_REMOVED = 3,      /* a replica is gone, by request, or its node is */
    MC_STORE_NODE_UP = 4,      /* key is not read */
    MC_STORE_NODE_DOWN = 5,    /* all replicas on it are gone; no event for each */
    MC_STORE_RESET = 6,        /* forget everything: a snapshot follows (at the start, after a gap,
                               * after the master restarted) */
    MC_STORE_SNAPSHOT_END = 7, /* what was STORED since RESET is the state; events behind it may say
                               * again what is known, which means nothing */
};

/** Unknown kinds are to be skipped: later releases add some. */
struct mc_store_event {
    uint32_t kind; /* enum mc_store_event_kind */
    enum mc_medium medium;
    uint64_t
        sequence; /* grows by 1 with each event of one epoch; of a snapshot's events: one for all */
    uint64_t epoch; /* of the master: it changes when the master restarts */
    uint64_t node;
    uint64_t length; /* bytes of payload */
    struct mc_key key;
    uint64_t reserved[1];
};

/**
 * Subscribe. Starts with MC_STORE_RESET and a snapshot unless the stream can go on behind event
 * `sequence` of `epoch` (0, 0: from the start). A reader too slow for the queue sees a RESET, never a
 * hole.
 *
 * Returns MC_OK, MC_E_FULL or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_store_events_open(mc_store *store, uint64_t epoch,
                                                  uint64_t sequence, mc_store_events **events_p);

/**
 * Take up to `capacity` events; waits until `deadline_ns` for the first.
 * Returns MC_OK (*count_p >= 1), MC_E_NOT_FOUND (none in time) or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_store_events_take(mc_store_events *events,
                                                  struct mc_store_event *events_p, size_t capacity,
                                                  size_t *count_p, uint64_t deadline_ns);

/** For an event loop: readable when there are events. Owned by the subscription. */
MC_API mc_status mc_store_events_fd(mc_store_events *events, int *fd_p);

/** NULL is allowed. */
MC_API void mc_store_events_close(mc_store_events *events);

/* ----------------------------------------------------------------------------------------- stats */

/** The pool as the master sees it, and this client's own counters. */
struct mc_store_stats {
    uint64_t nodes, objects, replicas, leases, tokens; /* now */
    uint64_t capacity_bytes, used_bytes;               /* now, DRAM */
    uint64_t ssd_capacity_bytes, ssd_used_bytes;       /* now */
    uint64_t
        quarantined_bytes; /* now: given back, and perhaps still touched by a stopped process */
    uint64_t evicted_objects, evicted_bytes; /* since the master's start */
    uint64_t get_hits, get_misses, get_failed, put_stored, put_existed,
        put_failed;                /* this client */
    uint64_t get_bytes, put_bytes; /* this client */
    uint64_t corrupt;              /* this client: replicas that failed to verify */
    uint64_t reserved[8];
};

/** Waits until `deadline_ns` for the master's part. MC_OK, MC_E_TIMEOUT or MC_E_PEER. */
MC_API MC_MUST_USE mc_status mc_store_stats(mc_store *store, uint64_t deadline_ns,
                                            struct mc_store_stats *stats_p, struct mc_error *error);

/* ---------------------------------------------------------------------------------------- lending */

struct mc_store_node_options {
    uint64_t capacity_bytes; /* DRAM to lend, allocated from the transfer engine; > 0 */
    const char *location;    /* "cpu:0"; default: anywhere */
    const char *ssd_path;    /* a directory for what leaves DRAM; default: none */
    uint64_t ssd_capacity_bytes;
    uint64_t lease_ns;    /* the master forgets a node that is silent for so long; default 10 s */
    uint64_t objects_max; /* held at a time, 130 bytes each; default: one for each 8 KiB lent */
    uint64_t reserved[3];
};

/**
 * Lend memory of this process to the pool. A master that restarts is told again what is held, from
 * the objects' headers.
 *
 * Returns MC_OK, MC_E_ARG, MC_E_FULL (the transfer engine's memory_max), MC_E_NOMEM or MC_E_IO.
 */
MC_API MC_MUST_USE mc_status mc_store_node_open(mc_store *store,
                                                const struct mc_store_node_options *options,
                                                mc_store_node **node_p, struct mc_error *error);

/** Take no more; objects move to other nodes as far as there is room, each away from the pool for a moment.
 * Returns MC_OK (nothing is here alone), MC_E_FULL (no room elsewhere for what is left), MC_E_TIMEOUT (not
 * done; call again) or MC_E_NOMEM. */
MC_API MC_MUST_USE mc_status mc_store_node_drain(mc_store_node *node, uint64_t deadline_ns);

/** Leave the pool: what was only here is lost. Waits until quiet, frees. NULL is allowed. */
MC_API void mc_store_node_close(mc_store_node *node);

MC_C_END

#endif /* MC_STORE_H */
