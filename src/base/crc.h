/*
 * crc.h - CRC32C (Castagnoli, reflected): the one checksum of frames, objects and transfers.
 *
 * Pure; any thread. At memory speed where the processor has an instruction for it (x86-64 with SSE4.2 and
 * PCLMULQDQ, asked for at run time); elsewhere by tables, eight bytes at a time, with the same result.
 */
#ifndef BASE_CRC_H
#define BASE_CRC_H

#include <stddef.h>
#include <stdint.h>

/** Go on from `crc` (0 at the start): crc32c(crc32c(0, a), b) is that of a and b together. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t size);

/** Copy `size` bytes and return crc32c(crc, from, size) of them, in one pass: what was summed is what was
 * copied, also when somebody changes `from` meanwhile. The two may not overlap. */
uint32_t crc32c_copy(uint32_t crc, void *to, const void *from, size_t size);

/** The same two by tables alone: what runs where there is no instruction, and what tests compare with. */
uint32_t crc32c_plain(uint32_t crc, const void *bytes, size_t size);
uint32_t crc32c_copy_plain(uint32_t crc, void *to, const void *from, size_t size);

#endif /* BASE_CRC_H */
