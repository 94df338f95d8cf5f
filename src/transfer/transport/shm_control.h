/*
 * shm_control.h - the two pages that make one-sided access safe: what the owner of memory says of it,
 * and what a peer is touching just now.
 *
 * The control page is the owner's memfd, mapped by every peer, sealed so that no peer can write it:
 *
 *      0        64                 4096                      4096 + 64 REGIONS
 *     | header | (empty)          | region slots, 64 B each | window slots, 64 B each |
 *
 * A slot is live while its generation is not 0; the rest of a slot is written before the generation
 * becomes live and not again until no pin names it. It is sparse: untouched slots take no memory.
 *
 * The pin page is one for each connection, mapped by owner and peer, written by the peer: one word, what
 * the copy in progress touches.
 *
 *     63       32        0
 *     | region | window + 1 |     0: nothing
 *
 * How an access and a revoke meet (Dekker): the peer writes its pin, *then* reads the generations; the
 * owner clears the generation, *then* reads the pins. All four are sequentially consistent, so at least
 * one sees the other: the peer does not start, or the owner waits.
 *
 * Threads: slots are written by the owner under its lock. A pin belongs to one queue of the peer.
 * Errors:  what a peer's page says is an event. Descriptors are taken only when sealed against
 *          shrinking, so that touching them never raises SIGBUS.
 */
#ifndef TRANSFER_SHM_CONTROL_H
#define TRANSFER_SHM_CONTROL_H

#include <stdatomic.h>

#include "transfer/transport.h"
#include "transfer/transport/shm_key.h"

enum {
    SHM_REGIONS = 65536,  /* slots; ids of regions are slots, 0 is not used */
    SHM_WINDOWS = 262144, /* slots */
    SHM_PIECE = 1 << 20,  /* bytes that move under one pin */
};

struct shm_header {
    uint64_t magic;
    uint32_t version, regions, windows, reserved;
    uint64_t incarnation; /* the owner's */
    uint8_t pad[32];
};

enum shm_region_flags { SHM_MAPPED = 1 }; /* has a descriptor that peers may map */

struct shm_region_slot {
    _Atomic uint64_t generation; /* 0: refused */
    _Atomic uint64_t address;    /* in the owner's address space */
    _Atomic uint64_t size;
    _Atomic uint32_t permissions, flags;
    uint8_t pad[32];
};

struct shm_window_slot {
    _Atomic uint64_t generation; /* 0: refused */
    _Atomic uint64_t tag;        /* shm_tag() of the key: the page can be read by every peer */
    _Atomic uint64_t size, piece_bytes;
    _Atomic uint32_t region, permissions;
    uint8_t pad[24];
};

static_assert(sizeof(struct shm_header) == 64, "as drawn");
static_assert(sizeof(struct shm_region_slot) == 64, "one cache line");
static_assert(sizeof(struct shm_window_slot) == 64, "one cache line");

struct shm_page {
    struct shm_header header;
    uint8_t pad[4096 - 64];
    struct shm_region_slot regions[SHM_REGIONS];
    struct shm_window_slot windows[SHM_WINDOWS];
};
static_assert(offsetof(struct shm_page, regions) == 4096, "as drawn");

struct shm_pins {
    _Atomic uint64_t pin;
    uint8_t pad[4096 - 8];
};
static_assert(sizeof(struct shm_pins) == 4096, "a page");

/** 64 bits that the holder of a key can compute and from which nobody learns the key: half of its bits
 * stay unknown. */
uint64_t shm_tag(const uint64_t key[2]);

static inline uint64_t shm_pin_word(uint32_t region, uint32_t window)
{
    return (uint64_t)region << 32 | (uint32_t)(window + 1); /* SHM_NO_WINDOW becomes 0 */
}

/** A memfd of `size` bytes, mapped to be written. `seals`: beside those against growing and shrinking, set
 * after it was mapped. MC_OK, MC_E_FULL (descriptors), MC_E_NOMEM or MC_E_IO. */
mc_status shm_memory_open(size_t size, int seals, int *fd_p, void **memory_p,
                          struct mc_error *error);

/**
 * Map a descriptor that a peer sent, after asking the kernel whether it is what the peer says: a file
 * sealed against shrinking that holds [offset, offset + size). It is not inherited by children.
 *
 * Returns MC_OK, MC_E_FORMAT (not such a file), MC_E_NOMEM or MC_E_IO.
 */
mc_status shm_memory_map(int fd, uint64_t offset, size_t size, bool writable, void **memory_p,
                         struct mc_error *error);

/** Seal a region's descriptor against shrinking if it is not yet; whether peers may map it. */
bool shm_memory_sealed(int fd);

/** Write the header of an empty page. */
void shm_page_init(struct shm_page *page, uint64_t incarnation);

/** Whether the page is one that this release reads. */
bool shm_page_valid(const struct shm_page *page, uint64_t incarnation);

/** Where an access was found to lead. */
struct shm_place {
    uint64_t address; /* of the region in its owner's address space */
    uint64_t size;    /* of the region */
    uint64_t offset;  /* of the access in the region */
    uint32_t permissions, flags;
};

/**
 * Whether an access may happen now; good as long as the pin that names its slots is held. Nothing that the
 * page says is believed beyond its own owner's memory.
 *
 * Returns MC_OK, MC_E_STALE (generations), MC_E_DENIED (key, permission), MC_E_RANGE, or MC_E_IO (the
 * place is not known here: another transport may reach it).
 */
mc_status shm_check(const struct shm_page *page, const struct shm_key *key,
                    const struct transport_access *access, struct shm_place *place_p);

#endif /* TRANSFER_SHM_CONTROL_H */
