/*
 * registry.h - this engine's own memory: blocks, regions, windows, and the pins on them.
 *
 * Life:    registry_init -> memory, regions and windows come and go -> registry_fini
 * Threads: any. `admin` orders those who register, grant and revoke, and is held while transports are
 *          told; `lock` is a leaf and guards what a pin reads and counts. Both are taken in here alone.
 * Memory:  a region or window lives until it is quiet: closed, no pin on it, and every transport says so.
 */
#ifndef TRANSFER_REGISTRY_H
#define TRANSFER_REGISTRY_H

#include <pthread.h>
#include <stdatomic.h>

#include <mooncake/transfer.h>

#include "os/shared.h"
#include "transfer/transport.h"

/** What a transport gave for a region or window. */
struct transport_key {
    uint8_t bytes[TRANSPORT_KEY_MAX];
    uint32_t size;
    bool opened; /* by this transport */
};

/** One life of a registered range. */
struct region {
    struct mc_region handle;
    char *address;
    uint64_t size;
    uint32_t permissions, flags;
    char tag[64], location[64];
    struct transport_key *keys; /* owned; [carriers] */
    void **private;             /* owned; [carriers]: private bytes of each transport */
    void *block;                /* owned: where they lie */
    /* Under registry.lock: */
    bool closing;
    uint32_t pins; /* accesses of peers */
    uint32_t uses; /* slices of this engine's own batches */
    /* Under admin: */
    uint32_t windows; /* over it and not gone */
    bool quarantined;
};

/** One window. */
struct window {
    struct window *next, **prev_p; /* all windows, under admin */
    struct window *chain;          /* of its bucket, under registry.lock */
    struct mc_window grant;
    struct region *region;
    uint64_t *offsets; /* owned; [count]; NULL: side by side */
    uint64_t count;
    uint64_t holder;
    struct transport_key *keys; /* owned; [carriers] */
    /* Under registry.lock: */
    uint64_t expires_ns;
    bool closing; /* revoked, or expired and seen to be */
    uint32_t pins;
    /* Under admin: */
    bool quarantined;
};

struct region_slot {
    struct region *region; /* NULL: free */
    uint64_t generation;   /* of the last life */
};

struct memory_block {
    struct memory_block *next;
    struct os_shared shared;
    size_t size; /* as asked for */
};

struct registry {
    pthread_mutex_t admin, lock;
    struct memory_block *blocks; /* under admin */
    uint64_t block_bytes;
    struct region_slot *slots; /* owned; [regions_max], by id - 1; changed under both locks */
    uint32_t slot_next;        /* where to look for a free one: the one longest free comes first */
    uint32_t region_count, published;
    struct region **sorted; /* owned; [regions_max]: open ones by address, under registry.lock */
    uint64_t *ends;         /* owned; the largest end of sorted[0 .. i] */
    uint32_t sorted_count;
    struct window **buckets; /* owned; [bucket_count] */
    uint32_t bucket_count;   /* a power of 2 */
    struct window *windows;
    uint32_t window_count;
    uint64_t window_first, window_next; /* generations granted in this life */
    uint64_t version;                   /* of the descriptor; under admin */
    uint64_t registered_bytes, quarantined_bytes;
    _Atomic uint32_t quiet; /* raised when something closed lost its last pin */
};

mc_status registry_init(mc_transfer *engine);
/** Revoke and unregister what is left; what is not quiet by `deadline_ns` is left behind and logged. */
void registry_fini(mc_transfer *engine, uint64_t deadline_ns);
/** Safe on what registry_init() left half-way. */
void registry_free(mc_transfer *engine);

/* ---- memory.c */

/** The block that holds the whole range, or NULL. Under admin. */
const struct memory_block *memory_find(const struct registry *registry, const void *address,
                                       uint64_t size);
/** Free all blocks. */
void memory_close(mc_transfer *engine);

/* ---- region.c */

/** The open region of `handle`, or NULL. Under admin or registry.lock. */
struct region *region_find(const mc_transfer *engine, const struct mc_region *handle);

/** Whether nothing touches it any more. Under admin; it is closing. */
bool region_is_quiet(mc_transfer *engine, struct region *region, uint64_t *blocker_p);

/** For the own segment, as mc_segment_region() and mc_segment_find(). */
mc_status own_region(mc_transfer *engine, uint32_t index, struct mc_segment_region *region_p);
mc_status own_find(mc_transfer *engine, uint64_t address, uint64_t size, struct mc_region *region_p,
                   uint64_t *offset_p);

/* ---- window.c */

/** The window of a key, or NULL. Under registry.lock. */
struct window *window_find(const struct registry *registry, const uint64_t key[2]);

/** Refuse from now on and tell the transports. Under admin. */
void window_shut(mc_transfer *engine, struct window *window);
/** Whether nothing touches what is behind it any more. Under admin; it is closing. */
bool window_is_quiet(mc_transfer *engine, struct window *window, uint64_t *blocker_p);
/** Forget a quiet window. Under admin. */
void window_free(mc_transfer *engine, struct window *window);
/** Close those whose time is over; returns when the next one is, UINT64_MAX: none. */
uint64_t windows_expire(mc_transfer *engine, uint64_t now_ns);

/** As mc_window_renew(), by key and generation. */
mc_status window_renew_key(mc_transfer *engine, const uint64_t key[2], uint64_t generation,
                           uint64_t lease_ns);
/** Close a window and look whether it is quiet: MC_OK, MC_PENDING, or MC_E_STALE (never granted). */
mc_status window_revoke_step(mc_transfer *engine, const uint64_t key[2], uint64_t generation,
                             uint64_t *blocker_p);
/** Note that a window outlasted its revoke. */
void window_quarantine(mc_transfer *engine, const uint64_t key[2]);

/* ---- pin.c */

/** Check an access and hold what it names. MC_OK, MC_E_DENIED, MC_E_STALE or MC_E_RANGE. Hot. */
mc_status pin_take(mc_transfer *engine, const struct transport_access *access, void **address_p,
                   uint64_t *pin_p);
void pin_drop(mc_transfer *engine, uint64_t pin);

/** Whether a key of a window opens anything for access->peer now. Under admin, as long as *window_p is
 * used. */
mc_status pin_check(mc_transfer *engine, const struct transport_access *access,
                    const struct window **window_p);

/** For struct transport_env: the same for a carrier, counted. */
mc_status pin_of_carrier(void *carrier, const struct transport_access *access, void **address_p,
                         uint64_t *pin_p);
void unpin_of_carrier(void *carrier, uint64_t pin);
/** Bytes that a peer moved, for the counters. */
void moved_by_carrier(void *carrier, enum mc_op op, uint64_t bytes);

/** Hold the region that has all of [address, size) for a slice of our own. write: the memory will be
 * changed. NULL: none. Hot. */
struct region *use_take(mc_transfer *engine, const void *address, uint64_t size, bool write);
void use_drop(mc_transfer *engine, struct region *region);
/** Whether use_take() would find one. */
bool use_allowed(mc_transfer *engine, const void *address, uint64_t size, bool write);

#endif /* TRANSFER_REGISTRY_H */
