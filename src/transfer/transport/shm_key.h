/*
 * shm_key.h - the bytes that the shared-memory transport publishes: where an engine answers on this
 * machine, and which slots of its control page a region or window has.
 *
 * Threads: pure functions. Memory: values, copied. Errors: what a peer published is an event: false.
 *
 * Address, 84 bytes:   0         4      20    52       84
 *                     | version | name | ask | answer |
 *
 *   name    of the abstract Unix socket, in hexadecimal behind "mooncake-"
 *   ask     what a peer must say there, and
 *   answer  what it must hear: only this engine and those who read its description know both.
 *
 * Key, 32 bytes:       0         4        8            16       24       28      32
 *                     | version | region | generation | ticket | window | flags |
 *
 *   region, generation  of the slot in the control page
 *   ticket              64 random bits: who knows them may have the region's descriptor
 *   window              slot in the control page, or SHM_NO_WINDOW
 */
#ifndef TRANSFER_SHM_KEY_H
#define TRANSFER_SHM_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/store.h> /* struct mc_identity */

enum {
    SHM_VERSION = 1,
    SHM_NAME_BYTES = 16,
    SHM_ADDRESS_BYTES = 84,
    SHM_KEY_BYTES = 32,
};

#define SHM_NO_WINDOW UINT32_MAX

struct shm_address {
    uint8_t name[SHM_NAME_BYTES];
    struct mc_identity ask, answer;
};

struct shm_key {
    uint32_t region, window;
    uint64_t generation; /* of the region's slot */
    uint64_t ticket;
};

void shm_address_encode(const struct shm_address *address, uint8_t bytes[SHM_ADDRESS_BYTES]);
bool shm_address_decode(const uint8_t *bytes, size_t size, struct shm_address *address_p);

void shm_key_encode(const struct shm_key *key, uint8_t bytes[SHM_KEY_BYTES]);
bool shm_key_decode(const uint8_t *bytes, size_t size, struct shm_key *key_p);

#endif /* TRANSFER_SHM_KEY_H */
