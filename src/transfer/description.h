/*
 * description.h - a segment as it is published: written from the registry, read from a peer's bytes.
 *
 * Threads: description_tell takes registry.admin; a decoded one belongs to its segment.
 * Memory:  owned by the caller; description_close().
 */
#ifndef TRANSFER_DESCRIPTION_H
#define TRANSFER_DESCRIPTION_H

#include "transfer/engine.h"
#include "wire/msg.h"

/** A key of a peer's region for one of our transports. */
struct peer_key {
    const uint8_t *bytes; /* [size]; NULL: this transport does not reach it */
    uint32_t size;
};

struct peer_region {
    struct mc_region handle;
    uint64_t address, size;
    uint32_t permissions;
    struct wire_slice tag, location;      /* in the description's bytes */
    struct peer_key keys[TRANSPORTS_MAX]; /* by our carriers */
};

struct description {
    const struct mc_alloc *alloc;
    uint64_t incarnation, version;
    struct mc_identity host;
    struct peer_key endpoints[TRANSPORTS_MAX]; /* addresses, by our carriers */
    struct wire_slice control;                 /* "host:port"; empty: not told */
    struct peer_region *regions;               /* owned; [count], by id */
    uint32_t *by_address;                      /* owned; [count] */
    uint64_t *ends;                            /* owned; the largest end of by_address[0 .. i] */
    uint32_t count;
    uint8_t *bytes; /* owned: what the slices above borrow from */
};

/**
 * Read a message segment_description.
 *
 * body  [size], copied.
 *
 * Returns MC_OK, MC_E_FORMAT or MC_E_NOMEM.
 */
mc_status description_read(mc_transfer *engine, const uint8_t *body, size_t size,
                           struct description **description_p, struct mc_error *error);
/** NULL is allowed. */
void description_close(struct description *description);

/** The region of a handle, or NULL. */
const struct peer_region *description_region(const struct description *description, uint32_t id,
                                             uint64_t generation);
/** A region that holds all of [address, address + size), or NULL. Hot. */
const struct peer_region *description_find(const struct description *description, uint64_t address,
                                           uint64_t size);

/**
 * Call `tell` with this engine's own segment as a message, which lives during the call alone.
 *
 * known  the version that the asker has: if it is this one, only that is said.
 *
 * Returns what tell returned, or MC_E_NOMEM.
 */
mc_status description_tell(mc_transfer *engine, uint64_t known,
                           mc_status (*tell)(void *user,
                                             const struct wire_segment_description *message),
                           void *user);

/**
 * The same for where a window's pieces lie: told to whoever has its key, and is its holder if it has one.
 *
 * Returns what tell returned, MC_E_DENIED, MC_E_STALE or MC_E_NOMEM.
 */
mc_status window_tell(mc_transfer *engine, const uint64_t key[2], uint64_t generation,
                      uint64_t peer,
                      mc_status (*tell)(void *user, const struct wire_window_map *message),
                      void *user);

#endif /* TRANSFER_DESCRIPTION_H */
