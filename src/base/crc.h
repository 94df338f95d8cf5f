/*
 * crc.h - CRC32C (Castagnoli, reflected): the one checksum of frames, objects and transfers.
 *
 * Pure; any thread. Byte at a time: right everywhere and fast enough for frames; what sums payload
 * at memory speed is a kernel of its own that must agree with this.
 */
#ifndef BASE_CRC_H
#define BASE_CRC_H

#include <stddef.h>
#include <stdint.h>

/** Go on from `crc` (0 at the start): crc32c(crc32c(0, a), b) is that of a and b together. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t size);

#endif /* BASE_CRC_H */
