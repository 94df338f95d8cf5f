/* crc.c - CRC32C: by eight tables (slicing, Kounavis and Berry 2005), or three at a time by instruction. */
#include "base/crc.h"

#include <stdbool.h>
#include <string.h>

#include "base/crc_table.h"

/* Functions below come in pairs, with and without a copy: `to` is a constant NULL in one of them, and
 * the compiler makes two loops of one text. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* --------------------------------------------------------------------------------------- by tables */

static uint32_t byte_plain(uint32_t crc, uint8_t byte)
{
    return (crc >> 8) ^ remainders[0][(crc ^ byte) & 0xff];
}

/** Eight bytes at once: each is looked up with as many zeros behind it as bytes follow. */
static uint32_t eight_plain(uint32_t crc, const uint8_t b[8])
{
    return remainders[7][(crc ^ b[0]) & 0xff] ^ remainders[6][(crc >> 8 ^ b[1]) & 0xff] ^
           remainders[5][(crc >> 16 ^ b[2]) & 0xff] ^ remainders[4][(crc >> 24 ^ b[3]) & 0xff] ^
           remainders[3][b[4]] ^ remainders[2][b[5]] ^ remainders[1][b[6]] ^ remainders[0][b[7]];
}

ALWAYS_INLINE uint32_t sum_plain(uint32_t crc, uint8_t *to, const uint8_t *from, size_t size)
{
    size_t i = 0;

    crc = ~crc;
    for (; size - i >= 8; i += 8) {
        uint8_t b[8];

        memcpy(b, from + i, 8);
        if (to)
            memcpy(to + i, b, 8);
        crc = eight_plain(crc, b);
    }
    for (; i < size; i++) {
        const uint8_t b = from[i];

        if (to)
            to[i] = b;
        crc = byte_plain(crc, b);
    }
    return ~crc;
}

uint32_t crc32c_plain(uint32_t crc, const void *bytes, size_t size)
{
    return sum_plain(crc, NULL, bytes, size);
}

uint32_t crc32c_copy_plain(uint32_t crc, void *to, const void *from, size_t size)
{
    return size ? sum_plain(crc, to, from, size) : crc;
}

/* ---------------------------------------------------------------------------------- by instruction */

#if defined(__x86_64__)
#include <immintrin.h>

#define WITH_INSTRUCTION __attribute__((target("sse4.2,pclmul")))

/* The instruction takes three cycles and one can begin in each, so three lanes side by side keep it
 * busy. Lanes are joined by moving the earlier ones over the zeros that the later ones stand for. Twelve
 * long lanes and a rest of 256 bytes make 64 KiB; and they do not lie at equal places in a page, which
 * makes loads wait for stores. */
enum { LANE_LONG = 5440, LANE_SHORT = 256 };

/* x^(8 n - 33) modulo the polynomial, reflected, for n = one and two lanes; 33: what the product's place
 * in its 64 bits and the instruction's own shift add (tests hold both ways against the polynomial). */
static const uint32_t over_long[2] = { 0xfa0f2bd0u, 0x0c8774a7u };
static const uint32_t over_short[2] = { 0xb9e02b86u, 0xdd7e3b0cu };

WITH_INSTRUCTION ALWAYS_INLINE uint32_t move_over(uint64_t crc, uint32_t zeros)
{
    const __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128(zeros), 0);

    return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

WITH_INSTRUCTION ALWAYS_INLINE uint64_t eight(uint64_t crc, uint8_t *to, const uint8_t *from)
{
    uint64_t v;

    memcpy(&v, from, 8);
    if (to)
        memcpy(to, &v, 8);
    return _mm_crc32_u64(crc, v);
}

/** Three lanes of `lane` bytes. */
WITH_INSTRUCTION ALWAYS_INLINE uint64_t lanes(uint64_t crc, uint8_t *to, const uint8_t *from,
                                              size_t lane, const uint32_t over[2])
{
    uint64_t second = 0, third = 0;

    for (size_t i = 0; i < lane; i += 8) {
        crc = eight(crc, to ? to + i : NULL, from + i);
        second = eight(second, to ? to + lane + i : NULL, from + lane + i);
        third = eight(third, to ? to + 2 * lane + i : NULL, from + 2 * lane + i);
    }
    return move_over(crc, over[1]) ^ move_over(second, over[0]) ^ third;
}

WITH_INSTRUCTION ALWAYS_INLINE uint32_t sum_fast(uint32_t before, uint8_t *to, const uint8_t *from,
                                                 size_t size)
{
    uint64_t crc = (uint32_t)~before;
    size_t i = 0;

    for (; size - i >= 3 * LANE_LONG; i += 3 * LANE_LONG)
        crc = lanes(crc, to ? to + i : NULL, from + i, LANE_LONG, over_long);
    for (; size - i >= 3 * LANE_SHORT; i += 3 * LANE_SHORT)
        crc = lanes(crc, to ? to + i : NULL, from + i, LANE_SHORT, over_short);
    for (; size - i >= 8; i += 8)
        crc = eight(crc, to ? to + i : NULL, from + i);
    for (; i < size; i++) {
        const uint8_t b = from[i];

        if (to)
            to[i] = b;
        crc = _mm_crc32_u8((uint32_t)crc, b);
    }
    return ~(uint32_t)crc;
}

WITH_INSTRUCTION static uint32_t crc32c_fast(uint32_t crc, const void *bytes, size_t size)
{
    return sum_fast(crc, NULL, bytes, size);
}

WITH_INSTRUCTION static uint32_t crc32c_copy_fast(uint32_t crc, void *to, const void *from,
                                                  size_t size)
{
    return sum_fast(crc, to, from, size);
}

static bool has_instruction(void)
{
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

#else

static bool has_instruction(void)
{
    return false;
}

static uint32_t crc32c_fast(uint32_t crc, const void *bytes, size_t size)
{
    return crc32c_plain(crc, bytes, size);
}

static uint32_t crc32c_copy_fast(uint32_t crc, void *to, const void *from, size_t size)
{
    return crc32c_copy_plain(crc, to, from, size);
}

#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t size)
{
    return has_instruction() ? crc32c_fast(crc, bytes, size) : crc32c_plain(crc, bytes, size);
}

uint32_t crc32c_copy(uint32_t crc, void *to, const void *from, size_t size)
{
    if (size == 0)
        return crc;
    return has_instruction() ? crc32c_copy_fast(crc, to, from, size)
                             : crc32c_copy_plain(crc, to, from, size);
}
