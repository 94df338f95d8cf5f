/*
 * object.h - the bytes of an object (drawn in mooncake/store.h): made by who puts, checked by who reads
 * and by a node before it says what it holds.
 *
 * Pure functions; any thread; nothing is allocated.
 */
#ifndef STORE_OBJECT_H
#define STORE_OBJECT_H

#include <mooncake/store.h>

/** The first 16 bytes of an identity. */
struct mc_key object_key(const struct mc_identity *identity);

/** Make a header, sums included. */
void object_header_make(struct mc_object_header *header, const struct mc_identity *identity,
                        uint64_t length, uint64_t generation);

/**
 * Is this the header of an object with `length` bytes of payload, here and now?
 *
 * Returns MC_OK; MC_E_STALE (a right header of another object or generation: the place was given
 * away); MC_E_CORRUPT (not a header, or its sum is wrong).
 */
mc_status object_header_check(const struct mc_object_header *header,
                              const struct mc_identity *identity, uint64_t length,
                              uint64_t generation);

/** Is this any object's header? MC_OK or MC_E_CORRUPT. */
mc_status object_header_whole(const struct mc_object_header *header);

/** CRC32C of the pieces of a payload that lies in `ranges` one after another, whose first `length` bytes
 * count, into `sums`, mc_object_pieces(length) numbers. The ranges are long enough. */
void object_sum(const struct mc_range *ranges, uint64_t count, uint64_t length, uint32_t *sums);

/** The trailer of an object with this header: its sums, each bound to the header. `pieces` of 4 bytes. */
void object_trailer_make(const struct mc_object_header *header, const uint32_t *sums,
                         uint64_t pieces, uint8_t *trailer);

/** Does the payload agree with header and trailer? MC_OK or MC_E_CORRUPT. */
mc_status object_verify(const struct mc_object_header *header, const struct mc_range *ranges,
                        uint64_t count, const uint8_t *trailer);

/**
 * What lies in a place of `size` bytes at `bytes`: an object that is whole, by header and sums, of this
 * generation? MC_OK (*header_p is a copy) or MC_E_CORRUPT, MC_E_STALE.
 */
mc_status object_inspect(const void *bytes, uint64_t size, uint64_t generation,
                         struct mc_object_header *header_p);

#endif /* STORE_OBJECT_H */
